//! Over TCP and TLS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hairpin_client::{AllocateOptions, Client, Error, Options, Settings, Timing, TlsOptions, Transport, Trust};
use hairpin_proto::address::AddressFamily;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

use crate::server::{Coturn, Login, PATIENCE, echo_through};

async fn echo(ip: IpAddr, transport: Transport, family: AddressFamily) {
    let Some(coturn) = Coturn::start(ip, Login::Password).await else { return };
    echo_through(&coturn.client_over(transport).await, ip, family).await;
}

#[tokio::test]
async fn data_goes_both_ways_over_tcp() {
    echo(Ipv4Addr::LOCALHOST.into(), Transport::Tcp, AddressFamily::V4).await;
    echo(Ipv6Addr::LOCALHOST.into(), Transport::Tcp, AddressFamily::V6).await;
}

#[tokio::test]
async fn data_goes_both_ways_over_tls() {
    echo(Ipv4Addr::LOCALHOST.into(), Transport::Tls, AddressFamily::V4).await;
    echo(Ipv6Addr::LOCALHOST.into(), Transport::Tls, AddressFamily::V6).await;
}

#[tokio::test]
async fn much_data_arrives_whole_and_in_order() {
    let ip = Ipv4Addr::LOCALHOST;
    let Some(coturn) = Coturn::start(ip.into(), Login::Password).await else { return };
    for transport in [Transport::Tcp, Transport::Tls] {
        let client = coturn.client_over(transport).await;
        let peer = UdpSocket::bind((ip, 0)).await.unwrap();
        let peer_address = peer.local_addr().unwrap();
        let allocation = client.allocate(AllocateOptions::default()).await.unwrap();
        client.bind_channel(peer_address).await.unwrap();
        let mut buffer = [0; 2000];
        for round in 0..100_u8 {
            // So few at a time that no socket's buffer runs over; of all lengths, so that padding comes and goes.
            for number in 0..10_u8 {
                let payload = vec![number; usize::from(round) * 10 + usize::from(number)];
                client.send(peer_address, &payload).await.unwrap();
            }
            for number in 0..10_u8 {
                let length = timeout(PATIENCE, peer.recv(&mut buffer)).await.unwrap().unwrap();
                let payload = vec![number; usize::from(round) * 10 + usize::from(number)];
                assert_eq!(buffer[..length], payload, "{transport}");
                peer.send_to(&payload, allocation.relayed[0]).await.unwrap();
            }
            for number in 0..10_u8 {
                let data = timeout(PATIENCE, client.recv()).await.unwrap().unwrap();
                assert_eq!(data.payload, vec![number; usize::from(round) * 10 + usize::from(number)], "{transport}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_closes_the_connection_fails_what_comes() {
    let Some(mut coturn) = Coturn::start(Ipv4Addr::LOCALHOST.into(), Login::Password).await else { return };
    let clients = [coturn.client_over(Transport::Tcp).await, coturn.client_over(Transport::Tls).await];
    for client in &clients {
        client.binding().await.unwrap();
    }
    coturn.kill();
    for client in clients {
        let lost = timeout(PATIENCE, client.recv()).await.unwrap();
        assert!(matches!(lost, Err(Error::ConnectionLost(_))), "{lost:?}");
        let lost = timeout(PATIENCE, client.binding()).await.unwrap();
        assert!(matches!(lost, Err(Error::ConnectionLost(_))), "{lost:?}");
        let lost = timeout(PATIENCE, client.send(([127, 0, 0, 1], 9).into(), b"data")).await.unwrap();
        assert!(matches!(lost, Err(Error::ConnectionLost(_))), "{lost:?}");
    }
    let refused = coturn.connect(coturn.options(Transport::Tcp)).await.map(drop);
    assert!(matches!(refused, Err(Error::Unreachable)), "{refused:?}");
}

#[tokio::test]
async fn a_certificate_must_be_trusted_and_be_for_the_server() {
    let Some(coturn) = Coturn::start(Ipv4Addr::LOCALHOST.into(), Login::Password).await else { return };
    let other = Coturn::start(Ipv4Addr::LOCALHOST.into(), Login::Password).await.unwrap();
    let roots = TlsOptions::new(Trust::Roots(coturn.roots()));
    let named = |name: &str| Some(name.to_owned());
    for (tls, error) in [
        (TlsOptions { server_name: named("turn.example.org"), ..roots.clone() }, None),
        (TlsOptions::new(Trust::Anybody), None),
        (TlsOptions { server_name: named("turn.example.com"), ..roots.clone() }, Some("not valid for name")),
        (TlsOptions::new(Trust::Roots(other.roots())), Some("invalid peer certificate")),
        (TlsOptions { server_name: named("not a name"), ..roots.clone() }, Some("the server name not a name is no")),
        (TlsOptions::new(Trust::Roots("/nowhere.pem".into())), Some("cannot read certificates from /nowhere.pem")),
    ] {
        let options = Options { tls: Some(tls.clone()), ..coturn.options(Transport::Tls) };
        match (coturn.connect(options).await, error) {
            (Ok(client), None) => drop(client.binding().await.unwrap()),
            (Err(Error::Tls(text)), Some(words)) => assert!(text.contains(words), "{tls:?}: {text}"),
            (result, _) => panic!("{tls:?}: {:?}", result.map(drop)),
        }
    }
    let without = Options { tls: None, ..coturn.options(Transport::Tls) };
    assert!(matches!(coturn.connect(without).await, Err(Error::Tls(_))));
}

#[tokio::test]
async fn a_server_that_does_not_shake_hands_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let timing = Timing { rto: Duration::from_millis(100), attempts: 1, patience: 1 };
    let options = Options {
        transport: Transport::Tls,
        tls: Some(TlsOptions::new(Trust::Anybody)),
        settings: Settings { timing, ..Settings::default() },
        ..Options::default()
    };
    let result = Client::connect(silent.local_addr().unwrap(), options).await.map(drop);
    assert!(matches!(result, Err(Error::NotConnected(_))), "{result:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_fails_what_is_under_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { transport: Transport::Tcp, ..Options::default() };
    for (answer, words) in
        [(&b""[..], "the server has closed it"), (b"\x15\x03\x01\x00\x02\x02\x46", "neither STUN nor")]
    {
        let client = Client::connect(listener.local_addr().unwrap(), options.clone()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let broken = async {
            server.read_exact(&mut [0; 20]).await.unwrap();
            server.write_all(answer).await.unwrap();
            server.shutdown().await.unwrap();
        };
        match timeout(PATIENCE, async { tokio::join!(client.binding(), broken) }).await.unwrap().0 {
            Err(Error::ConnectionLost(why)) => assert!(why.contains(words), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn data_waits_for_a_server_that_takes_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { transport: Transport::Tcp, ..Options::default() };
    let client = Client::connect(listener.local_addr().unwrap(), options).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let (peer, data) = (([192, 0, 2, 1], 9).into(), vec![0; 50_000]);
    let sending = async {
        let mut sent = 0_u64;
        while timeout(Duration::from_millis(200), client.send(peer, &data)).await.is_ok() {
            sent += 1;
        }
        sent
    };
    // The kernel takes a few megabytes, and the client no more than one beyond that.
    let sent = sending.await;
    assert!((5..400).contains(&sent), "{sent}");
    // It goes on when the server takes what is there.
    let taking = async {
        let mut buffer = vec![0; 1 << 20];
        while server.read(&mut buffer).await.unwrap() > 0 {}
    };
    tokio::select! {
        () = taking => panic!("the client closed"),
        result = timeout(PATIENCE, client.send(peer, &data)) => result.unwrap().unwrap(),
    }
}
