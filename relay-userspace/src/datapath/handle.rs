//! The way of a command from any thread to the writer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, fence};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, TryRecvError};
use hairpin_common::maps::{AllocationCount, PortRole};
use rustix::event::EventfdFlags;

use super::counters::{CounterMaps, Counters};
use super::flow::Flow;

/// Most commands that may wait before installs are refused.
///
/// The queue itself has no bound: a removal takes a permission away and must neither be lost nor make a shard wait.
/// Installs are what can come in masses, and one that is left out costs speed only. The writer takes about 90,000 new
/// flows a second, all to destinations it has to ask the kernel for, so this is less than a second of work, and 11 MB.
const MAX_QUEUE: usize = 65_536;

/// What the relay's threads tell the datapath. Cheap to clone; no method waits for anything.
///
/// Of a datapath that is off, every method returns at once, counters are zero.
#[derive(Clone, Debug, Default)]
pub struct Handle {
    shared: Option<Arc<Shared>>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared: Some(shared) }
    }

    /// Whether the kernel forwards at all. Where it doesn't, a caller can spare itself the work of describing flows.
    pub fn is_active(&self) -> bool {
        self.shared.is_some()
    }

    /// Has the kernel forward a flow until `expires`, or until a later call extends it. A flow that has another one's
    /// addresses and channel, or peer and relayed address, takes its place.
    ///
    /// A flow that can't be forwarded stays in userspace, and nobody needs to know; see [`Counters::insert_failures`].
    pub fn install(&self, flow: Flow, expires: Instant) {
        let Some(shared) = &self.shared else { return };
        if shared.commands.len() < MAX_QUEUE {
            shared.send(Command::Install { flow, expires });
        } else {
            shared.counters.count_insert_failures(1);
        }
    }

    /// Ends the forwarding of a flow. One that was never installed, or is gone, is fine.
    pub fn remove(&self, flow: Flow) {
        self.send(Command::Remove(flow));
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

    /// Sets an allocation's counters to zero. To be called between the removal of the last flow of the allocation that
    /// had the index, and the first install for the one that gets it.
    pub fn reset_allocation(&self, index: u32) {
        self.send(Command::ResetAllocation(index));
    }

    /// What was counted so far: one system call for each [`Verdict`](hairpin_common::verdict::Verdict).
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
    },
    Remove(Flow),
    ClaimPort(u16, PortRole),
    ReleasePort(u16, PortRole),
    ResetAllocation(u32),
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
        assert!(!handle.is_active());
        assert_eq!(handle.counters(), Counters::default());
        assert_eq!(handle.allocation_count(0), AllocationCount::default());
    }
}
