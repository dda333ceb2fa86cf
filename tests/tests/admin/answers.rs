//! What is answered to requests that cannot be answered.

use hairpin_tests::lab::Namespace;

use crate::bed::Bed;

const JSON: &[&str] = &["Content-Type: application/json"];

#[test]
fn each_wrong_request_gets_its_status_and_a_reason_as_json() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let long = format!("{{\"level\": \"{}\"}}", "x".repeat(20_000));
    #[allow(clippy::type_complexity, reason = "a table of requests and their answers")]
    let cases: &[(&str, &str, &[&str], &str, u16, &str)] = &[
        ("GET", "/v1/allocations?usr=alice", &[], "", 400, "`usr`"),
        ("GET", "/v1/allocations?client=here", &[], "", 400, "`here`"),
        ("GET", "/v1/allocations?relayed=1.2.3", &[], "", 400, "`1.2.3`"),
        ("GET", "/v1/allocations?limit=many", &[], "", 400, "`many`"),
        ("GET", "/v1/allocations/events?limit=5", &[], "", 400, "limit"),
        ("GET", "/v1/allocations/events?client=here", &[], "", 400, "`here`"),
        ("GET", "/v1/failures?client=here", &[], "", 400, "`here`"),
        ("GET", "/v1/failures?peer=1.2.3.4", &[], "", 400, "peer"),
        ("GET", "/v1/credentials?ttl=soon", &[], "", 400, "query"),
        ("GET", "/v1/credentials?user=alice", &[], "", 400, "user"),
        ("DELETE", "/v1/allocations", &[], "", 400, "all=true"),
        ("DELETE", "/v1/allocations?all=false", &[], "", 400, "all=true"),
        ("DELETE", "/v1/allocations?all=true&user=alice", &[], "", 400, "all=true"),
        ("DELETE", "/v1/allocations?user=alice&limit=1", &[], "", 400, "limit"),
        ("DELETE", "/v1/allocations?user=alice&order=data", &[], "", 400, "order"),
        ("GET", "/v1/allocations?order=size", &[], "", 400, "`size`"),
        ("GET", "/v1/allocations/events?order=data", &[], "", 400, "order"),
        ("GET", "/v1/failures?limit=0", &[], "", 400, "nonzero"),
        ("PUT", "/v1/log-level", JSON, "", 400, "body"),
        ("PUT", "/v1/log-level", JSON, "{\"level\": ", 400, "body"),
        ("POST", "/v1/reload", JSON, "force", 400, "body"),
        ("GET", "/v1/allocations/nothing", &[], "", 404, "`nothing`"),
        ("DELETE", "/v1/allocations/nothing", &[], "", 404, "`nothing`"),
        ("DELETE", "/v1/users/no%2Fbody", &[], "", 404, "`no/body`"),
        ("GET", "/v1", &[], "", 404, "/v1"),
        ("GET", "/v1/Status", &[], "", 404, "/v1/openapi.json"),
        ("GET", "/index.html", &[], "", 404, "/v1/openapi.json"),
        ("GET", "/page/", &[], "", 404, "/v1/openapi.json"),
        ("GET", "/page/nothing.js", &[], "", 404, "/v1/openapi.json"),
        ("POST", "/", &[], "", 405, "POST"),
        ("DELETE", "/page.css", &[], "", 405, "DELETE"),
        ("POST", "/v1/status", &[], "", 405, "POST"),
        ("DELETE", "/v1/users", &[], "", 405, "DELETE"),
        ("PUT", "/metrics", &[], "", 405, "PUT"),
        ("OPTIONS", "/v1/credentials", &[], "", 405, "OPTIONS"),
        ("PUT", "/v1/log-level", JSON, &long, 413, "16384"),
        ("PUT", "/v1/log-level", &[], "{\"level\": \"info\"}", 415, "application/json"),
        ("POST", "/v1/drain", &["Content-Type: text/json"], "{}", 415, "application/json"),
        ("PUT", "/v1/log-level", JSON, "{\"level\": \"loud\"}", 422, "loud"),
        ("PUT", "/v1/log-level", JSON, "{\"levels\": \"info\"}", 422, "levels"),
        ("POST", "/v1/reload", JSON, "{\"force\": 1}", 422, "boolean"),
        ("POST", "/v1/drain", JSON, "{\"timeout\": -1}", 422, "-1"),
        ("POST", "/v1/credentials", JSON, "{\"ttl\": 1000000000}", 422, "ttl"),
        ("POST", "/v1/credentials", JSON, "[\"bob\", 60]", 422, "object"),
        ("POST", "/v1/drain", JSON, " [60, true]", 422, "object"),
        ("POST", "/v1/reload", JSON, "[]", 422, "object"),
        ("PUT", "/v1/log-level", JSON, "[\"info\"]", 422, "object"),
        ("GET", "/v1/allocations?limit=0", &[], "", 400, "`0`"),
        ("GET", "/v1/allocations?user=", &[], "", 400, "`user`"),
        ("DELETE", "/v1/allocations?user=", &[], "", 400, "`user`"),
    ];
    for (method, path, headers, body, status, named) in cases {
        let answer = bed.unix(method, path, headers, body);
        let error = answer.expect_problem(*status);
        assert!(error.contains(named), "{method} {path}: `{named}` is not named: {error}");
        assert_eq!(answer.header("allow").is_some(), *status == 405, "{method} {path}: {answer}");
    }
    bed.relay.stop();
}
