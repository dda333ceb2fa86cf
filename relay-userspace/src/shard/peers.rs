//! Connections between relayed addresses and peers (RFC 6062) that wait: to be there, or to be joined to a client's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use hairpin_proto::turn::ConnectionId;
use hashbrown::HashMap;
use rustix::event::epoll;

use super::socket::Socket;
use crate::net::Stream;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is being made.
    Connecting,
    /// It is there, and waits for a client's connection. What the peer sends waits in the kernel.
    Waiting,
}

struct Peer {
    stream: Stream,
    stage: Stage,
}

/// The waiting connections of one shard.
pub(super) struct Peers {
    poll: OwnedFd,
    peers: HashMap<ConnectionId, Peer>,
}

impl Peers {
    pub(super) fn new(poll: OwnedFd) -> Self {
        Self { poll, peers: HashMap::new() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Begins a connection from a relayed address to a peer.
    pub(super) fn connect(&mut self, id: ConnectionId, local: SocketAddr, peer: SocketAddr) -> io::Result<()> {
        self.insert(id, Stream::connect(local, peer)?, Stage::Connecting)
    }

    /// Takes in a connection that a peer has made.
    pub(super) fn accepted(&mut self, id: ConnectionId, stream: Stream) -> io::Result<()> {
        self.insert(id, stream, Stage::Waiting)
    }

    fn insert(&mut self, id: ConnectionId, stream: Stream, stage: Stage) -> io::Result<()> {
        // Errors are told unasked.
        let interest = match stage {
            Stage::Connecting => epoll::EventFlags::OUT,
            Stage::Waiting => epoll::EventFlags::empty(),
        };
        epoll::add(&self.poll, &stream, Socket::Peer(id).token(), interest)?;
        self.peers.insert(id, Peer { stream, stage });
        Ok(())
    }

    pub(super) fn stage(&self, id: ConnectionId) -> Option<Stage> {
        self.peers.get(&id).map(|peer| peer.stage)
    }

    /// Whether a connection that was being made is there now.
    pub(super) fn connected(&mut self, id: ConnectionId) -> io::Result<()> {
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        peer.stream.connected()?;
        peer.stage = Stage::Waiting;
        epoll::modify(&self.poll, &peer.stream, Socket::Peer(id).token(), epoll::EventFlags::empty())?;
        Ok(())
    }

    /// Takes a connection out, to be joined.
    pub(super) fn take(&mut self, id: ConnectionId) -> Option<Stream> {
        let peer = self.peers.remove(&id)?;
        let _ = epoll::delete(&self.poll, &peer.stream);
        Some(peer.stream)
    }

    /// Closes a connection.
    pub(super) fn close(&mut self, id: ConnectionId) {
        self.peers.remove(&id);
    }
}
