//! What the options about listeners mean together.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use hairpin_proto::address::Transport;
use hairpin_proto::turn::{RelayAddress, Translation};

use super::contradiction::Contradiction;
use crate::cli::value::AlternateAddress;
use crate::config::{AdminAddr, DiscoverySockets, Listener, PortRange};
use crate::tls::CertificateFiles;

/// The port of STUN and TURN (RFC 8656 section 4).
const PORT: u16 = 3478;

/// UDP and TCP, port 3478 of every address.
pub(super) fn default() -> Vec<Listener> {
    let any = [(IpAddr::from(Ipv4Addr::UNSPECIFIED), false), (Ipv6Addr::UNSPECIFIED.into(), true)];
    let of = |transport| {
        any.map(|(ip, is_optional)| {
            let address = SocketAddr::new(ip, PORT);
            Listener { transport, address, public: address, is_optional }
        })
    };
    [of(Transport::Udp), of(Transport::Tcp)].concat()
}

/// Listeners besides those that there are. One that is there is not opened twice.
pub(super) fn add(listeners: &mut Vec<Listener>, others: impl Iterator<Item = Listener>) {
    for listener in others {
        let is_it = |other: &Listener| (other.transport, other.address) == (listener.transport, listener.address);
        if !listeners.iter().any(is_it) {
            listeners.push(listener);
        }
    }
}

/// Whether listeners can be there together, and beside the ports of relayed addresses.
pub(super) fn check(listeners: &[Listener], ports: PortRange, problems: &mut Vec<Contradiction>) {
    // There can be many thousands, from a script that went wrong.
    let mut seen = HashSet::new();
    let mut seen_ports = HashSet::new();
    let mut wholes = HashMap::new();
    for (at, Listener { transport, address, .. }) in listeners.iter().enumerate() {
        if address.ip().is_unspecified() {
            wholes.entry((*address, transport.is_stream())).or_insert(at);
        }
    }
    for (at, listener) in listeners.iter().enumerate() {
        let Listener { transport, address, .. } = *listener;
        if !seen.insert((transport, address)) {
            problems.push(Contradiction::of_value("listen", at).say(format!(" {transport}:{address} is given twice")));
        }
        let any = SocketAddr::new(
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
            address.port(),
        );
        if let Some(whole) = wholes.get(&(any, transport.is_stream())).copied().filter(|_| address != any) {
            problems.push(
                Contradiction::of_value("listen", at)
                    .say(format!(" {transport}:{address} is already part of "))
                    .and_value("listen", whole)
                    .say(format!(" {}:{any}", listeners[whole].transport)),
            );
        }
        let port = address.port();
        let is_first = seen_ports.insert(port);
        if is_first && ports.range().contains(&port) {
            problems.push(
                Contradiction::of("relay-ports")
                    .say(format!(" {ports} contains port {port} of "))
                    .and_value("listen", at),
            );
        }
    }
}

/// Whether the admin interface has an address of its own: a listener shares its port with nothing else.
pub(super) fn check_admin(admin: AdminAddr, listeners: &[Listener], problems: &mut Vec<Contradiction>) {
    let AdminAddr::At(address) = admin else { return };
    let is_in_the_way = |listener: &Listener| {
        let other = listener.address;
        listener.transport.is_stream()
            && other.port() == address.port()
            && other.is_ipv4() == address.is_ipv4()
            && (other.ip() == address.ip() || other.ip().is_unspecified() || address.ip().is_unspecified())
    };
    if let Some(at) = listeners.iter().position(is_in_the_way) {
        let Listener { transport, address: other, .. } = listeners[at];
        problems.push(
            Contradiction::of("admin")
                .say(format!(" {address} and "))
                .and_value("listen", at)
                .say(format!(" {transport}:{other} cannot have the same port: choose another for one of them")),
        );
    }
}

/// Certificates with their keys: as many of each, and only where they are of use.
pub(super) fn certificates(
    listeners: &[Listener],
    certificates: Vec<PathBuf>,
    keys: Vec<PathBuf>,
    problems: &mut Vec<Contradiction>,
) -> Vec<CertificateFiles> {
    let is_encrypted = |listener: &Listener| matches!(listener.transport, Transport::Tls | Transport::Dtls);
    let encrypted = listeners.iter().position(is_encrypted);
    let both = || Contradiction::of("certificate").say(" and ").and("private-key");
    if certificates.len() != keys.len() {
        problems.push(both().say(format!(
            " belong together, in the same order: there are {} of the one and {} of the other",
            certificates.len(),
            keys.len()
        )));
    } else if let Some(at) = encrypted.filter(|_| certificates.is_empty()) {
        let Listener { transport, address, .. } = listeners[at];
        problems.push(both().say(" are needed for ").and_value("listen", at).say(format!(" {transport}:{address}")));
    } else if encrypted.is_none() && !certificates.is_empty() {
        problems.push(
            Contradiction::of("certificate").say(" needs a ").and("listen").say(" tls:ADDR:PORT or dtls:ADDR:PORT"),
        );
    }
    let pairs = certificates.into_iter().zip(keys);
    pairs.map(|(certificate, private_key)| CertificateFiles { certificate, private_key }).collect()
}

/// The sockets for NAT behaviour discovery (RFC 5780), of which those that are missing are added to the listeners. None
/// if nobody asked for it.
pub(super) fn discovery(
    alternates: &[AlternateAddress],
    listeners: &mut Vec<Listener>,
    relay_addresses: &[RelayAddress],
    problems: &mut Vec<Contradiction>,
) -> Option<Vec<DiscoverySockets>> {
    let mut sockets = Vec::new();
    for (at, alternate) in alternates.iter().enumerate() {
        let ip = alternate.ip;
        if alternates[..at].iter().any(|other| other.ip.is_ipv4() == ip.is_ipv4()) {
            let sentence = Contradiction::of_value("nat-discovery", at);
            problems
                .push(sentence.say(format!(" {ip} is the second address of its IP version: one of each is allowed")));
            continue;
        }
        let (primary, port) = match primary(alternate, at, listeners, relay_addresses) {
            Ok(primary) => primary,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let Some(second) = alternate.port.or(port.checked_add(1)).filter(|second| *second != port) else {
            let sentence = Contradiction::of_value("nat-discovery", at).because_of("listen");
            problems.push(sentence.say(format!(" {ip} needs another port than {port}, such as {ip}:3479")));
            continue;
        };
        let addresses = if primary == ip { vec![primary] } else { vec![primary, ip] };
        for address in addresses.iter().flat_map(|ip| [port, second].map(|port| SocketAddr::new(*ip, port))) {
            let is_open = |listener: &Listener| {
                let Listener { transport, address: known, .. } = listener;
                !transport.is_stream()
                    && (*known == address || known.ip().is_unspecified() && known.port() == address.port())
                    && known.is_ipv4() == address.is_ipv4()
            };
            if !listeners.iter().any(is_open) {
                let of_listener = listeners.iter().find(|listener| listener.address.ip() == address.ip());
                let of_relay = relay_addresses.iter().find(|relay| relay.bind == address.ip());
                let public = if address.ip() == ip {
                    alternate.public
                } else {
                    let known = of_listener.map(|listener| listener.public.ip());
                    known.or(of_relay.map(|relay| relay.public)).unwrap_or(address.ip())
                };
                let public = SocketAddr::new(public, address.port());
                listeners.push(Listener { transport: Transport::Udp, address, public, is_optional: false });
            }
        }
        if primary != ip {
            sockets.push(DiscoverySockets { addresses: [primary, ip], ports: [port, second] });
        }
    }
    (!alternates.is_empty()).then_some(sockets)
}

/// The address and port that an alternate address is the second of.
fn primary(
    alternate: &AlternateAddress,
    at: usize,
    listeners: &[Listener],
    relay_addresses: &[RelayAddress],
) -> Result<(IpAddr, u16), Contradiction> {
    let ip = alternate.ip;
    let of_family =
        |listener: &&Listener| listener.transport == Transport::Udp && listener.address.is_ipv4() == ip.is_ipv4();
    let Some(listener) = listeners.iter().find(of_family) else {
        return Err(Contradiction::of_value("nat-discovery", at)
            .say(format!(" {ip} needs a "))
            .and("listen")
            .say(" udp:ADDR:PORT of the same IP version"));
    };
    let address = listener.address.ip();
    if !address.is_unspecified() {
        return Ok((address, listener.address.port()));
    }
    let other = |relay: &&RelayAddress| relay.bind.is_ipv4() == ip.is_ipv4() && relay.bind != ip;
    let Some(relay) = relay_addresses.iter().find(other) else {
        return Err(Contradiction::of_value("nat-discovery", at)
            .say(format!(" {ip}: the first address, which {ip} is the second to, is not known; name it by "))
            .and("listen")
            .say(format!(" udp:ADDR:{}", listener.address.port()))
            .because_of("relay-address"));
    };
    Ok((relay.bind, listener.address.port()))
}

/// How the world sees this host's addresses.
pub(super) fn translation(
    listeners: &[Listener],
    relay_addresses: &[RelayAddress],
    alternates: &[AlternateAddress],
    problems: &mut Vec<Contradiction>,
) -> Translation {
    let of_listeners = listeners
        .iter()
        .filter(|listener| !listener.address.ip().is_unspecified() && listener.address != listener.public)
        .map(|listener| RelayAddress { bind: listener.address.ip(), public: listener.public.ip() });
    let of_alternates = alternates
        .iter()
        .filter(|alternate| alternate.ip != alternate.public)
        .map(|alternate| RelayAddress { bind: alternate.ip, public: alternate.public });
    let all: Vec<_> = relay_addresses.iter().copied().chain(of_listeners).chain(of_alternates).collect();
    Translation::new(&all).unwrap_or_else(|error| {
        problems.push(
            Contradiction::of("relay-address")
                .say(", ")
                .and("listen")
                .say(" and ")
                .and("nat-discovery")
                .say(format!(" must say the same of what is outside: {error}")),
        );
        Translation::default()
    })
}

#[cfg(test)]
mod tests {
    use crate::cli::value::{listener, nat_discovery};

    use super::*;

    #[test]
    fn the_admin_interface_shares_no_port_with_a_listener_over_tcp_or_tls() {
        let told = |admin: &str, given: &str| {
            let mut problems = Vec::new();
            let admin = AdminAddr::At(admin.parse().unwrap());
            check_admin(admin, &[listener(given).unwrap()], &mut problems);
            problems.len()
        };
        for (admin, given, expected) in [
            ("127.0.0.1:9641", "tcp:127.0.0.1:9641", 1),
            ("127.0.0.1:9641", "tls:0.0.0.0:9641", 1),
            ("0.0.0.0:9641", "tcp:192.0.2.1:9641", 1),
            ("[::1]:9641", "tcp:[::]:9641", 1),
            ("127.0.0.1:9641", "udp:127.0.0.1:9641", 0),
            ("127.0.0.1:9641", "tcp:[::]:9641", 0),
            ("127.0.0.1:9641", "tcp:127.0.0.2:9641", 0),
            ("127.0.0.1:9641", "tcp:127.0.0.1:9642", 0),
        ] {
            assert_eq!(told(admin, given), expected, "{admin} {given}");
        }
    }

    #[test]
    fn many_thousands_of_listeners_are_checked_in_no_time() {
        let one = listener("udp:192.0.2.1:3478").unwrap();
        let mut problems = Vec::new();
        check(&vec![one; 200_000], PortRange::DYNAMIC, &mut problems);
        assert_eq!(problems.len(), 199_999);
    }

    #[test]
    fn sockets_for_nat_discovery_are_added_where_no_listener_of_their_family_has_them() {
        let added = |given: &[&str]| {
            let mut listeners: Vec<_> = given.iter().map(|text| listener(text).unwrap()).collect();
            let alternates = [nat_discovery("192.0.2.2").unwrap()];
            let mut problems = Vec::new();
            let sockets = discovery(&alternates, &mut listeners, &[], &mut problems);
            assert_eq!(problems, []);
            let addresses = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
            assert_eq!(sockets, Some(vec![DiscoverySockets { addresses, ports: [3478, 3479] }]));
            listeners[given.len()..].iter().map(|listener| listener.address.to_string()).collect::<Vec<_>>()
        };
        let three = ["192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479"];
        assert_eq!(added(&["192.0.2.1:3478"]), three);
        assert_eq!(added(&["192.0.2.1:3478", "[::]:3478", "[::]:3479"]), three, "IPv6 is another matter");
        assert_eq!(added(&["192.0.2.1:3478", "tcp:192.0.2.1:3479", "192.0.2.2:3479"]), three[..2]);
    }
}
