//! The commands that ask a running relay.

use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use hairpin_tests::lab::process::{Finished, Process, run};
use hairpin_tests::lab::{Folder, Namespace};
use rustix::process::Signal;
use serde_json::Value;

use crate::bed::Bed;

fn finished(bed: &Bed<'_>, arguments: &[&str]) -> Finished {
    run(&mut bed.command(arguments))
}

#[test]
fn each_prints_for_people_and_as_the_interface_says_it() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    bed.client("wrong").allocate().expect_err("the password is wrong");
    let _client = bed.allocated();
    let allocations = bed.unix("GET", "/v1/allocations", &[], "").json();
    let id = allocations[0]["id"].as_str().expect("there is one");
    for (arguments, words, path) in [
        (&["status"][..], &["hairpin ", "serving", "LISTENERS", ":3478"][..], Some("/v1/status".to_owned())),
        (&["allocations", "list"], &["ID ", "alice"], Some("/v1/allocations".to_owned())),
        (&["allocations", "show", id], &["username ", "CHANNELS", "0x4000"], Some(format!("/v1/allocations/{id}"))),
        (&["users"], &["USER", "alice"], Some("/v1/users".to_owned())),
        (&["users", "list"], &["USER", "alice"], Some("/v1/users".to_owned())),
        (&["why", "127.0.0.1"], &["wrong_password", "401", "alice"], Some("/v1/failures?client=127.0.0.1".to_owned())),
        (&["why"], &["wrong_password", "401", "alice"], Some("/v1/failures".to_owned())),
        (&["page"], &["http://127.0.0.1:9641/#token="], None),
        (&["log-level"], &["info"], Some("/v1/log-level".to_owned())),
        (
            &["log-level", "info,hairpin::shard=debug"],
            &["info", "hairpin::shard=debug"],
            Some("/v1/log-level".to_owned()),
        ),
        (&["reload"], &[], None),
        (&["drain", "--timeout", "10m"], &["draining: 1 allocation left, closed in "], Some("/v1/drain".to_owned())),
        (&["drain", "--cancel"], &["new clients are welcome"], None),
    ] {
        let text = finished(&bed, arguments).expect_success();
        for word in words {
            assert!(text.contains(word), "{arguments:?}: `{word}` is missing: {text}");
        }
        let json = finished(&bed, &[arguments, &["--json"]].concat()).expect_success();
        let value: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {json}"));
        if let Some(path) = path {
            let keys = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
            let said = bed.unix("GET", &path, &[], "").json();
            let [value, said] = [value, said].map(|value| if value.is_array() { value[0].clone() } else { value });
            assert_eq!(keys(&value), keys(&said), "{arguments:?}");
        }
    }
    let closed = finished(&bed, &["allocations", "close", id]).expect_success();
    assert_eq!(closed.trim(), "closed 1 allocation");
    bed.relay.stop();
}

#[test]
fn a_drain_can_be_looked_at_and_waited_for_without_a_change() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let client = bed.allocated();
    assert_eq!(finished(&bed, &["drain", "--show"]).expect_success().trim(), "not draining");
    assert_eq!(bed.unix("GET", "/v1/drain", &[], "").json()["draining"], false, "a look begins nothing");

    finished(&bed, &["drain", "--timeout", "1h", "--stop"]).expect_success();
    let begun = bed.unix("GET", "/v1/drain", &[], "").json();
    let shown = finished(&bed, &["drain", "--show"]).expect_success();
    assert!(shown.contains("1 allocation left, closed in ") && shown.contains("then the relay ends"), "{shown}");
    let json = finished(&bed, &["drain", "--show", "--json"]).expect_success();
    assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON"), begun);
    let status = finished(&bed, &["status"]).expect_success();
    assert!(status.contains(", then the relay ends"), "{status}");

    let waiting = Process::spawn(&mut bed.command(&["drain", "--wait"]));
    let end = Instant::now() + Duration::from_secs(20);
    while waiting.stdout().is_empty() {
        assert!(Instant::now() < end, "{}", waiting.stderr());
    }
    assert_eq!(bed.unix("GET", "/v1/drain", &[], "").json(), begun, "the terms stay");
    assert_eq!(finished(&bed, &["allocations", "close", "--all"]).expect_success().trim(), "closed 1 allocation");
    waiting.wait(Duration::from_secs(20)).expect_success();
    drop(client);
}

#[test]
fn what_cannot_be_done_is_said_in_one_line_with_an_exit_code() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    for (arguments, code, words) in [
        (&["allocations", "close"][..], 2, &["--all"][..]),
        (&["allocations", "close", "--all", "--user", "alice"], 2, &["--all", "--user"]),
        (&["allocations", "close", "nothing"], 1, &["`nothing`"]),
        (&["allocations", "show", "no/thing"], 1, &["`no/thing`"]),
        (&["allocations", "list", "--client", "here"], 2, &["`here`"]),
        (&["users", "close", "no body"], 1, &["`no body`"]),
        (&["why", "here"], 2, &["here", "address is needed"]),
        (&["log-level", "loud"], 1, &["loud"]),
        (&["drain", "--cancel", "--stop"], 2, &["--cancel", "--stop"]),
        (&["drain", "--timeout", "soon"], 2, &["--timeout"]),
        (&["drain", "--timeout", "31d"], 2, &["--timeout", "30 days"]),
        (&["drain", "--show", "--stop"], 2, &["--show", "--stop"]),
        (&["allocations", "list", "--limit", "0"], 2, &["--limit"]),
        (&["allocations", "list", "--limit", "x"], 2, &["--limit", "a whole number is needed"]),
        (&["allocations", "list", "--user", ""], 2, &["--user", "empty"]),
        (&["allocations", "show", ""], 2, &["<ID>", "empty"]),
        (&["users", "close", ""], 2, &["<USER>", "empty"]),
        (&["log-level", "\x1b[2J"], 1, &["\\u{1b}[2J"]),
        (&["status", "--admin-url", "https://localhost:1"], 2, &["--admin-url"]),
        (&["status", "--admin-url", "http://127.0.0.1:1"], 1, &["127.0.0.1:1", "is the relay running"]),
        (&["status", "--admin-socket", "/nowhere/admin.sock"], 1, &["/nowhere/admin.sock", "is it running?"]),
        (&["status", "--admin-socket", "off"], 2, &["--admin-socket"]),
    ] {
        finished(&bed, arguments).expect_one_line(code, words);
    }
    bed.relay.stop();
}

#[test]
fn nothing_that_failed_is_an_answer_too() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let answer = finished(&bed, &["why", "203.0.113.77"]);
    assert!(answer.stderr.contains("perhaps it never reached this relay"), "{answer}");
    assert_eq!(answer.expect_success(), "");
    let answer = finished(&bed, &["why"]);
    assert!(answer.stderr.contains("nothing was refused lately"), "{answer}");
    assert_eq!(answer.expect_success(), "");
    let empty = finished(&bed, &["why", "203.0.113.77", "--json"]);
    assert_eq!(empty.expect_success().trim(), "[]");
    bed.relay.stop();
}

#[test]
fn watching_tells_each_end_and_stops_when_it_is_told_or_nobody_reads() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let folder = Folder::new("watch");
    let watched = folder.path().join("events");
    let client = bed.allocated();
    let first = Process::spawn(&mut bed.command(&["allocations", "watch"]));
    let mut unread = bed.host.command("sh");
    unread.args(["-c", "\"$0\" allocations watch --json | head -n 1 > \"$1\""]);
    unread.arg(hairpin_tests::lab::relay::binary()).arg(&watched).env("HAIRPIN_ADMIN_SOCKET", &bed.socket);
    let mut second = Process::spawn(&mut unread);

    // Who watches is told from then on: what is closed too early is seen by neither.
    let end = Instant::now() + Duration::from_secs(20);
    let mut clients = vec![client];
    while !first.stdout().contains(" ended ") || second.is_running() {
        assert!(Instant::now() < end, "{}{}", first.stdout(), first.stderr());
        assert_eq!(bed.unix("DELETE", "/v1/allocations?all=true", &[], "").status, 200);
        clients.push(bed.allocated());
    }
    let event: Value =
        serde_json::from_str(&std::fs::read_to_string(&watched).expect("head has written")).expect("JSON");
    assert_eq!(event["allocation"]["user"], "alice", "{event}");
    second.wait(Duration::from_secs(5)).expect_success();
    first.signal(Signal::INT);
    let finished = first.wait(Duration::from_secs(5));
    assert_eq!(finished.stderr, "", "{finished}");
    assert!(finished.expect_success().contains("alice"));
    bed.relay.stop();
}

#[test]
fn an_end_of_the_relay_ends_the_watching() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let watching = Process::spawn(&mut bed.command(&["allocations", "watch"]));
    let end = Instant::now() + Duration::from_secs(20);
    let _client = bed.allocated();
    while watching.stdout().is_empty() {
        assert!(Instant::now() < end, "{}", watching.stderr());
        bed.unix("DELETE", "/v1/allocations?all=true", &[], "");
        bed.allocated();
    }
    bed.relay.stop();
    let finished = watching.wait(Duration::from_secs(5));
    assert_eq!(finished.code(), Some(1), "{finished}");
    assert!(finished.stderr.contains("says nothing any more"), "{finished}");
}

#[test]
fn output_that_nobody_takes_is_no_panic() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    bed.client("wrong").allocate().expect_err("the password is wrong");
    let _client = bed.allocated();
    for arguments in
        [&["status"][..], &["allocations", "list"], &["openapi"], &["why", "127.0.0.1"], &["users", "--json"]]
    {
        let full = File::options().write(true).open("/dev/full").expect("every host has it");
        let child = bed.command(arguments).stdout(full).stderr(Stdio::piped()).spawn().expect("it starts");
        let output = child.wait_with_output().expect("it ends");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
        assert!(complaint.starts_with("hairpin: standard output: "), "{arguments:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");

        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let child = bed.command(arguments).stdout(writer).stderr(Stdio::piped()).spawn().expect("it starts");
        let output = child.wait_with_output().expect("it ends");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), complaint.as_str()), (Some(0), ""), "{arguments:?}");
    }
    bed.relay.stop();
}

#[test]
fn draining_is_waited_for_until_nothing_is_left_or_somebody_ends_it() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let _client = bed.allocated();
    let waiting = Process::spawn(&mut bed.command(&["drain", "--wait"]));
    let end = Instant::now() + Duration::from_secs(20);
    while !waiting.stdout().contains("draining: 1 allocation left, no deadline") {
        assert!(Instant::now() < end, "{}{}", waiting.stdout(), waiting.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
    finished(&bed, &["drain", "--cancel"]).expect_success();
    let ended = waiting.wait(Duration::from_secs(20));
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("let new clients in again"), "{ended}");
    bed.relay.stop();
}
