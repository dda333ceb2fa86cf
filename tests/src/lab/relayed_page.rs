//! A page in Chromium without a screen, with two peer connections that may use relayed candidates only.

use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::http::{Request, answer_with_page};
use super::namespace::Namespace;
use super::process::{Finished, Process};
use super::python;

/// The page gives up after 30 seconds and says why.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs it in a namespace, with a home for the browser, at the server of this URL: what it says, and what became of the browser.
///
/// # Panics
/// When the page says nothing.
pub fn run(host: &Namespace, home: &Path, url: &str, user: &str, password: &str) -> (Value, Finished) {
    let (page, result) = serve(host);
    let question = format!("?url={}&user={}&password={}", escaped(url), escaped(user), escaped(password));
    let browser = open(host, home, &format!("{page}{question}"));
    let result = result.recv_timeout(PATIENCE);
    let finished = browser.wait(Duration::ZERO);
    let result = result.unwrap_or_else(|error| panic!("the page says nothing: {error}; {finished}"));
    (result, finished)
}

fn open(host: &Namespace, home: &Path, url: &str) -> Process {
    let mut command = host.command("chromium");
    command.args(["--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"]);
    // The tests are root, who gets no sandbox.
    command.arg("--no-sandbox");
    command.arg(format!("--user-data-dir={}", home.join("profile").display())).arg(url);
    Process::spawn(command.env("HOME", home))
}

/// Serves the page inside a namespace until it has posted its result: the page's URL, and where the result comes.
fn serve(host: &Namespace) -> (String, Receiver<Value>) {
    let listener = host.enter(|| TcpListener::bind("127.0.0.1:0")).expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let (sender, result) = mpsc::channel();
    thread::spawn(move || {
        let posted = listener.incoming().flatten().find_map(|stream| answer(&stream).ok().flatten());
        let posted = posted.unwrap_or_default();
        let _ = sender.send(serde_json::from_str(&posted).unwrap_or(Value::String(posted)));
    });
    (format!("http://localhost:{port}/"), result)
}

/// Answers one request: with the page, or to what it posts, which is returned.
fn answer(stream: &TcpStream) -> std::io::Result<Option<String>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = Request::receive(&mut BufReader::new(stream))?;
    let posted = (request.method() == "POST").then(|| String::from_utf8_lossy(&request.body).into_owned());
    let page = if request.method() == "GET" && (request.path() == "/" || request.path().starts_with("/?")) {
        std::fs::read_to_string(python::scripts().join("chromium.html"))?
    } else {
        String::new()
    };
    answer_with_page(stream, &page)?;
    Ok(posted)
}

/// A URL as the value in the query of another one.
fn escaped(url: &str) -> String {
    let reserved = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("%{:02X}", c as u32) };
    url.chars().map(reserved).collect()
}
