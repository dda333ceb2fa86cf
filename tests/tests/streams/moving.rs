//! An allocation follows its client from address to address (RFC 8016), whichever shard those lead to.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin_client::{AllocateOptions, Client, Credentials, Options, Settings, TlsOptions, Transport, Trust};
use hairpin_tests::lab::Namespace;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{LISTEN, PASSWORD, PATIENCE, Server, USER, inside, local};

/// How often a client moves. That it never reaches another shard than before is as likely as to win the lottery twice.
const MOVES: u16 = 24;

#[test]
fn over_udp_data_goes_on_after_each_move() {
    moves(Transport::Udp, 2);
    moves(Transport::Udp, 4);
}

#[test]
fn over_tcp_data_goes_on_after_each_move() {
    moves(Transport::Tcp, 3);
}

#[test]
fn over_tls_data_goes_on_after_each_move() {
    moves(Transport::Tls, 3);
}

fn moves(transport: Transport, shards: u32) {
    let host = Namespace::new("moving");
    let server = Server::start(&host, &format!("{LISTEN} --mobility --shards {shards}"));
    inside(&host, async {
        let options = Options {
            transport,
            tls: (transport == Transport::Tls).then(|| TlsOptions::new(Trust::Anybody)),
            settings: Settings { credentials: Some(Credentials::new(USER, PASSWORD)), ..Settings::default() },
            ..Options::default()
        };
        let port = if transport == Transport::Tls { 5349 } else { 3478 };
        let client = Client::connect(local(port), options).await.expect("it listens");
        let options = AllocateOptions { mobility: true, ..AllocateOptions::default() };
        let relayed = client.allocate(options).await.expect("there is room").relayed[0];
        let (on_channel, permitted) = (Peer::new().await, Peer::new().await);
        client.bind_channel(on_channel.address()).await.expect("loopback is allowed");
        client.create_permission(&[permitted.address()]).await.expect("loopback is allowed");
        let mut peers = vec![on_channel, permitted];
        exchange(&client, &peers, relayed, 0).await;
        let mut before = client.local_addr().expect("it has an address");
        for number in 1..=MOVES {
            client.move_to(local(0)).await.unwrap_or_else(|error| panic!("move {number} over {transport}: {error}"));
            let now = client.local_addr().expect("it has an address");
            assert_ne!(now, before, "it has moved");
            before = now;
            exchange(&client, &peers, relayed, number).await;
            if number % 6 == 0 {
                let peer = Peer::new().await;
                client.create_permission(&[peer.address()]).await.expect("permissions are made after a move");
                if number % 12 == 0 {
                    client.bind_channel(peer.address()).await.expect("channels are bound after a move");
                }
                peers.push(peer);
                exchange(&client, &peers, relayed, number).await;
            }
        }
        client.refresh(None).await.expect("it is refreshed from where the client is now");
        client.release().await.expect("and ended");
    });
    let metrics = server.relay.wait_for("it has ended", |metrics| metrics.sum("hairpin_allocations", &[]) == 0);
    assert_eq!(metrics.sum("hairpin_relay_ports_in_use", &[]), 0);
    assert_eq!(metrics.dropped("userspace", "send_failed"), 0);
    server.relay.stop();
}

struct Peer(UdpSocket);

impl Peer {
    async fn new() -> Self {
        Self(UdpSocket::bind(local(0)).await.expect("a free port"))
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }
}

/// Sends a datagram to each peer and one back.
async fn exchange(client: &Client, peers: &[Peer], relayed: SocketAddr, number: u16) {
    for (at, peer) in peers.iter().enumerate() {
        let data = [&number.to_be_bytes()[..], &[at as u8; 30]].concat();
        client.send(peer.address(), &data).await.expect("the way is open");
        let mut received = [0; 100];
        let arrived = timeout(PATIENCE.min(Duration::from_secs(5)), peer.0.recv_from(&mut received)).await;
        let (length, from) = arrived.unwrap_or_else(|_| panic!("peer {at} gets nothing after move {number}")).unwrap();
        assert_eq!((&received[..length], from), (&data[..], relayed));
        peer.0.send_to(&data, relayed).await.expect("the way is open");
        let back = timeout(PATIENCE.min(Duration::from_secs(5)), client.recv()).await;
        let back = back.unwrap_or_else(|_| panic!("nothing of peer {at} comes back after move {number}"));
        let back = back.expect("the client runs");
        assert_eq!((back.peer, &back.payload), (peer.address(), &data));
    }
}
