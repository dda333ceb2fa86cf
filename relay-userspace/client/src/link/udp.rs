//! Plain datagrams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::{Failure, Route};
use crate::error::Error;

/// The largest UDP datagram fits.
const BUFFER: usize = 65_536;

#[derive(Debug)]
pub(crate) struct UdpLink(UdpSocket);

impl UdpLink {
    pub(super) async fn open(route: &Route) -> Result<Self, Error> {
        let any: IpAddr =
            if route.server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(route.local.unwrap_or((any, 0).into())).await?;
        socket.connect(route.server).await?;
        // Until the reactor has seen the socket once, `try_send` would refuse.
        socket.writable().await?;
        Ok(Self(socket))
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    pub(super) fn post(&self, message: &[u8]) {
        // What the socket can't take now is sent again by the retransmission timer.
        let _ = self.0.try_send(message);
    }

    pub(super) async fn send(&self, message: &[u8]) -> Result<(), Error> {
        self.0.send(message).await?;
        Ok(())
    }

    pub(super) async fn receive(&self, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        buffer.resize(BUFFER, 0);
        match self.0.recv(buffer).await {
            Ok(length) => {
                buffer.truncate(length);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Failure::Unreachable),
            Err(_) => Err(Failure::Passing),
        }
    }
}
