//! What must become of a packet: the relay in plain code, with nothing updated and nothing cached.
//!
//! It knows the RFCs and the relay's promises, and neither the program nor its records. What leaves is built from its
//! fields, with checksums over all of it. What is random in it is taken from what did leave.
//!
//! A packet may have several flaws, and which one the program meets first is its own affair: all verdicts that are true are
//! listed.

use std::net::{IpAddr, SocketAddr};

use hairpin_common::{maps::PortRole, verdict::Verdict};

use super::{
    bench::Outcome,
    frame::Frame,
    setup::{Allocation, Media, Relay, Setup, Unit},
    stun::{self, BINDING_REQUEST, Message, SEND, TransactionId, kind},
};

/// The largest IPv4 packet made of an IPv6 one that routers may fragment (RFC 7915 section 5.1).
const FRAGMENTABLE: usize = 1260;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;

/// What must become of a packet.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// Passed untouched, or dropped, as one of these verdicts says.
    Refused(Vec<Verdict>),
    /// Dropped in place of what would have been sent, as one of these verdicts says.
    Limited(Vec<Verdict>, Box<Sent>),
    /// Sent.
    Sent(Box<Sent>),
}

/// What must leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// What it counts as.
    pub verdict: Verdict,
    /// How it leaves.
    pub outcome: Outcome,
    /// Application data in it.
    pub bytes: usize,
    /// Which allocations count it, and which way.
    pub counted: Vec<(u32, Direction)>,
    /// The packet without its payload and without an identification.
    frame: Frame,
    payload: Payload,
}

/// The way of data through an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to a peer.
    ToPeer,
    /// From a peer to the client.
    ToClient,
}

/// What UDP carries.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Payload {
    /// Known to the last byte.
    Known(Vec<u8>),
    /// A Data indication, whose transaction id is random.
    DataIndication { peer: SocketAddr, data: Vec<u8> },
}

impl Sent {
    /// The frame that must have left, if what is random in it is as in this one.
    pub fn frame_like(&self, output: &[u8]) -> Frame {
        let mut frame = self.frame.clone();
        let bytes = |at: usize, length: usize| output.get(at..at + length);
        if frame.source.is_ipv4() && !frame.dont_fragment {
            let at = frame.layer3() + 4;
            frame.identification = bytes(at, 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        }
        let id = bytes(frame.layer4() + 16, 12).map_or([0; 12], |bytes| bytes.try_into().expect("twelve bytes"));
        frame.payload = self.payload.with(id);
        frame
    }

    /// Length of the IP packet.
    pub fn packet_length(&self) -> usize {
        packet_length(&self.frame, &self.payload)
    }
}

impl Payload {
    fn with(&self, id: TransactionId) -> Vec<u8> {
        match self {
            Self::Known(bytes) => bytes.clone(),
            Self::DataIndication { peer, data } => stun::data_indication(*peer, data, id),
        }
    }
}

impl Unit {
    /// What becomes of a datagram that is one too many for an allocation or a path.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Packets => Verdict::AllocationPacketRate,
            Self::Bytes => Verdict::AllocationBitRate,
        }
    }
}

impl Setup {
    /// The path that has a leg at this address, and which way what arrives there goes.
    fn leg_at(&self, local: SocketAddr) -> Option<(&Media, Direction)> {
        self.media.iter().find_map(|media| match local {
            local if media.client.local == local => Some((media, Direction::ToPeer)),
            local if media.peer.local == local => Some((media, Direction::ToClient)),
            _ => None,
        })
    }

    /// The verdicts of limits that are used up for what is to be sent.
    fn limits_of(&self, sent: &Sent) -> Vec<Verdict> {
        let of_it = self.own_limits.iter().filter(|limit| sent.counted.contains(&(limit.index, limit.used_up)));
        of_it.map(|limit| limit.unit.verdict()).collect()
    }

    /// What must become of a frame that comes in by an interface.
    pub fn judge(&self, interface: u32, bytes: &[u8]) -> Judgement {
        let frame = match Frame::parse(bytes) {
            Ok(frame) => frame,
            Err(mut reasons) => {
                reasons.extend([Verdict::NotOurs, Verdict::OtherHost]);
                return Judgement::Refused(reasons);
            }
        };
        let mut case = Case { setup: self, interface, passed: Vec::new() };
        let link = self.links.get(&(interface, frame.vlan_id()));
        if link != Some(&frame.link.0) {
            case.passed.push(Verdict::OtherHost);
        }
        let sent = match self.role(frame.destination.port()) {
            // Nobody can be answered there.
            _ if frame.source.port() == 0 => Err(vec![Verdict::NotOurs]),
            PortRole::None => Err(vec![Verdict::NotOurs]),
            PortRole::Listener => case.at_listener(&frame),
            PortRole::Relayed if self.leg_at(frame.destination).is_some() => case.at_leg(&frame),
            PortRole::Relayed => case.at_relay(&frame),
        };
        match sent {
            // What goes up is the daemon's to limit.
            Ok(sent) if case.passed.is_empty() => match self.limits_of(&sent) {
                used_up if used_up.is_empty() => Judgement::Sent(Box::new(sent)),
                used_up => Judgement::Limited(used_up, Box::new(sent)),
            },
            Ok(_) => Judgement::Refused(case.passed),
            // Another host's packet is not ours to drop.
            Err(reasons) if link.is_none() || case.passed.contains(&Verdict::OtherHost) => {
                let passes = |verdict: &Verdict| verdict.action() == hairpin_common::verdict::Action::Pass;
                let reasons = reasons.into_iter().filter(passes);
                Judgement::Refused(case.passed.into_iter().chain(reasons).collect())
            }
            Err(reasons) => Judgement::Refused(case.passed.into_iter().chain(reasons).collect()),
        }
    }
}

/// One packet on its way.
struct Case<'s> {
    setup: &'s Setup,
    interface: u32,
    /// Why it can only be passed, whatever else is found out.
    passed: Vec<Verdict>,
}

/// The first of two relays on the way.
struct Hop {
    index: u32,
    is_media: bool,
    /// Where data leaves it.
    leaves: SocketAddr,
}

/// What is sent, or verdicts of which any is right.
type Judged<T> = Result<T, Vec<Verdict>>;

impl<'s> Case<'s> {
    /// A datagram to a listener's port.
    fn at_listener(&mut self, frame: &Frame) -> Judged<Sent> {
        let payload = &frame.payload;
        if !self.setup.listeners.contains(&frame.destination) {
            return Err(vec![Verdict::NotOurs, Verdict::Control, Verdict::Malformed, Verdict::NoFlow]);
        }
        match payload.first() {
            Some(64..=127) if payload.len() >= 4 => self.channel_data(frame),
            Some(0..=3) => match Message::read(payload) {
                Some(message) => match message.message_type {
                    BINDING_REQUEST => answer_binding(frame, &message),
                    SEND => self.send_indication(frame, &message),
                    _ => Err(vec![Verdict::Control]),
                },
                None => Err(vec![Verdict::Control, Verdict::Malformed]),
            },
            _ => Err(vec![Verdict::Control]),
        }
    }

    fn channel_data(&mut self, frame: &Frame) -> Judged<Sent> {
        let payload = &frame.payload;
        let number = u16::from_be_bytes([payload[0], payload[1]]);
        let length = usize::from(u16::from_be_bytes([payload[2], payload[3]]));
        // Over UDP padding is not needed, but allowed (RFC 8656 section 12.5).
        if !(4 + length..=7 + length).contains(&payload.len()) {
            return Err(vec![Verdict::Malformed]);
        }
        let allocation = self.allocation_of(frame).ok_or(vec![Verdict::NoFlow])?;
        let mut channels = allocation.channels.iter();
        let channel = channels.find(|channel| channel.number == number).ok_or(vec![Verdict::NoFlow])?;
        if !allocation.is_bound(channel) {
            return Err(vec![Verdict::Expired]);
        }
        let relay = allocation.relay_to(channel.peer.ip()).ok_or(vec![Verdict::NoFlow])?;
        self.towards_peer(frame, allocation, relay, channel.peer, &payload[4..4 + length], None)
    }

    /// RFC 8656 section 11.2, as far as the program goes: all else is for userspace to judge.
    fn send_indication(&mut self, frame: &Frame, message: &Message<'_>) -> Judged<Sent> {
        let unusual = || vec![Verdict::Control, Verdict::Malformed];
        let (mut peer, mut data, mut dont_fragment) = (None, None, false);
        for (kind, value) in &message.attributes {
            match *kind {
                kind::XOR_PEER_ADDRESS if peer.is_none() => {
                    peer = Some(message.address(value).ok_or_else(unusual)?);
                }
                kind::DATA if data.is_none() => data = Some(*value),
                kind::DONT_FRAGMENT if !dont_fragment && value.is_empty() => dont_fragment = true,
                _ => return Err(unusual()),
            }
        }
        let (Some(peer), Some(data)) = (peer, data) else { return Err(unusual()) };
        // Nobody's address is that of no peer, but of no next hop, either.
        let next_hop = peer.ip().is_unspecified().then_some(Verdict::NextHop);
        let unknown = || [Verdict::NoFlow, Verdict::Control].into_iter().chain(next_hop).collect::<Vec<_>>();
        if peer.port() == 0 {
            return Err([unusual(), unknown()].concat());
        }
        let allocation = self.allocation_of(frame).ok_or_else(unknown)?;
        let relay = allocation.relay_to(peer.ip()).ok_or_else(unknown)?;
        if allocation.permission_for(peer.ip()).is_none() {
            return Err(if relay.live { unknown() } else { [unknown(), vec![Verdict::Expired]].concat() });
        }
        if !allocation.permits(peer.ip()) {
            return Err(vec![Verdict::Expired]);
        }
        self.towards_peer(frame, allocation, relay, peer, data, Some(dont_fragment))
    }

    /// A datagram to a relayed address's port.
    fn at_relay(&mut self, frame: &Frame) -> Judged<Sent> {
        let (allocation, relay) = self.relay_at(frame.destination).ok_or(vec![Verdict::NotOurs, Verdict::NoFlow])?;
        if self.setup.relays_from(frame.source.ip()) {
            // This host's own address cannot be another's: the kernel takes nothing from there.
            self.passed.extend([Verdict::NoFlow, Verdict::Control]);
        }
        let payload = payload_for_client(frame.source, allocation, relay, &frame.payload)?;
        let sent = self.forward(frame, 1, [allocation.server, allocation.client], &payload, None);
        let counted = vec![(allocation.index, Direction::ToClient)];
        self.finish(Verdict::ToClient, frame, sent, payload, frame.payload.len(), counted)
    }

    /// A datagram to a leg of a media session: from its remote to the other leg's, as it is.
    fn at_leg(&mut self, frame: &Frame) -> Judged<Sent> {
        let (media, to) = self.setup.leg_at(frame.destination).ok_or(vec![Verdict::NoFlow])?;
        if self.setup.relays_from(frame.source.ip()) {
            self.passed.extend([Verdict::NoFlow, Verdict::Control]);
        }
        let arrives = if to == Direction::ToPeer { media.client } else { media.peer };
        is_carried(media, arrives.remote == frame.source, &frame.payload)?;
        if to == Direction::ToPeer && self.setup.relays_from(media.peer.remote.ip()) {
            let hop = Hop { index: media.index, is_media: true, leaves: media.peer.local };
            return self.towards_own(frame, &hop, media.peer.remote, &frame.payload, None);
        }
        let leaves = if to == Direction::ToPeer { media.peer } else { media.client };
        let payload = Payload::Known(frame.payload.clone());
        let sent = self.forward(frame, 1, [leaves.local, leaves.remote], &payload, None);
        self.finish(Verdict::Media, frame, sent, payload, frame.payload.len(), vec![(media.index, to)])
    }

    /// From the relayed address to a peer, which may be another relayed address, or a leg.
    fn towards_peer(
        &mut self,
        frame: &Frame,
        allocation: &'s Allocation,
        relay: &Relay,
        peer: SocketAddr,
        data: &[u8],
        dont_fragment: Option<bool>,
    ) -> Judged<Sent> {
        if !self.setup.relays_from(peer.ip()) {
            let counted = (allocation.index, Direction::ToPeer);
            let payload = Payload::Known(data.to_vec());
            let sent = self.forward(frame, 1, [relay.address, peer], &payload, dont_fragment);
            return self.finish(Verdict::ToPeer, frame, sent, payload, data.len(), vec![counted]);
        }
        let hop = Hop { index: allocation.index, is_media: false, leaves: relay.address };
        self.towards_own(frame, &hop, peer, data, dont_fragment)
    }

    /// From a relayed address or a leg to another of the relay's own.
    fn towards_own(
        &mut self,
        frame: &Frame,
        first: &Hop,
        peer: SocketAddr,
        data: &[u8],
        dont_fragment: Option<bool>,
    ) -> Judged<Sent> {
        // Behind a NAT clients know each other from outside, as if it had sent the packet back.
        let (known, peer) = (self.setup.outside(first.leaves), self.setup.inside(peer));
        let (verdict, index, leaves, payload) = if let Some((other, its_relay)) = self.relay_at(peer) {
            let payload = payload_for_client(known, other, its_relay, data)?;
            let verdict = if first.is_media { Verdict::MediaToClient } else { Verdict::RelayToRelay };
            (verdict, other.index, [other.server, other.client], payload)
        } else if let Some((media, to)) = self.setup.leg_at(peer) {
            is_carried(media, media.peer.remote == known && to == Direction::ToClient, data)?;
            let verdict = if first.is_media { Verdict::Media } else { Verdict::ClientToMedia };
            let Media { index, client, .. } = *media;
            (verdict, index, [client.local, client.remote], Payload::Known(data.to_vec()))
        } else {
            // A port of this host with something else behind it.
            return Err(vec![Verdict::NextHop, Verdict::NoFlow, Verdict::NotOurs]);
        };
        // Two relays are two hops, but the header is translated once, from one client's IP version to the other's.
        let sent = self.forward(frame, 2, leaves, &payload, dont_fragment);
        let counted = vec![(first.index, Direction::ToPeer), (index, Direction::ToClient)];
        self.finish(verdict, frame, sent, payload, data.len(), counted)
    }

    /// The header of a datagram that is sent on (RFC 8656 sections 13 to 16).
    fn forward(
        &mut self,
        frame: &Frame,
        hops: u8,
        [source, destination]: [SocketAddr; 2],
        payload: &Payload,
        dont_fragment: Option<bool>,
    ) -> Frame {
        let mut sent = Frame::new(source, destination, []);
        sent.traffic_class = frame.traffic_class;
        sent.hop_limit = frame.hop_limit.saturating_sub(hops);
        sent.damage = frame.damage;
        sent.checksum = frame.checksum;
        if sent.hop_limit == 0 {
            self.passed.push(Verdict::HopLimit);
        }
        let to_ipv4 = source.is_ipv4();
        sent.dont_fragment = match (frame.source.is_ipv4(), to_ipv4) {
            (_, false) => true,
            // A Send indication says what the client wants, by DONT-FRAGMENT.
            (_, true) if dont_fragment.is_some() => dont_fragment == Some(true),
            (true, true) => frame.dont_fragment,
            (false, true) => packet_length(&sent, payload) > FRAGMENTABLE,
        };
        if !to_ipv4 && !frame.checksum {
            self.passed.push(Verdict::NoChecksum);
        }
        sent
    }

    /// Finds the way out.
    fn finish(
        &mut self,
        verdict: Verdict,
        received: &Frame,
        mut frame: Frame,
        payload: Payload,
        bytes: usize,
        counted: Vec<(u32, Direction)>,
    ) -> Judged<Sent> {
        let index = self.setup.next_hop_to(frame.destination.ip());
        let next_hop = self.setup.next_hops.get(&index).filter(|next_hop| next_hop.interface != 0);
        let Some(next_hop) = next_hop else {
            self.passed.push(Verdict::NextHop);
            return Err(self.passed.clone());
        };
        if packet_length(&frame, &payload) > next_hop.mtu as usize {
            self.passed.push(Verdict::TooBig);
        }
        let outcome = if next_hop.interface == self.interface { Outcome::Transmitted } else { Outcome::Redirected };
        if outcome == Outcome::Redirected && !self.setup.devices.contains(&next_hop.interface) {
            self.passed.push(Verdict::NextHop);
        }
        frame.link = (next_hop.destination, next_hop.source);
        let vlan = u16::from_be_bytes(next_hop.vlan);
        // The priority belongs to the packet, whatever the VLAN.
        let priority = received.vlan.unwrap_or(0) & 0xf000;
        frame.vlan = if vlan == received.vlan_id() { received.vlan } else { (vlan != 0).then_some(priority | vlan) };
        Ok(Sent { verdict, outcome, bytes, counted, frame, payload })
    }

    fn allocation_of(&self, frame: &Frame) -> Option<&'s Allocation> {
        let mut allocations = self.setup.allocations.iter();
        allocations.find(|allocation| allocation.client == frame.source && allocation.server == frame.destination)
    }

    fn relay_at(&self, address: SocketAddr) -> Option<(&'s Allocation, &'s Relay)> {
        self.setup.relays().find(|(_, relay)| relay.address == address)
    }
}

/// How data of a peer reaches the client: in a channel or an indication (RFC 8656 sections 11.3 and 12.6).
fn payload_for_client(peer: SocketAddr, allocation: &Allocation, relay: &Relay, data: &[u8]) -> Judged<Payload> {
    let mut bound = allocation.channels.iter().filter(|channel| allocation.is_bound(channel));
    if let Some(channel) = bound.find(|channel| channel.peer == peer) {
        return Ok(Payload::Known(stun::channel_data(channel.number, data)));
    }
    if allocation.channels.iter().any(|channel| channel.peer == peer) {
        return Err(vec![Verdict::Expired]);
    }
    let permission = allocation.permission_for(peer.ip());
    if permission.is_some() && !allocation.permits(peer.ip()) {
        return Err(vec![Verdict::Expired]);
    }
    // Only who knows all permissions and channels can say that there is none.
    if !relay.live || !allocation.complete {
        return Err(vec![Verdict::NoFlow, Verdict::Expired]);
    }
    if permission.is_none() {
        let nobody = [Verdict::NextHop, Verdict::NoFlow].into_iter().filter(|_| peer.ip().is_unspecified());
        return Err(nobody.chain([Verdict::NoPermission]).collect());
    }
    Ok(Payload::DataIndication { peer, data: data.to_vec() })
}

/// Whether what arrives at a leg goes on from the other: media (RFC 7983 section 7) of the leg's remote.
fn is_carried(media: &Media, is_from_remote: bool, data: &[u8]) -> Judged<()> {
    if !is_from_remote {
        return Err(vec![Verdict::NoFlow]);
    }
    if !media.live {
        return Err(vec![Verdict::Expired]);
    }
    if matches!(data, [] | [0..=3, ..]) {
        return Err(vec![Verdict::Control]);
    }
    Ok(())
}

/// RFC 8489 section 7: answered here only when there is nothing to decide.
fn answer_binding(frame: &Frame, request: &Message<'_>) -> Judged<Sent> {
    let fingerprint = match &request.attributes[..] {
        [] => false,
        [(kind::FINGERPRINT, _)] if request.fingerprint == Some(true) => true,
        _ => return Err(vec![Verdict::Control]),
    };
    // A difference of all ones is none.
    let is_whole = frame.checksum && matches!(frame.damage, 0 | 0xffff);
    if !is_whole || !is_answerable(frame.source) || frame.source.ip() == frame.destination.ip() {
        return Err(vec![Verdict::Control]);
    }
    let payload = stun::binding_response(frame.source, request.id, fingerprint);
    let mut response = Frame::new(frame.destination, frame.source, []);
    response.link = (frame.link.1, frame.link.0);
    response.vlan = frame.vlan;
    Ok(Sent {
        verdict: Verdict::Binding,
        outcome: Outcome::Transmitted,
        bytes: payload.len(),
        counted: Vec::new(),
        frame: response,
        payload: Payload::Known(payload),
    })
}

/// Whether an answer to this address can mean one host that is not this one.
fn is_answerable(client: SocketAddr) -> bool {
    match client.ip() {
        IpAddr::V4(ip) => !matches!(ip.octets(), [0 | 127 | 224.., ..]),
        IpAddr::V6(ip) => matches!(ip.segments()[0], 0x2000..=0x3fff | 0xfc00..=0xfdff),
    }
}

fn packet_length(frame: &Frame, payload: &Payload) -> usize {
    let header = if frame.source.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
    header + UDP_LEN + payload.with([0; 12]).len()
}
