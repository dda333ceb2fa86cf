//! The test vector of RFC 8489 appendix B.1, with its erratum 6268: without it the vector lacks PASSWORD-ALGORITHM, and its
//! length is wrong.

use hairpin_proto::stun::attribute::{Nonce, PasswordAlgorithmAttribute, Realm, UserHash, Username};
use hairpin_proto::stun::{
    Class, Integrity, LongTermKey, Message, MessageBuilder, Method, PasswordAlgorithm, PasswordKeys, TransactionId,
    user_hash,
};

const USERNAME: &str = "\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}";
const REALM: &str = "example.org";
/// What SASLprep makes of the vector's password. The RFC says that it was OpaqueString, which forbids that password.
const PASSWORD: &str = "TheMatrIX";
const NONCE: &str = "obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA";
const ID: TransactionId = TransactionId(*b"\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e");

const REQUEST: &[u8] = b"\x00\x01\x00\x90\x21\x12\xa4\x42\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e\
    \x00\x1e\x00\x20\x4a\x3c\xf3\x8f\xef\x69\x92\xbd\xa9\x52\xc6\x78\x04\x17\xda\x0f\
    \x24\x81\x94\x15\x56\x9e\x60\xb2\x05\xc4\x6e\x41\x40\x7f\x17\x04\
    \x00\x15\x00\x29obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA\x00\x00\x00\
    \x00\x14\x00\x0bexample.org\x00\
    \x00\x1d\x00\x04\x00\x02\x00\x00\
    \x00\x1c\x00\x20\xb5\xc7\xbf\x00\x5b\x6c\x52\xa2\x1c\x51\xc5\xe8\x92\xf8\x19\x24\
    \x13\x62\x96\xcb\x92\x7c\x43\x14\x93\x09\x27\x8c\xc6\x51\x8e\x65";

#[test]
fn the_request_is_read_and_authentic() {
    let message = Message::parse(REQUEST).unwrap();
    assert_eq!((message.class(), message.method(), message.transaction_id()), (Class::Request, Method::BINDING, ID));
    assert_eq!(message.attribute(), Ok(Some(UserHash(user_hash(USERNAME, REALM)))));
    assert_eq!(message.attribute::<Username<'_>>(), Ok(None));
    assert_eq!(message.attribute(), Ok(Some(Nonce(NONCE))));
    assert_eq!(message.attribute(), Ok(Some(Realm(REALM))));
    let algorithm = message.attribute::<PasswordAlgorithmAttribute<'_>>().unwrap().unwrap();
    assert_eq!(algorithm.0.algorithm(), Some(PasswordAlgorithm::Sha256));

    assert_eq!(message.integrity(), Some(Integrity::Sha256));
    let keys = PasswordKeys::derive(USERNAME, REALM, PASSWORD);
    let verified = |algorithm| keys.for_algorithm(algorithm).any(|key| message.verify_integrity(key));
    assert!(verified(PasswordAlgorithm::Sha256));
    assert!(!verified(PasswordAlgorithm::Md5), "a key is for one algorithm");
    assert!(!message.verify_integrity(&LongTermKey::derive_sha256(USERNAME, REALM, "TheMatrix")));
}

#[test]
fn the_request_is_written_byte_for_byte() {
    let mut buffer = Vec::new();
    MessageBuilder::new(&mut buffer, Class::Request, Method::BINDING, ID)
        .with(&UserHash(user_hash(USERNAME, REALM)))
        .with(&Nonce(NONCE))
        .with(&Realm(REALM))
        .with(&PasswordAlgorithmAttribute(PasswordAlgorithm::Sha256.into()))
        .with_integrity(&LongTermKey::derive_sha256(USERNAME, REALM, PASSWORD), Integrity::Sha256)
        .finish(false);
    assert_eq!(buffer, REQUEST);
}
