//! The session against a server of a few lines, with the clock in the test's hands.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hairpin_client::{
    AllocateOptions, Credentials, Error, Event, Outcome, Received, Request, RequestId, Session, Settings, Transport,
    frame,
};
use hairpin_proto::stun::attribute::{
    AlternateDomain, AlternateServerAttribute, ChannelNumberAttribute, ConnectionId, Data, ErrorCodeAttribute,
    Lifetime, MobilityTicket, Nonce, Realm, RequestedTransport, Username, XorMappedAddress, XorPeerAddress,
    XorRelayedAddress,
};
use hairpin_proto::stun::{Class, ErrorCode, Integrity, LongTermKey, Message, MessageBuilder, Method, TransactionId};

const REALM: &str = "example.org";
const ALLOCATION: Request = Request::Allocate(AllocateOptions {
    transport: 17,
    family: None,
    additional_family: None,
    lifetime: None,
    even_port: None,
    reservation: None,
    dont_fragment: false,
    mobility: false,
});

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn key() -> LongTermKey {
    LongTermKey::derive("alice", REALM, "sesame")
}

fn session() -> Session {
    session_over(Transport::Udp)
}

fn session_over(transport: Transport) -> Session {
    let mut next = 0_u8;
    let settings = Settings { credentials: Some(Credentials::new("alice", "sesame")), ..Settings::default() };
    Session::over(transport, settings, move || {
        next += 1;
        TransactionId([next; 12])
    })
}

/// A response to `request`, signed if there is a key.
fn respond<F>(request: &[u8], class: Class, key: Option<&LongTermKey>, attributes: F) -> Vec<u8>
where
    F: for<'b> FnOnce(MessageBuilder<'b>) -> MessageBuilder<'b>,
{
    let request = Message::parse(request).unwrap();
    let mut bytes = Vec::new();
    let builder = attributes(MessageBuilder::new(&mut bytes, class, request.method(), request.transaction_id()));
    match key {
        Some(key) => builder.with_integrity(key, Integrity::Sha1),
        None => builder,
    }
    .finish(true);
    bytes
}

fn refuse(request: &[u8], code: ErrorCode, nonce: &str) -> Vec<u8> {
    respond(request, Class::Error, None, |builder| {
        builder.with(&ErrorCodeAttribute { code, reason: "no" }).with(&Realm(REALM)).with(&Nonce(nonce))
    })
}

fn allocated(request: &[u8], lifetime: u32) -> Vec<u8> {
    respond(request, Class::Success, Some(&key()), |builder| {
        builder
            .with(&XorRelayedAddress(address("192.0.2.1:50000")))
            .with(&XorMappedAddress(address("198.51.100.7:1234")))
            .with(&Lifetime(lifetime))
    })
}

/// Takes the one datagram that the session wants to send.
#[track_caller]
fn sent(session: &mut Session) -> Vec<u8> {
    let datagram = session.poll_transmit().expect("a datagram is sent");
    assert_eq!(session.poll_transmit(), None, "only one datagram is sent");
    datagram
}

/// Takes the answer of a request.
#[track_caller]
fn done(session: &mut Session, id: RequestId) -> Result<Outcome, Error> {
    match session.poll_event() {
        Some(Event::Done(which, result)) if which == id => result,
        other => panic!("expected an answer, got {other:?}"),
    }
}

/// A session with an allocation of ten minutes.
fn with_allocation(now: Instant) -> Session {
    with_allocation_over(Transport::Udp, now)
}

fn with_allocation_over(transport: Transport, now: Instant) -> Session {
    let mut session = session_over(transport);
    let id = session.request(ALLOCATION, now);
    let first = sent(&mut session);
    session.handle_datagram(&refuse(&first, ErrorCode::UNAUTHENTICATED, "n1"), now);
    let second = sent(&mut session);
    session.handle_datagram(&allocated(&second, 600), now);
    done(&mut session, id).unwrap();
    session
}

#[test]
fn a_challenge_is_answered_and_later_requests_are_signed_at_once() {
    let now = Instant::now();
    let mut session = session();
    let id = session.request(ALLOCATION, now);

    let first = sent(&mut session);
    let message = Message::parse(&first).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::ALLOCATE));
    assert_eq!(message.attribute(), Ok(Some(RequestedTransport(17))));
    assert!(!message.has_integrity());
    session.handle_datagram(&refuse(&first, ErrorCode::UNAUTHENTICATED, "n1"), now);

    let second = sent(&mut session);
    let message = Message::parse(&second).unwrap();
    assert_ne!(message.transaction_id(), Message::parse(&first).unwrap().transaction_id());
    assert_eq!(message.attribute(), Ok(Some(Username("alice"))));
    assert_eq!(message.attribute(), Ok(Some(Realm(REALM))));
    assert_eq!(message.attribute(), Ok(Some(Nonce("n1"))));
    assert_eq!(message.attribute(), Ok(Some(RequestedTransport(17))));
    assert!(message.verify_integrity(&key()));
    let response = allocated(&second, 600);
    session.handle_datagram(&response, now);

    let Outcome::Allocated(allocation) = done(&mut session, id).unwrap() else { panic!("not an allocation") };
    assert_eq!(allocation.relayed, [address("192.0.2.1:50000")]);
    assert_eq!(allocation.mapped, address("198.51.100.7:1234"));
    assert_eq!(allocation.lifetime, Duration::from_secs(600));
    assert_eq!(session.last_response(), response);

    session.request(Request::CreatePermission(vec![address("203.0.113.9:0")]), now);
    assert!(Message::parse(&sent(&mut session)).unwrap().verify_integrity(&key()));
    session.request(Request::Binding, now);
    let binding = sent(&mut session);
    assert_eq!(Message::parse(&binding).unwrap().attributes().count(), 0, "Binding needs no credential");
}

#[test]
fn a_stale_nonce_is_replaced() {
    let now = Instant::now();
    let mut session = with_allocation(now);
    let id = session.request(Request::Refresh { lifetime: None, family: None }, now);
    let first = sent(&mut session);
    session.handle_datagram(&refuse(&first, ErrorCode::STALE_NONCE, "n2"), now);

    let second = sent(&mut session);
    let message = Message::parse(&second).unwrap();
    assert_eq!(message.attribute(), Ok(Some(Nonce("n2"))));
    assert!(message.verify_integrity(&key()));
    let response = respond(&second, Class::Success, Some(&key()), |builder| builder.with(&Lifetime(777)));
    session.handle_datagram(&response, now);
    assert_eq!(done(&mut session, id).unwrap(), Outcome::Refreshed(Duration::from_secs(777)));
}

#[test]
fn nonces_that_are_always_stale_end_the_request() {
    let now = Instant::now();
    let mut session = with_allocation(now);
    let id = session.request(Request::Refresh { lifetime: None, family: None }, now);
    let mut rounds = 0;
    while let Some(request) = session.poll_transmit() {
        session.handle_datagram(&refuse(&request, ErrorCode::STALE_NONCE, "again"), now);
        rounds += 1;
        assert!(rounds < 10, "the client must give up");
    }
    assert_eq!(done(&mut session, id).unwrap_err().code(), Some(ErrorCode::STALE_NONCE));
}

#[test]
fn a_wrong_password_is_not_tried_twice() {
    let now = Instant::now();
    let mut session = session();
    let id = session.request(ALLOCATION, now);
    let first = sent(&mut session);
    session.handle_datagram(&refuse(&first, ErrorCode::UNAUTHENTICATED, "n1"), now);
    let second = sent(&mut session);
    session.handle_datagram(&refuse(&second, ErrorCode::UNAUTHENTICATED, "n2"), now);
    assert_eq!(session.poll_transmit(), None);
    assert_eq!(done(&mut session, id).unwrap_err().code(), Some(ErrorCode::UNAUTHENTICATED));
}

#[test]
fn without_credentials_a_challenge_is_an_error() {
    let now = Instant::now();
    let mut session = Session::new(Settings::default(), || TransactionId([3; 12]));
    let id = session.request(ALLOCATION, now);
    let first = sent(&mut session);
    session.handle_datagram(&refuse(&first, ErrorCode::UNAUTHENTICATED, "n1"), now);
    assert!(matches!(done(&mut session, id), Err(Error::CredentialsNeeded)));
}

#[test]
fn answers_that_are_not_authentic_or_not_ours_count_for_nothing() {
    let now = Instant::now();
    let mut session = with_allocation(now);
    let id = session.request(Request::Refresh { lifetime: None, family: None }, now);
    let request = sent(&mut session);
    let forged = LongTermKey::derive("alice", REALM, "guess");
    for key in [None, Some(&forged)] {
        let response = respond(&request, Class::Success, key, |builder| builder.with(&Lifetime(1)));
        session.handle_datagram(&response, now);
    }
    let response = respond(&request, Class::Error, Some(&forged), |builder| {
        builder.with(&ErrorCodeAttribute { code: ErrorCode::ALLOCATION_MISMATCH, reason: "forged" })
    });
    session.handle_datagram(&response, now);
    let mut other = Vec::new();
    MessageBuilder::new(&mut other, Class::Success, Method::REFRESH, TransactionId([0xee; 12]))
        .with(&Lifetime(1))
        .with_integrity(&key(), Integrity::Sha1)
        .finish(false);
    session.handle_datagram(&other, now);
    assert!(session.poll_event().is_none());

    while let Some(at) = session.poll_timeout().filter(|at| *at < now + Duration::from_secs(60)) {
        session.handle_timeout(at);
    }
    assert!(matches!(done(&mut session, id), Err(Error::IntegrityViolated(Method::REFRESH))));
}

#[test]
fn an_unanswered_request_is_sent_seven_times_and_fails() {
    let start = Instant::now();
    let mut session = session();
    let id = session.request(Request::Binding, start);
    let first = sent(&mut session);
    let mut copies = 1;
    while let Some(at) = session.poll_timeout() {
        session.handle_timeout(at);
        while let Some(copy) = session.poll_transmit() {
            assert_eq!(copy, first);
            copies += 1;
        }
        if copies == 7 && session.poll_timeout().is_none() {
            assert_eq!(at - start, Duration::from_millis(39_500));
        }
    }
    assert_eq!(copies, 7);
    assert!(matches!(done(&mut session, id), Err(Error::Timeout(Method::BINDING))));
}

#[test]
fn what_expires_is_renewed_in_time() {
    let start = Instant::now();
    let mut session = with_allocation(start);
    let peer = address("203.0.113.9:4000");
    for request in
        [Request::CreatePermission(vec![address("203.0.113.8:0")]), Request::ChannelBind { channel: 0x4000, peer }]
    {
        session.request(request, start);
        let request = sent(&mut session);
        session.handle_datagram(&respond(&request, Class::Success, Some(&key()), |builder| builder), start);
        assert!(matches!(session.poll_event(), Some(Event::Done(_, Ok(_)))));
    }

    let mut renewed = Vec::new();
    while let Some(at) = session.poll_timeout().filter(|at| *at < start + Duration::from_secs(1100)) {
        session.handle_timeout(at);
        while let Some(bytes) = session.poll_transmit() {
            let method = Message::parse(&bytes).unwrap().method();
            renewed.push(((at - start).as_secs(), method.label()));
            let response = respond(&bytes, Class::Success, Some(&key()), |builder| builder.with(&Lifetime(600)));
            session.handle_datagram(&response, at);
        }
    }
    renewed.sort_unstable();
    let permissions = [240, 480, 720, 960].map(|second| (second, "create_permission"));
    let channels = [240, 480, 720, 960].map(|second| (second, "channel_bind"));
    let mut expected = [permissions, channels].concat();
    expected.extend([(540, "refresh"), (1080, "refresh")]);
    expected.sort_unstable();
    assert_eq!(renewed, expected);
    assert!(session.poll_event().is_none(), "renewals that succeed are no events");
}

#[test]
fn a_renewal_that_fails_is_told_and_a_released_allocation_is_not_renewed() {
    let start = Instant::now();
    let mut session = with_allocation(start);
    let at = session.poll_timeout().unwrap();
    session.handle_timeout(at);
    let request = sent(&mut session);
    session.handle_datagram(&refuse(&request, ErrorCode::ALLOCATION_MISMATCH, "n"), at);
    let Some(Event::RenewalFailed(Request::Refresh { .. }, error)) = session.poll_event() else { panic!("no event") };
    assert_eq!(error.code(), Some(ErrorCode::ALLOCATION_MISMATCH));

    let mut session = with_allocation(start);
    session.request(Request::Refresh { lifetime: Some(Duration::ZERO), family: None }, start);
    let request = sent(&mut session);
    assert_eq!(Message::parse(&request).unwrap().attribute(), Ok(Some(Lifetime(0))));
    session.handle_datagram(&respond(&request, Class::Success, Some(&key()), |b| b.with(&Lifetime(0))), start);
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn an_unreachable_server_fails_all_requests_at_once() {
    let now = Instant::now();
    let mut session = session();
    let ids = [session.request(Request::Binding, now), session.request(ALLOCATION, now)];
    session.handle_unreachable(now);
    for _ in ids {
        assert!(matches!(session.poll_event(), Some(Event::Done(_, Err(Error::Unreachable)))));
    }
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn data_takes_the_channel_if_there_is_one() {
    let now = Instant::now();
    let mut session = with_allocation(now);
    let (peer, other) = (address("203.0.113.9:4000"), address("[2001:db8::9]:4000"));
    let channel = session.unused_channel().unwrap();
    assert_eq!(channel, 0x4000);
    session.request(Request::ChannelBind { channel, peer }, now);
    let request = sent(&mut session);
    let message = Message::parse(&request).unwrap();
    assert_eq!(message.attribute(), Ok(Some(ChannelNumberAttribute(0x4000))));
    assert_eq!(message.attribute(), Ok(Some(XorPeerAddress(peer))));
    let mut on_channel = Vec::new();
    frame::channel_data(&mut on_channel, channel, b"hello");
    assert_eq!(session.handle_datagram(&on_channel, now), None, "not bound yet");
    session.handle_datagram(&respond(&request, Class::Success, Some(&key()), |builder| builder), now);

    let mut out = Vec::new();
    session.write_data(&mut out, peer, b"hello");
    assert_eq!(out, b"\x40\x00\x00\x05hello");
    let received = Received { peer, channel: Some(channel), payload: &b"hello"[..] };
    assert_eq!(session.handle_datagram(&out, now), Some(received));
    assert_eq!(session.handle_datagram(b"\x40\x00\x00\x05hello\0\0\0", now), Some(received), "padded");
    assert_eq!(session.handle_datagram(b"\x40\x00\x00\x06hello", now), None, "cut short");
    assert_eq!(session.handle_datagram(b"\x40\x01\x00\x05hello", now), None, "another channel");

    out.clear();
    session.write_data(&mut out, other, b"hello");
    let message = Message::parse(&out).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Indication, Method::SEND));
    assert_eq!(message.attribute(), Ok(Some(XorPeerAddress(other))));
    assert_eq!(message.attribute(), Ok(Some(Data(b"hello"))));

    let mut data = Vec::new();
    MessageBuilder::new(&mut data, Class::Indication, Method::DATA, TransactionId([9; 12]))
        .with(&XorPeerAddress(other))
        .with(&Data(b"back"))
        .finish(false);
    let received = session.handle_datagram(&data, now);
    assert_eq!(received, Some(Received { peer: other, channel: None, payload: b"back" }));
}

#[test]
fn over_a_stream_a_request_is_sent_once_and_fails_as_late_as_over_udp() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let start = Instant::now();
        let mut session = session_over(transport);
        let id = session.request(Request::Binding, start);
        sent(&mut session);
        let at = session.poll_timeout().unwrap();
        assert_eq!(at - start, Duration::from_millis(39_500));
        session.handle_timeout(start + Duration::from_millis(39_499));
        assert!(session.poll_transmit().is_none() && session.poll_event().is_none());
        session.handle_timeout(at);
        assert!(matches!(done(&mut session, id), Err(Error::Timeout(Method::BINDING))));
        assert!(session.poll_transmit().is_none());
    }
}

#[test]
fn over_a_stream_channel_data_is_padded() {
    let now = Instant::now();
    for (transport, padded) in [(Transport::Tcp, true), (Transport::Tls, true), (Transport::Dtls, false)] {
        let mut session = with_allocation_over(transport, now);
        let peer = address("203.0.113.9:4000");
        session.request(Request::ChannelBind { channel: 0x4000, peer }, now);
        let request = sent(&mut session);
        session.handle_datagram(&respond(&request, Class::Success, Some(&key()), |builder| builder), now);
        for (payload, with_padding) in [
            (&b""[..], &b"\x40\x00\x00\x00"[..]),
            (b"a", b"\x40\x00\x00\x01a\0\0\0"),
            (b"abc", b"\x40\x00\x00\x03abc\0"),
            (b"abcd", b"\x40\x00\x00\x04abcd"),
        ] {
            let mut out = b"before".to_vec();
            session.write_data(&mut out, peer, payload);
            let expected = if padded { with_padding } else { &with_padding[..4 + payload.len()] };
            assert_eq!(&out[6..], expected, "{transport}");
        }
    }
}

#[test]
fn a_lost_connection_fails_what_is_under_way_and_what_comes_and_ends_renewals() {
    let now = Instant::now();
    let mut session = with_allocation_over(Transport::Tcp, now);
    let under_way = session.request(Request::Binding, now);
    sent(&mut session);
    session.handle_lost("it fell asleep", now);
    assert_eq!(session.lost(), Some("it fell asleep"));
    let error = done(&mut session, under_way).unwrap_err();
    assert_eq!(error.to_string(), "the connection to the server was lost: it fell asleep");
    let later = session.request(Request::Binding, now);
    assert!(matches!(done(&mut session, later), Err(Error::ConnectionLost(_))));
    assert_eq!((session.poll_transmit(), session.poll_timeout()), (None, None));
}

#[test]
fn a_300_is_an_error_that_says_where_to_go() {
    let now = Instant::now();
    let mut session = session();
    let id = session.request(ALLOCATION, now);
    let servers = [address("192.0.2.2:3478"), address("[2001:db8::2]:3478")];
    let response = respond(&sent(&mut session), Class::Error, None, |builder| {
        builder
            .with(&ErrorCodeAttribute { code: ErrorCode::TRY_ALTERNATE, reason: "no" })
            .with(&AlternateServerAttribute(servers[0]))
            .with(&AlternateServerAttribute(servers[1]))
            .with(&AlternateDomain("turn.example.org"))
    });
    session.handle_datagram(&response, now);
    match done(&mut session, id) {
        Err(Error::TryAlternate { servers: named, domain }) => {
            assert_eq!((named, domain.as_deref()), (servers.to_vec(), Some("turn.example.org")));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((session.poll_transmit(), session.poll_timeout()), (None, None), "nothing is asked again");
}

#[test]
fn a_ticket_is_asked_for_kept_and_replaced() {
    let now = Instant::now();
    let mut session = with_allocation(now);
    assert_eq!(session.ticket(), None);
    let with_ticket = |session: &mut Session, request, ticket: &'static [u8]| {
        session.request(request, now);
        let request = sent(session);
        let response = respond(&request, Class::Success, Some(&key()), |builder| {
            let addresses = XorRelayedAddress(address("192.0.2.1:50000"));
            let builder = builder.with(&addresses).with(&XorMappedAddress(address("198.51.100.7:1234")));
            builder.with(&Lifetime(600)).with(&MobilityTicket(ticket))
        });
        session.handle_datagram(&response, now);
        assert!(matches!(session.poll_event(), Some(Event::Done(_, Ok(_)))));
        request
    };
    let allocation = Request::Allocate(AllocateOptions { mobility: true, ..AllocateOptions::default() });
    let request = with_ticket(&mut session, allocation, b"one");
    assert_eq!(Message::parse(&request).unwrap().attribute(), Ok(Some(MobilityTicket(b""))));
    assert_eq!(session.ticket(), Some(&b"one"[..]));

    let plain = with_ticket(&mut session, Request::Refresh { lifetime: None, family: None }, b"two");
    assert_eq!(Message::parse(&plain).unwrap().attribute::<MobilityTicket>(), Ok(None), "a client that stays");
    assert_eq!(session.ticket(), Some(&b"two"[..]));

    let moved = with_ticket(&mut session, Request::Move { ticket: b"two".to_vec() }, b"");
    let message = Message::parse(&moved).unwrap();
    assert_eq!((message.method(), message.attribute()), (Method::REFRESH, Ok(Some(MobilityTicket(b"two")))));
    assert_eq!(session.ticket(), Some(&b"two"[..]), "there is no other");
}

#[test]
fn connections_of_peers_are_told() {
    let now = Instant::now();
    let mut session = with_allocation_over(Transport::Tcp, now);
    let peer = address("203.0.113.9:4000");
    let mut indication = Vec::new();
    MessageBuilder::new(&mut indication, Class::Indication, Method::CONNECTION_ATTEMPT, TransactionId([9; 12]))
        .with(&ConnectionId(7))
        .with(&XorPeerAddress(peer))
        .finish(false);
    assert_eq!(session.handle_datagram(&indication, now), None);
    let Some(Event::ConnectionAttempt(attempt)) = session.poll_event() else { panic!("no event") };
    assert_eq!((attempt.id, attempt.peer), (ConnectionId(7), peer));

    let id = session.request(Request::Connect(peer), now);
    let request = sent(&mut session);
    assert_eq!(Message::parse(&request).unwrap().attribute(), Ok(Some(XorPeerAddress(peer))));
    session.handle_datagram(&respond(&request, Class::Success, Some(&key()), |b| b.with(&ConnectionId(8))), now);
    assert_eq!(done(&mut session, id).unwrap(), Outcome::Connected(ConnectionId(8)));
}

#[test]
fn noise_is_ignored() {
    let now = Instant::now();
    let mut session = with_allocation(now);
    for noise in [&b""[..], b"\x40", b"\x40\x00\x00", b"\xff\xff", b"\x00\x01\x00\x00", &[0; 20]] {
        assert_eq!(session.handle_datagram(noise, now), None);
    }
    assert_eq!(session.poll_transmit(), None);
    assert!(session.poll_event().is_none());
}
