//! The client's side of one 5-tuple, as a state machine.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use hairpin_common::wire::{CHANNEL_DATA_LEN, CHANNEL_MIN, ChannelDataHeader, Datagram};
use hairpin_proto::address::Transport;
use hairpin_proto::stun::attribute::{ConnectionId, Data, ErrorCodeAttribute, XorPeerAddress};
use hairpin_proto::stun::{Class, ErrorCode, Message, Method, TransactionId};

use crate::alternate::alternate;
use crate::challenge::{Challenge, Identity};
use crate::credentials::{Credentials, Security, TokenCredential};
use crate::error::Error;
use crate::frame;
use crate::pending::{Origin, Pending, Style};
use crate::renewal::Renewals;
use crate::request::{Outcome, Request, ticket};
use crate::timing::{Due, Timing};

/// The highest channel number of RFC 8656 section 12.
const CHANNEL_LAST: u16 = 0x4fff;
/// How many challenges a request may meet: a 401 for the realm, and a stale nonce or two.
const MAX_CHALLENGES: u32 = 3;

/// How a session behaves.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who the client is; without, only Binding and open relays work.
    pub credentials: Option<Credentials>,
    /// An access token: goes before the credentials, at servers that take one (RFC 7635).
    pub token: Option<TokenCredential>,
    /// Which of the STUN specifications is spoken.
    pub security: Security,
    /// When requests are sent again.
    pub timing: Timing,
    /// SOFTWARE of the requests.
    pub software: Option<String>,
    /// Whether requests end in FINGERPRINT.
    pub fingerprint: bool,
}

/// Names a request until its event has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

/// Something that has happened.
#[derive(Debug)]
pub enum Event {
    /// A request has its final answer, or will have none.
    Done(RequestId, Result<Outcome, Error>),
    /// What the session kept alive by itself is lost.
    RenewalFailed(Request, Error),
    /// A peer has connected to the relayed address of a TCP allocation (RFC 6062 section 4.4).
    ConnectionAttempt(ConnectionAttempt),
}

/// A peer's connection that waits to be bound; the server gives it up after 30 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionAttempt {
    /// Names the connection.
    pub id: ConnectionId,
    /// Who has connected.
    pub peer: SocketAddr,
}

/// Application data from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'p> {
    /// Who sent it.
    pub peer: SocketAddr,
    /// The channel it came on; `None` for a Data indication.
    pub channel: Option<u16>,
    /// The data.
    pub payload: &'p [u8],
}

/// The client's side of one 5-tuple. See the crate's documentation.
///
/// After each call that is given `now`, and after [`Session::request`], drain [`Session::poll_transmit`] and
/// [`Session::poll_event`], and call [`Session::handle_timeout`] at [`Session::poll_timeout`].
pub struct Session {
    style: Style,
    identity: Identity,
    ids: Box<dyn FnMut() -> TransactionId + Send>,
    challenge: Option<Challenge>,
    pending: Vec<Pending>,
    renewals: Renewals,
    peers: HashMap<u16, SocketAddr>,
    channels: HashMap<SocketAddr, u16>,
    next_channel: u16,
    next_request: u64,
    transmits: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    last_response: Vec<u8>,
    /// Why there is no way to the server any more.
    lost: Option<String>,
    ticket: Option<Vec<u8>>,
}

impl Session {
    /// Starts a session over UDP that takes its transaction ids from `ids`, see [`crate::random_ids`].
    pub fn new(settings: Settings, ids: impl FnMut() -> TransactionId + Send + 'static) -> Self {
        Self::over(Transport::Udp, settings, ids)
    }

    /// Starts a session over a transport. Over a stream no request is sent twice, and ChannelData is padded.
    pub fn over(transport: Transport, settings: Settings, ids: impl FnMut() -> TransactionId + Send + 'static) -> Self {
        let Settings { credentials, token, security, timing, software, fingerprint } = settings;
        Self {
            style: Style { software, fingerprint, timing, transport },
            identity: Identity { credentials, token, security },
            ids: Box::new(ids),
            challenge: None,
            pending: Vec::new(),
            renewals: Renewals::default(),
            peers: HashMap::new(),
            channels: HashMap::new(),
            next_channel: CHANNEL_MIN,
            next_request: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            last_response: Vec::new(),
            lost: None,
            ticket: None,
        }
    }

    /// Asks the server for something.
    pub fn request(&mut self, request: Request, now: Instant) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.start(Origin::Caller(id), request, now);
        id
    }

    /// A channel number that this session has not used yet.
    pub fn unused_channel(&mut self) -> Result<u16, Error> {
        while self.next_channel <= CHANNEL_LAST {
            let channel = self.next_channel;
            self.next_channel += 1;
            if !self.peers.contains_key(&channel) {
                return Ok(channel);
            }
        }
        Err(Error::NoChannelLeft)
    }

    /// The channel that is bound to a peer.
    pub fn channel_of(&self, peer: SocketAddr) -> Option<u16> {
        self.channels.get(&peer).copied()
    }

    /// Appends the message that carries `payload` to `peer`: ChannelData if there is a channel, else a Send indication.
    pub fn write_data(&mut self, out: &mut Vec<u8>, peer: SocketAddr, payload: &[u8]) {
        match self.channel_of(peer) {
            Some(channel) if self.style.transport.is_stream() => frame::padded_channel_data(out, channel, payload),
            Some(channel) => frame::channel_data(out, channel, payload),
            None => frame::send_indication(out, (self.ids)(), peer, payload, false),
        }
    }

    /// Appends a Send indication, whether or not there is a channel.
    pub fn write_indication(&mut self, out: &mut Vec<u8>, peer: SocketAddr, payload: &[u8], dont_fragment: bool) {
        frame::send_indication(out, (self.ids)(), peer, payload, dont_fragment);
    }

    /// Takes a datagram from the server, or a message that was cut out of a stream. Data of a peer is returned, everything else becomes events.
    pub fn handle_datagram<'p>(&mut self, datagram: &'p [u8], now: Instant) -> Option<Received<'p>> {
        match Datagram::of(*datagram.first()?) {
            Datagram::ChannelData => self.channel_data(datagram),
            Datagram::Stun => {
                let message = Message::parse(datagram).ok()?;
                match message.class() {
                    Class::Indication if message.method() == Method::CONNECTION_ATTEMPT => {
                        self.events.extend(connection_attempt(&message).map(Event::ConnectionAttempt));
                        None
                    }
                    Class::Indication => data_indication(&message),
                    Class::Success | Class::Error => {
                        self.response(&message, datagram, now);
                        None
                    }
                    Class::Request => None,
                }
            }
            Datagram::Other => None,
        }
    }

    /// Does what is due: retransmissions, failures, renewals.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(pending) = self.pending.get_mut(index) {
            match pending.retransmission.at(now) {
                Due::Nothing => index += 1,
                Due::SendAgain => {
                    self.transmits.push_back(pending.message.clone());
                    index += 1;
                }
                Due::GiveUp => {
                    let method = pending.request.method();
                    let error =
                        if pending.violated { Error::IntegrityViolated(method) } else { Error::Timeout(method) };
                    self.finish(index, Err(error), now);
                }
            }
        }
        while let Some(request) = self.renewals.take_due(now) {
            self.start(Origin::Renewal, request, now);
        }
    }

    /// Fails every request: the server's host has said that nothing listens there.
    pub fn handle_unreachable(&mut self, now: Instant) {
        while !self.pending.is_empty() {
            self.finish(0, Err(Error::Unreachable), now);
        }
    }

    /// Fails every request, and all that will be made: the stream to the server broke, for the given reason. What it had
    /// is gone with it, and is not renewed.
    pub fn handle_lost(&mut self, why: &str, now: Instant) {
        self.lost = Some(why.to_owned());
        self.renewals = Renewals::default();
        while !self.pending.is_empty() {
            self.finish(0, Err(Error::ConnectionLost(why.to_owned())), now);
        }
    }

    /// The next message to be sent to the server.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// The next thing that has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] is to be called, unless something else comes first.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retransmission = self.pending.iter().map(|pending| pending.retransmission.due()).min();
        retransmission.into_iter().chain(self.renewals.next()).min()
    }

    /// Whether no request is under way, neither a caller's nor a renewal.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// The mobility ticket that came last (RFC 8016).
    pub fn ticket(&self) -> Option<&[u8]> {
        self.ticket.as_deref()
    }

    /// Goes on with another server, which has challenges of its own (RFC 8489 section 10). For a session that has
    /// nothing yet that the old one keeps for it.
    pub fn handle_redirect(&mut self) {
        self.challenge = None;
    }

    /// Goes on with another access token, since the one before expires: for allocations to come, and to refresh the one that
    /// there is (RFC 7635 section 9).
    pub fn set_token(&mut self, token: TokenCredential) {
        if let Some(challenge) = &mut self.challenge {
            challenge.renew_token(&token);
        }
        self.identity.token = Some(token);
    }

    /// The server's last challenge, which the next request answers in advance.
    pub(crate) fn challenge(&self) -> Option<Challenge> {
        self.challenge.clone()
    }

    /// Starts where another session with the same server and the same credentials is.
    pub(crate) fn expect(&mut self, challenge: Option<Challenge>) {
        self.challenge = challenge;
    }

    /// Why the stream to the server broke, if it did.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The last response that belonged to a request of this session, as received; empty if there was none.
    pub fn last_response(&self) -> &[u8] {
        &self.last_response
    }

    fn start(&mut self, origin: Origin, request: Request, now: Instant) {
        let transaction = (self.ids)();
        let pending = Pending::new(origin, request, transaction, self.challenge.as_ref(), &self.style, now);
        let message = pending.message.clone();
        self.pending.push(pending);
        match self.lost.clone() {
            Some(why) => self.finish(self.pending.len() - 1, Err(Error::ConnectionLost(why)), now),
            None => self.transmits.push_back(message),
        }
    }

    fn channel_data<'p>(&self, datagram: &'p [u8]) -> Option<Received<'p>> {
        let (header, rest) = datagram.split_first_chunk::<CHANNEL_DATA_LEN>()?;
        let ChannelDataHeader { channel, length } = ChannelDataHeader::parse(*header);
        let peer = *self.peers.get(&channel)?;
        Some(Received { peer, channel: Some(channel), payload: rest.get(..usize::from(length))? })
    }

    fn response(&mut self, message: &Message<'_>, bytes: &[u8], now: Instant) {
        let id = message.transaction_id();
        let Some(index) = self.pending.iter().position(|pending| pending.transaction == id) else { return };
        let pending = &mut self.pending[index];
        if message.method() != pending.request.method() {
            return;
        }
        self.last_response.clear();
        self.last_response.extend_from_slice(bytes);
        if message.class() == Class::Error {
            return self.refusal(index, message, now);
        }
        let is_forged = pending.signed.as_ref().is_some_and(|signature| !signature.verifies(message));
        if is_forged || self.identity.is_bid_down(message) {
            pending.violated = true;
            return;
        }
        let outcome = pending.request.outcome(message);
        if matches!(outcome, Ok(Outcome::Allocated(_) | Outcome::Refreshed(_))) {
            self.ticket = ticket(message).or(self.ticket.take());
        }
        self.finish(index, outcome, now);
    }

    /// An error response is believed without MESSAGE-INTEGRITY, though not with a wrong one: servers refuse before they
    /// know whom they talk to, and who can guess a transaction id can as well drop the packets.
    fn refusal(&mut self, index: usize, message: &Message<'_>, now: Instant) {
        let pending = &mut self.pending[index];
        let signature = pending.signed.as_ref().filter(|_| message.has_integrity());
        if signature.is_some_and(|signature| !signature.verifies(message)) {
            pending.violated = true;
            return;
        }
        let method = pending.request.method();
        let Ok(Some(ErrorCodeAttribute { code, reason })) = message.attribute() else {
            return self.finish(index, Err(Error::Incomplete { method, missing: "ERROR-CODE" }), now);
        };
        let is_challenge = code == ErrorCode::UNAUTHENTICATED || code == ErrorCode::STALE_NONCE;
        if !is_challenge && self.identity.is_bid_down(message) {
            pending.violated = true;
            return;
        }
        if code == ErrorCode::TRY_ALTERNATE {
            return self.finish(index, Err(alternate(message)), now);
        }
        let asked_first = code == ErrorCode::UNAUTHENTICATED && pending.signed.is_none();
        let rejected = Error::Rejected { method, code, reason: reason.to_owned() };
        if pending.challenges == MAX_CHALLENGES || !(asked_first || code == ErrorCode::STALE_NONCE) {
            return self.finish(index, Err(rejected), now);
        }
        match self.identity.answer(message, method) {
            Ok(Some(challenge)) => self.challenge = Some(challenge),
            Ok(None) => return self.finish(index, Err(rejected), now),
            Err(error) => return self.finish(index, Err(error), now),
        }
        let transaction = (self.ids)();
        pending.restart(transaction, self.challenge.as_ref(), &self.style, now);
        self.transmits.push_back(pending.message.clone());
    }

    fn finish(&mut self, index: usize, result: Result<Outcome, Error>, now: Instant) {
        let Pending { origin, request, .. } = self.pending.swap_remove(index);
        if let Ok(outcome) = &result {
            self.renewals.learn(&request, outcome, now);
            if let Request::ChannelBind { channel, peer } = request {
                self.peers.insert(channel, peer);
                self.channels.insert(peer, channel);
            }
        }
        match (origin, result) {
            (Origin::Caller(id), result) => self.events.push_back(Event::Done(id, result)),
            (Origin::Renewal, Err(error)) => self.events.push_back(Event::RenewalFailed(request, error)),
            (Origin::Renewal, Ok(_)) => {}
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("pending", &self.pending.len())
            .field("channels", &self.peers)
            .finish_non_exhaustive()
    }
}

fn connection_attempt(message: &Message<'_>) -> Option<ConnectionAttempt> {
    let id = message.attribute().ok()??;
    let XorPeerAddress(peer) = message.attribute().ok()??;
    Some(ConnectionAttempt { id, peer })
}

fn data_indication<'p>(message: &Message<'p>) -> Option<Received<'p>> {
    if message.method() != Method::DATA {
        return None;
    }
    let XorPeerAddress(peer) = message.attribute().ok()??;
    let Data(payload) = message.attribute().ok()??;
    Some(Received { peer, channel: None, payload })
}
