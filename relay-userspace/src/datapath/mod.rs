//! The kernel fast path, seen from userspace: the XDP program, and the one writer of its maps.
//!
//! The fast path is a cache of the slow path. [`Handle`]s say which flows the relay has just decided to forward; a thread
//! of its own resolves next hops and writes records ([`Handle::install`] never waits for it). Whatever does not get there
//! (map full, no route that XDP can take, no XDP at all) is forwarded by the userspace path instead, and counted where
//! it was meant to work.
//!
//! From the outside in: `handle` (commands and their queue) → `writer` (the thread) → `table` (which flows, which
//! records) → `record` (a record's bytes) and `next_hop` (routes, links, neighbours) → `maps` (the kernel's tables).

mod allocation_counts;
mod attach;
mod counters;
mod flow;
pub mod flow_map;
mod handle;
pub mod hop;
mod kernel_maps;
mod maps;
mod next_hop;
mod port_roles;
pub mod program;
mod record;
mod shared_memory;
mod table;
mod writer;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hairpin_common::maps::PortRole;

use self::counters::CounterMaps;
pub use self::counters::Counters;
pub use self::flow::Flow;
pub use self::handle::Handle;
use self::handle::{Command, Shared};
use self::kernel_maps::KernelMaps;
use self::maps::WriteMaps as _;
use self::next_hop::netlink::Netlink;
use self::port_roles::PortRoles;
use self::program::{Capacities, Maps, Program, ProgramError};
pub(crate) use self::shared_memory::SharedMemory;
use self::writer::Writer;

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
    /// Interfaces to attach to; none for those of the default routes.
    pub interfaces: Vec<String>,
    /// Allocations that have counters of their own: [`Flow::allocation`] is less than this.
    pub max_allocations: u32,
    /// Flows of each IP version that the kernel has room for. The memory is taken at once: 1 to 2 KB for one of each
    /// version, since the tables grow in powers of two.
    pub flows: u32,
    /// Ports where clients reach the server, as often as there are sockets.
    pub listener_ports: Vec<u16>,
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
    /// No interface was named, and there is no default route to tell one.
    #[error("XDP: there is no default route to tell the interface; name it with --interface")]
    NoDefaultRoute,
    /// The kernel does not say what its interfaces and routes are.
    #[error("XDP: cannot ask the kernel for interfaces and routes: {0}")]
    Netlink(io::Error),
    /// The writer's thread, or what it needs, can't be made.
    #[error("XDP: cannot start the thread that serves it: {0}")]
    Thread(io::Error),
}

/// Whether and how the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
    /// Not attached.
    None,
}

/// What became of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Its name.
    pub interface: String,
    /// How the program is attached.
    pub mode: AttachedMode,
    /// Why not better.
    pub reason: Option<String>,
}

/// The running fast path, or the knowledge that there is none. Ends when it is dropped.
#[derive(Debug)]
pub struct Datapath {
    running: Option<Running>,
    interfaces: Vec<InterfaceStatus>,
    /// Why nothing is attached.
    off: Option<String>,
}

#[derive(Debug)]
struct Running {
    /// Attached for as long as this lives.
    program: Option<Program>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Datapath {
    /// Loads and attaches the program and starts its writer, all in the network namespace of the calling thread.
    ///
    /// With [`XdpMode::Auto`], only an interface that does not exist is an error: everything else that fails leaves a
    /// datapath that does nothing, and [`Datapath::summary`] says why.
    pub fn start(options: Options) -> Result<Self, StartError> {
        if options.mode == XdpMode::Off {
            return Ok(Self::off("--xdp off", Vec::new()));
        }
        let mode = options.mode;
        match Self::start_attached(options) {
            Err(error @ StartError::UnknownInterface(_)) => Err(error),
            Err(error) if mode == XdpMode::Auto => {
                let text = error.to_string();
                Ok(Self::off(text.strip_prefix("XDP: ").unwrap_or(&text), Vec::new()))
            }
            other => other,
        }
    }

    /// A datapath that is not there, and why.
    pub fn none(reason: &str) -> Self {
        Self::off(reason, Vec::new())
    }

    /// The way to tell it what to forward.
    pub fn handle(&self) -> Handle {
        self.running.as_ref().map(|running| Handle::new(Arc::clone(&running.shared))).unwrap_or_default()
    }

    /// Every interface that was considered.
    pub fn status(&self) -> &[InterfaceStatus] {
        &self.interfaces
    }

    /// One line for the operator.
    pub fn summary(&self) -> String {
        if let Some(reason) = &self.off {
            return format!("XDP: userspace only: {reason}");
        }
        let interfaces: Vec<_> = self.interfaces.iter().map(ToString::to_string).collect();
        format!("XDP: {}", interfaces.join("; "))
    }

    /// Whether its thread has ended, which only a defect makes it do: removals are no longer carried out then.
    pub fn has_stopped(&self) -> bool {
        self.running.as_ref().and_then(|running| running.thread.as_ref()).is_some_and(JoinHandle::is_finished)
    }

    /// Waits until every command that was given before is in the kernel; `false` if that took longer than `timeout`.
    pub fn flush(&self, timeout: Duration) -> bool {
        let Some(running) = &self.running else { return true };
        let (answer, answered) = crossbeam::channel::bounded::<()>(0);
        running.shared.send(Command::Flush(answer));
        // The writer answers by dropping its end.
        answered.recv_timeout(timeout) == Err(crossbeam::channel::RecvTimeoutError::Disconnected)
    }

    /// Detaches the program and ends the writer.
    pub fn shutdown(self) {
        drop(self);
    }

    fn off(reason: &str, interfaces: Vec<InterfaceStatus>) -> Self {
        Self { running: None, interfaces, off: Some(reason.to_owned()) }
    }

    fn start_attached(options: Options) -> Result<Self, StartError> {
        let Options { mode, interfaces, max_allocations, flows, listener_ports } = options;
        let mut netlink = Netlink::open().map_err(StartError::Netlink)?;
        let interfaces = choose_interfaces(&mut netlink, interfaces)?;
        // Each flow is two records.
        let capacities = Capacities { flows: flows.saturating_mul(2), allocations: max_allocations };
        let mut program = Program::load(capacities)?;
        let Maps { flows4, flows6, port_roles, next_hops, verdicts, allocations } = program.take_maps()?;
        let mut maps = KernelMaps { flows4, flows6, port_roles, next_hops };
        let mut ports = PortRoles::default();
        for port in listener_ports {
            if let Some(change) = ports.claim(port, PortRole::Listener) {
                maps.set_port_roles(change);
            }
        }

        let mut veths = Vec::new();
        for name in &interfaces {
            if netlink.link_by_name(name).map_err(StartError::Netlink)?.is_some_and(|link| link.is_veth) {
                veths.push(name.clone());
            }
        }
        let is_veth = |name: &str| veths.iter().any(|veth| veth == name);
        let interfaces = attach::attach_all(&mut program, mode, &interfaces, is_veth)?;
        if interfaces.iter().all(|status| status.mode == AttachedMode::None) {
            let reasons: Vec<_> = interfaces.iter().filter_map(|status| status.reason.as_deref()).collect();
            return Ok(Self::off(&reasons.join("; "), interfaces.clone()));
        }

        let (shared, queue) = Shared::new(CounterMaps::new(verdicts, allocations)).map_err(StartError::Thread)?;
        let writer = Writer::new(maps, netlink, ports, queue);
        let thread = std::thread::Builder::new()
            .name("datapath".to_owned())
            .spawn(move || writer.run())
            .map_err(StartError::Thread)?;
        let running = Running { program: Some(program), shared, thread: Some(thread) };
        Ok(Self { running: Some(running), interfaces, off: None })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // First nothing is forwarded any more, then nobody keeps the records true.
        drop(self.program.take());
        self.shared.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the datapath's thread panicked");
        }
    }
}

impl std::fmt::Display for InterfaceStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { interface, mode, reason } = self;
        match mode {
            AttachedMode::Native => write!(f, "native on {interface}")?,
            AttachedMode::Generic => write!(f, "generic on {interface}")?,
            AttachedMode::None => write!(f, "not on {interface}")?,
        }
        match reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// The interfaces that were named, or else those of the default routes.
fn choose_interfaces(netlink: &mut Netlink, named: Vec<String>) -> Result<Vec<String>, StartError> {
    if named.is_empty() {
        let found = netlink.default_interfaces().map_err(StartError::Netlink)?;
        return if found.is_empty() { Err(StartError::NoDefaultRoute) } else { Ok(found) };
    }
    let mut interfaces: Vec<String> = Vec::new();
    for name in named {
        if netlink.link_by_name(&name).map_err(StartError::Netlink)?.is_none() {
            return Err(StartError::UnknownInterface(name));
        }
        if !interfaces.contains(&name) {
            interfaces.push(name);
        }
    }
    Ok(interfaces)
}
