//! Application data: ChannelData, Send and Data indications, datagrams of peers (RFC 8656 sections 11 and 12).
//!
//! Nothing here changes any state, and nothing is allocated, save when a client that has moved sends its first data
//! (`mobility`). Every end of a lifetime is compared with `now`: a timer
//! that is late must not keep a door open.

use hairpin_common::wire::{CHANNEL_DATA_LEN, ChannelDataHeader};

use super::allocation::{Allocation, ChannelNumber, PeerTransport, RelayOwner};
use super::attributes::KNOWN;
use super::effect::{AllocationId, Discard, Disposition, Forward, FrameHeader, Now, RelayId};
use super::mobility::Presence;
use super::server::Server;
use crate::address::{FiveTuple, PeerAddr};
use crate::stun::Unknown;
use crate::stun::attribute::{Attribute, Data, DontFragment, XorPeerAddress};
use crate::stun::{Class, Message, MessageBuilder, Method, padded};

/// The longest payload of a UDP datagram, over IPv4.
const MAX_DATAGRAM: usize = 65_507;

impl Server {
    /// ChannelData from a client (RFC 8656 section 12.5).
    pub(super) fn channel_data<'p>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        datagram: &'p [u8],
    ) -> Result<Forward<'p>, Discard> {
        let (header, rest) = datagram.split_first_chunk::<CHANNEL_DATA_LEN>().ok_or(Discard::MalformedChannelData)?;
        let header = ChannelDataHeader::parse(*header);
        let number = ChannelNumber::new(header.channel).ok_or(Discard::MalformedChannelData)?;
        // What stands behind the data is padding: not needed over UDP, but allowed.
        let payload = rest.get(..usize::from(header.length)).ok_or(Discard::MalformedChannelData)?;

        let id = self.live_allocation(now, five_tuple)?;
        let allocation = self.allocations.find(id).ok_or(Discard::NoAllocation)?;
        let peer = allocation.peer_of(number, now.instant).ok_or(Discard::NoChannel)?;
        to_peer(now, id, allocation, peer, payload, false)
    }

    /// A Send indication from a client (RFC 8656 section 11.2).
    pub(super) fn send_indication<'p>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &Message<'p>,
    ) -> Result<Forward<'p>, Discard> {
        if !Unknown::beyond(message, [KNOWN, &[]]).is_empty() {
            return Err(Discard::BadIndication);
        }
        let XorPeerAddress(peer) = required(message)?;
        let Data(payload) = required(message)?;
        let dont_fragment = optional::<DontFragment>(message)?.is_some();
        let peer = PeerAddr::new(peer);
        if peer.port() == 0 {
            return Err(Discard::BadIndication);
        }
        let id = self.live_allocation(now, five_tuple)?;
        if !self.policy.permits(peer) {
            return Err(Discard::ForbiddenPeer);
        }
        let allocation = self.allocations.find(id).ok_or(Discard::NoAllocation)?;
        to_peer(now, id, allocation, peer, payload, dont_fragment)
    }

    /// A datagram from a peer (RFC 8656 sections 11.3 and 12.6).
    pub(super) fn peer_data<'p>(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
        payload: &'p [u8],
    ) -> Result<Forward<'p>, Discard> {
        let (id, allocation) = self.live_owner(now, relay)?;
        if !allocation.permits(peer.ip(), now.instant) {
            return Err(Discard::NoPermission);
        }
        if allocation.presence == Presence::Lost {
            return Err(Discard::NoClient);
        }
        let five_tuple = allocation.five_tuple;
        let (header, is_padded) = match allocation.channel_to(peer, now.instant) {
            Some(number) => (channel_data_header(number, payload)?, five_tuple.transport.is_stream()),
            None => (self.data_indication_header(peer, payload)?, true),
        };
        let padding = if is_padded { padded(payload.len()) - payload.len() } else { 0 };
        Ok(Forward::ToClient { allocation: id, five_tuple, header, payload, padding })
    }

    /// A Data indication up to where its data begins.
    fn data_indication_header(&mut self, peer: PeerAddr, payload: &[u8]) -> Result<FrameHeader, Discard> {
        let Self { random, frame, .. } = self;
        frame.clear();
        let _unfinished = MessageBuilder::new(frame, Class::Indication, Method::DATA, random.transaction_id())
            .with(&XorPeerAddress(peer.socket()));
        fits(frame.len() + 4 + padded(payload.len()))?;
        frame.extend_from_slice(&Data::TYPE.to_be_bytes());
        frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        let length = frame.len() - hairpin_common::wire::STUN_LEN + padded(payload.len());
        frame[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        Ok(FrameHeader::new(frame))
    }

    /// The allocation that a relayed address belongs to, unless the time of one of them is over.
    pub(super) fn live_owner(&self, now: Now, relay: RelayId) -> Result<(AllocationId, &Allocation), Discard> {
        let Some(RelayOwner::Allocation(id, family)) = self.allocations.owner_of(relay) else {
            return Err(Discard::NoAllocation);
        };
        let allocation = self.allocations.find(id).ok_or(Discard::NoAllocation)?;
        let lives = allocation.relay(family).is_some_and(|relay| now.instant < relay.expires);
        if lives { Ok((id, allocation)) } else { Err(Discard::NoAllocation) }
    }

    /// The allocation of a client that sends data, unless its time is over.
    fn live_allocation(&mut self, now: Now, five_tuple: &FiveTuple) -> Result<AllocationId, Discard> {
        let (id, allocation) = self.allocations.of_client(five_tuple).ok_or(Discard::NoAllocation)?;
        if !allocation.is_live(now.instant) {
            return Err(Discard::NoAllocation);
        }
        if allocation.presence == Presence::Moving(*five_tuple) {
            self.moved_for_good(now.instant, id);
        }
        Ok(id)
    }
}

/// The last steps are the same for both ways to a peer.
fn to_peer<'p>(
    now: Now,
    id: AllocationId,
    allocation: &Allocation,
    peer: PeerAddr,
    payload: &'p [u8],
    dont_fragment: bool,
) -> Result<Forward<'p>, Discard> {
    if allocation.peers == PeerTransport::Tcp {
        return Err(Discard::TcpAllocation);
    }
    let relay = allocation.relay_to(peer.ip(), now.instant).ok_or(Discard::FamilyMismatch)?;
    if !allocation.permits(peer.ip(), now.instant) {
        return Err(Discard::NoPermission);
    }
    Ok(Forward::ToPeer { allocation: id, relay: relay.id, peer, payload, dont_fragment })
}

fn channel_data_header(number: ChannelNumber, payload: &[u8]) -> Result<FrameHeader, Discard> {
    fits(CHANNEL_DATA_LEN + payload.len())?;
    let header = ChannelDataHeader { channel: number.get(), length: payload.len() as u16 };
    Ok(FrameHeader::new(&header.to_bytes()))
}

fn fits(datagram: usize) -> Result<(), Discard> {
    if datagram <= MAX_DATAGRAM { Ok(()) } else { Err(Discard::TooLong) }
}

fn required<'m, A: Attribute<'m>>(message: &Message<'m>) -> Result<A, Discard> {
    optional(message)?.ok_or(Discard::BadIndication)
}

fn optional<'m, A: Attribute<'m>>(message: &Message<'m>) -> Result<Option<A>, Discard> {
    message.attribute().map_err(|_| Discard::BadIndication)
}

/// What a driver is told about a datagram.
pub(super) fn disposition(result: Result<Forward<'_>, Discard>) -> Disposition<'_> {
    result.map_or_else(Disposition::Discard, Disposition::Forward)
}
