//! Requests that come twice.

use std::thread;

use hairpin_tests::lab::Namespace;
use serde_json::{Value, json};

use super::{CANDIDATE, ICE, JSON, PLAIN, PWD, SESSIONS, UFRAG};
use crate::bed::Bed;

const KEY: &str = "Idempotency-Key: 8e03978e-40d5-43e8-bc93-6894a57f9324";
const BODY: &str = r#"{"a": {"kind": "ice"}, "b": {"kind": "plain"}}"#;

#[test]
fn the_same_again_gets_the_same_answer_and_makes_nothing() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[("HAIRPIN_ADMIN_TOKEN", "northern-light")]);
    let first = bed.unix("POST", SESSIONS, &[JSON, KEY], BODY);
    assert_eq!(first.status, 200, "{first}");
    assert_eq!(first.header("idempotency-replayed"), None);
    // Whatever has become of the session.
    let path = super::path(&first.json());
    bed.good("PATCH", &path, &json!({ "label": "changed" }));
    let token = "Authorization: Bearer northern-light";
    for again in [bed.unix("POST", SESSIONS, &[JSON, KEY], BODY), bed.tcp("POST", SESSIONS, &[JSON, KEY, token], BODY)]
    {
        assert_eq!((again.status, &again.body), (200, &first.body));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    assert_eq!(bed.sessions(), 1);
    let offer = json!({ "sdp": PLAIN }).to_string();
    let answers = [(); 2].map(|()| bed.unix("POST", "/v1/ice/offer", &[JSON, "Idempotency-Key: offer"], &offer));
    assert_eq!(answers[0].status, 200, "{}", answers[0]);
    assert_eq!(answers[0].body, answers[1].body);
    assert_eq!(bed.sessions(), 2);
    bed.relay.stop();
}

#[test]
fn what_changes_a_session_is_done_once_whatever_has_changed_since() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let path = super::path(&bed.good("POST", "/v1/ice/offer", &json!({ "sdp": PLAIN, "to": "ice" }))["session"]);
    let agent = |ufrag: &str| json!({ "ufrag": ufrag, "pwd": PWD });
    let answer = |ufrag: &str| json!({ "from": "b", "sdp": ICE.replace("wxyz", ufrag) });
    let more = json!({ "candidates": [CANDIDATE], "end_of_candidates": true });
    // A request, what is asked afterwards, and what of the session both change.
    let remote = "/legs/b/remote";
    for (what, first, (then, later), changed) in [
        ("/answer", answer("first"), ("/answer", answer("second")), "/b/remote/ufrag"),
        (remote, agent("third"), (remote, agent("fourth")), "/b/remote/ufrag"),
        ("/legs/b/candidates", more, (remote, agent(UFRAG)), "/b/remote/candidates"),
        ("/legs/b/restart", Value::Null, ("", json!({ "label": "later" })), "/label"),
    ] {
        let method = |what: &str| match what {
            "" => "PATCH",
            "/legs/b/remote" => "PUT",
            _ => "POST",
        };
        let key = format!("Idempotency-Key: {what}");
        let body = if first.is_null() { String::new() } else { first.to_string() };
        let ask = || bed.unix(method(what), &format!("{path}{what}"), &[JSON, &key], &body);
        let done = ask();
        assert_eq!((done.status, done.header("idempotency-replayed")), (200, None), "{what}: {done}");
        bed.good(method(then), &format!("{path}{then}"), &later);
        let before = bed.unix("GET", &path, &[], "").json();
        let again = ask();
        assert_eq!((again.status, &again.body), (200, &done.body), "{what}");
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "{what}");
        let session = bed.unix("GET", &path, &[], "").json();
        assert_eq!(session, before, "{what} was done once");
        let answered = done.json();
        let answered = if answered["session"].is_object() { &answered["session"] } else { &answered };
        assert_ne!(answered.pointer(changed), session.pointer(changed), "{what} would have changed it back");
        let elsewhere = bed.unix("POST", &format!("{path}/legs/a/restart"), &[&key], "");
        assert!(elsewhere.expect_problem(422).contains(what), "{elsewhere}");
    }
    bed.relay.stop();
}

#[test]
fn a_later_offer_that_comes_twice_does_not_take_the_place_of_the_next_one() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let path = super::path(&bed.good("POST", "/v1/ice/offer", &json!({ "sdp": PLAIN, "to": "ice" }))["session"]);
    let offer = |port: &str| json!({ "from": "a", "sdp": PLAIN.replace("4000", port) });
    let ask = || bed.unix("POST", &format!("{path}/offer"), &[JSON, KEY], &offer("4010").to_string());
    let first = ask();
    assert_eq!(first.status, 200, "{first}");
    bed.good("POST", &format!("{path}/offer"), &offer("4020"));
    let again = ask();
    assert_eq!((&again.body, again.header("idempotency-replayed")), (&first.body, Some("true")));
    let answered = bed.good("POST", &format!("{path}/answer"), &json!({ "from": "b", "sdp": ICE }));
    assert_eq!(answered["session"]["a"]["selected"][0]["remote"], "198.51.100.7:4020");
    bed.relay.stop();
}

#[test]
fn something_else_with_the_same_key_is_refused_and_without_a_key_all_is_done() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    assert_eq!(bed.unix("POST", SESSIONS, &[JSON, KEY], BODY).status, 200);
    let other = BODY.replace("plain", "ice");
    let error = bed.unix("POST", SESSIONS, &[JSON, KEY], &other).expect_problem(422);
    assert!(error.contains("8e03978e"), "{error}");
    let offer = json!({ "sdp": PLAIN }).to_string();
    bed.unix("POST", "/v1/ice/offer", &[JSON, KEY], &offer).expect_problem(422);
    assert_eq!(bed.sessions(), 1);
    for _ in 0..2 {
        assert_eq!(bed.unix("POST", SESSIONS, &[JSON], BODY).status, 200);
    }
    assert_eq!(bed.sessions(), 3);

    // What was wrong is wrong again, and what could not be read had no key.
    let wrong = r#"{"a": {"kind": "ice"}, "b": {"kind": "ice"}, "label": "\n"}"#;
    let answers = [(); 2].map(|()| bed.unix("POST", SESSIONS, &[JSON, "Idempotency-Key: wrong"], wrong));
    answers[0].expect_problem(422);
    assert_eq!((answers[1].status, &answers[1].body), (422, &answers[0].body));
    bed.unix("POST", SESSIONS, &[JSON, "Idempotency-Key: broken"], "{").expect_problem(400);
    assert_eq!(bed.unix("POST", SESSIONS, &[JSON, "Idempotency-Key: broken"], BODY).status, 200);
    for key in ["Idempotency-Key: a b", "Idempotency-Key:", &format!("Idempotency-Key: {}", "k".repeat(129))] {
        let error = bed.unix("POST", SESSIONS, &[JSON, key], BODY).expect_problem(400);
        assert!(error.contains("Idempotency-Key"), "{key}: {error}");
    }
    bed.unix("POST", SESSIONS, &[JSON, KEY, KEY], BODY).expect_problem(400);
    bed.relay.stop();
}

#[test]
fn at_the_same_time_one_is_done_and_the_others_wait_for_it() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    for round in 0..10 {
        let key = format!("Idempotency-Key: round-{round}");
        let answers: Vec<_> = thread::scope(|scope| {
            let asking: Vec<_> =
                (0..8).map(|_| scope.spawn(|| bed.unix("POST", SESSIONS, &[JSON, &key], BODY))).collect();
            asking.into_iter().map(|asking| asking.join().expect("an answer")).collect()
        });
        for answer in &answers {
            assert_eq!((answer.status, &answer.body), (200, &answers[0].body));
        }
        let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_some()).count();
        assert_eq!(replayed, 7, "one of them was done");
        assert_eq!(bed.sessions(), round + 1);
    }
    bed.relay.stop();
}

#[test]
fn what_had_no_room_may_be_tried_again() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[("HAIRPIN_ICE_MAX_SESSIONS", "2")]);
    let all = [(); 2].map(|()| bed.session());
    let error = bed.unix("POST", SESSIONS, &[JSON, KEY], BODY).expect_problem(503);
    assert!(error.contains("ice-max-sessions"), "{error}");
    assert_eq!(bed.unix("DELETE", &super::path(&all[0]), &[], "").status, 200);
    let answer = bed.unix("POST", SESSIONS, &[JSON, KEY], BODY);
    assert_eq!(answer.status, 200, "whichever shard has room: {answer}");
    bed.relay.stop();
}
