//! The life of a session over the interface.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin_tests::lab::Namespace;
use hairpin_tests::lab::http::{ask, unix};
use serde_json::{Value, json};

use super::{CANDIDATE, PWD, SESSIONS, UFRAG, party, path};
use crate::bed::Bed;

/// Where a leg is reached.
fn address(session: &Value, leg: &str) -> SocketAddr {
    let address = session[leg]["candidates"][0]["address"].as_str().expect("it has an address");
    address.parse().expect("IP:PORT")
}

#[test]
fn a_session_is_as_it_was_asked_for() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let created = bed.good(
        "POST",
        SESSIONS,
        &json!({
            "label": "call 7", "a": { "kind": "ice" }, "b": { "kind": "plain", "latch": true },
            "streams": [{ "name": "audio", "components": 2 }, { "name": "video" }],
            "families": ["ipv4"], "timeouts": { "setup": 60, "idle": 0 },
        }),
    );
    assert_eq!((&created["label"], &created["state"]), (&json!("call 7"), &json!("new")));
    assert_eq!(created["timeouts"], json!({ "setup": 60, "consent": 30, "paused": 60, "idle": 0 }));
    let components = |stream: usize| created["streams"][stream]["components"].as_array().map(Vec::len);
    assert_eq!((components(0), components(1)), (Some(2), Some(1)));
    for (leg, kind) in [("a", "ice"), ("b", "plain")] {
        let status = &created[leg];
        assert_eq!((&status["kind"], &status["state"]), (&json!(kind), &json!("waiting")), "{status}");
        let candidates = status["candidates"].as_array().expect("a list");
        let of = |at: usize| (candidates[at]["stream"].as_str(), candidates[at]["component"].as_u64());
        assert_eq!(candidates.len(), 3, "{status}");
        let expected = [(Some("audio"), Some(1)), (Some("audio"), Some(2)), (Some("video"), Some(1))];
        assert_eq!([of(0), of(1), of(2)], expected);
    }
    assert_eq!(created["a"]["sdp"]["session"], "a=ice-lite\r\na=ice-options:ice2\r\n");
    for key in ["ufrag", "pwd"] {
        let value = created["a"][key].as_str().expect("a leg of ICE has it");
        for stream in ["audio", "video"] {
            let section = &created["a"]["sdp"]["media"][stream];
            let fragment = section["lines"].as_str().expect("each has its own lines");
            assert!(section["port"].as_u64().is_some_and(|port| port > 0), "{section}");
            assert!(fragment.contains(&format!("a=ice-{key}:{value}\r\n")), "{fragment}");
        }
        assert_eq!(created["b"][key], Value::Null);
    }
    assert_eq!(created["limits"], json!({ "packets": 0, "bytes": 0 }), "both are said");
    assert_eq!(bed.unix("GET", &path(&created), &[], "").json(), created);
    bed.relay.stop();
}

#[test]
fn sessions_are_listed_by_label_and_made_by_all_shards_in_turns() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let create = |label: &str| {
        let body = json!({ "label": label, "a": { "kind": "ice" }, "b": { "kind": "ice" } });
        bed.good("POST", SESSIONS, &body)["id"].as_str().expect("text").to_owned()
    };
    let all: Vec<_> = (0..12).map(|number| create(if number % 3 == 0 { "a b&c" } else { "other" })).collect();
    let listed = |query: &str| {
        let sessions = bed.unix("GET", &format!("{SESSIONS}{query}"), &[], "").json()["sessions"].clone();
        let ids = sessions.as_array().expect("a list").iter().map(|session| session["id"].as_str().map(str::to_owned));
        ids.collect::<Option<Vec<_>>>().expect("each has an id")
    };
    let mut expected: Vec<_> = all.iter().step_by(3).cloned().collect();
    let mut found = listed("?label=a%20b%26c");
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(listed("?label=nobody"), Vec::<String>::new());
    assert_eq!(listed(&format!("?session={}", all[5])), [all[5].clone()]);
    assert_eq!(listed("").len(), 12);
    let shards: std::collections::BTreeSet<_> = all.iter().filter_map(|id| id.split('-').next()).collect();
    assert_eq!(shards.len(), 2, "every shard has some: {all:?}");
    bed.relay.stop();
}

#[test]
fn a_session_changes_as_it_is_told() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let created = bed.session();
    let path = path(&created);

    let updated = bed.good("PATCH", &path, &json!({ "label": "new", "timeouts": { "consent": 7 } }));
    assert_eq!(updated["label"], "new");
    assert_eq!(updated["timeouts"], json!({ "setup": 300, "consent": 7, "paused": 60, "idle": 300 }));
    let updated = bed.good("PATCH", &path, &json!({ "timeouts": { "idle": 0 }, "limits": { "bytes": 125 } }));
    assert_eq!((&updated["label"], &updated["timeouts"]["consent"]), (&json!("new"), &json!(7)), "the rest stays");
    let updated = bed.good("PATCH", &path, &json!({ "limits": { "packets": 50 } }));
    assert_eq!(updated["limits"], json!({ "packets": 50, "bytes": 125 }));

    let agent = json!({ "ufrag": UFRAG, "pwd": PWD, "candidates": [CANDIDATE] });
    let told = bed.good("PUT", &format!("{path}/legs/a/remote"), &agent);
    let expected = json!({ "ufrag": UFRAG, "lite": false, "candidates": [CANDIDATE], "end_of_candidates": false });
    assert_eq!(told["a"]["remote"], expected);
    assert!(!told.to_string().contains(PWD), "the other side's password is nobody's business: {told}");
    let later = CANDIDATE.replace("4000", "4001");
    let more = json!({ "candidates": [later], "end_of_candidates": true });
    let told = bed.good("POST", &format!("{path}/legs/a/candidates"), &more);
    assert_eq!(told["a"]["remote"]["candidates"], json!([CANDIDATE, later]));
    assert_eq!(told["a"]["remote"]["end_of_candidates"], true);

    let restarted = bed.good("POST", &format!("{path}/legs/a/restart"), &json!({}));
    for key in ["ufrag", "pwd"] {
        assert_ne!(restarted["a"][key], created["a"][key], "{key}");
    }

    let plain = json!({ "addresses": [{ "address": "198.51.100.7:4000" }] });
    let told = bed.good("PUT", &format!("{path}/legs/b/remote"), &plain);
    assert_eq!(told["b"]["state"], "nominated");
    assert_eq!(told["b"]["selected"][0]["remote"], "198.51.100.7:4000");
    assert_eq!(told["a"]["state"], "waiting", "the other leg has nobody yet");

    let described = json!({ "sdp": super::PLAIN.replace("4000", "4002") });
    let told = bed.good("PUT", &format!("{path}/legs/b/remote"), &described);
    assert_eq!(told["b"]["selected"][0]["remote"], "198.51.100.7:4002");
    let described = json!({ "sdp": super::ICE });
    let told = bed.good("PUT", &format!("{path}/legs/a/remote"), &described);
    assert_eq!(told["a"]["remote"]["candidates"][0], CANDIDATE.replace("100.7", "100.9"));
    bed.relay.stop();
}

#[test]
fn what_was_closed_is_gone_and_said_to_have_carried_what_it_has() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let latch = json!({ "kind": "plain", "latch": true });
    let session = bed.good("POST", SESSIONS, &json!({ "a": latch, "b": latch }));
    let [a, b] = [party(&host), party(&host)];
    let [to_a, to_b] = ["a", "b"].map(|leg| address(&session, leg));
    // The first two make both known; what comes before the other side is known is lost.
    a.send_to(&[0x80; 100], to_a).expect("it is sent");
    b.send_to(&[0x80; 100], to_b).expect("it is sent");
    let mut bytes = [0; 200];
    let (length, from) = a.recv_from(&mut bytes).expect("what B has sent");
    assert_eq!((length, from), (100, to_a));
    a.send_to(&[0x81; 50], to_a).expect("it is sent");
    assert_eq!(b.recv(&mut bytes).expect("what A has sent"), 50);
    assert_eq!(bed.unix("GET", &path(&session), &[], "").json()["state"], "connected");

    let closed = bed.unix("DELETE", &path(&session), &[], "").json();
    assert_eq!((&closed["id"], &closed["state"]), (&session["id"], &json!("connected")));
    let component = &closed["streams"][0]["components"][0];
    assert_eq!(component["a_to_b"], json!({ "packets": 1, "bytes": 50 }));
    assert_eq!(component["b_to_a"], json!({ "packets": 1, "bytes": 100 }));
    assert_eq!(component["kernel"], json!({ "packets": 0, "bytes": 0 }), "there is no kernel path here");
    for key in ["a_to_b", "b_to_a", "kernel"] {
        assert_eq!(closed["totals"][key], component[key], "it has one component");
    }
    for method in ["GET", "DELETE"] {
        bed.unix(method, &path(&session), &[], "").expect_problem(404);
    }
    assert_eq!(bed.sessions(), 0);
    for port in [to_a.port(), to_b.port()] {
        assert_eq!(host.udp_sockets(port), 0, "its ports are free");
    }
    bed.relay.stop();
}

#[test]
fn a_session_has_the_limits_that_it_is_given_until_they_are_taken_back() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let latch = json!({ "kind": "plain", "latch": true });
    let session = bed.good("POST", SESSIONS, &json!({ "a": latch, "b": latch, "limits": { "packets": 4 } }));
    assert_eq!(session["limits"], json!({ "packets": 4, "bytes": 0 }));
    let [a, b] = [party(&host), party(&host)];
    let [to_a, to_b] = ["a", "b"].map(|leg| address(&session, leg));
    a.send_to(&[0x80; 20], to_a).expect("it is sent");
    b.send_to(&[0x80; 20], to_b).expect("it is sent");
    a.recv(&mut [0; 200]).expect("both are known now");
    b.set_read_timeout(Some(Duration::from_millis(500))).expect("the time is not zero");
    // How many of so many come through: at once a second's worth does, and a slow test adds what is due meanwhile.
    let burst = || {
        (0..40).for_each(|_| assert!(a.send_to(&[0x80; 20], to_a).is_ok()));
        std::iter::from_fn(|| b.recv(&mut [0; 200]).ok()).count()
    };
    let limited = burst();
    assert!((1..20).contains(&limited), "{limited} of 40");
    bed.good("PATCH", &path(&session), &json!({ "limits": { "packets": 0 } }));
    assert_eq!(burst(), 40);
    bed.relay.stop();
}

#[test]
fn a_leg_of_turn_sends_to_the_relayed_address_of_its_allocation() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let mut client = bed.allocated();
    let allocation = bed.unix("GET", "/v1/allocations", &[], "").json()[0].clone();
    let turn = json!({ "kind": "turn", "allocation": allocation["id"] });
    let session = bed.good("POST", SESSIONS, &json!({ "a": { "kind": "plain", "latch": true }, "b": turn }));
    assert_eq!((&session["b"]["kind"], &session["b"]["state"]), (&json!("plain"), &json!("nominated")));
    assert_eq!(session["b"]["selected"][0]["remote"], allocation["relayed"][0]);

    // The client permits the leg's address, as it would any peer's, and is sent what comes to the other leg.
    client.permit(address(&session, "b").ip()).expect("a permission");
    let a = party(&host);
    a.send_to(&[0x80; 20], address(&session, "a")).expect("it is sent");
    let (from, data) = client.receive_indication(Duration::from_secs(5)).expect("it is relayed to the client");
    assert_eq!((from, data.len()), (address(&session, "b"), 20));
    client.send_indication(from, &[0x81; 30]);
    let mut bytes = [0; 200];
    assert_eq!(a.recv(&mut bytes).expect("and back"), 30);

    // With the allocation, its leg ends: somebody else may have the address next.
    let mut events = ask(unix(&bed.socket), "GET", "/v1/ice/events", &[], "");
    assert_eq!(client.refresh(0), Ok(0));
    let event = events.event();
    assert_eq!((&event["event"], &event["leg"]), (&json!("consent_lost"), &json!("b")), "{event}");
    let shown = bed.unix("GET", &path(&session), &[], "").json();
    assert_eq!((&shown["state"], &shown["b"]["selected"]), (&json!("paused"), &json!([])), "{shown}");

    let gone = json!({ "kind": "turn", "allocation": "0-999" });
    let error = bed.ask("POST", SESSIONS, &json!({ "a": { "kind": "ice" }, "b": gone })).expect_problem(422);
    assert!(error.contains("b.allocation") && error.contains("`0-999`"), "{error}");
    assert_eq!(bed.sessions(), 1, "of what could not be, nothing is left");
    bed.relay.stop();
}
