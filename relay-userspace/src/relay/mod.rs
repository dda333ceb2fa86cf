//! A relay from its start to its end: built from a configuration, told to follow another one, drained, taken down.
//!
//! One thread owns it and does one thing after the other; whoever else wants something of it (`crate::control`) sends a
//! request. What it knows and others may look at is in `published`.

mod authority;
mod certificates;
mod difference;
mod drain;
mod heartbeat;
pub(crate) mod published;
mod reload;
mod stamps;
mod start;
mod user_files;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hairpin_proto::media::{self, CloseReason};
use hairpin_proto::turn::{Draining, EndReason, Limits, NonceKey, Quotas, RelayAddress, Settings, Translation};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use self::authority::{Authority, networks, peer_policy};
use self::certificates::Certificates;
pub(crate) use self::certificates::warning as certificate_warning;
use self::drain::{Drain, Step};
use self::published::{DrainTerms, Published, RealmLimits, Shared};
use self::reload::Retired;
use self::stamps::Stamp;
use self::start::Started;
use crate::announce::announce;
use crate::capacity::Capacity;
use crate::cli::settings::Source;
use crate::config::{AllocationLog, Config, Listener, PortRange, Realm};
use crate::control::{Control, Sources};
use crate::datapath::{self, Datapath};
use crate::inquiries::{Inquiries, freshness};
use crate::service::{Manager, Passed};
use crate::shard::{
    Change, ConnectionLimits, Events, IceEvents, InService, JournalLevel, JournalOptions, Listeners, ShardHandle,
    ShardQuery, ask_all,
};
use crate::traces::Traces;
use crate::{admin, api, log};

/// How often threads and whatever goes on are looked after.
const WATCH: Duration = Duration::from_secs(1);
/// How often files of certificates are looked at.
const CERTIFICATES: Duration = Duration::from_secs(10);
/// How often files with users are looked at: whoever adds a user waits for it.
const USER_FILES: Duration = Duration::from_secs(2);
/// How long what was taken away may take to be gone from the kernel.
const FLUSH: Duration = Duration::from_secs(1);
/// How long threads may take to end.
const ENDING: Duration = Duration::from_secs(5);
/// How long watchers may take to be told of the end.
const FAREWELL: Duration = Duration::from_secs(1);
/// How many requests may wait.
const REQUESTS: usize = 16;

/// What others want of the relay.
pub(crate) enum Request {
    /// Read the configuration again.
    Reload(api::ReloadRequest, oneshot::Sender<Result<api::Reloaded, Vec<String>>>),
    /// Let nobody in any more.
    Drain(api::DrainRequest, oneshot::Sender<()>),
    /// Let everybody in again.
    CancelDrain(oneshot::Sender<()>),
}

/// Runs the relay until SIGTERM or SIGINT, or until a drain is over that ends it. An error is for the operator: one line that
/// says what to do.
pub fn run(config: Config, source: Source, log: log::Handle, manager: Manager, passed: Passed) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // From here on a signal ends the relay in order, also while it starts.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut drain = signal(SignalKind::user_defined1())?;
        let mut welcome = signal(SignalKind::user_defined2())?;
        let (requests, mut requested) = mpsc::channel(REQUESTS);
        let mut heartbeat = tokio::time::interval(manager.period());
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut relay = open(source, config, log, requests, manager, passed).await?;
        let mut watch = tokio::time::interval(WATCH);
        let mut certificates = tokio::time::interval(CERTIFICATES);
        let mut user_files = tokio::time::interval(USER_FILES);
        let stopped = loop {
            tokio::select! {
                _ = terminate.recv() => if relay.shall_end().await { break Ok(()) },
                _ = interrupt.recv() => if relay.shall_end().await { break Ok(()) },
                _ = hangup.recv() => {
                    // What came of it is in the log.
                    let _ = relay.reload(api::ReloadRequest::default()).await;
                }
                _ = drain.recv() => relay.drain_by_signal(None).await,
                _ = welcome.recv() => relay.cancel_drain().await,
                Some(request) = requested.recv() => relay.take(request).await,
                _ = certificates.tick() => relay.follow_certificates().await,
                _ = user_files.tick() => relay.follow_user_files().await,
                _ = heartbeat.tick() => relay.beat().await,
                _ = watch.tick() => {
                    if relay.has_defect() {
                        break Err(anyhow::anyhow!("a thread has stopped; see the log"));
                    }
                    relay.let_go().await;
                    if relay.drain_step().await {
                        break Ok(());
                    }
                }
            }
        };
        let ended = relay.stop().await;
        stopped.and(ended)
    })
}

/// Starts a relay and its admin interface, and says so.
async fn open(
    source: Source,
    config: Config,
    log: log::Handle,
    requests: mpsc::Sender<Request>,
    manager: Manager,
    passed: Passed,
) -> anyhow::Result<Relay> {
    let listeners = admin::Listeners::bind(config.admin, &config.admin_socket, passed).await?;
    let gate = Arc::new(admin::Gate::new(&access(&config))?);
    let started = Relay::start(source, config, log.clone(), Arc::clone(&gate), manager)?;
    let Started { mut relay, reservations, events, ice_events, published } = started;
    let control = Control::new(Sources {
        shards: relay.queries.clone(),
        datapath: relay.datapath.handle(),
        interfaces: relay.datapath.interfaces().clone(),
        summary: relay.datapath.summary(),
        reservations,
        allocation_capacity: relay.capacity.allocations,
        session_capacity: relay.capacity.sessions,
        published,
        requests,
        events,
        ice_events,
        log,
        gate: Arc::clone(&gate),
        traces: relay.traces.counts(),
        quotas: relay.quotas.clone(),
        directory: relay.inquiries.directory(),
    });
    let origin = listeners.origin();
    tokio::spawn(admin::serve(listeners, gate, control));
    if let Some(warning) = &relay.capacity.warning {
        tracing::warn!("{warning}");
    }
    let (datapath, own) = (relay.datapath.summary(), relay.authority.generated());
    announce(&relay.config, &relay.open, origin.as_deref(), datapath, own);
    relay.manager.ready();
    Ok(relay)
}

/// Waits until the kernel has done what it was told: what was taken away must not be forwarded when somebody reads that it is
/// gone.
pub(crate) async fn settle(datapath: datapath::Handle) {
    // A thread that panics or a kernel that is late changes nothing of what was taken away.
    if !tokio::task::spawn_blocking(move || datapath.flush(FLUSH)).await.unwrap_or(false) {
        tracing::warn!("the kernel has not confirmed yet that what was taken away is forwarded no more");
    }
}

/// Who may use the admin interface.
fn access(config: &Config) -> admin::Access {
    admin::Access {
        admin_tokens: config.admin_tokens.clone(),
        credentials_tokens: config.credentials_tokens.clone(),
        origins: config.credentials_origins.clone(),
        rate: config.credentials_rate,
    }
}

/// A running relay.
struct Relay {
    source: Source,
    log: log::Handle,
    gate: Arc<admin::Gate>,
    manager: Manager,
    /// What is in force: the last good configuration, but for what needs a restart.
    config: Arc<Config>,
    configured: u64,
    reloads: [u64; 2],
    reload_problems: Vec<String>,
    shards: Vec<ShardHandle>,
    queries: Vec<ShardQuery>,
    datapath: Datapath,
    traces: Traces,
    capacity: Capacity,
    /// What the files with users were when they were read.
    user_files: Vec<Stamp>,
    /// Why those that are there now are not in use.
    user_problem: Option<String>,
    inquiries: Inquiries,
    quotas: Quotas,
    interfaces: Vec<if_addrs::Interface>,
    certificates: Certificates,
    certificate_problem: Option<String>,
    authority: Authority,
    own_addresses: Vec<IpAddr>,
    /// Listeners of the configuration.
    open: Vec<Listener>,
    retired: Retired,
    keys: Keys,
    drain: Option<Drain>,
    /// Whether a signal has asked it to end when the drain is over.
    is_ending: bool,
    published: Option<Shared>,
    /// Where watchers are told what happens, until the end.
    watched: (Events, IceEvents),
}

/// What is drawn at the start, and good as long as the relay runs.
struct Keys {
    /// Of a relay that was told none.
    nonce: NonceKey,
    mobility: [u8; 32],
}

impl Relay {
    async fn take(&mut self, request: Request) {
        // Whoever asked may have given up; it is done all the same.
        match request {
            Request::Reload(request, answer) => {
                let result = self.reload(request).await;
                let _ = answer.send(result);
            }
            Request::Drain(request, answer) => {
                self.drain(request).await;
                let _ = answer.send(());
            }
            Request::CancelDrain(answer) => {
                self.cancel_drain().await;
                let _ = answer.send(());
            }
        }
    }

    /// Whether a thread has ended that should not have.
    fn has_defect(&self) -> bool {
        self.shards.iter().any(ShardHandle::has_stopped) || self.datapath.has_stopped()
    }

    /// A signal asks the relay to end. Returns whether it does so at once: the second signal is not made to wait.
    async fn shall_end(&mut self) -> bool {
        let timeout = self.config.drain_timeout;
        if timeout.is_zero() || self.is_ending {
            return true;
        }
        self.is_ending = true;
        self.drain_by_signal(Some(timeout)).await;
        self.drain_step().await
    }

    /// A signal cannot say what shall become of clients that are there; the configuration does.
    async fn drain_by_signal(&mut self, timeout: Option<Duration>) {
        let now = Instant::now();
        let drain = Drain::new(timeout, self.is_ending, self.config.drain_move, now);
        // It cannot say that it takes anything back.
        self.begin_drain(self.drain.map_or(drain, |running| drain.joined(running)), now).await;
    }

    async fn drain(&mut self, api::DrainRequest { timeout, stop, move_clients }: api::DrainRequest) {
        let now = Instant::now();
        // Who has asked the relay to end has not taken it back by asking for something else.
        let drain = Drain::new(timeout.map(Duration::from_secs), stop || self.is_ending, move_clients, now);
        self.begin_drain(drain, now).await;
    }

    /// Sends clients elsewhere: new ones, and those that are there if they shall move.
    async fn begin_drain(&mut self, drain: Drain, now: Instant) {
        self.drain = Some(drain);
        let DrainTerms { stop, moves, .. } = drain.terms();
        let until = match drain.left(now) {
            Some(left) => format!("those that are left after {} s are closed", left.as_secs()),
            None if moves => "those that are there stay until their lifetime ends".to_owned(),
            None => "those that are there stay".to_owned(),
        };
        let who = if moves { "new clients, and those that refresh what they have," } else { "new clients" };
        let then = if stop { ", then the relay ends" } else { "" };
        tracing::info!("draining: {who} get 300, or 508 without --alternate-server; {until}{then}");
        self.set_draining(if moves { Draining::AllClients } else { Draining::NewClients }).await;
    }

    /// Lets new clients in again.
    async fn cancel_drain(&mut self) {
        self.is_ending = false;
        self.drain = None;
        tracing::info!("not draining: new clients are welcome");
        self.set_draining(Draining::No).await;
    }

    async fn set_draining(&self, draining: Draining) {
        // One that has stopped takes the relay down with it.
        ask_all(&self.queries, |shard| async move { shard.drain(draining).await }).await;
        self.publish();
    }

    /// Goes on with a drain. Returns whether the relay ends.
    async fn drain_step(&mut self) -> bool {
        let Some(drain) = &mut self.drain else { return false };
        let counts = ask_all(&self.queries, |shard| async move { shard.in_service().await }).await;
        // Who does not answer may have some left.
        let unknown = InService { allocations: 1, sessions: 0 };
        let left: InService = counts.into_iter().map(|served| served.unwrap_or(unknown)).sum();
        match drain.step(left, Instant::now()) {
            Step::Wait => false,
            Step::Stop => true,
            Step::Close => {
                let InService { allocations, sessions } = left;
                tracing::info!(allocations, sessions, "draining: the time is over, what is left is closed");
                ask_all(&self.queries, |shard| async move {
                    shard.close(EndReason::Drained, |_| true).await;
                    shard.close_sessions(CloseReason::Drained, |_| true).await
                })
                .await;
                drain.stop
            }
        }
    }

    /// Lets everybody see how the relay is set up now.
    fn publish(&self) -> Shared {
        let listeners = self.open.iter().map(|listener| (*listener, true));
        let retired = self.retired.listeners.iter().map(|listener| (*listener, false));
        let published = Published {
            config: Arc::clone(&self.config),
            configured: self.configured,
            reload_problems: self.reload_problems.clone(),
            reloads: self.reloads,
            listeners: listeners.chain(retired).collect(),
            relay_addresses: self.relay_addresses().collect(),
            certificates: self.certificates.status(),
            certificate_problem: self.certificate_problem.clone(),
            user_problem: self.user_problem.clone(),
            drain: self.drain.map(|drain| drain.terms()),
            realms: self.config.realms.iter().map(|realm| self.limits_of(realm)).collect(),
            secret: self.authority.secret().map(str::to_owned),
            warnings: self.capacity.warning.iter().cloned().collect(),
        };
        match &self.published {
            Some(shared) => {
                shared.store(Arc::new(published));
                Arc::clone(shared)
            }
            None => Arc::new(ArcSwap::from_pointee(published)),
        }
    }

    /// What relayed addresses are made of, and whether each takes new ones.
    fn relay_addresses(&self) -> impl Iterator<Item = (RelayAddress, bool)> {
        let configured = self.config.relay_addresses.iter().map(|address| (*address, true));
        configured.chain(self.retired.relay_addresses.iter().map(|address| (*address, false)))
    }

    /// What engines are told.
    fn settings(&self) -> Settings {
        let config = &self.config;
        let listeners: Vec<_> = self.open.iter().chain(&self.retired.listeners).copied().collect();
        let relay_addresses: Vec<_> = self.relay_addresses().map(|(address, _)| address).collect();
        Settings {
            realms: self.authority.realms(&self.capacity),
            freshness: freshness(config.directory.cache),
            nonce_keys: match config.nonce_keys.as_slice() {
                [] => vec![self.keys.nonce.clone()],
                given => given.to_vec(),
            },
            peer_policy: peer_policy(config, &listeners, &relay_addresses, &self.own_addresses),
            relay_addresses: config.relay_addresses.clone(),
            networks: networks(&self.interfaces),
            reserved_ports: config.reserved_ports.map(PortRange::range),
            translation: self.translation(),
            alternates: config.alternates.clone(),
            limits: Limits {
                allocations: (self.capacity.allocations / config.shards) as usize,
                allocations_per_source: config.max_allocations_per_source.map_or(usize::MAX, |most| most as usize),
                permissions: config.max_permissions as usize,
                channels: config.max_channels as usize,
                max_lifetime: config.max_lifetime,
                ..Limits::default()
            },
            tcp_relay: config.tcp_relay,
            mobility: config.mobility.then_some(self.keys.mobility),
            listeners: self.open.iter().map(|listener| (listener.transport, listener.address)).collect(),
        }
    }

    /// What engines of sessions are told.
    fn media(&self) -> media::Settings {
        let Settings { peer_policy, relay_addresses, .. } = self.settings();
        media::Settings {
            relay_addresses,
            ports: self.config.relay_ports.without(self.config.reserved_ports),
            peer_policy,
            max_sessions: (self.capacity.sessions / self.config.shards) as usize,
            max_paths: (self.capacity.paths / self.config.shards) as usize,
        }
    }

    fn limits_of(&self, realm: &Realm) -> RealmLimits {
        let allocations = realm.max_allocations.unwrap_or(self.capacity.allocations).min(self.capacity.allocations);
        let allocations_per_user = self.capacity.of_one_user(realm);
        RealmLimits { name: realm.name.clone(), allocations: allocations.into(), allocations_per_user }
    }

    /// How the world sees this host's addresses, those that are only still in use included.
    fn translation(&self) -> Translation {
        self.config.translation.including(&self.retired.relay_addresses)
    }

    /// How a shard shall be from now on.
    fn change(&self, settings: Settings, opened: Listeners) -> Change {
        let listeners = self.open.iter().chain(&self.retired.listeners);
        Change {
            settings,
            media: self.media(),
            opened,
            listeners: listeners.map(|listener| (listener.transport, listener.address)).collect(),
            connections: self.connection_limits(),
            proxies: self.config.proxies.clone(),
            tls: self.certificates.tls.clone(),
            dtls: self.certificates.dtls.clone(),
            journal: self.journal(),
        }
    }

    fn connection_limits(&self) -> ConnectionLimits {
        let share = |of: usize| of.div_ceil(self.config.shards as usize);
        ConnectionLimits {
            all: share(self.capacity.connections),
            new: share(self.config.connections.new as usize),
            new_of_source: self.config.connections.new_of_source as usize,
        }
    }

    fn journal(&self) -> JournalOptions {
        JournalOptions {
            level: match self.config.log_allocations {
                AllocationLog::Off => None,
                AllocationLog::Debug => Some(JournalLevel::Debug),
                AllocationLog::Info => Some(JournalLevel::Info),
            },
            sample: self.config.log_sample,
            client_addresses: self.config.log_client_addresses,
        }
    }

    /// Takes it all down. A thread that is stuck is left behind, and told of: the process ends all the same.
    async fn stop(mut self) -> anyhow::Result<()> {
        tracing::info!("stopping");
        self.manager.stopping();
        self.shards.iter().for_each(ShardHandle::shut_down);
        let deadline = Instant::now() + ENDING;
        // Without a stop: those who watch are still to be told of what ends.
        let wait_for = async |has_stopped: &dyn Fn() -> bool, deadline: Instant| {
            while !has_stopped() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            has_stopped()
        };
        let mut stuck = 0;
        for shard in self.shards {
            if wait_for(&|| shard.has_stopped(), deadline).await {
                shard.join();
            } else {
                stuck += 1;
            }
        }
        let (events, ice_events) = self.watched;
        let are_told = || !events.are_awaited() && !ice_events.are_awaited();
        if wait_for(&are_told, deadline.min(Instant::now() + FAREWELL)).await {
            // What was taken last has yet to be written.
            tokio::time::sleep(FAREWELL / 20).await;
        }
        // In a thread of its own, since it waits for another.
        let datapath = self.datapath;
        let detaching = std::thread::spawn(|| datapath.shutdown());
        if !wait_for(&|| detaching.is_finished(), deadline).await {
            stuck += 1;
        }
        self.traces.stop();
        anyhow::ensure!(stuck == 0, "{stuck} threads did not end in time and were left behind");
        Ok(())
    }
}
