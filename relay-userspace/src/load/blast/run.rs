//! A run from the command line.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Blast, BlastError, BlastReport, Pace, Plan, Way};
use crate::load::args::{Direction, Mode};
use crate::load::interrupt;
use crate::load::progress::Progress;
use crate::load::pulse::Pulse;
use crate::load::report::ServerLost;
use crate::load::servers::Run;

/// How often it is looked at the clock.
const TICK: Duration = Duration::from_millis(20);

/// Does a whole run, until its time is over, its frames are sent, the relay is lost, or Ctrl-C.
pub(in crate::load) fn measure(run: Run<'_>) -> Result<BlastReport, BlastError> {
    let Run { args, server, .. } = run;
    let way = match (args.mode, args.direction()) {
        (Mode::Pair, _) => Way::Pair,
        (Mode::Echo, Direction::ToPeer) => Way::ToPeer,
        (Mode::Echo, Direction::ToClient) => Way::ToClient,
    };
    let plan = Plan {
        // The command line is not accepted without one.
        interface: args.interface.clone().unwrap_or_default(),
        server,
        credentials: args.credentials(),
        allocations: args.allocations,
        flows_each: 1,
        way,
        carrier: args.method,
        family: run.family(),
        payload: args.payload,
    };
    let mut blast = Blast::relay(&plan)?;
    blast.verify()?;
    let mut verified = u64::from(args.allocations);

    let before = blast.counts()?;
    let interrupted = interrupt::requested();
    let mut progress = Progress::new(args.json);
    let start = Instant::now();
    let end = start + args.duration;
    let running = blast.start(Pace { rate: args.rate(), count: args.count, cpu: None })?;
    let mut pulse = Pulse::new(server, start)?;
    let mut lost = None;
    while Instant::now() < end && lost.is_none() && !running.has_ended() && !interrupted.load(Ordering::Relaxed) {
        blast.keep_alive(TICK)?;
        let counts = blast.counts()?;
        progress.show(
            counts.made - counts.refused - before.made + before.refused,
            blast.received() - before.received,
            start,
        );
        lost = pulse.beat(blast.received(), Instant::now());
    }
    running.stop().map_err(|error| BlastError::Send(plan.interface.clone(), error))?;
    let seconds = start.elapsed().as_secs_f64();
    blast.settle()?;
    progress.clear();
    verified += blast.check_samples()? as u64;
    let after = blast.counts()?;
    let server_lost = lost.map(|how| ServerLost { how, after_seconds: seconds });
    let counts = super::Counts {
        made: after.made - before.made,
        refused: after.refused - before.refused,
        received: after.received - before.received,
        overrun: after.overrun - before.overrun,
        others: after.others - before.others,
    };
    let report = BlastReport {
        server,
        interface: plan.interface,
        mode: args.mode,
        direction: (args.mode == Mode::Echo).then(|| args.direction()),
        method: args.method,
        family: run.family(),
        allocations: args.allocations,
        payload_bytes: args.payload,
        rate: args.rate(),
        server_lost,
        seconds,
        packets_sent: 0,
        packets_refused: 0,
        packets_received: 0,
        packets_lost: 0,
        packets_overrun: 0,
        loss: 0.0,
        share: 0.0,
        packets_verified: verified,
        sent_packets_per_second: 0.0,
        received_packets_per_second: 0.0,
        received_bits_per_second: 0.0,
    };
    Ok(report.with(counts, seconds))
}
