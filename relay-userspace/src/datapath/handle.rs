//! The way of a command from any thread to the writer.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, fence};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use hairpin_common::limit::Limit;
use hairpin_common::maps::{AllocationCount, PortRole};
use hairpin_common::verdict::Verdict;
use hairpin_proto::turn::RelayAddress;
use rustix::event::EventfdFlags;

use super::counters::{CounterMaps, Counters};
use super::flow::{Direction, Flow};
use super::limits::Limits;
use super::shared_state::SharedState;

/// Most commands that may wait before installs are refused.
///
/// The queue itself has no bound: a removal takes a permission away and must neither be lost nor make a shard wait.
/// Installs are what can come in masses, and one that is left out costs speed only. The writer takes about 90,000 new
/// flows a second, all to destinations it has to ask the kernel for, so this is less than a second of work, and 11 MB.
const MAX_QUEUE: usize = 65_536;

/// What the relay's threads tell the datapath. Cheap to clone; no method but [`Handle::flush`] waits for anything.
///
/// Of a datapath that is off, every method returns at once, counters are zero; limits hold all the same.
#[derive(Clone, Debug, Default)]
pub struct Handle {
    shared: Option<Arc<Shared>>,
    /// None of a handle of nothing.
    state: Option<Arc<SharedState>>,
}

impl Handle {
    pub(super) fn new(shared: Option<Arc<Shared>>, state: Arc<SharedState>) -> Self {
        Self { shared, state: Some(state) }
    }

    /// Whether the kernel forwards at all. Where it doesn't, a caller can spare itself the work of describing flows.
    pub fn is_active(&self) -> bool {
        self.shared.is_some()
    }

    /// Has the kernel forward a flow until `expires`, or until a later call extends it. A flow that a packet could not
    /// tell from another one takes its place.
    ///
    /// A flow that can't be forwarded stays in userspace, and nobody needs to know; see [`Counters::insert_failures`].
    /// The kernel drops nothing of the allocation for lack of a permission from now on until the flow is there. So this
    /// comes before the response that tells the client, and all flows of an allocation come from one thread.
    ///
    /// Of a client that moves (RFC 8016), first all flows with its new address are installed, the relay's before the
    /// others, and then those with the old one removed: records that belong to both change hands in place, and while one does,
    /// what meets it goes up. The other way round a peer could be taken for a stranger for a moment. So it is with a media
    /// path when one of its remotes becomes another.
    pub fn install(&self, flow: Flow, expires: Instant) {
        let (Some(shared), Some(state)) = (&self.shared, &self.state) else { return };
        let change = state.announce(flow.allocation);
        if shared.commands.len() < MAX_QUEUE {
            shared.send(Command::Install { flow, expires, change });
        } else {
            shared.counters.count_insert_failures(1);
        }
    }

    /// Ends the forwarding of a flow. One that was never installed, or is gone, is fine.
    pub fn remove(&self, flow: Flow) {
        self.send(Command::Remove(flow));
    }

    /// Vouches for a client of which the kernel knows nothing else, as of one over DTLS (RFC 7350), until `expires` or a
    /// later call: what it sends to the server goes up, and does not count as that of a stranger. It is for clients that
    /// have an allocation; their refreshes extend it.
    ///
    /// Each client that was vouched for is to be [unvouched](Handle::unvouch): one that found no room in the kernel keeps
    /// it from taking anybody for a stranger until then.
    pub fn vouch(&self, client: SocketAddr, server: SocketAddr, expires: Instant) {
        let Some(shared) = &self.shared else { return };
        if shared.commands.len() < MAX_QUEUE {
            // It is no allocation's, so there is nothing to announce.
            shared.send(Command::Install { flow: Flow::of_client(client, server), expires, change: 0 });
        } else {
            shared.counters.count_insert_failures(1);
        }
    }

    /// Takes back that somebody is no stranger. One that was never vouched for, or no longer, is fine.
    pub fn unvouch(&self, client: SocketAddr, server: SocketAddr) {
        self.send(Command::Remove(Flow::of_client(client, server)));
    }

    /// Adds a claim on a local port. The kernel looks only at packets to ports that somebody claims.
    ///
    /// Claims are counted: the same number can be claimed for several sockets, and each claim needs its own
    /// [`Handle::release_port`].
    pub fn claim_port(&self, port: u16, role: PortRole) {
        self.send(Command::ClaimPort(port, role));
    }

    /// Takes back one claim.
    pub fn release_port(&self, port: u16, role: PortRole) {
        self.send(Command::ReleasePort(port, role));
    }

    /// Sets an allocation's counters and meters to zero, and takes back its own limits. To be called between the removal of
    /// the last flow of the allocation that had the index, and the first install for the one that gets it, by the thread
    /// that calls these. The counters are zero when it returns, and stay so until the kernel forwards for the next one.
    pub fn reset_allocation(&self, index: u32) {
        let Some(state) = &self.state else { return };
        state.rest(index);
        if let Some(shared) = &self.shared {
            shared.counters.end_allocation(index);
            shared.send(Command::ResetAllocation { index, change: state.announce(index) });
        }
    }

    /// Whether a datagram of an allocation may be sent on, see [`SharedState::admit`]. Without limits it costs a look at them.
    #[inline]
    pub fn admit(&self, allocation: u32, direction: Direction, bytes: usize, now: u64) -> Result<(), Verdict> {
        self.state.as_ref().map_or(Ok(()), |state| state.admit(allocation, direction, bytes, now))
    }

    /// Whether a datagram from a source without an allocation may be looked at, see [`SharedState::admit_source`].
    #[inline]
    pub fn admit_source(&self, source: IpAddr, now: u64) -> Result<(), Verdict> {
        self.state.as_ref().map_or(Ok(()), |state| state.admit_source(source, now))
    }

    /// Exchanges the limits of rate, for both paths: when this returns, the next datagram is judged by the new ones,
    /// whether the program is there or not. Who has used up a burst gets no other one by it, and nobody has to wait for
    /// longer than the new limits ask. To be called by one thread at a time.
    pub fn set_limits(&self, limits: Limits) {
        if let Some(state) = &self.state {
            state.set_limits(limits);
        }
    }

    /// Gives an allocation, or a media path, limits of its own, which hold instead of the general ones for as long as it has
    /// its index: datagrams and bytes of application data in each direction. [`Limit::NONE`] takes one back. Both paths go
    /// by it from the next datagram on, and a change does to meters what [`Handle::set_limits`] does. To be called by the
    /// thread that calls [`Handle::reset_allocation`].
    pub fn limit_allocation(&self, index: u32, packets: Limit, bytes: Limit) {
        if let Some(state) = &self.state {
            state.limit_allocation(index, packets, bytes);
        }
    }

    /// Exchanges the addresses where clients reach the server; an unspecified one is every local one. Allocations go on
    /// for as long as the listener that their client uses is among them.
    ///
    /// `false` if there is no program that could be told, because the datapath was off from the start: it stays off.
    pub fn set_listeners(&self, listeners: Vec<SocketAddr>) -> bool {
        self.send(Command::SetListeners(listeners));
        self.is_active()
    }

    /// Exchanges the addresses that relayed addresses are made of. Flows that exist are looked at again, where one of
    /// these was their peer's or has become it.
    ///
    /// `false` as for [`Handle::set_listeners`].
    pub fn set_relay_addresses(&self, addresses: Vec<RelayAddress>) -> bool {
        self.send(Command::SetRelayAddresses(addresses));
        self.is_active()
    }

    /// Has the ways to clients and peers looked at again: the kernel has learned of a smaller MTU on one of them, which
    /// it tells nobody else. Many of these at once cost as much as one.
    pub fn path_changed(&self) {
        self.send(Command::PathChanged);
    }

    /// Waits until every command that was given before is in the kernel; `false` if that took longer than `timeout`.
    ///
    /// This is the one method that waits, mostly well below a millisecond, so it is for what is rare and must not seem to
    /// be done before it is.
    pub fn flush(&self, timeout: Duration) -> bool {
        let Some(shared) = &self.shared else { return true };
        let (answer, answered) = crossbeam::channel::bounded::<()>(0);
        shared.send(Command::Flush(answer));
        // The writer answers by dropping its end.
        answered.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }

    /// What was counted so far: one system call for each [`Verdict`].
    pub fn counters(&self) -> Counters {
        self.shared.as_ref().map_or(Counters::default(), |shared| shared.counters.read())
    }

    /// What the program relayed for an allocation, summed over all CPUs; zero for an index out of range.
    pub fn allocation_count(&self, index: u32) -> AllocationCount {
        self.shared.as_ref().map_or(AllocationCount::default(), |shared| shared.counters.allocation(index))
    }

    fn send(&self, command: Command) {
        if let Some(shared) = &self.shared {
            shared.send(command);
        }
    }
}

/// What a handle asks of the writer.
#[derive(Debug)]
pub(super) enum Command {
    Install {
        flow: Flow,
        expires: Instant,
        /// The number it was announced with.
        change: u32,
    },
    Remove(Flow),
    ClaimPort(u16, PortRole),
    ReleasePort(u16, PortRole),
    ResetAllocation {
        index: u32,
        change: u32,
    },
    SetListeners(Vec<SocketAddr>),
    SetRelayAddresses(Vec<RelayAddress>),
    PathChanged,
    /// To be answered (by dropping it) when everything before is done.
    Flush(Sender<()>),
    Stop,
}

/// What handles and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    commands: Sender<Command>,
    wake: OwnedFd,
    /// Set while the writer sleeps or is about to: only then is a wake-up worth a system call.
    asleep: AtomicBool,
    pub(super) counters: CounterMaps,
}

/// The writer's end of the queue.
#[derive(Debug)]
pub(super) struct Queue {
    commands: Receiver<Command>,
    shared: Arc<Shared>,
}

impl Shared {
    pub(super) fn new(counters: CounterMaps) -> std::io::Result<(Arc<Self>, Queue)> {
        let (sender, receiver) = crossbeam::channel::unbounded();
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Self { commands: sender, wake, asleep: AtomicBool::new(false), counters });
        Ok((Arc::clone(&shared), Queue { commands: receiver, shared }))
    }

    /// A writer that is gone takes no commands; there is nothing left that they could change.
    pub(super) fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            return;
        }
        // Pairs with the fence in `Queue::fall_asleep`: either this sees the flag, or the writer sees the command.
        fence(std::sync::atomic::Ordering::SeqCst);
        if self.asleep.load(Relaxed) && self.asleep.swap(false, Relaxed) {
            // It fails only when the counter is full of wake-ups already.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

impl Queue {
    pub(super) fn try_next(&self) -> Option<Command> {
        match self.commands.try_recv() {
            Ok(command) => Some(command),
            Err(TryRecvError::Empty) => None,
            // Cannot happen while `shared` holds a sender.
            Err(TryRecvError::Disconnected) => Some(Command::Stop),
        }
    }

    /// Announces that the writer will wait for [`Queue::wake_fd`]. `false`: there is a command after all, don't.
    pub(super) fn fall_asleep(&self) -> bool {
        self.shared.asleep.store(true, Relaxed);
        fence(std::sync::atomic::Ordering::SeqCst);
        let asleep = self.commands.is_empty();
        if !asleep {
            self.shared.asleep.store(false, Relaxed);
        }
        asleep
    }

    /// Ends the sleep and takes the wake-ups that came.
    pub(super) fn wake_up(&self) {
        self.shared.asleep.store(false, Relaxed);
        // It fails when nobody woke it.
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
    }

    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }

    pub(super) fn counters(&self) -> &CounterMaps {
        &self.shared.counters
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow::tests::flow4;
    use super::*;

    #[test]
    fn a_handle_of_nothing_does_nothing() {
        let handle = Handle::default();
        handle.install(flow4(), Instant::now());
        handle.remove(flow4());
        handle.vouch(flow4().client, flow4().server, Instant::now());
        handle.unvouch(flow4().client, flow4().server);
        assert!(handle.flush(Duration::ZERO));
        assert!(!handle.is_active());
        assert_eq!(handle.counters(), Counters::default());
        assert_eq!(handle.allocation_count(0), AllocationCount::default());
        handle.reset_allocation(0);
        handle.set_limits(Limits { relay_bytes: Limit::per_second(1, 0), ..Limits::default() });
        handle.limit_allocation(0, Limit::per_second(1, 0), Limit::NONE);
        assert!(!handle.set_listeners(vec![flow4().server]) && !handle.set_relay_addresses(Vec::new()));
        assert_eq!(handle.admit(0, Direction::ToPeer, 1000, 0), Ok(()));
        assert_eq!(handle.admit_source(flow4().client.ip(), 0), Ok(()));
    }
}
