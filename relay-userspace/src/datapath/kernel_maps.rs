//! The BPF maps of the loaded program, as the writer sees them.

use std::io;

use aya::maps::{Array, HashMap, MapData, MapError};
use hairpin_common::maps::{FlowKey, NextHop, Rewrite};

use super::maps::WriteMaps;
use super::port_roles::EntryChange;
use super::record::Key;

/// The maps that the writer owns; those with counters are elsewhere, see [`super::counters`].
pub(super) struct KernelMaps {
    pub(super) flows4: HashMap<MapData, FlowKey<4>, Rewrite>,
    pub(super) flows6: HashMap<MapData, FlowKey<16>, Rewrite>,
    pub(super) port_roles: Array<MapData, u64>,
    pub(super) next_hops: Array<MapData, NextHop>,
}

impl WriteMaps for KernelMaps {
    fn insert(&mut self, key: &Key, rewrite: &Rewrite) -> io::Result<()> {
        match key {
            Key::V4(key) => self.flows4.insert(key, rewrite, 0),
            Key::V6(key) => self.flows6.insert(key, rewrite, 0),
        }
        .map_err(system_error)
    }

    fn remove(&mut self, key: &Key) {
        let removed = match key {
            Key::V4(key) => self.flows4.remove(key),
            Key::V6(key) => self.flows6.remove(key),
        };
        match removed.map_err(system_error) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The record is still there until it expires, which the program sees to.
            Err(error) => tracing::error!(%error, "a flow record could not be removed from the kernel"),
        }
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

/// The operating system's error in one of aya's.
fn system_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::IoError(error) => error,
        MapError::KeyNotFound | MapError::ElementNotFound => io::ErrorKind::NotFound.into(),
        other => io::Error::other(other),
    }
}
