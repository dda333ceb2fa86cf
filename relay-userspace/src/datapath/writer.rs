//! The one writer of the BPF maps: a thread that takes commands, watches routes and neighbours, and sweeps what expired.
//!
//! All decisions are in [`FlowTable`], [`NextHops`] and [`PortRoles`], which know no clock and
//! no socket. This file is the loop around them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hairpin_common::maps::tick;
use hairpin_common::verdict::Verdict;
use hairpin_proto::turn::RelayAddress;
use hashbrown::HashSet;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::time::ClockId;

use super::attach::Attachments;
use super::choose::{self, Served};
use super::drivers::Drivers;
use super::flow::{Flow, Scope};
use super::handle::{Command, Queue};
use super::kernel_maps::KernelMaps;
use super::listeners::Listeners;
use super::local_addresses;
use super::maps::WriteMaps as _;
use super::next_hop::message::Event;
use super::next_hop::netlink::Netlink;
use super::next_hop::rib::{Link, LocalAddress};
use super::next_hop::{NextHops, USE_INTERVAL};
use super::port_roles::PortRoles;
use super::program::Program;
use super::relay_addresses::RelayAddresses;
use super::table::{FlowTable, InsertError, Install};

/// Commands taken before the loop looks at events and timers again.
const BATCH: usize = 1024;

/// Changes of routes and links come in bursts. The first is followed at once, what comes within this time after it
/// together.
const REROUTE_DELAY: Duration = Duration::from_millis(50);

/// A host whose routes never rest (a BGP speaker) must not keep the writer from its other work: after a round, this many
/// times the round's own duration pass before the next.
const REROUTE_REST: u32 = 9;

/// How often to look for expired flows.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How often to look whether packets had to be passed up for lack of room, until that was said.
const ROOM_INTERVAL: Duration = Duration::from_secs(10);

/// Everything the thread owns.
pub(super) struct Writer {
    /// Goes first: nothing is forwarded any more when nobody keeps the records true.
    attachments: Attachments<Program>,
    maps: KernelMaps,
    table: FlowTable<Netlink>,
    drivers: Option<Drivers>,
    ports: PortRoles,
    listeners: Listeners,
    /// What tells the interfaces, unless they were named.
    chosen: Option<Served>,
    /// Whether it may tell others than before.
    choose_again: bool,
    queue: Queue,
    timers: Timers,
    /// What changed since the last round.
    changed: Changed,
    warned: Warned,
    /// Clients that the kernel does not know of, for lack of room.
    hidden: HashSet<Hidden>,
}

/// Whose flow would have told the kernel that a client is no stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Hidden {
    /// An allocation's relayed address.
    Allocation(u32),
    /// A client that is vouched for.
    Client(Flow),
}

impl Hidden {
    /// Of a flow that tells it.
    fn by(flow: &Flow) -> Option<Self> {
        match flow.scope {
            Scope::Relay => Some(Self::Allocation(flow.allocation)),
            Scope::Client => Some(Self::Client(flow.canonical())),
            Scope::Permission { .. } | Scope::Channel { .. } | Scope::Media { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Timers {
    sweep: Instant,
    report_use: Instant,
    /// Set while there are changes to follow.
    follow: Option<Instant>,
    earliest_follow: Instant,
    /// Until it was said that there is too little.
    look_for_room: Option<Instant>,
}

/// What has to be asked for again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Changed {
    links: bool,
    addresses: bool,
    routes: bool,
}

impl Changed {
    const ALL: Self = Self { links: true, addresses: true, routes: true };
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
    pub(super) attachments: Attachments<Program>,
    pub(super) chosen: Option<Served>,
    pub(super) maps: KernelMaps,
    pub(super) netlink: Netlink,
    pub(super) drivers: Option<Drivers>,
    pub(super) ports: PortRoles,
    pub(super) listeners: Listeners,
    pub(super) relay_addresses: RelayAddresses,
    pub(super) queue: Queue,
}

impl Writer {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { attachments, chosen, maps, netlink, drivers, ports, listeners, relay_addresses, queue } = parts;
        let now = Instant::now();
        let mut writer = Self {
            attachments,
            maps,
            table: FlowTable::new(NextHops::new(netlink), relay_addresses),
            drivers,
            ports,
            listeners,
            chosen,
            choose_again: false,
            queue,
            timers: Timers {
                sweep: now,
                report_use: now,
                follow: None,
                earliest_follow: now,
                look_for_room: Some(now),
            },
            changed: Changed::ALL,
            warned: Warned::default(),
            hidden: HashSet::new(),
        };
        writer.follow(now);
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
                    if let Some(hidden) = Hidden::by(&flow) {
                        self.hide(hidden, installed.is_err());
                    }
                    self.note(installed);
                }
                Command::Remove(flow) => {
                    self.table.remove(flow, &mut self.maps);
                    if let Some(hidden @ Hidden::Client(_)) = Hidden::by(&flow) {
                        self.hide(hidden, false);
                    }
                }
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
                    self.queue.counters().begin_allocation(index);
                    self.maps.state().settle(index, change);
                    self.hide(Hidden::Allocation(index), false);
                }
                Command::SetListeners(listeners) => self.set_listeners(listeners),
                Command::SetRelayAddresses(addresses) => self.set_relay_addresses(addresses),
                Command::PathChanged => self.note_changed(Changed { routes: true, ..Changed::default() }),
                Command::Flush(answer) => {
                    self.publish();
                    drop(answer);
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn set_listeners(&mut self, listeners: Vec<SocketAddr>) {
        self.listeners.exchange(&listeners, &mut self.ports, &mut self.maps);
        self.warned.listeners = false;
        if let Some(chosen) = &mut self.chosen {
            chosen.listeners = listeners;
            self.choose_again = true;
        }
        self.follow_links(Instant::now());
    }

    fn set_relay_addresses(&mut self, addresses: Vec<RelayAddress>) {
        let failures = self.table.set_relay_addresses(&addresses, &mut self.maps);
        self.queue.counters().count_insert_failures(failures);
        if let Some(chosen) = &mut self.chosen {
            chosen.relay_addresses = addresses;
            self.choose_again = true;
            self.follow_links(Instant::now());
        }
    }

    fn take_events(&mut self) {
        let mut neighbours: HashSet<(u32, IpAddr)> = HashSet::new();
        let mut changed = Changed::default();
        let taken = self.table.next_hops().rib_mut().take_events(|event| match event {
            Event::Neighbour { interface, address } => {
                neighbours.insert((interface, address));
            }
            Event::Link => changed.links = true,
            Event::Address => changed.addresses = true,
            Event::Route => changed.routes = true,
        });
        for (interface, address) in neighbours {
            self.table.next_hops().refresh_neighbour(interface, address, &mut self.maps);
        }
        if taken.is_err() {
            // Events were lost, of whatever kind: following the routes looks at neighbours too.
            changed = Changed::ALL;
        }
        changed.links |= self.drivers.as_mut().is_some_and(Drivers::take_events);
        self.note_changed(changed);
    }

    fn note_changed(&mut self, changed: Changed) {
        if changed == Changed::default() {
            return;
        }
        self.changed.links |= changed.links;
        self.changed.addresses |= changed.addresses;
        self.changed.routes |= changed.routes;
        self.timers.follow.get_or_insert(self.timers.earliest_follow);
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        if self.attachments.due().is_some_and(|due| due <= now) {
            self.note_changed(Changed { links: true, ..Changed::default() });
        }
        if self.timers.follow.is_some_and(|due| due <= now) {
            self.timers.follow = None;
            self.follow(now);
            let end = Instant::now();
            self.timers.earliest_follow = end + REROUTE_DELAY.max((end - now) * REROUTE_REST);
        }
        if self.timers.report_use <= now {
            self.timers.report_use = now + USE_INTERVAL;
            self.table.next_hops().report_use();
        }
        if self.timers.sweep <= now {
            self.timers.sweep = now + SWEEP_INTERVAL;
            self.table.sweep(tick(monotonic_ns()), &mut self.maps);
        }
        if self.timers.look_for_room.is_some_and(|due| due <= now) {
            self.timers.look_for_room = self.has_room().then(|| now + ROOM_INTERVAL);
        }
    }

    /// Follows what changed. Whatever kind it is, routes may lead elsewhere now.
    fn follow(&mut self, now: Instant) {
        let changed = std::mem::take(&mut self.changed);
        if changed.links || changed.addresses {
            self.follow_links(now);
        }
        let failures = self.table.reroute(&mut self.maps);
        self.queue.counters().count_insert_failures(failures);
    }

    /// Brings up to date what depends on devices and their addresses: attachments, and where the listeners are.
    fn follow_links(&mut self, now: Instant) {
        let netlink = self.table.next_hops().rib_mut();
        let found = netlink.links().and_then(|links| Ok((links, netlink.local_addresses()?)));
        let (links, addresses) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "the kernel does not say which devices there are");
                self.note_changed(Changed::ALL);
                return;
            }
        };
        self.choose_interfaces(&links, &addresses);
        let drivers = &mut self.drivers;
        let takes_frames = |interface| drivers.as_mut()?.takes_frames(interface);
        self.attachments.follow(&links, takes_frames, &mut self.maps, now);
        let is_full = self.listeners.follow(&local_addresses::reachable(&addresses, &links), &mut self.maps).is_err();
        if is_full && !std::mem::replace(&mut self.warned.listeners, true) {
            tracing::warn!("XDP: the flow map has no room for all listeners; some are served by userspace");
        }
    }

    /// Finds the interfaces that what is served now asks for, beside those that have the program already.
    fn choose_interfaces(&mut self, links: &[Link], addresses: &[LocalAddress]) {
        let Some(served) = self.chosen.as_ref().filter(|_| self.choose_again) else { return };
        let default_routes = match self.table.next_hops().rib_mut().default_interfaces() {
            Ok(interfaces) => interfaces,
            Err(error) => {
                tracing::debug!(%error, "the kernel does not say which routes there are");
                self.note_changed(Changed::ALL);
                return;
            }
        };
        self.choose_again = false;
        // None at all is no reason to take the program off where it is.
        let names = choose::interfaces(&[], &served.addresses(), &default_routes, addresses, links);
        self.attachments.add(names.unwrap_or_default());
    }

    /// A driver that leaves no room around packets is noticed by nothing else than a busier userspace, so it is said.
    fn has_room(&self) -> bool {
        let packets = self.queue.counters().packets(Verdict::NoRoom);
        if packets > 0 {
            tracing::warn!(
                "XDP: a driver (a veth's, for one) leaves too little room around packets that are to become longer, as by the \
                 answer to a Binding request or by IPv6 headers: {packets} of them went through userspace so far \
                 (hairpin_xdp_passed_packets_total, reason \"{}\")",
                Verdict::NoRoom.label()
            );
        }
        packets == 0
    }

    fn publish(&self) {
        let counters = self.queue.counters();
        counters.set_flows(self.table.resident());
        counters.set_shares(self.maps.records(), self.table.next_hops_share());
    }

    /// Sleeps until there is a command, an event, or something to do by the clock.
    fn wait(&mut self) -> io::Result<()> {
        let timeout = self.timeout();
        if !self.queue.fall_asleep() {
            return Ok(());
        }
        let polled = {
            let netlink = self.table.next_hops().rib_mut();
            let events =
                [Some(self.queue.wake_fd()), Some(netlink.events_fd()), self.drivers.as_ref().map(Drivers::events_fd)];
            let mut waiting: Vec<_> =
                events.into_iter().flatten().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
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
        let due = self.timers.follow.into_iter().chain(self.attachments.due()).chain(periodic).min()?;
        Timespec::try_from(due.saturating_duration_since(Instant::now())).ok()
    }

    fn hide(&mut self, hidden: Hidden, is_hidden: bool) {
        let has_changed = if is_hidden { self.hidden.insert(hidden) } else { self.hidden.remove(&hidden) };
        if has_changed {
            self.maps.state().hide(self.hidden.len());
        }
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
