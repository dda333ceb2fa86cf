//! Remotes without ICE that are known by what they send first.

use hairpin_proto::media::{Discard, Event, LegState, PlainAddress, Refused, RefusedFor, Remote, SessionState, Side};

use crate::harness::{At, Bed, Got, ICE, LATCHING, MEDIA, PLAIN, REMOTE, STRICT, request, socket};

const NAT: &str = "9.9.9.9:5000";
const OTHER: &str = "9.9.9.9:5001";

/// A session whose leg B latches, and whose leg A has a remote.
fn latching(bed: &mut Bed) -> At {
    let id = bed.session([ICE, LATCHING]);
    let agent = bed.agent(At::a(id));
    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    At::b(id)
}

#[test]
fn the_first_source_wins() {
    let mut bed = Bed::default();
    let at = latching(&mut bed);
    assert_eq!(bed.arrives(At::a(at.id), REMOTE, MEDIA), Got::Dropped(Discard::NoRemote));
    assert_eq!(bed.arrives(at, NAT, MEDIA).target(), Some(socket(REMOTE)), "what is sent first is not lost");
    assert_eq!(bed.happened.last(), Some(&(Event::Nominated, Side::B)));
    assert_eq!(bed.arrives(At::a(at.id), REMOTE, MEDIA).target(), Some(socket(NAT)));
    assert_eq!(bed.arrives(at, OTHER, MEDIA), Got::Dropped(Discard::UnknownRemote));
    assert_eq!(bed.arrives(at, PLAIN, MEDIA), Got::Dropped(Discard::UnknownRemote));
    assert_eq!(bed.flow().map(|(flow, _)| flow.peer), Some(socket(NAT)));
}

#[test]
fn what_a_side_behind_a_nat_says_of_itself_holds_until_it_sends() {
    let mut bed = Bed::default();
    let at = latching(&mut bed);
    bed.plain(at, PLAIN, true).unwrap();
    assert_eq!(bed.arrives(At::a(at.id), REMOTE, MEDIA).target(), Some(socket(PLAIN)));
    assert_eq!(bed.arrives(at, NAT, MEDIA).target(), Some(socket(REMOTE)));
    assert_eq!(bed.happened.last(), Some(&(Event::Moved, Side::B)));
    assert_eq!(bed.arrives(At::a(at.id), REMOTE, MEDIA).target(), Some(socket(NAT)));
    assert_eq!(bed.arrives(at, PLAIN, MEDIA), Got::Dropped(Discard::UnknownRemote));
}

#[test]
fn where_the_first_source_is_the_one_that_was_told_nobody_else_takes_its_place() {
    let mut bed = Bed::default();
    let at = latching(&mut bed);
    bed.plain(at, PLAIN, true).unwrap();
    assert_eq!(bed.flow(), None, "the fast path would not tell who has sent first");
    assert_eq!(bed.arrives(at, PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    assert_eq!(bed.flow().map(|(flow, _)| flow.peer), Some(socket(PLAIN)));
    assert_eq!(bed.arrives(at, NAT, MEDIA), Got::Dropped(Discard::UnknownRemote));
    assert_eq!(bed.happened.last(), Some(&(Event::Nominated, Side::B)), "it is where it was said to be");
}

#[test]
fn a_session_has_begun_when_both_legs_have_latched() {
    let mut bed = Bed::default();
    let id = bed.session([LATCHING, LATCHING]);
    bed.arrives(At::a(id), PLAIN, MEDIA);
    bed.pass_seconds(200);
    bed.arrives(At::b(id), NAT, MEDIA);
    bed.pass_seconds(150);
    assert_eq!(bed.state(id), SessionState::Connected, "the time that it had to begin is over");
}

#[test]
fn who_is_where_it_was_said_to_be_is_known_before_it_sends() {
    let mut bed = Bed::default();
    let at = latching(&mut bed);
    let knows = |bed: &Bed, at: At, source: &str| bed.sessions.knows(bed.port(at), socket(source), bed.now.instant);
    assert!(!knows(&bed, at, PLAIN));
    bed.plain(at, PLAIN, true).unwrap();
    assert!(knows(&bed, at, PLAIN) && !knows(&bed, at, NAT));
    bed.arrives(at, NAT, MEDIA);
    assert!(knows(&bed, at, NAT) && !knows(&bed, at, PLAIN));
    let a = At::a(at.id);
    assert!(knows(&bed, a, REMOTE) && !knows(&bed, a, NAT));
    bed.sleep(30_000);
    assert!(!knows(&bed, a, REMOTE), "not without consent");
    let port = bed.port(a);
    bed.close(at.id);
    assert!(!bed.sessions.knows(port, socket(NAT), bed.now.instant));
}

#[test]
fn nobody_takes_a_place_that_the_peer_rules_forbid() {
    let mut bed = Bed::default();
    let at = latching(&mut bed);
    for source in ["10.0.0.1:5000", "127.0.0.1:5000", "192.0.2.15:3478", "198.51.100.15:22"] {
        assert_eq!(bed.arrives(at, source, MEDIA), Got::Dropped(Discard::Forbidden), "{source}");
        let refused = Refused { remote: socket(source), reason: RefusedFor::Forbidden };
        assert_eq!(bed.path(at).ends[1].refused, Some(refused), "the operator is told who it was");
    }
    assert_eq!(bed.arrives(at, NAT, MEDIA).target(), Some(socket(REMOTE)), "the place is still free");
    assert_eq!(bed.path(at).ends[1].refused, None);
    assert_eq!(bed.arrives(at, "10.0.0.1:5000", MEDIA), Got::Dropped(Discard::UnknownRemote), "it is taken");
}

#[test]
fn nobody_latches_to_a_session_of_this_relay_unless_it_was_said_to_be_there() {
    let mut bed = Bed::default();
    let at = latching(&mut bed);
    let other = bed.session([STRICT, STRICT]);
    let own = bed.local(At::a(other)).to_string();
    assert_eq!(bed.arrives(at, &own, MEDIA), Got::Dropped(Discard::Forbidden));
    bed.plain(at, &own, true).unwrap();
    assert_eq!(bed.arrives(at, &own, MEDIA).target(), Some(socket(REMOTE)));
}

#[test]
fn stun_takes_no_place() {
    let mut bed = Bed::default();
    let at = latching(&mut bed);
    let check = bed.agent(At::a(at.id)).nomination().bytes();
    assert_eq!(bed.arrives(at, NAT, &check), Got::Dropped(Discard::Stun));
    assert_eq!(bed.describe(at.id).legs[1].state, LegState::Waiting);
    assert_eq!(bed.arrives(at, OTHER, MEDIA).target(), Some(socket(REMOTE)));
}

#[test]
fn where_it_was_not_asked_for_nobody_takes_a_place() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, STRICT]);
    assert_eq!(bed.arrives(At::b(id), NAT, MEDIA), Got::Dropped(Discard::UnknownRemote));
    bed.plain(At::b(id), PLAIN, false).unwrap();
    assert_eq!(bed.arrives(At::b(id), NAT, MEDIA), Got::Dropped(Discard::UnknownRemote));
}

#[test]
fn who_has_latched_stays_when_the_same_is_said_again() {
    let mut bed = Bed::default();
    let at = latching(&mut bed);
    bed.plain(at, PLAIN, true).unwrap();
    bed.arrives(at, NAT, MEDIA);
    let events = bed.happened.len();
    bed.plain(at, PLAIN, true).unwrap();
    assert_eq!(bed.arrives(At::a(at.id), REMOTE, MEDIA).target(), Some(socket(NAT)));
    assert_eq!(bed.arrives(at, OTHER, MEDIA), Got::Dropped(Discard::UnknownRemote));
    assert_eq!(bed.happened.len(), events);
}

#[test]
fn the_owner_may_have_it_begin_anew_for_whoever_sends_next() {
    let mut bed = Bed::default();
    let at = latching(&mut bed);
    bed.arrives(at, NAT, MEDIA);
    bed.remote(at, Remote::Plain { addresses: Vec::new(), latch: true, is_hint: true }).unwrap();
    assert_eq!(bed.arrives(at, OTHER, MEDIA), Got::Dropped(Discard::UnknownRemote), "the side has said nothing new");
    bed.remote(at, Remote::Plain { addresses: Vec::new(), latch: true, is_hint: false }).unwrap();
    assert_eq!(bed.arrives(at, OTHER, MEDIA).target(), Some(socket(REMOTE)));
    assert_eq!(bed.arrives(At::a(at.id), REMOTE, MEDIA).target(), Some(socket(OTHER)));
}

#[test]
fn where_another_address_is_said_or_no_latching_it_begins_anew() {
    let mut bed = Bed::default();
    let at = latching(&mut bed);
    bed.plain(at, PLAIN, true).unwrap();
    bed.arrives(at, NAT, MEDIA);
    bed.plain(at, "8.8.4.4:4000", true).unwrap();
    assert_eq!(bed.arrives(At::a(at.id), REMOTE, MEDIA).target(), Some(socket("8.8.4.4:4000")));
    assert_eq!(bed.arrives(at, OTHER, MEDIA).target(), Some(socket(REMOTE)));
    bed.plain(at, "8.8.4.4:4000", false).unwrap();
    assert_eq!(bed.arrives(At::a(at.id), REMOTE, MEDIA).target(), Some(socket("8.8.4.4:4000")));
    assert_eq!(bed.arrives(at, OTHER, MEDIA), Got::Dropped(Discard::UnknownRemote));
    bed.plain(at, "8.8.4.4:4000", true).unwrap();
    assert_eq!(bed.arrives(at, OTHER, MEDIA).target(), Some(socket(REMOTE)), "now it is asked for");
}

#[test]
fn each_component_latches_for_itself() {
    let mut bed = Bed::default();
    let mut request = request([LATCHING, LATCHING]);
    request.streams[0].components = 2;
    let id = bed.create(request).unwrap();
    let [rtp, rtcp] = [0, 1].map(|path| At { path, ..At::a(id) });
    bed.arrives(rtp, NAT, MEDIA);
    assert_eq!(bed.arrives(rtcp, OTHER, MEDIA), Got::Dropped(Discard::NoRemote), "it is heard, with nobody opposite");
    bed.arrives(At { path: 1, ..At::b(id) }, PLAIN, MEDIA);
    assert_eq!(bed.arrives(rtcp, OTHER, MEDIA).target(), Some(socket(PLAIN)));
    assert_eq!(bed.arrives(rtp, OTHER, MEDIA), Got::Dropped(Discard::UnknownRemote));
}

#[test]
fn an_end_of_which_nothing_is_said_has_no_remote_until_it_latches() {
    let mut bed = Bed::default();
    let at = latching(&mut bed);
    bed.arrives(at, NAT, MEDIA);
    let nothing = || Remote::Plain { addresses: Vec::new(), latch: true, is_hint: true };
    bed.remote(at, nothing()).unwrap();
    assert_eq!(bed.arrives(At::a(at.id), REMOTE, MEDIA).target(), Some(socket(NAT)), "nobody is said to be elsewhere");
    bed.remote(at, Remote::Plain { addresses: Vec::new(), latch: false, is_hint: true }).unwrap();
    assert_eq!(bed.arrives(At::a(at.id), REMOTE, MEDIA), Got::Dropped(Discard::NoRemote));
    assert_eq!(bed.arrives(at, NAT, MEDIA), Got::Dropped(Discard::UnknownRemote));
    bed.remote(at, nothing()).unwrap();
    assert_eq!(bed.arrives(at, OTHER, MEDIA).target(), Some(socket(REMOTE)));
}

#[test]
fn who_has_latched_stays_at_the_address_where_it_came_in() {
    let mut bed = Bed::default();
    let mut request = request([ICE, LATCHING]);
    request.choice.families.clear();
    let id = bed.create(request).unwrap();
    let [v6, v4] = [0, 1].map(|base| At { base, ..At::b(id) });
    let agent = bed.agent(At::a(id));
    bed.succeeds(At { base: 1, ..At::a(id) }, REMOTE, &agent.nomination());
    let told = PlainAddress { stream: None, component: 1, address: socket("[2001:db8:8::8]:4000") };
    bed.remote(v4, Remote::Plain { addresses: vec![told], latch: true, is_hint: true }).unwrap();
    assert_eq!(bed.arrives(v4, NAT, MEDIA).target(), Some(socket(REMOTE)));
    let got = bed.arrives(At { base: 1, ..At::a(id) }, REMOTE, MEDIA);
    let bytes = MEDIA.to_vec();
    assert_eq!(got, Got::Sent { from: crate::harness::bound(bed.local(v4)), to: socket(NAT), bytes });
    assert_eq!(bed.arrives(v6, "[2001:db8:8::8]:4000", MEDIA), Got::Dropped(Discard::UnknownRemote));
}
