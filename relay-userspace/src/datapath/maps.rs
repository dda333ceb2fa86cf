//! What the writer does to the kernel's maps, as one trait, so that everything above it is tested without a kernel.

use hairpin_common::maps::{FlowKey, Link, LinkAddress, NextHop, RelayAddress, Rewrite};

use super::counters::Share;
use super::flow_map::MapFull;
use super::port_roles::EntryChange;
use super::shared_state::SharedState;

/// The kernel's tables, for writing. Only the writer thread has them.
pub(super) trait WriteMaps {
    /// Adds or overwrites a record.
    fn insert(&mut self, key: &FlowKey, rewrite: &Rewrite) -> Result<(), MapFull>;

    /// Removes a record; one that is not there is not an error.
    fn remove(&mut self, key: &FlowKey);

    /// Overwrites a next hop.
    fn set_next_hop(&mut self, index: u16, next_hop: &NextHop);

    /// Overwrites an entry of the port roles.
    fn set_port_roles(&mut self, change: EntryChange);

    /// Writes an entry of the relay's addresses, before the first record that has its index. None is ever written twice.
    fn set_relay_address(&mut self, index: u8, address: &RelayAddress);

    /// Adds or overwrites a link whose packets are ours, or takes it away.
    fn set_link(&mut self, link: Link, address: Option<LinkAddress>);

    /// Adds an interface that packets may be redirected to, or takes it away.
    fn set_device(&mut self, interface: u32, is_there: bool);

    /// How full the table of records is.
    fn records(&self) -> Share;

    /// Where to say what of an allocation is in the kernel.
    fn state(&self) -> &SharedState;
}

#[cfg(test)]
pub(super) mod fake {
    use hairpin_common::maps::NextHop;
    use hashbrown::{HashMap, HashSet};

    use super::*;

    /// Maps in memory, with a capacity for records and a history of next hop writes.
    #[derive(Debug)]
    pub(in crate::datapath) struct FakeMaps {
        pub(in crate::datapath) capacity: usize,
        pub(in crate::datapath) records: HashMap<FlowKey, Rewrite>,
        pub(in crate::datapath) next_hops: HashMap<u16, NextHop>,
        pub(in crate::datapath) next_hop_writes: Vec<(u16, NextHop)>,
        pub(in crate::datapath) port_roles: HashMap<u32, u64>,
        pub(in crate::datapath) relay_addresses: HashMap<u8, RelayAddress>,
        pub(in crate::datapath) links: HashMap<Link, LinkAddress>,
        pub(in crate::datapath) devices: HashSet<u32>,
        /// Changes of links and devices, in words and in their order.
        pub(in crate::datapath) link_writes: Vec<String>,
        pub(in crate::datapath) state: SharedState,
        /// Keys of the records that went.
        pub(in crate::datapath) removals: Vec<FlowKey>,
        /// Whether a record ever went while its allocation was said to be complete.
        pub(in crate::datapath) removed_while_complete: bool,
    }

    impl Default for FakeMaps {
        fn default() -> Self {
            Self {
                capacity: 1000,
                records: HashMap::new(),
                next_hops: HashMap::new(),
                next_hop_writes: Vec::new(),
                port_roles: HashMap::new(),
                relay_addresses: HashMap::new(),
                links: HashMap::new(),
                devices: HashSet::new(),
                link_writes: Vec::new(),
                removals: Vec::new(),
                removed_while_complete: false,
                state: SharedState::alone(8, [0; 5]).expect("a page of memory"),
            }
        }
    }

    impl WriteMaps for FakeMaps {
        fn insert(&mut self, key: &FlowKey, rewrite: &Rewrite) -> Result<(), MapFull> {
            if self.records.len() == self.capacity && !self.records.contains_key(key) {
                return Err(MapFull);
            }
            self.records.insert(*key, *rewrite);
            Ok(())
        }

        fn remove(&mut self, key: &FlowKey) {
            let gone = self.records.remove(key);
            self.removals.extend(gone.map(|_| *key));
            self.removed_while_complete |= gone.is_some_and(|gone| self.state.is_complete(gone.allocation));
        }

        fn set_next_hop(&mut self, index: u16, next_hop: &NextHop) {
            assert_ne!(index, 0, "next hop 0 is never valid");
            self.next_hops.insert(index, *next_hop);
            self.next_hop_writes.push((index, *next_hop));
        }

        fn set_port_roles(&mut self, EntryChange { index, entry }: EntryChange) {
            self.port_roles.insert(index, entry);
        }

        fn set_relay_address(&mut self, index: u8, address: &RelayAddress) {
            let before = self.relay_addresses.insert(index, *address);
            assert_eq!(before, None, "records may refer to what is there");
        }

        fn set_link(&mut self, link: Link, address: Option<LinkAddress>) {
            let Link { interface, vlan, .. } = link;
            let is_there = if address.is_some() { "on" } else { "off" };
            self.link_writes.push(format!("link {interface}.{} {is_there}", u16::from_be_bytes(vlan)));
            match address {
                Some(address) => self.links.insert(link, address),
                None => self.links.remove(&link),
            };
        }

        fn set_device(&mut self, interface: u32, is_there: bool) {
            self.link_writes.push(format!("device {interface} {}", if is_there { "on" } else { "off" }));
            if is_there {
                self.devices.insert(interface);
            } else {
                self.devices.remove(&interface);
            }
        }

        fn records(&self) -> Share {
            Share { used: self.records.len() as u64, capacity: self.capacity as u64 }
        }

        fn state(&self) -> &SharedState {
            &self.state
        }
    }
}
