//! A shard's end of the traces.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use hairpin_proto::turn::Cause;

use super::{Counts, Record, Response};

/// What a shard traces with; by default it traces nothing, which costs a branch for each response.
#[derive(Debug, Default)]
pub struct Tracer(Option<On>);

#[derive(Debug)]
struct On {
    records: SyncSender<Record>,
    counts: Arc<Counts>,
    /// Of how many requests one is traced.
    sample: u32,
    /// How many come before the next one that is.
    skip: u32,
    /// The last one: if it was refused, that is said behind its response.
    last: Option<Record>,
}

impl Tracer {
    pub(super) fn new(records: SyncSender<Record>, sample: u32, counts: Arc<Counts>) -> Self {
        Self(Some(On { records, counts, sample: sample.max(1), skip: 0, last: None }))
    }

    /// A message goes out. If it answers a request whose turn it is, [`Tracer::answered`] wants to know more.
    pub fn response(&mut self, message: &[u8]) -> Option<Response> {
        let on = self.0.as_mut()?;
        on.flush();
        let response = Response::of(message)?;
        if on.skip > 0 {
            on.skip -= 1;
            return None;
        }
        on.skip = on.sample - 1;
        Some(response)
    }

    /// All about a request that was answered.
    pub fn answered(&mut self, record: Record) {
        if let Some(on) = &mut self.0 {
            on.last = Some(record);
        }
    }

    /// The last message was a refusal.
    pub fn refused(&mut self, cause: Cause) {
        if let Some(On { last: Some(record), .. }) = &mut self.0 {
            record.cause = Some(cause);
        }
    }

    /// No refusal comes any more.
    pub fn flush(&mut self) {
        if let Some(on) = &mut self.0 {
            on.flush();
        }
    }
}

impl On {
    fn flush(&mut self) {
        if let Some(record) = self.last.take()
            && self.records.try_send(record).is_err()
        {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver};

    use hairpin_proto::address::{AddressFamily, Transport};
    use hairpin_proto::stun::{ErrorCode, MessageBuilder, Method, TransactionId};

    use super::*;

    const NUMBERS: usize = 4;

    fn tracer(sample: u32) -> (Tracer, Receiver<Record>, Arc<Counts>) {
        let (records, arriving) = mpsc::sync_channel(NUMBERS);
        let counts = Arc::new(Counts::default());
        (Tracer::new(records, sample, Arc::clone(&counts)), arriving, counts)
    }

    /// Traces a refusal, whose cause comes behind it.
    fn refuse(tracer: &mut Tracer, code: ErrorCode, cause: Cause) {
        let mut message = Vec::new();
        MessageBuilder::error(&mut message, Method::ALLOCATE, TransactionId([0; 12]), code).finish(false);
        if let Some(response) = tracer.response(&message) {
            tracer.answered(record(response));
        }
        tracer.refused(cause);
    }

    fn record(response: Response) -> Record {
        Record {
            response,
            cause: None,
            transport: Transport::Udp,
            family: AddressFamily::V4,
            client: None,
            shard: 0,
            has_allocation: false,
            began: 1,
            ended: 2,
        }
    }

    #[test]
    fn of_every_so_many_requests_the_first_is_traced_with_its_own_cause() {
        let (mut tracer, arriving, counts) = tracer(3);
        let (first, other) = (Cause::WrongPassword, Cause::UnknownUser);
        for cause in [first, other, other, first, other] {
            refuse(&mut tracer, ErrorCode::UNAUTHENTICATED, cause);
        }
        tracer.flush();
        let causes: Vec<_> = arriving.try_iter().map(|record| record.cause).collect();
        assert_eq!(causes, [Some(first); 2]);
        assert_eq!(counts.dropped(), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (mut tracer, arriving, counts) = tracer(1);
        for _ in 0..NUMBERS + 3 {
            refuse(&mut tracer, ErrorCode::FORBIDDEN, Cause::WrongPassword);
        }
        tracer.flush();
        assert_eq!((arriving.try_iter().count(), counts.dropped()), (NUMBERS, 3));
        drop(arriving);
        refuse(&mut tracer, ErrorCode::FORBIDDEN, Cause::WrongPassword);
        tracer.flush();
        assert_eq!(counts.dropped(), 4, "nobody takes it");
    }

    #[test]
    fn a_tracer_that_is_off_wants_nothing() {
        let mut message = Vec::new();
        MessageBuilder::error(&mut message, Method::ALLOCATE, TransactionId([0; 12]), ErrorCode::FORBIDDEN)
            .finish(false);
        assert_eq!(Tracer::default().response(&message), None);
    }
}
