//! TCP allocations (RFC 6062).

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use hairpin_client::{AllocateOptions, Client, DataConnection, Error, Transport};
use hairpin_proto::stun::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::server::{Coturn, Login, PATIENCE};

const TCP: AllocateOptions = AllocateOptions {
    transport: 6,
    family: None,
    additional_family: None,
    lifetime: None,
    even_port: None,
    reservation: None,
    dont_fragment: false,
    mobility: false,
};

/// Sends a good deal each way, one after the other, and closes from the client's side. Coturn does not take much more, nor
/// both ways at once, without losing some.
async fn exchange(mut connection: DataConnection, mut peer: TcpStream) {
    let there: Vec<u8> = (0..50_000_u32).map(|at| (at / 251 + at) as u8).collect();
    let mut arrived = vec![0; there.len()];
    for _ in 0..5 {
        timeout(PATIENCE, async {
            tokio::try_join!(
                async { connection.write_all(&there).await.and(connection.flush().await) },
                peer.read_exact(&mut arrived)
            )
        })
        .await
        .unwrap()
        .unwrap();
        assert!(arrived == there, "to the peer");
        arrived.fill(0);
        timeout(PATIENCE, async { tokio::try_join!(peer.write_all(&there), connection.read_exact(&mut arrived)) })
            .await
            .unwrap()
            .unwrap();
        assert!(arrived == there, "to the client");
        arrived.fill(0);
    }
    connection.shutdown().await.unwrap();
    // Coturn resets the other connection, others close it.
    match timeout(PATIENCE, peer.read(&mut arrived)).await.unwrap() {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

async fn clients() -> Option<(Coturn, [Client; 2])> {
    let coturn = Coturn::start(Ipv4Addr::LOCALHOST.into(), Login::Password).await?;
    let clients = [coturn.client_over(Transport::Tcp).await, coturn.client_over(Transport::Tls).await];
    Some((coturn, clients))
}

#[tokio::test]
async fn a_client_connects_to_a_peer() {
    let Some((_coturn, clients)) = clients().await else { return };
    for client in clients {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer_address = listener.local_addr().unwrap();
        let relayed = client.allocate(TCP).await.unwrap().relayed[0];
        client.create_permission(&[peer_address]).await.unwrap();
        let (id, accepted) =
            timeout(PATIENCE, async { tokio::join!(client.connect_peer(peer_address), listener.accept()) })
                .await
                .unwrap();
        let (peer, source) = accepted.unwrap();
        assert_eq!(source, relayed);
        let connection = client.bind_connection(id.unwrap()).await.unwrap();
        assert_ne!(connection.local_addr().unwrap(), client.local_addr().unwrap());
        exchange(connection, peer).await;
    }
}

#[tokio::test]
async fn a_peer_connects_to_a_client() {
    let Some((_coturn, clients)) = clients().await else { return };
    for client in clients {
        let relayed = client.allocate(TCP).await.unwrap().relayed[0];
        client.create_permission(&[([127, 0, 0, 1], 0).into()]).await.unwrap();
        let mut peer = TcpStream::connect(relayed).await.unwrap();
        // What it says before the client is there is kept for it.
        peer.write_all(b"early").await.unwrap();
        let attempt = timeout(PATIENCE, client.connection_attempt()).await.unwrap().unwrap();
        assert_eq!(attempt.peer, peer.local_addr().unwrap());
        let mut connection = client.bind_connection(attempt.id).await.unwrap();
        let mut early = [0; 5];
        timeout(PATIENCE, connection.read_exact(&mut early)).await.unwrap().unwrap();
        assert_eq!(&early, b"early");
        exchange(connection, peer).await;
    }
}

#[tokio::test]
async fn what_cannot_be_connected_or_bound_is_an_error() {
    let Some((coturn, [client, _])) = clients().await else { return };
    client.allocate(TCP).await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    client.create_permission(&[nobody]).await.unwrap();
    let error = client.connect_peer(nobody).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE), "{error}");
    let unknown = hairpin_proto::stun::attribute::ConnectionId(0x0102_0304);
    let error = client.bind_connection(unknown).await.unwrap_err();
    assert!(matches!(error, Error::Rejected { .. } | Error::ConnectionLost(_)), "{error}");
    let over_udp = coturn.client("alice", "sesame").await.bind_connection(unknown).await.unwrap_err();
    assert!(matches!(over_udp, Error::NoTransport(Transport::Udp)), "{over_udp}");
}
