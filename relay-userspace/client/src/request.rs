//! What can be asked of a server, and what it answers.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, AddressErrorCode, Attribute, ChangeRequest, ChannelNumberAttribute, ConnectionId,
    DontFragment, EvenPort, Lifetime, MobilityTicket, OtherAddress, Padding, RequestedAddressFamily,
    RequestedTransport, ReservationToken, ResponseOrigin, ResponsePort, XorMappedAddress, XorPeerAddress,
    XorRelayedAddress,
};
use hairpin_proto::stun::{Message, MessageBuilder, Method};

use crate::error::Error;

/// A request to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// What address do my packets come from? (RFC 8489 section 3)
    Binding,
    /// As Binding, with what tells how a NAT behaves (RFC 5780).
    Probe(Probe),
    /// Make an allocation (RFC 8656 section 7).
    Allocate(AllocateOptions),
    /// Keep the allocation for so long, or end it (RFC 8656 section 8).
    Refresh {
        /// The wish, in whole seconds; `None` leaves it to the server, zero ends the allocation.
        lifetime: Option<Duration>,
        /// Which relayed address of a dual allocation; `None` for all.
        family: Option<AddressFamily>,
    },
    /// Let these peers through for five minutes (RFC 8656 section 10). The ports don't matter.
    CreatePermission(Vec<SocketAddr>),
    /// Bind a channel for ten minutes (RFC 8656 section 12).
    ChannelBind {
        /// The channel number.
        channel: u16,
        /// The peer.
        peer: SocketAddr,
    },
    /// Keep the allocation although the client's address has changed (RFC 8016 section 3.2).
    Move {
        /// The ticket that came last.
        ticket: Vec<u8>,
    },
    /// Connect the relayed address of a TCP allocation to a peer (RFC 6062 section 4.3).
    Connect(SocketAddr),
    /// Make the connection that this is sent over the one to a peer (RFC 6062 section 4.3).
    ConnectionBind(ConnectionId),
}

/// What a Binding request asks for beyond the address (RFC 5780 section 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// CHANGE-REQUEST: from where the answer shall come.
    pub change: Option<ChangeRequest>,
    /// RESPONSE-PORT: to which port of the client the answer shall go.
    pub response_port: Option<u16>,
    /// PADDING: how many bytes of it, in the answer as well.
    pub padding: Option<u16>,
}

/// What a server answers to a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The server-reflexive address.
    pub mapped: SocketAddr,
    /// RESPONSE-ORIGIN: where the server says that the answer came from.
    pub origin: Option<SocketAddr>,
    /// OTHER-ADDRESS: where it would come from if both address and port were changed.
    pub other: Option<SocketAddr>,
    /// PADDING: how many bytes of it.
    pub padding: Option<u16>,
}

/// What an Allocate request says (RFC 8656 section 7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateOptions {
    /// REQUESTED-TRANSPORT: the IP protocol number, 17 for UDP, 6 for TCP (RFC 6062).
    pub transport: u8,
    /// REQUESTED-ADDRESS-FAMILY.
    pub family: Option<AddressFamily>,
    /// ADDITIONAL-ADDRESS-FAMILY.
    pub additional_family: Option<AddressFamily>,
    /// LIFETIME, in whole seconds.
    pub lifetime: Option<Duration>,
    /// EVEN-PORT.
    pub even_port: Option<EvenPort>,
    /// RESERVATION-TOKEN.
    pub reservation: Option<ReservationToken>,
    /// DONT-FRAGMENT.
    pub dont_fragment: bool,
    /// MOBILITY-TICKET: ask for a ticket that keeps the allocation when the client's address changes (RFC 8016).
    pub mobility: bool,
}

impl Default for AllocateOptions {
    fn default() -> Self {
        Self {
            transport: hairpin_common::wire::PROTOCOL_UDP,
            family: None,
            additional_family: None,
            lifetime: None,
            even_port: None,
            reservation: None,
            dont_fragment: false,
            mobility: false,
        }
    }
}

/// What a server says in a success response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To Binding: the server-reflexive address.
    Binding(SocketAddr),
    /// To a probe.
    Probed(Probed),
    /// To Allocate.
    Allocated(Allocation),
    /// To Refresh: how long the allocation has from now on.
    Refreshed(Duration),
    /// To CreatePermission.
    Permitted,
    /// To ChannelBind: the channel number.
    ChannelBound(u16),
    /// To Connect: there is a connection to the peer, and this is its name.
    Connected(ConnectionId),
    /// To ConnectionBind: from now on all bytes are between client and peer.
    ConnectionBound,
}

/// An allocation, as the server describes it (RFC 8656 section 7.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The relayed addresses: one, or one of each family.
    pub relayed: Vec<SocketAddr>,
    /// Where the server sees the client.
    pub mapped: SocketAddr,
    /// How long it lives unless refreshed.
    pub lifetime: Duration,
    /// Redeems the port that was reserved by EVEN-PORT.
    pub reservation: Option<ReservationToken>,
    /// Why there is no relayed address of the additional family.
    pub address_error: Option<AddressErrorCode>,
    /// The ticket for a client that moves, if it asked for one and the server allows it (RFC 8016).
    pub ticket: Option<Vec<u8>>,
}

impl Allocation {
    /// The relayed address of a family.
    pub fn relayed_of(&self, family: AddressFamily) -> Option<SocketAddr> {
        self.relayed.iter().copied().find(|address| AddressFamily::of(address.ip()) == family)
    }
}

impl Request {
    /// The method of the request.
    pub fn method(&self) -> Method {
        match self {
            Self::Binding | Self::Probe(_) => Method::BINDING,
            Self::Allocate(_) => Method::ALLOCATE,
            Self::Refresh { .. } | Self::Move { .. } => Method::REFRESH,
            Self::CreatePermission(_) => Method::CREATE_PERMISSION,
            Self::ChannelBind { .. } => Method::CHANNEL_BIND,
            Self::Connect(_) => Method::CONNECT,
            Self::ConnectionBind(_) => Method::CONNECTION_BIND,
        }
    }

    pub(crate) fn write<'b>(&self, builder: MessageBuilder<'b>) -> MessageBuilder<'b> {
        match self {
            Self::Binding => builder,
            Self::Probe(probe) => builder
                .with_option(probe.change.as_ref())
                .with_option(probe.response_port.map(ResponsePort).as_ref())
                .with_option(probe.padding.map(Padding).as_ref()),
            Self::Allocate(options) => builder
                .with(&RequestedTransport(options.transport))
                .with_option(options.family.map(|family| RequestedAddressFamily(Ok(family))).as_ref())
                .with_option(options.additional_family.map(|family| AdditionalAddressFamily(Ok(family))).as_ref())
                .with_option(options.lifetime.map(seconds).as_ref())
                .with_option(options.even_port.as_ref())
                .with_option(options.reservation.as_ref())
                .with_option(options.dont_fragment.then_some(&DontFragment))
                .with_option(options.mobility.then_some(&MobilityTicket(&[]))),
            Self::Refresh { lifetime, family } => builder
                .with_option(lifetime.map(seconds).as_ref())
                .with_option(family.map(|family| RequestedAddressFamily(Ok(family))).as_ref()),
            Self::CreatePermission(peers) => {
                peers.iter().fold(builder, |builder, peer| builder.with(&XorPeerAddress(*peer)))
            }
            Self::ChannelBind { channel, peer } => {
                builder.with(&ChannelNumberAttribute(*channel)).with(&XorPeerAddress(*peer))
            }
            Self::Move { ticket } => builder.with(&MobilityTicket(ticket)),
            Self::Connect(peer) => builder.with(&XorPeerAddress(*peer)),
            Self::ConnectionBind(id) => builder.with(id),
        }
    }

    /// Reads the success response to this request.
    pub(crate) fn outcome(&self, message: &Message<'_>) -> Result<Outcome, Error> {
        let method = self.method();
        Ok(match self {
            Self::Binding => Outcome::Binding(needed::<XorMappedAddress>(message, method, "XOR-MAPPED-ADDRESS")?.0),
            Self::Probe(_) => {
                let origin = message.attribute().ok().flatten().map(|ResponseOrigin(address)| address);
                let other = message.attribute().ok().flatten().map(|OtherAddress(address)| address);
                let padding = message.attribute().ok().flatten().map(|Padding(bytes)| bytes);
                let mapped = needed::<XorMappedAddress>(message, method, "XOR-MAPPED-ADDRESS")?.0;
                Outcome::Probed(Probed { mapped, origin, other, padding })
            }
            Self::Allocate(_) => {
                let relayed: Vec<_> =
                    message.each::<XorRelayedAddress>().filter_map(Result::ok).map(|relayed| relayed.0).collect();
                if relayed.is_empty() {
                    return Err(Error::Incomplete { method, missing: "XOR-RELAYED-ADDRESS" });
                }
                Outcome::Allocated(Allocation {
                    relayed,
                    mapped: needed::<XorMappedAddress>(message, method, "XOR-MAPPED-ADDRESS")?.0,
                    lifetime: lifetime(message, method)?,
                    reservation: message.attribute().ok().flatten(),
                    address_error: message.attribute().ok().flatten(),
                    ticket: ticket(message),
                })
            }
            Self::Refresh { .. } | Self::Move { .. } => Outcome::Refreshed(lifetime(message, method)?),
            Self::CreatePermission(_) => Outcome::Permitted,
            Self::ChannelBind { channel, .. } => Outcome::ChannelBound(*channel),
            Self::Connect(_) => Outcome::Connected(needed(message, method, "CONNECTION-ID")?),
            Self::ConnectionBind(_) => Outcome::ConnectionBound,
        })
    }
}

/// The ticket in a success response, which replaces the one before.
pub(crate) fn ticket(message: &Message<'_>) -> Option<Vec<u8>> {
    let MobilityTicket(ticket) = message.attribute().ok()??;
    (!ticket.is_empty()).then(|| ticket.to_vec())
}

fn seconds(lifetime: Duration) -> Lifetime {
    Lifetime(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX))
}

fn lifetime(message: &Message<'_>, method: Method) -> Result<Duration, Error> {
    needed::<Lifetime>(message, method, "LIFETIME").map(|Lifetime(seconds)| Duration::from_secs(seconds.into()))
}

fn needed<'a, A: Attribute<'a>>(message: &Message<'a>, method: Method, missing: &'static str) -> Result<A, Error> {
    message.attribute().ok().flatten().ok_or(Error::Incomplete { method, missing })
}
