//! How a NAT on the way behaves (RFC 5780 section 4), by Binding requests from one socket to several addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use hairpin_proto::stun::attribute::ChangeRequest;
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use crate::error::Error;
use crate::request::{Outcome, Probe, Probed, Request};
use crate::session::{Event, Session, Settings};
use crate::timing::Timing;

/// The largest UDP datagram fits.
const BUFFER: usize = 65_536;

/// Whether mapping or filtering depends on who is at the other end (RFC 4787 sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Of mappings only: there is no NAT.
    NoNat,
    /// It does not.
    EndpointIndependent,
    /// On the IP address.
    AddressDependent,
    /// On the IP address and the port.
    AddressAndPortDependent,
}

/// Probes from one UDP socket, which takes answers from anywhere.
#[derive(Debug)]
pub struct Prober {
    socket: UdpSocket,
    server: SocketAddr,
    timing: Timing,
}

impl Prober {
    /// Opens a socket: on any address, unless one is given.
    pub async fn open(server: SocketAddr, local: Option<SocketAddr>, timing: Timing) -> Result<Self, Error> {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(local.unwrap_or((any, 0).into())).await?;
        Ok(Self { socket, server, timing })
    }

    /// The address of the socket, without an IP address if none was given.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        Ok(self.socket.local_addr()?)
    }

    /// Asks an address, and says what is answered and from where.
    pub async fn probe(&self, to: SocketAddr, probe: Probe) -> Result<(Probed, SocketAddr), Error> {
        let settings = Settings { timing: self.timing, ..Settings::default() };
        let mut session = Session::new(settings, crate::random_ids());
        session.request(Request::Probe(probe), Instant::now());
        let mut buffer = vec![0; BUFFER];
        let mut source = to;
        loop {
            while let Some(datagram) = session.poll_transmit() {
                self.socket.send_to(&datagram, to).await?;
            }
            match session.poll_event() {
                Some(Event::Done(_, Ok(Outcome::Probed(probed)))) => return Ok((probed, source)),
                Some(Event::Done(_, Err(error))) => return Err(error),
                _ => {}
            }
            let Some(due) = session.poll_timeout() else { return Err(Error::Closed) };
            match timeout_at(due.into(), self.socket.recv_from(&mut buffer)).await {
                Ok(received) => {
                    let (length, from) = received?;
                    source = from;
                    session.handle_datagram(&buffer[..length], Instant::now());
                }
                Err(_) => session.handle_timeout(Instant::now()),
            }
        }
    }

    /// Finds out whether one socket has one address to the outside (RFC 5780 section 4.3). The server must have an
    /// OTHER-ADDRESS.
    pub async fn discover_mapping(&self) -> Result<Behaviour, Error> {
        let (first, _) = self.probe(self.server, Probe::default()).await?;
        if first.mapped == self.socket.local_addr()? {
            return Ok(Behaviour::NoNat);
        }
        let other = other_address(&first)?;
        let (second, _) = self.probe(SocketAddr::new(other.ip(), self.server.port()), Probe::default()).await?;
        if second.mapped == first.mapped {
            return Ok(Behaviour::EndpointIndependent);
        }
        let (third, _) = self.probe(other, Probe::default()).await?;
        let same = third.mapped == second.mapped;
        Ok(if same { Behaviour::AddressDependent } else { Behaviour::AddressAndPortDependent })
    }

    /// Finds out from whom packets are let in (RFC 5780 section 4.4). Best on a socket that has asked nothing yet but
    /// the server's main address; waits in vain for what is not let in.
    pub async fn discover_filtering(&self) -> Result<Behaviour, Error> {
        let (first, _) = self.probe(self.server, Probe::default()).await?;
        other_address(&first)?;
        for (ip, behaviour) in [(true, Behaviour::EndpointIndependent), (false, Behaviour::AddressDependent)] {
            let change = Some(ChangeRequest { ip, port: true });
            match self.probe(self.server, Probe { change, ..Probe::default() }).await {
                Ok(_) => return Ok(behaviour),
                Err(Error::Timeout(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Behaviour::AddressAndPortDependent)
    }
}

fn other_address(probed: &Probed) -> Result<SocketAddr, Error> {
    let method = hairpin_proto::stun::Method::BINDING;
    probed.other.ok_or(Error::Incomplete { method, missing: "OTHER-ADDRESS" })
}
