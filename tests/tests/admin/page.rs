//! The files of the status page, and the tokens that it shows users and clients with.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::http::Answer;
use hairpin_tests::lab::process::{PATIENCE, Process, run};
use hairpin_tests::lab::relay::binary;
use hairpin_tests::lab::{Folder, Namespace};
use rustix::process::Signal;
use serde_json::Value;

use crate::bed::{Bed, serve};

/// What stands in `src="..."`, `href="..."` and `from "..."`.
fn named(text: &str) -> BTreeSet<String> {
    let after = |mark: &'static str| {
        let parts = text.split(mark).skip(1);
        parts.filter_map(|part| part.split('"').next().map(str::to_owned))
    };
    after("src=\"").chain(after("href=\"")).chain(after("from \"")).collect()
}

/// A token, which the relay has made for whoever asks over its Unix socket.
fn token(bed: &Bed<'_>) -> String {
    let answer = bed.unix("POST", "/v1/page-tokens", &[], "");
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer}");
    answer.json()["token"].as_str().expect("a token").to_owned()
}

#[test]
fn everybody_gets_its_files_with_headers_that_bind_the_browser() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let (mut ahead, mut seen) = (vec!["/".to_owned()], BTreeSet::new());
    while let Some(path) = ahead.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let answer = bed.tcp("GET", &path, &[], "");
        assert_eq!(answer.status, 200, "{path}: {answer}");
        check_headers(&path, &answer);
        let head = bed.tcp("HEAD", &path, &[], "");
        assert_eq!((head.status, head.body.as_str()), (200, ""), "HEAD {path}");
        assert_eq!(head.header("content-length"), Some(answer.body.len().to_string().as_str()), "HEAD {path}");
        for foreign in ["http://", "https://", "//cdn", "@import", "eval(", "innerHTML"] {
            let text = answer.body.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(foreign), "{path} has {foreign}");
        }
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        ahead.extend(named(&answer.body).into_iter().filter_map(|name| match name.strip_prefix("./") {
            Some(name) => Some(format!("{folder}/{name}")),
            None => name.starts_with("/page").then_some(name),
        }));
    }
    assert!(seen.len() >= 8, "the page is of several files: {seen:?}");
    bed.relay.stop();
}

fn check_headers(path: &str, answer: &Answer) {
    let policy = answer.header("content-security-policy").unwrap_or_default();
    let rules: BTreeSet<_> = policy.split(';').map(str::trim).collect();
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(rules.contains(rule), "{path}: {rule} is missing: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{path}: {policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-cache"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{path}: {name}");
    }
    let kind = answer.header("content-type").unwrap_or_default();
    let expected = match path.rsplit_once('.').map(|(_, extension)| extension) {
        None => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some(other) => panic!("{path}: {other}"),
    };
    assert_eq!(kind, expected, "{path}");
}

#[test]
fn its_token_reads_what_it_shows_and_nothing_else() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    bed.tcp("GET", "/v1/status", &[], "").expect_problem(403);
    let token = token(&bed);
    let authorization = format!("Authorization: Bearer {token}");
    let asked = |method: &str, path: &str| bed.tcp(method, path, &[&authorization], "");
    let _client = bed.allocated();
    for path in ["/v1/status", "/v1/allocations?order=data&limit=1", "/v1/failures?limit=1"] {
        assert_eq!(asked("GET", path).status, 200, "{path}");
    }
    for (method, path) in [
        ("DELETE", "/v1/allocations?all=true"),
        ("GET", "/v1/users"),
        ("GET", "/v1/allocations/events"),
        ("GET", "/v1/credentials"),
        ("POST", "/v1/page-tokens"),
        ("POST", "/v1/drain"),
        ("POST", "/v1/reload"),
        ("PUT", "/v1/log-level"),
    ] {
        let error = asked(method, path).expect_problem(403);
        assert!(error.contains("only read what the status page shows"), "{method} {path}: {error}");
    }
    assert_eq!(bed.unix("GET", "/v1/allocations", &[], "").json().as_array().map(Vec::len), Some(1));
    bed.tcp("GET", "/v1/status", &["Authorization: Bearer nobodys"], "").expect_problem(401);
    let log = bed.relay.stop();
    assert!(!log.stderr.contains(&token), "no token is logged: {log}");
}

#[test]
fn allocations_come_with_the_largest_first_when_asked() {
    let host = Namespace::new("admin");
    // Nobody is there, but what is sent there is sent.
    host.ip("route add 198.51.100.0/24 dev lo");
    let bed = Bed::new(&host, &[]);
    let clients = [bed.allocated(), bed.allocated(), bed.allocated()];
    let lengths = [10, 500, 200];
    for (client, length) in clients.iter().zip(lengths) {
        client.send_on_channel(0x4000, &vec![0; length]);
    }
    bed.relay.wait_for("all is relayed", |metrics| metrics.sum("hairpin_relayed_bytes_total", &[]) == 710);
    let sent = |query: &str| -> Vec<u64> {
        let list = bed.unix("GET", &format!("/v1/allocations?{query}"), &[], "").json();
        let list = list.as_array().expect("a list").iter();
        list.map(|allocation| allocation["relayed_data"]["to_peer"]["bytes"].as_u64().expect("a number")).collect()
    };
    assert_eq!(sent("order=data"), [500, 200, 10]);
    assert_eq!(sent("order=data&limit=1"), [500]);
    bed.relay.stop();
}

#[test]
fn the_command_prints_a_link_that_works_or_says_what_is_missing() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[("HAIRPIN_ADMIN", "0.0.0.0:9641"), ("HAIRPIN_ADMIN_TOKEN", "northern-light")]);
    let link = run(&mut bed.command(&["page"])).expect_success();
    let token = link.trim().strip_prefix("http://localhost:9641/#token=").unwrap_or_else(|| panic!("{link}"));
    assert_eq!(bed.tcp("GET", "/v1/status", &[&format!("Authorization: Bearer {token}")], "").status, 200);

    let json: Value = serde_json::from_str(&run(&mut bed.command(&["page", "--json"])).expect_success()).expect("JSON");
    let fields = ["token", "url", "expires"].map(|field| json[field].to_string());
    assert!(fields[1].contains(fields[0].trim_matches('"')), "{json}");
    assert!(json["expires"].as_u64().is_some(), "{json}");

    let file = bed.file("token", "northern-light\n").display().to_string();
    let asked = ["page", "--admin-url", "http://127.0.0.1:9641", "--admin-token-file", &file];
    let link = run(&mut bed.command(&asked)).expect_success();
    assert!(link.starts_with("http://127.0.0.1:9641/#token="), "it is where the relay was asked: {link}");
    bed.relay.stop();
}

#[test]
fn where_no_page_is_served_the_command_says_what_to_set() {
    let host = Namespace::new("admin");
    let folder = Folder::new("page");
    let socket = folder.path().join("admin.sock");
    let relay = Process::spawn(serve(&host, &socket).env("HAIRPIN_ADMIN", "off"));
    let end = Instant::now() + PATIENCE;
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < end, "it does not get ready: {}", relay.wait(Duration::ZERO));
        thread::sleep(Duration::from_millis(20));
    }
    let mut command = host.command(binary());
    let refused = run(command.arg("page").env("HAIRPIN_ADMIN_SOCKET", &socket));
    refused.expect_one_line(1, &["--admin", "off", "127.0.0.1:9641"]);
    relay.signal(Signal::TERM);
    relay.wait(PATIENCE).expect_success();
}
