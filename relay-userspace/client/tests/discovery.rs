//! NAT behaviour discovery (RFC 5780) against a server of four sockets that plays the NAT as well.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hairpin_client::{Behaviour, Error, Probe, Prober, Timing};
use hairpin_proto::stun::attribute::{ChangeRequest, OtherAddress, ResponseOrigin, XorMappedAddress};
use hairpin_proto::stun::{Class, Message, MessageBuilder};
use tokio::net::UdpSocket;

/// What the NAT does: which port a socket of the server sees, and whether an answer from elsewhere gets in.
#[derive(Clone, Copy)]
struct Nat {
    port_seen: fn(u16, usize) -> u16,
    lets_in: fn(ChangeRequest) -> bool,
}

const NONE: Nat = Nat { port_seen: |port, _| port, lets_in: |_| true };

/// Opens two addresses with two ports each: index 2 is the other address, 1 the other port.
async fn sockets() -> Vec<UdpSocket> {
    loop {
        let first = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let second = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let ports = [first.local_addr().unwrap().port(), second.local_addr().unwrap().port()];
        let third = UdpSocket::bind(("127.0.0.2", ports[0])).await;
        let fourth = UdpSocket::bind(("127.0.0.2", ports[1])).await;
        if let (Ok(third), Ok(fourth)) = (third, fourth) {
            return vec![first, second, third, fourth];
        }
    }
}

async fn server(nat: Nat) -> SocketAddr {
    let sockets = Arc::new(sockets().await);
    let address = sockets[0].local_addr().unwrap();
    for at in 0..4 {
        let sockets = Arc::clone(&sockets);
        tokio::spawn(async move {
            let mut buffer = [0; 500];
            loop {
                let (length, client) = sockets[at].recv_from(&mut buffer).await.unwrap();
                let request = Message::parse(&buffer[..length]).unwrap();
                let change: ChangeRequest = request.attribute().unwrap().unwrap_or_default();
                let from = &sockets[at ^ (usize::from(change.ip) * 2 + usize::from(change.port))];
                let mapped = SocketAddr::new(client.ip(), (nat.port_seen)(client.port(), at));
                let mut answer = Vec::new();
                MessageBuilder::new(&mut answer, Class::Success, request.method(), request.transaction_id())
                    .with(&XorMappedAddress(mapped))
                    .with(&ResponseOrigin(from.local_addr().unwrap()))
                    .with(&OtherAddress(sockets[at ^ 3].local_addr().unwrap()))
                    .finish(false);
                if change == ChangeRequest::default() || (nat.lets_in)(change) {
                    from.send_to(&answer, client).await.unwrap();
                }
            }
        });
    }
    address
}

async fn prober(server: SocketAddr) -> Prober {
    let timing = Timing { rto: Duration::from_millis(100), attempts: 2, patience: 2 };
    Prober::open(server, Some("127.0.0.1:0".parse().unwrap()), timing).await.unwrap()
}

#[tokio::test]
async fn an_answer_comes_from_where_it_is_asked_to() {
    let address = server(NONE).await;
    let prober = prober(address).await;
    for (ip, port) in [(false, false), (false, true), (true, false), (true, true)] {
        let probe = Probe { change: Some(ChangeRequest { ip, port }), ..Probe::default() };
        let (probed, source) = prober.probe(address, probe).await.unwrap();
        assert_eq!((source.ip() != address.ip(), source.port() != address.port()), (ip, port));
        assert_eq!((probed.mapped, probed.origin), (prober.local_addr().unwrap(), Some(source)));
        assert!(probed.other.is_some());
    }
}

#[tokio::test]
async fn mappings_are_told_apart() {
    for (port_seen, behaviour) in [
        (NONE.port_seen, Behaviour::NoNat),
        (|port, _| port ^ 1, Behaviour::EndpointIndependent),
        (|port, at| port ^ 1 ^ (at as u16 & 2), Behaviour::AddressDependent),
        (|port, at| port ^ 4 ^ at as u16, Behaviour::AddressAndPortDependent),
    ] as [(fn(u16, usize) -> u16, Behaviour); 4]
    {
        let prober = prober(server(Nat { port_seen, ..NONE }).await).await;
        assert_eq!(prober.discover_mapping().await.unwrap(), behaviour);
    }
}

#[tokio::test]
async fn filters_are_told_apart() {
    for (lets_in, behaviour) in [
        (|_| true, Behaviour::EndpointIndependent),
        (|change| !change.ip, Behaviour::AddressDependent),
        (|_| false, Behaviour::AddressAndPortDependent),
    ] as [(fn(ChangeRequest) -> bool, Behaviour); 3]
    {
        let prober = prober(server(Nat { lets_in, ..NONE }).await).await;
        assert_eq!(prober.discover_filtering().await.unwrap(), behaviour);
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_a_timeout() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let prober = prober(silent.local_addr().unwrap()).await;
    assert!(matches!(prober.discover_filtering().await, Err(Error::Timeout(_))));
}
