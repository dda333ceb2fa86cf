//! All connections of a shard's clients.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use hairpin_proto::address::{FiveTuple, Transport};
use hashbrown::HashMap;
use rustix::event::epoll;

use super::admission::{Admission, ConnectionLimits, Sources, Standing, TooMany};
use super::connection::{Connection, End, StreamBuffer};
use super::histogram::Histogram;
use super::output::Flushed;
use super::report::{Times, handshakes};
use super::socket::{Generation, Socket};

/// How much of a message is waited for, of a client without an allocation: requests are shorter.
const LONGEST_BEGUN: usize = 4096;

/// What was counted of connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionCounts {
    /// Connections that were begun, by transport.
    pub begun: [u64; Transport::ALL.len()],
    /// Connections that have ended before it was known what is spoken.
    pub unknown: u64,
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
    standing: Standing,
    is_registered: bool,
    /// Whether it waits to be written at the end of the batch.
    is_dirty: bool,
    interest: epoll::EventFlags,
    is_paused: bool,
}

/// A connection that was taken out.
pub(super) struct Removed {
    pub(super) connection: Connection,
    /// Whether the engine knows it by its five-tuple.
    pub(super) is_registered: bool,
}

/// The connections of one shard.
pub(super) struct Connections {
    poll: OwnedFd,
    admission: Admission<Socket>,
    places: Vec<Place>,
    free: Vec<u32>,
    by_five_tuple: HashMap<FiveTuple, Socket>,
    dirty: Vec<Socket>,
    begun: [u64; Transport::ALL.len()],
    unknown: u64,
    ended: [u64; End::ALL.len()],
    queue_full: u64,
    handshakes: Histogram,
}

impl Connections {
    pub(super) fn new(poll: OwnedFd, limits: ConnectionLimits, sources: Sources) -> Self {
        Self {
            poll,
            admission: Admission::new(limits, sources),
            places: Vec::new(),
            free: Vec::new(),
            by_five_tuple: HashMap::new(),
            dirty: Vec::new(),
            begun: Default::default(),
            unknown: 0,
            ended: Default::default(),
            queue_full: 0,
            handshakes: handshakes(),
        }
    }

    /// Lets so many in from now on; who is there stays.
    pub(super) fn set_limits(&mut self, limits: ConnectionLimits) {
        self.admission.set_limits(limits);
    }

    /// Whether there is room for a connection of this source, if that is known.
    pub(super) fn may_come(&mut self, source: Option<IpAddr>) -> Result<(), TooMany> {
        self.admission.may_come(source).inspect_err(|_| {
            self.unknown += 1;
            self.ended[End::TooMany as usize] += 1;
        })
    }

    /// Which connection has to go to make room for a new one.
    pub(super) fn displaced(&self) -> Option<Socket> {
        self.admission.displaced()
    }

    /// Takes in a connection of an unknown client. `source`: whose it is, unless a load balancer has yet to say so.
    pub(super) fn accept(&mut self, connection: Connection, source: Option<IpAddr>, now: Instant) {
        // Who is not let in is closed, and counted.
        let _ = self.insert(connection, source, now);
    }

    /// Takes in a connection from another shard. An error says which one has to be ended, if it was taken in.
    pub(super) fn adopt(&mut self, connection: Connection, now: Instant) -> Result<Socket, (Option<Socket>, End)> {
        let source = connection.five_tuple().client.ip();
        let socket = self.insert(connection, Some(source), now).map_err(|end| (None, end))?;
        self.identify(socket).map_err(|end| (Some(socket), end))?;
        // It may have answers to write.
        self.mark_dirty(socket);
        Ok(socket)
    }

    /// Fills the buffer with what a connection has kept. Returns whether there is one.
    pub(super) fn resume(&mut self, socket: Socket, buffer: &mut StreamBuffer) -> bool {
        self.entry_mut(socket).map(|entry| entry.connection.resume(buffer)).is_some()
    }

    fn insert(&mut self, connection: Connection, source: Option<IpAddr>, now: Instant) -> Result<Socket, End> {
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
            self.unknown += 1;
            self.ended[End::TooMany as usize] += 1;
            return Err(End::TooMany);
        }
        place.entry = Some(Entry {
            connection,
            standing: self.admission.admit(socket, source, now),
            is_registered: false,
            is_dirty: false,
            interest,
            is_paused: false,
        });
        Ok(socket)
    }

    fn entry(&self, socket: Socket) -> Option<&Entry> {
        let Socket::Connection(at, generation) = socket else { return None };
        self.places.get(at as usize).filter(|place| place.generation == generation)?.entry.as_ref()
    }

    fn entry_mut(&mut self, socket: Socket) -> Option<&mut Entry> {
        entry_mut(&mut self.places, socket)
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
        let is_done = was_handshaking && !entry.connection.is_handshaking();
        let took = (is_done && entry.connection.five_tuple().transport == Transport::Tls).then(|| entry.standing.age());
        // The server's part of the handshake, or an alert.
        if was_handshaking && entry.connection.is_blocked() {
            self.mark_dirty(socket);
        }
        if let Some(took) = took {
            self.handshakes.record(took.as_secs_f64());
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
            // Only a load balancer could say the same twice.
            if self.by_five_tuple.contains_key(&five_tuple) {
                return Err(End::TooMany);
            }
            let Some(entry) = entry_mut(&mut self.places, socket) else { return Ok(None) };
            self.admission.is_of(&mut entry.standing, five_tuple.client.ip()).map_err(|TooMany| End::TooMany)?;
            entry.is_registered = true;
            self.by_five_tuple.insert(five_tuple, socket);
            self.begun[five_tuple.transport as usize] += 1;
        }
        Ok(Some(five_tuple))
    }

    /// Which name the client has asked for in its handshake, once it is known.
    pub(super) fn take_server_name(&mut self, socket: Socket) -> Option<String> {
        self.entry_mut(socket)?.connection.take_server_name()
    }

    /// Whether a whole message has come.
    pub(super) fn was_heard(&self, socket: Socket) -> bool {
        self.entry(socket).is_some_and(|entry| entry.standing.was_heard())
    }

    /// Learns that a whole message has come, and whether its client has an allocation now.
    pub(super) fn heard(&mut self, socket: Socket, now: Instant, has_allocation: bool) {
        let Some(entry) = self.entry_mut(socket) else { return };
        entry.standing.heard(now);
        let source = entry.connection.five_tuple().client.ip();
        let Self { admission, places, .. } = self;
        if let Some(entry) = entry_mut(places, socket) {
            admission.judge_anew(socket, &mut entry.standing, source, has_allocation);
        }
    }

    /// Keeps the beginning of a message until the rest comes.
    pub(super) fn keep(&mut self, socket: Socket, begun: &[u8]) -> Result<(), End> {
        match self.entry_mut(socket) {
            Some(entry) if entry.standing.is_new() && begun.len() > LONGEST_BEGUN => Err(End::NotTurn),
            Some(entry) => {
                entry.connection.keep(begun);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Keeps what has come, whole messages, until the client has rested.
    pub(super) fn set_aside(&mut self, socket: Socket, bytes: &[u8]) {
        if let Some(entry) = self.entry_mut(socket) {
            entry.connection.keep(bytes);
        }
        self.pause(socket, true);
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

    /// When somebody's time may be over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.admission.next_deadline()
    }

    /// A connection whose time is over. `has_allocation` says who may stay.
    pub(super) fn take_due(&mut self, now: Instant, has_allocation: impl Fn(&FiveTuple) -> bool) -> Option<Socket> {
        loop {
            let socket = self.admission.due(now)?;
            let Self { admission, places, .. } = self;
            let Some(entry) = entry_mut(places, socket) else { continue };
            let stays = has_allocation(&entry.connection.five_tuple());
            if admission.judge(socket, &mut entry.standing, stays, now) {
                return Some(socket);
            }
        }
    }

    /// Takes a connection out.
    pub(super) fn remove(&mut self, socket: Socket, end: Option<End>) -> Option<Removed> {
        let Socket::Connection(at, generation) = socket else { return None };
        let place = self.places.get_mut(at as usize).filter(|place| place.generation == generation)?;
        let entry = place.entry.take()?;
        self.free.push(at);
        self.admission.leave(socket, entry.standing);
        if entry.is_registered {
            self.by_five_tuple.remove(&entry.connection.five_tuple());
        }
        if let Some(end) = end {
            self.unknown += u64::from(!entry.is_registered);
            self.count_end(end);
        }
        // The kernel would take it out by itself, were it closed at once.
        let _ = epoll::delete(&self.poll, entry.connection.stream());
        Some(Removed { connection: entry.connection, is_registered: entry.is_registered })
    }

    /// Counts the end of a connection.
    pub(super) fn count_end(&mut self, end: End) {
        self.ended[end as usize] += 1;
    }

    /// Adds how long handshakes took.
    pub(super) fn add_times(&self, times: &mut Times) {
        times.handshakes[Transport::Tls as usize] = self.handshakes.clone();
    }

    /// What was counted.
    pub(super) fn counts(&self) -> ConnectionCounts {
        let mut open = [0; Transport::ALL.len()];
        for five_tuple in self.by_five_tuple.keys() {
            open[five_tuple.transport as usize] += 1;
        }
        ConnectionCounts {
            begun: self.begun,
            unknown: self.unknown,
            open,
            new: self.admission.new_ones() as u64,
            ended: self.ended,
            queue_full: self.queue_full,
        }
    }
}

fn entry_mut(places: &mut [Place], socket: Socket) -> Option<&mut Entry> {
    let Socket::Connection(at, generation) = socket else { return None };
    places.get_mut(at as usize).filter(|place| place.generation == generation)?.entry.as_mut()
}
