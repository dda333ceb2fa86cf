//! What a connectivity check is answered (RFC 8445 section 7.3, RFC 8489 section 9.1).

use hairpin_proto::media::{Answer, Discard, LegState, Refused, RefusedFor};
use hairpin_proto::stun::attribute::{IceControlled, IceControlling, Priority, Username, XorMappedAddress};
use hairpin_proto::stun::{Class, LongTermKey, Message, Method};

use crate::agent::{Check, More, Role};
use crate::harness::{At, Bed, ELSEWHERE, Got, ICE, MEDIA, PLAIN, REMOTE, request, socket};

#[test]
fn a_check_is_answered_with_where_it_came_from_proven_by_the_same_password() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    bed.succeeds(At::a(id), REMOTE, &agent.check());
    bed.succeeds(At::a(id), ELSEWHERE, &Check { id: *b"another one!", ..agent.nomination() });
}

#[test]
fn an_answer_has_nothing_that_was_not_asked_for() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    let Got::Answer(bytes) = bed.arrives(At::a(id), REMOTE, &agent.nomination().bytes()) else { panic!("no answer") };
    let answer = Message::parse(&bytes).unwrap();
    let kinds: Vec<_> = answer.attributes().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [0x0020], "XOR-MAPPED-ADDRESS, and behind it what protects it");
    assert_eq!(answer.attribute(), Ok(Some(XorMappedAddress(socket(REMOTE)))));
    assert_eq!(answer.attribute::<Username<'_>>(), Ok(None), "RFC 8489 section 9.1.4");
    assert_eq!(answer.attribute::<IceControlled>(), Ok(None));
    assert_eq!(answer.attribute::<IceControlling>(), Ok(None));
    assert_eq!(answer.attribute::<Priority>(), Ok(None));
}

#[test]
fn checks_are_answered_before_anything_is_known_of_the_other_side() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, ICE]);
    for at in [At::a(id), At::b(id)] {
        assert_eq!(bed.describe(id).legs[at.side as usize].remote, None);
        let agent = bed.agent(at);
        bed.succeeds(at, REMOTE, &agent.check());
    }
}

#[test]
fn checks_are_answered_at_every_candidate_of_every_component() {
    let mut bed = Bed::default();
    let mut request = request([ICE, ICE]);
    request.choice.families.clear();
    request.streams[0].components = 2;
    let id = bed.create(request).unwrap();
    for path in 0..2 {
        for (base, source) in [(0, "[2001:db8:7::1]:40000"), (1, REMOTE)] {
            for at in [At::a(id), At::b(id)] {
                let at = At { path, base, ..at };
                let agent = bed.agent(at);
                bed.succeeds(at, source, &agent.check());
            }
        }
    }
}

#[test]
fn each_leg_has_credentials_of_its_own_and_takes_no_others() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, ICE]);
    let (a, b) = (bed.agent(At::a(id)), bed.agent(At::b(id)));
    assert_ne!(a.ufrag, b.ufrag);
    for (at, agent) in [(At::a(id), &b), (At::b(id), &a)] {
        assert_eq!(crate::agent::code(&bed.arrives(at, REMOTE, &agent.nomination().bytes())), 401);
    }
    let other = bed.session([ICE, ICE]);
    assert_eq!(crate::agent::code(&bed.arrives(At::a(other), REMOTE, &a.nomination().bytes())), 401);
}

#[test]
fn whatever_the_other_side_calls_itself_is_fine() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    for name in ["peer", "", "a:b", "+/zZ"] {
        let username = Some(format!("{}:{name}", agent.ufrag));
        bed.succeeds(At::a(id), REMOTE, &Check { username, ..agent.check() });
    }
}

#[test]
fn the_role_need_not_be_said_and_unknown_attributes_that_may_be_ignored_are() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    bed.succeeds(At::a(id), REMOTE, &Check { role: Role::Unsaid, ..agent.check() });
    bed.succeeds(At::a(id), REMOTE, &Check { more: vec![More::UnknownC001], ..agent.check() });
}

#[test]
fn attributes_of_stun_that_mean_nothing_in_a_check_do_no_harm() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    for more in [More::OfAnswers, More::OfLongTermCredentials] {
        bed.succeeds(At::a(id), REMOTE, &Check { more: vec![more], ..agent.check() });
    }
}

#[test]
fn what_is_no_request_of_binding_is_met_with_silence() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    for class in [Class::Indication, Class::Success, Class::Error] {
        let check = Check { class, ..agent.nomination() };
        assert_eq!(bed.arrives(At::a(id), REMOTE, &check.bytes()), Got::Dropped(Discard::Stun), "{class:?}");
    }
    for method in [Method::ALLOCATE, Method::REFRESH, Method::CHANNEL_BIND] {
        let check = Check { method, ..agent.nomination() };
        assert_eq!(bed.arrives(At::a(id), REMOTE, &check.bytes()), Got::Dropped(Discard::Stun), "{method:?}");
    }
    assert_eq!(bed.describe(id).legs[0].state, LegState::Waiting, "and does nothing");
}

#[test]
fn an_indication_that_keeps_a_binding_alive_is_dropped_and_counts_for_who_never_checks_again() {
    for goes_on_checking in [false, true] {
        let mut bed = Bed::default();
        let (id, agent) = if goes_on_checking { bed.checking() } else { bed.connected() };
        let keepalive = Check { class: Class::Indication, username: None, key: None, priority: None, ..agent.check() };
        let keepalive = Check { role: Role::Unsaid, ..keepalive };
        bed.pass_seconds(29);
        assert_eq!(bed.arrives(At::a(id), REMOTE, &keepalive.bytes()), Got::Dropped(Discard::Stun));
        bed.pass_seconds(1);
        let expected = if goes_on_checking { LegState::Paused } else { LegState::Nominated };
        assert_eq!(bed.describe(id).legs[0].state, expected);
    }
}

#[test]
fn without_fingerprint_or_with_a_wrong_one_there_is_silence() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    let check = Check { fingerprint: false, ..agent.nomination() };
    assert_eq!(bed.arrives(At::a(id), REMOTE, &check.bytes()), Got::Dropped(Discard::Stun));
    let mut bytes = agent.nomination().bytes();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(bed.arrives(At::a(id), REMOTE, &bytes), Got::Dropped(Discard::Stun));
    assert_eq!(bed.describe(id).legs[0].state, LegState::Waiting);
}

#[test]
fn requests_of_before_rfc_5389_are_met_with_silence() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    let mut bytes = agent.nomination().bytes();
    bytes[4..8].copy_from_slice(b"3489");
    assert_eq!(bed.arrives(At::a(id), REMOTE, &bytes), Got::Dropped(Discard::Stun));
    assert_eq!(bed.arrives(At::a(id), REMOTE, &[0, 1, 0, 0]), Got::Dropped(Discard::Stun), "and what is cut short");
}

#[test]
fn a_leg_that_speaks_no_ice_answers_no_check() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    assert_eq!(bed.arrives(At::b(id), PLAIN, &agent.nomination().bytes()), Got::Dropped(Discard::Stun));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)), "media is another thing");
}

#[test]
fn the_same_check_once_more_gets_the_same_answer() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    let bytes = agent.nomination().bytes();
    let first = bed.arrives(At::a(id), REMOTE, &bytes);
    assert_eq!(bed.arrives(At::a(id), REMOTE, &bytes), first);
    assert_eq!(bed.happened.len(), 2, "B's remote was told, and A's nominated once: {:?}", bed.happened);
}

#[test]
fn of_checks_that_are_refused_the_last_is_told_until_there_is_a_remote() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    assert_eq!(bed.path(At::a(id)).ends[0].refused, None);
    let wrong = Check { key: Some(LongTermKey::from_bytes(b"wrong")), ..agent.nomination() };
    bed.arrives(At::a(id), REMOTE, &wrong.bytes());
    let refused = |reason| Some(Refused { remote: socket(REMOTE), reason: RefusedFor::Check(reason) });
    assert_eq!(bed.path(At::a(id)).ends[0].refused, refused(Answer::Unauthenticated));
    let controlled = Check { role: Role::Controlled, ..agent.nomination() };
    bed.arrives(At::a(id), REMOTE, &controlled.bytes());
    assert_eq!(bed.path(At::a(id)).ends[0].refused, refused(Answer::RoleConflict));
    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    assert_eq!(bed.path(At::a(id)).ends[0].refused, None);
}
