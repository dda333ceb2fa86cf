//! The addresses of listeners and of relayed addresses: whether this host has them, and whether the world can reach them.

use std::net::IpAddr;

use super::{Finding, Findings, read};
use crate::config::Config;

/// What there is to know.
#[derive(Clone, Debug, Default)]
struct Addresses {
    /// Of every interface, by its name.
    own: Vec<(String, IpAddr)>,
    /// `ip_nonlocal_bind` of IPv4 and of IPv6: sockets may have addresses that the host has not (yet).
    may_be_foreign: [bool; 2],
    has_ipv6: bool,
    /// Interfaces that drop what comes in by another way than answers would leave by (`rp_filter` 1).
    strict: Vec<String>,
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => judge(&Addresses::read(&interfaces), config),
        Err(error) => {
            let mut findings = Findings::about("addresses");
            findings.error(
                format!("the addresses of this host, which no peer may have, cannot be listed: {error}"),
                "does a sandbox forbid AF_NETLINK?",
            );
            findings.list
        }
    }
}

impl Addresses {
    fn read(interfaces: &[if_addrs::Interface]) -> Self {
        let own: Vec<_> = interfaces.iter().map(|interface| (interface.name.clone(), interface.ip())).collect();
        let of_all = read::number("net/ipv4/conf/all/rp_filter").unwrap_or(0);
        let mut names: Vec<String> =
            own.iter().filter(|(_, ip)| !ip.is_loopback()).map(|(name, _)| name.clone()).collect();
        names.dedup();
        // The higher one of both holds, and 2 is loose.
        let is_strict =
            |name: &String| read::number(&format!("net/ipv4/conf/{name}/rp_filter")).unwrap_or(0).max(of_all) == 1;
        names.retain(is_strict);
        let is_on = |name| read::number(name) == Some(1);
        Self {
            own,
            may_be_foreign: [is_on("net/ipv4/ip_nonlocal_bind"), is_on("net/ipv6/ip_nonlocal_bind")],
            has_ipv6: std::fs::exists("/proc/self/net/if_inet6").unwrap_or(false)
                && !is_on("net/ipv6/conf/all/disable_ipv6"),
            strict: names,
        }
    }

    /// Loopback addresses are there although no interface lists all of them.
    fn has(&self, ip: IpAddr) -> bool {
        self.own.iter().any(|(_, own)| *own == ip) || matches!(ip, IpAddr::V4(v4) if v4.is_loopback())
    }
}

fn judge(addresses: &Addresses, config: &Config) -> Vec<Finding> {
    let mut findings = Findings::about("addresses");
    let mut used: Vec<(&str, IpAddr)> = Vec::new();
    let listening = config.listeners.iter().map(|listener| ("--listen", listener.address.ip()));
    for entry in listening.chain(config.relay_addresses.iter().map(|relay| ("--relay-address", relay.bind))) {
        if !used.contains(&entry) {
            used.push(entry);
        }
    }
    for (option, ip) in used.iter().filter(|(_, ip)| !ip.is_unspecified() && !addresses.has(*ip)) {
        let text = format!("{option}: no interface has {ip}");
        if addresses.may_be_foreign[usize::from(ip.is_ipv6())] {
            findings.notice(text, "ip_nonlocal_bind lets it be used all the same, once it is here");
        } else {
            findings.error(text, "`ip address` lists those that there are; behind a NAT it is IP=PUBLIC-IP");
        }
    }
    for relay in config.relay_addresses.iter().filter(|relay| relay.bind == relay.public && is_private(relay.public)) {
        findings.warning(
            format!(
                "relayed addresses are made of {}, which is private: peers on the Internet cannot reach it",
                relay.bind
            ),
            format!(
                "behind a 1:1 NAT say --relay-address {}=PUBLIC-IP; where all peers are inside, nothing",
                relay.bind
            ),
        );
    }
    let is_served = config.listeners.iter().any(|listener| !listener.address.ip().is_loopback());
    if is_served && config.relay_addresses.iter().all(|relay| relay.bind.is_loopback()) {
        let advice = "name an address that peers can reach with --relay-address";
        findings.warning("relayed addresses are made of loopback addresses only", advice);
    }
    let asks_for_ipv6 = |listener: &&crate::config::Listener| listener.address.is_ipv6() && !listener.is_optional;
    if !addresses.has_ipv6 {
        match config.listeners.iter().find(asks_for_ipv6) {
            Some(listener) => findings.warning(
                format!("--listen {}:{}: IPv6 is switched off on this host", listener.transport, listener.address),
                "leave it out, or sysctl net.ipv6.conf.all.disable_ipv6=0",
            ),
            None => findings.notice("IPv6 is switched off: neither clients nor peers can have it", ""),
        }
    } else if !config.relay_addresses.iter().any(|relay| relay.bind.is_ipv6()) {
        findings.notice("there is no relay address of IPv6: clients reach no peers over it", "");
    }
    if addresses.strict.len() > 1 {
        findings.notice(
            format!(
                "the kernel drops what comes in by another interface than answers leave by ({})",
                addresses.strict.join(", ")
            ),
            "where routes are not the same both ways: sysctl net.ipv4.conf.all.rp_filter=2",
        );
    }
    let relaying: Vec<_> = config.relay_addresses.iter().map(outside).collect();
    findings.or_ok(format!("relaying from {}", relaying.join(", ")))
}

fn outside(relay: &hairpin_proto::turn::RelayAddress) -> String {
    let hairpin_proto::turn::RelayAddress { bind, public } = relay;
    if bind == public { bind.to_string() } else { format!("{bind} (outside: {public})") }
}

/// Addresses that the Internet does not route: private, shared by a provider's clients, unique local.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::super::{Level, expect, levels};
    use super::*;

    fn host() -> Addresses {
        let own = [("lo", "127.0.0.1"), ("eth0", "198.51.100.1"), ("eth0", "2001:db8::1"), ("eth0", "10.0.0.1")];
        Addresses {
            own: own.map(|(name, ip)| (name.to_owned(), ip.parse().unwrap())).to_vec(),
            has_ipv6: true,
            ..Addresses::default()
        }
    }

    const BOTH: &[&str] = &["198.51.100.1", "2001:db8::1"];

    #[test]
    fn public_addresses_of_both_families_are_well() {
        assert_eq!(levels(&judge(&host(), &config(&["udp:0.0.0.0:3478"], BOTH))), [Level::Ok]);
    }

    #[test]
    fn each_trap_is_told() {
        let case = |listen: &str, relay: &[&str]| judge(&host(), &config(&[listen], relay));
        expect(&case("udp:198.51.100.9:3478", BOTH), Level::Error, "--listen: no interface has 198.51.100.9");
        expect(&case("udp:0.0.0.0:3478", &["198.51.100.9"]), Level::Error, "--relay-address: no interface has");
        expect(&case("udp:0.0.0.0:3478", &["10.0.0.1"]), Level::Warning, "10.0.0.1=PUBLIC-IP");
        assert_eq!(levels(&case("udp:0.0.0.0:3478", &["10.0.0.1=198.51.100.7", "2001:db8::1"])), [Level::Ok]);
        expect(&case("udp:0.0.0.0:3478", &["127.0.0.1"]), Level::Warning, "loopback addresses only");
        expect(&case("udp:0.0.0.0:3478", &["198.51.100.1"]), Level::Notice, "no relay address of IPv6");

        let other = |change: fn(&mut Addresses), listen: &str| {
            let mut host = host();
            change(&mut host);
            judge(&host, &config(&[listen], BOTH))
        };
        expect(&other(|host| host.has_ipv6 = false, "udp:[::]:3478"), Level::Warning, "disable_ipv6=0");
        expect(&other(|host| host.has_ipv6 = false, "udp:0.0.0.0:3478"), Level::Notice, "IPv6 is switched off");
        let strict = |host: &mut Addresses| host.strict = vec!["eth0".to_owned(), "eth1".to_owned()];
        expect(&other(strict, "udp:0.0.0.0:3478"), Level::Notice, "eth0, eth1");
        let foreign = |host: &mut Addresses| host.may_be_foreign = [true, false];
        expect(&other(foreign, "udp:198.51.100.9:3478"), Level::Notice, "ip_nonlocal_bind");
    }
}
