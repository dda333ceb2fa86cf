//! Frames leave: a thread that does nothing else, for as long as the kernel runs the program that makes them.
//!
//! The kernel takes tens of milliseconds to begin and to end such a run, so there is one long run, and the program itself
//! looks how many frames it may make. While it may make none, it spins.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use super::program::Source;
use super::signal;

/// How often a paced generator is allowed more; at a million frames a second that is less than a receiver's ring.
const NAP: Duration = Duration::from_micros(100);
/// How often a generator is asked to stop until it does: the first signal may come before its system call.
const ASK_AGAIN: Duration = Duration::from_millis(1);

/// How fast frames are made, and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Frames a second; 0 for as fast as it goes.
    pub rate: u64,
    /// The most there may be.
    pub count: Option<u64>,
    /// The CPU that makes them; any by default.
    pub cpu: Option<usize>,
}

/// A generator at work. Dropping it stops it, too.
#[derive(Debug)]
pub struct Running {
    source: Arc<Source>,
    stop: Arc<AtomicBool>,
    generator: Option<JoinHandle<io::Result<()>>>,
    pacer: Option<JoinHandle<()>>,
    /// After so many frames in all it has done what it was asked for.
    last: u64,
}

impl Running {
    /// Starts to send, in the network namespace of the calling thread.
    pub(super) fn start(source: &Arc<Source>, pace: Pace) -> io::Result<Self> {
        let first = source.made();
        let last = pace.count.map_or(u64::MAX, |count| first + count);
        source.allow(if pace.rate == 0 { last } else { first });
        let stop = Arc::new(AtomicBool::new(false));
        let (for_thread, stopped) = (Arc::clone(source), Arc::clone(&stop));
        signal::prepare()?;
        let generator = thread::Builder::new().name("generator".to_owned()).spawn(move || {
            if let Some(cpu) = pace.cpu {
                let mut cpus = CpuSet::new();
                cpus.set(cpu);
                sched_setaffinity(None, &cpus)?;
            }
            while !stopped.load(Relaxed) {
                for_thread.run()?;
            }
            Ok(())
        })?;
        let mut running = Self { source: Arc::clone(source), stop, generator: Some(generator), pacer: None, last };
        if pace.rate > 0 {
            let (source, stopped) = (Arc::clone(source), Arc::clone(&running.stop));
            let pacer = thread::Builder::new().name("pacer".to_owned());
            running.pacer = Some(pacer.spawn(move || {
                let start = Instant::now();
                while !stopped.load(Relaxed) {
                    let planned = start.elapsed().as_nanos() * u128::from(pace.rate) / 1_000_000_000;
                    source.allow(first.saturating_add(planned as u64).min(last));
                    thread::sleep(NAP);
                }
            })?);
        }
        Ok(running)
    }

    /// Whether it has made all the frames that it may make, or has failed.
    pub fn has_ended(&self) -> bool {
        self.source.made() >= self.last || self.has_failed()
    }

    /// Whether it has ended by itself, which it does when the kernel refuses to go on.
    pub(super) fn has_failed(&self) -> bool {
        self.generator.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops it.
    pub fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.stop.store(true, Relaxed);
        let Some(generator) = self.generator.take() else { return Ok(()) };
        if let Some(pacer) = self.pacer.take() {
            // It only sleeps and counts.
            let _ = pacer.join();
        }
        // Not one frame more, however long it takes to hear the signal.
        self.source.allow(0);
        while !generator.is_finished() {
            signal::interrupt(&generator);
            thread::sleep(ASK_AGAIN);
        }
        generator.join().unwrap_or_else(|_| Err(io::Error::other("the generator's thread panicked")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever wants to know how it ended has called `stop`.
        let _ = self.end();
    }
}
