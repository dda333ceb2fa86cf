//! Connections through a load balancer, which says first for whom they are (PROXY protocol, version 2).

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use hairpin_tests::lab::stream::connect;
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Namespace, Stream, Transport};

use super::{BOTH, LISTEN, PASSWORD, PATIENCE, Server, USER, at, binding, mapped};

const TRUSTED: &str = "--proxy-protocol 127.0.0.1/32";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2: u8 = 0x20;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

#[test]
fn the_client_is_who_the_load_balancer_says() {
    let host = Namespace::new("proxy");
    let server = Server::start(&host, &format!("{LISTEN} {TRUSTED}"));
    for transport in BOTH {
        for client in ["198.51.100.7:4711", "[2001:db8::7]:4712"] {
            let client: SocketAddr = client.parse().unwrap();
            // In one piece with what follows, in two, and in many.
            for size in [usize::MAX, 16, 1] {
                let mut stream = proxied(&host, transport, &header(client), size);
                assert_eq!(mapped(&mut stream), client, "{transport:?} in pieces of {size}");
                assert_eq!(mapped(&mut stream), client, "{transport:?} in pieces of {size}");
                stream.finish();
                assert!(stream.ends(PATIENCE));
                // The next connection is for the same client.
                server.relay.wait_for("it is gone", |metrics| metrics.sum("hairpin_connections", &[]) == 0);
            }
        }
        let mut client = Client::over(
            proxied(&host, transport, &header("198.51.100.8:5".parse().unwrap()), usize::MAX),
            USER,
            PASSWORD,
        );
        client.allocate().expect("such a client is like any other");
        assert_eq!(client.refresh(600), Ok(600));
    }
    server.relay.stop();
}

#[test]
fn the_header_and_the_first_message_may_come_in_one_segment() {
    let host = Namespace::new("proxy");
    let server = Server::start(&host, &format!("{LISTEN} {TRUSTED}"));
    let client: SocketAddr = "198.51.100.7:4711".parse().unwrap();
    let mut stream = Stream::on(connect(&host, at(Transport::Tcp)), Transport::Tcp);
    stream.send(&[header(client), binding(5)].concat());
    assert_eq!(super::expect_answer(&mut stream, 5), client);
    server.relay.stop();
}

#[test]
fn a_health_check_is_the_load_balancers_own() {
    let host = Namespace::new("proxy");
    let server = Server::start(&host, &format!("{LISTEN} {TRUSTED}"));
    for transport in BOTH {
        // LOCAL; with addresses, which are to be ignored, and without.
        let addresses = &header("198.51.100.7:4711".parse().unwrap())[16..];
        for (family, addresses) in [(0, &[][..]), (0x11, addresses)] {
            let mut stream = proxied(&host, transport, &head(LOCAL, family, addresses), 3);
            assert_eq!(mapped(&mut stream), stream.local(), "{transport:?}");
        }
    }
    server.relay.stop();
}

#[test]
fn what_a_load_balancer_must_not_send_is_closed() {
    let host = Namespace::new("proxy");
    let server = Server::start(&host, &format!("{LISTEN} {TRUSTED}"));
    let client = header("198.51.100.7:4711".parse().unwrap());
    let mut version_3 = client.clone();
    version_3[12] = 0x31;
    let mut command_2 = client.clone();
    command_2[12] = VERSION_2 | 2;
    // Longer than anybody needs.
    let endless = head(PROXY, 0x11, &[0; 5000]);
    let bad: [&[u8]; 6] = [
        &binding(1),
        b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 3478\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &version_3,
        &command_2,
        &endless[..4500],
    ];
    for bytes in bad {
        for transport in BOTH {
            let mut socket = connect(&host, at(transport));
            socket.write_all(bytes).expect("a connection that was just made takes that");
            let mut stream = Stream::on(socket, Transport::Tcp);
            assert!(stream.ends(PATIENCE), "{transport:?}: {bytes:02x?}");
        }
    }
    server.expect_ended("proxy_header", 12);
    server.relay.stop();
}

#[test]
fn who_is_not_trusted_is_not_believed() {
    let host = Namespace::new("proxy");
    let server = Server::start(&host, &format!("{LISTEN} --proxy-protocol 127.0.0.2/32"));
    for transport in BOTH {
        let mut socket = connect(&host, at(transport));
        socket.write_all(&header("198.51.100.7:4711".parse().unwrap())).expect("it is open");
        assert!(Stream::on(socket, Transport::Tcp).ends(PATIENCE));
        let mut stream = server.connect(transport);
        assert_eq!(mapped(&mut stream), stream.local(), "without a header it is served");
    }
    server.expect_ended("not_turn", 2);
    server.relay.stop();
}

#[test]
fn clients_behind_a_load_balancer_are_counted_by_their_own_address() {
    let host = Namespace::new("proxy");
    let server = Server::start(&host, &format!("{LISTEN} {TRUSTED} --shards 1 --max-new-connections-per-source 2"));
    let of = |client: &str| proxied(&host, Transport::Tcp, &header(client.parse().unwrap()), usize::MAX);
    let mut first = ["198.51.100.7:1", "198.51.100.7:2", "198.51.100.8:1"].map(of);
    for stream in &mut first {
        mapped(stream);
    }
    let mut third = of("198.51.100.7:3");
    third.offer(&binding(1));
    assert!(third.ends(PATIENCE));
    // The same address and port twice at a time: only one of them can have the answers.
    let mut twice = of("198.51.100.8:1");
    twice.offer(&binding(1));
    assert!(twice.ends(PATIENCE));
    server.expect_ended("too_many", 2);
    for stream in &mut first {
        mapped(stream);
    }
    server.relay.stop();
}

/// A connection that begins with these bytes, in pieces.
fn proxied(host: &Namespace, transport: Transport, header: &[u8], size: usize) -> Stream {
    let mut socket: TcpStream = connect(host, at(transport));
    socket.set_nodelay(true).expect("a socket of TCP");
    for piece in header.chunks(size) {
        socket.write_all(piece).expect("it is open");
        if piece.len() < header.len() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    Stream::on(socket, transport)
}

fn header(client: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match client {
        SocketAddr::V4(client) => (0x11, [&client.ip().octets()[..], &[192, 0, 2, 1]].concat()),
        SocketAddr::V6(client) => (0x21, [client.ip().octets(), [1; 16]].concat()),
    };
    let ports = [client.port().to_be_bytes(), 3478_u16.to_be_bytes()].concat();
    head(PROXY, family, &[addresses, ports].concat())
}

fn head(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a short header").to_be_bytes();
    [&SIGNATURE[..], &[VERSION_2 | command, family], &length, rest].concat()
}
