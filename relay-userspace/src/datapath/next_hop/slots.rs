//! The entries of the next hop array: which adjacency has which index, and how many destinations share it.

use std::collections::VecDeque;
use std::net::IpAddr;

use hairpin_common::maps::{NEXT_HOP_CAPACITY, NextHop};
use hashbrown::HashMap;

use super::super::counters::Share;

/// What one entry of the array stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Adjacency {
    /// The output device; a VLAN device has its own index, so the VLAN is part of this.
    pub(super) interface: u32,
    /// Gateway or destination on that link.
    pub(super) neighbour: IpAddr,
    /// MTU of the route, where it has one: routes that differ in it can't share an entry.
    pub(super) mtu: Option<u32>,
}

/// All entries, with index 0 kept out of use.
#[derive(Debug)]
pub(super) struct Slots {
    entries: Vec<Option<Slot>>,
    by_adjacency: HashMap<Adjacency, u16>,
    /// Oldest first: an index is reused as late as possible, long after the last packet in flight has read the record
    /// that named it.
    free: VecDeque<u16>,
}

#[derive(Debug)]
struct Slot {
    adjacency: Adjacency,
    references: u32,
    value: NextHop,
}

/// What [`Slots::acquire`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acquired {
    /// The adjacency had an entry already.
    Shared(u16),
    /// A free entry was taken; its value is not valid yet.
    Fresh(u16),
}

impl Default for Slots {
    fn default() -> Self {
        let capacity = u16::try_from(NEXT_HOP_CAPACITY).expect("records name a next hop by 16 bits");
        Self {
            entries: (0..capacity).map(|_| None).collect(),
            by_adjacency: HashMap::new(),
            free: (1..capacity).collect(),
        }
    }
}

impl Slots {
    /// Takes a reference to the entry of an adjacency; `None` when all entries are taken.
    pub(super) fn acquire(&mut self, adjacency: Adjacency) -> Option<Acquired> {
        if let Some(&index) = self.by_adjacency.get(&adjacency) {
            self.slot_mut(index)?.references += 1;
            return Some(Acquired::Shared(index));
        }
        let index = self.free.pop_front()?;
        self.entries[usize::from(index)] = Some(Slot { adjacency, references: 1, value: NextHop::default() });
        self.by_adjacency.insert(adjacency, index);
        Some(Acquired::Fresh(index))
    }

    /// Gives a reference back. The value the entry had is returned if that was the last one.
    pub(super) fn release(&mut self, index: u16) -> Option<NextHop> {
        let slot = self.slot_mut(index)?;
        slot.references -= 1;
        if slot.references > 0 {
            return None;
        }
        let slot = self.entries[usize::from(index)].take()?;
        self.by_adjacency.remove(&slot.adjacency);
        self.free.push_back(index);
        Some(slot.value)
    }

    pub(super) fn adjacency(&self, index: u16) -> Option<Adjacency> {
        Some(self.entries.get(usize::from(index))?.as_ref()?.adjacency)
    }

    /// Remembers what the kernel's entry holds, and returns what it held before.
    pub(super) fn replace_value(&mut self, index: u16, value: NextHop) -> Option<NextHop> {
        Some(std::mem::replace(&mut self.slot_mut(index)?.value, value))
    }

    /// Indexes, adjacencies and values of the entries in use.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (u16, Adjacency, NextHop)> {
        self.by_adjacency.iter().filter_map(|(adjacency, &index)| {
            let slot = self.entries[usize::from(index)].as_ref()?;
            Some((index, *adjacency, slot.value))
        })
    }

    /// How many of the entries are in use.
    pub(super) fn share(&self) -> Share {
        // The first is never used.
        Share { used: self.by_adjacency.len() as u64, capacity: self.entries.len() as u64 - 1 }
    }

    fn slot_mut(&mut self, index: u16) -> Option<&mut Slot> {
        self.entries.get_mut(usize::from(index))?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adjacency(last: u8) -> Adjacency {
        Adjacency { interface: 2, neighbour: IpAddr::from([192, 0, 2, last]), mtu: None }
    }

    #[test]
    fn one_adjacency_has_one_entry_until_its_last_reference() {
        let mut slots = Slots::default();
        assert_eq!(slots.acquire(adjacency(1)), Some(Acquired::Fresh(1)));
        assert_eq!(slots.acquire(adjacency(1)), Some(Acquired::Shared(1)));
        assert_eq!(slots.acquire(adjacency(2)), Some(Acquired::Fresh(2)));
        let other_mtu = Adjacency { mtu: Some(1400), ..adjacency(1) };
        assert_eq!(slots.acquire(other_mtu), Some(Acquired::Fresh(3)));
        assert_eq!(slots.release(1), None);
        assert!(slots.release(1).is_some());
        assert_eq!(slots.adjacency(1), None);
    }

    #[test]
    fn index_zero_is_never_given_and_a_freed_one_comes_back_last() {
        let mut slots = Slots::default();
        let all: Vec<_> = (1..NEXT_HOP_CAPACITY)
            .map(|n| slots.acquire(Adjacency { interface: n, ..adjacency(1) }).unwrap())
            .collect();
        assert!(!all.contains(&Acquired::Fresh(0)));
        assert_eq!(slots.acquire(adjacency(9)), None);
        slots.release(7).unwrap();
        slots.release(5).unwrap();
        assert_eq!(slots.acquire(adjacency(9)), Some(Acquired::Fresh(7)));
        assert_eq!(slots.acquire(adjacency(8)), Some(Acquired::Fresh(5)));
    }
}
