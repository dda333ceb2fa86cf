//! The exchange of cookies, before there is a session.

use std::time::{Duration, Instant};

use hairpin_dtls::{Hello, ServerContext, Session};

use crate::network::{Network, client_address, drain, read, server_address};
use crate::pki;

/// A client's ClientHello with the cookie that `server` gave it at `now`.
fn with_cookie(server: &ServerContext, now: Instant) -> (Session, Vec<u8>) {
    let mut client = pki::client().connect("turn.example.org").unwrap();
    let first = drain(&mut client).remove(0);
    let mut reply = Vec::new();
    let answer = server.hello(client_address(), server_address(), now, &first, &mut reply);
    assert!(matches!(answer, Hello::Reply));
    client.receive(&reply).unwrap();
    let second = drain(&mut client).remove(0);
    (client, second)
}

#[test]
fn a_client_gets_a_session_for_its_cookie() {
    let (server, now) = (pki::rsa().server(), Instant::now());
    let (mut client, hello) = with_cookie(&server, now);
    let mut reply = b"untouched".to_vec();
    // Another shard has the same certificates and key.
    let other = pki::rsa().server();
    let Hello::Accepted(mut session) = other.hello(client_address(), server_address(), now, &hello, &mut reply) else {
        panic!("the cookie was not accepted");
    };
    assert_eq!(reply, b"untouched");
    let answer = drain(&mut session);
    assert!(!answer.is_empty());
    for datagram in answer {
        client.receive(&datagram).unwrap();
    }
    assert!(!drain(&mut client).is_empty());
}

#[test]
fn a_server_answers_with_the_record_number_of_the_client_hello() {
    let (server, now) = (pki::rsa().server(), Instant::now());
    let (_, hello) = with_cookie(&server, now);
    let Hello::Accepted(mut session) = server.hello(client_address(), server_address(), now, &hello, &mut Vec::new())
    else {
        panic!("the cookie was not accepted");
    };
    let answer = drain(&mut session).remove(0);
    assert_eq!(hello[5..11], [0, 0, 0, 0, 0, 1]);
    assert_eq!(answer[5..11], hello[5..11]);
    // And its message is number 1.
    assert_eq!(answer[17..19], [0, 1]);
}

#[test]
fn cookies_of_others_and_old_ones_only_get_a_new_one() {
    let (server, now) = (pki::rsa().server(), Instant::now());
    let (_, hello) = with_cookie(&server, now);
    let (client, at) = (client_address(), server_address());
    let mut stolen = client;
    stolen.set_port(4001);
    let mut elsewhere = at;
    elsewhere.set_port(443);
    let mut forged = hello.clone();
    forged[13 + 12 + 2 + 32 + 1 + 1] ^= 1;
    let mut other_random = hello.clone();
    other_random[13 + 12 + 2] ^= 1;
    let later = now + Duration::from_secs(61);
    let stranger = ServerContext::new(&[pki::rsa().certified()], [8; 32]).unwrap();
    for (what, server, client, at, now, hello) in [
        ("another client's", &server, stolen, at, now, &hello),
        ("another server's", &server, client, elsewhere, now, &hello),
        ("an old one", &server, client, at, later, &hello),
        ("a forged one", &server, client, at, now, &forged),
        ("for another ClientHello", &server, client, at, now, &other_random),
        ("of another key", &stranger, client, at, now, &hello),
    ] {
        let mut reply = Vec::new();
        let answer = server.hello(client, at, now, hello, &mut reply);
        assert!(matches!(answer, Hello::Reply), "{what}");
        assert!(reply.len() == 44 && reply.len() <= hello.len(), "{what}");
    }
    let later = now + Duration::from_secs(29);
    assert!(matches!(server.hello(client, at, later, &hello, &mut Vec::new()), Hello::Accepted(_)));
}

#[test]
fn what_is_no_client_hello_is_ignored() {
    let (server, now) = (pki::rsa().server(), Instant::now());
    let (_, hello) = with_cookie(&server, now);
    let mut reply = Vec::new();
    for len in 0..60 {
        let answer = server.hello(client_address(), server_address(), now, &hello[..len], &mut reply);
        assert!(matches!(answer, Hello::Ignored), "{len} bytes");
    }
    for datagram in [&b""[..], b"north", &[0; 1200], &[22; 1200]] {
        let answer = server.hello(client_address(), server_address(), now, datagram, &mut reply);
        assert!(matches!(answer, Hello::Ignored), "{datagram:?}");
    }
    assert!(reply.is_empty());
}

#[test]
fn a_right_cookie_does_not_make_up_for_a_broken_hello() {
    let (server, now) = (pki::rsa().server(), Instant::now());
    let (_, hello) = with_cookie(&server, now);
    let cookie_end = 13 + 12 + 2 + 32 + 1 + 1 + 16;
    for position in cookie_end..hello.len() {
        let mut broken = hello.clone();
        broken[position] ^= 0xff;
        match server.hello(client_address(), server_address(), now, &broken, &mut Vec::new()) {
            Hello::Accepted(session) => assert!(!session.is_established()),
            Hello::Ignored => {}
            Hello::Reply => panic!("byte {position}: the cookie is right"),
        }
    }
}

/// Cuts a ClientHello into fragments of at most `most` bytes, each in a record and datagram of its own.
fn fragments(hello: &[u8], most: usize) -> Vec<Vec<u8>> {
    let body = &hello[25..];
    let len = body.len();
    let pieces = body.chunks(most).enumerate().map(|(index, piece)| {
        let mut datagram = hello[..25].to_vec();
        datagram[10] += index as u8;
        datagram[11..13].copy_from_slice(&((piece.len() + 12) as u16).to_be_bytes());
        datagram[14..17].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
        datagram[19..22].copy_from_slice(&((index * most) as u32).to_be_bytes()[1..]);
        datagram[22..25].copy_from_slice(&(piece.len() as u32).to_be_bytes()[1..]);
        datagram.extend_from_slice(piece);
        datagram
    });
    pieces.collect()
}

#[test]
fn a_client_hello_may_come_in_fragments() {
    let (server, now) = (pki::rsa().server(), Instant::now());
    let (_, hello) = with_cookie(&server, now);
    let mut pieces = fragments(&hello, 70);
    assert!(pieces.len() >= 3);
    let mut reply = Vec::new();
    for piece in &pieces[1..] {
        let answer = server.hello(client_address(), server_address(), now, piece, &mut reply);
        assert!(matches!(answer, Hello::Ignored));
    }
    let first = pieces.remove(0);
    let Hello::Accepted(mut session) = server.hello(client_address(), server_address(), now, &first, &mut reply) else {
        panic!("the first fragment has the cookie");
    };
    while let Some(last) = pieces.pop() {
        assert!(drain(&mut session).is_empty());
        session.receive(&last).unwrap();
    }
    let answer = drain(&mut session);
    assert_eq!((answer[0][0], answer[0][13]), (22, 2), "ServerHello");
}

#[test]
fn a_client_hello_longer_than_a_datagram_begins_a_session() {
    // As long as one with keys for the time after the quantum computer: an extension that nobody knows.
    let (server, now) = (pki::rsa().server(), Instant::now());
    let (_, hello) = with_cookie(&server, now);
    let mut body = hello[25..].to_vec();
    let extensions = {
        let mut at = 2 + 32 + 1 + 1 + 16;
        at += 2 + usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        at + 1 + usize::from(body[at])
    };
    let len = u16::from_be_bytes([body[extensions], body[extensions + 1]]) + 4 + 1200;
    body[extensions..extensions + 2].copy_from_slice(&len.to_be_bytes());
    body.extend_from_slice(&[0xfa, 0xfa, 0x04, 0xb0]);
    body.resize(body.len() + 1200, 0);
    let mut long = hello[..25].to_vec();
    long.extend_from_slice(&body);
    let pieces = fragments(&long, 1100);
    assert_eq!(pieces.len(), 2);
    let Hello::Accepted(mut session) =
        server.hello(client_address(), server_address(), now, &pieces[0], &mut Vec::new())
    else {
        panic!("the first fragment has the cookie");
    };
    session.receive(&pieces[1]).unwrap();
    let answer = drain(&mut session);
    assert_eq!((answer[0][0], answer[0][13]), (22, 2), "ServerHello");
}

#[test]
fn a_client_that_begins_again_succeeds_its_old_session() {
    let context = pki::rsa().server();
    let mut network = Network::established(&pki::client(), "turn.example.org", &context);
    let (_, own) = with_cookie(&context, Instant::now());
    assert!(network.server().is_succeeded_by(&own));
    network.client.send(b"data").unwrap();
    let data = drain(&mut network.client).remove(0);
    assert!(!network.server().is_succeeded_by(&data));
    // Its own ClientHello, late once more, is none of another's.
    let now = Instant::now();
    let Hello::Accepted(mut session) = context.hello(client_address(), server_address(), now, &own, &mut Vec::new())
    else {
        panic!("the cookie was not accepted");
    };
    assert!(!session.is_succeeded_by(&own));
    session.receive(&own).unwrap();
    // The old session does not mind the ClientHello either.
    network.server().receive(&own).unwrap();
    assert!(read(network.server()).is_empty());
    assert!(network.server().is_established());
}
