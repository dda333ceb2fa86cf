//! What the operator is told of allocations, and how they are ended.

use std::net::IpAddr;

use hairpin_proto::address::{PeerAddr, Transport};
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{AdditionalAddressFamily, EvenPort, Lifetime};
use hairpin_proto::turn::{
    AllocationInfo, ChannelInfo, Credentials, Discard, EndReason, PeerTransport, PermissionInfo,
};

use crate::harness::{
    Client, Event, PUBLIC_V4, RELAY_V4, RELAY_V6, Relay, SECRET, SERVER, UDP, channel_data, config, dropped,
    send_indication, socket,
};
use crate::mobility::channel_and_ticket;
use crate::tcp_connections::{connect, permitted, tcp_relay};

const AT: &str = "203.0.113.7:41000";
const AT_V6: &str = "[2001:db8:7::1]:41000";
const SERVER_V6: &str = "[2001:db8::15]:3478";
const PEER: &str = "8.8.8.8:53";

/// The only allocation that there is.
fn only(relay: &Relay) -> AllocationInfo {
    let [id] = relay.server.allocation_ids()[..] else { panic!("{:?}", relay.server.allocation_ids()) };
    relay.server.describe(id).expect("it is there")
}

/// Why the only allocation of a relay has ended.
fn end_of(events: &[Event]) -> EndReason {
    let freed: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::Freed(_, reason) = event { Some(*reason) } else { None })
        .collect();
    let [reason] = freed[..] else { panic!("{events:?}") };
    reason
}

#[test]
fn an_allocation_is_described_with_all_that_it_has() {
    let mut relay = Relay::default();
    let (username, password) = Credentials::mint(SECRET, "carol", relay.now.unix + 60);
    let mut client = Client::new(AT, &username, &password);
    let both = AdditionalAddressFamily(Ok(hairpin_proto::address::AddressFamily::V6));
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&both));
    answer.expect_success(&client);
    relay.bind_channel(&mut client, 0x4001, PEER).expect_success(&client);
    relay.sleep(100);
    relay.permit(&mut client, &["8.8.4.4:53"]).expect_success(&client);
    let info = only(&relay);
    assert_eq!((info.five_tuple, info.is_present, info.peers), (client.five_tuple, true, PeerTransport::Udp));
    assert_eq!((info.username, info.account.as_str()), (username, "carol"));
    let public: Vec<_> = info.relayed.iter().map(|relayed| relayed.public).collect();
    assert_eq!(public, answer.relayed());
    let bound: Vec<_> = info.relayed.iter().map(|relayed| relayed.bound.ip()).collect();
    assert_eq!(bound, [RELAY_V4, RELAY_V6].map(|ip| ip.parse::<IpAddr>().unwrap()));
    assert!(info.relayed.iter().all(|relayed| relayed.ends == relay.at(500)));
    let permission = |peer: &str, ends| PermissionInfo { peer: peer.parse().unwrap(), ends };
    assert_eq!(info.permissions, [permission("8.8.4.4", relay.at(300)), permission("8.8.8.8", relay.at(200))]);
    let channel = ChannelInfo { number: 0x4001, peer: PeerAddr::new(socket(PEER)), ends: relay.at(500) };
    assert_eq!((info.channels, info.connections), (vec![channel], 0));

    relay.refresh(&mut client, 3600).expect_success(&client);
    relay.pass(550);
    let info = only(&relay);
    assert_eq!((info.permissions, info.channels), (vec![], vec![]), "what has ended is there no more");
    relay.shut_down();
    assert_eq!(relay.server.allocation_ids(), []);
}

#[test]
fn connections_to_peers_and_clients_that_are_away_are_told() {
    let (mut relay, mut client, id) = tcp_relay();
    connect(&mut relay, &mut client, "8.8.8.8:443");
    permitted(&mut relay, &mut client, id, PEER);
    let info = only(&relay);
    assert_eq!((info.peers, info.connections), (PeerTransport::Tcp, 2));
    let (mut relay, client, ..) = channel_and_ticket(Transport::Tcp);
    relay.server.client_lost(relay.now, &client.five_tuple);
    relay.drain();
    assert!(!only(&relay).is_present);
}

#[test]
fn what_nobody_has_is_not_described() {
    let mut relay = Relay::default();
    relay.allocate(&mut Client::alice(AT));
    let [id] = relay.server.allocation_ids()[..] else { panic!("there is one") };
    relay.shut_down();
    assert_eq!(relay.server.describe(id), None);
}

#[test]
fn a_closed_allocation_is_gone_for_its_client_and_its_peers() {
    for reason in [EndReason::Closed, EndReason::Drained] {
        let mut relay = Relay::default();
        let mut client = Client::alice(AT);
        let id = relay.allocate(&mut client);
        relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
        let [allocation] = relay.server.allocation_ids()[..] else { panic!("there is one") };
        relay.server.close_allocation(relay.now, allocation, reason);
        let events = relay.drain();
        assert!(
            matches!(events[..], [Event::Remove(_), Event::Remove(_), Event::Remove(_), Event::Close(closed), Event::Freed(freed, why)]
                if (closed, freed, why) == (id, allocation, reason)),
            "{events:?}"
        );
        assert_eq!(relay.client_sends(&client, &channel_data(0x4000, b"x")), dropped(Discard::NoAllocation));
        assert_eq!(relay.client_sends(&client, &send_indication(PEER, b"x")), dropped(Discard::NoAllocation));
        assert_eq!(relay.peer_sends(id, PEER, b"x"), dropped(Discard::NoAllocation));
        relay.refresh(&mut client, 600).expect_error(&client, 437);
        relay.server.close_allocation(relay.now, allocation, reason);
        assert_eq!(relay.drain(), [], "it cannot be closed twice");
        relay.allocate(&mut client);
        relay.shut_down();
    }
}

#[test]
fn closing_a_tcp_allocation_closes_its_connections_and_fails_what_is_asked_for() {
    let (mut relay, mut client, id) = tcp_relay();
    let opening = connect(&mut relay, &mut client, "8.8.8.8:443");
    let open = permitted(&mut relay, &mut client, id, PEER);
    let [allocation] = relay.server.allocation_ids()[..] else { panic!("there is one") };
    relay.server.close_allocation(relay.now, allocation, EndReason::Closed);
    let events = relay.drain();
    for connection in [opening, open] {
        assert!(events.contains(&Event::CloseConnection(connection)), "{events:?}");
    }
    assert_eq!(end_of(&events), EndReason::Closed);
    assert_eq!(relay.refusals.len(), 1, "the request for the connection");
    relay.shut_down();
}

#[test]
fn every_end_has_its_reason() {
    let begin = || {
        let (mut relay, mut client) = (Relay::default(), Client::alice(AT).over(Transport::Tcp));
        let id = relay.allocate(&mut client);
        (relay, client, id)
    };
    let (mut relay, ..) = begin();
    assert_eq!(end_of(&relay.pass(600)), EndReason::Expired);
    let (mut relay, mut client, _) = begin();
    assert_eq!(end_of(&relay.refresh(&mut client, 0).events), EndReason::Refreshed);
    let (mut relay, client, _) = begin();
    relay.server.client_lost(relay.now, &client.five_tuple);
    assert_eq!(end_of(&relay.drain()), EndReason::ClientLost);
    let (mut relay, _, id) = begin();
    relay.server.relay_failed(relay.now, id);
    assert_eq!(end_of(&relay.drain()), EndReason::SocketLost);
    let (mut relay, ..) = begin();
    relay.server.shutdown(relay.now);
    assert_eq!(end_of(&relay.drain()), EndReason::Shutdown);
}

#[test]
fn the_reasons_are_listed_in_order_and_each_has_a_name() {
    let labels: std::collections::BTreeSet<_> = EndReason::ALL.map(EndReason::label).into();
    assert_eq!(labels.len(), EndReason::COUNT);
    assert!(EndReason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
}

#[test]
fn of_a_dual_allocation_the_last_address_has_the_reason() {
    let (mut relay, mut client) = (Relay::default(), Client::alice(AT));
    let both = AdditionalAddressFamily(Ok(hairpin_proto::address::AddressFamily::V6));
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&both));
    let Event::Bind(first, _) = answer.events[0] else { panic!("{answer:?}") };
    relay.server.relay_failed(relay.now, first);
    assert!(!relay.drain().iter().any(|event| matches!(event, Event::Freed(..))));
    assert_eq!(end_of(&relay.pass(600)), EndReason::Expired);
}

#[test]
fn allocations_are_counted_by_listener_and_by_relay_address() {
    let mut relay = Relay::default();
    let mut clients = [Client::alice(AT), Client::alice("203.0.113.7:41001"), Client::alice(AT).over(Transport::Tcp)];
    let mut v6 = Client::alice(AT_V6);
    v6.five_tuple.server = hairpin_proto::address::ServerAddr::new(socket(SERVER_V6));
    for client in clients.iter_mut().chain([&mut v6]) {
        relay.allocate(client);
    }
    let at = |transport, listener: &str| relay.server.allocations_at(transport, socket(listener));
    assert_eq!((at(Transport::Udp, SERVER), at(Transport::Tcp, SERVER), at(Transport::Tls, SERVER)), (2, 1, 0));
    assert_eq!((at(Transport::Udp, "0.0.0.0:3478"), at(Transport::Udp, "[::]:3478")), (2, 1));
    assert_eq!((at(Transport::Udp, "192.0.2.15:3479"), at(Transport::Udp, "0.0.0.0:3479")), (0, 0));
    assert_eq!(at(Transport::Udp, "192.0.2.16:3478"), 0);
    assert_eq!(at(Transport::Udp, "[::ffff:192.0.2.15]:3478"), 2);
    relay.change(|settings| {
        settings.listeners = vec![(Transport::Udp, socket(SERVER)), (Transport::Tcp, socket(SERVER))];
    });
    let at = |transport, listener: &str| relay.server.allocations_at(transport, socket(listener));
    let wide =
        (at(Transport::Udp, "0.0.0.0:3478"), at(Transport::Tcp, "0.0.0.0:3478"), at(Transport::Udp, "[::]:3478"));
    assert_eq!(wide, (0, 0, 1), "others serve those of IPv4 now");
    assert_eq!(at(Transport::Udp, SERVER), 2);
    let on = |ip: &str| relay.server.allocations_on(ip.parse().unwrap());
    assert_eq!((on(RELAY_V4), on(RELAY_V6), on(PUBLIC_V4)), (4, 0, 0));
    relay.shut_down();
}

#[test]
fn ports_in_use_are_those_of_allocations_and_reservations() {
    let mut relay = Relay::new(config());
    let mut client = Client::alice(AT);
    let pair = EvenPort { reserve_next: true };
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&pair)).expect_success(&client);
    let [v4, v6] = [RELAY_V4, RELAY_V6].map(|ip| ip.parse::<IpAddr>().unwrap());
    assert_eq!(relay.server.ports_in_use(), [(v4, 2), (v6, 0)]);
    relay.pass(30);
    assert_eq!(relay.server.ports_in_use(), [(v4, 1), (v6, 0)]);
    relay.request(&mut client, Method::REFRESH, |request| request.with(&Lifetime(0))).expect_success(&client);
    assert_eq!(relay.server.ports_in_use(), [(v4, 0), (v6, 0)]);
}
