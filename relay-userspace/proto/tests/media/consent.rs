//! Consent: it is kept by checks, ends with them, and nothing is sent without (RFC 7675, as the side that is checked).

use std::time::Duration;

use hairpin_proto::media::{CloseReason, Discard, Effect, Event, LegState, SessionState, Side};
use hairpin_proto::stun::{Class, Method};

use crate::agent::Check;
use crate::harness::{At, Bed, ELSEWHERE, Got, ICE, MEDIA, PLAIN, REMOTE, request, socket};

#[test]
fn without_checks_nothing_is_sent_after_thirty_seconds() {
    let mut bed = Bed::default();
    let (id, _) = bed.checking();
    bed.pass(29_999);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    let (flow, expires) = bed.flow().expect("it is installed");
    assert_eq!(expires, bed.after(1), "the fast path ends by itself");

    let effects = bed.pass(1);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::NoRemote));
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA), Got::Dropped(Discard::UnknownRemote));
    let path = bed.path(At::a(id)).path;
    assert_eq!(
        effects,
        [Effect::Happened { session: id, event: Event::ConsentLost, path, side: Side::A }, Effect::RemoveFlow { flow },]
    );
    assert_eq!((bed.state(id), bed.describe(id).legs[0].state), (SessionState::Paused, LegState::Paused));
    assert!(bed.path(At::a(id)).ends[0].selected.is_some_and(|selected| selected.is_lost));
}

#[test]
fn not_a_timer_but_the_time_itself_ends_consent() {
    let mut bed = Bed::default();
    let (id, _) = bed.checking();
    bed.sleep(29_999);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    bed.sleep(1);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::NoRemote));
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA), Got::Dropped(Discard::UnknownRemote));
}

#[test]
fn each_check_that_is_answered_prolongs_it_whether_it_nominates_or_not() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    for nominates in [false, true, false, true] {
        bed.pass_seconds(29);
        bed.succeeds(At::a(id), REMOTE, &Check { nominates, ..agent.check() });
        assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    }
    assert_eq!(bed.happened.len(), 2, "nothing has happened: {:?}", bed.happened);
    bed.pass_seconds(30);
    assert_eq!(bed.state(id), SessionState::Paused);
}

#[test]
fn media_is_no_consent_of_an_agent_that_goes_on_checking() {
    let mut bed = Bed::default();
    let (id, _) = bed.checking();
    for _ in 0..29 {
        bed.pass_seconds(1);
        bed.arrives(At::a(id), REMOTE, MEDIA);
        bed.relays_fast(At::a(id), 1);
    }
    bed.pass_seconds(1);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::NoRemote));
}

#[test]
fn an_agent_that_never_checks_again_lives_by_its_media_on_either_path() {
    for fast in [false, true] {
        let mut bed = Bed::default();
        let (id, _) = bed.connected();
        for _ in 0..30 {
            bed.pass_seconds(7);
            if fast {
                bed.relays_fast(At::a(id), 1);
            } else {
                assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket(PLAIN)));
            }
            let (_, expires) = bed.flow().expect("it never ends");
            assert!(expires > bed.after(2_000), "what is heard extends it in time");
        }
        assert_eq!(bed.happened.len(), 2, "nothing has happened: {:?}", bed.happened);
        bed.pass_seconds(60);
        assert_eq!(bed.state(id), SessionState::Paused, "and ends with it");
        assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket(PLAIN)), "until it is heard again");
        assert_eq!(bed.state(id), SessionState::Connected);
    }
}

#[test]
fn an_agent_that_checks_only_while_nothing_flows_lives_by_its_media() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    // As pion before 4: every two seconds, for as long as it has nothing to say.
    for _ in 0..4 {
        bed.pass_seconds(2);
        bed.succeeds(At::a(id), REMOTE, &agent.check());
    }
    for _ in 0..120 {
        bed.pass_seconds(1);
        bed.relays_fast(At::a(id), 20);
    }
    assert_eq!(bed.happened.len(), 2, "nothing has happened: {:?}", bed.happened);
    assert_eq!(bed.state(id), SessionState::Connected);
    bed.pass_seconds(60);
    assert_eq!(bed.state(id), SessionState::Paused);
}

#[test]
fn consent_that_comes_back_from_elsewhere_is_back() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    bed.pass_seconds(50);
    assert_eq!(bed.happened.last(), Some(&(Event::ConsentLost, Side::A)));
    bed.succeeds(At::a(id), ELSEWHERE, &agent.nomination());
    assert_eq!(bed.happened.last(), Some(&(Event::Resumed, Side::A)));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(ELSEWHERE)));
}

#[test]
fn media_of_the_other_leg_is_no_sign_of_life() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    for _ in 0..30 {
        bed.pass_seconds(1);
        bed.arrives(At::b(id), PLAIN, MEDIA);
        bed.relays_fast(At::b(id), 1);
    }
    assert_eq!(bed.state(id), SessionState::Paused);
}

#[test]
fn checks_of_another_pair_are_no_consent_for_this_one() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    bed.pass_seconds(20);
    bed.succeeds(At::a(id), ELSEWHERE, &agent.check());
    bed.pass_seconds(10);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::NoRemote));
    assert_eq!(bed.arrives(At::a(id), ELSEWHERE, MEDIA).target(), Some(socket(PLAIN)), "that one is still heard");
}

#[test]
fn with_the_next_check_everything_goes_on() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    let (flow, _) = bed.flow().unwrap();
    bed.pass_seconds(50);
    assert_eq!(bed.flow(), None);
    bed.succeeds(At::a(id), REMOTE, &agent.check());
    assert_eq!(bed.happened.last(), Some(&(Event::Resumed, Side::A)));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    assert_eq!(bed.flow(), Some((flow, bed.after(30_000))));
    assert_eq!(bed.state(id), SessionState::Connected);
    // What was waited for is over, so nothing ends with it.
    bed.pass_seconds(20);
    bed.succeeds(At::a(id), REMOTE, &agent.check());
    bed.pass_seconds(25);
    assert_eq!(bed.state(id), SessionState::Connected);
}

#[test]
fn another_pair_that_was_nominated_takes_over_when_consent_ends() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    bed.pass(100);
    bed.succeeds(At::a(id), ELSEWHERE, &Check { priority: Some(1), ..agent.nomination() });
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    bed.pass(29_900);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(ELSEWHERE)));
    assert_eq!(bed.happened.last(), Some(&(Event::Moved, Side::A)));
    assert_eq!(bed.flow().map(|(flow, expires)| (flow.client, expires)), Some((socket(ELSEWHERE), bed.after(100))));
}

#[test]
fn a_leg_whose_consent_does_not_come_back_ends_the_session() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    bed.pass(30_000 + 59_999);
    assert_eq!(bed.state(id), SessionState::Paused);
    bed.pass(1);
    assert_eq!(
        bed.ended.iter().map(|(info, reason)| (info.id, *reason)).collect::<Vec<_>>(),
        [(id, CloseReason::ConsentLost)]
    );
    assert!(bed.ports.open.is_empty() && bed.flows.is_empty() && bed.paths.is_empty());
}

#[test]
fn either_leg_pauses_a_session() {
    for lost in [Side::A, Side::B] {
        let mut bed = Bed::default();
        let id = bed.session([ICE, ICE]);
        let ends = [At::a(id), At::b(id)].map(|at| (at, bed.agent(at)));
        for (at, agent) in &ends {
            bed.succeeds(*at, REMOTE, &agent.nomination());
        }
        bed.pass_seconds(20);
        let (at, agent) = &ends[lost.other() as usize];
        bed.succeeds(*at, REMOTE, &agent.check());
        bed.pass_seconds(10);
        assert_eq!((bed.state(id), bed.sessions.by_state()), (SessionState::Paused, [0, 0, 1]));
        assert_eq!(bed.happened.last(), Some(&(Event::ConsentLost, lost)));
        assert_eq!(bed.arrives(*at, REMOTE, MEDIA), Got::Dropped(Discard::NoRemote));
    }
}

#[test]
fn a_leg_is_paused_when_its_last_component_is() {
    let mut bed = Bed::default();
    let mut request = request([ICE, ICE]);
    request.streams[0].components = 2;
    let id = bed.create(request).unwrap();
    let agents = [At::a(id), At::b(id)].map(|at| bed.agent(at));
    for path in [0, 1] {
        for (at, agent) in [At::a(id), At::b(id)].into_iter().zip(&agents) {
            bed.succeeds(At { path, ..at }, REMOTE, &agent.nomination());
        }
    }
    bed.pass_seconds(20);
    bed.succeeds(At::a(id), REMOTE, &agents[0].check());
    for path in [0, 1] {
        bed.succeeds(At { path, ..At::b(id) }, REMOTE, &agents[1].check());
    }
    bed.pass_seconds(10);
    assert_eq!(bed.happened.iter().filter(|(event, _)| *event == Event::ConsentLost).count(), 1);
    assert_eq!((bed.state(id), bed.describe(id).legs[0].state), (SessionState::Connected, LegState::Nominated));
    assert_eq!(bed.flows.len(), 1);
    bed.pass_seconds(20);
    assert_eq!((bed.state(id), bed.describe(id).legs[0].state), (SessionState::Paused, LegState::Paused));
    assert_eq!(bed.flows, []);
}

#[test]
fn how_long_consent_lasts_can_be_said() {
    let mut bed = Bed::default();
    let mut request = request([ICE, crate::harness::STRICT]);
    request.terms.timeouts.consent = Duration::from_secs(5);
    let id = bed.create(request).unwrap();
    bed.plain(At::b(id), PLAIN, false).unwrap();
    let agent = bed.agent(At::a(id));
    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    assert_eq!(bed.flow().map(|(_, expires)| expires), Some(bed.after(5000)));
    bed.pass(4999);
    assert_eq!(bed.state(id), SessionState::Connected);
    bed.pass(1);
    assert_eq!(bed.state(id), SessionState::Paused);
}

#[test]
fn what_has_lost_its_consent_makes_way_for_a_lesser_nomination_however_soon() {
    for timers in [true, false] {
        let mut bed = Bed::default();
        let mut request = request([ICE, crate::harness::STRICT]);
        request.terms.timeouts.consent = Duration::from_secs(1);
        let id = bed.create(request).unwrap();
        bed.plain(At::b(id), PLAIN, false).unwrap();
        let agent = bed.agent(At::a(id));
        bed.succeeds(At::a(id), REMOTE, &agent.nomination());
        if timers {
            bed.pass(1500);
        } else {
            bed.sleep(1500);
        }
        bed.succeeds(At::a(id), ELSEWHERE, &Check { priority: Some(1), ..agent.nomination() });
        assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(ELSEWHERE)), "timers: {timers}");
    }
}

#[test]
fn the_answer_to_a_check_is_sent_without_consent_as_to_any_other() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    bed.pass_seconds(40);
    bed.succeeds(At::a(id), ELSEWHERE, &agent.check());
    assert_eq!(bed.state(id), SessionState::Paused, "and it is none, as it does not nominate");
}

#[test]
fn stun_that_is_neither_a_check_nor_an_indication_is_no_sign_of_life() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    let (check, method) = (agent.check(), Method::ALLOCATE);
    let ignored = [
        Check { fingerprint: false, ..check.clone() },
        Check { method, ..check.clone() },
        Check { class: Class::Success, ..check.clone() },
        Check { class: Class::Error, ..check },
    ];
    for _ in 0..30 {
        bed.pass_seconds(1);
        for message in &ignored {
            assert_eq!(bed.arrives(At::a(id), REMOTE, &message.bytes()), Got::Dropped(Discard::Stun));
        }
    }
    assert_eq!(bed.state(id), SessionState::Paused);
}
