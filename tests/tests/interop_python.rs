//! aioice, aiortc and libdatachannel, from PyPI, and libnice, from Debian.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use hairpin_tests::lab::relay::{PASSWORD, USER};
use hairpin_tests::lab::server::is_coturn;
use hairpin_tests::lab::{Authority, Key, Namespace, Setup, Transport, python};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[test]
fn aioice_reaches_peers_and_itself_over_udp() {
    aioice(Transport::Udp, "udp");
}

#[test]
fn aioice_reaches_peers_and_itself_over_tcp() {
    aioice(Transport::Tcp, "tcp");
}

#[test]
fn aioice_reaches_peers_and_itself_over_tls() {
    aioice(Transport::Tls, "tls");
}

#[test]
fn aiortc_exchanges_messages_and_video_over_udp() {
    aiortc(Transport::Udp, "turn:127.0.0.1:3478?transport=udp");
}

#[test]
fn aiortc_exchanges_messages_and_video_over_tcp() {
    aiortc(Transport::Tcp, "turn:127.0.0.1:3478?transport=tcp");
}

#[test]
fn aiortc_exchanges_messages_and_video_over_tls() {
    aiortc(Transport::Tls, "turns:127.0.0.1:5349?transport=tcp");
}

#[test]
fn libdatachannel_exchanges_messages_over_udp() {
    let Some(interpreter) = python::from_pypi() else { return };
    let host = Namespace::new("interop");
    let server = Setup::new(&[V4]).start(&host);
    let arguments = ["127.0.0.1", "3478", USER, PASSWORD];
    let finished = python::run(&host, interpreter, "libdatachannel_pair.py", arguments, &[]);
    assert_eq!(finished.expect_success().trim(), r#"{"messages": 50}"#);
    if !is_coturn() {
        // At least each message, and each again on its way back. Coturn counts at the end of an allocation, and libjuice
        // leaves that to time.
        server.expect_relayed(100);
    }
    server.stop();
}

#[test]
fn libnice_exchanges_datagrams_over_udp() {
    libnice(Transport::Udp, "udp");
}

#[test]
fn libnice_exchanges_datagrams_over_tcp() {
    libnice(Transport::Tcp, "tcp");
}

fn aioice(transport: Transport, name: &str) {
    let Some(interpreter) = python::from_pypi() else { return };
    let (host, authority) = (Namespace::new("interop"), Authority::new());
    let server = setup(transport, &authority).start(&host);
    let port = transport.port().to_string();
    for address in ["127.0.0.1", "::1"] {
        let arguments = [address, &port, USER, PASSWORD, name];
        let finished =
            python::run(&host, interpreter, "aioice_turn.py", arguments, &trusting(&authority.certificate()));
        assert_eq!(finished.expect_success().trim(), r#"{"back": 45, "arrived": 90}"#);
    }
    // What goes to a peer and back is relayed twice, and what goes to another client, too.
    server.expect_relayed(2 * (2 * 45 + 2 * 90));
    server.stop();
}

fn aiortc(transport: Transport, url: &str) {
    let Some(interpreter) = python::from_pypi() else { return };
    let (host, authority) = (Namespace::new("interop"), Authority::new());
    let server = setup(transport, &authority).start(&host);
    let environment = authority.certificate();
    let finished = python::run(&host, interpreter, "aiortc_pair.py", [url, USER, PASSWORD], &trusting(&environment));
    assert_eq!(finished.expect_success().trim(), r#"{"messages": 50, "frames": 5, "size": [640, 480]}"#);
    // At least each message and each frame.
    server.expect_relayed(100 + 5);
    server.stop();
}

fn libnice(transport: Transport, name: &str) {
    let imports = "import gi; gi.require_version('Nice', '0.1'); from gi.repository import GLib, Nice";
    let Some(interpreter) = python::from_debian(imports) else { return };
    let (host, authority) = (Namespace::new("interop"), Authority::new());
    let server = setup(transport, &authority).start(&host);
    let port = transport.port().to_string();
    for address in ["127.0.0.1", "::1"] {
        let arguments = [address, &port, USER, PASSWORD, name];
        let finished = python::run(&host, interpreter, "libnice_pair.py", arguments, &[]);
        assert_eq!(finished.expect_success().trim(), r#"{"arrived": 100}"#);
    }
    server.expect_relayed(2 * 2 * 100);
    server.stop();
}

fn setup(transport: Transport, authority: &Authority) -> Setup {
    let certificate = authority.issue(Key::Ecdsa, "turn.test", &[V4, V6]);
    let certificates = if transport == Transport::Tls { vec![certificate] } else { Vec::new() };
    Setup::new(&[V4, V6]).transports(&[transport]).certificates(&certificates)
}

/// The environment of a client that trusts an authority.
fn trusting(authority: &Path) -> [(&str, &Path); 1] {
    [("SSL_CERT_FILE", authority)]
}
