//! A home: a host behind a NAT, which is a client's or a peer's host in the lab.

use super::namespace::{Namespace, set};
use super::process;
use super::server::is_installed;

/// The same in every home.
const NETWORK: &str = "192.168.7";
/// Who goes out gets the outer address of the NAT, and a port of its choice.
const RULES: [&str; 3] = [
    "add table ip home",
    "add chain ip home out { type nat hook postrouting priority 100; }",
    "add rule ip home out oifname eth0 masquerade fully-random",
];

/// Whether NATs can be made here, so that a test can say why it is skipped.
///
/// # Panics
/// When they cannot, and everything has to be there.
pub fn is_possible() -> bool {
    is_installed("nft")
}

/// A host behind another one, with IPv4 only, as most homes.
pub fn behind(nat: &Namespace) -> Namespace {
    let home = Namespace::new("home");
    nat.enter(|| {
        set("net/ipv4/ip_forward", "1");
        // One address can take another's place.
        set("net/ipv4/conf/all/promote_secondaries", "1");
    });
    nat.ip(&format!(
        "link add home type veth peer name eth0 netns {}
         addr add {NETWORK}.1/24 dev home
         link set home up",
        home.name()
    ));
    home.ip(&format!(
        "addr add {NETWORK}.2/24 dev eth0
         link set eth0 up
         route add default via {NETWORK}.1"
    ));
    // As in the rest of the lab: a real wire carries finished packets.
    for (namespace, link) in [(nat, "home"), (&home, "eth0")] {
        process::run(namespace.command("ethtool").args(["-K", link, "tx", "off"])).expect_success();
    }
    for rule in RULES {
        process::run(nat.command("nft").args(rule.split_whitespace())).expect_success();
    }
    home
}

/// Gives a NAT another outer address: what it has translated so far is forgotten.
pub fn change_address(nat: &Namespace, from: &str, to: &str, gateway: &str) {
    nat.ip(&format!(
        "addr add {to}/24 dev eth0
         addr del {from}/24 dev eth0
         route replace default via {gateway}"
    ));
}
