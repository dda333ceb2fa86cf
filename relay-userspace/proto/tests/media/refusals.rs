//! What is no check, and how whoever has sent it is told (RFC 8445 section 7.3, RFC 8489 sections 6.3 and 9.1.3).

use hairpin_proto::media::{Discard, LegState};
use hairpin_proto::stun::attribute::UnknownAttributes;
use hairpin_proto::stun::{Class, LongTermKey, Message, Method, TransactionId};

use crate::agent::{Agent, Check, More, Role, code};
use crate::harness::{At, Bed, Got, MEDIA, PLAIN, REMOTE};

/// The code that a request is refused with, and whether the answer is signed with the leg's password.
fn refused(make: impl FnOnce(&Agent) -> Check) -> (u16, bool) {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    let check = make(&agent);
    let got = bed.arrives(At::a(id), REMOTE, &check.bytes());
    assert_eq!(bed.describe(id).legs[0].state, LegState::Waiting, "{check:?} has done something");
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA), Got::Dropped(Discard::UnknownRemote));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::NoRemote));
    let Got::Answer(bytes) = &got else { panic!("{got:?}") };
    let answer = Message::parse(bytes).unwrap();
    assert_eq!((answer.class(), answer.method()), (Class::Error, Method::BINDING));
    assert_eq!(answer.transaction_id(), TransactionId(check.id));
    assert!(answer.has_fingerprint());
    (code(&got), answer.has_integrity() && answer.verify_integrity(&agent.key))
}

fn guess() -> LongTermKey {
    LongTermKey::from_bytes(b"a guess")
}

#[test]
fn without_a_username_or_without_message_integrity_a_request_is_bad() {
    assert_eq!(refused(|agent| Check { username: None, ..agent.nomination() }), (400, false));
    assert_eq!(refused(|agent| Check { key: None, ..agent.nomination() }), (400, false));
    assert_eq!(refused(|agent| Check { key: None, username: None, ..agent.nomination() }), (400, false));
    let bad = |agent: &Agent| Check { username: None, more: vec![More::BadUsername], ..agent.nomination() };
    assert_eq!(refused(bad), (400, false), "what is no text is no name");
}

#[test]
fn a_username_of_somebody_else_is_unauthenticated() {
    let names: [fn(&str) -> String; 8] = [
        str::to_owned,
        |own| format!("{}:peer", &own[1..]),
        |own| format!("{}:peer", &own[..own.len() - 1]),
        |own| format!("{own}x:peer"),
        |own| format!("peer:{own}"),
        |own| format!(":{own}"),
        |_| String::new(),
        |_| ":".to_owned(),
    ];
    for name in names {
        let got = refused(|agent| Check { username: Some(name(&agent.ufrag)), ..agent.nomination() });
        assert_eq!(got, (401, false), "{}", name("UFRAG"));
    }
}

#[test]
fn a_wrong_password_is_unauthenticated() {
    assert_eq!(refused(|agent| Check { key: Some(guess()), ..agent.nomination() }), (401, false));
}

#[test]
fn a_request_that_was_changed_on_its_way_is_unauthenticated() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    let changed = Check { priority: Some(1), ..agent.nomination() }.bytes();
    let mut bytes = agent.nomination().bytes();
    // All but what protects it is of the other one.
    let protected = bytes.len() - 32;
    bytes[..protected].copy_from_slice(&changed[..protected]);
    let crc = crc32(&bytes[..bytes.len() - 8]) ^ 0x5354_554e;
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(code(&bed.arrives(At::a(id), REMOTE, &bytes)), 401);
}

/// CRC-32 as FINGERPRINT has it (RFC 8489 section 14.7), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn what_has_to_be_understood_and_is_not_is_named() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    let more = vec![More::Unknown7001, More::UnknownC001, More::Unknown7002, More::Unknown7001];
    let got = bed.arrives(At::a(id), REMOTE, &Check { more, ..agent.nomination() }.bytes());
    assert_eq!(code(&got), 420);
    let Got::Answer(bytes) = got else { unreachable!("it has a code") };
    let answer = Message::parse(&bytes).unwrap();
    let unknown = answer.attribute::<UnknownAttributes<'_>>().unwrap().unwrap();
    assert_eq!(unknown.0, [[0x70, 0x01], [0x70, 0x02]], "each once, and not what may be ignored");
    assert!(answer.verify_integrity(&agent.key), "who has proven to know the password gets the same");
    assert!(answer.has_fingerprint());
    assert_eq!(bed.describe(id).legs[0].state, LegState::Waiting);
}

#[test]
fn strangers_are_not_told_what_is_not_understood() {
    let check = |agent: &Agent| Check { more: vec![More::Unknown7001], ..agent.nomination() };
    assert_eq!(refused(|agent| Check { key: Some(guess()), ..check(agent) }), (401, false));
    assert_eq!(refused(|agent| Check { key: None, ..check(agent) }), (400, false));
}

#[test]
fn a_check_without_priority_or_with_a_broken_one_is_bad() {
    assert_eq!(refused(|agent| Check { priority: None, ..agent.nomination() }), (400, true));
    let short = |agent: &Agent| Check { priority: None, more: vec![More::ShortPriority], ..agent.nomination() };
    assert_eq!(refused(short), (400, true));
    let long = |agent: &Agent| Check { more: vec![More::LongUseCandidate], ..agent.check() };
    assert_eq!(refused(long), (400, true), "a nomination with something in it is none");
}

#[test]
fn who_takes_itself_for_controlled_is_told_that_it_is_not() {
    assert_eq!(refused(|agent| Check { role: Role::Controlled, ..agent.nomination() }), (487, true));
    assert_eq!(refused(|agent| Check { role: Role::Controlled, ..agent.check() }), (487, true));
    let without = |agent: &Agent| Check { role: Role::Controlled, priority: None, ..agent.check() };
    assert_eq!(refused(without), (487, true), "whatever else is missing");
}

#[test]
fn what_is_refused_prolongs_no_consent() {
    for change in [
        |check: &mut Check| check.key = Some(guess()),
        |check: &mut Check| check.role = Role::Controlled,
        |check: &mut Check| check.priority = None,
        |check: &mut Check| check.more = vec![More::Unknown7001],
    ] {
        let mut bed = Bed::default();
        let (id, agent) = bed.connected();
        bed.pass_seconds(29);
        let mut check = agent.check();
        change(&mut check);
        assert_ne!(code(&bed.arrives(At::a(id), REMOTE, &check.bytes())), 0);
        bed.pass_seconds(1);
        assert_eq!(bed.describe(id).legs[0].state, LegState::Paused, "{check:?}");
    }
}
