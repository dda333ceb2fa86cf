//! Offers and answers: both sides are told the session in place of each other.

use hairpin_tests::lab::Namespace;
use serde_json::{Value, json};

use super::{ICE, PLAIN, path};
use crate::bed::Bed;

/// What a description says of its only media section: port, and whether it is of ICE.
fn said(exchanged: &Value) -> (u16, bool) {
    let sdp = exchanged["sdp"].as_str().expect("text");
    let port = sdp.lines().find_map(|line| line.strip_prefix("m=audio ")?.split(' ').next()?.parse().ok());
    (port.unwrap_or_else(|| panic!("no media: {sdp}")), sdp.contains("a=ice-ufrag:"))
}

/// The port of a leg's first candidate.
fn port(session: &Value, leg: &str) -> u16 {
    let address = session[leg]["candidates"][0]["address"].as_str().expect("it has an address");
    address.rsplit_once(':').expect("IP:PORT").1.parse().expect("a port")
}

#[test]
fn a_call_is_offered_answered_and_offered_again() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let offered = bed.good("POST", "/v1/ice/offer", &json!({ "sdp": PLAIN, "to": "ice", "label": "call" }));
    let session = &offered["session"];
    assert_eq!(session["label"], "call");
    assert_eq!((&session["a"]["kind"], &session["b"]["kind"]), (&json!("plain"), &json!("ice")));
    assert_eq!(session["a"]["selected"][0]["remote"], "198.51.100.7:4000", "the offer says where its side is");
    assert_eq!(said(&offered), (port(session, "b"), true), "the other side is told leg B");

    let path = path(session);
    let answered = bed.good("POST", &format!("{path}/answer"), &json!({ "from": "b", "sdp": ICE }));
    assert_eq!(answered["session"]["b"]["remote"]["ufrag"], "wxyz");
    assert_eq!(said(&answered), (port(session, "a"), false), "and who has offered, leg A");

    let moved = json!({ "from": "a", "sdp": PLAIN.replace("4000", "4010") });
    let offered = bed.good("POST", &format!("{path}/offer"), &moved);
    assert_eq!(offered["session"]["a"]["selected"][0]["remote"], "198.51.100.7:4000", "it may be rejected yet");
    assert_eq!(said(&offered), (port(session, "b"), true));
    let answered = bed.good("POST", &format!("{path}/answer"), &json!({ "from": "b", "sdp": ICE }));
    assert_eq!(answered["session"]["a"]["selected"][0]["remote"], "198.51.100.7:4010");
    assert_eq!(bed.sessions(), 1, "it is the same session");
    bed.relay.stop();
}

#[test]
fn what_does_not_go_with_what_was_said_before_is_refused() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let created = path(&bed.session());
    for what in ["offer", "answer"] {
        let error =
            bed.ask("POST", &format!("{created}/{what}"), &json!({ "from": "b", "sdp": ICE })).expect_problem(409);
        assert!(error.contains("not made of an offer"), "{what}: {error}");
    }
    let offered = bed.good("POST", "/v1/ice/offer", &json!({ "sdp": PLAIN, "to": "plain" }));
    let answer = format!("{}/answer", path(&offered["session"]));
    let error = bed.ask("POST", &answer, &json!({ "from": "a", "sdp": PLAIN })).expect_problem(409);
    assert!(error.contains("the other one answers"), "{error}");
    let two = format!("{PLAIN}m=video 4004 RTP/AVP 96\r\n");
    let error = bed.ask("POST", &answer, &json!({ "from": "b", "sdp": two })).expect_problem(422);
    assert!(error.contains("2 media sections"), "{error}");
    bed.good("POST", &answer, &json!({ "from": "b", "sdp": PLAIN }));
    bed.relay.stop();
}

#[test]
fn of_a_description_that_cannot_be_read_the_line_is_told() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let offered = path(&bed.good("POST", "/v1/ice/offer", &json!({ "sdp": PLAIN }))["session"]);
    let wrong = PLAIN.replace("IN IP4 198.51.100.7\r\nt", "IN IP4 \r\nt");
    assert_ne!(wrong, PLAIN);
    for (method, path, body) in [
        ("POST", "/v1/ice/offer".to_owned(), json!({ "sdp": wrong })),
        ("POST", format!("{offered}/offer"), json!({ "from": "a", "sdp": wrong })),
        ("POST", format!("{offered}/answer"), json!({ "from": "b", "sdp": wrong })),
        ("PUT", format!("{offered}/legs/a/remote"), json!({ "sdp": wrong })),
    ] {
        let answer = bed.ask(method, &path, &body);
        let error = answer.expect_problem(422);
        assert!(error.starts_with("sdp: line 4 "), "{path}: {error}");
        assert_eq!(answer.json()["line"], 4, "{path}: {answer}");
    }
    let rejected = PLAIN.replace("m=audio 4000", "m=audio 0");
    let answer = bed.ask("POST", "/v1/ice/offer", &json!({ "sdp": rejected }));
    assert!(answer.expect_problem(422).contains("port 0"), "{answer}");
    assert_eq!(bed.sessions(), 1);
    bed.relay.stop();
}

#[test]
fn a_long_description_is_read_and_one_that_is_too_long_is_not() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    // Line ends are twice as long in JSON.
    let long = PLAIN.to_owned() + &"a=x\r\n".repeat(12_000);
    let exchanged = bed.good("POST", "/v1/ice/offer", &json!({ "sdp": long }));
    assert!(exchanged["sdp"].as_str().is_some_and(|sdp| sdp.len() > 60_000), "it is whole");
    let longer = PLAIN.to_owned() + &"a=x\r\n".repeat(14_000);
    let error = bed.ask("POST", "/v1/ice/offer", &json!({ "sdp": longer })).expect_problem(422);
    assert!(error.contains("65536"), "{error}");
    let longest = "x".repeat(128 << 10);
    let error = bed.ask("POST", "/v1/ice/offer", &json!({ "sdp": longest })).expect_problem(413);
    assert!(error.contains("131072"), "{error}");
    bed.relay.stop();
}
