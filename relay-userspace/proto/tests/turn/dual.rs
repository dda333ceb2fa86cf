//! Allocations of both families (RFC 8656 sections 7.2 and 8).

use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, AdditionalAddressFamilyOfCoturn, AddressErrorCode, EvenPort, Lifetime,
    RequestedAddressFamily,
};
use hairpin_proto::stun::{ErrorCode, Method};
use hairpin_proto::turn::{Discard, RelayId, Scope};

use crate::harness::{
    Answer, Client, Event, PUBLIC_V4, RELAY_V4, RELAY_V6, Relay, UDP, channel, channel_data, config, delivered,
    dropped, permission,
};

const AT: &str = "203.0.113.7:41000";
const DUAL: AdditionalAddressFamily = AdditionalAddressFamily(Ok(AddressFamily::V6));
const V4: RequestedAddressFamily = RequestedAddressFamily(Ok(AddressFamily::V4));
const V6: RequestedAddressFamily = RequestedAddressFamily(Ok(AddressFamily::V6));
const PEER_V4: &str = "8.8.8.8:53";
const PEER_V6: &str = "[2001:db8::53]:53";

fn allocate_dual(relay: &mut Relay, client: &mut Client) -> Answer {
    relay.request(client, Method::ALLOCATE, |request| request.with(&UDP).with(&DUAL))
}

fn of_family(relay: &Relay, ip: &str) -> RelayId {
    *relay.sockets.iter().find(|(_, address)| address.ip().to_string() == ip).expect("a socket of this address").0
}

/// A dual allocation with a channel in each family.
fn two_channels() -> (Relay, Client, RelayId, RelayId) {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    allocate_dual(&mut relay, &mut client).expect_success(&client);
    relay.bind_channel(&mut client, 0x4000, PEER_V4).expect_success(&client);
    relay.bind_channel(&mut client, 0x4001, PEER_V6).expect_success(&client);
    let (v4, v6) = (of_family(&relay, RELAY_V4), of_family(&relay, RELAY_V6));
    (relay, client, v4, v6)
}

#[test]
fn both_families_are_told_ipv4_first() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let answer = allocate_dual(&mut relay, &mut client);
    answer.expect_success(&client);
    let ips: Vec<_> = answer.relayed().iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(ips, [PUBLIC_V4, RELAY_V6]);
    assert_eq!(answer.message().attribute::<AddressErrorCode>(), Ok(None));
    assert_eq!((relay.server.allocations(), relay.sockets.len(), relay.quotas.in_use()), (1, 2, 1));
    relay.shut_down();
}

/// Who asks by the other number refreshes one family or the other, and gives up at 443.
#[test]
fn both_families_are_had_by_the_number_of_coturn_too() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let dual = AdditionalAddressFamilyOfCoturn(Ok(AddressFamily::V6));
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&dual));
    answer.expect_success(&client);
    let ips: Vec<_> = answer.relayed().iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(ips, [PUBLIC_V4, RELAY_V6]);
    for family in [V4, V6] {
        relay.request(&mut client, Method::REFRESH, |request| request.with(&family)).expect_success(&client);
    }
    relay.shut_down();
}

#[test]
fn even_ports_are_given_in_both_families() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let even = EvenPort { reserve_next: false };
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&DUAL).with(&even));
    answer.expect_success(&client);
    assert_eq!(answer.relayed().iter().filter(|address| address.port() % 2 == 0).count(), 2);
}

#[test]
fn half_of_it_is_better_than_nothing() {
    for (broken, family, left) in [(RELAY_V6, AddressFamily::V6, PUBLIC_V4), (RELAY_V4, AddressFamily::V4, RELAY_V6)] {
        let mut relay = Relay::default();
        relay.broken.insert(broken.parse().unwrap());
        let mut client = Client::alice(AT);
        let answer = allocate_dual(&mut relay, &mut client);
        answer.expect_success(&client);
        assert_eq!(answer.relayed().iter().map(|a| a.ip().to_string()).collect::<Vec<_>>(), [left]);
        let error = AddressErrorCode { family, code: ErrorCode::INSUFFICIENT_CAPACITY };
        assert_eq!(answer.message().attribute(), Ok(Some(error)));
        relay.shut_down();
    }
}

#[test]
fn a_server_without_ipv6_says_so_and_allocates_ipv4() {
    let mut config = config();
    config.settings.relay_addresses.truncate(1);
    let mut relay = Relay::new(config);
    let mut client = Client::alice(AT);
    let answer = allocate_dual(&mut relay, &mut client);
    answer.expect_success(&client);
    assert_eq!(answer.relayed().len(), 1);
    let error = AddressErrorCode { family: AddressFamily::V6, code: ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED };
    assert_eq!(answer.message().attribute(), Ok(Some(error)));
    relay.shut_down();
}

#[test]
fn when_neither_family_can_be_had_it_is_an_error() {
    let mut relay = Relay::default();
    relay.broken.extend([RELAY_V4, RELAY_V6].map(|ip| ip.parse::<std::net::IpAddr>().unwrap()));
    let mut client = Client::alice(AT);
    assert_eq!(allocate_dual(&mut relay, &mut client).code(), 508);
    relay.shut_down();
}

#[test]
fn each_family_has_its_own_way() {
    let (mut relay, client, v4, v6) = two_channels();
    assert_eq!(delivered(relay.client_sends(&client, &channel_data(0x4000, b"4"))).0, v4);
    assert_eq!(delivered(relay.client_sends(&client, &channel_data(0x4001, b"6"))).0, v6);
    // A permission is one of the allocation, and its relayed addresses are of one family each.
    assert!(matches!(relay.peer_sends(v4, PEER_V4, b"4"), hairpin_proto::turn::Disposition::Forward(_)));
    assert!(matches!(relay.peer_sends(v6, PEER_V6, b"6"), hairpin_proto::turn::Disposition::Forward(_)));
}

#[test]
fn deleting_one_family_leaves_the_other_untouched() {
    let (mut relay, mut client, v4, v6) = two_channels();
    let flow = |scope| relay.flow(&client, v6, scope);
    let scopes = [channel(0x4001, PEER_V6), permission(PEER_V6), Scope::Relay];
    let mut expected: Vec<_> = scopes.map(|scope| Event::Remove(flow(scope))).to_vec();
    expected.push(Event::Close(v6));
    let answer = relay.request(&mut client, Method::REFRESH, |request| request.with(&Lifetime(0)).with(&V6));
    answer.expect_success(&client);
    assert_eq!(answer.lifetime(), 0);
    assert_eq!(answer.events, expected, "the last first");

    assert_eq!(delivered(relay.client_sends(&client, &channel_data(0x4000, b"4"))).0, v4);
    assert_eq!(relay.client_sends(&client, &channel_data(0x4001, b"6")), dropped(Discard::NoChannel));
    relay.permit(&mut client, &[PEER_V6]).expect_error(&client, 443);
    relay.request(&mut client, Method::REFRESH, |request| request.with(&V6)).expect_error(&client, 443);

    let answer = relay.request(&mut client, Method::REFRESH, |request| request.with(&Lifetime(0)).with(&V4));
    assert!(matches!(answer.events[..], [Event::Remove(_), .., Event::Close(_), Event::Freed(..)]), "{answer:?}");
    assert!(relay.flows.is_empty());
    relay.refresh(&mut client, 600).expect_error(&client, 437);
    relay.shut_down();
}

#[test]
fn a_refresh_of_one_family_lets_the_other_expire() {
    let (mut relay, mut client, v4, v6) = two_channels();
    relay.pass(500);
    let answer = relay.request(&mut client, Method::REFRESH, |request| request.with(&V4));
    answer.expect_success(&client);
    assert_eq!(answer.lifetime(), 600);
    let events = relay.pass(100);
    assert!(events.contains(&Event::Close(v6)) && !events.contains(&Event::Close(v4)), "{events:?}");
    assert_eq!(relay.server.allocations(), 1);
    let events = relay.pass(500);
    assert!(events.contains(&Event::Close(v4)), "{events:?}");
    assert_eq!(relay.server.allocations(), 0);
    relay.shut_down();
}

#[test]
fn a_refresh_without_a_family_is_about_both() {
    let (mut relay, mut client, ..) = two_channels();
    relay.pass(500);
    relay.refresh(&mut client, 1000).expect_success(&client);
    relay.pass(999);
    assert_eq!((relay.server.allocations(), relay.sockets.len()), (1, 2));
    relay.refresh(&mut client, 0).expect_success(&client);
    relay.shut_down();
}

#[test]
fn the_loss_of_one_socket_leaves_the_other_family() {
    let (mut relay, client, v4, v6) = two_channels();
    relay.server.relay_failed(relay.now, v4);
    relay.drain();
    assert_eq!(relay.server.allocations(), 1);
    assert_eq!(delivered(relay.client_sends(&client, &channel_data(0x4001, b"6"))).0, v6);
    relay.shut_down();
}
