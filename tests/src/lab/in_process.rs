//! A relay in this process: the same parts as the binary's, with limits that no operator can set.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use hairpin::datapath::Limits as RateLimits;
use hairpin::datapath::{Datapath, Options, XdpMode};
use hairpin::inquiries::Inquiries;
use hairpin::net::UdpSocket;
use hairpin::random::SystemRandomness;
use hairpin::shard::{
    ConnectionLimits, DatagramListener, Desk, Events, IceEvents, JournalOptions, Listeners, Parts, Report,
    Reservations, ShardHandle, ShardQuery,
};
use hairpin::traces::Tracer;
use hairpin_common::verdict::Verdict;
use hairpin_proto::media;
use hairpin_proto::turn::{
    Credentials, Discard, Freshness, Limits, NonceKey, PeerPolicy, PortStripe, Quotas, Realm, RelayAddress, Server,
    ServerConfig, Settings, Translation,
};

use super::Namespace;
use super::relay::{PASSWORD, PORT, USER};
use super::topology::{Family, Lab, RELAY_LINK};

const REALM: &str = "lab";
const ALLOCATIONS: u32 = 64;
const PATHS: u32 = 16;
const RECORDS: u32 = 1024;
const FIRST_RELAY_PORT: u16 = 50_000;
const LAST_RELAY_PORT: u16 = 50_999;

/// A relay with one shard and native XDP, at the addresses of the relay's first link. It ends when it is dropped.
#[derive(Debug)]
pub struct InProcess {
    shard: Option<ShardHandle>,
    query: ShardQuery,
    datapath: Datapath,
}

impl InProcess {
    /// Starts it in the namespace of the lab's relay, with the user of [`Relay::start`](super::Relay::start).
    pub fn start(namespace: &Namespace, limits: Limits) -> Self {
        // Threads inherit the namespace from the one that starts them.
        namespace.enter(|| {
            let addresses = Family::ALL.map(Lab::relay_ip);
            let listeners = addresses.map(|ip| SocketAddr::new(ip, PORT));
            let datapath = Datapath::start(&Options {
                mode: XdpMode::Native,
                interfaces: vec![RELAY_LINK.to_owned()],
                max_allocations: ALLOCATIONS,
                max_media: PATHS,
                records: RECORDS,
                limits: RateLimits::default(),
                answer_binding: true,
                listeners: listeners.to_vec(),
                relay_addresses: addresses.map(RelayAddress::from).to_vec(),
            })
            .unwrap_or_else(|error| panic!("{error}"));
            let mut credentials = Credentials::new(REALM);
            credentials.add_user(USER, PASSWORD);
            let settings = Settings {
                realms: vec![Arc::new(Realm::new(REALM, credentials))],
                freshness: Freshness::default(),
                nonce_keys: vec![NonceKey::new([7; 32])],
                networks: Vec::new(),
                reserved_ports: None,
                peer_policy: PeerPolicy::default(),
                relay_addresses: addresses.map(RelayAddress::from).to_vec(),
                translation: Translation::default(),
                alternates: Vec::new(),
                limits: Limits { allocations: ALLOCATIONS as usize, ..limits },
                tcp_relay: false,
                mobility: None,
                listeners: Vec::new(),
            };
            let media = media::Settings {
                relay_addresses: settings.relay_addresses.clone(),
                ports: vec![FIRST_RELAY_PORT..=LAST_RELAY_PORT],
                peer_policy: settings.peer_policy.clone(),
                max_sessions: PATHS as usize,
                max_paths: PATHS as usize,
            };
            let config = ServerConfig {
                settings,
                software: None,
                nonce_lifetime: Duration::from_secs(3600),
                discovery: None,
                ports: PortStripe::new(FIRST_RELAY_PORT..=LAST_RELAY_PORT, 0, 1),
                quotas: Quotas::default(),
                shard: 0,
                shards: 1,
            };
            let open = |address| {
                let socket = UdpSocket::listener(address, false).unwrap_or_else(|error| panic!("{error}"));
                DatagramListener { socket, plain: true, dtls: false }
            };
            let parts = Parts {
                listeners: Listeners { datagrams: listeners.map(open).into(), streams: Vec::new() },
                connections: ConnectionLimits { all: 1, new: 1, new_of_source: 1 },
                proxies: Vec::new(),
                dtls: None,
                translation: Translation::default(),
                server: Server::new(config, Box::new(SystemRandomness::default())),
                asker: Inquiries::start(None).expect("a thread can be started").asker(),
                reservations: Reservations::default(),
                datapath: datapath.handle(),
                media,
                first_path: ALLOCATIONS,
                journal: JournalOptions::default(),
                events: Events::default(),
                ice_events: IceEvents::default(),
                tracer: Tracer::default(),
            };
            let mut shards = ShardHandle::spawn_all(vec![parts]).expect("a thread can be started");
            let shard = shards.pop().expect("there is one for the parts");
            Self { query: shard.query(), shard: Some(shard), datapath }
        })
    }

    /// Asks its shard about sessions.
    pub fn media<T: Send + 'static>(&self, question: impl FnOnce(&mut Desk<'_>) -> T + Send + 'static) -> T {
        // It has a deadline, and so needs a clock.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let answer = runtime.expect("a runtime of one thread needs little").block_on(self.query.media(question));
        answer.expect("the shard runs")
    }

    /// Waits until the kernel knows all that the shard has told it.
    pub fn flush(&self) {
        assert!(self.datapath.flush(Duration::from_secs(5)), "the writer is stuck");
    }

    /// What has been counted so far.
    pub fn counts(&self) -> Counts {
        let counters = self.datapath.handle().counters();
        let report = wait(self.query.report()).expect("the shard runs");
        Counts { verdicts: counters.verdicts.map(|count| count.packets), flows: counters.flows, userspace: report }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if let Some(shard) = self.shard.take() {
            shard.shut_down();
            shard.join();
        }
    }
}

/// What both paths have counted.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Packets by verdict.
    verdicts: [u64; Verdict::COUNT],
    /// Flows in the kernel.
    pub flows: u64,
    /// What went through userspace.
    pub userspace: Report,
}

impl Counts {
    /// Packets with a verdict of the program.
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.verdicts[verdict as usize]
    }

    /// Packets that userspace has relayed, both directions.
    pub fn in_userspace(&self) -> u64 {
        self.userspace.counters.to_peer.packets + self.userspace.counters.to_client.packets
    }

    /// Packets that the program has relayed, both directions.
    pub fn in_kernel(&self) -> u64 {
        self.of(Verdict::ToPeer) + self.of(Verdict::ToClient)
    }

    /// Packets that userspace has discarded for a reason.
    pub fn discarded(&self, reason: Discard) -> u64 {
        self.userspace.counters.discarded[reason as usize]
    }
}

/// The result of a future that another thread completes.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return result;
        }
        assert!(Instant::now() < end, "no answer from the shard");
        thread::sleep(Duration::from_millis(1));
    }
}
