//! Access tokens: against coturn's, which share nothing with them, against tampering, and how long they are good.

use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hairpin_proto::stun::{Class, Integrity, LongTermKey, Message, MessageBuilder, Method, TransactionId};
use hairpin_proto::turn::{AccessToken, MacKey, TokenAlgorithm, TokenError, TokenKey, TokenKeyError, TokenTimestamp};
use proptest::prelude::*;

const SERVER: &str = "turn.example.org";
const NOON: u64 = 1_700_000_000;
const NONCE: [u8; 12] = *b"h4j3k2l2n4b5";
const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const BOTH: [(TokenAlgorithm, usize, &str); 2] =
    [(TokenAlgorithm::A128Gcm, 16, "A128GCM"), (TokenAlgorithm::A256Gcm, 32, "A256GCM")];

fn token_key(algorithm: TokenAlgorithm) -> TokenKey {
    let len = if algorithm == TokenAlgorithm::A128Gcm { 16 } else { 32 };
    TokenKey::new(algorithm, &KEY[..len]).unwrap()
}

fn token(mac_key: &[u8]) -> AccessToken {
    AccessToken { mac_key: MacKey::new(mac_key).unwrap(), timestamp: TokenTimestamp::from_unix(NOON), lifetime: 3600 }
}

#[test]
fn the_tokens_of_coturn_open_and_ours_are_the_same() {
    // turnutils_oauth -e -i turn.example.org -j north -k KEY -l 1700000000 -m 3600 -n A128GCM -o NONCE -p MAC_KEY
    //     -q 111411200000000 -r 3600
    let made_by_coturn = [
        (
            TokenAlgorithm::A128Gcm,
            &b"ZksjpweoixXmvn67534m"[..],
            "AAxoNGozazJsMm40YjUhis5iGsSpay94iXx7UlRg9M31m4pBudUc7fDTdW6JE58WYU7pygNXtGsLCDmnUmHZ5g==",
        ),
        (
            TokenAlgorithm::A128Gcm,
            b"ZksjpweoixXmvn67534mZksjpweoixXm",
            "AAxoNGozazJsMm40YjUhvs5iGsSpay94iXx7UlRg9M31m4pB474K1HGkEAHga8lr449XwqAazs8Ec9cHsbIicA9gJkAIxa2wL+x11g==",
        ),
        (
            TokenAlgorithm::A256Gcm,
            b"ZksjpweoixXmvn67534mZksjpweoixXm",
            "AAxoNGozazJsMm40YjWwRMPb62NkRZ5aQ8r4WAM2ZMxNnuUqCFDtKOFRM4EXmah5m8qrJmz/gqGckYIzi3vYocqORsG+iEm8kak7EA==",
        ),
    ];
    for (algorithm, mac_key, text) in made_by_coturn {
        let bytes = STANDARD.decode(text).unwrap();
        assert_eq!(token_key(algorithm).open(&bytes, SERVER), Ok(token(mac_key)));
        assert_eq!(token_key(algorithm).seal(SERVER, &token(mac_key), NONCE), bytes);
    }
}

/// What coturn's tool says of a token; `None`, with a word why, if it is not installed.
fn opened_by_coturn(algorithm: &str, key: &[u8], server: &str, token: &[u8]) -> Option<(bool, String)> {
    let mut command = Command::new("turnutils_oauth");
    command.args(["-v", "-d", "-j", "north", "-m", "3600", "-n", algorithm, "-i", server]);
    command.args(["-l", &NOON.to_string(), "-k", &STANDARD.encode(key), "-t", &STANDARD.encode(token)]);
    match command.output() {
        Ok(output) => Some((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(error) if std::env::var_os("HAIRPIN_REQUIRE_ALL").is_none() => {
            eprintln!("skipped: coturn's turnutils_oauth does not start: {error}");
            None
        }
        Err(error) => panic!("coturn's turnutils_oauth does not start: {error}"),
    }
}

#[test]
fn coturn_opens_our_tokens() {
    for (algorithm, len, name) in BOTH {
        let sealed = token_key(algorithm).seal(SERVER, &token(b"ZksjpweoixXmvn67534m"), NONCE);
        let Some((opened, said)) = opened_by_coturn(name, &KEY[..len], SERVER, &sealed) else { return };
        assert!(opened, "{said}");
        for line in ["mac key: ZksjpweoixXmvn67534m", "unixtime: 1700000000", "lifetime: 3600"] {
            assert!(said.contains(line), "{line}: {said}");
        }
        let (opened, _) = opened_by_coturn(name, &KEY[..len], "turn.example.com", &sealed).unwrap();
        assert!(!opened, "the name of the server counts there too");
    }
}

#[test]
fn a_token_opens_with_its_key_and_for_its_server_only() {
    for (algorithm, len, _) in BOTH {
        let sealed = token_key(algorithm).seal(SERVER, &token(&[7; 20]), NONCE);
        assert_eq!(token_key(algorithm).open(&sealed, SERVER), Ok(token(&[7; 20])));
        for server in ["", "turn.example.com", "turn.example.org."] {
            assert_eq!(token_key(algorithm).open(&sealed, server), Err(TokenError::Forged), "{server}");
        }
        let other = TokenKey::new(algorithm, &[9; 32][..len]).unwrap();
        assert_eq!(other.open(&sealed, SERVER), Err(TokenError::Forged));
        let other = token_key(BOTH.iter().find(|other| other.0 != algorithm).unwrap().0);
        assert_eq!(other.open(&sealed, SERVER), Err(TokenError::Forged));
    }
}

#[test]
fn a_changed_or_cut_token_does_not_open() {
    let key = token_key(TokenAlgorithm::A256Gcm);
    let sealed = key.seal(SERVER, &token(&[7; 20]), NONCE);
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        let expected = if at < 2 { TokenError::Malformed } else { TokenError::Forged };
        assert_eq!(key.open(&changed, SERVER), Err(expected), "byte {at}");
        assert!(key.open(&sealed[..at], SERVER).is_err(), "{at} bytes");
    }
    let longer = [&sealed[..], &[0]].concat();
    assert_eq!(key.open(&longer, SERVER), Err(TokenError::Forged));
    let longest = [&sealed[..], &[0; 1000]].concat();
    assert_eq!(key.open(&longest, SERVER), Err(TokenError::Malformed));
}

/// Seals what no function of the crate would.
fn sealed(block: &[u8]) -> Vec<u8> {
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, KEY).unwrap());
    let mut block = block.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(NONCE), Aad::from(SERVER), &mut block).unwrap();
    [&[0, 12][..], &NONCE, &block].concat()
}

#[test]
fn what_is_sealed_has_the_form_that_the_rfc_gives_it() {
    let key = token_key(TokenAlgorithm::A256Gcm);
    let times = [&(NOON << 16).to_be_bytes()[..], &3600_u32.to_be_bytes()].concat();
    let block =
        |len: u16, bytes: usize, times: &[u8]| sealed(&[&len.to_be_bytes()[..], &vec![7; bytes], times].concat());
    for len in [16, 20, 32, 64] {
        let expected = token(&vec![7; usize::from(len)]);
        assert_eq!(key.open(&block(len, usize::from(len), &times), SERVER), Ok(expected), "{len}");
    }
    for len in [0, 1, 15] {
        let opened = key.open(&block(len, usize::from(len), &times), SERVER);
        assert_eq!(opened, Err(TokenError::Content), "a key of {len} bytes is guessed");
    }
    assert_eq!(key.open(&block(65, 65, &times), SERVER), Err(TokenError::Malformed), "more than is of use");
    assert_eq!(key.open(&block(20, 20, &times[1..]), SERVER), Err(TokenError::Content));
    assert_eq!(key.open(&block(20, 20, &[&times[..], &[0]].concat()), SERVER), Err(TokenError::Content));
    assert_eq!(key.open(&block(21, 20, &times), SERVER), Err(TokenError::Content));
    assert_eq!(key.open(&block(u16::MAX, 20, &times), SERVER), Err(TokenError::Content));
    assert_eq!(key.open(&sealed(&[]), SERVER), Err(TokenError::Content));
}

#[test]
fn a_token_is_good_for_its_lifetime_and_five_seconds_in_either_direction() {
    let token = token(&[7; 20]);
    let seconds = |unix| token.remaining(unix).map(|remaining| remaining.as_secs());
    assert_eq!(seconds(NOON), Some(3605));
    assert_eq!(seconds(NOON + 3600), Some(5));
    assert_eq!(seconds(NOON + 3604), Some(1));
    assert_eq!(seconds(NOON + 3605), None);
    // A clock that is behind: lifetime + Delta > abs(RDnew - TS).
    assert_eq!(seconds(NOON - 3604), Some(1));
    assert_eq!(seconds(NOON - 3605), None);
    assert_eq!(seconds(0), None);
    assert_eq!(seconds(u64::MAX), None);
}

#[test]
fn a_fraction_of_the_timestamp_is_one_of_64000() {
    let later = AccessToken { timestamp: TokenTimestamp((NOON << 16) + 32_000), ..token(&[7; 20]) };
    assert_eq!(later.remaining(NOON + 3605), Some(Duration::from_millis(500)));
    assert_eq!(later.remaining(NOON + 3606), None);
    let always = AccessToken { timestamp: TokenTimestamp(u64::MAX), lifetime: u32::MAX, ..token(&[7; 20]) };
    assert!(always.remaining((1 << 48) - 1).is_some());
    assert_eq!(always.remaining(NOON), None);
}

#[test]
fn the_key_in_a_token_signs_as_it_is() {
    let key = token(b"ZksjpweoixXmvn67534m").mac_key.to_key();
    for (integrity, algorithm) in
        [(Integrity::Sha1, ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY), (Integrity::Sha256, ring::hmac::HMAC_SHA256)]
    {
        let mut bytes = Vec::new();
        MessageBuilder::new(&mut bytes, Class::Request, Method::ALLOCATE, TransactionId([1; 12]))
            .with_integrity(&key, integrity)
            .finish(false);
        assert!(Message::parse(&bytes).unwrap().verify_integrity(&key));
        let expected = ring::hmac::sign(&ring::hmac::Key::new(algorithm, b"ZksjpweoixXmvn67534m"), &bytes[..20]);
        assert_eq!(&bytes[24..], expected.as_ref(), "nothing was hashed before");
    }
}

#[test]
fn coturn_signs_with_the_first_bytes_of_a_key() {
    let long = MacKey::new(b"ZksjpweoixXmvn67534m").unwrap();
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::ALLOCATE, TransactionId([1; 12]))
        .with_integrity(&LongTermKey::from_bytes(b"ZksjpweoixXmvn67"), Integrity::Sha1)
        .finish(false);
    let message = Message::parse(&bytes).unwrap();
    assert!(message.verify_integrity(&long.to_key_of_coturn().unwrap()));
    assert!(!message.verify_integrity(&long.to_key()));
    assert!(MacKey::new(b"ZksjpweoixXmvn67").unwrap().to_key_of_coturn().is_none(), "it is the same key");
}

#[test]
fn a_key_has_the_length_that_its_algorithm_wants() {
    for (algorithm, wanted, _) in BOTH {
        for found in [0, 15, 16, 24, 31, 32, 33] {
            let made = TokenKey::new(algorithm, &[1; 40][..found]).err();
            assert_eq!(made, (found != wanted).then_some(TokenKeyError::Length { found, wanted }));
        }
    }
    assert_eq!([15, 65].map(|len| MacKey::new(&[7; 65][..len])), [None, None]);
}

#[test]
fn no_key_is_printed() {
    let printed = format!("{:?} {:?}", token_key(TokenAlgorithm::A256Gcm), token(&[7; 64]));
    assert!(printed.contains("TokenKey(A256Gcm, 256 bits)") && printed.contains("MacKey(512 bits)"), "{printed}");
    assert!(!printed.contains("7, 7"), "{printed}");
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        mac_key in proptest::collection::vec(any::<u8>(), 16..=64),
        (timestamp, lifetime, nonce) in any::<(u64, u32, [u8; 12])>(),
        server in "\\PC{0,100}",
    ) {
        let mac_key = MacKey::new(&mac_key).unwrap();
        let token = AccessToken { mac_key, timestamp: TokenTimestamp(timestamp), lifetime };
        for (algorithm, ..) in BOTH {
            let sealed = token_key(algorithm).seal(&server, &token, nonce);
            prop_assert_eq!(token_key(algorithm).open(&sealed, &server), Ok(token.clone()));
        }
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200), block in proptest::collection::vec(any::<u8>(), 0..78)) {
        let key = token_key(TokenAlgorithm::A256Gcm);
        let _ = key.open(&bytes, SERVER);
        if let Ok(token) = key.open(&sealed(&block), SERVER) {
            prop_assert_eq!(key.seal(SERVER, &token, NONCE), sealed(&block));
            let _ = token.remaining(NOON);
        }
    }
}
