//! Which flows the driver may forward without asking, and until when.
//!
//! A flow ends with the first of what it rests on: a channel rests on its permission, a permission on its relayed
//! transport address. Whoever changes one of these ends calls [`Allocation::update_flows`] for all that rests on it; the
//! driver hears only of ends that are not those it was told before.

use std::net::IpAddr;
use std::time::Instant;

use super::allocation::Allocation;
use super::effect::{AllocationId, Effect, Flow, Scope};
use super::outbox::Outbox;
use crate::address::{AddressFamily, FiveTuple, Transport};

/// The end that the driver was told last for a flow; none if it may not forward it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Installed(Option<Instant>);

impl Installed {
    pub(super) fn is_none(self) -> bool {
        self.0.is_none()
    }
}

/// What flows rest on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    /// The relayed transport address of a family: its own flow, and those of all permissions and channels of that family.
    Relay(AddressFamily),
    /// The permission for an IP address: its own flow, and those of all channels to this address.
    Permission(IpAddr),
}

impl Base {
    fn family(self) -> AddressFamily {
        match self {
            Self::Relay(family) => family,
            Self::Permission(peer) => AddressFamily::of(peer),
        }
    }
}

impl Allocation {
    /// Tells the driver what has changed of the flows that rest on `base`. They begin in the order in which they rest on
    /// each other and end in the opposite one: none is ever there without what it rests on.
    pub(super) fn update_flows(&mut self, id: AllocationId, base: Base, now: Instant, outbox: &mut Outbox) {
        let family = base.family();
        let scopes = self.scopes(base);
        let ends: Vec<_> = scopes.iter().map(|scope| self.end_of(family, *scope).filter(|end| now < *end)).collect();
        for (scope, end) in scopes.iter().zip(&ends).filter(|(_, end)| end.is_some()) {
            self.set_flow(id, family, *scope, *end, outbox);
        }
        for (scope, _) in scopes.iter().zip(&ends).rev().filter(|(_, end)| end.is_none()) {
            self.set_flow(id, family, *scope, None, outbox);
        }
    }

    /// Tells the driver that all flows of a family have ended.
    pub(super) fn end_flows(&mut self, id: AllocationId, family: AddressFamily, outbox: &mut Outbox) {
        for scope in self.scopes(Base::Relay(family)).into_iter().rev() {
            self.set_flow(id, family, scope, None, outbox);
        }
    }

    /// Takes all flows to where the client is now. At the new address they are there before any ends at the old one: in
    /// between, a fast path would know nothing of the peers.
    pub(super) fn move_flows(&mut self, id: AllocationId, to: FiveTuple, now: Instant, outbox: &mut Outbox) {
        let families: Vec<_> = self.families().collect();
        let mut there = Vec::new();
        for family in &families {
            for scope in self.scopes(Base::Relay(*family)) {
                let flow = self.flow(id, *family, scope);
                let was = self.installed_mut(*family, scope).map(std::mem::take);
                there.extend(flow.filter(|_| was.is_some_and(|was| !was.is_none())));
            }
        }
        self.five_tuple = to;
        for family in families {
            self.update_flows(id, Base::Relay(family), now, outbox);
        }
        there.into_iter().rev().for_each(|flow| outbox.push(Effect::RemoveFlow { flow }));
    }

    /// The flows that rest on `base`, those that others rest on first. A channel without a permission has none.
    fn scopes(&self, base: Base) -> Vec<Scope> {
        let (relay, peers) = match base {
            Base::Relay(family) => {
                let of_family = self.permissions.keys().copied().filter(|peer| AddressFamily::of(*peer) == family);
                (Some(Scope::Relay), of_family.collect())
            }
            Base::Permission(peer) => (None, vec![peer]),
        };
        let permissions = peers.iter().map(|peer| Scope::Permission { peer: *peer });
        let channels = peers.iter().flat_map(|peer| self.channels_of(*peer));
        let channels = channels.map(|(number, peer)| Scope::Channel { channel: number.get(), peer });
        relay.into_iter().chain(permissions).chain(channels).collect()
    }

    /// When a flow ends, by what it rests on.
    fn end_of(&self, family: AddressFamily, scope: Scope) -> Option<Instant> {
        let relay = self.relay(family)?.expires;
        let permission = |peer| Some(self.permissions.get(&peer)?.expires.min(relay));
        match scope {
            Scope::Relay => Some(relay),
            Scope::Permission { peer } => permission(peer),
            Scope::Channel { peer, .. } => Some(self.channel_at(peer)?.expires.min(permission(peer.ip())?)),
        }
    }

    fn set_flow(
        &mut self,
        id: AllocationId,
        family: AddressFamily,
        scope: Scope,
        end: Option<Instant>,
        outbox: &mut Outbox,
    ) {
        // A fast path knows datagrams, and none that are encrypted.
        if self.five_tuple.transport != Transport::Udp {
            return;
        }
        let Some(flow) = self.flow(id, family, scope) else { return };
        let installed = self.installed_mut(family, scope).filter(|installed| installed.0 != end);
        let Some(installed) = installed else { return };
        installed.0 = end;
        outbox.push(match end {
            Some(expires) => Effect::InstallFlow { flow, expires },
            None => Effect::RemoveFlow { flow },
        });
    }

    fn flow(&self, id: AllocationId, family: AddressFamily, scope: Scope) -> Option<Flow> {
        let relayed = self.relay(family)?.address;
        Some(Flow { allocation: id, five_tuple: self.five_tuple, relayed, scope })
    }

    fn installed_mut(&mut self, family: AddressFamily, scope: Scope) -> Option<&mut Installed> {
        match scope {
            Scope::Relay => self.relay_mut(family).map(|relay| &mut relay.installed),
            Scope::Permission { peer } => self.permissions.get_mut(&peer).map(|permission| &mut permission.installed),
            Scope::Channel { peer, .. } => self.channel_at_mut(peer).map(|channel| &mut channel.installed),
        }
    }
}
