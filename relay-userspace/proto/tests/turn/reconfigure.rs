//! Other settings while the server runs: what ends at once, what goes on, and what holds for the next request.

use std::net::IpAddr;

use hairpin_proto::address::{PeerAddr, Transport};
use hairpin_proto::stun::attribute::{
    EvenPort, MobilityTicket, Nonce, Realm, RequestedTransport, Username, XorPeerAddress,
};
use hairpin_proto::stun::{Class, Integrity, LongTermKey, MessageBuilder, Method};
use hairpin_proto::turn::{
    AlternateServer, BindRequest, Cause, Credentials, Discard, Disposition, Draining, NonceKey, PeerPolicy,
    RelayAddress, Settings,
};

use crate::harness::{
    Answer, Client, Event, PUBLIC_V4, REALM, RELAY_V4, RELAY_V6, Relay, SECRET, SERVER, Stage, TCP, UDP, channel,
    channel_data, config, dropped, permission, realm, send_indication, socket,
};
use crate::mobility::{channel_and_ticket, mobile_config};
use crate::tcp_connections::{connect, permitted, tcp_config, tcp_relay};

const AT: &str = "203.0.113.7:41000";
const ELSEWHERE: &str = "203.0.113.7:41001";
const PEER: &str = "8.8.8.8:53";
const OTHER_PEER: &str = "8.8.4.4:53";
/// Another address of the host.
const NEW_V4: &str = "192.0.2.16";

impl Relay {
    /// Changes something of these settings.
    fn reconfigure(&mut self, mut settings: Settings, change: impl FnOnce(&mut Settings)) -> Vec<Event> {
        change(&mut settings);
        self.server.reconfigure(self.now, settings);
        self.drain()
    }

    /// Changes something of the settings that [`config`] has.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Settings)) -> Vec<Event> {
        self.reconfigure(config().settings, change)
    }

    fn deny(&mut self, net: &str) -> Vec<Event> {
        self.change(|settings| settings.peer_policy.deny(net.parse().unwrap()))
    }
}

/// A relay with a channel to one peer and a permission for another.
fn two_peers() -> (Relay, Client, hairpin_proto::turn::RelayId) {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    relay.permit(&mut client, &[OTHER_PEER]).expect_success(&client);
    (relay, client, id)
}

fn is_forwarded(disposition: Disposition<'_>) -> bool {
    matches!(disposition, Disposition::Forward(_))
}

#[test]
fn a_peer_that_a_new_rule_forbids_is_lost_at_once_and_no_other() {
    for rule in ["8.8.8.8/32", "8.8.8.0/24", "::ffff:8.8.8.8/128"] {
        let (mut relay, mut client, id) = two_peers();
        let flow = |relay: &Relay, scope| Event::Remove(relay.flow(&client, id, scope));
        let gone = [flow(&relay, channel(0x4000, PEER)), flow(&relay, permission(PEER))];
        assert_eq!(relay.deny(rule), gone, "{rule}");

        assert_eq!(relay.client_sends(&client, &channel_data(0x4000, b"x")), dropped(Discard::NoChannel));
        assert_eq!(relay.client_sends(&client, &send_indication(PEER, b"x")), dropped(Discard::ForbiddenPeer));
        assert_eq!(relay.peer_sends(id, PEER, b"x"), dropped(Discard::NoPermission));
        assert!(is_forwarded(relay.client_sends(&client, &send_indication(OTHER_PEER, b"x"))));
        assert!(is_forwarded(relay.peer_sends(id, OTHER_PEER, b"x")));
        relay.permit(&mut client, &[PEER]).expect_error(&client, 403);
        relay.bind_channel(&mut client, 0x4000, PEER).expect_error(&client, 403);
        assert_eq!(relay.last_cause(), Cause::ForbiddenPeer);

        relay.change(|_| ());
        relay.bind_channel(&mut client, 0x4001, OTHER_PEER).expect_success(&client);
        relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
        assert!(is_forwarded(relay.client_sends(&client, &channel_data(0x4000, b"x"))));
        relay.shut_down();
    }
}

#[test]
fn a_channel_that_was_forbidden_is_not_bound_to_another_peer_before_its_time() {
    let (mut relay, mut client, _) = two_peers();
    relay.deny("8.8.8.8/32");
    relay.bind_channel(&mut client, 0x4000, OTHER_PEER).expect_error(&client, 400);
    relay.refresh(&mut client, 3600).expect_success(&client);
    relay.pass(300);
    relay.bind_channel(&mut client, 0x4000, OTHER_PEER).expect_success(&client);
    relay.shut_down();
}

#[test]
fn what_a_new_policy_permits_still_is_left_alone() {
    let (mut relay, _, id) = two_peers();
    let timeout = relay.server.poll_timeout();
    assert_eq!(relay.change(|_| ()), []);
    assert_eq!(relay.change(|settings| settings.peer_policy.deny("9.0.0.0/8".parse().unwrap())), []);
    assert_eq!(relay.server.poll_timeout(), timeout);
    assert!(is_forwarded(relay.peer_sends(id, PEER, b"x")));
}

#[test]
fn what_is_over_when_a_rule_comes_ends_once() {
    let (mut relay, ..) = two_peers();
    relay.sleep(301);
    let events = relay.deny("8.0.0.0/8");
    assert!(events.iter().all(|event| matches!(event, Event::Remove(_))), "{events:?}");
    relay.sleep(300);
    relay.change(|_| ());
    assert_eq!(relay.server.allocations(), 0);
    relay.shut_down();
}

#[test]
fn a_channel_of_a_client_that_speaks_tcp_is_lost_too() {
    let (mut relay, mut client) = (Relay::default(), Client::alice(AT).over(Transport::Tcp));
    relay.allocate(&mut client);
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    assert_eq!(relay.deny("8.8.8.8/32"), [], "a fast path knows nothing of it");
    assert_eq!(relay.client_sends(&client, &channel_data(0x4000, b"x")), dropped(Discard::NoChannel));
}

#[test]
fn a_rule_about_ports_ends_the_channel_and_leaves_the_permission() {
    let own = "198.51.100.15";
    let with_host = |settings: &mut Settings| {
        settings.peer_policy.add_own_address(own.parse().unwrap());
        settings.peer_policy.allow("198.51.100.15/32".parse().unwrap());
    };
    let mut relay = Relay::default();
    relay.change(with_host);
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    relay.bind_channel(&mut client, 0x4000, "198.51.100.15:22").expect_success(&client);
    relay.bind_channel(&mut client, 0x4001, "198.51.100.15:50000").expect_success(&client);
    let gone = Event::Remove(relay.flow(&client, id, channel(0x4000, "198.51.100.15:22")));
    let events = relay.change(|settings| settings.peer_policy.add_own_address(own.parse().unwrap()));
    assert_eq!(events, [gone], "the relayed addresses of this relay are peers, and its services are not");
    assert!(is_forwarded(relay.client_sends(&client, &channel_data(0x4001, b"x"))));
    assert_eq!(
        relay.client_sends(&client, &send_indication("198.51.100.15:22", b"x")),
        dropped(Discard::ForbiddenPeer)
    );
    relay.shut_down();
}

#[test]
fn connections_to_a_forbidden_peer_are_closed_whatever_they_wait_for() {
    let (mut relay, mut client, id) = tcp_relay();
    let opening = connect(&mut relay, &mut client, "8.8.8.8:1");
    let pending = connect(&mut relay, &mut client, "8.8.8.8:2");
    relay.connected(pending, Ok(()));
    let joined = permitted(&mut relay, &mut client, id, "8.8.8.8:3");
    relay.bind_connection(&mut client.at(ELSEWHERE), joined).expect_success(&client);
    let other = permitted(&mut relay, &mut client, id, "8.8.4.4:1");
    let settings = tcp_config().settings;
    let events = relay.reconfigure(settings, |settings| settings.peer_policy.deny("8.8.8.0/24".parse().unwrap()));
    for connection in [opening, pending, joined] {
        assert!(events.contains(&Event::CloseConnection(connection)), "{events:?}");
    }
    assert_eq!(relay.connections.keys().collect::<Vec<_>>(), [&other]);
    let [refused] = &relay.refusals[..] else { panic!("{:?}", relay.refusals) };
    assert_eq!((refused.code, refused.cause), (403, Cause::ForbiddenPeer), "the request that waits is answered");
    assert_eq!(refused.peer, Some(PeerAddr::new(socket("8.8.8.8:1"))));
    assert_eq!(relay.peer_connects(id, "8.8.8.8:4"), None);
    relay.shut_down();
}

#[test]
fn a_connection_from_any_port_of_a_permitted_address_stays() {
    let (mut relay, mut client, id) = tcp_relay();
    let own = |settings: &mut Settings| settings.peer_policy.add_own_address("198.51.100.15".parse().unwrap());
    relay.reconfigure(tcp_config().settings, own);
    let connection = permitted(&mut relay, &mut client, id, "198.51.100.15:22");
    let events = relay.reconfigure(tcp_config().settings, |settings| {
        own(settings);
        settings.peer_policy.deny("9.0.0.0/8".parse().unwrap());
    });
    assert_eq!(events, []);
    assert_eq!(relay.connections[&connection].stage, Stage::Open);
}

#[test]
fn where_tcp_relaying_is_turned_off_those_who_have_it_keep_it() {
    let (mut relay, mut client, id) = tcp_relay();
    assert_eq!(relay.change(|_| ()), []);
    let connection = connect(&mut relay, &mut client, "8.8.8.8:1");
    relay.connected(connection, Ok(()));
    relay.bind_connection(&mut client.at(ELSEWHERE), connection).expect_success(&client);
    permitted(&mut relay, &mut client, id, "8.8.8.8:2");
    relay.refresh(&mut client, 600).expect_success(&client);
    let mut late = Client::alice("203.0.113.7:41002").over(Transport::Tcp);
    relay.request(&mut late, Method::ALLOCATE, |request| request.with(&TCP)).expect_error(&late, 442);
    assert_eq!(relay.last_cause(), Cause::TcpRelayOff);
    relay.change(|settings| settings.tcp_relay = true);
    relay.request(&mut late, Method::ALLOCATE, |request| request.with(&TCP)).expect_success(&late);
    relay.shut_down();
}

#[test]
fn where_mobility_is_turned_off_those_who_have_a_ticket_can_move() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    relay.change(|_| ());
    let mut there = client.at(ELSEWHERE);
    let answer = relay.show(&mut there, &ticket);
    answer.expect_success(&there);
    assert!(answer.ticket().is_some(), "the next one");
    let mut late = Client::alice("203.0.113.7:41002");
    let mobile = MobilityTicket(&[]);
    relay.request(&mut late, Method::ALLOCATE, |request| request.with(&UDP).with(&mobile)).expect_error(&late, 405);
    relay.reconfigure(mobile_config().settings, |_| ());
    relay.request(&mut late, Method::ALLOCATE, |request| request.with(&UDP).with(&mobile)).expect_success(&late);
    relay.shut_down();
}

/// Users without Alice.
fn without_alice() -> Credentials {
    let mut credentials = Credentials::new(REALM);
    credentials.add_user("bob", "hunter2");
    credentials
}

#[test]
fn a_user_that_is_removed_can_do_nothing_more_with_what_it_has() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let datagram = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    relay.answer(&client, &datagram).expect_success(&client);
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    let mut bob = Client::new(ELSEWHERE, "bob", "hunter2");
    let of_bob = relay.signed(&mut bob, Method::ALLOCATE, |request| request.with(&UDP));
    let answer = relay.answer(&bob, &of_bob);
    assert_eq!(relay.change(|settings| realm(settings).credentials = without_alice()), []);

    assert!(is_forwarded(relay.client_sends(&client, &channel_data(0x4000, b"x"))), "a running call is not cut off");
    assert_eq!(relay.refresh(&mut client, 600).code(), 401);
    assert_eq!(relay.last_cause(), Cause::UnknownUser);
    assert_eq!(relay.answer(&client, &datagram).code(), 401, "a request that comes again lets nobody in");
    assert_eq!(relay.try_allocate(&mut client.at("203.0.113.7:41002")).code(), 401);
    relay.refresh(&mut bob, 600).expect_success(&bob);
    assert_eq!(relay.answer(&bob, &of_bob).bytes, answer.bytes, "others are answered as before");
    relay.pass(600);
    assert_eq!(relay.server.allocations(), 0);
    relay.shut_down();
}

#[test]
fn another_password_is_asked_for_from_the_next_request_on() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let datagram = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    relay.answer(&client, &datagram).expect_success(&client);
    relay.change(|settings| realm(settings).credentials.add_user("alice", "another"));
    assert_eq!(relay.refresh(&mut client, 600).code(), 401);
    assert_eq!(relay.answer(&client, &datagram).code(), 401);
    assert_eq!(relay.last_cause(), Cause::WrongPassword);
    let nonce = client.nonce.clone();
    let mut client = Client { nonce, ..Client::new(AT, "alice", "another") };
    relay.refresh(&mut client, 600).expect_success(&client);
}

#[test]
fn a_secret_that_is_replaced_serves_as_long_as_both_are_there() {
    let mut relay = Relay::default();
    let (username, password) = Credentials::mint(SECRET, "carol", relay.now.unix + 60);
    let mut client = Client::new(AT, &username, &password);
    relay.allocate(&mut client);
    relay.change(|settings| realm(settings).credentials.add_secret("south"));
    relay.refresh(&mut client, 600).expect_success(&client);
    let mut south = Credentials::new(REALM);
    south.add_secret("south");
    relay.change(|settings| realm(settings).credentials = south);
    assert_eq!(relay.refresh(&mut client, 600).code(), 401);
    assert_eq!(relay.last_cause(), Cause::WrongSecret);
}

#[test]
fn clients_go_on_in_another_realm_under_the_same_name() {
    const NEW: &str = "example.net";
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.allocate(&mut client);
    relay.change(|settings| {
        realm(settings).name = NEW.into();
        realm(settings).credentials = Credentials::new(NEW);
        realm(settings).credentials.add_user("alice", "sesame");
    });
    let challenge = relay.refresh(&mut client, 600);
    assert_eq!((challenge.code(), relay.last_cause()), (401, Cause::WrongRealm));
    let message = challenge.message();
    let (Ok(Some(Realm(realm))), Ok(Some(Nonce(nonce)))) = (message.attribute(), message.attribute()) else {
        panic!("{challenge:?}")
    };
    assert_eq!(realm, NEW);
    let key = LongTermKey::derive("alice", realm, "sesame");
    let mut datagram = Vec::new();
    MessageBuilder::new(&mut datagram, Class::Request, Method::REFRESH, relay.transaction_id())
        .with(&Username("alice"))
        .with(&Realm(realm))
        .with(&Nonce(nonce))
        .with_integrity(&key, Integrity::Sha1)
        .finish(false);
    relay.answer(&client, &datagram).expect_success(&Client { key, ..client });
}

/// Another relay address instead of the first one.
fn other_address(settings: &mut Settings) {
    settings.relay_addresses[0] = RelayAddress::from(NEW_V4.parse::<IpAddr>().unwrap());
}

#[test]
fn from_a_relay_address_that_is_gone_no_port_comes_and_what_is_there_goes_on() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    let held = relay.sockets[&id];
    let [allocation] = relay.server.allocation_ids()[..] else { panic!("there is one") };
    let before = relay.server.describe(allocation);
    assert_eq!(relay.change(other_address), []);
    assert_eq!(relay.server.describe(allocation), before, "the client was told the public address");
    relay.refresh(&mut client, 600).expect_success(&client);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    assert!(is_forwarded(relay.peer_sends(id, PEER, b"x")));
    for port in 1..=20 {
        let mut late = Client::alice(&format!("203.0.113.8:{port}"));
        let answer = relay.try_allocate(&mut late);
        assert_eq!(answer.relayed()[0].ip(), NEW_V4.parse::<IpAddr>().unwrap());
    }
    let on = |relay: &Relay, ip: &str| relay.server.allocations_on(ip.parse().unwrap());
    assert_eq!((on(&relay, RELAY_V4), on(&relay, NEW_V4)), (1, 20));

    relay.change(|_| ());
    for port in 1..=200 {
        let mut late = Client::alice(&format!("203.0.113.9:{port}"));
        let id = relay.allocate(&mut late);
        assert!(relay.sockets[&id].ip() == held.ip() && relay.sockets[&id] != held);
    }
    assert_eq!(
        relay.try_allocate(&mut client.at("203.0.113.7:41002")).relayed()[0].ip(),
        PUBLIC_V4.parse::<IpAddr>().unwrap()
    );
    relay.shut_down();
}

#[test]
fn a_family_without_an_address_is_not_served_any_more() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.change(|settings| {
        settings.relay_addresses.retain(|address| address.bind == RELAY_V6.parse::<IpAddr>().unwrap());
    });
    relay.try_allocate(&mut client).expect_error(&client, 440);
    assert_eq!(relay.last_cause(), Cause::FamilyNotServed);
}

#[test]
fn a_port_that_was_reserved_is_redeemed_although_its_address_is_gone() {
    let mut relay = Relay::default();
    let mut rtp = Client::alice(AT);
    let pair = EvenPort { reserve_next: true };
    let first = relay.request(&mut rtp, Method::ALLOCATE, |request| request.with(&UDP).with(&pair));
    let token = first.token().expect("a port was reserved");
    relay.change(|settings| {
        other_address(settings);
        settings.listeners = vec![(Transport::Tcp, socket(SERVER))];
    });
    let mut rtcp = Client::alice(ELSEWHERE);
    let second = relay.request(&mut rtcp, Method::ALLOCATE, |request| request.with(&UDP).with(&token));
    second.expect_success(&rtcp);
    let next = std::net::SocketAddr::new(first.relayed()[0].ip(), first.relayed()[0].port() + 1);
    assert_eq!(second.relayed(), [next], "by the public address that it had");
    relay.shut_down();
}

#[test]
fn an_allocation_that_is_being_made_is_made() {
    let mut relay = Relay::default();
    relay.binds = false;
    let mut client = Client::alice(AT);
    let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    let events = relay.control(&client, &request);
    assert!(matches!(events[..], [Event::Bind(_, BindRequest::Port(_))]), "{events:?}");
    assert_eq!(relay.change(other_address), []);
    relay.answer_bind(0, None);
    relay.drain();
    let answer = Answer { bytes: relay.responses.pop().expect("it is answered"), events: Vec::new() };
    answer.expect_success(&client);
    assert_eq!(answer.relayed()[0].ip(), PUBLIC_V4.parse::<IpAddr>().unwrap());
    relay.shut_down();
    assert_eq!(relay.server.ports_in_use().len(), 2, "the address that is gone is forgotten");
}

#[test]
fn a_port_of_an_address_that_is_gone_is_not_replaced_by_another_of_it() {
    let mut relay = Relay::default();
    relay.binds = false;
    let mut client = Client::alice(AT);
    let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    relay.control(&client, &request);
    relay.change(other_address);
    relay.answer_bind(0, Some(hairpin_proto::turn::BindError::InUse));
    let events = relay.drain();
    let [Event::Bind(_, BindRequest::Port(address))] = events[..] else { panic!("{events:?}") };
    assert_eq!(address.ip(), NEW_V4.parse::<IpAddr>().unwrap());
    relay.shut_down();
}

#[test]
fn who_comes_by_no_listener_of_the_settings_gets_no_new_allocation_and_keeps_what_it_has() {
    let alone =
        |transport, address| move |settings: &mut Settings| settings.listeners = vec![(transport, socket(address))];
    for (transport, address, expected) in [
        (Transport::Udp, SERVER, 200),
        (Transport::Udp, "0.0.0.0:3478", 200),
        (Transport::Udp, "[::ffff:192.0.2.15]:3478", 200),
        (Transport::Udp, "[::]:3478", 508),
        (Transport::Udp, "192.0.2.15:3479", 508),
        (Transport::Udp, "192.0.2.16:3478", 508),
        (Transport::Dtls, SERVER, 508),
        (Transport::Tcp, "0.0.0.0:3478", 508),
    ] {
        let mut relay = Relay::default();
        let mut client = Client::alice(AT);
        relay.allocate(&mut client);
        assert_eq!(relay.change(alone(transport, address)), []);
        relay.refresh(&mut client, 600).expect_success(&client);
        relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
        let answer = relay.try_allocate(&mut client.at(ELSEWHERE));
        assert_eq!(answer.code(), expected, "{transport} {address}");
        relay.change(|_| ());
        relay.try_allocate(&mut client.at("203.0.113.7:41002")).expect_success(&client);
        relay.shut_down();
    }
    let mut relay = Relay::default();
    relay.change(|settings| {
        alone(Transport::Tcp, SERVER)(settings);
        settings.alternates = vec![AlternateServer::new(socket("198.51.100.1:3478")).unwrap()];
    });
    let mut client = Client::alice(AT);
    relay.try_allocate(&mut client).expect_error(&client, 300);
    assert_eq!(relay.last_cause(), Cause::ListenerRetired);
}

#[test]
fn a_draining_server_drains_on() {
    let mut relay = Relay::default();
    relay.server.set_draining(Draining::NewClients);
    relay.change(|_| ());
    assert!(relay.server.is_draining());
}

#[test]
fn lower_limits_end_nothing_and_hold_for_the_next_request() {
    let (mut relay, mut client, id) = two_peers();
    let events = relay.change(|settings| {
        settings.limits.allocations = 0;
        settings.limits.permissions = 1;
        settings.limits.channels = 0;
    });
    assert_eq!(events, []);
    assert!(is_forwarded(relay.peer_sends(id, OTHER_PEER, b"x")));
    relay.try_allocate(&mut client.at(ELSEWHERE)).expect_error(&client, 508);
    relay.bind_channel(&mut client, 0x4001, OTHER_PEER).expect_error(&client, 508);
    relay.permit(&mut client, &["9.9.9.9:53"]).expect_error(&client, 508);
    // A call that runs is not cut off when it refreshes what it has.
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    relay.permit(&mut client, &[PEER, OTHER_PEER]).expect_success(&client);
    relay.shut_down();
}

#[test]
fn a_policy_is_compared_by_what_it_says() {
    let mut policy = PeerPolicy::default();
    assert_eq!(policy, PeerPolicy::default());
    policy.deny("9.0.0.0/8".parse().unwrap());
    assert_ne!(policy, PeerPolicy::default());
}

#[test]
fn other_transports_to_peers_stay_unknown() {
    let mut relay = Relay::default();
    relay.change(|settings| settings.tcp_relay = true);
    let mut client = Client::alice(AT);
    let sctp = RequestedTransport(132);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&sctp)).expect_error(&client, 442);
    let (mut relay, mut client, _) = tcp_relay();
    relay.change(|_| ());
    relay
        .request(&mut client, Method::CONNECT, |request| request.with(&XorPeerAddress(socket("127.0.0.1:1"))))
        .expect_error(&client, 403);
}

#[test]
fn nonces_of_a_key_are_good_for_as_long_as_it_is_among_the_keys() {
    let (mut relay, mut client) = (Relay::default(), Client::alice(AT));
    let keys = |keys: &[u8]| keys.iter().map(|key| NonceKey::new([*key; 32])).collect::<Vec<_>>();
    relay.change(|settings| settings.nonce_keys = keys(&[1]));
    relay.allocate(&mut client);
    relay.change(|settings| settings.nonce_keys = keys(&[2, 1]));
    relay.refresh(&mut client, 600).expect_success(&client);
    relay.change(|settings| settings.nonce_keys = keys(&[2]));
    assert_eq!(relay.refresh(&mut client, 600).code(), 438);
    // Another server with the key among its own takes what was made here.
    relay.change(|settings| settings.nonce_keys = keys(&[2]));
    let nonce = relay.challenge(&client);
    let mut elsewhere = Relay::default();
    elsewhere.change(|settings| settings.nonce_keys = keys(&[3, 2]));
    client.nonce = nonce;
    elsewhere.try_allocate(&mut client).expect_success(&client);
    elsewhere.shut_down();
}
