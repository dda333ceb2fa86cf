//! Two lite agents: nobody checks, and what was told has to do (RFC 8445 section 8.2).

use hairpin_proto::ice::Parameters;
use hairpin_proto::media::{
    Discard, Event, LegKind, LegState, Remote, RemoteError, SessionState, Side, StreamCandidates,
};
use hairpin_proto::stun::LongTermKey;

use crate::agent::{Check, Role, code, of_first, parameters, parsed, tell};
use crate::harness::{At, Bed, Got, ICE, MEDIA, PLAIN, REMOTE, STRICT, request, socket};

fn lite(candidates: &[&str]) -> Remote {
    of_streams(of_first(candidates))
}

fn of_streams(candidates: Vec<StreamCandidates>) -> Remote {
    Remote::Ice { parameters: parameters(), is_lite: true, candidates, end_of_candidates: false }
}

const BEST: &str = "candidate:1 1 UDP 2130706431 9.9.9.9 4000 typ host";
const OTHER: &str = "candidate:2 1 UDP 2130706000 9.9.9.10 4000 typ host";
const V6: &str = "candidate:3 1 UDP 2130706430 2001:db8:9::9 4000 typ host";

#[test]
fn media_goes_to_the_best_candidate_and_is_taken_from_there() {
    let mut bed = Bed::default();
    let (id, _) = bed.waiting();
    bed.remote(At::a(id), lite(&[OTHER, BEST])).unwrap();
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("9.9.9.9:4000")));
    assert_eq!(bed.arrives(At::a(id), "9.9.9.9:4000", MEDIA).target(), Some(socket(PLAIN)));
    for source in ["9.9.9.10:4000", "9.9.9.9:4001"] {
        assert_eq!(bed.arrives(At::a(id), source, MEDIA), Got::Dropped(Discard::UnknownRemote), "{source}");
    }
    let info = bed.describe(id);
    assert_eq!((info.legs[0].kind, info.legs[0].remote_is_lite), (LegKind::Ice, true));
    assert_eq!((info.state, bed.happened.last()), (SessionState::Connected, Some(&(Event::Nominated, Side::A))));
    bed.pass_seconds(120);
    assert_eq!(bed.state(id), SessionState::Connected, "nobody checks, so nobody loses consent");
}

#[test]
fn of_what_cannot_be_reached_nothing_is_chosen() {
    let mut bed = Bed::default();
    let (id, _) = bed.waiting();
    let best_of_others = [
        V6,
        "candidate:4 1 TCP 2130706431 9.9.9.11 4000 typ host tcptype passive",
        "candidate:5 1 UDP 2130706431 hidden.local 4000 typ host",
        "candidate:6 2 UDP 2130706431 9.9.9.12 4000 typ host",
        "candidate:7 1 UDP 2130706431 10.0.0.1 4000 typ host",
        "candidate:8 1 UDP 2130706431 9.9.9.13 0 typ host",
        OTHER,
    ];
    bed.remote(At::a(id), lite(&best_of_others)).unwrap();
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("9.9.9.10:4000")));
    bed.remote(At::a(id), lite(&best_of_others[..4])).unwrap();
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::NoRemote), "there may be more to come");
    assert_eq!(bed.describe(id).legs[0].state, LegState::Waiting);
}

#[test]
fn where_the_peer_rules_forbid_all_that_could_be_that_is_said() {
    let mut bed = Bed::default();
    let (id, _) = bed.waiting();
    let forbidden = ["candidate:7 1 UDP 7 10.0.0.1 4000 typ host", V6];
    assert_eq!(bed.remote(At::a(id), lite(&forbidden)), Err(RemoteError::Forbidden(socket("10.0.0.1:4000"))));
    tell(&mut bed, At::a(id), &forbidden);
    let with_one_more = bed.remote(At::a(id), lite(&[forbidden[0], OTHER]));
    assert_eq!(with_one_more, Ok(()));
}

#[test]
fn a_better_candidate_that_comes_later_takes_over() {
    let mut bed = Bed::default();
    let (id, _) = bed.waiting();
    bed.remote(At::a(id), lite(&[OTHER])).unwrap();
    bed.sessions.add_candidates(bed.now.instant, id, Side::A, of_first(&[BEST]), true).unwrap();
    bed.drain();
    assert_eq!(bed.happened.last(), Some(&(Event::Moved, Side::A)));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("9.9.9.9:4000")));
}

#[test]
fn each_stream_and_component_has_its_own() {
    let mut bed = Bed::default();
    let mut request = request([ICE, STRICT]);
    request.streams[0].components = 2;
    request.choice.families.clear();
    let id = bed.create(request).unwrap();
    bed.add_stream(id, "video", 1).unwrap();
    let rtcp = "candidate:1 2 UDP 2130706430 9.9.9.9 4001 typ host";
    let streams = vec![
        StreamCandidates { stream: Some("video".to_owned()), candidates: parsed(&[V6]) },
        StreamCandidates { stream: None, candidates: parsed(&[BEST, rtcp]) },
    ];
    bed.remote(At::a(id), of_streams(streams)).unwrap();
    let selected = |path| bed.path(At { path, ..At::a(id) }).ends[0].selected.map(|selected| selected.remote);
    assert_eq!(
        [0, 1, 2].map(selected),
        ["9.9.9.9:4000", "9.9.9.9:4001", "[2001:db8:9::9]:4000"].map(|remote| Some(socket(remote)))
    );
    let local = bed.path(At { path: 2, ..At::a(id) }).ends[0].selected.unwrap().local;
    assert!(local.is_ipv6(), "it is reached from an address of its own family");
}

#[test]
fn who_turns_out_to_be_a_full_agent_has_to_prove_itself() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    bed.remote(At::a(id), lite(&[BEST])).unwrap();
    tell(&mut bed, At::a(id), &[BEST]);
    assert_eq!(bed.flow(), None);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::NoRemote));
    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
}

#[test]
fn who_says_it_is_lite_and_checks_all_the_same_is_answered_and_believed_when_it_nominates() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    bed.remote(At::a(id), lite(&[BEST])).unwrap();
    let told = Some(socket("9.9.9.9:4000"));
    // As Janus with its option ice-lite does: it takes the role that a lite agent has, and learns that the leg has it.
    let controlled = Check { role: Role::Controlled, ..agent.nomination() };
    assert_eq!(code(&bed.arrives(At::a(id), REMOTE, &controlled.bytes())), 487);
    bed.succeeds(At::a(id), REMOTE, &agent.check());
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), told, "it has nominated nothing");
    let forged = Check { key: Some(LongTermKey::from_bytes(b"wrong")), ..agent.nomination() };
    assert_eq!(code(&bed.arrives(At::a(id), REMOTE, &forged.bytes())), 401);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), told);

    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    assert_eq!(bed.happened.last(), Some(&(Event::Moved, Side::A)));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket(PLAIN)));
    assert_eq!(bed.arrives(At::a(id), "9.9.9.9:4000", MEDIA), Got::Dropped(Discard::UnknownRemote));
    bed.sessions.add_candidates(bed.now.instant, id, Side::A, of_first(&[OTHER]), true).unwrap();
    bed.drain();
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)), "it is where it has shown to be");
    // What has come is looked at once more, and counts as life.
    bed.pass_seconds(45);
    assert_eq!(bed.state(id), SessionState::Paused, "and asked for consent from then on");
}

#[test]
fn that_one_component_is_forbidden_is_no_reason_to_refuse_the_other() {
    let mut bed = Bed::default();
    let mut request = request([ICE, STRICT]);
    request.streams[0].components = 2;
    let id = bed.create(request).unwrap();
    bed.remote(At::a(id), lite(&[BEST, "candidate:1 2 UDP 7 10.0.0.1 4001 typ host"])).unwrap();
    let selected = |path| bed.path(At { path, ..At::a(id) }).ends[0].selected.map(|selected| selected.remote);
    assert_eq!([0, 1].map(selected), [Some(socket("9.9.9.9:4000")), None]);
}

#[test]
fn what_one_agent_has_proven_counts_for_no_other() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    bed.remote(At::a(id), lite(&[BEST])).unwrap();
    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    let parameters = Parameters::new("another", "the/password/of/another/one").unwrap();
    let other = Remote::Ice { parameters, is_lite: true, candidates: of_first(&[OTHER]), end_of_candidates: false };
    bed.remote(At::a(id), other).unwrap();
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("9.9.9.10:4000")));
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA), Got::Dropped(Discard::UnknownRemote));
}
