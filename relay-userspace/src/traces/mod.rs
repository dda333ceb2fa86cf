//! Traces of requests, for a collector that speaks OTLP: a span for each response of a shard, or for every Nth.
//!
//! A shard does no more for it than to put a small [`Record`] into a queue of fixed length ([`Tracer`]). A thread of its own
//! makes spans of records (`span`) and sends them (`export`). Nobody waits for a collector: what it does not take is counted.

mod export;
mod record;
mod span;
mod tracer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use opentelemetry_otlp::ExporterBuildError;

use self::export::Export;
pub use self::record::{Record, Response};
pub use self::tracer::Tracer;

/// Records that may wait: what a busy relay answers while a batch is on its way.
const ROOM: usize = 4096;
/// How long the end of the relay waits for the last spans to be taken.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why there can be no traces.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The exporter cannot be made, as with a variable of OpenTelemetry's that asks for something which is not there.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
    /// There can be no thread for it.
    #[error("the thread of the traces: {0}")]
    Thread(#[from] io::Error),
}

/// The traces of a relay. Without an endpoint they are off.
#[derive(Debug, Default)]
pub struct Traces {
    on: Option<On>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct On {
    records: SyncSender<Record>,
    sample: u32,
    /// Breaks when the thread has ended.
    thread: Receiver<()>,
}

/// What has become of spans.
#[derive(Debug, Default)]
pub struct Counts {
    dropped: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
}

impl Traces {
    /// Starts to send to an endpoint, if there is one: of each shard's requests, every `sample`th.
    pub fn start(endpoint: Option<&str>, sample: u32) -> Result<Self, StartError> {
        let Some(endpoint) = endpoint else { return Ok(Self::default()) };
        let counts = Arc::new(Counts::default());
        let (records, arriving) = mpsc::sync_channel(ROOM);
        let (alive, thread) = mpsc::sync_channel(0);
        let export = Export::new(endpoint, Arc::clone(&counts))?;
        thread::Builder::new().name("traces".to_owned()).spawn(move || {
            export.run(&arriving);
            drop(alive);
        })?;
        Ok(Self { on: Some(On { records, sample, thread }), counts })
    }

    /// What a shard traces with.
    pub fn tracer(&self) -> Tracer {
        match &self.on {
            Some(On { records, sample, .. }) => Tracer::new(records.clone(), *sample, Arc::clone(&self.counts)),
            None => Tracer::default(),
        }
    }

    /// What has become of spans.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Sends what is left, but does not wait for long. To be called when all shards have ended.
    pub fn stop(self) {
        let Some(On { records, thread, .. }) = self.on else { return };
        drop(records);
        if thread.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the collector of --otlp has not taken the last traces in time: they are lost");
        }
    }
}

impl Counts {
    /// Spans that found no room in the queue.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Spans that the collector has taken.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans that it has not.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}
