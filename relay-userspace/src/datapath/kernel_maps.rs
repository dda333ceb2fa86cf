//! The BPF maps of the loaded program, as the writer sees them.

use std::sync::Arc;

use aya::maps::{Array, DevMapHash, HashMap, MapData, MapError};
use hairpin_common::maps::{FlowKey, Link, LinkAddress, NextHop, RelayAddress, Rewrite};

use super::counters::Share;
use super::flow_map::{FlowMap, MapFull};
use super::maps::WriteMaps;
use super::port_roles::EntryChange;
use super::shared_state::SharedState;

/// The maps that the writer owns; those with counters are elsewhere, see [`super::counters`].
pub(super) struct KernelMaps {
    pub(super) flows: FlowMap,
    pub(super) port_roles: Array<MapData, u64>,
    pub(super) next_hops: Array<MapData, NextHop>,
    pub(super) relay_addresses: Array<MapData, RelayAddress>,
    pub(super) links: HashMap<MapData, Link, LinkAddress>,
    pub(super) devices: DevMapHash<MapData>,
    pub(super) state: Arc<SharedState>,
}

impl WriteMaps for KernelMaps {
    fn insert(&mut self, key: &FlowKey, rewrite: &Rewrite) -> Result<(), MapFull> {
        self.flows.insert(*key, rewrite)
    }

    fn remove(&mut self, key: &FlowKey) {
        self.flows.remove(key);
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

    fn set_relay_address(&mut self, index: u8, address: &RelayAddress) {
        if let Err(error) = self.relay_addresses.set(u32::from(index), address, 0) {
            tracing::error!(index, %error, "a relay address could not be written to the kernel");
        }
    }

    fn set_link(&mut self, link: Link, address: Option<LinkAddress>) {
        let changed = match address {
            Some(address) => self.links.insert(link, address, 0),
            None => without_missing(self.links.remove(&link)),
        };
        if let Err(error) = changed {
            tracing::warn!(?link, %error, "a link could not be written to the kernel: its packets stay in userspace");
        }
    }

    fn set_device(&mut self, interface: u32, is_there: bool) {
        if !is_there {
            // The kernel takes an interface that goes away out of the map by itself.
            if let Err(error) = without_missing(self.devices.remove(interface)) {
                tracing::debug!(interface, %error, "an interface could not be taken out of the device map");
            }
        } else if let Err(error) = self.devices.insert(interface, interface, None, 0) {
            tracing::warn!(interface, %error, "no packets can be redirected to an interface: they stay in userspace");
        }
    }

    fn records(&self) -> Share {
        self.flows.share()
    }

    fn state(&self) -> &SharedState {
        &self.state
    }
}

/// What was not there need not be removed.
fn without_missing(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
