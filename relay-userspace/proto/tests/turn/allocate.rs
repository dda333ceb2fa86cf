//! Allocate, RFC 8656 section 7.2: what is granted, and in which words it is refused.

use std::time::Duration;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, Attribute, AttributeError, DontFragment, EvenPort, Lifetime, RequestedAddressFamily,
    RequestedTransport, ReservationToken, Software, XorMappedAddress,
};
use hairpin_proto::stun::{Method, TransactionId};
use hairpin_proto::turn::{BindRequest, PortStripe, Scope};

use crate::harness::{Client, Event, PUBLIC_V4, RELAY_V4, RELAY_V6, Relay, UDP, config, realm, socket};

const AT: &str = "203.0.113.7:41000";
const V4: RequestedAddressFamily = RequestedAddressFamily(Ok(AddressFamily::V4));
const V6: RequestedAddressFamily = RequestedAddressFamily(Ok(AddressFamily::V6));
const DUAL: AdditionalAddressFamily = AdditionalAddressFamily(Ok(AddressFamily::V6));
const EVEN: EvenPort = EvenPort { reserve_next: false };
const PAIR: EvenPort = EvenPort { reserve_next: true };

#[test]
fn an_allocation_is_told_with_its_public_address() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    answer.expect_success(&client);
    let [Event::Bind(id, BindRequest::Port(bound)), Event::Allocated(_), Event::Install(flow, end)] = answer.events[..]
    else {
        panic!("{answer:?}");
    };
    assert_eq!((flow, end), (relay.flow(&client, id, Scope::Relay), relay.at(600)));
    assert_eq!(relay.sockets[&id], bound);
    assert_eq!(bound.ip().to_string(), RELAY_V4);
    assert!(bound.port() >= 49_152);
    assert_eq!(answer.relayed(), [socket(&format!("{PUBLIC_V4}:{}", bound.port()))]);
    assert_eq!(answer.message().attribute(), Ok(Some(XorMappedAddress(socket(AT)))));
    assert_eq!(answer.message().attribute(), Ok(Some(Software("hairpin test"))));
    assert_eq!((answer.lifetime(), answer.token()), (600, None));
    assert_eq!(relay.server.allocations(), 1);
}

#[test]
fn lifetimes_are_clamped() {
    for (asked, granted) in
        [(0, 600), (1, 600), (600, 600), (1800, 1800), (3600, 3600), (86_400, 3600), (u32::MAX, 3600)]
    {
        let mut relay = Relay::default();
        let mut client = Client::alice(AT);
        let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&Lifetime(asked)));
        assert_eq!(answer.lifetime(), granted, "asked for {asked}");
        assert_eq!(relay.server.poll_timeout(), Some(relay.at(u64::from(granted))));
    }
}

#[test]
fn ports_cannot_be_foretold() {
    let mut relay = Relay::default();
    let ports: Vec<u16> = (0..20)
        .map(|port| {
            let id = relay.allocate(&mut Client::alice(&format!("203.0.113.7:{}", 41_000 + port)));
            relay.sockets[&id].port()
        })
        .collect();
    let steps: std::collections::BTreeSet<u16> = ports.windows(2).map(|two| two[1].wrapping_sub(two[0])).collect();
    assert!(steps.len() > 15, "{ports:?}");
}

#[test]
fn a_five_tuple_has_one_allocation() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.allocate(&mut client);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP)).expect_error(&client, 437);
    let mut other_server = Client::alice(AT);
    other_server.five_tuple.server = hairpin_proto::address::ServerAddr::new(socket("192.0.2.15:3479"));
    relay.allocate(&mut other_server);
    relay.refresh(&mut client, 0).expect_success(&client);
    relay.allocate(&mut client);
}

#[test]
fn the_transport_must_be_named_and_be_udp() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.request(&mut client, Method::ALLOCATE, |request| request).expect_error(&client, 400);
    let tcp = RequestedTransport(6);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&tcp)).expect_error(&client, 442);
}

/// An attribute whose value is too long for every type.
struct Malformed<const KIND: u16>;

impl<const KIND: u16> Attribute<'_> for Malformed<KIND> {
    const TYPE: u16 = KIND;

    fn decode(_: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
        Ok(Self)
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(&[0xff; 21]);
    }
}

#[test]
fn attributes_without_sense_make_a_bad_request() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.request(&mut client, Method::ALLOCATE, |r| r.with(&Malformed::<0x0019>)).expect_error(&client, 400);
    relay
        .request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&Malformed::<0x000d>))
        .expect_error(&client, 400);
    relay
        .request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&Malformed::<0x0017>))
        .expect_error(&client, 400);
    relay
        .request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&Malformed::<0x0018>))
        .expect_error(&client, 400);
    relay
        .request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&Malformed::<0x001a>))
        .expect_error(&client, 400);
    relay
        .request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&Malformed::<0x0022>))
        .expect_error(&client, 400);
    relay
        .request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&Malformed::<0x8000>))
        .expect_error(&client, 400);
    assert_eq!(relay.quotas.in_use(), 0);
}

#[test]
fn either_family_is_relayed_from_whichever_the_client_uses() {
    for at in [AT, "[2001:db8::7]:41000"] {
        let mut relay = Relay::default();
        let mut client = Client::alice(at);
        for (family, ip) in [(&V4, PUBLIC_V4), (&V6, RELAY_V6)] {
            let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(family));
            answer.expect_success(&client);
            assert_eq!(answer.relayed().iter().map(|a| a.ip().to_string()).collect::<Vec<_>>(), [ip]);
            relay.refresh(&mut client, 0).expect_success(&client);
        }
    }
}

#[test]
fn a_family_that_is_not_served_is_refused_also_when_it_is_the_default() {
    let mut v6_only = config();
    v6_only.settings.relay_addresses.remove(0);
    let mut relay = Relay::new(v6_only);
    let mut client = Client::alice(AT);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP)).expect_error(&client, 440);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&V4)).expect_error(&client, 440);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&DUAL)).expect_error(&client, 440);
    let unheard_of = RequestedAddressFamily(Err(3));
    relay
        .request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&unheard_of))
        .expect_error(&client, 440);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&V6)).expect_success(&client);
}

#[test]
fn what_excludes_each_other_makes_a_bad_request() {
    let token = ReservationToken([1; 8]);
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&token).with(&EVEN)).expect_error(&client, 400);
    relay.request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&token).with(&V4)).expect_error(&client, 400);
    relay.request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&token).with(&DUAL)).expect_error(&client, 400);
    relay.request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&V4).with(&DUAL)).expect_error(&client, 400);
    relay.request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&PAIR).with(&DUAL)).expect_error(&client, 400);
    let additional_v4 = AdditionalAddressFamily(Ok(AddressFamily::V4));
    relay.request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&additional_v4)).expect_error(&client, 400);
    let unheard_of = AdditionalAddressFamily(Err(3));
    relay.request(&mut client, Method::ALLOCATE, |r| r.with(&UDP).with(&unheard_of)).expect_error(&client, 400);
    assert_eq!(relay.quotas.in_use(), 0);
}

#[test]
fn dont_fragment_is_served() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay
        .request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&DontFragment))
        .expect_success(&client);
}

#[test]
fn an_even_port_is_even() {
    let mut relay = Relay::default();
    for at in 0..20 {
        let mut client = Client::alice(&format!("203.0.113.7:{}", 41_000 + at));
        let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&EVEN));
        answer.expect_success(&client);
        assert_eq!(relay.sockets[&answer.bound()].port() % 2, 0);
        assert_eq!(answer.token(), None);
    }
}

#[test]
fn the_next_port_is_kept_for_whoever_brings_the_token() {
    let mut relay = Relay::default();
    let mut rtp = Client::alice(AT);
    let answer = relay.request(&mut rtp, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR));
    answer.expect_success(&rtp);
    let token = answer.token().expect("a port is reserved");
    let even = relay.sockets[&answer.bound()];
    let [Event::Bind(_, BindRequest::Pair(asked, asked_token)), Event::Allocated(_), Event::Install(..)] =
        answer.events[..]
    else {
        panic!("{answer:?}");
    };
    assert_eq!((asked, asked_token), (even, token));

    relay.sleep(29);
    let mut rtcp = Client::alice("203.0.113.7:41001");
    let answer = relay.request(&mut rtcp, Method::ALLOCATE, |request| request.with(&UDP).with(&token));
    answer.expect_success(&rtcp);
    assert_eq!(answer.relayed(), [socket(&format!("{PUBLIC_V4}:{}", even.port() + 1))]);
    assert_eq!(answer.token(), None);
    assert_eq!(relay.pass(60), [], "what was redeemed is not dropped");

    let mut late = Client::alice("203.0.113.7:41002");
    let answer = relay.request(&mut late, Method::ALLOCATE, |request| request.with(&UDP).with(&token));
    assert_eq!(answer.code(), 508, "a token is good once");
    relay.shut_down();
}

#[test]
fn a_token_that_another_user_redeems_is_charged_to_that_user_alone() {
    let mut relay = Relay::default();
    let mut alice = Client::alice(AT);
    let answer = relay.request(&mut alice, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR));
    let token = answer.token().unwrap();
    assert_eq!(relay.quotas.in_use(), 2);
    let mut bob = Client::new("203.0.113.7:41001", "bob", "hunter2");
    let answer = relay.request(&mut bob, Method::ALLOCATE, |request| request.with(&UDP).with(&token));
    answer.expect_success(&bob);
    assert_eq!(relay.quotas.in_use(), 2, "one allocation each");
    relay.shut_down();
    assert_eq!(relay.quotas.in_use(), 0);
}

#[test]
fn a_reserved_port_is_dropped_after_thirty_seconds() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR));
    let token = answer.token().unwrap();
    assert_eq!(relay.quotas.in_use(), 2, "a reserved port counts");
    assert_eq!(relay.pass(29), []);
    assert_eq!(relay.pass(1), [Event::DropReservation(token)]);
    assert_eq!(relay.quotas.in_use(), 1);
    relay.shut_down();
}

#[test]
fn a_token_may_be_redeemed_at_another_shard() {
    let mut relay = Relay::default();
    let mut other = Relay::new(crate::harness::config());
    other.now = relay.now;
    let mut rtp = Client::alice(AT);
    let answer = relay.request(&mut rtp, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR));
    let token = answer.token().unwrap();
    let odd = relay.reserved.remove(&token).unwrap();
    other.reserved.insert(token, odd);

    let mut rtcp = Client::alice("203.0.113.7:41001");
    let answer = other.request(&mut rtcp, Method::ALLOCATE, |request| request.with(&UDP).with(&token));
    assert_eq!(other.sockets[&answer.bound()], odd);
    assert_eq!(relay.pass(30), [Event::DropReservation(token)], "nobody took it here, the driver knows better");
    relay.shut_down();
    other.shut_down();
}

#[test]
fn a_token_that_nobody_has_given_is_refused() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let token = ReservationToken([1; 8]);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&token));
    assert_eq!(answer.code(), 508);
    assert!(answer.message().verify_integrity(&client.key));
    assert_eq!(relay.server.allocations(), 0);
    relay.allocate(&mut client);
    relay.shut_down();
}

#[test]
fn a_user_has_no_more_allocations_than_its_quota() {
    let mut config = config();
    realm(&mut config.settings).allocations_per_user = 2;
    let mut relay = Relay::new(config);
    let mut clients: Vec<Client> = (1..=3).map(|port| Client::alice(&format!("203.0.113.7:{port}"))).collect();
    relay.allocate(&mut clients[0]);
    relay.allocate(&mut clients[1]);
    let third = &mut clients[2];
    relay.request(third, Method::ALLOCATE, |request| request.with(&UDP)).expect_error(third, 486);
    relay.allocate(&mut Client::new("203.0.113.7:4", "bob", "hunter2"));
    relay.refresh(&mut clients[0], 0);
    relay
        .request(&mut clients[2], Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR))
        .expect_error(&clients[2], 486);
    relay.allocate(&mut clients[2]);
    relay.shut_down();
}

#[test]
fn a_pair_fits_into_a_quota_of_two() {
    let mut config = config();
    realm(&mut config.settings).allocations_per_user = 2;
    let mut relay = Relay::new(config);
    let mut rtp = Client::alice(AT);
    let token = relay.request(&mut rtp, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR)).token().unwrap();
    let mut rtcp = Client::alice("203.0.113.7:41001");
    relay.request(&mut rtcp, Method::ALLOCATE, |request| request.with(&UDP).with(&token)).expect_success(&rtcp);
    assert_eq!(relay.quotas.in_use(), 2);
    relay.shut_down();
}

#[test]
fn a_server_has_no_more_allocations_than_its_limit() {
    let mut config = config();
    config.settings.limits.allocations = 1;
    let mut relay = Relay::new(config);
    relay.allocate(&mut Client::alice(AT));
    let mut second = Client::alice("203.0.113.7:41001");
    relay.request(&mut second, Method::ALLOCATE, |request| request.with(&UDP)).expect_error(&second, 508);
    relay.shut_down();
}

#[test]
fn an_allocation_that_waits_for_its_socket_counts_towards_the_limit() {
    let mut config = config();
    config.settings.limits.allocations = 1;
    let mut relay = Relay::new(config);
    relay.binds = false;
    let mut first = Client::alice(AT);
    let request = relay.signed(&mut first, Method::ALLOCATE, |request| request.with(&UDP));
    assert!(matches!(relay.control(&first, &request)[..], [Event::Bind(..)]));
    let mut second = Client::alice("203.0.113.7:41001");
    relay.request(&mut second, Method::ALLOCATE, |request| request.with(&UDP)).expect_error(&second, 508);
    relay.answer_bind(0, None);
    assert!(matches!(relay.drain()[..], [Event::Allocated(_), Event::Install(..), Event::Response(_)]));
    relay.shut_down();
}

#[test]
fn without_a_free_port_there_is_no_capacity() {
    let mut config = config();
    config.ports = PortStripe::new(50_001..=50_003, 0, 1);
    let mut relay = Relay::new(config);
    let mut pair = Client::alice("203.0.113.7:1");
    let answer = relay.request(&mut pair, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR));
    assert_eq!(relay.sockets[&answer.bound()].port(), 50_002);
    relay.allocate(&mut Client::alice("203.0.113.7:2"));
    for attributes in [None, Some(&EVEN), Some(&PAIR)] {
        let mut client = Client::alice("203.0.113.7:3");
        let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with_option(attributes));
        answer.expect_error(&client, 508);
    }
    relay.pass(30);
    relay.allocate(&mut Client::alice("203.0.113.7:3"));
    relay.shut_down();
}

#[test]
fn an_allocation_ends_with_its_lifetime() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    assert_eq!(relay.pass(599), []);
    let events = relay.pass(1);
    let [Event::Remove(_), Event::Close(closed), Event::Freed(..)] = events[..] else { panic!("{events:?}") };
    assert_eq!(closed, id);
    client.nonce.clear();
    relay.refresh(&mut client, 600).expect_error(&client, 437);
    relay.allocate(&mut client);
}

#[test]
fn a_request_finds_nothing_that_is_over_even_if_the_timer_is_late() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    relay.now.instant += Duration::from_secs(600);
    let answer = relay.refresh(&mut client, 600);
    assert_eq!(answer.code(), 437);
    assert_eq!(answer.events[1], Event::Close(id));
}

#[test]
fn who_comes_through_a_tunnel_gets_no_allocation() {
    let mut relay = Relay::default();
    for at in ["[2001:0:cb00:7107::1]:41000", "[2002:cb00:7107::1]:41000"] {
        let mut client = Client::alice(at);
        relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP)).expect_error(&client, 403);
    }
    relay.allocate(&mut Client::alice("[2001:db8::7]:41000"));
    relay.allocate(&mut Client::alice("[2001:1::7]:41000"));
}

#[test]
fn no_two_allocations_have_the_same_relayed_address() {
    let mut config = config();
    config.ports = PortStripe::new(50_000..=50_031, 0, 1);
    let mut relay = Relay::new(config);
    let mut told = std::collections::BTreeSet::new();
    for port in 1..=32 {
        let mut client = Client::alice(&format!("203.0.113.7:{port}"));
        let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&DUAL));
        answer.expect_success(&client);
        assert!(answer.relayed().into_iter().all(|address| told.insert(address)), "{answer:?}");
    }
    assert_eq!(told.len(), 64);
}
