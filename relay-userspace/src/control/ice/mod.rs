//! Sessions of two legs: which there are, and what their owners have done with them.
//!
//! A session lives on one shard, and its id says on which. What is asked of a shard is done between packets, all of it or
//! nothing, and not at all if whoever has asked waits no longer.

mod error;
mod read;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hairpin_proto::media::{self, OpenError, RemoteError, Request, SessionId, Side};

pub use self::error::{IceError, IceErrorKind};
use self::read::{Told, numbers};
use super::Control;
use crate::api::ice;
use crate::relay::settle;
use crate::shard::{Desk, ask_all};

/// The allocation of a leg of TURN, with its relayed addresses.
#[derive(Clone, Debug)]
struct Relayed {
    side: Side,
    id: String,
    addresses: Vec<SocketAddr>,
}

impl Control {
    /// Creates a session, on any shard that has room for it.
    pub async fn create_session(&self, create: &ice::Create) -> Result<ice::Session, IceError> {
        self.admits_sessions()?;
        let request = read::create(create)?;
        let mut relayed = Vec::new();
        for (side, leg) in Side::BOTH.into_iter().zip([&create.a, &create.b]) {
            if let ice::Leg::Turn { allocation } = leg {
                relayed.push(self.relayed(side, allocation).await?);
            }
        }
        let relayed = Arc::new(relayed);
        let made = self.on_any_shard(move |desk| {
            admits(desk)?;
            open(desk, request.clone(), &relayed)
        });
        made.await
    }

    /// Makes a session of an offer. With what the other side is to be offered.
    pub async fn offer(&self, offer: &ice::Offer) -> Result<ice::Exchanged, IceError> {
        self.admits_sessions()?;
        let offer = Arc::new(read::offer(offer)?);
        let made = self.on_any_shard(move |desk| {
            admits(desk)?;
            let (id, sdp) = desk.offer(&offer)?;
            desk.begun(id);
            // It was made a moment ago.
            let session = desk.session(id).ok_or(RemoteError::NoSession)?;
            Ok(ice::Exchanged { session, sdp })
        });
        made.await
    }

    /// The sessions that are meant, the oldest first.
    pub async fn sessions(&self, filter: &ice::Filter) -> Vec<ice::Session> {
        let all = ask_all(&self.0.sources.shards, |shard| {
            let filter = filter.clone();
            async move { shard.sessions(move |session| filter.has(&session.id, &session.label)).await }
        });
        let mut all: Vec<_> = all.await.into_iter().flatten().collect();
        all.sort_by_key(|session| (session.created, numbers(&session.id)));
        all
    }

    /// One session.
    pub async fn session(&self, id: &str) -> Result<ice::Session, IceError> {
        self.with_session(id, |_, _| Ok(())).await.map(|((), session)| session)
    }

    /// Changes label and terms of a session.
    pub async fn update_session(&self, id: &str, update: &ice::Update) -> Result<ice::Session, IceError> {
        let (label, terms) = read::update(update)?;
        let updated = self.with_session(id, move |desk, id| {
            if desk.update(id, label, terms) { Ok(()) } else { Err(RemoteError::NoSession.into()) }
        });
        updated.await.map(|((), session)| session)
    }

    /// Ends a session: as it was in the end. When this returns, the kernel forwards nothing of it any more.
    pub async fn close_session(&self, id: &str) -> Result<ice::Session, IceError> {
        let missing = || IceError::from(RemoteError::NoSession);
        // First the kernel, so that all it has forwarded is in the totals.
        self.on_shard_of(id, move |desk, id| desk.begin_close(id).then_some(()).ok_or_else(missing)).await?;
        settle(self.0.sources.datapath.clone()).await;
        self.on_shard_of(id, move |desk, id| desk.close(id).ok_or_else(missing)).await
    }

    /// Says who is on the other side of a leg.
    pub async fn set_remote(&self, id: &str, side: Side, remote: &ice::Remote) -> Result<ice::Session, IceError> {
        let told = read::remote(remote)?;
        let set = self.with_session(id, move |desk, id| match told {
            Told::Remote(remote) => Ok(desk.set_remote(id, side, remote)?),
            Told::Described(description) => Ok(desk.set_described(id, side, &description)?),
        });
        set.await.map(|((), session)| session)
    }

    /// Adds candidates of the other side of a leg.
    pub async fn add_candidates(
        &self,
        id: &str,
        side: Side,
        candidates: &ice::Candidates,
    ) -> Result<ice::Session, IceError> {
        let (candidates, are_all) = read::candidates(candidates)?;
        let added = self.with_session(id, move |desk, id| Ok(desk.add_candidates(id, side, candidates, are_all)?));
        added.await.map(|((), session)| session)
    }

    /// Gives a leg new credentials.
    pub async fn restart_leg(&self, id: &str, side: Side) -> Result<ice::Session, IceError> {
        let restarted = self.with_session(id, move |desk, id| {
            if desk.restart(id, side) {
                return Ok(());
            }
            Err(desk.session(id).map_or(RemoteError::NoSession.into(), |_| IceError::NoIce(side.label())))
        });
        restarted.await.map(|((), session)| session)
    }

    /// Takes another offer, of either side, that is in force when it is answered. With what the other side is to be offered.
    pub async fn reoffer(&self, id: &str, exchange: &ice::Exchange) -> Result<ice::Exchanged, IceError> {
        let (from, description) = (Side::from(exchange.from), read::description(&exchange.sdp)?);
        let taken = self.with_session(id, move |desk, id| Ok(desk.reoffer(id, from, &description)?));
        taken.await.map(|(sdp, session)| ice::Exchanged { session, sdp })
    }

    /// Takes the answer to the last offer. With what the other side is to be answered.
    pub async fn answer(&self, id: &str, exchange: &ice::Exchange) -> Result<ice::Exchanged, IceError> {
        let (from, description) = (Side::from(exchange.from), read::description(&exchange.sdp)?);
        let taken = self.with_session(id, move |desk, id| Ok(desk.answer(id, from, &description)?));
        taken.await.map(|(sdp, session)| ice::Exchanged { session, sdp })
    }

    fn admits_sessions(&self) -> Result<(), IceError> {
        if self.published().drain.is_some() { Err(IceError::Draining) } else { Ok(()) }
    }

    /// What an allocation has, for a leg whose remote it is.
    async fn relayed(&self, side: Side, id: &str) -> Result<Relayed, IceError> {
        let missing = || IceError::NoAllocation { leg: side.label(), id: id.to_owned() };
        let (shard, serial) = numbers(id).ok_or_else(missing)?;
        let shard = self.0.sources.shards.get(shard).ok_or_else(missing)?;
        let addresses = shard.media(move |desk| desk.relayed_addresses(serial)).await.ok_or(IceError::Silent)?;
        Ok(Relayed { side, id: id.to_owned(), addresses: addresses.ok_or_else(missing)? })
    }

    /// Has a session made by the shard whose turn it is, or by the next that has room for it, and answers.
    async fn on_any_shard<T: Send + 'static>(
        &self,
        make: impl Fn(&mut Desk<'_>) -> Result<T, IceError> + Clone + Send + 'static,
    ) -> Result<T, IceError> {
        let shards = self.0.sources.shards.len();
        let first = self.0.next_shard.fetch_add(1, Ordering::Relaxed);
        let mut refused = IceError::Silent;
        for at in 0..shards {
            match self.on_shard(first.wrapping_add(at) % shards, make.clone()).await {
                Err(error @ (IceError::Silent | IceError::Open(OpenError::TooMany | OpenError::NoPort))) => {
                    refused = error;
                }
                made => return made,
            }
        }
        Err(refused)
    }

    /// Does something to a session. With the session as it is then.
    async fn with_session<T: Send + 'static>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Desk<'_>, SessionId) -> Result<T, IceError> + Send + 'static,
    ) -> Result<(T, ice::Session), IceError> {
        let changed = self.on_shard_of(id, |desk, id| {
            let answer = change(desk, id)?;
            Ok((answer, desk.session(id).ok_or(RemoteError::NoSession)?))
        });
        changed.await
    }

    /// Asks the shard that an id names.
    async fn on_shard_of<T: Send + 'static>(
        &self,
        id: &str,
        question: impl FnOnce(&mut Desk<'_>, SessionId) -> Result<T, IceError> + Send + 'static,
    ) -> Result<T, IceError> {
        let missing = || IceError::NoSession(id.to_owned());
        let (shard, serial) = numbers(id).ok_or_else(missing)?;
        if shard >= self.0.sources.shards.len() {
            return Err(missing());
        }
        let answer = self.on_shard(shard, move |desk| question(desk, SessionId(serial))).await;
        answer.map_err(|error| error.of_session(id))
    }

    /// Asks a shard, unless nobody waits for the answer any more when it comes to that.
    async fn on_shard<T: Send + 'static>(
        &self,
        shard: usize,
        question: impl FnOnce(&mut Desk<'_>) -> Result<T, IceError> + Send + 'static,
    ) -> Result<T, IceError> {
        let waiting = Arc::new(());
        let asked = Arc::downgrade(&waiting);
        let answer = self.0.sources.shards[shard].media(move |desk| {
            let is_waited_for = asked.strong_count() > 0;
            is_waited_for.then(|| question(desk))
        });
        let answer = answer.await;
        drop(waiting);
        answer.flatten().unwrap_or(Err(IceError::Silent))
    }
}

/// Whether a shard takes new sessions: it is told of a drain before anybody else.
fn admits(desk: &Desk<'_>) -> Result<(), IceError> {
    if desk.is_draining() { Err(IceError::Draining) } else { Ok(()) }
}

/// Creates a session, with what is known of its remotes already.
fn open(desk: &mut Desk<'_>, request: Request, relayed: &[Relayed]) -> Result<ice::Session, IceError> {
    let id = desk.create(request)?;
    for relayed in relayed {
        if let Err(error) = join(desk, id, relayed) {
            desk.abandon(id);
            return Err(error);
        }
    }
    desk.begun(id);
    // It was made a moment ago.
    Ok(desk.session(id).ok_or(RemoteError::NoSession)?)
}

/// Makes an allocation's relayed address the remote of a leg: the first of a family that the leg has.
fn join(desk: &mut Desk<'_>, id: SessionId, relayed: &Relayed) -> Result<(), IceError> {
    let Relayed { side, id: allocation, addresses } = relayed;
    for address in addresses {
        let address = media::PlainAddress { stream: None, component: 1, address: *address };
        let remote = media::Remote::Plain { addresses: vec![address], latch: false, is_hint: false };
        match desk.set_remote(id, *side, remote) {
            Err(RemoteError::NoFamily(_)) => {}
            set => return Ok(set?),
        }
    }
    let has: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    Err(IceError::NoFamily { leg: side.label(), id: allocation.clone(), has: has.join(", ") })
}

impl From<ice::Side> for Side {
    fn from(side: ice::Side) -> Self {
        match side {
            ice::Side::A => Self::A,
            ice::Side::B => Self::B,
        }
    }
}
