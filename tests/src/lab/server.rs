//! A TURN server for clients that are not ours: hairpin, or coturn.
//!
//! Coturn is there to tell a client's faults from a server's: what fails against both is hardly hairpin's.
//! `HAIRPIN_INTEROP_SERVER=coturn` has all tests that use this module run against it.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::certificates::Certificate;
use super::folder::Folder;
use super::namespace::Namespace;
use super::process::Process;
use super::relay::{PASSWORD, PORT, Relay, USER, binary};

/// Says which server it is.
const VARIABLE: &str = "HAIRPIN_INTEROP_SERVER";
/// The port for TLS and DTLS (RFC 8656 section 4).
pub const SECURE_PORT: u16 = 5349;
const PATIENCE: Duration = Duration::from_secs(20);

/// How clients reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// DTLS over UDP.
    Dtls,
}

/// What a server is to be started with.
#[derive(Clone, Debug)]
pub struct Setup {
    addresses: Vec<IpAddr>,
    transports: Vec<Transport>,
    certificates: Vec<Certificate>,
    tcp_relay: bool,
    mobility: bool,
    alternate: Option<IpAddr>,
}

/// A running server with the user [`USER`]. It is killed when this goes out of scope.
#[derive(Debug)]
pub struct Server<'n> {
    kind: Kind<'n>,
    /// Their files are there for as long as it runs, since it looks at them every now and then.
    _certificates: Vec<Certificate>,
}

#[derive(Debug)]
enum Kind<'n> {
    Hairpin(Relay<'n>),
    Coturn(Process, #[expect(dead_code, reason = "is there as long as coturn is")] Folder),
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Dtls];

    /// Where the server listens for it.
    pub fn port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => PORT,
            Self::Tls | Self::Dtls => SECURE_PORT,
        }
    }

    /// Its name in hairpin's `--listen`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }

    fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

impl Setup {
    /// A server at these addresses, for clients of UDP.
    pub fn new(addresses: &[IpAddr]) -> Self {
        Self {
            addresses: addresses.to_vec(),
            transports: vec![Transport::Udp],
            certificates: Vec::new(),
            tcp_relay: false,
            mobility: false,
            alternate: None,
        }
    }

    /// Clients use these instead.
    #[must_use]
    pub fn transports(mut self, transports: &[Transport]) -> Self {
        self.transports = transports.to_vec();
        self
    }

    /// It proves itself with these. Coturn knows one only, and takes the first.
    #[must_use]
    pub fn certificates(mut self, certificates: &[Certificate]) -> Self {
        self.certificates = certificates.to_vec();
        self
    }

    /// Relays TCP (RFC 6062).
    #[must_use]
    pub fn tcp_relay(mut self) -> Self {
        self.tcp_relay = true;
        self
    }

    /// Lets allocations move (RFC 8016).
    #[must_use]
    pub fn mobility(mut self) -> Self {
        self.mobility = true;
        self
    }

    /// Lets clients discover the behaviour of their NAT (RFC 5780), with this as the second address.
    #[must_use]
    pub fn nat_discovery(mut self, alternate: IpAddr) -> Self {
        self.alternate = Some(alternate);
        self
    }

    /// Starts it and waits until it listens.
    pub fn start<'n>(&self, namespace: &'n Namespace) -> Server<'n> {
        let kind = if is_coturn() { self.coturn(namespace) } else { Kind::Hairpin(self.hairpin(namespace)) };
        Server { kind, _certificates: self.certificates.clone() }
    }

    fn hairpin<'n>(&self, namespace: &'n Namespace) -> Relay<'n> {
        let mut command = namespace.command(binary());
        command.args(["serve", "--user", &format!("{USER}:{PASSWORD}"), "--xdp", "off"]);
        command.args(["--allow-peer", "127.0.0.0/8", "--allow-peer", "::1/128"]);
        for (transport, address) in self.listeners() {
            let listener = match transport {
                Transport::Udp => address.to_string(),
                other => format!("{}:{address}", other.name()),
            };
            command.args(["--listen", &listener]);
        }
        for Certificate { file, private_key, .. } in &self.certificates {
            command.arg("--certificate").arg(file).arg("--private-key").arg(private_key);
        }
        command.args(self.tcp_relay.then_some("--tcp-relay"));
        command.args(self.mobility.then_some("--mobility"));
        if let Some(alternate) = self.alternate {
            command.args(["--nat-discovery", &alternate.to_string()]);
        }
        Relay::start_with(namespace, &mut command)
    }

    fn coturn<'n>(&self, namespace: &'n Namespace) -> Kind<'n> {
        // It wants a database, even when there is nothing in it.
        let folder = Folder::new("coturn");
        let mut command = namespace.command("turnserver");
        command.args([
            "-n",
            "-v",
            "--no-cli",
            "--lt-cred-mech",
            "--user",
            &format!("{USER}:{PASSWORD}"),
            "-r",
            "realm",
        ]);
        command.args(["--allow-loopback-peers", "--log-file", "stdout", "--simple-log"]);
        for (option, file) in [("--pidfile", "pid"), ("--userdb", "db")] {
            command.arg(option).arg(folder.path().join(file));
        }
        for address in &self.addresses {
            command.args(["-L", &address.to_string(), "-E", &address.to_string()]);
        }
        if let Some(certificate) = self.certificates.first() {
            command.arg("--cert").arg(&certificate.file).arg("--pkey").arg(&certificate.private_key);
        }
        for transport in Transport::ALL.into_iter().filter(|transport| !self.transports.contains(transport)) {
            command.arg(format!("--no-{}", transport.name()));
        }
        command.args((!self.tcp_relay).then_some("--no-tcp-relay"));
        command.args(self.mobility.then_some("--mobility"));
        match self.alternate {
            Some(alternate) => command.args(["-L", &alternate.to_string()]),
            None => command.arg("--no-rfc5780"),
        };
        let process = Process::spawn(&mut command);
        let end = Instant::now() + PATIENCE;
        while !self.listeners().all(|(transport, address)| listens(namespace, transport, address)) {
            assert!(Instant::now() < end, "turnserver does not listen: {}", process.wait(Duration::ZERO));
            thread::sleep(Duration::from_millis(20));
        }
        Kind::Coturn(process, folder)
    }

    fn listeners(&self) -> impl Iterator<Item = (Transport, SocketAddr)> {
        let addresses = |transport: &Transport| {
            let transport = *transport;
            self.addresses.iter().map(move |ip| (transport, SocketAddr::new(*ip, transport.port())))
        };
        self.transports.iter().flat_map(addresses)
    }
}

impl Server<'_> {
    /// How many packets it has relayed, in both directions. Coturn says so when a session ends, which may take a moment.
    pub fn relayed(&self) -> u64 {
        match &self.kind {
            Kind::Hairpin(relay) => relay.metrics().sum("hairpin_relayed_packets_total", &[]),
            // "usage: realm=<realm>, username=<alice>, rp=4, rb=400, sp=3, sb=300": what came from the client and what
            // went to it, requests and responses included. Those of the peers are on a line of their own.
            Kind::Coturn(process, _) => process.stdout().lines().filter_map(peer_packets).sum(),
        }
    }

    /// Waits until it has relayed so much.
    ///
    /// # Panics
    /// When it does not come to that.
    pub fn expect_relayed(&self, least: u64) {
        let end = Instant::now() + Duration::from_secs(5);
        while self.relayed() < least {
            assert!(Instant::now() < end, "{} packets were relayed, less than {least}", self.relayed());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it; hairpin must end in order.
    pub fn stop(self) {
        if let Kind::Hairpin(relay) = self.kind {
            relay.stop();
        }
    }
}

/// Whether the servers of [`Setup::start`] are coturn's.
pub fn is_coturn() -> bool {
    match std::env::var_os(VARIABLE).map(OsString::into_string) {
        None => false,
        Some(Ok(name)) if name == "hairpin" => false,
        Some(Ok(name)) if name == "coturn" => true,
        Some(other) => panic!("{VARIABLE} is {other:?}; it can be hairpin (the default) or coturn"),
    }
}

/// Says that a test is skipped because something could not be got from a network.
///
/// # Panics
/// When that has another reason than that nobody answers, which is said in one of these ways, and everything has to be there.
pub fn skip_without(what: &str, reason: &str, unreachable: &[&str]) {
    let is_unreachable = unreachable.iter().any(|words| reason.contains(words));
    assert!(is_unreachable || !everything_is_required(), "{reason}");
    let last = reason.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let why = if is_unreachable { "nobody answers" } else { last };
    eprintln!("skipped: {what} cannot be had: {why}");
}

/// Whether something that is not installed is a failure.
pub fn everything_is_required() -> bool {
    std::env::var_os("HAIRPIN_REQUIRE_ALL").is_some()
}

fn listens(namespace: &Namespace, transport: Transport, address: SocketAddr) -> bool {
    if transport.is_stream() {
        namespace.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
    } else {
        namespace.udp_sockets(address.port()) > 0
    }
}

/// How many packets a line of coturn's log says were received from peers and sent to them.
fn peer_packets(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(" peer usage: ")?;
    let after = |name: &str| -> Option<u64> { rest.split_once(name)?.1.split(',').next()?.parse().ok() };
    Some(after(" rp=")? + after(" sp=")?)
}

/// Whether a program is installed, so that a test can say why it is skipped.
///
/// # Panics
/// When it is not, and everything has to be.
pub fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    or_skipped(program, found.is_ok_and(|output| output.status.success()))
}

/// Likewise of a file that comes with a program.
///
/// # Panics
/// Likewise.
pub fn is_there(file: &Path) -> bool {
    or_skipped(&file.display().to_string(), file.exists())
}

fn or_skipped(what: &str, found: bool) -> bool {
    assert!(found || !everything_is_required(), "{what} is not installed: deploy/setup.sh test installs it");
    if !found {
        eprintln!("skipped: {what} is not installed");
    }
    found
}
