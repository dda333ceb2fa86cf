//! Other servers for clients that find no room here (RFC 8489 section 10, RFC 8656 section 7.2).

use std::net::SocketAddr;

use super::cause::Cause;
use super::refusal::Denied;
use super::server::Server;
use super::translation::Translation;
use crate::address::{AddressFamily, FiveTuple, ServerAddr, Transport};
use crate::random::RandomPool;
use crate::stun::attribute::{AlternateDomain, AlternateServerAttribute};

/// The longest ALTERNATE-DOMAIN (RFC 8489 section 14.16).
const MAX_DOMAIN: usize = 255;
/// The longest label of a DNS name (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// Another server that a client may be sent to. The client speaks to it over the transport that it speaks here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlternateServer {
    address: SocketAddr,
    domain: Option<String>,
    encryption: Encryption,
}

/// Which clients another server takes at its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// All of them.
    #[default]
    Either,
    /// Those of UDP and TCP.
    Plain,
    /// Those of TLS and DTLS.
    Encrypted,
}

/// Why nobody can be sent to a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlternateError {
    /// Nothing can be sent there.
    #[error("{0} is not the address of a server: give a particular address and port")]
    Address(SocketAddr),
    /// It can stand in no certificate.
    #[error("{0:?} is not a domain name: give one of letters, digits, hyphens and dots, at most 255 characters")]
    Domain(String),
}

impl AlternateServer {
    /// A server that takes clients of every transport.
    pub fn new(address: SocketAddr) -> Result<Self, AlternateError> {
        let address = ServerAddr::new(address).socket();
        if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
            return Err(AlternateError::Address(address));
        }
        Ok(Self { address, domain: None, encryption: Encryption::Either })
    }

    /// Names the domain in the server's certificate, where it is another than in this server's.
    pub fn with_domain(self, domain: &str) -> Result<Self, AlternateError> {
        if !is_domain(domain) {
            return Err(AlternateError::Domain(domain.to_owned()));
        }
        Ok(Self { domain: Some(domain.to_owned()), ..self })
    }

    /// Says which clients it takes at this address.
    #[must_use]
    pub fn for_clients(self, encryption: Encryption) -> Self {
        Self { encryption, ..self }
    }

    fn takes(&self, transport: Transport) -> bool {
        match self.encryption {
            Encryption::Either => true,
            Encryption::Plain => !is_encrypted(transport),
            Encryption::Encrypted => is_encrypted(transport),
        }
    }
}

/// Whom a server sends to other ones, whatever room it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Draining {
    /// Nobody.
    #[default]
    No,
    /// Those that would allocate.
    NewClients,
    /// Those that would refresh what they have, too: it stays until its lifetime ends, so data goes on while they move.
    AllClients,
}

/// The other servers, taken in turn.
#[derive(Debug)]
pub(super) struct Redirect {
    alternates: Vec<AlternateServer>,
    /// For each family, where the search for the next one begins.
    next: [usize; 2],
    draining: Draining,
}

/// What a 300 (Try Alternate) says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Alternatives<'a> {
    /// Of the family that the client has come by.
    pub(super) first: Option<AlternateServerAttribute>,
    /// Of the other family.
    pub(super) second: Option<AlternateServerAttribute>,
    pub(super) domain: Option<AlternateDomain<'a>>,
}

impl Redirect {
    /// Begins at random: many servers, or shards, with the same list do not all send to the first one.
    pub(super) fn new(alternates: Vec<AlternateServer>, random: &mut RandomPool) -> Self {
        let next = [random.below(alternates.len()), random.below(alternates.len())];
        Self { alternates, next, draining: Draining::No }
    }

    /// Takes other servers from now on. Whose turn it is stays as it was.
    pub(super) fn set_alternates(&mut self, alternates: Vec<AlternateServer>) {
        self.alternates = alternates;
    }

    pub(super) fn set_draining(&mut self, draining: Draining) {
        self.draining = draining;
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining != Draining::No
    }

    /// The servers whose turn it is. None at all where [`Redirect::find`] finds none of the client's family, whose is the
    /// first place (RFC 8489 section 10).
    pub(super) fn pick(&mut self, five_tuple: &FiveTuple, translation: &Translation) -> Alternatives<'_> {
        let (family, other) = families(five_tuple);
        let Some(at) = self.find(family, five_tuple, translation) else { return Alternatives::default() };
        self.next[family.index()] = at + 1;
        // There is one ALTERNATE-DOMAIN for both: a server with another name cannot stand beside the first.
        let second = self.find_where(other, five_tuple, translation, |alternate| {
            !is_encrypted(five_tuple.transport) || alternate.domain == self.alternates[at].domain
        });
        if let Some(second) = second {
            self.next[other.index()] = second + 1;
        }
        let domain = self.alternates[at].domain.as_deref().filter(|_| is_encrypted(five_tuple.transport));
        Alternatives {
            first: Some(AlternateServerAttribute(self.alternates[at].address)),
            second: second.map(|at| AlternateServerAttribute(self.alternates[at].address)),
            domain: domain.map(AlternateDomain),
        }
    }

    fn find(&self, family: AddressFamily, five_tuple: &FiveTuple, translation: &Translation) -> Option<usize> {
        self.find_where(family, five_tuple, translation, |_| true)
    }

    /// The next server of a family that takes this client, and is not the one it has just asked.
    fn find_where(
        &self,
        family: AddressFamily,
        five_tuple: &FiveTuple,
        translation: &Translation,
        suits: impl Fn(&AlternateServer) -> bool,
    ) -> Option<usize> {
        let reached = five_tuple.server.socket();
        let itself = [reached, translation.outside(reached)];
        let count = self.alternates.len();
        let in_turn = (0..count).map(|step| (self.next[family.index()] + step) % count);
        in_turn.into_iter().find(|at| {
            let alternate = &self.alternates[*at];
            AddressFamily::of(alternate.address.ip()) == family
                && alternate.takes(five_tuple.transport)
                && !itself.contains(&alternate.address)
                && suits(alternate)
        })
    }
}

impl Server {
    /// What a client is told that gets no allocation for want of room: 300 if there is another server for it, else 508.
    ///
    /// A port that was reserved is nowhere else: who redeems its token is not sent away (RFC 8656 section 7.2, step 5).
    pub(super) fn no_room(&self, five_tuple: &FiveTuple, redeems: bool, cause: Cause) -> Denied {
        let (family, _) = families(five_tuple);
        match self.redirect.find(family, five_tuple, &self.translation) {
            Some(_) if !redeems => Denied::elsewhere(cause),
            _ => cause.into(),
        }
    }

    /// What a client is told instead of a longer lifetime: 300, if it is to leave and there is another server for it
    /// (RFC 8489 section 10 lets any request be answered so).
    pub(super) fn sends_away(&self, five_tuple: &FiveTuple) -> Result<(), Denied> {
        let (family, _) = families(five_tuple);
        let leaves = self.redirect.draining == Draining::AllClients
            && self.redirect.find(family, five_tuple, &self.translation).is_some();
        if leaves { Err(Denied::elsewhere(Cause::SentAway)) } else { Ok(()) }
    }

    /// Why this client gets no new allocation, whatever room there is.
    pub(super) fn turns_away(&self, five_tuple: &FiveTuple) -> Option<Cause> {
        if self.redirect.is_draining() {
            return Some(Cause::Draining);
        }
        (!self.is_served(five_tuple)).then_some(Cause::ListenerRetired)
    }
}

impl Server {
    /// Whether a listener that takes new clients is where this one has come by.
    pub(super) fn is_served(&self, five_tuple: &FiveTuple) -> bool {
        let (transport, server) = (five_tuple.transport, five_tuple.server.socket());
        self.listeners.is_empty() || self.listeners.iter().any(|listener| comes_by(*listener, transport, server))
    }
}

/// Whether a client that has reached the server there has come by this listener. An unspecified address means every one
/// of its family.
pub fn comes_by(listener: (Transport, SocketAddr), transport: Transport, reached: SocketAddr) -> bool {
    let (of, at) = (listener.0, ServerAddr::new(listener.1).socket());
    let same_address = at.ip() == reached.ip() || at.ip().is_unspecified() && at.is_ipv4() == reached.is_ipv4();
    of == transport && at.port() == reached.port() && same_address
}

/// The family that a client has come by, and the other one.
fn families(five_tuple: &FiveTuple) -> (AddressFamily, AddressFamily) {
    match AddressFamily::of(five_tuple.client.ip()) {
        AddressFamily::V4 => (AddressFamily::V4, AddressFamily::V6),
        AddressFamily::V6 => (AddressFamily::V6, AddressFamily::V4),
    }
}

fn is_encrypted(transport: Transport) -> bool {
    matches!(transport, Transport::Tls | Transport::Dtls)
}

/// A DNS name (RFC 1123 section 2.1), of A-labels if it is international.
fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= MAX_DOMAIN && name.split('.').all(is_label)
}
