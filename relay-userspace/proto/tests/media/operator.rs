//! Other settings, other timeouts, another label.

use std::num::NonZeroU64;
use std::time::Duration;

use hairpin_proto::media::{
    CloseReason, Discard, Effect, LegState, Limits, OpenError, PlainAddress, Remote, RemoteError, SessionState, Side,
    Terms,
};

use crate::harness::{At, Bed, Got, ICE, LATCHING, MEDIA, PLAIN, REMOTE, STRICT, request, settings, socket};

fn denies(bed: &mut Bed, net: &str) -> Vec<Effect> {
    let mut settings = settings();
    settings.peer_policy.deny(net.parse().unwrap());
    bed.sessions.reconfigure(bed.now.instant, settings);
    bed.drain()
}

fn update(bed: &mut Bed, at: At, change: impl FnOnce(&mut Terms)) -> bool {
    let changed = bed.sessions.update(bed.now.instant, at.id, None, |terms| {
        let mut new = *terms;
        change(&mut new);
        new
    });
    bed.drain();
    changed
}

#[test]
fn a_remote_without_ice_that_new_rules_forbid_is_let_go_of_at_once() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    let (flow, _) = bed.flow().unwrap();
    assert_eq!(denies(&mut bed, "8.8.8.0/24"), [Effect::RemoveFlow { flow }]);
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA), Got::Dropped(Discard::NoRemote));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::UnknownRemote));
    assert_eq!((bed.state(id), bed.describe(id).legs[1].state), (SessionState::New, LegState::Waiting));
    assert_eq!(bed.plain(At::b(id), PLAIN, false), Err(RemoteError::Forbidden(socket(PLAIN))));
    bed.plain(At::b(id), "9.9.9.9:9", false).unwrap();
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket("9.9.9.9:9")));
}

#[test]
fn who_has_latched_is_let_go_of_too_and_nobody_takes_the_place() {
    let mut bed = Bed::default();
    let id = bed.session([STRICT, LATCHING]);
    bed.arrives(At::b(id), PLAIN, MEDIA);
    denies(&mut bed, "8.8.8.8/32");
    for source in [PLAIN, "9.9.9.9:9"] {
        assert_eq!(bed.arrives(At::b(id), source, MEDIA), Got::Dropped(Discard::UnknownRemote), "{source}");
    }
}

#[test]
fn rules_are_not_for_remotes_that_have_proven_themselves() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    assert_eq!(denies(&mut bed, "203.0.113.0/24"), []);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
}

#[test]
fn rules_that_forbid_others_change_nothing() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    let flow = bed.flow();
    assert_eq!(denies(&mut bed, "9.9.9.0/24"), []);
    assert_eq!(bed.flow(), flow);
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket(PLAIN)));
}

#[test]
fn other_addresses_and_ports_are_for_what_comes_later() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    let before = bed.describe(id);
    let mut other = settings();
    other.relay_addresses = vec![std::net::IpAddr::from([192, 0, 2, 77]).into()];
    other.ports = vec![50_000..=50_001];
    other.max_sessions = 2;
    bed.sessions.reconfigure(bed.now.instant, other);
    bed.drain();
    assert_eq!(bed.describe(id), before);
    bed.succeeds(At::a(id), REMOTE, &agent.check());
    let new = bed.session([ICE, STRICT]);
    assert_eq!(bed.local(At::a(new)).ip(), std::net::IpAddr::from([192, 0, 2, 77]));
    assert!(bed.local(At::a(new)).port() >= 50_000);
    assert_eq!(bed.create(request([ICE, STRICT])), Err(OpenError::TooMany));
}

#[test]
fn who_is_a_peer_follows_the_relays_addresses() {
    let mut bed = Bed::default();
    let id = bed.session([STRICT, STRICT]);
    bed.plain(At::a(id), "9.9.9.9:41000", false).unwrap();
    bed.plain(At::b(id), PLAIN, false).unwrap();
    let (old, expires) = bed.flow().unwrap();
    let mut other = settings();
    other.relay_addresses.push(std::net::IpAddr::from([9, 9, 9, 9]).into());
    bed.sessions.reconfigure(bed.now.instant, other);
    let new = hairpin_proto::media::MediaFlow {
        path: old.path,
        client: old.peer,
        server: old.relayed,
        relayed: old.server,
        peer: old.client,
        client_side: Side::B,
    };
    assert_eq!(bed.drain(), [Effect::InstallFlow { flow: new, expires }, Effect::RemoveFlow { flow: old }]);
}

#[test]
fn fewer_sessions_than_there_are_end_none() {
    let mut bed = Bed::default();
    let ids = [(); 3].map(|()| bed.session([ICE, STRICT]));
    let mut less = settings();
    (less.max_sessions, less.max_paths) = (1, 1);
    bed.sessions.reconfigure(bed.now.instant, less);
    assert_eq!((bed.drain(), bed.sessions.len()), (vec![], 3));
    bed.close(ids[0]);
    bed.close(ids[1]);
    assert_eq!(bed.create(request([ICE, STRICT])), Err(OpenError::TooMany));
    assert_eq!(bed.add_stream(ids[2], "video", 1), Err(OpenError::TooManyPaths));
    bed.close(ids[2]);
    bed.session([ICE, STRICT]);
}

#[test]
fn a_label_is_exchanged_or_stays() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    let label = |bed: &Bed| bed.describe(id).label;
    assert_eq!(label(&bed), "a call");
    assert!(bed.sessions.update(bed.now.instant, id, Some("another".to_owned()), |terms| *terms));
    assert_eq!(label(&bed), "another");
    assert!(update(&mut bed, At::a(id), |terms| terms.timeouts.idle = None));
    assert_eq!((label(&bed).as_str(), bed.describe(id).terms.timeouts.idle), ("another", None));
    bed.close(id);
    assert!(!update(&mut bed, At::a(id), |_| {}));
}

#[test]
fn a_shorter_time_of_consent_holds_at_once_for_the_fast_path_too() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    bed.pass_seconds(5);
    update(&mut bed, At::a(id), |terms| terms.timeouts.consent = Duration::from_secs(10));
    assert_eq!(bed.flow().map(|(_, expires)| expires), Some(bed.after(5000)));
    bed.pass(4999);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    bed.pass(1);
    assert_eq!((bed.state(id), bed.flow()), (SessionState::Paused, None));
}

#[test]
fn a_time_of_consent_that_is_over_already_ends_it() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    bed.pass_seconds(5);
    update(&mut bed, At::a(id), |terms| terms.timeouts.consent = Duration::from_secs(1));
    assert_eq!(bed.flow(), None);
    assert_eq!(bed.sessions.poll_timeout(), Some(bed.now.instant), "at once, and not in the past");
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::NoRemote));
    bed.pass(0);
    assert_eq!(bed.state(id), SessionState::Paused);
}

#[test]
fn a_longer_time_of_consent_holds_at_once() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    update(&mut bed, At::a(id), |terms| terms.timeouts.consent = Duration::from_secs(90));
    assert_eq!(bed.flow().map(|(_, expires)| expires), Some(bed.after(90_000)));
    bed.pass(89_999);
    assert_eq!(bed.state(id), SessionState::Connected);
    bed.pass(1);
    assert_eq!(bed.state(id), SessionState::Paused);
}

#[test]
fn other_timeouts_count_from_the_same_beginning() {
    let reasons = |bed: &Bed| bed.ended.iter().map(|(_, reason)| *reason).collect::<Vec<_>>();
    let mut bed = Bed::default();
    let (id, _) = bed.waiting();
    bed.pass_seconds(100);
    update(&mut bed, At::a(id), |terms| terms.timeouts.setup = Duration::from_secs(400));
    bed.pass(299_999);
    assert_eq!(reasons(&bed), []);
    bed.pass(1);
    assert_eq!(reasons(&bed), [CloseReason::Setup]);

    let (id, _) = bed.connected();
    bed.pass_seconds(40);
    update(&mut bed, At::a(id), |terms| terms.timeouts.paused = Duration::from_secs(11));
    bed.pass(999);
    assert_eq!(reasons(&bed).len(), 1);
    bed.pass(1);
    assert_eq!(reasons(&bed)[1..], [CloseReason::ConsentLost]);

    let (id, _) = bed.connected();
    bed.pass_seconds(20);
    update(&mut bed, At::a(id), |terms| terms.timeouts.idle = Some(Duration::from_secs(21)));
    bed.pass(999);
    assert_eq!(reasons(&bed).len(), 2);
    bed.pass(1);
    assert_eq!(reasons(&bed)[2..], [CloseReason::Idle]);
}

#[test]
fn what_may_come_to_the_legs_is_told_of_each_path_and_again_when_it_changes() {
    let limits = |packets, bytes| Limits { packets: NonZeroU64::new(packets), bytes: NonZeroU64::new(bytes) };
    let mut bed = Bed::default();
    let free = bed.session([ICE, STRICT]);
    assert!(bed.limits.is_empty(), "of a path without limits nothing is said");
    let mut limited = request([ICE, STRICT]);
    limited.terms.limits = limits(50, 0);
    let id = bed.create(limited).unwrap();
    let path = |bed: &Bed, id| bed.path(At::a(id)).path;
    let first = path(&bed, id);
    assert_eq!(bed.limits, [(first, limits(50, 0))].into());
    assert_eq!(bed.describe(id).terms.limits, limits(50, 0));
    bed.add_stream(id, "video", 1).unwrap();
    assert_eq!(bed.limits.len(), 2, "one that comes later, too");

    update(&mut bed, At::a(id), |terms| terms.limits = limits(0, 9));
    assert!(bed.limits.values().eq(&[limits(0, 9); 2]), "{:?}", bed.limits);
    bed.limits.clear();
    update(&mut bed, At::a(id), |terms| terms.timeouts.idle = None);
    assert!(bed.limits.is_empty(), "they are what they were");
    update(&mut bed, At::a(id), |terms| terms.limits = limits(0, 0));
    assert!(bed.limits.values().eq(&[limits(0, 0); 2]), "{:?}", bed.limits);
    bed.limits.clear();
    let other = path(&bed, free);
    update(&mut bed, At::a(free), |terms| terms.limits = limits(1, 1));
    assert_eq!(bed.limits, [(other, limits(1, 1))].into());
}

#[test]
fn a_leg_whose_last_remote_new_rules_forbid_is_waited_for_from_then_on() {
    const RELAYED: &str = "198.51.100.15:41111";
    let mut bed = Bed::default();
    let mut request = request([STRICT, STRICT]);
    request.streams[0].components = 2;
    let id = bed.create(request).unwrap();
    for (at, remotes) in [(At::a(id), ["9.9.9.9:9", RELAYED]), (At::b(id), [PLAIN; 2])] {
        let addresses = remotes.into_iter().zip(1..).map(|(remote, component)| PlainAddress {
            stream: None,
            component,
            address: socket(remote),
        });
        bed.remote(at, Remote::Plain { addresses: addresses.collect(), latch: false, is_hint: false }).unwrap();
    }
    bed.sessions.relayed_address_freed(bed.now.instant, socket(RELAYED));
    // The session is not looked at again for some seconds.
    bed.pass_seconds(5);
    assert_eq!(bed.state(id), SessionState::Connected);
    denies(&mut bed, "9.9.9.9/32");
    assert_eq!(bed.state(id), SessionState::Paused);
    bed.pass(59_999);
    assert_eq!(bed.ended, []);
    bed.pass(1);
    assert_eq!(bed.ended[0].1, CloseReason::ConsentLost);
}
