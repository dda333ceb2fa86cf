//! What the other side says of where it may be: it is of little use to a lite agent (RFC 8838, RFC 8839 section 5.1).

use hairpin_proto::media::{Discard, Remote, RemoteError, StreamCandidates};

use crate::agent::{of_first, parameters, parsed, tell};
use crate::harness::{At, Bed, Got, ICE, MEDIA, PLAIN, REMOTE, socket};

fn trickle(bed: &mut Bed, at: At, candidates: &[&str], end: bool) -> Result<(), RemoteError> {
    let added = bed.sessions.add_candidates(bed.now.instant, at.id, at.side, of_first(candidates), end);
    assert_eq!(bed.drain(), [], "a lite agent does nothing about them");
    added
}

const HOST: &str = "candidate:1 1 UDP 2130706431 203.0.113.7 40000 typ host";
const MDNS: &str = "candidate:2 1 UDP 2113937151 0b1c1e1e-79a3-4d0a-8a4e-5a2bcf0f9a35.local 50000 typ host";
const TCP: &str = "candidate:3 1 TCP 1518280447 203.0.113.7 9 typ host tcptype active";
const RELAYED: &str = "candidate:4 1 UDP 41885439 8.8.8.8 3333 typ relay raddr 0.0.0.0 rport 9 generation 0";

#[test]
fn no_candidate_is_a_remote_before_it_has_sent_a_check() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    tell(&mut bed, At::a(id), &[HOST, MDNS, TCP, RELAYED]);
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA), Got::Dropped(Discard::UnknownRemote));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::NoRemote));
    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
}

#[test]
fn names_and_transports_that_cannot_be_used_are_kept_and_ignored() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    tell(&mut bed, At::a(id), &[MDNS, TCP]);
    let told: Vec<_> = bed.describe(id).legs[0].remote_candidates.iter().map(|(_, told)| told.to_string()).collect();
    assert_eq!(told.len(), 2);
    assert!(told[0].contains(".local") && told[1].contains("TCP"), "{told:?}");
    bed.succeeds(At::a(id), "203.0.113.7:9", &agent.nomination());
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("203.0.113.7:9")), "whoever checks is there");
}

#[test]
fn trickled_candidates_are_added_each_once() {
    let mut bed = Bed::default();
    let (id, _) = bed.waiting();
    assert_eq!(trickle(&mut bed, At::a(id), &[HOST], false), Err(RemoteError::NoAgent), "nobody knows whose it is");
    tell(&mut bed, At::a(id), &[HOST]);
    for _ in 0..2 {
        trickle(&mut bed, At::a(id), &[HOST, RELAYED], false).unwrap();
    }
    let info = bed.describe(id);
    let told: Vec<_> =
        info.legs[0].remote_candidates.iter().map(|(name, told)| (name.as_str(), told.clone())).collect();
    let expected: Vec<_> = parsed(&[HOST, RELAYED]).into_iter().map(|candidate| ("audio", candidate)).collect();
    assert_eq!(told, expected);
    assert!(!info.legs[0].end_of_candidates);
}

#[test]
fn the_end_of_candidates_is_noted_and_changes_nothing() {
    let mut bed = Bed::default();
    let (id, agent) = bed.waiting();
    tell(&mut bed, At::a(id), &[HOST]);
    trickle(&mut bed, At::a(id), &[], true).unwrap();
    assert!(bed.describe(id).legs[0].end_of_candidates);
    bed.succeeds(At::a(id), "10.9.9.9:9", &agent.nomination());
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("10.9.9.9:9")), "a check needs no candidate");
    trickle(&mut bed, At::a(id), &[RELAYED], false).unwrap();
    let leg = &bed.describe(id).legs[0];
    assert!(leg.end_of_candidates, "it is not taken back");
    assert_eq!(leg.remote_candidates.len(), 1, "RFC 8838 section 14");
    bed.pass_seconds(29);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("10.9.9.9:9")));
}

#[test]
fn candidates_are_of_streams_that_there_are() {
    let mut bed = Bed::default();
    let (id, _) = bed.waiting();
    let of = |stream: &str| vec![StreamCandidates { stream: Some(stream.to_owned()), candidates: parsed(&[HOST]) }];
    let remote =
        |candidates| Remote::Ice { parameters: parameters(), is_lite: false, candidates, end_of_candidates: false };
    assert_eq!(bed.remote(At::a(id), remote(of("video"))), Err(RemoteError::NoStream("video".to_owned())));
    bed.remote(At::a(id), remote(of("audio"))).unwrap();
    let unknown = bed.sessions.add_candidates(bed.now.instant, id, At::a(id).side, of("video"), false);
    assert_eq!(unknown, Err(RemoteError::NoStream("video".to_owned())));
}

#[test]
fn of_very_many_candidates_the_first_are_kept() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, ICE]);
    let many: Vec<_> = (1..=300).map(|port| format!("candidate:1 1 UDP 7 9.9.9.9 {port} typ host")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    tell(&mut bed, At::a(id), &many[..200]);
    trickle(&mut bed, At::a(id), &many[200..], false).unwrap();
    let kept = bed.describe(id).legs[0].remote_candidates.clone();
    assert_eq!((kept.len(), kept[255].1.port), (256, 256));
    let nobody =
        bed.sessions.add_candidates(bed.now.instant, hairpin_proto::media::SessionId(99), At::a(id).side, vec![], true);
    assert_eq!(nobody, Err(RemoteError::NoSession));
}

#[test]
fn who_the_other_side_is_may_be_said_after_it_has_nominated() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    let flow = bed.flow();
    tell(&mut bed, At::a(id), &[RELAYED]);
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    assert_eq!(bed.flow(), flow);
    assert_eq!(bed.describe(id).legs[0].remote, Some(parameters()));
}
