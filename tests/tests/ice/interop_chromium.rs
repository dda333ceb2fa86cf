//! Two browsers with no ICE server at all, whose descriptions go through the relay: audio, video and messages.

use std::thread;
use std::time::Duration;

use hairpin_tests::lab::browser::Browser;
use hairpin_tests::lab::ice::{IceRelay, Session, is_candidate, packets, remote};
use hairpin_tests::lab::server::is_installed;
use hairpin_tests::lab::{Agent, Family, Lab, nat};
use serde_json::{Value, json};

use super::{expect_kernel_since, start};

/// What anybody sees of how a call goes: packets of audio and video, and decoded pictures.
const MEDIA: [&str; 3] = ["audio", "video", "frames"];

#[test]
fn browsers_see_and_hear_each_other_and_go_on_after_a_restart() {
    if !is_installed("chromium") || !nat::is_possible() {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let home = nat::behind(&lab.clients[0]);
    let relay = start(&lab);
    let mut browsers = [&home, &lab.clients[1]].map(Browser::open);
    let [caller, callee] = browsers.each_mut().map(|browser| &mut browser.page);
    let session = call(&relay, caller, callee, true);
    for side in [&mut *caller, &mut *callee] {
        side.hear("open");
        side.tell("send", &json!({ "count": 50 }));
    }
    for (side, leg) in [(&mut *caller, "a"), (&mut *callee, "b")] {
        let report = side.wait_for("media flows", |report| is_more(report, &Value::Null) && report["messages"] == 50);
        assert_eq!(report["role"], "controlling", "both have seen that the relay is lite: {report}");
        expect_relay(&session, leg, &report);
    }

    restart(&session, "a", caller, callee);
    restart(&session, "b", callee, caller);
    let before = session.show();
    for (side, leg) in [(caller, "a"), (callee, "b")] {
        let now = side.report();
        let report = side.wait_for("media goes on", |report| is_more(report, &now));
        expect_relay(&session, leg, &report);
    }
    expect_kernel_since(&before, &session.close(), 100, 99);
    relay.relay.stop();
}

/// The browser finds out that its address has gone, sends by another one at once, and says so with its next check.
#[test]
fn a_browser_goes_on_when_it_loses_the_address_in_use() {
    if !is_installed("chromium") {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let relay = start(&lab);
    let mut browsers = [0, 1].map(|index| Browser::open(&lab.clients[index]));
    let [caller, callee] = browsers.each_mut().map(|browser| &mut browser.page);
    let session = call(&relay, caller, callee, true);
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
    if !is_installed("chromium") || !nat::is_possible() {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let home = nat::behind(&lab.clients[0]);
    let relay = start(&lab);
    let mut browsers = [&home, &lab.clients[1]].map(Browser::open);
    let [caller, callee] = browsers.each_mut().map(|browser| &mut browser.page);
    let session = call(&relay, caller, callee, true);
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
    if !is_installed("chromium") {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let relay = start(&lab);
    let mut browsers = [0, 1].map(|index| Browser::open_without_camera(&lab.clients[index]));
    let [caller, callee] = browsers.each_mut().map(|browser| &mut browser.page);
    let session = call(&relay, caller, callee, false);
    for side in [&mut *caller, &mut *callee] {
        side.hear("open");
        side.tell("send", &json!({ "count": 50 }));
    }
    for (side, leg) in [(caller, "a"), (callee, "b")] {
        let report = side.wait_for("all have arrived", |report| report["messages"] == 50);
        expect_relay(&session, leg, &report);
    }
    session.close();
    relay.relay.stop();
}

/// An offer, and its answer, by way of the relay.
#[track_caller]
fn call<'r, 'n>(relay: &'r IceRelay<'n>, caller: &mut Agent, callee: &mut Agent, media: bool) -> Session<'r, 'n> {
    let offer = caller.ask("offer", &json!({ "media": media }), "description");
    assert_eq!(sdp(&offer).contains(".local "), !media, "{}", sdp(&offer));
    let (session, offer) = relay.offer(sdp(&offer));
    let answer = callee.ask("answer", &json!({ "sdp": offer, "media": media }), "description");
    let answer = session.answer("b", sdp(&answer));
    caller.ask("accept", &json!({ "sdp": answer }), "accepted");
    session
}

/// A side restarts ICE: its leg does, too, and the other one has nothing to do with it.
#[track_caller]
fn restart(session: &Session<'_, '_>, leg: &str, side: &mut Agent, other: &mut Agent) {
    let before = session.wait_for_kernel();
    let offer = side.ask("offer", &json!({ "restart": true }), "description");
    let offer = session.offer(leg, sdp(&offer));
    let answer = other.ask("answer", &json!({ "sdp": offer }), "description");
    let other_leg = if leg == "a" { "b" } else { "a" };
    let answer = session.answer(other_leg, sdp(&answer));
    side.ask("accept", &json!({ "sdp": answer }), "accepted");
    let after = session.wait_for("it has chosen again, from another socket", |session| {
        session[leg]["state"] == "nominated" && remote(session, leg, 1) != remote(&before, leg, 1)
    });
    assert_ne!(before[leg]["ufrag"], after[leg]["ufrag"]);
    assert_eq!(before[leg]["candidates"], after[leg]["candidates"]);
    assert_eq!(before[other_leg]["ufrag"], after[other_leg]["ufrag"]);
    let (all, kernel) = packets(&session.wait_for_kernel());
    println!("after a restart of {leg}: {kernel} of {all} packets in the kernel");
}

/// Whether enough of everything has come in since an earlier report.
fn is_more(report: &Value, before: &Value) -> bool {
    MEDIA.iter().all(|what| report[what].as_u64() > before[what].as_u64().map_or(Some(10), |before| Some(before + 10)))
}

/// Checks that a browser reaches a leg of the relay and nothing else.
#[track_caller]
fn expect_relay(session: &Session<'_, '_>, leg: &str, report: &Value) {
    assert!(is_candidate(&session.show(), leg, &report["selected"]["1"]["remote"]), "{report}");
    assert!(
        report["sent"].as_u64().zip(report["received"].as_u64()).is_some_and(|(sent, received)| sent.min(received) > 0)
    );
}

#[track_caller]
fn sdp(event: &Value) -> &str {
    event["sdp"].as_str().unwrap_or_else(|| panic!("no description: {event}"))
}
