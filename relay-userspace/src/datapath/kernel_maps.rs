//! The BPF maps of the loaded program, as the writer sees them.

use aya::maps::{Array, MapData};
use hairpin_common::maps::{NextHop, Rewrite};

use super::flow_map::{FlowMap, MapFull};
use super::maps::WriteMaps;
use super::port_roles::EntryChange;
use super::record::Key;

/// The maps that the writer owns; those with counters are elsewhere, see [`super::counters`].
pub(super) struct KernelMaps {
    pub(super) flows4: FlowMap<4>,
    pub(super) flows6: FlowMap<16>,
    pub(super) port_roles: Array<MapData, u64>,
    pub(super) next_hops: Array<MapData, NextHop>,
}

impl WriteMaps for KernelMaps {
    fn insert(&mut self, key: &Key, rewrite: &Rewrite) -> Result<(), MapFull> {
        match key {
            Key::V4(key) => self.flows4.insert(*key, rewrite),
            Key::V6(key) => self.flows6.insert(*key, rewrite),
        }
    }

    fn remove(&mut self, key: &Key) {
        match key {
            Key::V4(key) => self.flows4.remove(key),
            Key::V6(key) => self.flows6.remove(key),
        };
    }

    fn set_next_hop(&mut self, index: u16, next_hop: &NextHop) {
        // An index within bounds can always be written.
        if let Err(error) = self.next_hops.set(u32::from(index), next_hop, 0) {
            tracing::error!(index, %error, "a next hop could not be written to the kernel");
        }
    }

    fn set_port_roles(&mut self, EntryChange { index, entry }: EntryChange) {
        if let Err(error) = self.port_roles.set(index, entry, 0) {
            tracing::error!(index, %error, "a port role could not be written to the kernel");
        }
    }
}
