//! A client that moves (RFC 8016) while data is under way: the flows of its allocation are installed with its new address,
//! and removed with the old one, in one burst of commands.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hairpin::datapath::{Datapath, Flow, Handle, Limits, Options, Scope, XdpMode};
use hairpin_common::maps::PortRole;
use hairpin_common::verdict::Verdict;
use hairpin_tests::lab::call::{bind, receive};
use hairpin_tests::lab::relay::PORT;
use hairpin_tests::lab::topology::RELAY_LINK;
use hairpin_tests::lab::turn::channel_data;
use hairpin_tests::lab::{Family, Lab};

use super::lab::scopes;

pub(super) const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const QUIET: Duration = Duration::from_millis(100);
pub(super) const CHANNEL: u16 = 0x4001;
/// Indices of allocations; behind them is that of a media path.
pub(super) const ALLOCATIONS: u32 = 16;
const MOVES: usize = 20;

/// Everybody's sockets. What goes up arrives at those of the relay.
pub(super) struct Sockets {
    pub(super) clients: [UdpSocket; 2],
    pub(super) peer: UdpSocket,
    pub(super) server: UdpSocket,
    pub(super) relayed: UdpSocket,
}

impl Sockets {
    pub(super) fn open(lab: &Lab, family: Family) -> Self {
        let client =
            |index: u8| bind(&lab.clients[usize::from(index)], SocketAddr::new(Lab::client_ip(family, index), 40_000));
        let relay = |port| bind(&lab.relay, SocketAddr::new(Lab::relay_ip(family), port));
        let all = Self {
            clients: [client(0), client(1)],
            peer: bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(family, 0), 6000)),
            server: relay(PORT),
            relayed: relay(50_000),
        };
        all.peer.connect(address(&all.relayed)).expect("the lab has a route");
        all.clients.iter().for_each(|client| client.connect(address(&all.server)).expect("the lab has a route"));
        all
    }

    /// The flows of the one allocation, with the client at one of its places.
    pub(super) fn flows(&self, place: usize) -> [Flow; 3] {
        scopes(Flow {
            client: address(&self.clients[place]),
            server: address(&self.server),
            relayed: address(&self.relayed),
            allocation: 3,
            scope: Scope::Channel { channel: CHANNEL, peer: address(&self.peer) },
        })
    }

    /// Has the client be at another place than before; the kernel knows when this returns.
    fn go(&self, handle: &Handle, [from, to]: [usize; 2]) {
        let expires = Instant::now() + Duration::from_secs(600);
        self.flows(to).into_iter().for_each(|flow| handle.install(flow, expires));
        self.flows(from).into_iter().for_each(|flow| handle.remove(flow));
        assert!(handle.flush(PATIENCE), "the writer does not answer");
    }
}

/// What comes to a socket until the traffic is over, taken as it comes: a socket has no room for all of it.
pub(super) fn collect(socket: &UdpSocket, over: &AtomicBool) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let was_over = over.load(Ordering::SeqCst);
        match receive(socket, QUIET) {
            Some(datagram) => all.push(datagram),
            None if was_over => return all,
            None => {}
        }
    }
}

/// The number in a datagram that came to a client in its channel.
pub(super) fn numbered(datagram: &[u8]) -> u32 {
    let (rest, number) = datagram.split_last_chunk().expect("four bytes");
    assert_eq!(rest, [0x40, 0x01, 0, 4], "{datagram:02x?}");
    u32::from_be_bytes(*number)
}

pub(super) fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("it is bound")
}

pub(super) fn start(lab: &Lab, family: Family) -> Datapath {
    let relay = Lab::relay_ip(family);
    let options = Options {
        mode: XdpMode::Native,
        interfaces: vec![RELAY_LINK.to_owned()],
        max_allocations: ALLOCATIONS,
        max_media: 1,
        records: 64,
        limits: Limits::default(),
        answer_binding: true,
        listeners: vec![SocketAddr::new(relay, PORT)],
        relay_addresses: vec![relay.into()],
    };
    lab.relay.enter(|| Datapath::start(&options)).expect("the program attaches to a veth")
}

#[test]
fn what_comes_after_a_move_goes_to_the_new_address_only_and_nothing_is_lost() {
    if std::env::var_os("HAIRPIN_SKIP_BPF").is_some_and(|value| value == "1") {
        eprintln!("skipped: HAIRPIN_SKIP_BPF=1");
        return;
    }
    let lab = Lab::routed_with(2, 1);
    for family in [Family::V4, Family::V6] {
        let sockets = Sockets::open(&lab, family);
        let datapath = start(&lab, family);
        let handle = datapath.handle();
        handle.claim_port(50_000, PortRole::Relayed);
        sockets.flows(0).into_iter().for_each(|flow| handle.install(flow, Instant::now() + Duration::from_secs(600)));
        // What came before the channel is there would be told in a Data indication.
        assert!(handle.flush(PATIENCE), "the writer does not answer");
        let end = Instant::now() + PATIENCE;
        // Until the kernel knows all neighbours.
        for place in [1, 0] {
            while receive(&sockets.clients[1 - place], QUIET).is_none() {
                assert!(Instant::now() < end, "{family:?}: nothing arrives at all: {:?}", handle.counters());
                sockets.peer.send(&[0; 4]).expect("the way is open");
            }
            sockets.go(&handle, [1 - place, place]);
        }
        for client in &sockets.clients {
            while receive(client, QUIET).is_some() {}
        }
        for place in [0, 1] {
            while receive(&sockets.clients[place], QUIET).is_some() {}
        }
        while receive(&sockets.relayed, QUIET).is_some() {}

        let (number, done) = (AtomicU32::new(0), AtomicBool::new(false));
        let mut moves = Vec::new();
        let (arrived, passed) = thread::scope(|scope| {
            let at_clients = sockets.clients.each_ref().map(|client| scope.spawn(|| collect(client, &done)));
            let at_relay = scope.spawn(|| collect(&sockets.relayed, &done));
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let next = number.fetch_add(1, Ordering::SeqCst) + 1;
                    sockets.peer.send(&next.to_be_bytes()).expect("the way is open");
                    thread::sleep(Duration::from_micros(100));
                }
            });
            for count in 0..MOVES {
                thread::sleep(Duration::from_millis(5));
                let to = 1 - count % 2;
                let before = number.load(Ordering::SeqCst);
                sockets.go(&handle, [1 - to, to]);
                // Who gets a response now can make peers send what follows.
                moves.push((to, before, number.load(Ordering::SeqCst)));
            }
            thread::sleep(Duration::from_millis(5));
            done.store(true, Ordering::SeqCst);
            let numbers = at_clients.map(|collected| {
                let datagrams = collected.join().expect("it receives");
                datagrams.iter().map(|datagram| numbered(datagram)).collect::<Vec<_>>()
            });
            (numbers, at_relay.join().expect("it receives").len())
        });

        let last = number.load(Ordering::SeqCst);
        let mut all: Vec<u32> = arrived.concat();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{family:?}: nobody gets one twice");
        assert_eq!(all.len() + passed, last as usize, "{family:?}: what is not forwarded goes up");
        assert!(passed <= last as usize / 2, "{family:?}: {passed} of {last} went up");
        let strangers = handle.counters().verdicts[Verdict::NoPermission as usize];
        assert_eq!(strangers.packets, 0, "{family:?}: the peer is never a stranger");
        for (at, (to, _, after)) in moves.iter().enumerate() {
            let until = moves.get(at + 1).map_or(u32::MAX, |(_, before, _)| *before);
            let wrong = arrived[1 - to].iter().find(|number| (after + 1..=until).contains(*number));
            assert_eq!(wrong, None, "{family:?}: sent after move {at}, and still to the old address");
        }
        assert!(arrived.iter().all(|numbers| !numbers.is_empty()), "{family:?}: both places were in use");
        assert_eq!(handle.counters().flows, 3, "{family:?}: replaced, not added");

        // By its old address the client cannot use the allocation any more: that is for the daemon to say.
        let (here, gone) = (moves[MOVES - 1].0, 1 - moves[MOVES - 1].0);
        sockets.clients[gone].send(&channel_data(CHANNEL, b"gone")).expect("the way is open");
        let (server, peer) = (receive(&sockets.server, PATIENCE), receive(&sockets.peer, QUIET));
        assert_eq!((server, peer), (Some(channel_data(CHANNEL, b"gone")), None), "{family:?}");
        sockets.clients[here].send(&channel_data(CHANNEL, b"here")).expect("the way is open");
        assert_eq!(receive(&sockets.peer, PATIENCE).as_deref(), Some(&b"here"[..]), "{family:?}");
        datapath.shutdown();
    }
}
