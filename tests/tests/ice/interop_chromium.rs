//! Two Chromiums: audio and video, also when an address goes, and messages of those that hide their addresses.

use std::thread;
use std::time::Duration;

use hairpin_tests::lab::browser::{Browser, Kind};
use hairpin_tests::lab::ice::remote;
use hairpin_tests::lab::{Family, Lab, nat};
use serde_json::Value;

use super::browsers::{call, exchange_messages, is_more, talk_and_restart};
use super::start;

#[test]
fn browsers_see_and_hear_each_other_and_go_on_after_a_restart() {
    if !Kind::Chromium.is_installed() || !nat::is_possible() {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let home = nat::behind(&lab.clients[0]);
    let relay = start(&lab);
    let mut browsers = [&home, &lab.clients[1]].map(|host| Browser::open(Kind::Chromium, host));
    talk_and_restart(&relay, &mut browsers);
    relay.relay.stop();
}

/// The browser finds out that its address has gone, sends by another one at once, and says so with its next check.
#[test]
fn a_browser_goes_on_when_it_loses_the_address_in_use() {
    if !Kind::Chromium.is_installed() {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let relay = start(&lab);
    let mut browsers = [0, 1].map(|index| Browser::open(Kind::Chromium, &lab.clients[index]));
    let session = call(&relay, &mut browsers, true);
    let [caller, callee] = browsers.each_mut().map(|browser| &mut browser.page);
    for side in [&mut *caller, &mut *callee] {
        side.wait_for("media flows", |report| is_more(report, &Value::Null));
    }
    // It may choose a better way shortly after the first one.
    thread::sleep(Duration::from_secs(1));
    session.wait_for_kernel();

    let before = session.show();
    let is_in_use = |family: &Family| {
        remote(&before, "b", 1).is_some_and(|remote| remote.contains(&Lab::client_ip(*family, 1).to_string()))
    };
    let lost = Family::ALL.into_iter().find(is_in_use).unwrap_or_else(|| panic!("{before:#}"));
    let prefix = if lost == Family::V4 { 24 } else { 64 };
    let now = [caller.report(), callee.report()];
    lab.clients[1].ip(&format!("addr del {}/{prefix} dev eth0", Lab::client_ip(lost, 1)));
    let other = if lost == Family::V4 { Family::V6 } else { Family::V4 };
    session.wait_for("the relay has followed", |session| {
        remote(session, "b", 1).is_some_and(|remote| remote.contains(&Lab::client_ip(other, 1).to_string()))
    });
    for (side, now) in [caller, callee].into_iter().zip(now) {
        side.wait_for("media goes on", |report| is_more(report, &now) && report["state"] == "connected");
    }
    session.wait_for_kernel();
    session.close();
    relay.relay.stop();
}

/// All that the browser's NAT has known is gone, and the same socket has another outer address.
#[test]
fn a_browser_goes_on_when_its_nat_gets_another_address() {
    if !Kind::Chromium.is_installed() || !nat::is_possible() {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let home = nat::behind(&lab.clients[0]);
    let relay = start(&lab);
    let mut browsers = [&home, &lab.clients[1]].map(|host| Browser::open(Kind::Chromium, host));
    let session = call(&relay, &mut browsers, true);
    let [caller, callee] = browsers.each_mut().map(|browser| &mut browser.page);
    for side in [&mut *caller, &mut *callee] {
        side.wait_for("media flows", |report| is_more(report, &Value::Null));
    }
    session.wait_for_kernel();

    let now = [caller.report(), callee.report()];
    let mut events = session.events();
    nat::change_address(&lab.clients[0], "11.1.0.2", "11.1.0.77", "11.1.0.1");
    let moved = events.event();
    assert_eq!(moved["event"], "moved", "{moved}");
    let after = session.show();
    assert!(remote(&after, "a", 1).is_some_and(|remote| remote.starts_with("11.1.0.77:")), "{after:#}");
    for (side, now) in [caller, callee].into_iter().zip(now) {
        side.wait_for("media goes on", |report| is_more(report, &now));
    }
    session.close();
    relay.relay.stop();
}

/// Without a camera that it was given, a page tells names of its addresses that nobody here can resolve.
#[test]
fn browsers_that_hide_their_addresses_exchange_messages() {
    if !Kind::Chromium.is_installed() {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let relay = start(&lab);
    let mut browsers = [0, 1].map(|index| Browser::open(Kind::ChromiumWithoutCamera, &lab.clients[index]));
    exchange_messages(&relay, &mut browsers);
    relay.relay.stop();
}
