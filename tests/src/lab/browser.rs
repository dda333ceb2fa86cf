//! Chromium without a screen, with a page that is an agent. Its camera and its microphone are made up.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::agent::Agent;
use super::folder::Folder;
use super::namespace::Namespace;
use super::process::Process;
use super::python;

/// How long a page waits for an order before it asks again.
const HELD: Duration = Duration::from_secs(50);
const FLAGS: [&str; 7] = [
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    // The tests are root, who gets no sandbox.
    "--no-sandbox",
    // The memory that is shared by all of a host may be a small part of a container's.
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
];
/// Gives the page a camera and a microphone without asking anybody, and with them the addresses of the host.
const CAMERA: [&str; 2] = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
/// As on a desktop: whoever was not given a camera is told names of addresses only.
const NO_CAMERA: [&str; 1] = ["--enable-features=WebRtcHideLocalIpsWithMdns"];

/// A browser, and the folder that it lives in.
#[derive(Debug)]
pub struct Browser {
    /// The page.
    pub page: Agent,
    _home: Folder,
}

impl Browser {
    /// Opens the page in a namespace, with a camera and a microphone.
    pub fn open(namespace: &Namespace) -> Self {
        Self::start(namespace, &CAMERA)
    }

    /// Opens the page without them.
    pub fn open_without_camera(namespace: &Namespace) -> Self {
        Self::start(namespace, &NO_CAMERA)
    }

    fn start(namespace: &Namespace, flags: &[&str]) -> Self {
        let (orders, waiting) = mpsc::channel();
        let (events, said) = mpsc::channel();
        let listener = namespace.enter(|| TcpListener::bind("127.0.0.1:0")).expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        thread::spawn(move || serve(&listener, waiting, &events));

        let home = Folder::new("chromium");
        let mut command = namespace.command("chromium");
        command.args(FLAGS).args(flags).arg(format!("--user-data-dir={}", home.path().join("profile").display()));
        // Only what comes from the host itself may use a camera without TLS.
        command.arg(format!("http://localhost:{port}/")).env("HOME", home.path());
        Self { page: Agent::page(Process::spawn(&mut command), orders, said), _home: home }
    }
}

/// Serves the page, its orders and its events, until nobody gives orders any more.
fn serve(listener: &TcpListener, orders: Receiver<Value>, events: &Sender<Value>) {
    let orders = Arc::new(Mutex::new(orders));
    for stream in listener.incoming().flatten() {
        let (orders, events) = (Arc::clone(&orders), events.clone());
        // A browser opens connections that it then has no use for.
        thread::spawn(move || {
            let _ = answer(&stream, &orders, &events);
        });
    }
}

fn answer(stream: &TcpStream, orders: &Mutex<Receiver<Value>>, events: &Sender<Value>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(HELD))?;
    let mut reader = BufReader::new(stream);
    let (mut request, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut request)?;
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let content = match request.split_whitespace().nth(1) {
        Some("/") => std::fs::read_to_string(python::scripts().join("ice/page.html"))?,
        Some("/command") => {
            let order = orders.lock().expect("no reader panics").recv_timeout(HELD);
            order.map_or_else(|_| r#"{"do": "end"}"#.to_owned(), |order| order.to_string())
        }
        Some("/event") => {
            let event = serde_json::from_slice(&body).map_err(std::io::Error::other)?;
            events.send(event).map_err(std::io::Error::other)?;
            String::new()
        }
        _ => String::new(),
    };
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length";
    write!(&*stream, "{head}: {}\r\n\r\n{content}", content.len())
}
