//! A path of a media session in a network: media goes from leg to leg in the kernel, all else comes to the legs' sockets, and
//! nothing is lost while a remote becomes another one.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hairpin::datapath::{Datapath, Flow, Handle, Scope};
use hairpin_common::maps::{AllocationCount, Count, PortRole};
use hairpin_common::verdict::Verdict;
use hairpin_tests::lab::call::{bind, receive};
use hairpin_tests::lab::{Family, Lab};

use super::moving::{ALLOCATIONS, PATIENCE, QUIET, address, collect, start};

const PORTS: [u16; 2] = [55_000, 55_001];
const MOVES: usize = 20;

/// The remotes, of which one leg has the first two in turn, and the legs' own sockets. A remote hears its leg only.
struct Sockets {
    remotes: [UdpSocket; 2],
    other: UdpSocket,
    legs: [UdpSocket; 2],
}

impl Sockets {
    fn open(lab: &Lab, [one, other]: [Family; 2]) -> Self {
        let remote =
            |index: u8| bind(&lab.clients[usize::from(index)], SocketAddr::new(Lab::client_ip(one, index), 40_000));
        let leg = |family, port| bind(&lab.relay, SocketAddr::new(Lab::relay_ip(family), port));
        let all = Self {
            remotes: [remote(0), remote(1)],
            other: bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(other, 0), 6000)),
            legs: [leg(one, PORTS[0]), leg(other, PORTS[1])],
        };
        all.remotes.iter().for_each(|remote| remote.connect(address(&all.legs[0])).expect("the lab has a route"));
        all.other.connect(address(&all.legs[1])).expect("the lab has a route");
        all
    }

    /// The path, with one leg's remote at one of its places.
    fn flow(&self, place: usize) -> Flow {
        Flow {
            client: address(&self.remotes[place]),
            server: address(&self.legs[0]),
            relayed: address(&self.legs[1]),
            allocation: ALLOCATIONS,
            scope: Scope::Media { peer: address(&self.other) },
        }
    }

    /// Waits until the kernel knows the neighbours of a path, and takes what has come meanwhile.
    fn warm_up(&self, handle: &Handle, place: usize) {
        let end = Instant::now() + PATIENCE;
        while receive(&self.remotes[place], QUIET).is_none() {
            assert!(Instant::now() < end, "nothing arrives at all: {:?}", handle.counters());
            self.other.send(&[0x80; 4]).expect("the way is open");
        }
        while receive(&self.other, QUIET).is_none() {
            assert!(Instant::now() < end, "nothing arrives at all: {:?}", handle.counters());
            self.remotes[place].send(&[0x80; 4]).expect("the way is open");
        }
        for socket in self.remotes.iter().chain([&self.other]).chain(&self.legs) {
            while receive(socket, QUIET).is_some() {}
        }
    }
}

fn install(handle: &Handle, flow: Flow) {
    handle.install(flow, Instant::now() + Duration::from_secs(600));
    assert!(handle.flush(PATIENCE), "the writer does not answer");
}

fn ready(lab: &Lab, sockets: &Sockets) -> Datapath {
    let datapath = start(lab, Family::V4);
    for port in PORTS {
        datapath.handle().claim_port(port, PortRole::Relayed);
    }
    install(&datapath.handle(), sockets.flow(0));
    sockets.warm_up(&datapath.handle(), 0);
    datapath
}

fn is_skipped() -> bool {
    let is_skipped = std::env::var_os("HAIRPIN_SKIP_BPF").is_some_and(|value| value == "1");
    if is_skipped {
        eprintln!("skipped: HAIRPIN_SKIP_BPF=1");
    }
    is_skipped
}

#[test]
fn media_goes_from_leg_to_leg_and_all_else_comes_to_the_legs() {
    if is_skipped() {
        return;
    }
    let lab = Lab::routed_with(2, 1);
    for families in [[Family::V4, Family::V4], [Family::V6, Family::V6], [Family::V4, Family::V6]] {
        let sockets = Sockets::open(&lab, families);
        let Sockets { remotes: [remote, stranger], other, legs } = &sockets;
        let datapath = ready(&lab, &sockets);
        let handle = datapath.handle();
        handle.remove(sockets.flow(0));
        handle.reset_allocation(ALLOCATIONS);
        install(&handle, sockets.flow(0));

        for media in [&[0x80, 1, 2][..], &[20; 100], &[0x40, 0, 0, 1, 9], &[4]] {
            remote.send(media).expect("the way is open");
            assert_eq!(receive(other, PATIENCE).as_deref(), Some(media), "{families:?}");
            other.send(media).expect("the way is open");
            assert_eq!(receive(remote, PATIENCE).as_deref(), Some(media), "{families:?}");
        }
        let all = Count { packets: 4, bytes: 109 };
        assert_eq!(handle.allocation_count(ALLOCATIONS), AllocationCount { to_peer: all, to_client: all });

        for (socket, leg) in [(remote, &legs[0]), (other, &legs[1])] {
            for left in [&[0, 1, 0, 0][..], &[3; 30], &[]] {
                socket.send(left).expect("the way is open");
                assert_eq!(receive(leg, PATIENCE).as_deref(), Some(left), "{families:?}");
            }
        }
        stranger.send(&[0x80; 8]).expect("the way is open");
        assert_eq!(receive(&legs[0], PATIENCE), Some(vec![0x80; 8]), "{families:?}: of a stranger");
        assert_eq!(handle.allocation_count(ALLOCATIONS), AllocationCount { to_peer: all, to_client: all });

        handle.remove(sockets.flow(0));
        assert!(handle.flush(PATIENCE), "the writer does not answer");
        remote.send(&[0x80; 9]).expect("the way is open");
        assert_eq!(receive(&legs[0], PATIENCE), Some(vec![0x80; 9]), "{families:?}: after its end");
        datapath.shutdown();
    }
}

#[test]
fn while_a_leg_s_remote_becomes_another_one_no_media_finds_neither() {
    if is_skipped() {
        return;
    }
    let lab = Lab::routed_with(2, 1);
    let sockets = Sockets::open(&lab, [Family::V4; 2]);
    let datapath = ready(&lab, &sockets);
    let handle = datapath.handle();
    for place in [1, 0] {
        install(&handle, sockets.flow(place));
        sockets.warm_up(&handle, place);
    }
    let before = handle.counters().verdicts;
    let (number, done) = (AtomicU32::new(0), AtomicBool::new(false));
    let (arrived, passed) = thread::scope(|scope| {
        let at_remotes = sockets.remotes.each_ref().map(|remote| scope.spawn(|| collect(remote, &done)));
        let at_leg = scope.spawn(|| collect(&sockets.legs[1], &done));
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                // A first byte of RTP, whatever the number.
                let next = number.fetch_add(1, Ordering::SeqCst) + 1;
                sockets.other.send(&(next | 0x8000_0000).to_be_bytes()).expect("the way is open");
                thread::sleep(Duration::from_micros(50));
            }
        });
        for count in 0..MOVES {
            thread::sleep(Duration::from_millis(5));
            let to = 1 - count % 2;
            install(&handle, sockets.flow(to));
            handle.remove(sockets.flow(1 - to));
        }
        thread::sleep(Duration::from_millis(5));
        done.store(true, Ordering::SeqCst);
        (at_remotes.map(|arrived| arrived.join().expect("it receives")), at_leg.join().expect("it receives").len())
    });

    let last = number.load(Ordering::SeqCst) as usize;
    assert!(arrived.iter().all(|datagrams| !datagrams.is_empty()), "both places were in use");
    let mut all = arrived.concat();
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "nobody gets one twice");
    assert_eq!(all.len() + passed, last, "nothing is lost");
    let after = handle.counters().verdicts;
    let new = |verdict: Verdict| after[verdict as usize].packets - before[verdict as usize].packets;
    assert_eq!((new(Verdict::NoFlow), new(Verdict::NextHop)), (0, 0), "what it needs is there all the time");
    assert_eq!(new(Verdict::Media) as usize, all.len());
    assert_eq!(handle.counters().flows, 1, "replaced, not added");
    datapath.shutdown();
}
