//! Allocations of clients that move (RFC 8016).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hairpin_client::{AllocateOptions, Error};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::server::{Coturn, Login, PATIENCE};

#[tokio::test]
async fn an_allocation_moves_with_its_client() {
    let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    let Some(coturn) = Coturn::start_with(ip, Login::Password, &["--mobility"]).await else { return };
    let client = coturn.client("alice", "sesame").await;
    let options = AllocateOptions { mobility: true, ..Default::default() };
    let allocation = client.allocate(options).await.unwrap();
    assert!(allocation.ticket.is_some());
    assert_eq!(allocation.ticket, client.ticket());
    let peer = UdpSocket::bind((ip, 0)).await.unwrap();
    let peer_address = peer.local_addr().unwrap();
    let channel = client.bind_channel(peer_address).await.unwrap();

    let mut buffer = [0; 2000];
    for round in 0..3_u8 {
        let before = (client.local_addr().unwrap(), client.ticket());
        client.move_to(([127, 0, 0, 1 + round], 0).into()).await.unwrap();
        let after = client.local_addr().unwrap();
        assert_ne!(after, before.0);
        assert_eq!(after.ip(), IpAddr::from([127, 0, 0, 1 + round]));
        assert_ne!(client.ticket(), before.1, "each move has its ticket");

        client.send(peer_address, &[round; 10]).await.unwrap();
        let (length, source) = timeout(PATIENCE, peer.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!((&buffer[..length], source), (&[round; 10][..], allocation.relayed[0]));
        peer.send_to(&[round; 20], allocation.relayed[0]).await.unwrap();
        let data = timeout(PATIENCE, client.recv()).await.unwrap().unwrap();
        assert_eq!((data.channel, &*data.payload), (Some(channel), &[round; 20][..]));
    }
    assert_eq!(client.refresh(Some(Duration::from_secs(700))).await.unwrap(), Duration::from_secs(700));
    client.release().await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_ticket_stays() {
    let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    let Some(coturn) = Coturn::start_with(ip, Login::Password, &["--mobility"]).await else { return };
    let client = coturn.client("alice", "sesame").await;
    assert_eq!(client.allocate(AllocateOptions::default()).await.unwrap().ticket, None);
    let before = client.local_addr().unwrap();
    assert!(matches!(client.move_to(([127, 0, 0, 2], 0).into()).await, Err(Error::NoTicket)));
    assert_eq!(client.local_addr().unwrap(), before);
}
