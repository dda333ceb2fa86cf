//! Randomness from outside, drawn in batches.

use std::fmt;

use crate::stun::TransactionId;
use crate::stun::attribute::ReservationToken;

/// A cryptographically secure source of random bytes: ports, tokens and transaction ids must not be guessed.
pub trait Random {
    /// Fills the buffer.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// Draws from the source in large pieces, because a Data indication needs only twelve bytes and the source may be a
/// system call.
pub(crate) struct RandomPool {
    source: Box<dyn Random + Send>,
    bytes: Box<[u8; Self::SIZE]>,
    at: usize,
}

impl RandomPool {
    const SIZE: usize = 1536;

    pub(crate) fn new(source: Box<dyn Random + Send>) -> Self {
        Self { source, bytes: Box::new([0; Self::SIZE]), at: Self::SIZE }
    }

    pub(crate) fn transaction_id(&mut self) -> TransactionId {
        TransactionId(self.take())
    }

    pub(crate) fn reservation_token(&mut self) -> ReservationToken {
        ReservationToken(self.take())
    }

    pub(crate) fn ticket_nonce(&mut self) -> [u8; 12] {
        self.take()
    }

    pub(crate) fn serial(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }

    pub(crate) fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // Of 64 random bits the bias is 2^-48 for as many values as there are ports.
        ((u128::from(u64::from_be_bytes(self.take())) * bound as u128) >> 64) as usize
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.take()
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        if self.at + N > Self::SIZE {
            self.source.fill(&mut self.bytes[..]);
            self.at = 0;
        }
        let mut taken = [0; N];
        let used = &mut self.bytes[self.at..self.at + N];
        taken.copy_from_slice(used);
        // Nothing that was given out is found in memory later.
        used.fill(0);
        self.at += N;
        taken
    }
}

impl fmt::Debug for RandomPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RandomPool(..)")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Counts up: every byte differs from the one before.
    pub(crate) struct Counting(u8);

    impl Random for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            for byte in bytes {
                self.0 = self.0.wrapping_mul(5).wrapping_add(113);
                *byte = self.0;
            }
        }
    }

    pub(crate) fn counting() -> RandomPool {
        RandomPool::new(Box::new(Counting(1)))
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut pool = counting();
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[pool.below(7)] = true;
        }
        assert_eq!(seen, [true; 7]);
    }

    #[test]
    fn what_was_given_out_is_not_given_again() {
        let mut pool = counting();
        let first = pool.transaction_id();
        assert_ne!(first, pool.transaction_id());
        assert_eq!(pool.bytes[..24], [0; 24]);
    }
}
