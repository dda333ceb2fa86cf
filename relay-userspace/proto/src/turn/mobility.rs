//! Clients that come back from another address (RFC 8016 section 3.2.2).
//!
//! A client that moves is at two addresses for a while. Its requests and its data are taken from both, and data goes to
//! the old one, where fast paths send it too, until the new one is heard of by data, or the old one's connection ends.
//! Only then do the flows move, and the old address is forgotten.

use std::time::{Duration, Instant};

use super::allocation::{Allocation, PeerTransport};
use super::cause::Cause;
use super::effect::{AllocationId, Effect, EndReason, Now};
use super::request::Request;
use super::server::Server;
use super::ticket::{SealedTicket, Ticket};
use crate::address::FiveTuple;
use crate::stun::Message;
use crate::stun::attribute::MobilityTicket;

/// How long the ticket before the last is still taken from a client that has not got the answer with the last one
/// (RFC 8016 section 3.2.2: at least 30 seconds).
const OLD_TICKET: Duration = Duration::from_secs(30);

/// Where the client of an allocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// At the five-tuple of the allocation.
    Here,
    /// There, and at another one that has the ticket, but has sent no data yet.
    Moving(FiveTuple),
    /// Nowhere: its connection has ended, and its ticket is good as long as the allocation lasts.
    Lost,
}

/// What makes a ticket good.
#[derive(Clone, Copy, Debug)]
pub(super) struct TicketState {
    serial: u64,
    generation: u32,
    /// When the ticket of the generation before was used, while it may be shown again.
    used: Option<Instant>,
}

impl Allocation {
    /// Where requests come from, at last.
    fn newest(&self) -> Option<FiveTuple> {
        match self.presence {
            Presence::Here => Some(self.five_tuple),
            Presence::Moving(to) => Some(to),
            Presence::Lost => None,
        }
    }
}

impl Server {
    /// Whether the client asks for a ticket (RFC 8016 section 3.1.2).
    pub(super) fn wants_ticket(&self, request: &Request<'_>) -> Result<bool, Cause> {
        match request.optional()? {
            None => Ok(false),
            // A server that knows mobility and does not allow it says so, rather than leaving the client without one.
            Some(MobilityTicket([])) if !self.gives_tickets => Err(Cause::MobilityOff),
            Some(MobilityTicket([])) => Ok(true),
            Some(MobilityTicket(_)) => Err(Cause::InvalidTicket),
        }
    }

    pub(super) fn first_ticket(&mut self) -> TicketState {
        TicketState { serial: self.random.serial(), generation: 0, used: None }
    }

    /// The ticket that moves an allocation next, if its client has asked for one.
    pub(super) fn ticket_of(&mut self, id: AllocationId) -> Option<SealedTicket> {
        let TicketState { serial, generation, .. } = self.allocations.find(id)?.ticket?;
        let ticket = Ticket { shard: self.shard, allocation: id, serial, generation };
        Some(self.tickets.as_ref()?.seal(&ticket, &mut self.random))
    }

    /// The ticket that a message shows, if this server or another shard of it has made it.
    pub(super) fn ticket_in(&self, message: &Message<'_>) -> Option<Ticket> {
        let MobilityTicket(bytes) = message.attribute().ok()??;
        self.tickets.as_ref()?.open(bytes)
    }

    /// The allocation that a ticket was made for.
    pub(super) fn of_ticket(&self, ticket: &Ticket) -> Option<&Allocation> {
        let allocation = self.allocations.find(ticket.allocation).filter(|_| ticket.shard == self.shard)?;
        allocation.ticket.is_some_and(|state| state.serial == ticket.serial).then_some(allocation)
    }

    /// Decides about a Refresh request with a ticket: the allocation that it is about, and whether that moves.
    pub(super) fn claim(&self, now: Now, request: &Request<'_>) -> Result<(AllocationId, bool), Cause> {
        if self.tickets.is_none() {
            return Err(Cause::MobilityOff);
        }
        let five_tuple = request.reply.five_tuple;
        let ticket = self.ticket_in(&request.message).ok_or(Cause::InvalidTicket)?;
        let allocation = self.of_ticket(&ticket).ok_or(Cause::NoAllocation)?;
        let TicketState { generation, used, .. } = allocation.ticket.ok_or(Cause::NoAllocation)?;
        let is_here = allocation.newest() == Some(five_tuple);
        let is_new = ticket.generation == generation;
        // The client has moved here and asks again, since it has not got its answer.
        let is_again =
            ticket.generation.wrapping_add(1) == generation && used.is_some_and(|used| now.instant < used + OLD_TICKET);
        if !(is_new && !is_here || is_again && is_here) {
            return Err(Cause::InvalidTicket);
        }
        if !self.is_of_user(allocation, request) {
            return Err(Cause::WrongUser);
        }
        // Connections to peers need a client that can make connections (RFC 6062 section 5.1).
        if allocation.peers == PeerTransport::Tcp && !five_tuple.transport.is_stream() {
            return Err(Cause::TransportMismatch);
        }
        let is_of_another = self.allocations.of_client(&five_tuple).is_some_and(|(id, _)| id != ticket.allocation);
        if is_of_another || self.pending.contains_key(&five_tuple) {
            return Err(Cause::AllocationExists);
        }
        Ok((ticket.allocation, is_new))
    }

    /// Moves an allocation to where its ticket came from.
    pub(super) fn move_to(&mut self, now: Instant, id: AllocationId, to: FiveTuple) {
        // Of two addresses, the newer one is the old one now.
        self.settle(now, id);
        let Some(allocation) = self.allocations.find_mut(id) else { return };
        let (from, was_lost) = (allocation.five_tuple, allocation.presence == Presence::Lost);
        allocation.presence = Presence::Moving(to);
        if let Some(state) = &mut allocation.ticket {
            state.generation = state.generation.wrapping_add(1);
            state.used = Some(now);
        }
        let has_no_data = allocation.peers == PeerTransport::Tcp;
        allocation.lease.move_to(to.client.ip());
        self.allocations.add_client(to, id);
        self.outbox.push(Effect::Moved { allocation: id, from, to });
        // There is nothing to wait for where nothing can be sent, or no data will come.
        if was_lost || has_no_data {
            self.settle(now, id);
        }
    }

    /// A client is heard of by data at an address that it has moved to.
    pub(super) fn moved_for_good(&mut self, now: Instant, id: AllocationId) {
        self.settle(now, id);
        // It has got its answer.
        if let Some(state) = self.allocations.find_mut(id).and_then(|allocation| allocation.ticket.as_mut()) {
            state.used = None;
        }
        self.outbox.hurry(now);
    }

    /// Forgets the old address of a client that has moved. All its flows follow.
    fn settle(&mut self, now: Instant, id: AllocationId) {
        let Some(allocation) = self.allocations.find_mut(id) else { return };
        let Presence::Moving(to) = allocation.presence else { return };
        let from = allocation.five_tuple;
        allocation.move_flows(id, to, now, &mut self.outbox);
        allocation.presence = Presence::Here;
        self.allocations.count_move(&from, &to);
        // A client that was lost may have come back to where it was.
        if from != to && self.allocations.remove_client(&from, id) {
            self.outbox.push(Effect::Left { allocation: id, five_tuple: from });
        }
    }

    /// A client's connection has ended. Its allocation does too, unless the client has a ticket to come back with.
    pub(super) fn lose_client(&mut self, now: Instant, five_tuple: &FiveTuple) {
        let Some((id, allocation)) = self.allocations.of_client(five_tuple) else { return };
        let (ticket, presence) = (allocation.ticket, allocation.presence);
        let was_old = allocation.five_tuple == *five_tuple;
        // First, so that nothing is sent there any more.
        self.allocations.remove_client(five_tuple, id);
        if ticket.is_none() {
            return self.end_allocation(id, EndReason::ClientLost);
        }
        self.outbox.push(Effect::Left { allocation: id, five_tuple: *five_tuple });
        match presence {
            Presence::Moving(_) if was_old => self.settle(now, id),
            Presence::Moving(_) => self.set_presence(id, Presence::Here),
            Presence::Here | Presence::Lost => {
                self.end_all_flows(id);
                self.set_presence(id, Presence::Lost);
            }
        }
    }

    fn set_presence(&mut self, id: AllocationId, presence: Presence) {
        if let Some(allocation) = self.allocations.find_mut(id) {
            allocation.presence = presence;
        }
    }

    fn end_all_flows(&mut self, id: AllocationId) {
        let Some(allocation) = self.allocations.find_mut(id) else { return };
        for family in allocation.families() {
            allocation.end_flows(id, family, &mut self.outbox);
        }
    }
}
