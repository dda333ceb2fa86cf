//! A flood of a million packets with forged sources, and a call that must not notice. Alone in its file, so that no
//! other test competes for the processors.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_proto::stun::attribute::RequestedTransport;
use hairpin_proto::stun::{Class, MessageBuilder, Method, TransactionId};
use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::PORT;
use hairpin_tests::lab::topology::{RELAY_MAC, ROUTER_LINK, ROUTER_MAC};
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Call, Family, Lab, Metrics, Relay};
use hairpin_tests::program::frame::Frame;
use rustix::process::Pid;

const PACKETS: u64 = 1_000_000;
/// A link that takes a burst of this size without dropping any of it; and how long to rest after that, so that the link
/// is not what gives in first.
const BURST: usize = 64;
const REST: Duration = Duration::from_micros(150);
/// Unauthenticated datagrams that one source may send in a second, and all of them together.
const SOURCE_RATE: u64 = 1000;
const CONTROL_RATE: u64 = 5000;
/// Unauthenticated requests that the test itself makes, and other traffic of the host.
const OTHERS: u64 = 100;
const UDP: u8 = 17;

/// What a flood is made of, an eighth each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Neither STUN nor ChannelData, from anywhere.
    Garbage,
    /// Allocate requests without credentials, from anywhere.
    Allocate,
    /// The same over IPv6.
    Allocate6,
    /// Binding requests from anywhere, each of which the program answers.
    Binding,
    /// Binding requests of one address.
    BindingOfOne,
    /// Garbage of one IPv6 network of 64 bits, of any address in it.
    GarbageOfOne,
    /// To a relayed address, from anywhere.
    ToRelayed,
    /// The same over IPv6.
    ToRelayed6,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Garbage,
        Self::ToRelayed,
        Self::BindingOfOne,
        Self::Allocate,
        Self::GarbageOfOne,
        Self::Binding,
        Self::ToRelayed6,
        Self::Allocate6,
    ];

    fn family(self) -> Family {
        match self {
            Self::Garbage | Self::Allocate | Self::Binding | Self::BindingOfOne | Self::ToRelayed => Family::V4,
            Self::Allocate6 | Self::GarbageOfOne | Self::ToRelayed6 => Family::V6,
        }
    }

    /// A source address by random bits. None of them is used in the lab, or is one that hosts refuse by itself.
    fn source(self, bits: u64) -> SocketAddr {
        let ip: IpAddr = match (self, self.family()) {
            (Self::BindingOfOne, _) => Ipv4Addr::new(20, 1, 2, 3).into(),
            (Self::GarbageOfOne, _) => Ipv6Addr::from(0x2a0f_0000_0000_0001_u128 << 64 | u128::from(bits)).into(),
            (_, Family::V4) => Ipv4Addr::from(0x1400_0000 + (bits as u32 & 0x3fff_ffff)).into(),
            (_, Family::V6) => Ipv6Addr::from((0x2a0f_u128 << 48 | u128::from(bits >> 16)) << 64 | 7).into(),
        };
        SocketAddr::new(ip, 1024 + (bits >> 40) as u16 % 60_000)
    }

    fn payload(self, bits: u64) -> Vec<u8> {
        let id = || {
            let mut id = [0x5a; 12];
            id[..8].copy_from_slice(&bits.to_be_bytes());
            TransactionId(id)
        };
        let mut message = Vec::new();
        match self {
            Self::Garbage | Self::GarbageOfOne => message.extend([0xff; 40]),
            Self::ToRelayed | Self::ToRelayed6 => message.extend([0x5a; 40]),
            Self::Binding | Self::BindingOfOne => {
                MessageBuilder::new(&mut message, Class::Request, Method::BINDING, id()).finish(false);
            }
            Self::Allocate | Self::Allocate6 => {
                MessageBuilder::new(&mut message, Class::Request, Method::ALLOCATE, id())
                    .with(&RequestedTransport(UDP))
                    .finish(false);
            }
        }
        message
    }
}

/// Sends the flood, and returns how many of each kind the link took.
fn flood(wire: &Wire, relayed: [SocketAddr; 2]) -> BTreeMap<Kind, u64> {
    let mut sent = BTreeMap::new();
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..PACKETS as usize {
        // xorshift64
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        let kind = Kind::ALL[number % Kind::ALL.len()];
        let destination = match kind {
            Kind::ToRelayed => relayed[0],
            Kind::ToRelayed6 => relayed[1],
            _ => SocketAddr::new(Lab::relay_ip(kind.family()), PORT),
        };
        let frame = Frame::new(kind.source(bits), destination, kind.payload(bits));
        wire.send(&Frame { link: (RELAY_MAC, ROUTER_MAC), ..frame }.bytes());
        *sent.entry(kind).or_default() += 1;
        if number % BURST == BURST - 1 {
            thread::sleep(REST);
        }
    }
    sent
}

/// What the call did while the flood went on.
#[derive(Debug, Default)]
struct Lived {
    /// Datagrams that arrived, there and back.
    exchanged: u64,
    /// The longest that a Refresh took, and how many there were.
    slowest_refresh: Duration,
    refreshed: u32,
}

/// Exchanges datagrams one by one, each of which has to arrive, and refreshes the allocations now and then.
fn live(calls: &mut [Call], over: &AtomicBool) -> Lived {
    let mut lived = Lived::default();
    let mut refresh_at = Instant::now();
    while !over.load(Ordering::Relaxed) {
        for call in &mut *calls {
            call.exchange(&lived.exchanged.to_be_bytes().repeat(20));
            lived.exchanged += 2;
            if refresh_at < Instant::now() {
                let asked = Instant::now();
                assert!(call.client.refresh(600).is_ok_and(|granted| granted >= 600));
                lived.slowest_refresh = lived.slowest_refresh.max(asked.elapsed());
                lived.refreshed += 1;
            }
        }
        if refresh_at < Instant::now() {
            refresh_at = Instant::now() + Duration::from_millis(500);
        }
    }
    lived
}

#[test]
fn a_million_forged_packets_do_not_reach_a_call() {
    let lab = Lab::routed();
    // Answers to forged sources lead nowhere.
    lab.router.ip("route add blackhole default\n-6 route add blackhole default");
    let (source_rate, control_rate) = (SOURCE_RATE.to_string(), CONTROL_RATE.to_string());
    let options = ["--xdp", "native", "--source-packet-rate", &source_rate, "--control-packet-rate", &control_rate];
    let mut relay = Relay::start(&lab.relay, &options);
    let mut calls = Family::ALL.map(|family| Call::new(&lab, family));
    relay.wait_for("the channels are in the kernel", |metrics| metrics.sum("hairpin_flows", &[]) >= 2);
    let relayed = [calls[0].relayed, calls[1].relayed];
    let wire = Wire::open(&lab.router, ROUTER_LINK);
    let pid = relay.process().pid();
    let (before, lost_before, used_before) = (relay.metrics(), link_drops(&lab), processor_time(pid));
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let (sent, lived) = thread::scope(|scope| {
        let living = scope.spawn(|| live(&mut calls, &over));
        let sent = flood(&wire, relayed);
        over.store(true, Ordering::Relaxed);
        (sent, living.join().expect("the call goes on"))
    });
    let took = began.elapsed();
    let (after, lost, used) =
        (relay.metrics(), link_drops(&lab) - lost_before, processor_time(pid).saturating_sub(used_before));

    let grew = |count: &dyn Fn(&Metrics) -> u64| count(&after) - count(&before);
    let dropped = |reason: &str| grew(&|metrics| metrics.dropped("kernel", reason));
    let passed = |reason: &str| grew(&|metrics| metrics.passed(reason));
    let (strangers, sources, control) = (dropped("no_permission"), dropped("source_rate"), dropped("control_rate"));
    let up = passed("control") + passed("malformed");
    // While a Refresh is on its way into the kernel, the program does not know all that is in force.
    let unsure = passed("no_flow") + passed("expired");
    println!(
        "{} packets in {took:.1?}, {lost} of them lost by the link: {strangers} without a permission, {sources} of a \
         busy source, {control} too many, {up} went up to listeners and {unsure} to relayed addresses; the daemon took \
         {used:.2?} of processor time; {lived:?}",
        sent.values().sum::<u64>()
    );

    // The call: its data went through the kernel alone, and its requests were answered.
    assert!(lived.exchanged > 1000 && lived.refreshed >= 4, "{lived:?}");
    assert!(lived.slowest_refresh < Duration::from_millis(500), "one had to be sent again: {lived:?}");
    assert!(grew(&|metrics| metrics.relayed("kernel")) >= lived.exchanged);
    assert_eq!(grew(&|metrics| metrics.relayed("userspace")), 0);

    // Each kind ends where it should. What the link lost may have been of any kind.
    let count = |kinds: &[Kind]| kinds.iter().map(|kind| sent[kind]).sum::<u64>();
    let about = |got: u64, sent: u64, what: &str| {
        assert!(got <= sent + OTHERS && got + lost + OTHERS >= sent, "{got} of {sent} {what}, {lost} lost by the link");
    };
    assert!(lost < PACKETS / 100, "{lost} were lost by the link: that is no flood");
    assert!(unsure < PACKETS / 1000, "{unsure} were passed to relayed addresses");
    about(strangers + unsure, count(&[Kind::ToRelayed, Kind::ToRelayed6]), "ended for want of a permission");
    let seconds = took.as_secs() + 1;
    // One source of each family may send its rate, and as much again at once.
    let of_one = count(&[Kind::BindingOfOne, Kind::GarbageOfOne]);
    let allowed = 2 * SOURCE_RATE * (seconds + 1);
    assert!(sources <= of_one + OTHERS && sources + allowed + lost >= of_one, "{sources} of {of_one} were too many");
    // What can only be answered by the daemon reaches it at its rate.
    let unknown = count(&[Kind::Garbage, Kind::Allocate, Kind::Allocate6]);
    assert!(up <= CONTROL_RATE * (seconds + 1) + OTHERS, "{up} went up in {took:?}");
    assert!(up >= CONTROL_RATE, "{up} went up: some have to");
    let passed_of_one = of_one - sources.min(of_one);
    assert!(control + up + passed_of_one + lost + OTHERS >= unknown, "{control} and {up} of {unknown}");
    assert!(control >= unknown / 2, "{control} of {unknown}: the flood was no flood");
    // The daemon has seen no more than that.
    let requests = grew(&|metrics| metrics.sum("hairpin_stun_requests_total", &[("method", "allocate")]));
    assert!(requests <= up, "{requests} requests");
    relay.stop();
}

/// Packets that the router's link to the relay had no room for.
fn link_drops(lab: &Lab) -> u64 {
    let shown = run(lab.router.command("ip").args(["-s", "-j", "link", "show", ROUTER_LINK])).expect_success();
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("ip prints JSON");
    shown[0]["stats64"]["tx"]["dropped"].as_u64().expect("ip counts drops")
}

/// Processor time of a process so far, user and system.
fn processor_time(pid: Pid) -> Duration {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // Behind the name, which may contain anything, in hundredths of a second.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a count")).sum::<u64>();
    Duration::from_millis(10 * ticks)
}
