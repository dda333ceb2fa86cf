//! What must not touch the heap: a packet that is forwarded or dropped, and a client that nobody knows.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hairpin_proto::address::{ClientAddr, FiveTuple, PeerAddr, ServerAddr};
use hairpin_proto::stun::attribute::{
    AccessTokenAttribute, ChangeRequest, ChannelNumberAttribute, Data, Nonce, PasswordAlgorithmAttribute,
    PasswordAlgorithms, Realm as RealmAttribute, RequestedTransport, UserHash, Username, XorPeerAddress,
};
use hairpin_proto::stun::{
    Class, Integrity, LongTermKey, Message, MessageBuilder, Method, PasswordAlgorithm, PasswordKeys, TransactionId,
    user_hash,
};
use hairpin_proto::turn::{
    AccessToken, BindRequest, Cause, Credentials, Discard, Disposition, Effect, Freshness, Grant, IcmpError, Limits,
    MacKey, NonceKey, Now, PeerPolicy, PortStripe, Quotas, Random, Realm, RelayAddress, RelayId, Server, ServerConfig,
    Settings, TokenAlgorithm, TokenKey, TokenTimestamp, Translation,
};

/// Counts what this thread asks of the system's allocator.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

#[allow(unsafe_code, reason = "every call goes to the system's allocator unchanged")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often the heap was asked for memory meanwhile.
fn allocations(mut work: impl FnMut()) -> u64 {
    // Once for buffers that are kept.
    work();
    let before = CALLS.get();
    for _ in 0..1000 {
        work();
    }
    CALLS.get() - before
}

struct Fixed(u8);

impl Random for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0 += 1;
        bytes.fill(self.0);
    }
}

const PEER: &str = "8.8.8.8:53";
const STRANGER: &str = "8.8.4.4:53";
const NOON: u64 = 1_700_000_000;
const ID: TransactionId = TransactionId([1; 12]);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn server() -> Server {
    server_of(Realm::new("realm", credentials()))
}

fn credentials() -> Credentials {
    let mut credentials = Credentials::new("realm");
    credentials.add_user("alice", "sesame");
    credentials.add_secret("north");
    credentials
}

fn server_of(realm: Realm) -> Server {
    let relay = address("192.0.2.1:0").ip();
    let settings = Settings {
        realms: vec![Arc::new(realm)],
        freshness: Freshness::default(),
        nonce_keys: vec![NonceKey::new([1; 32])],
        networks: Vec::new(),
        reserved_ports: None,
        peer_policy: PeerPolicy::default(),
        relay_addresses: vec![RelayAddress { bind: relay, public: relay }],
        translation: Translation::default(),
        alternates: Vec::new(),
        limits: Limits::default(),
        tcp_relay: false,
        mobility: None,
        listeners: Vec::new(),
    };
    let config = ServerConfig {
        settings,
        software: Some("test".to_owned()),
        nonce_lifetime: Duration::from_secs(3600),
        discovery: None,
        ports: PortStripe::new(49_152..=65_535, 0, 1),
        quotas: Quotas::default(),
        shard: 0,
        shards: 1,
    };
    Server::new(config, Box::new(Fixed(0)))
}

fn five_tuple() -> FiveTuple {
    FiveTuple::udp(ClientAddr::new(address("203.0.113.7:1")), ServerAddr::new(address("192.0.2.1:3478")))
}

fn drain(server: &mut Server) {
    while server.poll_effect().is_some() {}
}

/// Gives a request to the server and plays its driver. Returns the response.
fn request(server: &mut Server, now: Now, datagram: &[u8]) -> Vec<u8> {
    assert_eq!(server.client_datagram(now, five_tuple(), datagram), Disposition::Control);
    let mut response = Vec::new();
    while let Some(effect) = server.poll_effect() {
        match effect {
            Effect::Respond { message, .. } => response = message.to_vec(),
            Effect::Bind { relay, request: BindRequest::Port(address) } => server.relay_bound(now, relay, Ok(address)),
            _ => {}
        }
    }
    response
}

fn challenge() -> Vec<u8> {
    let mut datagram = Vec::new();
    MessageBuilder::new(&mut datagram, Class::Request, Method::ALLOCATE, ID).with(&RequestedTransport(17)).finish(true);
    datagram
}

/// A request of nobody touches no memory, and is refused for this cause; none: it is asked to come again.
fn expect_no_memory(
    server: &mut Server,
    what: &str,
    datagram: &[u8],
    mut client: SocketAddr,
    refused_for: Option<Cause>,
) {
    let now = Now { instant: Instant::now(), unix: NOON };
    let calls = allocations(|| {
        // A nonce is good on every port.
        client.set_port(client.port() + 1);
        let five_tuple = FiveTuple { client: ClientAddr::new(client), ..five_tuple() };
        assert_eq!(server.client_datagram(now, five_tuple, datagram), Disposition::Control, "{what}");
        assert!(matches!(server.poll_effect(), Some(Effect::Respond { .. })), "{what}");
        let refused = server.poll_effect().map(|effect| match effect {
            Effect::Refused(refusal) => refusal.cause,
            other => panic!("{what}: {other:?}"),
        });
        assert_eq!(refused, refused_for, "{what}");
        drain(server);
    });
    assert_eq!(calls, 0, "{what}");
    assert_eq!((server.allocations(), server.poll_timeout()), (0, None));
}

/// A nonce that a server gives to a client.
fn nonce_for(server: &mut Server, client: SocketAddr, unix: u64) -> String {
    let now = Now { instant: Instant::now(), unix };
    let five_tuple = FiveTuple { client: ClientAddr::new(client), ..five_tuple() };
    assert_eq!(server.client_datagram(now, five_tuple, &challenge()), Disposition::Control);
    let Some(Effect::Respond { message, .. }) = server.poll_effect() else { panic!("there is a challenge") };
    Message::parse(message).unwrap().attribute::<Nonce<'_>>().unwrap().unwrap().0.to_owned()
}

/// What a stranger says of itself.
#[derive(Clone, Copy, Default)]
struct Stranger<'s> {
    name: Option<&'s str>,
    hash: Option<[u8; 32]>,
    token: Option<&'s [u8]>,
    /// PASSWORD-ALGORITHMS, and the one that is chosen.
    algorithms: Option<(&'s [u8], PasswordAlgorithm)>,
}

impl Stranger<'_> {
    fn named(name: &str) -> Stranger<'_> {
        Stranger { name: Some(name), ..Stranger::default() }
    }

    /// An Allocate request of it.
    fn request(self, nonce: Option<&str>) -> Vec<u8> {
        let mut datagram = Vec::new();
        let offered = self.algorithms.map(|(list, _)| PasswordAlgorithms::from_bytes(list).unwrap());
        MessageBuilder::new(&mut datagram, Class::Request, Method::ALLOCATE, ID)
            .with(&RequestedTransport(17))
            .with_option(self.token.map(AccessTokenAttribute).as_ref())
            .with_option(self.name.map(Username).as_ref())
            .with_option(self.hash.map(UserHash).as_ref())
            .with(&RealmAttribute("realm"))
            .with_option(nonce.map(Nonce).as_ref())
            .with_option(offered.as_ref())
            .with_option(self.algorithms.map(|(_, chosen)| PasswordAlgorithmAttribute(chosen.into())).as_ref())
            .with_integrity(&LongTermKey::derive("mallory", "realm", "guess"), Integrity::Sha1)
            .finish(true);
        datagram
    }
}

/// A realm that takes tokens and hidden names too.
fn realm_of_all(asks: bool) -> Realm {
    let mut credentials = credentials();
    // Whatever may be had by who has a token.
    let grant = Grant { addresses: vec![address("192.0.2.1:50000")], allocations: Some(1) };
    credentials.grant("token", grant.clone());
    credentials.grant("alice", grant);
    credentials.add_user("alice", "sesame");
    credentials.add_token_key("token", TokenKey::new(TokenAlgorithm::A256Gcm, &[1; 32]).unwrap());
    Realm {
        asks_for_users: asks,
        asks_for_admission: asks,
        token_audience: Some("turn.example.org".to_owned()),
        offers_anonymity: true,
        ..Realm::new("realm", credentials)
    }
}

#[test]
fn strangers_cost_no_memory_where_there_are_all_kinds_of_users() {
    let here = address("203.0.113.9:1");
    let (temporary, late) = (format!("{}:zo\u{eb}", NOON + 60), format!("{NOON}:a\u{30a}sa"));
    let (both, one) = (PasswordAlgorithms::SHA256_AND_MD5.as_bytes(), &[0, 1, 0, 0][..]);
    let garbage = [7; 300];
    let alice = Stranger::named("alice");
    let of_alice = Stranger { hash: Some(user_hash("alice", "realm")), ..Stranger::default() };
    let of_nobody = Stranger { hash: Some([9; 32]), ..Stranger::default() };
    let by_token = |name| Stranger { token: Some(&garbage[..80]), ..Stranger::named(name) };
    let choosing = |list, chosen| Stranger { algorithms: Some((list, chosen)), ..alice };
    // Why each is refused, and whether somebody else is asked about it where that is done.
    let strangers = [
        ("an unknown user", Stranger::named("mallory"), Cause::UnknownUser, true),
        ("an unknown user beyond ASCII", Stranger::named("a\u{30a}sa"), Cause::UnknownUser, true),
        ("a wrong password", alice, Cause::WrongPassword, false),
        ("a wrong secret beyond ASCII", Stranger::named(&temporary), Cause::WrongSecret, true),
        ("a wrong secret that has expired", Stranger::named(&late), Cause::WrongSecret, true),
        ("a hash", of_alice, Cause::WrongPassword, false),
        ("a hash of nobody", of_nobody, Cause::UnknownUser, true),
        ("name and hash", Stranger { name: Some("alice"), ..of_alice }, Cause::IncompleteCredentials, false),
        ("neither", Stranger::default(), Cause::IncompleteCredentials, false),
        ("no token", by_token("token"), Cause::BadToken, false),
        ("a token that is too long", Stranger { token: Some(&garbage), ..by_token("token") }, Cause::BadToken, false),
        ("a token of nothing", Stranger { token: Some(&[]), ..by_token("token") }, Cause::BadToken, false),
        ("a token of nobody's key", by_token("other"), Cause::UnknownTokenKey, true),
        ("SHA-256", choosing(both, PasswordAlgorithm::Sha256), Cause::WrongPassword, false),
        ("MD5", choosing(both, PasswordAlgorithm::Md5), Cause::WrongPassword, false),
        ("a list that was cut", choosing(one, PasswordAlgorithm::Md5), Cause::BidDown, false),
        ("a list of others", choosing(&[0, 9, 0, 0], PasswordAlgorithm::Md5), Cause::BidDown, false),
    ];
    for asks in [false, true] {
        let mut server = server_of(realm_of_all(asks));
        let fresh = nonce_for(&mut server, here, NOON);
        let stale = nonce_for(&mut server, here, NOON - 3600);
        let foreign = nonce_for(&mut server, address("203.0.113.8:1"), NOON);
        for (what, stranger, cause, is_asked_about) in strangers {
            let is_complete = ![Cause::IncompleteCredentials, Cause::BidDown].contains(&cause);
            let mut expect = |kind: &str, nonce: Option<&str>, cause: Option<Cause>| {
                let what = format!("{what}, {kind}, asks: {asks}");
                expect_no_memory(&mut server, &what, &stranger.request(nonce), here, cause);
            };
            expect("no nonce", None, Some(Cause::IncompleteCredentials));
            for (kind, nonce) in [("stale", &stale), ("foreign", &foreign)] {
                expect(kind, Some(nonce), Some(cause).filter(|_| !asks || !is_complete));
            }
            if !(asks && is_asked_about) {
                expect("fresh", Some(&fresh), Some(cause));
            }
        }
    }
}

/// An Allocate request with credentials of whatever kind.
fn forged(username: Option<&str>, realm: &str, password: &str) -> Vec<u8> {
    let mut datagram = Vec::new();
    MessageBuilder::new(&mut datagram, Class::Request, Method::ALLOCATE, ID)
        .with(&RequestedTransport(17))
        .with_option(username.map(Username).as_ref())
        .with(&RealmAttribute(realm))
        .with(&Nonce("nonsense"))
        .with_integrity(&LongTermKey::derive(username.unwrap_or_default(), realm, password), Integrity::Sha1)
        .finish(true);
    datagram
}

#[test]
fn strangers_cost_no_memory() {
    let mut server = server();
    let (mut binding, mut unknown) = (Vec::new(), Vec::new());
    MessageBuilder::new(&mut binding, Class::Request, Method::BINDING, ID).finish(true);
    let change = ChangeRequest::default();
    MessageBuilder::new(&mut unknown, Class::Request, Method::BINDING, ID).with(&change).finish(true);
    let (minted, late) = (Credentials::mint("guess", "bob", NOON + 1), Credentials::mint("north", "bob", NOON));
    for (what, datagram, refusals) in [
        ("Binding", binding, None),
        ("Binding that cannot be understood", unknown, Some(Cause::UnknownAttribute)),
        ("Allocate", challenge(), None),
        ("no username", forged(None, "realm", "guess"), Some(Cause::IncompleteCredentials)),
        ("an unknown user", forged(Some("mallory"), "realm", "guess"), Some(Cause::UnknownUser)),
        ("a wrong password", forged(Some("alice"), "realm", "guess"), Some(Cause::WrongPassword)),
        ("a wrong realm", forged(Some("alice"), "other", "sesame"), Some(Cause::WrongRealm)),
        ("a wrong secret", forged(Some(&minted.0), "realm", &minted.1), Some(Cause::WrongSecret)),
        ("a credential that has expired", forged(Some(&late.0), "realm", &late.1), Some(Cause::ExpiredCredential)),
    ] {
        expect_no_memory(&mut server, what, &datagram, address("203.0.113.9:1"), refusals);
    }
}

#[test]
fn relayed_and_dropped_data_costs_no_memory() {
    let now = Now { instant: Instant::now(), unix: NOON };
    let mut server = server();
    let key = LongTermKey::derive("alice", "realm", "sesame");
    let challenge = request(&mut server, now, &challenge());
    let nonce = Message::parse(&challenge).unwrap().attribute::<Nonce<'_>>().unwrap().unwrap().0.to_owned();
    let mut signed = |method, attributes: fn(MessageBuilder<'_>) -> MessageBuilder<'_>| {
        let mut datagram = Vec::new();
        attributes(MessageBuilder::new(&mut datagram, Class::Request, method, ID))
            .with(&Username("alice"))
            .with(&RealmAttribute("realm"))
            .with(&Nonce(&nonce))
            .with_integrity(&key, Integrity::Sha1)
            .finish(false);
        let response = request(&mut server, now, &datagram);
        assert_eq!(Message::parse(&response).unwrap().class(), Class::Success);
    };
    signed(Method::ALLOCATE, |request| request.with(&RequestedTransport(17)));
    signed(Method::CHANNEL_BIND, |request| {
        request.with(&ChannelNumberAttribute(0x4000)).with(&XorPeerAddress(address(PEER)))
    });

    let indication = |peer: &str| {
        let mut datagram = Vec::new();
        MessageBuilder::new(&mut datagram, Class::Indication, Method::SEND, ID)
            .with(&XorPeerAddress(address(peer)))
            .with(&Data(b"data"))
            .finish(false);
        datagram
    };
    let from_client = [
        ("ChannelData", b"\x40\x00\x00\x04data".to_vec(), true),
        ("an unbound channel", b"\x40\x01\x00\x04data".to_vec(), false),
        ("a Send indication", indication(PEER), true),
        ("a Send indication to a stranger", indication(STRANGER), false),
    ];
    for (what, datagram, forwarded) in from_client {
        let calls = allocations(|| {
            let disposition = server.client_datagram(now, five_tuple(), &datagram);
            assert_eq!(matches!(disposition, Disposition::Forward(_)), forwarded, "{what}");
        });
        assert_eq!(calls, 0, "{what}");
    }
    for (what, peer, forwarded) in [
        ("the channel's peer", PEER, true),
        ("another port of it", "8.8.8.8:54", true),
        ("a stranger", STRANGER, false),
    ] {
        let peer = PeerAddr::new(address(peer));
        let calls = allocations(|| {
            let disposition = server.peer_datagram(now, RelayId(0), peer, b"data");
            assert_eq!(matches!(disposition, Disposition::Forward(_)), forwarded, "{what}");
        });
        assert_eq!(calls, 0, "{what}");
    }
    let error = IcmpError { kind: 3, code: 3, mtu: 0 };
    for (what, peer, expected) in [
        ("an ICMP packet about a peer", PEER, Disposition::Control),
        ("an ICMP packet about a stranger", STRANGER, Disposition::Discard(Discard::NoPermission)),
    ] {
        let peer = PeerAddr::new(address(peer));
        let calls = allocations(|| {
            assert_eq!(server.peer_error(now, RelayId(0), peer, error), expected, "{what}");
            drain(&mut server);
        });
        assert_eq!(calls, 0, "{what}");
    }
}

#[test]
fn keys_signatures_and_tokens_cost_no_memory() {
    let keys = PasswordKeys::derive("alice", "realm", "sesame");
    let messages = [
        (Integrity::Sha1, PasswordAlgorithm::Md5),
        (Integrity::Sha256, PasswordAlgorithm::Sha256),
        (Integrity::Sha256, PasswordAlgorithm::Md5),
    ]
    .map(|(integrity, algorithm)| {
        let mut bytes = Vec::new();
        let key = keys.for_algorithm(algorithm).next().unwrap();
        MessageBuilder::new(&mut bytes, Class::Request, Method::ALLOCATE, ID)
            .with(&Username("alice"))
            .with_integrity(key, integrity)
            .finish(true);
        (bytes, algorithm)
    });
    let token_key = TokenKey::new(TokenAlgorithm::A256Gcm, &[1; 32]).unwrap();
    let mac_key = MacKey::new(&[7; 64]).unwrap();
    let token = AccessToken { mac_key, timestamp: TokenTimestamp::from_unix(NOON), lifetime: 60 };
    let sealed = token_key.seal("turn.example.org", &token, [1; 12]);
    let endless = [&sealed[..], &[0; 6_000]].concat();
    let long = [1; 256];

    let calls = allocations(|| {
        let keys = PasswordKeys::derive("alice", "realm", "sesame");
        for (bytes, algorithm) in &messages {
            let message = Message::parse(bytes).unwrap();
            assert!(keys.for_algorithm(*algorithm).any(|key| message.verify_integrity(key)));
            assert!(!message.verify_integrity(&LongTermKey::from_bytes(&long)));
        }
        assert_ne!(user_hash("alice", "realm"), user_hash("bob", "realm"));
        let opened = token_key.open(&sealed, "turn.example.org").unwrap();
        assert!(opened.remaining(NOON).is_some() && opened.mac_key.to_key_of_coturn().is_some());
        for (bytes, name) in [(&sealed[..], "turn.example.com"), (&endless, "turn.example.org"), (&[], "")] {
            assert!(token_key.open(bytes, name).is_err());
        }
    });
    assert_eq!(calls, 0);
}
