//! From what a datagram arrived with to what is to be sent, by one lookup or a few.

use core::mem::MaybeUninit;

use hairpin_common::{
    maps::PEER_IS_RELAYED,
    verdict::Verdict,
    wire::{CHANNEL_DATA_LEN, Datagram, STUN_LEN, UDP_LEN},
};

use crate::{
    binding,
    checksum::{Sum32, fold},
    family::Family,
    frame::{Context, Frame},
    framing::{Peer, channel_data, send_indication},
    key::{Key, ports},
    limit,
    lookup::{Record, lookup},
    transit::Transit,
};

/// What is to be done with a datagram next.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    /// It may be a Send indication, at a listener.
    Indication,
    /// To a listener, and nothing that is forwarded or answered here, for this reason.
    Unknown(Verdict),
    /// It is at a relayed address.
    FromPeer,
    /// Its data is to be sent on.
    Send,
    /// It was turned into its own answer.
    Answered,
}

/// A client's datagram to a listener (RFC 8656 section 12.5, RFC 8489 section 6).
#[inline(always)]
pub(crate) fn from_client<F: Family, const TAGGED: bool>(
    frame: &Frame,
    context: Context,
    transit: &mut Transit,
) -> Result<Next, Verdict> {
    let start = transit.data as usize;
    if (transit.udp_length as usize) < UDP_LEN + CHANNEL_DATA_LEN || !frame.holds(start + CHANNEL_DATA_LEN) {
        return Err(Verdict::Control);
    }
    match Datagram::of(frame.load(start)) {
        Datagram::ChannelData => {
            let key = transit.key.with_channel(channel_data(frame, transit, start)?);
            lookup(&key, &mut transit.record)?;
            to_peer(transit)
        }
        // The second byte tells Binding requests from indications, the two that can end here.
        Datagram::Stun if frame.load::<u8>(start + 1) == 1 && transit.udp_length as usize >= UDP_LEN + STUN_LEN => {
            // Before anything is known of it, since the stack has no room for the question later.
            limit::admit_binding(context, transit)?;
            binding::answer::<F, TAGGED>(context, transit)?;
            Ok(Next::Answered)
        }
        Datagram::Stun => Ok(Next::Indication),
        Datagram::Other => Err(Verdict::Control),
    }
}

/// A Send indication of a client, if it is one (RFC 8656 section 11.2).
#[inline(always)]
pub(crate) fn from_indication(context: Context, transit: &mut Transit) -> Result<Next, Verdict> {
    let mut peer = Peer::default();
    send_indication(context, transit, &mut peer)?;
    find_permission(transit, &peer)?;
    to_peer(transit)
}

/// The record of a Send indication: from one that knows the client, and one that knows the peer.
#[inline(never)]
fn find_permission(transit: &mut Transit, peer: &Peer) -> Result<(), Verdict> {
    let key = transit.key.with_channel(u16::from(peer.family).to_be());
    lookup(&key, &mut transit.record)?;
    let Record { source, ports: known, allocation, .. } = *transit.record();
    let [relayed_port, _] = split(known);
    let key = Key::new([peer.address, source], ports(0, relayed_port), peer.family);
    let mut permission = MaybeUninit::uninit();
    lookup(&key, &mut permission)?;
    // SAFETY: the lookup has filled both.
    let (record, permission) = unsafe { (transit.record.assume_init_mut(), permission.assume_init_ref()) };
    if permission.allocation != allocation {
        return Err(Verdict::NoFlow);
    }
    record.destination = peer.address;
    record.ports = ports(relayed_port, peer.port);
    record.next_hop = permission.peer_next_hop;
    record.flags = permission.flags;
    let put = Sum32::ZERO.add_long(peer.address[0]).add_long(peer.address[1]).add(u32::from(peer.port));
    transit.sum = transit.sum.add(fold(put));
    Ok(())
}

/// The record is one towards a peer, which may be the relayed address of another client.
#[inline(always)]
fn to_peer(transit: &mut Transit) -> Result<Next, Verdict> {
    let Record { source, destination, ports, allocation, delta, family, flags, .. } = *transit.record();
    transit.sum = transit.sum.add(delta);
    transit.to_peer = allocation.into();
    if flags & u32::from(PEER_IS_RELAYED) != 0 {
        transit.key = Key::new([source, destination], ports, family as u8);
        transit.hops = 2;
        return Ok(Next::FromPeer);
    }
    Ok(Next::Send)
}

/// A datagram to a relayed address (RFC 8656 sections 11.3 and 12.6).
#[inline(never)]
pub(crate) fn from_peer(transit: &mut Transit) -> Result<(), Verdict> {
    let missing = match lookup(&transit.key, &mut transit.record) {
        Ok(()) => return to_client(transit),
        Err(verdict @ Verdict::NoFlow) => verdict,
        // In the tick in which a channel ends userspace still knows it.
        Err(verdict) => return Err(verdict),
    };
    let any_port = transit.key.without_source_port();
    match lookup(&any_port, &mut transit.record) {
        // A channel could be on its way into the kernel, or have had no room there; then it is not for an indication.
        Ok(()) if !limit::knows_all_flows(transit.record().allocation) => return Err(missing),
        Ok(()) => {
            // A permission is for every port, so its record does not know this one.
            transit.sum = transit.sum.sub(transit.key.source_port());
            return to_client(transit);
        }
        Err(Verdict::NoFlow) => {}
        Err(verdict) => return Err(verdict),
    }
    // Who has no permission ends here, if the kernel knows all there are. The last may have come since it was looked for.
    lookup(&transit.key.of_destination(), &mut transit.record).map_err(|_| missing)?;
    if !limit::knows_all_flows(transit.record().allocation) {
        return Err(missing);
    }
    match lookup(&any_port, &mut transit.record) {
        Err(Verdict::NoFlow) => Err(Verdict::NoPermission),
        _ => Err(missing),
    }
}

#[inline(always)]
fn to_client(transit: &mut Transit) -> Result<(), Verdict> {
    let Record { delta, allocation, flags, .. } = *transit.record();
    // An address of this host's own is forged when it comes by the wire; the kernel says how much it minds.
    if flags & u32::from(PEER_IS_RELAYED) != 0 && transit.hops == 1 {
        return Err(Verdict::NoFlow);
    }
    transit.sum = transit.sum.add(delta);
    transit.to_client = allocation.into();
    Ok(())
}

/// Both ports, as wire words, from how they stand in a UDP header.
#[inline(always)]
fn split(ports: u32) -> [u16; 2] {
    let [a, b, c, d] = ports.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}
