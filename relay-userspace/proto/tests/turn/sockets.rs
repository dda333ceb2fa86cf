//! What the driver answers to `Effect::Bind`, and when.

use hairpin_proto::address::{AddressFamily, RelayedAddr};
use hairpin_proto::stun::attribute::{AdditionalAddressFamily, AddressErrorCode, EvenPort};
use hairpin_proto::stun::{ErrorCode, Method};
use hairpin_proto::turn::{BindError, BindRequest, Discard, PortStripe, RelayId, Scope};

use crate::harness::{Answer, Client, Event, RELAY_V4, RELAY_V6, Relay, UDP, config, dropped};

const AT: &str = "203.0.113.7:41000";
const PAIR: EvenPort = EvenPort { reserve_next: true };

fn asked(events: &[Event]) -> (RelayId, RelayedAddr) {
    match events {
        [Event::Bind(relay, BindRequest::Port(address) | BindRequest::Pair(address, _))] => (*relay, *address),
        _ => panic!("{events:?}"),
    }
}

#[test]
fn a_port_that_is_taken_is_replaced_by_another() {
    let mut config = config();
    config.ports = PortStripe::new(50_000..=50_001, 0, 1);
    let mut relay = Relay::new(config);
    relay.taken.insert(50_000);
    for port in 1..=5 {
        let mut client = Client::alice(&format!("203.0.113.7:{port}"));
        let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
        if answer.code() == 200 {
            assert_eq!(relay.sockets[&answer.bound()].port(), 50_001);
            return relay.shut_down();
        }
    }
    panic!("the free port was not found in eighty attempts");
}

#[test]
fn when_every_port_is_taken_the_server_gives_up_and_keeps_nothing() {
    let mut relay = Relay::default();
    relay.taken.extend(49_152..=65_535);
    let mut client = Client::alice(AT);
    for pair in [None, Some(&PAIR)] {
        let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with_option(pair));
        assert_eq!((answer.code(), answer.binds()), (508, 16));
        assert!(answer.message().verify_integrity(&client.key));
        assert_eq!(relay.quotas.in_use(), 0);
    }
    relay.taken.clear();
    relay.allocate(&mut client);
    relay.shut_down();
}

#[test]
fn when_no_socket_can_be_had_no_other_port_is_tried() {
    let mut relay = Relay::default();
    relay.broken.insert(RELAY_V4.parse().unwrap());
    let mut client = Client::alice(AT);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    assert_eq!((answer.code(), answer.binds()), (508, 1));
    relay.shut_down();
}

#[test]
fn a_port_that_failed_is_free_again() {
    let mut config = config();
    config.ports = PortStripe::new(50_000..=50_001, 0, 1);
    let mut relay = Relay::new(config);
    relay.broken.insert(RELAY_V4.parse().unwrap());
    for _ in 0..5 {
        let mut client = Client::alice(AT);
        relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR));
    }
    relay.broken.clear();
    let mut client = Client::alice(AT);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR)).expect_success(&client);
}

#[test]
fn an_answer_that_comes_later_makes_the_allocation_then() {
    let mut relay = Relay::default();
    relay.binds = false;
    let mut client = Client::alice(AT);
    let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    let (id, address) = asked(&relay.control(&client, &request));
    assert_eq!(relay.server.allocations(), 0);
    assert_eq!(relay.control(&client, &request), [], "a retransmission waits too");
    let peer = relay.peer_sends(id, "8.8.8.8:53", b"early");
    assert_eq!(peer, dropped(Discard::NoAllocation));

    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP)).expect_error(&client, 437);
    relay.refresh(&mut client, 600).expect_error(&client, 437);

    relay.sleep(1);
    relay.sockets.insert(id, address);
    relay.server.relay_bound(relay.now, id, Ok(address));
    let events = relay.drain();
    assert!(matches!(events[..], [Event::Allocated(_), Event::Install(..), Event::Response(_)]), "{events:?}");
    assert_eq!(relay.server.poll_timeout(), Some(relay.at(600)), "its life begins now");
    relay.refresh(&mut client, 600).expect_success(&client);
    relay.shut_down();
}

#[test]
fn an_answer_that_nobody_waits_for_is_closed_or_ignored() {
    let mut relay = Relay::default();
    relay.binds = false;
    let mut client = Client::alice(AT);
    let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    let (id, address) = asked(&relay.control(&client, &request));
    relay.server.shutdown(relay.now);
    assert_eq!(relay.drain(), [Event::Close(id)]);
    relay.server.relay_bound(relay.now, id, Ok(address));
    assert_eq!(relay.drain(), [Event::Close(id)]);
    relay.server.relay_bound(relay.now, id, Err(BindError::InUse));
    relay.server.relay_failed(relay.now, id);
    assert_eq!(relay.drain(), []);
    relay.shut_down();
}

#[test]
fn a_shutdown_while_a_pair_is_bound_drops_the_reservation_too() {
    let mut relay = Relay::default();
    relay.binds = false;
    let mut client = Client::alice(AT);
    let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR));
    let events = relay.control(&client, &request);
    let [Event::Bind(id, BindRequest::Pair(_, token))] = events[..] else { panic!("{events:?}") };
    relay.server.shutdown(relay.now);
    assert_eq!(relay.drain(), [Event::Close(id), Event::DropReservation(token)]);
    relay.shut_down();
}

#[test]
fn a_reservation_ends_with_the_client_that_was_about_to_redeem_it() {
    let mut relay = Relay::default();
    let mut rtp = Client::alice(AT);
    let token = relay.request(&mut rtp, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR)).token().unwrap();
    relay.binds = false;
    let mut rtcp = Client::alice("203.0.113.7:41001");
    let request = relay.signed(&mut rtcp, Method::ALLOCATE, |request| request.with(&UDP).with(&token));
    let events = relay.control(&rtcp, &request);
    let [Event::Bind(id, BindRequest::Reserved(_))] = events[..] else { panic!("{events:?}") };
    assert_eq!(relay.quotas.in_use(), 2);
    relay.server.client_lost(relay.now, &rtcp.five_tuple);
    assert_eq!(relay.drain(), [Event::DropReservation(token), Event::Close(id)]);
    assert_eq!((relay.quotas.in_use(), relay.reserved.len()), (1, 0));
    assert_eq!(relay.pass(60), [], "it does not end twice");
    relay.shut_down();
}

#[test]
fn an_allocation_ends_when_its_socket_is_lost() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    relay.bind_channel(&mut client, 0x4000, "8.8.8.8:53").expect_success(&client);
    relay.server.relay_failed(relay.now, id);
    let events = relay.drain();
    let [Event::Remove(_), Event::Remove(_), Event::Remove(last), Event::Close(closed), Event::Freed(..)] = events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((last.scope, closed), (Scope::Relay, id), "channel, permission, relayed address");
    relay.refresh(&mut client, 600).expect_error(&client, 437);
    relay.shut_down();
}

#[test]
fn a_socket_that_is_lost_before_the_allocation_is_made_fails_it() {
    let mut relay = Relay::default();
    relay.binds = false;
    let mut client = Client::alice(AT);
    let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    let (id, _) = asked(&relay.control(&client, &request));
    relay.server.relay_failed(relay.now, id);
    assert!(matches!(relay.drain()[..], [Event::Response(_)]));
    relay.shut_down();
}

#[test]
fn a_socket_that_is_lost_while_the_other_familys_is_bound_is_closed_and_not_told() {
    let mut relay = Relay::default();
    relay.binds = false;
    let mut client = Client::alice(AT);
    let dual = AdditionalAddressFamily(Ok(AddressFamily::V6));
    let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&dual));
    relay.control(&client, &request);
    let (first, _) = relay.waiting[0];
    relay.answer_bind(0, None);
    relay.server.relay_failed(relay.now, first);
    assert_eq!(relay.drain(), [Event::Close(first)]);
    relay.answer_bind(0, None);
    relay.drain();
    let answer = Answer { bytes: relay.responses.pop().expect("it is answered"), events: Vec::new() };
    answer.expect_success(&client);
    assert_eq!(answer.relayed().iter().map(|address| address.ip().to_string()).collect::<Vec<_>>(), [RELAY_V6]);
    let error = AddressErrorCode { family: AddressFamily::V4, code: ErrorCode::INSUFFICIENT_CAPACITY };
    assert_eq!(answer.message().attribute(), Ok(Some(error)));
    relay.shut_down();
}

#[test]
fn ports_and_names_of_what_has_ended_are_used_again() {
    let mut config = config();
    config.ports = PortStripe::new(50_000..=50_001, 0, 1);
    let mut relay = Relay::new(config);
    for round in 0..20 {
        let mut clients = [1, 2].map(|port| Client::alice(&format!("203.0.113.7:{}", 1000 + 10 * round + port)));
        for client in &mut clients {
            relay.allocate(client);
        }
        assert!(relay.sockets.keys().all(|RelayId(id)| *id < 2), "{:?}", relay.sockets);
        match round % 3 {
            0 => clients.iter_mut().for_each(|client| relay.refresh(client, 0).expect_success(client)),
            1 => drop(relay.pass(600)),
            _ => {
                for id in relay.sockets.clone().into_keys() {
                    relay.server.relay_failed(relay.now, id);
                }
                relay.drain();
            }
        }
    }
    relay.shut_down();
}

#[test]
fn names_are_below_the_limit_and_are_used_again() {
    let mut config = config();
    config.settings.limits.allocations = 3;
    let mut relay = Relay::new(config);
    for round in 0..4 {
        let mut clients: Vec<Client> =
            (0..3).map(|port| Client::alice(&format!("203.0.113.7:{}", 1000 + 10 * round + port))).collect();
        for client in &mut clients {
            relay.allocate(client);
        }
        assert_eq!(relay.allocations.iter().map(|id| id.0).collect::<Vec<_>>(), [0, 1, 2]);
        for client in &mut clients {
            relay.refresh(client, 0).expect_success(client);
        }
    }
    relay.shut_down();
}
