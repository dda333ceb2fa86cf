//! What [`invariants_of_rights`](crate::invariants_of_rights) does to a relay, and how each request has to end.

mod book;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use hairpin_proto::address::{FiveTuple, ServerAddr, Transport};
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{EvenPort, Lifetime, MobilityTicket, ReservationToken};
use hairpin_proto::turn::{AllocationId, BindError, EndReason, PortStripe, Question, RelayId, Subject};

use crate::harness::{Client, Relay, UDP, config, socket};
use crate::people::{
    AdmissionDenied, Case, Credential, Denied, Directory, Known, Knows, Memory, OTHER_SERVER, Person, Proof, REALMS,
    Rules, Told,
};

/// Each client may come by either of two listeners.
const CLIENTS: [(&str, Transport); 4] = [
    ("203.0.113.7:41000", Transport::Udp),
    ("203.0.113.7:41001", Transport::Tcp),
    ("198.51.100.77:52000", Transport::Udp),
    ("[2001:db8:1:1::1]:52000", Transport::Tcp),
];
pub(crate) const PLACES: usize = 2 * CLIENTS.len();
const RESERVED: std::ops::RangeInclusive<u16> = 50_000..=50_009;
/// Those that are reserved, and next to nothing else.
const PORTS: std::ops::RangeInclusive<u16> = 49_996..=50_015;
const NONCE_LIFETIME: u64 = 900;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Allocate { pair: bool, mobile: bool },
    Refresh { ends: bool },
    Move { at: usize },
}

/// What the directory does with a question.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    True,
    /// Somebody else.
    Another,
    Refused,
    Unavailable,
    /// The truth, when it is told at last.
    Late,
    Never,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Request {
        place: usize,
        action: Action,
        person: Person,
        knows: Knows,
        /// Whether it is whoever has allocated there last, and shows its token again.
        same: bool,
        token: bool,
        replies: [Reply; 2],
        /// Whether it gets a nonce first.
        renews: bool,
        /// Whether sockets are not bound at once.
        waits: bool,
    },
    Deliver {
        at: usize,
    },
    Learn {
        at: usize,
        reply: Reply,
    },
    Bind {
        at: usize,
        failure: Option<BindError>,
    },
    Directory {
        realm: usize,
        directory: Directory,
    },
    Reconfigure(Rules),
    Lose {
        place: usize,
    },
    Close {
        at: usize,
    },
    Take {
        taken: bool,
    },
    Time {
        seconds: u64,
    },
}

/// Whom something counts for.
#[derive(Clone, Debug)]
struct Claim {
    realm: usize,
    account: String,
    source: IpAddr,
}

/// An allocation, or a request that waits for its socket.
#[derive(Clone, Debug)]
struct Holding {
    claim: Claim,
    credential: Credential,
    memory: Option<Memory>,
    /// What is kept for its user.
    addresses: Vec<SocketAddr>,
    /// Where it waits, and whether for a pair.
    waits: Option<(FiveTuple, bool)>,
    id: Option<AllocationId>,
}

/// A request that somebody has to be asked about, and what will be told.
struct Late {
    request: Request,
    question: Question,
    told: Told,
}

#[derive(Clone)]
struct Request {
    five_tuple: FiveTuple,
    credential: Credential,
    action: Action,
    datagram: Vec<u8>,
    /// The allocation of the ticket that it shows.
    ticket: Option<usize>,
}

/// How a request has to end.
#[derive(Debug)]
enum End {
    Ask(Subject),
    Code(u16),
    Refreshed(usize, Option<Memory>),
    /// Moves, unless the ticket is used or the place is.
    Moves(usize, Option<Memory>),
    /// Another one's ticket, or one of what has ended.
    StaysAway,
    Begins(Box<Holding>),
}

pub(crate) struct World {
    relay: Relay,
    rules: Rules,
    directory: [Directory; 2],
    known: Known,
    holdings: BTreeMap<usize, Holding>,
    /// Whose requests come from where.
    at: HashMap<FiveTuple, usize>,
    reservations: HashMap<ReservationToken, Claim>,
    relays: HashMap<RelayId, usize>,
    tickets: Vec<(usize, Vec<u8>)>,
    nonces: HashMap<FiveTuple, (String, u64)>,
    late: Vec<Late>,
    /// What was asked in passing, and how often it is to be.
    lookups: Vec<Question>,
    lookups_to_come: usize,
    /// Holdings so far: the name of the last.
    count: usize,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { five_tuple, credential, action, ticket, .. } = self;
        write!(f, "{action:?} (ticket {ticket:?}) by {credential:?} from {five_tuple:?}")
    }
}

fn five_tuple(place: usize) -> FiveTuple {
    let (at, transport) = CLIENTS[place % CLIENTS.len()];
    let mut five_tuple = Client::alice(at).over(transport).five_tuple;
    if place >= CLIENTS.len() {
        five_tuple.server = ServerAddr::new(socket(OTHER_SERVER));
    }
    five_tuple
}

fn is_second(five_tuple: &FiveTuple) -> bool {
    five_tuple.server.socket() == socket(OTHER_SERVER)
}

impl World {
    pub(crate) fn new(rules: Rules) -> Self {
        let mut config = config();
        config.settings = rules.settings();
        config.nonce_lifetime = std::time::Duration::from_secs(NONCE_LIFETIME);
        config.ports = PortStripe::new(PORTS, 0, 1);
        let mut relay = Relay::new(config);
        relay.binds = false;
        let directory = Directory {
            alice: true,
            carol: Some(0),
            dave: Some(0),
            knows_secret: true,
            knows_token_key: true,
            admits_at_once: false,
            admits: true,
            admits_to: None,
        };
        Self {
            relay,
            rules,
            directory: [directory; 2],
            known: Known::default(),
            holdings: BTreeMap::new(),
            at: HashMap::new(),
            reservations: HashMap::new(),
            relays: HashMap::new(),
            tickets: Vec::new(),
            nonces: HashMap::new(),
            late: Vec::new(),
            lookups: Vec::new(),
            lookups_to_come: 0,
            count: 0,
        }
    }

    fn now(&self) -> u64 {
        self.relay.now.unix
    }

    fn realm_of(&self, five_tuple: &FiveTuple) -> usize {
        usize::from(self.rules.has_second && is_second(five_tuple))
    }

    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Request { place, action, person, knows, same, token, replies, renews, waits } => {
                let five_tuple = five_tuple(place);
                let ticket = match action {
                    Action::Move { .. } if self.tickets.is_empty() => return,
                    Action::Move { at } => Some(self.tickets[at % self.tickets.len()].clone()),
                    Action::Allocate { .. } | Action::Refresh { .. } => None,
                };
                let mut credential = person.credential(self.realm_of(&five_tuple), self.now(), knows);
                let owner = ticket.as_ref().map(|(holding, _)| *holding).or(self.at.get(&five_tuple).copied());
                let owner = owner.and_then(|owner| self.holdings.get(&owner)).filter(|_| same);
                if let Some(owner) = owner {
                    let shown = owner.credential.token.filter(|_| token);
                    credential = Credential { token: shown, ..owner.credential.clone() };
                }
                credential.nonce = self.nonce(&five_tuple, renews);
                let request = self.request(five_tuple, credential, action, ticket);
                self.send(request, &mut replies.into_iter(), None);
                if !waits {
                    self.bind_all(self.count);
                }
            }
            Step::Deliver { at } => {
                if !self.late.is_empty() {
                    let Late { request, question, told } = self.late.swap_remove(at % self.late.len());
                    self.send(request, &mut [Reply::True; 2].into_iter(), Some((question, told)));
                }
            }
            Step::Learn { at, reply } => {
                if !self.lookups.is_empty() {
                    let question = self.lookups.swap_remove(at % self.lookups.len());
                    if let Some(told) = self.tell(&question, reply) {
                        self.hear(&question, &told);
                        self.relay.server.learn(self.relay.now, &question, told.answer(&question.realm));
                    }
                }
            }
            Step::Bind { at, failure } => {
                if !self.relay.waiting.is_empty() {
                    self.bind(at % self.relay.waiting.len(), failure);
                }
            }
            Step::Directory { realm, directory } => self.directory[realm] = directory,
            Step::Reconfigure(rules) => {
                self.rules = rules;
                self.known = Known::default();
                self.relay.server.reconfigure(self.relay.now, rules.settings());
                let events = self.relay.drain();
                self.absorb(&events, None);
            }
            Step::Lose { place } => {
                let five_tuple = five_tuple(place);
                if five_tuple.transport.is_stream() {
                    self.relay.server.client_lost(self.relay.now, &five_tuple);
                    self.holdings.retain(|_, holding| holding.waits.is_none_or(|(at, _)| at != five_tuple));
                    let events = self.relay.drain();
                    self.absorb(&events, None);
                }
            }
            Step::Close { at } => {
                if let Some(id) = self.relay.allocations.iter().nth(at).copied() {
                    self.relay.server.close_allocation(self.relay.now, id, EndReason::Closed);
                    let events = self.relay.drain();
                    self.absorb(&events, None);
                }
            }
            Step::Take { taken } => {
                self.relay.taken = if taken { PORTS.step_by(2).collect() } else { BTreeSet::new() };
            }
            Step::Time { seconds } => self.idle(seconds),
        }
    }

    fn idle(&mut self, seconds: u64) {
        let events = self.relay.pass(seconds);
        self.absorb(&events, None);
    }

    fn nonce(&mut self, five_tuple: &FiveTuple, renews: bool) -> u64 {
        if renews || !self.nonces.contains_key(five_tuple) {
            let client = Client { five_tuple: *five_tuple, ..Client::alice("192.0.2.1:1") };
            let nonce = self.relay.challenge(&client);
            self.nonces.insert(*five_tuple, (nonce, self.relay.now.unix));
        }
        self.nonces[five_tuple].1
    }

    fn request(
        &mut self,
        five_tuple: FiveTuple,
        credential: Credential,
        action: Action,
        ticket: Option<(usize, Vec<u8>)>,
    ) -> Request {
        let mut client = Client {
            five_tuple,
            username: credential.name.clone(),
            key: credential.key(),
            nonce: self.nonces[&five_tuple].0.clone(),
            realm: REALMS[credential.realm].to_owned(),
            token: credential.sealed_token(),
            ..Client::alice("192.0.2.1:1")
        };
        let datagram = match action {
            Action::Allocate { pair, mobile } => self.relay.signed(&mut client, Method::ALLOCATE, |request| {
                request
                    .with(&UDP)
                    .with_option(pair.then_some(EvenPort { reserve_next: true }).as_ref())
                    .with_option(mobile.then_some(MobilityTicket(&[])).as_ref())
            }),
            Action::Refresh { ends } => self
                .relay
                .signed(&mut client, Method::REFRESH, |request| request.with(&Lifetime(if ends { 0 } else { 600 }))),
            Action::Move { .. } => self.relay.signed(&mut client, Method::REFRESH, |request| {
                request.with_option(ticket.as_ref().map(|(_, ticket)| MobilityTicket(ticket)).as_ref())
            }),
        };
        let ticket = ticket.map(|(holding, _)| holding);
        Request { five_tuple, credential, action, datagram, ticket }
    }

    fn tell(&self, question: &Question, reply: Reply) -> Option<Told> {
        let realm = REALMS.iter().position(|name| **name == *question.realm).expect("it is one of both");
        match reply {
            Reply::True | Reply::Late => Some(self.directory[realm].ask(&question.subject)),
            Reply::Another => {
                let (Subject::User(name) | Subject::TokenKey(name) | Subject::Admission { username: name, .. }) =
                    &question.subject
                else {
                    unreachable!("nobody hides its name")
                };
                Some(Told::Another((**name).to_owned()))
            }
            Reply::Refused => Some(Told::Refused),
            Reply::Unavailable => Some(Told::Unavailable),
            Reply::Never => None,
        }
    }

    fn hear(&mut self, question: &Question, told: &Told) {
        let now = self.now();
        self.known.hear(now, &about(question), told);
    }

    /// The allocation that a request is about, unless it is of another realm.
    fn owned(&self, request: &Request) -> Option<(usize, &Holding)> {
        let id = request.ticket.or(self.at.get(&request.five_tuple).copied())?;
        let holding = self.holdings.get(&id).filter(|holding| holding.id.is_some())?;
        let realm = self.realm_of(&request.five_tuple);
        let is_gone = holding.claim.realm == 1 && !self.rules.has_second;
        (holding.claim.realm == realm || is_gone).then_some((id, holding))
    }

    /// What has to become of a request.
    fn end(&mut self, request: &Request, at_hand: Option<&((usize, Subject), Told)>) -> End {
        let (now, credential) = (self.now(), &request.credential);
        let realm = self.realm_of(&request.five_tuple);
        let rules = &self.rules.realms[realm];
        let is_current = now - credential.nonce < NONCE_LIFETIME;
        if rules.asks_for_users && !is_current {
            return End::Code(438);
        }
        if credential.realm != realm {
            return End::Code(401);
        }
        let owned = self.owned(request);
        let owner = owned.map(|(_, holding)| (holding.credential.name.as_str(), holding.memory.as_ref()));
        let at_hand = at_hand.map(|(about, told)| (about, told));
        let case = Case { now, realm, rules, credential, owner, at_hand, known: &self.known };
        let proof = match case.judge() {
            Ok(_) if !is_current => return End::Code(438),
            Ok(proof) => proof,
            Err(Denied::Wrong) => return End::Code(401),
            Err(Denied::Ask(subject)) => return End::Ask(subject),
            Err(Denied::Unavailable) => return End::Code(500),
        };
        let end = if credential.token.is_some() && !rules.takes_tokens {
            End::Code(420)
        } else {
            let shows_token = |memory: &Option<Memory>| matches!(memory, Some(Memory::Token { .. }));
            let own = owned.filter(|(_, holding)| {
                holding.credential.name == credential.name || shows_token(&holding.memory) && shows_token(&proof.memory)
            });
            let own = own.map(|(id, _)| (id, proof.memory.clone()));
            match (request.action, own) {
                (Action::Allocate { pair, .. }, _) => self.end_of_allocate(request, &case, &proof, pair),
                (Action::Move { .. }, Some((id, memory))) => End::Moves(id, memory),
                (Action::Move { .. }, None) => End::StaysAway,
                (Action::Refresh { .. }, Some((id, memory))) => End::Refreshed(id, memory),
                (Action::Refresh { .. }, None) if self.at.contains_key(&request.five_tuple) => End::Code(441),
                (Action::Refresh { .. }, None) => End::Code(437),
            }
        };
        let looks_up = proof.looks_up.clone().map(|subject| (realm, subject));
        if looks_up.is_some_and(|about| self.known.is_looked_up(now, about)) {
            self.lookups_to_come += 1;
        }
        end
    }

    fn end_of_allocate(&self, request: &Request, case: &Case<'_>, proof: &Proof, pair: bool) -> End {
        let five_tuple = request.five_tuple;
        let waits = self.holdings.values().any(|holding| holding.waits.is_some_and(|(at, _)| at == five_tuple));
        if waits || self.at.contains_key(&five_tuple) {
            return End::Code(437);
        }
        let grant = match case.admit(proof) {
            Ok(grant) => grant,
            Err(AdmissionDenied::Ask(subject)) => return End::Ask(subject),
            Err(AdmissionDenied::Code(code)) => return End::Code(code),
        };
        let account = request.credential.account().to_owned();
        let claim = Claim { realm: case.realm, account, source: five_tuple.client.ip() };
        let per_user = grant.allocations.map_or(case.rules.allocations_per_user, |limit| limit as usize);
        for more in 1..=if pair { 2 } else { 1 } {
            let [of_user, of_source, of_realm] = self.counts(&claim).map(|count| count + more);
            if of_user > per_user {
                return End::Code(486);
            }
            if of_source > self.rules.allocations_per_source || of_realm > case.rules.allocations {
                return End::Code(508);
            }
        }
        End::Begins(Box::new(Holding {
            claim,
            credential: request.credential.clone(),
            memory: proof.memory.clone(),
            addresses: grant.addresses,
            waits: Some((five_tuple, pair)),
            id: None,
        }))
    }
}

fn about(question: &Question) -> (usize, Subject) {
    let realm = REALMS.iter().position(|name| **name == *question.realm).expect("it is one of both");
    (realm, question.subject.clone())
}
