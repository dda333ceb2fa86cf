//! What comes over a connection, and when one is closed.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::stream::connect;
use hairpin_tests::lab::turn::channel_data;
use hairpin_tests::lab::{Namespace, Stream, Transport};

use super::{BOTH, LISTEN, PATIENCE, Server, at, binding, expect_answer, local, mapped};

/// All transports on one port.
const ONE_PORT: &str = "--listen tcp:127.0.0.1:3478 --listen tls:127.0.0.1:3478 --listen udp:127.0.0.1:3478 \
                        --listen dtls:127.0.0.1:3478";

#[test]
fn tls_and_plain_tcp_are_told_apart_on_one_port() {
    let host = Namespace::new("streams");
    let server = Server::start(&host, ONE_PORT);
    let mut streams = [Transport::Tcp, Transport::Tls, Transport::Tcp, Transport::Tls]
        .map(|transport| Stream::connect(&host, local(3478), transport));
    for stream in &mut streams {
        assert_eq!(mapped(stream), stream.local());
    }
    let mut udp = server.udp_client();
    udp.allocate().expect("UDP is served on the same port");
    let metrics = server.relay.metrics();
    for (transport, count) in [("tcp", 2), ("tls", 2), ("dtls", 0)] {
        for family in ["hairpin_connections_begun_total", "hairpin_connections"] {
            assert_eq!(metrics.sum(family, &[("transport", transport)]), count, "{family} {transport}");
        }
    }
    server.relay.stop();
}

#[test]
fn what_is_neither_turn_nor_tls_is_closed_and_counted() {
    let host = Namespace::new("streams");
    let server = Server::start(&host, ONE_PORT);
    let mut cookie = binding(7);
    cookie[4] ^= 1;
    let mut uneven = binding(7);
    uneven[3] = 2;
    // These begin as ChannelData does, which nobody begins with.
    let first: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: turn.test\r\n\r\n",
        b"HEAD / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &[0x40, 0, 0, 0],
    ];
    let nonsense: [&[u8]; 5] = [b"\r\n\r\n", &[0xff; 100], &[0x80], &cookie, &uneven];
    let mut count = 0;
    for transport in BOTH {
        for bytes in nonsense.into_iter().chain(first) {
            for begins in [true, false] {
                if !begins && first.contains(&bytes) {
                    continue;
                }
                let mut stream = Stream::connect(&host, local(3478), transport);
                if !begins {
                    assert_eq!(mapped(&mut stream), stream.local());
                }
                stream.send(bytes);
                assert!(stream.ends(PATIENCE), "{transport:?} {bytes:02x?}");
                count += 1;
            }
        }
    }
    server.expect_ended("not_turn", count);
    // What begins as TLS and is none.
    for bytes in [&[22, 3, 1, 0, 4, 99, 0, 0, 0][..], &[22, 9, 9, 0xff, 0xff, 1]] {
        let mut stream = Stream::connect(&host, local(3478), Transport::Tcp);
        stream.send(bytes);
        assert!(stream.ends(PATIENCE), "{bytes:02x?}");
    }
    server.expect_ended("tls", 2);
    let metrics = server.relay.wait_for("all are gone", |metrics| metrics.sum("hairpin_new_connections", &[]) == 0);
    assert_eq!(metrics.sum("hairpin_connections", &[]), 0);
    server.relay.stop();
}

#[test]
fn a_listener_speaks_only_what_it_is_for() {
    let host = Namespace::new("streams");
    let server = Server::start(&host, LISTEN);
    for (transport, other) in [(Transport::Tcp, Transport::Tls), (Transport::Tls, Transport::Tcp)] {
        let mut stream = Stream::connect(&host, at(transport), other);
        stream.offer(&binding(1));
        assert!(stream.ends(PATIENCE), "{other:?} where {transport:?} is spoken");
        let mut stream = server.connect(transport);
        assert_eq!(mapped(&mut stream), stream.local());
    }
    server.expect_ended("not_turn", 2);
    server.relay.stop();
}

#[test]
fn a_message_in_single_bytes_is_answered() {
    let host = Namespace::new("streams");
    let server = Server::start(&host, LISTEN);
    for transport in BOTH {
        let mut stream = server.connect(transport);
        for number in 0..3 {
            for byte in binding(number) {
                stream.send(&[byte]);
                // Most of them in a segment, and for TLS in a record, of their own.
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(expect_answer(&mut stream, number), stream.local(), "{transport:?}");
        }
    }
    server.relay.stop();
}

#[test]
fn many_messages_in_one_segment_are_answered_in_order() {
    let host = Namespace::new("streams");
    let server = Server::start(&host, LISTEN);
    for transport in BOTH {
        let mut stream = server.connect(transport);
        // The last one ends in the next segment.
        let all: Vec<u8> = (0..200).flat_map(binding).collect();
        let (first, rest) = all.split_at(all.len() - 7);
        stream.send(first);
        for number in 0..199 {
            expect_answer(&mut stream, number);
        }
        assert_eq!(stream.receive(Duration::from_millis(50)), None, "{transport:?}: there is no whole request");
        stream.send(rest);
        expect_answer(&mut stream, 199);
    }
    server.relay.stop();
}

#[test]
fn a_stranger_may_not_begin_a_long_message_and_a_client_may() {
    let host = Namespace::new("streams");
    let server = Server::start(&host, LISTEN);
    let peer = host.enter(|| std::net::UdpSocket::bind("127.0.0.1:0")).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    for (transport, strangers) in BOTH.into_iter().zip([1, 2]) {
        let mut stranger = server.connect(transport);
        let mut long = binding(1);
        long[2..4].copy_from_slice(&8000_u16.to_be_bytes());
        long.resize(4500, 0);
        stranger.send(&long);
        assert!(stranger.ends(PATIENCE), "{transport:?}");
        server.expect_ended("not_turn", strangers);

        let mut client = server.client(transport);
        client.allocate().expect("there is room");
        client.bind_channel(0x4000, peer.local_addr().unwrap()).expect("loopback is allowed");
        let data: Vec<u8> = (0..60_000_u32).map(|at| (at % 251) as u8).collect();
        let message = channel_data(0x4000, &data);
        for piece in message.chunks(10_000) {
            client.send(piece);
            thread::sleep(Duration::from_millis(2));
        }
        let mut received = vec![0; 65_536];
        let (length, relayed) = peer.recv_from(&mut received).expect("all of it arrives");
        assert!(received[..length] == data, "{transport:?}: it arrives as it was");
        peer.send_to(&data, relayed).unwrap();
        let (channel, back) = client.receive_on_channel(PATIENCE).expect("all of it comes back");
        assert!(channel == 0x4000 && back == data, "{transport:?}: it comes back as it was");
    }
    server.relay.stop();
}

#[test]
fn a_closed_connection_ends_its_allocation() {
    let host = Namespace::new("streams");
    let server = Server::start(&host, LISTEN);
    for (transport, count) in BOTH.into_iter().zip([1, 2]) {
        let mut client = server.client(transport);
        let port = client.allocate().expect("there is room").port();
        assert_eq!(host.udp_sockets(port), 1);
        let metrics = server.relay.metrics();
        assert_eq!(metrics.sum("hairpin_allocations", &[]), 1);
        assert_eq!(metrics.sum("hairpin_new_connections", &[]), 0, "it has an allocation");
        let mut stream = client.into_stream();
        stream.finish();
        assert!(stream.ends(PATIENCE));
        assert!(!stream.is_broken(), "{transport:?} is closed in order");
        server.expect_ended("client", count);
        let metrics = server.relay.wait_for("it is gone", |metrics| metrics.sum("hairpin_allocations", &[]) == 0);
        assert_eq!(metrics.sum("hairpin_connections", &[]), 0);
        assert_eq!(metrics.sum("hairpin_relay_ports_in_use", &[]), 0);
        assert_eq!(host.udp_sockets(port), 0, "its port is free");
    }
    server.relay.stop();
}

/// Ten seconds are long; the other tests run meanwhile.
#[test]
fn who_sends_no_whole_message_in_ten_seconds_is_closed() {
    let host = Namespace::new("streams");
    let server = Server::start(&host, LISTEN);
    let begin = Instant::now();
    let open = |transport: Transport, bytes: &[u8]| {
        let mut socket = connect(&host, at(transport));
        socket.write_all(bytes).expect("a connection that was just made takes that");
        Stream::on(socket, Transport::Tcp)
    };
    // Over TLS: the beginning of a handshake, its first half, and all of it with nothing behind.
    let mut half = server.connect(Transport::Tls);
    half.offer(&[]);
    let mut whole = server.connect(Transport::Tls);
    whole.send(&binding(1)[..19]);
    let mut all = [
        ("one byte", open(Transport::Tcp, &[0])),
        ("a message but for its end", open(Transport::Tcp, &binding(1)[..19])),
        ("the head of a record", open(Transport::Tls, &[22, 3, 1, 2, 0, 1])),
        ("half of a handshake", half),
        ("a handshake and the beginning of a message", whole),
    ];
    server.relay.wait_for("all are there", |metrics| metrics.sum("hairpin_new_connections", &[]) == 5);
    for (what, stream) in &mut all {
        let limit = Duration::from_secs(30);
        // The one in the middle of the handshake must not go on with it.
        let ended = if what.starts_with("half") { true } else { stream.ends(limit) };
        assert!(ended, "{what}");
        assert!(begin.elapsed() >= Duration::from_secs(10), "{what}: {:?}", begin.elapsed());
    }
    server.expect_ended("timeout", 5);
    let metrics = server.relay.wait_for("none is left", |metrics| metrics.sum("hairpin_new_connections", &[]) == 0);
    assert_eq!(metrics.sum("hairpin_connections", &[]), 0);
    server.relay.stop();
}
