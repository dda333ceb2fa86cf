//! How many frames a second come back.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hairpin::load::blast::{Blast, Pace};

use super::{Bed, Path};
use crate::lab::{Metrics, Relay};

/// Caches fill, rings fill, and clocks of processors rise.
const WARM_UP: Duration = Duration::from_millis(100);
const WINDOW: Duration = Duration::from_millis(400);

/// A relay that forwards reaches more of the reflector's rate than this, on any machine.
const LEAST: f64 = 0.05;

/// What came of one path.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Which.
    pub path: Path,
    /// How many flows.
    pub flows: u32,
    /// Frames a second that came back through the relay; the median over the rounds.
    pub rate: f64,
    /// Frames of the same kind a second that came back from the reflector; the median over the rounds.
    pub reflected: f64,
    /// Their ratio in each round; the median over the rounds.
    pub share: f64,
    /// The part of the frames made that even the reflector's link had no room for; the median over the rounds. Without
    /// any, the generator was the slower one, and the share says too much.
    pub refused: f64,
    /// The part of the frames that did not go through userspace: 0 to 1.
    pub in_kernel: f64,
    /// Frames that were compared to the last bit.
    pub verified: usize,
}

/// The CPUs that work.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// Makes frames.
    pub generator: usize,
    /// Receives them at the relay's end, and what comes back.
    pub relay: usize,
}

/// Measures a path next to the reflector, in turn. To be called in the generator's namespace.
pub fn measure(
    bed: &Bed,
    relay: &Relay<'_>,
    path: Path,
    flows: u32,
    payload: usize,
    rounds: usize,
    cpus: Cpus,
) -> Result<Figure> {
    let mut relayed = Blast::relay(&path.plan(bed, flows, payload))?;
    let link = &bed.reflector_link;
    let mut reflected = relayed.reflected(&link.far, link.far_mac, link.near_mac)?;
    reflected.verify()?;
    relayed.verify()?;

    let mut verified = flows as usize;
    let (before, received) = (userspace(&relay.metrics()), relayed.received());
    let mut results = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let (relay, _) = rate(&mut relayed, cpus)?;
        let (reflector, refused) = rate(&mut reflected, cpus)?;
        verified += relayed.check_samples()?;
        reflected.check_samples()?;
        results.push([relay, reflector, relay / reflector, refused]);
    }
    #[allow(clippy::cast_precision_loss, reason = "counts of packets are far below 2^52")]
    let in_kernel = {
        let by_userspace = (userspace(&relay.metrics()) - before) as f64;
        (1.0 - by_userspace / (relayed.received() - received) as f64).max(0.0)
    };
    let median = |index: usize| {
        let mut values: Vec<f64> = results.iter().map(|result| result[index]).collect();
        values.sort_unstable_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (rate, reflected, share, refused) = (median(0), median(1), median(2), median(3));
    ensure!(share > LEAST, "only {rate:.0} packets a second come back: the relay drops them");
    Ok(Figure { path, flows, rate, reflected, share, refused, in_kernel, verified })
}

/// Frames a second that come back, and the part of those made that the link had no room for.
fn rate(blast: &mut Blast, cpus: Cpus) -> Result<(f64, f64)> {
    let running = blast.start(Pace { cpu: Some(cpus.generator), ..Pace::default() })?;
    thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), blast.counts()?);
    thread::sleep(WINDOW);
    let (elapsed, after) = (start.elapsed(), blast.counts()?);
    running.stop()?;
    blast.settle()?;
    let (received, made) = (after.received - before.received, after.made - before.made);
    ensure!(received > 0, "nothing comes back");
    let refused = after.refused - before.refused;
    #[allow(clippy::cast_precision_loss, reason = "counts of packets are far below 2^52")]
    Ok((received as f64 / elapsed.as_secs_f64(), refused as f64 / made as f64))
}

/// How many packets the daemon has forwarded or answered itself.
pub fn userspace(metrics: &Metrics) -> u64 {
    let relayed = metrics.sum("hairpin_relayed_packets_total", &[("path", "userspace")]);
    relayed + metrics.sum("hairpin_stun_requests_total", &[("path", "userspace"), ("method", "binding")])
}
