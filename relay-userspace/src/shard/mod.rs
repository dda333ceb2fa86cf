//! A shard: one thread with its own listeners, engine, relay sockets and stripe of the relay ports.
//!
//! The way of a packet that the kernel did not forward: [`sockets`] says which sockets are readable, `run` receives a
//! batch from them, gives each datagram to the engine, and sends what the engine wants forwarded. Shards share nothing
//! that a packet touches.

mod report;
mod reservations;
mod run;
mod sockets;

use std::io;
use std::thread::{self, JoinHandle};

use hairpin_proto::turn::{RelayTranslation, Server};
use tokio::sync::{mpsc, oneshot};

pub use self::report::{Counters, LIMITS, Report};
pub use self::reservations::Reservations;
use self::run::Shard;
use self::sockets::Sockets;
use crate::datapath;
use crate::net::UdpSocket;

/// What a shard is made of.
pub struct Parts {
    /// Its place among the shards, and how many there are.
    pub index: u32,
    /// How many shards there are.
    pub shards: u32,
    /// Its sockets for clients.
    pub listeners: Vec<UdpSocket>,
    /// Its engine.
    pub server: Server,
    /// What relayed addresses are called on either side of a NAT.
    pub translation: RelayTranslation,
    /// The reserved sockets of all shards.
    pub reservations: Reservations,
    /// Where kernel flows are installed.
    pub datapath: datapath::Handle,
}

enum Command {
    Report(oneshot::Sender<Report>),
    Shutdown,
}

/// A running shard.
#[derive(Debug)]
pub struct ShardHandle {
    commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
}

/// Asks a shard questions; for threads other than the one that owns its [`ShardHandle`].
#[derive(Clone, Debug)]
pub struct ShardQuery(mpsc::UnboundedSender<Command>);

impl ShardHandle {
    /// Starts the shard's thread.
    pub fn spawn(parts: Parts) -> io::Result<Self> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let index = parts.index;
        let sockets = Sockets::new(parts.listeners, parts.reservations, parts.datapath.clone())?;
        let shard = Shard::new(parts.server, parts.translation, sockets, parts.datapath, parts.index, parts.shards);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
            if let Err(error) = runtime.block_on(shard.run(inbox)) {
                tracing::error!(shard = index, %error, "a shard has stopped");
            }
        })?;
        Ok(Self { commands, thread })
    }

    /// For asking it questions.
    pub fn query(&self) -> ShardQuery {
        ShardQuery(self.commands.clone())
    }

    /// Whether its thread has ended; only a defect or [`ShardHandle::shut_down`] ends it.
    pub fn has_stopped(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells it to free all allocations and to end. Does not wait.
    pub fn shut_down(&self) {
        // A shard that has stopped already needs no telling.
        let _ = self.commands.send(Command::Shutdown);
    }

    /// Waits until its thread has ended.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a shard has panicked");
        }
    }
}

impl ShardQuery {
    /// What it has counted so far. `None` if it does not run (any more).
    pub async fn report(&self) -> Option<Report> {
        let (answer, report) = oneshot::channel();
        self.0.send(Command::Report(answer)).ok()?;
        report.await.ok()
    }
}
