//! Connections between relayed addresses and peers (RFC 6062), each of which ends up joined to a client's connection.
//!
//! Joined, the two carry each other's bytes. Nothing is read that could not be written at the other end, so a slow reader
//! slows down its peer, as it would without a relay.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use hairpin_proto::turn::ConnectionId;
use hashbrown::HashMap;
use rustix::event::epoll;

use super::lingering::Lingering;
use super::output::{Flushed, Output};
use super::socket::Socket;
use crate::net::Stream;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is being made.
    Connecting,
    /// It is there, and waits for a client's connection. What the peer sends waits in the kernel.
    Waiting,
    /// It carries the bytes of this client's connection.
    Joined(Socket),
}

struct Peer {
    stream: Stream,
    stage: Stage,
    output: Output,
    interest: epoll::EventFlags,
    is_paused: bool,
    /// Nothing more comes for the peer: it is closed when the rest is written.
    is_last: bool,
}

impl Peer {
    fn interest(&self) -> epoll::EventFlags {
        let reading = match self.stage {
            Stage::Joined(_) if !self.is_paused => epoll::EventFlags::IN | epoll::EventFlags::RDHUP,
            _ => epoll::EventFlags::empty(),
        };
        let waits = self.stage == Stage::Connecting || !self.output.is_empty();
        reading | if waits { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() }
    }
}

/// The connections to peers of one shard.
pub(super) struct Peers {
    poll: OwnedFd,
    lingering: Lingering,
    by_id: HashMap<ConnectionId, Peer>,
}

impl Peers {
    pub(super) fn new(poll: OwnedFd, lingering: Lingering) -> Self {
        Self { poll, lingering, by_id: HashMap::new() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
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
        let mut peer = Peer {
            stream,
            stage,
            output: Output::default(),
            interest: epoll::EventFlags::empty(),
            is_paused: false,
            is_last: false,
        };
        peer.interest = peer.interest();
        epoll::add(&self.poll, &peer.stream, Socket::Peer(id).token(), peer.interest)?;
        self.by_id.insert(id, peer);
        Ok(())
    }

    pub(super) fn stage(&self, id: ConnectionId) -> Option<Stage> {
        self.by_id.get(&id).map(|peer| peer.stage)
    }

    /// Whether a connection that was being made is there now.
    pub(super) fn connected(&mut self, id: ConnectionId) -> io::Result<()> {
        let Some(peer) = self.by_id.get_mut(&id) else { return Ok(()) };
        peer.stream.connected()?;
        peer.stage = Stage::Waiting;
        self.watch(id);
        Ok(())
    }

    /// Lets a connection carry the bytes of a client's.
    pub(super) fn join(&mut self, id: ConnectionId, client: Socket) {
        if let Some(peer) = self.by_id.get_mut(&id) {
            peer.stage = Stage::Joined(client);
            self.watch(id);
        }
    }

    /// Reads once what has arrived. `None` if nothing has; 0 is the end.
    pub(super) fn read(&self, id: ConnectionId, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(peer) = self.by_id.get(&id) else { return Ok(None) };
        match peer.stream.read(buffer) {
            Ok(read) => Ok(Some(read)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends bytes to a peer.
    pub(super) fn carry(&mut self, id: ConnectionId, bytes: &[u8]) -> io::Result<Flushed> {
        if let Some(peer) = self.by_id.get_mut(&id) {
            peer.output.push_all(bytes);
        }
        self.flush(id)
    }

    /// Writes what the kernel takes; when it takes more again, epoll tells.
    pub(super) fn flush(&mut self, id: ConnectionId) -> io::Result<Flushed> {
        let Some(peer) = self.by_id.get_mut(&id) else { return Ok(Flushed::All) };
        let flushed = peer.output.flush(&peer.stream, None)?;
        self.watch(id);
        Ok(flushed)
    }

    /// Says that nothing more comes for the peer. Returns whether it has all there was.
    pub(super) fn finish(&mut self, id: ConnectionId) -> bool {
        self.by_id.get_mut(&id).is_none_or(|peer| {
            peer.is_last = true;
            peer.output.is_empty()
        })
    }

    /// Whether nothing more comes for the peer.
    pub(super) fn is_last(&self, id: ConnectionId) -> bool {
        self.by_id.get(&id).is_some_and(|peer| peer.is_last)
    }

    /// Stops reading, or goes on.
    pub(super) fn pause(&mut self, id: ConnectionId, is_paused: bool) {
        if let Some(peer) = self.by_id.get_mut(&id) {
            peer.is_paused = is_paused;
            self.watch(id);
        }
    }

    fn watch(&mut self, id: ConnectionId) {
        if let Some(peer) = self.by_id.get_mut(&id)
            && peer.interest != peer.interest()
        {
            peer.interest = peer.interest();
            // It was added, and is open: there is nothing that could fail.
            let _ = epoll::modify(&self.poll, &peer.stream, Socket::Peer(id).token(), peer.interest);
        }
    }

    /// Closes a connection.
    pub(super) fn close(&mut self, id: ConnectionId) -> Option<Stage> {
        let Peer { stream, stage, .. } = self.by_id.remove(&id)?;
        // The kernel would take it out by itself, were it closed at once.
        let _ = epoll::delete(&self.poll, &stream);
        if let Stage::Joined(_) = stage {
            self.lingering.close(stream);
        }
        Some(stage)
    }
}
