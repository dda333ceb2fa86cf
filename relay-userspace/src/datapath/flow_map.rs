//! The writer's side of the flow table, see [`hairpin_common::slot`].
//!
//! There is one writer for each table. It remembers which key it put where; of the shared memory it reads only what it
//! has written there itself: tags, and a record that moves.

use std::array;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use hairpin_common::hash::{FlowHash, Seed};
use hairpin_common::maps::{FlowKey, Rewrite};
use hairpin_common::slot::{BUCKET_SLOTS, Slot, buckets_for, expires_of, first_line, generation_word};
use hairpin_common::tags::{MOST_ALIKE, Tags};

use super::counters::Share;
use super::shared_memory::SharedMemory;

/// There is no room for another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flow map is full")]
pub struct MapFull;

/// Where a key may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Home {
    /// Its first and second bucket.
    buckets: [usize; 2],
    tag: u8,
}

fn slots(bucket: usize) -> Range<usize> {
    bucket * BUCKET_SLOTS..(bucket + 1) * BUCKET_SLOTS
}

/// Records by key: what the program looks up.
#[derive(Debug)]
pub struct FlowMap {
    memory: SharedMemory,
    /// [`Tags`] of each bucket.
    tags: SharedMemory,
    /// What is in each slot.
    keys: Vec<Option<FlowKey>>,
    /// Of the last write; even.
    generation: u32,
    seed: Seed,
    len: usize,
    capacity: usize,
    /// Sees the memory after each of its changes.
    #[cfg(test)]
    observer: Option<fn(&Self)>,
}

impl FlowMap {
    /// Words of shared memory for this many records.
    fn words_for(capacity: u32) -> usize {
        buckets_for(capacity) as usize * BUCKET_SLOTS * Slot::WORDS
    }

    /// The writer of an empty table that was made for this many records, in the memory of two arrays.
    pub(super) fn new(flows: impl AsFd, tags: impl AsFd, capacity: u32, seed: Seed) -> io::Result<Self> {
        let memory = SharedMemory::of_array(flows, Self::words_for(capacity))?;
        let tags = SharedMemory::of_array(tags, buckets_for(capacity) as usize)?;
        Ok(Self::in_memory(memory, tags, capacity, seed))
    }

    fn in_memory(memory: SharedMemory, tags: SharedMemory, capacity: u32, seed: Seed) -> Self {
        let slots = memory.len() / Slot::WORDS;
        Self {
            memory,
            tags,
            keys: vec![None; slots],
            generation: 0,
            seed,
            len: 0,
            capacity: capacity as usize,
            #[cfg(test)]
            observer: None,
        }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How much of the room is taken.
    pub(super) fn share(&self) -> Share {
        Share { used: self.len as u64, capacity: self.capacity as u64 }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds or overwrites a record.
    pub fn insert(&mut self, key: FlowKey, rewrite: &Rewrite) -> Result<(), MapFull> {
        let home = self.home(&key);
        let words = Slot::new(key, rewrite).words();
        if let Some(slot) = self.find(&key, home) {
            self.write(slot, Some(key), home.tag, words);
            return Ok(());
        }
        if self.len >= self.capacity {
            return Err(MapFull);
        }
        let slot = self.make_room(home).ok_or(MapFull)?;
        self.write(slot, Some(key), home.tag, words);
        self.len += 1;
        Ok(())
    }

    /// Removes a record; `false` if there was none.
    pub fn remove(&mut self, key: &FlowKey) -> bool {
        let Some(slot) = self.find(key, self.home(key)) else { return false };
        self.write(slot, None, 0, [0; Slot::WORDS_USED]);
        self.len -= 1;
        true
    }

    fn home(&self, key: &FlowKey) -> Home {
        let hash = FlowHash::of_key(key, self.seed);
        Home { buckets: hash.buckets(self.tags.len() as u32).map(|bucket| bucket as usize), tag: hash.tag() }
    }

    fn find(&self, key: &FlowKey, home: Home) -> Option<usize> {
        home.buckets.into_iter().flat_map(slots).find(|slot| self.keys[*slot].as_ref() == Some(key))
    }

    /// A free slot for a key, where another record may have been moved out of the way.
    ///
    /// It moves from its first to its second bucket, the order in which the program looks: it meets the original, or the
    /// copy, or, while the original is overwritten, a slot that is being written, and passes the packet up.
    ///
    /// With eight slots in a bucket and a quarter of all free, one move hardly ever is not enough.
    fn make_room(&mut self, home: Home) -> Option<usize> {
        if let Some(free) = home.buckets.into_iter().find_map(|bucket| self.free_slot(bucket, home.tag)) {
            return Some(free);
        }
        for bucket in home.buckets {
            for slot in slots(bucket).filter(|slot| self.may_take(*slot, home.tag)) {
                let resident = self.keys[slot]?;
                let Home { buckets: [first, second], tag } = self.home(&resident);
                if first == bucket
                    && first != second
                    && let Some(free) = self.free_slot(second, tag)
                {
                    self.write(free, Some(resident), tag, self.words(slot));
                    return Some(slot);
                }
            }
        }
        None
    }

    /// A free slot of a bucket that a key with this tag may take.
    fn free_slot(&self, bucket: usize, tag: u8) -> Option<usize> {
        slots(bucket).find(|slot| self.keys[*slot].is_none() && self.may_take(*slot, tag))
    }

    /// Whether there are not too many others with this tag in the bucket, if what is in the slot goes.
    fn may_take(&self, slot: usize, tag: u8) -> bool {
        let (bucket, place) = (slot / BUCKET_SLOTS, slot % BUCKET_SLOTS);
        self.tags(bucket).with(place, 0).places_of(tag).count() < MOST_ALIKE
    }

    fn tags(&self, bucket: usize) -> Tags {
        Tags(self.tags[bucket].load(Relaxed))
    }

    fn write(&mut self, slot: usize, key: Option<FlowKey>, tag: u8, words: [u64; Slot::WORDS_USED]) {
        self.keys[slot] = key;
        self.generation = self.generation.wrapping_add(2);
        self.write_slot(slot, words, self.generation);
        // After the slot: whoever is led there by the tag finds all of it. Whoever still goes by the tag before finds a
        // key that is not the right one, and looks on.
        let (bucket, place) = (slot / BUCKET_SLOTS, slot % BUCKET_SLOTS);
        self.tags[bucket].store(self.tags(bucket).with(place, tag).0, Release);
        self.changed();
    }

    /// After every change that a reader could see on its own.
    #[inline]
    #[cfg_attr(not(test), allow(clippy::unused_self, reason = "only tests observe"))]
    fn changed(&self) {
        #[cfg(test)]
        if let Some(observer) = self.observer {
            observer(self);
        }
    }

    /// Writes all of a slot as one change: whoever reads it meanwhile finds an odd generation, or another one afterwards
    /// than before.
    ///
    /// The fence keeps the odd generation in front of everything else, and the last store is behind it. The program
    /// reads the generation first and last, with fences for loads in between where the machine needs them (arm64). On
    /// x86 neither stores nor loads overtake each other, so there all of these only hold the compiler back.
    fn write_slot(&self, slot: usize, words: [u64; Slot::WORDS_USED], generation: u32) {
        let head = Slot::GENERATION_WORD;
        // Over at once, should anything of it be used after all.
        self.word(slot, head).store(generation_word(generation.wrapping_sub(1), 0), Relaxed);
        fence(Release);
        self.changed();
        for (index, word) in words.into_iter().enumerate() {
            if index != head {
                self.word(slot, index).store(word, Relaxed);
                self.changed();
            }
        }
        self.word(slot, head).store(generation_word(generation, expires_of(words[head])), Release);
        self.changed();
    }

    /// The memory of a word of a slot.
    fn word(&self, slot: usize, index: usize) -> &AtomicU64 {
        &self.memory[slot * Slot::WORDS + (index ^ (first_line(slot % BUCKET_SLOTS) / 8))]
    }

    fn words(&self, slot: usize) -> [u64; Slot::WORDS_USED] {
        array::from_fn(|index| self.word(slot, index).load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Acquire;

    use hairpin_common::slot::generation_of;

    use super::*;

    const RECORD: Rewrite = Rewrite {
        expires: 1000,
        allocation: 3,
        source: [1; 16],
        destination: [2; 16],
        source_port: [3; 2],
        destination_port: [4; 2],
        channel: [0x40, 5],
        delta: [6; 2],
        next_hop: 7,
        peer_next_hop: 8,
        family: 4,
        flags: 0,
    };

    /// A few deterministic seeds: no test may fail once in a while.
    fn seed(number: u64) -> Seed {
        let mut state = number;
        Seed::default().map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state ^ state >> 29
        })
    }

    fn map(capacity: u32, number: u64) -> FlowMap {
        let memory = SharedMemory::anonymous(FlowMap::words_for(capacity)).unwrap();
        let tags = SharedMemory::anonymous(buckets_for(capacity) as usize).unwrap();
        FlowMap::in_memory(memory, tags, capacity, seed(number))
    }

    /// Clients of one network on few ports, as a carrier's NAT has them: hardly any two keys differ in more than a byte.
    fn key(number: u32) -> FlowKey {
        let [_, high, middle, low] = number.to_be_bytes();
        let mut source = [0x20; 16];
        source[13..].copy_from_slice(&[high, middle, low]);
        FlowKey {
            source,
            destination: [7; 16],
            source_port: [0x9c, 0x40],
            destination_port: [0x0d, 0x96],
            channel: [0x40, 0],
            family: 6,
            zero: 0,
        }
    }

    /// What the program would find.
    fn looked_up(map: &FlowMap, key: &FlowKey) -> Option<[u64; Slot::WORDS_USED]> {
        let head = Slot::GENERATION_WORD;
        let home = map.home(key);
        for bucket in home.buckets {
            let mut places = map.tags(bucket).places_of(home.tag);
            for _ in 0..MOST_ALIKE {
                let Some(place) = places.take_first() else { break };
                let words = map.words(bucket * BUCKET_SLOTS + place);
                if words[..head] == key.words()[..head] {
                    return Some(words);
                }
            }
        }
        None
    }

    /// How often a key stands in the shared memory at all.
    fn copies(map: &FlowMap, key: &FlowKey) -> usize {
        let head = Slot::GENERATION_WORD;
        (0..map.keys.len()).filter(|slot| map.words(*slot)[..head] == key.words()[..head]).count()
    }

    /// Record number `number`, which is told apart by its allocation.
    fn record(number: u32) -> Rewrite {
        Rewrite { allocation: number, ..RECORD }
    }

    /// The words of a record, without the generation.
    fn body(mut words: [u64; Slot::WORDS_USED]) -> [u64; Slot::WORDS_USED] {
        let head = &mut words[Slot::GENERATION_WORD];
        *head = generation_word(0, expires_of(*head));
        words
    }

    fn fills_to_its_capacity(capacity: u32, number: u64) {
        let mut map = map(capacity, number);
        for number in 0..capacity {
            assert_eq!(map.insert(key(number), &record(number)), Ok(()), "record {number} of {capacity}");
        }
        assert_eq!(map.insert(key(capacity), &RECORD), Err(MapFull));
        assert_eq!(map.insert(key(0), &record(0)), Ok(()), "a refresh needs no room");
        assert_eq!(map.len(), capacity as usize);
        // Whatever was moved to make room is where the program finds it, once.
        for number in 0..capacity {
            let found = looked_up(&map, &key(number)).map(body);
            assert_eq!(found, Some(Slot::new(key(number), &record(number)).words()), "{number} of {capacity}");
        }
        let used = (0..map.keys.len()).filter(|slot| map.words(*slot)[0] != 0).count();
        assert_eq!(used, capacity as usize, "copies that were not cleared");
        for number in 0..capacity {
            assert!(map.remove(&key(number)));
        }
        assert!(map.tags.iter().all(|tags| tags.load(Relaxed) == 0), "tags of what is gone");
        assert!(map.is_empty() && (0..map.keys.len()).all(|slot| body(map.words(slot)) == [0; Slot::WORDS_USED]));
    }

    #[test]
    fn every_record_up_to_the_capacity_finds_a_place() {
        for number in 0..4 {
            for capacity in [1, 2, 31, 32, 100, 256] {
                fills_to_its_capacity(capacity, number);
            }
        }
        fills_to_its_capacity(1 << 13, 1);
        fills_to_its_capacity(10_000, 2);
    }

    #[test]
    fn a_table_that_lives_for_long_still_finds_places() {
        let capacity = 1 << 10;
        let mut map = map(capacity, 1);
        for number in 0..100 * capacity {
            if number >= capacity {
                assert!(map.remove(&key(number - capacity)));
            }
            assert_eq!(map.insert(key(number), &RECORD), Ok(()), "record {number}");
        }
        assert_eq!(map.len(), capacity as usize);
    }

    #[test]
    fn room_is_made_by_moving_others_out_of_the_way() {
        let mut moved = 0;
        for number in 0..10 {
            // Without the capacity that keeps a quarter free, so that many have to move.
            let mut map = map(1 << 6, number);
            map.capacity = usize::MAX;
            let place = |map: &FlowMap, number| map.find(&key(number), map.home(&key(number)));
            let mut count = 0;
            loop {
                let before: Vec<_> = (0..count).map(|number| place(&map, number)).collect();
                let inserted = map.insert(key(count), &record(count));
                moved += (0..).zip(&before).filter(|(number, before)| place(&map, *number) != **before).count();
                for number in 0..count {
                    assert_eq!(copies(&map, &key(number)), 1, "record {number}");
                    let found = looked_up(&map, &key(number)).map(body);
                    assert_eq!(found, Some(Slot::new(key(number), &record(number)).words()));
                }
                if inserted.is_err() {
                    break;
                }
                count += 1;
            }
            assert!(count as usize > map.keys.len() * 7 / 8, "{count} records fill {} slots", map.keys.len());
        }
        assert!(moved > 50, "{moved} records moved");
    }

    #[test]
    fn as_many_keys_of_one_tag_find_a_place_as_the_program_looks_at() {
        let mut map = map(48, 1);
        let home = |map: &FlowMap, number: u32| map.home(&key(number));
        // All that could be in the same two buckets.
        let alike: Vec<u32> = (0..200_000).filter(|number| home(&map, *number) == home(&map, 0)).take(5).collect();
        let (last, others) = alike.split_last().expect("there are enough keys");
        for number in others {
            assert_eq!(map.insert(key(*number), &record(*number)), Ok(()));
        }
        assert_eq!(map.insert(key(*last), &record(*last)), Err(MapFull), "the program would not see the fifth");
        for number in others {
            assert_eq!(
                looked_up(&map, &key(*number)).map(body),
                Some(Slot::new(key(*number), &record(*number)).words())
            );
        }
    }

    #[test]
    fn every_write_leaves_another_even_generation() {
        let mut map = map(8, 1);
        let mut seen = Vec::new();
        for expires in [10, 20, 20] {
            map.insert(key(1), &Rewrite { expires, ..RECORD }).unwrap();
            let head = map.words(map.find(&key(1), map.home(&key(1))).unwrap())[Slot::GENERATION_WORD];
            assert_eq!(expires_of(head), expires);
            let generation = generation_of(head);
            assert!(generation.is_multiple_of(2) && !seen.contains(&generation), "{generation} after {seen:?}");
            seen.push(generation);
        }
        let slot = map.find(&key(1), map.home(&key(1))).unwrap();
        assert!(map.remove(&key(1)));
        assert!(!map.remove(&key(1)));
        assert!(!seen.contains(&generation_of(map.words(slot)[Slot::GENERATION_WORD])), "a removal is a write too");
    }

    #[test]
    fn a_reader_never_sees_half_a_record() {
        // The program's protocol on another thread.
        let mut map = map(8, 1);
        let records = [RECORD, Rewrite { source: [0xee; 16], destination: [0xdd; 16], delta: [0xcc; 2], ..RECORD }];
        map.insert(key(1), &records[0]).unwrap();
        let slot = map.find(&key(1), map.home(&key(1))).unwrap();
        let whole = records.map(|record| Slot::new(key(1), &record).words());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let map = &map;
            let reader = scope.spawn(|| {
                let mut whole_reads = 0;
                while !done.load(Relaxed) {
                    let head = map.word(slot, Slot::GENERATION_WORD);
                    let generation = generation_of(head.load(Acquire));
                    let words = map.words(slot);
                    fence(Acquire);
                    if generation.is_multiple_of(2) && generation_of(head.load(Relaxed)) == generation {
                        whole_reads += 1;
                        assert!(whole.contains(&body(words)), "{words:x?}");
                    }
                }
                whole_reads
            });
            for round in 0..300_000 {
                map.write_slot(slot, whole[round % 2], 2 * round as u32 + 2);
                // Long enough for the reader to get through now and then.
                for _ in 0..50 {
                    std::hint::spin_loop();
                }
            }
            done.store(true, Relaxed);
            assert!(reader.join().expect("no torn read") > 0, "the reader never got through");
        });
    }

    /// What the program makes of a key.
    #[derive(Debug)]
    enum Lookup {
        Found([u64; Slot::WORDS_USED]),
        /// It is being written; the packet is passed up.
        Torn,
        Missed,
    }

    /// The program's look-up.
    fn look_up(map: &FlowMap, key: &FlowKey) -> Lookup {
        let head = Slot::GENERATION_WORD;
        let home = map.home(key);
        for bucket in home.buckets {
            fence(Acquire);
            let mut places = map.tags(bucket).places_of(home.tag);
            fence(Acquire);
            for _ in 0..MOST_ALIKE {
                let Some(place) = places.take_first() else { break };
                let slot = bucket * BUCKET_SLOTS + place;
                let generation = generation_of(map.word(slot, head).load(Relaxed));
                fence(Acquire);
                if (0..head).all(|index| map.word(slot, index).load(Relaxed) == key.words()[index]) {
                    let words = map.words(slot);
                    fence(Acquire);
                    let is_whole =
                        generation.is_multiple_of(2) && generation_of(map.word(slot, head).load(Relaxed)) == generation;
                    return if is_whole { Lookup::Found(body(words)) } else { Lookup::Torn };
                }
            }
        }
        Lookup::Missed
    }

    /// How many records are there from the beginning, in a table that is filled up.
    const STAYING: u32 = 40;

    fn all_that_stay_are_found(map: &FlowMap) {
        for number in 0..STAYING {
            match look_up(map, &key(number)) {
                Lookup::Found(words) => assert_eq!(words, Slot::new(key(number), &record(number)).words()),
                Lookup::Torn => {}
                Lookup::Missed => panic!("{number} is missed"),
            }
        }
    }

    #[test]
    fn a_record_that_moves_is_found_all_the_while() {
        let mut moves = 0;
        for number in 0..20 {
            let mut map = map(48, number);
            map.capacity = usize::MAX;
            let place = |map: &FlowMap, number| map.find(&key(number), map.home(&key(number)));
            for number in 0..STAYING {
                map.insert(key(number), &record(number)).expect("there is room for as many");
            }
            let before: Vec<_> = (0..STAYING).map(|number| place(&map, number)).collect();
            map.observer = Some(all_that_stay_are_found);
            let mut number = STAYING;
            while map.insert(key(number), &record(number)).is_ok() {
                number += 1;
            }
            moves += (0..).zip(&before).filter(|(number, before)| place(&map, *number) != **before).count();
        }
        assert!(moves > 50, "{moves} moves");
    }
}
