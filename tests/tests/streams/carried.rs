//! TCP relayed end to end (RFC 6062): nothing is lost, nothing is kept for a slow reader, and both ends end together.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{ConnectionId, RequestedTransport, XorPeerAddress, XorRelayedAddress};
use hairpin_proto::stun::{Class, Message};
use hairpin_tests::lab::stream::connect;
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Namespace, Stream, Transport};

use super::{BOTH, LISTEN, PASSWORD, PATIENCE, Server, USER, local, small_buffers};

const TCP: u8 = 6;
const AMOUNT: usize = 4 << 20;
const PIECE: usize = 32 << 10;
/// What a relay may grow by: it reads 64 KiB at once, in each direction.
const GROWTH: u64 = 2 << 20;

#[test]
fn all_bytes_arrive_both_ways_at_once_and_none_wait_in_the_relay() {
    let host = Namespace::new("carried");
    small_buffers(&host);
    let server = Server::start(&host, &format!("{LISTEN} --tcp-relay --shards 1"));
    for transport in BOTH {
        let mut control = server.client(transport);
        allocate(&mut control);
        let before = server.relay.memory();
        for (client_waits, peer_waits) in [(false, false), (true, false), (false, true)] {
            let (client, peer) = joined(&server, &mut control, transport);
            let mut ends = [(client, 1, 2, client_waits), (peer, 2, 1, peer_waits)];
            let mut after = thread::scope(|scope| {
                let running = ends.each_mut().map(|(stream, sends, gets, waits)| {
                    let memory = || server.relay.memory();
                    scope.spawn(move || transfer(stream, *sends, *gets, *waits, memory))
                });
                running.map(|end| end.join().expect("nothing is lost"))
            });
            after.sort_unstable();
            let grown = after[1].saturating_sub(before);
            let case = format!("{transport:?}, client waits: {client_waits}, peer waits: {peer_waits}");
            assert!(grown < GROWTH, "{case}: grown by {grown} bytes");
        }
    }
    let metrics = server.relay.metrics();
    for direction in ["to_peer", "to_client"] {
        let carried = metrics.sum("hairpin_tcp_relayed_bytes_total", &[("direction", direction)]);
        assert_eq!(carried, 6 * AMOUNT as u64, "{direction}");
    }
    server.relay.stop();
}

#[test]
fn when_the_peer_closes_the_client_gets_everything_first() {
    let host = Namespace::new("carried");
    let server = Server::start(&host, &format!("{LISTEN} --tcp-relay"));
    for transport in BOTH {
        let mut control = server.client(transport);
        allocate(&mut control);
        let (mut client, mut peer) = joined(&server, &mut control, transport);
        closes(&mut peer, &mut client);
        assert_eq!(control.refresh(600), Ok(600), "the allocation stays");
    }
    server.expect_ended("finished", 2);
    server.relay.wait_for("no peer is left", |metrics| metrics.sum("hairpin_peer_connections", &[]) == 0);
    server.relay.stop();
}

#[test]
fn when_the_client_closes_the_peer_gets_everything_first() {
    let host = Namespace::new("carried");
    let server = Server::start(&host, &format!("{LISTEN} --tcp-relay"));
    for transport in BOTH {
        let mut control = server.client(transport);
        allocate(&mut control);
        let (mut client, mut peer) = joined(&server, &mut control, transport);
        closes(&mut client, &mut peer);
        assert_eq!(control.refresh(600), Ok(600), "the allocation stays");
    }
    // With those that had the allocations.
    server.expect_ended("client", 4);
    server.relay.wait_for("no peer is left", |metrics| metrics.sum("hairpin_peer_connections", &[]) == 0);
    server.relay.stop();
}

/// A server that closes its socket with something unread in it resets the connection, and what it sent before is lost.
#[test]
fn who_goes_on_sending_gets_everything_that_the_other_end_had_sent_when_it_closed() {
    let host = Namespace::new("carried");
    let server = Server::start(&host, &format!("{LISTEN} --tcp-relay"));
    for transport in BOTH {
        let mut control = server.client(transport);
        allocate(&mut control);
        let (client, mut peer) = joined(&server, &mut control, transport);
        let sender = thread::spawn(move || {
            send(&mut peer, 3, AMOUNT);
            peer.finish();
            // Reads what the client sends, as long as it does.
            peer.ends(PATIENCE);
        });
        gets_everything(client, transport);
        sender.join().expect("the peer has sent everything");

        let (mut client, peer) = joined(&server, &mut control, transport);
        let sender = thread::spawn(move || {
            send(&mut client, 3, AMOUNT);
            client.finish();
            client.ends(PATIENCE);
        });
        gets_everything(peer, transport);
        sender.join().expect("the client has sent everything");
    }
    server.relay.wait_for("no peer is left", |metrics| metrics.sum("hairpin_peer_connections", &[]) == 0);
    server.relay.stop();
}

/// One end reads everything, goes on sending, and then is closed.
fn gets_everything(mut stream: Stream, transport: Transport) {
    let mut received = 0;
    while received < AMOUNT {
        stream.offer(&[9; 1000]);
        let bytes = stream.read(PIECE, PATIENCE).expect("it goes on");
        assert!(!bytes.is_empty(), "{transport:?}: the end after {received} of {AMOUNT} bytes");
        received = check(&bytes, 3, received);
    }
}

#[test]
fn every_data_connection_finds_its_allocation_whichever_shard_it_reaches() {
    let host = Namespace::new("carried");
    let server = Server::start(&host, &format!("{LISTEN} --tcp-relay --shards 2"));
    for transport in BOTH {
        let mut control = server.client(transport);
        let relayed = allocate(&mut control);
        let mut ends: Vec<_> = (0..16).map(|_| joined(&server, &mut control, transport)).collect();
        // And those that the peers begin.
        control.permit([127, 0, 0, 1].into()).expect("loopback is allowed");
        for _ in 0..8 {
            let peer = Stream::on(connect(&host, relayed), Transport::Tcp);
            let attempt = control.receive(PATIENCE).expect("a peer has connected");
            let attempt = Message::parse(&attempt).expect("an indication");
            assert_eq!((attempt.class(), attempt.method()), (Class::Indication, Method::CONNECTION_ATTEMPT));
            let from = attempt.attribute().ok().flatten().map(|XorPeerAddress(from)| from);
            assert_eq!(from, Some(peer.local()));
            let id = attempt.attribute().ok().flatten().expect("it has a name");
            ends.push((bind(&server, transport, id), peer));
        }
        let metrics = server.relay.metrics();
        assert_eq!(metrics.sum("hairpin_peer_connections", &[]), 24);
        assert_eq!(metrics.sum("hairpin_allocations", &[]), 1);
        for (client, peer) in &mut ends {
            client.send(b"whichever shard");
            assert_eq!(peer.read(100, PATIENCE).as_deref(), Some(&b"whichever shard"[..]), "{transport:?}");
            peer.send(b"it has come from");
            assert_eq!(client.read(100, PATIENCE).as_deref(), Some(&b"it has come from"[..]), "{transport:?}");
        }
        // All of them end with the allocation.
        assert_eq!(control.refresh(0), Ok(0));
        for (client, peer) in &mut ends {
            assert!(client.ends(PATIENCE) && peer.ends(PATIENCE), "{transport:?}");
        }
        server.relay.wait_for("no peer is left", |metrics| metrics.sum("hairpin_peer_connections", &[]) == 0);
    }
    server.relay.stop();
}

/// Allocates a relayed address of TCP.
fn allocate(control: &mut Client) -> SocketAddr {
    let response = control.request(Method::ALLOCATE, |message| message.with(&RequestedTransport(TCP)));
    let relayed = response.expect("there is room").get(|message| message.attribute().ok().flatten());
    relayed.map(|XorRelayedAddress(relayed)| relayed).expect("an allocation has a relayed address")
}

/// A connection of the client to a peer: the client's end and the peer's.
fn joined(server: &Server<'_>, control: &mut Client, transport: Transport) -> (Stream, Stream) {
    let listener = server.host.enter(|| TcpListener::bind(local(0))).expect("a free port");
    let peer = XorPeerAddress(listener.local_addr().expect("it is bound"));
    let response = control.request(Method::CONNECT, |message| message.with(&peer)).expect("the peer listens");
    let id = response.get(|message| message.attribute().ok().flatten()).expect("it has a name");
    let (socket, _) = listener.accept().expect("the relay has connected");
    (bind(server, transport, id), Stream::on(socket, Transport::Tcp))
}

fn bind(server: &Server<'_>, transport: Transport, id: ConnectionId) -> Stream {
    let mut data = Client::over(server.connect(transport), USER, PASSWORD);
    data.request(Method::CONNECTION_BIND, |message| message.with(&id)).expect("it waits for that");
    data.into_stream()
}

/// The bytes of a stream, each of which tells where it belongs.
fn byte(seed: u8, at: usize) -> u8 {
    seed.wrapping_add((at % 251) as u8)
}

/// Checks that bytes are those from a place on; returns the next place.
#[track_caller]
fn check(bytes: &[u8], seed: u8, from: usize) -> usize {
    let wrong = bytes.iter().zip(from..).find(|(is, at)| **is != byte(seed, *at));
    assert_eq!(wrong, None, "stream {seed}");
    from + bytes.len()
}

fn send(stream: &mut Stream, seed: u8, amount: usize) {
    let bytes: Vec<u8> = (0..amount).map(|at| byte(seed, at)).collect();
    stream.send(&bytes);
}

/// Sends one stream and gets another. One who waits begins to read when it can send no more, as the other one does not
/// get on either. Returns the most memory that the relay was seen to use.
fn transfer(stream: &mut Stream, sends: u8, gets: u8, waits: bool, memory: impl Fn() -> u64) -> u64 {
    let all: Vec<u8> = (0..AMOUNT).map(|at| byte(sends, at)).collect();
    let (mut sent, mut received, mut most) = (0, 0, memory());
    let end = Instant::now() + PATIENCE;
    let mut last_progress = Instant::now();
    let mut reads = !waits;
    while sent < AMOUNT || received < AMOUNT || !stream.offer(&[]) {
        assert!(Instant::now() < end, "{sends}: {sent} bytes were sent, {received} have come");
        if stream.offer(&[]) && sent < AMOUNT {
            let piece = &all[sent..AMOUNT.min(sent + PIECE)];
            stream.offer(piece);
            sent += piece.len();
            last_progress = Instant::now();
        }
        if reads && let Some(bytes) = stream.read(PIECE, Duration::ZERO) {
            assert!(!bytes.is_empty(), "{gets}: the end after {received} bytes");
            received = check(&bytes, gets, received);
        } else if !reads && last_progress.elapsed() > Duration::from_millis(300) {
            most = most.max(memory());
            reads = true;
        }
    }
    most.max(memory())
}

/// One end sends and closes; the other, which reads later, gets everything, then the end.
fn closes(from: &mut Stream, to: &mut Stream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            send(from, 5, AMOUNT);
            from.finish();
        });
        thread::sleep(Duration::from_millis(300));
        let mut received = 0;
        while received < AMOUNT {
            let bytes = to.read(PIECE, PATIENCE).expect("it goes on");
            assert!(!bytes.is_empty(), "the end after {received} of {AMOUNT} bytes");
            received = check(&bytes, 5, received);
        }
        assert_eq!(to.read(PIECE, PATIENCE), Some(Vec::new()), "then it is closed");
        assert!(!to.is_broken(), "in order");
    });
    to.finish();
    assert!(from.ends(PATIENCE), "the other end is closed, too");
}
