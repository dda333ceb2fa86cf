//! `hairpin load --blast`: millions of frames a second through a relay, out of one end of a veth pair.
//!
//! 1. allocations, permissions and channels are made as by any client ([`Blast::relay`]);
//! 2. frames for them are made by a BPF program that the kernel runs over live frames, and that redirects them into the
//!    veth, without any socket ([`Blast::start`]);
//! 3. what comes back at the same interface is counted, checked and dropped by another program: each frame must have the
//!    right length, and a mark of this run where its data begins; some are compared to the last bit
//!    ([`Blast::check_samples`]).
//!
//! Nothing is sent out of an interface that is not one end of a veth pair, or that a default route leads through.

mod assembler;
mod bpf;
mod frame;
mod generator;
mod link_counts;
mod program;
mod report;
mod run;
mod signal;
mod trips;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_client::{AllocateOptions, Credentials, Outcome, Request, Settings, random_ids};
use hairpin_common::wire::ETHERNET_LEN;
use hairpin_proto::stun::{Class, MessageBuilder, Method};

use self::frame::Link;
pub use self::generator::{Pace, Running};
use self::link_counts::LinkCounts;
use self::program::{MOST_FLOWS, SAMPLES, Sink, Source};
pub use self::report::BlastReport;
pub(super) use self::run::measure;
pub use self::trips::Way;
use self::trips::{Flow, Trips};
use super::fleet::Fleet;
use super::link::Road;
use super::setup::{CHANNEL, probe};
use super::{Carrier, Family, LoadError};
use crate::datapath::hop::{self, Hop};
use crate::net::source_address_towards;

/// How many flows an allocation can have. With two of them, pairs need a number of allocations that 4 divides.
pub const MOST_FLOWS_EACH: u32 = 2;
/// The least payload: the mark.
pub const LEAST_PAYLOAD: usize = 8;
/// One of so many frames is compared to the last bit while they fly.
const SAMPLE_MASK: u64 = (1 << 12) - 1;
/// How long frames may be under way when the link is quiet.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a flow is tried before it counts as not forwarded: its first frame may wait for a neighbour.
const ATTEMPTS: usize = 10;
/// Ports of peers start here. Nobody listens on them: what arrives is taken before it gets so far.
const PEER_PORT: u16 = 20_000;
const PEER_PORTS: usize = 10_000;
/// Clients that only send Binding requests have these ports.
const BINDING_PORT: u16 = 10_000;

/// What to send through which relay.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One end of a veth pair, in the network namespace of the calling thread; the relay is at the other end.
    pub interface: String,
    /// Where clients reach the relay.
    pub server: SocketAddr,
    /// Who the clients are.
    pub credentials: Credentials,
    /// How many allocations there are.
    pub allocations: u32,
    /// How many flows each of them has, to as many peers: 1 to [`MOST_FLOWS_EACH`].
    pub flows_each: u32,
    /// Which way frames go.
    pub way: Way,
    /// How data travels between clients and relay.
    pub carrier: Carrier,
    /// IP version of relayed addresses and peers.
    pub family: Family,
    /// Application data in a frame, in bytes, at least [`LEAST_PAYLOAD`].
    pub payload: usize,
}

impl Plan {
    /// How many flows there are in all.
    fn flows(&self) -> usize {
        self.allocations as usize * self.flows_each as usize
    }
}

/// Why frames could not be sent, or what was wrong with those that came back.
#[derive(Debug, thiserror::Error)]
pub enum BlastError {
    /// There is no such interface here.
    #[error("there is no interface {0} in this network namespace")]
    NoInterface(String),
    /// The interface may lead to other people.
    #[error(
        "{0} is not one end of a veth pair: frames are sent without asking anybody, so only a lab's link is allowed"
    )]
    NotVeth(String),
    /// The same.
    #[error(
        "a default route leads through {0}: frames are sent without asking anybody, so only a lab's link is allowed"
    )]
    DefaultRoute(String),
    /// The relay is not at the other end of the interface.
    #[error("{address} is not reached through {interface}")]
    OtherInterface {
        /// What should be reached.
        address: IpAddr,
        /// The interface that was named.
        interface: String,
    },
    /// More flows than there are marks, or none, or an allocation without a partner.
    #[error("1 to {MOST_FLOWS} flows are possible, and in pairs an even number of allocations")]
    Flows,
    /// A frame would not fit.
    #[error("frames of {length} bytes of IP do not fit {interface}, whose MTU is {mtu}")]
    TooBig {
        /// The interface.
        interface: String,
        /// Length of the larger of what is sent and what comes back.
        length: usize,
        /// The most there can be.
        mtu: u32,
    },
    /// A program was refused.
    #[error("the kernel refuses a BPF program (this needs root): {0}")]
    Bpf(io::Error),
    /// The program that counts could not be attached.
    #[error("XDP cannot be attached to {0} (another program may be there): {1}")]
    Attach(String, io::Error),
    /// Frames could not be sent.
    #[error("the kernel does not send frames out of {0}: {1}")]
    Send(String, io::Error),
    /// Frames of some flows never came back.
    #[error("only {seen} of {of} flows are forwarded")]
    NotForwarded {
        /// How many are.
        seen: usize,
        /// How many there are.
        of: usize,
    },
    /// A frame came back that is not what the relay had to send.
    #[error("a frame came back wrong: {0}; it is {1:02x?}")]
    Wrong(String, Vec<u8>),
    /// The allocations could not be made.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The system refused something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How many frames there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that were made.
    pub made: u64,
    /// Of these, frames for which the link had no room: nobody received them.
    pub refused: u64,
    /// Frames that came back as they should.
    pub received: u64,
    /// Frames that came back and found no room on the link: not among those received.
    pub overrun: u64,
    /// Anything else that came in.
    pub others: u64,
}

/// Allocations, frames for them, and programs that send and take them.
pub struct Blast {
    interface: String,
    trips: Trips,
    source: Arc<Source>,
    sink: Sink,
    _attached: OwnedFd,
    allocations: Option<Allocations>,
    link: LinkCounts,
}

impl Blast {
    /// Makes allocations, and gets ready to send through them.
    pub fn relay(plan: &Plan) -> Result<Self, BlastError> {
        let index = check_interface(&plan.interface)?;
        let whole = plan.way != Way::Pair || plan.allocations.is_multiple_of(2 * plan.flows_each);
        if !(1..=MOST_FLOWS_EACH).contains(&plan.flows_each) || !(1..=MOST_FLOWS).contains(&plan.flows()) || !whole {
            return Err(BlastError::Flows);
        }
        // A relay that answers from its driver needs a receiver for such frames at this end of the veth from the start.
        let passing = program::load_passing().map_err(BlastError::Bpf)?;
        let receiver = bpf::attach(passing.as_fd(), index);
        let receiver = receiver.map_err(|error| BlastError::Attach(plan.interface.clone(), error))?;
        if plan.way == Way::Binding {
            return Self::bindings(plan, receiver);
        }
        let (allocations, flows) = allocate(plan)?;
        let (from, to) = match plan.way {
            Way::ToClient => (flows[0].peer.ip(), flows[0].relayed.ip()),
            _ => (flows[0].client.ip(), flows[0].server.ip()),
        };
        let hop = first_hop(plan, from, to)?;
        let link = Link { destination: hop.destination, source: hop.source };
        let payload = plan.payload.max(LEAST_PAYLOAD);
        let trips = Trips::of_data(plan.way, plan.carrier, link, &flows, payload, random_run());
        Self::new(trips, &hop, Some(allocations), Some(receiver))
    }

    fn bindings(plan: &Plan, receiver: OwnedFd) -> Result<Self, BlastError> {
        let local = probe(plan.server)?;
        let flows: Vec<Flow> = (0..plan.flows())
            .map(|flow| {
                let client = SocketAddr::new(local, BINDING_PORT.wrapping_add(flow as u16).max(1024));
                Flow { client, server: plan.server, relayed: client, peer: client, partner: client, channel: 0 }
            })
            .collect();
        let hop = first_hop(plan, local, plan.server.ip())?;
        let link = Link { destination: hop.destination, source: hop.source };
        let trips = Trips::of_bindings(link, &flows, answer_length(local, plan.server)?, random_run());
        Self::new(trips, &hop, None, Some(receiver))
    }

    /// Gets ready to send the same frames out of another veth, at whose other end a [`reflector`] is.
    ///
    /// `destination` is the link-layer address of that end.
    pub fn reflected(&self, interface: &str, source: [u8; 6], destination: [u8; 6]) -> Result<Self, BlastError> {
        let index = check_interface(interface)?;
        let trips = self.trips.reflected(Link { destination, source });
        Self::new(
            trips,
            &Hop { interface: interface.to_owned(), index, mtu: u32::MAX, source, destination },
            None,
            None,
        )
    }

    /// `receiver` is a program that is attached to the interface already.
    fn new(
        trips: Trips,
        hop: &Hop,
        allocations: Option<Allocations>,
        receiver: Option<OwnedFd>,
    ) -> Result<Self, BlastError> {
        let interface = hop.interface.clone();
        let length = trips.frames[0].len().max(trips.shape.length) - ETHERNET_LEN;
        if length > hop.mtu as usize {
            return Err(BlastError::TooBig { interface, length, mtu: hop.mtu });
        }
        let source = Arc::new(Source::new(&trips.frames, hop.index).map_err(BlastError::Bpf)?);
        let sink = Sink::new(trips.shape).map_err(BlastError::Bpf)?;
        let attached = match receiver {
            Some(receiver) => sink.replace(receiver.as_fd()).map(|()| receiver),
            None => sink.attach(hop.index),
        };
        let attached = attached.map_err(|error| BlastError::Attach(interface.clone(), error))?;
        let link = LinkCounts::of(&interface)?;
        Ok(Self { interface, trips, source, sink, _attached: attached, allocations, link })
    }

    /// Sends a frame of each flow and waits for it, and compares all of them to the last bit.
    pub fn verify(&mut self) -> Result<(), BlastError> {
        let flows = self.trips.frames.len();
        self.sink.sample_every(0);
        let running = self.start(Pace { count: Some(0), ..Pace::default() })?;
        for _ in 0..ATTEMPTS {
            let mut left = flows;
            while left > 0 {
                let some = left.min(SAMPLES);
                left -= some;
                let received = self.sink.received() + some as u64;
                self.source.allow(self.source.made() + some as u64);
                let end = Instant::now() + PATIENCE;
                while self.sink.received() < received && Instant::now() < end && !running.has_failed() {
                    thread::sleep(Duration::from_micros(100));
                }
                self.check_samples()?;
                self.keep_alive(Duration::ZERO)?;
                // The relay does not forward: no need to find out for each of thousands of flows.
                if self.sink.received() == 0 {
                    break;
                }
            }
            if self.sink.flows_seen(flows) == flows || running.has_failed() {
                break;
            }
        }
        running.stop().map_err(|error| BlastError::Send(self.interface.clone(), error))?;
        self.sink.sample_every(SAMPLE_MASK);
        if self.sink.flows_seen(flows) == flows {
            return Ok(());
        }
        Err(BlastError::NotForwarded { seen: self.sink.flows_seen(flows), of: flows })
    }

    /// Sends, in a thread of its own, until told to stop.
    pub fn start(&self, pace: Pace) -> io::Result<Running> {
        Running::start(&self.source, pace)
    }

    /// What was counted since this was made. Frames may be under way.
    pub fn counts(&self) -> io::Result<Counts> {
        let link = LinkCounts::of(&self.interface)?.since(self.link);
        Ok(Counts {
            made: self.source.made(),
            refused: link.sent_dropped,
            received: self.sink.received(),
            overrun: link.received_dropped,
            others: self.sink.others(),
        })
    }

    /// How many frames came back as they should, since this was made.
    pub fn received(&self) -> u64 {
        self.sink.received()
    }

    /// Compares the frames that were kept since the last time with what they should be; how many there were.
    ///
    /// To be called when nothing is under way.
    pub fn check_samples(&self) -> Result<usize, BlastError> {
        let samples = self.sink.take_samples();
        for sample in &samples {
            self.trips.check(sample).map_err(|what| BlastError::Wrong(what, sample.clone()))?;
        }
        Ok(samples.len())
    }

    /// Does what allocations need to live on, for so long.
    pub fn keep_alive(&mut self, wait: Duration) -> io::Result<()> {
        if let Some(Allocations(fleet)) = &mut self.allocations {
            return fleet.turn(wait, &mut |_, _, _| {});
        }
        thread::sleep(wait);
        Ok(())
    }

    /// Waits until nothing more comes back.
    pub fn settle(&mut self) -> io::Result<()> {
        let mut received = self.received();
        loop {
            self.keep_alive(Duration::from_millis(50))?;
            if self.received() == received {
                return Ok(());
            }
            received = self.received();
        }
    }
}

/// Clients whose allocations are released when this goes out of scope.
struct Allocations(Fleet);

impl Drop for Allocations {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Attaches a program that sends every frame back to where it came from: what any forwarding costs at least. It stays
/// until the result is dropped.
pub fn reflector(interface: &str) -> Result<OwnedFd, BlastError> {
    let index = check_interface(interface)?;
    let program = program::load_reflector().map_err(BlastError::Bpf)?;
    bpf::attach(program.as_fd(), index).map_err(|error| BlastError::Attach(interface.to_owned(), error))
}

/// Index of an interface that frames may be sent out of.
pub fn check_interface(name: &str) -> Result<u32, BlastError> {
    let found = hop::interface(name)?.ok_or_else(|| BlastError::NoInterface(name.to_owned()))?;
    if !found.is_veth {
        return Err(BlastError::NotVeth(name.to_owned()));
    }
    if found.is_default {
        return Err(BlastError::DefaultRoute(name.to_owned()));
    }
    Ok(found.index)
}

fn allocate(plan: &Plan) -> Result<(Allocations, Vec<Flow>), BlastError> {
    super::allow_many_files();
    let local = probe(plan.server)?;
    let settings = Settings {
        credentials: Some(plan.credentials.clone()),
        software: Some("hairpin load".to_owned()),
        ..Settings::default()
    };
    let mut allocations =
        Allocations(Fleet::open(plan.server, Road::Udp(local), plan.allocations as usize, &settings)?);
    let flows = set_up(plan, &mut allocations.0)?;
    Ok((allocations, flows))
}

fn set_up(plan: &Plan, fleet: &mut Fleet) -> Result<Vec<Flow>, LoadError> {
    let options = AllocateOptions { family: Some(plan.family.into()), ..AllocateOptions::default() };
    fleet.request_all(
        |_| Request::Allocate(options.clone()),
        |flow, outcome| {
            if let Outcome::Allocated(allocation) = outcome {
                flow.relayed = allocation.relayed_of(plan.family.into());
            }
        },
    )?;
    let relayed: Vec<SocketAddr> =
        fleet.flows.iter().map(|flow| flow.relayed.ok_or(LoadError::OtherFamily)).collect::<Result<_, _>>()?;
    let peer_ip = source_address_towards(relayed[0].ip()).ok_or(LoadError::NoWayBack(relayed[0].ip()))?;
    let each = plan.flows_each as usize;
    let flows: Vec<Flow> = (0..plan.flows())
        .map(|flow| {
            let (own, number) = (flow / each, flow % each);
            // Whom it sends to with this number, and who sends to it with the same.
            let other = own ^ (number + 1);
            let is_pair = plan.way == Way::Pair;
            Flow {
                client: fleet.flows[own].link.local(),
                server: plan.server,
                relayed: relayed[own],
                peer: if is_pair {
                    relayed[other]
                } else {
                    SocketAddr::new(peer_ip, PEER_PORT + (flow % PEER_PORTS) as u16)
                },
                partner: fleet.flows[if is_pair { other } else { own }].link.local(),
                channel: CHANNEL + number as u16,
            }
        })
        .collect();
    for number in 0..each {
        fleet.request_all(
            |own| {
                let Flow { channel, peer, .. } = flows[own * each + number];
                match plan.carrier {
                    Carrier::Channel => Request::ChannelBind { channel, peer },
                    Carrier::Send => Request::CreatePermission(vec![peer]),
                }
            },
            |_, _| {},
        )?;
    }
    Ok(flows)
}

/// The way to the relay, which must lead through the interface that was named.
fn first_hop(plan: &Plan, from: IpAddr, to: IpAddr) -> Result<Hop, BlastError> {
    let end = Instant::now() + PATIENCE;
    let socket = UdpSocket::bind((from, 0))?;
    loop {
        // To the discard port: only that the neighbour is resolved matters.
        socket.send_to(&[], (to, 9))?;
        match hop::towards(from, to)? {
            Some(hop) if hop.interface == plan.interface => return Ok(hop),
            None if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
            _ => return Err(BlastError::OtherInterface { address: to, interface: plan.interface.clone() }),
        }
    }
}

/// How long the answer to a Binding request without attributes is: what a server adds is its own business.
fn answer_length(local: IpAddr, server: SocketAddr) -> Result<usize, BlastError> {
    let socket = UdpSocket::bind((local, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    MessageBuilder::new(&mut request, Class::Request, Method::BINDING, random_ids()()).finish(false);
    socket.send(&request)?;
    let mut answer = [0; 2048];
    socket.recv(&mut answer).map_err(|_| LoadError::NoAnswer(server).into())
}

fn random_run() -> [u8; 4] {
    super::random_run().to_ne_bytes()
}
