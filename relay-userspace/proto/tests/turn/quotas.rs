//! How much each may have: at the limit, over it, and when it is given back, however that comes about.

use hairpin_proto::address::{AddressFamily, Transport};
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{AdditionalAddressFamily, EvenPort, Lifetime, ReservationToken};
use hairpin_proto::turn::{
    BindError, Cause, Credentials, EndReason, Grant, PortStripe, Quotas, RealmUsage, ServerConfig, Settings,
};

use crate::harness::{Answer, Client, Event, REALM, Relay, SECRET, UDP, config_with, realm};
use crate::mobility::mobile_config;

const AT: &str = "203.0.113.7:41000";
const ELSEWHERE: &str = "203.0.113.7:41001";
const THIRD: &str = "203.0.113.7:41002";
const ABROAD: &str = "198.51.100.77:52000";
const PAIR: EvenPort = EvenPort { reserve_next: true };

fn per_user(limit: usize) -> ServerConfig {
    config_with(|settings| realm(settings).allocations_per_user = limit)
}

fn per_source(limit: usize) -> ServerConfig {
    config_with(|settings| settings.limits.allocations_per_source = limit)
}

fn minted(at: &str, name: &str, expires: u64) -> Client {
    let (username, password) = Credentials::mint(SECRET, name, 1_700_000_000 + expires);
    Client::new(at, &username, &password)
}

#[track_caller]
fn expect_full(relay: &mut Relay, mut client: Client, code: u16, cause: Cause) {
    let before = relay.quotas.in_use();
    relay.try_allocate(&mut client).expect_error(&client, code);
    assert_eq!((relay.last_cause(), relay.quotas.in_use()), (cause, before));
}

#[track_caller]
fn expect_nothing(quotas: &Quotas) {
    assert_eq!((quotas.in_use(), quotas.sources(), quotas.usage()), (0, 0, Vec::new()));
}

fn pair(relay: &mut Relay, client: &mut Client) -> Answer {
    relay.request(client, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR))
}

fn redeem(relay: &mut Relay, client: &mut Client, token: ReservationToken) -> Answer {
    relay.request(client, Method::ALLOCATE, |request| request.with(&UDP).with(&token))
}

type End = fn(&mut Relay, &mut Client);

/// Each way that an allocation ends.
const ENDS: [(&str, End); 6] = [
    ("Refresh 0", |relay, client| relay.refresh(client, 0).expect_success(client)),
    ("expiry", |relay, _| drop(relay.pass(600))),
    ("expiry that a request notices", |relay, _| relay.sleep(600)),
    ("the operator", |relay, _| {
        let id = *relay.allocations.first().unwrap();
        relay.server.close_allocation(relay.now, id, EndReason::Closed);
        relay.drain();
    }),
    ("the client's connection", |relay, client| {
        relay.server.client_lost(relay.now, &client.five_tuple);
        relay.drain();
    }),
    ("the socket", |relay, _| {
        let id = *relay.sockets.keys().next().unwrap();
        relay.server.relay_failed(relay.now, id);
        relay.drain();
    }),
];

#[test]
fn of_each_quota_one_more_is_refused_until_one_ends_in_any_way() {
    let per_realm = config_with(|settings| realm(settings).allocations = 1);
    for (config, code, cause) in [
        (per_user(1), 486, Cause::UserQuota),
        (per_source(1), 508, Cause::SourceQuota),
        (per_realm, 508, Cause::RealmQuota),
    ] {
        for (what, end) in ENDS {
            let quotas = Quotas::default();
            let mut relay = Relay::new(ServerConfig { quotas: quotas.clone(), ..config.clone() });
            let mut client = Client::alice(AT).over(Transport::Tcp);
            relay.allocate(&mut client);
            assert_eq!((quotas.in_use(), quotas.sources()), (1, 1));
            expect_full(&mut relay, Client::alice(ELSEWHERE), code, cause);
            end(&mut relay, &mut client);
            let mut next = Client::alice(ELSEWHERE);
            assert_eq!(relay.try_allocate(&mut next).code(), 200, "{cause:?} after {what}");
            relay.shut_down();
            expect_nothing(&quotas);
        }
    }
}

#[test]
fn other_users_sources_and_realms_count_for_themselves() {
    let mut relay = Relay::new(per_user(1));
    relay.allocate(&mut Client::alice(AT));
    relay.allocate(&mut Client::new(ELSEWHERE, "bob", "hunter2"));
    let mut relay = Relay::new(per_source(1));
    relay.allocate(&mut Client::alice(AT));
    relay.allocate(&mut Client::alice(ABROAD));
    relay.allocate(&mut Client::alice("[2001:db8:1:1::1]:1"));
    relay.allocate(&mut Client::alice("[2001:db8:1:2::1]:1"));
    for at in [ELSEWHERE, "[2001:db8:1:1::2]:1", "[2001:db8:1:1:ffff::1]:1", "[2001:db8:1:2::ffff]:7"] {
        expect_full(&mut relay, Client::new(at, "bob", "hunter2"), 508, Cause::SourceQuota);
    }
    assert_eq!(relay.quotas.sources(), 4);
}

#[test]
fn the_users_quota_is_told_before_the_sources_and_that_before_the_realms() {
    let mut relay = Relay::new(config_with(|settings| {
        (realm(settings).allocations_per_user, realm(settings).allocations) = (1, 2);
        settings.limits.allocations_per_source = 1;
    }));
    relay.allocate(&mut Client::alice(AT));
    expect_full(&mut relay, Client::alice(ELSEWHERE), 486, Cause::UserQuota);
    expect_full(&mut relay, Client::new(ELSEWHERE, "bob", "hunter2"), 508, Cause::SourceQuota);
    relay.allocate(&mut Client::new(ABROAD, "bob", "hunter2"));
    expect_full(&mut relay, minted("192.0.2.99:1", "carol", 60), 508, Cause::RealmQuota);
}

#[test]
fn credentials_of_two_expiries_are_one_user() {
    let mut relay = Relay::new(per_user(2));
    relay.allocate(&mut minted(AT, "carol", 60));
    relay.allocate(&mut minted(ELSEWHERE, "carol", 120));
    expect_full(&mut relay, minted(THIRD, "carol", 180), 486, Cause::UserQuota);
    relay.allocate(&mut minted(THIRD, "dave", 60));
    assert_eq!(relay.quotas.usage(), [RealmUsage { realm: REALM.into(), allocations: 3, users: 2 }]);
    relay.shut_down();
}

#[test]
fn what_is_granted_to_a_user_counts_in_place_of_the_realms_limit() {
    let grant = |settings: &mut Settings, name: &str, allocations| {
        realm(settings).credentials.grant(name, Grant { allocations: Some(allocations), ..Grant::default() });
    };
    let mut relay = Relay::new(config_with(|settings| {
        realm(settings).allocations_per_user = 1;
        grant(settings, "alice", 2);
        grant(settings, "carol", 0);
        realm(settings).credentials.add_user("alice", "sesame");
    }));
    relay.allocate(&mut Client::alice(AT));
    relay.allocate(&mut Client::alice(ELSEWHERE));
    expect_full(&mut relay, Client::alice(THIRD), 486, Cause::UserQuota);
    expect_full(&mut relay, minted(THIRD, "carol", 60), 486, Cause::UserQuota);
}

#[test]
fn a_reserved_port_counts_until_it_is_redeemed_or_over() {
    let mut relay = Relay::new(per_user(2));
    let mut rtp = Client::alice(AT);
    pair(&mut relay, &mut rtp).expect_success(&rtp);
    assert_eq!(relay.quotas.in_use(), 2);
    expect_full(&mut relay, Client::alice(ELSEWHERE), 486, Cause::UserQuota);
    relay.pass(30);
    assert_eq!(relay.quotas.in_use(), 1);
    relay.allocate(&mut Client::alice(ELSEWHERE));
    relay.refresh(&mut rtp, 0).expect_success(&rtp);

    let refused = pair(&mut relay, &mut rtp);
    refused.expect_error(&rtp, 486);
    assert_eq!(relay.quotas.in_use(), 1, "half of it counts for nobody");
    relay.shut_down();
    expect_nothing(&relay.quotas);
}

#[test]
fn a_reserved_port_is_redeemed_within_the_quota_and_counts_once() {
    for limit in [per_user(2), per_source(2), config_with(|settings| realm(settings).allocations = 2)] {
        let mut relay = Relay::new(limit);
        let (mut rtp, mut rtcp) = (Client::alice(AT), Client::alice(ELSEWHERE));
        let token = pair(&mut relay, &mut rtp).token().expect("a port is reserved");
        redeem(&mut relay, &mut rtcp, token).expect_success(&rtcp);
        assert_eq!(relay.quotas.in_use(), 2);
        relay.pass(31);
        assert_eq!(relay.quotas.in_use(), 2);
        relay.refresh(&mut rtp, 0).expect_success(&rtp);
        assert_eq!(relay.quotas.in_use(), 1);
        relay.refresh(&mut rtcp, 0).expect_success(&rtcp);
        expect_nothing(&relay.quotas);
        assert_eq!(redeem(&mut relay, &mut rtcp, token).code(), 508);
        expect_nothing(&relay.quotas);
    }
}

#[test]
fn a_port_that_another_user_redeems_counts_for_that_user() {
    let mut relay = Relay::new(per_user(2));
    let (mut rtp, mut bob) = (Client::alice(AT), Client::new(ELSEWHERE, "bob", "hunter2"));
    let token = pair(&mut relay, &mut rtp).token().expect("a port is reserved");
    redeem(&mut relay, &mut bob, token).expect_success(&bob);
    assert_eq!(relay.quotas.in_use(), 2);
    relay.allocate(&mut Client::alice(THIRD));
    relay.shut_down();
    expect_nothing(&relay.quotas);
}

#[test]
fn a_dual_allocation_counts_once() {
    let mut relay = Relay::new(per_user(1));
    let mut client = Client::alice(AT);
    let both = AdditionalAddressFamily(Ok(AddressFamily::V6));
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&both));
    assert_eq!((answer.relayed().len(), relay.quotas.in_use()), (2, 1));
    let v6 = hairpin_proto::stun::attribute::RequestedAddressFamily(Ok(AddressFamily::V6));
    relay.request(&mut client, Method::REFRESH, |request| request.with(&v6).with(&Lifetime(0))).expect_success(&client);
    assert_eq!(relay.quotas.in_use(), 1, "half of it is there");
    relay.refresh(&mut client, 0).expect_success(&client);
    expect_nothing(&relay.quotas);
}

#[test]
fn what_waits_for_its_socket_counts_once_however_often_it_is_sent_and_not_if_there_is_none() {
    for even in [None, Some(PAIR)] {
        for failure in [BindError::InUse, BindError::Unavailable] {
            let mut relay = Relay::new(per_user(2));
            let mut client = Client::alice(AT);
            let request =
                relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with_option(even.as_ref()));
            relay.binds = false;
            for _ in 0..3 {
                relay.control(&client, &request);
                assert_eq!(relay.quotas.in_use(), 1 + usize::from(even.is_some()));
            }
            while !relay.waiting.is_empty() {
                relay.answer_bind(0, Some(failure));
                relay.drain();
            }
            expect_nothing(&relay.quotas);
            relay.shut_down();
        }
    }
}

#[test]
fn who_is_lost_while_it_waits_counts_no_longer() {
    for even in [None, Some(PAIR)] {
        let mut relay = Relay::new(per_user(2));
        let mut client = Client::alice(AT).over(Transport::Tcp);
        let request =
            relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with_option(even.as_ref()));
        relay.binds = false;
        relay.control(&client, &request);
        relay.server.client_lost(relay.now, &client.five_tuple);
        relay.drain();
        expect_nothing(&relay.quotas);
        relay.shut_down();
    }
}

#[test]
fn an_allocate_request_that_comes_again_counts_once() {
    let mut relay = Relay::new(per_user(1));
    let mut client = Client::alice(AT);
    let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    let [first, second] = [relay.answer(&client, &request), relay.answer(&client, &request)];
    assert_eq!((first.bytes, relay.quotas.in_use()), (second.bytes, 1));
    relay.try_allocate(&mut client).expect_error(&client, 437);
    assert_eq!(relay.quotas.in_use(), 1);
}

#[test]
fn a_client_that_moves_counts_at_its_new_address_and_is_never_cut_off() {
    let mut config = mobile_config();
    config.settings.limits.allocations_per_source = 1;
    let mut relay = Relay::new(config);
    let mut client = Client::alice(AT);
    let (_, ticket) = relay.allocate_mobile(&mut client);
    relay.allocate(&mut Client::new(ABROAD, "bob", "hunter2"));
    let mut moved = client.at("198.51.100.77:52001");
    relay.show(&mut moved, &ticket).expect_success(&moved);
    relay.allocate(&mut minted(ELSEWHERE, "carol", 600));
    expect_full(&mut relay, minted("198.51.100.77:52002", "dave", 600), 508, Cause::SourceQuota);
    assert_eq!((relay.quotas.in_use(), relay.quotas.sources()), (3, 2));
    relay.shut_down();
    expect_nothing(&relay.quotas);
}

#[test]
fn lower_limits_end_nothing_and_hold_for_the_next() {
    let mut relay = Relay::default();
    relay.allocate(&mut Client::alice(AT));
    relay.allocate(&mut Client::alice(ELSEWHERE));
    relay.change(|settings| realm(settings).allocations_per_user = 1);
    assert_eq!(relay.quotas.in_use(), 2);
    expect_full(&mut relay, Client::alice(THIRD), 486, Cause::UserQuota);
    relay.shut_down();
}

#[test]
fn thousands_of_users_have_their_quota_over_all_shards_together() {
    const SHARDS: u32 = 4;
    const USERS: usize = 2000;
    let quotas = Quotas::default();
    let mut shards: Vec<Relay> = (0..SHARDS)
        .map(|shard| {
            let ports = PortStripe::new(49_152..=65_535, shard, SHARDS);
            Relay::new(ServerConfig { shard, shards: SHARDS, ports, quotas: quotas.clone(), ..per_user(2) })
        })
        .collect();
    let mut running = Vec::new();
    for user in 0..USERS {
        for attempt in 0..3_usize {
            let shard = (user + attempt * 7) % SHARDS as usize;
            let at = format!("203.0.{}.{}:{}", user / 250, user % 250, 1000 + attempt);
            let mut client = minted(&at, &format!("user{user}"), 60 + attempt as u64);
            if attempt == 0 && user % 2 == 0 {
                client = client.over(Transport::Tcp);
            }
            let answer = shards[shard].try_allocate(&mut client);
            assert_eq!(answer.code(), if attempt < 2 { 200 } else { 486 }, "{user} {attempt}");
            if attempt < 2 {
                running.push((shard, client));
            }
        }
    }
    assert_eq!((quotas.in_use(), quotas.sources()), (2 * USERS, USERS));
    assert_eq!(quotas.usage(), [RealmUsage { realm: REALM.into(), allocations: 2 * USERS, users: USERS }]);
    for (at, (shard, client)) in running.iter_mut().enumerate() {
        let relay = &mut shards[*shard];
        match at % 4 {
            0 if client.five_tuple.transport == Transport::Tcp => {
                relay.server.client_lost(relay.now, &client.five_tuple);
                assert!(relay.drain().iter().any(|event| matches!(event, Event::Freed(..))));
            }
            0 | 1 => relay.refresh(client, 0).expect_success(client),
            _ => {}
        }
    }
    assert_eq!((quotas.in_use(), quotas.usage()[0].users), (USERS, USERS / 2));
    for relay in &mut shards {
        relay.pass(600);
        assert_eq!(relay.server.allocations(), 0);
    }
    expect_nothing(&quotas);
}
