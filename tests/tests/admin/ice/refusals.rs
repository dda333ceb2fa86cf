//! What cannot be done is refused, with a reason.

use hairpin_tests::lab::Namespace;
use serde_json::{Value, json};

use super::{CANDIDATE, JSON, PWD, SESSIONS, UFRAG, path};
use crate::bed::Bed;

#[test]
fn each_wrong_request_gets_its_status_and_a_reason() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let path = path(&bed.session());
    let at = |rest: &str| format!("{path}{rest}");
    let both = |more: Value| {
        let mut body = json!({ "a": { "kind": "ice" }, "b": { "kind": "ice" } });
        body.as_object_mut().expect("it is one").extend(more.as_object().cloned().expect("it is one"));
        body
    };
    let plain = |address: Value| json!({ "addresses": [address] });
    let create = || ("POST", SESSIONS.to_owned());
    let cases = [
        (("GET", format!("{SESSIONS}?label=")), Value::Null, 400, "`label`"),
        (("GET", format!("{SESSIONS}?name=x")), Value::Null, 400, "name"),
        (("GET", "/v1/ice/events?session=".to_owned()), Value::Null, 400, "`session`"),
        (("GET", "/v1/ice/events?user=alice".to_owned()), Value::Null, 400, "user"),
        (("GET", format!("{SESSIONS}/nothing")), Value::Null, 404, "`nothing`"),
        (("GET", format!("{SESSIONS}/0-999")), Value::Null, 404, "`0-999`"),
        (("GET", format!("{SESSIONS}/99-0")), Value::Null, 404, "`99-0`"),
        (("DELETE", format!("{SESSIONS}/no%2Fthing")), Value::Null, 404, "`no/thing`"),
        (("PATCH", format!("{SESSIONS}/0-999")), json!({}), 404, "`0-999`"),
        (("POST", format!("{SESSIONS}/0-999/legs/a/restart")), json!({}), 404, "`0-999`"),
        (("POST", format!("{SESSIONS}/0-999/legs/a/candidates")), json!({}), 404, "`0-999`"),
        (
            ("PUT", format!("{SESSIONS}/0-999/legs/a/remote")),
            plain(json!({ "address": "198.51.100.7:4000" })),
            404,
            "`0-999`",
        ),
        (("PUT", format!("{SESSIONS}/0-999/legs/a/remote")), json!({ "sdp": super::ICE }), 404, "`0-999`"),
        (("POST", format!("{SESSIONS}/0-999/offer")), json!({ "from": "a", "sdp": super::ICE }), 404, "`0-999`"),
        (("POST", format!("{SESSIONS}/0-999/answer")), json!({ "from": "a", "sdp": super::ICE }), 404, "`0-999`"),
        (("POST", at("/legs/c/restart")), json!({}), 404, "`c`"),
        (("POST", at("/restart")), json!({}), 404, "/v1/openapi.json"),
        (("POST", at("")), json!({}), 405, "POST"),
        (("POST", at("/legs/b/restart")), json!({}), 409, "leg b"),
        (("POST", at("/legs/a/candidates")), json!({ "candidates": [CANDIDATE] }), 409, "no remote ICE agent"),
        (create(), json!({ "a": { "kind": "ice" } }), 422, "`b`"),
        (create(), both(json!({ "a": { "kind": "h323" } })), 422, "`h323`"),
        (create(), both(json!({ "a": { "kind": "ice", "latch": true } })), 422, "latch"),
        (create(), both(json!({ "a": { "kind": "turn" } })), 422, "allocation"),
        (create(), both(json!({ "a": { "kind": "turn", "allocation": "x" } })), 422, "a.allocation: `x`"),
        (create(), both(json!({ "families": ["ipv5"] })), 422, "`ipv5`"),
        (create(), both(json!({ "families": ["ipv6"] })), 422, "no address of these families"),
        (create(), both(json!({ "addresses": ["here"] })), 422, "`here` is not an IP address"),
        (create(), both(json!({ "addresses": ["192.0.2.9"] })), 422, "192.0.2.9: it has 127.0.0.1"),
        (
            create(),
            both(json!({ "addresses": ["127.0.0.1"], "families": ["ipv6"] })),
            422,
            "no address of these families",
        ),
        (create(), both(json!({ "limits": { "bytes": 124 } })), 422, "limits.bytes: `124`"),
        (create(), both(json!({ "limits": { "bits": 1000 } })), 422, "`bits`"),
        (create(), both(json!({ "label": "a\nb" })), 422, "label"),
        (create(), both(json!({ "streams": [{ "name": "a", "components": 3 }] })), 422, "streams[0].components: `3`"),
        (create(), both(json!({ "streams": [{ "name": "a" }, { "name": "a" }] })), 422, "streams[1].name: `a`"),
        (create(), both(json!({ "timeouts": { "setup": 0 } })), 422, "1 to 86400"),
        (create(), both(json!({ "timeouts": { "sleep": 1 } })), 422, "`sleep`"),
        (("PATCH", at("")), json!({ "timeouts": { "idle": 86_401 } }), 422, "timeouts.idle: `86401`"),
        (("PATCH", at("")), json!({ "limits": { "packets": 1_000_000_001 } }), 422, "limits.packets: `1000000001`"),
        (("PATCH", at("")), json!({ "state": "connected" }), 422, "`state`"),
        (("PUT", at("/legs/a/remote")), json!({}), 422, "`addresses`"),
        (("PUT", at("/legs/a/remote")), json!({ "ufrag": UFRAG, "pwd": "short" }), 422, "22 to 256"),
        (
            ("PUT", at("/legs/a/remote")),
            json!({ "ufrag": UFRAG, "pwd": PWD, "candidates": ["x"] }),
            422,
            "candidates[0]: \"x\"",
        ),
        (("PUT", at("/legs/a/remote")), json!({ "ufrag": UFRAG, "pwd": PWD, "stream": "video" }), 422, "video"),
        (("PUT", at("/legs/b/remote")), plain(json!({ "address": "here" })), 422, "`here`"),
        (("PUT", at("/legs/b/remote")), plain(json!({ "address": "198.51.100.7:0" })), 422, "addresses[0].address"),
        (("PUT", at("/legs/b/remote")), plain(json!({ "address": "10.0.0.1:4000" })), 422, "forbid 10.0.0.1"),
        (("PUT", at("/legs/b/remote")), plain(json!({ "address": "[2001:db8::1]:4000" })), 422, "family"),
        (
            ("PUT", at("/legs/b/remote")),
            plain(json!({ "address": "198.51.100.7:4000", "component": 2 })),
            422,
            "component 2",
        ),
        (("PUT", at("/legs/b/remote")), plain(json!({ "address": "198.51.100.7:4000", "stream": "x" })), 422, "\"x\""),
        (("POST", "/v1/ice/offer".to_owned()), json!({ "sdp": super::ICE, "to": "sip" }), 422, "`sip`"),
        (
            ("POST", "/v1/ice/offer".to_owned()),
            json!({ "sdp": super::PLAIN, "addresses": ["2001:db8::9"] }),
            422,
            "2001:db8::9: it has 127.0.0.1",
        ),
        (("POST", at("/offer")), json!({ "from": "c", "sdp": super::ICE }), 422, "`c`"),
    ];
    for ((method, path), body, status, named) in &cases {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let error = bed.unix(method, path, &[JSON], &body).expect_problem(*status);
        assert!(error.contains(named), "{method} {path} {body}: `{named}` is not named: {error}");
    }
    assert_eq!(bed.sessions(), 1, "nothing was made of all this");
    let session = bed.unix("GET", &path, &[], "").json();
    assert_eq!((&session["a"]["remote"], &session["b"]["selected"]), (&Value::Null, &json!([])), "nor changed");
    bed.relay.stop();
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let body = json!({ "a": { "kind": "ice" }, "b": { "kind": "ice" }, "label": "\n", "timeouts": { "setup": 0 } });
    let answer = bed.ask("POST", SESSIONS, &body);
    assert_eq!(answer.expect_problem(422), "2 values are not allowed");
    let problems = answer.json()["problems"].clone();
    let named = |at: usize, key: &str| problems[at].as_str().is_some_and(|problem| problem.starts_with(key));
    assert!(named(0, "label: ") && named(1, "timeouts.setup: "), "{problems}");
    bed.relay.stop();
}

#[test]
fn a_relay_that_drains_takes_no_new_sessions_and_keeps_those_that_are_there() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let session = bed.session();
    assert_eq!(bed.unix("POST", "/v1/drain", &[], "").status, 200);
    for (path, body) in [
        (SESSIONS, json!({ "a": { "kind": "ice" }, "b": { "kind": "ice" } })),
        ("/v1/ice/offer", json!({ "sdp": super::PLAIN })),
    ] {
        let error = bed.ask("POST", path, &body).expect_problem(503);
        assert!(error.contains("draining"), "{path}: {error}");
    }
    bed.good("PATCH", &path(&session), &json!({ "label": "still there" }));
    assert_eq!(bed.unix("DELETE", "/v1/drain", &[], "").status, 200);
    bed.session();
    bed.relay.stop();
}
