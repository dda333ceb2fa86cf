//! Chromium without a screen: a page with two peer connections that may use relayed candidates only.
//!
//! It is in a lab, not on loopback, which Chromium does not take for a network.

use std::path::Path;

use hairpin_tests::lab::relay::{PASSWORD, USER};
use hairpin_tests::lab::server::is_installed;
use hairpin_tests::lab::{Authority, Family, Folder, Key, Lab, Setup, Transport, process, relayed_page};
use serde_json::json;

#[test]
fn a_page_exchanges_messages_and_video_over_udp() {
    run(Transport::Udp, "turn:11.3.0.2:3478?transport=udp");
}

#[test]
fn a_page_exchanges_messages_and_video_over_udp_and_ipv6() {
    run(Transport::Udp, "turn:[2a0e:11:3::2]:3478?transport=udp");
}

#[test]
fn a_page_exchanges_messages_and_video_over_tcp() {
    run(Transport::Tcp, "turn:11.3.0.2:3478?transport=tcp");
}

#[test]
fn a_page_exchanges_messages_and_video_over_tls() {
    run(Transport::Tls, "turns:11.3.0.2:5349?transport=tcp");
}

fn run(transport: Transport, url: &str) {
    if !is_installed("chromium") || !is_installed("certutil") {
        return;
    }
    let lab = Lab::routed();
    let authority = Authority::new();
    // Chromium asks for no family of the relayed address, which means IPv4, also on a way over IPv6.
    let addresses = Family::ALL.map(Lab::relay_ip);
    let certificate = authority.issue(Key::Ecdsa, "turn.test", &addresses);
    let certificates = if transport == Transport::Tls { vec![certificate] } else { Vec::new() };
    let server = Setup::new(&addresses).transports(&[transport]).certificates(&certificates).start(&lab.relay);

    let home = Folder::new("chromium");
    trust(&authority.certificate(), home.path());
    let (result, finished) = relayed_page::run(&lab.clients[0], home.path(), url, USER, PASSWORD);

    let protocol = match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls | Transport::Dtls => "tls",
    };
    let way = json!(["relay", "relay", protocol]);
    let expected = json!({ "messages": 50, "frames": 10, "size": [320, 240], "red": true, "ways": [way, way] });
    assert_eq!(result, expected, "{finished}");
    // At least each message, to the other side and back, and each frame; each by both of the relayed addresses.
    server.expect_relayed(100 + 10);
    server.stop();
}

/// Has the browser with this home trust an authority. Its connections to `turns:` ask the same database as those to pages.
fn trust(authority: &Path, home: &Path) {
    let folder = home.join(".pki/nssdb");
    std::fs::create_dir_all(&folder).expect("the home is ours");
    let database = format!("sql:{}", folder.display());
    let certutil = |arguments: &[&str]| {
        let mut command = std::process::Command::new("certutil");
        process::run(command.args(["-d", &database]).args(arguments)).expect_success();
    };
    certutil(&["-N", "--empty-password"]);
    certutil(&["-A", "-t", "C,,", "-n", "authority", "-i", &authority.display().to_string()]);
}
