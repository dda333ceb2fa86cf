//! IPv4 and IPv6: a lite agent has one candidate of each address (RFC 8445 sections 5.1.1.3, 5.1.2 and 5.2).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::ice::{Candidate, CandidateKind, CandidateTransport};
use hairpin_proto::media::{Choice, Discard, OpenError, Request};
use hairpin_proto::turn::RelayAddress;

use crate::harness::{At, Bed, Got, ICE, MEDIA, PLAIN, RELAY_V6, REMOTE, STRICT, bound, request, socket};

const REMOTE_V6: &str = "[2001:db8:7::7]:40000";

fn dual(legs: [hairpin_proto::media::LegKind; 2]) -> Request {
    let mut request = Request { choice: Choice::default(), ..request(legs) };
    request.streams[0].components = 2;
    request
}

fn candidates(bed: &Bed, at: At) -> Vec<Candidate> {
    bed.path(at).ends[at.side as usize].candidates.clone()
}

#[test]
fn each_component_has_one_host_candidate_of_each_address() {
    let mut bed = Bed::default();
    let id = bed.create(dual([ICE, STRICT])).unwrap();
    for path in [0, 1] {
        let at = At { path, ..At::a(id) };
        let written: Vec<_> = candidates(&bed, at).iter().map(ToString::to_string).collect();
        let [v6, v4] = [0, 1].map(|base| bed.local(At { base, ..at }).port());
        let component = path + 1;
        // 126 << 24 | preference << 8 | 256 - component
        let [best, other] =
            [(126 << 24) + (65_535 << 8) + 256 - component, (126 << 24) + (65_534 << 8) + 256 - component];
        assert_eq!(
            written,
            [
                format!("candidate:1 {component} UDP {best} 2001:db8::15 {v6} typ host"),
                format!("candidate:2 {component} UDP {other} 198.51.100.15 {v4} typ host"),
            ]
        );
    }
}

#[test]
fn priorities_are_unique_and_foundations_are_those_of_the_addresses() {
    let mut bed = Bed::default();
    let id = bed.create(dual([ICE, ICE])).unwrap();
    for at in [At::a(id), At::b(id)] {
        let all: Vec<_> = [0, 1].into_iter().flat_map(|path| candidates(&bed, At { path, ..at })).collect();
        let priorities: BTreeSet<_> = all.iter().map(|candidate| candidate.priority).collect();
        assert_eq!((all.len(), priorities.len()), (4, 4), "RFC 8445 section 5.2");
        for [one, other] in all.iter().flat_map(|one| all.iter().map(move |other| [one, other])) {
            assert_eq!(one.foundation == other.foundation, one.address == other.address);
        }
        assert!(all.iter().all(|one| one.kind == CandidateKind::Host && one.transport == CandidateTransport::Udp));
        assert!(all.iter().all(|one| one.related.is_none()));
    }
}

#[test]
fn a_leg_has_addresses_of_the_families_that_were_asked_for() {
    for (families, v6, v4) in [
        (vec![AddressFamily::V4], 0, 1),
        (vec![AddressFamily::V6], 1, 0),
        (vec![AddressFamily::V4, AddressFamily::V6], 1, 1),
    ] {
        let mut bed = Bed::default();
        let id = bed.create(Request { choice: families.into(), ..request([ICE, STRICT]) }).unwrap();
        let locals = &bed.path(At::a(id)).ends[0].locals;
        let count = |is_v6| locals.iter().filter(|local| local.is_ipv6() == is_v6).count();
        assert_eq!((count(true), count(false)), (v6, v4));
        assert_eq!(candidates(&bed, At::a(id))[0].priority >> 8 & 0xffff, 65_535, "RFC 8445 section 5.1.2.1");
    }
}

#[test]
fn a_leg_has_the_addresses_that_were_asked_for() {
    let other = ["192.0.2.16", "203.0.113.16"].map(|ip| ip.parse().unwrap());
    let mut bed = Bed::with(|settings| {
        let [bind, public] = other;
        settings.relay_addresses.push(RelayAddress { bind, public });
    });
    let choice = |addresses: &[&str]| Choice {
        families: Vec::new(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    let has = |bed: &Bed, id| -> Vec<_> { bed.path(At::a(id)).ends[0].locals.iter().map(SocketAddr::ip).collect() };
    for asked in [other[0].to_string(), other[1].to_string()] {
        let id = bed.create(Request { choice: choice(&[&asked]), ..request([ICE, STRICT]) }).unwrap();
        assert_eq!(has(&bed, id), [other[1]], "as it is bound, or as the world knows it");
        assert_eq!(candidates(&bed, At::a(id))[0].priority >> 8 & 0xffff, 65_535);
    }
    let two = Request { choice: choice(&["203.0.113.16", RELAY_V6]), ..request([ICE, STRICT]) };
    let id = bed.create(two.clone()).unwrap();
    assert_eq!(has(&bed, id), [RELAY_V6.parse().unwrap(), other[1]]);
    let of_one_family = Choice { families: vec![AddressFamily::V6], ..two.choice };
    let id = bed.create(Request { choice: of_one_family.clone(), ..request([ICE, STRICT]) }).unwrap();
    assert_eq!(has(&bed, id), [RELAY_V6.parse::<std::net::IpAddr>().unwrap()], "of those, the ones of the family");
    let none = Choice { addresses: vec![other[1]], ..of_one_family };
    assert_eq!(bed.create(Request { choice: none, ..request([ICE, STRICT]) }), Err(OpenError::NoAddress));

    let unknown = Request { choice: choice(&["203.0.113.16", "192.0.2.99"]), ..request([ICE, STRICT]) };
    let error = bed.create(unknown).unwrap_err();
    let OpenError::UnknownAddress { asked, has } = &error else { panic!("{error}") };
    assert_eq!(*asked, "192.0.2.99".parse::<std::net::IpAddr>().unwrap());
    assert!(has.contains("203.0.113.16") && !has.contains("192.0.2.16"), "what the world knows: {has}");
}

#[test]
fn media_crosses_from_one_family_to_the_other() {
    let mut bed = Bed::default();
    let id = bed.create(dual([ICE, STRICT])).unwrap();
    let [v6, v4] = [0, 1].map(|base| At { base, ..At::b(id) });
    bed.plain(At::b(id), PLAIN, false).unwrap();
    let agent = bed.agent(At::a(id));
    bed.succeeds(At::a(id), REMOTE_V6, &agent.nomination());
    let bytes = MEDIA.to_vec();
    assert_eq!(
        bed.arrives(At::a(id), REMOTE_V6, MEDIA),
        Got::Sent { from: bound(bed.local(v4)), to: socket(PLAIN), bytes: bytes.clone() }
    );
    assert_eq!(
        bed.arrives(v4, PLAIN, MEDIA),
        Got::Sent { from: bound(bed.local(At::a(id))), to: socket(REMOTE_V6), bytes }
    );
    assert_eq!(bed.arrives(v6, PLAIN, MEDIA), Got::Dropped(Discard::UnknownRemote), "it is another address of the leg");
    let (flow, _) = bed.flow().unwrap();
    assert_eq!((flow.server, flow.relayed), (bound(bed.local(At::a(id))), bound(bed.local(v4))));
}

#[test]
fn a_nomination_is_of_the_address_that_it_came_to() {
    let mut bed = Bed::default();
    let id = bed.create(dual([ICE, STRICT])).unwrap();
    bed.plain(At::b(id), PLAIN, false).unwrap();
    let agent = bed.agent(At::a(id));
    let [v6, v4] = [0, 1].map(|base| At { base, ..At::a(id) });
    bed.succeeds(v6, REMOTE_V6, &agent.nomination());
    bed.pass_seconds(3);
    bed.succeeds(v4, REMOTE, &agent.nomination());
    let got = bed.arrives(At { base: 1, ..At::b(id) }, PLAIN, MEDIA);
    assert_eq!(got, Got::Sent { from: bound(bed.local(v4)), to: socket(REMOTE), bytes: MEDIA.to_vec() });
    assert_eq!(bed.arrives(v6, REMOTE, MEDIA), Got::Dropped(Discard::UnknownRemote), "that address was not checked");
    assert_eq!(bed.path(At::a(id)).ends[0].selected.map(|selected| selected.local), Some(bed.local(v4)));
}

#[test]
fn with_equal_priorities_of_the_remote_the_better_address_of_the_leg_decides() {
    let mut bed = Bed::default();
    let id = bed.create(dual([ICE, STRICT])).unwrap();
    bed.plain(At::b(id), PLAIN, false).unwrap();
    let agent = bed.agent(At::a(id));
    // Aggressive, and the pair of IPv4 gets through first.
    bed.succeeds(At { base: 1, ..At::a(id) }, REMOTE, &agent.nomination());
    bed.succeeds(At::a(id), REMOTE_V6, &agent.nomination());
    let got = bed.arrives(At { base: 1, ..At::b(id) }, PLAIN, MEDIA);
    assert_eq!(got.target(), Some(socket(REMOTE_V6)));
}
