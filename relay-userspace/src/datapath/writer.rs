//! The one writer of the BPF maps: a thread that takes commands, watches routes and neighbours, and sweeps what expired.
//!
//! All decisions are in [`FlowTable`], [`NextHops`] and [`PortRoles`], which know no clock and
//! no socket. This file is the loop around them.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hairpin_common::maps::tick;
use hashbrown::HashSet;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::time::ClockId;

use super::handle::{Command, Queue};
use super::kernel_maps::KernelMaps;
use super::listeners::Listeners;
use super::maps::WriteMaps as _;
use super::next_hop::message::Event;
use super::next_hop::netlink::Netlink;
use super::next_hop::{NextHops, USE_INTERVAL};
use super::port_roles::PortRoles;
use super::table::{FlowTable, InsertError, Install};

/// Commands taken before the loop looks at events and timers again.
const BATCH: usize = 1024;

/// How long to collect changes of routes before all destinations are asked for again: they come in bursts.
const REROUTE_DELAY: Duration = Duration::from_millis(50);

/// A host whose routes never rest (a BGP speaker) must not keep the writer from its other work: after a round, this many
/// times the round's own duration pass before the next.
const REROUTE_REST: u32 = 9;

/// How often to look for expired flows.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Everything the thread owns.
pub(super) struct Writer {
    maps: KernelMaps,
    table: FlowTable<Netlink>,
    ports: PortRoles,
    listeners: Listeners,
    queue: Queue,
    timers: Timers,
    warned: Warned,
}

#[derive(Debug)]
struct Timers {
    sweep: Instant,
    report_use: Instant,
    /// Set while there are changes of routes to follow.
    reroute: Option<Instant>,
    earliest_reroute: Instant,
}

/// Which causes of failed inserts were logged. Clients can make any number of them, so each is logged once.
#[derive(Clone, Copy, Debug, Default)]
struct Warned {
    map_full: bool,
    next_hops_full: bool,
    listeners: bool,
}

/// What a writer begins with.
pub(super) struct Parts {
    pub(super) maps: KernelMaps,
    pub(super) netlink: Netlink,
    pub(super) ports: PortRoles,
    pub(super) listeners: Listeners,
    pub(super) relay_addresses: Vec<IpAddr>,
    pub(super) queue: Queue,
}

impl Writer {
    pub(super) fn new(Parts { maps, netlink, ports, listeners, relay_addresses, queue }: Parts) -> Self {
        let now = Instant::now();
        let mut writer = Self {
            maps,
            table: FlowTable::new(NextHops::new(netlink), &relay_addresses),
            ports,
            listeners,
            queue,
            timers: Timers { sweep: now, report_use: now, reroute: None, earliest_reroute: now },
            warned: Warned::default(),
        };
        writer.follow_addresses();
        writer
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self) {
        while self.take_commands() {
            self.take_events();
            self.run_timers();
            self.publish();
            if let Err(error) = self.wait() {
                // Only a defect makes poll fail. Without it the loop would spin, so it is slowed down instead.
                tracing::error!(%error, "the datapath cannot wait for commands");
                std::thread::sleep(REROUTE_DELAY);
            }
        }
    }

    /// `false` when it is time to stop.
    fn take_commands(&mut self) -> bool {
        for _ in 0..BATCH {
            let Some(command) = self.queue.try_next() else { break };
            match command {
                Command::Install { flow, expires, change } => {
                    let (now, monotonic) = (Instant::now(), monotonic_ns());
                    let install = Install { flow, expires: expiry_tick(expires, now, monotonic), change };
                    let installed = self.table.install(install, tick(monotonic), &mut self.maps);
                    self.note(installed);
                }
                Command::Remove(flow) => self.table.remove(flow, &mut self.maps),
                Command::ClaimPort(port, role) => {
                    if let Some(change) = self.ports.claim(port, role) {
                        self.maps.set_port_roles(change);
                    }
                }
                Command::ReleasePort(port, role) => {
                    if let Some(change) = self.ports.release(port, role) {
                        self.maps.set_port_roles(change);
                    }
                }
                Command::ResetAllocation { index, change } => {
                    self.queue.counters().zero_allocation(index);
                    self.maps.state().settle(index, change);
                }
                Command::Flush(answer) => {
                    self.publish();
                    drop(answer);
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn take_events(&mut self) {
        let mut neighbours: HashSet<(u32, IpAddr)> = HashSet::new();
        let mut topology = false;
        let taken = self.table.next_hops().rib_mut().take_events(|event| match event {
            Event::Neighbour { interface, address } => {
                neighbours.insert((interface, address));
            }
            Event::Topology => topology = true,
        });
        for (interface, address) in neighbours {
            self.table.next_hops().refresh_neighbour(interface, address, &mut self.maps);
        }
        // Events were lost, of whatever kind: following the routes looks at neighbours too.
        if topology || taken.is_err() {
            let due = (Instant::now() + REROUTE_DELAY).max(self.timers.earliest_reroute);
            self.timers.reroute.get_or_insert(due);
        }
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        if self.timers.reroute.is_some_and(|due| due <= now) {
            self.timers.reroute = None;
            let failures = self.table.reroute(&mut self.maps);
            self.queue.counters().count_insert_failures(failures);
            self.follow_addresses();
            self.timers.earliest_reroute = Instant::now() + now.elapsed() * REROUTE_REST;
        }
        if self.timers.report_use <= now {
            self.timers.report_use = now + USE_INTERVAL;
            self.table.next_hops().report_use();
        }
        if self.timers.sweep <= now {
            self.timers.sweep = now + SWEEP_INTERVAL;
            self.table.sweep(tick(monotonic_ns()), &mut self.maps);
        }
    }

    /// Listeners that listen everywhere are where this host's addresses are.
    fn follow_addresses(&mut self) {
        let local: Vec<_> = match if_addrs::get_if_addrs() {
            Ok(interfaces) => interfaces.iter().map(if_addrs::Interface::ip).collect(),
            Err(error) => {
                tracing::warn!(%error, "the addresses of this host cannot be listed");
                return;
            }
        };
        let is_full = self.listeners.follow(&local, &mut self.maps).is_err();
        if is_full && !std::mem::replace(&mut self.warned.listeners, true) {
            tracing::warn!("XDP: the flow map has no room for all listeners; some are served by userspace");
        }
    }

    fn publish(&self) {
        self.queue.counters().set_flows(self.table.resident());
    }

    /// Sleeps until there is a command, an event, or something to do by the clock.
    fn wait(&mut self) -> io::Result<()> {
        let timeout = self.timeout();
        if !self.queue.fall_asleep() {
            return Ok(());
        }
        let polled = {
            let netlink = self.table.next_hops().rib_mut();
            let mut waiting = [
                PollFd::from_borrowed_fd(self.queue.wake_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(netlink.events_fd(), PollFlags::IN),
            ];
            rustix::event::poll(&mut waiting, timeout.as_ref())
        };
        self.queue.wake_up();
        match polled {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A datapath without flows has nothing to sweep and nobody to report, and sleeps until something comes.
    fn timeout(&self) -> Option<Timespec> {
        let periodic = (!self.table.is_empty()).then(|| self.timers.sweep.min(self.timers.report_use));
        let due = self.timers.reroute.into_iter().chain(periodic).min()?;
        Timespec::try_from(due.saturating_duration_since(Instant::now())).ok()
    }

    fn note(&mut self, installed: Result<(), InsertError>) {
        let Err(error) = installed else { return };
        self.queue.counters().count_insert_failures(1);
        let warned = match error {
            InsertError::MapFull => &mut self.warned.map_full,
            InsertError::NextHopsFull => &mut self.warned.next_hops_full,
        };
        if !std::mem::replace(warned, true) {
            tracing::warn!("XDP: {error}");
        }
    }
}

/// `CLOCK_MONOTONIC`, which is also what the program reads.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    // It counts from the start of the system, so neither part is negative.
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The tick at which a record must be over by `expires`: rounded down, so that the kernel is never more permissive than
/// userspace. `now` and `monotonic_ns` are the same moment on both clocks.
fn expiry_tick(expires: Instant, now: Instant, monotonic_ns: u64) -> u32 {
    let left = expires.saturating_duration_since(now);
    tick(monotonic_ns.saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK_NS: u64 = 1 << 27;

    #[test]
    fn expiry_is_rounded_down_to_a_whole_tick() {
        let now = Instant::now();
        let at = |nanoseconds| expiry_tick(now + Duration::from_nanos(nanoseconds), now, 10 * TICK_NS);
        assert_eq!(at(5 * TICK_NS), 15);
        assert_eq!(at(5 * TICK_NS - 1), 14);
        assert_eq!(at(5 * TICK_NS + 1), 15);
        // Less than a tick is left: over at once, rather than too late.
        assert_eq!(at(TICK_NS - 1), 10);
    }

    #[test]
    fn the_past_is_over() {
        let now = Instant::now();
        let past = now.checked_sub(Duration::from_secs(1)).unwrap();
        assert_eq!(expiry_tick(past, now, 10 * TICK_NS), 10);
    }

    #[test]
    fn the_monotonic_clock_is_the_one_that_instants_are_of() {
        let (monotonic, instant) = (monotonic_ns(), Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        let (later, elapsed) = (monotonic_ns(), instant.elapsed());
        let difference = Duration::from_nanos(later - monotonic).abs_diff(elapsed);
        assert!(difference < Duration::from_millis(10), "clocks differ by {difference:?}");
    }
}
