//! Two peer connections of aiortc, whose descriptions go through the relay: DTLS, SRTP and SCTP over one session.

use hairpin_tests::lab::ice::is_candidate;
use hairpin_tests::lab::{Agent, Lab, python};
use serde_json::{Value, json};

use super::{expect_kernel, start};

#[test]
fn audio_and_messages_go_both_ways() {
    let Some(interpreter) = python::from_pypi() else { return };
    let lab = Lab::routed_with(2, 0);
    let relay = start(&lab);
    let [mut caller, mut callee] = [0, 1].map(|index| {
        let none: [&str; 0] = [];
        Agent::start(&lab.clients[index], interpreter, "aiortc_agent.py", none)
    });
    let offer = caller.ask("offer", &Value::Null, "description");
    let (session, offer) = relay.offer(offer["sdp"].as_str().expect("an offer"));
    let answer = callee.ask("answer", &json!({ "sdp": offer }), "description");
    let answer = session.answer("b", answer["sdp"].as_str().expect("an answer"));
    caller.tell("accept", &json!({ "sdp": answer }));
    for side in [&mut caller, &mut callee] {
        side.hear("open");
        side.tell("send", &json!({ "count": 50 }));
    }
    for (side, leg) in [(&mut caller, "a"), (&mut callee, "b")] {
        let report = side.wait_for("all has arrived", |report| {
            report["messages"] == 50 && report["audio"].as_u64().is_some_and(|audio| audio >= 150)
        });
        assert_eq!(report["state"], "connected");
        assert!(is_candidate(&session.show(), leg, &report["selected"]["1"]["remote"]), "{report}");
    }
    let described = session.show();
    assert_eq!(described["streams"].as_array().map(Vec::len), Some(1), "all is bundled: {described:#}");
    expect_kernel(&session.close(), 400, 95);
    relay.relay.stop();
}
