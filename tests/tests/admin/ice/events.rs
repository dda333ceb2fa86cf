//! What happens to sessions, as it happens.

use std::collections::BTreeSet;

use hairpin_tests::lab::Namespace;
use hairpin_tests::lab::http::{Stream, ask, unix};
use serde_json::{Value, json};

use super::{SESSIONS, party, path};
use crate::bed::Bed;
use crate::document::conforms;

#[test]
fn what_happens_to_a_session_is_told_to_all_who_watch_it() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let document = bed.unix("GET", "/v1/openapi.json", &[], "").json();
    let schema = &document["paths"]["/v1/ice/events"]["get"]["responses"]["200"]["content"]["text/event-stream"];
    let watch = |query: &str| ask(unix(&bed.socket), "GET", &format!("/v1/ice/events{query}"), &[], "");
    let latch = json!({ "kind": "plain", "latch": true });
    let create =
        |label: &str| bed.good("POST", SESSIONS, &json!({ "label": label, "a": { "kind": "plain" }, "b": latch }));
    let [session, other] = [create("ours"), create("another")];
    let id = session["id"].as_str().expect("text");
    let mut watchers = [watch(""), watch(&format!("?session={id}")), watch("?label=ours")];
    let mut others = watch("?label=another");
    for watcher in &watchers {
        assert_eq!(watcher.head.header("content-type"), Some("text/event-stream"));
        assert_eq!(watcher.head.header("x-accel-buffering"), Some("no"));
    }
    let mut expect = |what: &str| -> Value {
        let [first, second, third] = watchers.each_mut().map(Stream::event);
        assert_eq!(first["event"], what, "{first}");
        assert_eq!(first, second);
        assert_eq!(first, third);
        conforms(&first, &schema["schema"], &document).unwrap_or_else(|error| panic!("{error}: {first}"));
        first
    };

    let remote = |address: &str| {
        let body = json!({ "addresses": [{ "address": address }] });
        bed.good("PUT", &format!("{}/legs/a/remote", path(&session)), &body);
    };
    remote("198.51.100.7:4000");
    let event = expect("nominated");
    assert_eq!((&event["session"], &event["label"]), (&json!(id), &json!("ours")), "{event}");
    assert_eq!((&event["leg"], &event["component"]), (&json!("a"), &json!(1)), "{event}");
    assert_eq!(event["remote"], "198.51.100.7:4000", "{event}");
    assert_eq!(event["local"], session["a"]["candidates"][0]["address"], "{event}");
    remote("198.51.100.7:4001");
    assert_eq!(expect("moved")["remote"], "198.51.100.7:4001");

    let party = party(&host);
    let leg = session["b"]["candidates"][0]["address"].as_str().expect("an address");
    party.send_to(&[0x80; 20], leg).expect("it is sent");
    let event = expect("nominated");
    assert_eq!(event["leg"], "b", "{event}");
    assert_eq!(event["remote"], party.local_addr().expect("it is bound").to_string(), "{event}");

    bed.unix("DELETE", &path(&session), &[], "");
    let event = expect("closed");
    assert_eq!((&event["reason"], &event["session"]["id"]), (&json!("deleted"), &json!(id)), "{event}");
    assert_eq!(event["session"]["streams"][0]["components"][0]["b_to_a"]["packets"], 1, "{event}");

    bed.unix("DELETE", &path(&other), &[], "");
    let event = others.event();
    assert_eq!(event["session"]["label"], "another", "it was told nothing of ours: {event}");
    // Neither a watcher that is there nor one that has gone keeps the relay from ending.
    drop(others);
    bed.relay.stop();
}

#[test]
fn those_who_watch_are_told_of_what_ends_with_the_relay() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let both = json!({ "a": { "kind": "plain" }, "b": { "kind": "ice" } });
    let ids: BTreeSet<_> = (0..50).map(|_| bed.good("POST", SESSIONS, &both)["id"].to_string()).collect();
    let mut watchers = [(); 3].map(|()| ask(unix(&bed.socket), "GET", "/v1/ice/events", &[], ""));
    bed.relay.stop();
    for watcher in &mut watchers {
        let told: BTreeSet<_> = ids
            .iter()
            .map(|_| {
                let event = watcher.event();
                assert_eq!((&event["event"], &event["reason"]), (&json!("closed"), &json!("shutdown")), "{event}");
                event["session"]["id"].to_string()
            })
            .collect();
        assert_eq!(told, ids);
    }
}
