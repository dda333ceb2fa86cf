//! A client's connection and a peer's that are joined (RFC 6062): they carry each other's bytes, and end together.
//!
//! Nothing is read that could not be written at the other end, so a slow reader slows down its peer, as it would without
//! a relay. When one end says that nothing more comes, the other is told so behind all that came before; when both have,
//! or one is gone and the other has all that was sent, the pair is over. A client that closes in one direction only gets
//! its answer, but not for ever: half a pair over which nothing goes for a minute is closed.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hairpin_proto::turn::{AllocationId, ConnectionId};
use hashbrown::HashMap;
use rustix::event::epoll;

use super::connection::{Connection, End, StreamBuffer};
use super::lingering::Lingering;
use super::output::{Flushed, Output};
use super::socket::Socket;
use super::sockets::Ready;
use crate::datapath::Direction;
use crate::net::Stream;

/// How long half a pair may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes are charged to the allocation as if they came in datagrams of this size.
const CHARGED: usize = 1400;
/// How long a pair waits that has used up what its allocation may relay.
const DEBT: Duration = Duration::from_millis(20);

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Nothing more comes; what waits is still to be written.
    Ending,
    /// All is written, or nobody is there to read it.
    Over,
}

struct Pair {
    client: Connection,
    peer: Stream,
    to_peer: Output,
    allocation: AllocationId,
    /// Towards the peer, and towards the client.
    ways: [Way; 2],
    /// Bytes that were carried and not charged yet, likewise.
    owed: [usize; 2],
    /// What epoll was asked to tell of the client, and of the peer; nothing of one that is gone.
    interests: [Option<epoll::EventFlags>; 2],
    active: Instant,
    /// Whose end came first.
    ended_by: Option<End>,
    /// Whether a deadline is set for it.
    is_watched: bool,
}

/// The client's end, as a direction: where bytes towards the peer come from.
const CLIENT: usize = 0;
/// The peer's end.
const PEER: usize = 1;

/// The pairs of one shard.
pub(super) struct Pairs {
    poll: OwnedFd,
    lingering: Lingering,
    by_id: HashMap<ConnectionId, Pair>,
    /// Halves of pairs, by when they may have been silent for too long.
    deadlines: BTreeSet<(Instant, ConnectionId)>,
    indebted: Vec<ConnectionId>,
    pay: Option<Instant>,
}

/// What a shard knows about a pair's bytes: whether they may be carried, and where they are counted.
pub(super) trait Ledger {
    /// Whether so many bytes are within the limits.
    fn admit(&mut self, allocation: AllocationId, direction: Direction, bytes: usize) -> bool;
    /// Counts bytes that were carried.
    fn carried(&mut self, allocation: AllocationId, direction: Direction, bytes: usize);
}

impl Pairs {
    pub(super) fn new(poll: OwnedFd) -> Self {
        Self {
            poll,
            lingering: Lingering::default(),
            by_id: HashMap::new(),
            deadlines: BTreeSet::new(),
            indebted: Vec::new(),
            pay: None,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Joins two connections. `behind`: what the client has sent behind its request.
    pub(super) fn join(
        &mut self,
        id: ConnectionId,
        allocation: AllocationId,
        client: Connection,
        peer: Stream,
        behind: &[u8],
        ledger: &mut impl Ledger,
    ) -> io::Result<()> {
        let none = epoll::EventFlags::empty();
        epoll::add(&self.poll, client.stream(), Socket::Joined(id).token(), none)?;
        epoll::add(&self.poll, &peer, Socket::Peer(id).token(), none)?;
        let mut pair = Pair {
            client,
            peer,
            to_peer: Output::default(),
            allocation,
            ways: [Way::Open; 2],
            owed: [0; 2],
            interests: [Some(none); 2],
            active: Instant::now(),
            ended_by: None,
            is_watched: false,
        };
        if pair.client.has_ended() {
            pair.ways[CLIENT] = Way::Ending;
        }
        // The answer to ConnectionBind before anything of the peer's.
        let _ = pair.client.flush();
        pair.carry(CLIENT, behind, ledger);
        self.by_id.insert(id, pair);
        self.advance(id, &mut StreamBuffer::empty(), ledger);
        Ok(())
    }

    /// Something has happened at one end. Returns whether the pair is over.
    pub(super) fn ready(
        &mut self,
        id: ConnectionId,
        ready: Ready,
        buffer: &mut StreamBuffer,
        ledger: &mut impl Ledger,
    ) -> bool {
        let Some(pair) = self.by_id.get_mut(&id) else { return false };
        let end = if matches!(ready.socket, Socket::Peer(_)) { PEER } else { CLIENT };
        let asked = pair.interests[end].unwrap_or(epoll::EventFlags::empty());
        if asked.contains(epoll::EventFlags::IN) {
            if ready.is_readable {
                pair.read(end, buffer, ledger);
            }
        } else if ready.is_readable {
            // Not asked for: both directions of it are closed, or it has failed. It would be told again and again.
            pair.interests[end] = None;
            let _ = match end {
                CLIENT => epoll::delete(&self.poll, pair.client.stream()),
                _ => epoll::delete(&self.poll, &pair.peer),
            };
            pair.ways[1 - end] = Way::Over;
        }
        self.advance(id, buffer, ledger)
    }

    /// Does what can be done without waiting. Returns whether the pair is over.
    fn advance(&mut self, id: ConnectionId, buffer: &mut StreamBuffer, ledger: &mut impl Ledger) -> bool {
        let Some(pair) = self.by_id.get_mut(&id) else { return false };
        if pair.ended_by.is_none() && pair.ways != [Way::Open; 2] {
            let is_client = pair.ways[CLIENT] != Way::Open;
            pair.ended_by = Some(if is_client { End::Client } else { End::Finished });
        }
        pair.write(CLIENT);
        pair.write(PEER);
        for end in [CLIENT, PEER] {
            // What one that is gone has sent before is fetched unasked.
            while pair.interests[end].is_none() && pair.may_read(end) && buffer.has_room() {
                if !pair.read(end, buffer, ledger) {
                    pair.ways[end] = Way::Ending;
                }
                pair.write(end);
            }
        }
        if pair.ways == [Way::Over; 2] {
            return true;
        }
        if pair.ways != [Way::Open; 2] && !pair.is_watched {
            pair.is_watched = true;
            self.deadlines.insert((pair.active + SILENCE, id));
        }
        if pair.owed != [0; 2] && !self.indebted.contains(&id) {
            self.indebted.push(id);
            self.pay.get_or_insert_with(|| Instant::now() + DEBT);
        }
        pair.watch(&self.poll, id);
        false
    }

    /// When there is something to be done although nothing arrives.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let silent = self.deadlines.first().map(|(at, _)| *at);
        [silent, self.pay].into_iter().flatten().min()
    }

    /// Lets those go on whose allocation may relay again.
    pub(super) fn pay(
        &mut self,
        now: Instant,
        buffer: &mut StreamBuffer,
        ledger: &mut impl Ledger,
    ) -> Vec<ConnectionId> {
        if self.pay.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.pay = None;
        let mut over = Vec::new();
        for id in std::mem::take(&mut self.indebted) {
            if let Some(pair) = self.by_id.get_mut(&id) {
                pair.charge(CLIENT, ledger);
                pair.charge(PEER, ledger);
            }
            if self.advance(id, buffer, ledger) {
                over.push(id);
            }
        }
        over
    }

    /// Half a pair that has been silent for too long.
    pub(super) fn take_silent(&mut self, now: Instant) -> Option<ConnectionId> {
        while let Some((at, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, id));
            let Some(pair) = self.by_id.get(&id) else { continue };
            if pair.active + SILENCE <= now {
                return Some(id);
            }
            self.deadlines.insert((pair.active + SILENCE, id));
        }
        None
    }

    /// Ends a pair, if there is one. Returns who was the first to end it.
    pub(super) fn close(&mut self, id: ConnectionId) -> Option<End> {
        let Pair { client, peer, interests, ended_by, .. } = self.by_id.remove(&id)?;
        let streams = [client.close(), peer];
        // Of one that is gone nobody reads what was sent last.
        for (stream, _) in streams.into_iter().zip(interests).filter(|(_, asked)| asked.is_some()) {
            let _ = epoll::delete(&self.poll, &stream);
            self.lingering.close(stream);
        }
        Some(ended_by.unwrap_or(End::Finished))
    }
}

impl Pair {
    fn may_read(&self, end: usize) -> bool {
        let is_written = if end == CLIENT { self.to_peer.is_empty() } else { !self.client.is_blocked() };
        self.ways[end] == Way::Open && is_written && self.owed[end] == 0
    }

    /// Reads once what one end has to give, for the other. Returns whether there was anything.
    fn read(&mut self, end: usize, buffer: &mut StreamBuffer, ledger: &mut impl Ledger) -> bool {
        let (read, ended) = if end == CLIENT {
            let received = self.client.receive(buffer);
            self.carry(end, buffer.bytes(), ledger);
            (received.unwrap_or(false), received.is_err() || self.client.has_ended())
        } else {
            match self.peer.read(buffer.spare()) {
                Ok(read) => {
                    let (bytes, _) = buffer.spare().split_at(read);
                    self.carry(end, bytes, ledger);
                    (read > 0, read == 0)
                }
                Err(error) => (false, !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)),
            }
        };
        if ended && self.ways[end] == Way::Open {
            self.ways[end] = Way::Ending;
        }
        read
    }

    fn carry(&mut self, from: usize, bytes: &[u8], ledger: &mut impl Ledger) {
        if bytes.is_empty() {
            return;
        }
        self.active = Instant::now();
        ledger.carried(self.allocation, direction(from), bytes.len());
        if from == CLIENT {
            self.to_peer.push_all(bytes);
        } else {
            self.client.output().push_all(bytes);
        }
        self.owed[from] += bytes.len();
        self.charge(from, ledger);
    }

    /// Charges what was carried. What is not within the limits stays owed, and nothing more is read until it is paid.
    fn charge(&mut self, from: usize, ledger: &mut impl Ledger) {
        while self.owed[from] > 0 {
            let part = self.owed[from].min(CHARGED);
            if !ledger.admit(self.allocation, direction(from), part) {
                return;
            }
            self.owed[from] -= part;
        }
    }

    /// Writes what came from one end to the other, and behind it that nothing more comes.
    fn write(&mut self, from: usize) {
        if self.ways[from] == Way::Over {
            return;
        }
        let flushed = if from == CLIENT {
            self.to_peer.flush(&self.peer, None)
        } else {
            self.client.flush().map_err(|_| io::ErrorKind::BrokenPipe.into())
        };
        match flushed {
            Ok(Flushed::All) if self.ways[from] == Way::Ending => {
                if from == CLIENT {
                    self.peer.finish();
                } else {
                    self.client.finish();
                }
                self.ways[from] = Way::Over;
            }
            Ok(_) => {}
            // Nobody is there to read it.
            Err(_) => self.ways[from] = Way::Over,
        }
    }

    /// Asks epoll for what can be used now.
    fn watch(&mut self, poll: &OwnedFd, id: ConnectionId) {
        for end in [CLIENT, PEER] {
            let reading = if self.may_read(end) {
                epoll::EventFlags::IN | epoll::EventFlags::RDHUP
            } else {
                epoll::EventFlags::empty()
            };
            let towards = 1 - end;
            let waits = if end == CLIENT { self.client.is_blocked() } else { !self.to_peer.is_empty() };
            let writing = if waits && self.ways[towards] != Way::Over {
                epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::empty()
            };
            let interest = reading | writing;
            if self.interests[end].is_some_and(|asked| asked != interest) {
                self.interests[end] = Some(interest);
                // It was added, and is open: there is nothing that could fail.
                let _ = match end {
                    CLIENT => epoll::modify(poll, self.client.stream(), Socket::Joined(id).token(), interest),
                    _ => epoll::modify(poll, &self.peer, Socket::Peer(id).token(), interest),
                };
            }
        }
    }
}

fn direction(from: usize) -> Direction {
    if from == CLIENT { Direction::ToPeer } else { Direction::ToClient }
}
