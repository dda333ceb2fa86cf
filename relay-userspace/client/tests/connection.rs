//! Data connections (RFC 6062) to a server of a few lines, which is the peer as well.

use hairpin_client::{Client, Options, Transport};
use hairpin_proto::stun::attribute::ConnectionId;
use hairpin_proto::stun::{Class, Message, MessageBuilder, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// More than any buffer on the way takes, each byte told from its neighbours.
fn much() -> Vec<u8> {
    (0..5_000_000_u32).map(|at| (at / 251 + at) as u8).collect()
}

#[tokio::test]
async fn bytes_go_both_ways_at_once_however_many() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { transport: Transport::Tcp, ..Options::default() };
    let client = Client::connect(listener.local_addr().unwrap(), options).await.unwrap();
    let _control = listener.accept().await.unwrap();
    let server = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 28];
        socket.read_exact(&mut request).await.unwrap();
        let request = Message::parse(&request).unwrap();
        assert_eq!((request.method(), request.attribute()), (Method::CONNECTION_BIND, Ok(Some(ConnectionId(7)))));
        let mut answer = Vec::new();
        MessageBuilder::new(&mut answer, Class::Success, request.method(), request.transaction_id()).finish(false);
        // The first bytes of the peer come right behind the answer.
        answer.extend_from_slice(b"early");
        socket.write_all(&answer).await.unwrap();
        let (mut reader, mut writer) = socket.split();
        let (there, mut back) = (much(), Vec::new());
        let writing = async {
            writer.write_all(&there).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        tokio::join!(writing, async { reader.read_to_end(&mut back).await.unwrap() });
        assert!(back == there, "to the peer");
    };
    let data = async {
        let connection = client.bind_connection(ConnectionId(7)).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(connection);
        let (there, mut back) = (much(), Vec::new());
        let writing = async {
            writer.write_all(&there).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        tokio::join!(writing, async { reader.read_to_end(&mut back).await.unwrap() });
        assert!(back.strip_prefix(b"early") == Some(&there[..]), "to the client");
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), async { tokio::join!(server, data) }).await.unwrap();
}
