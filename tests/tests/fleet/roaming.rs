//! Clients that are at home at any relay of the fleet: they go where DNS says, move when they are sent away, and come back
//! elsewhere when their relay is gone. Media flows all the time, to a peer that sends it back.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_client::{
    AllocateOptions, Client, Credentials, Error, Options, Redirect, Resolver, ServerUri, Settings, Timing, Transport,
};
use hairpin_tests::lab::coturn::PEER_PORT;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::network::{NAME_SERVER, Network, PEER};
use crate::relays::{PASSWORD, USER};

const NAME: &str = "turn:turn.example.org?transport=udp";
/// As with Opus.
const MEDIA: Duration = Duration::from_millis(20);
/// Clients refresh a minute before ten are over. Nobody waits for that here.
pub(crate) const REFRESH: Duration = Duration::from_secs(1);
/// Who has heard its peer within this time hears it.
const RECENT: Duration = Duration::from_millis(500);
/// How long what is on its way to the old relay may still come.
const LATE: Duration = Duration::from_millis(500);
/// Gives up after 1.5 s.
const TIMING: Timing = Timing { rto: Duration::from_millis(100), attempts: 3, patience: 12 };
/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Why a client has gone to another relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It was sent there: 300.
    SentAway,
    /// It heard nothing any more.
    Silence,
}

/// What has become of a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// The relay that it is at.
    pub(crate) server: Option<SocketAddr>,
    pub(crate) sent: u64,
    /// What has come back, by its number.
    received: HashSet<u64>,
    /// When what came last came.
    pub(crate) heard: Option<Instant>,
    /// When it first heard from a relay that it has gone to, and why it went.
    pub(crate) moves: Vec<(Instant, Why)>,
    /// What went wrong.
    pub(crate) problems: Vec<String>,
}

impl Log {
    /// Datagrams that never came back.
    pub(crate) fn lost(&self) -> u64 {
        self.sent - self.received.len() as u64
    }
}

/// All clients, while they roam.
pub(crate) struct Roamers {
    logs: Vec<Arc<Mutex<Log>>>,
    ends: AtomicBool,
    silence: Option<Duration>,
}

impl Roamers {
    /// Lets some clients roam while something is done to the fleet. Returns what has become of them. Who has sent media for the
    /// time of `silence`, if there is one, and heard nothing takes its relay for gone.
    pub(crate) fn during(
        network: &Network,
        count: usize,
        silence: Option<Duration>,
        body: impl FnOnce(&Self),
    ) -> Vec<Log> {
        let this = Self { logs: (0..count).map(|_| Arc::default()).collect(), ends: AtomicBool::new(false), silence };
        thread::scope(|scope| {
            let roaming = scope.spawn(|| {
                network.clients.enter(|| {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it is Linux");
                    runtime.block_on(async {
                        let clients = this.logs.iter().enumerate().map(|(index, log)| this.roam(index, log));
                        join_all(clients).await;
                    });
                });
            });
            let ending = End(&this.ends);
            body(&this);
            drop(ending);
            roaming.join().expect("no client panics");
        });
        this.logs()
    }

    /// What is known of each by now.
    pub(crate) fn logs(&self) -> Vec<Log> {
        self.logs.iter().map(|log| locked(log).clone()).collect()
    }

    /// Waits until something is true of them.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, is_so: impl Fn(&[Log]) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(&self.logs()) {
            assert!(Instant::now() < end, "this did not become true: {what}\n{:?}", self.logs());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until everybody has a relay, and has heard from it.
    pub(crate) fn settle(&self) {
        let hears = |log: &Log| log.heard.is_some_and(|heard| heard.elapsed() < RECENT);
        self.wait("all of them hear their peer", |logs| logs.iter().all(hears));
    }

    async fn roam(&self, index: usize, log: &Arc<Mutex<Log>>) {
        // Not all at the same time.
        sleep(REFRESH * index as u32 / self.logs.len() as u32).await;
        let Some(client) = arrive(None, log).await else { return };
        locked(log).server = Some(client.server());
        let mut client = Arc::new(client);
        let mut media = every(MEDIA);
        let mut refresh = every(REFRESH);
        let mut arrived: Option<Why> = None;
        // Counted by what was sent: time that a busy machine has given to others is nobody's silence.
        let mut silent = Duration::ZERO;
        while !self.ends.load(Ordering::Relaxed) {
            // Why the client goes, and where it is then, if that is known.
            let going: Option<(Why, Option<Client>)> = tokio::select! {
                _ = media.tick() => {
                    let sequence = { let mut log = locked(log); log.sent += 1; log.sent };
                    let _ = client.send(peer(), &sequence.to_be_bytes()).await;
                    silent += MEDIA;
                    self.silence.is_some_and(|longest| silent > longest).then_some((Why::Silence, None))
                }
                received = client.recv() => match received {
                    Ok(received) => {
                        silent = Duration::ZERO;
                        note(log, received);
                        if let Some(why) = arrived.take() {
                            locked(log).moves.push((Instant::now(), why));
                        }
                        None
                    }
                    Err(error) => {
                        locked(log).problems.push(error.to_string());
                        Some((Why::Silence, None))
                    }
                },
                _ = refresh.tick() => {
                    let client = Arc::clone(&client);
                    // Its answer may be that the client is to go, which is heard of below.
                    tokio::spawn(async move { client.refresh(None).await });
                    None
                }
                redirect = client.sent_away() => {
                    let next = follow(&client, &redirect).await;
                    Some((Why::SentAway, next.inspect_err(|error| locked(log).problems.push(error.to_string())).ok()))
                }
            };
            if let Some((why, next)) = going {
                let next = match next {
                    Some(next) => Some(next),
                    None => arrive(Some(client.server()), log).await,
                };
                let Some(next) = next else { break };
                locked(log).server = Some(next.server());
                let before = std::mem::replace(&mut client, Arc::new(next));
                tokio::spawn(leave(before, Arc::clone(log)));
                (arrived, silent) = (Some(why), Duration::ZERO);
            }
        }
        // What was sent last may still come.
        let end = Instant::now() + LATE;
        listen_until(end, &client, log).await;
        let _ = client.release().await;
    }
}

/// Ends the roaming, also when a test fails.
struct End<'r>(&'r AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn peer() -> SocketAddr {
    SocketAddr::new(PEER, PEER_PORT)
}

/// Asks DNS, and begins at the first relay that answers. Who was at one that is gone tries that last.
async fn arrive(gone: Option<SocketAddr>, log: &Mutex<Log>) -> Option<Client> {
    let end = Instant::now() + PATIENCE;
    let uri: ServerUri = NAME.parse().expect("a URI");
    while Instant::now() < end {
        let found = match Resolver::at(NAME_SERVER) {
            Ok(resolver) => resolver.targets(&uri, &[Transport::Udp]).await,
            Err(error) => Err(error),
        };
        let mut targets = found.unwrap_or_else(|error| {
            locked(log).problems.push(error.to_string());
            Vec::new()
        });
        // So that each relay has one address by which it is told.
        targets.retain(|target| target.address.is_ipv4());
        targets.sort_by_key(|target| Some(target.address) == gone);
        for target in targets {
            match begin(target.address).await {
                Ok(client) => return Some(client),
                Err(error) => locked(log).problems.push(format!("{}: {error}", target.address)),
            }
        }
        sleep(REFRESH).await;
    }
    None
}

async fn begin(server: SocketAddr) -> Result<Client, Error> {
    let settings =
        Settings { credentials: Some(Credentials::new(USER, PASSWORD)), timing: TIMING, ..Settings::default() };
    let options = Options { follow_alternates: true, settings, ..Options::default() };
    allocated(Client::connect(server, options).await?).await
}

/// Makes before it breaks: what the client has stays until there is something else.
async fn follow(client: &Client, redirect: &Redirect) -> Result<Client, Error> {
    allocated(client.successor(redirect).await?.ok_or(Error::Unreachable)?).await
}

/// With a channel to the peer, or with nothing at all.
async fn allocated(client: Client) -> Result<Client, Error> {
    client.allocate(AllocateOptions::default()).await?;
    if let Err(error) = client.bind_channel(peer()).await {
        let _ = client.release().await;
        return Err(error);
    }
    Ok(client)
}

/// Lets an allocation go, once what was under way to it has come.
async fn leave(client: Arc<Client>, log: Arc<Mutex<Log>>) {
    let end = Instant::now() + LATE / 10;
    listen_until(end, &client, &log).await;
    let _ = client.release().await;
}

async fn listen_until(end: Instant, client: &Client, log: &Mutex<Log>) {
    while let Ok(Ok(received)) = tokio::time::timeout_at(end.into(), client.recv()).await {
        note(log, received);
    }
}

fn note(log: &Mutex<Log>, received: hairpin_client::Datagram) {
    let mut log = locked(log);
    log.heard = Some(Instant::now());
    if let Ok(sequence) = received.payload.try_into() {
        log.received.insert(u64::from_be_bytes(sequence));
    }
}

fn every(pace: Duration) -> tokio::time::Interval {
    let mut interval = interval(pace);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

fn locked(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().expect("no client panics")
}

/// Lets all of them run, and waits for all.
async fn join_all<F: Future<Output = ()>>(all: impl Iterator<Item = F>) {
    let mut left: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        left.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if left.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
