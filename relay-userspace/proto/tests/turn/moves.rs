//! Where data goes while a client moves, and afterwards (RFC 8016 section 3.2.2).

use hairpin_proto::address::{FiveTuple, Transport};
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{AdditionalAddressFamily, Lifetime, MobilityTicket};
use hairpin_proto::turn::{Discard, Disposition, Forward, IcmpError, RelayId, Scope};

use crate::harness::{
    Client, Event, Relay, TCP, UDP, channel, channel_data, delivered, dropped, permission, send_indication,
};
use crate::mobility::{AT, ELSEWHERE, PEER, channel_and_ticket, mobile_config};
use crate::tcp_connections::{connect, permitted};

/// Where a peer's datagram goes.
fn reached(relay: &mut Relay, id: RelayId) -> FiveTuple {
    match relay.peer_sends(id, PEER, b"data") {
        Disposition::Forward(Forward::ToClient { five_tuple, .. }) => five_tuple,
        other => panic!("{other:?}"),
    }
}

/// The five-tuples of the flows that are installed.
fn flows_at(relay: &Relay) -> Vec<FiveTuple> {
    let mut all: Vec<_> = relay.flows.values().map(|(flow, _)| flow.five_tuple).collect();
    all.dedup();
    all
}

fn moved_client(relay: &mut Relay, client: &Client, ticket: &[u8], transport: Transport) -> (Client, Vec<u8>) {
    let mut moved = client.at(ELSEWHERE).over(transport);
    let answer = relay.show(&mut moved, ticket);
    answer.expect_success(&moved);
    let ticket = answer.ticket().expect("a new ticket");
    (moved, ticket)
}

#[test]
fn until_the_new_address_sends_data_the_old_one_is_served() {
    let (mut relay, mut client, id, ticket) = channel_and_ticket(Transport::Udp);
    let (mut moved, _) = moved_client(&mut relay, &client, &ticket, Transport::Udp);
    for _ in 0..2 {
        assert_eq!(reached(&mut relay, id), client.five_tuple);
        assert_eq!(flows_at(&relay), [client.five_tuple]);
        assert_eq!(relay.flows.len(), 3);
        delivered(relay.client_sends(&client, &channel_data(0x4000, b"data")));
        delivered(relay.client_sends(&client, &send_indication(PEER, b"data")));
        // Requests are taken from both, and decide nothing.
        relay.refresh(&mut moved, 600).expect_success(&moved);
        relay.bind_channel(&mut moved, 0x4000, PEER).expect_success(&moved);
        relay.permit(&mut client, &[PEER]).expect_success(&client);
        relay.pass(60);
    }
    assert!(relay.server.has_allocation(&client.five_tuple) && relay.server.has_allocation(&moved.five_tuple));
    relay.shut_down();
}

#[test]
fn with_the_first_data_of_the_new_address_everything_follows() {
    for datagram in [channel_data(0x4000, b"data"), send_indication(PEER, b"data")] {
        let (mut relay, mut client, id, ticket) = channel_and_ticket(Transport::Udp);
        let (moved, _) = moved_client(&mut relay, &client, &ticket, Transport::Udp);
        relay.sleep(1);
        delivered(relay.client_sends(&moved, &datagram));
        assert_eq!(reached(&mut relay, id), moved.five_tuple, "at once");
        assert_eq!(relay.client_sends(&client, &datagram), dropped(Discard::NoAllocation));
        assert_eq!(relay.server.poll_timeout(), Some(relay.now.instant), "the driver is called");
        relay.server.handle_timeout(relay.now);
        let events = relay.drain();
        let scopes = [Scope::Relay, permission(PEER), channel(0x4000, PEER)];
        let removed = scopes.map(|scope| Event::Remove(relay.flow(&client, id, scope)));
        // At no time a peer's datagram finds nothing.
        let [
            Event::Install(first, _),
            Event::Install(second, _),
            Event::Install(third, _),
            Event::Remove(..),
            Event::Remove(..),
            Event::Remove(..),
            Event::Left(_, left),
        ] = events[..]
        else {
            panic!("{events:?}");
        };
        assert!(events[3..6].iter().rev().eq(&removed), "{events:?}");
        assert_eq!((left, [first.scope, second.scope, third.scope]), (client.five_tuple, scopes));
        assert_eq!(flows_at(&relay), [moved.five_tuple]);
        assert_ne!(relay.server.poll_timeout(), Some(relay.now.instant));
        relay.refresh(&mut client, 600).expect_error(&client, 437);
        relay.shut_down();
    }
}

#[test]
fn also_data_that_is_refused_tells_where_the_client_is() {
    let (mut relay, client, id, ticket) = channel_and_ticket(Transport::Udp);
    let (moved, _) = moved_client(&mut relay, &client, &ticket, Transport::Udp);
    let unbound = channel_data(0x4001, b"data");
    assert_eq!(relay.client_sends(&moved, &unbound), dropped(Discard::NoChannel));
    assert_eq!(reached(&mut relay, id), moved.five_tuple);
    relay.drain();
    relay.shut_down();
}

#[test]
fn between_all_transports_flows_are_where_a_fast_path_is() {
    for from in Transport::ALL {
        for to in Transport::ALL {
            let (mut relay, client, id, ticket) = channel_and_ticket(from);
            let (moved, _) = moved_client(&mut relay, &client, &ticket, to);
            assert_eq!(flows_at(&relay), if from == Transport::Udp { vec![client.five_tuple] } else { vec![] });
            delivered(relay.client_sends(&moved, &channel_data(0x4000, b"data")));
            relay.drain();
            assert_eq!(reached(&mut relay, id), moved.five_tuple);
            assert_eq!(flows_at(&relay), if to == Transport::Udp { vec![moved.five_tuple] } else { vec![] });
            relay.pass(200);
            relay.drain();
            let counted = Transport::ALL.map(|transport| [usize::from(transport == to), 0]);
            assert_eq!(relay.server.allocations_by_client(), counted, "from {from} to {to}");
            relay.shut_down();
        }
    }
}

#[test]
fn what_has_ended_while_the_client_moved_is_not_installed() {
    let (mut relay, mut client, _, ticket) = channel_and_ticket(Transport::Udp);
    relay.refresh(&mut client, 1200).expect_success(&client);
    let mut moved = client.at(ELSEWHERE);
    let lifetime = Lifetime(1200);
    relay
        .request(&mut moved, Method::REFRESH, |request| request.with(&MobilityTicket(&ticket)).with(&lifetime))
        .expect_success(&moved);
    relay.sleep(300);
    let unbound = channel_data(0x4001, b"data");
    assert_eq!(relay.client_sends(&moved, &unbound), dropped(Discard::NoChannel));
    relay.drain();
    let scopes: Vec<_> = relay.flows.values().map(|(flow, _)| flow.scope).collect();
    assert_eq!(scopes, [Scope::Relay], "the permission is over, although its timer is late");
    relay.shut_down();
}

#[test]
fn a_second_move_makes_the_first_one_final() {
    let (mut relay, client, id, ticket) = channel_and_ticket(Transport::Udp);
    let (moved, next) = moved_client(&mut relay, &client, &ticket, Transport::Udp);
    let mut third = client.at("198.51.100.78:1");
    relay.show(&mut third, &next).expect_success(&third);
    assert_eq!(reached(&mut relay, id), moved.five_tuple);
    assert!(!relay.server.has_allocation(&client.five_tuple));
    delivered(relay.client_sends(&third, &channel_data(0x4000, b"data")));
    assert_eq!(reached(&mut relay, id), third.five_tuple);
    relay.drain();
    assert_eq!(flows_at(&relay), [third.five_tuple]);
    assert!(!relay.server.has_allocation(&moved.five_tuple));
    relay.shut_down();
}

#[test]
fn a_client_may_move_back() {
    let (mut relay, client, id, ticket) = channel_and_ticket(Transport::Udp);
    let (_, next) = moved_client(&mut relay, &client, &ticket, Transport::Udp);
    let mut back = client.at(AT);
    relay.show(&mut back, &next).expect_success(&back);
    delivered(relay.client_sends(&back, &channel_data(0x4000, b"data")));
    relay.drain();
    assert_eq!(reached(&mut relay, id), client.five_tuple);
    assert_eq!(flows_at(&relay), [client.five_tuple]);
    relay.shut_down();
}

#[test]
fn a_client_that_is_lost_may_come_back_until_its_allocation_ends() {
    for transport in [Transport::Tcp, Transport::Tls, Transport::Dtls] {
        let (mut relay, client, id, ticket) = channel_and_ticket(transport);
        relay.server.client_lost(relay.now, &client.five_tuple);
        let events = relay.drain();
        assert!(matches!(events[..], [Event::Left(_, left)] if left == client.five_tuple), "{events:?}");
        assert!(!relay.server.has_allocation(&client.five_tuple), "whoever comes from there now is a stranger");
        assert_eq!(relay.peer_sends(id, PEER, b"data"), dropped(Discard::NoClient));
        let error = IcmpError { kind: 3, code: 3, mtu: 0 };
        let peer = hairpin_proto::address::PeerAddr::new(PEER.parse().unwrap());
        assert_eq!(relay.server.peer_error(relay.now, id, peer, error), dropped(Discard::NoClient));
        relay.pass(100);
        let mut moved = client.at(ELSEWHERE).over(Transport::Udp);
        let answer = relay.show(&mut moved, &ticket);
        answer.expect_success(&moved);
        assert_eq!(reached(&mut relay, id), moved.five_tuple, "there is nowhere else");
        let installs = answer.events.iter().filter(|event| matches!(event, Event::Install(..))).count();
        assert_eq!(installs, 4, "three flows, and then the new end of the relayed address");
        assert_eq!(flows_at(&relay), [moved.five_tuple]);
        relay.shut_down();
    }
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Tcp);
    relay.server.client_lost(relay.now, &client.five_tuple);
    relay.drain();
    let events = relay.pass(600);
    assert!(matches!(events[..], [Event::Close(_), Event::Freed(..)]), "{events:?}");
    let mut moved = client.at(ELSEWHERE);
    relay.show(&mut moved, &ticket).expect_error(&moved, 437);
    relay.shut_down();
}

#[test]
fn a_client_that_is_lost_may_come_back_from_the_same_port() {
    let (mut relay, client, id, ticket) = channel_and_ticket(Transport::Tcp);
    relay.server.client_lost(relay.now, &client.five_tuple);
    relay.drain();
    let mut back = client.clone();
    relay.show(&mut back, &ticket).expect_success(&back);
    assert_eq!(reached(&mut relay, id), back.five_tuple);
    delivered(relay.client_sends(&back, &channel_data(0x4000, b"data")));
    assert_eq!(relay.drain(), []);
    relay.refresh(&mut back, 600).expect_success(&back);
    relay.shut_down();
}

#[test]
fn the_place_of_a_lost_client_may_be_anothers() {
    let (mut relay, client, id, ticket) = channel_and_ticket(Transport::Tcp);
    relay.server.client_lost(relay.now, &client.five_tuple);
    relay.drain();
    let mut other = Client::new(AT, "bob", "hunter2").over(Transport::Tcp);
    relay.allocate(&mut other);
    assert_eq!(relay.peer_sends(id, PEER, b"data"), dropped(Discard::NoClient));
    let (moved, _) = moved_client(&mut relay, &client, &ticket, Transport::Tcp);
    assert!(relay.server.has_allocation(&other.five_tuple), "what was the other's still is");
    assert_eq!(reached(&mut relay, id), moved.five_tuple);
    relay.server.relay_failed(relay.now, id);
    relay.drain();
    relay.refresh(&mut other, 600).expect_success(&other);
    relay.shut_down();
}

#[test]
fn without_a_ticket_the_allocation_ends_with_its_connection() {
    let mut relay = Relay::new(mobile_config());
    let mut client = Client::alice(AT).over(Transport::Tls);
    relay.allocate(&mut client);
    relay.server.client_lost(relay.now, &client.five_tuple);
    assert!(matches!(relay.drain()[..], [Event::Close(_), Event::Freed(..)]));
    relay.shut_down();
}

#[test]
fn when_the_old_connection_ends_everything_follows() {
    let (mut relay, client, id, ticket) = channel_and_ticket(Transport::Tls);
    let (moved, _) = moved_client(&mut relay, &client, &ticket, Transport::Udp);
    assert_eq!(reached(&mut relay, id), client.five_tuple);
    relay.server.client_lost(relay.now, &client.five_tuple);
    let events = relay.drain();
    let [Event::Left(_, left), Event::Install(..), Event::Install(..), Event::Install(..)] = events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(left, client.five_tuple);
    assert_eq!(reached(&mut relay, id), moved.five_tuple);
    relay.shut_down();
}

#[test]
fn when_the_new_connection_ends_the_old_one_goes_on() {
    let (mut relay, mut client, id, ticket) = channel_and_ticket(Transport::Udp);
    let (moved, next) = moved_client(&mut relay, &client, &ticket, Transport::Tcp);
    relay.server.client_lost(relay.now, &moved.five_tuple);
    let events = relay.drain();
    assert!(matches!(events[..], [Event::Left(_, left)] if left == moved.five_tuple), "{events:?}");
    assert_eq!(reached(&mut relay, id), client.five_tuple);
    relay.refresh(&mut client, 600).expect_success(&client);
    let mut third = client.at("198.51.100.78:1");
    relay.show(&mut third, &next).expect_success(&third);
    relay.shut_down();
}

#[test]
fn a_deletion_with_a_ticket_deletes() {
    let (mut relay, client, id, ticket) = channel_and_ticket(Transport::Udp);
    let mut moved = client.at(ELSEWHERE);
    let answer =
        relay.request(&mut moved, Method::REFRESH, |request| request.with(&MobilityTicket(&ticket)).with(&Lifetime(0)));
    answer.expect_success(&moved);
    assert_eq!((answer.lifetime(), answer.ticket()), (0, None));
    assert!(
        matches!(answer.events[answer.events.len() - 2..], [Event::Close(closed), Event::Freed(..)] if closed == id)
    );
    assert!(!relay.server.has_allocation(&client.five_tuple) && !relay.server.has_allocation(&moved.five_tuple));
    relay.shut_down();
}

#[test]
fn both_families_move() {
    let mut relay = Relay::new(mobile_config());
    let mut client = Client::alice(AT);
    let both = AdditionalAddressFamily(Ok(hairpin_proto::address::AddressFamily::V6));
    let answer = relay
        .request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&both).with(&MobilityTicket(&[])));
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    relay.bind_channel(&mut client, 0x4001, "[2001:db8::53]:53").expect_success(&client);
    let (moved, _) = moved_client(&mut relay, &client, &answer.ticket().unwrap(), Transport::Udp);
    delivered(relay.client_sends(&moved, &channel_data(0x4001, b"data")));
    let events = relay.drain();
    let (installed, removed) = events.split_at(6);
    assert!(
        installed.iter().all(|event| matches!(event, Event::Install(..))),
        "of both, before any is removed: {events:?}"
    );
    assert_eq!(removed.iter().filter(|event| matches!(event, Event::Remove(..))).count(), 6, "{events:?}");
    assert_eq!((flows_at(&relay), relay.flows.len()), (vec![moved.five_tuple], 6));
    relay.shut_down();
}

#[test]
fn an_allocation_of_tcp_moves_at_once_and_only_to_a_stream() {
    let mut relay = Relay::new(mobile_config());
    let mut client = Client::alice(AT).over(Transport::Tcp);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP).with(&MobilityTicket(&[])));
    let (id, ticket) = (answer.bound(), answer.ticket().unwrap());
    let joined = permitted(&mut relay, &mut client, id, "8.8.4.4:1");
    let mut data = Client::alice("203.0.113.7:41001").over(Transport::Tcp);
    relay.bind_connection(&mut data, joined).expect_success(&data);
    for transport in [Transport::Udp, Transport::Dtls] {
        let mut moved = client.at(ELSEWHERE).over(transport);
        relay.show(&mut moved, &ticket).expect_error(&moved, 400);
    }
    let opening = connect(&mut relay, &mut client, "8.8.4.4:2");
    let (mut moved, _) = moved_client(&mut relay, &client, &ticket, Transport::Tls);
    assert!(!relay.server.has_allocation(&client.five_tuple), "it sends no data that could be waited for");
    assert_eq!(relay.connected(opening, Ok(())), [Event::CloseConnection(opening)], "nobody can be told its name");
    assert!(relay.connections.contains_key(&joined));
    permitted(&mut relay, &mut moved, id, PEER);
    relay.shut_down();
}

#[test]
fn nobody_is_announced_to_a_client_that_is_lost() {
    let mut relay = Relay::new(mobile_config());
    let mut client = Client::alice(AT).over(Transport::Tcp);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP).with(&MobilityTicket(&[])));
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    let opening = connect(&mut relay, &mut client, "8.8.4.4:2");
    relay.server.client_lost(relay.now, &client.five_tuple);
    relay.drain();
    assert_eq!(relay.peer_connects(answer.bound(), PEER), None);
    assert_eq!(relay.pass(30), [Event::CloseConnection(opening)], "nor is a failure");
    relay.shut_down();
}
