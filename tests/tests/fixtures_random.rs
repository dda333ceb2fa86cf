//! Random relays and random packets through the XDP program, against the model: framings, IP versions, links, lifetimes,
//! attributes and damage in any mixture.
//!
//! `HAIRPIN_CASES` says how many packets (5,000 unless it is set), `HAIRPIN_SEED` which ones. A failure names its seed and
//! shows the smallest packet and relay that it could find.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashSet},
    fmt,
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use hairpin_common::{maps::NextHop, verdict::Verdict};
use hairpin_tests::program::{
    bench::{Bench, INTERFACE, NEXT_HOP, OTHER_INTERFACE, Outcome},
    frame::{Frame, hex, repair_ipv4},
    media::{media_world, media_world_behind_nat},
    model::Direction,
    setup::{Allocation, Channel, Leg, Media, OwnLimit, Permission, Relay, Setup, Unit},
    stun::{self, Builder, kind},
    world::{Family, Path, world, world_behind_nat},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// Where the IP packets of this host go out and come in, of each interface.
const OWN: [(u32, [u8; 6]); 2] = [(INTERFACE, NEXT_HOP.source), (OTHER_INTERFACE, [0x02, 0x77, 0, 0, 0, 1])];
/// VLANs of the host, and 0 for none.
const VLANS: [u16; 3] = [0, 42, 0xabc];
const HOPS: u16 = 3;
/// How many [`Addresses::peers_of`] there are.
const PEERS: usize = 12;

/// A relay, and a packet that comes in by an interface.
#[derive(Clone)]
struct Case {
    setup: Setup,
    interface: u32,
    packet: Vec<u8>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by interface {}:{}\n{:#?}", self.interface, hex(&self.packet), self.setup)
    }
}

/// Whether something is there, and in force.
#[derive(Clone, Copy, Debug)]
enum State {
    Live,
    Over,
    Absent,
}

/// Addresses of everybody; two of each but the servers: IPv4, then IPv6.
#[derive(Clone, Debug)]
struct Addresses {
    listeners: [SocketAddr; 2],
    relays: [[SocketAddr; 2]; 2],
    clients: [[SocketAddr; 2]; 2],
    peers: [[SocketAddr; 2]; 2],
    stranger: [SocketAddr; 2],
    /// Where the legs of two sessions are, two of each; all on the first relay's addresses.
    legs: [[SocketAddr; 2]; 4],
    /// The remote of each session's first leg.
    remotes: [[SocketAddr; 2]; 2],
    /// What others know those of some relayed addresses by.
    public: BTreeMap<IpAddr, IpAddr>,
}

/// What one of two allocations is like; peers are told by their index in [`Addresses::peers_of`].
#[derive(Clone, Debug)]
struct Shape {
    client: Family,
    relays: [State; 2],
    permissions: Vec<State>,
    channels: Vec<(State, u16)>,
    complete: bool,
}

/// What a path of media is like: the IP version of either leg, which peer, and whether it is there.
#[derive(Clone, Debug)]
struct MediaShape {
    families: [usize; 2],
    peer: Index,
    state: State,
}

/// What a limit of its own is like that an allocation or a path may have.
#[derive(Clone, Copy, Debug)]
struct LimitShape {
    unit: Unit,
    used_up: Direction,
}

/// What a packet is like, before damage.
#[derive(Clone, Debug)]
struct Intent {
    framing: Kind,
    /// Of which allocation.
    caller: usize,
    /// Which of the peers, or nobody's.
    peer: Index,
    data: Vec<u8>,
    /// Behind the data, in ChannelData; of every attribute, in a message.
    padding: Vec<u8>,
    fields: Frame,
    /// The interface and the VLAN that it comes in by.
    link: (usize, Option<u16>),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Channel,
    /// With attributes in one of six orders, DONT-FRAGMENT or not, and an attribute that should not be there.
    Send(u8, bool, Option<u16>),
    Plain,
    /// To a leg; whether it looks like STUN.
    Leg(usize, bool),
    Binding(bool),
}

/// What happened to a packet before it came in.
#[derive(Clone, Debug)]
enum Damage {
    None,
    /// One byte is another one; the sums may have been made right again.
    Byte(Index, u8, bool),
    Cut(Index),
    Longer(Vec<u8>),
}

fn address(ipv6: bool) -> impl Strategy<Value = SocketAddr> {
    // Where little differs, program and model may take one for another.
    let bytes = prop_oneof![4 => any::<[u8; 16]>(), 1 => (1..=4_u8).prop_map(|byte| [byte; 16])];
    (bytes, 1..=u16::MAX).prop_map(move |(bytes, port)| {
        let [a, b, c, d, ..] = bytes;
        let ip = if ipv6 { IpAddr::from(bytes) } else { IpAddr::from([a, b, c, d]) };
        SocketAddr::new(ip, port)
    })
}

fn both() -> impl Strategy<Value = [SocketAddr; 2]> {
    (address(false), address(true)).prop_map(|(v4, v6)| [v4, v6])
}

fn pair() -> impl Strategy<Value = [[SocketAddr; 2]; 2]> {
    (both(), both()).prop_map(|(first, second)| [first, second])
}

fn addresses() -> impl Strategy<Value = Addresses> {
    // Most relays have one address for everything; peers of a host may be many.
    let shared = (any::<bool>(), any::<bool>(), any::<bool>());
    let nat = (pair(), prop::option::weighted(0.4, any::<[bool; 4]>()));
    let media = (pair(), pair(), pair());
    (both(), pair(), pair(), pair(), both(), shared, nat, media).prop_map(
        |(listeners, relays, clients, peers, stranger, shared, nat, media)| {
            let (at_listener, one_relay, one_peer) = shared;
            let (public, ([one, other], [third, fourth], remotes)) = (BTreeMap::new(), media);
            let legs = [one, other, third, fourth];
            let mut all = Addresses { listeners, relays, clients, peers, stranger, legs, remotes, public };
            for family in [0, 1] {
                if at_listener {
                    all.relays[0][family].set_ip(all.listeners[family].ip());
                }
                for leg in &mut all.legs {
                    leg[family].set_ip(all.relays[0][family].ip());
                }
                if one_relay {
                    all.relays[1][family].set_ip(all.relays[0][family].ip());
                }
                if one_peer {
                    all.peers[1][family].set_ip(all.peers[0][family].ip());
                }
            }
            let (outside, translated) = (nat.0, nat.1.unwrap_or_default());
            for ((relay, public), _) in
                all.relays.iter().flatten().zip(outside.iter().flatten()).zip(translated).filter(|(_, is)| *is)
            {
                all.public.insert(relay.ip(), public.ip());
            }
            all
        },
    )
}

impl Addresses {
    /// Who may be a peer of an allocation: peers of both versions, and all relayed addresses and second legs, by what they
    /// are known by.
    fn peers_of(&self) -> Vec<SocketAddr> {
        let own = self.relays.iter().chain([&self.legs[1], &self.legs[3]]).flatten();
        self.peers.iter().flatten().copied().chain(own.map(|own| self.known(*own))).collect()
    }

    /// What others know an address of the relay's own by.
    fn known(&self, own: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.public.get(&own.ip()).copied().unwrap_or(own.ip()), own.port())
    }
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![6 => Just(State::Live), 1 => Just(State::Over), 2 => Just(State::Absent)]
}

fn shape() -> impl Strategy<Value = Shape> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let channel = (state(), 0x4000..=0x7fff_u16);
    let lives = prop_oneof![12 => Just(State::Live), 1 => Just(State::Over), 1 => Just(State::Absent)];
    (family, (lives.clone(), lives), vec(state(), PEERS), vec(channel, PEERS), prop::bool::weighted(0.8)).prop_map(
        |(client, relays, permissions, channels, complete)| {
            let relays = [relays.0, relays.1];
            Shape { client, relays, permissions, channels, complete }
        },
    )
}

fn media_shape() -> impl Strategy<Value = MediaShape> {
    (0..2_usize, 0..2_usize, any::<Index>(), state()).prop_map(|(one, other, peer, state)| MediaShape {
        families: [one, other],
        peer,
        state,
    })
}

fn limit_shape() -> impl Strategy<Value = Option<LimitShape>> {
    let unit = prop_oneof![Just(Unit::Packets), Just(Unit::Bytes)];
    let way = prop_oneof![Just(Direction::ToPeer), Just(Direction::ToClient)];
    prop::option::weighted(0.15, (unit, way).prop_map(|(unit, used_up)| LimitShape { unit, used_up }))
}

/// Two allocations, two paths of media, the limits of all four, and the links.
fn setup() -> impl Strategy<Value = (Setup, Addresses)> {
    let hop = (any::<[u8; 6]>(), prop::bool::weighted(0.8), 0..VLANS.len(), mtu(), 0..20_u8);
    let media = (media_shape(), media_shape());
    let links_around = (vec(hop, usize::from(HOPS)), vec(0..40_u16, 6), 0..10_u8);
    (addresses(), (shape(), shape()), media, vec(limit_shape(), 4), links_around)
        .prop_map(|(addresses, shapes, media, limits, (hops, routes, devices))| {
            let mut setup = Setup { public: addresses.public.clone(), ..Setup::new(addresses.listeners) };
            for (number, shape) in [shapes.0, shapes.1].into_iter().enumerate() {
                setup.allocations.push(allocation(number, &shape, &addresses));
            }
            for (number, shape) in [media.0, media.1].into_iter().enumerate() {
                setup.media.extend(path_of_media(number, &shape, &addresses));
            }
            // Whether there is anything that has the index or not.
            let own_limit = |(index, limit): (u32, Option<LimitShape>)| {
                limit.map(|LimitShape { unit, used_up }| OwnLimit { index, unit, used_up })
            };
            setup.own_limits = (0..).zip(limits).filter_map(own_limit).collect();
            let hops = hops.into_iter().map(|(destination, here, vlan, mtu, valid)| {
                let (interface, source) = OWN[usize::from(!here)];
                let interface = if valid == 0 { 0 } else { interface };
                NextHop { interface, mtu, destination, source, vlan: VLANS[vlan].to_be_bytes(), zero: [0; 2] }
            });
            setup.next_hops = (1..).zip(hops).collect();
            let destinations = addresses.clients.into_iter().chain(addresses.peers).chain(addresses.remotes).flatten();
            // One of forty leads to none.
            let route =
                |(address, route): (SocketAddr, u16)| (address.ip(), if route == 39 { 0 } else { 1 + route % HOPS });
            setup.routes = destinations.zip(routes.into_iter().cycle()).map(route).collect();
            setup.links = links();
            setup.devices = if devices == 0 { vec![INTERFACE] } else { vec![INTERFACE, OTHER_INTERFACE] };
            (setup, addresses)
        })
        .prop_filter("two of the same", |(setup, addresses)| is_consistent(setup, addresses))
}

fn mtu() -> impl Strategy<Value = u32> {
    prop_oneof![6 => Just(1500), 1 => Just(1280), 1 => Just(576), 1 => 68..1500_u32]
}

fn links() -> BTreeMap<(u32, u16), [u8; 6]> {
    OWN.iter().flat_map(|(interface, own)| VLANS.map(|vlan| ((*interface, vlan), *own))).collect()
}

fn allocation(number: usize, shape: &Shape, addresses: &Addresses) -> Allocation {
    let family = usize::from(shape.client == Family::V6);
    let there = |state: State| match state {
        State::Live => Some(true),
        State::Over => Some(false),
        State::Absent => None,
    };
    let peers = addresses.peers_of();
    let mut allocation = Allocation {
        index: number as u32,
        client: addresses.clients[number][family],
        server: addresses.listeners[family],
        relays: Vec::new(),
        permissions: Vec::new(),
        channels: Vec::new(),
        complete: shape.complete,
    };
    for (address, state) in addresses.relays[number].into_iter().zip(shape.relays) {
        allocation.relays.extend(there(state).map(|live| Relay { address, live }));
    }
    for (peer, state) in peers.iter().zip(&shape.permissions) {
        let known = allocation.permission_for(peer.ip()).is_some() || allocation.relay_to(peer.ip()).is_none();
        if let (Some(live), false) = (there(*state), known) {
            allocation.permissions.push(Permission { peer: peer.ip(), live });
        }
    }
    for (peer, (state, number)) in peers.into_iter().zip(&shape.channels) {
        let taken = allocation.channels.iter().any(|channel| channel.number == *number || channel.peer == peer);
        if let (Some(live), false, Some(_)) = (there(*state), taken, allocation.permission_for(peer.ip())) {
            allocation.channels.push(Channel { number: *number, peer, live });
        }
    }
    allocation
}

fn path_of_media(number: usize, shape: &MediaShape, addresses: &Addresses) -> Option<Media> {
    let live = match shape.state {
        State::Live => true,
        State::Over => false,
        State::Absent => return None,
    };
    let [one, other] = shape.families;
    let [first, second, of_the_other] = [2 * number, 2 * number + 1, 3 - 2 * number];
    let peers = [
        addresses.peers[number][other],
        addresses.known(addresses.relays[0][other]),
        addresses.known(addresses.relays[1][other]),
        addresses.known(addresses.legs[of_the_other][other]),
    ];
    Some(Media {
        index: 2 + number as u32,
        client: Leg { local: addresses.legs[first][one], remote: addresses.remotes[number][one] },
        peer: Leg { local: addresses.legs[second][other], remote: *shape.peer.get(&peers) },
        live,
    })
}

/// A relay binds no two things to one address, its ports have one role each, and nobody is at no address.
fn is_consistent(setup: &Setup, addresses: &Addresses) -> bool {
    let Addresses { listeners, relays, clients, peers, stranger, legs, remotes, public } = addresses;
    let pairs = relays.iter().chain(clients).chain(peers).chain(legs).chain(remotes).chain([listeners, stranger]);
    let mut all = pairs.flatten().map(SocketAddr::ip).chain(public.values().copied());
    if all.any(|ip| ip.is_unspecified()) {
        return false;
    }
    let listeners = addresses.listeners.map(|address| address.port());
    let own = || relays.iter().chain(legs).flatten();
    let mixed = own().any(|own| listeners.contains(&own.port())) || own().collect::<HashSet<_>>().len() < own().count();
    // The daemon has no such paths for the program.
    let three = setup.media.iter().any(|media| setup.relays_from(media.client.remote.ip()));
    let mut keys = HashSet::new();
    !mixed && !three && setup.records().iter().all(|(key, _)| keys.insert(*key))
}

fn fields() -> impl Strategy<Value = Frame> {
    let nowhere = SocketAddr::from(([0; 4], 0));
    let hop_limit = prop_oneof![8 => Just(64), 1 => 0..5_u8, 1 => any::<u8>()];
    let damage = prop_oneof![9 => Just(0), 1 => 1..0xfffe_u16];
    let trailing = prop_oneof![3 => Just(Vec::new()), 1 => vec(any::<u8>(), 1..20)];
    let ip = (any::<u8>(), hop_limit, any::<bool>(), any::<u16>(), 0..0x10_0000_u32);
    (ip, prop::bool::weighted(0.9), damage, trailing, prop::bool::weighted(0.02)).prop_map(
        move |(ip, checksum, damage, trailing, other_host)| {
            let (traffic_class, hop_limit, dont_fragment, identification, flow_label) = ip;
            let mut frame = Frame::new(nowhere, nowhere, []);
            frame.link.0[5] ^= u8::from(other_host);
            Frame {
                traffic_class,
                hop_limit,
                dont_fragment,
                identification,
                flow_label,
                checksum,
                damage,
                trailing,
                ..frame
            }
        },
    )
}

fn intent() -> impl Strategy<Value = Intent> {
    let strange = prop_oneof![9 => Just(None), 1 => any::<u16>().prop_map(Some)];
    let kinds = prop_oneof![
        4 => Just(Kind::Channel),
        4 => (0..6_u8, prop::bool::weighted(0.3), strange).prop_map(|(order, df, strange)| Kind::Send(order, df, strange)),
        5 => Just(Kind::Plain),
        3 => (0..8_usize, prop::bool::weighted(0.1)).prop_map(|(leg, stun)| Kind::Leg(leg, stun)),
        1 => any::<bool>().prop_map(Kind::Binding),
    ];
    let length = prop_oneof![3 => 0..40_usize, 1 => 0..1460_usize, 1 => 1170..1240_usize];
    let data = length.prop_flat_map(|length| vec(any::<u8>(), length));
    let padding = prop_oneof![2 => Just(Vec::new()), 1 => vec(any::<u8>(), 0..5)];
    let tag = prop_oneof![
        3 => Just(None),
        2 => (0..VLANS.len(), 0..16_u16).prop_map(|(vlan, priority)| Some(VLANS[vlan] | priority << 12)),
        1 => any::<u16>().prop_map(Some),
    ];
    let link = (0..OWN.len(), tag);
    (kinds, 0..2_usize, any::<Index>(), data, padding, fields(), link).prop_map(
        |(framing, caller, peer, data, padding, fields, link)| Intent {
            framing,
            caller,
            peer,
            data,
            padding,
            fields,
            link,
        },
    )
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        8 => Just(Damage::None),
        2 => (any::<Index>(), any::<u8>(), any::<bool>()).prop_map(|(at, byte, repair)| Damage::Byte(at, byte, repair)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => vec(any::<u8>(), 1..8).prop_map(Damage::Longer),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    (setup(), intent(), damage()).prop_map(|((setup, addresses), intent, damage)| {
        let interface = OWN[intent.link.0].0;
        let frame = intent.frame(&setup, &addresses);
        Case { setup, interface, packet: damage.done_to(&frame) }
    })
}

impl Intent {
    fn frame(&self, setup: &Setup, addresses: &Addresses) -> Frame {
        let caller = &setup.allocations[self.caller];
        let mut candidates = addresses.peers_of();
        candidates.extend(addresses.stranger);
        candidates.extend(addresses.relays.iter().flatten().filter(|relay| setup.public.contains_key(&relay.ip())));
        // Most of the time somebody who is known.
        let permitted = |peer: &&SocketAddr| caller.permits(peer.ip());
        let is_own = |remote: SocketAddr| caller.relays.iter().any(|relay| addresses.known(relay.address) == remote);
        for _ in 0..3 {
            candidates.extend(caller.channels.iter().map(|channel| channel.peer));
            candidates.extend(addresses.peers_of().iter().filter(permitted).copied());
            let legs = setup.media.iter().map(|media| media.peer).filter(|leg| is_own(leg.remote));
            candidates.extend(legs.map(|leg| addresses.known(leg.local)));
        }
        if let Kind::Plain = self.framing {
            // Nearly all that comes by a wire is no forgery.
            let own = candidates.extract_if(.., |peer| setup.relays_from(peer.ip())).next();
            candidates.extend(own);
        }
        let peer = *self.peer.get(&candidates);

        let (client, server) = (caller.client, caller.server);
        let relayed = caller.relay_to(peer.ip()).map(|relay| relay.address);
        let (source, destination, payload) = match self.framing {
            Kind::Channel => {
                let mut channels = caller.channels.iter();
                let number = channels.find(|channel| channel.peer == peer).map_or(0x4abc, |channel| channel.number);
                (client, server, [&stun::channel_data(number, &self.data)[..], &self.padding].concat())
            }
            Kind::Send(..) => (client, server, self.send_indication(peer)),
            Kind::Plain => (peer, relayed.unwrap_or(peer), self.data.clone()),
            Kind::Leg(which, is_stun) => {
                // The remote of the last is most often the relay's own, who sends nothing by a wire.
                let legs = setup.media.iter().flat_map(|media| [media.client, media.client, media.client, media.peer]);
                let Leg { local, remote } = legs.cycle().nth(which).unwrap_or(Leg { local: peer, remote: peer });
                let mut data = self.data.clone();
                data.iter_mut().take(usize::from(is_stun)).for_each(|first| *first &= 3);
                (remote, local, data)
            }
            Kind::Binding(fingerprint) => (client, server, stun::binding_request([self.caller as u8; 12], fingerprint)),
        };
        let mut frame = Frame { source, destination, payload, vlan: self.link.1, ..self.fields.clone() };
        let (_, own) = OWN[self.link.0];
        frame.link.0 = std::array::from_fn(|at| own[at] ^ NEXT_HOP.source[at] ^ frame.link.0[at]);
        if source.is_ipv6() {
            // It has no datagrams without, and no such flag.
            frame.checksum = true;
            frame.dont_fragment = true;
        }
        if !frame.checksum {
            frame.damage = 0;
        }
        frame
    }

    fn send_indication(&self, peer: SocketAddr) -> Vec<u8> {
        let Kind::Send(order, dont_fragment, strange) = self.framing else { panic!("not a Send indication") };
        let id = std::array::from_fn(|at| self.data.get(at).copied().unwrap_or(at as u8));
        let padding = self.padding.first().copied().unwrap_or_default();
        let orders = ["PDF", "PFD", "DPF", "DFP", "FPD", "FDP"];
        let message = Builder::padded_with(padding, stun::SEND, id);
        let message = orders[usize::from(order)].chars().fold(message, |message, which| match which {
            'P' => message.with_address(kind::XOR_PEER_ADDRESS, peer),
            'D' => message.with(kind::DATA, &self.data),
            _ if dont_fragment => message.with(kind::DONT_FRAGMENT, &[]),
            _ => message,
        });
        strange.map_or(message.clone(), |kind| message.with(kind, &self.padding)).bytes()
    }
}

impl Damage {
    fn done_to(&self, frame: &Frame) -> Vec<u8> {
        let mut bytes = frame.bytes();
        match self {
            Self::None => {}
            Self::Byte(at, byte, repair) => {
                let at = 12 + at.index(bytes.len() - 12);
                bytes[at] = *byte;
                if *repair && frame.source.is_ipv4() && bytes.len() >= frame.layer3() + 60 {
                    repair_ipv4(&mut bytes, frame.layer3());
                }
                if *repair && let Ok(damaged) = Frame::parse(&bytes) {
                    bytes = Frame { damage: 0, ..damaged }.bytes();
                }
            }
            Self::Cut(length) => bytes.truncate(14 + length.index(bytes.len() - 14)),
            Self::Longer(more) => bytes.extend(more),
        }
        bytes
    }
}

/// Runs random cases, as many and of such a seed as the environment says, or this many.
fn run<T: std::fmt::Debug>(
    cases: u32,
    strategy: &impl Strategy<Value = T>,
    test: impl Fn(T) -> Result<(), TestCaseError>,
) {
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        Some(value.replace('_', "").parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
    };
    let cases = number("HAIRPIN_CASES").map_or(cases, |cases: u64| cases as u32);
    let seed = number("HAIRPIN_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases, failure_persistence: None, max_global_rejects: cases + 1000, ..Config::default() };
    let start = Instant::now();
    if let Err(error) = TestRunner::new_with_rng(config, rng).run(strategy, test) {
        panic!("HAIRPIN_SEED={seed}: {error}");
    }
    println!("{cases} cases of HAIRPIN_SEED={seed} in {:.1} s", start.elapsed().as_secs_f64());
}

#[test]
fn what_becomes_of_a_packet_is_what_the_model_says() {
    let Some(bench) = Bench::or_skip() else { return };
    let bench = RefCell::new(bench);
    let seen = RefCell::new(BTreeMap::<&str, u32>::new());
    let total = Cell::new(0);
    run(5000, &case(), |Case { setup, interface, packet }| {
        let mut bench = bench.borrow_mut();
        bench.install(&setup).expect("room in the maps");
        let result = bench.expect_from("random", &setup, interface, &packet);
        bench.uninstall(&setup).expect("what was installed");
        match result {
            Ok(run) => {
                *seen.borrow_mut().entry(run.counted[0].0.label()).or_default() += 1;
                total.set(total.get() + 1);
                Ok(())
            }
            Err(error) => Err(TestCaseError::fail(error.to_string())),
        }
    });
    println!("{:?}", seen.borrow());
    // Every kind of end was met, and not only now and then.
    let (seen, total) = (seen.borrow(), total.get());
    for (verdict, one_in) in [
        (Verdict::ToPeer, 30),
        (Verdict::ToClient, 50),
        (Verdict::RelayToRelay, 40),
        (Verdict::Media, 100),
        (Verdict::ClientToMedia, 600),
        (Verdict::MediaToClient, 200),
        (Verdict::Binding, 150),
        (Verdict::Control, 100),
        (Verdict::NoFlow, 50),
        (Verdict::Expired, 50),
        (Verdict::NoPermission, 150),
        (Verdict::OtherHost, 100),
        (Verdict::NextHop, 100),
        (Verdict::TooBig, 200),
        (Verdict::HopLimit, 200),
        (Verdict::AllocationPacketRate, 300),
        (Verdict::AllocationBitRate, 300),
    ] {
        let met = seen.get(verdict.label()).copied().unwrap_or_default();
        assert!(met >= total / one_in, "{verdict:?} {met} times in {total}: {seen:?}");
    }
}

#[test]
fn noise_is_never_more_than_its_own_packet() {
    for (setup, paths) in [world(), world_behind_nat(), media_world(), media_world_behind_nat()] {
        noise_around(&setup, &paths);
    }
}

fn noise_around(setup: &Setup, paths: &[Path]) {
    let Some(mut bench) = Bench::or_skip() else { return };
    bench.install(setup).expect("room in the maps");
    let good: Vec<Vec<u8>> = paths.iter().map(|path| path.frame(&[7; 41]).bytes()).collect();
    // A byte is another one: then the packet is refused untouched, or it is still a good one, and then nothing but its own
    // fields may have changed what leaves. The UDP checksum is not made right again, and stays as wrong.
    let strategy = (any::<Index>(), any::<Index>(), any::<u8>());
    run(5000, &strategy, |(which, place, byte)| {
        let mut packet = which.get(&good).clone();
        let place = place.index(packet.len());
        packet[place] = byte;
        let run = bench.expect(&format!("byte {place}"), setup, &packet);
        let run = run.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(!matches!(run.outcome, Outcome::Unexpected(_)));
        Ok(())
    });
}
