//! A session with a way to the server.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hairpin_proto::address::Transport;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::link::{Failure, Link, Route};
use crate::request::{AllocateOptions, Allocation, Outcome, Request};
use crate::session::{Event, RequestId, Session, Settings};
use crate::tls::TlsOptions;

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
    /// Credentials and timers.
    pub settings: Settings,
}

impl Default for Options {
    fn default() -> Self {
        Self { transport: Transport::Udp, tls: None, local: None, settings: Settings::default() }
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
    shared: Arc<Shared>,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Datagram>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    link: Link,
    state: Mutex<State>,
    /// A request was made: the task's timer may be too late now.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    session: Session,
    waiting: HashMap<RequestId, oneshot::Sender<Result<Outcome, Error>>>,
}

impl Client {
    /// Opens a way to a server, and waits until there is one: for UDP, nothing is sent yet.
    pub async fn connect(server: SocketAddr, options: Options) -> Result<Self, Error> {
        let Options { transport, tls, local, settings } = options;
        let link = Link::open(&Route { server, local, transport, tls, patience: settings.timing.total() }).await?;
        let session = Session::over(transport, settings, crate::random_ids());
        let state = Mutex::new(State { session, waiting: HashMap::new() });
        let shared = Arc::new(Shared { link, state, changed: Notify::new() });
        let (sender, receiver) = mpsc::channel(INBOX);
        let task = tokio::spawn(run(Arc::clone(&shared), sender));
        Ok(Self { shared, inbox: tokio::sync::Mutex::new(receiver), task })
    }

    /// The client's own address.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        Ok(self.shared.link.local_addr()?)
    }

    /// The protocol that the server has chosen by ALPN, over TLS.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.shared.link.alpn()
    }

    /// The last response, as received; empty if there was none.
    pub fn last_response(&self) -> Vec<u8> {
        self.shared.state().session.last_response().to_vec()
    }

    /// Sends bytes to the server as they are, for tests of what no proper client would send.
    pub async fn send_raw(&self, bytes: &[u8]) -> Result<(), Error> {
        self.shared.link.send(bytes).await
    }

    /// Makes a request and waits for its final answer.
    pub async fn request(&self, request: Request) -> Result<Outcome, Error> {
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
        received.ok_or_else(|| match self.shared.state().session.lost() {
            Some(why) => Error::ConnectionLost(why.to_owned()),
            None => Error::Closed,
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere is reported there; the session is whole between any two calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what is to be sent and tells callers what has happened.
    fn settle(&self, state: &mut State) {
        while let Some(message) = state.session.poll_transmit() {
            self.link.post(&message);
        }
        while let Some(event) = state.session.poll_event() {
            if let Event::Done(id, result) = event
                && let Some(caller) = state.waiting.remove(&id)
            {
                // A caller that was dropped has no use for the answer.
                let _ = caller.send(result);
            }
        }
    }
}

async fn run(shared: Arc<Shared>, inbox: mpsc::Sender<Datagram>) {
    let mut message = Vec::new();
    loop {
        let timeout = shared.state().session.poll_timeout();
        let timer = async {
            match timeout {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            received = shared.link.receive(&mut message) => {
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
