//! What there is to say of a session.

use hairpin_proto::ice::Parameters;
use hairpin_proto::media::{
    LegState, PathId, PathInfo, Request, SelectedInfo, SessionId, SessionState, Side, StreamRequest, Terms,
};

use crate::agent::{parameters, tell};
use crate::harness::{At, Bed, ICE, MEDIA, PLAIN, PUBLIC_V4, REMOTE, STRICT, amount, request, socket};

#[test]
fn a_new_session_is_told_as_it_was_asked_for() {
    let mut bed = Bed::default();
    let streams =
        [("audio", 2), ("video", 1)].map(|(name, components)| StreamRequest { name: name.to_owned(), components });
    let request = Request { streams: streams.to_vec(), ..request([ICE, STRICT]) };
    let id = bed.create(request).unwrap();
    let info = bed.describe(id);
    assert_eq!((info.id, info.label.as_str(), info.created), (id, "a call", 1_700_000_000));
    assert_eq!((info.state, info.terms), (SessionState::New, Terms::default()));
    assert_eq!(info.legs.each_ref().map(|leg| leg.kind), [ICE, STRICT]);
    assert_eq!(info.legs.each_ref().map(|leg| leg.state), [LegState::Waiting; 2]);
    assert!(info.legs.iter().all(|leg| leg.remote.is_none() && leg.remote_candidates.is_empty()));
    assert!(info.legs.iter().all(|leg| !leg.remote_is_lite && !leg.end_of_candidates));
    let names: Vec<_> = info.streams.iter().map(|stream| stream.name.as_str()).collect();
    assert_eq!(names, ["audio", "video"]);
    let components: Vec<Vec<_>> =
        info.streams.iter().map(|stream| stream.paths.iter().map(|path| path.component).collect()).collect();
    assert_eq!(components, [vec![1, 2], vec![1]]);
    for (path, name) in [(0, ("audio", 1)), (1, ("audio", 2)), (2, ("video", 1))] {
        assert_eq!(bed.sessions.name_of(PathId(path)), Some((name.0.to_owned(), name.1)));
    }
    assert_eq!(bed.sessions.name_of(PathId(3)), None);
    assert_eq!(bed.sessions.describe(SessionId(1)), None);
}

#[test]
fn only_a_leg_of_ice_has_credentials_and_they_are_such_as_may_be_written() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, STRICT]);
    let legs = bed.describe(id).legs;
    let own = legs[0].parameters.clone().expect("leg A speaks ICE");
    assert!(Parameters::new(own.ufrag, own.pwd).is_ok());
    assert_eq!(legs[1].parameters, None);
}

#[test]
fn where_media_goes_is_told_with_the_time_of_the_last_check() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    bed.pass_seconds(4);
    bed.succeeds(At::a(id), REMOTE, &agent.check());
    let checked = Some(bed.now.instant);
    bed.pass_seconds(2);
    let PathInfo { ends: [a, b], .. } = bed.path(At::a(id));
    let [local_a, local_b] = [At::a(id), At::b(id)].map(|at| bed.local(at));
    assert_eq!(a.selected, Some(SelectedInfo { local: local_a, remote: socket(REMOTE), checked, is_lost: false }));
    let expected = SelectedInfo { local: local_b, remote: socket(PLAIN), checked: None, is_lost: false };
    assert_eq!(b.selected, Some(expected));
    assert_eq!(local_a.ip().to_string(), PUBLIC_V4, "as the other side knows it");
    bed.pass_seconds(40);
    let lost = bed.path(At::a(id)).ends[0].selected.expect("it is remembered");
    assert_eq!((lost.checked, lost.is_lost), (checked, true));
}

#[test]
fn what_the_other_side_has_said_is_told() {
    let mut bed = Bed::default();
    let (id, _) = bed.waiting();
    let candidate = "candidate:1 1 UDP 2130706431 203.0.113.7 40000 typ host";
    tell(&mut bed, At::a(id), &[candidate]);
    let leg = &bed.describe(id).legs[0];
    assert_eq!((leg.remote.as_ref(), leg.remote_is_lite), (Some(&parameters()), false));
    assert_eq!(leg.remote_candidates, [("audio".to_owned(), candidate.parse().unwrap())]);
}

#[test]
fn what_userspace_has_relayed_is_told_by_leg() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    bed.arrives(At::a(id), REMOTE, MEDIA);
    bed.arrives(At::a(id), REMOTE, b"\x80");
    bed.arrives(At::b(id), PLAIN, MEDIA);
    bed.arrives(At::b(id), "9.9.9.9:9", MEDIA);
    bed.relays_fast(At::a(id), 7);
    let counts = bed.path(At::a(id)).counts;
    assert_eq!(counts.all, [amount(9, 49), amount(1, 6)]);
    assert_eq!(counts.forwarded, [amount(7, 42), amount(0, 0)]);
}

#[test]
fn what_streams_have_carried_that_are_gone_stays_in_the_totals() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    bed.arrives(At::a(id), REMOTE, MEDIA);
    bed.relays_fast(At::b(id), 7);
    let totals = bed.describe(id).totals;
    assert_eq!(totals.all, [amount(1, 6), amount(7, 42)]);
    bed.sessions.remove_stream(id, "audio");
    bed.drain();
    let info = bed.describe(id);
    assert_eq!((info.streams.len(), info.totals), (0, totals));
    bed.close(id);
    assert_eq!(bed.ended[0].0.totals, totals);
}

#[test]
fn two_sessions_are_told_apart() {
    let mut bed = Bed::default();
    let (one, _) = bed.connected();
    let (other, _) = bed.waiting();
    assert_eq!([one, other].map(|id| bed.state(id)), [SessionState::Connected, SessionState::New]);
    assert_ne!(bed.local(At::a(one)), bed.local(At::a(other)));
    assert_ne!(bed.path(At::a(one)).path, bed.path(At::a(other)).path);
    let ufrags = [one, other].map(|id| bed.describe(id).legs[0].parameters.clone().unwrap().ufrag);
    assert_ne!(ufrags[0], ufrags[1]);
    assert_eq!(Side::BOTH.map(Side::label), ["a", "b"]);
}

#[test]
fn how_long_a_session_may_be_idle_is_told_as_it_holds() {
    let mut bed = Bed::default();
    for (legs, idle) in [([STRICT, STRICT], Terms::default().timeouts.idle), ([ICE, STRICT], None)] {
        let mut request = request(legs);
        request.terms.timeouts.idle = None;
        let id = bed.create(request).unwrap();
        assert_eq!(bed.describe(id).terms.timeouts.idle, idle, "where nobody is asked for consent, there is an end");
    }
}
