//! How sessions end: closed, never begun, paused for too long, or without media.

use std::time::Duration;

use hairpin_proto::media::{CloseReason, Discard, Effect, Event, PlainAddress, Remote, SessionState, Side};

use crate::harness::{At, Bed, Got, ICE, MEDIA, PLAIN, REMOTE, STRICT, amount, request, socket};

/// A relayed address of this relay.
const RELAYED: &str = "198.51.100.15:41111";

fn ended(bed: &Bed) -> Vec<CloseReason> {
    bed.ended.iter().map(|(_, reason)| *reason).collect()
}

#[test]
fn closing_frees_everything_in_an_order_that_can_be_followed() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    let (flow, _) = bed.flow().unwrap();
    let info = bed.describe(id);
    let ports = [At::a(id), At::b(id)].map(|at| bed.port(at));
    let effects = bed.close(id);
    assert_eq!(
        effects,
        [
            Effect::RemoveFlow { flow },
            Effect::Closed { info: Box::new(info), reason: CloseReason::Deleted },
            Effect::Close { port: ports[0] },
            Effect::Close { port: ports[1] },
            Effect::Freed { path: flow.path },
        ]
    );
    assert!(bed.ports.open.is_empty() && bed.paths.is_empty());
    assert_eq!((bed.sessions.len(), bed.sessions.poll_timeout(), bed.sessions.describe(id)), (0, None, None));
    assert!(!bed.sessions.close(id, CloseReason::Deleted), "there is none any more");
    assert_eq!(bed.drain(), []);
}

#[test]
fn a_leg_that_never_has_a_remote_ends_the_session() {
    let mut bed = Bed::default();
    bed.waiting();
    bed.pass(299_999);
    assert_eq!(ended(&bed), []);
    bed.pass(1);
    assert_eq!(ended(&bed), [CloseReason::Setup]);
    assert!(bed.ports.open.is_empty());
}

#[test]
fn a_session_that_waits_for_one_leg_ends_in_time_for_that_and_for_nothing_else() {
    let mut bed = Bed::default();
    let mut request = request([ICE, STRICT]);
    (request.terms.timeouts.setup, request.terms.timeouts.idle) =
        (Duration::from_secs(100), Some(Duration::from_secs(20)));
    let id = bed.create(request).unwrap();
    let agent = bed.agent(At::a(id));
    for _ in 0..10 {
        bed.succeeds(At::a(id), REMOTE, &agent.nomination());
        bed.pass(9_999);
        assert_eq!(ended(&bed), []);
        bed.pass(1);
    }
    assert_eq!(ended(&bed), [CloseReason::Setup]);
}

#[test]
fn a_session_that_has_begun_in_time_does_not_end_for_that() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    bed.pass_seconds(299);
    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    for _ in 0..20 {
        bed.pass_seconds(10);
        bed.succeeds(At::a(id), REMOTE, &agent.check());
    }
    assert_eq!((ended(&bed), bed.state(id)), (vec![], SessionState::Connected));
}

#[test]
fn without_media_a_session_ends_though_there_is_consent() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    for _ in 0..29 {
        bed.pass_seconds(10);
        bed.succeeds(At::a(id), REMOTE, &agent.check());
    }
    bed.pass(9_999);
    assert_eq!(ended(&bed), []);
    bed.pass(1);
    assert_eq!(ended(&bed), [CloseReason::Idle]);
}

#[test]
fn media_by_userspace_keeps_a_session() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    for round in 0..100 {
        bed.pass_seconds(10);
        bed.succeeds(At::a(id), REMOTE, &agent.check());
        // A datagram every five minutes but a little, alternately by both directions.
        match round % 40 {
            0 => bed.arrives(At::a(id), REMOTE, MEDIA).target(),
            20 => bed.arrives(At::b(id), PLAIN, MEDIA).target(),
            _ => None,
        };
    }
    assert_eq!(ended(&bed), []);
}

#[test]
fn media_by_the_fast_path_keeps_a_session() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    for round in 0..100 {
        bed.pass_seconds(10);
        bed.succeeds(At::a(id), REMOTE, &agent.check());
        if round % 20 == 0 {
            bed.relays_fast(At::a(id), 1);
        }
    }
    assert_eq!(ended(&bed), []);
    for _ in 0..34 {
        bed.pass_seconds(10);
        if ended(&bed).is_empty() {
            bed.succeeds(At::a(id), REMOTE, &agent.check());
        }
    }
    assert_eq!(ended(&bed), [CloseReason::Idle], "the counter stands still");
}

#[test]
fn what_is_dropped_keeps_no_session() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    for _ in 0..30 {
        bed.pass_seconds(10);
        if ended(&bed).is_empty() {
            bed.succeeds(At::a(id), REMOTE, &agent.check());
            bed.arrives(At::a(id), "9.9.9.9:9", MEDIA);
        }
    }
    assert_eq!(ended(&bed), [CloseReason::Idle]);
}

#[test]
fn a_session_may_be_idle_for_as_long_as_there_is_consent() {
    let mut bed = Bed::default();
    let mut request = request([ICE, STRICT]);
    request.terms.timeouts.idle = None;
    let id = bed.create(request).unwrap();
    bed.plain(At::b(id), PLAIN, false).unwrap();
    let agent = bed.agent(At::a(id));
    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    for _ in 0..400 {
        bed.pass_seconds(25);
        bed.succeeds(At::a(id), REMOTE, &agent.check());
    }
    assert_eq!(ended(&bed), []);
    bed.pass_seconds(90);
    assert_eq!(ended(&bed), [CloseReason::ConsentLost]);
}

#[test]
fn being_idle_begins_when_media_could_have_flowed() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    bed.pass_seconds(290);
    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    for _ in 0..14 {
        bed.pass_seconds(20);
        bed.succeeds(At::a(id), REMOTE, &agent.check());
    }
    bed.pass(19_999);
    assert_eq!(ended(&bed), []);
    bed.pass(1);
    assert_eq!(ended(&bed), [CloseReason::Idle]);
}

#[test]
fn each_session_ends_for_itself_and_all_with_the_relay() {
    let mut bed = Bed::default();
    let (first, _) = bed.connected();
    bed.pass_seconds(10);
    let ids = [(); 3].map(|()| bed.waiting().0);
    bed.close(ids[1]);
    assert_eq!(bed.sessions.ids(ids[0]).collect::<Vec<_>>(), [ids[0], ids[2]]);
    assert_eq!(bed.sessions.by_state(), [2, 1, 0]);
    bed.pass_seconds(20);
    assert_eq!(bed.sessions.by_state(), [2, 0, 1]);
    bed.pass_seconds(60);
    assert_eq!(ended(&bed), [CloseReason::Deleted, CloseReason::ConsentLost]);
    assert!(bed.sessions.describe(first).is_none());
    bed.sessions.shutdown();
    bed.drain();
    assert_eq!(ended(&bed)[2..], [CloseReason::Shutdown; 2]);
    assert_eq!((bed.sessions.closed(), bed.sessions.created()), (&[1, 0, 1, 0, 0, 2], 4));
    assert!(bed.sessions.is_empty() && bed.ports.open.is_empty() && bed.paths.is_empty());
    assert_eq!(bed.sessions.poll_timeout(), None);
}

#[test]
fn what_was_relayed_can_be_read_when_a_session_ends() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    for _ in 0..3 {
        bed.arrives(At::a(id), REMOTE, MEDIA);
    }
    bed.arrives(At::b(id), PLAIN, b"\x80");
    bed.close(id);
    let (info, _) = &bed.ended[0];
    assert_eq!(info.totals.all, [amount(3, 3 * MEDIA.len() as u64), amount(1, 1)]);
    bed.sessions.count(hairpin_proto::media::PathId(0), hairpin_proto::media::Side::A, 5);
}

#[test]
fn a_pause_that_is_over_with_the_stream_that_it_was_for_ends_nothing() {
    let mut bed = Bed::default();
    let mut request = request([ICE, STRICT]);
    // Shorter than what the session is looked at after anyway, which would find out.
    (request.terms.timeouts.paused, request.terms.timeouts.idle) = (Duration::from_secs(5), None);
    let id = bed.create(request).unwrap();
    bed.add_stream(id, "video", 1).unwrap();
    bed.plain(At::b(id), PLAIN, false).unwrap();
    let agent = bed.agent(At::a(id));
    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    bed.pass_seconds(31);
    assert_eq!(bed.state(id), SessionState::Paused);
    bed.sessions.remove_stream(id, "audio");
    bed.drain();
    assert_eq!(bed.state(id), SessionState::New);
    bed.pass_seconds(100);
    assert_eq!(ended(&bed), []);
}

#[test]
fn a_session_that_is_about_to_close_flows_on_without_the_fast_path() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    assert!(bed.flow().is_some());
    assert!(bed.sessions.begin_close(id));
    bed.drain();
    assert_eq!(bed.flow(), None, "what it has counted is final");
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket(PLAIN)));
    bed.succeeds(At::a(id), REMOTE, &agent.check());
    assert_eq!(bed.flow(), None, "and nothing brings it back");
    bed.close(id);
    assert!(!bed.sessions.begin_close(id));
}

#[test]
fn whoever_was_behind_a_relayed_address_that_is_freed_has_consent_no_more() {
    let mut bed = Bed::default();
    let id = bed.session([STRICT, STRICT]);
    bed.plain(At::a(id), RELAYED, false).unwrap();
    bed.plain(At::b(id), PLAIN, false).unwrap();
    bed.sessions.relayed_address_freed(bed.now.instant, socket("198.51.100.15:9"));
    assert_eq!(bed.drain(), []);
    bed.sessions.relayed_address_freed(bed.now.instant, socket(RELAYED));
    bed.drain();
    assert_eq!(bed.flow(), None);
    assert_eq!(bed.happened.last(), Some(&(Event::ConsentLost, Side::A)));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::NoRemote));
    assert_eq!(bed.describe(id).state, SessionState::Paused);
    bed.plain(At::a(id), "9.9.9.9:9", false).unwrap();
    assert_eq!(bed.describe(id).state, SessionState::Connected, "another one may take its place");
    bed.plain(At::a(id), RELAYED, false).unwrap();
    bed.sessions.relayed_address_freed(bed.now.instant, socket(RELAYED));
    bed.pass_seconds(61);
    assert_eq!(ended(&bed), [CloseReason::ConsentLost]);
}

#[test]
fn a_session_of_which_nothing_is_ever_said_ends_in_its_own_time() {
    let mut bed = Bed::default();
    let mut request = request([ICE, STRICT]);
    request.terms.timeouts.setup = Duration::from_secs(10);
    bed.create(request).unwrap();
    bed.pass(9_999);
    assert_eq!(ended(&bed), []);
    bed.pass(1);
    assert_eq!(ended(&bed), [CloseReason::Setup]);
}

#[test]
fn media_of_a_stream_that_is_gone_has_kept_its_session_too() {
    let mut bed = Bed::default();
    let mut request = request([STRICT, STRICT]);
    request.terms.timeouts.idle = Some(Duration::from_secs(20));
    let id = bed.create(request).unwrap();
    bed.add_stream(id, "video", 1).unwrap();
    for at in [At::a(id), At::b(id)] {
        let told =
            |stream: &str| PlainAddress { stream: Some(stream.to_owned()), component: 1, address: socket(PLAIN) };
        let addresses = ["audio", "video"].map(told).to_vec();
        bed.remote(at, Remote::Plain { addresses, latch: false, is_hint: false }).unwrap();
    }
    bed.pass_seconds(19);
    assert!(bed.arrives(At { path: 1, ..At::a(id) }, PLAIN, MEDIA).target().is_some());
    bed.sessions.remove_stream(id, "video");
    bed.drain();
    bed.pass(19_999);
    assert_eq!(ended(&bed), []);
    bed.pass(1);
    assert_eq!(ended(&bed), [CloseReason::Idle]);
}
