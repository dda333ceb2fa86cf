//! Mobility tickets (RFC 8016 sections 3.1.2 and 5): what only the server can read, and nobody can forge.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::effect::AllocationId;
use crate::random::RandomPool;

/// Of ChaCha20-Poly1305.
const TAG_LEN: usize = 16;
/// Shard, allocation, serial and generation.
const STATE_LEN: usize = 4 + 4 + 8 + 4;

/// What a ticket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The shard that has the allocation.
    pub(super) shard: u32,
    pub(super) allocation: AllocationId,
    /// Tells the allocation from all that have had, or will have, the same name.
    pub(super) serial: u64,
    /// How often the allocation had moved when the ticket was made.
    pub(super) generation: u32,
}

/// A ticket as clients see it: a random nonce and what is sealed under it. It is short, since nobody knows the path MTU
/// of where a client will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealedTicket([u8; Self::LEN]);

impl SealedTicket {
    const LEN: usize = NONCE_LEN + STATE_LEN + TAG_LEN;

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Seals and opens tickets, with a key that all shards share.
pub(super) struct Tickets(LessSafeKey);

impl Tickets {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of this cipher is 32 bytes long");
        Self(LessSafeKey::new(key))
    }

    pub(super) fn seal(&self, ticket: &Ticket, random: &mut RandomPool) -> SealedTicket {
        let Ticket { shard, allocation: AllocationId(allocation), serial, generation } = ticket;
        let nonce = random.ticket_nonce();
        let mut bytes = [0; SealedTicket::LEN];
        let (head, tag) = bytes.split_at_mut(NONCE_LEN + STATE_LEN);
        let (nonce_bytes, state) = head.split_at_mut(NONCE_LEN);
        nonce_bytes.copy_from_slice(&nonce);
        state[..4].copy_from_slice(&shard.to_be_bytes());
        state[4..8].copy_from_slice(&allocation.to_be_bytes());
        state[8..16].copy_from_slice(&serial.to_be_bytes());
        state[16..].copy_from_slice(&generation.to_be_bytes());
        let sealed = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), state)
            .expect("a few bytes are not too many for the cipher");
        tag.copy_from_slice(sealed.as_ref());
        SealedTicket(bytes)
    }

    /// What a ticket says, if it was made with this key.
    pub(super) fn open(&self, bytes: &[u8]) -> Option<Ticket> {
        let mut bytes: [u8; SealedTicket::LEN] = bytes.try_into().ok()?;
        let (nonce, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let state = self.0.open_in_place(nonce, Aad::empty(), sealed).ok()?;
        let (shard, rest) = state.split_first_chunk::<4>()?;
        let (allocation, rest) = rest.split_first_chunk::<4>()?;
        let (serial, rest) = rest.split_first_chunk::<8>()?;
        let (generation, _) = rest.split_first_chunk::<4>()?;
        Some(Ticket {
            shard: u32::from_be_bytes(*shard),
            allocation: AllocationId(u32::from_be_bytes(*allocation)),
            serial: u64::from_be_bytes(*serial),
            generation: u32::from_be_bytes(*generation),
        })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::counting;

    const TICKET: Ticket = Ticket {
        shard: 0x0102_0304,
        allocation: AllocationId(0x0506_0708),
        serial: 0x1112_1314_1516_1718,
        generation: 9,
    };

    #[test]
    fn a_ticket_is_read_by_who_has_the_key() {
        let mut random = counting();
        let sealed = Tickets::new(&[1; 32]).seal(&TICKET, &mut random);
        assert_eq!(Tickets::new(&[1; 32]).open(sealed.as_bytes()), Some(TICKET));
        assert_eq!(Tickets::new(&[2; 32]).open(sealed.as_bytes()), None);
    }

    #[test]
    fn a_ticket_that_was_touched_is_none() {
        let tickets = Tickets::new(&[1; 32]);
        let sealed = tickets.seal(&TICKET, &mut counting());
        for at in 0..SealedTicket::LEN {
            let mut bytes = sealed.0;
            bytes[at] ^= 1;
            assert_eq!(tickets.open(&bytes), None, "byte {at}");
            assert_eq!(tickets.open(&sealed.0[..at]), None, "cut at {at}");
        }
        assert_eq!(tickets.open(&[&sealed.0[..], &[0]].concat()), None);
    }

    #[test]
    fn two_tickets_that_say_the_same_look_different_everywhere() {
        let mut random = counting();
        let tickets = Tickets::new(&[1; 32]);
        let (first, second) = (tickets.seal(&TICKET, &mut random), tickets.seal(&TICKET, &mut random));
        let same = first.0.iter().zip(second.0).filter(|(first, second)| *first == second).count();
        assert!(same < SealedTicket::LEN / 4, "{same} bytes are the same");
    }
}
