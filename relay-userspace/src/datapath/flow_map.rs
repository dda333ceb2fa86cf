//! The writer's side of the flow table, see [`hairpin_common::slot`].
//!
//! There is one writer for each table. It remembers which key it put where, and never reads the shared memory back to
//! decide anything.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::fence;

use hairpin_common::maps::{FlowKey, Rewrite};
use hairpin_common::slot::{BUCKET_SLOTS, FlowHash, Seed, Slot, buckets_for, expires_of, generation_word};

use super::shared_memory::{SharedMemory, wait_for_readers};

/// How many records may be looked at to make room for another, far more than it takes while half of the slots are free.
const MAX_SEARCH: usize = 256;

/// There is no room for another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flow map is full")]
pub struct MapFull;

/// Which ways records may move to make room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moves {
    /// From the first to the second bucket, the order in which the program looks: it meets the original, or the copy.
    Forward,
    /// Backwards too, which has to wait for the program, some milliseconds. Of a million inserts hardly one needs it.
    Any,
}

/// Records by key: what the program looks up.
#[derive(Debug)]
pub struct FlowMap {
    memory: SharedMemory,
    /// What is in each slot.
    keys: Vec<Option<FlowKey>>,
    /// Of the last write; even.
    generation: u32,
    seed: Seed,
    len: usize,
    capacity: usize,
}

impl FlowMap {
    /// Words of shared memory for this many records.
    fn words_for(capacity: u32) -> usize {
        buckets_for(capacity) as usize * BUCKET_SLOTS * Slot::WORDS
    }

    /// The writer of an empty table that was made for this many records, in the memory of an array.
    pub(super) fn new(array: impl AsFd, capacity: u32, seed: Seed) -> io::Result<Self> {
        Ok(Self::in_memory(SharedMemory::of_array(array, Self::words_for(capacity))?, capacity, seed))
    }

    fn in_memory(memory: SharedMemory, capacity: u32, seed: Seed) -> Self {
        let slots = memory.len() / Slot::WORDS;
        Self { memory, keys: vec![None; slots], generation: 0, seed, len: 0, capacity: capacity as usize }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds or overwrites a record.
    pub fn insert(&mut self, key: FlowKey, rewrite: &Rewrite) -> Result<(), MapFull> {
        if let Some(slot) = self.find(&key) {
            self.write(slot, Some(key), Slot::new(key, rewrite).words());
            return Ok(());
        }
        if self.len >= self.capacity {
            return Err(MapFull);
        }
        let slot = self.make_room(&key, Moves::Forward).or_else(|| self.make_room(&key, Moves::Any)).ok_or(MapFull)?;
        self.write(slot, Some(key), Slot::new(key, rewrite).words());
        self.len += 1;
        Ok(())
    }

    /// Removes a record; `false` if there was none.
    pub fn remove(&mut self, key: &FlowKey) -> bool {
        let Some(slot) = self.find(key) else { return false };
        self.clear(slot);
        self.len -= 1;
        true
    }

    fn find(&self, key: &FlowKey) -> Option<usize> {
        self.places(key).into_iter().flatten().find(|slot| self.keys[*slot].as_ref() == Some(key))
    }

    /// The slots where a key may be: those of its first bucket, and those of its second.
    fn places(&self, key: &FlowKey) -> [[usize; BUCKET_SLOTS]; 2] {
        let buckets = (self.keys.len() / BUCKET_SLOTS) as u32;
        FlowHash::of(key, &self.seed).buckets(buckets).map(|bucket| {
            let first = bucket as usize * BUCKET_SLOTS;
            [first, first + 1]
        })
    }

    /// A free slot for a key, where others may have been moved out of the way.
    fn make_room(&mut self, key: &FlowKey, moves: Moves) -> Option<usize> {
        // Breadth first, so that the fewest records move: each slot with the one whose record would make way for it.
        let mut waiting: VecDeque<(usize, Option<usize>)> =
            self.places(key).into_iter().flatten().map(|slot| (slot, None)).collect();
        let mut searched: Vec<(usize, Option<usize>)> = Vec::new();
        while let Some((slot, behind)) = waiting.pop_front() {
            let Some(resident) = &self.keys[slot] else { return self.shift(slot, behind, &searched) };
            if searched.len() == MAX_SEARCH {
                return None;
            }
            let [first, second] = self.places(resident);
            let other = match (first.contains(&slot), moves) {
                (true, _) => second,
                (false, Moves::Any) => first,
                (false, Moves::Forward) => continue,
            };
            if first != second && !searched.iter().any(|(known, _)| *known == slot) {
                waiting.extend(other.map(|place| (place, Some(searched.len()))));
                searched.push((slot, behind));
            }
        }
        None
    }

    /// Moves the records of a chain of slots by one place each, into the free slot at its end; the slot that is free
    /// then is at its beginning.
    ///
    /// The original of a record stays until its slot is written for the next one of the chain, or for the new record, so
    /// the flow is always somewhere; but the program has to find it, too.
    fn shift(
        &mut self,
        mut free: usize,
        mut behind: Option<usize>,
        searched: &[(usize, Option<usize>)],
    ) -> Option<usize> {
        while let Some((slot, next)) = behind.map(|index| searched[index]) {
            let key = self.keys[slot]?;
            let words = self.words(slot);
            self.write(free, Some(key), words);
            let [first, _] = self.places(&key);
            // The program looks into the second bucket last, so one that saw no copy in the first may be on its way
            // there.
            if first.contains(&free) && wait_for_readers().is_err() {
                self.clear(free);
                return None;
            }
            (free, behind) = (slot, next);
        }
        Some(free)
    }

    fn clear(&mut self, slot: usize) {
        self.write(slot, None, [0; Slot::WORDS_USED]);
    }

    fn write(&mut self, slot: usize, key: Option<FlowKey>, words: [u64; Slot::WORDS_USED]) {
        self.keys[slot] = key;
        self.generation = self.generation.wrapping_add(2);
        self.write_slot(slot, words, self.generation);
    }

    /// Writes all of a slot as one change: whoever reads it meanwhile finds an odd generation, or another one afterwards
    /// than before.
    ///
    /// The fence keeps the odd generation in front of everything else, and the last store is behind it. The program
    /// reads the generation first and last, with fences for loads in between where the machine needs them (arm64). On
    /// x86 neither stores nor loads overtake each other, so there all of these only hold the compiler back.
    fn write_slot(&self, slot: usize, words: [u64; Slot::WORDS_USED], generation: u32) {
        let head = Slot::GENERATION_WORD;
        let memory = &self.memory[slot * Slot::WORDS..][..Slot::WORDS];
        // Over at once, should anything of it be used after all.
        memory[head].store(generation_word(generation.wrapping_sub(1), 0), Relaxed);
        fence(Release);
        for (index, (place, word)) in memory.iter().zip(words).enumerate() {
            if index != head {
                place.store(word, Relaxed);
            }
        }
        memory[head].store(generation_word(generation, expires_of(words[head])), Release);
    }

    fn words(&self, slot: usize) -> [u64; Slot::WORDS_USED] {
        let mut words = [0; Slot::WORDS_USED];
        for (word, place) in words.iter_mut().zip(&self.memory[slot * Slot::WORDS..][..Slot::WORDS]) {
            *word = place.load(Relaxed);
        }
        words
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
        FlowMap::in_memory(memory, capacity, seed(number))
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
        let words = map.places(key).into_iter().flatten().map(|slot| map.words(slot));
        words.into_iter().find(|words| words[..head] == key.words()[..head])
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
        for number in 0..20 * capacity {
            if number >= capacity {
                assert!(map.remove(&key(number - capacity)));
            }
            assert_eq!(map.insert(key(number), &RECORD), Ok(()), "record {number}");
        }
        assert_eq!(map.len(), capacity as usize);
    }

    #[test]
    fn room_is_made_by_moving_others_both_ways() {
        // Two buckets' worth of places for all keys of the whole table: far fuller than a real one, so that chains of
        // moves are long, and a record has to go back to its first bucket.
        let mut map = map(1 << 10, 1);
        map.capacity = usize::MAX;
        let (mut number, mut moved_back) = (0, 0);
        let is_in_first = |map: &FlowMap, number| {
            let [first, _] = map.places(&key(number));
            map.find(&key(number)).is_some_and(|slot| first.contains(&slot))
        };
        while moved_back == 0 {
            let before: Vec<_> = (0..number).map(|number| is_in_first(&map, number)).collect();
            map.insert(key(number), &record(number)).expect("there is room until records have to move back");
            number += 1;
            moved_back = (0..).zip(&before).filter(|(number, before)| !**before && is_in_first(&map, *number)).count();
            if number % 512 == 0 || moved_back != 0 {
                for number in 0..number {
                    assert_eq!(copies(&map, &key(number)), 1, "record {number}");
                    let found = looked_up(&map, &key(number)).map(body);
                    assert_eq!(found, Some(Slot::new(key(number), &record(number)).words()));
                }
            }
        }
        assert!(number > 1 << 10, "half of the table needs no moves back, only {number} records do");
    }

    #[test]
    fn every_write_leaves_another_even_generation() {
        let mut map = map(8, 1);
        let mut seen = Vec::new();
        for expires in [10, 20, 20] {
            map.insert(key(1), &Rewrite { expires, ..RECORD }).unwrap();
            let head = map.words(map.find(&key(1)).unwrap())[Slot::GENERATION_WORD];
            assert_eq!(expires_of(head), expires);
            let generation = generation_of(head);
            assert!(generation.is_multiple_of(2) && !seen.contains(&generation), "{generation} after {seen:?}");
            seen.push(generation);
        }
        let slot = map.find(&key(1)).unwrap();
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
        let slot = map.find(&key(1)).unwrap();
        let whole = records.map(|record| Slot::new(key(1), &record).words());
        let head = slot * Slot::WORDS + Slot::GENERATION_WORD;
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let map = &map;
            let reader = scope.spawn(|| {
                let mut whole_reads = 0;
                while !done.load(Relaxed) {
                    let generation = generation_of(map.memory[head].load(Acquire));
                    let mut words = [0; Slot::WORDS_USED];
                    for (word, place) in words.iter_mut().zip(&map.memory[slot * Slot::WORDS..]) {
                        *word = place.load(Relaxed);
                    }
                    fence(Acquire);
                    if generation.is_multiple_of(2) && generation_of(map.memory[head].load(Relaxed)) == generation {
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
}
