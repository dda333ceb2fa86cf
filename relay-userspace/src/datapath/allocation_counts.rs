//! What the program counts for each allocation: a row of counters for each CPU, in memory shared with the kernel.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use hairpin_common::maps::{AllocationCount, Count};

use super::shared_memory::SharedMemory;

const WORDS: usize = size_of::<AllocationCount>() / 8;

/// The counters of all allocations.
#[derive(Debug)]
pub struct AllocationCounts {
    memory: SharedMemory,
    allocations: u32,
}

impl AllocationCounts {
    /// Counters in the memory of an array that has a value for each allocation on each CPU.
    pub(super) fn new(array: impl AsFd, cpus: u32, allocations: u32) -> io::Result<Self> {
        let words = cpus as usize * allocations as usize * WORDS;
        Ok(Self { memory: SharedMemory::of_array(array, words)?, allocations })
    }

    /// What was relayed for an allocation, on all CPUs; zero for an index out of range.
    pub fn get(&self, index: u32) -> AllocationCount {
        let mut sum = AllocationCount::default();
        for counts in self.of(index) {
            let [to_peer, to_client] = [&mut sum.to_peer, &mut sum.to_client];
            for (count, word) in
                [&mut to_peer.packets, &mut to_peer.bytes, &mut to_client.packets, &mut to_client.bytes]
                    .into_iter()
                    .zip(counts)
            {
                *count = count.wrapping_add(word.load(Relaxed));
            }
        }
        sum
    }

    /// Sets an allocation's counters to zero. A packet that is being counted right now may undo that.
    pub fn zero(&self, index: u32) {
        for word in self.of(index).flatten() {
            word.store(0, Relaxed);
        }
    }

    /// The counters of an allocation on each CPU.
    fn of(&self, index: u32) -> impl Iterator<Item = &[AtomicU64]> {
        let rows = self.memory.chunks_exact(self.allocations as usize * WORDS);
        rows.filter_map(move |row| row.get(index as usize * WORDS..)?.get(..WORDS))
    }
}

const _: () = {
    use std::mem::offset_of;
    // The order in which `get` takes the words.
    assert!(offset_of!(AllocationCount, to_peer) == 0 && offset_of!(AllocationCount, to_client) == 16);
    assert!(offset_of!(Count, packets) == 0 && offset_of!(Count, bytes) == 8);
};
