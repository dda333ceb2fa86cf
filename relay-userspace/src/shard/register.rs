//! What a shard knows of its allocations beside what the engine does: their names for the operator, when they began, and what
//! userspace has relayed for them.

use std::time::Instant;

use hairpin_common::maps::Count;
use hairpin_proto::address::FiveTuple;
use hairpin_proto::turn::{AllocationId, AllocationInfo, Now};
use hashbrown::HashMap;

use crate::datapath::Direction;

/// What is known of an allocation for as long as it lives.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its number among all that this shard has ever had.
    pub(super) serial: u64,
    pub(super) began: Instant,
    /// The same in seconds since the Unix epoch.
    pub(super) began_unix: u64,
    /// As it was when it was made; the client may have moved since.
    pub(super) info: AllocationInfo,
    relayed: Relayed,
}

/// What userspace has relayed: towards peers, and towards the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Relayed {
    pub(super) to_peer: Count,
    pub(super) to_client: Count,
}

/// The allocations of one shard.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// By the engine's numbers, which are small and used again.
    entries: Vec<Option<Box<Entry>>>,
    by_serial: HashMap<u64, AllocationId>,
    begun: u64,
}

impl Register {
    /// Takes in an allocation.
    pub(super) fn begin(&mut self, id: AllocationId, info: AllocationInfo, now: Now) -> &Entry {
        let serial = self.begun;
        self.begun += 1;
        let at = id.0 as usize;
        if self.entries.len() <= at {
            self.entries.resize_with(at + 1, || None);
        }
        self.by_serial.insert(serial, id);
        let relayed = Relayed::default();
        let entry = Entry { serial, began: now.instant, began_unix: now.unix, info, relayed };
        self.entries[at].insert(Box::new(entry))
    }

    /// Takes out an allocation that has ended.
    pub(super) fn end(&mut self, id: AllocationId) -> Option<Box<Entry>> {
        let entry = self.entries.get_mut(id.0 as usize)?.take()?;
        self.by_serial.remove(&entry.serial);
        Some(entry)
    }

    /// Learns where a client has gone.
    pub(super) fn moved(&mut self, id: AllocationId, to: FiveTuple) {
        if let Some(Some(entry)) = self.entries.get_mut(id.0 as usize) {
            entry.info.five_tuple = to;
        }
    }

    /// Counts what was relayed.
    #[inline]
    pub(super) fn count(&mut self, id: AllocationId, direction: Direction, packets: u64, bytes: usize) {
        if let Some(Some(entry)) = self.entries.get_mut(id.0 as usize) {
            let count = match direction {
                Direction::ToPeer => &mut entry.relayed.to_peer,
                Direction::ToClient => &mut entry.relayed.to_client,
            };
            count.packets += packets;
            count.bytes += bytes as u64;
        }
    }

    pub(super) fn find(&self, id: AllocationId) -> Option<&Entry> {
        self.entries.get(id.0 as usize)?.as_deref()
    }

    /// The engine's number of an allocation.
    pub(super) fn by_serial(&self, serial: u64) -> Option<AllocationId> {
        self.by_serial.get(&serial).copied()
    }

    /// The allocations that there are from an engine's number on, at most so many numbers further, and where to go on.
    pub(super) fn page(
        &self,
        from: usize,
        numbers: usize,
    ) -> (impl Iterator<Item = (AllocationId, &Entry)>, Option<usize>) {
        let end = (from + numbers).min(self.entries.len());
        let page = self.entries.get(from..end).unwrap_or_default();
        let entries = (from as u32..).zip(page).filter_map(|(id, entry)| Some((AllocationId(id), entry.as_deref()?)));
        (entries, (end < self.entries.len()).then_some(end))
    }

    /// How many there have been.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }
}

impl Entry {
    pub(super) fn relayed(&self) -> Relayed {
        self.relayed
    }
}
