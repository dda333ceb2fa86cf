//! Clients of the newer specification and of access tokens beside those of the older one, and a man in the middle who would
//! have them all speak the older one.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use hairpin_client::{
    AllocateOptions, Client, Credentials, Error, Options, Security, Settings, Timing, TlsOptions, TokenCredential,
    Transport, Trust,
};
use hairpin_proto::stun::ErrorCode;
use hairpin_proto::turn::{AccessToken, MacKey, TokenAlgorithm, TokenKey, TokenTimestamp};
use hairpin_tests::lab::meddler::{Direction, Meddler, attributes, rewrite};
use hairpin_tests::lab::relay::PORT;
use hairpin_tests::lab::server::SECURE_PORT;
use hairpin_tests::lab::{Authority, Folder, Key, Namespace};

use crate::bed::{Bed, HOME, shown};

const AUDIENCE: &str = "relay.test";
/// The key of tokens, and the same as an option has it.
const TOKEN_KEY: &[u8; 32] = b"01234567890123456789012345678901";
const TOKEN_KEY_OPTION: &str = "north:A256GCM:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const MAC_KEY: &[u8; 32] = b"what messages are signed with 32";

/// Types of attributes (RFC 8489 section 18.3).
const USERNAME: u16 = 0x0006;
const SHA1: u16 = 0x0008;
const NONCE: u16 = 0x0015;
const SHA256: u16 = 0x001c;
const PASSWORD_ALGORITHM: u16 = 0x001d;
const USERHASH: u16 = 0x001e;
const PASSWORD_ALGORITHMS: u16 = 0x8002;
/// What a nonce begins with, before the features of the server.
const COOKIE: &[u8] = b"obMatJos2";
/// MD5 without parameters, as the list of algorithms.
const MD5_ALONE: [u8; 4] = [0, 1, 0, 0];

/// Runs clients of tokio in a namespace.
fn run<T: Send>(host: &Namespace, clients: impl AsyncFnOnce() -> T + Send) -> T {
    host.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(clients())
    })
}

fn alice(security: Security) -> Settings {
    Settings { credentials: Some(Credentials::new("alice", "sesame")), security, ..Settings::default() }
}

/// A token for a server, sealed so many seconds ago.
fn token(kid: &str, audience: &str, age: u64, lifetime: u32) -> TokenCredential {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock that is right").as_secs();
    let mac_key = MacKey::new(MAC_KEY).expect("a length that keys have");
    let sealed = AccessToken { mac_key: mac_key.clone(), timestamp: TokenTimestamp::from_unix(now - age), lifetime };
    let key = TokenKey::new(TokenAlgorithm::A256Gcm, TOKEN_KEY).expect("a length that keys have");
    TokenCredential { kid: kid.to_owned(), mac_key, token: key.seal(audience, &sealed, [9; 12]) }
}

fn with_token(token: TokenCredential, security: Security) -> Settings {
    Settings { token: Some(token), security, ..Settings::default() }
}

async fn connect(transport: Transport, settings: Settings) -> Client {
    let port = if transport == Transport::Tls { SECURE_PORT } else { PORT };
    let tls = (transport == Transport::Tls).then(|| TlsOptions::new(Trust::Anybody));
    let options = Options { transport, tls, settings, ..Options::default() };
    Client::connect(SocketAddr::new(HOME, port), options).await.expect("the relay is there")
}

/// Has an allocation through everything that is signed.
async fn relays(client: &Client) {
    let peer = SocketAddr::new(HOME, 9);
    client.allocate(AllocateOptions::default()).await.expect("the client is let in");
    client.refresh(Some(Duration::from_secs(700))).await.expect("it is its own");
    client.create_permission(&[peer]).await.expect("the peer is allowed");
    client.bind_channel(peer).await.expect("the peer is allowed");
    let probe = client.last_response();
    assert!(!probe.is_empty());
}

/// What the last response is signed with.
fn signatures(client: &Client) -> Vec<u16> {
    let all = attributes(&client.last_response());
    all.into_iter().map(|(kind, _)| kind).filter(|kind| [SHA1, SHA256].contains(kind)).collect()
}

fn start<'n>(host: &'n Namespace, folder: &'n Folder) -> Bed<'n> {
    let certificate = Authority::new().issue(Key::Ecdsa, AUDIENCE, &[HOME]);
    let options = format!(
        "--user alice:sesame --token-audience {AUDIENCE} --token-key {TOKEN_KEY_OPTION} \
         --listen tcp:127.0.0.1:{PORT} --listen tls:127.0.0.1:{SECURE_PORT} {}",
        shown(folder, &certificate)
    );
    Bed::at_home(host, folder, &options)
}

#[test]
fn newer_clients_and_tokens_and_older_clients_are_served_side_by_side() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let bed = start(&host, &folder);
    run(&host, async || {
        for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
            let modern = connect(transport, alice(Security::Modern)).await;
            let legacy = connect(transport, alice(Security::Legacy)).await;
            let tokens = [Security::Modern, Security::Legacy]
                .map(|security| connect(transport, with_token(token("north", AUDIENCE, 0, 3600), security)));
            let [modern_token, legacy_token] = tokens;
            let (modern_token, legacy_token) = (modern_token.await, legacy_token.await);
            for client in [&modern, &legacy, &modern_token, &legacy_token] {
                relays(client).await;
            }
            assert_eq!(signatures(&modern), [SHA256], "{transport:?}");
            assert_eq!(signatures(&legacy), [SHA1], "{transport:?}");
            assert_eq!(signatures(&modern_token), [SHA256], "{transport:?}");
            for client in [&modern, &legacy, &modern_token, &legacy_token] {
                client.release().await.expect("it is its own");
            }
        }
    });
    bed.wait_for("all have gone", |metrics| metrics.sum("hairpin_allocations", &[]) == 0);
    bed.stop();
}

#[test]
fn wrong_passwords_and_wrong_tokens_are_refused_alike() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let bed = start(&host, &folder);
    run(&host, async || {
        for security in [Security::Modern, Security::Legacy] {
            let wrong = |name: &str, password: &str| Settings {
                credentials: Some(Credentials::new(name, password)),
                ..alice(security)
            };
            let forged = TokenCredential { mac_key: MacKey::new(&[7; 32]).unwrap(), ..token("north", AUDIENCE, 0, 60) };
            let mut broken = token("north", AUDIENCE, 0, 60);
            *broken.token.last_mut().unwrap() ^= 1;
            for settings in [
                wrong("alice", "open"),
                wrong("bob", "sesame"),
                with_token(token("north", "other.test", 0, 3600), security),
                with_token(token("north", AUDIENCE, 3600, 60), security),
                with_token(token("south", AUDIENCE, 0, 3600), security),
                with_token(forged, security),
                with_token(broken, security),
            ] {
                let client = connect(Transport::Udp, settings.clone()).await;
                let error = client.allocate(AllocateOptions::default()).await.expect_err("nobody is let in");
                assert_eq!(error.code().map(ErrorCode::number), Some(401), "{settings:?}: {error}");
            }
        }
        // A token of another key does not take an allocation over.
        let client = connect(Transport::Udp, with_token(token("north", AUDIENCE, 0, 3600), Security::Modern)).await;
        relays(&client).await;
        client.set_token(token("south", AUDIENCE, 0, 3600));
        let error = client.refresh(None).await.expect_err("this is no key of the relay");
        assert_eq!(error.code().map(ErrorCode::number), Some(401), "{error}");
    });
    assert_eq!(bed.metrics().sum("hairpin_allocations", &[]), 1);
    bed.stop();
}

/// What a man in the middle does to a message.
type Meddling = fn(Direction, &[u8]) -> Vec<u8>;

/// Changes attributes of what goes to the client.
fn to_client(direction: Direction, message: &[u8], change: impl Fn(u16, Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    if direction == Direction::ToClient { rewrite(message, change) } else { message.to_vec() }
}

/// Changes attributes of what goes to the server.
fn to_server(direction: Direction, message: &[u8], change: impl Fn(u16, Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    if direction == Direction::ToServer { rewrite(message, change) } else { message.to_vec() }
}

/// A nonce that says that its server has no features.
fn plain_nonce(kind: u16, mut value: Vec<u8>) -> Vec<u8> {
    if kind == NONCE && value.starts_with(COOKIE) {
        value[COOKIE.len()..COOKIE.len() + 4].copy_from_slice(b"AAAA");
    }
    value
}

/// A nonce that does not even look as if there could be features.
fn old_nonce(kind: u16, mut value: Vec<u8>) -> Vec<u8> {
    if kind == NONCE && value.starts_with(COOKIE) {
        value.drain(..COOKIE.len() + 4);
    }
    value
}

const MEDDLINGS: [(&str, Meddling); 9] = [
    ("the algorithms are taken out of the challenge", |direction, message| {
        to_client(direction, message, |kind, value| (kind != PASSWORD_ALGORITHMS).then_some(value))
    }),
    ("the features are taken out of the nonce", |direction, message| {
        to_client(direction, message, |kind, value| Some(plain_nonce(kind, value)))
    }),
    ("both are taken out", |direction, message| {
        to_client(direction, message, |kind, value| (kind != PASSWORD_ALGORITHMS).then(|| plain_nonce(kind, value)))
    }),
    ("the algorithms and the whole beginning of the nonce are taken out", |direction, message| {
        to_client(direction, message, |kind, value| (kind != PASSWORD_ALGORITHMS).then(|| old_nonce(kind, value)))
    }),
    ("only MD5 is offered", |direction, message| {
        to_client(direction, message, |kind, value| {
            Some(if kind == PASSWORD_ALGORITHMS { MD5_ALONE.to_vec() } else { value })
        })
    }),
    ("both are taken out, and put back for the server", |direction, message| match direction {
        Direction::ToClient => {
            to_client(direction, message, |kind, value| (kind != PASSWORD_ALGORITHMS).then(|| plain_nonce(kind, value)))
        }
        // The features of this server: algorithms and anonymity.
        Direction::ToServer => to_server(direction, message, |kind, mut value| {
            if kind == NONCE && value.starts_with(COOKIE) {
                value[COOKIE.len()..COOKIE.len() + 4].copy_from_slice(b"wAAA");
            }
            Some(value)
        }),
    }),
    ("the algorithms are taken out of the request", |direction, message| {
        to_server(direction, message, |kind, value| {
            (![PASSWORD_ALGORITHM, PASSWORD_ALGORITHMS].contains(&kind)).then_some(value)
        })
    }),
    ("the request names MD5", |direction, message| {
        to_server(direction, message, |kind, value| {
            Some(if kind == PASSWORD_ALGORITHM { MD5_ALONE.to_vec() } else { value })
        })
    }),
    ("the request has lost its signature", |direction, message| {
        to_server(direction, message, |kind, value| (kind != SHA256).then_some(value))
    }),
];

/// A client through a man in the middle, which does not wait for long.
async fn through(meddler: &Meddler, security: Security) -> Result<(), Error> {
    let timing = Timing { rto: Duration::from_millis(200), attempts: 3, patience: 4 };
    let settings = Settings { timing, ..alice(security) };
    let client = Client::connect(meddler.address(), Options { settings, ..Options::default() }).await?;
    client.allocate(AllocateOptions::default()).await?;
    client.release().await
}

#[test]
fn a_man_in_the_middle_gets_nobody_to_use_less_than_was_offered() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let bed = start(&host, &folder);
    let server = SocketAddr::new(HOME, PORT);

    // One who changes nothing hinders nobody, and does not even learn who comes.
    let honest = Meddler::start(&host, server, |_, message| message.to_vec());
    run(&host, async || through(&honest, Security::Modern).await).expect("nothing was changed");
    let requests = honest.seen(Direction::ToServer);
    let all: Vec<_> = requests.iter().flat_map(|request| attributes(request)).collect();
    assert!(all.iter().any(|(kind, _)| *kind == USERHASH) && all.iter().any(|(kind, _)| *kind == SHA256), "{all:?}");
    assert!(all.iter().all(|(kind, _)| ![USERNAME, SHA1].contains(kind)), "{all:?}");
    run(&host, async || through(&honest, Security::Legacy).await).expect("nothing was changed");
    let created = || bed.metrics().sum("hairpin_allocations_begun_total", &[]);
    assert_eq!(created(), 2);

    for (what, meddling) in MEDDLINGS {
        let meddler = Meddler::start(&host, server, meddling);
        let error = run(&host, async || through(&meddler, Security::Modern).await);
        let error = error.expect_err(what);
        println!("{what}: {error}");
        assert_eq!(created(), 2, "{what}: {error}");
        let code = error.code().map(ErrorCode::number);
        assert!(
            matches!(error, Error::BidDown(_) | Error::IntegrityViolated(_)) || matches!(code, Some(400 | 401 | 438)),
            "{what}: {error}"
        );
    }
    bed.stop();
}
