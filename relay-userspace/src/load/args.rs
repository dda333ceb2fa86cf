//! The options of `hairpin load` and `hairpin echo-peer`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hairpin_client::{Credentials, Host, ServerUri, TlsOptions, Transport as Wire, Trust};
use hairpin_proto::address::AddressFamily;
use serde::Serialize;

use super::stamp::Stamp;
use crate::cli::number;
use crate::clock::unix_seconds;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Client, relay, peer, relay, client: each packet is relayed twice
    Echo,
    /// Client, relay, relay, client: allocations in pairs send to each other, each packet is relayed twice
    Pair,
}

/// Which way the frames of `--blast` go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From clients to peers
    ToPeer,
    /// From peers to clients
    ToClient,
}

/// How data travels between client and relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// ChannelData
    Channel,
    /// Send and Data indications
    Send,
}

/// IP version of relayed addresses and peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub enum Family {
    /// IPv4
    #[serde(rename = "ipv4")]
    #[value(name = "ipv4", alias = "v4")]
    V4,
    /// IPv6
    #[serde(rename = "ipv6")]
    #[value(name = "ipv6", alias = "v6")]
    V6,
}

/// How clients reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP
    Udp,
    /// TCP
    Tcp,
    /// TLS over TCP
    Tls,
}

impl Transport {
    /// The same of the client's, if it is measured.
    pub(super) fn of(wire: Wire) -> Option<Self> {
        match wire {
            Wire::Udp => Some(Self::Udp),
            Wire::Tcp => Some(Self::Tcp),
            Wire::Tls => Some(Self::Tls),
            Wire::Dtls => None,
        }
    }

    /// Whether messages follow each other in a stream.
    pub(super) fn is_stream(self) -> bool {
        self != Self::Udp
    }

    /// As it is written on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

impl Family {
    fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As it is written on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

impl From<Transport> for Wire {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp => Self::Tcp,
            Transport::Tls => Self::Tls,
        }
    }
}

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4,
            Family::V6 => Self::V6,
        }
    }
}

/// Measure a TURN server: real allocations, paced traffic, loss and latency.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The server under test, any TURN server: an address and port, a name, or a turn: or turns: URI, for which DNS is asked
    /// (RFC 5928); of several servers the first is taken that serves
    #[arg(long, value_name = "ADDR:PORT|NAME|URI")]
    pub(super) server: ServerUri,

    /// The name server to ask [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) dns: Option<SocketAddr>,

    /// Username; with --auth-secret, the name in the minted credential
    #[arg(long, value_name = "NAME", required_unless_present = "auth_secret")]
    user: Option<String>,

    /// Password of the user; with it, --auth-secret is not used
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "HAIRPIN_PASSWORD",
        hide_env_values = true,
        required_unless_present = "auth_secret"
    )]
    password: Option<String>,

    /// Secret that the server knows too: mint a credential instead of having a password
    #[arg(long, value_name = "SECRET", env = "HAIRPIN_AUTH_SECRET", hide_env_values = true)]
    auth_secret: Option<String>,

    /// Number of allocations, each from a port of its own
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(super) allocations: u32,

    /// Packets a second that all clients together send; 0: as fast as they come back, with a bounded number under way
    /// [default: 1000; with --blast 0, as fast as it goes]
    #[arg(long, value_name = "PPS", value_parser = packets_per_second)]
    rate: Option<u64>,

    /// Application data in each packet, at least 24 bytes
    #[arg(long, value_name = "BYTES", default_value_t = 160, value_parser = payload)]
    pub(super) payload: usize,

    /// How long to send, such as 10s or 1m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(super) duration: Duration,

    /// Which way packets go
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Echo)]
    pub(super) mode: Mode,

    /// How data travels between client and relay
    #[arg(long, value_name = "METHOD", value_enum, default_value_t = Carrier::Channel)]
    pub(super) method: Carrier,

    /// IP version of the relayed addresses and the peer [default: that of the peer if one is named, else the server's]
    #[arg(long, value_name = "FAMILY", value_enum)]
    family: Option<Family>,

    /// How clients reach the server [default: udp, or what a name or URI says]
    #[arg(long, value_name = "TRANSPORT", value_enum)]
    transport: Option<Transport>,

    /// With --transport tls: a PEM file with the certificate that the server's must lead to
    #[arg(long, value_name = "FILE", conflicts_with = "tls_insecure")]
    tls_ca: Option<PathBuf>,

    /// With --transport tls: take any certificate
    #[arg(long)]
    tls_insecure: bool,

    /// With --transport tls: the name that the certificate has to be for [default: the server's, else its IP address]
    #[arg(long, value_name = "NAME")]
    tls_name: Option<String>,

    /// Address of this host where the echoing peer is opened [default: the one this host reaches the relay from]
    #[arg(long, value_name = "IP", conflicts_with = "peer")]
    pub(super) peer_address: Option<IpAddr>,

    /// An echoing peer elsewhere, such as `hairpin echo-peer`
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) peer: Option<SocketAddr>,

    /// Send frames out of --interface without any socket, millions a second, and check what comes back; needs root
    #[arg(long, requires = "interface", conflicts_with_all = ["peer", "peer_address"])]
    pub(super) blast: bool,

    /// With --blast: one end of a veth pair, with the relay at the other end; no default route may lead through it
    #[arg(long, value_name = "IF", requires = "blast")]
    pub(super) interface: Option<String>,

    /// With --blast: which way frames go [default: to-peer]
    #[arg(long, value_name = "DIRECTION", value_enum, requires = "blast")]
    direction: Option<Direction>,

    /// With --blast: end after so many frames, if --duration is not over before
    #[arg(long, value_name = "N", requires = "blast", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,

    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Reflect datagrams to where they came from.
#[derive(Debug, clap::Args)]
pub struct EchoPeerArgs {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: SocketAddr,
}

impl Args {
    /// The transports that may be taken, the one that is liked best first. Frames are made of UDP only.
    pub(super) fn transports(&self) -> Vec<Transport> {
        match (self.transport, self.server.transport) {
            (Some(transport), _) => vec![transport],
            (None, Some(wire)) => Transport::of(wire).into_iter().collect(),
            (None, None) if self.server.secure => vec![Transport::Tls],
            (None, None) if self.blast => vec![Transport::Udp],
            (None, None) => vec![Transport::Udp, Transport::Tcp],
        }
    }

    /// What DNS is asked about. Whoever names no scheme may encrypt.
    pub(super) fn uri(&self) -> ServerUri {
        let secure = self.server.secure || !self.server.has_scheme && self.transport == Some(Transport::Tls);
        ServerUri { secure, ..self.server.clone() }
    }

    /// The family of relayed addresses at this server.
    pub(super) fn family(&self, server: SocketAddr) -> Family {
        self.family.unwrap_or_else(|| {
            let peer = self.peer.map(|peer| peer.ip()).or(self.peer_address);
            Family::of(peer.unwrap_or(server.ip()))
        })
    }

    /// Packets a second, zero for as many as possible.
    pub(super) fn rate(&self) -> u64 {
        self.rate.unwrap_or(if self.blast { 0 } else { 1000 })
    }

    /// Which way frames go.
    pub(super) fn direction(&self) -> Direction {
        self.direction.unwrap_or(Direction::ToPeer)
    }

    /// How the server's certificate is checked.
    pub(super) fn tls(&self) -> TlsOptions {
        // TLS is not accepted without one or the other.
        let trust = self.tls_ca.clone().map_or(Trust::Anybody, Trust::Roots);
        // RFC 5928 section 3: the certificate is for what the user has named, wherever DNS says that it is.
        let named = match &self.server.host {
            Host::Name(name) => Some(name.clone()),
            Host::Ip(_) => None,
        };
        TlsOptions { server_name: self.tls_name.clone().or(named), ..TlsOptions::new(trust) }
    }

    /// Who the clients are.
    pub(super) fn credentials(&self) -> Credentials {
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            return Credentials::new(user, password);
        }
        // The command line is not accepted without both of them or a secret.
        let secret = self.auth_secret.as_deref().unwrap_or_default();
        // Long enough for the setup, the run, and clocks that differ.
        Credentials::mint(secret, self.user.as_deref(), unix_seconds() + self.duration.as_secs() + 3600)
    }

    /// Checks what no option can check alone. An error is one line that names an option.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.mode == Mode::Pair {
            if self.direction.is_some() {
                return Err(
                    "--direction has no meaning with --mode pair: all frames go from client to client".to_owned()
                );
            }
            if !self.allocations.is_multiple_of(2) {
                return Err("--allocations must be even with --mode pair: allocations send to each other".to_owned());
            }
            if self.peer.is_some() || self.peer_address.is_some() {
                return Err("--peer and --peer-address have no meaning with --mode pair".to_owned());
            }
        }
        let tls_options = [
            ("--tls-ca", self.tls_ca.is_some()),
            ("--tls-insecure", self.tls_insecure),
            ("--tls-name", self.tls_name.is_some()),
        ];
        let transports = self.transports();
        if transports.is_empty() {
            return Err(format!("--server {} asks for dtls: only udp, tcp and tls are allowed", self.server));
        }
        if transports.contains(&Transport::Tls) {
            if self.tls_ca.is_none() && !self.tls_insecure {
                return Err("--transport tls needs --tls-ca FILE, or --tls-insecure to take any certificate".to_owned());
            }
        } else if let Some((option, _)) = tls_options.iter().find(|(_, given)| *given) {
            return Err(format!("{option} has a meaning only with --transport tls"));
        }
        if self.blast
            && let Some(transport) = transports.iter().find(|transport| transport.is_stream())
        {
            return Err(format!("--blast cannot be with --transport {}: only udp is allowed", transport.name()));
        }
        let peer = self.peer.map(|peer| ("--peer", peer.to_string(), peer.ip()));
        let peer_address = self.peer_address.map(|ip| ("--peer-address", ip.to_string(), ip));
        for (option, value, ip) in peer.into_iter().chain(peer_address) {
            let is = Family::of(ip);
            if let Some(asked) = self.family.filter(|asked| *asked != is) {
                return Err(format!(
                    "--family {} cannot be with {option} {value}: only {} is allowed for that peer",
                    asked.name(),
                    is.name()
                ));
            }
        }
        Ok(())
    }
}

fn payload(text: &str) -> Result<usize, String> {
    // 65,507 bytes are the most that UDP over IPv4 carries; a Send indication adds 48.
    match text.parse() {
        Ok(bytes) if bytes < Stamp::LEN => {
            Err(format!("at least {} bytes are needed for sequence number and time", Stamp::LEN))
        }
        Ok(bytes) if bytes > 65_000 => Err("at most 65000 bytes fit in a datagram".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err("a number of bytes is needed".to_owned()),
    }
}

fn packets_per_second(text: &str) -> Result<u64, String> {
    let rate = number(text).filter(|rate| *rate <= 100_000_000);
    rate.ok_or_else(|| "0 to 100M packets a second are allowed, such as 500, 20k or 2M".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("the duration is zero".to_owned()),
        Ok(duration) if duration > Duration::from_secs(7 * 86_400) => Err("at most 7 days are allowed".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write it like 10s or 1m")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_rate_may_have_a_suffix_and_has_a_bound() {
        for (text, rate) in [("0", 0), ("500", 500), ("20k", 20_000), ("100M", 100_000_000)] {
            assert_eq!(packets_per_second(text), Ok(rate), "{text}");
        }
        for bad in ["", "k", "-1", "+1", "101M", "1G", "1.5k", "20K"] {
            assert!(packets_per_second(bad).is_err(), "{bad}");
        }
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(arguments: &str) -> Result<Args, String> {
        parse_with(&format!("--server 192.0.2.1:3478 {arguments}"))
    }

    fn parse_with(arguments: &str) -> Result<Args, String> {
        let common = "load --user a --password b";
        let line = Line::try_parse_from(common.split(' ').chain(arguments.split_whitespace()));
        let args = line.map_err(|error| error.to_string())?.args;
        args.check().map(|()| args)
    }

    #[test]
    fn the_family_is_the_one_that_is_named_or_the_peers_or_the_servers() {
        for (arguments, family) in [
            ("", Family::V4),
            ("--family ipv6", Family::V6),
            ("--family v6", Family::V6),
            ("--peer [2001:db8::1]:9", Family::V6),
            ("--peer-address 2001:db8::1", Family::V6),
            ("--peer-address 203.0.113.1 --family ipv4", Family::V4),
            ("--mode pair --family ipv6", Family::V6),
        ] {
            let args = parse(arguments).unwrap();
            assert_eq!(args.family(args.server.socket().unwrap()), family, "{arguments}");
        }
    }

    #[test]
    fn what_contradicts_the_family_is_named_with_its_value_and_what_is_allowed() {
        for (arguments, words) in [
            ("--family ipv4 --peer [2001:db8::1]:9", ["--family ipv4", "--peer [2001:db8::1]:9", "only ipv6"]),
            ("--family ipv6 --peer 203.0.113.1:9", ["--family ipv6", "--peer 203.0.113.1:9", "only ipv4"]),
            ("--family v6 --peer-address 203.0.113.1", ["--family ipv6", "--peer-address 203.0.113.1", "only ipv4"]),
            ("--family ipx", ["ipx", "--family", "ipv4, ipv6"]),
            ("--transport sctp", ["sctp", "--transport", "possible values: udp, tcp, tls"]),
            ("--transport tls", ["--transport tls", "--tls-ca", "--tls-insecure"]),
            ("--tls-insecure", ["--tls-insecure", "only", "--transport tls"]),
            ("--transport tcp --tls-name a", ["--tls-name", "only", "--transport tls"]),
            ("--transport tls --tls-insecure --tls-ca a", ["--tls-insecure", "--tls-ca", "cannot be used with"]),
            ("--transport tcp --blast --interface a", ["--blast", "--transport tcp", "only udp is allowed"]),
            ("--method both", ["both", "--method", "channel, send"]),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{arguments}: {error}");
        }
        let trusting = parse("--transport tls --tls-insecure").unwrap().tls();
        assert_eq!(trusting, TlsOptions::new(Trust::Anybody));
        let careful = parse("--transport tls --tls-ca ca.pem --tls-name turn.example.org").unwrap().tls();
        assert_eq!(
            (careful.trust, careful.server_name.as_deref()),
            (Trust::Roots("ca.pem".into()), Some("turn.example.org"))
        );
    }
    #[test]
    fn transports_are_those_that_are_named_or_fit_the_server_and_frames_are_udp() {
        use Transport::{Tcp, Tls, Udp};
        for (arguments, transports) in [
            ("--server example.org", vec![Udp, Tcp]),
            ("--server turn:example.org", vec![Udp, Tcp]),
            ("--server turns:example.org --tls-insecure", vec![Tls]),
            ("--server turn:example.org?transport=tcp", vec![Tcp]),
            ("--server example.org --transport tcp", vec![Tcp]),
            ("--server 192.0.2.1:3478 --transport udp", vec![Udp]),
            ("--server example.org --blast --interface a", vec![Udp]),
            ("--server turn:example.org --blast --interface a", vec![Udp]),
        ] {
            assert_eq!(parse_with(arguments).unwrap().transports(), transports, "{arguments}");
        }
        for (arguments, words) in [
            ("--server turns:a --tls-insecure --blast --interface a", ["--blast", "--transport tls", "only udp"]),
            ("--server turn:a?transport=tcp --blast --interface a", ["--blast", "--transport tcp", "only udp"]),
            ("--server turns:a?transport=udp", ["--server turns:a?transport=udp", "dtls", "udp, tcp and tls"]),
        ] {
            let error = parse_with(arguments).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{arguments}: {error}");
        }
    }
}
