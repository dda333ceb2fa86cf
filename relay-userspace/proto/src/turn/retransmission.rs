//! Requests that come again because the answer was lost (RFC 8489 section 6.3.1).

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::address::FiveTuple;
use crate::stun::TransactionId;

/// How long a client may retransmit: RFC 8489 section 6.3.1 asks to remember a response for 40 seconds.
const MEMORY: Duration = Duration::from_secs(40);
/// How many responses are kept. They are about 150 bytes each, so this is some megabytes; when one user floods the
/// server, others lose the answers to their retransmissions earlier, and nothing else.
const CAPACITY: usize = 16_384;

type Key = (FiveTuple, TransactionId);

/// Success responses to authenticated requests. Nothing else is kept: an error changes nothing and is found again.
#[derive(Debug, Default)]
pub(super) struct Retransmissions {
    responses: HashMap<Key, Kept>,
    /// Oldest first.
    order: VecDeque<(Instant, Key)>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
struct Kept {
    at: Instant,
    /// Of the whole request: the same transaction id on other bytes is not a retransmission.
    digest: u64,
    response: Box<[u8]>,
}

impl Retransmissions {
    /// A digest of a request's bytes.
    pub(super) fn digest(&self, request: &[u8]) -> u64 {
        self.hasher.hash_one(request)
    }

    /// The response that was given to these very bytes before.
    pub(super) fn find(&self, now: Instant, five_tuple: FiveTuple, id: TransactionId, request: &[u8]) -> Option<&[u8]> {
        let kept = self.responses.get(&(five_tuple, id))?;
        let same = kept.digest == self.digest(request);
        (same && now < kept.at + MEMORY).then_some(&*kept.response)
    }

    /// Keeps the response to a request.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        five_tuple: FiveTuple,
        id: TransactionId,
        digest: u64,
        response: &[u8],
    ) {
        self.forget_old(now);
        if self.order.len() >= CAPACITY {
            self.forget_first();
        }
        let key = (five_tuple, id);
        self.responses.insert(key, Kept { at: now, digest, response: response.into() });
        self.order.push_back((now, key));
    }

    /// Forgets what no client will ask for any more.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| *at + MEMORY <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((at, key)) = self.order.pop_front() {
            // A later response may have taken its place under the same transaction id.
            if self.responses.get(&key).is_some_and(|kept| kept.at == at) {
                self.responses.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{ClientAddr, ServerAddr};

    fn five_tuple(port: u16) -> FiveTuple {
        FiveTuple::udp(ClientAddr::new(([192, 0, 2, 1], port).into()), ServerAddr::new(([192, 0, 2, 2], 3478).into()))
    }

    fn id(number: u32) -> TransactionId {
        let mut id = [0; 12];
        id[..4].copy_from_slice(&number.to_be_bytes());
        TransactionId(id)
    }

    #[test]
    fn only_the_same_bytes_on_the_same_five_tuple_within_forty_seconds_are_a_retransmission() {
        let now = Instant::now();
        let mut kept = Retransmissions::default();
        let digest = kept.digest(b"request");
        kept.keep(now, five_tuple(1), id(1), digest, b"response");
        let find = |seconds, port, number, request: &[u8]| {
            kept.find(now + Duration::from_secs(seconds), five_tuple(port), id(number), request).map(<[u8]>::to_vec)
        };
        assert_eq!(find(0, 1, 1, b"request").as_deref(), Some(&b"response"[..]));
        assert_eq!(find(39, 1, 1, b"request").as_deref(), Some(&b"response"[..]));
        assert_eq!(find(40, 1, 1, b"request"), None);
        assert_eq!(find(0, 2, 1, b"request"), None);
        assert_eq!(find(0, 1, 2, b"request"), None);
        assert_eq!(find(0, 1, 1, b"another"), None);
    }

    #[test]
    fn memory_is_bounded_and_is_given_back() {
        let now = Instant::now();
        let mut kept = Retransmissions::default();
        for number in 0..CAPACITY as u32 + 10 {
            kept.keep(now, five_tuple(1), id(number), 0, b"response");
        }
        assert_eq!((kept.responses.len(), kept.order.len()), (CAPACITY, CAPACITY));
        kept.forget_old(now + MEMORY);
        assert_eq!((kept.responses.len(), kept.order.len()), (0, 0));
    }

    #[test]
    fn a_later_response_under_the_same_id_outlives_the_first() {
        let now = Instant::now();
        let later = now + Duration::from_secs(20);
        let mut kept = Retransmissions::default();
        for (at, request) in [(now, b"first!"), (later, b"second")] {
            let digest = kept.digest(request);
            kept.keep(at, five_tuple(1), id(1), digest, request);
        }
        kept.forget_old(now + MEMORY);
        assert_eq!(kept.find(now + MEMORY, five_tuple(1), id(1), b"second"), Some(&b"second"[..]));
    }
}
