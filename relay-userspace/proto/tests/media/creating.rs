//! Sessions, streams and their sockets: how many there may be, and what is left of what could not be.

use std::net::SocketAddr;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::media::{Choice, CloseReason, OpenError, PathId, Request, Sessions, StreamRequest};

use crate::harness::{
    At, Bed, ICE, LATCHING, PUBLIC_V4, RELAY_V4, RELAY_V6, STRICT, Seeded, request, settings, socket,
};

/// Two streams of two components each, of both families: 16 sockets.
fn large() -> Request {
    let streams = ["audio", "video"].map(|name| StreamRequest { name: name.to_owned(), components: 2 });
    Request { streams: streams.to_vec(), choice: Choice::default(), ..request([ICE, LATCHING]) }
}

#[test]
fn each_end_has_a_socket_of_its_own_within_the_range() {
    let mut bed = Bed::default();
    let id = bed.create(large()).unwrap();
    assert_eq!(bed.ports.open.len(), 16);
    assert!(bed.ports.open.values().all(|open| (40_000..=49_999).contains(&open.port())));
    assert_eq!(bed.ports.open.values().filter(|open| open.ip().to_string() == RELAY_V4).count(), 8, "as bound");
    for path in 0..4 {
        for at in [At::a(id), At::b(id)] {
            let [v6, v4] = [0, 1].map(|base| bed.local(At { path, base, ..at }));
            assert_eq!((v6.ip().to_string(), v4.ip().to_string()), (RELAY_V6.to_owned(), PUBLIC_V4.to_owned()));
        }
    }
}

#[test]
fn two_components_are_neighbours_and_the_first_is_even() {
    let mut bed = Bed::with(|settings| settings.ports = vec![40_001..=40_099]);
    for _ in 0..3 {
        let id = bed.create(large()).unwrap();
        for (path, base) in [(0, 0), (0, 1), (2, 0), (2, 1)] {
            for at in [At::a(id), At::b(id)] {
                let [rtp, rtcp] = [0, 1].map(|offset| bed.local(At { path: path + offset, base, ..at }).port());
                assert_eq!((rtp % 2, rtcp), (0, rtp + 1));
            }
        }
    }
}

#[test]
fn one_component_may_have_every_port_of_the_range_and_no_other() {
    let mut bed = Bed::with(|settings| settings.ports = vec![40_001..=40_004]);
    let ids = [(); 2].map(|()| bed.session([ICE, STRICT]));
    let mut ports: Vec<_> = bed.ports.open.values().map(SocketAddr::port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [40_001, 40_002, 40_003, 40_004]);
    assert_eq!(bed.create(request([ICE, STRICT])), Err(OpenError::NoPort));
    bed.close(ids[0]);
    bed.session([ICE, STRICT]);
}

#[test]
fn ports_of_several_ranges_are_all_had_and_none_between_them() {
    let mut bed = Bed::with(|settings| settings.ports = vec![40_001..=40_002, 40_005..=40_005, 40_009..=40_009]);
    for _ in 0..2 {
        bed.session([ICE, STRICT]);
    }
    let mut ports: Vec<_> = bed.ports.open.values().map(SocketAddr::port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [40_001, 40_002, 40_005, 40_009]);
    assert_eq!(bed.create(request([ICE, STRICT])), Err(OpenError::NoPort));
    let mut none = Bed::with(|settings| settings.ports = Vec::new());
    assert_eq!(none.create(request([ICE, STRICT])), Err(OpenError::NoPort));
}

#[test]
fn a_range_without_a_pair_has_no_room_for_two_components() {
    for range in [40_001..=40_001, 40_000..=40_000, 40_001..=40_002, 65_535..=65_535] {
        let mut bed = Bed::with(|settings| settings.ports = vec![range.clone()]);
        let mut pair = request([ICE, STRICT]);
        pair.streams[0].components = 2;
        assert_eq!(bed.create(pair), Err(OpenError::NoPort), "{range:?}");
        assert_eq!(bed.ports.tried, [], "{range:?}: there is nothing to try");
    }
    let mut bed = Bed::with(|settings| settings.ports = vec![65_531..=65_535]);
    let mut pair = request([ICE, STRICT]);
    pair.streams[0].components = 2;
    let id = bed.create(pair).unwrap();
    let mut first = [At::a(id), At::b(id)].map(|at| bed.local(at).port());
    first.sort_unstable();
    assert_eq!(first, [65_532, 65_534]);
}

#[test]
fn a_port_that_is_in_use_is_passed_over() {
    let mut bed = Bed::with(|settings| settings.ports = vec![40_000..=40_003]);
    bed.ports.taken = [40_000, 40_001, 40_003].into();
    assert_eq!(bed.create(request([ICE, STRICT])), Err(OpenError::NoPort), "one is free, and two are needed");
    bed.ports.taken.remove(&40_000);
    bed.session([ICE, STRICT]);
    assert!(bed.ports.tried.iter().any(|(_, opened)| !opened));
}

#[test]
fn names_of_sockets_stay_low_however_often_there_is_none() {
    let mut bed = Bed::with(|settings| settings.ports = vec![40_000..=40_003]);
    bed.ports.taken = [40_000, 40_001, 40_002].into();
    for _ in 0..20 {
        assert_eq!(bed.create(request([ICE, STRICT])), Err(OpenError::NoPort));
    }
    bed.ports.taken.clear();
    bed.session([ICE, STRICT]);
    for _ in 0..20 {
        let id = bed.sessions.ids(hairpin_proto::media::SessionId(0)).next().unwrap();
        bed.close(id);
        bed.session([ICE, STRICT]);
    }
    // One that was opened and closed in vain may still rest.
    assert!(bed.ports.open.keys().all(|port| port.0 < 4), "{:?}", bed.ports.open);
}

#[test]
fn when_the_neighbour_is_in_use_another_pair_is_tried_and_nothing_is_left_open() {
    for seed in 0..20 {
        let mut bed = Bed::with(|settings| settings.ports = vec![40_000..=40_015]);
        bed.ports.taken = [40_001, 40_005, 40_009, 40_013].into();
        for _ in 0..seed {
            // The dice fall otherwise.
            let id = bed.session([ICE, STRICT]);
            bed.close(id);
        }
        let mut pair = request([ICE, STRICT]);
        pair.streams[0].components = 2;
        let id = bed.create(pair).unwrap();
        let firsts = [At::a(id), At::b(id)].map(|at| bed.local(at).port());
        assert!(firsts.iter().all(|first| [40_002, 40_006, 40_010, 40_014].contains(first)), "{firsts:?}");
        assert_eq!(bed.ports.open.len(), 4);
        bed.close(id);
        assert!(bed.ports.open.is_empty());
    }
}

#[test]
fn a_socket_that_is_about_to_be_closed_keeps_its_name_until_it_is() {
    let mut bed = Bed::default();
    let mut request = request([ICE, STRICT]);
    request.streams.push(StreamRequest { name: "video".to_owned(), components: 2 });
    let id = bed.create(request).unwrap();
    // As when an answer takes one stream out and another one in, before the driver has done anything about it: it would
    // close what it has just opened.
    bed.sessions.remove_stream(id, "video");
    bed.add_stream(id, "other", 2).unwrap();
    assert_eq!(bed.ports.open.len(), 6);
    let late = bed.arrives(At { path: 1, ..At::a(id) }, "9.9.9.9:9", b"media");
    assert_eq!(late, crate::harness::Got::Dropped(hairpin_proto::media::Discard::UnknownRemote));
}

#[test]
fn there_are_no_more_sessions_than_there_may_be() {
    let mut bed = Bed::with(|settings| settings.max_sessions = 2);
    let first = bed.session([ICE, STRICT]);
    let second = bed.session([ICE, STRICT]);
    assert_eq!(bed.create(request([ICE, STRICT])), Err(OpenError::TooMany));
    assert_eq!((bed.sessions.len(), bed.sessions.created()), (2, 2));
    bed.close(first);
    let third = bed.session([ICE, STRICT]);
    assert!(third > second && second > first, "no name is used twice");
}

#[test]
fn there_are_no_more_paths_than_there_may_be_and_their_numbers_stay_low() {
    let mut bed = Bed::with(|settings| settings.max_paths = 4);
    let first = bed.create(large()).unwrap();
    assert_eq!(bed.create(request([ICE, STRICT])), Err(OpenError::TooManyPaths));
    assert_eq!(bed.add_stream(first, "more", 1), Err(OpenError::TooManyPaths));
    bed.close(first);
    let ids = [(); 3].map(|()| bed.session([ICE, STRICT]));
    let mut pair = request([ICE, STRICT]);
    pair.streams[0].components = 2;
    assert_eq!(bed.create(pair), Err(OpenError::TooManyPaths), "there is room for one component");
    bed.session([ICE, STRICT]);
    assert_eq!(bed.paths.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3].map(PathId));
    bed.close(ids[1]);
    bed.session([ICE, STRICT]);
}

#[test]
fn of_a_session_that_fails_nothing_is_left_however_far_it_came() {
    for left in 0..16 {
        let mut bed = Bed::default();
        let stays = bed.session([ICE, STRICT]);
        let before = (bed.describe(stays), bed.ports.open.clone(), bed.sessions.poll_timeout());
        bed.ports.left = Some(left);
        assert_eq!(bed.create(large()), Err(OpenError::NoSocket), "with {left} sockets");
        assert_eq!((bed.describe(stays), bed.ports.open.clone(), bed.sessions.poll_timeout()), before);
        assert_eq!((bed.sessions.len(), bed.sessions.created()), (1, 1));
        assert_eq!(bed.ended, [], "nobody is told of it");
        bed.ports.left = Some(16);
        let id = bed.create(large()).unwrap();
        assert!(id > stays, "its number is not another's");
        assert_eq!(bed.sessions.created(), 2);
        bed.close(id);
        bed.close(stays);
        assert!(bed.ports.open.is_empty() && bed.paths.is_empty());
    }
}

#[test]
fn one_address_that_is_missing_is_no_socket() {
    for missing in [RELAY_V4, RELAY_V6] {
        let mut bed = Bed::default();
        bed.ports.broken.insert(missing.parse().unwrap());
        assert_eq!(bed.create(large()), Err(OpenError::NoSocket));
        assert!(bed.sessions.is_empty() && bed.ports.open.is_empty());
        let families = vec![if missing == RELAY_V4 { AddressFamily::V6 } else { AddressFamily::V4 }];
        assert!(bed.create(Request { choice: families.into(), ..large() }).is_ok(), "the other one still is");
    }
}

#[test]
fn a_family_that_the_relay_does_not_have_is_no_address() {
    let mut bed = Bed::with(|settings| settings.relay_addresses.truncate(1));
    let v6 = Request { choice: vec![AddressFamily::V6].into(), ..large() };
    assert_eq!(bed.create(v6), Err(OpenError::NoAddress));
    let both = Request { choice: vec![AddressFamily::V6, AddressFamily::V4].into(), ..large() };
    let id = bed.create(both).unwrap();
    assert_eq!(bed.path(At::a(id)).ends[0].locals.len(), 1, "of two, those that there are");
    let mut none = settings();
    none.relay_addresses.clear();
    assert_eq!(Bed::new(none).create(large()), Err(OpenError::NoAddress));
}

#[test]
fn a_stream_is_added_whole_or_not_at_all() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, STRICT]);
    let before = bed.describe(id);
    for left in 0..4 {
        bed.ports.left = Some(left);
        assert_eq!(bed.add_stream(id, "video", 2), Err(OpenError::NoSocket));
        assert_eq!(bed.describe(id), before);
    }
    bed.ports.left = None;
    bed.add_stream(id, "video", 2).unwrap();
    let info = bed.describe(id);
    assert_eq!(
        info.streams.iter().map(|stream| (stream.name.as_str(), stream.paths.len())).collect::<Vec<_>>(),
        [("audio", 1), ("video", 2)]
    );
    assert_eq!(info.streams[1].paths[0].ends[0].locals.len(), 1, "of the families that the session has");
    bed.close(id);
    assert_eq!(bed.add_stream(id, "video", 2), Err(OpenError::NoSession));
}

#[test]
fn no_two_streams_of_a_session_have_the_same_name() {
    let mut bed = Bed::default();
    let mut twice = large();
    twice.streams[1].name = twice.streams[0].name.clone();
    assert_eq!(bed.create(twice), Err(OpenError::SameName));
    let id = bed.session([ICE, STRICT]);
    assert_eq!(bed.add_stream(id, "audio", 2), Err(OpenError::SameName));
    assert_eq!(bed.paths.len(), 1);
}

#[test]
fn what_is_taken_out_of_a_session_is_closed_with_its_flow() {
    let mut bed = Bed::default();
    let mut request = request([STRICT, STRICT]);
    request.streams[0].components = 2;
    let id = bed.create(request).unwrap();
    bed.add_stream(id, "video", 1).unwrap();
    let told = |stream: &str, component, address: &str| hairpin_proto::media::PlainAddress {
        stream: Some(stream.to_owned()),
        component,
        address: socket(address),
    };
    for at in [At::a(id), At::b(id)] {
        let addresses =
            vec![told("audio", 1, "9.9.9.9:1"), told("audio", 2, "9.9.9.9:2"), told("video", 1, "9.9.9.9:3")];
        bed.remote(at, hairpin_proto::media::Remote::Plain { addresses, latch: false, is_hint: false }).unwrap();
    }
    assert_eq!(bed.flows.len(), 3);
    bed.sessions.remove_rtcp(id, "audio");
    bed.drain();
    assert_eq!((bed.flows.len(), bed.ports.open.len(), bed.paths.len()), (2, 4, 2));
    bed.sessions.remove_stream(id, "video");
    bed.drain();
    assert_eq!((bed.flows.len(), bed.ports.open.len(), bed.paths.len()), (1, 2, 1));
    for nothing in ["video", "text"] {
        bed.sessions.remove_stream(id, nothing);
        bed.sessions.remove_rtcp(id, nothing);
    }
    bed.sessions.remove_rtcp(id, "audio");
    assert_eq!(bed.drain(), []);
    bed.close(id);
    assert_eq!(bed.ended.last().map(|(_, reason)| *reason), Some(CloseReason::Deleted));
    assert!(bed.flows.is_empty() && bed.ports.open.is_empty() && bed.paths.is_empty());
}

#[test]
fn a_session_has_so_many_streams_and_no_more() {
    let streams = |count| {
        (0..count).map(|number| StreamRequest { name: format!("s{number}"), components: 1 }).collect::<Vec<_>>()
    };
    let mut bed = Bed::with(|settings| settings.max_paths = 64);
    let many = Request { streams: streams(17), ..request([ICE, STRICT]) };
    assert_eq!(bed.create(many), Err(OpenError::TooManyStreams));
    let id = bed.create(Request { streams: streams(16), ..request([ICE, STRICT]) }).unwrap();
    assert_eq!(bed.add_stream(id, "more", 1), Err(OpenError::TooManyStreams));
    bed.sessions.remove_stream(id, "s3");
    bed.drain();
    bed.add_stream(id, "more", 1).unwrap();
}

#[test]
fn a_relay_that_was_started_again_has_sessions_of_other_names() {
    let first = |seed| {
        let sessions = Sessions::new(settings(), Box::new(Seeded(seed)), Box::new(|_| Default::default()));
        Bed { sessions, ..Bed::default() }.session([ICE, STRICT])
    };
    assert_ne!(first(0x5eed_5eed_5eed), first(0xfeed_feed_feed));
}

#[test]
fn sessions_are_found_by_the_addresses_that_they_are_bound_to() {
    let mut bed = Bed::default();
    let [v4, v6, public] = [RELAY_V4, RELAY_V6, PUBLIC_V4].map(|ip| ip.parse().unwrap());
    let one = bed.session([ICE, STRICT]);
    let both = bed.create(large()).unwrap();
    assert_eq!([v4, v6, public].map(|ip| bed.sessions.on(ip)), [2, 1, 0], "the public one is of the NAT");
    assert_eq!([one, both].map(|id| bed.sessions.is_on(id, &|ip| ip == v6)), [false, true]);
    bed.close(both);
    assert_eq!([v4, v6].map(|ip| bed.sessions.on(ip)), [1, 0]);
}
