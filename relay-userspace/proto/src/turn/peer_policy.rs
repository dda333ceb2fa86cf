//! Which peers may be reached (RFC 8656 sections 10.2, 11.2, 12.2 and 21.1.5): a relay is inside of the network, its
//! clients are not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net};

use super::config::RelayAddress;
use crate::address::PeerAddr;

/// What no peer is allowed to be unless the operator says so: addresses that mean this host, its own network, nobody,
/// or many, and the ranges that translate to IPv4.
const FORBIDDEN: [&str; 30] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001:2::/48",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Rules on peers' addresses.
///
/// Of all rules that an address matches, the one with the longest prefix decides. Of equally long ones, an operator's
/// rule beats a built-in one, and then a denial beats an allowance. What matches no rule is allowed.
///
/// Built-in rules are the reserved ranges, and the relay's own addresses, each as a range of one: nobody reaches the
/// host's own services through it. The exception is a relayed transport address of this relay, since two clients of
/// one relay talk through both of theirs: a port of the relay range at a public relay address is allowed like by a built-in
/// rule for this one address.
///
/// An IPv6 address that carries an IPv4 address (mapped, compatible, NAT64, 6to4) is allowed if both are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPolicy {
    /// In the order in which they are asked.
    rules: Vec<Rule>,
    relay_addresses: Vec<IpAddr>,
    relay_ports: RangeInclusive<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    net: IpNet,
    by_operator: bool,
    allow: bool,
}

impl Default for PeerPolicy {
    fn default() -> Self {
        #[allow(clippy::reversed_empty_ranges, reason = "no port is a relay port until there is a relay")]
        let mut policy = Self { rules: Vec::new(), relay_addresses: Vec::new(), relay_ports: 1..=0 };
        for net in FORBIDDEN {
            let net = net.parse().expect("the table holds networks");
            policy.add(Rule { net, by_operator: false, allow: false });
        }
        policy
    }
}

impl PeerPolicy {
    /// Allows peers in the name of the operator.
    pub fn allow(&mut self, net: IpNet) {
        self.add(Rule { net: canonical(net), by_operator: true, allow: true });
    }

    /// Forbids peers in the name of the operator.
    pub fn deny(&mut self, net: IpNet) {
        self.add(Rule { net: canonical(net), by_operator: true, allow: false });
    }

    /// Forbids one of the host's own addresses.
    ///
    /// Loopback addresses are forbidden as a range already, and are left to that rule: an operator who allows
    /// `127.0.0.0/8` has nothing else in mind.
    pub fn add_own_address(&mut self, ip: IpAddr) {
        let ip = ip.to_canonical();
        if !ip.is_loopback() {
            self.add(Rule { net: ip.into(), by_operator: false, allow: false });
        }
    }

    /// Says what relayed transport addresses of this relay look like: their public addresses, and their ports.
    ///
    /// Behind a 1:1 NAT no client has ever been told the address that is bound to. Whoever names it means the host and
    /// its services, so it is one of the host's own, of loopback too: all its ports are forbidden.
    pub fn set_relay(&mut self, addresses: &[RelayAddress], ports: RangeInclusive<u16>) {
        for RelayAddress { bind, public } in addresses {
            if bind.to_canonical() != public.to_canonical() {
                self.add(Rule { net: bind.to_canonical().into(), by_operator: false, allow: false });
            }
        }
        self.relay_addresses = addresses.iter().map(|address| address.public.to_canonical()).collect();
        self.relay_ports = ports;
    }

    /// Whether data may be sent to this peer.
    pub fn permits(&self, peer: PeerAddr) -> bool {
        self.decide(peer.ip(), Some(peer.port()))
    }

    /// Whether there is any port at this address that data may be sent to: what a permission needs, which has no port.
    pub fn permits_address(&self, ip: IpAddr) -> bool {
        self.decide(ip.to_canonical(), None)
    }

    /// Whether data may be sent to this peer for one reason only: that its port is one of relayed addresses. The host's own
    /// services may have such ports too, and are none of a client's business.
    pub fn permits_for_its_port(&self, peer: PeerAddr) -> bool {
        let is_forbidden = |rule: &Rule| !rule.allow;
        let rule = self.rules.iter().find(|rule| rule.net.contains(&peer.ip()));
        self.permits(peer) && rule.is_some_and(is_forbidden)
    }

    fn decide(&self, ip: IpAddr, port: Option<u16>) -> bool {
        let embedded = embedded_ipv4(ip).is_none_or(|ip| self.decide(ip.into(), port));
        embedded && self.decide_alone(ip, port)
    }

    fn decide_alone(&self, ip: IpAddr, port: Option<u16>) -> bool {
        let rule = self.rules.iter().find(|rule| rule.net.contains(&ip));
        let is_relayed = self.relay_addresses.contains(&ip)
            && port.map_or(!self.relay_ports.is_empty(), |port| self.relay_ports.contains(&port));
        match rule {
            Some(rule) if is_relayed => rule.allow || !(rule.by_operator && is_single(rule.net)),
            Some(rule) => rule.allow,
            None => true,
        }
    }

    fn add(&mut self, rule: Rule) {
        // The first rule that matches decides, so the order is that of precedence.
        let precedence = |rule: &Rule| (rule.net.prefix_len(), rule.by_operator, !rule.allow);
        let at = self.rules.partition_point(|other| precedence(other) >= precedence(&rule));
        self.rules.insert(at, rule);
    }
}

fn is_single(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// A network of IPv4-mapped addresses is the IPv4 network that it maps: that is how addresses are compared.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net.trunc() };
    match (v6.network().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(ip), Some(length)) => Ipv4Net::new(ip, length).map_or(net, IpNet::V4),
        _ => net.trunc(),
    }
}

/// The IPv4 address that a translator or tunnel would send to.
fn embedded_ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let last = Ipv4Addr::from_bits(ip.to_bits() as u32);
    match ip.segments() {
        // NAT64 (RFC 6052), IPv4-mapped and the deprecated IPv4-compatible addresses (RFC 4291).
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0, 0xffff, _, _] => Some(last),
        [0, 0, 0, 0, 0, 0, _, _] if ip != Ipv6Addr::UNSPECIFIED && ip != Ipv6Addr::LOCALHOST => Some(last),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: &str, port: u16) -> PeerAddr {
        PeerAddr::new((ip.parse::<IpAddr>().unwrap(), port).into())
    }

    fn permits(policy: &PeerPolicy, ip: &str) -> bool {
        let permitted = policy.permits(peer(ip, 5000));
        assert_eq!(policy.permits_address(ip.parse().unwrap()), permitted, "{ip}: no port is special");
        permitted
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn reserved_ranges_are_forbidden_and_the_internet_is_allowed() {
        let policy = PeerPolicy::default();
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "::10.0.0.1",
        ] {
            assert!(!permits(&policy, ip), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:4860:4860::8888",
            "2001:3::1",
            "2001:db7:ffff::1",
            "2a00::1",
            "64:ff9a::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(permits(&policy, ip), "{ip}");
        }
    }

    #[test]
    fn the_most_specific_rule_decides_in_whatever_order_they_were_given() {
        let rules = [(true, "10.1.0.0/16"), (false, "10.1.2.0/24"), (true, "10.1.2.3/32"), (false, "8.0.0.0/8")];
        for rotation in 0..rules.len() {
            let mut policy = PeerPolicy::default();
            for (allow, text) in rules.iter().cycle().skip(rotation).take(rules.len()) {
                if *allow { policy.allow(net(text)) } else { policy.deny(net(text)) }
            }
            let permitted = ["10.0.0.1", "10.1.0.1", "10.1.2.1", "10.1.2.3", "8.8.8.8"].map(|ip| permits(&policy, ip));
            assert_eq!(permitted, [false, true, false, true, false], "rotated by {rotation}");
        }
    }

    #[test]
    fn of_equal_rules_the_operators_beats_the_built_in_and_denial_beats_allowance() {
        let mut policy = PeerPolicy::default();
        policy.allow(net("192.168.0.0/16"));
        assert!(permits(&policy, "192.168.1.1"));
        policy.deny(net("192.168.0.0/16"));
        assert!(!permits(&policy, "192.168.1.1"));
    }

    #[test]
    fn a_host_bit_in_a_rule_does_no_harm() {
        let mut policy = PeerPolicy::default();
        policy.allow(net("192.168.7.9/16"));
        assert!(permits(&policy, "192.168.1.1"));
    }

    #[test]
    fn an_address_inside_of_an_address_is_checked_too() {
        let mut policy = PeerPolicy::default();
        policy.allow(net("64:ff9b::/96"));
        policy.allow(net("2002::/16"));
        assert!(permits(&policy, "64:ff9b::808:808") && permits(&policy, "2002:808:808::1"));
        for ip in ["64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::1", "2002:a00:1::1", "2002:a9fe:a9fe::"] {
            assert!(!permits(&policy, ip), "{ip}");
        }
    }

    #[test]
    fn a_rule_on_mapped_addresses_is_one_on_ipv4() {
        let mut policy = PeerPolicy::default();
        policy.deny(net("::ffff:8.8.8.0/120"));
        assert!(!permits(&policy, "8.8.8.8"));
        assert!(permits(&policy, "8.8.4.4"));
    }

    #[test]
    fn own_addresses_are_forbidden_unless_exactly_they_are_allowed() {
        let mut policy = PeerPolicy::default();
        policy.add_own_address("8.8.8.8".parse().unwrap());
        policy.allow(net("8.8.8.0/24"));
        assert!(!permits(&policy, "8.8.8.8"));
        assert!(permits(&policy, "8.8.8.9"));
        policy.allow(net("8.8.8.8/32"));
        assert!(permits(&policy, "8.8.8.8"));
    }

    #[test]
    fn loopback_is_forbidden_as_a_range_that_the_operator_may_allow() {
        let mut policy = PeerPolicy::default();
        policy.add_own_address("127.0.0.1".parse().unwrap());
        policy.add_own_address("::1".parse().unwrap());
        assert!(!permits(&policy, "127.0.0.1") && !permits(&policy, "::1"));
        policy.allow(net("127.0.0.0/8"));
        policy.allow(net("::1/128"));
        assert!(permits(&policy, "127.0.0.1") && permits(&policy, "::1"));
    }

    #[test]
    fn relayed_addresses_of_this_relay_are_peers_but_its_other_ports_are_not() {
        let mut policy = PeerPolicy::default();
        let relay = "10.0.0.5".parse().unwrap();
        policy.add_own_address(relay);
        policy.set_relay(&[RelayAddress { bind: relay, public: relay }], 49_152..=65_535);
        assert!(policy.permits(peer("10.0.0.5", 49_152)));
        assert!(!policy.permits(peer("10.0.0.5", 22)) && !policy.permits(peer("10.0.0.5", 3478)));
        assert!(!policy.permits(peer("10.0.0.6", 49_152)));
        assert!(policy.permits_address(relay), "a permission has no port");
        policy.deny(net("10.0.0.0/8"));
        assert!(policy.permits(peer("10.0.0.5", 49_152)), "a wider rule does not mean it");
        policy.deny(net("10.0.0.5/32"));
        assert!(!policy.permits(peer("10.0.0.5", 49_152)) && !policy.permits_address(relay));
    }

    #[test]
    fn a_relayed_address_is_permitted_for_its_port_unless_the_operator_allows_the_host() {
        let address = RelayAddress::from("198.51.100.7".parse::<IpAddr>().unwrap());
        let mut policy = PeerPolicy::default();
        policy.add_own_address(address.bind);
        policy.set_relay(&[address], 50_000..=50_010);
        assert!(policy.permits_for_its_port(peer("198.51.100.7", 50_000)));
        assert!(!policy.permits_for_its_port(peer("198.51.100.7", 22)), "it is not permitted at all");
        assert!(!policy.permits_for_its_port(peer("8.8.8.8", 50_000)), "it is permitted as anybody is");
        policy.allow("198.51.100.7/32".parse().unwrap());
        assert!(!policy.permits_for_its_port(peer("198.51.100.7", 50_000)));
    }

    #[test]
    fn behind_a_nat_relayed_addresses_are_public_and_what_they_are_bound_to_is_the_hosts_own() {
        let mut policy = PeerPolicy::default();
        let [private, public] = ["10.0.0.5", "8.8.8.8"].map(|ip| ip.parse().unwrap());
        let loopback = RelayAddress { bind: "127.0.0.1".parse().unwrap(), public: "8.8.4.4".parse().unwrap() };
        policy.allow(net("10.0.0.0/8"));
        policy.allow(net("127.0.0.0/8"));
        policy.add_own_address(public);
        policy.set_relay(&[RelayAddress { bind: private, public }, loopback], 49_152..=65_535);
        assert!(policy.permits(peer("8.8.8.8", 49_152)) && policy.permits_address(public));
        assert!(!policy.permits(peer("8.8.8.8", 22)));
        for (ip, port) in [("10.0.0.5", 49_152), ("10.0.0.5", 22), ("::ffff:10.0.0.5", 49_152), ("127.0.0.1", 49_152)] {
            assert!(!policy.permits(peer(ip, port)), "{ip} {port}");
            assert!(!policy.permits_address(ip.parse().unwrap()), "{ip}");
        }
        assert!(policy.permits(peer("10.0.0.6", 22)) && policy.permits(peer("127.0.0.2", 22)));
        policy.allow(net("10.0.0.5/32"));
        assert!(policy.permits(peer("10.0.0.5", 22)), "an operator may open the host");
    }
}
