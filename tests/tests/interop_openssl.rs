//! OpenSSL's client: what of TLS and DTLS the server speaks, which certificate it shows, and that STUN is answered.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hairpin_tests::lab::server::{SECURE_PORT, is_coturn};
use hairpin_tests::lab::{Authority, Finished, Key, Namespace, Setup, Transport, process};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const NAME: &str = "turn.test";
const TRANSACTION: &[u8; 12] = b"twelve bytes";

#[test]
fn a_binding_request_is_answered_over_every_version() {
    let (host, authority) = (Namespace::new("interop"), Authority::new());
    for key in [Key::Rsa, Key::Ecdsa] {
        let certificate = authority.issue(key, NAME, &[V4, V6]);
        let both = [Transport::Tls, Transport::Dtls];
        let server = Setup::new(&[V4, V6]).transports(&both).certificates(&[certificate]).start(&host);
        for version in ["-tls1_2", "-tls1_3", "-dtls1_2"] {
            if is_coturn() && version == "-tls1_3" {
                eprintln!("skipped: coturn of Debian 12 does not speak TLS 1.3");
                continue;
            }
            for address in ["127.0.0.1", "[::1]"] {
                let mapped = binding(&host, address, version);
                let expected: IpAddr = if address == "[::1]" { V6 } else { V4 };
                assert_eq!(mapped, Some(expected), "{key:?} {version} {address}");
            }
        }
        server.stop();
    }
}

#[test]
fn the_certificate_is_the_one_of_the_name_that_was_asked_for() {
    if is_coturn() {
        eprintln!("skipped: coturn has one certificate only");
        return;
    }
    let (host, authority) = (Namespace::new("interop"), Authority::new());
    let names = [("one.test", Key::Rsa), ("other.test", Key::Ecdsa)];
    let certificates = names.map(|(name, key)| authority.issue(key, name, &[V4]));
    let server = Setup::new(&[V4]).transports(&[Transport::Tls]).certificates(&certificates).start(&host);
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, _) in names {
            let options = format!("{version} -servername {name} -verify_hostname {name}");
            let finished = handshake(&host, &trusting(&authority, &options));
            assert!(finished.stdout.contains(&format!("Verified peername: {name}")), "{finished}");
        }
        // Nobody in particular: any of them will do, as it has the address.
        let finished =
            handshake(&host, &trusting(&authority, &format!("{version} -noservername -verify_ip 127.0.0.1")));
        assert!(finished.stdout.contains("Verification: OK"), "{finished}");
    }
    server.stop();
}

#[test]
fn the_protocols_of_rfc_7443_are_negotiated() {
    let (host, authority) = (Namespace::new("interop"), Authority::new());
    let certificate = authority.issue(Key::Ecdsa, NAME, &[V4]);
    let server = Setup::new(&[V4]).transports(&[Transport::Tls]).certificates(&[certificate]).start(&host);
    for protocol in ["stun.turn", "stun.nat-discovery"] {
        let finished = handshake(&host, &trusting(&authority, &format!("-alpn {protocol}")));
        assert!(finished.stdout.contains(&format!("ALPN protocol: {protocol}")), "{finished}");
        // Of several it takes one that it knows.
        let finished = handshake(&host, &trusting(&authority, &format!("-alpn h2,{protocol}")));
        assert!(is_coturn() || finished.stdout.contains(&format!("ALPN protocol: {protocol}")), "{finished}");
    }
    // Who does not know of such protocols is served, too (RFC 7443 section 3).
    let finished = handshake(&host, &trusting(&authority, ""));
    assert!(finished.stdout.contains("No ALPN negotiated"), "{finished}");
    server.stop();
}

#[test]
fn old_versions_are_refused() {
    let (host, authority) = (Namespace::new("interop"), Authority::new());
    let certificate = authority.issue(Key::Ecdsa, NAME, &[V4]);
    let both = [Transport::Tls, Transport::Dtls];
    let server = Setup::new(&[V4]).transports(&both).certificates(&[certificate]).start(&host);
    // Without its own doubts about them OpenSSL still offers these.
    for version in ["-tls1", "-tls1_1", "-dtls1"] {
        let finished = handshake(&host, &format!("{version} -cipher DEFAULT@SECLEVEL=0"));
        assert_ne!(finished.code(), Some(0), "{version}: {finished}");
        assert!(finished.stdout.contains("Cipher is (NONE)"), "{version}: {finished}");
    }
    assert_eq!(binding(&host, "127.0.0.1", "-tls1_2"), Some(V4), "the others are served");
    server.stop();
}

fn trusting(authority: &Authority, options: &str) -> String {
    format!("{options} -verify_return_error -CAfile {}", authority.certificate().display())
}

/// Connects, and closes at once.
fn handshake(host: &Namespace, options: &str) -> Finished {
    let mut command = host.command("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{SECURE_PORT}")]).args(options.split_whitespace());
    process::run_for(&mut command, Duration::from_secs(10))
}

/// Sends a Binding request through the client, and reads its own address in the answer.
fn binding(host: &Namespace, address: &str, version: &str) -> Option<IpAddr> {
    let mut command = host.command("openssl");
    command.args(["s_client", "-quiet", version, "-connect", &format!("{address}:{SECURE_PORT}")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut client = command.spawn().expect("openssl is there, as it makes the certificates");
    let mut input = client.stdin.take().expect("just asked for a pipe");
    let mut output = client.stdout.take().expect("just asked for a pipe");
    // RFC 8489 section 5: a Binding request without attributes.
    let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], TRANSACTION].concat();
    let sent = input.write_all(&request).and_then(|()| input.flush());

    let (sender, answer) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut response = vec![0; 20];
        let read = output.read_exact(&mut response).and_then(|()| {
            response.resize(20 + usize::from(u16::from_be_bytes([response[2], response[3]])), 0);
            output.read_exact(&mut response[20..])
        });
        let _ = sender.send(read.map(|()| response));
    });
    // The pipe of standard input stays open: its end is the client's.
    let response = answer.recv_timeout(Duration::from_secs(10)).ok();
    let _ = client.kill();
    let _ = client.wait();
    let _ = reader.join();
    sent.ok()?;
    mapped_address(&response?.ok()?)
}

/// XOR-MAPPED-ADDRESS of a success response to the request of [`binding`] (RFC 8489 section 14.2).
fn mapped_address(response: &[u8]) -> Option<IpAddr> {
    let (header, mut attributes) = response.split_at_checked(20)?;
    assert_eq!((&header[..2], &header[8..]), (&[1, 1][..], &TRANSACTION[..]), "{response:02x?}");
    while let Some((&[a, b, c, d], rest)) = attributes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([c, d]));
        let value = rest.get(..length)?;
        if [a, b] == [0, 0x20] {
            let key = header[4..].iter();
            let plain: Vec<u8> = value.get(4..)?.iter().zip(key).map(|(byte, key)| byte ^ key).collect();
            let address = <[u8; 4]>::try_from(&*plain).map(IpAddr::from);
            return address.or_else(|_| <[u8; 16]>::try_from(&*plain).map(IpAddr::from)).ok();
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}
