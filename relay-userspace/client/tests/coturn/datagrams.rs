//! Over UDP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hairpin_client::{AllocateOptions, Client, Credentials, Error, Options};
use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::ErrorCode;
use hairpin_proto::stun::attribute::EvenPort;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::server::{Coturn, Login, SECRET, echo_through};

async fn echo(ip: IpAddr, family: AddressFamily) {
    let Some(coturn) = Coturn::start(ip, Login::Password).await else { return };
    echo_through(&coturn.client("alice", "sesame").await, ip, family).await;
}

#[tokio::test]
async fn data_goes_both_ways_over_ipv4() {
    echo(Ipv4Addr::LOCALHOST.into(), AddressFamily::V4).await;
}

#[tokio::test]
async fn data_goes_both_ways_over_ipv6() {
    echo(Ipv6Addr::LOCALHOST.into(), AddressFamily::V6).await;
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let Some(coturn) = Coturn::start(Ipv4Addr::LOCALHOST.into(), Login::Password).await else { return };
    let client = coturn.client("alice", "open sesame").await;
    let error = client.allocate(AllocateOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UNAUTHENTICATED), "{error}");
}

#[tokio::test]
async fn a_minted_credential_is_accepted_until_it_expires() {
    let Some(coturn) = Coturn::start(Ipv4Addr::LOCALHOST.into(), Login::Secret).await else { return };
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let minted = Credentials::mint(SECRET, Some("alice"), now + 600);
    let client = coturn.client(&minted.username, &minted.password).await;
    client.allocate(AllocateOptions::default()).await.unwrap();

    let expired = Credentials::mint(SECRET, Some("alice"), now - 600);
    let client = coturn.client(&expired.username, &expired.password).await;
    let error = client.allocate(AllocateOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UNAUTHENTICATED), "{error}");
}

#[tokio::test]
async fn a_reserved_port_is_redeemed_by_its_token() {
    let Some(coturn) = Coturn::start(Ipv4Addr::LOCALHOST.into(), Login::Password).await else { return };
    let first = coturn.client("alice", "sesame").await;
    let even_port = Some(EvenPort { reserve_next: true });
    let allocation = first.allocate(AllocateOptions { even_port, ..Default::default() }).await.unwrap();
    let port = allocation.relayed[0].port();
    assert!(port.is_multiple_of(2));
    assert!(allocation.reservation.is_some());

    let second = coturn.client("alice", "sesame").await;
    let options = AllocateOptions { reservation: allocation.reservation, ..Default::default() };
    assert_eq!(second.allocate(options).await.unwrap().relayed[0].port(), port + 1);
}

#[tokio::test]
async fn a_port_where_nothing_listens_fails_at_once() {
    let free = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = free.local_addr().unwrap();
    drop(free);
    let client = Client::connect(server, Options::default()).await.unwrap();
    let result = timeout(Duration::from_secs(2), client.binding()).await.expect("ICMP says so at once");
    assert!(matches!(result, Err(Error::Unreachable)), "{result:?}");
}
