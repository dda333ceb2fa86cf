//! Connections between clients and peers (RFC 6062 sections 5.2 to 5.5).

use hairpin_proto::address::{PeerAddr, Transport};
use hairpin_proto::stun::attribute::{
    ConnectionId, ErrorCodeAttribute, Nonce, RequestedTransport, Username, XorPeerAddress,
};
use hairpin_proto::stun::{Class, Message, MessageBuilder, Method, TransactionId};
use hairpin_proto::turn::{ConnectError, Credentials, Discard, Disposition, Random, RelayId, Server, ServerConfig};

use crate::harness::{
    Answer, Client, Event, Relay, SECRET, Seeded, Stage, TCP, UDP, config, config_with, dropped, socket,
};

const AT: &str = "203.0.113.7:41000";
const DATA_AT: &str = "203.0.113.7:41001";
const PEER: &str = "8.8.8.8:443";

pub(crate) fn tcp_config() -> ServerConfig {
    config_with(|settings| settings.tcp_relay = true)
}

/// A relay with an allocation of TCP.
pub(crate) fn tcp_relay() -> (Relay, Client, RelayId) {
    let mut relay = Relay::new(tcp_config());
    let mut client = Client::alice(AT).over(Transport::Tcp);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP));
    answer.expect_success(&client);
    (relay, client, answer.bound())
}

fn data_client() -> Client {
    Client::alice(DATA_AT).over(Transport::Tcp)
}

fn connect_request(relay: &mut Relay, client: &mut Client, peer: &str) -> Vec<u8> {
    relay.signed(client, Method::CONNECT, |request| request.with(&XorPeerAddress(socket(peer))))
}

/// Asks for a connection, which is then being opened.
pub(crate) fn connect(relay: &mut Relay, client: &mut Client, peer: &str) -> ConnectionId {
    let request = connect_request(relay, client, peer);
    let events = relay.control(client, &request);
    let [Event::Connect(id, _, to)] = events[..] else { panic!("{events:?}") };
    assert_eq!(to, PeerAddr::new(socket(peer)));
    id
}

/// Lets a peer connect to a relayed address.
pub(crate) fn permitted(relay: &mut Relay, client: &mut Client, id: RelayId, peer: &str) -> ConnectionId {
    relay.permit(client, &[peer]).expect_success(client);
    let connection = relay.peer_connects(id, peer).expect("there is a permission");
    assert_eq!(relay.drain(), [Event::Response(client.five_tuple.client)]);
    connection
}

/// The error code of a message, or 200.
pub(crate) fn code(bytes: &[u8]) -> u16 {
    let message = Message::parse(bytes).unwrap();
    let error: Option<ErrorCodeAttribute<'_>> = message.attribute().unwrap();
    error.map_or(200, |error| error.code.number())
}

impl Relay {
    pub(crate) fn bind_connection(&mut self, client: &mut Client, connection: ConnectionId) -> Answer {
        self.request(client, Method::CONNECTION_BIND, |request| request.with(&connection))
    }

    fn refuses_connect(&mut self, client: &mut Client, peer: &str, code: u16) {
        self.request(client, Method::CONNECT, |request| request.with(&XorPeerAddress(socket(peer))))
            .expect_error(client, code);
    }
}

#[test]
fn a_connect_is_answered_when_the_peer_has_accepted() {
    let (mut relay, mut client, id) = tcp_relay();
    let request = connect_request(&mut relay, &mut client, PEER);
    let events = relay.control(&client, &request);
    let [Event::Connect(connection, from, to)] = events[..] else { panic!("{events:?}") };
    assert_eq!((from, to), (id, PeerAddr::new(socket(PEER))));
    relay.pass(29);
    relay.responses.clear();
    assert_eq!(relay.connected(connection, Ok(())), [Event::Response(client.five_tuple.client)]);
    let response = Message::parse(&relay.responses[0]).unwrap();
    assert_eq!((response.class(), response.method()), (Class::Success, Method::CONNECT));
    assert_eq!(response.transaction_id(), Message::parse(&request).unwrap().transaction_id());
    assert_eq!(response.attribute(), Ok(Some(connection)));
    assert!(response.verify_integrity(&client.key));
    relay.shut_down();
}

/// Of each byte, three bits at most are random: of sixty numbers some are the same.
struct Poor(Seeded);

impl Random for Poor {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
        for byte in bytes.iter_mut() {
            *byte &= 0x49;
        }
    }
}

#[test]
fn no_two_connections_have_the_same_name() {
    let mut relay = Relay::new(tcp_config());
    relay.server = Server::new(tcp_config(), Box::new(Poor(Seeded(0x9e37_79b9_7f4a_7c15))));
    let mut client = Client::alice(AT).over(Transport::Tcp);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP)).expect_success(&client);
    for port in 1..=100 {
        // The driver panics at a name that is in use.
        connect(&mut relay, &mut client, &format!("8.8.8.8:{port}"));
    }
}

#[test]
fn only_the_first_answer_of_the_driver_counts() {
    let (mut relay, mut client, _) = tcp_relay();
    let id = connect(&mut relay, &mut client, PEER);
    relay.connected(id, Ok(()));
    for result in [Ok(()), Err(ConnectError::Failed)] {
        relay.server.peer_connected(relay.now, id, result);
        assert_eq!(relay.drain(), [], "it waits: {result:?}");
    }
    let mut data = data_client();
    relay.bind_connection(&mut data, id).expect_success(&data);
    for result in [Ok(()), Err(ConnectError::Failed)] {
        relay.server.peer_connected(relay.now, id, result);
        assert_eq!(relay.drain(), [], "it is bound: {result:?}");
    }
    let mut another = Client::alice("203.0.113.7:41002").over(Transport::Tcp);
    relay.bind_connection(&mut another, id).expect_error(&another, 400);
    relay.shut_down();
}

#[test]
fn a_connect_that_fails_is_answered_by_447_and_may_be_tried_again() {
    for error in [ConnectError::Failed, ConnectError::InUse, ConnectError::Unavailable] {
        let (mut relay, mut client, _) = tcp_relay();
        let connection = connect(&mut relay, &mut client, PEER);
        relay.responses.clear();
        assert_eq!(relay.connected(connection, Err(error)), [Event::Response(client.five_tuple.client)]);
        assert_eq!(code(&relay.responses[0]), 447);
        assert!(Message::parse(&relay.responses[0]).unwrap().verify_integrity(&client.key));
        assert_ne!(connect(&mut relay, &mut client, PEER), connection);
        relay.shut_down();
    }
}

#[test]
fn a_peer_has_thirty_seconds_to_answer() {
    let (mut relay, mut client, _) = tcp_relay();
    let connection = connect(&mut relay, &mut client, PEER);
    relay.responses.clear();
    assert_eq!(relay.pass(29), []);
    let expected = [Event::CloseConnection(connection), Event::Response(client.five_tuple.client)];
    assert_eq!(relay.pass(1), expected);
    assert_eq!(code(&relay.responses[0]), 447);
    relay.server.peer_connected(relay.now, connection, Err(ConnectError::Failed));
    assert_eq!(relay.drain(), []);
    relay.shut_down();
}

#[test]
fn an_answer_that_comes_before_a_late_timer_is_too_late_as_well() {
    let (mut relay, mut client, _) = tcp_relay();
    let connection = connect(&mut relay, &mut client, PEER);
    relay.sleep(30);
    relay.responses.clear();
    let expected = [Event::CloseConnection(connection), Event::Response(client.five_tuple.client)];
    assert_eq!(relay.connected(connection, Ok(())), expected);
    assert_eq!(code(&relay.responses[0]), 447);
    relay.shut_down();
}

#[test]
fn there_is_one_connection_to_a_peer() {
    let (mut relay, mut client, id) = tcp_relay();
    let first = connect(&mut relay, &mut client, PEER);
    relay.refuses_connect(&mut client, PEER, 446);
    relay.connected(first, Ok(()));
    relay.refuses_connect(&mut client, PEER, 446);
    let mut data = data_client();
    relay.bind_connection(&mut data, first).expect_success(&data);
    relay.refuses_connect(&mut client, PEER, 446);
    assert_eq!(relay.disconnected(first), []);
    let second = connect(&mut relay, &mut client, PEER);
    let accepted = permitted(&mut relay, &mut client, id, "8.8.4.4:1");
    relay.refuses_connect(&mut client, "8.8.4.4:1", 446);
    assert_eq!(relay.server.peer_accepted(relay.now, id, PeerAddr::new(socket("8.8.4.4:1"))), None);
    connect(&mut relay, &mut client, "8.8.8.8:444");
    let mut bob = Client::new("203.0.113.8:1", "bob", "hunter2").over(Transport::Tls);
    relay.request(&mut bob, Method::ALLOCATE, |request| request.with(&TCP)).expect_success(&bob);
    let of_bob = connect(&mut relay, &mut bob, PEER);
    assert_eq!([first, second, accepted].iter().filter(|id| **id == of_bob).count(), 0);
    relay.shut_down();
}

#[test]
fn a_connect_needs_an_allocation_of_tcp_of_the_same_user() {
    let mut relay = Relay::new(tcp_config());
    let mut client = Client::alice(AT).over(Transport::Tcp);
    relay.refuses_connect(&mut client, PEER, 437);
    relay.allocate(&mut client);
    relay.refuses_connect(&mut client, PEER, 400);
    let (mut relay, client, _) = tcp_relay();
    let mut bob = Client { five_tuple: client.five_tuple, ..Client::new(AT, "bob", "hunter2") };
    relay.refuses_connect(&mut bob, PEER, 441);
    relay.shut_down();
}

#[test]
fn a_connect_names_a_peer_that_can_and_may_be_reached() {
    let (mut relay, mut client, _) = tcp_relay();
    relay.request(&mut client, Method::CONNECT, |request| request).expect_error(&client, 400);
    let nonsense = RequestedTransport(1);
    relay.request(&mut client, Method::CONNECT, |request| request.with(&nonsense)).expect_error(&client, 400);
    relay.refuses_connect(&mut client, "8.8.8.8:0", 400);
    relay.refuses_connect(&mut client, "127.0.0.1:22", 403);
    relay.refuses_connect(&mut client, "192.0.2.15:22", 403);
    relay.refuses_connect(&mut client, "[2001:db8::53]:443", 443);
    assert_eq!(relay.server.poll_timeout(), Some(relay.at(600)), "only the allocation's timer is set");
    relay.shut_down();
}

#[test]
fn a_connect_neither_needs_nor_gives_a_permission() {
    let (mut relay, mut client, id) = tcp_relay();
    let connection = connect(&mut relay, &mut client, PEER);
    relay.connected(connection, Ok(()));
    assert_eq!(relay.peer_connects(id, "8.8.8.8:50000"), None);
    relay.shut_down();
}

#[test]
fn a_peer_with_a_permission_is_announced() {
    let (mut relay, mut client, id) = tcp_relay();
    relay.permit(&mut client, &["8.8.8.8:0"]).expect_success(&client);
    relay.responses.clear();
    let connection = relay.peer_connects(id, PEER).expect("there is a permission");
    assert_eq!(relay.drain(), [Event::Response(client.five_tuple.client)]);
    let indication = Message::parse(&relay.responses[0]).unwrap();
    assert_eq!((indication.class(), indication.method()), (Class::Indication, Method::CONNECTION_ATTEMPT));
    assert_eq!(indication.attribute(), Ok(Some(XorPeerAddress(socket(PEER)))));
    assert_eq!(indication.attribute(), Ok(Some(connection)));
    relay.shut_down();
}

#[test]
fn a_peer_without_a_permission_is_turned_away_and_nobody_is_told() {
    let (mut relay, mut client, id) = tcp_relay();
    assert_eq!(relay.peer_connects(id, PEER), None);
    relay.permit(&mut client, &["8.8.4.4:443"]).expect_success(&client);
    assert_eq!(relay.peer_connects(id, PEER), None);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    relay.sleep(300);
    assert_eq!(relay.peer_connects(id, PEER), None, "the permission has ended, its timer is late");
    assert_eq!(relay.peer_connects(RelayId(99), PEER), None);
    assert_eq!(relay.drain(), []);
    relay.shut_down();
}

#[test]
fn nobody_connects_to_a_relayed_address_of_udp_or_to_one_that_has_ended() {
    let mut relay = Relay::new(tcp_config());
    let mut client = Client::alice(AT).over(Transport::Tcp);
    let id = relay.allocate(&mut client);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    assert_eq!(relay.peer_connects(id, PEER), None);

    let (mut relay, mut client, id) = tcp_relay();
    relay.pass(590);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    relay.sleep(10);
    assert_eq!(relay.peer_connects(id, PEER), None);
    relay.shut_down();
}

#[test]
fn a_connection_is_joined_after_the_answer() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let (mut relay, mut client, id) = tcp_relay();
        let asked = connect(&mut relay, &mut client, "8.8.4.4:1");
        relay.connected(asked, Ok(()));
        let accepted = permitted(&mut relay, &mut client, id, PEER);
        for (port, connection) in (41_001..).zip([asked, accepted]) {
            let mut data = Client::alice(&format!("203.0.113.7:{port}")).over(transport);
            let answer = relay.bind_connection(&mut data, connection);
            answer.expect_success(&data);
            assert_eq!(answer.events, [Event::Join(connection, data.five_tuple)]);
            assert_eq!(relay.connections[&connection].stage, Stage::Joined(data.five_tuple));
        }
        assert_eq!(relay.pass(299), [], "what is joined lasts as long as the allocation");
        relay.shut_down();
    }
}

#[test]
fn a_connection_waits_thirty_seconds_for_its_client() {
    for is_asked in [true, false] {
        let (mut relay, mut client, id) = tcp_relay();
        let connection = if is_asked {
            let connection = connect(&mut relay, &mut client, PEER);
            relay.pass(20);
            relay.connected(connection, Ok(()));
            connection
        } else {
            permitted(&mut relay, &mut client, id, PEER)
        };
        assert_eq!(relay.pass(29), []);
        assert_eq!(relay.pass(1), [Event::CloseConnection(connection)]);
        let mut data = data_client();
        relay.bind_connection(&mut data, connection).expect_error(&data, 400);
        relay.shut_down();
    }
}

#[test]
fn a_late_timer_leaves_no_door_open() {
    let (mut relay, mut client, id) = tcp_relay();
    let connection = permitted(&mut relay, &mut client, id, PEER);
    let mut data = data_client();
    data.nonce = relay.challenge(&data);
    relay.sleep(30);
    let answer = relay.bind_connection(&mut data, connection);
    assert_eq!((answer.code(), &answer.events[..]), (400, &[Event::CloseConnection(connection)][..]));
    relay.shut_down();
}

#[test]
fn a_connection_bind_names_a_connection_that_waits() {
    let (mut relay, mut client, id) = tcp_relay();
    let connection = permitted(&mut relay, &mut client, id, PEER);
    let opening = connect(&mut relay, &mut client, "8.8.4.4:1");
    let mut data = data_client();
    relay.request(&mut data, Method::CONNECTION_BIND, |request| request).expect_error(&data, 400);
    relay.bind_connection(&mut data, ConnectionId(connection.0 ^ 1)).expect_error(&data, 400);
    relay.bind_connection(&mut data, opening).expect_error(&data, 400);
    relay.bind_connection(&mut data, connection).expect_success(&data);
    let mut second = Client::alice("203.0.113.7:41002").over(Transport::Tcp);
    relay.bind_connection(&mut second, connection).expect_error(&second, 400);
    relay.disconnected(connection);
    relay.bind_connection(&mut second, connection).expect_error(&second, 400);
    relay.shut_down();
}

#[test]
fn a_connection_is_bound_over_a_stream_that_is_nobodys_control_connection() {
    let (mut relay, mut client, id) = tcp_relay();
    let connection = permitted(&mut relay, &mut client, id, PEER);
    for transport in [Transport::Udp, Transport::Dtls] {
        let mut data = Client::alice(DATA_AT).over(transport);
        relay.bind_connection(&mut data, connection).expect_error(&data, 400);
    }
    relay.bind_connection(&mut client, connection).expect_error(&client, 400);
    let mut other = data_client();
    relay.binds = false;
    let allocate = relay.signed(&mut other, Method::ALLOCATE, |request| request.with(&UDP));
    assert!(matches!(relay.control(&other, &allocate)[..], [Event::Bind(..)]));
    relay.bind_connection(&mut other, connection).expect_error(&other, 400);
    relay.shut_down();
}

#[test]
fn only_the_user_who_made_the_allocation_binds_its_connections() {
    let (mut relay, mut client, id) = tcp_relay();
    let connection = permitted(&mut relay, &mut client, id, PEER);
    let mut bob = Client::new(DATA_AT, "bob", "hunter2").over(Transport::Tcp);
    relay.bind_connection(&mut bob, connection).expect_error(&bob, 441);
    let mut mallory = Client::new(DATA_AT, "alice", "guess").over(Transport::Tcp);
    assert_eq!(relay.bind_connection(&mut mallory, connection).code(), 401);
    let mut data = data_client();
    relay.bind_connection(&mut data, connection).expect_success(&data);
    relay.shut_down();
}

#[test]
fn a_stranger_is_challenged_and_the_connection_waits_on() {
    let (mut relay, mut client, id) = tcp_relay();
    let connection = permitted(&mut relay, &mut client, id, PEER);
    let mut request = Vec::new();
    MessageBuilder::new(&mut request, Class::Request, Method::CONNECTION_BIND, TransactionId([4; 12]))
        .with(&connection)
        .finish(false);
    let mut data = data_client();
    let answer = relay.answer(&data, &request);
    assert_eq!((answer.code(), answer.events.len()), (401, 0));
    data.nonce = answer.message().attribute::<Nonce<'_>>().unwrap().unwrap().0.to_owned();
    relay.bind_connection(&mut data, connection).expect_success(&data);
    relay.shut_down();
}

#[test]
fn a_credential_that_has_expired_meanwhile_still_binds_connections() {
    let mut relay = Relay::new(tcp_config());
    let (username, password) = Credentials::mint(SECRET, "carol", relay.now.unix + 10);
    let mut client = Client::new(AT, &username, &password).over(Transport::Tcp);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP));
    let id = answer.bound();
    relay.pass(20);
    let connection = permitted(&mut relay, &mut client, id, PEER);
    let mut data = Client::new(DATA_AT, &username, &password).over(Transport::Tcp);
    let absent = ConnectionId(connection.0 ^ 1);
    assert_eq!(relay.bind_connection(&mut data, absent).code(), 401, "it begins nothing any more");
    relay.bind_connection(&mut data, connection).expect_success(&data);
    relay.shut_down();
}

#[test]
fn a_connection_that_ends_is_forgotten_whatever_its_stage() {
    let (mut relay, mut client, id) = tcp_relay();
    let opening = connect(&mut relay, &mut client, PEER);
    relay.responses.clear();
    assert_eq!(relay.disconnected(opening), [Event::Response(client.five_tuple.client)]);
    assert_eq!(code(&relay.responses[0]), 447);
    let waiting = permitted(&mut relay, &mut client, id, PEER);
    assert_eq!(relay.disconnected(waiting), []);
    let joined = permitted(&mut relay, &mut client, id, PEER);
    let mut data = data_client();
    relay.bind_connection(&mut data, joined).expect_success(&data);
    assert_eq!(relay.disconnected(joined), []);
    relay.server.connection_closed(relay.now, joined);
    assert_eq!(relay.drain(), []);
    relay.refresh(&mut client, 0).expect_success(&client);
    assert_eq!(relay.server.poll_timeout(), None, "no timer of theirs is left");
    relay.shut_down();
}

#[test]
fn a_connection_that_nobody_waits_for_is_closed() {
    let (mut relay, mut client, _) = tcp_relay();
    let connection = connect(&mut relay, &mut client, PEER);
    relay.server.client_lost(relay.now, &client.five_tuple);
    assert_eq!(relay.drain()[0], Event::CloseConnection(connection));
    relay.server.peer_connected(relay.now, connection, Ok(()));
    let effects = std::iter::from_fn(|| relay.server.poll_effect().map(|effect| format!("{effect:?}")));
    assert_eq!(effects.collect::<Vec<_>>(), [format!("CloseConnection {{ connection: {connection:?} }}")]);
}

#[test]
fn the_number_of_connections_is_limited() {
    let mut config = tcp_config();
    config.settings.limits.connections = 2;
    let mut relay = Relay::new(config);
    let mut client = Client::alice(AT).over(Transport::Tcp);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP));
    let id = answer.bound();
    let first = connect(&mut relay, &mut client, "8.8.4.4:1");
    permitted(&mut relay, &mut client, id, PEER);
    relay.refuses_connect(&mut client, "8.8.4.4:2", 508);
    assert_eq!(relay.peer_connects(id, "8.8.8.8:444"), None);
    relay.connected(first, Err(ConnectError::Failed));
    connect(&mut relay, &mut client, "8.8.4.4:2");
    relay.shut_down();
}

#[test]
fn names_of_connections_say_whose_they_are_and_cannot_be_guessed() {
    let mut ids = Vec::new();
    for shard in 0..3 {
        let mut relay = Relay::new(ServerConfig { shard, shards: 3, ..tcp_config() });
        let mut client = Client::alice(AT).over(Transport::Tcp);
        relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP)).expect_success(&client);
        for port in 1..=200 {
            ids.push(connect(&mut relay, &mut client, &format!("8.8.8.8:{port}")));
        }
        assert!(ids[ids.len() - 200..].iter().all(|id| id.shard(3) == shard));
        relay.shut_down();
    }
    let count = ids.len();
    for bit in 8..32 {
        let set = ids.iter().filter(|id| id.0 >> bit & 1 == 1).count();
        assert!((count / 3..count * 2 / 3).contains(&set), "bit {bit} is set in {set} of {count}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn a_connection_of_another_shard_is_for_that_shard_to_bind() {
    let mut relay = Relay::new(ServerConfig { shard: 1, shards: 3, ..tcp_config() });
    let bind = |id: u32| {
        let mut request = Vec::new();
        MessageBuilder::new(&mut request, Class::Request, Method::CONNECTION_BIND, TransactionId([4; 12]))
            .with(&ConnectionId(id))
            .with(&Username("anybody"))
            .finish(false);
        request
    };
    let client = Client::alice(AT).over(Transport::Tcp);
    for (id, shard) in [(0, 0), (2, 2), (u32::MAX, u32::MAX % 3), (0xffff_fffe, 2)] {
        let (request, shard) = (bind(id), Disposition::Elsewhere { shard });
        assert_eq!(relay.client_sends(&client, &request), shard, "{id}");
    }
    assert_eq!(relay.drain(), []);
    assert_eq!(relay.server.message_counts().requests().map(|(_, count)| count).sum::<u64>(), 0);
    assert_eq!(relay.answer(&client, &bind(4)).code(), 401);
    let udp = Client::alice(AT);
    assert_eq!(relay.answer(&udp, &bind(0)).code(), 401, "a datagram has no connection to be handed over");
    relay.shut_down();
}

#[test]
fn where_tcp_is_not_served_its_methods_are_not_known() {
    let mut relay = Relay::new(ServerConfig { shards: 2, ..config() });
    let mut client = Client::alice(AT).over(Transport::Tcp);
    relay.allocate(&mut client);
    let connect = connect_request(&mut relay, &mut client, PEER);
    let bind = relay.signed(&mut client, Method::CONNECTION_BIND, |request| request.with(&ConnectionId(1)));
    for request in [connect, bind] {
        assert_eq!(relay.client_sends(&client, &request), dropped(Discard::Unexpected));
    }
    relay.shut_down();
}

#[test]
fn requests_over_a_stream_are_never_taken_for_retransmissions() {
    let (mut relay, client, _) = tcp_relay();
    relay.server.client_lost(relay.now, &client.five_tuple);
    relay.drain();
    let mut again = client.clone();
    let allocate = relay.signed(&mut again, Method::ALLOCATE, |request| request.with(&TCP));
    relay.answer(&again, &allocate).expect_success(&again);
    relay.server.client_lost(relay.now, &again.five_tuple);
    relay.drain();
    let answer = relay.answer(&again, &allocate);
    answer.expect_success(&again);
    assert_eq!(answer.binds(), 1, "another connection from the same port is another client");
    relay.shut_down();
}

#[test]
fn requests_of_tcp_are_counted_by_their_names() {
    let (mut relay, mut client, id) = tcp_relay();
    let connection = permitted(&mut relay, &mut client, id, PEER);
    relay.refuses_connect(&mut client, PEER, 446);
    let mut data = data_client();
    data.nonce = relay.challenge(&data);
    relay.bind_connection(&mut data, connection).expect_success(&data);
    let counts = relay.server.message_counts();
    let requests: Vec<_> = counts.requests().filter(|(name, _)| name.starts_with("connect")).collect();
    assert_eq!(requests, [("connect", 1), ("connection_bind", 1)]);
    let responses: Vec<_> = counts.responses().filter(|((name, _), _)| name.starts_with("connect")).collect();
    assert_eq!(responses, [(("connect", 446), 1), (("connection_bind", 200), 1)]);
    relay.shut_down();
}
