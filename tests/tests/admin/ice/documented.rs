//! Everything about sessions is as the OpenAPI document says.

use std::collections::BTreeSet;

use hairpin_tests::lab::Namespace;
use serde_json::{Value, json};

use super::{CANDIDATE, ICE, PLAIN, PWD, SESSIONS, UFRAG, path};
use crate::bed::Bed;
use crate::document::conforms;

#[test]
fn every_operation_takes_and_answers_what_it_documents() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let document = bed.unix("GET", "/v1/openapi.json", &[], "").json();
    let created = path(&bed.session());
    let offered = path(&bed.good("POST", "/v1/ice/offer", &json!({ "sdp": PLAIN }))["session"]);
    let everything = json!({
        "label": "all", "a": { "kind": "plain", "latch": true }, "b": { "kind": "ice" }, "families": ["ipv4"],
        "streams": [{ "name": "audio", "components": 2 }], "addresses": ["127.0.0.1"],
        "limits": { "packets": 1000, "bytes": 1_000_000 },
        "timeouts": { "setup": 60, "consent": 30, "paused": 60, "idle": 300 },
    });
    let agent = json!({
        "ufrag": UFRAG, "pwd": PWD, "lite": false, "candidates": [CANDIDATE], "stream": "media",
        "end_of_candidates": false,
    });
    let addresses = json!({
        "addresses": [{ "stream": "media", "component": 1, "address": "198.51.100.7:4000" }], "latch": true,
    });
    let more = json!({ "candidates": [CANDIDATE], "stream": "media", "end_of_candidates": true });
    let offer = json!({
        "sdp": PLAIN, "to": "plain", "latch": true, "label": "all", "families": ["ipv4"], "timeouts": { "setup": 60 },
        "addresses": ["127.0.0.1"], "limits": { "packets": 1000, "bytes": 0 },
    });
    let update = json!({ "label": "all", "timeouts": { "idle": 0 }, "limits": { "packets": 0, "bytes": 125 } });
    let leg = |what: &str| (format!("/v1/ice/sessions/{{id}}/legs/{{leg}}/{what}"), format!("{created}/legs/a/{what}"));
    let whole = |what: &str| (format!("/v1/ice/sessions/{{id}}{what}"), format!("{offered}{what}"));
    let same = |path: &str| (path.to_owned(), path.to_owned());
    // Whatever closes comes last.
    let requests = [
        ("post", same(SESSIONS), everything),
        ("get", same(SESSIONS), Value::Null),
        ("get", whole(""), Value::Null),
        ("patch", whole(""), update),
        ("put", leg("remote"), addresses),
        ("put", leg("remote"), json!({ "sdp": ICE })),
        ("put", leg("remote"), agent),
        ("post", leg("candidates"), more),
        ("post", leg("restart"), Value::Null),
        ("post", same("/v1/ice/offer"), offer),
        ("post", whole("/answer"), json!({ "from": "b", "sdp": ICE })),
        ("post", whole("/offer"), json!({ "from": "a", "sdp": PLAIN })),
        ("delete", whole(""), Value::Null),
    ];
    for (method, (path, asked), body) in &requests {
        let operation = &document["paths"][path][method];
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let answer = bed.unix(&method.to_uppercase(), asked, &[super::JSON], &text);
        assert_eq!(answer.status, 200, "{method} {asked}: {answer}");
        let schema = |part: &Value| part["content"]["application/json"]["schema"].clone();
        let answered = schema(&operation["responses"]["200"]);
        conforms(&answer.json(), &answered, &document)
            .unwrap_or_else(|error| panic!("{method} {asked}: {error}: {answer}"));
        if !body.is_null() {
            let taken = schema(&operation["requestBody"]);
            assert!(taken.is_object(), "{method} {path} is said to take no body");
            conforms(body, &taken, &document).unwrap_or_else(|error| panic!("{method} {asked}: {error}: {body}"));
        }
    }

    let asked: BTreeSet<_> = requests.iter().map(|(method, (path, _), _)| (*method, path.as_str())).collect();
    // Events have a test of their own.
    let elsewhere = ("get", "/v1/ice/events");
    let paths = document["paths"].as_object().expect("there are paths").iter();
    let all = paths.filter(|(path, _)| path.starts_with("/v1/ice/"));
    let all = all
        .flat_map(|(path, item)| item.as_object().into_iter().flatten().map(move |(method, _)| (method, path, item)));
    for (method, path, item) in all {
        let operation = (method.as_str(), path.as_str());
        assert!(asked.contains(&operation) || operation == elsewhere, "{method} {path} was not asked for");
        let parameters = item[method]["parameters"].as_array().into_iter().flatten();
        let has_key = parameters.filter(|parameter| parameter["name"] == "Idempotency-Key").count() == 1;
        assert_eq!(has_key, ["post", "put"].contains(&method.as_str()), "the key of {method} {path}");
    }
    bed.relay.stop();
}

#[test]
fn a_problem_with_a_line_is_as_documented() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let document = bed.unix("GET", "/v1/openapi.json", &[], "").json();
    let problem = bed.ask("POST", "/v1/ice/offer", &json!({ "sdp": "v=0" })).json();
    assert_eq!(problem["line"], 1, "{problem}");
    conforms(&problem, &json!({ "$ref": "#/components/schemas/Problem" }), &document).expect("a problem");
    bed.relay.stop();
}
