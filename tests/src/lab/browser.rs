//! A browser without a screen, with a page that is an agent. Its camera and its microphone are made up.

use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::agent::Agent;
use super::folder::Folder;
use super::http::{Request, answer_with_page};
use super::namespace::Namespace;
use super::process::Process;
use super::{python, server};

/// How long a page waits for an order before it asks again.
const HELD: Duration = Duration::from_secs(50);
const CHROMIUM: [&str; 7] = [
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
/// Preferences of Firefox. It tells addresses instead of names of them once the camera is on.
const FIREFOX: [(&str, &str); 7] = [
    ("media.navigator.streams.fake", "true"),
    ("media.navigator.permission.disabled", "true"),
    ("media.autoplay.default", "0"),
    // Five seconds after a change of the network it gives up connections that are silent, as one is that waits for an
    // order: longer than that takes.
    ("network.http.network-changed.timeout", "600"),
    // Nobody else is there to be asked.
    ("network.captive-portal-service.enabled", "false"),
    ("network.connectivity-service.enabled", "false"),
    ("media.gmp-manager.updateEnabled", "false"),
];

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Chromium, whose page is given a camera, and with it the addresses of the host.
    Chromium,
    /// Chromium whose page is given none of them.
    ChromiumWithoutCamera,
    /// Firefox, with a camera.
    Firefox,
}

impl Kind {
    /// Whether the browser is there, so that a test can say why it is skipped.
    ///
    /// # Panics
    /// When it is not, and everything has to be.
    pub fn is_installed(self) -> bool {
        server::is_installed(self.program())
    }

    fn program(self) -> &'static str {
        match self {
            Self::Chromium | Self::ChromiumWithoutCamera => "chromium",
            Self::Firefox => "firefox-esr",
        }
    }

    /// What opens a page in a namespace, with a profile that is made here.
    fn command(self, namespace: &Namespace, profile: &Path) -> Command {
        std::fs::create_dir(profile).unwrap_or_else(|error| panic!("{}: {error}", profile.display()));
        let mut command = namespace.command(self.program());
        let folder = format!("--user-data-dir={}", profile.display());
        match self {
            Self::Chromium => command.args(CHROMIUM).args(CAMERA).arg(folder),
            Self::ChromiumWithoutCamera => command.args(CHROMIUM).args(NO_CAMERA).arg(folder),
            Self::Firefox => {
                let preferences = FIREFOX.map(|(name, value)| format!("user_pref(\"{name}\", {value});\n"));
                let file = profile.join("user.js");
                let written = std::fs::write(&file, preferences.concat());
                written.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                command.args(["--headless", "--no-remote", "--profile"]).arg(profile)
            }
        };
        command
    }
}

/// A browser, and the folder that it lives in.
#[derive(Debug)]
pub struct Browser {
    /// The page.
    pub page: Agent,
    _home: Folder,
}

impl Browser {
    /// Opens the page in a namespace.
    pub fn open(kind: Kind, namespace: &Namespace) -> Self {
        let (orders, waiting) = mpsc::channel();
        let (events, said) = mpsc::channel();
        let listener = namespace.enter(|| TcpListener::bind("127.0.0.1:0")).expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        thread::spawn(move || serve(&listener, waiting, &events));

        let home = Folder::new(kind.program());
        let mut command = kind.command(namespace, &home.path().join("profile"));
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
    let request = Request::receive(&mut BufReader::new(stream))?;
    let content = match request.path() {
        "/" => std::fs::read_to_string(python::scripts().join("ice/page.html"))?,
        "/command" => {
            let order = orders.lock().expect("no reader panics").recv_timeout(HELD);
            order.map_or_else(|_| r#"{"do": "end"}"#.to_owned(), |order| order.to_string())
        }
        "/event" => {
            let event = serde_json::from_slice(&request.body).map_err(std::io::Error::other)?;
            events.send(event).map_err(std::io::Error::other)?;
            String::new()
        }
        _ => String::new(),
    };
    answer_with_page(stream, &content)
}
