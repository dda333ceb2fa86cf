//! Who may do what over TCP.

use hairpin_tests::lab::Namespace;
use serde_json::Value;

use crate::bed::Bed;

/// Every operation that the document names, with a path that can be asked for.
fn operations(bed: &Bed<'_>) -> Vec<(String, String)> {
    let document = bed.unix("GET", "/v1/openapi.json", &[], "").json();
    let paths = document["paths"].as_object().expect("there are paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flat_map(serde_json::Map::keys);
        methods.map(|method| (method.to_uppercase(), path.replace(['{', '}'], "")))
    });
    operations.collect()
}

#[test]
fn without_a_token_of_the_relays_everything_but_health_is_closed() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let operations = operations(&bed);
    assert!(operations.len() > 15, "{operations:?}");
    for (method, path) in &operations {
        let answer = bed.tcp(method, path, &["Authorization: Bearer north"], "");
        if path.starts_with("/v1") {
            let error = answer.expect_problem(403);
            assert!(error.contains("token-file") && error.contains("--admin-socket"), "{path}: {error}");
        } else {
            assert_eq!(answer.status, 200, "{path}: {answer}");
        }
    }
    assert_eq!(bed.tcp("GET", "/nothing", &[], "").status, 404);
    bed.relay.stop();
}

#[test]
fn each_token_opens_what_it_is_for() {
    let host = Namespace::new("admin");
    let bed =
        Bed::new(&host, &[("HAIRPIN_ADMIN_TOKEN", "northern-light"), ("HAIRPIN_CREDENTIALS_TOKEN", "small-mint")]);
    for (method, path) in operations(&bed).iter().filter(|(_, path)| path.starts_with("/v1")) {
        for (headers, was_token) in [(&[][..], false), (&["Authorization: Bearer southern-light"], true)] {
            let answer = bed.tcp(method, path, headers, "");
            answer.expect_problem(401);
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            assert!(challenge.starts_with("Bearer "), "{method} {path}: {answer}");
            assert_eq!(challenge.contains("invalid_token"), was_token, "{method} {path}: {answer}");
        }
        let answer = bed.tcp(method, path, &["Authorization: Bearer small-mint"], "");
        if path == "/v1/credentials" {
            assert_eq!(answer.status, 200, "{method}: {answer}");
        } else {
            answer.expect_problem(403);
        }
    }
    for path in ["/v1/status", "/v1/credentials", "/v1/users"] {
        assert_eq!(bed.tcp("GET", path, &["Authorization: Bearer northern-light"], "").status, 200, "{path}");
    }
    let log = bed.relay.stop();
    for token in ["northern-light", "small-mint", "southern-light"] {
        assert!(!log.stderr.contains(token), "no token is logged: {log}");
    }
}

#[test]
fn commands_can_ask_over_tcp_with_a_token_from_a_file() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[("HAIRPIN_ADMIN_TOKEN", "northern-light")]);
    let [right, wrong] =
        ["northern-light", "southern-light"].map(|token| bed.file(token, &format!("{token}\n")).display().to_string());
    let status = |more: &[&str]| {
        let arguments = ["status", "--json", "--admin-url", "http://127.0.0.1:9641"];
        hairpin_tests::lab::process::run(&mut bed.command(&[&arguments, more].concat()))
    };
    let text = status(&["--admin-token-file", &right]).expect_success();
    let value: Value = serde_json::from_str(&text).expect("this is JSON");
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
    status(&[]).expect_one_line(1, &["bearer token is needed"]);
    status(&["--admin-token-file", &wrong]).expect_one_line(1, &["none of the relay's"]);
    status(&["--admin-token-file", "/nowhere"]).expect_one_line(2, &["--admin-token-file /nowhere"]);
    bed.relay.stop();
}
