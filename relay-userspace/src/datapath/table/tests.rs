//! Flows in and out of the kernel: what is written, when, and what is not.

use std::net::IpAddr;

use hairpin_common::maps::{PEER_IS_RELAYED, Rewrite, crossing};

use super::super::flow::tests::{channel, crossed, flow4, flow6, scopes};
use super::super::maps::fake::FakeMaps;
use super::super::next_hop::rib::fake::FakeRib;
use super::*;

pub(super) const NOW: u32 = 1000;

/// A table and its maps, as one thread would use them.
pub(super) struct Lab {
    pub(super) table: FlowTable<FakeRib>,
    pub(super) maps: FakeMaps,
}

impl Lab {
    /// Clients and peers of `flow4` and `flow6` behind gateways on device 2. Relayed addresses are on theirs.
    pub(super) fn new() -> Self {
        let mut rib = FakeRib::new();
        for flow in [flow4(), flow6()] {
            for address in [flow.client.ip(), flow.peer().unwrap()] {
                rib.route_to(address, 2, "192.0.2.254");
            }
        }
        rib.learn(2, "192.0.2.254", 0xaa);
        rib.learn(4, "203.0.113.254", 0xbb);
        let behind_nat = RelayAddress { bind: [10, 0, 0, 1].into(), public: [192, 0, 2, 9].into() };
        let plain = [flow4(), flow6()].map(|flow| flow.relayed.ip()).map(|ip| RelayAddress { bind: ip, public: ip });
        let (mut relay_addresses, mut maps) = (RelayAddresses::default(), FakeMaps::default());
        relay_addresses.exchange(&[plain[0], plain[1], behind_nat], &mut maps);
        Self { table: FlowTable::new(NextHops::new(rib), relay_addresses), maps }
    }

    /// Installs as a shard and the writer do it.
    pub(super) fn install(&mut self, flow: Flow, expires: u32) -> Result<(), InsertError> {
        self.install_at(flow, expires, NOW)
    }

    fn install_at(&mut self, flow: Flow, expires: u32, now: u32) -> Result<(), InsertError> {
        let change = self.maps.state.announce(flow.allocation);
        self.table.install(Install { flow, expires, change }, now, &mut self.maps)
    }

    pub(super) fn remove(&mut self, flow: Flow) {
        self.table.remove(flow, &mut self.maps);
    }

    fn reset(&mut self, allocation: u32) {
        let change = self.maps.state.announce(allocation);
        self.maps.state.settle(allocation, change);
    }

    pub(super) fn is_complete(&self, flow: Flow) -> bool {
        self.maps.state.is_complete(flow.allocation)
    }

    pub(super) fn rib(&mut self) -> &mut FakeRib {
        self.table.next_hops().rib_mut()
    }

    /// The records of a flow that are there.
    pub(super) fn records(&self, flow: Flow) -> Vec<Rewrite> {
        record::keys(&flow).filter_map(|key| self.maps.records.get(&key).copied()).collect()
    }

    /// How many flows and records there are.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.table.resident(), self.maps.records.len())
    }
}

fn peer(flow: Flow) -> IpAddr {
    flow.peer().expect("a flow with a peer")
}

#[test]
fn a_channel_is_two_records_until_it_is_removed() {
    let mut lab = Lab::new();
    let flows = [flow4(), Flow { allocation: 4, ..flow6() }];
    for flow in flows {
        lab.install(flow, NOW + 100).unwrap();
        let found: Vec<_> = lab.records(flow).iter().map(|record| (record.expires, record.next_hop)).collect();
        assert_eq!(found, [(NOW + 100, 1); 2]);
    }
    assert_eq!(lab.count(), (2, 4));
    for flow in flows {
        lab.remove(flow);
    }
    assert_eq!(lab.count(), (0, 0));
    assert!(lab.table.is_empty() && lab.table.next_hops().is_idle());
}

#[test]
fn each_scope_comes_and_goes_on_its_own_for_all_pairs_of_families() {
    for flow in [flow4(), flow6(), crossed(flow4(), flow6()), crossed(flow6(), flow4())] {
        let mut lab = Lab::new();
        let counts = scopes(flow).map(|flow| {
            lab.install(flow, NOW + 100).unwrap();
            lab.records(flow).len()
        });
        assert_eq!((counts, lab.count()), ([2, 1, 2], (3, 5)), "{flow:?}");
        let [_, permission, _] = scopes(flow);
        let [data] = lab.records(permission)[..] else { panic!("one record") };
        assert_eq!((data.next_hop, data.peer_next_hop), (1, 1));
        for (left, flow) in [3, 2, 0].into_iter().zip(scopes(flow)) {
            lab.remove(flow);
            assert_eq!(lab.maps.records.len(), left, "after {flow:?}");
        }
        assert!(lab.table.is_empty() && lab.table.next_hops().is_idle());
    }
}

#[test]
fn a_peer_of_this_relay_needs_no_route() {
    let mut lab = Lab::new();
    let own = Flow { scope: channel("192.0.2.1:50002"), ..flow4() };
    for flow in scopes(own) {
        lab.install(flow, NOW + 100).unwrap();
    }
    assert_eq!(lab.count(), (3, 5));
    let [_, permission, channel] = scopes(own);
    let [data] = lab.records(permission)[..] else { panic!("one record") };
    assert_eq!((data.next_hop, data.peer_next_hop, data.flags), (1, 0, PEER_IS_RELAYED));
    let [to_peer, to_client] = lab.records(channel)[..] else { panic!("two records") };
    assert_eq!((to_peer.next_hop, to_peer.flags), (0, PEER_IS_RELAYED));
    assert_eq!((to_client.next_hop, to_client.flags), (1, PEER_IS_RELAYED));
    assert!(lab.is_complete(own));
    assert_eq!(lab.table.reroute(&mut lab.maps), 0);
    assert_eq!(lab.count(), (3, 5));
    for flow in scopes(own) {
        lab.remove(flow);
    }
    assert!(lab.table.is_empty() && lab.table.next_hops().is_idle());
}

#[test]
fn a_peer_of_this_relay_behind_a_nat_is_where_it_is_bound_and_the_program_is_told_how_to_get_there() {
    let mut lab = Lab::new();
    let own = Flow { scope: channel("192.0.2.9:50002"), ..flow4() };
    for flow in scopes(own) {
        lab.install(flow, NOW + 100).unwrap();
    }
    assert!(lab.is_complete(own));
    let [_, permission, channel] = scopes(own);
    let [data] = lab.records(permission)[..] else { panic!("one record") };
    assert_eq!((data.next_hop, data.peer_next_hop, data.flags), (1, crossing(1, 3), PEER_IS_RELAYED));
    let [to_peer, to_client] = lab.records(channel)[..] else { panic!("two records") };
    assert_eq!((to_peer.next_hop, to_peer.flags, &to_peer.destination[..4]), (0, PEER_IS_RELAYED, &[10, 0, 0, 1][..]));
    assert_eq!((to_client.next_hop, to_client.flags), (1, PEER_IS_RELAYED));
}

/// Relay addresses without a NAT.
fn plain(ips: &[&str]) -> Vec<RelayAddress> {
    ips.iter().map(|ip| RelayAddress::from(ip.parse::<IpAddr>().unwrap())).collect()
}

#[test]
fn flows_are_judged_again_when_a_peer_becomes_one_of_this_relay_s_and_when_it_is_no_more() {
    let mut lab = Lab::new();
    let flows = scopes(flow4());
    let other = Flow { allocation: 4, ..flow6() };
    for flow in flows.into_iter().chain([other]) {
        lab.install(flow, NOW + 100).unwrap();
    }
    let (before, of_the_other) = (flows.map(|flow| lab.records(flow)), lab.records(other));
    let peer = peer(flow4()).to_string();
    let [_, permission, channel] = flows;

    let behind_nat = RelayAddress { bind: [10, 0, 0, 1].into(), public: peer.parse().unwrap() };
    assert_eq!(lab.table.set_relay_addresses(&[plain(&["192.0.2.1"]), vec![behind_nat]].concat(), &mut lab.maps), 0);
    let [data] = lab.records(permission)[..] else { panic!("one record") };
    assert_eq!((data.next_hop, data.peer_next_hop, data.flags), (1, crossing(1, 4), PEER_IS_RELAYED));
    let [to_peer, to_client] = lab.records(channel)[..] else { panic!("two records") };
    let destination = &to_peer.destination[..4];
    assert_eq!((to_peer.next_hop, to_peer.flags, destination), (0, PEER_IS_RELAYED, &[10, 0, 0, 1][..]));
    assert_eq!((to_client.next_hop, to_client.flags), (1, PEER_IS_RELAYED));

    assert_eq!(lab.table.set_relay_addresses(&plain(&["192.0.2.1", &peer]), &mut lab.maps), 0);
    let [data] = lab.records(permission)[..] else { panic!("one record") };
    assert_eq!((data.peer_next_hop, data.flags), (0, PEER_IS_RELAYED), "under its own name");

    lab.table.set_relay_addresses(&plain(&["192.0.2.1"]), &mut lab.maps);
    assert_eq!(flows.map(|flow| lab.records(flow)), before);
    assert_eq!(lab.records(other), of_the_other);
    assert!(lab.is_complete(flow4()), "all of it was in the kernel all the time");
    assert!(!lab.maps.removed_while_complete);
    for flow in flows.into_iter().chain([other]) {
        lab.remove(flow);
    }
    assert!(lab.table.is_empty() && lab.maps.records.is_empty() && lab.table.next_hops().is_idle());
}

#[test]
fn a_peer_that_the_program_cannot_be_told_of_any_more_is_left_to_userspace_and_leaves_a_gap() {
    let mut lab = Lab::new();
    for flow in scopes(flow4()) {
        lab.install(flow, NOW + 100).unwrap();
    }
    let many = (0..255_u8).map(|last| RelayAddress { bind: [10, 1, 0, last].into(), public: [10, 2, 0, last].into() });
    let own = plain(&["192.0.2.1"]);
    let last = RelayAddress { bind: [10, 3, 0, 1].into(), public: peer(flow4()) };
    lab.table.set_relay_addresses(&own.iter().copied().chain(many).chain([last]).collect::<Vec<_>>(), &mut lab.maps);
    assert_eq!(lab.count(), (1, 2), "but for the relay itself");
    assert!(!lab.is_complete(flow4()) && !lab.maps.removed_while_complete);
    lab.table.set_relay_addresses(&own, &mut lab.maps);
    for flow in scopes(flow4()) {
        lab.install(flow, NOW + 100).unwrap();
    }
    assert_eq!(lab.count(), (3, 5));
    for flow in scopes(flow4()) {
        lab.remove(flow);
    }
    assert!(lab.table.is_empty() && lab.maps.records.is_empty() && lab.table.next_hops().is_idle());
}

#[test]
fn a_refresh_overwrites_both_records() {
    let mut lab = Lab::new();
    for expires in [NOW + 100, NOW + 200] {
        lab.install(flow4(), expires).unwrap();
        let found: Vec<_> = lab.maps.records.values().map(|record| record.expires).collect();
        assert_eq!(found, [expires; 2]);
    }
    assert!(lab.is_complete(flow4()));
}

#[test]
fn a_peer_bound_to_another_channel_keeps_its_new_record() {
    let mut lab = Lab::new();
    let old = flow4();
    let Scope::Channel { peer, .. } = old.scope else { panic!("a channel") };
    let new = Flow { scope: Scope::Channel { channel: 0x4002, peer }, ..old };
    lab.install(old, NOW + 100).unwrap();
    lab.install(new, NOW + 100).unwrap();
    assert!(lab.is_complete(new));
    lab.remove(old);
    assert_eq!(lab.count(), (1, 2));
    assert_eq!(lab.records(new)[1].channel, [0x40, 0x02]);
}

#[test]
fn who_is_vouched_for_has_a_record_of_no_allocation_until_it_ends() {
    let mut lab = Lab::new();
    let client = Flow::of_client(flow4().client, flow4().server);
    let [relay, ..] = scopes(flow4());
    lab.install(relay, NOW + 100).unwrap();
    for expires in [NOW + 10, NOW + 50] {
        lab.install(client, expires).unwrap();
        assert_eq!(lab.records(client).iter().map(|record| record.expires).collect::<Vec<_>>(), [expires]);
    }
    assert_eq!(lab.count(), (2, 3));
    lab.remove(client);
    assert_eq!((lab.count(), lab.is_complete(relay)), ((1, 2), true));
    lab.install(client, NOW + 10).unwrap();
    lab.table.sweep(NOW + 10 + GRACE, &mut lab.maps);
    assert_eq!(lab.count(), (1, 2));
}

/// The flows of an allocation whose client has moved.
fn moved(flows: &[Flow; 3]) -> [Flow; 3] {
    flows.map(|flow| Flow { client: "192.0.2.11:40001".parse().unwrap(), ..flow })
}

#[test]
fn a_client_that_moves_takes_its_flows_along_and_no_peer_is_a_stranger_meanwhile() {
    let mut lab = Lab::new();
    lab.rib().route_to("192.0.2.11".parse().unwrap(), 2, "192.0.2.254");
    let flows = scopes(flow4());
    for flow in flows {
        lab.install(flow, NOW + 100).unwrap();
    }
    let there = moved(&flows);
    for flow in there {
        lab.install(flow, NOW + 100).unwrap();
    }
    // They are handed over already: each of the new ones has a key of its old one.
    assert_eq!(lab.count(), (3, 5));
    for flow in flows {
        lab.remove(flow);
    }
    assert_eq!(lab.count(), (3, 5));
    let [kept, gone] = [1, 0].map(|at| record::keys(&flows[2]).nth(at).expect("two keys"));
    assert!(lab.maps.removals.contains(&gone) && !lab.maps.removals.contains(&kept), "it changes hands in place");
    assert!(!lab.maps.removed_while_complete, "a peer was a stranger for a moment");
    assert!(lab.is_complete(flow4()));
    let [_, permission, channel] = there;
    for record in [lab.records(permission)[0], lab.records(channel)[1]] {
        assert_eq!((&record.destination[..4], record.destination_port), (&[192, 0, 2, 11][..], [0x9c, 0x41]));
    }
    assert!(record::keys(&flows[2]).any(|key| !lab.maps.records.contains_key(&key)), "the old way in is closed");
    for flow in there {
        lab.remove(flow);
    }
    assert!(lab.table.is_empty() && lab.maps.records.is_empty() && lab.table.next_hops().is_idle());
}

#[test]
fn what_a_moved_client_does_not_take_along_ends_when_it_is_removed() {
    let mut lab = Lab::new();
    lab.rib().route_to("192.0.2.11".parse().unwrap(), 2, "192.0.2.254");
    let flows = scopes(flow4());
    for flow in flows {
        lab.install(flow, NOW + 100).unwrap();
    }
    let [relay, permission, _] = moved(&flows);
    for flow in [relay, permission] {
        lab.install(flow, NOW + 100).unwrap();
    }
    for flow in flows {
        lab.remove(flow);
    }
    assert_eq!(lab.count(), (2, 3));
}

#[test]
fn a_full_map_leaves_no_half_flow_and_loses_no_other() {
    let mut lab = Lab::new();
    lab.maps.capacity = 3;
    lab.install(flow4(), NOW + 100).unwrap();
    let refused = lab.install(flow6(), NOW + 100);
    assert!(matches!(refused, Err(InsertError::MapFull)), "{refused:?}");
    assert_eq!(lab.count(), (1, 2));
    lab.install(flow4(), NOW + 200).expect("a refresh needs no room");
    lab.remove(flow4());
    lab.install(flow6(), NOW + 100).expect("there is room again");
    lab.remove(flow6());
    assert!(lab.table.next_hops().is_idle());
}

#[test]
fn expired_flows_are_swept_after_a_grace_unless_they_were_refreshed() {
    let mut lab = Lab::new();
    lab.install(flow4(), NOW + 10).unwrap();
    lab.install(flow6(), NOW + 10).unwrap();
    lab.install(flow6(), NOW + 50).unwrap();
    lab.table.sweep(NOW + 10 + GRACE - 1, &mut lab.maps);
    assert_eq!(lab.table.resident(), 2);
    lab.table.sweep(NOW + 10 + GRACE, &mut lab.maps);
    assert_eq!(lab.table.resident(), 1);
    assert_eq!(lab.records(flow6()).len(), 2);
    lab.table.sweep(NOW + 50 + GRACE, &mut lab.maps);
    assert!(lab.table.is_empty() && lab.maps.records.is_empty() && lab.table.expiries.is_empty());
    assert!(lab.is_complete(flow4()), "what is over by itself leaves no gap");
}

#[test]
fn a_place_that_was_reused_is_not_swept_for_its_former_flow() {
    let mut lab = Lab::new();
    lab.install(flow4(), NOW + 10).unwrap();
    lab.remove(flow4());
    lab.install(flow6(), NOW + 500).unwrap();
    lab.table.sweep(NOW + 100, &mut lab.maps);
    assert_eq!(lab.table.resident(), 1);
}

#[test]
fn an_install_that_comes_too_late_removes_and_is_not_confirmed() {
    let mut lab = Lab::new();
    lab.install(flow4(), NOW + 10).unwrap();
    lab.install_at(flow4(), NOW + 10, NOW + 10).unwrap();
    assert!(lab.maps.records.is_empty() && lab.table.is_empty());
    assert!(!lab.is_complete(flow4()));
}

#[test]
fn a_destination_that_is_not_for_the_program_keeps_the_flow_out_until_a_route_changes() {
    let mut lab = Lab::new();
    let route = lab.rib().routes.remove(&peer(flow4())).unwrap();
    lab.install(flow4(), NOW + 100).unwrap();
    assert_eq!(lab.count(), (0, 0));
    assert!(!lab.is_complete(flow4()), "its peer's packets have to go up");

    lab.rib().routes.insert(peer(flow4()), route);
    assert_eq!(lab.table.reroute(&mut lab.maps), 0);
    assert_eq!(lab.count(), (1, 2));

    lab.rib().routes.remove(&flow4().client.ip());
    assert_eq!(lab.table.reroute(&mut lab.maps), 0);
    assert_eq!(lab.count(), (0, 0));
}

#[test]
fn records_follow_a_moved_route() {
    let mut lab = Lab::new();
    lab.install(flow4(), NOW + 100).unwrap();
    lab.install(flow6(), NOW + 100).unwrap();
    lab.rib().route_to(peer(flow4()), 4, "203.0.113.254");
    let untouched = lab.records(flow6());
    lab.table.reroute(&mut lab.maps);
    let [to_peer, to_client] = lab.records(flow4())[..] else { panic!("two records") };
    assert_eq!(lab.maps.next_hops[&to_peer.next_hop].interface, 4);
    assert_eq!(to_client.next_hop, 1);
    assert_eq!(lab.records(flow6()), untouched);
    assert!(lab.is_complete(flow4()), "it was never out of the kernel");
}

#[test]
fn an_unsupported_flow_is_neither_installed_nor_a_failure_but_leaves_a_gap() {
    let mut lab = Lab::new();
    let loopback = Flow { scope: Scope::Permission { peer: [127, 0, 0, 1].into() }, ..flow4() };
    lab.install(loopback, NOW + 100).unwrap();
    lab.remove(loopback);
    assert!(lab.table.is_empty() && lab.maps.records.is_empty());
    assert!(!lab.is_complete(loopback));
}

#[test]
fn an_allocation_is_complete_while_all_of_it_is_in_the_kernel() {
    let mut lab = Lab::new();
    let [relay, permission, channel] = scopes(flow4());
    for flow in [relay, permission, channel] {
        let change = lab.maps.state.announce(flow.allocation);
        assert!(!lab.is_complete(flow), "{flow:?} is under way");
        lab.table.install(Install { flow, expires: NOW + 100, change }, NOW, &mut lab.maps).unwrap();
        assert!(lab.is_complete(flow), "{flow:?} is there");
    }
    lab.remove(channel);
    assert!(lab.is_complete(relay), "a removal is a gap to nobody");
}

#[test]
fn what_finds_no_room_leaves_a_gap_until_the_index_is_reset() {
    let mut lab = Lab::new();
    let [relay, permission, channel] = scopes(flow4());
    lab.maps.capacity = 2;
    lab.install(relay, NOW + 100).unwrap();
    lab.install(permission, NOW + 100).unwrap_err();
    assert!(!lab.is_complete(relay));
    lab.maps.capacity = 5;
    lab.install(permission, NOW + 100).unwrap();
    lab.install(channel, NOW + 100).unwrap();
    assert!(!lab.is_complete(relay), "later ones do not close it");
    lab.reset(relay.allocation);
    lab.install(relay, NOW + 200).unwrap();
    assert!(lab.is_complete(relay));
}

#[test]
fn a_flow_that_a_route_takes_out_of_the_kernel_leaves_a_gap_even_when_it_comes_back() {
    let mut lab = Lab::new();
    let [relay, permission, _] = scopes(flow4());
    lab.install(relay, NOW + 100).unwrap();
    lab.install(permission, NOW + 100).unwrap();
    assert!(lab.is_complete(relay));
    let route = lab.rib().routes.remove(&peer(permission)).unwrap();
    lab.table.reroute(&mut lab.maps);
    assert_eq!(lab.count(), (1, 2));
    assert!(!lab.maps.removed_while_complete, "the peer was a stranger for a moment");
    assert!(!lab.is_complete(relay));
    lab.rib().routes.insert(peer(permission), route);
    lab.table.reroute(&mut lab.maps);
    lab.install(permission, NOW + 200).unwrap();
    assert_eq!(lab.count(), (2, 3));
    assert!(!lab.is_complete(relay));
}

#[test]
fn another_allocations_gap_is_its_own() {
    let mut lab = Lab::new();
    let other = Flow { allocation: 4, ..flow6() };
    lab.maps.capacity = 2;
    lab.install(flow4(), NOW + 100).unwrap();
    lab.install(other, NOW + 100).unwrap_err();
    assert!(lab.is_complete(flow4()) && !lab.is_complete(other));
}
