//! `hairpin check` on hosts that have something broken on purpose, and on one that has not.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use hairpin_tests::lab::process::{Finished, run};
use hairpin_tests::lab::relay::binary;
use hairpin_tests::lab::{Authority, Family, Folder, Key, Lab, Namespace, Relay};
use serde_json::Value;

const USER: [&str; 4] = ["--user", "alice:in-a-lab", "--admin-socket", "off"];
/// A relay that nothing keeps from starting in any namespace.
const SOUND: [&str; 6] = ["--listen", "127.0.0.1:3478", "--relay-address", "127.0.0.1", "--xdp", "off"];

fn check(host: &Namespace, options: &[&[&str]]) -> Finished {
    run(host.command(binary()).arg("check").args(USER).args(options.concat()))
}

/// Expects an exit code, and a line of a level with these words in it or in the advice below.
#[track_caller]
fn expect(finished: &Finished, code: i32, level: &str, words: &str) {
    assert_eq!(finished.code(), Some(code), "{finished}");
    let lines: Vec<_> = finished.stdout.lines().collect();
    let advice = |at: usize| lines.get(at + 1).filter(|line| line.starts_with("    ")).copied().unwrap_or_default();
    let is_it = |at: usize| lines[at].starts_with(level) && format!("{} {}", lines[at], advice(at)).contains(words);
    assert!((0..lines.len()).any(is_it), "{level} with `{words}` is missing: {finished}");
}

/// A host with an address, at one end of a cable.
fn host() -> Namespace {
    let host = Namespace::new("check");
    host.ip("link add eth0 type veth peer name far0
             addr add 198.51.100.1/24 dev eth0
             link set eth0 up
             link set far0 up
             route add default via 198.51.100.254");
    host
}

fn set(host: &Namespace, parameter: &str, value: &str) {
    host.enter(|| fs::write(format!("/proc/sys/{parameter}"), value).expect("the namespace has it"));
}

#[test]
fn a_sound_relay_would_start_and_nothing_is_left_open() {
    let host = host();
    let finished = check(&host, &[&SOUND]);
    expect(&finished, 0, "ok", "sockets: all 3 can be opened");
    assert!(finished.stdout.ends_with("notices\n") && finished.stdout.contains("the relay would start: 0 errors"));
    assert_eq!(host.udp_sockets(3478), 0);
}

#[test]
fn scripts_get_json() {
    let host = host();
    let parse = |finished: &Finished| -> Value { serde_json::from_str(&finished.stdout).expect("JSON") };
    let finished = check(&host, &[&SOUND, &["--json"]]);
    let report = parse(&finished);
    assert_eq!((finished.code(), report["starts"].as_bool()), (Some(0), Some(true)), "{finished}");
    let levels: Vec<_> = report["findings"].as_array().expect("a list").iter().map(|it| it["level"].as_str()).collect();
    assert!(levels.contains(&Some("ok")) && !levels.contains(&Some("error")), "{finished}");
    let finished = check(&host, &[&["--json", "--listen", "nowhere"]]);
    let report = parse(&finished);
    assert_eq!((finished.code(), report["starts"].as_bool()), (Some(2), Some(false)), "{finished}");
    assert!(report["problems"][0].as_str().is_some_and(|problem| problem.contains("--listen")), "{finished}");
}

#[test]
fn a_wrong_configuration_is_told_as_serve_tells_it() {
    let host = host();
    check(&host, &[&SOUND, &["--relay-ports", "10-9"]]).expect_one_line(2, &["--relay-ports"]);
    check(&host, &[&SOUND, &["--config", "/nowhere.toml"]]).expect_one_line(2, &["/nowhere.toml"]);
}

#[test]
fn an_address_that_the_host_has_not_keeps_it_from_starting() {
    let host = host();
    let missing = check(&host, &[&["--xdp", "off", "--listen", "198.51.100.7:3478"]]);
    expect(&missing, 1, "error", "--listen: no interface has 198.51.100.7");
    let relay = check(&host, &[&["--xdp", "off", "--listen", "198.51.100.1:3478", "--relay-address", "198.51.100.7"]]);
    expect(&relay, 1, "error", "--relay-address: no interface has 198.51.100.7");
    host.ip("addr add 10.0.0.1/24 dev eth0");
    let private = check(&host, &[&["--xdp", "off", "--listen", "10.0.0.1:3478"]]);
    expect(&private, 0, "warning", "10.0.0.1=PUBLIC-IP");
    set(&host, "net/ipv6/conf/all/disable_ipv6", "1");
    expect(&check(&host, &[&SOUND]), 0, "notice", "IPv6 is switched off");
}

#[test]
fn whoever_has_a_port_is_named() {
    let host = host();
    let socket = host.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 3478)).expect("it is free"));
    let own = fs::read_to_string("/proc/self/comm").expect("a process has a name");
    expect(&check(&host, &[&SOUND]), 1, "error", &format!("in use by {} (process {}", own.trim(), std::process::id()));
    drop(socket);
    let relay = Relay::start(&host, &[&SOUND[..], &["--admin-socket", "off"]].concat());
    expect(&check(&host, &[&SOUND]), 0, "notice", "a relay is running");
    relay.stop();
}

#[test]
fn certificates_that_do_not_match_or_are_over_are_told() {
    let host = host();
    let authority = Authority::new();
    let [one, other] = ["one.test", "other.test"].map(|name| authority.issue(Key::Ecdsa, name, &[]));
    let tls = ["--listen", "tls:127.0.0.1:5349", "--relay-address", "127.0.0.1", "--xdp", "off"];
    let with = |certificate: &Path, key: &Path| {
        let files =
            ["--certificate", certificate.to_str().expect("it is"), "--private-key", key.to_str().expect("it is")];
        check(&host, &[&tls, &files])
    };
    expect(&with(&one.file, &one.private_key), 0, "ok", ".pem is valid for ");
    expect(&with(&one.file, &other.private_key), 1, "error", "not the key of the first certificate");
    expect(&with(Path::new("/nowhere.pem"), &one.private_key), 1, "error", "/nowhere.pem");
    fs::set_permissions(&one.private_key, fs::Permissions::from_mode(0o644)).expect("it is ours");
    expect(&with(&one.file, &one.private_key), 0, "warning", "can be read by other users");
    let folder = Folder::new("check");
    let [old, key, request, names] = ["old.pem", "old.key", "old.csr", "names"].map(|name| folder.path().join(name));
    fs::write(&names, "subjectAltName=DNS:old.test\n").expect("the folder is ours");
    let mut command = Command::new("openssl");
    command.args(["req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=old"]);
    run(command.arg("-out").arg(&request).arg("-keyout").arg(&key)).expect_success();
    let mut command = Command::new("openssl");
    command.args(["x509", "-req", "-days", "-1", "-in"]).arg(&request).arg("-signkey").arg(&key);
    run(command.arg("-extfile").arg(&names).arg("-out").arg(&old)).expect_success();
    expect(&with(&old, &key), 0, "warning", "has expired");
}

#[test]
fn interfaces_that_cannot_forward_are_told() {
    let host = host();
    let serves = ["--listen", "198.51.100.1:3478"];
    expect(&check(&host, &[&serves]), 0, "warning", "eth0 is an end of a virtual cable");
    expect(&check(&host, &[&serves, &["--interface", "wan7"]]), 1, "error", "wan7");
    host.ip("link set eth0 mtu 9000");
    expect(&check(&host, &[&serves, &["--xdp", "generic"]]), 0, "ok", "generic XDP, MTU 9000");
    host.ip("link add bridge0 type bridge
             link set bridge0 up
             link add eth1 type veth peer name far1");
    expect(&check(&host, &[&serves, &["--interface", "bridge0"]]), 0, "warning", "is a bridge");
    expect(&check(&host, &[&serves, &["--interface", "eth1"]]), 0, "warning", "eth1 is down");
    host.ip("link set eth0 down
             addr flush dev eth0
             addr add 198.51.100.1/24 dev lo");
    expect(&check(&host, &[&serves]), 0, "warning", "no default route");
}

#[test]
fn without_capabilities_there_is_no_kernel_path() {
    let host = host();
    let bare = |mode: &str| {
        let mut command = host.command("setpriv");
        command.args(["--bounding-set", "-all", "--inh-caps", "-all"]).arg(binary()).arg("check").args(USER);
        run(command.args(["--listen", "198.51.100.1:3478", "--xdp", mode]))
    };
    expect(&bare("generic"), 1, "error", "CAP_BPF and CAP_PERFMON and CAP_NET_ADMIN missing");
    expect(&bare("auto"), 0, "warning", "CAP_BPF");
    expect(&bare("off"), 0, "ok", "--xdp is off");
}

#[test]
fn ports_places_and_firewalls_are_looked_at() {
    let host = host();
    set(&host, "net/ipv4/ip_local_port_range", "32768 60999");
    expect(&check(&host, &[&SOUND]), 0, "notice", "net.ipv4.ip_local_reserved_ports=49152-65535");
    set(&host, "net/ipv4/ip_local_reserved_ports", "49152-65535");
    expect(&check(&host, &[&SOUND]), 0, "ok", "which nobody else is given");

    let folder = Folder::new("check");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("the folder is ours");
    let mut command = host.command(binary());
    command.args(["check", "--user", "a:b"]).args(SOUND).arg("--admin-socket").arg(&file);
    expect(&run(&mut command), 1, "error", "is not a socket");

    let rules = "table inet filter {\nchain input { type filter hook input priority 0; }\n}\n";
    fs::write(&file, rules).expect("the folder is ours");
    if Command::new("nft").arg("--version").output().is_ok() {
        run(host.command("nft").arg("-f").arg(&file)).expect_success();
        expect(&check(&host, &[&SOUND]), 0, "notice", "nftables (1 chains)");
    } else {
        eprintln!("rules are not looked at: nft (of nftables) is not installed");
    }
}

#[test]
fn looking_sends_nothing() {
    let lab = Lab::routed();
    // What the kernel sends by itself, to find its neighbours, is not counted there.
    let sent = || {
        lab.relay.enter(|| {
            let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).expect("the kernel counts");
            let tables = read("snmp") + &read("snmp6");
            let of_sockets = ["Tcp: ", "Udp: ", "Udp6OutDatagrams"];
            let lines = tables.lines().filter(|line| of_sockets.iter().any(|name| line.starts_with(name)));
            lines.collect::<Vec<_>>().join("\n")
        })
    };
    let before = sent();
    let address = format!("{}:3478", Lab::relay_ip(Family::V4));
    let finished = check(&lab.relay, &[&["--listen", &address]]);
    assert_eq!(finished.code(), Some(0), "{finished}");
    assert_eq!(sent(), before);
}

#[test]
fn user_stores_are_asked_whether_they_are_there() {
    let host = host();
    let finished = check(&host, &[&SOUND]);
    expect(&finished, 0, "ok", "users: who may relay in realm hairpin is known");
    let nobody = ["--user-store", "redis://127.0.0.1:6379/0", "--user-timeout", "500ms"];
    let finished = check(&host, &[&SOUND, &nobody]);
    expect(&finished, 0, "warning", "users: redis");
    let folder = Folder::new("check");
    let database = folder.path().join("turndb");
    let made = Command::new("turnadmin").args(["-a", "-u", "a", "-r", "r", "-p", "p", "-b"]).arg(&database).output();
    assert!(made.is_ok_and(|made| made.status.success()));
    let url = format!("sqlite://{}", database.display());
    let finished = check(&host, &[&SOUND, &["--user-store", &url]]);
    expect(&finished, 0, "ok", "turndb answers");
}

#[test]
fn the_example_of_two_tenants_would_start_once_its_secrets_are_for_nobody_else() {
    let host = host();
    let folder = Folder::new("realms");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/realms");
    let copy = |mode| {
        for entry in fs::read_dir(&example).expect("the example is there") {
            let entry = entry.expect("it can be read");
            let to = folder.path().join(entry.file_name());
            fs::copy(entry.path(), &to).expect("the folder is ours");
            fs::set_permissions(&to, fs::Permissions::from_mode(mode)).expect("it is ours");
        }
    };
    let check = || {
        let mut command = host.command(binary());
        run(command.args(["check", "--config", "hairpin.toml", "--admin-socket", "off"]).current_dir(folder.path()))
    };
    copy(0o644);
    let finished = check();
    assert_ne!(finished.code(), Some(0), "{finished}");
    copy(0o600);
    let finished = check();
    assert!(finished.stdout.contains("the relay would start: 0 errors"), "{finished}");
    expect(&finished, 0, "ok", "sockets: all 7 can be opened");
}
