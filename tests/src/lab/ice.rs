//! A relay with media sessions, and what it says of them over its admin socket.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_proto::stun::attribute::{IceControlling, Priority, UseCandidate, Username};
use hairpin_proto::stun::{Class, Integrity, LongTermKey, MessageBuilder, Method, TransactionId};
use serde_json::{Value, json};

use super::folder::Folder;
use super::http;
use super::namespace::Namespace;
use super::relay::{PASSWORD, Relay, USER, binary};

const PATIENCE: Duration = Duration::from_secs(20);
const JSON: &str = "Content-Type: application/json";

/// A running relay whose admin socket is at a place of the test's own.
#[derive(Debug)]
pub struct IceRelay<'n> {
    /// The relay.
    pub relay: Relay<'n>,
    folder: Folder,
}

/// A session of it.
#[derive(Debug)]
pub struct Session<'r, 'n> {
    relay: &'r IceRelay<'n>,
    /// Its name.
    pub id: String,
}

impl<'n> IceRelay<'n> {
    /// Starts one with these arguments.
    pub fn start(namespace: &'n Namespace, arguments: &[&str]) -> Self {
        let folder = Folder::new("ice");
        let mut command = namespace.command(binary());
        command.args(["serve", "--user", &format!("{USER}:{PASSWORD}")]).args(arguments);
        command.env("HAIRPIN_ADMIN_SOCKET", folder.path().join("admin.sock"));
        Self { relay: Relay::start_with(namespace, &mut command), folder }
    }

    /// The path of its admin socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// Asks, for what must not be refused. `path` is what comes behind `/v1/ice`.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let path = format!("/v1/ice{path}");
        let answer = http::ask(http::unix(&self.socket()), method, &path, &[JSON], &body).all();
        assert!((200..300).contains(&answer.status), "{method} {path} {body}: {answer}");
        answer.json()
    }

    /// A session of two legs and one stream, `audio`, with so many components.
    #[track_caller]
    pub fn create(&self, a: &Value, b: &Value, components: u16) -> Session<'_, 'n> {
        let streams = [json!({ "name": "audio", "components": components })];
        self.create_with(&json!({ "a": a, "b": b, "streams": streams }))
    }

    /// A session as it is said here.
    #[track_caller]
    pub fn create_with(&self, wanted: &Value) -> Session<'_, 'n> {
        let created = self.ask("POST", "/sessions", wanted);
        self.session(created["id"].as_str().expect("a session has a name"))
    }

    /// A session that there is.
    pub fn session(&self, id: &str) -> Session<'_, 'n> {
        Session { relay: self, id: id.to_owned() }
    }

    /// A session from an offer, and the offer for the other side.
    #[track_caller]
    pub fn offer(&self, sdp: &str) -> (Session<'_, 'n>, String) {
        let answer = self.ask("POST", "/offer", &json!({ "sdp": sdp, "to": "ice" }));
        let id = answer["session"]["id"].as_str().expect("a session has a name");
        (self.session(id), text(&answer["sdp"]))
    }

    /// All sessions, as the list has them.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        self.ask("GET", "/sessions", &Value::Null)["sessions"].as_array().expect("a list").clone()
    }
}

impl Session<'_, '_> {
    /// All that the relay says of it.
    #[track_caller]
    pub fn show(&self) -> Value {
        self.ask("GET", "", &Value::Null)
    }

    /// What an agent at a leg is told to connect to: credentials and candidates.
    #[track_caller]
    pub fn described(&self, leg: &str) -> Value {
        let session = self.show();
        let candidates = candidates(&session, leg);
        json!({ "ufrag": session[leg]["ufrag"], "pwd": session[leg]["pwd"], "candidates": candidates })
    }

    /// Tells it of the remote side of a leg.
    #[track_caller]
    pub fn remote(&self, leg: &str, description: &Value) -> Value {
        self.ask("PUT", &format!("/legs/{leg}/remote"), description)
    }

    /// New credentials for a leg.
    #[track_caller]
    pub fn restart(&self, leg: &str) {
        self.ask("POST", &format!("/legs/{leg}/restart"), &json!({}));
    }

    /// A later offer of a side, and what it becomes for the other one.
    #[track_caller]
    pub fn offer(&self, from: &str, sdp: &str) -> String {
        text(&self.ask("POST", "/offer", &json!({ "from": from, "sdp": sdp }))["sdp"])
    }

    /// An answer of a side, and what it becomes for the other one.
    #[track_caller]
    pub fn answer(&self, from: &str, sdp: &str) -> String {
        text(&self.ask("POST", "/answer", &json!({ "from": from, "sdp": sdp }))["sdp"])
    }

    /// Closes it; its last state.
    #[track_caller]
    pub fn close(self) -> Value {
        self.ask("DELETE", "", &Value::Null)
    }

    /// What happens to it from now on, one at a time.
    pub fn events(&self) -> http::Stream {
        let path = format!("/v1/ice/events?session={}", self.id);
        http::ask(http::unix(&self.relay.socket()), "GET", &path, &[], "")
    }

    /// Waits until it is as it should be.
    ///
    /// # Panics
    /// When it never is.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let session = self.show();
            if is_so(&session) {
                return session;
            }
            assert!(Instant::now() < end, "this did not become true: {what}\n{session:#}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until all of its streams are in the kernel, and nobody there has anything to do but to forward.
    #[track_caller]
    pub fn wait_for_kernel(&self) -> Value {
        self.wait_for("the session is in the kernel", |session| {
            let mut components = components(session).peekable();
            components.peek().is_some() && components.all(|component| component["in_kernel"] == true)
        })
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.relay.ask(method, &format!("/sessions/{}{path}", self.id), body)
    }
}

/// The components of a session's streams.
pub fn components(session: &Value) -> impl Iterator<Item = &Value> {
    let streams = session["streams"].as_array().into_iter().flatten();
    streams.flat_map(|stream| stream["components"].as_array().into_iter().flatten())
}

/// How many packets a session has forwarded, and how many of them the kernel has.
pub fn packets(session: &Value) -> (u64, u64) {
    let count = |value: &Value| value.as_u64().expect("a count");
    components(session).fold((0, 0), |(all, kernel), component| {
        let here = count(&component["a_to_b"]["packets"]) + count(&component["b_to_a"]["packets"]);
        (all + here, kernel + count(&component["kernel"]["packets"]))
    })
}

/// The candidates of a leg, as in a session description.
pub fn candidates(session: &Value, leg: &str) -> Vec<String> {
    let candidates = session[leg]["candidates"].as_array().into_iter().flatten();
    candidates.map(|one| text(&one["candidate"])).collect()
}

/// Whether a place, which an agent has told, is a candidate of a leg.
pub fn is_candidate(session: &Value, leg: &str, place: &Value) -> bool {
    let Some((ip, port)) = place.as_str().and_then(|place| place.rsplit_once(':')) else { return false };
    let place = format!(" {} {port} ", ip.trim_matches(['[', ']']));
    candidates(session, leg).iter().any(|candidate| candidate.contains(&place))
}

/// Where the remote of a leg is, for a component.
pub fn remote(session: &Value, leg: &str, component: u64) -> Option<String> {
    let selected = session[leg]["selected"].as_array()?;
    let here = selected.iter().find(|selected| selected["component"] == component)?;
    here["remote"].as_str().map(str::to_owned)
}

/// An agent's check of a leg (RFC 8445 section 7.2), which nominates the pair or not.
pub fn check(ufrag: &str, key: &LongTermKey, nominates: bool, id: [u8; 12]) -> Vec<u8> {
    let mut check = Vec::new();
    MessageBuilder::new(&mut check, Class::Request, Method::BINDING, TransactionId(id))
        .with(&Username(&format!("{ufrag}:full")))
        .with(&Priority(1))
        .with(&IceControlling(1))
        .with_option(nominates.then_some(UseCandidate).as_ref())
        .with_integrity(key, Integrity::Sha1)
        .with_fingerprint();
    check
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("this is no text: {value}")).to_owned()
}
