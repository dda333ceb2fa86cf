//! A real Prometheus on the host of the relay, with the rules that we give to others.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::folder::Folder;
use super::namespace::Namespace;
use super::process::{PATIENCE, Process};

/// Where it listens.
const ADDRESS: &str = "127.0.0.1:9090";

/// A running Prometheus. It is killed when this goes out of scope.
#[derive(Debug)]
pub struct Prometheus<'n> {
    namespace: &'n Namespace,
    process: Process,
    /// Has its configuration and its data.
    _folder: Folder,
}

/// Where the example of a configuration and the rules are.
pub fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").join("deploy/prometheus")
}

impl<'n> Prometheus<'n> {
    /// Starts one with the example of a configuration, except that it scrapes and evaluates every second.
    pub fn start(namespace: &'n Namespace) -> Self {
        let folder = Folder::new("prometheus");
        let example = rules().join("prometheus.yml");
        let example = fs::read_to_string(&example).unwrap_or_else(|error| panic!("{}: {error}", example.display()));
        let configuration = example.replace("interval: 15s", "interval: 1s");
        assert_ne!(configuration, example, "the example says how often");
        fs::write(folder.path().join("prometheus.yml"), configuration).expect("the folder is ours");
        for file in ["hairpin.recording.yml", "hairpin.alerts.yml"] {
            fs::copy(rules().join(file), folder.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        let mut command = namespace.command("prometheus");
        command.arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={ADDRESS}"));
        let mut prometheus = Self { namespace, process: Process::spawn(&mut command), _folder: folder };
        let end = Instant::now() + PATIENCE;
        while prometheus.get("/-/ready").is_none_or(|(status, _)| status != 200) {
            let may_come = prometheus.process.is_running() && Instant::now() < end;
            assert!(may_come, "Prometheus does not get ready: {}", prometheus.process.wait(Duration::ZERO));
            thread::sleep(Duration::from_millis(50));
        }
        prometheus
    }

    /// What an expression gives now: the samples, each with its labels (`metric`) and its `value`.
    ///
    /// # Panics
    /// When it cannot be evaluated.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let answer = self.ask(&format!("/api/v1/query?query={}", encoded(expression)));
        let result = answer["data"]["result"].as_array();
        result.unwrap_or_else(|| panic!("`{expression}`: {answer}")).clone()
    }

    /// Asks its API.
    ///
    /// # Panics
    /// When it does not answer, or with an error.
    pub fn ask(&self, path: &str) -> Value {
        let (_, body) = self.get(path).expect("Prometheus answers");
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer
    }

    /// The status and the body of an answer.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        self.namespace.enter(|| {
            let mut stream = TcpStream::connect(ADDRESS).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            // HTTP/1.0, so that the body comes in one piece.
            write!(stream, "GET {path} HTTP/1.0\r\nHost: {ADDRESS}\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            let status = head.split_whitespace().nth(1)?.parse().ok()?;
            Some((status, body.to_owned()))
        })
    }
}

/// A text as part of a URL.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
