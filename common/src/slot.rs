//! The flow table: an array of buckets that the daemon writes through shared memory while the program reads it.
//!
//! A key hashes to two buckets of eight slots, and its record is in one of these, most often of the first. Which one, or
//! that there is none, the [`tags`](crate::tags) of a bucket say. So a packet costs one or two neighbouring cache lines that
//! are not its own; that is why the table is not one of the kernel's hashes, which go from a chain's head to an element of
//! three lines.
//!
//! A slot is a sequence lock. Its generation is odd while the daemon writes the rest, and another one afterwards; who
//! reads the same even generation before and after everything else has read one whole record.

use core::mem::offset_of;

use crate::maps::{FlowKey, Rewrite};

/// Slots in each bucket.
pub const BUCKET_SLOTS: usize = 8;

/// Bytes in a cache line.
pub const LINE: usize = 64;

/// A record and its key: two cache lines, of which the first says whether it is the right one. In slots of odd places the
/// two are the other way round (see [`first_line`]).
///
/// Between IPv4 and IPv4 the first is all: [`FlowKey`]s of IPv4 leave the last eight bytes of both addresses zero, so a
/// slot keeps the record's own addresses in those of the source, and the next hop to the peer in those of the destination.
/// Who looks for an IPv4 key does not compare these bytes.
///
/// An empty slot is all zeros but for its generation. No packet has such a key, because port 0 never has a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(128))]
pub struct Slot {
    /// The first line.
    pub front: Front,
    /// Source address to send from.
    pub source: [u8; 16],
    /// Destination address to send to.
    pub destination: [u8; 16],
    /// Of a permission, index of the next hop to the peer.
    pub peer_next_hop: u16,
    /// Always zero: a record of another kind may have its use for them.
    pub zero: [u8; 6],
}

/// The first line of a [`Slot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Front {
    /// What the packet must arrive with, and between IPv4 and IPv4 the record's addresses.
    pub key: FlowKey,
    /// The rest of the record.
    pub order: Order,
}

/// What a record says besides addresses. All of it is as in [`Rewrite`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Order {
    /// Odd while the slot is being written; no two writes leave the same.
    pub generation: u32,
    /// The first [`tick`](crate::maps::tick) at which the record is no longer valid.
    pub expires: u32,
    /// Index of the allocation's counters and state.
    pub allocation: u32,
    /// Index of the next hop.
    pub next_hop: u16,
    /// IP version to send: 4 or 6.
    pub family: u8,
    /// See [`PEER_IS_RELAYED`](crate::maps::PEER_IS_RELAYED).
    pub flags: u8,
    /// UDP source port to send from.
    pub source_port: [u8; 2],
    /// UDP destination port to send to.
    pub destination_port: [u8; 2],
    /// Channel to wrap the payload in, or 0.
    pub channel: [u8; 2],
    /// Difference to the UDP checksum.
    pub delta: [u8; 2],
}

/// The memory of one bucket: the words of each slot, its lines where [`first_line`] says.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub struct Bucket(pub [[u64; Slot::WORDS]; BUCKET_SLOTS]);

/// Where the first line of a slot is, in bytes from the start of the slot: 0 or 64. At the other is the second line.
///
/// Between IPv4 and IPv4 only first lines are used. Were they all of even number, they would go into the even sets of the
/// processor's caches, and fill these while the odd ones are empty.
#[inline(always)]
pub const fn first_line(place: usize) -> usize {
    (place & 1) * LINE
}

impl Bucket {
    /// What is in a slot.
    pub fn slot(&self, place: usize) -> Slot {
        let words = &self.0[place];
        let mut bytes = [0; size_of::<Slot>()];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let at = index ^ first_line(place);
            *byte = words[at / 8].to_ne_bytes()[at % 8];
        }
        let address = |at: usize| core::array::from_fn(|index| bytes[at + index]);
        let short = |at: usize| [bytes[at], bytes[at + 1]];
        let long = |at: usize| core::array::from_fn(|index| bytes[at + index]);
        let key = FlowKey {
            source: address(offset_of!(FlowKey, source)),
            destination: address(offset_of!(FlowKey, destination)),
            source_port: short(offset_of!(FlowKey, source_port)),
            destination_port: short(offset_of!(FlowKey, destination_port)),
            channel: short(offset_of!(FlowKey, channel)),
            family: bytes[offset_of!(FlowKey, family)],
            zero: bytes[offset_of!(FlowKey, zero)],
        };
        let at = |field: usize| offset_of!(Front, order) + field;
        let order = Order {
            generation: u32::from_ne_bytes(long(at(offset_of!(Order, generation)))),
            expires: u32::from_ne_bytes(long(at(offset_of!(Order, expires)))),
            allocation: u32::from_ne_bytes(long(at(offset_of!(Order, allocation)))),
            next_hop: u16::from_ne_bytes(short(at(offset_of!(Order, next_hop)))),
            family: bytes[at(offset_of!(Order, family))],
            flags: bytes[at(offset_of!(Order, flags))],
            source_port: short(at(offset_of!(Order, source_port))),
            destination_port: short(at(offset_of!(Order, destination_port))),
            channel: short(at(offset_of!(Order, channel))),
            delta: short(at(offset_of!(Order, delta))),
        };
        Slot {
            front: Front { key, order },
            source: address(offset_of!(Slot, source)),
            destination: address(offset_of!(Slot, destination)),
            peer_next_hop: u16::from_ne_bytes(short(offset_of!(Slot, peer_next_hop))),
            zero: [0; 6],
        }
    }

    /// Every slot.
    pub fn slots(&self) -> [Slot; BUCKET_SLOTS] {
        core::array::from_fn(|place| self.slot(place))
    }

    /// Puts something else into a slot.
    pub fn set(&mut self, place: usize, slot: &Slot) {
        for (index, word) in slot.words().into_iter().enumerate() {
            self.0[place][index ^ (first_line(place) / 8)] = word;
        }
    }
}

impl Slot {
    /// Its size in 64-bit words.
    pub const WORDS: usize = size_of::<Self>() / 8;
    /// How many of them, from the first on, mean something.
    pub const WORDS_USED: usize = offset_of!(Self, zero).div_ceil(8);
    /// The word that starts with the generation.
    pub const GENERATION_WORD: usize = size_of::<FlowKey>() / 8;

    /// A key and its record, with generation 0.
    pub fn new(key: FlowKey, rewrite: &Rewrite) -> Self {
        let Rewrite {
            expires,
            allocation,
            source,
            destination,
            source_port,
            destination_port,
            channel,
            delta,
            next_hop,
            peer_next_hop,
            family,
            flags,
        } = *rewrite;
        let order = Order {
            generation: 0,
            expires,
            allocation,
            next_hop,
            family,
            flags,
            source_port,
            destination_port,
            channel,
            delta,
        };
        let mut slot = Self { front: Front { key, order }, source, destination, peer_next_hop, zero: [0; 6] };
        if slot.is_short() {
            let [in_source, in_destination] = [&mut slot.front.key.source, &mut slot.front.key.destination];
            in_source[8..12].copy_from_slice(&source[..4]);
            in_source[12..16].copy_from_slice(&destination[..4]);
            in_destination[8..10].copy_from_slice(&peer_next_hop.to_ne_bytes());
            slot = Self { source: [0; 16], destination: [0; 16], peer_next_hop: 0, ..slot };
        }
        slot
    }

    /// Whether all of it is in the first cache line.
    fn is_short(&self) -> bool {
        self.front.key.family == 4 && self.front.order.family == 4
    }

    /// What the packet must arrive with.
    pub fn key(&self) -> FlowKey {
        let mut key = self.front.key;
        if self.is_short() {
            key.source[8..].fill(0);
            key.destination[8..].fill(0);
        }
        key
    }

    /// Its memory, in 64-bit words, as far as it means something.
    pub fn words(&self) -> [u64; Self::WORDS_USED] {
        let order = &self.front.order;
        let mut words = [0; Self::WORDS_USED];
        words[..Self::GENERATION_WORD].copy_from_slice(&self.front.key.words());
        let rest = [
            &order.allocation.to_ne_bytes()[..],
            &order.next_hop.to_ne_bytes(),
            &[order.family, order.flags],
            &order.source_port,
            &order.destination_port,
            &order.channel,
            &order.delta,
            &self.source,
            &self.destination,
            &self.peer_next_hop.to_ne_bytes(),
        ];
        for (index, byte) in rest.into_iter().flatten().enumerate() {
            let word = &mut words[Self::GENERATION_WORD + 1 + index / 8];
            let mut bytes = word.to_ne_bytes();
            bytes[index % 8] = *byte;
            *word = u64::from_ne_bytes(bytes);
        }
        words[Self::GENERATION_WORD] = generation_word(order.generation, order.expires);
        words
    }

    /// The record.
    pub fn rewrite(&self) -> Rewrite {
        let Self { front: Front { key, order }, mut source, mut destination, mut peer_next_hop, .. } = *self;
        if self.is_short() {
            source[..4].copy_from_slice(&key.source[8..12]);
            destination[..4].copy_from_slice(&key.source[12..]);
            peer_next_hop = u16::from_ne_bytes([key.destination[8], key.destination[9]]);
        }
        let Order {
            expires, allocation, next_hop, family, flags, source_port, destination_port, channel, delta, ..
        } = order;
        Rewrite {
            expires,
            allocation,
            source,
            destination,
            source_port,
            destination_port,
            channel,
            delta,
            next_hop,
            peer_next_hop,
            family,
            flags,
        }
    }
}

/// Bits to shift [`Order::generation`] and [`Order::expires`] by in the word that holds both.
const HALVES: [u32; 2] = if cfg!(target_endian = "little") { [0, 32] } else { [32, 0] };

/// The word of a slot that holds [`Order::generation`] and [`Order::expires`].
pub const fn generation_word(generation: u32, expires: u32) -> u64 {
    (generation as u64) << HALVES[0] | (expires as u64) << HALVES[1]
}

/// [`Order::generation`] in a [`generation_word`].
pub const fn generation_of(generation_word: u64) -> u32 {
    (generation_word >> HALVES[0]) as u32
}

/// [`Order::expires`] in a [`generation_word`].
pub const fn expires_of(generation_word: u64) -> u32 {
    (generation_word >> HALVES[1]) as u32
}

/// How many buckets a table needs to take this many records: of eight slots, six are used when it is full.
pub const fn buckets_for(records: u32) -> u32 {
    /// In fewer, chance alone could have both buckets of a key full, or be the same.
    const LEAST: u32 = 8;
    let buckets = records.div_ceil(6);
    if buckets < LEAST { LEAST } else { buckets }
}

const _: () = {
    assert!(size_of::<Slot>() == 128 && size_of::<Order>() == 24);
    // What is read as words is aligned for it, and the first line holds all that says whether the record is the right one.
    assert!(offset_of!(Front, order) == 40 && offset_of!(Slot, source) == 64);
};

#[cfg(test)]
pub(crate) mod tests {
    extern crate std;
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    /// Two addresses of an IP version, and the version.
    fn addresses() -> impl Strategy<Value = (u8, [u8; 16], [u8; 16])> {
        any::<(bool, [u8; 16], [u8; 16])>().prop_map(|(is_ipv6, mut first, mut second)| {
            if !is_ipv6 {
                first[4..].fill(0);
                second[4..].fill(0);
            }
            (if is_ipv6 { 6 } else { 4 }, first, second)
        })
    }

    /// Any key.
    pub(crate) fn key() -> impl Strategy<Value = FlowKey> {
        (addresses(), any::<([u8; 2], [u8; 2], [u8; 2])>()).prop_map(
            |((family, source, destination), (source_port, destination_port, channel))| FlowKey {
                source,
                destination,
                source_port,
                destination_port,
                channel,
                family,
                zero: 0,
            },
        )
    }

    fn rewrite() -> impl Strategy<Value = Rewrite> {
        let words = any::<([u8; 2], [u8; 2], [u8; 2], [u8; 2])>();
        (any::<(u32, u32, u16, u16, u8)>(), addresses(), words).prop_map(
            |((expires, allocation, next_hop, peer_next_hop, flags), (family, source, destination), words)| {
                let (source_port, destination_port, channel, delta) = words;
                Rewrite {
                    expires,
                    allocation,
                    source,
                    destination,
                    source_port,
                    destination_port,
                    channel,
                    delta,
                    next_hop,
                    peer_next_hop,
                    family,
                    flags,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn words_are_the_memory_of_a_slot(key in key(), rewrite in rewrite(), generation: u32) {
            let mut slot = Slot::new(key, &rewrite);
            prop_assert_eq!(slot.rewrite(), rewrite);
            prop_assert_eq!(slot.key(), key);
            slot.front.order.generation = generation;
            // What a slot's fields would be if its words were its memory, as they are for the program.
            let words = slot.words();
            let byte = |at: usize| words[at / 8].to_ne_bytes()[at % 8];
            let bytes = |at: usize, length: usize| (at..at + length).map(byte).collect::<vec::Vec<_>>();
            let order = |field: usize| offset_of!(Front, order) + field;
            let is_short = (key.family, rewrite.family) == (4, 4);
            let compared = if is_short { 8 } else { 16 };
            prop_assert_eq!(&bytes(offset_of!(FlowKey, source), compared), &key.source[..compared]);
            prop_assert_eq!(&bytes(offset_of!(FlowKey, destination), compared), &key.destination[..compared]);
            prop_assert_eq!(bytes(offset_of!(FlowKey, source_port), 2), key.source_port);
            prop_assert_eq!(bytes(offset_of!(FlowKey, destination_port), 2), key.destination_port);
            prop_assert_eq!(bytes(offset_of!(FlowKey, channel), 2), key.channel);
            prop_assert_eq!(byte(offset_of!(FlowKey, family)), key.family);
            prop_assert_eq!(bytes(order(offset_of!(Order, generation)), 4), generation.to_ne_bytes());
            prop_assert_eq!(bytes(order(offset_of!(Order, expires)), 4), rewrite.expires.to_ne_bytes());
            prop_assert_eq!(bytes(order(offset_of!(Order, allocation)), 4), rewrite.allocation.to_ne_bytes());
            prop_assert_eq!(bytes(order(offset_of!(Order, next_hop)), 2), rewrite.next_hop.to_ne_bytes());
            prop_assert_eq!(byte(order(offset_of!(Order, family))), rewrite.family);
            prop_assert_eq!(byte(order(offset_of!(Order, flags))), rewrite.flags);
            prop_assert_eq!(bytes(order(offset_of!(Order, source_port)), 2), rewrite.source_port);
            prop_assert_eq!(bytes(order(offset_of!(Order, destination_port)), 2), rewrite.destination_port);
            prop_assert_eq!(bytes(order(offset_of!(Order, channel)), 2), rewrite.channel);
            prop_assert_eq!(bytes(order(offset_of!(Order, delta)), 2), rewrite.delta);
            let [source, destination, peer_next_hop] = if is_short {
                [offset_of!(FlowKey, source) + 8, offset_of!(FlowKey, source) + 12, offset_of!(FlowKey, destination) + 8]
            } else {
                [offset_of!(Slot, source), offset_of!(Slot, destination), offset_of!(Slot, peer_next_hop)]
            };
            let length = if is_short { 4 } else { 16 };
            prop_assert_eq!(&bytes(source, length), &rewrite.source[..length]);
            prop_assert_eq!(&bytes(destination, length), &rewrite.destination[..length]);
            prop_assert_eq!(bytes(peer_next_hop, 2), rewrite.peer_next_hop.to_ne_bytes());
            prop_assert!(!is_short || words[8..].iter().all(|word| *word == 0), "the second line says nothing");
        }

        #[test]
        fn a_bucket_holds_what_was_put_into_it(records in prop::array::uniform8((key(), rewrite()))) {
            let mut bucket = Bucket([[0; Slot::WORDS]; BUCKET_SLOTS]);
            let slots = records.map(|(key, rewrite)| Slot::new(key, &rewrite));
            for (place, slot) in slots.iter().enumerate() {
                bucket.set(place, slot);
            }
            prop_assert_eq!(bucket.slots(), slots);
            for (place, slot) in slots.iter().enumerate() {
                let front = &bucket.0[place][first_line(place) / 8..][..LINE / 8];
                prop_assert_eq!(front, &slot.words()[..LINE / 8], "the first line of {}", place);
            }
        }

    }

    #[test]
    fn a_quarter_of_a_table_is_never_used() {
        for records in [1, 47, 48, 49, 1000, 1 << 20, (1 << 20) + 1, u32::MAX] {
            let slots = u64::from(buckets_for(records)) * BUCKET_SLOTS as u64;
            assert!(slots >= 64 && slots * 3 >= u64::from(records) * 4, "{slots} for {records}");
        }
    }
}
