//! The command line: what is refused and how, what is kept over restarts, what is printed to be pasted.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hairpin_tests::lab::process::{Finished, run, run_for};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER, binary};
use hairpin_tests::lab::turn::{Client, Refused};
use hairpin_tests::lab::{Family, Lab, Namespace, Relay};
use rustix::process::Signal;

/// Commands that are to fail do it at once.
const AT_ONCE: Duration = Duration::from_secs(10);
const LOOPBACK: [&str; 4] = ["--listen", "127.0.0.1:3478", "--xdp", "off"];

#[test]
fn a_bad_value_is_refused_in_one_line_that_names_its_option() {
    let long = "r".repeat(128);
    let cases: [(&str, &[&str]); 20] = [
        ("--listen", &["", "127.0.0.1", "example.org:3478", "127.0.0.1:0", "127.0.0.1:65536", "224.0.0.1:3478"]),
        ("--listen", &["[fe80::1]:3478", "[fe80::1%1]:3478"]),
        ("--relay-address", &["", "host", "10.0.0.1=", "10.0.0.1=::1", "0.0.0.0", "::", "10.0.0.1/8"]),
        ("--relay-ports", &["", "1", "0-10", "10-9", "1-65536", "a-b", "3000-4000"]),
        ("--realm", &["", "a\"b", &long]),
        ("--user", &["", "alice", ":secret", "alice:"]),
        ("--auth-secret", &[""]),
        ("--allow-peer", &["", "10.0.0.0/33", "::/129", "example.org"]),
        ("--deny-peer", &["", "10.0.0.0/33", "::/129", "example.org"]),
        ("--xdp", &["", "fast", "NATIVE"]),
        ("--interface", &[""]),
        ("--admin", &["", "on", "9641", "127.0.0.1", "127.0.0.1:0"]),
        ("--shards", &["", "0", "-1", "many", "100000"]),
        ("--max-allocations", &["", "0", "-1", "many", "16385", "1000001"]),
        ("--kernel-records", &["", "0", "15", "16777217"]),
        ("--allocation-bit-rate", &["", "0", "999", "2m", "1.5M", "-1", "none"]),
        ("--allocation-packet-rate", &["", "0", "-1", "50 k", "2G"]),
        ("--relay-bit-rate", &["", "0", "1T", "fast"]),
        ("--source-packet-rate", &["", "0", "OFF"]),
        ("--control-packet-rate", &["", "0", "1e6"]),
    ];
    let host = Namespace::new("cli");
    for (option, values) in cases {
        for value in values {
            let finished = serve(
                &host,
                &["--relay-address", "127.0.0.1", "--listen", "127.0.0.1:3478"],
                &[&format!("{option}={value}")],
            );
            expect_one_line(&finished, 2, option);
        }
    }
}

#[test]
fn other_bad_usage_is_refused_the_same_way() {
    let host = Namespace::new("cli");
    for (arguments, named) in [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["--listen"], "--listen"),
        (&["--shards", "2", "--shards", "3"], "--shards"),
        (&["--listen", "127.0.0.1:3478", "--listen", "127.0.0.1:3478"], "--listen"),
        (&["--user", "a:b", "--user", "a:c"], "--user"),
        (&["surplus"], "surplus"),
    ] {
        expect_one_line(&serve(&host, &LOOPBACK, arguments), 2, named);
    }
    let bare = run_for(&mut Command::new(binary()), AT_ONCE);
    assert_eq!(bare.code(), Some(2), "{bare}");
    assert!(bare.stderr.contains("serve") && bare.stderr.contains("load"), "{bare}");
    let version = run_for(Command::new(binary()).arg("-V"), AT_ONCE).expect_success();
    assert_eq!(version.trim(), concat!("hairpin ", env!("CARGO_PKG_VERSION")));
    let long = run_for(Command::new(binary()).arg("--version"), AT_ONCE).expect_success();
    assert!(long.starts_with(version.trim()) && long.contains("XDP program: built in"), "{long}");
}

#[test]
fn colours_are_for_terminals_only() {
    const ESCAPE: char = '\u{1b}';
    let piped = run_for(Command::new(binary()).arg("--help"), AT_ONCE).expect_success();
    assert!(piped.contains("Begin with") && !piped.contains(ESCAPE), "{piped:?}");
    // Gives a command a terminal.
    let on_terminal = |no_colour: &str| {
        let mut script = Command::new("script");
        script.args(["-qec", &format!("{} --help", binary().display()), "/dev/null"]);
        script.env("TERM", "xterm").env("NO_COLOR", no_colour).env_remove("CLICOLOR");
        run_for(&mut script, AT_ONCE).expect_success()
    };
    let coloured = on_terminal("");
    assert!(coloured.contains("Begin with") && coloured.contains(ESCAPE), "{coloured:?}");
    let plain = on_terminal("1");
    assert!(plain.contains("Begin with") && !plain.contains(ESCAPE), "{plain:?}");
}

#[test]
fn a_log_level_that_is_none_is_refused_in_one_line() {
    let host = Namespace::new("cli");
    for level in ["verbose", "info,loud", "hairpin=loud"] {
        let mut command = host.command(binary());
        command.env("HAIRPIN_LOG", level).arg("serve").args(LOOPBACK).args(["--user", "a:b"]);
        expect_one_line(&run_for(&mut command, AT_ONCE), 2, "HAIRPIN_LOG");
    }
}

#[test]
fn the_help_names_every_option() {
    let help = run_for(Command::new(binary()).args(["serve", "--help"]), AT_ONCE).expect_success();
    for option in [
        "--listen",
        "--relay-address",
        "--relay-ports",
        "--realm",
        "--user",
        "--auth-secret",
        "--allow-peer",
        "--deny-peer",
        "--xdp",
        "--interface",
        "--admin",
        "--shards",
        "--max-allocations",
        "--kernel-records",
        "--allocation-bit-rate",
        "--allocation-packet-rate",
        "--relay-bit-rate",
        "--source-packet-rate",
        "--control-packet-rate",
        "--state-dir",
        "--certificate",
        "--private-key",
        "--tcp-relay",
        "--mobility",
        "--alternate-server",
        "--nat-discovery",
        "--proxy-protocol",
        "--max-connections",
        "--max-new-connections",
        "--max-new-connections-per-source",
    ] {
        assert!(help.contains(option), "{option}: {help}");
    }
}

#[test]
fn a_port_in_use_is_said_in_one_line() {
    let host = Namespace::new("cli");
    let _udp = host.enter(|| UdpSocket::bind("127.0.0.1:3478")).unwrap();
    let finished = serve(&host, &LOOPBACK, &["--user", "a:b"]);
    expect_one_line(&finished, 1, "127.0.0.1:3478");
    let _tcp = host.enter(|| TcpListener::bind("127.0.0.1:9641")).unwrap();
    let finished = serve(&host, &["--listen", "127.0.0.1:3479", "--xdp", "off"], &["--user", "a:b"]);
    expect_one_line(&finished, 1, "--admin");
}

#[test]
fn a_default_listener_in_use_is_said_in_one_line_for_ipv6_too() {
    let host = Namespace::new("cli");
    let _stranger = host.enter(|| UdpSocket::bind("[::1]:3478").expect("a free port"));
    let options = ["--user", "a:b", "--xdp", "off", "--admin", "off", "--relay-address", "127.0.0.1"];
    expect_one_line(&serve(&host, &options, &[]), 1, "--listen udp:[::]:3478");
}

#[test]
fn a_second_relay_on_the_same_port_is_refused() {
    let host = Namespace::new("cli");
    let relay = Relay::start(&host, &LOOPBACK);
    let finished = serve(&host, &LOOPBACK, &["--user", "a:b", "--admin", "off"]);
    expect_one_line(&finished, 1, "127.0.0.1:3478");
    relay.stop();
}

#[test]
fn an_unknown_interface_is_said_in_one_line() {
    let lab = Lab::routed();
    let finished = serve(&lab.relay, &["--user", "a:b"], &["--xdp", "native", "--interface", "wan7"]);
    expect_one_line(&finished, 1, "wan7");
}

#[test]
fn an_address_that_is_not_of_this_host_is_said_in_one_line() {
    let host = Namespace::new("cli");
    let finished = serve(&host, &["--user", "a:b", "--xdp", "off"], &["--listen", "11.9.9.9:3478"]);
    expect_one_line(&finished, 1, "--listen udp:11.9.9.9");
    let finished = serve(&host, &LOOPBACK, &["--user", "a:b", "--relay-address", "11.9.9.9"]);
    expect_one_line(&finished, 1, "--relay-address 11.9.9.9");
}

#[test]
fn neither_a_log_that_cannot_be_written_nor_a_hangup_stops_the_relay() {
    let host = Namespace::new("cli");
    let mut command = host.command("sh");
    command.args(["-c", "HAIRPIN_LOG=debug exec \"$0\" serve --user alice:in-a-lab \"$@\" 2>/dev/full"]);
    command.arg(binary()).args(LOOPBACK);
    let mut relay = Relay::start_with(&host, &mut command);
    relay.process().signal(Signal::HUP);
    let server = SocketAddr::from(([127, 0, 0, 1], PORT));
    let mut client = Client::new(&host, SocketAddr::from(([127, 0, 0, 1], 0)), server, USER, PASSWORD);
    client.allocate().expect("an allocation, which is a line of the log");
    assert_eq!(client.refresh(0), Ok(0));
    assert!(relay.process().is_running());
    relay.stop();
}

#[test]
fn without_the_capability_native_xdp_is_refused_and_auto_relays_in_userspace() {
    let lab = Lab::routed();
    // To a veth `auto` would not attach anyway.
    lab.relay.ip("tuntap add tap0 mode tap\nlink set tap0 up");
    let weak = |xdp: &str| {
        let mut command = lab.relay.command("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(binary());
        command.args(["serve", "--user", "alice:in-a-lab", "--interface", "tap0", "--xdp", xdp]);
        command
    };
    expect_one_line(&run_for(&mut weak("native"), AT_ONCE), 1, "CAP_BPF");

    let relay = Relay::start_with(&lab.relay, &mut weak("auto"));
    let call = hairpin_tests::lab::Call::new(&lab, Family::V4);
    call.exchange(b"in userspace");
    let metrics = relay.metrics();
    assert_eq!((metrics.relayed("kernel"), metrics.relayed("userspace")), (0, 2));
    assert_eq!(metrics.sum("hairpin_xdp_attached", &[]), 0);
}

#[test]
fn a_minted_credential_is_what_openssl_computes() {
    let mint = ["credentials", "--auth-secret", "north", "--name", "alice", "--ttl", "1h"];
    let printed = run_for(Command::new(binary()).args(mint), AT_ONCE).expect_success();
    let fields = fields(&printed);
    let (username, password) = (&fields["username"], &fields["password"]);
    let (expires, name) = username.split_once(':').expect("expiry, colon, name");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let expires: u64 = expires.parse().unwrap();
    assert!((now + 3590..=now + 3610).contains(&expires), "{expires} is not an hour after {now}");
    assert_eq!(name, "alice");
    let script = format!("printf %s '{username}' | openssl dgst -sha1 -hmac north -binary | openssl base64");
    let expected = run(Command::new("sh").args(["-c", &script])).expect_success();
    assert_eq!(password, expected.trim());
}

#[test]
fn a_minted_credential_is_accepted_until_it_expires() {
    let host = Namespace::new("cli");
    let relay = Relay::start(&host, &[&LOOPBACK[..], &["--auth-secret", "north"]].concat());
    let mint = |ttl: &str| {
        let arguments = ["credentials", "--auth-secret", "north", "--name", "bob", "--ttl", ttl];
        fields(&run_for(Command::new(binary()).args(arguments), AT_ONCE).expect_success())
    };
    let allocate = |credential: &BTreeMap<String, String>| {
        let (username, password) = (&credential["username"], &credential["password"]);
        Client::new(&host, "127.0.0.1:0".parse().unwrap(), server(), username, password).allocate()
    };
    let (long, short) = (mint("1h"), mint("1s"));
    assert!(allocate(&long).is_ok());
    std::thread::sleep(Duration::from_millis(2100));
    assert!(matches!(allocate(&short), Err(Refused(401, _))));
    relay.stop();
}

#[test]
fn the_first_start_makes_a_secret_that_stays_and_prints_what_a_client_needs() {
    let host = Namespace::new("cli");
    let state = TemporaryFolder::new("state");
    let mut secrets = Vec::new();
    for _ in 0..2 {
        let mut command = host.command(binary());
        command.arg("serve").args(LOOPBACK).arg("--state-dir").arg(&state.0);
        let relay = Relay::start_with(&host, &mut command);
        // With a credential that is wrong first: a relay without users must not be open.
        let local = "127.0.0.1:0".parse().unwrap();
        assert!(matches!(Client::new(&host, local, server(), "a", "b").allocate(), Err(Refused(401, _))));
        let printed = relay.stop().stdout;
        assert!(printed.contains("turn:127.0.0.1:3478"), "{printed}");
        let files: Vec<PathBuf> = fs::read_dir(&state.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "one file, nothing temporary: {files:?}");
        assert_eq!(mode(&files[0]), 0o600, "{files:?}");
        assert_eq!(mode(&state.0) & 0o077, 0, "nobody else may look into the folder");
        secrets.push((files[0].clone(), fs::read_to_string(&files[0]).unwrap(), fields(&printed)));
    }
    assert_eq!(secrets[0].0, secrets[1].0);
    assert_eq!(secrets[0].1, secrets[1].1, "the secret stays");
    assert!(secrets[0].1.trim().len() >= 32, "long enough not to be guessed");

    // What the first start printed works at the third.
    let mut command = host.command(binary());
    command.arg("serve").args(LOOPBACK).arg("--state-dir").arg(&state.0);
    let relay = Relay::start_with(&host, &mut command);
    let (username, password) = (&secrets[0].2["username"], &secrets[0].2["password"]);
    let mut client = Client::new(&host, "127.0.0.1:0".parse().unwrap(), server(), username, password);
    assert!(client.allocate().is_ok());
    let finished = relay.stop();
    assert!(!finished.stderr.contains(secrets[0].1.trim()), "a secret is not logged");
}

#[test]
fn a_state_directory_that_cannot_be_written_is_said_in_one_line() {
    let host = Namespace::new("cli");
    let finished = serve(&host, &LOOPBACK, &["--state-dir", "/proc/hairpin"]);
    expect_one_line(&finished, 1, "--state-dir");
}

#[test]
fn a_secret_that_cannot_be_written_leaves_nothing_behind() {
    let host = Namespace::new("cli");
    let state = TemporaryFolder::new("full");
    // The shell ignores the signal that would end a program which writes a file of more than 0 blocks: it gets an error.
    let mut command = host.command("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]).arg(binary());
    command.arg("serve").args(LOOPBACK).arg("--state-dir").arg(&state.0);
    let finished = run_for(&mut command, AT_ONCE);
    expect_one_line(&finished, 1, "/.auth-secret.");
    let left: Vec<_> = fs::read_dir(&state.0).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_uri_is_printed_for_what_listens_and_nothing_else() {
    let host = Namespace::new("cli");
    host.ip("addr add 10.9.0.1/24 dev lo\naddr add 10.9.0.2/24 dev lo");
    let state = TemporaryFolder::new("uris");
    let printed = |options: &[&str]| {
        let mut command = host.command(binary());
        command.args(["serve", "--xdp", "off"]).args(options).arg("--state-dir").arg(&state.0);
        let printed = Relay::start_with(&host, &mut command).stop().stdout;
        let uris = printed.lines().filter_map(|line| line.trim().strip_prefix("turn:")).map(str::to_owned);
        uris.collect::<Vec<_>>()
    };
    let relaying = ["--relay-address", "10.9.0.1=198.51.100.1", "--relay-address", "::1"];
    let elsewhere = ["--listen", "127.0.0.1:3478", "--listen", "10.9.0.2:5000"];
    assert_eq!(
        printed(&[&relaying[..], &elsewhere].concat()),
        ["127.0.0.1:3478?transport=udp", "10.9.0.2:5000?transport=udp"]
    );
    assert_eq!(
        printed(&[&relaying[..], &["--listen", "0.0.0.0:3478"]].concat()),
        ["198.51.100.1:3478?transport=udp"],
        "nothing listens on IPv6"
    );
}

#[test]
fn one_user_gets_three_quarters_of_the_ports() {
    let host = Namespace::new("cli");
    let relay = Relay::start(&host, &[&LOOPBACK[..], &["--relay-ports", "50000-50007", "--shards", "1"]].concat());
    let mut clients: Vec<Client> =
        (0..7).map(|_| Client::new(&host, "127.0.0.1:0".parse().unwrap(), server(), USER, PASSWORD)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        match client.allocate() {
            Ok(_) => assert!(number < 6, "two of eight ports are left for others"),
            Err(Refused(code, _)) => assert_eq!((number, code), (6, 486)),
        }
    }
    relay.stop();
}

#[test]
fn there_are_as_many_allocations_as_the_operator_says() {
    let host = Namespace::new("cli");
    let relay = Relay::start(&host, &[&LOOPBACK[..], &["--max-allocations", "4", "--shards", "1"]].concat());
    let allocate = |user: &str| {
        Client::new(&host, "127.0.0.1:0".parse().unwrap(), server(), user, PASSWORD).allocate().map_err(|no| no.0)
    };
    let codes: Vec<_> = (0..4).map(|_| allocate(USER).err()).collect();
    assert_eq!(codes, [None, None, None, Some(486)], "one is left for others");
    relay.stop();

    let others = ["--user", "bob:in-a-lab", "--max-allocations", "4", "--shards", "1"];
    let relay = Relay::start(&host, &[&LOOPBACK[..], &others].concat());
    let codes: Vec<_> = [USER, USER, USER, "bob", "bob"].map(|user| allocate(user).err()).to_vec();
    assert_eq!(codes, [None, None, None, None, Some(508)]);
    relay.stop();
}

#[test]
fn too_few_open_files_are_said_at_the_start_with_figures() {
    let host = Namespace::new("cli");
    let complaint = |ports: &str| {
        let mut command = host.command("setpriv");
        // Without capabilities, so that the limit cannot be raised.
        command.args(["--bounding-set=-all", "--inh-caps=-all", "sh", "-c", "ulimit -n 1000; exec \"$@\"", "sh"]);
        command.arg(binary()).arg("serve").args(LOOPBACK).args(["--user", "a:b", "--relay-ports", ports]);
        let stderr = Relay::start_with(&host, &mut command).stop().stderr;
        stderr.lines().find(|line| line.contains("limit of open files")).map(str::to_owned)
    };
    let line = complaint("50000-50999").expect("a warning");
    assert!(line.contains("limit of open files is 1000,") && line.contains("to use 1000 relay ports"), "{line}");
    assert_eq!(complaint("50000-50099"), None);
}

#[test]
fn options_reach_the_relay() {
    let lab = Lab::routed();
    let options =
        ["--xdp", "off", "--relay-address", "11.3.0.2=198.51.100.7", "--realm", "wonderland", "--shards", "3"];
    let mut relay = Relay::start(&lab.relay, &options);
    let local = SocketAddr::new(Lab::client_ip(Family::V4, 0), 0);
    let mut client =
        Client::new(&lab.clients[0], local, SocketAddr::new(Lab::relay_ip(Family::V4), PORT), USER, PASSWORD);
    let relayed = client.allocate().expect("the relay has room");
    assert_eq!(relayed.ip().to_string(), "198.51.100.7", "what peers see from outside");
    assert_eq!(client.realm(), Some("wonderland"));
    let threads = fs::read_dir(format!("/proc/{}/task", relay.process().pid().as_raw_nonzero())).unwrap();
    let names = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
    assert_eq!(names.filter(|name| name.starts_with("shard-")).count(), 3);
    relay.stop();
}

#[test]
fn a_low_soft_file_limit_is_raised() {
    let host = Namespace::new("cli");
    let mut command = host.command("prlimit");
    command.arg("--nofile=64:4096").arg(binary()).arg("serve").args(LOOPBACK);
    let user = format!("{USER}:{PASSWORD}");
    // As few ports as the higher limit has room for.
    command.args(["--user", &user, "--relay-ports", "50000-50999", "--shards", "1"]);
    let relay = Relay::start_with(&host, &mut command);
    let clients: Vec<Client> = (0..100)
        .map(|number| {
            let mut client = Client::new(&host, "127.0.0.1:0".parse().unwrap(), server(), USER, PASSWORD);
            client.allocate().unwrap_or_else(|refused| panic!("allocation {number}: {refused:?}"));
            client
        })
        .collect();
    assert_eq!(relay.metrics().sum("hairpin_allocations", &[]), clients.len() as u64);
    relay.stop();
}

/// Runs a relay that is to be refused. Should it start after all, it leaves nothing on this host.
fn serve(host: &Namespace, first: &[&str], then: &[&str]) -> Finished {
    let state = TemporaryFolder::new(host.name());
    let mut command = host.command(binary());
    command.arg("serve").args(first).args(then);
    if !then.contains(&"--state-dir") {
        command.arg("--state-dir").arg(&state.0);
    }
    run_for(&mut command, AT_ONCE)
}

fn expect_one_line(finished: &Finished, code: i32, named: &str) {
    finished.expect_one_line(code, &[named]);
}

/// The lines `name: value` of a text.
fn fields(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once(": "));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn server() -> SocketAddr {
    ([127, 0, 0, 1], PORT).into()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A folder that does not exist yet, and will not any more.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("hairpin-{}-{name}", std::process::id())))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
