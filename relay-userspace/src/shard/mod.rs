//! A shard: one thread with its own listeners, engine, relay sockets and stripe of the relay ports.
//!
//! The way of a packet that the kernel did not forward: [`sockets`] says which sockets are readable, `run` receives a
//! batch from them, `state` gives each datagram to the engine and sends what the engine wants forwarded, and `effects`
//! does what else it asks for. Shards share nothing that a packet touches.
//!
//! Clients over DTLS have `associations`, and `dtls` is their way. `visitors` are clients whose datagrams reach another
//! shard than the one that has their allocation. Clients over TCP and TLS come by `streams`: a `connection` knows how
//! bytes become messages, `connections` who may stay, `output` what waits to be written. TCP relaying (RFC 6062) is
//! `tcp_relay`: `peers` wait for a client's connection, and `pairs` are joined. Sessions of two legs, which have no client of
//! TURN, are `media`.

mod admission;
mod associations;
mod changes;
mod complaints;
mod connection;
mod connections;
mod dtls;
mod effects;
mod failures;
mod histogram;
mod in_service;
mod journal;
mod lingering;
mod listening;
mod media;
mod output;
mod pairs;
mod peers;
mod places;
mod questions;
mod register;
mod report;
mod reservations;
mod run;
mod socket;
mod sockets;
mod state;
mod streams;
mod tcp_relay;
mod visitors;
mod waiting;

use std::io;
use std::thread::{self, JoinHandle};

use hairpin_dtls::ServerContext;
use hairpin_proto::address::{FiveTuple, Transport};
use hairpin_proto::media::Settings as MediaSettings;
use hairpin_proto::turn::{Answer, EndReason, Question, Server, Translation};
use ipnet::IpNet;
use tokio::sync::mpsc;

pub use self::admission::ConnectionLimits;
use self::admission::Sources;
use self::associations::Associations;
pub use self::changes::Change;
use self::complaints::Complaints;
use self::connection::Connection;
pub use self::connection::End;
pub use self::connections::ConnectionCounts;
use self::connections::Connections;
use self::failures::Failures;
pub use self::failures::{Excerpt, Failure};
pub use self::histogram::Histogram;
pub use self::in_service::InService;
pub use self::journal::{Events, JournalLevel, JournalOptions};
use self::listening::Listening;
pub use self::media::{Desk, IceEvents, MediaReport};
use self::media::{Media, PathIndices};
use self::pairs::Pairs;
use self::peers::Peers;
pub(crate) use self::questions::ask_all;
pub use self::questions::{InUse, ShardQuery};
use self::register::Register;
pub use self::report::{Counters, LIMITS, Report, Times};
pub use self::reservations::Reservations;
use self::run::Shard;
use self::sockets::Sockets;
pub use self::sockets::{Acceptor, DatagramListener, Listeners};
use self::state::State;
use self::visitors::{Mailbox, Moving, PassedOn, Visitors};
use self::waiting::Waiting;
use crate::datapath;
use crate::inquiries::Asker;
use crate::traces::Tracer;

/// What a shard is made of.
pub struct Parts {
    /// Where its clients reach it.
    pub listeners: Listeners,
    /// How many connections it has room for.
    pub connections: ConnectionLimits,
    /// Load balancers, whose connections say first for whom they are (PROXY protocol).
    pub proxies: Vec<IpNet>,
    /// What clients over DTLS are shown; none: there are none.
    pub dtls: Option<ServerContext>,
    /// How the world sees this host's addresses.
    pub translation: Translation,
    /// Its engine.
    pub server: Server,
    /// Who is asked about users.
    pub asker: Asker,
    /// The reserved sockets of all shards.
    pub reservations: Reservations,
    /// Where kernel flows are installed.
    pub datapath: datapath::Handle,
    /// What its sessions are made of.
    pub media: MediaSettings,
    /// The datapath's number of the first path of all shards.
    pub first_path: u32,
    /// What is logged of allocations.
    pub journal: JournalOptions,
    /// Where events go.
    pub events: Events,
    /// Where events of sessions go.
    pub ice_events: IceEvents,
    /// What requests are traced with.
    pub tracer: Tracer,
}

/// What shards know of each other.
#[derive(Clone, Default)]
struct Shared {
    listening: Listening,
    sources: Sources,
}

enum Command {
    /// Something to be looked at or done between packets.
    Ask(Box<dyn FnOnce(&mut State) + Send>),
    /// A client's connection whose last message is for this shard.
    Adopt(Box<Connection>),
    /// A client's datagram that has reached another shard.
    Datagram(Box<PassedOn>),
    /// A client's association over DTLS whose last message is for this shard.
    AdoptAssociation(Box<Moving>),
    /// The datagrams of this client are for that shard.
    Guest(FiveTuple, u32),
    /// The datagrams of this client are for no other shard, as of that one of those that were passed on, or of now.
    NoGuest(FiveTuple, Option<u64>),
    /// What a request waits for that has this number.
    Answered(u64, Box<(Question, Answer)>),
    /// An answer that nobody waits for.
    Learned(Box<(Question, Answer)>),
    Shutdown,
}

/// A running shard.
#[derive(Debug)]
pub struct ShardHandle {
    commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
}

impl ShardHandle {
    /// Starts a thread for each shard.
    pub fn spawn_all(parts: Vec<Parts>) -> io::Result<Vec<Self>> {
        let (senders, inboxes): (Vec<_>, Vec<_>) = parts.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let shared = Shared::default();
        let mailboxes: Vec<_> = senders.iter().cloned().map(Mailbox::new).collect();
        let spawned = (0..).zip(parts).zip(inboxes.into_iter().zip(senders));
        spawned
            .map(|((index, parts), (inbox, commands))| {
                Self::spawn(index, parts, inbox, commands, &mailboxes, shared.clone())
            })
            .collect()
    }

    fn spawn(
        index: u32,
        parts: Parts,
        inbox: mpsc::UnboundedReceiver<Command>,
        commands: mpsc::UnboundedSender<Command>,
        mailboxes: &[Mailbox],
        shared: Shared,
    ) -> io::Result<Self> {
        let Parts {
            listeners,
            connections,
            proxies,
            dtls,
            translation,
            server,
            asker,
            reservations,
            datapath,
            media,
            first_path,
            journal,
            events,
            ice_events,
            tracer,
        } = parts;
        let path_indices = PathIndices { first: first_path, shards: mailboxes.len() as u32, shard: index };
        let mut sockets = Sockets::new(shared.listening, reservations, datapath.clone())?;
        sockets.add_listeners(listeners)?;
        let state = State {
            server,
            associations: Associations::new(dtls, connections, shared.sources.clone()),
            visitors: Visitors::default(),
            connections: Connections::new(sockets.poll_fd()?, connections, shared.sources.clone()),
            peers: Peers::new(sockets.poll_fd()?),
            pairs: Pairs::new(sockets.poll_fd()?),
            media: Media::new(media, ice_events, path_indices, datapath.clone()),
            max_peers: connections.all,
            joined: None,
            joining: None,
            has_warned: false,
            woken: Vec::new(),
            sockets,
            datapath,
            counters: Counters::default(),
            register: Register::default(),
            waiting: Waiting::new(asker),
            failures: Failures::default(),
            complaints: Complaints::default(),
            journal,
            events,
            tracer,
            times: Times::default(),
            handshake_failures: [0; Transport::ALL.len()],
            ended: [0; EndReason::COUNT],
            proxies,
            translation,
            resting: Vec::new(),
            batch_time: 0,
            index,
            others: mailboxes.to_vec(),
        };
        let shard = Shard::new(state);
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
