//! What names and passwords are made into, and the keys that these make.

use std::borrow::Cow;

use hairpin_proto::stun::prepare::{opaque_string, sasl_prep};
use hairpin_proto::stun::{
    Class, Integrity, LongTermKey, Message, MessageBuilder, Method, PasswordAlgorithm, PasswordKeys, TransactionId,
    user_hash,
};
use proptest::prelude::*;

use crate::vectors::LONG_TERM_REQUEST;

const MATRIX: &str = "\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}";

#[test]
fn opaque_string_does_what_its_rfc_gives_as_examples() {
    // RFC 8265 section 4.3.
    let same =
        ["correct horse battery staple", "Correct Horse Battery Staple", "\u{3c0}\u{df}\u{e5}", "Jack of \u{2666}s"];
    for text in same {
        assert_eq!(opaque_string(text), text);
    }
    assert_eq!(opaque_string("foo\u{1680}bar"), "foo bar", "any other space is a space");
    assert_eq!(opaque_string("e\u{301}"), "\u{e9}", "NFC");
    assert_eq!(opaque_string("\u{2168}\u{aa}"), "\u{2168}\u{aa}", "compatibility does not count");
}

#[test]
fn sasl_prep_does_what_its_rfc_gives_as_examples() {
    // RFC 4013 section 3.
    let examples = [("I\u{ad}X", "IX"), ("user", "user"), ("USER", "USER"), ("\u{aa}", "a"), ("\u{2168}", "IX")];
    for (text, prepared) in examples {
        assert_eq!(sasl_prep(text), prepared);
    }
}

#[test]
fn what_a_profile_forbids_stays_as_it_is() {
    for text in ["", "my cat is a \u{9}by", "\u{7}"] {
        assert_eq!((opaque_string(text), sasl_prep(text)), (text.into(), text.into()));
    }
    assert_eq!(opaque_string("The\u{ad}M\u{aa}tr\u{2168}"), "The\u{ad}M\u{aa}tr\u{2168}", "a soft hyphen");
    assert_eq!(sasl_prep("\u{627}\u{31}"), "\u{627}\u{31}", "of both directions");
    assert_eq!(sasl_prep("\u{ad}\u{ad}"), "\u{ad}\u{ad}", "nothing is no password");
}

#[test]
fn ascii_is_not_even_copied() {
    let text: String = (0..0x80_u8).map(char::from).collect();
    for prepared in [opaque_string(&text), sasl_prep(&text)] {
        assert!(matches!(prepared, Cow::Borrowed(same) if same == text));
    }
}

fn verifies(keys: &PasswordKeys, algorithm: PasswordAlgorithm, bytes: &[u8]) -> bool {
    let message = Message::parse(bytes).unwrap();
    keys.for_algorithm(algorithm).any(|key| message.verify_integrity(key))
}

#[test]
fn an_old_client_may_prepare_its_password_as_old_clients_do() {
    // RFC 5769 section 2.4 has this password, and was made by a client that uses SASLprep.
    let keys = PasswordKeys::derive(MATRIX, "example.org", "The\u{ad}M\u{aa}tr\u{2168}");
    assert!(verifies(&keys, PasswordAlgorithm::Md5, LONG_TERM_REQUEST));
    let other = PasswordKeys::derive(MATRIX, "example.org", "The\u{ad}M\u{aa}tr\u{2169}");
    assert!(!verifies(&other, PasswordAlgorithm::Md5, LONG_TERM_REQUEST));
}

/// A message signed by a key that no function of the codec has made.
fn signed_by(key: &[u8]) -> Vec<u8> {
    signed(&LongTermKey::from_bytes(key), Integrity::Sha256)
}

fn signed(key: &LongTermKey, integrity: Integrity) -> Vec<u8> {
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::ALLOCATE, TransactionId([1; 12]))
        .with_integrity(key, integrity)
        .finish(false);
    bytes
}

#[test]
fn a_key_is_made_of_a_password_in_each_form_that_clients_make() {
    use md5::{Digest, Md5};
    let password = "e\u{301}\u{2168}";
    let keys = PasswordKeys::derive("alice", "example.org", password);
    for form in ["\u{e9}\u{2168}", "\u{e9}IX", password] {
        let key = Md5::digest(format!("alice:example.org:{form}"));
        assert!(verifies(&keys, PasswordAlgorithm::Md5, &signed_by(&key)), "{form}");
    }
    assert_eq!(keys.for_algorithm(PasswordAlgorithm::Md5).count(), 3);
    // Who uses SHA-256 knows RFC 8489, and with it OpaqueString.
    let sha256 = |form: &str| {
        let text = format!("alice:example.org:{form}");
        ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref().to_vec()
    };
    assert!(verifies(&keys, PasswordAlgorithm::Sha256, &signed_by(&sha256("\u{e9}\u{2168}"))));
    assert!(!verifies(&keys, PasswordAlgorithm::Sha256, &signed_by(&sha256(password))));
    assert_eq!(keys.for_algorithm(PasswordAlgorithm::Sha256).count(), 1);
}

#[test]
fn most_passwords_make_one_key_for_each_algorithm() {
    for password in ["sesame", "", "\u{3c0}\u{df}\u{e5}"] {
        let keys = PasswordKeys::derive("alice", "example.org", password);
        for algorithm in [PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256] {
            assert_eq!(keys.for_algorithm(algorithm).count(), 1, "{password}");
        }
    }
}

#[test]
fn keys_that_are_known_without_the_password_are_those_of_their_algorithm() {
    let (md5, sha256) = ([5; 16], [6; 32]);
    let by_md5 = PasswordKeys::from_md5(md5);
    assert!(verifies(&by_md5, PasswordAlgorithm::Md5, &signed_by(&md5)));
    assert_eq!(by_md5.for_algorithm(PasswordAlgorithm::Sha256).count(), 0);
    let by_sha256 = PasswordKeys::from_sha256(sha256);
    assert!(verifies(&by_sha256, PasswordAlgorithm::Sha256, &signed_by(&sha256)));
    assert_eq!(by_sha256.for_algorithm(PasswordAlgorithm::Md5).count(), 0);
    let both = by_md5.and_sha256(sha256);
    assert!(verifies(&both, PasswordAlgorithm::Md5, &signed_by(&md5)));
    assert!(verifies(&both, PasswordAlgorithm::Sha256, &signed_by(&sha256)));
    assert!(!format!("{both:?}").contains('6'.to_string().repeat(2).as_str()));
}

#[test]
fn an_algorithm_makes_the_key_that_its_name_says() {
    for algorithm in [PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256] {
        let keys = PasswordKeys::derive("alice", "example.org", "sesame");
        let key = algorithm.derive("alice", "example.org", "sesame");
        assert!(verifies(&keys, algorithm, &signed(&key, Integrity::Sha1)));
        assert_eq!(PasswordAlgorithm::from_number(algorithm.number()), Some(algorithm));
    }
    assert_eq!([0, 3].map(PasswordAlgorithm::from_number), [None, None]);
}

#[test]
fn the_hash_of_a_user_is_that_of_its_prepared_name_and_realm() {
    assert_eq!(user_hash("e\u{301}", "a\u{a0}b"), user_hash("\u{e9}", "a b"));
    assert_ne!(user_hash("alice", "example.org"), user_hash("Alice", "example.org"));
    // printf %s user:realm | sha256sum
    assert_eq!(user_hash("user", "realm")[..4], [0x6a, 0x30, 0x29, 0x11]);
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in ".{0,40}", name in "\\PC{0,40}") {
        for prepared in [opaque_string(&text), sasl_prep(&text), opaque_string(&name), sasl_prep(&name)] {
            prop_assert!(text.is_empty() || name.is_empty() || !prepared.is_empty());
        }
        let keys = PasswordKeys::derive(&name, &text, &text);
        prop_assert!((1..=3).contains(&keys.for_algorithm(PasswordAlgorithm::Md5).count()));
    }
}
