//! Any bytes are an access token or none; what opens is what was sealed.
//!
//! The first byte says what is made of the others: a token as it is, or what is sealed in one, since no fuzzer guesses a tag.

#![no_main]

use hairpin_proto::turn::{AccessToken, TokenAlgorithm, TokenError, TokenKey};
use libfuzzer_sys::{Corpus, fuzz_target};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const KEY: &[u8; 32] = b"a key of thirty-two bytes, or 16";
const SERVER: &str = "turn.example.org";
const NONCE: [u8; 12] = *b"twelve bytes";
/// What is in front of the sealed block, and behind it.
const OVERHEAD: usize = 2 + 12 + 16;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((choice, bytes)) = input.split_first() else { return Corpus::Reject };
    let (algorithm, aead, key) = match choice & 1 {
        0 => (TokenAlgorithm::A128Gcm, &AES_128_GCM, &KEY[..16]),
        _ => (TokenAlgorithm::A256Gcm, &AES_256_GCM, &KEY[..]),
    };
    let token_key = TokenKey::new(algorithm, key).expect("a key of the right length");
    if choice & 2 == 0 {
        let opened = token_key.open(bytes, SERVER);
        assert!(matches!(opened, Err(TokenError::Malformed | TokenError::Forged)), "nobody can have sealed it");
        return Corpus::Keep;
    }
    let sealing = LessSafeKey::new(UnboundKey::new(aead, key).expect("a key of the right length"));
    let mut block = bytes.to_vec();
    let sealed = sealing.seal_in_place_append_tag(Nonce::assume_unique_for_key(NONCE), Aad::from(SERVER), &mut block);
    sealed.expect("a short block");
    let token = [&[0, 12][..], &NONCE, &block].concat();
    check(&token_key, &token, bytes);
    Corpus::Keep
});

fn check(key: &TokenKey, token: &[u8], block: &[u8]) {
    match key.open(token, SERVER) {
        Ok(opened) => {
            check_content(&opened, block);
            assert_eq!(key.seal(SERVER, &opened, NONCE), token);
            assert_eq!(key.open(token, "turn.example.com"), Err(TokenError::Forged));
        }
        Err(TokenError::Content) => assert!(token.len() <= OVERHEAD + 2 + 64 + 12),
        Err(error) => assert!(error == TokenError::Malformed && block.len() > 2 + 64 + 12, "{error}"),
    }
}

fn check_content(opened: &AccessToken, block: &[u8]) {
    let key = opened.mac_key.as_bytes();
    assert_eq!(block.len(), 2 + key.len() + 12);
    assert_eq!(&block[2..2 + key.len()], key);
    assert!((16..=64).contains(&key.len()));
    // Never longer than it says, whatever the clock.
    let seconds = opened.timestamp.0 >> 16;
    for unix in [0, seconds.saturating_sub(1), seconds, seconds + 1, u64::MAX] {
        let remaining = opened.remaining(unix).map_or(0, |remaining| remaining.as_secs());
        assert!(remaining <= u64::from(opened.lifetime) + 5);
    }
}
