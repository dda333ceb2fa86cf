//! Servers that send clients to other servers (RFC 8489 section 10), and one that has moved away.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hairpin_client::{Client, Error, Options, Redirect, Settings, Timing};
use hairpin_proto::stun::attribute::{AlternateDomain, AlternateServerAttribute, ErrorCodeAttribute, XorMappedAddress};
use hairpin_proto::stun::{Class, ErrorCode, Message, MessageBuilder};
use tokio::net::UdpSocket;

/// A server that sends everybody to `alternates`, or else answers. It counts what it is asked.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn socket() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    fn start(socket: UdpSocket, alternates: Vec<SocketAddr>) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let this = Self { address: socket.local_addr().unwrap(), asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            let mut buffer = [0; 500];
            loop {
                let (length, source) = socket.recv_from(&mut buffer).await.unwrap();
                asked.fetch_add(1, Ordering::Relaxed);
                let request = Message::parse(&buffer[..length]).unwrap();
                let (method, id) = (request.method(), request.transaction_id());
                let mut answer = Vec::new();
                if alternates.is_empty() {
                    MessageBuilder::new(&mut answer, Class::Success, method, id).with(&XorMappedAddress(source))
                } else {
                    let error = ErrorCodeAttribute { code: ErrorCode::TRY_ALTERNATE, reason: "" };
                    let builder = MessageBuilder::new(&mut answer, Class::Error, method, id).with(&error);
                    alternates
                        .iter()
                        .fold(builder, |builder, server| builder.with(&AlternateServerAttribute(*server)))
                        .with(&AlternateDomain("turn.example.org"))
                }
                .finish(false);
                socket.send_to(&answer, source).await.unwrap();
            }
        });
        this
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn client(server: SocketAddr, follow_alternates: bool) -> Client {
    let timing = Timing { rto: Duration::from_millis(500), attempts: 2, patience: 2 };
    let settings = Settings { timing, ..Settings::default() };
    Client::connect(server, Options { follow_alternates, settings, ..Options::default() }).await.unwrap()
}

#[tokio::test]
async fn a_client_follows_to_the_server_that_answers() {
    let last = Server::start(Server::socket().await, Vec::new());
    let other_family = "[2001:db8::1]:3478".parse().unwrap();
    let second = Server::start(Server::socket().await, vec![other_family, last.address]);
    let first = Server::start(Server::socket().await, vec![second.address]);
    let client = client(first.address, true).await;
    let mapped = client.binding().await.unwrap();
    assert_eq!(mapped.port(), client.local_addr().unwrap().port());
    assert_eq!(client.server(), last.address);
    client.binding().await.unwrap();
    assert_eq!([first.asked(), second.asked(), last.asked()], [1, 1, 2], "it stays where it was answered");
}

#[tokio::test]
async fn servers_that_point_at_each_other_are_asked_once() {
    let sockets = [Server::socket().await, Server::socket().await];
    let [a, b] = [0, 1].map(|at: usize| sockets[at].local_addr().unwrap());
    let [socket_a, socket_b] = sockets;
    let servers = [Server::start(socket_a, vec![b]), Server::start(socket_b, vec![a])];
    let client = client(a, true).await;
    match client.binding().await {
        Err(Error::TryAlternate { servers, .. }) => assert_eq!(servers, [a]),
        other => panic!("{other:?}"),
    }
    assert_eq!(servers.map(|server| server.asked()), [1, 1]);
}

#[tokio::test]
async fn a_client_that_is_not_to_follow_says_where_it_was_sent() {
    let other = Server::start(Server::socket().await, Vec::new());
    let first = Server::start(Server::socket().await, vec![other.address]);
    let client = client(first.address, false).await;
    let error = client.binding().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TRY_ALTERNATE));
    assert_eq!(error.to_string(), format!("the server asks to go to {}", other.address));
    let Error::TryAlternate { servers, domain } = error else { panic!("{error}") };
    assert_eq!((servers, domain.as_deref()), (vec![other.address], Some("turn.example.org")));
    assert_eq!([first.asked(), other.asked()], [1, 0]);
}

#[tokio::test]
async fn a_client_that_would_stay_and_is_sent_away_keeps_what_it_has_until_its_owner_has_a_successor() {
    let last = Server::start(Server::socket().await, Vec::new());
    let first = Server::start(Server::socket().await, vec![last.address]);
    let client = client(first.address, true).await;
    let error = client.refresh(None).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TRY_ALTERNATE));
    assert_eq!(client.server(), first.address, "what it has is there");
    assert_eq!([first.asked(), last.asked()], [1, 0]);
    let redirect = client.sent_away().await;
    assert_eq!(
        (redirect.servers.as_slice(), redirect.domain.as_deref()),
        (&[last.address][..], Some("turn.example.org"))
    );
    let successor = client.successor(&redirect).await.unwrap().expect("it has not been there");
    assert_eq!(successor.server(), last.address);
    assert_ne!(successor.local_addr().unwrap(), client.local_addr().unwrap());
    successor.binding().await.unwrap();
    // It is not sent back to where it has just been.
    let back = Redirect { servers: vec![first.address], domain: None };
    assert!(successor.successor(&back).await.unwrap().is_none());
}
