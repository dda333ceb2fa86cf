//! All connections of a shard's clients, and who of them may stay.
//!
//! A connection is *new* until its client has an allocation. New ones are what an attacker can have for nothing, so they
//! have little time and there are few of them: of one source address, the newest is refused; of all, the oldest has to
//! go, since whoever means it is quick.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hairpin_proto::address::{FiveTuple, Transport};
use hairpin_proto::turn::ConnectionId;
use hashbrown::HashMap;
use rustix::event::epoll;

use super::connection::{Connection, End, StreamBuffer};
use super::output::Flushed;
use super::socket::{Generation, Socket};

/// How long a client may take for its first whole message, handshake included.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How long a client without an allocation may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How much of a message is waited for, of a client without an allocation: requests are shorter.
const LONGEST_BEGUN: usize = 4096;

/// How many connections a shard has room for.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Of all clients.
    pub all: usize,
    /// Of clients without an allocation.
    pub new: usize,
    /// Of clients without an allocation at one address, of IPv6 one /64.
    pub new_of_source: usize,
}

/// What was counted of connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionCounts {
    /// Connections that were begun, by transport.
    pub begun: [u64; Transport::ALL.len()],
    /// Connections that are there, by transport.
    pub open: [u64; Transport::ALL.len()],
    /// Connections without an allocation that are there, whatever is spoken over them.
    pub new: u64,
    /// Connections that have ended, by reason.
    pub ended: [u64; End::ALL.len()],
    /// Frames that were dropped because their client reads too slowly.
    pub queue_full: u64,
}

/// A place for a connection, and how often it was used.
#[derive(Default)]
struct Place {
    generation: Generation,
    entry: Option<Entry>,
}

struct Entry {
    connection: Connection,
    since: Instant,
    /// Whether it has no allocation, as far as it was looked at.
    is_new: bool,
    /// Under which address it is counted as new.
    counted_at: Option<IpAddr>,
    last_message: Option<Instant>,
    deadline: Instant,
    is_registered: bool,
    /// Whether it waits to be written at the end of the batch.
    is_dirty: bool,
    /// The peer's connection whose bytes it carries (RFC 6062).
    joined: Option<ConnectionId>,
    interest: epoll::EventFlags,
    is_paused: bool,
}

/// The connections of one shard.
pub(super) struct Connections {
    poll: OwnedFd,
    limits: ConnectionLimits,
    places: Vec<Place>,
    free: Vec<u32>,
    open: usize,
    by_five_tuple: HashMap<FiveTuple, Socket>,
    new_by_source: HashMap<IpAddr, usize>,
    /// The oldest first.
    new: BTreeSet<(Instant, u32)>,
    deadlines: BTreeSet<(Instant, u32)>,
    dirty: Vec<Socket>,
    begun: [u64; Transport::ALL.len()],
    ended: [u64; End::ALL.len()],
    queue_full: u64,
}

impl Connections {
    pub(super) fn new(poll: OwnedFd, limits: ConnectionLimits) -> Self {
        Self {
            poll,
            limits,
            places: Vec::new(),
            free: Vec::new(),
            open: 0,
            by_five_tuple: HashMap::new(),
            new_by_source: HashMap::new(),
            new: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            dirty: Vec::new(),
            begun: Default::default(),
            ended: Default::default(),
            queue_full: 0,
        }
    }

    /// Takes in a connection of an unknown client. Whoever has to make room for it is in `evicted`.
    pub(super) fn accept(
        &mut self,
        connection: Connection,
        source: Option<IpAddr>,
        now: Instant,
        evicted: &mut Option<Socket>,
    ) -> Result<Socket, End> {
        let counted_at = source.map(prefix);
        if self.open >= self.limits.all || counted_at.is_some_and(|source| self.is_crowded(source)) {
            self.ended[End::TooMany as usize] += 1;
            return Err(End::TooMany);
        }
        if self.new.len() >= self.limits.new {
            *evicted = self.new.first().map(|(_, at)| Socket::Connection(*at, self.places[*at as usize].generation));
        }
        let socket = self.insert(connection, now)?;
        if let Some(source) = counted_at {
            self.count_at(socket, source);
        }
        Ok(socket)
    }

    /// Takes in a connection from another shard.
    pub(super) fn adopt(&mut self, connection: Connection, now: Instant) -> Result<Socket, End> {
        let socket = self.insert(connection, now)?;
        self.identify(socket)?;
        Ok(socket)
    }

    fn insert(&mut self, connection: Connection, now: Instant) -> Result<Socket, End> {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[at as usize];
        place.generation = place.generation.next();
        let socket = Socket::Connection(at, place.generation);
        let interest = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        if epoll::add(&self.poll, connection.stream(), socket.token(), interest).is_err() {
            self.free.push(at);
            self.ended[End::TooMany as usize] += 1;
            return Err(End::TooMany);
        }
        let deadline = now + FIRST_MESSAGE;
        self.open += 1;
        self.new.insert((now, at));
        self.deadlines.insert((deadline, at));
        place.entry = Some(Entry {
            connection,
            since: now,
            is_new: true,
            counted_at: None,
            last_message: None,
            deadline,
            is_registered: false,
            is_dirty: false,
            joined: None,
            interest,
            is_paused: false,
        });
        Ok(socket)
    }

    fn is_crowded(&self, source: IpAddr) -> bool {
        self.new_by_source.get(&source).is_some_and(|count| *count >= self.limits.new_of_source)
    }

    fn count_at(&mut self, socket: Socket, source: IpAddr) {
        if let Some(entry) = self.entry_mut(socket) {
            entry.counted_at = Some(source);
            *self.new_by_source.entry(source).or_default() += 1;
        }
    }

    fn entry(&self, socket: Socket) -> Option<&Entry> {
        let Socket::Connection(at, generation) = socket else { return None };
        self.places.get(at as usize).filter(|place| place.generation == generation)?.entry.as_ref()
    }

    fn entry_mut(&mut self, socket: Socket) -> Option<&mut Entry> {
        let Socket::Connection(at, generation) = socket else { return None };
        self.places.get_mut(at as usize).filter(|place| place.generation == generation)?.entry.as_mut()
    }

    pub(super) fn get(&self, socket: Socket) -> Option<&Connection> {
        self.entry(socket).map(|entry| &entry.connection)
    }

    /// The connection of a client.
    pub(super) fn of(&self, five_tuple: &FiveTuple) -> Option<Socket> {
        self.by_five_tuple.get(five_tuple).copied()
    }

    /// Reads what has arrived. The client's five-tuple, once it is known.
    pub(super) fn receive(&mut self, socket: Socket, buffer: &mut StreamBuffer) -> Result<Option<FiveTuple>, End> {
        let Some(entry) = self.entry_mut(socket) else { return Ok(None) };
        let was_handshaking = entry.connection.is_handshaking();
        entry.connection.receive(buffer)?;
        // The server's part of the handshake, or an alert.
        if was_handshaking && entry.connection.is_blocked() {
            self.mark_dirty(socket);
        }
        self.identify(socket)
    }

    /// Notes whose connection it is, as soon as that is known.
    fn identify(&mut self, socket: Socket) -> Result<Option<FiveTuple>, End> {
        let Some(entry) = self.entry_mut(socket) else { return Ok(None) };
        if !entry.connection.is_identified() {
            return Ok(None);
        }
        let five_tuple = entry.connection.five_tuple();
        if !entry.is_registered {
            let uncounted = entry.counted_at.is_none();
            let source = prefix(five_tuple.client.ip());
            // Only a load balancer could say the same twice.
            if self.by_five_tuple.contains_key(&five_tuple) || uncounted && self.is_crowded(source) {
                return Err(End::TooMany);
            }
            if uncounted {
                self.count_at(socket, source);
            }
            self.by_five_tuple.insert(five_tuple, socket);
            self.begun[five_tuple.transport as usize] += 1;
            if let Some(entry) = self.entry_mut(socket) {
                entry.is_registered = true;
            }
        }
        Ok(Some(five_tuple))
    }

    /// Learns that a whole message has come, and whether its client has an allocation now.
    pub(super) fn heard(&mut self, socket: Socket, now: Instant, has_allocation: bool) {
        let Some(entry) = self.entry_mut(socket) else { return };
        entry.last_message = Some(now);
        if has_allocation && entry.is_new {
            self.vouch(socket);
        }
    }

    /// No longer counts a connection as new.
    fn vouch(&mut self, socket: Socket) {
        let Socket::Connection(at, _) = socket else { return };
        let Some(entry) = self.entry_mut(socket) else { return };
        entry.is_new = false;
        let (since, counted_at) = (entry.since, entry.counted_at.take());
        self.new.remove(&(since, at));
        if let Some(source) = counted_at
            && let Some(count) = self.new_by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.new_by_source.remove(&source);
            }
        }
    }

    /// Keeps the beginning of a message until the rest comes.
    pub(super) fn keep(&mut self, socket: Socket, begun: &[u8]) -> Result<(), End> {
        match self.entry_mut(socket) {
            Some(entry) if entry.is_new && begun.len() > LONGEST_BEGUN => Err(End::NotTurn),
            Some(entry) => {
                entry.connection.keep(begun);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Adds a frame of application data to what is written at the end of the batch. Returns whether there was room.
    pub(super) fn send(&mut self, socket: Socket, parts: [&[u8]; 3]) -> bool {
        let Some(entry) = self.entry_mut(socket) else { return false };
        if entry.connection.output().push_data(parts).is_err() {
            self.queue_full += 1;
            return false;
        }
        self.mark_dirty(socket);
        true
    }

    /// Adds a message of the server's own to what is written at the end of the batch.
    pub(super) fn respond(&mut self, socket: Socket, message: &[u8]) -> Result<(), End> {
        let Some(entry) = self.entry_mut(socket) else { return Ok(()) };
        entry.connection.output().push_response(message).map_err(|_| End::Stalled)?;
        self.mark_dirty(socket);
        Ok(())
    }

    /// Adds bytes of the peer that the connection is joined to. Returns whether the peer may go on.
    pub(super) fn carry(&mut self, socket: Socket, bytes: &[u8]) -> Result<Flushed, End> {
        let Some(entry) = self.entry_mut(socket) else { return Ok(Flushed::All) };
        entry.connection.output().push_all(bytes);
        self.flush(socket)
    }

    fn mark_dirty(&mut self, socket: Socket) {
        if let Some(entry) = self.entry_mut(socket)
            && !entry.is_dirty
        {
            entry.is_dirty = true;
            self.dirty.push(socket);
        }
    }

    /// A connection that has something to be written since it was written last.
    pub(super) fn next_dirty(&mut self) -> Option<Socket> {
        self.dirty.pop()
    }

    /// Writes what the kernel takes; when it takes more again, epoll tells.
    pub(super) fn flush(&mut self, socket: Socket) -> Result<Flushed, End> {
        let Some(entry) = self.entry_mut(socket) else { return Ok(Flushed::All) };
        entry.is_dirty = false;
        let flushed = entry.connection.flush()?;
        self.watch(socket);
        Ok(flushed)
    }

    /// Stops reading, or goes on.
    pub(super) fn pause(&mut self, socket: Socket, is_paused: bool) {
        if let Some(entry) = self.entry_mut(socket) {
            entry.is_paused = is_paused;
            self.watch(socket);
        }
    }

    /// Asks epoll for what can be used now.
    fn watch(&mut self, socket: Socket) {
        let Some(entry) = self.entry(socket) else { return };
        let reading =
            if entry.is_paused { epoll::EventFlags::empty() } else { epoll::EventFlags::IN | epoll::EventFlags::RDHUP };
        let writing = if entry.connection.is_blocked() { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        let interest = reading | writing;
        if interest != entry.interest {
            // It was added, and is open: there is nothing that could fail.
            let _ = epoll::modify(&self.poll, entry.connection.stream(), socket.token(), interest);
            if let Some(entry) = self.entry_mut(socket) {
                entry.interest = interest;
            }
        }
    }

    /// From now on the connection carries the bytes of a peer.
    pub(super) fn join(&mut self, socket: Socket, connection: ConnectionId) {
        self.vouch(socket);
        if let Some(entry) = self.entry_mut(socket) {
            entry.joined = Some(connection);
        }
    }

    /// The peer's connection whose bytes it carries.
    pub(super) fn joined(&self, socket: Socket) -> Option<ConnectionId> {
        self.entry(socket)?.joined
    }

    /// When somebody's time may be over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A connection whose time is over. `has_allocation` says who may stay.
    pub(super) fn take_due(&mut self, now: Instant, has_allocation: impl Fn(&FiveTuple) -> bool) -> Option<Socket> {
        loop {
            let (deadline, at) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now)?;
            self.deadlines.remove(&(deadline, at));
            let Place { generation, entry } = self.places.get_mut(at as usize)?;
            let Some(entry) = entry else { continue };
            let stays = entry.joined.is_some() || has_allocation(&entry.connection.five_tuple());
            let silent_until = entry.last_message.map_or(entry.deadline, |at| at + SILENCE);
            let socket = Socket::Connection(at, *generation);
            if !stays && silent_until <= now {
                return Some(socket);
            }
            entry.deadline = if stays { now + SILENCE } else { silent_until };
            self.deadlines.insert((entry.deadline, at));
        }
    }

    /// Takes a connection out.
    pub(super) fn remove(&mut self, socket: Socket, end: Option<End>) -> Option<Connection> {
        self.vouch(socket);
        let Socket::Connection(at, generation) = socket else { return None };
        let place = self.places.get_mut(at as usize).filter(|place| place.generation == generation)?;
        let entry = place.entry.take()?;
        self.free.push(at);
        self.open -= 1;
        self.deadlines.remove(&(entry.deadline, at));
        if entry.is_registered {
            self.by_five_tuple.remove(&entry.connection.five_tuple());
        }
        if let Some(end) = end {
            self.ended[end as usize] += 1;
        }
        // The kernel would take it out by itself, were it closed at once.
        let _ = epoll::delete(&self.poll, entry.connection.stream());
        Some(entry.connection)
    }

    /// What was counted.
    pub(super) fn counts(&self) -> ConnectionCounts {
        let mut open = [0; Transport::ALL.len()];
        for five_tuple in self.by_five_tuple.keys() {
            open[five_tuple.transport as usize] += 1;
        }
        ConnectionCounts {
            begun: self.begun,
            open,
            new: self.new.len() as u64,
            ended: self.ended,
            queue_full: self.queue_full,
        }
    }
}

/// What counts as one source: an IPv4 address, or the network that one IPv6 host has to itself.
pub(super) fn prefix(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}
