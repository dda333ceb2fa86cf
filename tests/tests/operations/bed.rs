//! A relay that was started from a file, in a lab with two clients and two peers.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::call::{CHANNEL, bind, receive};
use hairpin_tests::lab::http::{self, Answer};
use hairpin_tests::lab::load::{Load, Outcome, Running};
use hairpin_tests::lab::process::{Finished, Process, run};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER, binary};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Family, Folder, Lab, Metrics, Relay, Transport};
use serde_json::Value;

/// How long anything may take on a busy machine before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a datagram may take.
pub(crate) const SOON: Duration = Duration::from_secs(2);
/// After this time without a datagram there will be none.
pub(crate) const QUIET: Duration = Duration::from_millis(300);
/// Between the datagrams of those who send all the time.
const PAUSE: Duration = Duration::from_micros(500);
/// What is relayed all the time while something is changed: as long as it takes.
pub(crate) const LOAD: Load = Load { rate: 1000, seconds: 120, payload: 160, allocations: ALLOCATIONS };
pub(crate) const ALLOCATIONS: u32 = 10;
/// Modes of XDP, each with the path that forwards then.
pub(crate) const PATHS: [(&str, &str); 2] = [("native", "kernel"), ("off", "userspace")];

/// A network for all of a test.
pub(crate) fn lab() -> Lab {
    Lab::routed_with(2, 2)
}

/// An address of the relay.
pub(crate) fn server(port: u16) -> SocketAddr {
    SocketAddr::new(Lab::relay_ip(Family::V4), port)
}

/// The address of a client or a peer host.
pub(crate) fn client_ip(host: u8) -> IpAddr {
    Lab::client_ip(Family::V4, host)
}

pub(crate) fn peer_ip(host: u8) -> IpAddr {
    Lab::peer_ip(Family::V4, host)
}

/// What the file says: a value of TOML for each key.
#[derive(Clone)]
pub(crate) struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// Of a relay with the user of all labs.
    pub(crate) fn new(xdp: &str) -> Self {
        let settings = Self(BTreeMap::new()).with("xdp", &format!("\"{xdp}\"")).with("shards", "2");
        let listen = format!("[\"udp:{0}\", \"tcp:{0}\"]", server(PORT));
        settings.with("user", &format!("[\"{USER}:{PASSWORD}\"]")).with("listen", &listen)
    }

    /// The same with another value of a key.
    pub(crate) fn with(&self, key: &'static str, value: &str) -> Self {
        let mut settings = self.clone();
        settings.0.insert(key, value.to_owned());
        settings
    }

    /// The same without a key.
    pub(crate) fn without(&self, key: &str) -> Self {
        let mut settings = self.clone();
        settings.0.remove(key);
        settings
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(key, value)| writeln!(f, "{key} = {value}"))
    }
}

/// A relay, its file, and the commands that ask it.
pub(crate) struct Bed<'n> {
    pub(crate) lab: &'n Lab,
    pub(crate) relay: Relay<'n>,
    folder: Folder,
}

impl<'n> Bed<'n> {
    pub(crate) fn new(lab: &'n Lab, settings: &Settings) -> Self {
        let folder = Folder::new("operations");
        let file = folder.path().join("hairpin.toml");
        // It has a secret, and the relay would say so.
        let created = File::options().write(true).create_new(true).mode(0o600).open(&file);
        created.and_then(|mut file| file.write_all(settings.to_string().as_bytes())).expect("the folder is ours");
        // A relay that gets no time would lose packets for a reason that no test is about.
        let mut command = lab.relay.command("nice");
        command.args(["-n", "-10"]).arg(binary()).args(["serve", "--config"]).arg(&file);
        command.env("HAIRPIN_ADMIN_SOCKET", folder.path().join("admin.sock")).env_remove("HAIRPIN_CONFIG");
        Self { lab, relay: Relay::start_with(&lab.relay, &mut command), folder }
    }

    /// The file that it was started from.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("hairpin.toml")
    }

    /// A path in a folder of the test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the file anew.
    pub(crate) fn write(&self, text: &impl fmt::Display) {
        fs::write(self.file(), text.to_string()).expect("the folder is ours");
    }

    /// A command that asks this relay.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.lab.relay.command(binary());
        command.args(arguments).env("HAIRPIN_ADMIN_SOCKET", self.path("admin.sock"));
        command
    }

    /// What such a command comes to.
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

    /// Such a command at its work.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Process {
        Process::spawn(&mut self.command(arguments))
    }

    /// Asks it over its socket, without a command in between.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Answer {
        self.ask_with(method, path, "")
    }

    /// The same with a body of JSON.
    pub(crate) fn ask_with(&self, method: &str, path: &str, body: &str) -> Answer {
        let header = ["Content-Type: application/json"];
        let headers = if body.is_empty() { &[][..] } else { &header };
        http::ask(http::unix(&self.path("admin.sock")), method, path, headers, body).all()
    }

    /// Asks it over TCP, with these headers.
    pub(crate) fn ask_tcp(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let address = SocketAddr::from(([127, 0, 0, 1], 9641));
        http::ask(http::tcp(&self.lab.relay, address), method, path, headers, "").all()
    }

    /// Has the relay follow other settings, and returns its answer: lines that are changed, draining, or need a restart.
    pub(crate) fn reload(&self, settings: &impl fmt::Display, options: &[&str]) -> [Vec<String>; 3] {
        self.write(settings);
        let answer = self.json(&[&["reload"], options].concat());
        ["changed", "draining", "needs_restart"].map(|field| {
            let lines = answer[field].as_array().unwrap_or_else(|| panic!("no {field}: {answer}"));
            lines.iter().map(|line| line.as_str().expect("a line").to_owned()).collect()
        })
    }

    /// Sends the signal that has it read its file, and waits until it has.
    pub(crate) fn hang_up(&self) {
        let reloads = |metrics: &Metrics| metrics.sum("hairpin_config_reloads_total", &[]);
        let before = reloads(&self.relay.metrics());
        self.relay.signal(rustix::process::Signal::HUP);
        self.wait("the file is read", || reloads(&self.relay.metrics()) > before);
    }

    /// Waits until the metrics are as they should be.
    pub(crate) fn wait_for(&self, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
        self.wait(what, || is_so(&self.relay.metrics()));
        self.relay.metrics()
    }

    /// Waits until something is so.
    #[track_caller]
    #[allow(clippy::unused_self, reason = "it reads as what is waited for")]
    pub(crate) fn wait(&self, what: &str, is_so: impl FnMut() -> bool) {
        wait(what, is_so);
    }

    /// What it has logged.
    pub(crate) fn log(&mut self) -> String {
        self.relay.process().stderr()
    }

    /// Waits until it has logged a line with all these words, and returns it.
    pub(crate) fn logged(&mut self, words: &[&str]) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
            if let Some(line) = line {
                return line.to_owned();
            }
            assert!(Instant::now() < end, "no line has {words:?}:\n{log}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A client on one of the client hosts.
    pub(crate) fn client(&self, host: u8, user: &str, password: &str) -> Client {
        self.client_at(host, Transport::Udp, server(PORT), user, password)
    }

    /// The same by any transport, to any address.
    pub(crate) fn client_at(
        &self,
        host: u8,
        transport: Transport,
        server: SocketAddr,
        user: &str,
        password: &str,
    ) -> Client {
        let local = SocketAddr::new(client_ip(host), 0);
        Client::at(transport, &self.lab.clients[usize::from(host)], local, server, user, password)
    }

    /// A client of the user of all labs.
    pub(crate) fn alice(&self, host: u8) -> Client {
        self.client(host, USER, PASSWORD)
    }

    /// Starts to relay for [`ALLOCATIONS`] from the first client host to the first peer host, and waits until it does.
    pub(crate) fn load(&self, path: &str) -> UnderLoad<'_, 'n> {
        self.load_at(server(PORT), path, &[])
    }

    /// The same by any address, with more options of the generator.
    pub(crate) fn load_at(&self, server: SocketAddr, path: &str, options: &[&str]) -> UnderLoad<'_, 'n> {
        let running = LOAD.begin(self.lab, server, options);
        let load = UnderLoad { bed: self, path: path.to_owned(), running };
        load.flows();
        load
    }

    /// The last failure of a client for this cause.
    #[track_caller]
    pub(crate) fn failure(&self, client: IpAddr, cause: &str) -> Value {
        let failures = self.json(&["why", &client.to_string()]);
        let found = failures.as_array().and_then(|all| all.iter().find(|failure| failure["cause"] == cause));
        found.unwrap_or_else(|| panic!("no {cause} is known of {client}: {failures}")).clone()
    }

    /// Checks that why, status and metrics all give this reason for a failure of a client.
    #[track_caller]
    pub(crate) fn expect_reason(&self, client: IpAddr, action: &str, code: Option<u16>, cause: &str) -> Value {
        let failure = self.failure(client, cause);
        let said = (failure["action"].as_str(), failure["code"].as_u64());
        assert_eq!(said, (Some(action), code.map(u64::from)), "{failure}");
        let text = self.text(&["why", &client.to_string()]);
        let explanation = failure["explanation"].as_str().expect("a sentence");
        let code = code.map(|code| code.to_string()).unwrap_or_default();
        for word in [action, &code, cause, explanation] {
            assert!(text.contains(word), "`{word}` is missing: {text}");
        }
        let status = self.json(&["status"]);
        let refused = status["refused"].as_array().expect("a list");
        assert!(refused.iter().any(|refused| refused["reason"] == cause), "{cause} is missing: {status}");
        assert!(self.text(&["status"]).contains(cause));
        assert!(self.relay.metrics().sum("hairpin_refusals_total", &[("cause", cause)]) > 0);
        failure
    }

    /// Checks that the first warning in the status with this word has all of these, for people and for programs.
    #[track_caller]
    pub(crate) fn expect_warning(&self, words: &[&str]) {
        let status = self.json(&["status"]);
        let warnings = status["warnings"].as_array().expect("a list");
        let has = |text: &str| words.iter().all(|word| text.contains(word));
        assert!(warnings.iter().any(|warning| warning.as_str().is_some_and(has)), "{words:?}: {status}");
        let text = self.text(&["status"]);
        assert_eq!(text.lines().filter(|line| has(line)).count(), 1, "once: {text}");
    }
}

/// A relay that relays for a load generator, which counts.
pub(crate) struct UnderLoad<'b, 'n> {
    bed: &'b Bed<'n>,
    path: String,
    running: Running,
}

impl UnderLoad<'_, '_> {
    /// Waits until packets of each of the generator's allocations have gone through: what was changed has had its effect.
    pub(crate) fn flows(&self) {
        let relayed = || self.bed.relay.metrics().relayed(&self.path);
        let before = relayed();
        wait("packets are relayed", || relayed() >= before + u64::from(20 * ALLOCATIONS));
    }

    /// Ends it, and checks that nothing was lost.
    #[track_caller]
    pub(crate) fn expect_no_loss(self) -> Outcome {
        self.flows();
        let outcome = self.running.stop();
        let [sent, lost, dropped] =
            ["packets_sent", "packets_lost", "receive_buffer_drops"].map(|field| outcome.count(field));
        println!("{}: {sent} packets, {lost} lost, {dropped} of them by the generator", self.path);
        assert!(lost <= dropped, "{}: {}", self.path, outcome.report);
        for field in ["packets_duplicated", "lost_renewals"] {
            assert_eq!(outcome.count(field), 0, "{field}: {}", outcome.report);
        }
        assert!(outcome.report["server_lost"].is_null(), "{}", outcome.report);
        outcome
    }
}

/// An allocation of a client with a channel to a peer.
pub(crate) struct Call {
    pub(crate) client: Client,
    pub(crate) peer: UdpSocket,
    pub(crate) relayed: SocketAddr,
}

impl Call {
    /// Of a client that has not allocated yet, with a peer on one of the peer hosts.
    pub(crate) fn begin(lab: &Lab, mut client: Client, peer_host: u8) -> Self {
        let relayed = client.allocate().expect("there is room");
        let peer = bind(&lab.peers[usize::from(peer_host)], SocketAddr::new(peer_ip(peer_host), 0));
        peer.connect(relayed).expect("the lab has a route to the relay");
        client.bind_channel(CHANNEL, peer.local_addr().expect("it is bound")).expect("the peer is allowed");
        Self { client, peer, relayed }
    }

    /// Sends a datagram each way.
    #[track_caller]
    pub(crate) fn exchange(&self) {
        self.try_exchange().unwrap_or_else(|what| panic!("{what} of {}", self.relayed));
    }

    /// The same where it may be that nothing comes.
    pub(crate) fn try_exchange(&self) -> Result<(), &'static str> {
        const DATA: &[u8] = b"as they were";
        self.client.send_on_channel(CHANNEL, DATA);
        if receive(&self.peer, SOON).as_deref() != Some(DATA) {
            return Err("what the peer got");
        }
        self.peer.send(DATA).map_err(|_| "the way of the peer")?;
        // The kernel knows the permission a moment before the channel: the first may come as an indication.
        let is_there = |message: Vec<u8>| message.windows(DATA.len()).any(|bytes| bytes == DATA);
        if !self.client.receive(SOON).is_some_and(is_there) {
            return Err("what the client got");
        }
        Ok(())
    }

    /// Exchanges until both directions go by the kernel.
    pub(crate) fn settle(&self, bed: &Bed<'_>) {
        wait("the kernel forwards both directions", || {
            let before = bed.relay.metrics().relayed("kernel");
            self.exchange();
            bed.relay.metrics().relayed("kernel") >= before + 2
        });
    }

    /// Does something while the client and the peer send all the time. What either has sent after it is done must not
    /// arrive at the other.
    #[track_caller]
    pub(crate) fn expect_cut_by(&self, cut: impl FnOnce()) {
        let (number, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
        let (number, is_over) = (&number, &is_over);
        let sent = || number.load(Ordering::SeqCst);
        // The last number that has arrived. Whoever reads all the time misses none for a buffer that is full.
        let last_of = |next: &dyn Fn() -> Option<Vec<u8>>| {
            let mut last = None;
            loop {
                match next() {
                    Some(data) => last = last.max(data.first_chunk().map(|number| u32::from_be_bytes(*number))),
                    None if is_over.load(Ordering::SeqCst) => return last,
                    None => {}
                }
            }
        };
        let (done_at, last) = thread::scope(|scope| {
            let to_peer = scope.spawn(move || last_of(&|| receive(&self.peer, QUIET)));
            let to_client =
                scope.spawn(move || last_of(&|| self.client.receive_on_channel(QUIET).map(|(_, data)| data)));
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    let data = number.fetch_add(1, Ordering::SeqCst).to_be_bytes();
                    self.client.send_on_channel(CHANNEL, &data);
                    // It may hear that nobody listens there any more.
                    let _ = self.peer.send(&data);
                    thread::sleep(PAUSE);
                }
            });
            let over = Over(is_over);
            wait("it is sent", || sent() > 20);
            cut();
            let done_at = sent();
            wait("more is sent", || sent() > done_at + 50);
            drop(over);
            (done_at, [to_peer, to_client].map(|reader| reader.join().expect("it only reads")))
        });
        println!("{last:?} came last, cut at {done_at}");
        assert!(last.iter().all(Option::is_some), "nothing came through before: {last:?}");
        assert!(last.iter().flatten().all(|last| *last < done_at), "what was sent after {done_at} arrived: {last:?}");
    }

    /// Checks that no datagram of the client arrives any more, and none of the peer.
    #[track_caller]
    pub(crate) fn expect_silence(&self) {
        while receive(&self.peer, Duration::from_millis(1)).is_some() {}
        self.client.send_on_channel(CHANNEL, b"nobody listens");
        let _ = self.peer.send(b"nobody listens");
        assert_eq!(receive(&self.peer, QUIET), None, "the peer of {} must get nothing", self.relayed);
        assert_eq!(self.client.receive_on_channel(QUIET), None, "the client of {} must get nothing", self.relayed);
    }
}

/// Ends what goes on, also when a test fails.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
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

/// A list of strings of TOML.
pub(crate) fn list<T: fmt::Display>(values: &[T]) -> String {
    let mut text = String::from("[");
    for value in values {
        write!(text, "\"{value}\", ").expect("a string takes everything");
    }
    text + "]"
}
