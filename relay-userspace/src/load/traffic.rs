//! Sending at the asked pace, and taking in what comes back.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hairpin_client::{frame, random_ids};

use super::args::{Args, Carrier, Mode, Transport};
use super::fleet::Fleet;
use super::interrupt;
use super::meter::Meter;
use super::pacer::Pacer;
use super::progress::Progress;
use super::pulse::{Lost, Pulse};
use super::report::ServerLost;
use super::servers::Run;
use super::setup::{CHANNEL, Ready, partner};
use super::stamp::Stamp;
use crate::net::{BATCH, IpFields, Outgoing, SendBatch};

/// The sender looks at the clock this often while nothing comes in.
const TICK: Duration = Duration::from_millis(1);
/// After the last packet was sent, late ones may still come for so long.
const DRAIN: Duration = Duration::from_secs(1);

/// After so long without data the server is asked whether it still knows its clients.
const STALL: Duration = Duration::from_secs(1);

/// A server that is reached by streams and does not answer that question is given up after so long without data.
const SILENCE: Duration = Duration::from_secs(4);

/// What happened.
pub(super) struct Traffic {
    pub(super) meter: Meter,
    pub(super) sent: u64,
    pub(super) refused: u64,
    pub(super) skipped: u64,
    /// How long packets were sent.
    pub(super) duration: Duration,
    /// How the server was lost on the way, if it was.
    pub(super) lost: Option<ServerLost>,
}

/// Sends for the time that was asked for, until Ctrl-C, or until the server is lost, and waits for late packets.
pub(super) fn run(measured: Run<'_>, ready: &mut Ready, run: u32) -> io::Result<Traffic> {
    let Run { args, server, transport } = measured;
    let Ready { fleet, targets, .. } = ready;
    let interrupted = interrupt::requested();
    let mut progress = Progress::new(args.json);
    let start = Instant::now();
    let end = start + args.duration;
    let mut sender = Sender::new(args, transport, targets, run, start);
    let mut receiver = Receiver { args, run, start, meter: Meter::new(targets.len()) };
    let mut pacer = Pacer::new(args.rate(), targets.len(), start);
    // A stream says itself when it breaks, and the server may not even listen on UDP.
    let pulse = if transport.is_stream() { None } else { Some(Pulse::new(server, start)?) };
    let mut watch = Watch { pulse, received: 0, since: start, stalled: start };
    let mut lost = None;

    let mut now = start;
    while now < end && lost.is_none() && !interrupted.load(Ordering::Relaxed) {
        let due = pacer.due(sender.sent, receiver.meter.received, now);
        if transport.is_stream() {
            sender.stream(fleet, due)?;
        } else {
            sender.send(fleet, due);
        }
        receiver.turn(fleet, TICK)?;
        progress.show(sender.sent, receiver.meter.received, start);
        now = Instant::now();
        lost = watch.look(fleet, receiver.meter.received, now);
    }
    let duration = start.elapsed();
    let end = Instant::now() + DRAIN;
    while Instant::now() < end && lost.is_none() && receiver.meter.received < sender.sent {
        receiver.turn(fleet, 10 * TICK)?;
    }
    progress.clear();
    if fleet.is_forgotten() {
        lost = lost.or(Some(Lost::Restarted));
    }
    // It may have died too late for anybody to notice.
    if receiver.meter.received < sender.sent {
        lost = lost.or_else(|| watch.pulse.as_mut()?.is_lost());
    }
    let lost = lost.map(|how| ServerLost { how, after_seconds: duration.as_secs_f64() });
    let Sender { sent, refused, .. } = sender;
    Ok(Traffic { meter: receiver.meter, sent, refused, skipped: pacer.skipped(), duration, lost })
}

/// Notices when the server is no longer the one that it was at the start.
struct Watch {
    /// Of a server that is reached by datagrams.
    pulse: Option<Pulse>,
    received: u64,
    /// When something came for the last time.
    since: Instant,
    /// Since when nothing has come, or when the server was last asked about that.
    stalled: Instant,
}

impl Watch {
    fn look(&mut self, fleet: &mut Fleet, received: u64, now: Instant) -> Option<Lost> {
        if received > self.received {
            (self.received, self.since, self.stalled) = (received, now, now);
        } else if now.duration_since(self.stalled) > STALL {
            self.stalled = now;
            fleet.ask_whether_known();
        }
        let forgotten = fleet.is_forgotten().then_some(Lost::Restarted);
        forgotten.or_else(|| match &mut self.pulse {
            Some(pulse) => pulse.beat(received, now),
            None if fleet.lost_streams > 0 => Some(Lost::Closed),
            None => (now.duration_since(self.since) > SILENCE && fleet.is_asking()).then_some(Lost::Silent),
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Takes in what comes back.
struct Receiver<'a> {
    args: &'a Args,
    run: u32,
    start: Instant,
    meter: Meter,
}

impl Receiver<'_> {
    fn turn(&mut self, fleet: &mut Fleet, wait: Duration) -> io::Result<()> {
        fleet.turn(wait, &mut |flow, data, now| {
            let from = match self.args.mode {
                Mode::Echo => flow,
                Mode::Pair => partner(flow),
            };
            // Data that was cut or padded is not what was sent, and that of another flow went astray: both are lost.
            let whole = data.payload.len() == self.args.payload;
            let stamp = Stamp::parse(data.payload, self.run).filter(|stamp| whole && stamp.flow as usize == from);
            if let Some(Stamp { sequence, sent, .. }) = stamp {
                let latency = nanos(now.duration_since(self.start)).saturating_sub(sent);
                self.meter.arrive(from, sequence, latency);
            }
        })
    }
}

/// Writes packets into buffers that are filled in advance but for a few bytes, and sends them in batches.
struct Sender {
    run: u32,
    start: Instant,
    /// What stands before the stamp in the packets of each flow.
    prefixes: Vec<Vec<u8>>,
    sequences: Vec<u64>,
    /// Which flow sends next.
    cursor: usize,
    packets: Vec<Vec<u8>>,
    order: Vec<u32>,
    batch: SendBatch<u32>,
    sent: u64,
    refused: u64,
}

impl Sender {
    fn new(args: &Args, transport: Transport, targets: &[SocketAddr], run: u32, start: Instant) -> Self {
        // Nobody answers an indication, so a flow keeps its transaction id, and with it the peer's mixed address.
        let is_stream = transport.is_stream();
        let packet = |target: SocketAddr| {
            let mut packet = Vec::new();
            let payload: Vec<u8> = (0..args.payload).map(|at| at as u8).collect();
            match args.method {
                Carrier::Channel if is_stream => frame::padded_channel_data(&mut packet, CHANNEL, &payload),
                Carrier::Channel => frame::channel_data(&mut packet, CHANNEL, &payload),
                Carrier::Send => {
                    frame::send_indication(&mut packet, random_ids()(), target, &payload, false);
                }
            }
            packet
        };
        // All targets are of one family: what comes behind the stamp stands at the same place in all packets.
        let template = packet(targets[0]);
        let padding = match args.method {
            Carrier::Channel if !is_stream => 0,
            Carrier::Channel | Carrier::Send => args.payload.next_multiple_of(4) - args.payload,
        };
        let prefix = template.len() - padding - args.payload;
        Self {
            run,
            start,
            prefixes: targets.iter().map(|target| packet(*target)[..prefix].to_vec()).collect(),
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
    fn send(&mut self, fleet: &Fleet, mut due: u64) {
        while due > 0 {
            let count = due.min(BATCH as u64) as usize;
            due -= count as u64;
            self.write(count, nanos(self.start.elapsed()));
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
            let socket = |flow: u32| fleet.flows.get(flow as usize).map(|flow| flow.link.as_fd());
            outbox.flush(socket, |_, _| refused += 1);
            self.sent += count as u64 - refused;
            self.refused += refused;
        }
    }

    /// Sends so many packets over streams, one of each flow in turn.
    fn stream(&mut self, fleet: &mut Fleet, mut due: u64) -> io::Result<()> {
        while due > 0 {
            let count = due.min(BATCH as u64) as usize;
            due -= count as u64;
            self.write(count, nanos(self.start.elapsed()));
            for (packet, flow) in self.packets.iter().zip(&self.order) {
                if fleet.send(*flow as usize, packet)? {
                    self.sent += 1;
                } else {
                    self.refused += 1;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, count: usize, now: u64) {
        self.order.clear();
        for packet in &mut self.packets[..count] {
            let flow = self.cursor;
            self.cursor = (flow + 1) % self.prefixes.len();
            let sequence = self.sequences[flow];
            self.sequences[flow] = sequence + 1;
            let prefix = &self.prefixes[flow];
            let stamp = Stamp { run: self.run, flow: flow as u32, sequence, sent: now };
            packet[..prefix.len()].copy_from_slice(prefix);
            packet[prefix.len()..prefix.len() + Stamp::LEN].copy_from_slice(&stamp.to_bytes());
            self.order.push(flow as u32);
        }
    }
}
