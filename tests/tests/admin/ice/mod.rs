//! Sessions of two legs, over the admin interface and by commands.

mod commands;
mod documented;
mod events;
mod life;
mod negotiation;
mod once;
mod refusals;

use std::net::UdpSocket;
use std::time::Duration;

use hairpin_tests::lab::Namespace;
use hairpin_tests::lab::http::Answer;
use serde_json::{Value, json};

use crate::bed::Bed;

const JSON: &str = "Content-Type: application/json";
const SESSIONS: &str = "/v1/ice/sessions";
/// Credentials and a candidate of an agent somewhere else.
const UFRAG: &str = "wxyz";
const PWD: &str = "abcdefghijklmnopqrstuv";
const CANDIDATE: &str = "candidate:1 1 UDP 2130706431 198.51.100.7 4000 typ host";

/// What a telephone offers.
const PLAIN: &str = "\
v=0\r
o=- 1 1 IN IP4 198.51.100.7\r
s=-\r
c=IN IP4 198.51.100.7\r
t=0 0\r
m=audio 4000 RTP/AVP 0\r
a=rtcp-mux\r
";

/// What an agent of ICE says, in return.
const ICE: &str = "\
v=0\r
o=- 2 2 IN IP4 0.0.0.0\r
s=-\r
t=0 0\r
a=ice-ufrag:wxyz\r
a=ice-pwd:abcdefghijklmnopqrstuv\r
m=audio 9 RTP/AVP 0\r
c=IN IP4 0.0.0.0\r
a=candidate:1 1 UDP 2130706431 198.51.100.9 4000 typ host\r
a=rtcp-mux\r
";

impl Bed<'_> {
    /// Asks with a body of JSON.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.unix(method, path, &[JSON], &body.to_string())
    }

    /// Asks with a body of JSON, and is answered well.
    #[track_caller]
    fn good(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, body);
        assert_eq!(answer.status, 200, "{method} {path}: {answer}");
        answer.json()
    }

    /// Creates a session of an ICE leg and a plain one.
    fn session(&self) -> Value {
        self.good("POST", SESSIONS, &json!({ "a": { "kind": "ice" }, "b": { "kind": "plain" } }))
    }

    /// How many sessions there are.
    fn sessions(&self) -> usize {
        self.unix("GET", SESSIONS, &[], "").json()["sessions"].as_array().map_or(0, Vec::len)
    }
}

/// A socket of somebody without ICE, at an address that the peer rules allow.
fn party(host: &Namespace) -> UdpSocket {
    // The address may be there already, for another party.
    host.ip("address replace 198.51.100.1/32 dev lo");
    let socket = host.enter(|| UdpSocket::bind("198.51.100.1:0")).expect("a port is free");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("the time is not zero");
    socket
}

/// The path of a session.
fn path(session: &Value) -> String {
    format!("{SESSIONS}/{}", session["id"].as_str().expect("an id is text"))
}
