//! What may be asked of a shard about its sessions, and be done to them, between packets.

use std::net::{IpAddr, SocketAddr};

use hairpin_proto::media::{
    CloseReason, NegotiationError, Offer, OpenError, Remote, RemoteError, Request, SessionId, Side, StreamCandidates,
    Terms,
};
use hairpin_proto::sdp::Description;

use super::super::questions::ShardQuery;
use super::super::state::{State, now};
use crate::api;

/// How many sessions are told of at once.
const PAGE: usize = 64;

/// The sessions of a shard, for as long as one question takes.
pub struct Desk<'s>(&'s mut State);

impl ShardQuery {
    /// Asks a question about sessions. `None` if the shard does not run (any more), or does not answer in time.
    pub async fn media<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Desk<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        self.ask(move |state| {
            let answer = question(&mut Desk(state));
            state.carry_out_media();
            answer
        })
        .await
    }

    /// Closes all sessions that are reached at an address of which this is true. Returns how many.
    pub async fn close_sessions(
        &self,
        reason: CloseReason,
        is_meant: impl Fn(IpAddr) -> bool + Send + 'static,
    ) -> usize {
        let closed = self.media(move |desk| {
            let sessions = &mut desk.0.media.sessions;
            let meant: Vec<_> = sessions.ids(SessionId(0)).filter(|id| sessions.is_on(*id, &is_meant)).collect();
            meant.into_iter().filter(|id| sessions.close(*id, reason)).count()
        });
        closed.await.unwrap_or_default()
    }

    /// All sessions of which this is true, the oldest first.
    pub async fn sessions(
        &self,
        is_meant: impl Fn(&api::ice::Session) -> bool + Clone + Send + 'static,
    ) -> Vec<api::ice::Session> {
        let (mut all, mut from) = (Vec::new(), SessionId(0));
        loop {
            let is_meant = is_meant.clone();
            let page = self.media(move |desk| {
                let ids: Vec<_> = desk.0.media.sessions.ids(from).take(PAGE).collect();
                let next = ids.last().filter(|_| ids.len() == PAGE).map(|SessionId(last)| SessionId(last + 1));
                (ids.into_iter().filter_map(|id| desk.session(id)).filter(is_meant).collect::<Vec<_>>(), next)
            });
            let Some((mut page, next)) = page.await else { return all };
            all.append(&mut page);
            let Some(next) = next else { return all };
            from = next;
        }
    }
}

impl Desk<'_> {
    /// Whether no new sessions are welcome.
    pub fn is_draining(&self) -> bool {
        self.0.server.is_draining()
    }

    /// Creates a session.
    pub fn create(&mut self, request: Request) -> Result<SessionId, OpenError> {
        let (sessions, mut ports) = self.0.media_with_ports();
        sessions.create(now(), request, &mut ports)
    }

    /// Says that a session has begun, once nothing can keep it from that any more.
    pub fn begun(&self, id: SessionId) {
        self.0.session_begun(id);
    }

    /// Forgets a session that was created a moment ago, and could not be what it should. It was never there.
    pub fn abandon(&mut self, id: SessionId) {
        self.0.media.sessions.abandon(id);
    }

    /// A session as it is now.
    pub fn session(&self, id: SessionId) -> Option<api::ice::Session> {
        self.0.session(id)
    }

    /// Says who is on the other side of a leg.
    pub fn set_remote(&mut self, id: SessionId, side: Side, remote: Remote) -> Result<(), RemoteError> {
        self.0.media.sessions.set_remote(now().instant, id, side, remote)
    }

    /// The same by a session description, whose media sections are the session's streams.
    pub fn set_described(
        &mut self,
        id: SessionId,
        side: Side,
        description: &Description,
    ) -> Result<(), NegotiationError> {
        self.0.media.sessions.set_described(now(), id, side, description)
    }

    /// Adds candidates of the other side of a leg.
    pub fn add_candidates(
        &mut self,
        id: SessionId,
        side: Side,
        candidates: Vec<StreamCandidates>,
        end_of_candidates: bool,
    ) -> Result<(), RemoteError> {
        self.0.media.sessions.add_candidates(now().instant, id, side, candidates, end_of_candidates)
    }

    /// Gives a leg new credentials; false if there is no such session, or the leg has no ICE.
    pub fn restart(&mut self, id: SessionId, side: Side) -> bool {
        self.0.media.sessions.restart(id, side)
    }

    /// Changes label and terms; false if there is no such session.
    pub fn update(&mut self, id: SessionId, label: Option<String>, terms: impl FnOnce(&Terms) -> Terms) -> bool {
        self.0.media.sessions.update(now().instant, id, label, terms)
    }

    /// Has the kernel let go of a session that is about to be closed; false if there is none. What the kernel has counted is
    /// final when its writer has caught up.
    pub fn begin_close(&mut self, id: SessionId) -> bool {
        self.0.media.sessions.begin_close(id)
    }

    /// Closes a session; as it was in the end, or none if there is none.
    pub fn close(&mut self, id: SessionId) -> Option<api::ice::Session> {
        let session = self.session(id)?;
        self.0.media.sessions.close(id, CloseReason::Deleted);
        Some(session)
    }

    /// Makes a session of an offer, which becomes leg A's remote. With what leg B's remote is to be told.
    pub fn offer(&mut self, offer: &Offer) -> Result<(SessionId, String), NegotiationError> {
        let (sessions, mut ports) = self.0.media_with_ports();
        sessions.offer(now(), offer, &mut ports)
    }

    /// Takes another offer, of either side, that is in force when it is answered. With what the other side is to be told.
    pub fn reoffer(&mut self, id: SessionId, from: Side, offer: &Description) -> Result<String, NegotiationError> {
        let (sessions, mut ports) = self.0.media_with_ports();
        sessions.reoffer(now(), id, from, offer, &mut ports)
    }

    /// Takes the answer to the last offer. With what the other side is to be told.
    pub fn answer(&mut self, id: SessionId, from: Side, answer: &Description) -> Result<String, NegotiationError> {
        self.0.media.sessions.answer(now(), id, from, answer)
    }

    /// The relayed addresses of an allocation, by its serial number, as the world knows them.
    pub fn relayed_addresses(&self, serial: u64) -> Option<Vec<SocketAddr>> {
        let id = self.0.register.by_serial(serial)?;
        Some(self.0.server.describe(id)?.relayed.iter().map(|relayed| relayed.public).collect())
    }
}
