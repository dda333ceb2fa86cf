//! Says what was started: to the log for the operator, to standard output what a client needs.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hairpin_proto::turn::{Credentials, RelayAddress};

use crate::clock::unix_seconds;
use crate::config::{AdminAddr, Config};

/// How long the credentials are valid that are printed.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// Says what was started: the `listeners` that are open, the kernel path in one line, and, of a relay whose secret is its
/// `own`, a credential. The last lines go to standard output: they are made to be pasted.
pub fn announce(config: &Config, listeners: &[SocketAddr], datapath: impl std::fmt::Display, own: Option<&str>) {
    for listener in listeners {
        tracing::info!("listening on udp {listener}");
    }
    for address in &config.relay_addresses {
        let ports = config.relay_ports;
        if address.bind == address.public {
            tracing::info!("relaying from {} ports {ports}", address.bind);
        } else {
            tracing::info!("relaying from {} (outside: {}) ports {ports}", address.bind, address.public);
        }
    }
    if let AdminAddr::At(address) = config.admin {
        tracing::info!("metrics on http://{address}/metrics");
    }
    tracing::info!("{datapath}");
    if let Some(secret) = own {
        let text = invitation(&servers(listeners, &config.relay_addresses), secret);
        // Nobody may be reading: the relay runs all the same.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}

fn invitation(servers: &[SocketAddr], secret: &str) -> String {
    let (username, password) = Credentials::mint(secret, "hairpin", unix_seconds() + VALIDITY.as_secs());
    let mut lines =
        vec![String::new(), "A TURN client can use this relay with, for 24 hours:".to_owned(), String::new()];
    lines.extend(servers.iter().map(|server| format!("  turn:{server}?transport=udp")));
    lines.push(format!("  username: {username}\n  password: {password}\n"));
    lines.push("`hairpin credentials` mints more, with what the state directory's auth-secret holds in".to_owned());
    lines.push("HAIRPIN_AUTH_SECRET.\n".to_owned());
    lines.join("\n")
}

/// Where clients reach the server, as far as it is known: a listener's own address, or what it is outside; for one that
/// listens everywhere, the outside of the relay addresses of its family.
fn servers(listeners: &[SocketAddr], relay_addresses: &[RelayAddress]) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for listener in listeners {
        let ip = listener.ip();
        let of_listener = |address: &&RelayAddress| {
            address.bind == ip || ip.is_unspecified() && address.bind.is_ipv4() == ip.is_ipv4()
        };
        let mut hosts: Vec<IpAddr> = relay_addresses.iter().filter(of_listener).map(|address| address.public).collect();
        if hosts.is_empty() && !ip.is_unspecified() {
            hosts.push(ip);
        }
        for server in hosts.into_iter().map(|host| SocketAddr::new(host, listener.port())) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(listeners: &[&str], relay_addresses: &[(&str, &str)]) -> Vec<String> {
        let listeners: Vec<SocketAddr> = listeners.iter().map(|listener| listener.parse().unwrap()).collect();
        let address = |(bind, public): &(&str, &str)| RelayAddress {
            bind: bind.parse().unwrap(),
            public: public.parse().unwrap(),
        };
        let relay_addresses: Vec<_> = relay_addresses.iter().map(address).collect();
        servers(&listeners, &relay_addresses).iter().map(SocketAddr::to_string).collect()
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
