//! Clients whose datagrams arrive at another shard than the one that has their allocation.
//!
//! Which shard a datagram reaches is the kernel's choice, by its addresses. A client that has moved (RFC 8016) has other
//! ones, and its allocation stays where it is. So the shard that its datagrams reach passes them on: few, since the program
//! forwards what it knows. The shard that has the allocation says for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hairpin_dtls::Session;
use hairpin_proto::address::{FiveTuple, Transport};
use hairpin_proto::turn::AllocationId;
use hashbrown::HashMap;
use tokio::sync::mpsc;

use super::Command;
use super::state::{State, now};
use crate::net::IpFields;

/// How many datagrams may wait to be taken by another shard; more are dropped, as a socket would.
const BACKLOG: usize = 1024;
/// How many clients a shard passes datagrams on for.
const GUESTS: usize = 65_536;

/// The way to another shard.
#[derive(Clone, Debug)]
pub(super) struct Mailbox {
    commands: mpsc::UnboundedSender<Command>,
    /// Datagrams that wait there.
    backlog: Arc<AtomicUsize>,
}

impl Mailbox {
    pub(super) fn new(commands: mpsc::UnboundedSender<Command>) -> Self {
        Self { commands, backlog: Arc::default() }
    }

    pub(super) fn send(&self, command: Command) {
        // A shard that has stopped takes the relay down with it.
        let _ = self.commands.send(command);
    }

    /// Passes a datagram on. Returns whether there was room.
    fn pass(&self, datagram: PassedOn) -> bool {
        if self.backlog.fetch_add(1, Ordering::Relaxed) >= BACKLOG {
            self.backlog.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.send(Command::Datagram(Box::new(datagram)));
        true
    }

    /// Learns that a datagram was taken.
    pub(super) fn taken(&self) {
        self.backlog.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A datagram that has reached another shard than its own.
#[derive(Debug)]
pub(super) struct PassedOn {
    /// The shard that it has reached.
    from: u32,
    /// Which of those that this shard has passed on.
    number: u64,
    /// Its addresses, over plain UDP.
    pub(super) client: FiveTuple,
    pub(super) ip: IpFields,
    pub(super) payload: Vec<u8>,
}

/// A session whose client's last message is for another shard.
pub(super) struct Moving {
    from: u32,
    pub(super) client: FiveTuple,
    pub(super) session: Session,
    pub(super) message: Vec<u8>,
}

/// Who is where.
#[derive(Debug, Default)]
pub(super) struct Visitors {
    /// Clients that others have the allocation of, by the addresses of their datagrams.
    guests: HashMap<FiveTuple, Guest>,
    /// How many datagrams were passed on.
    passed: u64,
    /// Clients of ours whose datagrams reach others, and which shard that is.
    abroad: HashMap<FiveTuple, u32>,
    /// From where the clients of allocations of ours have come back that have moved.
    moved: HashMap<AllocationId, Vec<FiveTuple>>,
}

/// Whose datagrams go to another shard.
#[derive(Clone, Copy, Debug)]
struct Guest {
    shard: u32,
    /// The last that was passed on.
    last: u64,
}

/// As it is on the wire: what is encrypted comes in datagrams of UDP.
fn on_the_wire(client: &FiveTuple) -> FiveTuple {
    FiveTuple { transport: Transport::Udp, ..*client }
}

impl State {
    /// Passes a datagram on, if its client is another shard's. Returns whether it was.
    pub(super) fn pass_on_guest(&mut self, client: FiveTuple, payload: &[u8], ip: IpFields) -> bool {
        let Some(Guest { shard, .. }) = self.visitors.guests.get(&client).copied() else { return false };
        self.pass_on(shard, client, payload, ip);
        true
    }

    /// Passes a datagram on to another shard, and from now on all from there: what comes next may come soon.
    pub(super) fn pass_on(&mut self, shard: u32, client: FiveTuple, payload: &[u8], ip: IpFields) {
        self.visitors.passed += 1;
        let number = self.visitors.passed;
        let datagram = PassedOn { from: self.index, number, client, ip, payload: payload.to_vec() };
        if !self.others.get(shard as usize).is_some_and(|other| other.pass(datagram)) {
            self.counters.send_failed += 1;
        } else if self.visitors.guests.len() < GUESTS {
            self.visitors.guests.insert(client, Guest { shard, last: number });
        }
    }

    /// Gives a client's association to the shard that its last message is for, with that message.
    pub(super) fn hand_over_association(&mut self, shard: u32, client: FiveTuple, message: &[u8]) {
        self.unvouch(&client);
        let Some(session) = self.associations.give(&client) else { return };
        self.welcome(on_the_wire(&client), shard);
        if let Some(other) = self.others.get(shard as usize) {
            let moving = Moving { from: self.index, client, session, message: message.to_vec() };
            other.send(Command::AdoptAssociation(Box::new(moving)));
        }
    }

    /// Learns that a datagram was taken that another shard has passed on.
    pub(super) fn taken(&self) {
        if let Some(own) = self.others.get(self.index as usize) {
            own.taken();
        }
    }

    /// After a datagram that another shard has passed on: says whether it shall go on.
    pub(super) fn settle(&mut self, datagram: &PassedOn) {
        let client = datagram.client;
        let encrypted = FiveTuple { transport: Transport::Dtls, ..client };
        if self.server.has_allocation(&client) || self.associations.has(&encrypted) {
            self.expect_from(client, datagram.from);
        } else {
            self.visitors.abroad.remove(&client);
            self.tell(datagram.from, Command::NoGuest(client, Some(datagram.number)));
        }
    }

    /// Takes over an association from another shard.
    pub(super) fn adopt_association(&mut self, moving: Moving) -> Option<(FiveTuple, Vec<u8>)> {
        let Moving { from, client, session, message } = moving;
        if !self.associations.adopt(client, session, now().instant) {
            self.tell(from, Command::NoGuest(on_the_wire(&client), None));
            return None;
        }
        self.expect_from(on_the_wire(&client), from);
        Some((client, message))
    }

    fn expect_from(&mut self, client: FiveTuple, shard: u32) {
        if self.visitors.abroad.insert(client, shard) != Some(shard) {
            // Again, since an earlier answer may still be on its way.
            self.tell(shard, Command::Guest(client, self.index));
        }
    }

    /// Learns that another shard has the allocation of a client whose datagrams arrive here.
    pub(super) fn welcome(&mut self, client: FiveTuple, shard: u32) {
        let guest = self.visitors.guests.entry(client).or_insert(Guest { shard, last: 0 });
        guest.shard = shard;
    }

    /// Learns that a client whose datagrams arrive here is nobody's; `as_of` this one, if it was said of one. Of a later
    /// one, such as a request that is right at last, nobody knows yet, and what comes behind it has to go the same way.
    pub(super) fn dismiss(&mut self, client: &FiveTuple, as_of: Option<u64>) {
        let guest = self.visitors.guests.get(client);
        if guest.is_some_and(|guest| as_of.is_none_or(|number| guest.last == number)) {
            self.visitors.guests.remove(client);
        }
    }

    /// The client of an allocation has come back from this address.
    pub(super) fn moved(&mut self, allocation: AllocationId, to: FiveTuple) {
        self.visitors.moved.entry(allocation).or_default().push(to);
    }

    /// The client of an allocation is at this address no more.
    pub(super) fn left(&mut self, allocation: AllocationId, client: &FiveTuple) {
        if let Some(places) = self.visitors.moved.get_mut(&allocation) {
            places.retain(|place| place != client);
        }
        self.forget_allocation_at(client);
    }

    /// An allocation has ended.
    pub(super) fn freed(&mut self, allocation: AllocationId) {
        for client in self.visitors.moved.remove(&allocation).into_iter().flatten() {
            self.forget_allocation_at(&client);
        }
    }

    /// An association outlives its allocation.
    fn forget_allocation_at(&mut self, client: &FiveTuple) {
        if client.transport == Transport::Udp {
            self.forget_visitor(client);
        }
    }

    /// Lets the shard that a client's datagrams reach have them.
    pub(super) fn forget_visitor(&mut self, client: &FiveTuple) {
        let client = on_the_wire(client);
        if let Some(shard) = self.visitors.abroad.remove(&client) {
            self.tell(shard, Command::NoGuest(client, None));
        }
    }

    fn tell(&self, shard: u32, command: Command) {
        if let Some(other) = self.others.get(shard as usize) {
            other.send(command);
        }
    }
}
