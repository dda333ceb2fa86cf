//! Refresh (RFC 8656 section 8).

use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{Lifetime, RequestedAddressFamily};
use hairpin_proto::turn::{EndReason, Scope};

use crate::harness::{Client, Event, Relay, UDP, channel, permission};

const AT: &str = "203.0.113.7:41000";

#[test]
fn a_refresh_moves_the_end() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.allocate(&mut client);
    relay.pass(500);
    for (asked, granted) in [(None, 600), (Some(1), 600), (Some(1200), 1200), (Some(99_999), 3600), (Some(600), 600)] {
        let lifetime = asked.map(Lifetime);
        let answer = relay.request(&mut client, Method::REFRESH, |request| request.with_option(lifetime.as_ref()));
        answer.expect_success(&client);
        assert_eq!(answer.lifetime(), granted);
        assert_eq!(relay.server.poll_timeout(), Some(relay.at(u64::from(granted))), "also to an earlier time");
    }
}

#[test]
fn a_lifetime_of_zero_frees_everything_at_once() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    relay.bind_channel(&mut client, 0x4000, "8.8.8.8:53").expect_success(&client);
    relay.permit(&mut client, &["8.8.4.4:53"]).expect_success(&client);
    let answer = relay.refresh(&mut client, 0);
    answer.expect_success(&client);
    assert_eq!(answer.lifetime(), 0);
    let [Event::Remove(first), .., Event::Remove(last), Event::Close(closed), Event::Freed(allocation, reason)] =
        answer.events[..]
    else {
        panic!("{answer:?}");
    };
    assert_eq!((first.scope, last.scope), (channel(0x4000, "8.8.8.8:53"), Scope::Relay));
    assert_eq!((last.allocation, closed, reason), (allocation, id, EndReason::Refreshed));
    assert_eq!((answer.events.len(), relay.flows.len()), (6, 0), "a channel, two permissions, a relayed address");
    assert_eq!(relay.server.poll_timeout(), None);
    assert_eq!(relay.quotas.in_use(), 0);
}

#[test]
fn there_must_be_something_to_refresh() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.refresh(&mut client, 600).expect_error(&client, 437);
    relay.refresh(&mut client, 0).expect_error(&client, 437);
}

#[test]
fn a_family_that_the_allocation_has_not_is_a_mismatch() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP)).expect_success(&client);
    for (family, code) in [(Ok(AddressFamily::V4), 200), (Ok(AddressFamily::V6), 443), (Err(9), 443)] {
        let family = RequestedAddressFamily(family);
        let answer = relay.request(&mut client, Method::REFRESH, |request| request.with(&family));
        assert_eq!(answer.code(), code, "{family:?}");
    }
    let v6 = RequestedAddressFamily(Ok(AddressFamily::V6));
    relay
        .request(&mut client, Method::REFRESH, |request| request.with(&Lifetime(0)).with(&v6))
        .expect_error(&client, 443);
    assert_eq!(relay.server.allocations(), 1);
}

#[test]
fn every_refresh_tells_the_fast_path_its_new_end() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    relay.pass(400);
    let answer = relay.bind_channel(&mut client, 0x4000, "8.8.8.8:53");
    let [relayed, permission, channel] = [Scope::Relay, permission("8.8.8.8:53"), channel(0x4000, "8.8.8.8:53")]
        .map(|scope| relay.flow(&client, id, scope));
    let end = relay.at(200);
    let expected = [Event::Install(permission, end), Event::Install(channel, end)];
    assert_eq!(answer.events, expected, "the allocation ends first");
    let answer = relay.refresh(&mut client, 600);
    let (of_relay, end) = (relay.at(600), relay.at(300));
    let expected = [Event::Install(relayed, of_relay), Event::Install(permission, end), Event::Install(channel, end)];
    assert_eq!(answer.events, expected, "now the permission does");
    relay.pass(100);
    let expected = [Event::Install(relayed, relay.at(600))];
    assert_eq!(relay.refresh(&mut client, 600).events, expected, "it still does");
}
