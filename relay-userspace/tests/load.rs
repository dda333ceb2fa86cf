//! `hairpin load` and `hairpin credentials` as a user runs them, against coturn.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

const SECRET: &str = "north";

/// A process that ends with the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A coturn of the test's own, on loopback, for UDP, TCP and TLS.
struct Coturn {
    address: SocketAddr,
    tls: SocketAddr,
    directory: PathBuf,
    process: Guard,
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn free_address(ip: &str) -> SocketAddr {
    UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap()
}

impl Coturn {
    /// Starts it; `None`, with a word why, if it is not installed. With `HAIRPIN_REQUIRE_ALL` set, that is a failure.
    fn start(ip: &str) -> Option<Self> {
        let address = free_address(ip);
        let directory = std::env::temp_dir().join(format!("hairpin-load-{}-{}", std::process::id(), address.port()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new("turnserver");
        command.args(["-n", "--no-cli", "--no-dtls", "--allow-loopback-peers", "-r", "test"]);
        command.args(["--use-auth-secret", "--static-auth-secret", SECRET, "--log-file", "stdout"]);
        command.arg(format!("--listening-ip={ip}")).arg(format!("--relay-ip={ip}"));
        command.arg(format!("--listening-port={}", address.port()));
        let tls = free_address(ip);
        command.arg(format!("--tls-listening-port={}", tls.port()));
        let certified = rcgen::generate_simple_self_signed([ip.to_owned()]).unwrap();
        std::fs::write(directory.join("cert.pem"), certified.cert.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
        for (option, file) in [("cert", "cert.pem"), ("pkey", "key.pem"), ("pidfile", "pid"), ("userdb", "db")] {
            command.arg(format!("--{option}={}", directory.join(file).display()));
        }
        match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(process) => {
                let coturn = Self { address, tls, directory, process: Guard(process) };
                coturn.wait();
                Some(coturn)
            }
            Err(error) if std::env::var_os("HAIRPIN_REQUIRE_ALL").is_none() => {
                eprintln!("skipped: coturn's turnserver does not start: {error}");
                None
            }
            Err(error) => panic!("coturn's turnserver does not start: {error}"),
        }
    }

    fn wait(&self) {
        let socket = UdpSocket::bind((if self.address.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let binding = b"\x00\x01\x00\x00\x21\x12\xa4\x42coturn there";
        for _ in 0..100 {
            if socket.send(binding).is_ok() && socket.recv(&mut [0; 500]).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("coturn does not answer on {}", self.address);
    }
}

fn hairpin(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hairpin")).args(arguments).output().unwrap()
}

fn load(server: SocketAddr, arguments: &[&str]) -> Output {
    let server = server.to_string();
    let common = ["load", "--server", &server, "--user", "alice", "--auth-secret", SECRET, "--duration", "300ms"];
    hairpin(&[&common[..], arguments].concat())
}

#[track_caller]
fn result(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert_eq!(error, "", "a script sees no progress");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn is_whole(value: &Value, payload: u64) {
    let number = |name: &str| value[name].as_u64().unwrap_or_else(|| panic!("{name} of {value}"));
    assert!(number("packets_sent") > 50, "{value}");
    assert_eq!(number("packets_received"), number("packets_sent"), "{value}");
    for name in ["packets_lost", "packets_duplicated", "packets_reordered", "packets_refused", "lost_renewals"] {
        assert_eq!(number(name), 0, "{name} of {value}");
    }
    assert_eq!(value["allocations"], 4);
    assert_eq!(value["payload_bytes"], payload);
    let latency = |name: &str| value["latency_microseconds"][name].as_f64().unwrap();
    assert!(0.0 < latency("p50") && latency("p50") <= latency("p99") && latency("p99") <= latency("max"), "{value}");
}

#[test]
fn each_mode_and_method_works_in_each_family() {
    for (ip, family) in [("127.0.0.1", "ipv4"), ("::1", "ipv6")] {
        let Some(coturn) = Coturn::start(ip) else { return };
        for mode in ["echo", "pair"] {
            for method in ["channel", "send"] {
                let arguments = ["--allocations", "4", "--rate", "500", "--payload", "161", "--json"];
                let output = load(coturn.address, &[&arguments[..], &["--mode", mode, "--method", method]].concat());
                let value = result(&output);
                is_whole(&value, 161);
                assert_eq!(
                    (&value["mode"], &value["method"], &value["family"]),
                    (&mode.into(), &method.into(), &family.into())
                );
                let reflected = if mode == "echo" { value["packets_sent"].clone() } else { Value::Null };
                assert_eq!(value["packets_reflected"], reflected);
            }
        }
    }
}

#[test]
fn without_a_rate_packets_go_as_fast_as_they_come_back() {
    let Some(coturn) = Coturn::start("127.0.0.1") else { return };
    let value = result(&load(coturn.address, &["--allocations", "4", "--rate", "0", "--payload", "24", "--json"]));
    is_whole(&value, 24);
    assert!(value["packets_sent"].as_u64() > Some(1000), "{value}");
}

#[test]
fn clients_come_over_tcp_and_tls_too() {
    for ip in ["127.0.0.1", "::1"] {
        let Some(coturn) = Coturn::start(ip) else { return };
        let ca = coturn.directory.join("cert.pem").display().to_string();
        for (server, transport) in [
            (coturn.address, &["--transport", "tcp"][..]),
            (coturn.tls, &["--transport", "tls", "--tls-ca", &ca]),
            (coturn.tls, &["--transport", "tls", "--tls-insecure"]),
        ] {
            for (mode, method, rate) in [("echo", "channel", "500"), ("pair", "send", "500"), ("echo", "send", "0")] {
                let traffic = ["--mode", mode, "--method", method, "--rate", rate];
                // Not a multiple of four, so that there is padding.
                let arguments = ["--allocations", "4", "--payload", "161", "--json"];
                let value = result(&load(server, &[transport, &traffic, &arguments].concat()));
                is_whole(&value, 161);
                assert_eq!(value["transport"], transport[1]);
            }
        }
    }
}

#[test]
fn a_server_of_streams_that_is_not_there_or_not_trusted_or_dies_is_named() {
    let Some(coturn) = Coturn::start("127.0.0.1") else { return };
    let output = load(coturn.tls, &["--transport", "tls", "--tls-ca", "/nowhere.pem"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("hairpin: TLS: cannot read certificates from /nowhere.pem"), "{error}");
    let ca = coturn.directory.join("cert.pem").display().to_string();
    let other_name = ["--transport", "tls", "--tls-ca", &ca, "--tls-name", "turn.example.org"];
    let error = String::from_utf8(load(coturn.tls, &other_name).stderr).unwrap();
    assert!(error.starts_with("hairpin: client ") && error.contains("not valid for name"), "{error}");

    let nobody = free_address("127.0.0.1");
    let output = load(nobody, &["--transport", "tcp"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("hairpin: no server listens on {nobody}\n"));

    for (signal, how) in [("-STOP", "silent"), ("-KILL", "closed")] {
        let Some(coturn) = Coturn::start("127.0.0.1") else { return };
        let server = coturn.address.to_string();
        let arguments = ["load", "--server", &server, "--auth-secret", SECRET, "--duration", "1h", "--json"];
        let process = Command::new(env!("CARGO_BIN_EXE_hairpin"))
            .args([&arguments[..], &["--transport", "tcp"]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(800));
        let signalled = Command::new("kill").args([signal, &coturn.process.0.id().to_string()]).status().unwrap();
        assert!(signalled.success());
        let output = process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value["server_lost"]["how"], how, "{value}");
    }
}

#[test]
fn an_echo_peer_elsewhere_reflects() {
    let Some(coturn) = Coturn::start("127.0.0.1") else { return };
    let mut peer = Command::new(env!("CARGO_BIN_EXE_hairpin"))
        .args(["echo-peer", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(peer.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _guard = Guard(peer);
    let address = line.trim().strip_prefix("reflecting on ").unwrap();

    let value = result(&load(coturn.address, &["--allocations", "4", "--rate", "500", "--peer", address, "--json"]));
    is_whole(&value, 160);
    assert!(value["packets_reflected"].is_null());
}

#[test]
fn nothing_that_comes_back_is_a_failure() {
    let Some(coturn) = Coturn::start("127.0.0.1") else { return };
    // Bound, so that no ICMP comes back either, and silent.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = silent.local_addr().unwrap().to_string();
    let output = load(coturn.address, &["--allocations", "2", "--rate", "100", "--peer", &peer]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("100.0000 %"), "{text}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "hairpin: nothing came back\n");
}

#[test]
fn a_server_that_refuses_or_is_not_there_is_named() {
    let Some(coturn) = Coturn::start("127.0.0.1") else { return };
    let server = coturn.address.to_string();
    let output = hairpin(&["load", "--server", &server, "--user", "alice", "--password", "wrong"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("hairpin: client ") && error.contains("refused the allocate request: 401"), "{error}");

    let nobody = free_address("127.0.0.1");
    let output = load(nobody, &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, format!("hairpin: no server listens on {nobody}\n"));
}

#[test]
fn bad_usage_is_told_in_words_and_ends_with_2() {
    let server = ["load", "--server", "127.0.0.1:9"];
    let user = ["--user", "alice", "--password", "sesame"];
    for (arguments, names) in [
        (&["--payload", "23"][..], "at least 24 bytes"),
        (&["--payload", "70000"], "at most 65000 bytes"),
        (&["--duration", "ten"], "--duration"),
        (&["--duration", "0s"], "--duration"),
        (&["--allocations", "0"], "--allocations"),
        (&["--allocations", "3", "--mode", "pair"], "--allocations must be even"),
        (&["--mode", "pair", "--peer", "127.0.0.1:9"], "--peer"),
        (&["--family", "ipv4", "--peer", "[::1]:9"], "--family ipv4 cannot be with --peer [::1]:9: only ipv6"),
        (&["--transport", "tls"], "--transport tls needs --tls-ca FILE, or --tls-insecure"),
        (&["--family", "v6", "--peer-address", "127.0.0.1"], "--family"),
    ] {
        let output = hairpin(&[&server[..], &user, arguments].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(names), "{arguments:?}: {error}");
    }
    let output = hairpin(&[&server[..], &["--user", "alice"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--password"));
}

#[test]
fn ctrl_c_ends_the_sending_and_shows_the_result() {
    let Some(coturn) = Coturn::start("127.0.0.1") else { return };
    let server = coturn.address.to_string();
    let arguments = ["load", "--server", &server, "--auth-secret", SECRET, "--duration", "1h", "--json"];
    let process = Command::new(env!("CARGO_BIN_EXE_hairpin"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(800));
    let interrupted = Command::new("kill").args(["-INT", &process.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let value = result(&process.wait_with_output().unwrap());
    assert!(value["packets_received"].as_u64() > Some(0), "{value}");
    assert!(value["seconds"].as_f64() < Some(60.0), "{value}");
}

#[test]
fn credentials_are_minted_for_people_and_for_scripts() {
    let arguments = ["credentials", "--auth-secret", SECRET, "--name", "alice", "--ttl", "1h"];
    let text = String::from_utf8(hairpin(&arguments).stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let [username, password] = lines[..] else { panic!("two lines expected: {text}") };
    assert!(username.starts_with("username: ") && username.ends_with(":alice"), "{text}");
    assert!(password.starts_with("password: ") && password.ends_with('='), "{text}");

    let output = hairpin(&[&arguments[..], &["--json"]].concat());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let Some(coturn) = Coturn::start("127.0.0.1") else { return };
    assert!(coturn.address.ip() == IpAddr::from([127, 0, 0, 1]));
    let server = coturn.address.to_string();
    let (username, password) = (value["username"].as_str().unwrap(), value["password"].as_str().unwrap());
    let login = ["--user", username, "--password", password];
    let run = ["--allocations", "4", "--rate", "500", "--duration", "200ms", "--json"];
    let output = hairpin(&[&["load", "--server", &server][..], &login, &run].concat());
    is_whole(&result(&output), 160);
}
