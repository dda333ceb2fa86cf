//! A session with a way to the server.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hairpin_proto::address::Transport;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::alternate::{Asked, Redirect};
use crate::credentials::TokenCredential;
use crate::error::Error;
use crate::link::{Failure, Route, Way};
use crate::request::{AllocateOptions, Allocation, Outcome, Request};
use crate::session::{ConnectionAttempt, Event, RequestId, Session, Settings};
use crate::tls::TlsOptions;

/// How many connections of peers wait for [`Client::connection_attempt`]; further ones are forgotten.
const ATTEMPTS: usize = 256;
/// How many datagrams of peers wait for [`Client::recv`]; further ones are dropped, as a socket would.
const INBOX: usize = 4096;

/// How a client is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the server is reached.
    pub transport: Transport,
    /// Needed for [`Transport::Tls`] and [`Transport::Dtls`].
    pub tls: Option<TlsOptions>,
    /// The local address; by default any, with a free port.
    pub local: Option<SocketAddr>,
    /// Whether a request that a server answers by 300 goes to the server that it names (RFC 8489 section 10), for what
    /// comes before an allocation.
    pub follow_alternates: bool,
    /// Credentials and timers.
    pub settings: Settings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transport: Transport::Udp,
            tls: None,
            local: None,
            follow_alternates: false,
            settings: Settings::default(),
        }
    }
}

/// Application data from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub peer: SocketAddr,
    /// The channel it came on; `None` for a Data indication.
    pub channel: Option<u16>,
    /// The data.
    pub payload: Vec<u8>,
}

/// A TURN client. Its task ends when it is dropped; the allocation then expires on the server, see [`Client::release`].
#[derive(Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) follows_alternates: bool,
    settings: Settings,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Datagram>>,
    attempts: tokio::sync::Mutex<mpsc::Receiver<ConnectionAttempt>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// Taken for moments, also while the state is; never the other way round.
    way: Mutex<Arc<Way>>,
    state: Mutex<State>,
    asked: Mutex<Asked>,
    /// A request was made, or goes another way: the task waits for the wrong things.
    changed: Notify,
    /// Where the server has sent a client that has an allocation.
    redirected: watch::Sender<Option<Redirect>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) session: Session,
    waiting: HashMap<RequestId, oneshot::Sender<Result<Outcome, Error>>>,
    /// `None` when there will be no more.
    attempts: Option<mpsc::Sender<ConnectionAttempt>>,
}

impl Client {
    /// Opens a way to a server, and waits until there is one: for UDP, nothing is sent yet.
    pub async fn connect(server: SocketAddr, options: Options) -> Result<Self, Error> {
        let Options { transport, tls, local, follow_alternates, settings } = options;
        let route = Route { server, local, transport, tls, patience: settings.timing.total() };
        Self::open(route, follow_alternates, settings).await
    }

    /// A client of the same kind that goes another way.
    pub(crate) async fn at(&self, route: Route) -> Result<Self, Error> {
        Self::open(route, self.follows_alternates, self.settings.clone()).await
    }

    async fn open(route: Route, follows_alternates: bool, settings: Settings) -> Result<Self, Error> {
        let transport = route.transport;
        let way = Mutex::new(Arc::new(Way::open(route).await?));
        let session = Session::over(transport, settings.clone(), crate::random_ids());
        let (attempt, attempts) = mpsc::channel(ATTEMPTS);
        let state = Mutex::new(State { session, waiting: HashMap::new(), attempts: Some(attempt) });
        let shared = Arc::new(Shared {
            way,
            state,
            asked: Mutex::default(),
            changed: Notify::new(),
            redirected: watch::Sender::new(None),
        });
        let (datagram, inbox) = mpsc::channel(INBOX);
        let task = tokio::spawn(run(Arc::clone(&shared), datagram));
        Ok(Self {
            shared,
            follows_alternates,
            settings,
            inbox: tokio::sync::Mutex::new(inbox),
            attempts: tokio::sync::Mutex::new(attempts),
            task,
        })
    }

    /// The client's own address.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        Ok(self.shared.way().link.local_addr()?)
    }

    /// The server that is asked: the one that was connected to, or the one that it has sent the client to.
    pub fn server(&self) -> SocketAddr {
        self.shared.way().route.server
    }

    /// The protocol that the server has chosen by ALPN, over TLS.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.shared.way().link.alpn()
    }

    /// The last response, as received; empty if there was none.
    pub fn last_response(&self) -> Vec<u8> {
        self.shared.state().session.last_response().to_vec()
    }

    /// Sends bytes to the server as they are, for tests of what no proper client would send.
    pub async fn send_raw(&self, bytes: &[u8]) -> Result<(), Error> {
        self.shared.way().link.send(bytes).await
    }

    /// Goes on with another access token, see [`Session::set_token`].
    pub fn set_token(&self, token: TokenCredential) {
        self.shared.state().session.set_token(token);
    }

    /// Makes a request and waits for its final answer, of another server if this one says so and the options too.
    pub async fn request(&self, request: Request) -> Result<Outcome, Error> {
        loop {
            let result = self.ask(request.clone()).await;
            match &result {
                // What a client has is not at the other server: whoever owns it has to move, see `sent_away`.
                Err(error) if Redirect::of(&request, error).is_some() => {
                    self.shared.redirected.send_replace(Redirect::of(&request, error));
                    return result;
                }
                Err(Error::TryAlternate { servers, domain }) if self.follow(servers, domain.as_deref()).await? => {}
                _ => return result,
            }
        }
    }

    /// Makes a request of the present server.
    pub(crate) async fn ask(&self, request: Request) -> Result<Outcome, Error> {
        self.shared.asked().note(self.server(), Instant::now());
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.shared.state();
            let id = state.session.request(request, Instant::now());
            state.waiting.insert(id, sender);
            self.shared.settle(&mut state);
        }
        self.shared.changed.notify_one();
        receiver.await.unwrap_or(Err(Error::Closed))
    }

    /// Asks what address the server sees (RFC 8489 section 3).
    pub async fn binding(&self) -> Result<SocketAddr, Error> {
        match self.request(Request::Binding).await? {
            Outcome::Binding(mapped) => Ok(mapped),
            other => unreachable!("a Binding request has no outcome {other:?}"),
        }
    }

    /// Makes an allocation (RFC 8656 section 7); from now on it is refreshed before it expires.
    pub async fn allocate(&self, options: AllocateOptions) -> Result<Allocation, Error> {
        match self.request(Request::Allocate(options)).await? {
            Outcome::Allocated(allocation) => Ok(allocation),
            other => unreachable!("an Allocate request has no outcome {other:?}"),
        }
    }

    /// Refreshes the allocation (RFC 8656 section 8) and returns its lifetime.
    pub async fn refresh(&self, lifetime: Option<Duration>) -> Result<Duration, Error> {
        match self.request(Request::Refresh { lifetime, family: None }).await? {
            Outcome::Refreshed(lifetime) => Ok(lifetime),
            other => unreachable!("a Refresh request has no outcome {other:?}"),
        }
    }

    /// Ends the allocation.
    pub async fn release(&self) -> Result<(), Error> {
        self.refresh(Some(Duration::ZERO)).await.map(drop)
    }

    /// Lets these peers through (RFC 8656 section 10); from now on the permissions are renewed before they expire.
    pub async fn create_permission(&self, peers: &[SocketAddr]) -> Result<(), Error> {
        self.request(Request::CreatePermission(peers.to_vec())).await.map(drop)
    }

    /// Binds a channel of the client's choice to a peer (RFC 8656 section 12), and from now on keeps it bound.
    pub async fn bind_channel(&self, peer: SocketAddr) -> Result<u16, Error> {
        let channel = self.shared.state().session.unused_channel()?;
        self.bind_channel_number(channel, peer).await?;
        Ok(channel)
    }

    /// Binds this channel to a peer, and from now on keeps it bound.
    pub async fn bind_channel_number(&self, channel: u16, peer: SocketAddr) -> Result<(), Error> {
        self.request(Request::ChannelBind { channel, peer }).await.map(drop)
    }

    /// Sends data to a peer: as ChannelData if there is a channel, else in a Send indication.
    pub async fn send(&self, peer: SocketAddr, payload: &[u8]) -> Result<(), Error> {
        let mut datagram = Vec::with_capacity(payload.len() + 64);
        self.shared.state().session.write_data(&mut datagram, peer, payload);
        self.send_raw(&datagram).await
    }

    /// Sends data to a peer in a Send indication, whether or not there is a channel (RFC 8656 section 11).
    pub async fn send_indication(&self, peer: SocketAddr, payload: &[u8], dont_fragment: bool) -> Result<(), Error> {
        let mut datagram = Vec::with_capacity(payload.len() + 64);
        self.shared.state().session.write_indication(&mut datagram, peer, payload, dont_fragment);
        self.send_raw(&datagram).await
    }

    /// Waits for data from a peer.
    pub async fn recv(&self) -> Result<Datagram, Error> {
        let received = self.inbox.lock().await.recv().await;
        received.ok_or_else(|| self.why_nothing_comes())
    }

    pub(crate) async fn next_attempt(&self) -> Result<ConnectionAttempt, Error> {
        let attempt = self.attempts.lock().await.recv().await;
        attempt.ok_or_else(|| self.why_nothing_comes())
    }

    pub(crate) fn route_and_settings(&self) -> (Route, Settings) {
        (self.shared.way().route.clone(), self.settings.clone())
    }

    fn why_nothing_comes(&self) -> Error {
        match self.shared.state().session.lost() {
            Some(why) => Error::ConnectionLost(why.to_owned()),
            None => Error::Closed,
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    pub(crate) fn way(&self) -> Arc<Way> {
        Arc::clone(&lock(&self.way))
    }

    /// Opens another way to a server, and goes it from now on.
    pub(crate) async fn take_way(&self, route: Route) -> Result<(), Error> {
        let way = Way::open(route).await?;
        self.return_to(Arc::new(way));
        Ok(())
    }

    /// Goes a way that is open.
    pub(crate) fn return_to(&self, way: Arc<Way>) {
        *lock(&self.way) = way;
        self.changed.notify_one();
    }

    pub(crate) fn asked(&self) -> MutexGuard<'_, Asked> {
        lock(&self.asked)
    }

    pub(crate) fn redirects(&self) -> watch::Receiver<Option<Redirect>> {
        self.redirected.subscribe()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sends what is to be sent and tells callers what has happened.
    fn settle(&self, state: &mut State) {
        while let Some(message) = state.session.poll_transmit() {
            self.way().link.post(&message);
        }
        while let Some(event) = state.session.poll_event() {
            match event {
                Event::Done(id, result) => {
                    if let Some(caller) = state.waiting.remove(&id) {
                        // A caller that was dropped has no use for the answer.
                        let _ = caller.send(result);
                    }
                }
                Event::ConnectionAttempt(attempt) => {
                    // One that nobody takes in time ends at the server.
                    let _ = state.attempts.as_ref().map(|attempts| attempts.try_send(attempt));
                }
                Event::RenewalFailed(request, error) => {
                    if let Some(redirect) = Redirect::of(&request, &error) {
                        self.redirected.send_replace(Some(redirect));
                    }
                }
            }
        }
    }
}

/// A panic elsewhere is reported there; what is behind these locks is whole between any two calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(shared: Arc<Shared>, inbox: mpsc::Sender<Datagram>) {
    let mut message = Vec::new();
    loop {
        let way = shared.way();
        let timeout = shared.state().session.poll_timeout();
        let timer = async {
            match timeout {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            received = way.link.receive(&mut message) => {
                if received.is_err() && !Arc::ptr_eq(&way, &shared.way()) {
                    // It is of no use any more.
                    continue;
                }
                let now = Instant::now();
                let mut state = shared.state();
                match &received {
                    Ok(()) => {
                        if let Some(data) = state.session.handle_datagram(&message, now) {
                            let (peer, channel, payload) = (data.peer, data.channel, data.payload.to_vec());
                            let _ = inbox.try_send(Datagram { peer, channel, payload });
                        }
                    }
                    Err(Failure::Unreachable) => state.session.handle_unreachable(now),
                    Err(Failure::Passing) => {}
                    Err(Failure::Lost(why)) => state.session.handle_lost(why, now),
                }
                shared.settle(&mut state);
                if matches!(received, Err(Failure::Lost(_))) {
                    state.attempts = None;
                    return;
                }
            }
            () = timer => {
                let mut state = shared.state();
                state.session.handle_timeout(Instant::now());
                shared.settle(&mut state);
            }
            () = shared.changed.notified() => {}
        }
    }
}
