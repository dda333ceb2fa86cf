//! MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256: which counts, what is ignored behind it, how short it may be.

use hairpin_proto::stun::attribute::{
    AccessTokenAttribute, AlgorithmAndParameters, Attribute, AttributeError, Data, Lifetime,
    PasswordAlgorithmAttribute, PasswordAlgorithms, ThirdPartyAuthorization, UserHash, Username,
};
use hairpin_proto::stun::{
    Class, Integrity, LongTermKey, Message, MessageBuilder, Method, PasswordAlgorithm, TransactionId,
};
use proptest::prelude::*;
use ring::hmac;
use stun_types::attribute as stun;
use stun_types::message as theirs;
use stun_types::message::{IntegrityAlgorithm, MessageWrite, MessageWriteExt, MessageWriteVec};

const ID: TransactionId = TransactionId([0x5a; 12]);
const SHA1: u16 = 0x0008;
const SHA256: u16 = 0x001c;
const BOTH: [Integrity; 2] = [Integrity::Sha1, Integrity::Sha256];

fn key() -> LongTermKey {
    LongTermKey::derive_sha256("alice", "example.org", "secret")
}

fn their_credentials() -> theirs::MessageIntegrityCredentials {
    theirs::LongTermKeyCredentials::new("alice".to_owned(), "secret".to_owned(), "example.org".to_owned()).into()
}

fn request() -> Vec<u8> {
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::REFRESH, ID).with(&Username("alice")).finish(false);
    bytes
}

/// Appends an attribute, whose value is made of the message with a length as if the attribute were in it.
fn append(bytes: &mut Vec<u8>, kind: u16, len: usize, value: impl FnOnce(&[u8]) -> Vec<u8>) {
    let length = bytes.len() - 20 + 4 + len.next_multiple_of(4);
    bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    let mut value = value(bytes);
    value.resize(len, 0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(len as u16).to_be_bytes());
    bytes.extend_from_slice(&value);
    bytes.resize(20 + length, 0);
}

/// HMAC-SHA256 under `key()`, made without the codec.
fn hmac_sha256(bytes: &[u8]) -> Vec<u8> {
    let key = ring::digest::digest(&ring::digest::SHA256, b"alice:example.org:secret");
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), bytes).as_ref().to_vec()
}

#[test]
fn of_two_signatures_the_one_by_sha_256_counts_and_covers_the_other() {
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::REFRESH, ID)
        .with(&Username("alice"))
        .with_integrity(&key(), Integrity::Sha1)
        .with_integrity(&key(), Integrity::Sha256)
        .finish(true);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.integrity(), Some(Integrity::Sha256));
    assert!(message.has_integrity() && message.has_fingerprint() && message.verify_integrity(&key()));
    assert_eq!(message.attributes().count(), 1, "neither is an attribute to look at");

    // A change of the first one breaks the second, which is why nobody can have changed it.
    let at = 20 + 12 + 4;
    assert_eq!(bytes[at - 4..at], [0, 8, 0, 20]);
    bytes.truncate(bytes.len() - 8);
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    assert!(Message::parse(&bytes).unwrap().verify_integrity(&key()));
    bytes[at] ^= 1;
    assert!(!Message::parse(&bytes).unwrap().verify_integrity(&key()));
}

#[test]
fn a_right_signature_by_sha_1_does_not_make_good_a_wrong_one_by_sha_256() {
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::REFRESH, ID)
        .with_integrity(&key(), Integrity::Sha1)
        .with_integrity(&LongTermKey::from_bytes(b"wrong"), Integrity::Sha256)
        .finish(false);
    assert!(!Message::parse(&bytes).unwrap().verify_integrity(&key()));
}

#[test]
fn a_signature_by_sha_256_ends_what_counts() {
    for integrity in BOTH {
        let mut bytes = Vec::new();
        MessageBuilder::new(&mut bytes, Class::Request, Method::REFRESH, ID)
            .with(&Username("alice"))
            .with_integrity(&key(), Integrity::Sha256)
            .with(&Lifetime(0))
            .with_integrity(&LongTermKey::from_bytes(b"mallory's"), integrity)
            .finish(true);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.integrity(), Some(Integrity::Sha256));
        assert!(message.verify_integrity(&key()), "the first one counts, and by SHA-1 none behind it");
        assert_eq!(message.attribute::<Lifetime>(), Ok(None));
    }
}

#[test]
fn what_stands_between_both_signatures_is_not_seen() {
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::REFRESH, ID)
        .with(&Username("alice"))
        .with_integrity(&key(), Integrity::Sha1)
        .with(&Lifetime(0))
        .with_integrity(&key(), Integrity::Sha256)
        .finish(false);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.attribute::<Lifetime>(), Ok(None));
    assert!(message.verify_integrity(&key()), "the HMAC is over all of it, though");
}

#[test]
fn half_of_a_sha_256_is_enough_and_less_is_not() {
    for len in 0..40 {
        let mut bytes = request();
        append(&mut bytes, SHA256, len, hmac_sha256);
        let message = Message::parse(&bytes).unwrap();
        let may_be = [16, 20, 24, 28, 32].contains(&len);
        assert_eq!(message.integrity(), may_be.then_some(Integrity::Sha256), "{len} bytes");
        assert_eq!(message.verify_integrity(&key()), may_be, "{len} bytes");
        assert_eq!(message.attributes().count(), 1, "{len} bytes: it ends what counts all the same");
        if may_be {
            let theirs = theirs::Message::from_bytes(&bytes).unwrap();
            assert!(theirs.validate_integrity(&their_credentials()).is_ok(), "{len} bytes");
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert!(!Message::parse(&bytes).unwrap().verify_integrity(&key()), "{len} bytes: each of them counts");
        }
    }
}

#[test]
fn a_signature_of_a_wrong_length_is_passed_over_for_the_other_one() {
    let mut bytes = request();
    append(&mut bytes, SHA1, 16, |_| Vec::new());
    append(&mut bytes, SHA256, 32, hmac_sha256);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.integrity(), Some(Integrity::Sha256));
    assert!(message.verify_integrity(&key()));

    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::REFRESH, ID)
        .with_integrity(&key(), Integrity::Sha1)
        .finish(false);
    append(&mut bytes, SHA256, 12, hmac_sha256);
    append(&mut bytes, SHA256, 32, hmac_sha256);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.integrity(), Some(Integrity::Sha1), "of several by SHA-256, only the first is looked at");
    assert!(message.verify_integrity(&key()));
}

#[test]
fn keys_of_any_length_sign_as_hmac_says() {
    for len in [0, 1, 16, 20, 32, 63, 64, 65, 100, 256] {
        let secret: Vec<u8> = (0..=u8::MAX).take(len).collect();
        for (integrity, algorithm) in
            [(Integrity::Sha1, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY), (Integrity::Sha256, hmac::HMAC_SHA256)]
        {
            let mut bytes = Vec::new();
            MessageBuilder::new(&mut bytes, Class::Request, Method::REFRESH, ID)
                .with_integrity(&LongTermKey::from_bytes(&secret), integrity)
                .finish(false);
            let expected = hmac::sign(&hmac::Key::new(algorithm, &secret), &bytes[..20]);
            assert_eq!(&bytes[24..], expected.as_ref(), "{integrity:?}, {len} bytes");
        }
    }
}

#[test]
fn a_key_is_small_and_is_not_printed() {
    assert!(size_of::<LongTermKey>() <= 72, "{}", size_of::<LongTermKey>());
    assert_eq!(format!("{:?}", LongTermKey::from_bytes(b"secret")), "LongTermKey(..)");
}

fn decode<'a, A: Attribute<'a>>(value: &'a [u8]) -> Result<A, AttributeError> {
    A::decode(value, &ID)
}

#[test]
fn attributes_of_security_that_make_no_sense_are_named() {
    assert_eq!(decode::<UserHash>(&[0; 31]), Err(AttributeError::Length(0x001e)));
    assert_eq!(decode::<UserHash>(&[0; 33]), Err(AttributeError::Length(0x001e)));
    assert_eq!(decode::<ThirdPartyAuthorization<'_>>(&[b'a'; 764]), Err(AttributeError::Length(0x802e)));
    assert_eq!(decode::<ThirdPartyAuthorization<'_>>(&[0xff]), Err(AttributeError::Value(0x802e)));
    let malformed: [&[u8]; 5] = [&[0], &[0, 2, 0], &[0, 2, 0, 1], &[0, 2, 0, 1, 7, 0, 0], &[0, 2, 0xff, 0xff]];
    for value in malformed {
        assert_eq!(decode::<PasswordAlgorithms<'_>>(value), Err(AttributeError::Length(0x8002)), "{value:?}");
        assert_eq!(decode::<PasswordAlgorithmAttribute<'_>>(value), Err(AttributeError::Length(0x001d)), "{value:?}");
    }
    for value in [&[][..], &[0, 2, 0, 0, 0, 1, 0, 0]] {
        assert_eq!(decode::<PasswordAlgorithmAttribute<'_>>(value), Err(AttributeError::Length(0x001d)), "not one");
        assert!(decode::<PasswordAlgorithms<'_>>(value).is_ok());
    }
}

#[test]
fn algorithms_that_are_not_known_are_passed_over_with_their_parameters() {
    let list = [0, 9, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 4, 1, 1, 1, 1];
    let list = PasswordAlgorithms::from_bytes(&list).unwrap();
    let expected = [(9, &[1, 2, 3, 4, 5][..]), (2, &[]), (1, &[1; 4])];
    let expected = expected.map(|(number, parameters)| AlgorithmAndParameters { number, parameters });
    assert_eq!(list.iter().collect::<Vec<_>>(), expected);
    let known: Vec<_> = list.iter().map(|algorithm| algorithm.algorithm()).collect();
    assert_eq!(known, [None, Some(PasswordAlgorithm::Sha256), None], "MD5 has no parameters");
    for (list, known) in [
        (PasswordAlgorithms::SHA256_AND_MD5, &[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5][..]),
        (PasswordAlgorithms::SHA256, &[PasswordAlgorithm::Sha256]),
        (PasswordAlgorithms::MD5, &[PasswordAlgorithm::Md5]),
    ] {
        assert_eq!(list.iter().filter_map(|algorithm| algorithm.algorithm()).collect::<Vec<_>>(), known);
        assert_eq!(PasswordAlgorithms::from_bytes(list.as_bytes()), Some(list));
    }
}

#[test]
fn padding_of_parameters_is_zero_and_is_ignored() {
    let algorithm = AlgorithmAndParameters { number: 9, parameters: &[1, 2, 3, 4, 5] };
    let mut value = Vec::new();
    PasswordAlgorithmAttribute(algorithm).encode(&mut value, &ID);
    assert_eq!(value, [0, 9, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]);
    value[9..].fill(0xff);
    assert_eq!(decode(&value), Ok(PasswordAlgorithmAttribute(algorithm)));
    assert_eq!(PasswordAlgorithms::from_bytes(&value).unwrap().iter().collect::<Vec<_>>(), [algorithm]);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        hash in any::<[u8; 32]>(),
        number in any::<u16>(),
        parameters in proptest::collection::vec(any::<u8>(), 0..20),
        token in proptest::collection::vec(any::<u8>(), 0..400),
        name in "\\PC{0,100}",
    ) {
        let algorithm = AlgorithmAndParameters { number, parameters: &parameters };
        let mut list = Vec::new();
        PasswordAlgorithmAttribute(algorithm).encode(&mut list, &ID);
        list.extend_from_slice(PasswordAlgorithms::SHA256_AND_MD5.as_bytes());
        let list = PasswordAlgorithms::from_bytes(&list).unwrap();
        let mut bytes = Vec::new();
        MessageBuilder::new(&mut bytes, Class::Request, Method::ALLOCATE, ID)
            .with(&UserHash(hash))
            .with(&PasswordAlgorithmAttribute(algorithm))
            .with(&list)
            .with(&AccessTokenAttribute(&token))
            .with(&ThirdPartyAuthorization(&name))
            .finish(true);
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!(message.attribute(), Ok(Some(UserHash(hash))));
        prop_assert_eq!(message.attribute(), Ok(Some(PasswordAlgorithmAttribute(algorithm))));
        prop_assert_eq!(message.attribute(), Ok(Some(list)));
        prop_assert_eq!(list.iter().next(), Some(algorithm));
        prop_assert_eq!(list.iter().count(), 3);
        prop_assert_eq!(message.attribute(), Ok(Some(AccessTokenAttribute(&token))));
        prop_assert_eq!(message.attribute(), Ok(Some(ThirdPartyAuthorization(&name))));
        let required: Vec<u16> = message.unknown_required(&[]).collect();
        prop_assert_eq!(required, [0x001e, 0x001d, 0x001b]);
    }

    #[test]
    fn lists_of_algorithms_never_panic(value in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = decode::<PasswordAlgorithmAttribute<'_>>(&value);
        if let Ok(list) = decode::<PasswordAlgorithms<'_>>(&value) {
            prop_assert!(list.iter().count() * 4 <= value.len());
        }
    }

    #[test]
    fn sha_256_covers_every_bit(text in "\\PC{0,100}", fingerprint in any::<bool>(), flip in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        MessageBuilder::new(&mut bytes, Class::Request, Method::ALLOCATE, ID)
            .with(&Username(&text))
            .with(&Data(text.as_bytes()))
            .with_integrity(&key(), Integrity::Sha256)
            .finish(fingerprint);
        let message = Message::parse(&bytes).unwrap();
        prop_assert!(message.verify_integrity(&key()));
        prop_assert!(!message.verify_integrity(&LongTermKey::derive("alice", "example.org", "secret")));
        prop_assert_eq!(message.find(SHA256), None, "it is no attribute to look at, only to verify");
        let end = bytes.len() - if fingerprint { 8 } else { 0 };
        let bit = flip.index(end * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let authentic = Message::parse(&bytes).is_ok_and(|message| message.verify_integrity(&key()));
        prop_assert!(!authentic, "bit {} of {:02x?}", bit, bytes);
    }

    #[test]
    fn they_verify_and_read_what_we_write(hash in any::<[u8; 32]>(), both in any::<bool>(), fingerprint in any::<bool>()) {
        let mut bytes = Vec::new();
        let mut builder = MessageBuilder::new(&mut bytes, Class::Request, Method::ALLOCATE, ID)
            .with(&UserHash(hash))
            .with(&PasswordAlgorithmAttribute(PasswordAlgorithm::Sha256.into()))
            .with(&PasswordAlgorithms::SHA256_AND_MD5);
        if both {
            builder = builder.with_integrity(&LongTermKey::derive("alice", "example.org", "secret"), Integrity::Sha1);
        }
        builder.with_integrity(&key(), Integrity::Sha256).finish(fingerprint);
        let message = theirs::Message::from_bytes(&bytes).unwrap();
        prop_assert_eq!(message.validate_integrity(&their_credentials()).ok(), Some(IntegrityAlgorithm::Sha256));
        let user_hash = message.attribute::<stun::Userhash>().unwrap();
        prop_assert_eq!(user_hash.hash(), &hash);
        let algorithm = message.attribute::<stun::PasswordAlgorithm>().unwrap().algorithm();
        prop_assert_eq!(algorithm, stun::PasswordAlgorithmValue::SHA256);
        let algorithms = message.attribute::<stun::PasswordAlgorithms>().unwrap();
        let expected = [stun::PasswordAlgorithmValue::SHA256, stun::PasswordAlgorithmValue::MD5];
        prop_assert_eq!(algorithms.algorithms(), &expected);
    }

    #[test]
    fn we_verify_and_read_what_they_write(hash in any::<[u8; 32]>(), both in any::<bool>(), fingerprint in any::<bool>()) {
        let mut builder = theirs::Message::builder_request(theirs::BINDING, MessageWriteVec::new());
        let algorithms = [stun::PasswordAlgorithmValue::SHA256, stun::PasswordAlgorithmValue::MD5];
        builder.add_attribute(&stun::Userhash::new(hash)).unwrap();
        builder.add_attribute(&stun::PasswordAlgorithm::new(stun::PasswordAlgorithmValue::SHA256)).unwrap();
        builder.add_attribute(&stun::PasswordAlgorithms::new(&algorithms)).unwrap();
        if both {
            builder.add_message_integrity(&their_credentials(), IntegrityAlgorithm::Sha1).unwrap();
        }
        builder.add_message_integrity(&their_credentials(), IntegrityAlgorithm::Sha256).unwrap();
        if fingerprint {
            builder.add_fingerprint().unwrap();
        }
        let bytes = builder.finish();
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!(message.integrity(), Some(Integrity::Sha256));
        prop_assert!(message.verify_integrity(&key()));
        prop_assert!(!message.verify_integrity(&LongTermKey::derive("alice", "example.org", "secret")));
        prop_assert_eq!(message.attribute(), Ok(Some(UserHash(hash))));
        let sha256 = PasswordAlgorithmAttribute(PasswordAlgorithm::Sha256.into());
        prop_assert_eq!(message.attribute(), Ok(Some(sha256)));
        prop_assert_eq!(message.attribute(), Ok(Some(PasswordAlgorithms::SHA256_AND_MD5)));
        prop_assert_eq!(message.has_fingerprint(), fingerprint);
    }
}

#[test]
fn the_hash_of_a_user_is_the_one_that_they_compute() {
    for (user, realm) in [("alice", "example.org"), ("", ""), ("\u{e9}", "a b")] {
        assert_eq!(hairpin_proto::stun::user_hash(user, realm), stun::Userhash::compute(user, realm));
    }
}
