//! The commands that ask for sessions.

use std::net::UdpSocket;
use std::process::Stdio;
use std::time::{Duration, Instant};

use hairpin_tests::lab::Namespace;
use hairpin_tests::lab::process::{Finished, Process, run};
use rustix::process::Signal;
use serde_json::Value;

use super::{CANDIDATE, ICE, PLAIN, PWD, SESSIONS, UFRAG, path};
use crate::bed::Bed;

fn finished(bed: &Bed<'_>, arguments: &[&str]) -> Finished {
    run(&mut bed.command(&[&["ice"], arguments].concat()))
}

#[track_caller]
fn json(bed: &Bed<'_>, arguments: &[&str]) -> Value {
    let text = finished(bed, &[arguments, &["--json"]].concat()).expect_success();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

#[test]
fn a_session_is_led_through_its_life_by_commands() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let created = json(
        &bed,
        &[
            "create",
            "--a",
            "ice",
            "--b",
            "plain:latch",
            "--label",
            "call 7",
            "--stream",
            "audio:2",
            "--stream",
            "video",
            "--family",
            "ipv4",
            "--address",
            "127.0.0.1",
            "--packet-rate",
            "2k",
            "--bit-rate",
            "4M",
            "--setup",
            "2m",
            "--idle",
            "0s",
        ],
    );
    let id = created["id"].as_str().expect("text");
    assert_eq!(bed.unix("GET", &path(&created), &[], "").json(), created, "as the interface says it");
    assert_eq!(created["label"], "call 7");
    assert_eq!((&created["timeouts"]["setup"], &created["timeouts"]["idle"]), (&120.into(), &0.into()));
    assert_eq!(created["streams"].as_array().map(Vec::len), Some(2));
    assert_eq!(created["limits"], serde_json::json!({ "packets": 2000, "bytes": 500_000 }));

    let remote = ["remote", id, "b", "--address", "198.51.100.7:4000", "--address", "audio/2=198.51.100.7:4001"];
    let told = json(&bed, &[&remote[..], &["--address", "video=198.51.100.7:4002", "--latch"]].concat());
    let remotes = |session: &Value| {
        let selected = session["b"]["selected"].as_array().expect("a list");
        selected.iter().map(|selected| selected["remote"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let expected = ["4000", "4001", "4002"].map(|port| Some(format!("198.51.100.7:{port}")));
    assert_eq!(remotes(&told), expected);
    let agent = ["remote", id, "a", "--ufrag", UFRAG, "--pwd", PWD, "--candidate", CANDIDATE, "--lite"];
    let told = json(&bed, &[&agent[..], &["--stream", "audio", "--end-of-candidates"]].concat());
    let expected = serde_json::json!({
        "ufrag": UFRAG, "lite": true, "candidates": [CANDIDATE], "end_of_candidates": true,
    });
    assert_eq!(told["a"]["remote"], expected);
    let updated = json(&bed, &["update", id, "--label", "call 8", "--bit-rate", "off", "--paused", "2m"]);
    assert_eq!(updated["label"], "call 8");
    assert_eq!(updated["limits"], serde_json::json!({ "packets": 2000, "bytes": 0 }), "what is not said stays");
    assert_eq!((&updated["timeouts"]["paused"], &updated["timeouts"]["setup"]), (&120.into(), &120.into()));
    assert_eq!(json(&bed, &["update", id, "--label", "call 7"])["label"], "call 7");
    let restarted = json(&bed, &["restart", id, "a"]);
    assert_ne!(restarted["a"]["ufrag"], created["a"]["ufrag"]);

    let shown = finished(&bed, &["show", id]).expect_success();
    let ufrag = restarted["a"]["ufrag"].as_str().expect("text");
    for word in [
        "call 7",
        "2000 packets/s",
        "STREAMS",
        "audio",
        "video",
        "ADDRESSES OF A",
        "SELECTED BY B",
        "198.51.100.7:4001",
        ufrag,
    ] {
        assert!(shown.contains(word), "`{word}` is missing: {shown}");
    }
    assert_eq!(json(&bed, &["show", id]), restarted);
    let fragment = finished(&bed, &["show", id, "--sdp", "a"]).expect_success();
    let said = &restarted["a"]["sdp"];
    let of = |stream: &str| &said["media"][stream]["lines"];
    let lines = [&said["session"], of("audio"), of("video")].map(|lines| lines.as_str());
    assert_eq!(Some(fragment), lines.into_iter().collect::<Option<String>>());

    let listed = finished(&bed, &["list"]).expect_success();
    assert!(listed.starts_with("ID ") && listed.contains(id) && listed.contains("call 7"), "{listed}");
    assert_eq!(json(&bed, &["list", "--label", "call 7"])["sessions"][0], restarted);
    let none = finished(&bed, &["list", "--label", "call 8"]);
    assert!(none.stderr.contains("no such session"), "{none}");
    assert_eq!(none.expect_success(), "");

    let closed = finished(&bed, &["close", id]).expect_success();
    assert!(closed.contains(id) && closed.contains("a to b"), "{closed}");
    finished(&bed, &["close", id]).expect_one_line(1, &[id, "any more"]);
    assert_eq!(bed.sessions(), 0);
    bed.relay.stop();
}

#[test]
fn candidates_that_come_later_are_arguments_or_lines_of_a_pipe() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let id = bed.session()["id"].as_str().expect("text").to_owned();
    let id = id.as_str();
    json(&bed, &["remote", id, "a", "--ufrag", UFRAG, "--pwd", PWD]);
    let at = |port: &str| CANDIDATE.replace("4000", port);
    let told = json(&bed, &["candidates", id, "--leg", "a", &at("4001"), &format!("a={}", at("4002"))]);
    assert_eq!(told["a"]["remote"]["candidates"], serde_json::json!([at("4001"), at("4002")]));
    assert_eq!(told["a"]["remote"]["end_of_candidates"], false);

    let lines = bed.file("lines", &format!("a={}\r\n\r\na={}\r\n", at("4003"), at("4004")));
    let file = std::fs::File::open(lines).expect("it is there");
    let mut piped =
        bed.command(&["ice", "candidates", id, "--leg", "a", "--stream", "media", "-", &at("4005"), "--json"]);
    let output = piped.stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("it ends");
    let told: Value = serde_json::from_slice(&output.stdout).expect("this is JSON");
    let ports = ["4001", "4002", "4003", "4004", "4005"].map(at);
    assert_eq!(told["a"]["remote"]["candidates"], serde_json::json!(ports));
    assert_eq!(told["a"]["remote"]["end_of_candidates"], false, "an empty line is no end");
    let told = finished(&bed, &["candidates", id, "--leg", "a", "--end"]).expect_success();
    assert!(told.contains("5 candidates, no more will come"), "{told}");
    bed.relay.stop();
}

#[test]
fn who_may_not_become_a_remote_is_shown_with_what_to_do() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let created = json(&bed, &["create", "--a", "ice", "--b", "plain:latch"]);
    let id = created["id"].as_str().expect("text");
    let stranger = host.enter(|| UdpSocket::bind("127.0.0.1:0")).expect("a port is free");
    let to = created["b"]["candidates"][0]["address"].as_str().expect("it has an address");
    stranger.send_to(&[0x80; 20], to).expect("it is sent");
    let refused = stranger.local_addr().expect("it is bound").to_string();
    let end = Instant::now() + Duration::from_secs(20);
    let shown = loop {
        let shown = finished(&bed, &["show", id]).expect_success();
        if shown.contains("refused") || Instant::now() > end {
            break shown;
        }
    };
    let line = shown.lines().find(|line| line.contains("refused")).unwrap_or_else(|| panic!("{shown}"));
    assert!(line.contains(&refused) && line.contains("allow-peer"), "{line}");
    let told = serde_json::json!([{ "stream": "media", "component": 1, "remote": refused, "reason": "forbidden" }]);
    assert_eq!(json(&bed, &["show", id])["b"]["refused"], told);
    bed.relay.stop();
}

#[test]
fn status_and_drain_say_how_many_there_are_and_that_there_is_no_room_for_more() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[("HAIRPIN_ICE_MAX_SESSIONS", "2")]);
    let said = |arguments: &[&str]| run(&mut bed.command(arguments)).expect_success();
    let id = bed.session()["id"].as_str().expect("text").to_owned();
    let status = bed.unix("GET", "/v1/status", &[], "").json();
    assert_eq!(status["sessions"], serde_json::json!({ "used": 1, "of": 2 }));
    assert!(!said(&["status"]).contains("ice-max-sessions"), "there is room for one");
    bed.session();
    let status = said(&["status"]);
    assert!(status.contains("WARNINGS\n  2 of 2 sessions") && status.contains("ice-max-sessions"), "{status}");
    assert!(status.contains("\nsessions       2 of 2, 100%\n"), "{status}");

    let drained = said(&["drain", "--timeout", "10m"]);
    assert!(drained.starts_with("draining: 2 media sessions left, closed in "), "{drained}");
    assert!(said(&["status"]).contains("draining       2 media sessions left, closed in "));
    finished(&bed, &["close", &id]).expect_success();
    assert!(said(&["drain", "--show"]).starts_with("draining: 1 media session left"));
    bed.relay.stop();
}

#[test]
fn descriptions_come_from_files_or_pipes_and_go_out_as_they_are() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let [plain, ice] = [("plain.sdp", PLAIN), ("ice.sdp", ICE)].map(|(name, text)| bed.file(name, text));
    let [plain, ice] = [plain, ice].map(|path| path.display().to_string());
    let offer = ["offer", &plain, "--to", "ice", "--label", "call", "--packet-rate", "50", "--address", "127.0.0.1"];
    let offered = finished(&bed, &offer);
    let id = offered.stderr.trim().to_owned();
    let sdp = offered.expect_success();
    assert!(sdp.starts_with("v=0\r\n") && sdp.contains("a=ice-lite\r\n"), "{sdp:?}");
    let session = bed.unix("GET", &format!("{SESSIONS}/{id}"), &[], "").json();
    assert_eq!(session["label"], "call", "the id alone is on standard error");
    assert_eq!(session["limits"], serde_json::json!({ "packets": 50, "bytes": 0 }));

    let answered = finished(&bed, &["answer", &id, &ice, "--from", "b"]);
    assert_eq!(answered.stderr.trim(), id);
    let sdp = answered.expect_success();
    assert!(sdp.starts_with("v=0\r\n") && !sdp.contains("a=ice-"), "{sdp:?}");
    let exchanged = json(&bed, &["offer", &plain, "--session", &id, "--from", "a"]);
    assert_eq!(exchanged["session"]["id"], id.as_str());
    assert_eq!(bed.sessions(), 1);
    let told = json(&bed, &["remote", &id, "b", "--sdp", &ice]);
    assert_eq!(told["b"]["remote"]["ufrag"], "wxyz");

    let mut piped = bed.command(&["ice", "offer", "-", "--to", "plain", "--json"]);
    let file = std::fs::File::open(&plain).expect("it is there");
    let output = piped.stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("it ends");
    let exchanged: Value = serde_json::from_slice(&output.stdout).expect("this is JSON");
    assert_eq!(exchanged["session"]["b"]["kind"], "plain");
    bed.relay.stop();
}

#[test]
fn what_cannot_be_done_is_said_in_one_line_with_an_exit_code() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let id = bed.session()["id"].as_str().expect("text").to_owned();
    let id = id.as_str();
    let [broken, empty] = [("broken.sdp", "v=0\nx\n"), ("empty.sdp", "")].map(|(name, text)| bed.file(name, text));
    let [broken, empty] = [broken, empty].map(|path| path.display().to_string());
    for (arguments, code, words) in [
        (&["create", "--a", "ice"][..], 2, &["--b"][..]),
        (&["create", "--a", "h323", "--b", "ice"], 2, &["--a", "h323", "plain:latch"]),
        (&["create", "--a", "ice", "--b", "ice", "--stream", ":2"], 2, &["--stream", "audio:2"]),
        (&["create", "--a", "ice", "--b", "ice", "--family", "ipv5"], 2, &["--family", "ipv4 or ipv6"]),
        (&["create", "--a", "ice", "--b", "ice", "--setup", "soon"], 2, &["--setup", "30s or 5m"]),
        (&["create", "--a", "ice", "--b", "ice", "--setup", "30h"], 1, &["timeouts.setup: `108000`", "86400"]),
        (&["create", "--a", "ice", "--b", "ice", "--packet-rate", "0"], 2, &["--packet-rate", "1 to 1G"]),
        (&["create", "--a", "ice", "--b", "ice", "--bit-rate", "fast"], 2, &["--bit-rate", "1k to 1000G"]),
        (&["create", "--a", "ice", "--b", "ice", "--address", "here"], 2, &["--address", "here"]),
        (&["create", "--a", "ice", "--b", "ice", "--address", "192.0.2.9"], 1, &["192.0.2.9", "it has 127.0.0.1"]),
        (&["create", "--a", "ice", "--b", "turn:0-9"], 1, &["b.allocation", "`0-9`"]),
        (&["show", "nothing"], 1, &["`nothing`"]),
        (&["show", ""], 2, &["<ID>", "empty"]),
        (&["show", id, "--sdp", "c"], 2, &["--sdp", "a or b"]),
        (&["list", "--label", ""], 2, &["--label", "empty"]),
        (&["remote", id, "a"], 2, &["--sdp", "--ufrag", "--address"]),
        (&["remote", id, "a", "--ufrag", UFRAG], 2, &["--pwd"]),
        (&["remote", id, "a", "--ufrag", UFRAG, "--pwd", PWD, "--latch"], 2, &["--latch"]),
        (&["remote", id, "a", "--ufrag", UFRAG, "--pwd", PWD, "--candidate", "x"], 1, &["candidates[0]", "\"x\""]),
        (&["remote", id, "a", "--address", "here"], 2, &["--address", "audio/2="]),
        (&["remote", id, "b", "--address", "10.0.0.1:9"], 1, &["forbid 10.0.0.1:9"]),
        (&["remote", id, "c", "--latch"], 2, &["<LEG>", "a or b"]),
        (&["restart", id, "b"], 1, &["leg b"]),
        (&["update", id], 2, &["--label", "--packet-rate", "--idle"]),
        (&["update", id, "--consent", "31s"], 1, &["timeouts.consent: `31`", "1 to 30"]),
        (&["update", "nothing", "--label", "x"], 1, &["`nothing`"]),
        (&["candidates", id, "--leg", "a"], 2, &["CANDIDATE", "--end"]),
        (&["candidates", id, CANDIDATE], 2, &["--leg"]),
        (&["candidates", id, "--leg", "c", "--end"], 2, &["--leg", "a or b"]),
        (&["candidates", id, "--leg", "a", "-"], 2, &["-: it is empty", "a candidate"]),
        (&["candidates", id, "--leg", "a", CANDIDATE], 1, &["no remote ICE agent"]),
        (&["candidates", id, "--leg", "a", CANDIDATE, "x"], 1, &["candidates[1]: \"x\""]),
        (&["offer", "/nowhere.sdp"], 2, &["/nowhere.sdp"]),
        (&["offer", &empty], 2, &["empty.sdp", "empty"]),
        (&["offer", &broken], 1, &["sdp: line 2 "]),
        (&["offer", &broken, "--to", "sip"], 2, &["--to", "ice or plain"]),
        (&["offer", &broken, "--session", id], 2, &["--from"]),
        (&["offer", &broken, "--session", id, "--from", "a", "--label", "x"], 2, &["--session", "--label"]),
        (&["offer", &broken, "--session", id, "--from", "a", "--bit-rate", "1M"], 2, &["--session", "--bit-rate"]),
        (&["offer", &broken, "--session", id, "--from", "a", "--address", "127.0.0.1"], 2, &["--session", "--address"]),
        (&["answer", id, &broken], 2, &["--from"]),
    ] {
        finished(&bed, arguments).expect_one_line(code, words);
    }
    bed.relay.stop();
}

#[test]
fn watching_tells_what_happens_and_stops_when_it_is_told() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let watching = Process::spawn(&mut bed.command(&["ice", "watch"]));
    let body = serde_json::json!({ "a": { "kind": "ice" }, "b": { "kind": "ice" }, "label": "theirs" });
    let theirs = bed.good("POST", SESSIONS, &body);
    let id = theirs["id"].as_str().expect("text");
    let ours = Process::spawn(&mut bed.command(&["ice", "watch", "--session", id, "--json"]));
    // Who watches is told from then on: what is closed too early is not seen.
    let end = Instant::now() + Duration::from_secs(20);
    while !watching.stdout().contains("closed ") {
        assert!(Instant::now() < end, "{}{}", watching.stdout(), watching.stderr());
        bed.unix("DELETE", &path(&bed.session()), &[], "");
    }
    let remote = serde_json::json!({ "addresses": [{ "address": "198.51.100.7:4000" }] });
    let mut port = 4000;
    while ours.stdout().is_empty() {
        assert!(Instant::now() < end, "{}", ours.stderr());
        port += 1;
        let remote = remote.to_string().replace("4000", &port.to_string());
        bed.unix("PUT", &format!("{}/legs/b/remote", path(&theirs)), &[super::JSON], &remote);
    }
    let line = ours.stdout().lines().next().map(str::to_owned).expect("there is one");
    let event: Value = serde_json::from_str(&line).expect("JSON, one a line");
    assert_eq!((&event["session"], &event["leg"]), (&theirs["id"], &"b".into()), "{event}");
    while !watching.stdout().contains(" theirs: leg b, media/1, 198.51.100.7:") {
        assert!(Instant::now() < end, "{}{}", watching.stdout(), watching.stderr());
    }
    for process in [watching, ours] {
        process.signal(Signal::INT);
        let finished = process.wait(Duration::from_secs(5));
        assert_eq!(finished.stderr, "", "{finished}");
        finished.expect_success();
    }
    bed.relay.stop();
}
