//! Whether there is a firewall: what it says is not judged, but the way of packets past it is not what people expect.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Finding, Findings, read, wants_xdp};
use crate::config::Config;

/// What there is to know.
#[derive(Clone, Debug, Default)]
struct Firewall {
    /// Chains of nftables that packets of others meet: to this host, or before it is clear for whom they are.
    chains: usize,
    /// Tables of the older iptables.
    old_tables: usize,
    ufw: bool,
    firewalld: bool,
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    judge(&Firewall::read(), config, wants_xdp(config))
}

impl Firewall {
    fn read() -> Self {
        // It asks the kernel by netlink. A host without it has no rules of it, or nobody who looks at them.
        let mut nft = Command::new("nft");
        let listed = nft.args(["-s", "list", "ruleset"]).stdin(Stdio::null()).stderr(Stdio::null()).output();
        let rules = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        Self {
            chains: chains(&rules),
            old_tables: read::text("/proc/self/net/ip_tables_names").map_or(0, |names| names.lines().count()),
            ufw: read::text("/etc/ufw/ufw.conf")
                .is_some_and(|text| text.lines().any(|line| line.trim() == "ENABLED=yes")),
            firewalld: Path::new("/run/firewalld").is_dir(),
        }
    }
}

/// How many chains of a ruleset packets from outside meet.
fn chains(rules: &str) -> usize {
    let hooks = ["hook ingress", "hook prerouting", "hook input"];
    rules.lines().filter(|line| hooks.iter().any(|hook| line.contains(hook))).count()
}

fn judge(firewall: &Firewall, config: &Config, is_in_kernel: bool) -> Vec<Finding> {
    let Firewall { chains, old_tables, ufw, firewalld } = firewall;
    let mut findings = Findings::about("firewall");
    let mut found = Vec::new();
    if *chains > 0 {
        found.push(format!("nftables ({chains} chains)"));
    }
    if *old_tables > 0 {
        found.push(format!("iptables ({old_tables} tables)"));
    }
    found.extend(ufw.then(|| "ufw".to_owned()));
    found.extend(firewalld.then(|| "firewalld".to_owned()));
    if !found.is_empty() {
        let mut ports: Vec<String> = Vec::new();
        for listener in &config.listeners {
            let kind = if listener.transport.is_stream() { "tcp" } else { "udp" };
            let port = format!("{kind} {}", listener.address.port());
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        let order =
            if is_in_kernel { "; XDP comes before them: what it forwards meets none of their rules" } else { "" };
        findings.notice(
            format!("there are rules: {}{order}", found.join(", ")),
            format!("they must let {} and udp {} in", ports.join(", "), config.relay_ports),
        );
    }
    findings.or_ok("none was found on this host; the provider's may still be in the way")
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::super::{Level, expect, levels};
    use super::*;

    const RULES: &str = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t\tct \
                         state established accept\n\t}\n\tchain output {\n\t\ttype filter hook output priority filter;\n\t}\n}\n";

    #[test]
    fn rules_are_told_with_the_ports_that_must_be_open() {
        let config = config(&["udp:0.0.0.0:3478", "tcp:0.0.0.0:443"], &["198.51.100.1"]);
        assert_eq!(levels(&judge(&Firewall::default(), &config, true)), [Level::Ok]);
        assert_eq!(chains(RULES), 1, "what leaves is not looked at");
        let findings = judge(&Firewall { chains: 1, ..Firewall::default() }, &config, true);
        expect(&findings, Level::Notice, "udp 3478, tcp 443 and udp 49152-65535");
        expect(&findings, Level::Notice, "XDP comes before them");
        let ufw = judge(&Firewall { ufw: true, ..Firewall::default() }, &config, false);
        assert!(ufw[0].text.contains("ufw") && !ufw[0].text.contains("XDP"), "{ufw:?}");
    }
}
