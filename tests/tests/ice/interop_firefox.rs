//! Firefox, alone and with Chromium: audio, video and messages.

use hairpin_tests::lab::browser::{Browser, Kind};
use hairpin_tests::lab::{Lab, Namespace, nat};

use super::browsers::{exchange_messages, talk_and_restart};
use super::start;

#[test]
fn firefoxes_see_and_hear_each_other_and_go_on_after_a_restart() {
    talk([Kind::Firefox; 2]);
}

#[test]
fn a_firefox_calls_a_chromium() {
    talk([Kind::Firefox, Kind::Chromium]);
}

#[test]
fn a_chromium_calls_a_firefox() {
    talk([Kind::Chromium, Kind::Firefox]);
}

#[test]
fn firefoxes_exchange_messages() {
    let kinds = [Kind::Firefox; 2];
    if !is_possible(kinds) {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let relay = start(&lab);
    exchange_messages(&relay, &mut open(kinds, [&lab.clients[0], &lab.clients[1]]));
    relay.relay.stop();
}

/// The one that calls is behind a NAT.
fn talk(kinds: [Kind; 2]) {
    if !is_possible(kinds) || !nat::is_possible() {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let home = nat::behind(&lab.clients[0]);
    let relay = start(&lab);
    talk_and_restart(&relay, &mut open(kinds, [&home, &lab.clients[1]]));
    relay.relay.stop();
}

fn is_possible(kinds: [Kind; 2]) -> bool {
    kinds.into_iter().all(Kind::is_installed)
}

fn open(kinds: [Kind; 2], hosts: [&Namespace; 2]) -> [Browser; 2] {
    let [caller, callee] = kinds;
    [Browser::open(caller, hosts[0]), Browser::open(callee, hosts[1])]
}
