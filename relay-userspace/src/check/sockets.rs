//! The sockets that the relay would open at its start: each is tried, and who has what it cannot have is looked up.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;

use super::{Finding, Findings};
use crate::config::{AdminAddr, Config};
use crate::net::{SocketError, StreamListener, UdpSocket};

/// What is tried to be opened.
#[derive(Clone, Debug)]
struct Attempt {
    /// Which option wants it.
    option: String,
    address: SocketAddr,
    is_stream: bool,
    /// What it failed by; it is well that a relay without IPv6 leaves a default listener out.
    failure: Option<Failure>,
}

#[derive(Clone, Debug)]
enum Failure {
    InUse,
    Other(String),
}

/// A socket of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    pub(super) is_stream: bool,
    pub(super) inode: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    name: String,
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let attempts = attempts(config);
    let bound = bound();
    judge(&attempts, |attempt| owner(holder(&bound, attempt.address, attempt.is_stream)?.inode))
}

/// Whether a relay has a listener of these open: the one that runs, while this is about what a reload would bring.
pub(super) fn is_relay_running(config: &Config) -> bool {
    let bound = bound();
    config.listeners.iter().any(|listener| {
        let holder = holder(&bound, listener.address, listener.transport.is_stream());
        holder.and_then(|bound| owner(bound.inode)).is_some_and(|owner| owner.name == "hairpin")
    })
}

fn attempts(config: &Config) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = Vec::new();
    for listener in &config.listeners {
        let (address, is_stream) = (listener.address, listener.transport.is_stream());
        if attempts.iter().any(|known| known.address == address && known.is_stream == is_stream) {
            continue;
        }
        let opened = if is_stream {
            StreamListener::listener(address, false).map(drop)
        } else {
            UdpSocket::listener(address, false).map(drop)
        };
        let failed = opened.err().filter(|error| !(listener.is_optional && error.is_missing_family()));
        let option = format!("--listen {}:{address}", listener.transport);
        attempts.push(Attempt { option, address, is_stream, failure: failed.map(Failure::from) });
    }
    for relay in &config.relay_addresses {
        // The lowest port, since a low one takes a capability; that it is in use at the moment is no harm.
        let address = SocketAddr::new(relay.bind, config.relay_ports.min);
        let failure = UdpSocket::relay(address).err().filter(|error| !matches!(error, SocketError::InUse(_)));
        let option = format!("--relay-address {}", relay.bind);
        attempts.push(Attempt { option, address, is_stream: false, failure: failure.map(Failure::from) });
    }
    if let AdminAddr::At(address) = config.admin {
        let failure = TcpListener::bind(address).err().map(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => Failure::InUse,
            _ => Failure::Other(format!("cannot open {address}: {error}")),
        });
        attempts.push(Attempt { option: format!("--admin {address}"), address, is_stream: true, failure });
    }
    attempts
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::InUse(_) => Self::InUse,
            other => Self::Other(other.to_string()),
        }
    }
}

fn judge(attempts: &[Attempt], owner: impl Fn(&Attempt) -> Option<Owner>) -> Vec<Finding> {
    let mut findings = Findings::about("sockets");
    for attempt in attempts {
        let Attempt { option, failure, .. } = attempt;
        match failure {
            None => {}
            Some(Failure::Other(text)) => findings.error(format!("{option}: {text}"), ""),
            Some(Failure::InUse) => match owner(attempt) {
                Some(Owner { pid, name }) if name == "hairpin" => findings.notice(
                    format!("{option} is open already, by hairpin (process {pid})"),
                    "a relay is running: this is about one in its place, or about what `hairpin reload` would bring",
                ),
                Some(Owner { pid, name }) => findings.error(
                    format!("{option} is in use by {name} (process {pid})"),
                    format!("stop {name}, or choose another port or address"),
                ),
                None => findings.error(
                    format!("{option} is in use by another process"),
                    "`ss -lnptu` as root says by which; stop it, or choose another port or address",
                ),
            },
        }
    }
    findings.or_ok(format!("all {} can be opened", attempts.len()))
}

/// Who keeps an address from being used: whoever has it, or all addresses of its port.
fn holder(bound: &[Bound], wanted: SocketAddr, is_stream: bool) -> Option<&Bound> {
    let is_in_the_way = |other: &&Bound| {
        let Bound { address, .. } = other;
        // A socket for all addresses of IPv6 may have those of IPv4, too.
        let is_for_all = address.ip().is_unspecified() && (address.is_ipv6() || wanted.is_ipv4());
        other.is_stream == is_stream
            && address.port() == wanted.port()
            && (address.ip() == wanted.ip() || is_for_all || wanted.ip().is_unspecified())
    };
    bound.iter().find(is_in_the_way)
}

/// The sockets of this network namespace that are bound to a port: those that listen, and all of UDP.
pub(super) fn bound() -> Vec<Bound> {
    let tables = [("udp", false), ("udp6", false), ("tcp", true), ("tcp6", true)];
    let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    tables.into_iter().flat_map(|(name, is_stream)| parse(&read(name), is_stream)).collect()
}

/// The state of a socket of TCP that listens.
const LISTENS: &str = "0A";

fn parse(table: &str, is_stream: bool) -> Vec<Bound> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_bound = !is_stream || fields.get(3) == Some(&LISTENS);
        let address = local(fields.get(1)?).filter(|_| is_bound)?;
        Some(Bound { address, is_stream, inode: fields.get(9)?.parse().ok()? })
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// `0100007F:0D96`: words of the address as the machine has them in memory, and the port.
fn local(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(8 * at..8 * at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The process that has a socket, if this one may know.
fn owner(inode: u64) -> Option<Owner> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find_map(|pid| {
        let mut files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let has_it = files.any(|file| {
            // The link says that it is a socket, what it leads to says which.
            let is_socket = fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
            is_socket && fs::metadata(file.path()).is_ok_and(|about| about.ino() == inode)
        });
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        has_it.then(|| Owner { pid, name: name.trim().to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Level, expect, levels};
    use super::*;

    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode \
                       ref pointer drops\n  512: 0100007F:0D96 00000000:0000 07 00000000:00000000 00:00000000 00000000 \
                       0        0 4711 2 0000000000000000 0\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue \
                        rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: \
                        00000000000000000000000000000000:0D96 00000000000000000000000000000000:0000 0A 00000000:00000000 \
                        00:00000000 00000000     0        0 42 1 0000000000000000 100 0 0 10 0\n   1: \
                        00000000000000000000000000000000:0D96 00000000000000000000000000000000:0001 01 00000000:00000000 \
                        00:00000000 00000000     0        0 43 1 0000000000000000 100 0 0 10 0\n";

    #[test]
    fn the_tables_of_the_kernel_are_read() {
        let udp = parse(UDP, false);
        assert_eq!(udp, [Bound { address: "127.0.0.1:3478".parse().unwrap(), is_stream: false, inode: 4711 }]);
        let tcp = parse(TCP6, true);
        assert_eq!(tcp, [Bound { address: "[::]:3478".parse().unwrap(), is_stream: true, inode: 42 }]);
    }

    #[test]
    fn whoever_is_in_the_way_is_found() {
        let all: Vec<_> = [parse(UDP, false), parse(TCP6, true)].concat();
        let inode = |wanted: &str, is_stream| holder(&all, wanted.parse().unwrap(), is_stream).map(|bound| bound.inode);
        assert_eq!(inode("127.0.0.1:3478", false), Some(4711));
        assert_eq!(inode("0.0.0.0:3478", false), Some(4711));
        assert_eq!(inode("192.0.2.1:3478", false), None);
        assert_eq!(inode("192.0.2.1:3478", true), Some(42), "a socket of IPv6 can have IPv4, too");
        assert_eq!(inode("[::]:3479", true), None);
    }

    #[test]
    fn what_cannot_be_opened_is_an_error_unless_hairpin_has_it() {
        let attempt = |failure| Attempt {
            option: "--listen udp:0.0.0.0:3478".to_owned(),
            address: "0.0.0.0:3478".parse().unwrap(),
            is_stream: false,
            failure,
        };
        let owned_by = |name: &str| Some(Owner { pid: 12, name: name.to_owned() });
        assert_eq!(levels(&judge(&[attempt(None)], |_| None)), [Level::Ok]);
        let in_use = [attempt(Some(Failure::InUse))];
        expect(&judge(&in_use, |_| owned_by("turnserver")), Level::Error, "in use by turnserver (process 12)");
        expect(&judge(&in_use, |_| owned_by("hairpin")), Level::Notice, "a relay is running");
        expect(&judge(&in_use, |_| None), Level::Error, "ss -lnptu");
        let other = [attempt(Some(Failure::Other("needs the capability".to_owned())))];
        expect(&judge(&other, |_| None), Level::Error, "needs the capability");
    }
}
