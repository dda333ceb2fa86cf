//! Clients that move (RFC 8016) while the kernel forwards for them: where their data goes, and that none is lost.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hairpin_tests::lab::call::{CHANNEL, bind, receive};
use hairpin_tests::lab::framing::settle;
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Call, Family, Lab, Metrics, Relay};

const OPTIONS: [&str; 3] = ["--xdp", "native", "--mobility"];
const PATIENCE: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(300);
/// As long as the kernel takes for a datagram, on a busy machine.
const NOW: Duration = Duration::from_millis(50);
/// For what should have come already.
const SOON: Duration = Duration::from_millis(1);
/// Between the datagrams of a busy peer.
const PAUSE: Duration = Duration::from_micros(500);

/// A call of the first client host, with a ticket.
struct Mobile {
    client: Client,
    relayed: SocketAddr,
    ticket: Vec<u8>,
    peer: UdpSocket,
}

impl Mobile {
    fn new(lab: &Lab, relay: &Relay<'_>, family: Family) -> Self {
        let here = SocketAddr::new(Lab::client_ip(family, 0), 0);
        let mut client = Client::new(&lab.clients[0], here, server(family), USER, PASSWORD);
        let (relayed, ticket) = client.allocate_mobile().expect("the relay has room, and lets clients move");
        let peer = bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(family, 0), 0));
        peer.connect(relayed).expect("the lab has a route");
        client.bind_channel(CHANNEL, peer.local_addr().expect("it is bound")).expect("a peer of the lab is allowed");
        let flows = |metrics: &Metrics| metrics.sum("hairpin_flows", &[]) == Call::FLOWS;
        relay.wait_for("the channel is in the kernel", flows);
        Self { client, relayed, ticket, peer }
    }

    /// The client on another of the client hosts, with its allocation.
    fn moved(&mut self, lab: &Lab, host: u8) -> Client {
        let ip: IpAddr = Lab::client_ip(if self.relayed.is_ipv4() { Family::V4 } else { Family::V6 }, host);
        let server = SocketAddr::new(self.server_ip(), PORT);
        let mut there = self.client.elsewhere(&lab.clients[usize::from(host)], SocketAddr::new(ip, 0), server);
        self.ticket = there.move_here(&self.ticket).expect("the ticket is good");
        there
    }

    fn server_ip(&self) -> IpAddr {
        Lab::relay_ip(if self.relayed.is_ipv4() { Family::V4 } else { Family::V6 })
    }
}

fn server(family: Family) -> SocketAddr {
    SocketAddr::new(Lab::relay_ip(family), PORT)
}

/// Sends a datagram each way.
#[track_caller]
fn exchange(client: &Client, peer: &UdpSocket, data: &[u8]) {
    client.send_on_channel(CHANNEL, data);
    assert_eq!(receive(peer, PATIENCE).as_deref(), Some(data), "what the peer got");
    peer.send(data).expect("the way to the relay is open");
    assert_eq!(client.receive_on_channel(PATIENCE), Some((CHANNEL, data.to_vec())), "what the client got");
}

fn relayed(metrics: &Metrics) -> [u64; 2] {
    ["kernel", "userspace"].map(|path| metrics.relayed(path))
}

#[test]
fn the_kernel_follows_with_the_first_data_and_not_before() {
    let lab = Lab::routed_with(2, 1);
    let relay = Relay::start(&lab.relay, &OPTIONS);
    for family in Family::ALL {
        let mut call = Mobile::new(&lab, &relay, family);
        exchange(&call.client, &call.peer, b"before");
        let mut there = call.moved(&lab, 1);
        assert_ne!(there.local().ip(), call.client.local().ip());

        // The answer may have been lost: until the new address is heard of by data, the old one is the client's.
        let before = relayed(&relay.metrics());
        exchange(&call.client, &call.peer, b"still here");
        let after = relayed(&relay.metrics());
        assert_eq!((after[0] - before[0], after[1] - before[1]), (2, 0), "{family:?}: by the kernel");

        // With that, all goes there. What a peer sends in the moment before the kernel knows is still for the old address.
        there.send_on_channel(CHANNEL, b"here now");
        assert_eq!(receive(&call.peer, PATIENCE).as_deref(), Some(&b"here now"[..]), "{family:?}");
        let late = (0..10).find(|_| {
            call.peer.send(b"where?").expect("the way to the relay is open");
            let is_there = there.receive_on_channel(NOW).is_some();
            assert!(is_there || call.client.receive_on_channel(NOW).is_some(), "{family:?}: at neither address");
            is_there
        });
        assert!(late.is_some(), "{family:?}: the peer's datagrams still go to the old address");
        settle(&relay, || exchange(&there, &call.peer, b"userspace or kernel"));
        let before = relayed(&relay.metrics());
        for _ in 0..10 {
            exchange(&there, &call.peer, b"kernel");
        }
        let after = relayed(&relay.metrics());
        assert_eq!((after[0] - before[0], after[1] - before[1]), (20, 0), "{family:?}: by the kernel again");

        // The old address is a stranger's: nothing comes there, and nothing from there goes on.
        let before = relay.metrics();
        call.client.send_on_channel(CHANNEL, b"from the old address");
        call.client.send_indication(call.peer.local_addr().expect("it is bound"), b"and an indication");
        assert_eq!(receive(&call.peer, QUIET), None, "{family:?}: the peer must get nothing of it");
        assert_eq!(call.client.receive(QUIET), None, "{family:?}: nor the old address anything");
        let after = relay.metrics();
        let ended = |metrics: &Metrics| metrics.dropped("userspace", "no_allocation");
        assert_eq!((relayed(&after), ended(&after) - ended(&before)), (relayed(&before), 2), "{family:?}");

        assert_eq!(there.refresh(0), Ok(0));
        relay.wait_for("nothing is left", |metrics| metrics.sum("hairpin_flows", &[]) == 0);
    }
    relay.stop();
}

#[test]
fn a_peer_that_sends_all_the_time_loses_nothing_while_its_client_moves() {
    const MOVES: u8 = 12;
    /// Should the test fail, the peer rests at last.
    const MOST: u32 = 20_000;
    let lab = Lab::routed_with(2, 1);
    let relay = Relay::start(&lab.relay, &OPTIONS);
    for family in Family::ALL {
        let mut call = Mobile::new(&lab, &relay, family);
        let (relay_before, peer) = (relay.metrics(), call.peer.try_clone().expect("a file more"));
        let over = AtomicBool::new(false);
        let (sent, received, told) = thread::scope(|scope| {
            let busy = scope.spawn(|| {
                let mut sent = 0_u32;
                while !over.load(Ordering::Relaxed) && sent < MOST {
                    peer.send(&sent.to_be_bytes()).expect("the way to the relay is open");
                    sent += 1;
                    thread::sleep(PAUSE);
                }
                sent
            });
            let (mut received, mut left, mut told) = (Vec::new(), Vec::new(), 0);
            for step in 0..MOVES {
                let there = call.moved(&lab, 1 - step % 2);
                // The client's own first may be lost, as any datagram, and then all is as before.
                let first = (0..5).find_map(|_| {
                    there.send_on_channel(CHANNEL, &[step]);
                    told += 1;
                    there.receive_on_channel(NOW)
                });
                received.push(first.expect("the peer never rests").1);
                for _ in 0..20 {
                    received.push(there.receive_on_channel(PATIENCE).expect("the peer never rests").1);
                }
                let here = std::mem::replace(&mut call.client, there);
                received.extend(std::iter::from_fn(|| here.receive_on_channel(SOON)).map(|(_, data)| data));
                left.push(here);
            }
            over.store(true, Ordering::Relaxed);
            let sent = busy.join().expect("it only sends");
            received.extend(std::iter::from_fn(|| call.client.receive_on_channel(QUIET)).map(|(_, data)| data));
            assert!(left.iter().all(|here| here.receive(SOON).is_none()), "an address that was left still gets data");
            (sent, received, told)
        });
        let mut numbers: Vec<_> = received.iter().filter_map(|data| data.first_chunk::<4>()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let relay_after = relay.metrics();
        println!("{family:?}: {} of {sent} arrived, {MOVES} moves, told {told} times", numbers.len());
        assert_eq!((numbers.len(), received.len()), (sent as usize, sent as usize), "each of them once");
        let strangers = |metrics: &Metrics| metrics.dropped("kernel", "no_permission");
        assert_eq!(strangers(&relay_after), strangers(&relay_before), "nobody was a stranger for a moment");
        let mut heard: Vec<_> = std::iter::from_fn(|| receive(&call.peer, NOW)).flatten().collect();
        heard.dedup();
        assert_eq!(heard, (0..MOVES).collect::<Vec<_>>(), "the peer has heard of each move");
        assert_eq!(call.client.refresh(0), Ok(0));
        relay.wait_for("nothing is left", |metrics| metrics.sum("hairpin_flows", &[]) == 0);
    }
    relay.stop();
}
