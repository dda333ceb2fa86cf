//! Says what was started: to the log for the operator, to standard output what a client needs.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::address::Transport;
use hairpin_proto::turn::{Credentials, RelayAddress};

use crate::clock::unix_seconds;
use crate::config::{Config, Listener};

/// How long the credentials are valid that are printed.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// Says what was started: the `listeners` that are open, the `origin` of the status page, the kernel path in one line, and,
/// of a relay whose secret is its `own`, a credential. The last lines go to standard output: they are made to be pasted.
pub fn announce(
    config: &Config,
    listeners: &[Listener],
    origin: Option<&str>,
    datapath: impl std::fmt::Display,
    own: Option<&str>,
) {
    for listener in listeners {
        let Listener { transport, address, public, .. } = listener;
        if address == public {
            tracing::info!("listening on {transport} {address}");
        } else {
            tracing::info!("listening on {transport} {address} (outside: {public})");
        }
    }
    for address in &config.relay_addresses {
        let ports = config.relay_ports;
        if address.bind == address.public {
            tracing::info!("relaying from {} ports {ports}", address.bind);
        } else {
            tracing::info!("relaying from {} (outside: {}) ports {ports}", address.bind, address.public);
        }
    }
    if let Some(origin) = origin {
        tracing::info!("status page on {origin}/, metrics on {origin}/metrics");
    }
    if let Some(endpoint) = &config.otlp {
        tracing::info!(sample = config.otlp_sample, "traces of requests go to {endpoint}");
    }
    tracing::info!("{datapath}");
    if let Some(secret) = own {
        let text = invitation(&servers(listeners, &config.relay_addresses), secret);
        // Nobody may be reading: the relay runs all the same.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}

/// The URIs by which clients reach the server (RFC 7065).
pub(crate) fn uris(listeners: &[Listener], relay_addresses: &[RelayAddress]) -> Vec<String> {
    servers(listeners, relay_addresses).iter().map(|(transport, server)| uri(*transport, *server)).collect()
}

fn invitation(servers: &[(Transport, SocketAddr)], secret: &str) -> String {
    let (username, password) = Credentials::mint(secret, "hairpin", unix_seconds() + VALIDITY.as_secs());
    let mut lines =
        vec![String::new(), "A TURN client can use this relay with, for 24 hours:".to_owned(), String::new()];
    lines.extend(servers.iter().map(|(transport, server)| format!("  {}", uri(*transport, *server))));
    lines.push(format!("  username: {username}\n  password: {password}\n"));
    lines.push("`hairpin credentials` mints more, with what the state directory's auth-secret holds in".to_owned());
    lines.push("HAIRPIN_AUTH_SECRET.\n".to_owned());
    lines.join("\n")
}

/// RFC 7065; `turns` over UDP means DTLS.
fn uri(transport: Transport, server: SocketAddr) -> String {
    let (scheme, below) = match transport {
        Transport::Udp => ("turn", "udp"),
        Transport::Tcp => ("turn", "tcp"),
        Transport::Tls => ("turns", "tcp"),
        Transport::Dtls => ("turns", "udp"),
    };
    format!("{scheme}:{server}?transport={below}")
}

/// Where clients reach the server, as far as it is known: a listener's own address, or what it is outside; for one that
/// listens everywhere, the outside of the relay addresses of its family.
fn servers(listeners: &[Listener], relay_addresses: &[RelayAddress]) -> Vec<(Transport, SocketAddr)> {
    let mut servers = Vec::new();
    for Listener { transport, address, public, .. } in listeners {
        let ip = address.ip();
        let of_listener = |address: &&RelayAddress| {
            address.bind == ip || ip.is_unspecified() && address.bind.is_ipv4() == ip.is_ipv4()
        };
        let mut hosts: Vec<SocketAddr> = if public == address {
            let outside = relay_addresses.iter().filter(of_listener).map(|address| address.public);
            outside.map(|host| SocketAddr::new(host, address.port())).collect()
        } else {
            vec![*public]
        };
        if hosts.is_empty() && !ip.is_unspecified() {
            hosts.push(*address);
        }
        for server in hosts {
            if !servers.contains(&(*transport, server)) {
                servers.push((*transport, server));
            }
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(listeners: &[&str], relay_addresses: &[(&str, &str)]) -> Vec<String> {
        let listeners: Vec<_> = listeners.iter().map(|listener| udp(listener.parse().unwrap())).collect();
        let address = |(bind, public): &(&str, &str)| RelayAddress {
            bind: bind.parse().unwrap(),
            public: public.parse().unwrap(),
        };
        let relay_addresses: Vec<_> = relay_addresses.iter().map(address).collect();
        servers(&listeners, &relay_addresses).iter().map(|(_, server)| server.to_string()).collect()
    }

    fn udp(address: SocketAddr) -> Listener {
        Listener { transport: Transport::Udp, address, public: address, is_optional: false }
    }

    #[test]
    fn a_listener_with_an_outside_of_its_own_is_told_with_that() {
        let listener =
            Listener { public: "198.51.100.9:443".parse().unwrap(), ..udp("10.0.0.1:3478".parse().unwrap()) };
        let relay = RelayAddress { bind: "10.0.0.1".parse().unwrap(), public: "198.51.100.1".parse().unwrap() };
        let listener = Listener { transport: Transport::Tls, ..listener };
        assert_eq!(servers(&[listener], &[relay]), [(Transport::Tls, "198.51.100.9:443".parse().unwrap())]);
    }

    #[test]
    fn a_uri_says_what_is_spoken() {
        let server = "192.0.2.1:5349".parse().unwrap();
        let uris = Transport::ALL.map(|transport| uri(transport, server));
        assert_eq!(
            uris,
            [
                "turn:192.0.2.1:5349?transport=udp",
                "turn:192.0.2.1:5349?transport=tcp",
                "turns:192.0.2.1:5349?transport=tcp",
                "turns:192.0.2.1:5349?transport=udp",
            ]
        );
    }

    const V4: (&str, &str) = ("10.0.0.1", "198.51.100.1");
    const V6: (&str, &str) = ("2001:db8::1", "2001:db8::1");

    #[test]
    fn a_listener_is_told_with_its_own_address_and_port() {
        assert_eq!(told(&["192.0.2.7:3478", "192.0.2.8:80"], &[V4, V6]), ["192.0.2.7:3478", "192.0.2.8:80"]);
    }

    #[test]
    fn a_listener_behind_a_nat_is_told_as_it_is_outside() {
        assert_eq!(told(&["10.0.0.1:3478"], &[V4]), ["198.51.100.1:3478"]);
    }

    #[test]
    fn a_listener_everywhere_is_told_with_the_relay_addresses_of_its_family() {
        assert_eq!(told(&["0.0.0.0:3478"], &[V4, V6]), ["198.51.100.1:3478"], "nothing listens on IPv6");
        assert_eq!(told(&["0.0.0.0:3478", "[::]:5000"], &[V4, V6]), ["198.51.100.1:3478", "[2001:db8::1]:5000"]);
    }
}
