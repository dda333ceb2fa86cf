//! Peers that coturn allows or denies, as networks.
//!
//! To coturn an allowance always beats a denial; here the longer prefix wins, and of equal ones the denial. Networks of two
//! lists are the same, one inside of the other, or apart. So the denials that lie inside of an allowance are left out, and
//! everything else means the same.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use super::line::Line;
use super::meaning::{At, Range};

/// `IP` or `IP-IP`, as coturn has it, or `IP/LENGTH`, which it takes no notice of.
pub(super) fn range(line: &Line<'_>) -> Result<Range, String> {
    let text = line.trimmed();
    let wrong = || format!("`{text}` is neither an address nor a range such as 10.0.0.0-10.255.255.255");
    let ip = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(net.network()..=net.broadcast());
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (ip(first)?, ip(last)?),
        None => (ip(text)?, ip(text)?),
    };
    if first.is_ipv4() != last.is_ipv4() || first > last { Err(wrong()) } else { Ok(first..=last) }
}

/// The fewest networks that are this range.
pub(super) fn networks(range: &Range) -> Vec<IpNet> {
    match (*range.start(), *range.end()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect(),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect(),
        _ => Vec::new(),
    }
}

/// Both lists of networks, and the lines of denials that an allowance makes void, at least in part.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) allowed: Vec<IpNet>,
    pub(super) denied: Vec<IpNet>,
    pub(super) void: Vec<usize>,
}

/// What both lists mean here.
pub(super) fn rules(allowed: &[At<Range>], denied: &[At<Range>]) -> Rules {
    let mut rules = Rules::default();
    for net in allowed.iter().flat_map(|at| networks(&at.value)) {
        if !rules.allowed.contains(&net) {
            rules.allowed.push(net);
        }
    }
    for At { line, value } in denied {
        for net in networks(value) {
            if rules.allowed.iter().any(|allowed| allowed.contains(&net)) {
                rules.void.push(*line);
            } else if !rules.denied.contains(&net) {
                rules.denied.push(net);
            }
        }
    }
    rules.void.dedup();
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<Range, String> {
        range(&Line { number: 1, name: "denied-peer-ip", value })
    }

    fn of(value: &str) -> Vec<String> {
        networks(&parse(value).unwrap()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_range_becomes_the_networks_that_it_is_made_of() {
        assert_eq!(of("10.0.0.0-10.255.255.255"), ["10.0.0.0/8"]);
        assert_eq!(of("192.0.2.5 - 192.0.2.9"), ["192.0.2.5/32", "192.0.2.6/31", "192.0.2.8/31"]);
        assert_eq!(of("192.0.2.5"), ["192.0.2.5/32"]);
        assert_eq!(of("172.16.0.0/12"), ["172.16.0.0/12"]);
        assert_eq!(of("0.0.0.0-255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(of("::1"), ["::1/128"]);
        assert_eq!(of("fe80::-febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["fe80::/10"]);
        for bad in ["", "host", "10.0.0.2-10.0.0.1", "10.0.0.1-::1", "10.0.0.0/33", "10.0.0.1-"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_allowance_beats_a_denial_however_wide_it_is() {
        let at = |line, text: &str| At { line, value: parse(text).unwrap() };
        let allowed = [at(1, "10.0.0.1"), at(2, "192.168.0.0-192.168.255.255")];
        let denied = [at(3, "10.0.0.0-10.255.255.255"), at(4, "192.168.7.0-192.168.7.255"), at(5, "10.0.0.1")];
        let rules = rules(&allowed, &denied);
        let text = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&rules.allowed), ["10.0.0.1/32", "192.168.0.0/16"]);
        assert_eq!(text(&rules.denied), ["10.0.0.0/8"]);
        assert_eq!(rules.void, [4, 5]);
    }
}
