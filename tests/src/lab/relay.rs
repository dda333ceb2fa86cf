//! The `hairpin` binary in a namespace, from the start to a clean end.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use super::certificates::Certificate;
use super::metrics::Metrics;
use super::namespace::Namespace;
use super::process::{self, Finished, Process};
use super::server::Transport;
use super::topology::{Family, Lab};

/// How long a relay may take to start, or to stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the admin interface is unless `--admin` says something else.
const ADMIN: &str = "127.0.0.1:9641";
/// The port of STUN and TURN (RFC 8656 section 4), where a relay listens unless `--listen` says something else.
pub const PORT: u16 = 3478;
/// What the binary is made of: code, and the files of the status page.
const SOURCES: [&str; 5] = ["rs", "html", "css", "js", "svg"];
/// The name of the only user of [`Relay::start`].
pub const USER: &str = "alice";
/// Her password.
pub const PASSWORD: &str = "in-a-lab";

/// Options of a relay that clients of the lab reach over UDP and TCP at [`PORT`], and over TLS and DTLS at
/// [`SECURE_PORT`](super::server::SECURE_PORT).
pub fn every_transport(certificate: &Certificate) -> Vec<String> {
    let listeners = Family::ALL.into_iter().flat_map(|family| {
        Transport::ALL.map(|transport| {
            let address = SocketAddr::new(Lab::relay_ip(family), transport.port());
            format!("--listen={}:{address}", transport.name())
        })
    });
    let files = [("certificate", &certificate.file), ("private-key", &certificate.private_key)];
    listeners.chain(files.map(|(option, file)| format!("--{option}={}", file.display()))).collect()
}

/// A running relay with its admin interface at the default place. It is killed when this goes out of scope.
#[derive(Debug)]
pub struct Relay<'n> {
    namespace: &'n Namespace,
    process: Process,
}

/// The binary under test.
///
/// It is the one next to this test's own executable, or the one that the variable `HAIRPIN_BIN` names.
///
/// # Panics
/// When there is none, or when it is older than its sources.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("HAIRPIN_BIN") {
            return path.into();
        }
        let own = std::env::current_exe().expect("a process knows its executable");
        // target/PROFILE/deps/TEST, or target/PROFILE/PROGRAM.
        let folder = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
        let path = folder.expect("cargo builds into a folder").join("hairpin");
        let built = path.metadata().and_then(|file| file.modified());
        let built = built.unwrap_or_else(|error| panic!("{}: {error}; run `cargo build` first", path.display()));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above");
        let sources = ["common/src", "relay-ebpf/src", "relay-userspace"].map(|folder| newest(&root.join(folder)));
        let newest = sources.into_iter().max().flatten().expect("there are sources");
        assert!(newest.0 <= built, "{} is older than {}: run `cargo build`", path.display(), newest.1.display());
        path
    })
}

/// The source file in a folder that was changed last.
fn newest(folder: &Path) -> Option<(SystemTime, PathBuf)> {
    let entries = folder.read_dir().ok()?.flatten();
    let times = entries.filter_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            // Tests of a crate are not part of the binary.
            return (entry.file_name() != "tests").then(|| newest(&path))?;
        }
        let is_source = path.extension().is_some_and(|extension| SOURCES.iter().any(|source| extension == *source));
        is_source.then(|| Some((entry.metadata().ok()?.modified().ok()?, path)))?
    });
    times.max()
}

impl<'n> Relay<'n> {
    /// Starts `hairpin serve` with the user [`USER`] and these arguments, and waits until it is ready.
    pub fn start(namespace: &'n Namespace, arguments: &[&str]) -> Self {
        let user = format!("{USER}:{PASSWORD}");
        Self::start_with(namespace, namespace.command(binary()).arg("serve").args(["--user", &user]).args(arguments))
    }

    /// Waits until a relay is ready that is started in its own way.
    pub fn start_with(namespace: &'n Namespace, command: &mut Command) -> Self {
        let mut relay = Self { namespace, process: Process::spawn(command) };
        let end = Instant::now() + PATIENCE;
        while relay.get("/readyz").is_none_or(|(status, _)| status != 200) {
            let may_come = relay.process.is_running() && Instant::now() < end;
            assert!(may_come, "the relay does not get ready: {}", relay.process.wait(Duration::ZERO));
            thread::sleep(Duration::from_millis(20));
        }
        relay
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The process alone, of a relay that ends by itself.
    pub fn into_process(self) -> Process {
        self.process
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// How much memory it uses, in bytes (VmRSS).
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        1024 * kilobytes.expect("every process has memory")
    }

    /// Asks the admin interface; the status and the body.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        self.namespace.enter(|| {
            let mut stream = TcpStream::connect(ADMIN).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {ADMIN}\r\nConnection: close\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            let status = head.split_whitespace().nth(1)?.parse().ok()?;
            Some((status, body.to_owned()))
        })
    }

    /// What Prometheus would get.
    pub fn metrics(&self) -> Metrics {
        let (status, body) = self.get("/metrics").expect("the admin interface answers");
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// Waits until the metrics are as they should be: the kernel path follows a response within moments, not before it.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let metrics = self.metrics();
            if is_so(&metrics) {
                return metrics;
            }
            assert!(Instant::now() < end, "this did not become true: {what}\n{metrics:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it by SIGTERM and checks that it leaves nothing: exit code 0, no complaint, no XDP program.
    pub fn stop(self) -> Finished {
        let namespace = self.namespace;
        self.process.signal(Signal::TERM);
        let finished = self.process.wait(PATIENCE);
        assert_eq!(finished.code(), Some(0), "SIGTERM ends the relay in order: {finished}");
        // How many files may be open is up to the host, and no lab needs as many as there are ports. A veth leaves no room
        // behind some packets.
        let known = ["limit of open files", "too little room around packets"];
        for line in finished.stderr.lines().filter(|line| !known.iter().any(|known| line.contains(known))) {
            let complains = ["WARN", "ERROR", "panicked"].iter().any(|bad| line.contains(bad));
            assert!(!complains, "the relay complains: {finished}");
        }
        assert_eq!(attached_programs(namespace), "", "XDP is detached");
        finished
    }
}

/// What is attached to the links of a namespace, as `ip` shows it; empty when there is nothing.
pub fn attached_programs(namespace: &Namespace) -> String {
    let links = process::run(namespace.command("ip").args(["-o", "link", "show"])).expect_success();
    links.lines().filter(|line| line.contains("xdp")).collect::<Vec<_>>().join("\n")
}
