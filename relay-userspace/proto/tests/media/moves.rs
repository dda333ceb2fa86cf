//! A remote that goes elsewhere: from Wi-Fi to the cellular network, or to another port of its NAT.

use hairpin_proto::media::{Discard, Effect, Event, MediaFlow, Side};

use crate::agent::Check;
use crate::harness::{At, Bed, ELSEWHERE, Got, MEDIA, PLAIN, REMOTE, bound, socket};

#[test]
fn everything_follows_a_nomination_from_elsewhere_at_once() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    let (old, _) = bed.flow().unwrap();
    bed.pass_seconds(5);
    let bytes = agent.nomination().bytes();
    let port = bed.port(At::a(id));
    bed.sessions.datagram(bed.now.instant, port, socket(ELSEWHERE), &bytes);
    let new = MediaFlow { client: socket(ELSEWHERE), ..old };
    let expires = bed.after(30_000);
    assert_eq!(
        bed.drain(),
        [
            Effect::Happened { session: id, event: Event::Moved, path: old.path, side: Side::A },
            // What both have is never gone in between.
            Effect::InstallFlow { flow: new, expires },
            Effect::RemoveFlow { flow: old },
        ]
    );
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(ELSEWHERE)));
    assert_eq!(bed.arrives(At::a(id), ELSEWHERE, MEDIA).target(), Some(socket(PLAIN)));
}

#[test]
fn what_was_under_way_from_the_old_place_still_arrives() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    bed.pass_seconds(5);
    bed.succeeds(At::a(id), ELSEWHERE, &agent.nomination());
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket(PLAIN)));
    bed.pass_seconds(25);
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA), Got::Dropped(Discard::UnknownRemote), "as long as consent lasts");
    assert_eq!(bed.arrives(At::a(id), ELSEWHERE, MEDIA).target(), Some(socket(PLAIN)));
}

#[test]
fn media_from_elsewhere_without_a_check_moves_nothing() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    assert_eq!(bed.arrives(At::a(id), ELSEWHERE, MEDIA), Got::Dropped(Discard::UnknownRemote));
    assert_eq!(bed.arrives(At::a(id), "203.0.113.7:40001", MEDIA), Got::Dropped(Discard::UnknownRemote));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
}

#[test]
fn a_remote_may_come_back_to_where_it_was() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    for remote in [ELSEWHERE, REMOTE, ELSEWHERE] {
        bed.pass_seconds(4);
        bed.succeeds(At::a(id), remote, &Check { priority: Some(9), ..agent.nomination() });
        assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(remote)));
        assert_eq!(bed.flow().map(|(flow, _)| flow.client), Some(socket(remote)));
    }
}

#[test]
fn a_paused_remote_that_comes_from_elsewhere_goes_on_there() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    bed.pass_seconds(45);
    bed.succeeds(At::a(id), ELSEWHERE, &agent.nomination());
    assert_eq!(bed.happened.last(), Some(&(Event::Resumed, Side::A)));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(ELSEWHERE)));
    bed.pass_seconds(20);
    bed.succeeds(At::a(id), ELSEWHERE, &agent.check());
    bed.pass_seconds(29);
    assert!(bed.ended.is_empty(), "nothing is left of the pause");
}

#[test]
fn both_legs_may_move() {
    let mut bed = Bed::default();
    let id = bed.session([crate::harness::ICE; 2]);
    let [a, b] = [At::a(id), At::b(id)].map(|at| bed.agent(at));
    bed.succeeds(At::a(id), REMOTE, &a.nomination());
    bed.succeeds(At::b(id), REMOTE, &b.nomination());
    bed.pass_seconds(3);
    bed.succeeds(At::b(id), ELSEWHERE, &b.nomination());
    bed.succeeds(At::a(id), ELSEWHERE, &a.nomination());
    let (flow, _) = bed.flow().unwrap();
    let [server, relayed] = [At::a(id), At::b(id)].map(|at| bound(bed.local(at)));
    let remote = socket(ELSEWHERE);
    assert_eq!(
        flow,
        MediaFlow { path: flow.path, client: remote, server, relayed, peer: remote, client_side: Side::A }
    );
}
