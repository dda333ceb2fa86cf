//! From what a datagram arrived with to what is to be sent, by one lookup or a few.

use hairpin_common::{
    maps::{MEDIA, MEDIA_TO_PEER, NO_ALLOCATION, PEER_IS_RELAYED, RelayAddress, crossed},
    stun::FINGERPRINT_LEN,
    verdict::Verdict,
    wire::{CHANNEL_DATA_LEN, Datagram, STUN_LEN, UDP_LEN},
};

use crate::{
    binding,
    checksum::{Sum32, fold},
    family::{Address, Family},
    frame::{Context, Frame},
    framing::{Peer, channel_data, send_indication},
    key::{Key, ports},
    limit,
    link::{VLAN_ID, is_for_this_host},
    lookup::{Record, lookup, lookup_here},
    maps::{ALLOCATION_STATES, RELAY_ADDRESSES, answers_binding},
    transit::{NOBODY, OF_MEDIA, Transit},
};

/// What is to be done with a datagram next.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    /// It is ChannelData, at a listener.
    Channel,
    /// It may be a Send indication, at a listener.
    Indication,
    /// To a listener, and nothing that is forwarded or answered here, for this reason.
    Unknown(Verdict),
    /// It is at a relayed address, or at a leg of a media session.
    FromPeer,
    /// The same, and it is not of a peer that has a channel.
    NoChannel,
    /// The peer that it is for is the relayed address of another client, or a leg of a media session.
    ToRelayed,
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
            transit.key = transit.key.with_channel(channel_data(frame, transit, start)?);
            Ok(Next::Channel)
        }
        // The second byte tells Binding requests from indications, the two that can end here. Those that are too long to
        // be answered here are not asked about a limit twice.
        Datagram::Stun if answers_binding() && frame.load::<u8>(start + 1) == 1 && is_bare(transit) => {
            // Before anything is known of it, since the stack has no room for these questions later.
            is_at_listener(context, transit)?;
            limit::admit_binding(transit)?;
            binding::answer::<F, TAGGED>(context, transit)?;
            Ok(Next::Answered)
        }
        Datagram::Stun => Ok(Next::Indication),
        Datagram::Other => Err(Verdict::Control),
    }
}

/// Whether a message to a listener is as long as a request with nothing in it, or with a FINGERPRINT.
#[inline(always)]
fn is_bare(transit: &Transit) -> bool {
    const BARE: usize = UDP_LEN + STUN_LEN;
    const WITH_FINGERPRINT: usize = BARE + FINGERPRINT_LEN;
    matches!(transit.udp_length as usize, BARE | WITH_FINGERPRINT)
}

/// Why a datagram to a listener is not forwarded; for most reasons it is asked next whether somebody vouches for it.
#[inline(always)]
pub(crate) fn unless_known(verdict: Verdict) -> Result<Next, Verdict> {
    match verdict {
        Verdict::Control | Verdict::Malformed | Verdict::NoFlow | Verdict::Expired => Ok(Next::Unknown(verdict)),
        _ => Err(verdict),
    }
}

/// What is in a channel, from either side, or at a leg of a media session: one record says it all.
#[inline(always)]
pub(crate) fn by_key(context: Context, transit: &mut Transit, next: Next) -> Result<Next, Verdict> {
    let found = lookup_here(&transit.key, &mut transit.record);
    if let Next::Channel = next {
        return match found {
            Ok(()) => to_peer(transit),
            Err(verdict) => unless_known(verdict),
        };
    }
    match found {
        Ok(()) if transit.record().flags & u32::from(MEDIA) != 0 => at_leg(context, transit),
        Ok(()) => to_client(transit).map(|()| Next::Send),
        Err(Verdict::NoFlow) => Ok(Next::NoChannel),
        // In the tick in which a channel ends userspace still knows it.
        Err(verdict) => Err(verdict),
    }
}

/// A datagram of the remote that a leg has, which leaves from the other leg as it is.
#[inline(always)]
fn at_leg(context: Context, transit: &mut Transit) -> Result<Next, Verdict> {
    is_media(context, transit)?;
    if transit.record().flags & u32::from(MEDIA_TO_PEER) == 0 {
        return to_client(transit).map(|()| Next::Send);
    }
    to_peer(transit)
}

/// Whether the data is media, as far as its first byte tells (RFC 7983 section 7). STUN is for the daemon, and what has no
/// data, too.
#[inline(always)]
fn is_media(context: Context, transit: &Transit) -> Result<(), Verdict> {
    if transit.length == 0 {
        return Err(Verdict::Control);
    }
    let first = Frame::of(context).byte_before(transit.data as usize).ok_or(Verdict::Control)?;
    match Datagram::of(first.load(1)) {
        Datagram::Stun => Err(Verdict::Control),
        Datagram::ChannelData | Datagram::Other => Ok(()),
    }
}

/// Whether a datagram to the port of a listener is for this host and for a listener of ours.
#[inline(never)]
pub(crate) fn is_at_listener(context: Context, transit: &mut Transit) -> Result<(), Verdict> {
    if !is_for_this_host(&Frame::of(context), transit.tag & VLAN_ID) {
        return Err(Verdict::OtherHost);
    }
    // A host may forward packets to the listener port of another, and have a relayed address of the same port.
    match lookup(&transit.key.of_destination(), &mut transit.record) {
        Ok(()) if transit.record().allocation == NO_ALLOCATION => Ok(()),
        _ => Err(Verdict::Control),
    }
}

/// A Send indication of a client, if it is one (RFC 8656 section 11.2).
#[inline(always)]
pub(crate) fn from_indication(context: Context, transit: &mut Transit) -> Result<Next, Verdict> {
    let mut peer = Peer::none();
    send_indication(context, transit, &mut peer)?;
    find_permission(transit, &peer)?;
    to_peer(transit)
}

/// The record of a Send indication: from one that knows the client, and one that knows the peer.
#[inline(never)]
fn find_permission(transit: &mut Transit, peer: &Peer) -> Result<(), Verdict> {
    let mut key = transit.key.with_channel(u16::from(peer.family).to_be());
    lookup(&key, &mut transit.record)?;
    let Record { source, ports: known, allocation, delta, family, .. } = *transit.record();
    let [relayed_port, _] = split(known);
    // Key and record take the place of the first ones: the stack has no room for two of each.
    key = Key::new([peer.address, source], ports(0, relayed_port), peer.family);
    lookup(&key, &mut transit.record)?;
    // SAFETY: the lookup has filled it.
    let record = unsafe { transit.record.assume_init_mut() };
    if record.allocation != allocation {
        return Err(Verdict::NoFlow);
    }
    let crossing = if record.flags & u32::from(PEER_IS_RELAYED) != 0 { record.peer_next_hop } else { 0 };
    record.source = source;
    record.destination = peer.address;
    record.ports = ports(relayed_port, peer.port);
    record.next_hop = record.peer_next_hop;
    record.delta = delta;
    record.family = family;
    if crossing != 0 {
        translate(transit, crossing)?;
    }
    let [first, second] = transit.record().destination;
    let put = Sum32::ZERO.add_long(first).add_long(second).add(u32::from(peer.port));
    transit.sum = transit.sum.add(fold(put));
    Ok(())
}

/// Between two relayed addresses behind a 1:1 NAT: has the packet come from the outside of the first, and arrive at the
/// inside of the second, as if the NAT had sent it back.
#[inline(always)]
fn translate(transit: &mut Transit, crossing: u16) -> Result<(), Verdict> {
    let [relayed, peer] = crossed(crossing);
    let relayed = RELAY_ADDRESSES.get(u32::from(relayed)).ok_or(Verdict::NoFlow)?;
    let peer = RELAY_ADDRESSES.get(u32::from(peer)).ok_or(Verdict::NoFlow)?;
    // SAFETY: it was found before.
    let record = unsafe { transit.record.assume_init_mut() };
    let (inside, outside) = (record.source, public_of(relayed));
    record.source = outside;
    record.destination = bind_of(peer);
    let taken = Sum32::ZERO.add_long(inside[0]).add_long(inside[1]);
    let put = Sum32::ZERO.add_long(outside[0]).add_long(outside[1]);
    transit.sum = transit.sum.sub(fold(taken)).add(fold(put));
    Ok(())
}

/// The address in words. The daemon writes an entry before the first record that leads here, and never again.
#[inline(always)]
fn bind_of(address: &RelayAddress) -> Address {
    const { assert!(align_of::<RelayAddress>() == align_of::<Address>()) };
    // SAFETY: sixteen plain bytes of one entry, at its start.
    unsafe { core::ptr::from_ref(address).cast::<Address>().read() }
}

/// As above.
#[inline(always)]
fn public_of(address: &RelayAddress) -> Address {
    const { assert!(size_of::<RelayAddress>() == 2 * size_of::<Address>()) };
    // SAFETY: the other sixteen bytes.
    unsafe { core::ptr::from_ref(address).cast::<Address>().add(1).read() }
}

/// The record is one towards a peer, which may be the relayed address of another client, or a leg.
#[inline(always)]
fn to_peer(transit: &mut Transit) -> Result<Next, Verdict> {
    let Record { source, destination, ports, allocation, delta, family, flags, .. } = *transit.record();
    transit.sum = transit.sum.add(delta);
    transit.to_peer = counted(allocation, flags);
    if flags & u32::from(PEER_IS_RELAYED) != 0 {
        transit.key = Key::new([source, destination], ports, family as u8);
        return Ok(Next::ToRelayed);
    }
    Ok(Next::Send)
}

/// A datagram to a relayed address (RFC 8656 sections 11.3 and 12.6), but for what [`by_key`] has already found.
#[inline(never)]
pub(crate) fn to_relayed(context: Context, transit: &mut Transit, next: Next) -> Result<(), Verdict> {
    let missing = Verdict::NoFlow;
    if let Next::ToRelayed = next {
        match lookup(&transit.key, &mut transit.record) {
            Ok(()) if transit.record().flags & u32::from(MEDIA) != 0 => return from_relayed_to_leg(context, transit),
            Ok(()) => return to_client(transit),
            Err(Verdict::NoFlow) => {}
            Err(verdict) => return Err(verdict),
        }
    }
    let any_port = transit.key.without_source_port();
    match lookup(&any_port, &mut transit.record) {
        // A channel could be on its way into the kernel, or have had no room there; then it is not for an indication.
        Ok(()) if !knows_all_flows(transit.record().allocation) => return Err(missing),
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
    if !knows_all_flows(transit.record().allocation) {
        return Err(missing);
    }
    match lookup(&any_port, &mut transit.record) {
        Err(Verdict::NoFlow) => Err(Verdict::NoPermission),
        _ => Err(missing),
    }
}

/// What comes from a relayed address of this relay's own, or from a leg, to a leg: then the other leg is the last one.
#[inline(always)]
fn from_relayed_to_leg(context: Context, transit: &mut Transit) -> Result<(), Verdict> {
    // A third look-up there is none: the daemon has the peer of this kind on one side only.
    if transit.record().flags & u32::from(MEDIA_TO_PEER) != 0 {
        return Err(Verdict::NoFlow);
    }
    is_media(context, transit)?;
    to_client(transit)
}

#[inline(always)]
fn to_client(transit: &mut Transit) -> Result<(), Verdict> {
    let Record { delta, allocation, flags, .. } = *transit.record();
    // An address of this host's own is forged when it comes by the wire; the kernel says how much it minds.
    if flags & u32::from(PEER_IS_RELAYED) != 0 && transit.to_peer == NOBODY {
        return Err(Verdict::NoFlow);
    }
    transit.sum = transit.sum.add(delta);
    transit.to_client = counted(allocation, flags);
    Ok(())
}

/// Who counts what a record sends: its index, with [`OF_MEDIA`] in front of a media path's. Without a branch, which the
/// verifier would follow both ways.
#[inline(always)]
fn counted(index: u32, flags: u32) -> u64 {
    const SHIFT: u32 = OF_MEDIA.trailing_zeros() - MEDIA.trailing_zeros();
    u64::from(index) | u64::from(flags & u32::from(MEDIA)) << SHIFT
}

/// Both ports, as wire words, from how they stand in a UDP header.
#[inline(always)]
fn split(ports: u32) -> [u16; 2] {
    let [a, b, c, d] = ports.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

/// Whether every permission and channel of an allocation is in the kernel.
#[inline(always)]
fn knows_all_flows(allocation: u32) -> bool {
    let Some(state) = ALLOCATION_STATES.get_ptr(allocation) else { return false };
    // SAFETY: an entry, whose memory the daemon may change at any time.
    let (announced, installed) =
        unsafe { ((&raw const (*state).announced).read_volatile(), (&raw const (*state).installed).read_volatile()) };
    announced == installed
}
