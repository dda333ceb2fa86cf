//! A thousand slow, silent or half-open connections next to calls over UDP, which must not notice. Alone in its file, so
//! that no other test competes for the processors.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_client::{Pipe, Tls, TlsOptions, Trust};
use hairpin_dtls::{ClientContext, Roots};
use hairpin_tests::lab::half_open::syn;
use hairpin_tests::lab::load::Load;
use hairpin_tests::lab::relay::every_transport;
use hairpin_tests::lab::topology::ROUTER_LINK;
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Authority, Family, Key, Lab, Metrics, Relay, Transport};

/// Fifty calls of a hundred packets a second, there and back.
const LOAD: Load = Load { rate: 5000, seconds: 3, payload: 160, allocations: 50 };
/// Phases of each kind, in turns.
const ROUNDS: usize = 3;
/// Attacking hosts. One of them has more connections than a source may, the others just as many.
const ATTACKERS: u8 = 8;
const OF_ONE: usize = 125;
const OF_THE_GREEDY: usize = 600;
/// How many connections of clients without an allocation one shard takes of one source.
const LIMIT: u64 = 128;
/// When the last of them is gone: each has ten seconds for its first message.
const GONE: Duration = Duration::from_secs(14);
/// Of a busy machine nothing can be said but that calls do not stand still.
const SLOWER: f64 = 20.0;
const STILL: f64 = 50_000.0;

/// What a slow client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Connects by TCP, and says nothing.
    Silent,
    /// Sends a byte a second of a request that never ends.
    Drip,
    /// Begins TLS, and stops within the ClientHello.
    HalfHello,
    /// Ends the handshake of TLS, and says nothing.
    Established,
    /// Begins DTLS with a valid cookie, and leaves the handshake open.
    HalfDtls,
}

const KINDS: [Kind; 5] = [Kind::Silent, Kind::Drip, Kind::HalfHello, Kind::Established, Kind::HalfDtls];

/// What stays of it, as long as it is kept.
enum Slow {
    Stream(Kind, TcpStream),
    Datagrams(#[expect(dead_code, reason = "is open as long as it is kept")] UdpSocket),
}

fn server(transport: Transport) -> SocketAddr {
    SocketAddr::new(Lab::relay_ip(Family::V4), transport.port())
}

impl Kind {
    /// Begins one, in the namespace of this thread. None where the relay does not want it.
    fn begin(self, dtls: &ClientContext) -> Option<Slow> {
        let transport = match self {
            Self::Silent | Self::Drip => Transport::Tcp,
            Self::HalfHello | Self::Established => Transport::Tls,
            Self::HalfDtls => return begin_dtls(dtls).map(Slow::Datagrams),
        };
        let mut stream = TcpStream::connect_timeout(&server(transport), Duration::from_secs(2)).ok()?;
        match self {
            // An Allocate request that says it is long.
            Self::Drip => stream.write_all(&[0x00, 0x03, 0x10, 0x00]).ok()?,
            // A record of 512 bytes with a ClientHello of 508, of which some are there.
            Self::HalfHello => stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).ok()?,
            Self::Established => shake_hands(&stream)?,
            Self::Silent | Self::HalfDtls => {}
        }
        Some(Slow::Stream(self, stream))
    }
}

fn shake_hands(stream: &TcpStream) -> Option<()> {
    let tls = Tls::new(&TlsOptions::new(Trust::Anybody), server(Transport::Tls).ip()).ok()?;
    let mut pipe = Pipe::new(Some(&tls)).ok()?;
    stream.set_nonblocking(true).ok()?;
    let end = Instant::now() + Duration::from_secs(5);
    while pipe.is_handshaking() && Instant::now() < end {
        pipe.flush(&mut &*stream).ok()?;
        pipe.fill(&mut &*stream).ok()?;
        thread::sleep(Duration::from_millis(2));
    }
    pipe.flush(&mut &*stream).ok()
}

/// Two ClientHellos, of which the second has the cookie.
fn begin_dtls(context: &ClientContext) -> Option<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(server(Transport::Dtls)).ok()?;
    socket.set_read_timeout(Some(Duration::from_millis(300))).ok()?;
    let mut session = context.connect("turn.test").ok()?;
    let mut answer = [0; 2048];
    socket.send(session.next_datagram()?).ok()?;
    let length = socket.recv(&mut answer).ok()?;
    session.receive(&answer[..length]).ok()?;
    socket.send(session.next_datagram()?).ok()?;
    Some(socket)
}

/// Begins all connections of an attacker, and goes on with those that go on until it is over.
fn attack(lab: &Lab, attacker: u8, is_over: &AtomicBool) -> Vec<Slow> {
    let dtls = ClientContext::new(Roots::Unverified, &[]).expect("nothing is read");
    let count = if attacker == ATTACKERS { OF_THE_GREEDY } else { OF_ONE };
    lab.clients[usize::from(attacker)].enter(|| {
        let mut begun = Vec::new();
        for number in 0..count {
            begun.extend(KINDS[number % KINDS.len()].begin(&dtls));
        }
        // What asks for a cookie costs nothing, whether or not it is what it says.
        let flood = UdpSocket::bind("0.0.0.0:0").expect("a socket more");
        let hello = dtls.connect("turn.test").ok().and_then(|mut session| session.next_datagram().map(<[u8]>::to_vec));
        let hello = hello.expect("a session begins with it");
        let mut next_byte = Instant::now();
        while !is_over.load(Ordering::Relaxed) {
            for _ in 0..10 {
                // It may be refused by a queue that is full.
                let _ = flood.send_to(&hello, server(Transport::Dtls));
            }
            if next_byte < Instant::now() {
                next_byte += Duration::from_secs(1);
                for slow in &begun {
                    if let Slow::Stream(Kind::Drip, stream) = slow {
                        // The relay may have lost its patience.
                        let _ = (&*stream).write(&[0]);
                    }
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
        begun
    })
}

/// SYNs from addresses that nobody has, a thousand a second.
fn forge(wire: &Wire, is_over: &AtomicBool) -> u32 {
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        for _ in 0..10 {
            let source = SocketAddr::from((Ipv4Addr::from(0x1400_0001 + sent), 1024 + (sent % 60_000) as u16));
            let transport = if sent % 2 == 0 { Transport::Tcp } else { Transport::Tls };
            syn(wire, source, server(transport), sent);
            sent += 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
    sent
}

/// What a phase was like.
#[derive(Debug)]
struct Phase {
    lost: u64,
    /// Whether the generator itself was late, or had no room: then loss is not the relay's.
    is_busy: bool,
    p50: f64,
    p99: f64,
}

fn measure(lab: &Lab) -> Phase {
    let outcome = LOAD.run(lab, Family::V4);
    let asked = u64::from(LOAD.rate * LOAD.seconds);
    let latency = |field: &str| outcome.report["latency_microseconds"][field].as_f64().expect("something came back");
    let is_busy = outcome.count("packets_skipped") > asked / 100 || outcome.count("receive_buffer_drops") > 0;
    Phase { lost: outcome.count("packets_lost"), is_busy, p50: latency("p50"), p99: latency("p99") }
}

fn median(phases: &[Phase], figure: impl Fn(&Phase) -> f64) -> f64 {
    let mut figures: Vec<_> = phases.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn ended(metrics: &Metrics, reason: &str) -> u64 {
    metrics.sum("hairpin_connections_ended_total", &[("reason", reason)])
}

fn begun(metrics: &Metrics, transport: &str) -> u64 {
    metrics.sum("hairpin_connections_begun_total", &[("transport", transport)])
}

/// Memory of a process that is in use, in kB.
fn resident(relay: &mut Relay<'_>) -> u64 {
    let path = format!("/proc/{}/status", relay.process().pid().as_raw_nonzero());
    let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a count")
}

#[test]
fn a_thousand_slow_clients_do_not_reach_fifty_calls() {
    let lab = Lab::routed_with(1 + ATTACKERS, 1);
    lab.router.ip("route add blackhole default\n-6 route add blackhole default");
    let certificate = Authority::new().issue(Key::Ecdsa, "turn.test", &[Lab::relay_ip(Family::V4)]);
    for xdp in ["native", "off"] {
        let options = every_transport(&certificate);
        let options: Vec<&str> = ["--xdp", xdp].into_iter().chain(options.iter().map(String::as_str)).collect();
        let mut relay = Relay::start(&lab.relay, &options);
        let wire = Wire::open(&lab.router, ROUTER_LINK);
        let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
        let before = relay.metrics();
        let (mut memory, mut most_new) = (resident(&mut relay), 0);
        let first_memory = memory;
        for round in 1..=ROUNDS {
            quiet.push(measure(&lab));
            let is_over = AtomicBool::new(false);
            let slow: Vec<Slow> = thread::scope(|scope| {
                let forging = scope.spawn(|| forge(&wire, &is_over));
                let attackers: Vec<_> = (1..=ATTACKERS)
                    .map(|of| {
                        scope.spawn({
                            let (lab, is_over) = (&lab, &is_over);
                            move || attack(lab, of, is_over)
                        })
                    })
                    .collect();
                attacked.push(measure(&lab));
                memory = memory.max(resident(&mut relay));
                most_new = most_new.max(relay.metrics().sum("hairpin_new_connections", &[]));
                is_over.store(true, Ordering::Relaxed);
                assert!(forging.join().expect("it only sends") > 1000);
                attackers.into_iter().flat_map(|one| one.join().expect("it only connects")).collect()
            });
            // The last time, nobody but the relay ends them.
            let slow = Some(slow).filter(|_| round == ROUNDS);
            let end = Instant::now() + GONE;
            while relay.metrics().sum("hairpin_new_connections", &[]) > 0 {
                assert!(Instant::now() < end, "some are left after {GONE:?}: {:#?}", relay.metrics());
                thread::sleep(Duration::from_millis(100));
            }
            drop(slow);
        }
        let after = relay.metrics();
        let grew = |count: &dyn Fn(&Metrics) -> u64| count(&after) - count(&before);
        let [tcp, tls, dtls] = ["tcp", "tls", "dtls"].map(|transport| grew(&|m| begun(m, transport)));
        let [client, timeout, too_many] = ["client", "timeout", "too_many"].map(|reason| grew(&|m| ended(m, reason)));
        let [calm, slow] = [&quiet, &attacked].map(|phases| (median(phases, |p| p.p50), median(phases, |p| p.p99)));
        println!(
            "--xdp {xdp}: p50 {:.0} us, p99 {:.0} us; attacked p50 {:.0} us, p99 {:.0} us; ratio of p99 {:.2}",
            calm.0,
            calm.1,
            slow.0,
            slow.1,
            slow.1 / calm.1
        );
        println!(
            "  up to {most_new} new connections; begun: {tcp} tcp (that said something), {tls} tls, {dtls} dtls; \
            ended: {client} client, {timeout} timeout, {too_many} too many; memory {first_memory} kB, at most {memory} kB"
        );
        println!("  quiet {quiet:?}\n  attacked {attacked:?}");

        // The attack has arrived, and was as large as it may be.
        let rounds = ROUNDS as u64;
        assert!(most_new >= 700, "{most_new} at once");
        assert!(tcp >= 100 * rounds && tls >= 200 * rounds && dtls >= 100 * rounds, "{tcp} {tls} {dtls}");
        assert!(timeout >= 700, "{timeout} were ended for their silence");
        assert!(too_many >= (OF_THE_GREEDY as u64 - 4 * LIMIT) / 2 * rounds, "{too_many} of one source were too many");
        // A connection takes less than 100 kB, its handshake included.
        assert!(memory < first_memory + 150_000, "{first_memory} kB became {memory} kB");

        // What costs packets does so every time. Once, it may be that this host had no time.
        for phases in [&quiet, &attacked] {
            let lossy: Vec<_> = phases.iter().filter(|phase| phase.lost > 0 && !phase.is_busy).collect();
            assert!(lossy.len() <= 1 && lossy.iter().all(|phase| phase.lost < 10), "--xdp {xdp}: {lossy:?}");
        }
        assert!(slow.1 < (SLOWER * calm.1).max(STILL), "p99 {} us became {} us", calm.1, slow.1);
        let left =
            |metrics: &Metrics| metrics.sum("hairpin_connections", &[]) + metrics.sum("hairpin_allocations", &[]);
        relay.wait_for("nothing is left", |metrics| left(metrics) == 0);
        relay.stop();
    }
}
