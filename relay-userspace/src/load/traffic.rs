//! Sending at the asked pace, and taking in what comes back.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hairpin_client::frame;
use hairpin_proto::stun::TransactionId;

use super::args::{Args, Carrier, Mode};
use super::fleet::Fleet;
use super::meter::Meter;
use super::pacer::Pacer;
use super::progress::Progress;
use super::setup::{CHANNEL, Ready, partner};
use super::stamp::Stamp;
use crate::net::{BATCH, IpFields, Outgoing, SendBatch};

/// The sender looks at the clock this often while nothing comes in.
const TICK: Duration = Duration::from_millis(1);
/// After the last packet was sent, late ones may still come for so long.
const DRAIN: Duration = Duration::from_secs(1);

/// What happened.
pub(super) struct Traffic {
    pub(super) meter: Meter,
    pub(super) sent: u64,
    pub(super) refused: u64,
    pub(super) skipped: u64,
    /// How long packets were sent.
    pub(super) duration: Duration,
}

/// Sends for the time that was asked for, and waits for late packets.
pub(super) fn run(args: &Args, ready: &mut Ready, run: u32) -> io::Result<Traffic> {
    let Ready { fleet, targets, .. } = ready;
    let flows = fleet.flows.len();
    let mut sender = Sender::new(args, targets, run);
    let mut meter = Meter::new(flows);
    let mut progress = Progress::new(args.json);
    let start = Instant::now();
    let end = start + args.duration;
    let mut pacer = Pacer::new(args.rate, flows, start);

    let mut now = start;
    while now < end {
        let due = pacer.due(sender.sent, meter.received, now);
        sender.send(fleet, due, start);
        turn(fleet, TICK, &mut meter, args, run, start)?;
        progress.show(sender.sent, meter.received, start);
        now = Instant::now();
    }
    let duration = start.elapsed();
    let end = Instant::now() + DRAIN;
    while Instant::now() < end && meter.received < sender.sent {
        turn(fleet, 10 * TICK, &mut meter, args, run, start)?;
    }
    progress.clear();
    fleet.count_lost_renewals();
    let skipped = pacer.skipped();
    Ok(Traffic { meter, sent: sender.sent, refused: sender.refused, skipped, duration })
}

fn turn(fleet: &mut Fleet, wait: Duration, meter: &mut Meter, args: &Args, run: u32, start: Instant) -> io::Result<()> {
    fleet.turn(wait, &mut |flow, data, now| {
        let from = match args.mode {
            Mode::Echo => flow,
            Mode::Pair => partner(flow),
        };
        let stamp = Stamp::parse(data.payload).filter(|stamp| stamp.run == run && stamp.flow as usize == from);
        // Cut or padded data is not what was sent.
        if let Some(stamp) = stamp.filter(|_| data.payload.len() == args.payload) {
            meter.arrive(from, stamp.sequence, nanos(now.duration_since(start)).saturating_sub(stamp.sent));
        }
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Writes packets into buffers that are filled in advance but for a few bytes, and sends them in batches.
struct Sender {
    run: u32,
    /// A whole packet of each flow, up to its stamp.
    prefixes: Vec<Vec<u8>>,
    /// Where in a packet the low bytes of a transaction id are, if it has one.
    transaction: Option<usize>,
    sequences: Vec<u32>,
    /// Which flow sends next.
    cursor: usize,
    packets: Vec<Vec<u8>>,
    order: Vec<u32>,
    batch: SendBatch<u32>,
    sent: u64,
    refused: u64,
}

impl Sender {
    fn new(args: &Args, targets: &[SocketAddr], run: u32) -> Self {
        let packet = |target: SocketAddr| {
            let mut packet = Vec::new();
            let payload: Vec<u8> = (0..args.payload).map(|at| at as u8).collect();
            match args.method {
                Carrier::Channel => frame::channel_data(&mut packet, CHANNEL, &payload),
                Carrier::Send => {
                    frame::send_indication(&mut packet, TransactionId([0; 12]), target, &payload, false);
                }
            }
            packet
        };
        // All targets are of one family: what comes behind the stamp stands at the same place in all packets.
        let template = packet(targets[0]);
        let padding = match args.method {
            Carrier::Channel => 0,
            Carrier::Send => args.payload.next_multiple_of(4) - args.payload,
        };
        let prefix = template.len() - padding - args.payload;
        Self {
            run,
            prefixes: targets.iter().map(|target| packet(*target)[..prefix].to_vec()).collect(),
            transaction: (args.method == Carrier::Send).then_some(16),
            sequences: vec![0; targets.len()],
            cursor: 0,
            packets: vec![template; BATCH],
            order: Vec::with_capacity(BATCH),
            batch: SendBatch::new(),
            sent: 0,
            refused: 0,
        }
    }

    /// Sends so many packets, one of each flow in turn.
    fn send(&mut self, fleet: &Fleet, mut due: u64, start: Instant) {
        while due > 0 {
            let count = due.min(BATCH as u64) as usize;
            due -= count as u64;
            self.write(count, nanos(start.elapsed()));
            let mut outbox = self.batch.start();
            for (packet, flow) in self.packets.iter().zip(&self.order) {
                outbox.push(&Outgoing {
                    socket: *flow,
                    source: None,
                    destination: fleet.server,
                    ip: IpFields::ORIGINATED,
                    header: &[],
                    payload: packet,
                    padding: 0,
                });
            }
            let mut refused = 0;
            let socket = |flow: u32| fleet.flows.get(flow as usize).map(|flow| flow.socket.as_fd());
            outbox.flush(socket, |_, _| refused += 1);
            self.sent += count as u64 - refused;
            self.refused += refused;
        }
    }

    fn write(&mut self, count: usize, now: u64) {
        self.order.clear();
        for packet in &mut self.packets[..count] {
            let flow = self.cursor;
            self.cursor = (flow + 1) % self.prefixes.len();
            let sequence = self.sequences[flow];
            self.sequences[flow] = sequence.wrapping_add(1);
            let prefix = &self.prefixes[flow];
            let stamp = Stamp { run: self.run, flow: flow as u32, sequence, sent: now };
            packet[..prefix.len()].copy_from_slice(prefix);
            packet[prefix.len()..prefix.len() + Stamp::LEN].copy_from_slice(&stamp.to_bytes());
            if let Some(at) = self.transaction {
                // No two indications in a row have the same id.
                packet[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
            }
            self.order.push(flow as u32);
        }
    }
}
