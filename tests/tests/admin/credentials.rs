//! Credentials for applications.

use hairpin_tests::lab::Namespace;

use crate::bed::Bed;

const TOKEN: &str = "Authorization: Bearer small-mint";
const OURS: &str = "https://meet.example.org";

#[test]
fn they_come_as_webrtc_takes_them_and_nobody_keeps_them() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[("HAIRPIN_CREDENTIALS_TOKEN", "small-mint")]);
    let by_query = bed.tcp("GET", "/v1/credentials?name=bob&ttl=60", &[TOKEN], "");
    let headers = [TOKEN, "Content-Type: application/json"];
    let by_body = bed.tcp("POST", "/v1/credentials", &headers, r#"{"name": "bob", "ttl": 60}"#);
    for answer in [by_query, by_body] {
        assert_eq!(answer.status, 200, "{answer}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
        let value = answer.json();
        assert_eq!(value["ttl"], 60, "{answer}");
        let server = &value["iceServers"][0];
        assert!(server["urls"][0].as_str().is_some_and(|url| url.starts_with("turn:")), "{answer}");
        assert_eq!(server["username"], format!("{}:bob", value["expires"]), "{answer}");
        assert!(server["credential"].as_str().is_some_and(|password| !password.is_empty()), "{answer}");
    }
    let plain = bed.tcp("POST", "/v1/credentials", &[TOKEN], "");
    assert_eq!(plain.status, 200, "nothing has to be said: {plain}");
    assert_eq!(bed.tcp("HEAD", "/v1/credentials", &[TOKEN], "").header("cache-control"), Some("no-store"));
    bed.relay.stop();
}

#[test]
fn more_than_so_many_a_second_are_refused_for_a_moment() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[("HAIRPIN_CREDENTIALS_TOKEN", "small-mint"), ("HAIRPIN_CREDENTIALS_RATE", "1")]);
    // Strangers use up nothing.
    for _ in 0..20 {
        bed.tcp("GET", "/v1/credentials", &[], "").expect_problem(401);
    }
    assert_eq!(bed.tcp("GET", "/v1/credentials", &[TOKEN], "").status, 200);
    let refused =
        (0..1000).map(|_| bed.tcp("GET", "/v1/credentials", &[TOKEN], "")).find(|answer| answer.status != 200);
    let refused = refused.expect("a thousand take less than a thousand seconds");
    assert!(refused.expect_problem(429).contains("--credentials-rate"), "{refused}");
    assert_eq!(refused.header("retry-after"), Some("1"), "{refused}");
    // Whoever may do everything is held to it, too.
    let refused = (0..1000).map(|_| bed.unix("GET", "/v1/credentials", &[], "")).find(|answer| answer.status != 200);
    refused.expect("the same rate").expect_problem(429);
    assert_eq!(bed.unix("GET", "/v1/status", &[], "").status, 200, "nothing else is limited");
    bed.relay.stop();
}

#[test]
fn pages_of_the_configured_origin_may_ask_and_no_others() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[("HAIRPIN_CREDENTIALS_TOKEN", "small-mint"), ("HAIRPIN_CREDENTIALS_ORIGIN", OURS)]);
    let ours = format!("Origin: {OURS}");
    let before = ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization"];

    let answer = bed.tcp("OPTIONS", "/v1/credentials", &[&ours, before[0], before[1]], "");
    assert_eq!(answer.status, 204, "{answer}");
    assert_eq!(answer.header("access-control-allow-origin"), Some(OURS), "{answer}");
    assert_eq!(answer.header("vary"), Some("Origin"), "{answer}");
    let lists = ["access-control-allow-methods", "access-control-allow-headers"].map(|name| answer.header(name));
    assert_eq!(lists, [Some("GET, POST"), Some("Authorization, Content-Type")], "{answer}");
    let theirs = "Origin: https://example.com";
    let answer = bed.tcp("OPTIONS", "/v1/credentials", &[theirs, before[0], before[1]], "");
    assert!(answer.expect_problem(403).contains("--credentials-origin"), "{answer}");
    assert_eq!(answer.header("access-control-allow-origin"), None, "{answer}");

    for (origin, allowed) in [(ours.as_str(), Some(OURS)), (theirs, None), ("X-None: 1", None)] {
        for (token, status) in [(TOKEN, 200), ("Authorization: Bearer wrong", 401)] {
            let answer = bed.tcp("GET", "/v1/credentials", &[origin, token], "");
            assert_eq!(answer.status, status, "{answer}");
            assert_eq!(answer.header("access-control-allow-origin"), allowed, "{origin}: {answer}");
            assert_eq!(answer.header("vary"), Some("Origin"), "{answer}");
        }
    }
    // Nothing else is for pages, of whatever origin.
    let answer = bed.tcp("OPTIONS", "/v1/status", &[&ours, before[0]], "");
    answer.expect_problem(403);
    assert_eq!(answer.header("access-control-allow-origin"), None, "{answer}");
    assert_eq!(bed.tcp("GET", "/metrics", &[&ours], "").header("access-control-allow-origin"), None);
    bed.relay.stop();
}

#[test]
fn without_a_configured_origin_no_page_may_ask() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[("HAIRPIN_CREDENTIALS_TOKEN", "small-mint")]);
    let origin = format!("Origin: {OURS}");
    let asked = [origin.as_str(), "Access-Control-Request-Method: GET"];
    bed.tcp("OPTIONS", "/v1/credentials", &asked, "").expect_problem(403);
    assert_eq!(bed.tcp("GET", "/v1/credentials", &[&origin, TOKEN], "").header("access-control-allow-origin"), None);
    bed.relay.stop();
}
