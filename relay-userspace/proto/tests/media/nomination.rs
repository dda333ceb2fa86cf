//! What is nominated, regularly or aggressively, and by whom (RFC 8445 sections 7.3.1.3, 7.3.2 and 8.1.1).

use hairpin_proto::media::{Discard, Event, LegState, SessionState, Side};

use crate::agent::{Check, PRIORITY};
use crate::harness::{At, Bed, ELSEWHERE, Got, ICE, MEDIA, PLAIN, REMOTE, request, socket};

const THIRD: &str = "203.0.113.9:42000";

#[test]
fn nothing_is_sent_before_use_candidate_and_media_of_who_is_known_is_taken() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    bed.succeeds(At::a(id), REMOTE, &agent.check());
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::NoRemote));
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket(PLAIN)), "RFC 8445 section 12.2");
    assert_eq!(bed.flow(), None);
    assert_eq!((bed.state(id), bed.describe(id).legs[0].state), (SessionState::New, LegState::Waiting));

    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    assert_eq!((bed.state(id), bed.describe(id).legs[0].state), (SessionState::Connected, LegState::Nominated));
    assert_eq!(bed.happened, [(Event::Nominated, Side::B), (Event::Nominated, Side::A)]);
}

#[test]
fn media_leaves_untouched_from_the_other_legs_socket() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    let (a, b) = (bed.local(At::a(id)), bed.local(At::b(id)));
    let (a, b) = (crate::harness::bound(a), crate::harness::bound(b));
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA), Got::Sent { from: b, to: socket(PLAIN), bytes: MEDIA.to_vec() });
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Sent { from: a, to: socket(REMOTE), bytes: MEDIA.to_vec() });
}

#[test]
fn a_remote_that_nobody_has_spoken_of_is_as_good_as_any() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    for remote in [REMOTE, ELSEWHERE, "10.0.0.7:1", "192.168.1.9:65535"] {
        bed.succeeds(At::a(id), remote, &agent.check());
        assert!(
            bed.arrives(At::a(id), remote, MEDIA).target().is_some(),
            "{remote}: by its check it has proven itself"
        );
    }
    assert_eq!(bed.arrives(At::a(id), THIRD, MEDIA), Got::Dropped(Discard::UnknownRemote));
    assert_eq!(bed.arrives(At::a(id), "203.0.113.7:40001", MEDIA), Got::Dropped(Discard::UnknownRemote));
    bed.succeeds(At::a(id), "10.0.0.7:1", &agent.nomination());
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("10.0.0.7:1")));
}

#[test]
fn of_aggressive_nominations_the_one_with_the_highest_priority_counts() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    let with = |priority: u32| Check { priority: Some(priority), ..agent.nomination() };
    for (at, remote, priority, expected) in [
        (0, ELSEWHERE, 500, ELSEWHERE),
        (30, REMOTE, PRIORITY, REMOTE),
        (60, THIRD, 7000, REMOTE),
        (90, ELSEWHERE, 500, REMOTE),
    ] {
        bed.pass(if at == 0 { 0 } else { 30 });
        bed.succeeds(At::a(id), remote, &with(priority));
        assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(expected)), "after {at} ms");
    }
    let ours: Vec<_> = bed.happened.iter().filter(|(_, side)| *side == Side::A).map(|(event, _)| *event).collect();
    assert_eq!(ours, [Event::Nominated, Event::Moved]);
}

#[test]
fn a_candidate_that_was_told_has_the_priority_that_it_was_told_with() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    let told = |address: &str, priority: u32| {
        let at = socket(address);
        format!("candidate:1 1 UDP {priority} {} {} typ host", at.ip(), at.port())
    };
    crate::agent::tell(&mut bed, At::a(id), &[&told(REMOTE, 9_000_000), &told(ELSEWHERE, 4_000_000)]);
    // The checks say the opposite, as those of an agent that takes all of them for peer-reflexive.
    bed.succeeds(At::a(id), ELSEWHERE, &Check { priority: Some(PRIORITY), ..agent.nomination() });
    bed.succeeds(At::a(id), REMOTE, &Check { priority: Some(5), ..agent.nomination() });
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
}

#[test]
fn a_later_nomination_counts_whatever_its_priority() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    bed.pass(2000);
    bed.succeeds(At::a(id), ELSEWHERE, &Check { priority: Some(1), ..agent.nomination() });
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(ELSEWHERE)));
    assert_eq!(bed.happened.last(), Some(&(Event::Moved, Side::A)));
    bed.succeeds(At::a(id), REMOTE, &agent.check());
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(ELSEWHERE)), "checks alone change nothing");
}

#[test]
fn each_component_is_nominated_for_itself() {
    let mut bed = Bed::default();
    let mut request = request([ICE, ICE]);
    request.streams[0].components = 2;
    let id = bed.create(request).unwrap();
    let (a, b) = (bed.agent(At::a(id)), bed.agent(At::b(id)));
    bed.succeeds(At::a(id), REMOTE, &a.nomination());
    bed.succeeds(At::b(id), ELSEWHERE, &b.nomination());
    let rtcp = |at: At| At { path: 1, ..at };
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket(ELSEWHERE)));
    assert_eq!(bed.arrives(rtcp(At::a(id)), REMOTE, MEDIA), Got::Dropped(Discard::UnknownRemote));
    bed.succeeds(rtcp(At::a(id)), REMOTE, &a.nomination());
    assert_eq!(bed.arrives(rtcp(At::a(id)), REMOTE, MEDIA), Got::Dropped(Discard::NoRemote));
    bed.succeeds(rtcp(At::b(id)), THIRD, &b.nomination());
    assert_eq!(bed.arrives(rtcp(At::a(id)), REMOTE, MEDIA).target(), Some(socket(THIRD)));
    assert_eq!(bed.arrives(rtcp(At::b(id)), THIRD, MEDIA).target(), Some(socket(REMOTE)));
    assert_eq!(bed.arrives(At::b(id), THIRD, MEDIA), Got::Dropped(Discard::UnknownRemote), "that is of RTCP only");
}

#[test]
fn both_legs_may_be_of_ice_with_the_same_remote_address() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, ICE]);
    let (a, b) = (bed.agent(At::a(id)), bed.agent(At::b(id)));
    bed.succeeds(At::a(id), REMOTE, &a.nomination());
    bed.succeeds(At::b(id), REMOTE, &b.nomination());
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket(REMOTE)));
    assert_eq!(bed.arrives(At::b(id), REMOTE, MEDIA).target(), Some(socket(REMOTE)));
}

#[test]
fn so_many_remotes_are_remembered_that_no_agent_has_more_and_the_nominated_one_is_never_forgotten() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    let remote = |number: u32| format!("203.0.113.100:{}", 1000 + number);
    for number in 0..1000 {
        bed.pass(1);
        bed.succeeds(At::a(id), &remote(number), &agent.check());
    }
    let heard = (0..1000).filter(|number| bed.arrives(At::a(id), &remote(*number), MEDIA).target().is_some());
    assert_eq!(heard.collect::<Vec<_>>(), (985..1000).collect::<Vec<_>>());
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
}
