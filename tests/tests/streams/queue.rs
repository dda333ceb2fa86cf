//! A client that does not read costs neither memory nor anybody else's time.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Namespace, Transport};

use super::{BOTH, LISTEN, PATIENCE, Server, local, small_buffers};

const CHANNEL: u16 = 0x4000;
/// What the peer sends: more than ten times of what all queues can hold.
const DATAGRAMS: u32 = 30_000;
const LENGTH: usize = 1000;
/// What a relay may grow by that queues 128 KiB for each of two clients: buffers of TLS and of the allocator included.
const GROWTH: u64 = 3 << 20;

#[test]
fn a_client_that_does_not_read_loses_the_newest_and_nobody_else_loses_anything() {
    let host = Namespace::new("queue");
    small_buffers(&host);
    let server = Server::start(&host, &format!("{LISTEN} --shards 1"));
    let peer = || host.enter(|| UdpSocket::bind(local(0))).expect("a free port");

    let slow = BOTH.map(|transport| {
        let (mut client, peer) = (server.client(transport), peer());
        let relayed = client.allocate().expect("there is room");
        client.bind_channel(CHANNEL, peer.local_addr().unwrap()).expect("loopback is allowed");
        peer.connect(relayed).expect("loopback is everywhere");
        (client, peer)
    });
    let others =
        [server.udp_client(), server.client(Transport::Tcp), server.client(Transport::Tls)].map(|mut client| {
            let peer = peer();
            let relayed = client.allocate().expect("there is room");
            client.bind_channel(CHANNEL, peer.local_addr().unwrap()).expect("loopback is allowed");
            peer.connect(relayed).expect("loopback is everywhere");
            (client, peer)
        });
    for (client, peer) in &others {
        echo(client, peer, 0);
    }

    let before = server.relay.memory();
    let is_over = AtomicBool::new(false);
    let echoed: u32 = thread::scope(|scope| {
        // Also when something below fails: the scope waits for the echoes.
        let over = Over(&is_over);
        for (_, peer) in &slow {
            scope.spawn(|| {
                for number in 0..DATAGRAMS {
                    let mut datagram = [0; LENGTH];
                    datagram[..4].copy_from_slice(&number.to_be_bytes());
                    // What the relay cannot take so fast its socket drops, as any would.
                    let _ = peer.send(&datagram);
                    if number % 50 == 49 {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        let echoes: Vec<_> = others
            .iter()
            .map(|(client, peer)| {
                scope.spawn(|| {
                    let mut number = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        number += 1;
                        echo(client, peer, number);
                    }
                    number
                })
            })
            .collect();
        let full =
            server.relay.wait_for("frames are dropped", |metrics| metrics.dropped("userspace", "queue_full") > 100);
        // Until the peers have sent it all.
        let end = Instant::now() + PATIENCE;
        let mut seen = full.dropped("userspace", "queue_full");
        loop {
            thread::sleep(Duration::from_millis(300));
            let now = server.relay.metrics().dropped("userspace", "queue_full");
            if now == seen || Instant::now() >= end {
                break;
            }
            seen = now;
        }
        drop(over);
        echoes.into_iter().map(|echo| echo.join().expect("no echo is lost")).sum()
    });
    assert!(echoed > 0);
    let after = server.relay.memory();
    assert!(after < before + GROWTH, "the relay has grown from {before} to {after} bytes");
    let dropped = server.relay.metrics().dropped("userspace", "queue_full");
    let sent = u64::from(2 * DATAGRAMS);
    assert!(dropped > sent / 10 && dropped < sent, "{dropped} of {sent} were dropped");

    for (client, peer) in &slow {
        let numbers: Vec<u32> = std::iter::from_fn(|| client.receive_on_channel(Duration::from_millis(500)))
            .map(|(channel, data)| {
                assert_eq!((channel, data.len()), (CHANNEL, LENGTH));
                assert!(data[4..].iter().all(|byte| *byte == 0), "a frame is whole");
                u32::from_be_bytes([data[0], data[1], data[2], data[3]])
            })
            .collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "frames come in order: {numbers:?}");
        assert_eq!(numbers.first(), Some(&0), "the oldest are kept");
        // At least what the queue holds of 128 KiB.
        assert!(numbers.len() >= 120, "{} frames were kept", numbers.len());
        // And it can go on.
        echo(client, peer, 7);
    }
    server.relay.stop();
}

/// Ends the echoes when it is dropped.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends a datagram to the peer and back.
#[track_caller]
pub(super) fn echo(client: &Client, peer: &UdpSocket, number: u32) {
    let data = [&number.to_be_bytes()[..], &[0xec; 60]].concat();
    client.send_on_channel(CHANNEL, &data);
    peer.set_read_timeout(Some(PATIENCE)).expect("a valid time");
    let mut received = [0; 2048];
    let length = peer.recv(&mut received).expect("what the client sends arrives");
    assert_eq!(received[..length], data);
    peer.send(&received[..length]).expect("the way to the relay is open");
    assert_eq!(client.receive_on_channel(PATIENCE), Some((CHANNEL, data)), "what the peer sends arrives");
}
