//! A relay with users, alone on a host, and the commands that ask it.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::process::{Finished, run};
use hairpin_tests::lab::relay::{PORT, binary};
use hairpin_tests::lab::turn::{Client, Refused};
use hairpin_tests::lab::{Certificate, Folder, Metrics, Namespace, Relay, Transport};
use serde_json::Value;

/// How long anything may take on a busy machine before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Where everything is that needs no network.
pub(crate) const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Options of a relay there.
const AT_HOME: [&str; 8] =
    ["--listen", "127.0.0.1:3478", "--relay-address", "127.0.0.1", "--allow-peer", "127.0.0.0/8", "--xdp", "off"];

/// A relay, and its files.
pub(crate) struct Bed<'n> {
    host: &'n Namespace,
    relay: Option<Relay<'n>>,
    folder: &'n Folder,
    arguments: Vec<String>,
}

impl<'n> Bed<'n> {
    /// A relay on loopback with these arguments, blank separated. Its files are in the folder.
    pub(crate) fn at_home(host: &'n Namespace, folder: &'n Folder, arguments: &str) -> Self {
        let own = AT_HOME.into_iter().chain(arguments.split_whitespace());
        Self::start(host, folder, own.map(str::to_owned).collect())
    }

    /// The same anywhere.
    pub(crate) fn start(host: &'n Namespace, folder: &'n Folder, arguments: Vec<String>) -> Self {
        let mut bed = Self { host, relay: None, folder, arguments };
        bed.go_on();
        bed
    }

    /// Starts it again, after [`Bed::end`].
    pub(crate) fn go_on(&mut self) {
        // Whoever gets no time would be late for a reason that no test is about.
        let mut command = self.host.command("nice");
        command.args(["-n", "-10"]).arg(binary()).arg("serve").args(&self.arguments);
        command.env("HAIRPIN_ADMIN_SOCKET", self.folder.path().join("admin.sock"));
        command.env("HAIRPIN_STATE_DIR", self.folder.path().join("state"));
        self.relay = Some(Relay::start_with(self.host, &mut command));
    }

    /// Ends it, in order and without a complaint in its log.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    /// The same, to go on later.
    pub(crate) fn end(&mut self) {
        self.relay.take().expect("it runs").stop();
    }

    /// The relay.
    pub(crate) fn relay(&self) -> &Relay<'n> {
        self.relay.as_ref().expect("it runs")
    }

    /// What it has logged.
    pub(crate) fn log(&mut self) -> String {
        self.relay.as_mut().expect("it runs").process().stderr()
    }

    /// What a command comes to that asks this relay.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments))
    }

    /// What it prints for people.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        self.run(arguments).expect_success()
    }

    /// What it prints for programs.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(binary());
        command.args(arguments).env("HAIRPIN_ADMIN_SOCKET", self.folder.path().join("admin.sock"));
        command
    }

    /// What Prometheus would get.
    pub(crate) fn metrics(&self) -> Metrics {
        self.relay().metrics()
    }

    /// Waits until the metrics are as they should be.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, is_so: impl Fn(&Metrics) -> bool) {
        wait(what, || is_so(&self.metrics()));
    }

    /// The warnings in the status.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let status = self.json(&["status"]);
        let warnings = status["warnings"].as_array().unwrap_or_else(|| panic!("no warnings: {status}"));
        warnings.iter().map(|warning| warning.as_str().expect("a sentence").to_owned()).collect()
    }

    /// How many requests were refused for a cause.
    pub(crate) fn refused(&self, cause: &str) -> u64 {
        self.metrics().sum("hairpin_refusals_total", &[("cause", cause)])
    }

    /// A client on loopback, of UDP.
    pub(crate) fn client(&self, user: &str, password: &str) -> Client {
        self.client_at(Transport::Udp, PORT, user, password)
    }

    /// The same by any transport, to any port.
    pub(crate) fn client_at(&self, transport: Transport, port: u16, user: &str, password: &str) -> Client {
        let [local, server] = [0, port].map(|port| SocketAddr::new(HOME, port));
        Client::at(transport, self.host, local, server, user, password)
    }
}

/// Checks that a client gets no allocation, and the code.
#[track_caller]
pub(crate) fn expect_refused(client: &mut Client, code: u16) {
    match client.allocate() {
        Err(Refused(refused, _)) => assert_eq!(refused, code),
        Ok(relayed) => panic!("{relayed} was allocated, {code} is right"),
    }
}

/// A file with this text, which only its owner reads.
pub(crate) fn file(folder: &Folder, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    let mut options = fs::File::options();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// Options of a relay that shows a certificate, of which the folder has a copy: the relay looks at it now and then.
pub(crate) fn shown(folder: &Folder, certificate: &Certificate) -> String {
    let copy = |from: &Path| {
        let to = folder.path().join(from.file_name().expect("a file has a name"));
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        to
    };
    let [file, key] = [&certificate.file, &certificate.private_key].map(|path| copy(path));
    format!("--certificate {} --private-key {}", file.display(), key.display())
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "this did not become true: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
