//! Allocations of TCP (RFC 6062 section 5.1), and what becomes of their connections when they end (section 5.5).

use hairpin_proto::address::{AddressFamily, Transport};
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, DontFragment, EvenPort, RequestedAddressFamily, RequestedTransport, ReservationToken,
};
use hairpin_proto::turn::{BindRequest, ConnectError, Discard, ServerConfig};

use crate::harness::{
    Client, Event, PUBLIC_V4, RELAY_V4, RELAY_V6, Relay, TCP, UDP, channel_data, config, dropped, send_indication,
};
use crate::tcp_connections::{connect, permitted, tcp_config, tcp_relay};

const AT: &str = "203.0.113.7:41000";
const PEER: &str = "8.8.8.8:443";

fn allocate(client: Client, config: ServerConfig, transport: RequestedTransport) -> u16 {
    let mut relay = Relay::new(config);
    let mut client = client;
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&transport));
    if answer.code() != 200 {
        answer.expect_error(&client, answer.code());
    }
    relay.shut_down();
    answer.code()
}

#[test]
fn only_a_client_over_tcp_or_tls_gets_an_allocation_of_tcp() {
    for (transport, code) in
        [(Transport::Udp, 400), (Transport::Dtls, 400), (Transport::Tcp, 200), (Transport::Tls, 200)]
    {
        assert_eq!(allocate(Client::alice(AT).over(transport), tcp_config(), TCP), code, "{transport}");
        assert_eq!(allocate(Client::alice(AT).over(transport), config(), TCP), 442, "{transport}, not served");
        assert_eq!(allocate(Client::alice(AT).over(transport), tcp_config(), UDP), 200, "{transport} to UDP");
        let other = RequestedTransport(132);
        assert_eq!(allocate(Client::alice(AT).over(transport), tcp_config(), other), 442, "{transport} to SCTP");
    }
}

#[test]
fn a_socket_that_listens_is_bound_and_its_address_told() {
    let mut relay = Relay::new(tcp_config());
    let mut client = Client::alice(AT).over(Transport::Tcp);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP));
    answer.expect_success(&client);
    let [Event::Bind(id, BindRequest::Stream(address)), Event::Allocated(_)] = answer.events[..] else {
        panic!("a socket is bound, and no fast path is told: {answer:?}");
    };
    assert_eq!((relay.sockets[&id], address.ip().to_string()), (address, RELAY_V4.to_owned()));
    assert_eq!(answer.relayed(), [(PUBLIC_V4.parse::<std::net::IpAddr>().unwrap(), address.port()).into()]);
    assert_eq!((answer.lifetime(), answer.token()), (600, None));
    relay.shut_down();
}

#[test]
fn what_is_about_datagrams_is_no_request_for_tcp() {
    let mut relay = Relay::new(tcp_config());
    let mut client = Client::alice(AT).over(Transport::Tcp);
    for reserve_next in [false, true] {
        let even = EvenPort { reserve_next };
        let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP).with(&even));
        answer.expect_error(&client, 400);
    }
    relay
        .request(&mut client, Method::ALLOCATE, |request| request.with(&TCP).with(&DontFragment))
        .expect_error(&client, 400);
    let token = ReservationToken([1; 8]);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP).with(&token)).expect_error(&client, 400);
    relay.shut_down();
}

#[test]
fn either_family_and_both_may_be_asked_for() {
    let v6 = RequestedAddressFamily(Ok(AddressFamily::V6));
    let both = AdditionalAddressFamily(Ok(AddressFamily::V6));
    for (v6, both, ips) in [(Some(&v6), None, &[RELAY_V6][..]), (None, Some(&both), &[PUBLIC_V4, RELAY_V6][..])] {
        let mut relay = Relay::new(tcp_config());
        let mut client = Client::alice(AT).over(Transport::Tcp);
        let answer = relay
            .request(&mut client, Method::ALLOCATE, |request| request.with(&TCP).with_option(v6).with_option(both));
        answer.expect_success(&client);
        assert_eq!(answer.relayed().iter().map(|address| address.ip().to_string()).collect::<Vec<_>>(), ips);
        assert_eq!(relay.streams.len(), ips.len());
        relay.shut_down();
    }
}

#[test]
fn a_port_in_use_is_replaced_by_another_that_listens() {
    let mut relay = Relay::new(tcp_config());
    relay.taken.extend((49_152..=65_535).filter(|port| port % 2 == 0));
    let mut client = Client::alice(AT).over(Transport::Tcp);
    for _ in 0..8 {
        let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP));
        answer.expect_success(&client);
        let asked = answer.events.iter().filter(|event| matches!(event, Event::Bind(_, BindRequest::Stream(_))));
        assert_eq!(asked.count(), answer.binds());
        relay.refresh(&mut client, 0).expect_success(&client);
    }
    relay.shut_down();
}

#[test]
fn data_in_messages_and_channels_are_refused() {
    let (mut relay, mut client, _) = tcp_relay();
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    relay.bind_channel(&mut client, 0x4000, PEER).expect_error(&client, 400);
    let indication = send_indication(PEER, b"data");
    assert_eq!(relay.client_sends(&client, &indication), dropped(Discard::TcpAllocation));
    assert_eq!(relay.client_sends(&client, &channel_data(0x4000, b"data")), dropped(Discard::NoChannel));
    relay.shut_down();
}

#[test]
fn a_refresh_prolongs_the_allocation_and_its_connections() {
    let (mut relay, mut client, id) = tcp_relay();
    let connection = permitted(&mut relay, &mut client, id, PEER);
    let mut data = Client::alice("203.0.113.7:41001").over(Transport::Tcp);
    relay.bind_connection(&mut data, connection).expect_success(&data);
    relay.pass(500);
    relay.refresh(&mut client, 600).expect_success(&client);
    assert_eq!(relay.pass(599), []);
    let events = relay.pass(1);
    assert!(
        matches!(events[..], [Event::CloseConnection(closed), Event::Close(_), Event::Freed(..)] if closed == connection),
        "{events:?}"
    );
    relay.shut_down();
}

/// One connection of each kind: being opened, waiting, and joined.
fn three_connections() -> (Relay, Client) {
    let (mut relay, mut client, id) = tcp_relay();
    connect(&mut relay, &mut client, "8.8.4.4:1");
    permitted(&mut relay, &mut client, id, "8.8.4.4:2");
    let joined = permitted(&mut relay, &mut client, id, "8.8.4.4:3");
    let mut data = Client::alice("203.0.113.7:41001").over(Transport::Tcp);
    relay.bind_connection(&mut data, joined).expect_success(&data);
    assert_eq!(relay.connections.len(), 3);
    relay.responses.clear();
    (relay, client)
}

/// All connections are closed before the socket, in any order.
fn all_closed(events: &[Event]) -> bool {
    let closed = events.iter().filter(|event| matches!(event, Event::CloseConnection(_))).count();
    closed == 3 && matches!(events[events.len() - 2..], [Event::Close(_), Event::Freed(..)])
}

#[test]
fn all_connections_end_with_their_allocation() {
    let (mut relay, mut client) = three_connections();
    let deletion = relay
        .signed(&mut client, Method::REFRESH, |request| request.with(&hairpin_proto::stun::attribute::Lifetime(0)));
    let mut events = relay.control(&client, &deletion);
    assert_eq!(events.pop(), Some(Event::Response(client.five_tuple.client)));
    assert!(all_closed(&events), "{events:?}");
    let codes: Vec<_> = relay.responses.iter().map(|bytes| crate::tcp_connections::code(bytes)).collect();
    assert_eq!(codes, [447, 200], "the connection that was being opened has failed");
    relay.shut_down();

    let (mut relay, _) = three_connections();
    let id = *relay.sockets.keys().next().unwrap();
    relay.server.relay_failed(relay.now, id);
    let events = relay.drain();
    assert!(all_closed(&events), "{events:?}");
    relay.shut_down();

    let (mut relay, _) = three_connections();
    relay.server.shutdown(relay.now);
    let events = relay.drain();
    assert!(all_closed(&events), "{events:?}");
    relay.shut_down();
}

#[test]
fn all_connections_end_with_the_control_connection_and_nobody_is_told() {
    let (mut relay, client) = three_connections();
    relay.server.client_lost(relay.now, &client.five_tuple);
    let events = relay.drain();
    assert!(all_closed(&events), "{events:?}");
    assert_eq!(events.len(), 5, "nothing is sent over what is lost");
    relay.shut_down();
}

#[test]
fn an_allocation_whose_sockets_are_being_bound_ends_with_the_control_connection() {
    let mut relay = Relay::new(tcp_config());
    relay.binds = false;
    let mut client = Client::alice(AT).over(Transport::Tcp);
    let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&TCP));
    let events = relay.control(&client, &request);
    let [Event::Bind(id, BindRequest::Stream(_))] = events[..] else { panic!("{events:?}") };
    relay.server.client_lost(relay.now, &client.five_tuple);
    assert_eq!(relay.drain(), [Event::Close(id)]);
    relay.shut_down();
}

#[test]
fn the_family_of_a_dual_allocation_that_ends_takes_its_connections_with_it() {
    let mut relay = Relay::new(tcp_config());
    let mut client = Client::alice(AT).over(Transport::Tcp);
    let both = AdditionalAddressFamily(Ok(AddressFamily::V6));
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP).with(&both)).expect_success(&client);
    let v4 = connect(&mut relay, &mut client, PEER);
    let v6 = connect(&mut relay, &mut client, "[2001:db8::53]:443");
    relay.connected(v4, Ok(()));
    let v6_relay = relay.connections[&v6].relay;
    relay.server.relay_failed(relay.now, v6_relay);
    let events = relay.drain();
    assert_eq!(events[0], Event::CloseConnection(v6));
    assert_eq!(relay.connections.keys().collect::<Vec<_>>(), [&v4]);
    relay.server.peer_connected(relay.now, v6, Err(ConnectError::Failed));
    assert_eq!(relay.drain(), [], "an answer that comes too late");
    relay.shut_down();
}
