//! Relayed transport addresses that are kept for a user: it gets them, and nobody else ever does.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hairpin_proto::address::{AddressFamily, RelayedAddr, Transport};
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, AddressErrorCode, EvenPort, RequestedAddressFamily, ReservationToken,
};
use hairpin_proto::turn::{
    Answer as Told, BindRequest, Cause, Credentials, EndReason, Grant, PortStripe, Settings, User,
};

use crate::directory::user;
use crate::harness::{Answer, Client, Event, RELAY_V4, Relay, SECRET, TCP, UDP, config_with, realm, socket};

const AT: &str = "203.0.113.7:41000";
const ELSEWHERE: &str = "203.0.113.7:41001";
const THIRD: &str = "203.0.113.7:41002";
const RESERVED: std::ops::RangeInclusive<u16> = 50_000..=50_009;
/// Kept addresses, as the world knows them.
const ODD: &str = "198.51.100.15:50001";
const EVEN: &str = "198.51.100.15:50002";
const BEHIND_EVEN: &str = "198.51.100.15:50003";
const V6: &str = "[2001:db8::15]:50001";
const PAIR: EvenPort = EvenPort { reserve_next: true };
const SINGLE: EvenPort = EvenPort { reserve_next: false };

fn sockets(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses.iter().map(|address| socket(address)).collect()
}

fn keep(settings: &mut Settings, addresses: &[&str]) {
    settings.reserved_ports = Some(RESERVED);
    settings.tcp_relay = true;
    let credentials = &mut realm(settings).credentials;
    credentials.grant("alice", Grant { addresses: sockets(addresses), allocations: None });
    credentials.add_user("alice", "sesame");
}

/// These are kept for Alice.
fn kept(addresses: &[&str]) -> Relay {
    Relay::new(config_with(|settings| keep(settings, addresses)))
}

fn allocate(relay: &mut Relay, at: &str) -> Vec<SocketAddr> {
    let mut client = Client::alice(at);
    let answer = relay.try_allocate(&mut client);
    answer.expect_success(&client);
    answer.relayed()
}

fn even(relay: &mut Relay, client: &mut Client, even: EvenPort) -> Answer {
    relay.request(client, Method::ALLOCATE, |request| request.with(&UDP).with(&even))
}

fn dual(relay: &mut Relay, client: &mut Client) -> Answer {
    let both = AdditionalAddressFamily(Ok(AddressFamily::V6));
    relay.request(client, Method::ALLOCATE, |request| request.with(&UDP).with(&both))
}

#[track_caller]
fn expect_none(relay: &mut Relay, at: &str, cause: Cause) {
    let mut client = Client::alice(at);
    let answer = relay.try_allocate(&mut client);
    expect_no_room(relay, &answer, cause);
}

/// There is no address, whatever was tried.
#[track_caller]
fn expect_no_room(relay: &Relay, answer: &Answer, cause: Cause) {
    assert_eq!((answer.code(), relay.last_cause()), (508, cause));
    assert!(answer.events.iter().all(|event| matches!(event, Event::Bind(..))), "{answer:?}");
}

fn ports_in_use(relay: &Relay) -> usize {
    relay.server.ports_in_use().iter().map(|(_, ports)| ports).sum()
}

#[test]
fn a_user_gets_its_address_each_time() {
    let mut relay = kept(&[ODD]);
    for _ in 0..3 {
        let mut client = Client::alice(AT);
        let id = relay.allocate(&mut client);
        assert_eq!(relay.sockets[&id], RelayedAddr::new(socket("192.0.2.15:50001")), "behind the NAT");
        relay.refresh(&mut client, 0).expect_success(&client);
    }
    assert_eq!(allocate(&mut relay, AT), sockets(&[ODD]), "as the world sees it");
    relay.shut_down();
}

#[test]
fn an_address_that_is_free_again_is_given_again() {
    let ends: [fn(&mut Relay, &Client); 4] = [
        |relay, _| drop(relay.pass(600)),
        |relay, _| {
            let id = *relay.allocations.first().unwrap();
            relay.server.close_allocation(relay.now, id, EndReason::Closed);
            relay.drain();
        },
        |relay, client| {
            relay.server.client_lost(relay.now, &client.five_tuple);
            relay.drain();
        },
        |relay, _| {
            let id = *relay.sockets.keys().next().unwrap();
            relay.server.relay_failed(relay.now, id);
            relay.drain();
        },
    ];
    for end in ends {
        let mut relay = kept(&[ODD]);
        let mut client = Client::alice(AT).over(Transport::Tcp);
        relay.allocate(&mut client);
        expect_none(&mut relay, ELSEWHERE, Cause::AddressInUse);
        end(&mut relay, &client);
        assert_eq!(ports_in_use(&relay), 0);
        assert_eq!(allocate(&mut relay, ELSEWHERE), sockets(&[ODD]));
        relay.shut_down();
    }
}

#[test]
fn nobody_else_ever_gets_a_reserved_port() {
    for parity in [None, Some(SINGLE), Some(PAIR)] {
        let mut config = config_with(|settings| {
            keep(settings, &["198.51.100.15:52001"]);
            settings.reserved_ports = Some(51_001..=53_999);
        });
        config.ports = PortStripe::new(50_000..=53_999, 0, 1);
        let mut relay = Relay::new(config);
        let mut given = BTreeSet::new();
        let mut ask = |relay: &mut Relay, number: usize| {
            let at = format!("203.0.{}.{}:4000", number / 250, number % 250);
            let (username, password) = Credentials::mint(SECRET, "bob", relay.now.unix + 60);
            let mut client = Client::new(&at, &username, &password);
            let answer =
                relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with_option(parity.as_ref()));
            given.extend(answer.relayed().iter().map(SocketAddr::port));
            answer.code()
        };
        let codes: Vec<_> = (0..1100).map(|number| ask(&mut relay, number)).collect();
        let given: Vec<_> = given.into_iter().collect();
        let expected: Vec<u16> = match parity {
            None => (50_000..=51_000).collect(),
            Some(SINGLE) => (50_000..=51_000).step_by(2).collect(),
            Some(PAIR) => (50_000..=50_999).step_by(2).collect(),
        };
        assert_eq!(given, expected, "all that are not reserved, and no other");
        assert!(relay.reserved.values().all(|reserved| reserved.port() <= 51_000));
        assert_eq!(codes.iter().filter(|code| **code == 200).count(), expected.len());
        assert_eq!(relay.last_cause(), Cause::NoPort);
        assert_eq!(allocate(&mut relay, AT), sockets(&["198.51.100.15:52001"]));
        relay.shut_down();
    }
}

#[test]
fn two_addresses_are_given_in_turn() {
    let mut relay = kept(&[BEHIND_EVEN, ODD]);
    let mut first = Client::alice(AT);
    relay.allocate(&mut first);
    assert_eq!(allocate(&mut relay, ELSEWHERE), sockets(&[ODD]));
    expect_none(&mut relay, THIRD, Cause::AddressInUse);
    assert_eq!(ports_in_use(&relay), 2, "those that are refused cost no port");
    relay.refresh(&mut first, 0).expect_success(&first);
    assert_eq!(ports_in_use(&relay), 1);
    assert_eq!(allocate(&mut relay, THIRD), sockets(&[BEHIND_EVEN]));
    relay.shut_down();
}

#[test]
fn an_address_that_somebody_on_the_host_has_is_in_use() {
    let mut relay = kept(&[ODD, BEHIND_EVEN]);
    relay.taken.insert(50_001);
    assert_eq!(allocate(&mut relay, AT), sockets(&[BEHIND_EVEN]));
    expect_none(&mut relay, ELSEWHERE, Cause::AddressInUse);
    relay.taken.clear();
    assert_eq!(allocate(&mut relay, ELSEWHERE), sockets(&[ODD]));
    relay.broken.insert(RELAY_V4.parse().unwrap());
    let mut relay = kept(&[ODD]);
    relay.broken.insert(RELAY_V4.parse().unwrap());
    expect_none(&mut relay, AT, Cause::NoSocket);
    relay.shut_down();
}

#[test]
fn an_address_that_is_not_this_relays_or_not_reserved_is_none() {
    for address in [
        "198.51.100.16:50001",
        // The host's own, where the world knows another.
        "192.0.2.15:50001",
        "198.51.100.15:49999",
        "198.51.100.15:50010",
        "198.51.100.15:1",
    ] {
        let mut relay = kept(&[address]);
        expect_none(&mut relay, AT, Cause::AddressNotHere);
        relay.shut_down();
        // One that is here comes to its turn.
        assert_eq!(allocate(&mut kept(&[address, ODD]), AT), sockets(&[ODD]));
        let mut busy = kept(&[ODD, address]);
        busy.taken.insert(50_001);
        expect_none(&mut busy, AT, Cause::AddressInUse);
    }
    let mut nothing_reserved = Relay::new(config_with(|settings| {
        keep(settings, &[ODD]);
        settings.reserved_ports = None;
    }));
    expect_none(&mut nothing_reserved, AT, Cause::AddressNotHere);
    let mut elsewhere = Relay::new(config_with(|settings| {
        keep(settings, &["198.51.100.15:40001"]);
        settings.reserved_ports = Some(40_000..=50_000);
    }));
    expect_none(&mut elsewhere, AT, Cause::AddressNotHere);
}

#[test]
fn each_family_has_its_own() {
    let v6 = RequestedAddressFamily(Ok(AddressFamily::V6));
    let mut relay = kept(&[ODD, V6]);
    let mut client = Client::alice(AT);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&v6));
    assert_eq!(answer.relayed(), sockets(&[V6]));
    assert_eq!(allocate(&mut relay, ELSEWHERE), sockets(&[ODD]));
    relay.shut_down();

    let mut client = Client::alice(AT);
    assert_eq!(dual(&mut kept(&[V6, ODD]), &mut client).relayed(), sockets(&[ODD, V6]));
    for (only, at) in [(ODD, 0), (V6, 1)] {
        let mut relay = kept(&[only]);
        let relayed = dual(&mut relay, &mut Client::alice(AT)).relayed();
        assert_eq!(relayed[at], socket(only));
        assert!(!RESERVED.contains(&relayed[1 - at].port()), "of the other family, one that is for all");
        relay.shut_down();
    }
    let mut relay = kept(&[V6]);
    assert!(!RESERVED.contains(&allocate(&mut relay, AT)[0].port()));
}

#[test]
fn of_two_families_one_may_be_in_use() {
    let mut relay = kept(&[ODD, V6]);
    let mut client = Client::alice(AT);
    relay.allocate(&mut client);
    let mut client = Client::alice(ELSEWHERE);
    let answer = dual(&mut relay, &mut client);
    answer.expect_success(&client);
    assert_eq!(answer.relayed(), sockets(&[V6]));
    let error: AddressErrorCode = answer.message().attribute().unwrap().expect("it is told of the other");
    assert_eq!((error.family, error.code.number()), (AddressFamily::V4, 508));
    assert_eq!(ports_in_use(&relay), 2);
    relay.shut_down();
}

#[test]
fn an_even_port_has_to_be_among_them() {
    let mut relay = kept(&[ODD, EVEN]);
    let mut client = Client::alice(AT);
    assert_eq!(even(&mut relay, &mut client, SINGLE).relayed(), sockets(&[EVEN]));
    let mut client = Client::alice(ELSEWHERE);
    let answer = even(&mut relay, &mut client, SINGLE);
    expect_no_room(&relay, &answer, Cause::AddressInUse);
    assert_eq!(ports_in_use(&relay), 1);
    relay.shut_down();
}

#[test]
fn a_pair_is_two_addresses_of_the_user() {
    for addresses in [[EVEN, BEHIND_EVEN], [BEHIND_EVEN, EVEN]] {
        let mut relay = kept(&addresses);
        let (mut rtp, mut rtcp) = (Client::alice(AT), Client::alice(ELSEWHERE));
        let answer = even(&mut relay, &mut rtp, PAIR);
        answer.expect_success(&rtp);
        assert_eq!(answer.relayed(), sockets(&[EVEN]), "{addresses:?}");
        assert_eq!(ports_in_use(&relay), 2);
        expect_none(&mut relay, THIRD, Cause::AddressInUse);
        assert_eq!(ports_in_use(&relay), 2);
        let token: ReservationToken = answer.token().expect("the next port is reserved");
        let answer = relay.request(&mut rtcp, Method::ALLOCATE, |request| request.with(&UDP).with(&token));
        answer.expect_success(&rtcp);
        assert_eq!(answer.relayed(), sockets(&[BEHIND_EVEN]));
        relay.refresh(&mut rtcp, 0).expect_success(&rtcp);
        assert_eq!(ports_in_use(&relay), 1);
        relay.shut_down();
    }
}

#[test]
fn a_pair_of_which_one_is_not_the_users_or_in_use_is_none() {
    for addresses in [&[EVEN][..], &[BEHIND_EVEN], &[ODD, EVEN], &["198.51.100.15:50009"], &[EVEN, V6]] {
        let mut relay = kept(addresses);
        let mut client = Client::alice(AT);
        let answer = even(&mut relay, &mut client, PAIR);
        expect_no_room(&relay, &answer, Cause::AddressInUse);
        assert_eq!((ports_in_use(&relay), relay.quotas.in_use()), (0, 0));
    }
    for at in [50_002, 50_003] {
        let mut relay = kept(&[EVEN, BEHIND_EVEN]);
        relay.taken.insert(at);
        let mut client = Client::alice(AT);
        let answer = even(&mut relay, &mut client, PAIR);
        expect_no_room(&relay, &answer, Cause::AddressInUse);
        assert_eq!((ports_in_use(&relay), relay.quotas.in_use()), (0, 0));
        relay.taken.clear();
        even(&mut relay, &mut client, PAIR).expect_success(&client);
        relay.shut_down();
    }
}

#[test]
fn a_pair_that_is_not_redeemed_is_free_again() {
    let mut relay = kept(&[EVEN, BEHIND_EVEN]);
    let mut client = Client::alice(AT);
    even(&mut relay, &mut client, PAIR).expect_success(&client);
    relay.pass(30);
    assert_eq!(allocate(&mut relay, ELSEWHERE), sockets(&[BEHIND_EVEN]));
    relay.shut_down();
}

#[test]
fn a_relayed_address_of_tcp_is_one_of_them_too() {
    let mut relay = kept(&[ODD]);
    let mut client = Client::alice(AT).over(Transport::Tcp);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP));
    answer.expect_success(&client);
    assert_eq!(answer.relayed(), sockets(&[ODD]));
    let asked = answer.events.iter().any(|event| matches!(event, Event::Bind(_, BindRequest::Stream(_))));
    assert!(asked, "{:?}", answer.events);
    relay.shut_down();
}

#[test]
fn other_settings_leave_what_runs() {
    let mut relay = kept(&[ODD]);
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    relay.change(|settings| settings.reserved_ports = Some(RESERVED));
    relay.refresh(&mut client, 600).expect_success(&client);
    assert_eq!(relay.sockets[&id].port(), 50_001);
    let other = allocate(&mut relay, ELSEWHERE);
    assert!(!RESERVED.contains(&other[0].port()), "it is no longer kept for her");
    relay.change(|_| ());
    relay.refresh(&mut client, 0).expect_success(&client);
    relay.change(|settings| keep(settings, &[BEHIND_EVEN]));
    assert_eq!(allocate(&mut relay, AT), sockets(&[BEHIND_EVEN]));
    relay.shut_down();
}

#[test]
fn what_others_tell_of_a_user_may_grant_an_address_too() {
    let mut relay = Relay::new(config_with(|settings| {
        settings.reserved_ports = Some(RESERVED);
        (realm(settings).asks_for_users, realm(settings).asks_for_admission) = (true, true);
    }));
    let grant = |address: &str| Grant { addresses: sockets(&[address]), allocations: None };
    for (at, told, expected) in [(AT, grant(EVEN), EVEN), (ELSEWHERE, Grant::default(), ODD)] {
        let mut client = Client::new(at, "carol", "mellon");
        let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
        let question = relay.asks(&client, &request);
        let found = Told::User(User { grant: grant(ODD), ..user("carol", "mellon") });
        let question = relay.told_and_asks(&client, &request, question, found);
        let answer = relay.told(&client, &request, question, Told::Admitted(told));
        assert_eq!(answer.relayed(), sockets(&[expected]));
        relay.pass(60);
    }
    relay.shut_down();
}

#[test]
fn what_others_tell_is_no_way_to_an_address_that_is_kept_for_somebody_else() {
    let mut relay = Relay::new(config_with(|settings| {
        keep(settings, &[EVEN]);
        realm(settings).asks_for_users = true;
        realm(settings).credentials.grant("carol", Grant { addresses: sockets(&[ODD]), allocations: None });
    }));
    for (address, name, code) in [(EVEN, "erin", 508), (ODD, "carol", 200), (BEHIND_EVEN, "dave", 200)] {
        let mut client = Client::new(ELSEWHERE, name, "mellon");
        let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
        let question = relay.asks(&client, &request);
        let grant = Grant { addresses: sockets(&[address]), allocations: None };
        let found = Told::User(User { grant, ..user(name, "mellon") });
        assert_eq!(relay.told(&client, &request, question, found).code(), code, "{name}");
        relay.refresh(&mut client, 0);
    }
    assert_eq!(relay.refusals[0].cause, Cause::AddressNotHere);
    assert_eq!(allocate(&mut relay, AT), sockets(&[EVEN]));
    relay.shut_down();
}
