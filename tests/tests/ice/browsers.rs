//! Two browsers with no ICE server at all, whose descriptions go through the relay: audio, video and messages.

use hairpin_tests::lab::browser::Browser;
use hairpin_tests::lab::ice::{IceRelay, Session, is_candidate, packets, remote};
use serde_json::{Value, json};

use super::expect_kernel_since;

/// What anybody sees of how a call goes: packets of audio and video, and decoded pictures.
const MEDIA: [&str; 3] = ["audio", "video", "frames"];
const MESSAGES: u64 = 50;

/// A whole call: audio, video and messages, and both sides restart ICE, one after the other.
#[track_caller]
pub(super) fn talk_and_restart(relay: &IceRelay<'_>, browsers: &mut [Browser; 2]) {
    let session = call(relay, browsers, true);
    send_messages(browsers);
    for (browser, leg) in browsers.iter_mut().zip(["a", "b"]) {
        let report = browser
            .page
            .wait_for("media flows", |report| is_more(report, &Value::Null) && report["messages"] == MESSAGES);
        assert_eq!(report["role"], "controlling", "both have seen that the relay is lite: {report}");
        expect_relay(&session, leg, &report);
    }

    let [caller, callee] = browsers;
    restart(&session, "a", caller, callee);
    restart(&session, "b", callee, caller);
    let before = session.show();
    for (browser, leg) in browsers.iter_mut().zip(["a", "b"]) {
        let now = browser.page.report();
        let report = browser.page.wait_for("media goes on", |report| is_more(report, &now));
        expect_relay(&session, leg, &report);
    }
    expect_kernel_since(&before, &session.close(), 100, 99);
}

/// A call of messages and nothing else.
#[track_caller]
pub(super) fn exchange_messages(relay: &IceRelay<'_>, browsers: &mut [Browser; 2]) {
    let session = call(relay, browsers, false);
    send_messages(browsers);
    for (browser, leg) in browsers.iter_mut().zip(["a", "b"]) {
        let report = browser.page.wait_for("all have arrived", |report| report["messages"] == MESSAGES);
        expect_relay(&session, leg, &report);
    }
    session.close();
}

/// An offer, and its answer, by way of the relay.
#[track_caller]
pub(super) fn call<'r, 'n>(relay: &'r IceRelay<'n>, browsers: &mut [Browser; 2], media: bool) -> Session<'r, 'n> {
    let [caller, callee] = browsers;
    let offer = describe(caller, "offer", &json!({ "media": media }));
    let (session, to_callee) = relay.offer(&offer);
    let answer = describe(callee, "answer", &json!({ "sdp": to_callee, "media": media }));
    for description in [&offer, &answer] {
        // Who has no camera on is told names only, which nobody here can resolve.
        assert!(media || description.contains(".local "), "{description}");
    }
    let answer = session.answer("b", &answer);
    caller.page.ask("accept", &json!({ "sdp": answer }), "accepted");
    session
}

/// What a browser says of itself.
#[track_caller]
fn describe(browser: &mut Browser, order: &str, values: &Value) -> String {
    let said = browser.page.ask(order, values, "description");
    let sdp = said["sdp"].as_str().unwrap_or_else(|| panic!("no description: {said}"));
    sdp.to_owned()
}

/// Has both send their messages as soon as they can.
#[track_caller]
fn send_messages(browsers: &mut [Browser; 2]) {
    for browser in browsers {
        browser.page.hear("open");
        browser.page.tell("send", &json!({ "count": MESSAGES }));
    }
}

/// A side restarts ICE: its leg does, too, and the other one has nothing to do with it.
#[track_caller]
fn restart(session: &Session<'_, '_>, leg: &str, side: &mut Browser, other: &mut Browser) {
    let before = session.wait_for_kernel();
    let offer = describe(side, "offer", &json!({ "restart": true }));
    let offer = session.offer(leg, &offer);
    let answer = describe(other, "answer", &json!({ "sdp": offer }));
    let other_leg = if leg == "a" { "b" } else { "a" };
    let answer = session.answer(other_leg, &answer);
    side.page.ask("accept", &json!({ "sdp": answer }), "accepted");
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
pub(super) fn is_more(report: &Value, before: &Value) -> bool {
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
