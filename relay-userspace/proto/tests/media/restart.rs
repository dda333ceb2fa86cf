//! New credentials, and what becomes of the old (RFC 8445 section 9, RFC 8839 section 4.4.3.2).

use hairpin_proto::media::{Discard, Event, Side};

use crate::agent::{Agent, Check, code};
use crate::harness::{At, Bed, ELSEWHERE, Got, ICE, MEDIA, PLAIN, REMOTE, STRICT, request, socket};

/// A connected session whose leg A was restarted: who knows the old credentials, and who the new.
fn restarted(bed: &mut Bed) -> (At, Agent, Agent) {
    let (id, old) = bed.connected();
    bed.pass_seconds(10);
    assert!(bed.sessions.restart(id, Side::A));
    assert_eq!(bed.drain(), [], "nobody is told anything else");
    let new = bed.agent(At::a(id));
    (At::a(id), old, new)
}

fn flows_to(bed: &mut Bed, at: At) -> Option<&'static str> {
    let target = bed.arrives(At { side: at.side.other(), ..at }, PLAIN, MEDIA).target();
    [REMOTE, ELSEWHERE].into_iter().find(|remote| target == Some(socket(remote)))
}

#[test]
fn a_restart_changes_both_fragment_and_password_of_one_leg() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, ICE]);
    let parameters = |bed: &Bed, side: Side| bed.describe(id).legs[side as usize].parameters.clone().unwrap();
    let before = Side::BOTH.map(|side| parameters(&bed, side));
    assert!(bed.sessions.restart(id, Side::A));
    let after = Side::BOTH.map(|side| parameters(&bed, side));
    assert_ne!(before[0].ufrag, after[0].ufrag);
    assert_ne!(before[0].pwd, after[0].pwd);
    assert_eq!(before[1], after[1]);
    assert_eq!(bed.path(At::a(id)).ends[0].locals, bed.path(At::b(id)).ends[0].locals, "its addresses stay");
}

#[test]
fn media_flows_by_the_old_pair_until_something_is_nominated_with_the_new_credentials() {
    let mut bed = Bed::default();
    let (at, old, new) = restarted(&mut bed);
    let flow = bed.flow();
    assert_eq!(flows_to(&mut bed, at), Some(REMOTE));
    bed.succeeds(at, ELSEWHERE, &new.check());
    assert_eq!((flows_to(&mut bed, at), bed.flow()), (Some(REMOTE), flow));
    // The old pair needs consent as before (RFC 7675 section 5.1), and gets it by the old credentials.
    for _ in 0..10 {
        bed.pass_seconds(5);
        bed.succeeds(at, REMOTE, &old.check());
    }
    assert_eq!(flows_to(&mut bed, at), Some(REMOTE));
    bed.succeeds(at, ELSEWHERE, &new.nomination());
    assert_eq!(flows_to(&mut bed, at), Some(ELSEWHERE));
    assert_eq!(bed.happened.last(), Some(&(Event::Moved, Side::A)));
}

#[test]
fn the_old_pair_ends_with_its_consent_also_during_a_restart() {
    let mut bed = Bed::default();
    let (at, _, new) = restarted(&mut bed);
    bed.pass_seconds(15);
    bed.succeeds(at, ELSEWHERE, &new.check());
    bed.pass_seconds(5);
    assert_eq!((flows_to(&mut bed, at), bed.flow()), (None, None));
}

#[test]
fn after_the_nomination_the_old_credentials_are_refused() {
    let mut bed = Bed::default();
    let (at, old, new) = restarted(&mut bed);
    bed.succeeds(at, REMOTE, &old.check());
    bed.succeeds(at, ELSEWHERE, &new.nomination());
    for check in [old.check(), old.nomination()] {
        assert_eq!(code(&bed.arrives(at, REMOTE, &check.bytes())), 401);
    }
    assert_eq!(flows_to(&mut bed, at), Some(ELSEWHERE));
}

#[test]
fn after_a_nomination_of_the_same_remote_the_old_credentials_are_refused_too() {
    let mut bed = Bed::default();
    let (at, old, new) = restarted(&mut bed);
    bed.succeeds(at, REMOTE, &new.check());
    bed.succeeds(at, REMOTE, &old.check());
    bed.succeeds(at, REMOTE, &new.nomination());
    assert_eq!(code(&bed.arrives(at, REMOTE, &old.check().bytes())), 401);
    assert_eq!(flows_to(&mut bed, at), Some(REMOTE));
    assert_eq!(bed.happened.iter().filter(|(_, side)| *side == Side::A).count(), 1, "for it nothing has changed");
}

#[test]
fn until_then_the_old_credentials_nominate_as_before_and_afterwards_nothing_is_gone_back_to() {
    let mut bed = Bed::default();
    let (at, old, new) = restarted(&mut bed);
    bed.succeeds(at, ELSEWHERE, &new.check());
    bed.succeeds(at, ELSEWHERE, &old.nomination());
    assert_eq!(flows_to(&mut bed, at), Some(ELSEWHERE));
    bed.succeeds(at, REMOTE, &old.nomination());
    assert_eq!(flows_to(&mut bed, at), Some(REMOTE), "and they are still good");
    bed.succeeds(at, ELSEWHERE, &new.nomination());
    assert_eq!(flows_to(&mut bed, at), Some(ELSEWHERE));
    bed.pass_seconds(20);
    bed.succeeds(at, REMOTE, &new.check());
    bed.pass_seconds(10);
    assert_eq!(flows_to(&mut bed, at), None, "the old pair was not nominated with the new credentials");
}

#[test]
fn with_several_components_the_old_credentials_are_good_until_the_last_of_them_has_moved() {
    let mut bed = Bed::default();
    let mut request = request([ICE, STRICT]);
    request.streams[0].components = 2;
    let id = bed.create(request).unwrap();
    let at = [0, 1].map(|path| At { path, ..At::a(id) });
    let old = bed.agent(at[0]);
    for at in at {
        bed.succeeds(at, REMOTE, &old.nomination());
    }
    bed.pass_seconds(10);
    assert!(bed.sessions.restart(id, Side::A));
    let new = bed.agent(at[0]);
    bed.succeeds(at[0], ELSEWHERE, &new.nomination());
    bed.succeeds(at[1], REMOTE, &old.check());
    bed.succeeds(at[1], ELSEWHERE, &new.nomination());
    assert_eq!(code(&bed.arrives(at[1], REMOTE, &old.check().bytes())), 401);
}

#[test]
fn a_second_restart_finds_the_new_credentials_of_the_first_and_none_are_forgotten() {
    let mut bed = Bed::default();
    let (at, old, new) = restarted(&mut bed);
    assert!(bed.sessions.restart(at.id, Side::A));
    let again = bed.agent(at);
    assert_eq!(again.ufrag, new.ufrag);
    bed.succeeds(at, REMOTE, &old.check());
    assert_eq!(flows_to(&mut bed, at), Some(REMOTE));
    bed.succeeds(at, ELSEWHERE, &new.nomination());
    assert_eq!(flows_to(&mut bed, at), Some(ELSEWHERE));
    assert_eq!(code(&bed.arrives(at, REMOTE, &old.check().bytes())), 401);
    assert!(bed.sessions.restart(at.id, Side::A));
    assert_ne!(bed.agent(at).ufrag, new.ufrag, "what was used is not new any more");
}

#[test]
fn with_the_new_credentials_it_is_settled_anew_which_pair_has_the_highest_priority() {
    let mut bed = Bed::default();
    let (at, _, new) = restarted(&mut bed);
    let with = |priority: u32| Check { priority: Some(priority), ..new.nomination() };
    // Aggressive, and the first one that gets through is where media flows already.
    bed.succeeds(at, REMOTE, &with(9000));
    bed.succeeds(at, ELSEWHERE, &with(5000));
    assert_eq!(flows_to(&mut bed, at), Some(REMOTE));
    bed.pass_seconds(2);
    bed.succeeds(at, ELSEWHERE, &with(5000));
    assert_eq!(flows_to(&mut bed, at), Some(ELSEWHERE));
}

#[test]
fn a_restart_before_anything_was_nominated_takes_the_new_credentials() {
    let mut bed = Bed::default();
    let (id, _) = bed.waiting();
    assert!(bed.sessions.restart(id, Side::A));
    let new = bed.agent(At::a(id));
    bed.succeeds(At::a(id), REMOTE, &new.nomination());
    assert_eq!(flows_to(&mut bed, At::a(id)), Some(REMOTE));
}

#[test]
fn what_has_no_credentials_is_not_restarted() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    let before = bed.describe(id);
    assert!(!bed.sessions.restart(id, Side::B));
    assert_eq!(bed.describe(id), before);
    bed.close(id);
    assert!(!bed.sessions.restart(id, Side::A));
}

#[test]
fn media_of_an_old_pair_is_taken_for_as_long_as_it_has_consent() {
    let mut bed = Bed::default();
    let (at, _, new) = restarted(&mut bed);
    bed.succeeds(at, ELSEWHERE, &new.nomination());
    assert_eq!(bed.arrives(at, REMOTE, MEDIA).target(), Some(socket(PLAIN)), "what was under way");
    bed.pass_seconds(20);
    assert_eq!(bed.arrives(at, REMOTE, MEDIA), Got::Dropped(Discard::UnknownRemote));
}

#[test]
fn an_agent_is_held_to_no_checks_that_were_before_the_restart() {
    let mut bed = Bed::default();
    let (id, _) = bed.checking();
    assert!(bed.sessions.restart(id, Side::A));
    let new = bed.agent(At::a(id));
    // As when the call goes on with another agent behind the same gateway, which never checks again.
    bed.succeeds(At::a(id), REMOTE, &new.nomination());
    for _ in 0..10 {
        bed.pass_seconds(10);
        bed.arrives(At::a(id), REMOTE, MEDIA);
    }
    assert_eq!(flows_to(&mut bed, At::a(id)), Some(REMOTE));
    assert!(bed.happened.iter().all(|(event, _)| *event == Event::Nominated), "{:?}", bed.happened);
}
