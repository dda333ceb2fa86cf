//! An authorization server that says what a test has it say, and remembers what it was asked.

use std::collections::HashMap;
use std::io::{BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::Value;

use super::http::Request;
use super::namespace::Namespace;

/// A server of HTTP/1.1 on loopback, for as long as the test runs.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// A question.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Lines of the head, names of headers in lower case.
    pub head: Vec<String>,
    /// The JSON object; null for a question that has none.
    pub body: Value,
}

/// What it says.
#[derive(Clone, Debug)]
pub enum Say {
    /// A status and a body.
    Answer(u16, String),
    /// These bytes, which need not be HTTP, and the end of the connection.
    Bytes(&'static str),
    /// Nothing. The connection stays open.
    Nothing,
}

#[derive(Debug)]
struct State {
    /// By the user's name. Of others it says [`State::otherwise`].
    say: HashMap<String, Say>,
    otherwise: Say,
    asked: Vec<Asked>,
}

impl Webhook {
    /// Starts one in a namespace, which says no to everybody.
    pub fn start(namespace: &Namespace) -> Self {
        let listener = namespace.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("loopback has a port");
        let address = listener.local_addr().expect("it is bound");
        let otherwise = Say::Answer(200, r#"{"allow": false}"#.to_owned());
        let state = Arc::new(Mutex::new(State { say: HashMap::new(), otherwise, asked: Vec::new() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { address, state }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/authorize", self.address)
    }

    /// What it says of a user from now on.
    pub fn say(&self, user: &str, say: Say) {
        locked(&self.state).say.insert(user.to_owned(), say);
    }

    /// What it was asked about a user, by the subject of the question: `user` or `admission`.
    pub fn asked(&self, subject: &str, user: &str) -> Vec<Asked> {
        let is_it = |asked: &&Asked| asked.body["subject"] == subject && asked.body["username"] == user;
        locked(&self.state).asked.iter().filter(is_it).cloned().collect()
    }
}

impl Say {
    /// An answer with this object.
    pub fn json(body: &str) -> Self {
        Self::Answer(200, body.to_owned())
    }
}

/// Answers until the connection ends.
fn serve(stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let Request { head, body } = Request::receive(&mut reader).ok()?;
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let say = {
            let mut state = locked(state);
            let user = body["username"].as_str().unwrap_or_default();
            let say = state.say.get(user).unwrap_or(&state.otherwise).clone();
            state.asked.push(Asked { head, body });
            say
        };
        let mut stream = stream;
        match say {
            Say::Answer(status, body) => {
                let length = body.len();
                let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).ok()?;
            }
            Say::Bytes(bytes) => return stream.write_all(bytes.as_bytes()).ok(),
            Say::Nothing => {}
        }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no holder panics")
}
