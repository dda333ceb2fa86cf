//! What can be asked of a server, and what it answers.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, AddressErrorCode, Attribute, ChannelNumberAttribute, DontFragment, EvenPort, Lifetime,
    RequestedAddressFamily, RequestedTransport, ReservationToken, XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};
use hairpin_proto::stun::{Message, MessageBuilder, Method};

use crate::error::Error;

/// A request to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// What address do my packets come from? (RFC 8489 section 3)
    Binding,
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
}

/// What an Allocate request says (RFC 8656 section 7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateOptions {
    /// REQUESTED-TRANSPORT: the IP protocol number, 17 for UDP.
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
        }
    }
}

/// What a server says in a success response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To Binding: the server-reflexive address.
    Binding(SocketAddr),
    /// To Allocate.
    Allocated(Allocation),
    /// To Refresh: how long the allocation has from now on.
    Refreshed(Duration),
    /// To CreatePermission.
    Permitted,
    /// To ChannelBind: the channel number.
    ChannelBound(u16),
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
            Self::Binding => Method::BINDING,
            Self::Allocate(_) => Method::ALLOCATE,
            Self::Refresh { .. } => Method::REFRESH,
            Self::CreatePermission(_) => Method::CREATE_PERMISSION,
            Self::ChannelBind { .. } => Method::CHANNEL_BIND,
        }
    }

    pub(crate) fn write<'b>(&self, builder: MessageBuilder<'b>) -> MessageBuilder<'b> {
        match self {
            Self::Binding => builder,
            Self::Allocate(options) => builder
                .with(&RequestedTransport(options.transport))
                .with_option(options.family.map(|family| RequestedAddressFamily(Ok(family))).as_ref())
                .with_option(options.additional_family.map(|family| AdditionalAddressFamily(Ok(family))).as_ref())
                .with_option(options.lifetime.map(seconds).as_ref())
                .with_option(options.even_port.as_ref())
                .with_option(options.reservation.as_ref())
                .with_option(options.dont_fragment.then_some(&DontFragment)),
            Self::Refresh { lifetime, family } => builder
                .with_option(lifetime.map(seconds).as_ref())
                .with_option(family.map(|family| RequestedAddressFamily(Ok(family))).as_ref()),
            Self::CreatePermission(peers) => {
                peers.iter().fold(builder, |builder, peer| builder.with(&XorPeerAddress(*peer)))
            }
            Self::ChannelBind { channel, peer } => {
                builder.with(&ChannelNumberAttribute(*channel)).with(&XorPeerAddress(*peer))
            }
        }
    }

    /// Reads the success response to this request.
    pub(crate) fn outcome(&self, message: &Message<'_>) -> Result<Outcome, Error> {
        let method = self.method();
        Ok(match self {
            Self::Binding => Outcome::Binding(needed::<XorMappedAddress>(message, method, "XOR-MAPPED-ADDRESS")?.0),
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
                })
            }
            Self::Refresh { .. } => Outcome::Refreshed(lifetime(message, method)?),
            Self::CreatePermission(_) => Outcome::Permitted,
            Self::ChannelBind { channel, .. } => Outcome::ChannelBound(*channel),
        })
    }
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
