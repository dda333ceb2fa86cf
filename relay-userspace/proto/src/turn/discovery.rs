//! NAT behaviour discovery (RFC 5780): where the answer to a Binding request leaves from, and where it goes.
//!
//! It is for strangers, so it keeps nothing, and no answer is padded by more than its request was: who forges an address
//! gains no more than by plain Binding. Clients of RFC 3489 are not served, as RFC 5780 section 3 advises: their requests
//! have no magic cookie, and are dropped as what is not STUN.

use std::net::{IpAddr, SocketAddr};

use super::cause::Cause;
use crate::address::{AddressFamily, ClientAddr, FiveTuple, ServerAddr, Transport};
use crate::stun::attribute::{Attribute, ChangeRequest, Padding, ResponsePort};
use crate::stun::{Message, padded};

/// The longest PADDING in a response: with all that is around it, a UDP datagram over IPv4 holds it (RFC 5780 section 7.6).
const MAX_PADDING: usize = 65_000;

/// Which sockets there are for clients that probe their NAT (RFC 5780).
///
/// Where there are two IP addresses with the same two ports each, CHANGE-REQUEST is served, and OTHER-ADDRESS given. A
/// server with one IP address must do neither, whatever ports it has: RFC 5780 section 6 has it answer 420 to every
/// CHANGE-REQUEST, also to one that asks for another port only. It serves RESPONSE-PORT and PADDING, and gives
/// RESPONSE-ORIGIN. So does any other socket of the server.
///
/// CHANGE-REQUEST, RESPONSE-PORT and PADDING are for plain UDP (RFC 5780 section 3): a response in a stream or in DTLS has
/// but one way. OTHER-ADDRESS is for every transport.
///
/// All addresses are local ones; clients are told what [`ServerConfig::translation`](super::ServerConfig) makes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    mtu: u16,
    sockets: Vec<Sockets>,
}

/// Two IP addresses with the same two ports: four sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sockets {
    transport: Transport,
    addresses: [IpAddr; 2],
    ports: [u16; 2],
}

/// Why nobody can be answered from such sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// There is only one address.
    #[error("{0} is both addresses: NAT discovery takes two different ones")]
    SameAddress(IpAddr),
    /// There is only one port.
    #[error("{0} is both ports: NAT discovery takes two different ones")]
    SamePort(u16),
    /// No client can be answered from an address of another family.
    #[error("{0} and {1} are of different IP versions: NAT discovery takes two addresses of one")]
    Families(IpAddr, IpAddr),
    /// An address or a port that no packet can come from.
    #[error("{0} is not the address of a socket: NAT discovery takes a particular address and port")]
    NotASocket(SocketAddr),
    /// The socket has an alternate already.
    #[error("{0} has an alternate address already")]
    Taken(SocketAddr),
}

/// How a Binding request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// Where the response leaves from, and where it goes.
    pub(super) five_tuple: FiveTuple,
    /// What OTHER-ADDRESS says, seen from inside.
    pub(super) other: Option<SocketAddr>,
    pub(super) padding: Option<Padding>,
}

impl Discovery {
    /// Without any alternate address. `mtu` is that of the interface that responses leave by, in bytes.
    pub fn new(mtu: u16) -> Self {
        Self { mtu, sockets: Vec::new() }
    }

    /// Says that there are sockets at these two IP addresses with these two ports each.
    pub fn add_sockets(
        &mut self,
        transport: Transport,
        addresses: [IpAddr; 2],
        ports: [u16; 2],
    ) -> Result<(), DiscoveryError> {
        let addresses = addresses.map(|ip| ip.to_canonical());
        let new = Sockets { transport, addresses, ports };
        let [first, second] = addresses;
        if first == second {
            return Err(DiscoveryError::SameAddress(first));
        }
        if ports[0] == ports[1] {
            return Err(DiscoveryError::SamePort(ports[0]));
        }
        if AddressFamily::of(first) != AddressFamily::of(second) {
            return Err(DiscoveryError::Families(first, second));
        }
        let is_nowhere = |socket: &SocketAddr| socket.ip().is_unspecified() || socket.port() == 0;
        if let Some(socket) = new.all().into_iter().find(is_nowhere) {
            return Err(DiscoveryError::NotASocket(socket));
        }
        // TCP and TLS must not share a port (RFC 5780 section 6).
        let is_alike = |known: Transport| known == transport || known.is_stream() && transport.is_stream();
        if let Some((_, socket)) = self.sockets().find(|(known, at)| is_alike(*known) && new.all().contains(at)) {
            return Err(DiscoveryError::Taken(socket));
        }
        self.sockets.push(new);
        Ok(())
    }

    /// Every socket that there must be for this: each shard has to be able to send from all of them.
    pub fn sockets(&self) -> impl Iterator<Item = (Transport, SocketAddr)> + '_ {
        self.sockets.iter().flat_map(|sockets| sockets.all().map(|socket| (sockets.transport, socket)))
    }

    /// The attributes that a Binding request may have more than others, by where it has arrived.
    pub(super) fn understood(&self, five_tuple: &FiveTuple) -> &'static [u16] {
        match (five_tuple.transport, self.alternate(five_tuple)) {
            (Transport::Udp, Some(_)) => &[ResponsePort::TYPE, Padding::TYPE, ChangeRequest::TYPE],
            (Transport::Udp, None) => &[ResponsePort::TYPE, Padding::TYPE],
            _ => &[],
        }
    }

    /// What becomes of a request that has no attribute but those which are understood (RFC 5780 section 6.1).
    pub(super) fn probe(&self, five_tuple: FiveTuple, message: &Message<'_>) -> Result<Probe, Cause> {
        let alternate = self.alternate(&five_tuple);
        let other = alternate.map(|at| at.changed(ChangeRequest { ip: true, port: true }));
        let is_plain = five_tuple.transport == Transport::Udp;
        if !is_plain {
            return Ok(Probe { five_tuple, other, padding: None });
        }
        let change: ChangeRequest = optional(message)?.unwrap_or_default();
        let padding: Option<Padding> = optional(message)?;
        let port: Option<ResponsePort> = optional(message)?;
        // A long answer to somebody who need not have asked is what an attacker would like (RFC 5780 section 10).
        if padding.is_some() && port.is_some() {
            return Err(Cause::ConflictingAttributes);
        }
        let client = match port {
            // Nothing can be sent there.
            Some(ResponsePort(0)) => return Err(Cause::MalformedAttribute),
            Some(ResponsePort(port)) => ClientAddr::new(SocketAddr::new(five_tuple.client.ip(), port)),
            None => five_tuple.client,
        };
        let server = alternate.map_or(five_tuple.server, |at| ServerAddr::new(at.changed(change)));
        let padding = padding.map(|asked| self.padding(asked));
        Ok(Probe { five_tuple: FiveTuple { client, server, ..five_tuple }, other, padding })
    }

    /// As much as fills the MTU, which makes fragments of the response: what a client brings that does as it should
    /// (RFC 5780 sections 5 and 6.1). A client that brings less gets less.
    fn padding(&self, Padding(asked): Padding) -> Padding {
        Padding(padded(asked.into()).min(padded(self.mtu.into())).min(MAX_PADDING) as u16)
    }

    fn alternate(&self, five_tuple: &FiveTuple) -> Option<Place<'_>> {
        let reached = five_tuple.server;
        self.sockets.iter().filter(|sockets| sockets.transport == five_tuple.transport).find_map(|sockets| {
            let ip = sockets.addresses.iter().position(|ip| *ip == reached.ip())?;
            let port = sockets.ports.iter().position(|port| *port == reached.port())?;
            Some(Place { sockets, ip, port })
        })
    }
}

impl Sockets {
    fn all(&self) -> [SocketAddr; 4] {
        [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(ip, port)| SocketAddr::new(self.addresses[ip], self.ports[port]))
    }
}

/// One of four sockets.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    sockets: &'a Sockets,
    ip: usize,
    port: usize,
}

impl Place<'_> {
    /// The socket that an answer comes from (RFC 5780 section 6.1, table 1).
    fn changed(self, change: ChangeRequest) -> SocketAddr {
        let Self { sockets, ip, port } = self;
        let ip = ip ^ usize::from(change.ip);
        let port = port ^ usize::from(change.port);
        SocketAddr::new(sockets.addresses[ip], sockets.ports[port])
    }
}

fn optional<'m, A: Attribute<'m>>(message: &Message<'m>) -> Result<Option<A>, Cause> {
    message.attribute().map_err(|_| Cause::MalformedAttribute)
}
