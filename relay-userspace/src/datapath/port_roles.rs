//! Who claims which local port: the counted truth behind the array of port roles.

use hairpin_common::maps::{PortRole, PortSlot};
use hashbrown::HashMap;

/// How many claims of each role a port has.
///
/// Roles in the kernel are by port number alone, but several sockets can share a number: a listener on both families,
/// relayed addresses on two local addresses. A role lasts until the last of them lets go.
#[derive(Debug)]
pub(super) struct PortRoles {
    claims: HashMap<u16, Claims>,
    /// A copy of the kernel's array, so that changing one port needs no read of its neighbours.
    entries: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Claims {
    listener: u32,
    relayed: u32,
}

/// An entry of the array that has to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryChange {
    pub(super) index: u32,
    pub(super) entry: u64,
}

impl Default for PortRoles {
    fn default() -> Self {
        Self { claims: HashMap::new(), entries: vec![0; PortSlot::ENTRIES as usize] }
    }
}

impl PortRoles {
    /// Adds a claim; claiming [`PortRole::None`] does nothing.
    pub(super) fn claim(&mut self, port: u16, role: PortRole) -> Option<EntryChange> {
        let claims = self.claims.entry(port).or_default();
        if let Some(count) = claims.count_of(role) {
            *count += 1;
        }
        self.settle(port)
    }

    /// Takes a claim back; more releases than claims do nothing.
    pub(super) fn release(&mut self, port: u16, role: PortRole) -> Option<EntryChange> {
        let count = self.claims.get_mut(&port)?.count_of(role)?;
        *count = count.saturating_sub(1);
        self.settle(port)
    }

    fn settle(&mut self, port: u16) -> Option<EntryChange> {
        let role = self.claims.get(&port).map_or(PortRole::None, |claims| claims.role());
        if role == PortRole::None {
            self.claims.remove(&port);
        }
        let slot = PortSlot::of(port);
        let entry = &mut self.entries[slot.index as usize];
        let changed = slot.with_role(*entry, role);
        (changed != *entry).then(|| {
            *entry = changed;
            EntryChange { index: slot.index, entry: changed }
        })
    }
}

impl Claims {
    fn count_of(&mut self, role: PortRole) -> Option<&mut u32> {
        match role {
            PortRole::None => None,
            PortRole::Listener => Some(&mut self.listener),
            PortRole::Relayed => Some(&mut self.relayed),
        }
    }

    /// Where a number is both, listener wins: a peer's datagram is then passed up to its socket, unless it looks like a
    /// client's, which the records of addresses settle; the other way round a client's ChannelData would be looked up as
    /// if a peer had sent it.
    fn role(self) -> PortRole {
        match (self.listener, self.relayed) {
            (0, 0) => PortRole::None,
            (0, _) => PortRole::Relayed,
            _ => PortRole::Listener,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role_after(change: Option<EntryChange>, port: u16) -> Option<PortRole> {
        change.map(|EntryChange { index, entry }| {
            let slot = PortSlot::of(port);
            assert_eq!(slot.index, index);
            slot.role(entry)
        })
    }

    #[test]
    fn a_role_lasts_until_its_last_claim_is_released() {
        let mut roles = PortRoles::default();
        assert_eq!(role_after(roles.claim(50_000, PortRole::Relayed), 50_000), Some(PortRole::Relayed));
        assert_eq!(roles.claim(50_000, PortRole::Relayed), None);
        assert_eq!(roles.release(50_000, PortRole::Relayed), None);
        assert_eq!(role_after(roles.release(50_000, PortRole::Relayed), 50_000), Some(PortRole::None));
        assert_eq!(roles.release(50_000, PortRole::Relayed), None);
        assert!(roles.claims.is_empty());
    }

    #[test]
    fn a_listener_outranks_a_relayed_address_on_the_same_number() {
        let mut roles = PortRoles::default();
        roles.claim(3478, PortRole::Relayed);
        assert_eq!(role_after(roles.claim(3478, PortRole::Listener), 3478), Some(PortRole::Listener));
        assert_eq!(roles.release(3478, PortRole::Relayed), None);
        roles.claim(3478, PortRole::Relayed);
        assert_eq!(role_after(roles.release(3478, PortRole::Listener), 3478), Some(PortRole::Relayed));
    }

    #[test]
    fn ports_of_one_entry_keep_their_own_roles() {
        let mut roles = PortRoles::default();
        roles.claim(64, PortRole::Relayed);
        let change = roles.claim(65, PortRole::Listener).unwrap();
        assert_eq!(PortSlot::of(64).role(change.entry), PortRole::Relayed);
        let change = roles.release(64, PortRole::Relayed).unwrap();
        assert_eq!(PortSlot::of(65).role(change.entry), PortRole::Listener);
        assert_eq!(PortSlot::of(64).role(change.entry), PortRole::None);
    }
}
