//! Remotes without ICE that are where they were said to be.

use hairpin_proto::media::{
    Discard, Event, LegKind, LegState, PlainAddress, Remote, RemoteError, SessionId, SessionState, Side,
};

use crate::harness::{At, Bed, Got, ICE, MEDIA, PLAIN, REMOTE, STRICT, request, socket};

fn told(stream: Option<&str>, component: u16, address: &str) -> PlainAddress {
    PlainAddress { stream: stream.map(str::to_owned), component, address: socket(address) }
}

fn at(addresses: Vec<PlainAddress>) -> Remote {
    Remote::Plain { addresses, latch: false, is_hint: false }
}

#[test]
fn media_is_taken_from_exactly_there() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    for source in ["8.8.8.8:4001", "8.8.8.9:4000", REMOTE, "[2001:db8:8::8]:4000"] {
        assert_eq!(bed.arrives(At::b(id), source, MEDIA), Got::Dropped(Discard::UnknownRemote), "{source}");
    }
}

#[test]
fn two_legs_without_ice_are_joined_as_soon_as_both_are_told() {
    let mut bed = Bed::default();
    let id = bed.session([STRICT, STRICT]);
    bed.plain(At::a(id), "9.9.9.9:9", false).unwrap();
    assert_eq!(bed.arrives(At::a(id), "9.9.9.9:9", MEDIA), Got::Dropped(Discard::NoRemote));
    assert_eq!(bed.state(id), SessionState::New);
    bed.plain(At::b(id), PLAIN, false).unwrap();
    assert_eq!(bed.arrives(At::a(id), "9.9.9.9:9", MEDIA).target(), Some(socket(PLAIN)));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("9.9.9.9:9")));
    assert_eq!(bed.state(id), SessionState::Connected);
    assert_eq!(bed.happened, [(Event::Nominated, Side::A), (Event::Nominated, Side::B)]);
}

#[test]
fn when_another_address_is_said_media_goes_there() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    bed.plain(At::b(id), "8.8.4.4:4000", false).unwrap();
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket("8.8.4.4:4000")));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA), Got::Dropped(Discard::UnknownRemote));
    assert_eq!(bed.happened.last(), Some(&(Event::Moved, Side::B)));
    let events = bed.happened.len();
    bed.plain(At::b(id), "8.8.4.4:4000", false).unwrap();
    assert_eq!(bed.happened.len(), events, "the same once more is nothing new");
}

fn with_video(bed: &mut Bed) -> SessionId {
    let mut request = request([STRICT, STRICT]);
    request.streams[0].components = 2;
    let id = bed.create(request).unwrap();
    bed.add_stream(id, "video", 1).unwrap();
    id
}

#[test]
fn streams_and_components_are_told_by_name_and_number() {
    let mut bed = Bed::default();
    let id = with_video(&mut bed);
    let addresses =
        vec![told(None, 1, "9.9.9.9:1"), told(Some("audio"), 2, "9.9.9.9:2"), told(Some("video"), 1, "9.9.9.9:3")];
    bed.remote(At::a(id), at(addresses)).unwrap();
    let selected = |bed: &Bed, path| bed.path(At { path, ..At::a(id) }).ends[0].selected.map(|at| at.remote.port());
    assert_eq!([0, 1, 2].map(|path| selected(&bed, path)), [Some(1), Some(2), Some(3)]);
    bed.remote(At::a(id), at(vec![told(Some("video"), 1, "9.9.9.9:4")])).unwrap();
    assert_eq!([0, 1, 2].map(|path| selected(&bed, path)), [None, None, Some(4)], "of the others nothing is said");
}

#[test]
fn what_cannot_be_is_refused_and_everything_stays() {
    let mut bed = Bed::default();
    let id = with_video(&mut bed);
    let good = || told(None, 1, "9.9.9.9:1");
    bed.remote(At::a(id), at(vec![good()])).unwrap();
    let mut refused = |address: PlainAddress| bed.remote(At::a(id), at(vec![good(), address])).unwrap_err();
    assert_eq!(refused(told(Some("text"), 1, PLAIN)), RemoteError::NoStream("text".to_owned()));
    assert_eq!(refused(told(Some("video"), 2, PLAIN)), RemoteError::NoComponent("video".to_owned(), 2));
    assert_eq!(refused(told(None, 3, PLAIN)), RemoteError::NoComponent("audio".to_owned(), 3));
    assert_eq!(refused(told(None, 0, PLAIN)), RemoteError::NoComponent("audio".to_owned(), 0));
    let v6 = "[2001:db8:8::8]:4000";
    assert_eq!(refused(told(None, 2, v6)), RemoteError::NoFamily(socket(v6)));
    for forbidden in ["10.0.0.1:4000", "127.0.0.1:4000", "192.0.2.15:4000"] {
        assert_eq!(refused(told(None, 2, forbidden)), RemoteError::Forbidden(socket(forbidden)));
    }
    assert_eq!(bed.path(At::a(id)).ends[0].selected.map(|at| at.remote), Some(socket("9.9.9.9:1")));
    bed.close(id);
    let nobody = bed.sessions.set_remote(bed.now.instant, id, Side::A, at(Vec::new()));
    assert_eq!(nobody, Err(RemoteError::NoSession));
}

#[test]
fn a_leg_may_become_plain_and_take_no_checks_any_more() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    crate::agent::tell(&mut bed, At::a(id), &["candidate:1 1 UDP 5 9.9.9.9 1 typ host"]);
    bed.plain(At::a(id), "9.9.9.9:1", false).unwrap();
    let info = bed.describe(id);
    assert_eq!((info.legs[0].kind, &info.legs[0].parameters), (STRICT, &None));
    assert_eq!((&info.legs[0].remote, info.legs[0].remote_candidates.len()), (&None, 0));
    assert_eq!(bed.arrives(At::a(id), REMOTE, &agent.check().bytes()), Got::Dropped(Discard::Stun));
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("9.9.9.9:1")));
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA), Got::Dropped(Discard::UnknownRemote));
    bed.pass_seconds(31);
    assert_eq!(bed.state(id), SessionState::Connected, "there is no consent that could end");
}

#[test]
fn a_plain_leg_may_turn_out_to_speak_ice() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, STRICT]);
    bed.plain(At::b(id), PLAIN, false).unwrap();
    crate::agent::tell(&mut bed, At::b(id), &[]);
    assert_eq!(bed.describe(id).legs[1].kind, LegKind::Ice);
    assert_eq!(bed.describe(id).legs[1].state, LegState::Waiting, "its old remote has proven nothing");
    let [a, b] = [At::a(id), At::b(id)].map(|at| bed.agent(at));
    bed.succeeds(At::a(id), REMOTE, &a.nomination());
    bed.succeeds(At::b(id), "10.0.0.9:9", &b.nomination());
    assert_eq!(bed.arrives(At::a(id), REMOTE, MEDIA).target(), Some(socket("10.0.0.9:9")));
}
