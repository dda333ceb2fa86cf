//! A full ICE agent, as far as a lite one ever meets it: it says who it is, and sends checks.

use std::net::SocketAddr;

use hairpin_proto::ice::{Candidate, Parameters};
use hairpin_proto::media::{Remote, StreamCandidates};
use hairpin_proto::stun::attribute::{
    Attribute, AttributeError, ErrorCodeAttribute, IceControlled, IceControlling, Priority, UseCandidate, Username,
    XorMappedAddress,
};
use hairpin_proto::stun::{Class, Integrity, LongTermKey, Message, MessageBuilder, Method, TransactionId};

use crate::harness::{At, Bed, Got};

/// Priority of a peer-reflexive candidate (RFC 8445 section 5.1.2.1): 110, 65535, 1.
pub(crate) const PRIORITY: u32 = (110 << 24) + (65_535 << 8) + 255;

/// Whoever knows the credentials of a leg.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) ufrag: String,
    pub(crate) key: LongTermKey,
}

/// Which role an agent takes itself for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Controlling,
    Controlled,
    Unsaid,
}

/// A check, all of which can be otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) class: Class,
    pub(crate) method: Method,
    pub(crate) username: Option<String>,
    pub(crate) key: Option<LongTermKey>,
    pub(crate) priority: Option<u32>,
    pub(crate) role: Role,
    pub(crate) nominates: bool,
    pub(crate) fingerprint: bool,
    /// What else is in it, before what protects it.
    pub(crate) more: Vec<More>,
    /// The transaction.
    pub(crate) id: [u8; 12],
}

impl Agent {
    pub(crate) fn of(parameters: &Parameters) -> Self {
        Self { ufrag: parameters.ufrag.clone(), key: LongTermKey::from_bytes(parameters.pwd.as_bytes()) }
    }

    /// A check that does not nominate.
    pub(crate) fn check(&self) -> Check {
        Check {
            class: Class::Request,
            method: Method::BINDING,
            username: Some(format!("{}:peer", self.ufrag)),
            key: Some(self.key.clone()),
            priority: Some(PRIORITY),
            role: Role::Controlling,
            nominates: false,
            fingerprint: true,
            more: Vec::new(),
            id: *b"transaction!",
        }
    }

    /// One that does.
    pub(crate) fn nomination(&self) -> Check {
        Check { nominates: true, ..self.check() }
    }
}

impl Check {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let message = MessageBuilder::new(&mut bytes, self.class, self.method, TransactionId(self.id));
        let message = message.with_option(self.username.as_deref().map(Username).as_ref());
        let message = message.with_option(self.priority.map(Priority).as_ref());
        let message = match self.role {
            Role::Controlling => message.with(&IceControlling(7)),
            Role::Controlled => message.with(&IceControlled(7)),
            Role::Unsaid => message,
        };
        let message = message.with_option(self.nominates.then_some(UseCandidate).as_ref());
        let message = self.more.iter().fold(message, |message, more| more.add(message));
        let message = match &self.key {
            Some(key) => message.with_integrity(key, Integrity::Sha1),
            None => message,
        };
        message.finish(self.fingerprint);
        bytes
    }

    /// What an answer has to be like: signed with the leg's password, and with the address that the check has come from.
    pub(crate) fn expect_success(&self, got: &Got, source: SocketAddr) {
        let Got::Answer(bytes) = got else { panic!("{self:?} got {got:?}") };
        let answer = Message::parse(bytes).expect("an answer is a message");
        assert_eq!((answer.class(), answer.method()), (Class::Success, Method::BINDING), "{:?}", code(got));
        assert_eq!(answer.transaction_id(), TransactionId(self.id));
        assert_eq!(answer.attribute(), Ok(Some(XorMappedAddress(source))));
        assert!(answer.verify_integrity(self.key.as_ref().expect("a check has a key")));
        assert!(answer.has_fingerprint());
    }
}

pub(crate) fn parameters() -> Parameters {
    Parameters::new("peer", "the/password/of/the/peer").unwrap()
}

pub(crate) fn parsed(candidates: &[&str]) -> Vec<Candidate> {
    candidates.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn of_first(candidates: &[&str]) -> Vec<StreamCandidates> {
    vec![StreamCandidates { stream: None, candidates: parsed(candidates) }]
}

/// Says that the other side is a full agent with these candidates.
pub(crate) fn tell(bed: &mut Bed, at: At, candidates: &[&str]) {
    let candidates = of_first(candidates);
    let remote = Remote::Ice { parameters: parameters(), is_lite: false, candidates, end_of_candidates: false };
    bed.remote(at, remote).unwrap();
}

/// An attribute that no agent would send, by its type and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    /// Types that nobody knows, the first two of which have to be understood.
    Unknown7001,
    Unknown7002,
    UnknownC001,
    /// Of the wrong length.
    ShortPriority,
    LongUseCandidate,
    /// No text.
    BadUsername,
    /// Those that have to be understood, and say nothing in a check: of RFC 8489, each with some value.
    OfAnswers,
    OfLongTermCredentials,
}

impl More {
    fn add(self, message: MessageBuilder<'_>) -> MessageBuilder<'_> {
        match self {
            Self::Unknown7001 => message.with(&Raw::<0x7001>(b"xyz")),
            Self::Unknown7002 => message.with(&Raw::<0x7002>(b"")),
            Self::UnknownC001 => message.with(&Raw::<0xc001>(b"who cares")),
            Self::ShortPriority => message.with(&Raw::<0x0024>(b"abc")),
            Self::LongUseCandidate => message.with(&Raw::<0x0025>(b"yes!")),
            Self::OfAnswers => message
                .with(&Raw::<0x0001>(b"mapped!!"))
                .with(&Raw::<0x0009>(b"code"))
                .with(&Raw::<0x000a>(b"un"))
                .with(&Raw::<0x0020>(b"mapped!!")),
            Self::OfLongTermCredentials => message.with(&Raw::<0x0014>(b"realm")).with(&Raw::<0x0015>(b"a nonce")),
            Self::BadUsername => message.with(&Raw::<0x0006>(b"\xff\xfe:")),
        }
    }
}

struct Raw<const KIND: u16>(&'static [u8]);

impl<'a, const KIND: u16> Attribute<'a> for Raw<KIND> {
    const TYPE: u16 = KIND;

    fn decode(_: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        unreachable!("it is only written")
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(self.0);
    }
}

/// The code of an answer that refuses; 0 for one that does not.
pub(crate) fn code(got: &Got) -> u16 {
    let Got::Answer(bytes) = got else { panic!("{got:?} is no answer") };
    let answer = Message::parse(bytes).expect("an answer is a message");
    match answer.attribute::<ErrorCodeAttribute<'_>>() {
        Ok(Some(error)) => error.code.number(),
        _ => 0,
    }
}
