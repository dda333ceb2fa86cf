//! Clients over DTLS (RFC 7350): each has an association, in which its datagrams are encrypted.
//!
//! A stranger is asked first, at no cost, whether it receives at its address. Only then there is an association, and it is
//! limited as connections are. A client that has lost its state may begin anew from the same address: the association it
//! had is replaced when the new one is established, not before, since the beginning may be a replay.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hairpin_dtls::{Error, Hello, MAX_PLAINTEXT, ServerContext, Session};
use hairpin_proto::address::{FiveTuple, Transport};
use hashbrown::HashMap;

use super::admission::{Admission, ConnectionLimits, Sources, Standing};
use super::connection::End;
use super::connections::ConnectionCounts;
use super::histogram::Histogram;
use super::report::{Times, handshakes};

/// How many handshakes may be begun in one batch. Each takes about a millisecond, for which everybody else waits; who is
/// left out asks again a second later.
const HANDSHAKES: usize = 1;
/// How much one batch of datagrams holds in plaintext: no more than encrypted.
const ARENA: usize = crate::net::BATCH * 65_536 + MAX_PLAINTEXT;

/// For how long at a time the program takes a client for no stranger that has an allocation.
const VOUCHED: Duration = Duration::from_secs(600);

/// The first byte of a DTLS record (RFC 7983 section 7).
pub(super) fn is_dtls(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| (20..=63).contains(first))
}

/// Where the plaintexts of one batch are put.
pub(super) struct Arena(Box<[u8]>);

impl Arena {
    pub(super) fn new(is_needed: bool) -> Self {
        // Memory is used as far as datagrams reach.
        Self(vec![0; if is_needed { ARENA } else { 0 }].into())
    }

    /// Sees to it that there is room, should there be none yet.
    pub(super) fn provide(&mut self, is_needed: bool) {
        if is_needed && self.0.is_empty() {
            *self = Self::new(true);
        }
    }

    pub(super) fn start(&mut self) -> Plaintexts<'_> {
        Plaintexts { rest: &mut self.0, handshakes: HANDSHAKES }
    }
}

/// Room for the plaintexts of a batch, each of which lives as long as the batch.
pub(super) struct Plaintexts<'p> {
    rest: &'p mut [u8],
    /// How many handshakes may still be begun.
    handshakes: usize,
}

impl<'p> Plaintexts<'p> {
    fn next_of(&mut self, session: &mut Session) -> Option<&'p [u8]> {
        let buffer = self.rest.first_chunk_mut::<MAX_PLAINTEXT>()?;
        let length = session.next_plaintext(buffer)?;
        let (plaintext, rest) = std::mem::take(&mut self.rest).split_at_mut(length);
        self.rest = rest;
        Some(plaintext)
    }
}

/// One client's association.
struct Association {
    session: Session,
    /// One that the client has begun anew.
    successor: Option<Box<Session>>,
    standing: Standing,
    /// When to send the last flight of a handshake again.
    resend: Option<Instant>,
    /// Until when the program takes its client for no stranger.
    vouched: Option<Instant>,
    /// Whether the engine knows which name the client has asked for.
    is_named: bool,
}

/// What has become of an encrypted datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// It belongs to an association, which may have plaintexts now, and datagrams to send.
    Association,
    /// It began an association that takes the place of another: what was begun in that one is over.
    Anew,
    /// A stranger is to be answered by [`Associations::reply`].
    Reply,
    /// Nothing.
    Ignored,
}

/// What the program is to be told of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    /// What it knows is right.
    Nothing,
    /// Until then it is no stranger.
    KnownUntil(Instant),
    /// It is one again.
    Stranger,
}

/// The associations of one shard.
pub(super) struct Associations {
    context: Option<ServerContext>,
    admission: Admission<FiveTuple>,
    by_client: HashMap<FiveTuple, Association>,
    resends: BTreeSet<(Instant, FiveTuple)>,
    reply: Vec<u8>,
    displaced: Option<FiveTuple>,
    begun: u64,
    ended: [u64; End::ALL.len()],
    handshakes: Histogram,
}

impl Associations {
    /// Without a context, there are none.
    pub(super) fn new(context: Option<ServerContext>, limits: ConnectionLimits, sources: Sources) -> Self {
        Self {
            context,
            admission: Admission::new(limits, sources),
            by_client: HashMap::new(),
            resends: BTreeSet::new(),
            reply: Vec::new(),
            displaced: None,
            begun: 0,
            ended: Default::default(),
            handshakes: handshakes(),
        }
    }

    /// Begins associations in this way from now on; those that are there go on.
    pub(super) fn set_context(&mut self, context: Option<ServerContext>) {
        self.context = context;
    }

    /// Lets so many in from now on; who is there stays.
    pub(super) fn set_limits(&mut self, limits: ConnectionLimits) {
        self.admission.set_limits(limits);
    }

    /// Whether there can be any.
    pub(super) fn are_possible(&self) -> bool {
        self.context.is_some()
    }

    /// Whether a datagram is looked at here.
    pub(super) fn concern(&self, datagram: &[u8]) -> bool {
        self.are_possible() && is_dtls(datagram)
    }

    /// Whether a client has an association.
    pub(super) fn has(&self, client: &FiveTuple) -> bool {
        self.by_client.contains_key(client)
    }

    /// The answer to a stranger.
    pub(super) fn reply(&self) -> &[u8] {
        &self.reply
    }

    /// Who has to go, since there is a new association.
    pub(super) fn take_displaced(&mut self) -> Option<FiveTuple> {
        self.displaced.take()
    }

    /// Takes an encrypted datagram.
    pub(super) fn receive(
        &mut self,
        client: FiveTuple,
        datagram: &[u8],
        now: Instant,
        plaintexts: &mut Plaintexts<'_>,
    ) -> Received {
        let Some(association) = self.by_client.get_mut(&client) else {
            return match self.hello(client, datagram, now, plaintexts) {
                (Received::Association, Some(session)) => self.begin(client, session, now),
                (received, _) => received,
            };
        };
        // Who begins anew twice has lost its state twice.
        let is_newer = |successor: &Option<Box<Session>>| {
            successor.as_ref().is_none_or(|session| session.is_succeeded_by(datagram))
        };
        if association.session.is_succeeded_by(datagram) && is_newer(&association.successor) {
            let (received, successor) = self.hello(client, datagram, now, plaintexts);
            if let Some(association) = self.by_client.get_mut(&client)
                && let Some(successor) = successor
            {
                association.successor = Some(Box::new(successor));
            }
            return received;
        }
        let was_established = association.session.is_established();
        // Each takes what is its own, and drops the rest.
        let _ = association.session.receive(datagram);
        if !was_established && association.session.is_established() {
            self.handshakes.record(association.standing.age().as_secs_f64());
        }
        if let Some(successor) = &mut association.successor {
            let _ = successor.receive(datagram);
            if successor.is_closed() {
                association.successor = None;
            } else if successor.is_established()
                && let Some(successor) = association.successor.take()
            {
                association.session = *successor;
                association.is_named = false;
                self.reschedule(client, now);
                return Received::Anew;
            }
        }
        self.reschedule(client, now);
        Received::Association
    }

    /// Looks at a datagram that may begin an association.
    fn hello(
        &mut self,
        client: FiveTuple,
        datagram: &[u8],
        now: Instant,
        plaintexts: &mut Plaintexts<'_>,
    ) -> (Received, Option<Session>) {
        let Self { context, reply, .. } = self;
        let Some(context) = context.as_ref().filter(|_| plaintexts.handshakes > 0) else {
            return (Received::Ignored, None);
        };
        match context.hello(client.client.socket(), client.server.socket(), now, datagram, reply) {
            Hello::Reply => (Received::Reply, None),
            Hello::Ignored => (Received::Ignored, None),
            Hello::Accepted(session) => {
                plaintexts.handshakes -= 1;
                (Received::Association, Some(session))
            }
        }
    }

    fn begin(&mut self, client: FiveTuple, session: Session, now: Instant) -> Received {
        let source = Some(client.client.ip());
        if self.admission.may_come(source).is_err() {
            self.begun += 1;
            self.ended[End::TooMany as usize] += 1;
            return Received::Ignored;
        }
        self.displaced = self.admission.displaced();
        self.begun += 1;
        let standing = self.admission.admit(client, source, now);
        self.by_client.insert(
            client,
            Association { session, successor: None, standing, resend: None, vouched: None, is_named: false },
        );
        self.reschedule(client, now);
        Received::Association
    }

    /// Which name the client has asked for, once it is known.
    pub(super) fn take_server_name(&mut self, client: &FiveTuple) -> Option<String> {
        let association = self.by_client.get_mut(client)?;
        if association.is_named || !association.session.is_established() {
            return None;
        }
        association.is_named = true;
        association.session.server_name().map(str::to_owned)
    }

    /// The next plaintext of a client.
    pub(super) fn next_plaintext<'p>(
        &mut self,
        client: &FiveTuple,
        plaintexts: &mut Plaintexts<'p>,
    ) -> Option<&'p [u8]> {
        plaintexts.next_of(&mut self.by_client.get_mut(client)?.session)
    }

    /// The next datagram for a client.
    pub(super) fn next_datagram(&mut self, client: &FiveTuple) -> Option<&[u8]> {
        self.by_client.get_mut(client)?.session.next_datagram()
    }

    /// The next datagram for a client that begins anew.
    pub(super) fn next_datagram_of_successor(&mut self, client: &FiveTuple) -> Option<&[u8]> {
        self.by_client.get_mut(client)?.successor.as_mut()?.next_datagram()
    }

    /// Encrypts a message; [`Associations::next_datagram`] gives it back.
    pub(super) fn send(&mut self, client: &FiveTuple, message: &[u8]) -> Result<(), Error> {
        self.by_client.get_mut(client).map_or(Err(Error::Closed), |association| association.session.send(message))
    }

    /// Whether an association has ended.
    pub(super) fn is_closed(&self, client: &FiveTuple) -> bool {
        self.by_client.get(client).is_some_and(|association| association.session.is_closed())
    }

    /// What the client has said as it gave up the handshake.
    pub(super) fn alert(&self, client: &FiveTuple) -> Option<&'static str> {
        rustls::AlertDescription::from(self.by_client.get(client)?.session.alert()?).as_str()
    }

    /// Learns that a whole message has come, and whether its client has an allocation now.
    pub(super) fn heard(&mut self, client: &FiveTuple, now: Instant, has_allocation: bool) -> Tell {
        let Self { admission, by_client, .. } = self;
        let Some(association) = by_client.get_mut(client) else { return Tell::Nothing };
        association.standing.heard(now);
        admission.judge_anew(*client, &mut association.standing, client.client.ip(), has_allocation);
        if has_allocation {
            if association.vouched.is_none_or(|until| until < now + VOUCHED / 2) {
                association.vouched = Some(now + VOUCHED);
                return Tell::KnownUntil(now + VOUCHED);
            }
            Tell::Nothing
        } else if association.vouched.take().is_some() {
            Tell::Stranger
        } else {
            Tell::Nothing
        }
    }

    /// Whether the program takes a client for no stranger.
    pub(super) fn is_vouched(&self, client: &FiveTuple) -> bool {
        self.by_client.get(client).is_some_and(|association| association.vouched.is_some())
    }

    fn reschedule(&mut self, client: FiveTuple, now: Instant) {
        let Self { by_client, resends, .. } = self;
        let Some(Association { session, successor, resend, .. }) = by_client.get_mut(&client) else { return };
        let wait = [session.poll_timeout(), successor.as_ref().and_then(|session| session.poll_timeout())];
        let next = wait.into_iter().flatten().min().map(|wait| now + wait);
        if *resend != next {
            if let Some(at) = resend.take() {
                resends.remove(&(at, client));
            }
            *resend = next;
            resends.extend(next.map(|at| (at, client)));
        }
    }

    /// When there is something to be done although nothing arrives.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let resend = self.resends.first().map(|(at, _)| *at);
        [resend, self.admission.next_deadline()].into_iter().flatten().min()
    }

    /// A client that did not answer in time: it may have datagrams to send now, or its association may be closed.
    pub(super) fn take_resend(&mut self, now: Instant) -> Option<FiveTuple> {
        let (_, client) = self.resends.first().copied().filter(|(at, _)| *at <= now)?;
        self.resends.pop_first();
        if let Some(association) = self.by_client.get_mut(&client) {
            association.resend = None;
            // A session that has tried for too long is closed.
            let _ = association.session.handle_timeout();
            if association.successor.as_mut().is_some_and(|session| session.handle_timeout().is_err()) {
                association.successor = None;
            }
            self.reschedule(client, now);
        }
        Some(client)
    }

    /// A client whose time is over. `has_allocation` says who may stay.
    pub(super) fn take_due(&mut self, now: Instant, has_allocation: impl Fn(&FiveTuple) -> bool) -> Option<FiveTuple> {
        loop {
            let client = self.admission.due(now)?;
            let Self { admission, by_client, .. } = self;
            let Some(association) = by_client.get_mut(&client) else { continue };
            if admission.judge(client, &mut association.standing, has_allocation(&client), now) {
                return Some(client);
            }
        }
    }

    /// Says goodbye to a client; [`Associations::next_datagram`] gives it.
    pub(super) fn close(&mut self, client: &FiveTuple) {
        if let Some(association) = self.by_client.get_mut(client) {
            association.session.close();
            association.successor = None;
        }
    }

    /// Takes a session out, for another shard.
    pub(super) fn give(&mut self, client: &FiveTuple) -> Option<Session> {
        let Association { session, standing, resend, .. } = self.by_client.remove(client)?;
        if let Some(at) = resend {
            self.resends.remove(&(at, *client));
        }
        self.admission.leave(*client, standing);
        Some(session)
    }

    /// Takes a session in, from another shard. Returns whether there was room.
    pub(super) fn adopt(&mut self, client: FiveTuple, session: Session, now: Instant) -> bool {
        if self.admission.may_come(Some(client.client.ip())).is_err() {
            self.ended[End::TooMany as usize] += 1;
            return false;
        }
        self.displaced = self.admission.displaced();
        let standing = self.admission.admit(client, Some(client.client.ip()), now);
        self.by_client.insert(
            client,
            Association { session, successor: None, standing, resend: None, vouched: None, is_named: false },
        );
        self.reschedule(client, now);
        true
    }

    /// Ends an association that was closed.
    pub(super) fn remove(&mut self, client: &FiveTuple, end: End) {
        if self.give(client).is_some() {
            self.ended[end as usize] += 1;
        }
    }

    /// Whether the handshake is over.
    pub(super) fn is_established(&self, client: &FiveTuple) -> bool {
        self.by_client.get(client).is_some_and(|association| association.session.is_established())
    }

    /// Adds how long handshakes took.
    pub(super) fn add_times(&self, times: &mut Times) {
        times.handshakes[Transport::Dtls as usize] = self.handshakes.clone();
    }

    /// Adds what was counted to what was counted of connections.
    pub(super) fn add_to(&self, counts: &mut ConnectionCounts) {
        counts.begun[Transport::Dtls as usize] += self.begun;
        counts.open[Transport::Dtls as usize] += self.by_client.len() as u64;
        counts.new += self.admission.new_ones() as u64;
        for (sum, ended) in counts.ended.iter_mut().zip(self.ended) {
            *sum += ended;
        }
    }
}
