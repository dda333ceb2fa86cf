//! What the program counts for each allocation: a row of counters for each CPU, in memory shared with the kernel.
//!
//! Only the program writes them. What an index had counted when its last allocation ended is kept beside, and does not count
//! for the next one. Between the end and that moment, while the kernel may still forward for the last one, an index shows
//! nothing.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use hairpin_common::maps::{AllocationCount, Count};

use super::shared_memory::SharedMemory;

const WORDS: usize = size_of::<AllocationCount>() / 8;

/// The counters of all allocations.
#[derive(Debug)]
pub struct AllocationCounts {
    memory: SharedMemory,
    allocations: u32,
    /// What each index had counted for those who had it before, in the order of [`AllocationCount`].
    before: SharedMemory,
    /// How many ends of each index are not in the kernel yet.
    ends: SharedMemory,
}

impl AllocationCounts {
    /// Counters in the memory of an array that has a value for each allocation on each CPU.
    pub(super) fn new(array: impl AsFd, cpus: u32, allocations: u32) -> io::Result<Self> {
        let words = cpus as usize * allocations as usize * WORDS;
        let memory = SharedMemory::of_array(array, words)?;
        let before = SharedMemory::anonymous(allocations as usize * WORDS)?;
        Ok(Self { memory, allocations, before, ends: SharedMemory::anonymous(allocations as usize)? })
    }

    /// What was relayed for an allocation, on all CPUs; zero for an index out of range.
    pub fn get(&self, index: u32) -> AllocationCount {
        let is_over = self.ends.get(index as usize).is_none_or(|ends| ends.load(Acquire) != 0);
        let Some(before) = of(&self.before, index).filter(|_| !is_over) else { return AllocationCount::default() };
        let [packets_to_peer, bytes_to_peer, packets_to_client, bytes_to_client] =
            std::array::from_fn(|word| self.sum(index, word).wrapping_sub(before[word].load(Relaxed)));
        AllocationCount {
            to_peer: Count { packets: packets_to_peer, bytes: bytes_to_peer },
            to_client: Count { packets: packets_to_client, bytes: bytes_to_client },
        }
    }

    /// An allocation has ended: from now on its index has counted nothing.
    pub fn end(&self, index: u32) {
        if let Some(ends) = self.ends.get(index as usize) {
            ends.fetch_add(1, Relaxed);
        }
    }

    /// The kernel forwards nothing any more for the allocation that has [ended](Self::end). Only a packet that is being
    /// counted right now is the next one's.
    pub fn begin(&self, index: u32) {
        let (Some(before), Some(ends)) = (of(&self.before, index), self.ends.get(index as usize)) else { return };
        for (word, before) in before.iter().enumerate() {
            before.store(self.sum(index, word), Relaxed);
        }
        ends.fetch_sub(1, AcqRel);
    }

    /// One of an index's counters, on all CPUs.
    fn sum(&self, index: u32, word: usize) -> u64 {
        let rows = self.memory.chunks_exact(self.allocations as usize * WORDS);
        let words = rows.filter_map(|row| of(row, index)?.get(word));
        words.fold(0, |sum, word| sum.wrapping_add(word.load(Relaxed)))
    }
}

/// An index's words in a row.
fn of(row: &[AtomicU64], index: u32) -> Option<&[AtomicU64]> {
    row.get(index as usize * WORDS..)?.get(..WORDS)
}

const _: () = {
    use std::mem::offset_of;
    // The order in which `get` takes the words, and how many.
    assert!(WORDS == 4);
    assert!(offset_of!(AllocationCount, to_peer) == 0 && offset_of!(AllocationCount, to_client) == 16);
    assert!(offset_of!(Count, packets) == 0 && offset_of!(Count, bytes) == 8);
};

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::fs::MemfdFlags;

    use super::*;

    const CPUS: u32 = 2;
    const ALLOCATIONS: u32 = 3;

    /// Counters, and the memory as the program has it.
    fn counts() -> (AllocationCounts, SharedMemory) {
        let words = CPUS as usize * ALLOCATIONS as usize * WORDS;
        let file: OwnedFd = rustix::fs::memfd_create("counters", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, words as u64 * 8).unwrap();
        (AllocationCounts::new(&file, CPUS, ALLOCATIONS).unwrap(), SharedMemory::of_array(&file, words).unwrap())
    }

    /// The program counts so much more of one way, on each CPU.
    fn count(program: &SharedMemory, index: u32, packets: u64, bytes: u64) {
        for row in program.chunks_exact(ALLOCATIONS as usize * WORDS) {
            let words = of(row, index).unwrap();
            words[0].fetch_add(packets, Relaxed);
            words[1].fetch_add(bytes, Relaxed);
            words[2].fetch_add(packets + 1, Relaxed);
            words[3].fetch_add(bytes + 1, Relaxed);
        }
    }

    fn counted(packets: u64, bytes: u64) -> AllocationCount {
        let on_all = |packets: u64, bytes: u64| Count { packets: packets * 2, bytes: bytes * 2 };
        AllocationCount { to_peer: on_all(packets, bytes), to_client: on_all(packets + 1, bytes + 1) }
    }

    #[test]
    fn each_index_counts_for_itself_on_all_cpus() {
        let (counts, program) = counts();
        count(&program, 1, 3, 300);
        assert_eq!(
            [0, 1, 2, 3].map(|index| counts.get(index)),
            [AllocationCount::default(), counted(3, 300), AllocationCount::default(), AllocationCount::default()]
        );
    }

    #[test]
    fn nothing_is_counted_for_two_allocations() {
        let (counts, program) = counts();
        let nothing = AllocationCount::default();
        count(&program, 1, 3, 300);
        counts.end(1);
        assert_eq!(counts.get(1), nothing);
        count(&program, 1, 5, 500);
        assert_eq!(counts.get(1), nothing, "by the records of the one that has ended");
        counts.begin(1);
        assert_eq!(counts.get(1), nothing);
        count(&program, 1, 7, 700);
        assert_eq!(counts.get(1), counted(7, 700));
        // Two that end before the kernel hears of the first.
        counts.end(1);
        counts.end(1);
        counts.begin(1);
        count(&program, 1, 9, 900);
        assert_eq!(counts.get(1), nothing);
        counts.begin(1);
        count(&program, 1, 2, 200);
        assert_eq!((counts.get(1), counts.get(0)), (counted(2, 200), nothing));
        counts.end(ALLOCATIONS);
        counts.begin(ALLOCATIONS);
    }

    #[test]
    fn counters_may_wrap() {
        let (counts, program) = counts();
        count(&program, 2, u64::MAX - 2, u64::MAX - 2);
        counts.end(2);
        counts.begin(2);
        count(&program, 2, 10, 20);
        assert_eq!(counts.get(2), counted(10, 20));
    }
}
