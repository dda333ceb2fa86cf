//! The relay ports, and who else takes ports of that range.

use std::ops::RangeInclusive;

use super::sockets::bound;
use super::{Finding, Findings, read};
use crate::config::{Config, PortRange};

/// What there is to know.
#[derive(Clone, Debug)]
struct Ports {
    relay: PortRange,
    /// The ports that the kernel gives to who asks for none.
    local: RangeInclusive<u16>,
    /// Those that it does not give away although they are among them.
    reserved: Vec<RangeInclusive<u16>>,
    /// Relay ports that sockets have now.
    taken: usize,
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let range = read::sysctl("net/ipv4/ip_local_port_range").and_then(|text| local(&text));
    let Some(local) = range else { return Vec::new() };
    let reserved = reserved(&read::sysctl("net/ipv4/ip_local_reserved_ports").unwrap_or_default());
    let relay = config.relay_ports;
    let taken =
        bound().iter().filter(|bound| !bound.is_stream && relay.range().contains(&bound.address.port())).count();
    judge(&Ports { relay, local, reserved, taken })
}

/// Two numbers with a blank between them.
fn local(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

/// `3478,49152-65535`.
fn reserved(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).collect()
}

fn judge(ports: &Ports) -> Vec<Finding> {
    let Ports { relay, local, reserved, taken } = ports;
    let mut findings = Findings::about("ports");
    let is_given_away = |port: &u16| local.contains(port) && !reserved.iter().any(|reserved| reserved.contains(port));
    let shared = relay.range().filter(is_given_away).count();
    if shared > 0 {
        let all = relay.count();
        findings.notice(
            format!(
                "{shared} of {all} relay ports ({relay}) are also given to other programs ({}-{})",
                local.start(),
                local.end()
            ),
            format!("the relay takes others then; to have them all: sysctl net.ipv4.ip_local_reserved_ports={relay}"),
        );
    }
    // Some are always in use, by resolvers for one.
    if *taken * 10 > relay.count() {
        findings.notice(format!("{taken} relay ports are in use now"), "`ss -nup` says by whom");
    }
    findings.or_ok(format!("relay ports {relay}, which nobody else is given"))
}

#[cfg(test)]
mod tests {
    use super::super::{Level, expect, levels};
    use super::*;

    fn ports(reserved_ports: &str, taken: usize) -> Ports {
        Ports {
            relay: PortRange::DYNAMIC,
            local: local("32768\t60999").unwrap(),
            reserved: reserved(reserved_ports),
            taken,
        }
    }

    #[test]
    fn ports_that_the_kernel_gives_away_are_told_unless_they_are_reserved() {
        expect(&judge(&ports("", 0)), Level::Notice, "11848 of 16384 relay ports");
        expect(&judge(&ports("3478,50000", 0)), Level::Notice, "11847 of");
        assert_eq!(levels(&judge(&ports("49152-65535", 3))), [Level::Ok]);
        expect(&judge(&ports("49152-65535", 5000)), Level::Notice, "5000 relay ports are in use");
    }
}
