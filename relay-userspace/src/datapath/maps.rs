//! What the writer does to the kernel's maps, as one trait, so that everything above it is tested without a kernel.

use hairpin_common::maps::{NextHop, Rewrite};

use super::flow_map::MapFull;
use super::port_roles::EntryChange;
use super::record::Key;

/// The kernel's tables, for writing. Only the writer thread has them.
pub(super) trait WriteMaps {
    /// Adds or overwrites a record.
    fn insert(&mut self, key: &Key, rewrite: &Rewrite) -> Result<(), MapFull>;

    /// Removes a record; one that is not there is not an error.
    fn remove(&mut self, key: &Key);

    /// Overwrites a next hop.
    fn set_next_hop(&mut self, index: u16, next_hop: &NextHop);

    /// Overwrites an entry of the port roles.
    fn set_port_roles(&mut self, change: EntryChange);
}

#[cfg(test)]
pub(super) mod fake {
    use hairpin_common::maps::NextHop;
    use hashbrown::HashMap;

    use super::*;

    /// Maps in memory, with a capacity for records and a history of next hop writes.
    #[derive(Debug)]
    pub(in crate::datapath) struct FakeMaps {
        pub(in crate::datapath) capacity: usize,
        pub(in crate::datapath) records: HashMap<Key, Rewrite>,
        pub(in crate::datapath) next_hops: HashMap<u16, NextHop>,
        pub(in crate::datapath) next_hop_writes: Vec<(u16, NextHop)>,
    }

    impl Default for FakeMaps {
        fn default() -> Self {
            Self { capacity: 1000, records: HashMap::new(), next_hops: HashMap::new(), next_hop_writes: Vec::new() }
        }
    }

    impl WriteMaps for FakeMaps {
        fn insert(&mut self, key: &Key, rewrite: &Rewrite) -> Result<(), MapFull> {
            if self.records.len() == self.capacity && !self.records.contains_key(key) {
                return Err(MapFull);
            }
            self.records.insert(*key, *rewrite);
            Ok(())
        }

        fn remove(&mut self, key: &Key) {
            self.records.remove(key);
        }

        fn set_next_hop(&mut self, index: u16, next_hop: &NextHop) {
            assert_ne!(index, 0, "next hop 0 is never valid");
            self.next_hops.insert(index, *next_hop);
            self.next_hop_writes.push((index, *next_hop));
        }

        fn set_port_roles(&mut self, _: EntryChange) {}
    }
}
