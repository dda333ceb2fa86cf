//! The OpenAPI document: it is one, and everything is as it says.

use std::collections::BTreeSet;

use hairpin_tests::lab::http::{ask, unix};
use hairpin_tests::lab::{Namespace, python};
use serde_json::{Value, json};

use crate::bed::Bed;

#[test]
fn it_is_what_the_specification_says() {
    let Some(interpreter) = python::from_pypi() else { return };
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let document = bed.unix("GET", "/v1/openapi.json", &[], "");
    let file = bed.file("openapi.json", &document.body);
    let finished = python::run(&host, interpreter, "openapi_valid.py", [file], &[]);
    let paths = document.json()["paths"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(finished.expect_success().trim(), format!(r#"{{"paths": {paths}}}"#));

    let printed = hairpin_tests::lab::process::run(&mut bed.command(&["openapi"])).expect_success();
    assert_eq!(printed, document.body, "the command prints the same");
    bed.relay.stop();
}

#[test]
fn every_operation_answers_what_it_documents() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let document = bed.unix("GET", "/v1/openapi.json", &[], "").json();
    bed.client("wrong").allocate().expect_err("the password is wrong");
    let _client = bed.allocated();
    let id = bed.unix("GET", "/v1/allocations", &[], "").json()[0]["id"].as_str().expect("there is one").to_owned();

    // Whatever closes comes last.
    let requests = [
        ("get", "/v1/status", String::new(), ""),
        ("get", "/v1/allocations", String::new(), ""),
        ("get", "/v1/allocations/{id}", format!("/v1/allocations/{id}"), ""),
        ("get", "/v1/users", String::new(), ""),
        ("get", "/v1/failures", "/v1/failures?client=127.0.0.1".to_owned(), ""),
        ("get", "/v1/drain", String::new(), ""),
        ("post", "/v1/drain", String::new(), r#"{"timeout": 60}"#),
        ("delete", "/v1/drain", String::new(), ""),
        ("get", "/v1/log-level", String::new(), ""),
        ("put", "/v1/log-level", String::new(), r#"{"level": "debug"}"#),
        ("get", "/v1/credentials", "/v1/credentials?name=bob&ttl=60".to_owned(), ""),
        ("post", "/v1/credentials", String::new(), r#"{"name": "bob"}"#),
        ("post", "/v1/page-tokens", String::new(), ""),
        ("post", "/v1/reload", String::new(), ""),
        ("get", "/v1/openapi.json", String::new(), ""),
        ("get", "/metrics", String::new(), ""),
        ("get", "/healthz", String::new(), ""),
        ("get", "/readyz", String::new(), ""),
        ("delete", "/v1/allocations/{id}", format!("/v1/allocations/{id}"), ""),
        ("delete", "/v1/allocations", "/v1/allocations?all=true".to_owned(), ""),
    ];
    for (method, path, asked, body) in &requests {
        let asked = if asked.is_empty() { path } else { asked.as_str() };
        let answer = bed.unix(&method.to_uppercase(), asked, &["Content-Type: application/json"], body);
        assert_eq!(answer.status, 200, "{method} {asked}: {answer}");
        let contents = &document["paths"][*path][*method]["responses"]["200"]["content"];
        let kind = answer.header("content-type").expect("a body has a type");
        let schema = &contents[kind]["schema"];
        assert!(schema.is_object(), "{method} {path} is not said to answer {kind}: {contents}");
        if kind == "application/json" {
            let value = answer.json();
            assert_ne!(value, json!([]), "{asked}: there has to be something to compare");
            conforms(&value, schema, &document).unwrap_or_else(|error| panic!("{method} {asked}: {error}: {value}"));
        }
    }
    let _client = bed.allocated();
    assert_eq!(bed.unix("DELETE", "/v1/users/alice", &[], "").status, 200);

    let asked: BTreeSet<_> = requests.iter().map(|(method, path, ..)| (*method, *path)).collect();
    let elsewhere = [("get", "/v1/allocations/events"), ("delete", "/v1/users/{user}")];
    let paths = document["paths"].as_object().expect("there are paths").iter();
    let all =
        paths.flat_map(|(path, item)| item.as_object().into_iter().flatten().map(move |(method, _)| (method, path)));
    // Sessions have tests of their own.
    for (method, path) in all.filter(|(_, path)| !path.starts_with("/v1/ice/")) {
        let operation = (method.as_str(), path.as_str());
        assert!(asked.contains(&operation) || elsewhere.contains(&operation), "{method} {path} was not asked for");
    }
    bed.relay.stop();
}

#[test]
fn events_and_problems_are_as_documented() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let document = bed.unix("GET", "/v1/openapi.json", &[], "").json();
    let _client = bed.allocated();
    let mut events = ask(unix(&bed.socket), "GET", "/v1/allocations/events", &[], "");
    let _other = bed.allocated();
    assert_eq!(bed.unix("DELETE", "/v1/allocations?all=true", &[], "").status, 200);
    let schema =
        &document["paths"]["/v1/allocations/events"]["get"]["responses"]["200"]["content"]["text/event-stream"];
    for kind in ["began", "ended"] {
        let event = events.event();
        assert_eq!(event["event"], kind, "{event}");
        conforms(&event, &schema["schema"], &document).unwrap_or_else(|error| panic!("{error}: {event}"));
    }

    let problem = bed.unix("GET", "/v1/allocations/nothing", &[], "").json();
    conforms(&problem, &json!({ "$ref": "#/components/schemas/Problem" }), &document).expect("a problem");
    bed.relay.stop();
}

/// Whether a value is as a schema says, without anything that the schema does not name.
pub(crate) fn conforms(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    let mut named = BTreeSet::new();
    meets(value, schema, document, &mut named)?;
    match value.as_object().and_then(|object| object.keys().find(|key| !named.contains(*key))) {
        Some(key) if !named.is_empty() => Err(format!("`{key}` is not documented")),
        _ => Ok(()),
    }
}

/// The part of JSON Schema that the document uses; collects the properties that are named.
fn meets(value: &Value, schema: &Value, document: &Value, named: &mut BTreeSet<String>) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).ok_or(format!("{reference} is missing"))?;
        return meets(value, target, document, named);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().try_for_each(|part| meets(value, part, document, named));
    }
    if let Some(kinds) = schema["oneOf"].as_array() {
        let mut fitting = kinds.iter().filter_map(|kind| {
            let mut named = BTreeSet::new();
            meets(value, kind, document, &mut named).is_ok().then_some(named)
        });
        named.extend(fitting.next().ok_or(format!("{value} is none of {schema}"))?);
        return Ok(());
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.contains(&is) {
        return Err(format!("{value} is none of {kinds:?}"));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    for item in value.as_array().into_iter().flatten() {
        conforms(item, &schema["items"], document)?;
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = required.into_iter().find(|key| !object.contains_key(*key)) {
        return Err(format!("`{missing}` is missing"));
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        named.insert(key.clone());
        if let Some(value) = object.get(key) {
            conforms(value, property, document).map_err(|error| format!("{key}: {error}"))?;
        }
    }
    Ok(())
}
