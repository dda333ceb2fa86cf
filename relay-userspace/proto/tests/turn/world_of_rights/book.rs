//! The book: what everybody has, whose sockets are bound, and that the relay keeps the same.

use std::net::SocketAddr;

use hairpin_proto::address::RelayedAddr;
use hairpin_proto::turn::{BindError, BindRequest, Disposition, Question, RelayId, Subject};

use super::{Action, Claim, End, Holding, Late, REALMS, RESERVED, Reply, Request, Told, World, about};
use crate::harness::{Answer, Event, PUBLIC_V4};
use crate::people::{Memory, expiry_and_account};

impl World {
    /// Sends a request, and has its questions answered.
    pub(super) fn send(
        &mut self,
        request: Request,
        replies: &mut impl Iterator<Item = Reply>,
        mut told: Option<(Question, Told)>,
    ) {
        for questions in 0.. {
            let at_hand = told.take();
            if let Some((question, told)) = &at_hand {
                self.hear(question, told);
            }
            let end =
                self.end(&request, at_hand.as_ref().map(|(question, told)| (about(question), told.clone())).as_ref());
            let (now, five_tuple, datagram) = (self.relay.now, request.five_tuple, &request.datagram);
            let disposition = match at_hand {
                None => self.relay.server.client_datagram(now, five_tuple, datagram),
                Some((question, told)) => {
                    let answer = told.answer(&question.realm);
                    self.relay.server.answered(now, five_tuple, datagram, question, answer)
                }
            };
            let question = self.relay.server.take_question();
            let events = self.relay.drain();
            let looked_up = std::mem::take(&mut self.relay.looked_up);
            assert_eq!(looked_up.len(), std::mem::take(&mut self.lookups_to_come), "{looked_up:?} for {request:?}");
            self.lookups.extend(looked_up);
            let End::Ask(subject) = end else {
                assert_eq!((disposition, question), (Disposition::Control, None), "{end:?}: {request:?}");
                return self.close(&request, end, &events);
            };
            assert_eq!((disposition, &events[..]), (Disposition::Ask, &[][..]), "{subject:?}: {request:?}");
            let question = question.expect("there is a question");
            let realm = self.realm_of(&five_tuple);
            assert_eq!((&*question.realm, &question.subject), (REALMS[realm], &subject));
            assert!(questions < 2, "a third question: {question:?}");
            assert!(self.may_be_asked(realm, &subject), "{question:?}");
            let reply = replies.next().unwrap_or(Reply::Never);
            let Some(answer) = self.tell(&question, reply) else { return };
            if matches!(reply, Reply::Late) {
                self.late.push(Late { request, question, told: answer });
                return;
            }
            told = Some((question, answer));
        }
    }

    /// Nobody is asked about who is known, nor where nobody is to be.
    fn may_be_asked(&self, realm: usize, subject: &Subject) -> bool {
        let rules = &self.rules.realms[realm];
        let is_known = self.known.fresh(self.now(), &(realm, subject.clone())).is_some();
        let may = match subject {
            Subject::User(name) => {
                rules.asks_for_users && **name != *"bob" && (**name != *"alice" || !rules.knows_alice)
            }
            Subject::TokenKey(_) => rules.asks_for_users && !rules.knows_token_key,
            Subject::Admission { username, account } => {
                let name = expiry_and_account(username).map_or(&**username, |(_, account)| account);
                rules.asks_for_admission && name == &**account
            }
            Subject::UserHash(_) => false,
        };
        may && !is_known
    }

    /// A request has come to its end, or waits for a socket: that is how it has to be, and the book is kept.
    fn close(&mut self, request: &Request, end: End, events: &[Event]) {
        let is_answered = events.iter().any(|event| matches!(event, Event::Response(_)));
        if let End::Begins(holding) = end {
            self.count += 1;
            self.holdings.insert(self.count, *holding);
            let begins = events.iter().any(|event| matches!(event, Event::Bind(..)));
            assert_ne!(begins, is_answered, "{events:?} for {request:?}");
            return self.absorb(events, Some(self.count));
        }
        assert!(is_answered, "every other request is answered at once");
        self.absorb(events, None);
        let answer = self.answer(events);
        let code = answer.code();
        let about = || format!("{request:?}, for {:?}", self.relay.refusals.last());
        match end {
            End::Code(expected) => assert_eq!(code, expected, "{}", about()),
            End::StaysAway => assert!([400, 437, 441].contains(&code), "{code}: {}", about()),
            End::Moves(..) => assert!([200, 400, 437].contains(&code), "{code}: {}", about()),
            End::Refreshed(..) => assert_eq!(code, 200, "{}", about()),
            End::Ask(_) | End::Begins(_) => unreachable!("they are no answers"),
        }
        let (End::Refreshed(id, memory) | End::Moves(id, memory), 200) = (end, code) else {
            return assert!(events.len() == 1 && code != 200, "a refusal changes something: {events:?}");
        };
        answer.expect_signed(&request.credential.key());
        if matches!(request.action, Action::Refresh { ends: true }) {
            return assert!(!self.holdings.contains_key(&id));
        }
        let left = match &memory {
            Some(Memory::Token { expires, .. }) => expires - self.now(),
            Some(Memory::Told(..)) | None => 600,
        };
        assert_eq!(u64::from(answer.lifetime()), left.min(600));
        let holding = self.holdings.get_mut(&id).expect("it goes on");
        holding.memory = memory.or(holding.memory.take());
        self.tickets.extend(answer.ticket().map(|ticket| (id, ticket)));
    }

    fn answer(&mut self, events: &[Event]) -> Answer {
        Answer { bytes: self.relay.responses.pop().expect("there is a response"), events: events.to_vec() }
    }

    /// Has the sockets bound that a request waits for.
    pub(super) fn bind_all(&mut self, holding: usize) {
        while let Some(at) = self.relay.waiting.iter().position(|(relay, _)| self.relays[relay] == holding) {
            self.bind(at, None);
        }
    }

    pub(super) fn bind(&mut self, at: usize, failure: Option<BindError>) {
        let holding = self.relays[&self.relay.waiting[at].0];
        self.relay.answer_bind(at, failure);
        let events = self.relay.drain();
        self.absorb(&events, Some(holding));
    }

    /// Enters what has happened. What is bound, allocated or refused there is this holding's.
    pub(super) fn absorb(&mut self, events: &[Event], begins: Option<usize>) {
        for event in events {
            match event {
                Event::Bind(relay, request) => self.bound(*relay, *request, begins.expect("somebody has asked for it")),
                Event::Allocated(allocation) => {
                    let id = begins.expect("somebody has asked for it");
                    let holding = self.holdings.get_mut(&id).expect("it waited");
                    let (five_tuple, _) = holding.waits.expect("it waited");
                    holding.id = Some(*allocation);
                    assert_eq!(self.at.insert(five_tuple, id), None);
                }
                Event::Freed(allocation, _) => {
                    let id = self.holding_of(*allocation);
                    self.holdings.remove(&id);
                    self.at.retain(|_, holding| *holding != id);
                }
                Event::Moved(allocation, _, to) => {
                    let id = self.holding_of(*allocation);
                    self.holdings.get_mut(&id).expect("it is there").claim.source = to.client.ip();
                    self.at.insert(*to, id);
                }
                Event::Left(allocation, from) => {
                    let id = self.holding_of(*allocation);
                    if self.at.get(from) == Some(&id) {
                        self.at.remove(from);
                    }
                }
                Event::DropReservation(token) => drop(self.reservations.remove(token)),
                Event::Response(_) => {
                    if let Some(id) = begins {
                        self.begun(id);
                    }
                }
                _ => {}
            }
        }
    }

    /// An Allocate request that waited is answered.
    fn begun(&mut self, id: usize) {
        let answer = self.answer(&[]);
        let holding = self.holdings.get_mut(&id).expect("it waited");
        if holding.id.is_none() {
            assert_eq!(answer.code(), 508, "{holding:?}");
            self.holdings.remove(&id);
            return;
        }
        answer.expect_signed(&holding.credential.key());
        let (_, pair) = holding.waits.take().expect("it waited");
        assert_eq!(answer.token().is_some(), pair);
        let claim = holding.claim.clone();
        self.reservations.extend(answer.token().map(|token| (token, claim)));
        self.tickets.extend(answer.ticket().map(|ticket| (id, ticket)));
    }

    /// A reserved port is for its user alone, who gets no other.
    fn bound(&mut self, relay: RelayId, request: BindRequest, id: usize) {
        self.relays.insert(relay, id);
        let kept = &self.holdings[&id].addresses;
        let ports = match request {
            BindRequest::Port(address) | BindRequest::Stream(address) => vec![address.port()],
            BindRequest::Pair(address, _) => vec![address.port(), address.port() + 1],
            BindRequest::Reserved(_) => Vec::new(),
        };
        for port in ports {
            let is_reserved = self.rules.has_reserved && RESERVED.contains(&port);
            let public = SocketAddr::new(PUBLIC_V4.parse().expect("an address"), port);
            assert_eq!(is_reserved, !kept.is_empty(), "{request:?} of {kept:?}");
            assert!(kept.is_empty() || kept.contains(&public), "{request:?} of {kept:?}");
        }
    }

    fn holding_of(&self, allocation: hairpin_proto::turn::AllocationId) -> usize {
        let holding = self.holdings.iter().find(|(_, holding)| holding.id == Some(allocation));
        *holding.expect("it is in the book").0
    }

    /// How many there are that count for the same user, source and realm.
    pub(super) fn counts(&self, claim: &Claim) -> [usize; 3] {
        let mut counts = [0; 3];
        for other in self.claims() {
            let is_of_realm = other.realm == claim.realm;
            counts[0] += usize::from(is_of_realm && other.account == claim.account);
            counts[1] += usize::from(other.source == claim.source);
            counts[2] += usize::from(is_of_realm);
        }
        counts
    }

    fn claims(&self) -> impl Iterator<Item = &Claim> {
        let twice = |holding: &Holding| usize::from(holding.waits.is_some_and(|(_, pair)| pair));
        let of_holdings =
            self.holdings.values().flat_map(move |holding| std::iter::repeat_n(&holding.claim, 1 + twice(holding)));
        of_holdings.chain(self.reservations.values())
    }

    /// The relay has what is in the book, and nothing else.
    pub(crate) fn check(&self) {
        for (at, realm) in REALMS.iter().enumerate() {
            let usage = self.relay.quotas.usage();
            let counted = usage.iter().find(|usage| *usage.realm == **realm).map_or(0, |usage| usage.allocations);
            assert_eq!(counted, self.claims().filter(|claim| claim.realm == at).count(), "of {realm}");
        }
        let allocated = self.holdings.values().filter(|holding| holding.id.is_some());
        assert_eq!(self.relay.server.allocations(), allocated.clone().count());
        for holding in allocated {
            let info = self.relay.server.describe(holding.id.expect("it has one")).expect("it is there");
            assert_eq!((&info.username, &*info.realm), (&holding.credential.name, REALMS[holding.claim.realm]));
            assert_eq!(info.account, holding.claim.account);
            let of_user = |relayed: SocketAddr| holding.addresses.is_empty() || holding.addresses.contains(&relayed);
            assert!(info.relayed.iter().all(|relayed| of_user(relayed.public)), "{info:?}");
            assert!(info.relayed.iter().all(|relayed| self.relay.now.instant < relayed.ends), "{info:?}");
        }
        let bound: Vec<RelayedAddr> = self.relay.sockets.values().copied().collect();
        assert!(bound.iter().enumerate().all(|(at, address)| !bound[..at].contains(address)), "{bound:?}");
    }

    pub(crate) fn shut_down(&mut self) {
        self.relay.shut_down();
        assert_eq!((self.relay.quotas.usage(), self.relay.quotas.sources()), (Vec::new(), 0));
    }
}
