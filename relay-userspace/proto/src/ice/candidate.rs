//! Candidates as they are written in descriptions and in trickled messages (RFC 8839 section 5.1), and what they are
//! worth (RFC 8445 section 5.1.2).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::is_ice_char;

/// The greatest priority of a candidate.
const MAX_PRIORITY: u32 = (1 << 31) - 1;
/// The greatest component.
const MAX_COMPONENT: u16 = 256;
/// The longest foundation, in characters.
const MAX_FOUNDATION: usize = 32;
/// The longest name of a host, in characters.
const MAX_NAME: usize = 255;
/// As much of what could not be read is repeated in an error, in characters.
const EXCERPT: usize = 64;

/// Where an agent may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Candidates with the same one are likely to work or fail together: 1 to 32 ice-chars.
    pub foundation: String,
    /// 1 is RTP, or all that is multiplexed; 2 is RTCP. At most 256.
    pub component: u16,
    /// What it is reached over.
    pub transport: CandidateTransport,
    /// From 1 to 2^31 - 1; the greater, the better.
    pub priority: u32,
    /// The host.
    pub address: CandidateAddress,
    /// The port. Candidates of TCP that only connect have 9, or 0.
    pub port: u16,
    /// How its agent has come by it.
    pub kind: CandidateKind,
    /// For those that are not host candidates, what they were derived from; for diagnosis alone.
    pub related: Option<(CandidateAddress, u16)>,
}

/// What a candidate is reached over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CandidateTransport {
    /// Plain datagrams.
    Udp,
    /// Anything else, in practice TCP (RFC 6544): legal, and of no use here.
    Other(String),
}

/// The host of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CandidateAddress {
    /// An address.
    Ip(IpAddr),
    /// A name, mostly one of mDNS that hides an address. It is kept, and never resolved.
    Name(String),
}

/// How an agent has come by a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CandidateKind {
    /// An address of its own.
    Host,
    /// What a server has seen it come from.
    ServerReflexive,
    /// What the other agent has seen it come from.
    PeerReflexive,
    /// An address of a relay.
    Relayed,
    /// Something that came after RFC 8445.
    Other(String),
}

/// Why something is no candidate: the field that is wrong, and what it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CandidateError {
    /// It is something else.
    #[error("{0:?} is no candidate: one begins with \"candidate:\"")]
    Prefix(String),
    /// It ends early.
    #[error(
        "the candidate has no {0}: it is candidate:FOUNDATION COMPONENT TRANSPORT PRIORITY ADDRESS PORT typ TYPE, \
         perhaps with more behind"
    )]
    Missing(&'static str),
    /// The foundation is wrong.
    #[error("{0:?} is no foundation: one has 1 to 32 of the characters A-Z, a-z, 0-9, + and /")]
    Foundation(String),
    /// The component is wrong.
    #[error("{0:?} is no component: one is a number from 1 to 256")]
    Component(String),
    /// The transport is wrong.
    #[error("{0:?} is no transport: one is a word such as UDP or TCP")]
    Transport(String),
    /// The priority is wrong.
    #[error("{0:?} is no priority: one is a number from 1 to 2147483647")]
    Priority(String),
    /// The address is wrong.
    #[error("{0:?} is no address: give one of IPv4, of IPv6, or a domain name")]
    Address(String),
    /// The address says which interface it belongs to, which means nothing on another host.
    #[error("{0:?} has a zone: give an address without, as nobody else knows the interface")]
    Zone(String),
    /// The port is wrong.
    #[error("{0:?} is no port: one is a number from 0 to 65535")]
    Port(String),
    /// Something else stands where the type is announced.
    #[error("{0:?} stands in place of \"typ\", which announces the type")]
    Typ(String),
    /// The type is wrong.
    #[error("{0:?} is no type: one is host, srflx, prflx, relay, or another word")]
    Kind(String),
    /// The related address is wrong.
    #[error("{0:?} is no related address: give one of IPv4, of IPv6, or a domain name")]
    RelatedAddress(String),
    /// The related port is wrong.
    #[error("{0:?} is no related port: one is a number from 0 to 65535")]
    RelatedPort(String),
}

impl Candidate {
    /// Where datagrams for it can be sent: nowhere, if it is reached over something else than UDP, if its host is only
    /// known by name, or if nothing can be sent there at all (no port, an unspecified address, a multicast one).
    pub fn usable(&self) -> Option<SocketAddr> {
        match (&self.transport, &self.address) {
            (CandidateTransport::Udp, CandidateAddress::Ip(ip)) => {
                let ip = ip.to_canonical();
                let reachable = self.port != 0 && !ip.is_unspecified() && !ip.is_multicast();
                reachable.then(|| SocketAddr::new(ip, self.port))
            }
            _ => None,
        }
    }
}

/// The priority of a candidate (RFC 8445 section 5.1.2.1).
///
/// Type preferences go to 126 and components to 256; what is beyond counts as that, so that the result always is one
/// that may be written, from 1 to 2^31 - 1.
pub fn priority(type_preference: u8, local_preference: u16, component: u16) -> u32 {
    let of_type = u32::from(type_preference.min(126)) << 24;
    let of_address = u32::from(local_preference) << 8;
    let of_component = u32::from(MAX_COMPONENT - component.min(MAX_COMPONENT));
    (of_type + of_address + of_component).clamp(1, MAX_PRIORITY)
}

/// The priority of a pair of candidates (RFC 8445 section 6.1.2.3), from those of the controlling agent's and the
/// controlled agent's.
///
/// Priorities that no candidate may have can still be in a check: then the result stays at its greatest.
pub fn pair_priority(controlling: u32, controlled: u32) -> u64 {
    let (least, greatest) = (controlling.min(controlled), controlling.max(controlled));
    (u64::from(least) << 32).saturating_add(2 * u64::from(greatest) + u64::from(controlling > controlled))
}

impl FromStr for Candidate {
    type Err = CandidateError;

    /// Reads `candidate:...`, with or without `a=` before it. Of extensions, only the related address is looked at.
    fn from_str(text: &str) -> Result<Self, CandidateError> {
        let text = text.trim_ascii_end();
        let rest = text.strip_prefix("a=").unwrap_or(text).strip_prefix("candidate:");
        let rest = rest.ok_or_else(|| CandidateError::Prefix(excerpt(text)))?;
        // Nothing stands between the colon and the foundation.
        if rest.starts_with(|first: char| first.is_ascii_whitespace()) {
            return Err(CandidateError::Foundation(String::new()));
        }
        let mut fields = rest.split_ascii_whitespace();
        let mut field = |name| fields.next().ok_or(CandidateError::Missing(name));

        let foundation = read(field("foundation")?, foundation, CandidateError::Foundation)?;
        let component = read(field("component")?, component, CandidateError::Component)?;
        let transport = read(field("transport")?, transport, CandidateError::Transport)?;
        let priority = read(field("priority")?, written_priority, CandidateError::Priority)?;
        let address = host(field("address")?, CandidateError::Address)?;
        let port = read(field("port")?, number, CandidateError::Port)?;
        read(field("type")?, |word| (word == "typ").then_some(()), CandidateError::Typ)?;
        let kind = read(field("type")?, kind, CandidateError::Kind)?;

        let (mut related_address, mut related_port) = (None, None);
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match name {
                "raddr" => related_address = Some(host(value, CandidateError::RelatedAddress)?),
                "rport" => related_port = Some(read(value, number, CandidateError::RelatedPort)?),
                _ => {}
            }
        }
        let related = related_address.zip(related_port);
        Ok(Self { foundation, component, transport, priority, address, port, kind, related })
    }
}

fn read<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Option<T>,
    error: impl FnOnce(String) -> CandidateError,
) -> Result<T, CandidateError> {
    parse(text).ok_or_else(|| error(excerpt(text)))
}

fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT).collect()
}

fn foundation(text: &str) -> Option<String> {
    let fits = (1..=MAX_FOUNDATION).contains(&text.len()) && text.bytes().all(is_ice_char);
    fits.then(|| text.to_owned())
}

fn component(text: &str) -> Option<u16> {
    number(text).filter(|component| (1..=MAX_COMPONENT).contains(component))
}

fn written_priority(text: &str) -> Option<u32> {
    number(text).filter(|priority| (1..=MAX_PRIORITY).contains(priority))
}

/// A number without a sign, which the standard library would take.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn transport(text: &str) -> Option<CandidateTransport> {
    if text.eq_ignore_ascii_case("udp") {
        return Some(CandidateTransport::Udp);
    }
    is_token(text).then(|| CandidateTransport::Other(text.to_owned()))
}

fn kind(text: &str) -> Option<CandidateKind> {
    Some(match text {
        "host" => CandidateKind::Host,
        "srflx" => CandidateKind::ServerReflexive,
        "prflx" => CandidateKind::PeerReflexive,
        "relay" => CandidateKind::Relayed,
        other => is_token(other).then(|| CandidateKind::Other(other.to_owned()))?,
    })
}

fn host(text: &str, error: impl FnOnce(String) -> CandidateError) -> Result<CandidateAddress, CandidateError> {
    if text.contains('%') {
        return Err(CandidateError::Zone(excerpt(text)));
    }
    if let Ok(ip) = text.parse() {
        return Ok(CandidateAddress::Ip(ip));
    }
    if is_name(text) { Ok(CandidateAddress::Name(text.to_owned())) } else { Err(error(excerpt(text))) }
}

/// A domain name. One whose last label is a number is an IPv4 address gone wrong.
fn is_name(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    text.len() <= MAX_NAME && text.bytes().all(letters) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// A word as descriptions have them (`token`, RFC 8866 section 9).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&byte))
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { foundation, component, transport, priority, address, port, kind, related } = self;
        write!(f, "candidate:{foundation} {component} {transport} {priority} {address} {port} typ {kind}")?;
        match related {
            Some((address, port)) => write!(f, " raddr {address} rport {port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CandidateTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Other(name) => name,
        })
    }
}

impl fmt::Display for CandidateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for CandidateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relayed => "relay",
            Self::Other(name) => name,
        })
    }
}

#[cfg(test)]
mod tests;
