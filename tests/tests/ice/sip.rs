//! Phones, each behind a NAT of its own, and the proxy of the example, which asks the relay.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use hairpin_tests::lab::server::is_installed;
use hairpin_tests::lab::sip::{PORT, Phone, Proxy};
use hairpin_tests::lab::{Family, Lab, nat};
use serde_json::json;

use super::{expect_kernel, start};

/// How long a call is: 50 packets a second in both directions.
const TALK: Duration = Duration::from_secs(8);

#[test]
fn phones_with_ice_call_each_other() {
    call(true, true);
}

#[test]
fn a_phone_with_ice_calls_one_without() {
    call(true, false);
}

#[test]
fn a_phone_without_ice_calls_one_with() {
    call(false, true);
}

#[test]
fn phones_without_ice_call_each_other() {
    call(false, false);
}

/// A call is set up, both sides hear each other for a while, and what was set up for it goes with it.
fn call(caller_has_ice: bool, callee_has_ice: bool) {
    if !is_installed("baresip") || !nat::is_possible() {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let homes = [0, 1].map(|index| nat::behind(&lab.clients[index]));
    let relay = start(&lab);
    let proxy = Proxy::start(&lab.relay, SocketAddr::new(Lab::relay_ip(Family::V4), PORT), &relay.socket());
    let callee = Phone::register(&homes[1], &proxy, "bob", callee_has_ice);
    let caller = Phone::call(&homes[0], &proxy, "alice", caller_has_ice, "bob");
    thread::sleep(TALK);

    let sessions = relay.list();
    assert_eq!(sessions.len(), 1, "{sessions:?}\n{}", proxy.log());
    let session = relay.session(sessions[0]["id"].as_str().expect("a name")).show();
    let kinds = [caller_has_ice, callee_has_ice].map(|has_ice| if has_ice { json!("ice") } else { json!("plain") });
    assert_eq!([&session["a"]["kind"], &session["b"]["kind"]], kinds.each_ref(), "{session:#}");
    assert_eq!(session["state"], "connected", "{session:#}\n{}\n{}", caller.log(), callee.log());
    expect_kernel(&session, 700, 99);

    let heard = [caller.hang_up(), callee.wait_for_the_end()];
    for (one, other) in [(0, 1), (1, 0)] {
        // Whoever is plain sends before the other side has chosen its way.
        assert!(heard[one].received + 5 >= heard[other].sent, "{heard:?}");
        assert!(heard[one].received >= 350, "{heard:?}");
    }
    assert!(relay.list().is_empty(), "the call has ended: {}", proxy.log());
    relay.relay.stop();
}
