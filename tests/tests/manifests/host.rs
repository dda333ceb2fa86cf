//! Kernel parameters and firewall of a host that relays.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use hairpin_tests::lab::process::{Finished, run};
use hairpin_tests::lab::relay::{PORT, binary};
use hairpin_tests::lab::{Call, Family, Folder, Lab, Namespace, Relay, server};

use crate::{read, repository};

const PARAMETERS: &str = "deploy/sysctl/90-hairpin.conf";
const FIREWALL: &str = "deploy/nftables/hairpin.nft";
/// Where the firewall keeps everybody out but operators.
const ADMIN: u16 = 9641;

/// The parameters, those included that are off.
fn parameters() -> Vec<(String, String)> {
    let text = read(PARAMETERS);
    let lines = text.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
    let pairs = lines.filter_map(|line| line.split_once(" = "));
    let pairs = pairs.filter(|(name, _)| name.contains('.') && !name.contains(' '));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_kernel_has_every_parameter() {
    if !server::is_installed("nft") {
        return;
    }
    let parameters = parameters();
    assert!(parameters.len() >= 10, "{parameters:?}");
    // The table of connections has some only once there is one.
    let host = Namespace::new("sysctl");
    load(&host, &repository(FIREWALL));
    for (name, value) in parameters {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        assert!(fs::exists(&path).expect("its folder can be read"), "{path}");
        let is_range = value.split('-').all(|number| number.parse::<u64>().is_ok());
        assert!(is_range, "{name} = {value}");
    }
}

#[test]
fn with_them_a_check_has_nothing_to_say_of_ports_and_buffers() {
    if !server::is_installed("sysctl") {
        return;
    }
    let host = Namespace::new("sysctl");
    let check = || -> Finished {
        let mut command = host.command(binary());
        command.args(["check", "--user", "a:b", "--admin-socket", "off", "--xdp", "off"]);
        run(command.args(["--listen", "127.0.0.1:3478", "--relay-address", "127.0.0.1"]))
    };
    let words = "net.ipv4.ip_local_reserved_ports=49152-65535";
    let before = check();
    assert!(before.stdout.contains(words), "{before}");
    // Of a namespace's own; the others would be the whole host's.
    let text = read(PARAMETERS);
    let own: Vec<_> = text.lines().filter(|line| line.starts_with("net.ipv4.")).collect();
    let folder = Folder::new("sysctl");
    let file = folder.path().join("90-hairpin.conf");
    fs::write(&file, own.join("\n")).expect("the folder is ours");
    run(host.command("sysctl").arg("--load").arg(&file)).expect_success();
    let after = check();
    assert!(!after.stdout.contains("ip_local_reserved_ports"), "{after}");
    // What a check wants of buffers is what the file gives.
    let source = read("relay-userspace/src/check/room.rs");
    assert!(source.contains("LISTENER_BUFFER: u64 = 4 << 20;"));
    for name in ["net.core.rmem_max", "net.core.wmem_max"] {
        assert!(parameters().contains(&(name.to_owned(), (4 << 20).to_string())), "{name}");
    }
}

#[test]
fn the_firewall_opens_and_closes_what_it_should() {
    if !server::is_installed("nft") {
        return;
    }
    for (xdp, path) in [("off", "userspace"), ("native", "kernel")] {
        let lab = Lab::routed();
        let relay = Relay::start(&lab.relay, &["--xdp", xdp, "--admin", "0.0.0.0:9641"]);
        let [clients, admin] = [PORT, ADMIN].map(|port| SocketAddr::new(Lab::relay_ip(Family::V4), port));
        assert!(reaches(&lab.clients[0], admin), "nothing closes it before");
        load(&lab.relay, &repository(FIREWALL));
        // A second time replaces it.
        load(&lab.relay, &repository(FIREWALL));

        assert!(!reaches(&lab.clients[0], admin), "metrics are not everybody's");
        assert!(reaches(&lab.relay, SocketAddr::new(IpAddr::from([127, 0, 0, 1]), ADMIN)));
        assert!(reaches(&lab.clients[0], clients), "clients over TCP get in");
        for (calls, family) in (0..).zip(Family::ALL) {
            let call = Call::new(&lab, family);
            let flows = (calls + 1) * Call::FLOWS;
            if xdp == "native" {
                relay.wait_for("it is in the kernel", |metrics| metrics.sum("hairpin_flows", &[]) == flows);
            }
            call.exchange(b"behind a firewall");
        }
        assert_eq!(relay.metrics().relayed(path), 4, "{:#?}", relay.metrics());
        assert_eq!(tracked(&lab.relay), 0, "nothing of UDP is tracked");
        relay.stop();
    }
}

#[test]
fn without_its_rules_relayed_packets_are_tracked() {
    if !server::is_installed("nft") {
        return;
    }
    let lab = Lab::routed();
    let folder = Folder::new("nftables");
    let file = folder.path().join("hairpin.nft");
    fs::write(&file, read(FIREWALL).replace(" notrack\n", " accept\n")).expect("the folder is ours");
    let relay = Relay::start(&lab.relay, &["--xdp", "off"]);
    load(&lab.relay, &file);
    Call::new(&lab, Family::V4).exchange(b"tracked");
    assert_ne!(tracked(&lab.relay), 0);
    relay.stop();
}

#[test]
fn the_firewall_leaves_the_tables_of_others() {
    if !server::is_installed("nft") {
        return;
    }
    let host = Namespace::new("nftables");
    run(host.command("nft").args(["add", "table", "ip", "other"])).expect_success();
    load(&host, &repository(FIREWALL));
    let tables = run(host.command("nft").args(["list", "tables"])).expect_success();
    assert!(tables.contains("table ip other") && tables.contains("table inet hairpin"), "{tables}");
}

fn load(host: &Namespace, rules: &Path) {
    run(host.command("nft").arg("--file").arg(rules)).expect_success();
}

/// How many flows of UDP the kernel has an entry for.
fn tracked(host: &Namespace) -> u64 {
    let counted = run(host.command("grep").args(["--count", "udp", "/proc/net/nf_conntrack"]));
    counted.stdout.trim().parse().unwrap_or_else(|error| panic!("{error}: {counted}"))
}

/// Whether a connection comes to be. What a firewall drops takes as long as we wait.
fn reaches(from: &Namespace, address: SocketAddr) -> bool {
    from.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok())
}
