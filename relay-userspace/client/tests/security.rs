//! How a session says who it is: by the older specification, by the newer one, and by access tokens. The answers are written
//! by the test, with the clock in its hands.

use std::time::{Duration, Instant};

use hairpin_client::{
    AllocateOptions, Credentials, Error, Event, Outcome, Request, Security, Session, Settings, TokenCredential,
};
use hairpin_proto::stun::attribute::{
    AccessTokenAttribute, AlgorithmAndParameters, Attribute, ErrorCodeAttribute, Lifetime, Nonce,
    PasswordAlgorithmAttribute, PasswordAlgorithms, Realm, ThirdPartyAuthorization, UserHash, Username,
    XorMappedAddress, XorRelayedAddress,
};
use hairpin_proto::stun::{
    Class, ErrorCode, Integrity, LongTermKey, Message, MessageBuilder, PasswordAlgorithm, TransactionId, user_hash,
};
use hairpin_proto::turn::{AccessToken, MacKey, TokenAlgorithm, TokenKey, TokenTimestamp};

const REALM: &str = "example.org";
const SERVER: &str = "turn.example.org";
const OLD_NONCE: &str = "f//499k954d6OL34oL9FSTvy64sA";
/// None of the features, each of them, both.
const NONE: &str = "obMatJos2AAAAnonce";
const ALGORITHMS: &str = "obMatJos2gAAAnonce";
const ANONYMITY: &str = "obMatJos2QAAAnonce";
const BOTH: &str = "obMatJos2wAAAnonce";

const REFRESH: Request = Request::Refresh { lifetime: None, family: None };

fn allocation() -> Request {
    Request::Allocate(AllocateOptions::default())
}

fn session(settings: Settings) -> Session {
    let mut next = 0_u8;
    Session::new(settings, move || {
        next += 1;
        TransactionId([next; 12])
    })
}

fn settings(security: Security) -> Settings {
    Settings { credentials: Some(Credentials::new("alice", "sesame")), security, ..Settings::default() }
}

fn modern() -> Session {
    session(settings(Security::Modern))
}

fn sha256_key() -> LongTermKey {
    LongTermKey::derive_sha256("alice", REALM, "sesame")
}

fn md5_key() -> LongTermKey {
    LongTermKey::derive("alice", REALM, "sesame")
}

/// What a server offers beside realm and nonce.
#[derive(Clone, Copy, Default)]
struct Offer<'a> {
    algorithms: Option<PasswordAlgorithms<'a>>,
    third_party: Option<&'a str>,
}

const SHA256_AND_MD5: Offer<'_> = Offer { algorithms: Some(PasswordAlgorithms::SHA256_AND_MD5), third_party: None };
const NOTHING: Offer<'_> = Offer { algorithms: None, third_party: None };
const THIRD_PARTY: Offer<'_> = Offer { algorithms: None, third_party: Some(SERVER) };

fn refuse(request: &[u8], code: ErrorCode, nonce: &str, offer: Offer<'_>) -> Vec<u8> {
    let request = Message::parse(request).unwrap();
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Error, request.method(), request.transaction_id())
        .with(&ErrorCodeAttribute { code, reason: "no" })
        .with(&Realm(REALM))
        .with(&Nonce(nonce))
        .with_option(offer.algorithms.as_ref())
        .with_option(offer.third_party.map(ThirdPartyAuthorization).as_ref())
        .finish(false);
    bytes
}

fn allow(request: &[u8], key: &LongTermKey, integrity: Integrity) -> Vec<u8> {
    let request = Message::parse(request).unwrap();
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Success, request.method(), request.transaction_id())
        .with(&XorRelayedAddress("192.0.2.1:50000".parse().unwrap()))
        .with(&XorMappedAddress("198.51.100.7:1234".parse().unwrap()))
        .with(&Lifetime(600))
        .with_integrity(key, integrity)
        .finish(false);
    bytes
}

#[track_caller]
fn sent(session: &mut Session) -> Vec<u8> {
    let datagram = session.poll_transmit().expect("a datagram is sent");
    assert_eq!(session.poll_transmit(), None, "only one datagram is sent");
    datagram
}

#[track_caller]
fn done(session: &mut Session) -> Result<Outcome, Error> {
    match session.poll_event() {
        Some(Event::Done(_, result)) => result,
        other => panic!("expected an answer, got {other:?}"),
    }
}

/// Asks for an allocation, is challenged, and says how the session answers.
#[track_caller]
fn answer(session: &mut Session, nonce: &str, offer: Offer<'_>) -> Vec<u8> {
    let now = Instant::now();
    session.request(allocation(), now);
    let first = sent(session);
    assert!(!Message::parse(&first).unwrap().has_integrity());
    session.handle_datagram(&refuse(&first, ErrorCode::UNAUTHENTICATED, nonce, offer), now);
    sent(session)
}

/// As [`answer`], when the session gives up instead.
#[track_caller]
fn give_up(session: &mut Session, nonce: &str, offer: Offer<'_>) -> Error {
    let now = Instant::now();
    session.request(allocation(), now);
    let first = sent(session);
    session.handle_datagram(&refuse(&first, ErrorCode::UNAUTHENTICATED, nonce, offer), now);
    assert_eq!(session.poll_transmit(), None, "nothing is tried again");
    done(session).unwrap_err()
}

fn has<'a, A: Attribute<'a> + PartialEq>(message: &Message<'a>, attribute: &A) -> bool {
    message.attribute().is_ok_and(|found: Option<A>| found.as_ref() == Some(attribute))
}

/// Whether a request has what is left of it when there is no signature by SHA-256 and no algorithm.
#[track_caller]
fn assert_is_of_old(request: &[u8]) {
    let message = Message::parse(request).unwrap();
    assert!(has(&message, &Username("alice")) && has(&message, &Realm(REALM)));
    for kind in [0x001e, 0x001d, 0x8002, 0x001b] {
        assert_eq!(message.find(kind), None, "0x{kind:04x}");
    }
    assert_eq!(message.integrity(), Some(Integrity::Sha1));
    assert!(message.verify_integrity(&md5_key()));
}

#[test]
fn a_session_of_old_answers_as_of_old_whatever_it_is_offered() {
    for (nonce, offer) in [(OLD_NONCE, NOTHING), (BOTH, SHA256_AND_MD5), (BOTH, NOTHING)] {
        let mut session = session(settings(Security::Legacy));
        let request = answer(&mut session, nonce, offer);
        assert_is_of_old(&request);
        session.handle_datagram(&allow(&request, &md5_key(), Integrity::Sha1), Instant::now());
        assert!(matches!(done(&mut session), Ok(Outcome::Allocated(_))));
    }
    assert_eq!(Settings::default().security, Security::Legacy);
}

#[test]
fn a_modern_session_answers_an_old_server_as_of_old() {
    for nonce in [OLD_NONCE, NONE] {
        assert_is_of_old(&answer(&mut modern(), nonce, NOTHING));
    }
}

#[test]
fn a_modern_session_takes_what_the_server_offers() {
    let now = Instant::now();
    let mut session = modern();
    let request = answer(&mut session, BOTH, SHA256_AND_MD5);
    let check = |request: &[u8]| {
        let message = Message::parse(request).unwrap();
        assert!(has(&message, &UserHash(user_hash("alice", REALM))));
        assert_eq!(message.attribute::<Username<'_>>(), Ok(None), "nobody on the way reads it");
        assert!(has(&message, &Realm(REALM)) && has(&message, &Nonce(BOTH)));
        assert!(has(&message, &PasswordAlgorithms::SHA256_AND_MD5));
        assert!(has(&message, &PasswordAlgorithmAttribute(PasswordAlgorithm::Sha256.into())));
        assert_eq!(message.find(0x0008), None);
        assert_eq!(message.integrity(), Some(Integrity::Sha256));
        assert!(message.verify_integrity(&sha256_key()));
    };
    check(&request);
    session.handle_datagram(&allow(&request, &sha256_key(), Integrity::Sha256), now);
    assert!(matches!(done(&mut session), Ok(Outcome::Allocated(_))));
    // Later requests are signed at once, and the same way.
    session.request(REFRESH, now);
    check(&sent(&mut session));
}

#[test]
fn a_name_is_hashed_only_where_the_server_takes_that() {
    for (nonce, offer, hashed) in
        [(ALGORITHMS, SHA256_AND_MD5, false), (ANONYMITY, NOTHING, true), (BOTH, SHA256_AND_MD5, true)]
    {
        let request = answer(&mut modern(), nonce, offer);
        let message = Message::parse(&request).unwrap();
        assert_eq!(has(&message, &UserHash(user_hash("alice", REALM))), hashed, "{nonce}");
        assert_eq!(has(&message, &Username("alice")), !hashed, "{nonce}");
    }
}

#[test]
fn a_modern_session_prepares_its_name() {
    let credentials = Some(Credentials::new("e\u{301}", "sesame"));
    for (security, name) in [(Security::Modern, "\u{e9}"), (Security::Legacy, "e\u{301}")] {
        let mut session = session(Settings { credentials: credentials.clone(), security, ..Settings::default() });
        let request = answer(&mut session, ALGORITHMS, SHA256_AND_MD5);
        assert!(has(&Message::parse(&request).unwrap(), &Username(name)));
    }
}

#[test]
fn the_first_algorithm_of_the_list_that_is_known_is_used() {
    let unknown = [0, 9, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0];
    let md5_first = [&unknown[..], &[0, 1, 0, 0, 0, 2, 0, 0]].concat();
    let sha256_first = [&unknown[..], &[0, 2, 0, 0, 0, 1, 0, 0]].concat();
    for (list, algorithm, key) in
        [(md5_first, PasswordAlgorithm::Md5, md5_key()), (sha256_first, PasswordAlgorithm::Sha256, sha256_key())]
    {
        let algorithms = PasswordAlgorithms::from_bytes(&list);
        let request = answer(&mut modern(), ALGORITHMS, Offer { algorithms, ..NOTHING });
        let message = Message::parse(&request).unwrap();
        assert!(has(&message, &PasswordAlgorithmAttribute(algorithm.into())));
        assert_eq!(message.attribute(), Ok(algorithms), "the list is given back as it is");
        assert_eq!(message.integrity(), Some(Integrity::Sha256), "whoever sends a list knows it");
        assert!(message.verify_integrity(&key));
    }
}

#[test]
fn without_an_algorithm_that_is_known_nothing_is_tried_again() {
    let unknown = AlgorithmAndParameters { number: 9, parameters: &[] };
    let mut list = Vec::new();
    PasswordAlgorithmAttribute(unknown).encode(&mut list, &TransactionId([0; 12]));
    for list in [&list[..], &[]] {
        let algorithms = PasswordAlgorithms::from_bytes(list);
        let error = give_up(&mut modern(), ALGORITHMS, Offer { algorithms, ..NOTHING });
        assert!(matches!(error, Error::NoPasswordAlgorithm), "{error}");
    }
}

#[test]
fn a_list_that_somebody_has_taken_away_ends_the_request() {
    for nonce in [ALGORITHMS, BOTH] {
        let error = give_up(&mut modern(), nonce, NOTHING);
        assert!(matches!(error, Error::BidDown(_)), "{error}");
    }
    // When a nonce is stale as well.
    let now = Instant::now();
    let mut session = modern();
    let request = answer(&mut session, BOTH, SHA256_AND_MD5);
    session.handle_datagram(&refuse(&request, ErrorCode::STALE_NONCE, BOTH, NOTHING), now);
    assert_eq!(session.poll_transmit(), None);
    assert!(matches!(done(&mut session), Err(Error::BidDown(_))));
}

#[test]
fn other_answers_without_the_list_that_their_nonce_speaks_of_are_ignored() {
    let now = Instant::now();
    let mut session = modern();
    let request = answer(&mut session, BOTH, SHA256_AND_MD5);
    session.handle_datagram(&refuse(&request, ErrorCode::FORBIDDEN, BOTH, NOTHING), now);
    let parsed = Message::parse(&request).unwrap();
    let mut success = Vec::new();
    MessageBuilder::new(&mut success, Class::Success, parsed.method(), parsed.transaction_id())
        .with(&XorRelayedAddress("192.0.2.1:50000".parse().unwrap()))
        .with(&XorMappedAddress("198.51.100.7:1234".parse().unwrap()))
        .with(&Lifetime(600))
        .with(&Nonce(BOTH))
        .with_integrity(&sha256_key(), Integrity::Sha256)
        .finish(false);
    session.handle_datagram(&success, now);
    assert!(session.poll_event().is_none());
    session.handle_datagram(&refuse(&request, ErrorCode::FORBIDDEN, BOTH, SHA256_AND_MD5), now);
    assert_eq!(done(&mut session).unwrap_err().code(), Some(ErrorCode::FORBIDDEN));
}

#[test]
fn a_stale_nonce_is_replaced_and_may_bring_other_algorithms() {
    let now = Instant::now();
    let mut session = modern();
    let request = answer(&mut session, BOTH, SHA256_AND_MD5);
    let offer = Offer { algorithms: Some(PasswordAlgorithms::MD5), ..NOTHING };
    let fresh = ALGORITHMS.to_owned() + "2";
    session.handle_datagram(&refuse(&request, ErrorCode::STALE_NONCE, &fresh, offer), now);
    let request = sent(&mut session);
    let message = Message::parse(&request).unwrap();
    assert!(has(&message, &Nonce(&fresh)) && has(&message, &PasswordAlgorithms::MD5));
    assert!(has(&message, &Username("alice")), "the server takes no hashes any more");
    assert!(message.integrity() == Some(Integrity::Sha256) && message.verify_integrity(&md5_key()));
}

#[test]
fn a_request_signed_by_sha_256_is_not_answered_by_less() {
    let now = Instant::now();
    let mut session = modern();
    let request = answer(&mut session, BOTH, SHA256_AND_MD5);
    for (key, integrity) in
        [(sha256_key(), Integrity::Sha1), (md5_key(), Integrity::Sha1), (md5_key(), Integrity::Sha256)]
    {
        session.handle_datagram(&allow(&request, &key, integrity), now);
        assert!(session.poll_event().is_none(), "{integrity:?}");
    }
    while let Some(at) = session.poll_timeout().filter(|at| *at < now + Duration::from_secs(60)) {
        session.handle_timeout(at);
    }
    assert!(matches!(done(&mut session), Err(Error::IntegrityViolated(_))));
}

fn token_key() -> TokenKey {
    TokenKey::new(TokenAlgorithm::A256Gcm, &[3; 32]).unwrap()
}

fn token(mac_key: &[u8; 20], nonce: u8) -> TokenCredential {
    let mac_key = MacKey::new(mac_key).unwrap();
    let sealed = AccessToken { mac_key: mac_key.clone(), timestamp: TokenTimestamp::from_unix(1), lifetime: 3600 };
    let token = token_key().seal(SERVER, &sealed, [nonce; 12]);
    TokenCredential { kid: "north".to_owned(), mac_key, token }
}

fn with_token(security: Security) -> Session {
    session(Settings { token: Some(token(&[7; 20], 0)), ..settings(security) })
}

/// The key of the token in a request.
fn key_in_token(request: &[u8]) -> Option<LongTermKey> {
    let message = Message::parse(request).unwrap();
    let AccessTokenAttribute(token) = message.attribute().unwrap()?;
    Some(token_key().open(token, SERVER).unwrap().mac_key.to_key())
}

#[test]
fn a_token_goes_before_a_password_and_signs_with_its_key() {
    let now = Instant::now();
    let mut session = with_token(Security::Legacy);
    let request = answer(&mut session, OLD_NONCE, THIRD_PARTY);
    let message = Message::parse(&request).unwrap();
    assert!(has(&message, &Username("north")) && has(&message, &Realm(REALM)) && has(&message, &Nonce(OLD_NONCE)));
    let key = key_in_token(&request).expect("a token");
    assert_eq!(message.integrity(), Some(Integrity::Sha1));
    assert!(message.verify_integrity(&key));
    assert!(message.verify_integrity(&LongTermKey::from_bytes(&[7; 20])), "nothing is hashed before");

    // An answer that the key of the token has not signed is none.
    session.handle_datagram(&allow(&request, &md5_key(), Integrity::Sha1), now);
    assert!(session.poll_event().is_none());
    session.handle_datagram(&allow(&request, &key, Integrity::Sha1), now);
    assert!(matches!(done(&mut session), Ok(Outcome::Allocated(_))));
}

#[test]
fn a_token_is_sent_to_allocate_and_to_refresh_only() {
    let now = Instant::now();
    let mut session = with_token(Security::Legacy);
    let request = answer(&mut session, OLD_NONCE, THIRD_PARTY);
    let key = key_in_token(&request).unwrap();
    session.handle_datagram(&allow(&request, &key, Integrity::Sha1), now);
    done(&mut session).unwrap();
    let peer = "203.0.113.9:9".parse().unwrap();
    for (request, has_token) in [
        (REFRESH, true),
        (allocation(), true),
        (Request::Move { ticket: vec![1] }, true),
        (Request::CreatePermission(vec![peer]), false),
        (Request::ChannelBind { channel: 0x4000, peer }, false),
        (Request::Connect(peer), false),
    ] {
        session.request(request.clone(), now);
        let datagram = sent(&mut session);
        assert_eq!(key_in_token(&datagram).is_some(), has_token, "{request:?}");
        let message = Message::parse(&datagram).unwrap();
        assert!(has(&message, &Username("north")) && message.verify_integrity(&key), "{request:?}");
    }
}

#[test]
fn a_server_that_takes_no_tokens_is_given_the_password() {
    let mut session = with_token(Security::Legacy);
    assert_is_of_old(&answer(&mut session, OLD_NONCE, NOTHING));
}

#[test]
fn a_server_that_wants_a_token_says_for_which_name() {
    let mut session = session(Settings::default());
    let error = give_up(&mut session, OLD_NONCE, THIRD_PARTY);
    assert!(matches!(&error, Error::TokenNeeded(name) if name == SERVER), "{error}");
}

#[test]
fn without_a_token_the_password_is_given_to_a_server_that_takes_both() {
    let mut session = session(settings(Security::Legacy));
    assert_is_of_old(&answer(&mut session, OLD_NONCE, THIRD_PARTY));
}

#[test]
fn another_token_is_used_from_then_on() {
    let now = Instant::now();
    let mut session = with_token(Security::Legacy);
    let request = answer(&mut session, OLD_NONCE, THIRD_PARTY);
    session.handle_datagram(&allow(&request, &LongTermKey::from_bytes(&[7; 20]), Integrity::Sha1), now);
    done(&mut session).unwrap();
    session.set_token(TokenCredential { kid: "south".to_owned(), ..token(&[8; 20], 1) });
    session.request(REFRESH, now);
    let request = sent(&mut session);
    let message = Message::parse(&request).unwrap();
    assert!(has(&message, &Username("south")));
    assert!(message.verify_integrity(&LongTermKey::from_bytes(&[8; 20])));
    assert!(message.verify_integrity(&key_in_token(&request).unwrap()));
}

#[test]
fn a_modern_session_signs_by_sha_256_with_a_token_too() {
    let now = Instant::now();
    let mut session = with_token(Security::Modern);
    let request = answer(&mut session, BOTH, Offer { third_party: Some(SERVER), ..SHA256_AND_MD5 });
    let message = Message::parse(&request).unwrap();
    assert!(has(&message, &Username("north")), "the name of a key is nobody's secret");
    assert!(has(&message, &PasswordAlgorithms::SHA256_AND_MD5));
    let key = key_in_token(&request).unwrap();
    assert!(message.integrity() == Some(Integrity::Sha256) && message.verify_integrity(&key));
    session.handle_datagram(&allow(&request, &key, Integrity::Sha1), now);
    assert!(session.poll_event().is_none());
    session.handle_datagram(&allow(&request, &key, Integrity::Sha256), now);
    assert!(matches!(done(&mut session), Ok(Outcome::Allocated(_))));
}

#[test]
fn no_secret_of_a_token_is_printed() {
    let printed = format!("{:?}", token(&[7; 20], 0));
    assert!(printed.contains("north") && !printed.contains("7, 7"), "{printed}");
}
