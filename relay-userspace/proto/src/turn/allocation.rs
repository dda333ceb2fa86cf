//! Allocations and what belongs to them: relayed transport addresses, permissions, channels (RFC 8656 section 3.2).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Instant;

use hairpin_common::wire::{CHANNEL_MAX, CHANNEL_MIN};
use hashbrown::HashMap;

use super::effect::{AllocationId, ConnectionId, RelayId};
use super::flow::Installed;
use super::identity::{Established, Identity};
use super::mobility::{Presence, TicketState};
use super::quota::Lease;
use crate::address::{AddressFamily, ByClient, FiveTuple, PeerAddr, RelayedAddr};
use crate::slab::Slab;

/// A channel number in the range that is accepted (see [`CHANNEL_MAX`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ChannelNumber(u16);

impl ChannelNumber {
    pub(super) fn new(number: u16) -> Option<Self> {
        (CHANNEL_MIN..=CHANNEL_MAX).contains(&number).then_some(Self(number))
    }

    pub(super) fn get(self) -> u16 {
        self.0
    }
}

/// What relayed transport addresses speak with peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerTransport {
    /// Datagrams.
    Udp,
    /// Connections (RFC 6062).
    Tcp,
}

impl PeerTransport {
    /// The name in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// What a client has on the server. It has at least one relayed transport address, and ends with the last.
#[derive(Debug)]
pub(super) struct Allocation {
    /// Where data for the client goes.
    pub(super) five_tuple: FiveTuple,
    pub(super) presence: Presence,
    /// Of a client that may move.
    pub(super) ticket: Option<TicketState>,
    /// Who made it; only this user may change it.
    pub(super) username: Box<str>,
    /// What its user was let in by, if that was not known in advance.
    pub(super) identity: Option<Identity>,
    pub(super) peers: PeerTransport,
    relays: [Option<Relay>; 2],
    pub(super) permissions: HashMap<IpAddr, Permission>,
    pub(super) channels: HashMap<ChannelNumber, Channel>,
    /// Ordered, so that the channels to one IP address stand together.
    channels_by_peer: BTreeMap<PeerAddr, ChannelNumber>,
    /// Of a TCP allocation: one at most for each peer (RFC 6062 section 3).
    pub(super) connections: BTreeMap<PeerAddr, ConnectionId>,
    pub(super) lease: Lease,
}

/// A relayed transport address. The two of a dual allocation are refreshed and deleted each on its own (RFC 8656
/// section 8).
#[derive(Clone, Copy, Debug)]
pub(super) struct Relay {
    pub(super) id: RelayId,
    pub(super) address: RelayedAddr,
    /// As the world sees it, and as the client was told.
    pub(super) public: SocketAddr,
    pub(super) expires: Instant,
    pub(super) installed: Installed,
}

/// A permission (RFC 8656 section 9).
#[derive(Clone, Copy, Debug)]
pub(super) struct Permission {
    pub(super) expires: Instant,
    pub(super) installed: Installed,
}

/// A channel binding (RFC 8656 section 12), live or kept from being bound anew too early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel {
    pub(super) peer: PeerAddr,
    /// When the binding ends.
    pub(super) expires: Instant,
    /// Which deadline is set for it.
    pub(super) timer: Instant,
    pub(super) installed: Installed,
}

impl Channel {
    /// Whether the binding has not ended yet, as far as the timers know.
    pub(super) fn is_bound(&self) -> bool {
        self.timer == self.expires
    }
}

impl Allocation {
    pub(super) fn new(five_tuple: FiveTuple, username: Box<str>, peers: PeerTransport, lease: Lease) -> Self {
        Self {
            five_tuple,
            presence: Presence::Here,
            ticket: None,
            username,
            identity: None,
            peers,
            relays: [None; 2],
            permissions: HashMap::new(),
            channels: HashMap::new(),
            channels_by_peer: BTreeMap::new(),
            connections: BTreeMap::new(),
            lease,
        }
    }

    /// By what its user goes on.
    pub(super) fn established(&self) -> Established<'_> {
        Established { username: &self.username, identity: self.identity.as_ref() }
    }

    pub(super) fn relay(&self, family: AddressFamily) -> Option<&Relay> {
        self.relays[family.index()].as_ref()
    }

    pub(super) fn relay_mut(&mut self, family: AddressFamily) -> Option<&mut Relay> {
        self.relays[family.index()].as_mut()
    }

    pub(super) fn set_relay(&mut self, family: AddressFamily, relay: Relay) {
        self.relays[family.index()] = Some(relay);
    }

    pub(super) fn take_relay(&mut self, family: AddressFamily) -> Option<Relay> {
        self.relays[family.index()].take()
    }

    /// All of its relayed transport addresses.
    pub(super) fn relays(&self) -> impl Iterator<Item = &Relay> {
        self.relays.iter().flatten()
    }

    /// The families that there is a relayed transport address of.
    pub(super) fn families(&self) -> impl Iterator<Item = AddressFamily> + use<> {
        let present = self.relays.map(|relay| relay.is_some());
        AddressFamily::ALL.into_iter().filter(move |family| present[family.index()])
    }

    /// The relayed transport address that reaches this peer, unless its time is over.
    pub(super) fn relay_to(&self, peer: IpAddr, now: Instant) -> Option<&Relay> {
        self.relay(AddressFamily::of(peer)).filter(|relay| now < relay.expires)
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.relays().any(|relay| now < relay.expires)
    }

    pub(super) fn permits(&self, peer: IpAddr, now: Instant) -> bool {
        self.permissions.get(&peer).is_some_and(|permission| now < permission.expires)
    }

    /// The peer that a channel is bound to now.
    pub(super) fn peer_of(&self, number: ChannelNumber, now: Instant) -> Option<PeerAddr> {
        self.channels.get(&number).filter(|channel| now < channel.expires).map(|channel| channel.peer)
    }

    /// The channel that is bound to a peer now.
    pub(super) fn channel_to(&self, peer: PeerAddr, now: Instant) -> Option<ChannelNumber> {
        let number = self.channels_by_peer.get(&peer)?;
        self.channels.get(number).filter(|channel| now < channel.expires).map(|_| *number)
    }

    /// Whether channel and peer may be bound to each other: neither is bound to another one, nor was until lately.
    pub(super) fn may_bind(&self, number: ChannelNumber, peer: PeerAddr) -> bool {
        self.channels.get(&number).is_none_or(|channel| channel.peer == peer)
            && self.channels_by_peer.get(&peer).is_none_or(|other| *other == number)
    }

    /// Binds a channel, or binds it again. Returns the deadline that was set for it before.
    pub(super) fn bind(&mut self, number: ChannelNumber, peer: PeerAddr, expires: Instant) -> Option<Instant> {
        self.channels_by_peer.insert(peer, number);
        let before = self.channels.get(&number).copied();
        let installed = before.map_or(Installed::default(), |channel| channel.installed);
        self.channels.insert(number, Channel { peer, expires, timer: expires, installed });
        before.map(|channel| channel.timer)
    }

    /// Forgets a channel whose flow is no longer installed.
    pub(super) fn unbind(&mut self, number: ChannelNumber) -> Option<Channel> {
        let channel = self.channels.remove(&number)?;
        debug_assert!(channel.installed.is_none(), "{number:?} is forgotten while its flow is installed");
        self.channels_by_peer.remove(&channel.peer);
        Some(channel)
    }

    /// Gives a permission, or gives it again. Returns the end that it had before.
    pub(super) fn permit(&mut self, peer: IpAddr, expires: Instant) -> Option<Instant> {
        let before = self.permissions.get(&peer).copied();
        let installed = before.map_or(Installed::default(), |permission| permission.installed);
        self.permissions.insert(peer, Permission { expires, installed });
        before.map(|permission| permission.expires)
    }

    /// Forgets a permission whose flow is no longer installed.
    pub(super) fn revoke(&mut self, peer: IpAddr) -> Option<Permission> {
        let permission = self.permissions.remove(&peer)?;
        debug_assert!(permission.installed.is_none(), "the permission for {peer} is forgotten with its flow installed");
        Some(permission)
    }

    /// The channels to an IP address, each with its peer.
    pub(super) fn channels_of(&self, peer: IpAddr) -> impl Iterator<Item = (ChannelNumber, PeerAddr)> {
        let all_ports: RangeInclusive<PeerAddr> =
            PeerAddr::new((peer, 0).into())..=PeerAddr::new((peer, u16::MAX).into());
        self.channels_by_peer.range(all_ports).map(|(peer, number)| (*number, *peer))
    }

    /// The binding of a channel to this peer, live or not.
    pub(super) fn channel_at(&self, peer: PeerAddr) -> Option<&Channel> {
        self.channels.get(self.channels_by_peer.get(&peer)?)
    }

    /// See [`Allocation::channel_at`].
    pub(super) fn channel_at_mut(&mut self, peer: PeerAddr) -> Option<&mut Channel> {
        self.channels.get_mut(self.channels_by_peer.get(&peer)?)
    }
}

/// Whose a relayed transport address is.
#[derive(Clone, Copy, Debug)]
pub(super) enum RelayOwner {
    /// An Allocate request whose sockets are being bound.
    Pending(FiveTuple),
    /// An allocation, which has it for this family.
    Allocation(AllocationId, AddressFamily),
}

/// All allocations, to be found from either side.
#[derive(Debug)]
pub(super) struct Allocations {
    by_client: HashMap<FiveTuple, AllocationId>,
    by_id: Slab<Allocation>,
    relays: Slab<RelayOwner>,
    /// How many there are, by what their clients speak.
    by_client_kind: ByClient,
}

impl Allocations {
    pub(super) fn new() -> Self {
        Self { by_client: HashMap::new(), by_id: Slab::new(), relays: Slab::new(), by_client_kind: Default::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn by_client_kind(&self) -> ByClient {
        self.by_client_kind
    }

    /// A client has gone on to another transport or family, perhaps.
    pub(super) fn count_move(&mut self, from: &FiveTuple, to: &FiveTuple) {
        *self.kind_of(from) -= 1;
        *self.kind_of(to) += 1;
    }

    fn kind_of(&mut self, five_tuple: &FiveTuple) -> &mut usize {
        &mut self.by_client_kind[five_tuple.transport as usize][five_tuple.client_family().index()]
    }

    pub(super) fn ids(&self) -> Vec<AllocationId> {
        self.by_id.names().map(AllocationId).collect()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Allocation> {
        self.by_id.names().filter_map(|name| self.by_id.find(name))
    }

    pub(super) fn insert(&mut self, allocation: Allocation) -> AllocationId {
        let five_tuple = allocation.five_tuple;
        let id = AllocationId(self.by_id.insert(allocation));
        self.by_client.insert(five_tuple, id);
        *self.kind_of(&five_tuple) += 1;
        id
    }

    pub(super) fn remove(&mut self, AllocationId(id): AllocationId) {
        let Some(allocation) = self.by_id.remove(id) else { return };
        *self.kind_of(&allocation.five_tuple) -= 1;
        self.remove_client(&allocation.five_tuple, AllocationId(id));
        if let Presence::Moving(to) = allocation.presence {
            self.remove_client(&to, AllocationId(id));
        }
    }

    pub(super) fn find(&self, AllocationId(id): AllocationId) -> Option<&Allocation> {
        self.by_id.find(id)
    }

    pub(super) fn find_mut(&mut self, AllocationId(id): AllocationId) -> Option<&mut Allocation> {
        self.by_id.find_mut(id)
    }

    #[inline]
    pub(super) fn of_client(&self, five_tuple: &FiveTuple) -> Option<(AllocationId, &Allocation)> {
        let id = *self.by_client.get(five_tuple)?;
        Some((id, self.find(id)?))
    }

    /// Whether a client has an allocation.
    #[inline]
    pub(super) fn is_client(&self, five_tuple: &FiveTuple) -> bool {
        self.by_client.contains_key(five_tuple)
    }

    /// Whether a client has this allocation.
    pub(super) fn has_client(&self, id: AllocationId, five_tuple: &FiveTuple) -> bool {
        self.by_client.get(five_tuple) == Some(&id)
    }

    /// What comes from this five-tuple is the allocation's too.
    pub(super) fn add_client(&mut self, five_tuple: FiveTuple, id: AllocationId) {
        self.by_client.insert(five_tuple, id);
    }

    /// What comes from this five-tuple is no longer the allocation's. Returns whether it was.
    pub(super) fn remove_client(&mut self, five_tuple: &FiveTuple, id: AllocationId) -> bool {
        // A client that is lost may have left its address to another one.
        let was_known = self.has_client(id, five_tuple);
        if was_known {
            self.by_client.remove(five_tuple);
        }
        was_known
    }

    /// Names a relayed transport address to be.
    pub(super) fn add_relay(&mut self, owner: RelayOwner) -> RelayId {
        RelayId(self.relays.insert(owner))
    }

    pub(super) fn set_relay_owner(&mut self, RelayId(id): RelayId, owner: RelayOwner) {
        if let Some(entry) = self.relays.find_mut(id) {
            *entry = owner;
        }
    }

    pub(super) fn remove_relay(&mut self, RelayId(id): RelayId) {
        self.relays.remove(id);
    }

    #[inline]
    pub(super) fn owner_of(&self, RelayId(id): RelayId) -> Option<RelayOwner> {
        self.relays.find(id).copied()
    }
}
