//! The thread that sends spans: OTLP over HTTP, in protobuf, as OpenTelemetry's own library does it.
//!
//! The library has a thread of its own for batches, but that knows no runtime, which its client of HTTP needs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::runtime::Runtime;

use super::span::{Clocks, resource, span};
use super::{Counts, Record, StartError};

/// How many spans go together.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// How long a collector may take for them, other attempts included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often the log says that it does not take them.
const REMINDER: Duration = Duration::from_secs(60);

pub(super) struct Export {
    exporter: SpanExporter,
    endpoint: String,
    runtime: Runtime,
    counts: Arc<Counts>,
    complaint: Complaint,
}

impl Export {
    /// Makes ready to send to an endpoint.
    pub(super) fn new(endpoint: &str, counts: Arc<Counts>) -> Result<Self, StartError> {
        let endpoint = resolved(endpoint);
        // Nobody would look after a connection between two batches, nor see that the collector has closed it.
        let headers = HashMap::from([("connection".to_owned(), "close".to_owned())]);
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(&endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(TIMEOUT)
            .with_headers(headers)
            .build()?;
        exporter.set_resource(&resource());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { exporter, endpoint, runtime, counts, complaint: Complaint::default() })
    }

    /// Sends what comes, until nobody is left whom it could come from.
    pub(super) fn run(mut self, records: &Receiver<Record>) {
        while let Ok(first) = records.recv() {
            let batch = batch(first, records);
            self.send(&batch);
        }
        // A name that is still being looked up shall keep nobody.
        self.runtime.shutdown_background();
    }

    fn send(&mut self, batch: &[Record]) {
        let clocks = Clocks::now();
        let spans = batch.iter().map(|record| span(record, clocks)).collect();
        let count = batch.len() as u64;
        let result = self.runtime.block_on(self.exporter.export(spans));
        let counter = if result.is_ok() { &self.counts.exported } else { &self.counts.failed };
        counter.fetch_add(count, Ordering::Relaxed);
        if let Err(error) = result
            && let Some(lost) = self.complaint.of(count, Instant::now())
        {
            tracing::warn!(
                "{lost} traces are lost: {} does not take them ({error}); see that a collector listens there for \
                 OTLP over HTTP",
                self.endpoint
            );
        }
    }
}

/// A record with those that follow it within a moment.
fn batch(first: Record, records: &Receiver<Record>) -> Vec<Record> {
    let end = Instant::now() + DELAY;
    let mut batch = vec![first];
    while batch.len() < BATCH
        && let Ok(next) = records.recv_timeout(end.saturating_duration_since(Instant::now()))
    {
        batch.push(next);
    }
    batch
}

/// Where spans go: OTLP has a path for them, which a URL without any leaves out.
fn resolved(endpoint: &str) -> String {
    let authority = endpoint.trim_end_matches('/');
    let has_path = authority.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?']));
    if has_path { endpoint.to_owned() } else { format!("{authority}/v1/traces") }
}

/// Says once in a while what has gone wrong how often.
#[derive(Debug, Default)]
struct Complaint {
    lost: u64,
    last: Option<Instant>,
}

impl Complaint {
    /// So many are lost. Returns how many are since it was said last, if it is to be said again.
    fn of(&mut self, lost: u64, now: Instant) -> Option<u64> {
        self.lost += lost;
        if self.last.is_some_and(|last| now.duration_since(last) < REMINDER) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_otlp_stands_where_there_is_no_other() {
        for base in ["http://127.0.0.1:4318", "http://127.0.0.1:4318/"] {
            assert_eq!(resolved(base), "http://127.0.0.1:4318/v1/traces");
        }
        for whole in ["http://collector/v1/traces", "http://collector/otlp/", "http://collector/?tenant=7"] {
            assert_eq!(resolved(whole), whole);
        }
    }

    #[test]
    fn a_complaint_is_not_made_for_each_batch() {
        let start = Instant::now();
        let mut complaint = Complaint::default();
        assert_eq!(complaint.of(5, start), Some(5));
        assert_eq!(complaint.of(7, start + REMINDER / 2), None);
        assert_eq!(complaint.of(1, start + REMINDER), Some(8));
    }
}
