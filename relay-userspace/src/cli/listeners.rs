//! What the options about listeners mean together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use hairpin_proto::address::Transport;
use hairpin_proto::turn::{RelayAddress, Translation};

use super::value::AlternateAddress;
use crate::config::{DiscoverySockets, Listener, PortRange};
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

/// Whether listeners can be there together, and beside the ports of relayed addresses.
pub(super) fn check(listeners: &[Listener], ports: PortRange) -> Result<(), String> {
    for (at, listener) in listeners.iter().enumerate() {
        let Listener { transport, address, .. } = *listener;
        if listeners[..at].iter().any(|other| other.transport == transport && other.address == address) {
            return Err(format!("--listen {transport}:{address} is given twice"));
        }
        let any = SocketAddr::new(
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
            address.port(),
        );
        let is_part = |other: &&Listener| {
            other.address == any && other.transport.is_stream() == transport.is_stream() && address != any
        };
        if let Some(other) = listeners.iter().find(is_part) {
            return Err(format!(
                "--listen {transport}:{address} is already part of --listen {}:{any}",
                other.transport
            ));
        }
        let port = address.port();
        if ports.range().contains(&port) {
            return Err(format!("--relay-ports {ports} contains port {port} of --listen"));
        }
    }
    Ok(())
}

/// Certificates with their keys: as many of each, and only where they are of use.
pub(super) fn certificates(
    listeners: &[Listener],
    certificates: Vec<PathBuf>,
    keys: Vec<PathBuf>,
) -> Result<Vec<CertificateFiles>, String> {
    let encrypted = listeners.iter().find(|listener| matches!(listener.transport, Transport::Tls | Transport::Dtls));
    if certificates.len() != keys.len() {
        return Err(format!(
            "--certificate and --private-key belong together, in the same order: there are {} of the one and {} of the other",
            certificates.len(),
            keys.len()
        ));
    }
    match encrypted {
        Some(Listener { transport, address, .. }) if certificates.is_empty() => {
            Err(format!("--certificate and --private-key are needed for --listen {transport}:{address}"))
        }
        None if !certificates.is_empty() => {
            Err("--certificate needs a --listen tls:ADDR:PORT or dtls:ADDR:PORT".to_owned())
        }
        _ => Ok(certificates
            .into_iter()
            .zip(keys)
            .map(|(certificate, private_key)| CertificateFiles { certificate, private_key })
            .collect()),
    }
}

/// The sockets for NAT behaviour discovery (RFC 5780), of which those that are missing are added to the listeners. None
/// if nobody asked for it.
pub(super) fn discovery(
    alternates: &[AlternateAddress],
    listeners: &mut Vec<Listener>,
    relay_addresses: &[RelayAddress],
    ports: PortRange,
) -> Result<Option<Vec<DiscoverySockets>>, String> {
    let mut sockets = Vec::new();
    for (at, alternate) in alternates.iter().enumerate() {
        let ip = alternate.ip;
        if alternates[..at].iter().any(|other| other.ip.is_ipv4() == ip.is_ipv4()) {
            return Err(format!(
                "--nat-discovery {ip} is the second address of its IP version: one of each is allowed"
            ));
        }
        let (primary, port) = primary(alternate, listeners, relay_addresses)?;
        let second = match alternate.port.or(port.checked_add(1)) {
            Some(second) if second != port => second,
            _ => return Err(format!("--nat-discovery {ip} needs another port than {port}, such as {ip}:3479")),
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
    check(listeners, ports)?;
    Ok((!alternates.is_empty()).then_some(sockets))
}

/// The address and port that an alternate address is the second of.
fn primary(
    alternate: &AlternateAddress,
    listeners: &[Listener],
    relay_addresses: &[RelayAddress],
) -> Result<(IpAddr, u16), String> {
    let ip = alternate.ip;
    let of_family =
        |listener: &&Listener| listener.transport == Transport::Udp && listener.address.is_ipv4() == ip.is_ipv4();
    let Some(listener) = listeners.iter().find(of_family) else {
        return Err(format!("--nat-discovery {ip} needs a --listen udp:ADDR:PORT of the same IP version"));
    };
    let address = listener.address.ip();
    if !address.is_unspecified() {
        return Ok((address, listener.address.port()));
    }
    let other = |relay: &&RelayAddress| relay.bind.is_ipv4() == ip.is_ipv4() && relay.bind != ip;
    let Some(relay) = relay_addresses.iter().find(other) else {
        return Err(format!(
            "--nat-discovery {ip}: the first address, which {ip} is the second to, is not known; name it by --listen \
             udp:ADDR:{}",
            listener.address.port()
        ));
    };
    Ok((relay.bind, listener.address.port()))
}

/// How the world sees this host's addresses.
pub(super) fn translation(
    listeners: &[Listener],
    relay_addresses: &[RelayAddress],
    alternates: &[AlternateAddress],
) -> Result<Translation, String> {
    let of_listeners = listeners
        .iter()
        .filter(|listener| !listener.address.ip().is_unspecified() && listener.address != listener.public)
        .map(|listener| RelayAddress { bind: listener.address.ip(), public: listener.public.ip() });
    let of_alternates = alternates
        .iter()
        .filter(|alternate| alternate.ip != alternate.public)
        .map(|alternate| RelayAddress { bind: alternate.ip, public: alternate.public });
    let all: Vec<_> = relay_addresses.iter().copied().chain(of_listeners).chain(of_alternates).collect();
    Translation::new(&all).map_err(|error| {
        format!("--relay-address, --listen and --nat-discovery must say the same of what is outside: {error}")
    })
}

#[cfg(test)]
mod tests {
    use super::super::value::{listener, nat_discovery};
    use super::*;

    #[test]
    fn sockets_for_nat_discovery_are_added_where_no_listener_of_their_family_has_them() {
        let added = |given: &[&str]| {
            let mut listeners: Vec<_> = given.iter().map(|text| listener(text).unwrap()).collect();
            let alternates = [nat_discovery("192.0.2.2").unwrap()];
            let sockets = discovery(&alternates, &mut listeners, &[], PortRange::DYNAMIC).unwrap();
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
