//! A shard: one thread with its own listeners, engine, relay sockets and stripe of the relay ports.
//!
//! The way of a packet that the kernel did not forward: [`sockets`] says which sockets are readable, `run` receives a
//! batch from them, `state` gives each datagram to the engine and sends what the engine wants forwarded, and `effects`
//! does what else it asks for. Shards share nothing that a packet touches.
//!
//! Clients over TCP and TLS come by `streams`: a `connection` knows how bytes become messages, `connections` who may stay,
//! `output` what waits to be written. `peers` are the other ends of TCP relaying (RFC 6062).

mod connection;
mod connections;
mod effects;
mod output;
mod peers;
mod report;
mod reservations;
mod run;
mod socket;
mod sockets;
mod state;
mod streams;

use std::io;
use std::thread::{self, JoinHandle};

use hairpin_proto::turn::{Server, Translation};
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};

use self::connection::Connection;
pub use self::connection::End;
use self::connections::Connections;
pub use self::connections::{ConnectionCounts, ConnectionLimits};
use self::peers::Peers;
pub use self::report::{Counters, LIMITS, Report};
pub use self::reservations::Reservations;
use self::run::Shard;
pub use self::sockets::Acceptor;
use self::sockets::Sockets;
use self::state::State;
use crate::datapath;
use crate::net::UdpSocket;

/// What a shard is made of.
pub struct Parts {
    /// Its sockets for clients' datagrams.
    pub listeners: Vec<UdpSocket>,
    /// Where its clients connect.
    pub acceptors: Vec<Acceptor>,
    /// How many connections it has room for.
    pub connections: ConnectionLimits,
    /// Load balancers, whose connections say first for whom they are (PROXY protocol).
    pub proxies: Vec<IpNet>,
    /// How the world sees this host's addresses.
    pub translation: Translation,
    /// Its engine.
    pub server: Server,
    /// The reserved sockets of all shards.
    pub reservations: Reservations,
    /// Where kernel flows are installed.
    pub datapath: datapath::Handle,
}

enum Command {
    Report(oneshot::Sender<Report>),
    /// A client's connection whose last message is for this shard.
    Adopt(Box<Connection>),
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
    /// Starts a thread for each shard.
    pub fn spawn_all(parts: Vec<Parts>) -> io::Result<Vec<Self>> {
        let (senders, inboxes): (Vec<_>, Vec<_>) = parts.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let spawned = (0..).zip(parts).zip(inboxes);
        spawned.map(|((index, parts), inbox)| Self::spawn(index, parts, inbox, &senders)).collect()
    }

    fn spawn(
        index: u32,
        parts: Parts,
        inbox: mpsc::UnboundedReceiver<Command>,
        senders: &[mpsc::UnboundedSender<Command>],
    ) -> io::Result<Self> {
        let Parts { listeners, acceptors, connections, proxies, translation, server, reservations, datapath } = parts;
        let sockets = Sockets::new(listeners, acceptors, reservations, datapath.clone())?;
        let shard = Shard::new(State {
            server,
            connections: Connections::new(sockets.poll_fd()?, connections),
            peers: Peers::new(sockets.poll_fd()?),
            sockets,
            datapath,
            counters: Counters::default(),
            proxies,
            translation,
            resting: Vec::new(),
            batch_time: 0,
            index,
            others: senders.to_vec(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
            if let Err(error) = runtime.block_on(shard.run(inbox)) {
                tracing::error!(shard = index, %error, "a shard has stopped");
            }
        })?;
        Ok(Self { commands: senders[index as usize].clone(), thread })
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
