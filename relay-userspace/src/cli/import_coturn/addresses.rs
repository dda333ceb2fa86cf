//! Addresses of a turnserver.conf, and what listeners and relayed addresses they make.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::line::Line;
use super::meaning::{At, Coturn, External, Not};

/// The ports of TURN (RFC 8656 section 4), without and with encryption.
const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;

/// An address. Coturn takes names, too.
pub(super) fn ip(line: &Line<'_>) -> Result<IpAddr, String> {
    parse(line.trimmed())
}

fn parse(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an IP address; names are not looked up"))
}

/// `PUBLIC` or `PUBLIC/PRIVATE`.
pub(super) fn external(line: &Line<'_>) -> Result<External, String> {
    let (public, private) = match line.trimmed().split_once('/') {
        Some((public, private)) => (parse(public)?, Some(parse(private)?)),
        None => (parse(line.trimmed())?, None),
    };
    if private.is_some_and(|private| private.is_ipv4() != public.is_ipv4()) {
        return Err("both addresses must be of the same IP version".to_owned());
    }
    Ok(External { public, private })
}

/// `IP:PORT`.
pub(super) fn endpoint(line: &Line<'_>) -> Result<SocketAddr, String> {
    let text = line.trimmed();
    text.parse().map_err(|_| format!("`{text}` is not an address and port such as 192.0.2.1:3478"))
}

/// `IP` or `IP:PORT` of a server for clients over UDP and TCP, in hairpin's words.
pub(super) fn alternate(line: &Line<'_>) -> Result<String, String> {
    other_server(line, PORT).map(|server| format!("turn:{server}"))
}

/// The same of a server for clients over TLS and DTLS.
pub(super) fn tls_alternate(line: &Line<'_>) -> Result<String, String> {
    other_server(line, TLS_PORT).map(|server| format!("turns:{server}"))
}

fn other_server(line: &Line<'_>, port: u16) -> Result<SocketAddr, String> {
    let text = line.trimmed();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, port)).or_else(|_| endpoint(line))
}

/// What is outside of an address of this host, if it is behind a 1:1 NAT.
pub(super) fn outside(coturn: &Coturn, ip: IpAddr) -> Option<IpAddr> {
    let externals = || coturn.external_ips.iter().map(|at| at.value);
    let own = externals().find(|external| external.private == Some(ip));
    let of_all = || {
        let is_meant = |external: &External| external.private.is_none() && external.public.is_ipv4() == ip.is_ipv4();
        externals().rfind(is_meant).filter(|_| !ip.is_loopback())
    };
    own.or_else(of_all).map(|external| external.public).filter(|public| *public != ip)
}

/// The same of a listener; of one that listens everywhere only where no relay address tells it.
fn outside_of_listener(coturn: &Coturn, ip: IpAddr) -> Option<IpAddr> {
    let is_told = |at: &At<IpAddr>| at.value.is_ipv4() == ip.is_ipv4();
    outside(coturn, ip).filter(|_| !ip.is_unspecified() || !coturn.relay_ips.iter().any(is_told))
}

/// `IP`, or `IP=PUBLIC`.
pub(super) fn with_outside(coturn: &Coturn, ip: IpAddr) -> String {
    outside(coturn, ip).map_or_else(|| ip.to_string(), |public| format!("{ip}={public}"))
}

/// All listeners, or none where hairpin's default ones are the same.
///
/// Coturn tells clients apart by their first bytes: each of its two ports serves both who encrypts and who does not.
pub(super) fn listeners(coturn: &Coturn) -> Vec<String> {
    let port = coturn.listening_port.as_ref().map_or(PORT, |at| at.value);
    let tls_port = coturn.tls_listening_port.as_ref().map_or(TLS_PORT, |at| at.value);
    let Not { udp, tcp, tls, dtls } = coturn.not;
    let (has_udp, has_tcp) = (!udp, !tcp);
    let (has_tls, has_dtls) = (!tls && coturn.has_certificate(), !dtls && coturn.has_certificate());
    // With a load balancer in front, all connections are taken to come from it.
    let is_proxied = coturn.tcp_proxy_port.is_some();
    let wanted = |port| {
        let plain = [("udp", has_udp), ("tcp", has_tcp && !is_proxied)];
        let encrypted = [("dtls", has_udp && has_dtls), ("tls", has_tcp && has_tls && !is_proxied)];
        plain.into_iter().chain(encrypted).filter_map(move |(transport, wanted)| wanted.then_some((transport, port)))
    };
    let encrypted = [
        ("dtls", has_dtls),
        ("tls", has_tls && !is_proxied),
        ("udp", has_dtls && has_udp),
        ("tcp", has_tls && has_tcp && !is_proxied),
    ];
    let mut sockets: Vec<(&str, u16)> = wanted(port).collect();
    sockets.extend(encrypted.into_iter().filter_map(|(transport, wanted)| wanted.then_some((transport, tls_port))));
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let given: Vec<IpAddr> = coturn.listening_ips.iter().map(|at| at.value).collect();
    let ips = if given.is_empty() { &everywhere[..] } else { &given };

    let is_default = given.is_empty()
        && coturn.aux_servers.is_empty()
        && sockets == [("udp", PORT), ("tcp", PORT)]
        && everywhere.iter().all(|ip| outside_of_listener(coturn, *ip).is_none());
    if is_default {
        return Vec::new();
    }
    let main =
        ips.iter().flat_map(|ip| sockets.iter().map(|(transport, port)| (*transport, SocketAddr::new(*ip, *port))));
    let aux = coturn.aux_servers.iter().map(|at| at.value);
    let aux = aux.flat_map(|at| wanted(at.port()).map(move |(transport, _)| (transport, at)));
    let mut listeners = Vec::new();
    for (transport, at) in main.chain(aux) {
        let public = outside_of_listener(coturn, at.ip()).map_or_else(String::new, |public| format!("={public}"));
        let listener = format!("{transport}:{at}{public}");
        if !listeners.contains(&listener) {
            listeners.push(listener);
        }
    }
    listeners
}

/// What relayed addresses are made of, if the file says so: else both servers choose likewise. Public addresses of which
/// there is one for several cannot be told apart from outside; the lines of the addresses that lose are given back.
pub(super) fn relay_addresses(coturn: &Coturn) -> (Vec<String>, Vec<usize>) {
    let mapped =
        coturn.external_ips.iter().filter_map(|At { line, value }| Some(At { line: *line, value: value.private? }));
    let own: Vec<At<IpAddr>> = match (&coturn.relay_ips[..], &coturn.listening_ips[..]) {
        ([], []) => mapped.collect(),
        ([], listening) => listening.to_vec(),
        (relaying, _) => relaying.to_vec(),
    };
    let (mut addresses, mut publics, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for At { line, value } in own.iter().filter(|at| !at.value.is_unspecified()) {
        let public = outside(coturn, *value).unwrap_or(*value);
        let address = with_outside(coturn, *value);
        if addresses.contains(&address) {
            continue;
        }
        if publics.contains(&public) {
            lost.push(*line);
        } else {
            publics.push(public);
            addresses.push(address);
        }
    }
    // Without a NAT the default is the same.
    let is_default = coturn.relay_ips.is_empty() && coturn.external_ips.is_empty();
    (if is_default { Vec::new() } else { addresses }, lost)
}
