//! Other servers for clients that find no room (RFC 8489 sections 10 and 14.8, RFC 8656 section 7.2).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hairpin_proto::address::{ClientAddr, ServerAddr, Transport};
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, AlternateDomain, AlternateServerAttribute, Attribute, EvenPort, Lifetime,
    RequestedAddressFamily, RequestedTransport, ReservationToken,
};
use hairpin_proto::stun::{Class, MessageBuilder, Method};
use hairpin_proto::turn::{
    AlternateError, AlternateServer, Disposition, Draining, Encryption, PortStripe, RelayAddress, ServerConfig,
    Translation,
};

use crate::harness::{
    Answer, Client, Event, RELAY_V4, RELAY_V6, Relay, SERVER, UDP, config_with, realm, send_indication, socket,
};

const AT: &str = "203.0.113.7:41000";
const AT_V6: &str = "[2001:db8::7]:41000";
const ONE: &str = "198.51.100.1:3478";
const TWO: &str = "198.51.100.2:3478";
const SIX: &str = "[2001:db8::1]:3478";
const PAIR: EvenPort = EvenPort { reserve_next: true };

fn server(address: &str) -> AlternateServer {
    AlternateServer::new(socket(address)).unwrap()
}

fn with_servers(alternates: Vec<AlternateServer>) -> ServerConfig {
    config_with(|settings| settings.alternates = alternates)
}

fn draining(alternates: Vec<AlternateServer>) -> Relay {
    let mut relay = Relay::new(with_servers(alternates));
    relay.server.set_draining(Draining::NewClients);
    relay
}

fn allocate(relay: &mut Relay, client: &mut Client) -> Answer {
    relay.request(client, Method::ALLOCATE, |request| request.with(&UDP))
}

fn servers(answer: &Answer) -> Vec<SocketAddr> {
    answer.message().each::<AlternateServerAttribute>().map(|server| server.unwrap().0).collect()
}

fn domain(answer: &Answer) -> Option<String> {
    answer.message().attribute::<AlternateDomain<'_>>().unwrap().map(|AlternateDomain(domain)| domain.to_owned())
}

/// Asserts that the client is sent to these servers, in this order, and that nothing else has happened.
fn expect_redirect(relay: &Relay, client: &Client, answer: &Answer, to: &[&str]) {
    answer.expect_error(client, 300);
    assert_eq!(servers(answer), to.iter().map(|server| socket(server)).collect::<Vec<_>>());
    assert_eq!((relay.server.allocations(), relay.quotas.in_use()), (0, 0));
    assert_eq!(relay.server.poll_timeout(), None);
}

/// Where clients that come one after the other are sent to first.
fn in_turn<const N: usize>(relay: &mut Relay, client: &mut Client) -> [SocketAddr; N] {
    [(); N].map(|()| servers(&allocate(relay, client))[0])
}

#[test]
fn a_draining_server_sends_clients_to_another_of_their_family_and_names_one_of_the_other_second() {
    for (at, to) in [(AT, [ONE, SIX]), (AT_V6, [SIX, ONE])] {
        let mut relay = draining(vec![server(SIX), server(ONE)]);
        assert!(relay.server.is_draining());
        let mut client = Client::alice(at);
        let answer = allocate(&mut relay, &mut client);
        expect_redirect(&relay, &client, &answer, &to);
        assert_eq!(domain(&answer), None);
    }
    let mut relay = draining(vec![server(ONE)]);
    let mut client = Client::alice(AT);
    let answer = allocate(&mut relay, &mut client);
    expect_redirect(&relay, &client, &answer, &[ONE]);
    let counts: Vec<_> = relay.server.message_counts().responses().collect();
    assert!(counts.contains(&(("allocate", 300), 1)), "{counts:?}");
}

#[test]
fn a_client_of_a_family_without_another_server_is_told_that_there_is_no_room() {
    let mut relay = draining(vec![server(ONE)]);
    let mut client = Client::alice(AT_V6);
    let answer = allocate(&mut relay, &mut client);
    answer.expect_error(&client, 508);
    assert_eq!(servers(&answer), []);
    let mut alone = draining(vec![]);
    let mut client = Client::alice(AT);
    allocate(&mut alone, &mut client).expect_error(&client, 508);
}

#[test]
fn what_runs_goes_on_while_the_server_drains() {
    let mut relay = Relay::new(with_servers(vec![server(ONE)]));
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    relay.server.set_draining(Draining::NewClients);
    relay.refresh(&mut client, 600).expect_success(&client);
    relay.permit(&mut client, &["8.8.8.8:53"]).expect_success(&client);
    relay.bind_channel(&mut client, 0x4000, "8.8.8.8:53").expect_success(&client);
    assert!(matches!(relay.client_sends(&client, &send_indication("8.8.8.8:53", b"x")), Disposition::Forward(_)));
    assert!(matches!(relay.peer_sends(id, "8.8.8.8:53", b"x"), Disposition::Forward(_)));
    let mut binding = Vec::new();
    MessageBuilder::new(&mut binding, Class::Request, Method::BINDING, relay.transaction_id()).finish(false);
    assert_eq!(relay.answer(&client, &binding).code(), 200);
    allocate(&mut relay, &mut client).expect_error(&client, 437);
    relay.refresh(&mut client, 0).expect_success(&client);
    assert_eq!(allocate(&mut relay, &mut client).code(), 300);

    relay.server.set_draining(Draining::No);
    relay.allocate(&mut client);
    relay.shut_down();
}

#[test]
fn an_allocation_that_is_being_made_when_draining_begins_is_made() {
    let mut relay = Relay::new(with_servers(vec![server(ONE)]));
    relay.binds = false;
    let mut client = Client::alice(AT);
    let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    let events = relay.control(&client, &request);
    let [Event::Bind(id, bind)] = events[..] else { panic!("{events:?}") };
    let hairpin_proto::turn::BindRequest::Port(address) = bind else { panic!("{bind:?}") };
    relay.server.set_draining(Draining::NewClients);
    assert_eq!(relay.control(&client, &request), [], "a retransmission waits too");
    relay.sockets.insert(id, address);
    relay.server.relay_bound(relay.now, id, Ok(address));
    assert_eq!(relay.drain().len(), 3);
    assert_eq!(relay.server.allocations(), 1);
    assert_eq!(relay.answer(&client, &request).code(), 200);
    relay.shut_down();
}

#[test]
fn nobody_is_sent_away_who_has_not_authenticated() {
    let mut relay = draining(vec![server(ONE), server(SIX)]);
    let client = Client::alice(AT);
    let mut request = Vec::new();
    MessageBuilder::new(&mut request, Class::Request, Method::ALLOCATE, relay.transaction_id())
        .with(&UDP)
        .finish(false);
    let answer = relay.answer(&client, &request);
    assert_eq!((answer.code(), servers(&answer)), (401, vec![]));

    let mut liar = Client::new(AT, "alice", "wrong");
    let answer = allocate(&mut relay, &mut liar);
    assert_eq!((answer.code(), servers(&answer)), (401, vec![]));

    let mut late = Client::alice(AT);
    assert_eq!(allocate(&mut relay, &mut late).code(), 300);
    relay.sleep(3601);
    let answer = allocate(&mut relay, &mut late);
    assert_eq!((answer.code(), servers(&answer)), (438, vec![]));
}

#[test]
fn a_full_server_sends_clients_to_another() {
    let mut config = with_servers(vec![server(ONE)]);
    config.settings.limits.allocations = 1;
    let mut relay = Relay::new(config);
    let mut first = Client::alice(AT);
    relay.allocate(&mut first);
    let mut second = Client::alice("203.0.113.7:41001");
    let answer = allocate(&mut relay, &mut second);
    answer.expect_error(&second, 300);
    assert_eq!(servers(&answer), [socket(ONE)]);
    let mut v6 = Client::alice(AT_V6);
    allocate(&mut relay, &mut v6).expect_error(&v6, 508);
    relay.refresh(&mut first, 0);
    relay.allocate(&mut second);
    relay.shut_down();
}

#[test]
fn a_server_without_ports_sends_clients_to_another() {
    let mut config = with_servers(vec![server(ONE)]);
    config.ports = PortStripe::new(50_001..=50_001, 0, 1);
    let mut relay = Relay::new(config);
    let mut pair = Client::alice(AT);
    let answer = relay.request(&mut pair, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR));
    expect_redirect(&relay, &pair, &answer, &[ONE]);

    let mut relay = Relay::new(with_servers(vec![server(ONE)]));
    relay.taken.extend(49_152..=65_535);
    let mut client = Client::alice(AT);
    for even_port in [None, Some(&PAIR)] {
        let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with_option(even_port));
        assert_eq!((answer.code(), answer.binds()), (300, 16));
        assert!(answer.message().verify_integrity(&client.key));
        assert_eq!((servers(&answer), relay.quotas.in_use()), (vec![socket(ONE)], 0));
    }
    relay.taken.clear();
    relay.broken.insert(RELAY_V4.parse().unwrap());
    assert_eq!(allocate(&mut relay, &mut client).code(), 300);
    relay.broken.clear();
    relay.allocate(&mut client);
    relay.shut_down();
}

#[test]
fn half_of_a_dual_allocation_is_better_than_another_server() {
    let mut relay = Relay::new(with_servers(vec![server(ONE)]));
    relay.broken.insert(RELAY_V6.parse().unwrap());
    let mut client = Client::alice(AT);
    let both = AdditionalAddressFamily(Ok(hairpin_proto::address::AddressFamily::V6));
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&both));
    answer.expect_success(&client);
    assert_eq!((answer.relayed().len(), servers(&answer)), (1, vec![]));
    relay.refresh(&mut client, 0);

    relay.broken.insert(RELAY_V4.parse().unwrap());
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&both));
    assert_eq!((answer.code(), servers(&answer)), (300, vec![socket(ONE)]));
    relay.shut_down();
}

#[test]
fn a_quota_is_no_reason_to_send_a_client_away() {
    let mut config = with_servers(vec![server(ONE)]);
    realm(&mut config.settings).allocations_per_user = 1;
    let mut relay = Relay::new(config);
    relay.allocate(&mut Client::alice(AT));
    let mut second = Client::alice("203.0.113.7:41001");
    let answer = allocate(&mut relay, &mut second);
    answer.expect_error(&second, 486);
    assert_eq!(servers(&answer), []);
    relay.shut_down();
}

#[test]
fn other_errors_of_a_client_and_other_wants_of_room_stay_what_they_are() {
    let mut config = with_servers(vec![server(ONE)]);
    config.settings.limits.permissions = 1;
    let mut relay = Relay::new(config);
    let mut client = Client::alice(AT);
    relay.allocate(&mut client);
    relay.permit(&mut client, &["8.8.8.8:1", "8.8.4.4:1"]).expect_error(&client, 508);
    relay.refresh(&mut client, 0);

    relay.server.set_draining(Draining::NewClients);
    relay.request(&mut client, Method::ALLOCATE, |request| request).expect_error(&client, 400);
    let sctp = RequestedTransport(132);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&sctp)).expect_error(&client, 442);
    let family = RequestedAddressFamily(Err(9));
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&family)).expect_error(&client, 440);
    relay.refresh(&mut client, 600).expect_error(&client, 437);
}

#[test]
fn servers_are_taken_in_turn_each_family_for_itself() {
    let all = [ONE, TWO, "198.51.100.3:3478"];
    let mut relay = draining([&all[..2], &[SIX], &all[2..]].concat().into_iter().map(server).collect());
    let (mut client, mut v6) = (Client::alice(AT), Client::alice(AT_V6));
    let first: [SocketAddr; 3] = in_turn(&mut relay, &mut client);
    assert_eq!(in_turn(&mut relay, &mut client), first);
    assert_eq!(BTreeSet::from(first), all.iter().map(|server| socket(server)).collect());
    assert_eq!(in_turn(&mut relay, &mut v6), [socket(SIX); 2]);
}

#[test]
fn the_servers_of_the_other_family_are_taken_in_turn_too() {
    let others = [SIX, "[2001:db8::2]:3478"];
    let mut relay = draining([&[ONE], &others[..]].concat().into_iter().map(server).collect());
    let mut client = Client::alice(AT);
    let second: Vec<SocketAddr> = (0..4).map(|_| servers(&allocate(&mut relay, &mut client))[1]).collect();
    assert_eq!(second[..2], second[2..]);
    assert_eq!(BTreeSet::from([second[0], second[1]]), others.map(socket).into());
}

#[test]
fn the_first_turn_is_drawn_by_lot() {
    let firsts: BTreeSet<SocketAddr> = (0..64_u64)
        .map(|seed| {
            let mut relay = draining([ONE, TWO, "198.51.100.3:3478"].map(server).to_vec());
            let config = with_servers([ONE, TWO, "198.51.100.3:3478"].map(server).to_vec());
            relay.server = hairpin_proto::turn::Server::new(
                config,
                Box::new(crate::harness::Seeded(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * seed + 1))),
            );
            relay.server.set_draining(Draining::NewClients);
            in_turn::<1>(&mut relay, &mut Client::alice(AT))[0]
        })
        .collect();
    assert_eq!(firsts.len(), 3);
}

#[test]
fn nobody_is_sent_to_where_it_comes_from() {
    let mut config = with_servers(vec![server(SERVER), server("198.51.100.15:3478"), server(ONE), server(TWO)]);
    let nat = RelayAddress { bind: "192.0.2.15".parse().unwrap(), public: "198.51.100.15".parse().unwrap() };
    config.settings.translation = Translation::new(&[nat]).unwrap();
    let mut relay = Relay::new(config);
    relay.server.set_draining(Draining::NewClients);
    let mut client = Client::alice(AT);
    let first: [SocketAddr; 2] = in_turn(&mut relay, &mut client);
    assert_eq!(in_turn(&mut relay, &mut client), first);
    assert_eq!(BTreeSet::from(first), BTreeSet::from([socket(ONE), socket(TWO)]));
    // What is reached at another port is another server.
    client.five_tuple.server = ServerAddr::new(socket("192.0.2.15:3479"));
    let all: BTreeSet<SocketAddr> = in_turn::<4>(&mut relay, &mut client).into();
    assert_eq!(all.len(), 4);

    let mut alone = draining(vec![server(SERVER)]);
    let mut client = Client::alice(AT);
    allocate(&mut alone, &mut client).expect_error(&client, 508);
    let mut from_v6 = Client::alice(AT_V6);
    let answer = allocate(&mut alone, &mut from_v6);
    answer.expect_error(&from_v6, 508);
}

#[test]
fn a_client_is_not_sent_back_by_the_second_address_either() {
    let mut relay = draining(vec![server(SIX), server(SERVER)]);
    let mut client = Client::alice(AT_V6);
    let answer = allocate(&mut relay, &mut client);
    expect_redirect(&relay, &client, &answer, &[SIX]);
}

#[test]
fn a_domain_is_told_to_those_who_check_certificates() {
    for (transport, expected) in [
        (Transport::Udp, None),
        (Transport::Tcp, None),
        (Transport::Tls, Some("turn.example.net".to_owned())),
        (Transport::Dtls, Some("turn.example.net".to_owned())),
    ] {
        let mut relay = draining(vec![server(ONE).with_domain("turn.example.net").unwrap(), server(SIX)]);
        let mut client = Client::alice(AT);
        client.five_tuple.transport = transport;
        let answer = allocate(&mut relay, &mut client);
        // One domain stands for all servers of a response, so there the other family's has no place.
        let to: &[&str] = if expected.is_some() { &[ONE] } else { &[ONE, SIX] };
        expect_redirect(&relay, &client, &answer, to);
        assert_eq!(domain(&answer), expected, "{transport}");
    }
    let named = |address| server(address).with_domain("turn.example.net").unwrap();
    let mut relay = draining(vec![named(ONE), named(SIX)]);
    let mut client = Client::alice(AT);
    client.five_tuple.transport = Transport::Tls;
    let answer = allocate(&mut relay, &mut client);
    expect_redirect(&relay, &client, &answer, &[ONE, SIX]);
    let mut relay = draining(vec![server(ONE)]);
    let answer = allocate(&mut relay, &mut client);
    assert_eq!(domain(&answer), None, "it has the certificate of this server");
}

#[test]
fn a_port_that_takes_other_clients_is_named_to_nobody_else() {
    let (plain, encrypted) = ("198.51.100.1:3478", "198.51.100.1:5349");
    for (transport, to) in
        [(Transport::Udp, plain), (Transport::Tcp, plain), (Transport::Tls, encrypted), (Transport::Dtls, encrypted)]
    {
        let mut relay = draining(vec![
            server(plain).for_clients(Encryption::Plain),
            server(encrypted).for_clients(Encryption::Encrypted),
        ]);
        let mut client = Client::alice(AT);
        client.five_tuple.transport = transport;
        let answer = allocate(&mut relay, &mut client);
        expect_redirect(&relay, &client, &answer, &[to]);
    }
    let mut relay = draining(vec![server(plain).for_clients(Encryption::Plain)]);
    let mut client = Client::alice(AT);
    client.five_tuple.transport = Transport::Tls;
    allocate(&mut relay, &mut client).expect_error(&client, 508);
}

#[test]
fn a_reserved_port_is_redeemed_where_it_is() {
    let mut relay = Relay::new(with_servers(vec![server(ONE)]));
    let mut rtp = Client::alice(AT);
    let token = relay.request(&mut rtp, Method::ALLOCATE, |request| request.with(&UDP).with(&PAIR)).token().unwrap();
    relay.server.set_draining(Draining::NewClients);
    let mut rtcp = Client::alice("203.0.113.7:41001");
    relay.request(&mut rtcp, Method::ALLOCATE, |request| request.with(&UDP).with(&token)).expect_success(&rtcp);

    let unknown = ReservationToken([9; 8]);
    let mut other = Client::alice("203.0.113.7:41002");
    let answer = relay.request(&mut other, Method::ALLOCATE, |request| request.with(&UDP).with(&unknown));
    assert_eq!((answer.code(), servers(&answer)), (508, vec![]));
    relay.shut_down();

    let mut config = with_servers(vec![server(ONE)]);
    config.settings.limits.allocations = 0;
    let mut full = Relay::new(config);
    let answer = full.request(&mut other, Method::ALLOCATE, |request| request.with(&UDP).with(&unknown));
    answer.expect_error(&other, 508);
}

#[test]
fn a_retransmission_gets_an_answer_as_good_as_the_first() {
    let mut relay = Relay::new(with_servers(vec![server(ONE), server(TWO)]));
    let (mut early, mut late) = (Client::alice(AT), Client::alice("203.0.113.7:41001"));
    let granted = relay.signed(&mut early, Method::ALLOCATE, |request| request.with(&UDP));
    let answer = relay.answer(&early, &granted);
    relay.server.set_draining(Draining::NewClients);
    assert_eq!(relay.answer(&early, &granted).bytes, answer.bytes);

    let refused = relay.signed(&mut late, Method::ALLOCATE, |request| request.with(&UDP).with(&Lifetime(700)));
    for _ in 0..2 {
        let answer = relay.answer(&late, &refused);
        answer.expect_error(&late, 300);
        assert!([socket(ONE), socket(TWO)].contains(&servers(&answer)[0]));
        assert_eq!(servers(&answer).len(), 1);
    }
    relay.shut_down();
}

#[test]
fn a_mapped_address_counts_as_ipv4() {
    let mut relay = draining(vec![server("[::ffff:198.51.100.1]:3478")]);
    let mut client = Client::alice(AT);
    client.five_tuple.client = ClientAddr::new(socket("[::ffff:203.0.113.7]:41000"));
    let answer = allocate(&mut relay, &mut client);
    expect_redirect(&relay, &client, &answer, &[ONE]);
    assert_eq!(answer.message().find(AlternateServerAttribute::TYPE).unwrap().len(), 8);
}

#[test]
fn what_is_no_server_or_no_domain_is_refused() {
    for address in ["0.0.0.0:3478", "[::]:3478", "198.51.100.1:0", "224.0.0.1:3478"].map(socket) {
        assert_eq!(AlternateServer::new(address), Err(AlternateError::Address(address)));
    }
    let (label, long) = ("a".repeat(63), ["a"; 129].join("."));
    for name in ["", ".", "a..b", "-a.example", "a-.example", "a_b", "bücher.example", "a b", &"a".repeat(64), &long] {
        assert_eq!(server(ONE).with_domain(name), Err(AlternateError::Domain(name.to_owned())), "{name}");
    }
    for name in ["a", "turn.example.org", "xn--bcher-kva.example", "3com.example", &label, &["a"; 128].join(".")] {
        assert!(server(ONE).with_domain(name).is_ok(), "{name}");
    }
}
