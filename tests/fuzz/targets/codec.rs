//! Any bytes are a message or an error; what is read from a message and written again reads the same.
//!
//! The first byte says what is made right before: no fuzzer guesses a checksum.

#![no_main]

use hairpin_proto::stun::attribute::{
    AccessTokenAttribute, AdditionalAddressFamily, AddressErrorCode, AlternateDomain, AlternateServerAttribute,
    ChangeRequest, ChannelNumberAttribute, ConnectionId, Data, DontFragment, ErrorCodeAttribute, EvenPort, FINGERPRINT,
    Icmp, Lifetime, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, MappedAddress, MobilityTicket, Nonce, OtherAddress,
    Padding, PasswordAlgorithmAttribute, PasswordAlgorithms, Realm, RequestedAddressFamily, RequestedTransport,
    ReservationToken, ResponseOrigin, ResponsePort, Software, ThirdPartyAuthorization, UnknownAttributes, UserHash,
    Username, XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};
use hairpin_proto::stun::{LongTermKey, Message, MessageBuilder, ParseError, hmac_sha1};
use libfuzzer_sys::{Corpus, fuzz_target};
use ring::hmac;

/// Every attribute that there is a type for.
macro_rules! for_each_attribute {
    ($do:ident) => {
        for_each_attribute!($do:
            AdditionalAddressFamily, AddressErrorCode, ChannelNumberAttribute, Data<'_>, DontFragment,
            ErrorCodeAttribute<'_>, EvenPort, Icmp, Lifetime, Nonce<'_>, Realm<'_>, RequestedAddressFamily,
            RequestedTransport, ReservationToken, Software<'_>, UnknownAttributes<'_>, Username<'_>,
            XorMappedAddress, XorPeerAddress, XorRelayedAddress, AlternateDomain<'_>, AlternateServerAttribute,
            ChangeRequest, ConnectionId, MappedAddress, MobilityTicket<'_>, OtherAddress, Padding, ResponseOrigin,
            ResponsePort, UserHash, PasswordAlgorithmAttribute<'_>, PasswordAlgorithms<'_>, AccessTokenAttribute<'_>,
            ThirdPartyAuthorization<'_>
        )
    };
    ($do:ident: $($attribute:ty),*) => {
        $($do!($attribute);)*
    };
}

/// A STUN header and what it says of the rest.
const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const KEY: &[u8] = b"a key of sixteen";

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((choice, bytes)) = input.split_first() else { return Corpus::Reject };
    let bytes = prepare(*choice, bytes.to_vec());
    match Message::parse(&bytes) {
        Ok(message) => check(&message, &bytes),
        Err(error) => check_error(error, &bytes),
    }
    Corpus::Keep
});

fn key() -> LongTermKey {
    LongTermKey::from_bytes(KEY)
}

/// Makes right what the choice says: header, MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, FINGERPRINT. Written by hand, not
/// by the builder.
fn prepare(choice: u8, mut bytes: Vec<u8>) -> Vec<u8> {
    if choice & 1 == 0 || bytes.len() < HEADER || bytes.len() > 60_000 {
        return bytes;
    }
    bytes.truncate(bytes.len() & !3);
    bytes[0] &= 0x3f;
    bytes[4..8].copy_from_slice(&COOKIE);
    set_length(&mut bytes, 0);
    if choice & 2 != 0 {
        set_length(&mut bytes, 24);
        let signature = hmac_sha1(KEY, &bytes);
        append(&mut bytes, MESSAGE_INTEGRITY, &signature);
    }
    if choice & 8 != 0 {
        // Cut down to 16 bytes or not, by another bit.
        let len = if choice & 16 != 0 { 16 } else { 32 };
        set_length(&mut bytes, 4 + len);
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &bytes);
        append(&mut bytes, MESSAGE_INTEGRITY_SHA256, &signature.as_ref()[..len]);
    }
    if choice & 4 != 0 {
        set_length(&mut bytes, 8);
        let crc = crc32fast::hash(&bytes) ^ 0x5354_554e;
        append(&mut bytes, FINGERPRINT, &crc.to_be_bytes());
    }
    bytes
}

fn set_length(bytes: &mut [u8], coming: usize) {
    let length = bytes.len() - HEADER + coming;
    bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
}

fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(kind.to_be_bytes());
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value);
}

fn check(message: &Message<'_>, bytes: &[u8]) {
    assert!(bytes.len() >= HEADER && bytes.len().is_multiple_of(4) && bytes[4..8] == COOKIE);
    let types: Vec<u16> = message.attributes().map(|(kind, _)| kind).collect();
    let hidden = [MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, FINGERPRINT];
    assert!(!types.iter().any(|kind| hidden.contains(kind)), "what is not covered is shown");
    for (kind, value) in message.attributes() {
        assert!(message.find(kind).is_some());
        assert!(value.as_ptr() as usize + value.len() <= bytes.as_ptr() as usize + bytes.len());
    }
    let required = message.unknown_required(&types).count();
    assert_eq!(required, 0);
    assert_eq!(message.unknown_required(&[]).count(), types.iter().filter(|kind| **kind < 0x8000).count());
    if !message.has_integrity() {
        assert!(!message.verify_integrity(&key()));
    }
    check_tampering(message, bytes);

    let once = rewrite(message);
    let twice = rewrite(&Message::parse(&once).expect("what was written is a message"));
    assert_eq!(once, twice);
}

/// A bit that is covered by MESSAGE-INTEGRITY or FINGERPRINT does not change unnoticed.
fn check_tampering(message: &Message<'_>, bytes: &[u8]) {
    if !message.verify_integrity(&key()) {
        return;
    }
    assert!(!message.verify_integrity(&LongTermKey::from_bytes(b"another key")));
    let covered = HEADER + message.attributes().map(|(_, value)| 4 + value.len().next_multiple_of(4)).sum::<usize>();
    for at in [0, 1, 8, 19, covered / 2, covered - 1] {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        if let Ok(changed) = Message::parse(&changed) {
            assert!(!changed.verify_integrity(&key()), "a change at {at} keeps the signature");
            assert!(!message.has_fingerprint() || !changed.has_fingerprint(), "a change at {at} keeps the fingerprint");
        }
    }
}

fn check_error(error: ParseError, bytes: &[u8]) {
    match error {
        ParseError::Short => assert!(bytes.len() < HEADER),
        ParseError::NotStun => assert!(bytes[0] >= 0x40 || bytes[4..8] != COOKIE),
        ParseError::Length => {
            let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            assert!(length != bytes.len() - HEADER || !length.is_multiple_of(4));
        }
        ParseError::Attribute | ParseError::Fingerprint => assert!(bytes.len() > HEADER),
    }
}

/// Writes all attributes that can be read, and checks that they read the same.
fn rewrite(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut builder = MessageBuilder::new(&mut bytes, message.class(), message.method(), message.transaction_id());
    macro_rules! write_each {
        ($attribute:ty) => {
            for attribute in message.each::<$attribute>().flatten() {
                builder = builder.with(&attribute);
            }
        };
    }
    for_each_attribute!(write_each);
    builder.finish(message.has_fingerprint());

    let again = Message::parse(&bytes).expect("what was written is a message");
    assert_eq!((again.class(), again.method()), (message.class(), message.method()));
    assert_eq!(again.transaction_id(), message.transaction_id());
    assert_eq!(again.has_fingerprint(), message.has_fingerprint());
    macro_rules! compare_each {
        ($attribute:ty) => {
            assert!(again.each::<$attribute>().eq(message.each::<$attribute>().filter(Result::is_ok)));
            let (first, mut each) = (message.attribute::<$attribute>().transpose(), message.each::<$attribute>());
            assert_eq!(first, each.next());
        };
    }
    for_each_attribute!(compare_each);
    bytes
}
