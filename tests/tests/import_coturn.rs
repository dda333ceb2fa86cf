//! Relays that run with what `hairpin import-coturn` makes of a turnserver.conf serve the clients that coturn serves with
//! the original. The files are in the way of those that well-known projects recommend.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hairpin_client::Credentials;
use hairpin_tests::lab::coturn::{self, EchoPeer, Tally};
use hairpin_tests::lab::process::{Process, run};
use hairpin_tests::lab::relay::{PORT, binary};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Authority, Certificate, Family, Folder, Key, Lab, Relay};

/// The address that the files have.
const EXAMPLE: &str = "203.0.113.10";
const PATIENCE: Duration = Duration::from_secs(20);

/// A file, and what its clients do.
struct Case {
    file: &'static str,
    secret: &'static str,
    realm: &'static str,
    /// Ports with the options of `turnutils_uclient` for what is spoken there.
    served: &'static [(u16, &'static str)],
    /// The same of what coturn 4.6 should serve with the file, and does not.
    also: &'static [(u16, &'static str)],
    /// What no client may reach.
    forbidden: &'static [&'static str],
}

#[test]
fn a_file_in_the_way_of_jitsi() {
    serve_both(&Case {
        file: "jitsi",
        secret: "correcthorsebatterystaple",
        realm: "meet.example.org",
        served: &[(3478, ""), (3478, "-S"), (5349, "-S"), (5349, "-t -S")],
        also: &[],
        forbidden: &["10.1.2.3", "100.64.0.1", "169.254.1.1", "192.168.1.1", "127.0.0.1"],
    });
}

#[test]
fn a_file_in_the_way_of_nextcloud_talk() {
    serve_both(&Case {
        file: "nextcloud-talk",
        secret: "1a2b3c4d5e6f708192a3b4c5d6e7f801",
        realm: "cloud.example.org",
        served: &[(3478, ""), (3478, "-t")],
        also: &[],
        forbidden: &["127.0.0.1", "224.0.0.1"],
    });
}

#[test]
fn a_file_in_the_way_of_synapse() {
    serve_both(&Case {
        file: "synapse",
        secret: "Quite_long-and.random~secret",
        realm: "turn.matrix.example.org",
        served: &[(3478, ""), (3478, "-t")],
        also: &[],
        forbidden: &["10.0.0.2", "172.16.0.1", "192.168.0.1"],
    });
}

#[test]
fn a_file_in_the_way_of_bigbluebutton() {
    serve_both(&Case {
        file: "bigbluebutton",
        secret: "8f7e6d5c4b3a29180716253443526170",
        realm: "bbb.example.org",
        served: &[(3478, ""), (3478, "-t"), (443, "-S"), (443, "-t")],
        // With no-rfc5780 it lets clients of TLS wait for their data.
        also: &[(443, "-t -S"), (3478, "-t -S")],
        forbidden: &["127.0.0.1"],
    });
}

fn serve_both(case: &Case) {
    let lab = Lab::routed();
    let own = Lab::relay_ip(Family::V4);
    let certificate = Authority::new().issue(Key::Rsa, "turn.test", &[own]);
    let folder = Folder::new("import");
    let file = folder.path().join("turnserver.conf");
    fs::write(&file, adapted(case.file, own, &certificate)).expect("the folder is ours");
    let _peer = EchoPeer::start(&lab.peers[0], &[Lab::peer_ip(Family::V4, 0)]);

    let coturn = start_coturn(&lab, &file, folder.path());
    expect_service(&lab, case, case.served, "coturn");
    drop(coturn);

    let output = folder.path().join("hairpin.toml");
    let import = run(Command::new(binary()).arg("import-coturn").arg(&file).arg("--output").arg(&output));
    assert_eq!((import.code(), import.stdout.as_str()), (Some(0), ""), "{import}");
    let mut command = lab.relay.command(binary());
    command.args(["serve", "--xdp", "off", "--admin-socket", "off", "--config"]).arg(&output);
    let relay = Relay::start_with(&lab.relay, &mut command);
    expect_service(&lab, case, &[case.served, case.also].concat(), "hairpin");
    relay.stop();
}

/// The file, for this lab.
fn adapted(name: &str, own: IpAddr, certificate: &Certificate) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("coturn/{name}.conf"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().map(|line| match line.split_once('=') {
        Some(("cert", _)) => format!("cert={}\n", certificate.file.display()),
        Some(("pkey", _)) => format!("pkey={}\n", certificate.private_key.display()),
        // Made for the paths of a server.
        Some(("dh-file" | "log-file", _)) => String::new(),
        _ => format!("{}\n", line.replace(EXAMPLE, &own.to_string())),
    });
    lines.collect()
}

fn start_coturn(lab: &Lab, file: &Path, folder: &Path) -> Process {
    let mut command = lab.relay.command("turnserver");
    command.arg("-c").arg(file).args(["--no-cli", "--log-file", "stdout", "--simple-log"]);
    for (option, file) in [("--pidfile", "pid"), ("--userdb", "db")] {
        command.arg(option).arg(folder.join(file));
    }
    let process = Process::spawn(&mut command);
    let end = Instant::now() + PATIENCE;
    while lab.relay.udp_sockets(PORT) == 0 {
        assert!(Instant::now() < end, "turnserver does not listen: {}", process.wait(Duration::ZERO));
        thread::sleep(Duration::from_millis(20));
    }
    process
}

/// What both servers must do.
fn expect_service(lab: &Lab, case: &Case, served: &[(u16, &str)], server: &str) {
    let (own, peer) = (Lab::relay_ip(Family::V4), Lab::peer_ip(Family::V4, 0));
    thread::scope(|scope| {
        for (port, options) in served {
            let arguments =
                format!("-u ninefingers -W {} -n 20 -z 5 -c -e {peer} -p {port} {options} {own}", case.secret);
            scope.spawn(move || {
                let finished = coturn::uclient(&lab.clients[0], &arguments);
                let is_complete = Tally::of(&finished).is_some_and(|tally| tally.is_complete());
                assert!(is_complete, "{} of {server}: {finished}", case.file);
            });
        }
    });

    let local = SocketAddr::new(Lab::client_ip(Family::V4, 0), 40_000);
    let expires = SystemTime::now() + Duration::from_secs(600);
    let expires = expires.duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970").as_secs();
    let Credentials { username, password } = Credentials::mint(case.secret, Some("alice"), expires);
    let mut client = Client::new(&lab.clients[0], local, SocketAddr::new(own, PORT), &username, &password);
    let relayed = client.allocate().unwrap_or_else(|refused| panic!("{server} refuses: {refused:?}"));
    assert_eq!(relayed.ip(), own, "{server}");
    assert_eq!(client.realm(), Some(case.realm), "{server}");
    client.permit(peer).unwrap_or_else(|refused| panic!("{server} forbids {peer}: {refused:?}"));
    for forbidden in case.forbidden {
        let permitted = client.permit(forbidden.parse().expect("an address"));
        assert!(permitted.is_err(), "{server} of {} permits {forbidden}", case.file);
    }
}
