//! Attributes (RFC 8489 section 14, RFC 8656 section 18): one type each, which reads and writes its value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hairpin_common::wire::MAGIC_COOKIE;

use super::error_code::ErrorCode;
use super::header::TransactionId;
use crate::address::AddressFamily;

mod discovery;
mod ice;
mod plain_address;
mod security;

pub use discovery::{ChangeRequest, Padding, ResponsePort};
pub use ice::{IceControlled, IceControlling, Priority, UseCandidate};
pub use plain_address::{AlternateServerAttribute, MappedAddress, OtherAddress, ResponseOrigin};
pub use security::{
    AccessTokenAttribute, AlgorithmAndParameters, PasswordAlgorithmAttribute, PasswordAlgorithms, UserHash,
};

/// MESSAGE-INTEGRITY, RFC 8489 section 14.5.
pub const MESSAGE_INTEGRITY: u16 = 0x0008;
/// MESSAGE-INTEGRITY-SHA256, RFC 8489 section 14.6.
pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
/// FINGERPRINT, RFC 8489 section 14.7.
pub const FINGERPRINT: u16 = 0x8028;

/// Why the value of a known attribute makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// The value has not the length that its type asks for.
    #[error("attribute 0x{0:04x} has the wrong length")]
    Length(u16),
    /// The value is outside of what its type allows.
    #[error("attribute 0x{0:04x} has an invalid value")]
    Value(u16),
}

/// A type of attribute.
pub trait Attribute<'a>: Sized {
    /// Its number on the wire.
    const TYPE: u16;

    /// Reads a value, without its padding. The transaction id is what XOR addresses are mixed with.
    fn decode(value: &'a [u8], id: &TransactionId) -> Result<Self, AttributeError>;

    /// Appends the value, without padding.
    fn encode(&self, out: &mut Vec<u8>, id: &TransactionId);
}

fn exactly<const N: usize>(kind: u16, value: &[u8]) -> Result<[u8; N], AttributeError> {
    value.try_into().map_err(|_| AttributeError::Length(kind))
}

macro_rules! text_attributes {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, at most $max:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name<'a>(pub &'a str);

        impl<'a> Attribute<'a> for $name<'a> {
            const TYPE: u16 = $kind;

            fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
                if value.len() > $max {
                    return Err(AttributeError::Length($kind));
                }
                std::str::from_utf8(value).map(Self).map_err(|_| AttributeError::Value($kind))
            }

            fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
                out.extend_from_slice(self.0.as_bytes());
            }
        }
    )*};
}

text_attributes! {
    /// USERNAME, RFC 8489 section 14.3: at most 508 bytes; up to 763 are read, as older clients write them.
    Username = 0x0006, at most 763;
    /// REALM, RFC 8489 section 14.9: at most 763 bytes.
    Realm = 0x0014, at most 763;
    /// NONCE, RFC 8489 section 14.10: at most 763 bytes.
    Nonce = 0x0015, at most 763;
    /// SOFTWARE, RFC 8489 section 14.14: at most 763 bytes.
    Software = 0x8022, at most 763;
    /// ALTERNATE-DOMAIN, RFC 8489 section 14.16: at most 255 bytes.
    AlternateDomain = 0x8003, at most 255;
    /// THIRD-PARTY-AUTHORIZATION, RFC 7635 section 6.1: the server takes access tokens, and this is the name that they are to
    /// be made for. At most 763 bytes, as those beside it.
    ThirdPartyAuthorization = 0x802e, at most 763;
}

macro_rules! xor_addresses {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub SocketAddr);

        impl<'a> Attribute<'a> for $name {
            const TYPE: u16 = $kind;

            fn decode(value: &'a [u8], id: &TransactionId) -> Result<Self, AttributeError> {
                decode_xor_address($kind, value, id).map(Self)
            }

            fn encode(&self, out: &mut Vec<u8>, id: &TransactionId) {
                encode_xor_address(self.0, out, id);
            }
        }
    )*};
}

xor_addresses! {
    /// XOR-MAPPED-ADDRESS, RFC 8489 section 14.2.
    XorMappedAddress = 0x0020;
    /// XOR-PEER-ADDRESS, RFC 8656 section 18.3.
    XorPeerAddress = 0x0012;
    /// XOR-RELAYED-ADDRESS, RFC 8656 section 18.5.
    XorRelayedAddress = 0x0016;
}

/// Port and address are mixed with the magic cookie and the transaction id (RFC 8489 section 14.2), so that no NAT on
/// the way finds something to rewrite.
fn xor_ip(ip: IpAddr, id: &TransactionId) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ MAGIC_COOKIE)),
        IpAddr::V6(ip) => {
            let mut mask = [0; 16];
            mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            mask[4..].copy_from_slice(&id.0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ u128::from_be_bytes(mask)))
        }
    }
}

const XOR_PORT: u16 = (MAGIC_COOKIE >> 16) as u16;

fn decode_xor_address(kind: u16, value: &[u8], id: &TransactionId) -> Result<SocketAddr, AttributeError> {
    let address = decode_address(kind, value)?;
    Ok(SocketAddr::new(xor_ip(address.ip(), id), address.port() ^ XOR_PORT))
}

fn encode_xor_address(address: SocketAddr, out: &mut Vec<u8>, id: &TransactionId) {
    encode_address(SocketAddr::new(xor_ip(address.ip(), id), address.port() ^ XOR_PORT), out);
}

/// The format of all addresses (RFC 8489 section 14.1): family, port, IP address.
fn decode_address(kind: u16, value: &[u8]) -> Result<SocketAddr, AttributeError> {
    let ([_, family, port @ ..], ip) = value.split_first_chunk::<4>().ok_or(AttributeError::Length(kind))?;
    let ip = match AddressFamily::from_wire(*family) {
        Some(AddressFamily::V4) => IpAddr::from(exactly::<4>(kind, ip)?),
        Some(AddressFamily::V6) => IpAddr::from(exactly::<16>(kind, ip)?),
        None => return Err(AttributeError::Value(kind)),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

fn encode_address(address: SocketAddr, out: &mut Vec<u8>) {
    // Not canonicalised: an IPv4-mapped address is what a caller asked to write.
    let family = if address.is_ipv4() { AddressFamily::V4 } else { AddressFamily::V6 };
    out.extend_from_slice(&[0, family as u8]);
    out.extend_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
}

/// ERROR-CODE, RFC 8489 section 14.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCodeAttribute<'a> {
    /// The code.
    pub code: ErrorCode,
    /// For people: what went wrong.
    pub reason: &'a str,
}

impl<'a> Attribute<'a> for ErrorCodeAttribute<'a> {
    const TYPE: u16 = 0x0009;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let ([_, _, hundreds, rest], reason) =
            value.split_first_chunk::<4>().ok_or(AttributeError::Length(Self::TYPE))?;
        let number = u16::from(hundreds & 7) * 100 + u16::from(*rest);
        let code = ErrorCode::from_number(number).filter(|_| *rest < 100);
        let reason = std::str::from_utf8(reason).ok();
        match (code, reason) {
            (Some(code), Some(reason)) => Ok(Self { code, reason }),
            _ => Err(AttributeError::Value(Self::TYPE)),
        }
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        let number = self.code.number();
        out.extend_from_slice(&[0, 0, (number / 100) as u8, (number % 100) as u8]);
        out.extend_from_slice(self.reason.as_bytes());
    }
}

/// UNKNOWN-ATTRIBUTES, RFC 8489 section 14.13: the types, as big-endian pairs of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAttributes<'a>(pub &'a [[u8; 2]]);

impl<'a> Attribute<'a> for UnknownAttributes<'a> {
    const TYPE: u16 = 0x000a;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        match value.as_chunks::<2>() {
            (types, []) => Ok(Self(types)),
            _ => Err(AttributeError::Length(Self::TYPE)),
        }
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(self.0.as_flattened());
    }
}

/// CHANNEL-NUMBER, RFC 8656 section 18.1: not yet checked against its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelNumberAttribute(pub u16);

impl<'a> Attribute<'a> for ChannelNumberAttribute {
    const TYPE: u16 = 0x000c;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let [high, low, _, _] = exactly(Self::TYPE, value)?;
        Ok(Self(u16::from_be_bytes([high, low])))
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(&self.0.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
    }
}

/// LIFETIME, RFC 8656 section 18.2: in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(pub u32);

impl<'a> Attribute<'a> for Lifetime {
    const TYPE: u16 = 0x000d;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(u32::from_be_bytes(exactly(Self::TYPE, value)?)))
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }
}

/// DATA, RFC 8656 section 18.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for Data<'a> {
    const TYPE: u16 = 0x0013;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(value))
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(self.0);
    }
}

macro_rules! family_attributes {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub Result<AddressFamily, u8>);

        impl<'a> Attribute<'a> for $name {
            const TYPE: u16 = $kind;

            fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
                let [family, _, _, _] = exactly(Self::TYPE, value)?;
                Ok(Self(AddressFamily::from_wire(family).ok_or(family)))
            }

            fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
                let family = self.0.map_or_else(|unknown| unknown, |family| family as u8);
                out.extend_from_slice(&[family, 0, 0, 0]);
            }
        }
    )*};
}

family_attributes! {
    /// REQUESTED-ADDRESS-FAMILY, RFC 8656 section 18.6; an unknown family keeps its number, since it is answered by 440.
    RequestedAddressFamily = 0x0017;
    /// ADDITIONAL-ADDRESS-FAMILY, RFC 8656 section 18.11; only IPv6 may be asked for.
    AdditionalAddressFamily = 0x8000;
    /// The same under the number that coturn gives it, both as a server and in its client. It belongs to nobody else.
    AdditionalAddressFamilyOfCoturn = 0x8032;
}

/// EVEN-PORT, RFC 8656 section 18.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvenPort {
    /// The R bit: whether the next higher port shall be reserved.
    pub reserve_next: bool,
}

impl<'a> Attribute<'a> for EvenPort {
    const TYPE: u16 = 0x0018;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let [first] = exactly(Self::TYPE, value)?;
        Ok(Self { reserve_next: first & 0x80 != 0 })
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.push(u8::from(self.reserve_next) << 7);
    }
}

/// REQUESTED-TRANSPORT, RFC 8656 section 18.8: the IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedTransport(pub u8);

impl<'a> Attribute<'a> for RequestedTransport {
    const TYPE: u16 = 0x0019;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let [protocol, _, _, _] = exactly(Self::TYPE, value)?;
        Ok(Self(protocol))
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(&[self.0, 0, 0, 0]);
    }
}

/// DONT-FRAGMENT, RFC 8656 section 18.9: has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DontFragment;

impl<'a> Attribute<'a> for DontFragment {
    const TYPE: u16 = 0x001a;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        exactly::<0>(Self::TYPE, value).map(|_| Self)
    }

    fn encode(&self, _: &mut Vec<u8>, _: &TransactionId) {}
}

/// RESERVATION-TOKEN, RFC 8656 section 18.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReservationToken(pub [u8; 8]);

impl<'a> Attribute<'a> for ReservationToken {
    const TYPE: u16 = 0x0022;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        exactly(Self::TYPE, value).map(Self)
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(&self.0);
    }
}

/// CONNECTION-ID, RFC 6062 section 6.2.1: names a peer data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

impl<'a> Attribute<'a> for ConnectionId {
    const TYPE: u16 = 0x002a;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(u32::from_be_bytes(exactly(Self::TYPE, value)?)))
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }
}

/// MOBILITY-TICKET, RFC 8016 section 3.3: empty in a request for one; else only its maker can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MobilityTicket<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for MobilityTicket<'a> {
    const TYPE: u16 = 0x8030;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(value))
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(self.0);
    }
}

/// ADDRESS-ERROR-CODE, RFC 8656 section 18.12: why the additional family was not allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressErrorCode {
    /// The family.
    pub family: AddressFamily,
    /// Why.
    pub code: ErrorCode,
}

impl<'a> Attribute<'a> for AddressErrorCode {
    const TYPE: u16 = 0x8001;

    fn decode(value: &'a [u8], id: &TransactionId) -> Result<Self, AttributeError> {
        let first = value.first().ok_or(AttributeError::Length(Self::TYPE))?;
        let family = AddressFamily::from_wire(*first).ok_or(AttributeError::Value(Self::TYPE))?;
        // The same format, save for the family, but an error names the attribute that it was found in.
        let error = ErrorCodeAttribute::decode(value, id).map_err(|error| match error {
            AttributeError::Length(_) => AttributeError::Length(Self::TYPE),
            AttributeError::Value(_) => AttributeError::Value(Self::TYPE),
        })?;
        Ok(Self { family, code: error.code })
    }

    fn encode(&self, out: &mut Vec<u8>, id: &TransactionId) {
        let at = out.len();
        ErrorCodeAttribute { code: self.code, reason: self.code.reason() }.encode(out, id);
        out[at] = self.family as u8;
    }
}

/// ICMP, RFC 8656 section 18.13: why a datagram to a peer was dropped.
///
/// Type and code share two bytes, 7 bits for one and 9 for the other; the numbers in use fit into either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Of ICMP or ICMPv6, as the peer's address is of IPv4 or IPv6. Only the lower 7 bits are written.
    pub kind: u8,
    /// Only the lower 9 bits are written.
    pub code: u16,
    /// The MTU of the next hop in bytes, of a packet that was too big; of others 0.
    pub error_data: u32,
}

impl<'a> Attribute<'a> for Icmp {
    const TYPE: u16 = 0x8004;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let [_, _, high, low, data @ ..] = exactly::<8>(Self::TYPE, value)?;
        let packed = u16::from_be_bytes([high, low]);
        Ok(Self { kind: (packed >> 9) as u8, code: packed & 0x1ff, error_data: u32::from_be_bytes(data) })
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        let packed = u16::from(self.kind) << 9 | self.code & 0x1ff;
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&packed.to_be_bytes());
        out.extend_from_slice(&self.error_data.to_be_bytes());
    }
}
