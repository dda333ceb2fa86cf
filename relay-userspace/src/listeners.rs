//! Where clients reach the server: the sockets of all shards, opened from the configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use hairpin_proto::address::Transport;

use crate::config::{Config, Listener};
use crate::net::{SocketError, StreamListener, UdpSocket};
use crate::shard::{Acceptor, DatagramListener, Listeners};

/// Listeners that are open.
pub(crate) struct Opened {
    /// Those of the configuration, however long they have been open.
    pub(crate) listeners: Vec<Listener>,
    /// The sockets that were opened for them, by shard.
    pub(crate) sockets: Vec<Listeners>,
}

impl Opened {
    /// Opens every listener once for each shard.
    pub(crate) fn all(config: &Config, tls: Option<&Arc<rustls::ServerConfig>>) -> anyhow::Result<Self> {
        Self::besides(&[], config, tls)
    }

    /// Opens those that are not among the `open` ones. What opens is dropped again with an error.
    pub(crate) fn besides(
        open: &[Listener],
        config: &Config,
        tls: Option<&Arc<rustls::ServerConfig>>,
    ) -> anyhow::Result<Self> {
        let sockets = (0..config.shards).map(|_| Listeners::default()).collect();
        let mut opened = Self { listeners: Vec::new(), sockets };
        for listener in &config.listeners {
            let said = || format!("--listen {}:{}", listener.transport, listener.address);
            match opened.open(listener, open, tls) {
                Ok(()) => opened.listeners.push(*listener),
                // Only a host without IPv6 goes without this listener.
                Err(error) if listener.is_optional && error.is_missing_family() => {
                    tracing::info!(%error, "not listening on IPv6");
                }
                Err(error) => return Err(error).with_context(said),
            }
        }
        Ok(opened)
    }

    fn open(
        &mut self,
        listener: &Listener,
        open: &[Listener],
        tls: Option<&Arc<rustls::ServerConfig>>,
    ) -> Result<(), SocketError> {
        let Listener { transport, address, .. } = *listener;
        // What shares an address and port with another listener, plain or encrypted, is told apart by its first byte.
        let is_same =
            |other: &&Listener| other.address == address && other.transport.is_stream() == transport.is_stream();
        if open.iter().any(|other| is_same(&other)) {
            return Ok(());
        }
        if self.listeners.iter().find(is_same).is_none() {
            self.bind(transport, address, open)?;
        }
        for shard in &mut self.sockets {
            for acceptor in shard.streams.iter_mut().filter(|acceptor| acceptor.listener.local() == address) {
                match transport {
                    Transport::Tcp => acceptor.plain = true,
                    Transport::Tls => acceptor.tls = tls.cloned(),
                    Transport::Udp | Transport::Dtls => {}
                }
            }
            for listener in shard.datagrams.iter_mut().filter(|listener| listener.socket.local() == address) {
                match transport {
                    Transport::Udp => listener.plain = true,
                    Transport::Dtls => listener.dtls = true,
                    Transport::Tcp | Transport::Tls => {}
                }
            }
        }
        Ok(())
    }

    /// Opens the sockets of all shards. Alone first: sharing a port with a stranger that shares it too would go unnoticed.
    /// Where one of ours has the port, on every address or on one, only ours can.
    fn bind(&mut self, transport: Transport, address: SocketAddr, open: &[Listener]) -> Result<(), SocketError> {
        let is_ours = open.iter().any(|other| {
            other.address.port() == address.port()
                && other.transport.is_stream() == transport.is_stream()
                && other.address.is_ipv4() == address.is_ipv4()
                && (other.address.ip().is_unspecified() || address.ip().is_unspecified())
        });
        if transport.is_stream() {
            if !is_ours {
                StreamListener::listener(address, false)?;
            }
            for shard in &mut self.sockets {
                let listener = StreamListener::listener(address, true)?;
                shard.streams.push(Acceptor { listener, plain: false, tls: None });
            }
        } else {
            if !is_ours {
                UdpSocket::listener(address, false)?;
            }
            for shard in &mut self.sockets {
                let socket = UdpSocket::listener(address, true)?;
                shard.datagrams.push(DatagramListener { socket, plain: false, dtls: false });
            }
        }
        Ok(())
    }

    /// Where the kernel path looks at datagrams: it forwards those of plain UDP, and has limits for strangers of DTLS too.
    pub(crate) fn in_kernel(&self) -> Vec<SocketAddr> {
        in_kernel(&self.listeners)
    }
}

/// The addresses of those that take datagrams, each once.
pub(crate) fn in_kernel<'l>(listeners: impl IntoIterator<Item = &'l Listener>) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for listener in listeners.into_iter().filter(|listener| !listener.transport.is_stream()) {
        if !addresses.contains(&listener.address) {
            addresses.push(listener.address);
        }
    }
    addresses
}
