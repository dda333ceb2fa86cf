//! Paths of media sessions in the table of flows.

use std::net::SocketAddr;

use hairpin_common::maps::{MEDIA, MEDIA_TO_PEER, NEXT_HOP_CAPACITY, PEER_IS_RELAYED};
use hairpin_proto::turn::RelayAddress;

use super::super::flow::tests::{crossed, flow4, flow6, media, scopes};
use super::super::flow::{Flow, Scope};
use super::tests::{Lab, NOW};
use super::{GRACE, InsertError, record};

/// The gateway of the lab's clients and peers.
const GATEWAY: &str = "192.0.2.254";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The path of the lab, with another remote on the client's leg.
fn moved_client() -> Flow {
    Flow { client: addr("192.0.2.11:40001"), ..media(flow4()) }
}

/// The same on the peer's leg.
fn moved_peer() -> Flow {
    Flow { scope: Scope::Media { peer: addr("198.51.100.8:6001") }, ..media(flow4()) }
}

/// A lab in which these are known, too.
fn lab() -> Lab {
    let mut lab = Lab::new();
    for flow in [moved_client(), moved_peer()] {
        lab.rib().route_to(flow.client.ip(), 2, GATEWAY);
        lab.rib().route_to(flow.peer().unwrap(), 2, GATEWAY);
    }
    lab
}

#[test]
fn a_path_is_two_records_and_rests_on_no_other_flow() {
    for flow in [flow4(), flow6(), crossed(flow4(), flow6()), crossed(flow6(), flow4())].map(media) {
        let mut lab = Lab::new();
        lab.install(flow, NOW + 100).unwrap();
        let found: Vec<_> =
            lab.records(flow).iter().map(|record| (record.expires, record.next_hop, record.flags)).collect();
        assert_eq!(found, [(NOW + 100, 1, MEDIA | MEDIA_TO_PEER), (NOW + 100, 1, MEDIA)], "{flow:?}");
        assert!(lab.is_complete(flow));
        lab.install(flow, NOW + 200).unwrap();
        assert!(lab.records(flow).iter().all(|record| record.expires == NOW + 200) && lab.maps.removals.is_empty());
        lab.remove(flow);
        assert_eq!(lab.count(), (0, 0));
        assert!(lab.table.is_empty() && lab.table.next_hops().is_idle());
    }
}

#[test]
fn a_path_whose_time_is_over_is_swept() {
    let mut lab = Lab::new();
    lab.install(media(flow4()), NOW + 10).unwrap();
    lab.table.sweep(NOW + 10 + GRACE, &mut lab.maps);
    assert!(lab.table.is_empty() && lab.maps.records.is_empty());
}

#[test]
fn when_a_remote_becomes_another_one_the_other_leg_s_record_is_there_all_the_time() {
    for (new, kept) in [(moved_client(), 1), (moved_peer(), 0)] {
        let mut lab = lab();
        let old = media(flow4());
        lab.install(old, NOW + 100).unwrap();
        let before: Vec<_> = record::keys(&old).collect();
        let hops = lab.maps.next_hop_writes.len();
        lab.install(new, NOW + 100).unwrap();
        assert_eq!(lab.count(), (1, 2), "the old one has ended");
        assert_eq!(lab.maps.removals, [before[1 - kept]], "one leg's old remote only");
        assert_eq!(lab.maps.next_hop_writes.len(), hops, "the way that both need was always there");
        let after = lab.records(new);
        lab.remove(old);
        assert_eq!((lab.records(new), lab.maps.removals.len()), (after.clone(), 1), "what is the new one's stays");
        let sent: Vec<_> = after.iter().map(|record| (&record.destination[..4], record.destination_port)).collect();
        let to = |address: SocketAddr| address.port().to_be_bytes();
        let Scope::Media { peer } = new.scope else { panic!("a path") };
        let expected = [(record::octets(peer.ip()), to(peer)), (record::octets(new.client.ip()), to(new.client))];
        assert_eq!(sent, expected.each_ref().map(|(ip, port)| (&ip[..4], *port)));
        lab.remove(new);
        assert!(lab.table.is_empty() && lab.maps.records.is_empty() && lab.table.next_hops().is_idle());
    }
}

#[test]
fn what_comes_between_two_remotes_keeps_its_own_records() {
    // Both remotes change, one after the other, and one of the three is removed late.
    let mut lab = lab();
    let Scope::Media { peer } = moved_peer().scope else { panic!("a path") };
    let third = Flow { scope: Scope::Media { peer }, ..moved_client() };
    for flow in [media(flow4()), moved_client(), third] {
        lab.install(flow, NOW + 100).unwrap();
    }
    let records = lab.records(third);
    for flow in [media(flow4()), moved_client(), moved_peer()] {
        lab.remove(flow);
    }
    assert_eq!((lab.records(third), lab.count()), (records, (1, 2)));
    lab.table.sweep(NOW + 100 + GRACE, &mut lab.maps);
    assert!(lab.table.is_empty() && lab.table.next_hops().is_idle() && lab.table.expiries.is_empty());
}

#[test]
fn a_path_that_takes_a_key_of_each_of_two_others_ends_both() {
    let mut lab = lab();
    let first = media(flow4());
    let second =
        Flow { client: moved_client().client, relayed: addr("192.0.2.1:50002"), allocation: 4, ..moved_peer() };
    lab.install(first, NOW + 100).unwrap();
    lab.install(second, NOW + 100).unwrap();
    assert_eq!(lab.count(), (2, 4));
    lab.install(moved_client(), NOW + 100).unwrap();
    assert_eq!(lab.count(), (1, 2));
    lab.remove(first);
    lab.remove(second);
    assert_eq!(lab.count(), (1, 2));
    lab.remove(moved_client());
    assert!(lab.table.is_empty() && lab.maps.records.is_empty() && lab.table.next_hops().is_idle());
}

#[test]
fn a_new_remote_without_a_way_for_the_program_takes_both_records_out() {
    let mut lab = lab();
    lab.rib().routes.remove(&moved_client().client.ip());
    lab.install(media(flow4()), NOW + 100).unwrap();
    lab.install(moved_client(), NOW + 100).unwrap();
    assert_eq!(lab.count(), (0, 0), "nothing leads to the remote from before");
    lab.remove(media(flow4()));
    lab.rib().route_to(moved_client().client.ip(), 2, GATEWAY);
    lab.table.reroute(&mut lab.maps);
    assert_eq!(lab.count(), (1, 2));
    lab.remove(moved_client());
    assert!(lab.table.is_empty() && lab.table.next_hops().is_idle());
}

#[test]
fn a_full_map_has_room_for_a_new_remote() {
    let mut lab = lab();
    lab.maps.capacity = 2;
    lab.install(media(flow4()), NOW + 100).unwrap();
    lab.install(moved_client(), NOW + 100).expect("one key for another");
    assert_eq!(lab.count(), (1, 2));
    let other = Flow { allocation: 4, ..media(flow6()) };
    let refused = lab.install(other, NOW + 100);
    assert!(matches!(refused, Err(InsertError::MapFull)), "{refused:?}");
    lab.remove(moved_client());
    assert!(lab.table.is_empty() && lab.table.next_hops().is_idle());
}

#[test]
fn where_all_next_hops_are_taken_a_new_remote_gets_that_of_the_old_one() {
    let mut lab = lab();
    lab.maps.capacity = 10_000;
    let behind = |number: u32| format!("10.{}.{}.{}", number >> 16, number >> 8 & 0xff, number & 0xff);
    lab.rib().route_to(media(flow4()).client.ip(), 2, &behind(1));
    lab.rib().route_to(moved_client().client.ip(), 2, &behind(2));
    lab.install(media(flow4()), NOW + 100).unwrap();
    // Two are in use, of the old client and the peer, and place 0 is never given.
    for number in 3..NEXT_HOP_CAPACITY {
        let peer = format!("172.16.{}.{}", number >> 8, number & 0xff).parse().unwrap();
        lab.rib().route_to(peer, 2, &behind(number));
        let [_, permission, _] = scopes(flow4());
        let client = Flow { client: addr("192.0.2.13:1"), scope: Scope::Permission { peer }, ..permission };
        lab.rib().route_to(client.client.ip(), 2, GATEWAY);
        lab.install(client, NOW + 100).unwrap();
    }
    lab.install(moved_client(), NOW + 100).expect("the old one's is free then");
    assert_eq!(lab.records(moved_client()).len(), 2);
    lab.rib().route_to(addr("192.0.2.14:1").ip(), 2, &behind(0xff_ffff));
    let [server, relayed] = ["192.0.2.1:50009", "192.0.2.1:50010"].map(addr);
    let one_more = Flow { client: addr("192.0.2.14:1"), server, relayed, ..media(flow4()) };
    let refused = lab.install(one_more, NOW + 100);
    assert!(matches!(refused, Err(InsertError::NextHopsFull)), "{refused:?}");
}

#[test]
fn a_peer_at_a_relayed_address_needs_no_way_and_may_be_behind_a_nat() {
    for (peer, destination) in [("192.0.2.1:50002", [192, 0, 2, 1]), ("192.0.2.9:50002", [10, 0, 0, 1])] {
        let mut lab = Lab::new();
        let flow = Flow { scope: Scope::Media { peer: addr(peer) }, ..flow4() };
        lab.install(flow, NOW + 100).unwrap();
        let [there, back] = lab.records(flow)[..] else { panic!("two records") };
        assert_eq!((there.next_hop, there.flags), (0, PEER_IS_RELAYED | MEDIA | MEDIA_TO_PEER));
        assert_eq!((back.next_hop, back.flags), (1, PEER_IS_RELAYED | MEDIA));
        assert_eq!((&there.destination[..4], there.peer_next_hop), (&destination[..], 0));
        lab.remove(flow);
        assert!(lab.table.is_empty() && lab.table.next_hops().is_idle());
    }
}

#[test]
fn a_client_at_a_relayed_address_is_left_to_userspace_until_it_is_there_no_more() {
    let mut lab = lab();
    let behind_nat = RelayAddress { bind: [10, 0, 0, 1].into(), public: moved_client().client.ip() };
    let own = |address: &str| RelayAddress::from(addr(address).ip());
    let without = [own("192.0.2.1:0")];
    lab.install(moved_client(), NOW + 100).unwrap();
    assert_eq!(lab.count(), (1, 2));
    for with in [own("192.0.2.11:0"), behind_nat] {
        lab.table.set_relay_addresses(&[without[0], with], &mut lab.maps);
        assert_eq!(lab.count(), (0, 0), "it would take a third look-up");
        lab.install(moved_client(), NOW + 100).unwrap();
        assert_eq!(lab.count(), (0, 0));
        lab.table.set_relay_addresses(&without, &mut lab.maps);
        lab.install(moved_client(), NOW + 100).unwrap();
        assert_eq!(lab.count(), (1, 2));
    }
    lab.remove(moved_client());
    assert!(lab.table.is_empty() && lab.table.next_hops().is_idle());
}
