//! The kernel fast path, seen from userspace: the XDP program, and the one writer of its maps.
//!
//! The fast path is a cache of the slow path. [`Handle`]s say which flows the relay has just decided to forward; a thread
//! of its own resolves next hops and writes records ([`Handle::install`] never waits for it). Whatever does not get there
//! (map full, no route that XDP can take, no XDP at all) is forwarded by the userspace path instead, and counted where
//! it was meant to work.
//!
//! From the outside in: `handle` (commands and their queue) → `writer` (the thread) → `table` (which flows, which
//! records) → `record` (a record's bytes) and `next_hop` (routes, links, neighbours) → `maps` (the kernel's tables).
//! Beside them are `shared_state`, the memory that shards and program share, and what follows the interfaces: `choose` and
//! `attach` (where the program is), `links` and `drivers` (whose frames are ours, who can be sent to), `status` (what
//! others get to know of it).

mod allocation_counts;
mod attach;
mod choose;
mod counters;
mod drivers;
mod flow;
pub mod flow_map;
mod handle;
pub mod hop;
mod kernel_maps;
mod limits;
mod links;
mod listeners;
mod local_addresses;
mod maps;
mod next_hop;
mod port_roles;
pub mod program;
mod record;
mod relay_addresses;
mod shared_memory;
mod shared_state;
mod status;
pub mod survey;
mod table;
mod writer;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hairpin_proto::turn::RelayAddress;

use self::attach::Attachments;
use self::choose::Served;
use self::counters::CounterMaps;
pub use self::counters::{Counters, Share};
use self::drivers::Drivers;
pub use self::flow::{Direction, Flow, Scope};
pub use self::handle::Handle;
use self::handle::{Command, Shared};
use self::kernel_maps::KernelMaps;
pub use self::limits::Limits;
use self::listeners::Listeners;
use self::next_hop::netlink::Netlink;
use self::port_roles::PortRoles;
use self::program::{Capacities, Maps, Program, ProgramError};
use self::relay_addresses::RelayAddresses;
pub(crate) use self::shared_memory::SharedMemory;
pub use self::shared_state::SharedState;
pub use self::status::{AttachedMode, Cause, InterfaceStatus, Interfaces, Reason};
use self::writer::{Parts, Writer};

/// How the operator wants XDP to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum XdpMode {
    /// In the driver where possible, else in the kernel's stack, else not at all
    #[default]
    Auto,
    /// In the driver, or fail
    Native,
    /// In the kernel's stack (slower, works with every driver), or fail
    Generic,
    /// Not at all: everything is relayed in userspace
    Off,
}

/// What a datapath is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether and how to attach.
    pub mode: XdpMode,
    /// Interfaces to attach to; none for those of the default routes and those that have one of the addresses below.
    pub interfaces: Vec<String>,
    /// Allocations that have counters and limits of their own: [`Flow::allocation`] is less than this.
    pub max_allocations: u32,
    /// Media paths that have them, too: of [`Scope::Media`], [`Flow::allocation`] is one of so many indices behind those of
    /// allocations.
    pub max_media: u32,
    /// Records that the kernel has room for, see [`Capacities::records`]. The memory is taken at once: 172 bytes for each.
    pub records: u32,
    /// Limits of rate. They hold without XDP, too.
    pub limits: Limits,
    /// Whether the program may answer Binding requests, which it does with XOR-MAPPED-ADDRESS alone: not where the daemon
    /// has more to say, such as RESPONSE-ORIGIN and OTHER-ADDRESS (RFC 5780 section 7).
    pub answer_binding: bool,
    /// Where clients reach the server, as often as there are sockets; an unspecified address is every local one.
    pub listeners: Vec<SocketAddr>,
    /// Addresses that relayed addresses are made of: a peer at one of them may be another client of this relay.
    pub relay_addresses: Vec<RelayAddress>,
}

impl Options {
    /// How many indices [`Flow::allocation`] can have.
    fn indices(&self) -> u32 {
        self.max_allocations.saturating_add(self.max_media)
    }
}

/// Why there is no kernel fast path, although it was asked for. The text is meant for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program can't be loaded or attached.
    #[error("XDP: {0}")]
    Program(#[from] ProgramError),
    /// An interface was named that does not exist.
    #[error("--interface {0}: there is no such network interface (`ip link` lists those that exist)")]
    UnknownInterface(String),
    /// No interface was named, and neither a default route nor an address of the relay tells one.
    #[error("XDP: there is no default route to tell the interface; name it with --interface")]
    NoDefaultRoute,
    /// The kernel does not say what its interfaces and routes are.
    #[error("XDP: cannot ask the kernel for interfaces and routes: {0}")]
    Netlink(io::Error),
    /// There is no memory to count limits in.
    #[error("cannot get memory for limits of rate: {0}")]
    Memory(io::Error),
    /// The writer's thread, or what it needs, can't be made.
    #[error("XDP: cannot start the thread that serves it: {0}")]
    Thread(io::Error),
}

/// The running fast path, or the knowledge that there is none. Ends when it is dropped.
#[derive(Debug)]
pub struct Datapath {
    running: Option<Running>,
    /// What shards share with the program; with each other, where there is none.
    state: Arc<SharedState>,
    interfaces: Interfaces,
    /// Why nothing is attached.
    off: Option<String>,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    map_bytes: u64,
}

impl Datapath {
    /// Loads and attaches the program and starts its writer, all in the network namespace of the calling thread.
    ///
    /// With [`XdpMode::Auto`], only an interface that does not exist is an error: everything else that fails leaves a
    /// datapath that does nothing, and [`Datapath::summary`] says why.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        if options.mode == XdpMode::Off {
            return Self::none("--xdp off", options);
        }
        match Self::start_attached(options) {
            Err(error @ StartError::UnknownInterface(_)) => Err(error),
            Err(error) if options.mode == XdpMode::Auto => {
                let text = error.to_string();
                Self::none(text.strip_prefix("XDP: ").unwrap_or(&text), options)
            }
            other => other,
        }
    }

    /// A datapath without the program, and why. It only knows the limits.
    pub fn none(reason: &str, options: &Options) -> Result<Self, StartError> {
        Self::off(reason, Interfaces::default(), options)
    }

    /// The way to tell it what to forward.
    pub fn handle(&self) -> Handle {
        Handle::new(self.running.as_ref().map(|running| Arc::clone(&running.shared)), Arc::clone(&self.state))
    }

    /// Bytes of memory that the kernel's maps take, see [`Capacities::bytes`]; 0 without the program.
    pub fn map_bytes(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.map_bytes)
    }

    /// Where to look for [`Datapath::status`] without the datapath.
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// Every interface that was considered, as it is now.
    pub fn status(&self) -> Vec<InterfaceStatus> {
        self.interfaces.status()
    }

    /// One line for the operator.
    pub fn summary(&self) -> String {
        if let Some(reason) = &self.off {
            return format!("XDP: userspace only: {reason}");
        }
        let interfaces: Vec<_> = self.interfaces.status().iter().map(ToString::to_string).collect();
        format!("XDP: {}", interfaces.join("; "))
    }

    /// Whether its thread has ended, which only a defect makes it do: removals are no longer carried out then.
    pub fn has_stopped(&self) -> bool {
        self.running.as_ref().and_then(|running| running.thread.as_ref()).is_some_and(JoinHandle::is_finished)
    }

    /// Waits until every command that was given before is in the kernel; `false` if that took longer than `timeout`.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.handle().flush(timeout)
    }

    /// Detaches the program and ends the writer.
    pub fn shutdown(self) {
        drop(self);
    }

    fn off(reason: &str, interfaces: Interfaces, options: &Options) -> Result<Self, StartError> {
        let state = SharedState::alone(options.indices(), program::random_seed()?).map_err(StartError::Memory)?;
        state.set_limits(options.limits);
        Ok(Self { running: None, state: Arc::new(state), interfaces, off: Some(reason.to_owned()) })
    }

    fn start_attached(options: &Options) -> Result<Self, StartError> {
        let Options { mode, records, limits, answer_binding, .. } = *options;
        let served = Served { listeners: options.listeners.clone(), relay_addresses: options.relay_addresses.clone() };
        let mut netlink = Netlink::open().map_err(StartError::Netlink)?;
        let links_now = netlink.links().map_err(StartError::Netlink)?;
        let interfaces = choose::interfaces(
            &options.interfaces,
            &served.addresses(),
            &netlink.default_interfaces().map_err(StartError::Netlink)?,
            &netlink.local_addresses().map_err(StartError::Netlink)?,
            &links_now,
        )?;
        let capacities = Capacities { records, allocations: options.indices() };
        let mut program = Program::load(capacities, answer_binding)?;
        let map_bytes = program.map_bytes();
        let Maps { flows, port_roles, next_hops, relay_addresses, links, devices, verdicts, allocations, state } =
            program.take_maps()?;
        // Before the first packet.
        state.set_limits(limits);
        let state = Arc::new(state);
        let mut maps =
            KernelMaps { flows, port_roles, next_hops, relay_addresses, links, devices, state: Arc::clone(&state) };
        let mut own = RelayAddresses::default();
        own.exchange(&served.relay_addresses, &mut maps);
        let (mut ports, mut listeners) = (PortRoles::default(), Listeners::default());
        listeners.exchange(&served.listeners, &mut ports, &mut maps);

        let attachments = Attachments::start(program, mode, interfaces, &links_now)?;
        let interfaces = attachments.published().clone();
        if !attachments.is_attached() {
            let reasons = interfaces.status().into_iter().filter_map(|status| status.reason.map(|reason| reason.text));
            return Self::off(&reasons.collect::<Vec<_>>().join("; "), interfaces, options);
        }

        let (shared, queue) = Shared::new(CounterMaps::new(verdicts, allocations)).map_err(StartError::Thread)?;
        let drivers = Drivers::open().map_err(StartError::Netlink)?;
        let chosen = options.interfaces.is_empty().then_some(served);
        let parts =
            Parts { attachments, chosen, maps, netlink, drivers, ports, listeners, relay_addresses: own, queue };
        let writer = Writer::new(parts);
        let thread = std::thread::Builder::new()
            .name("datapath".to_owned())
            .spawn(move || writer.run())
            .map_err(StartError::Thread)?;
        let running = Running { shared, thread: Some(thread), map_bytes };
        Ok(Self { running: Some(running), state, interfaces, off: None })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the datapath's thread panicked");
        }
    }
}
