//! Starting coturn, and what all transports are tried with.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hairpin_client::Timing;
use hairpin_client::{AllocateOptions, Client, Credentials, Error, Options, Settings, TlsOptions, Transport, Trust};
use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::{Class, ErrorCode, Message};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::UdpSocket;
use tokio::time::timeout;

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
pub(crate) const SECRET: &str = "north";

/// Who the server lets in.
#[derive(Clone, Copy)]
pub(crate) enum Login {
    Password,
    Secret,
    /// Whoever has a token that is sealed with [`TOKEN_KEY`], which the name "north" stands for.
    Token,
}

/// For AEAD_AES_256_GCM.
pub(crate) const TOKEN_KEY: &[u8; 32] = b"12345678901234567890123456789012";
/// What a token is made for.
pub(crate) const SERVER_NAME: &str = "turn.example.org";

/// A coturn of the test's own, on loopback, for UDP, TCP and TLS. It ends with its guard.
pub(crate) struct Coturn {
    process: Child,
    pub(crate) address: SocketAddr,
    tls: SocketAddr,
    /// Holds coturn's database, which it wants even when it has none, and the certificates.
    directory: Directory,
}

struct Directory(PathBuf);

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
    pub(crate) async fn start(ip: IpAddr, login: Login) -> Option<Self> {
        Self::start_with(ip, login, &[]).await
    }

    /// Starts it with further options.
    pub(crate) async fn start_with(ip: IpAddr, login: Login, options: &[&str]) -> Option<Self> {
        let address = free_address(ip).await;
        let tls = free_address(ip).await;
        let directory = std::env::temp_dir().join(format!("hairpin-coturn-{}-{}", std::process::id(), address.port()));
        std::fs::create_dir_all(&directory).unwrap();
        write_certificates(&directory, ip);
        let mut command = Command::new("turnserver");
        command.args(["-n", "--no-cli", "--no-dtls", "--allow-loopback-peers", "-r", "test"]);
        command.args(["--log-file", "stdout", "--simple-log"]).args(options);
        command.arg(format!("--listening-ip={ip}")).arg(format!("--relay-ip={ip}"));
        command.arg(format!("--listening-port={}", address.port()));
        command.arg(format!("--tls-listening-port={}", tls.port()));
        for (option, file) in [("cert", "server.pem"), ("pkey", "key.pem"), ("pidfile", "pid"), ("userdb", "db")] {
            command.arg(format!("--{option}={}", directory.join(file).display()));
        }
        match login {
            Login::Password => command.args(["-a", "-u", "alice:sesame"]),
            Login::Secret => command.args(["--use-auth-secret", "--static-auth-secret", SECRET]),
            Login::Token => command.args(["-a", "--oauth"]).arg(format!("--server-name={SERVER_NAME}")),
        };
        let directory = Directory(directory);
        if matches!(login, Login::Token) && !write_token_key(&directory.0) {
            return None;
        }
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = match spawned {
            Ok(process) => process,
            Err(error) if std::env::var_os("HAIRPIN_REQUIRE_ALL").is_none() => {
                eprintln!("skipped: coturn's turnserver does not start: {error}");
                return None;
            }
            Err(error) => panic!("coturn's turnserver does not start: {error}"),
        };
        let coturn = Self { process, address, tls, directory };
        for _ in 0..100 {
            if coturn.client("alice", "sesame").await.binding().await.is_ok() {
                return Some(coturn);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("coturn does not answer on {address}");
    }

    /// A client over UDP.
    pub(crate) async fn client(&self, username: &str, password: &str) -> Client {
        let settings = Settings { credentials: Some(Credentials::new(username, password)), ..Self::settings() };
        Client::connect(self.address, Options { settings, ..Options::default() }).await.unwrap()
    }

    /// A client over any transport, who knows the password.
    pub(crate) async fn client_over(&self, transport: Transport) -> Client {
        self.connect(self.options(transport)).await.unwrap()
    }

    pub(crate) async fn connect(&self, options: Options) -> Result<Client, Error> {
        let address = if options.transport == Transport::Tls { self.tls } else { self.address };
        Client::connect(address, options).await
    }

    pub(crate) fn options(&self, transport: Transport) -> Options {
        let tls = Some(TlsOptions::new(Trust::Roots(self.roots())));
        Options { transport, tls, settings: Self::settings(), ..Options::default() }
    }

    /// The certificate that the server's leads to.
    pub(crate) fn roots(&self) -> PathBuf {
        self.directory.0.join("roots.pem")
    }

    /// Ends it before its guard does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn settings() -> Settings {
        Settings {
            credentials: Some(Credentials::new("alice", "sesame")),
            timing: Timing { rto: Duration::from_millis(200), attempts: 4, patience: 4 },
            ..Settings::default()
        }
    }
}

async fn free_address(ip: IpAddr) -> SocketAddr {
    UdpSocket::bind((ip, 0)).await.unwrap().local_addr().unwrap()
}

/// A root and a certificate for the address and for turn.example.org.
fn write_certificates(directory: &Path, ip: IpAddr) {
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec![ip.to_string(), "turn.example.org".to_owned()];
    let server = CertificateParams::new(names).unwrap().signed_by(&key, &root).unwrap();
    for (file, text) in [("roots.pem", root.pem()), ("server.pem", server.pem()), ("key.pem", key.serialize_pem())] {
        std::fs::write(directory.join(file), text).unwrap();
    }
}

/// Coturn takes the keys of tokens from its database only. Whether that is there, or else a word why not.
fn write_token_key(directory: &Path) -> bool {
    // The key in base64, and the columns that coturn reads.
    let sql = "CREATE TABLE oauth_key (kid, ikm_key, timestamp, lifetime, as_rs_alg, realm);
        INSERT INTO oauth_key VALUES ('north', 'MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=', 0, 0, 'A256GCM', '');";
    match Command::new("sqlite3").arg(directory.join("db")).arg(sql).status() {
        Ok(status) => assert!(status.success(), "sqlite3: {status}"),
        Err(error) if std::env::var_os("HAIRPIN_REQUIRE_ALL").is_none() => {
            eprintln!("skipped: sqlite3 does not start, which writes coturn's database: {error}");
            return false;
        }
        Err(error) => panic!("sqlite3 does not start, which writes coturn's database: {error}"),
    }
    true
}

/// Makes an allocation and relays data both ways, by indications and by a channel.
pub(crate) async fn echo_through(client: &Client, ip: IpAddr, family: AddressFamily) {
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
