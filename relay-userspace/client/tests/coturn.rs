//! The client against coturn, a server that shares nothing with this project.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hairpin_client::{AllocateOptions, Client, Credentials, Error, Options, Settings, Timing};
use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::attribute::EvenPort;
use hairpin_proto::stun::{Class, ErrorCode, Message};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);
const SECRET: &str = "north";

/// Who the server lets in.
#[derive(Clone, Copy)]
enum Login {
    Password,
    Secret,
}

/// A coturn of the test's own, on loopback. It ends with its guard.
struct Coturn {
    process: Child,
    address: SocketAddr,
    /// Holds coturn's database, which it wants even when it has none.
    _directory: Directory,
}

struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Coturn {
    /// Starts it; `None`, with a word why, if it is not installed. With `HAIRPIN_REQUIRE_ALL` set, that is a failure.
    async fn start(ip: IpAddr, login: Login) -> Option<Self> {
        let free = UdpSocket::bind((ip, 0)).await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let directory = std::env::temp_dir().join(format!("hairpin-coturn-{}-{}", std::process::id(), address.port()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new("turnserver");
        command.args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--allow-loopback-peers", "-r", "test"]);
        command.args(["--log-file", "stdout", "--simple-log"]);
        command.arg(format!("--listening-ip={ip}")).arg(format!("--relay-ip={ip}"));
        command.arg(format!("--listening-port={}", address.port()));
        command.arg(format!("--pidfile={}", directory.join("pid").display()));
        command.arg(format!("--userdb={}", directory.join("db").display()));
        match login {
            Login::Password => command.args(["-a", "-u", "alice:sesame"]),
            Login::Secret => command.args(["--use-auth-secret", "--static-auth-secret", SECRET]),
        };
        let directory = Directory(directory);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = match spawned {
            Ok(process) => process,
            Err(error) if std::env::var_os("HAIRPIN_REQUIRE_ALL").is_none() => {
                eprintln!("skipped: coturn's turnserver does not start: {error}");
                return None;
            }
            Err(error) => panic!("coturn's turnserver does not start: {error}"),
        };
        let coturn = Self { process, address, _directory: directory };
        for _ in 0..100 {
            if coturn.client("alice", "sesame").await.binding().await.is_ok() {
                return Some(coturn);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("coturn does not answer on {address}");
    }

    async fn client(&self, username: &str, password: &str) -> Client {
        let settings = Settings {
            credentials: Some(Credentials::new(username, password)),
            timing: Timing { rto: Duration::from_millis(200), attempts: 4, patience: 4 },
            ..Settings::default()
        };
        Client::connect(self.address, Options { local: None, settings }).await.unwrap()
    }
}

async fn echo_through(ip: IpAddr, family: AddressFamily) {
    let Some(coturn) = Coturn::start(ip, Login::Password).await else { return };
    let client = coturn.client("alice", "sesame").await;
    let peer = UdpSocket::bind((ip, 0)).await.unwrap();
    let peer_address = peer.local_addr().unwrap();

    let allocation = client.allocate(AllocateOptions { family: Some(family), ..Default::default() }).await.unwrap();
    let relayed = allocation.relayed_of(family).unwrap();
    assert_eq!(allocation.mapped.port(), client.local_addr().unwrap().port());
    client.create_permission(&[peer_address]).await.unwrap();

    let mut buffer = [0; 2000];
    client.send(peer_address, b"by indication").await.unwrap();
    let (length, source) = timeout(PATIENCE, peer.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!((&buffer[..length], source), (&b"by indication"[..], relayed));
    peer.send_to(b"back by indication", relayed).await.unwrap();
    let data = timeout(PATIENCE, client.recv()).await.unwrap().unwrap();
    assert_eq!((data.peer, data.channel, &*data.payload), (peer_address, None, &b"back by indication"[..]));

    let channel = client.bind_channel(peer_address).await.unwrap();
    for payload in [&b"by channel"[..], b"", b"x", &[7; 1200]] {
        client.send(peer_address, payload).await.unwrap();
        let (length, source) = timeout(PATIENCE, peer.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!((&buffer[..length], source), (payload, relayed));
        peer.send_to(payload, relayed).await.unwrap();
        let data = timeout(PATIENCE, client.recv()).await.unwrap().unwrap();
        assert_eq!((data.peer, data.channel, &*data.payload), (peer_address, Some(channel), payload));
    }

    assert_eq!(client.refresh(Some(Duration::from_secs(700))).await.unwrap(), Duration::from_secs(700));
    let error = client.allocate(AllocateOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ALLOCATION_MISMATCH), "{error}");
    assert_eq!(Message::parse(&client.last_response()).unwrap().class(), Class::Error);
    client.release().await.unwrap();
}

#[tokio::test]
async fn data_goes_both_ways_over_ipv4() {
    echo_through(Ipv4Addr::LOCALHOST.into(), AddressFamily::V4).await;
}

#[tokio::test]
async fn data_goes_both_ways_over_ipv6() {
    echo_through(Ipv6Addr::LOCALHOST.into(), AddressFamily::V6).await;
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
