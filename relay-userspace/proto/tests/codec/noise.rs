//! What is cut, malformed, tampered with or random is refused, and never takes the parser down.

use hairpin_proto::stun::attribute::{
    AccessTokenAttribute, AdditionalAddressFamily, AddressErrorCode, Attribute, AttributeError, ChannelNumberAttribute,
    Data, DontFragment, ErrorCodeAttribute, EvenPort, Lifetime, Nonce, PasswordAlgorithmAttribute, PasswordAlgorithms,
    Realm, RequestedAddressFamily, RequestedTransport, ReservationToken, Software, ThirdPartyAuthorization,
    UnknownAttributes, UserHash, Username, XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};
use hairpin_proto::stun::{Class, Integrity, LongTermKey, Message, MessageBuilder, Method, ParseError, TransactionId};
use proptest::prelude::*;

use crate::round_trip::{everything, values};
use crate::vectors::{LONG_TERM_REQUEST, REQUEST, RESPONSE_V4, RESPONSE_V6};

const ID: TransactionId = TransactionId([0x5a; 12]);

/// A message with these attributes, as they are, and a length that fits.
fn raw(attributes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::ALLOCATE, ID).finish(false);
    bytes.extend_from_slice(attributes);
    set_length(&mut bytes);
    bytes
}

fn set_length(bytes: &mut [u8]) {
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}

/// Reads everything there is to read.
fn read_all(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    let _ = (message.class(), message.method().label(), message.transaction_id());
    let _ = message.verify_integrity(&LongTermKey::from_bytes(b"key"));
    let _ = message.unknown_required(&[0x0006]).count();
    macro_rules! decode {
        ($($attribute:ty),*) => {$(
            let _ = message.attribute::<$attribute>();
            let _ = message.each::<$attribute>().count();
        )*};
    }
    decode!(Username, Realm, Nonce, Software, XorMappedAddress, XorPeerAddress, XorRelayedAddress, ErrorCodeAttribute);
    decode!(UnknownAttributes, ChannelNumberAttribute, Lifetime, Data, RequestedAddressFamily, AdditionalAddressFamily);
    decode!(EvenPort, RequestedTransport, DontFragment, ReservationToken, AddressErrorCode, UserHash);
    decode!(PasswordAlgorithmAttribute, PasswordAlgorithms, AccessTokenAttribute, ThirdPartyAuthorization);
}

#[test]
fn every_truncation_is_refused() {
    for vector in [REQUEST, RESPONSE_V4, RESPONSE_V6, LONG_TERM_REQUEST] {
        for length in 0..vector.len() {
            let expected = if length < 20 { ParseError::Short } else { ParseError::Length };
            assert_eq!(Message::parse(&vector[..length]).err(), Some(expected), "{length} bytes of {vector:02x?}");
        }
    }
}

#[test]
fn bytes_behind_the_message_are_refused() {
    let mut bytes = REQUEST.to_vec();
    bytes.extend_from_slice(&[0; 4]);
    assert_eq!(Message::parse(&bytes).err(), Some(ParseError::Length));
}

#[test]
fn a_header_that_is_not_stun_is_refused() {
    for (at, flip) in [(0, 0x80), (0, 0x40), (4, 0x01), (7, 0x80)] {
        let mut bytes = LONG_TERM_REQUEST.to_vec();
        bytes[at] ^= flip;
        assert_eq!(Message::parse(&bytes).err(), Some(ParseError::NotStun), "byte {at} flipped by {flip:#x}");
    }
}

#[test]
fn a_length_that_is_no_multiple_of_four_is_refused() {
    for extra in 1..4 {
        let bytes = raw(&vec![0; extra]);
        assert_eq!(Message::parse(&bytes).err(), Some(ParseError::Length), "{bytes:02x?}");
    }
}

#[test]
fn an_attribute_past_the_end_is_refused() {
    for attributes in [&[0x00, 0x06, 0x00, 0x01][..], &[0, 6, 0, 5, b'a', b'b', b'c', b'd'], &[0, 6, 0xff, 0xff]] {
        let bytes = raw(attributes);
        assert_eq!(Message::parse(&bytes).err(), Some(ParseError::Attribute), "{bytes:02x?}");
    }
}

#[test]
fn what_stands_behind_message_integrity_is_not_seen() {
    let key = LongTermKey::from_bytes(b"key");
    for fingerprint in [false, true] {
        let mut bytes = Vec::new();
        MessageBuilder::new(&mut bytes, Class::Request, Method::REFRESH, ID)
            .with(&Username("alice"))
            .with_integrity(&key, Integrity::Sha1)
            .with(&Lifetime(0))
            .with(&Username("mallory"))
            .with_integrity(&LongTermKey::from_bytes(b"mallory's"), Integrity::Sha1)
            .finish(fingerprint);

        let message = Message::parse(&bytes).unwrap();
        assert!(message.verify_integrity(&key), "the first MESSAGE-INTEGRITY is the one that counts");
        assert_eq!(message.attribute::<Lifetime>(), Ok(None));
        assert_eq!(message.each::<Username>().collect::<Vec<_>>(), [Ok(Username("alice"))]);
        assert_eq!(message.attributes().count(), 1);
        assert_eq!(message.unknown_required(&[0x0006]).count(), 0);
        assert_eq!(message.has_fingerprint(), fingerprint);
    }
}

#[test]
fn a_message_integrity_of_another_length_does_not_authenticate() {
    for length in [0_u16, 16, 19, 24] {
        let mut attributes = vec![0x00, 0x08];
        attributes.extend_from_slice(&length.to_be_bytes());
        attributes.resize(4 + usize::from(length.next_multiple_of(4)), 0);
        let bytes = raw(&attributes);
        let message = Message::parse(&bytes).unwrap();
        assert!(!message.has_integrity(), "{bytes:02x?}");
        assert!(!message.verify_integrity(&LongTermKey::from_bytes(b"")), "{bytes:02x?}");
    }
}

#[test]
fn a_fingerprint_that_is_wrong_or_not_last_is_refused() {
    let mut wrong = REQUEST.to_vec();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(Message::parse(&wrong).err(), Some(ParseError::Fingerprint));

    // The right CRC-32 for what stands before it, but not at the end.
    let mut early = raw(&[0x80, 0x28, 0x00, 0x04, 0, 0, 0, 0, 0x80, 0x22, 0x00, 0x04, b'l', b'a', b't', b'e']);
    let crc = crc32fast::hash(&early[..20]) ^ 0x5354_554e;
    early[24..28].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(Message::parse(&early).err(), Some(ParseError::Fingerprint));

    let short = raw(&[0x80, 0x28, 0x00, 0x00]);
    assert_eq!(Message::parse(&short).err(), Some(ParseError::Fingerprint));
}

#[test]
fn values_that_make_no_sense_are_named() {
    fn decode<'a, A: Attribute<'a>>(value: &'a [u8]) -> Option<AttributeError> {
        A::decode(value, &ID).err()
    }
    let length = |kind| Some(AttributeError::Length(kind));
    let value = |kind| Some(AttributeError::Value(kind));

    assert_eq!(decode::<Username>(&[b'a'; 764]), length(0x0006));
    assert_eq!(decode::<Username>(&[b'a'; 763]), None);
    assert_eq!(decode::<Realm>(&[b'a'; 764]), length(0x0014));
    assert_eq!(decode::<Nonce>(&[0xff]), value(0x0015));
    assert_eq!(decode::<XorPeerAddress>(&[0, 1, 0]), length(0x0012));
    assert_eq!(decode::<XorPeerAddress>(&[0, 1, 0, 0, 1, 2, 3]), length(0x0012));
    assert_eq!(decode::<XorPeerAddress>(&[0, 2, 0, 0, 1, 2, 3, 4]), length(0x0012));
    assert_eq!(decode::<XorPeerAddress>(&[0, 3, 0, 0, 1, 2, 3, 4]), value(0x0012));
    assert_eq!(decode::<ErrorCodeAttribute>(&[0, 0, 4]), length(0x0009));
    assert_eq!(decode::<ErrorCodeAttribute>(&[0, 0, 4, 100]), value(0x0009), "the number is below 100");
    assert_eq!(decode::<ErrorCodeAttribute>(&[0, 0, 2, 99]), value(0x0009), "the class is 3 to 6");
    assert_eq!(decode::<ErrorCodeAttribute>(&[0, 0, 7, 0]), value(0x0009), "the class is 3 to 6");
    assert_eq!(decode::<UnknownAttributes>(&[0]), length(0x000a));
    assert_eq!(decode::<ChannelNumberAttribute>(&[0x40, 0]), length(0x000c));
    assert_eq!(decode::<Lifetime>(&[0; 5]), length(0x000d));
    assert_eq!(decode::<RequestedTransport>(&[17]), length(0x0019));
    assert_eq!(decode::<EvenPort>(&[]), length(0x0018));
    assert_eq!(decode::<DontFragment>(&[0]), length(0x001a));
    assert_eq!(decode::<ReservationToken>(&[0; 7]), length(0x0022));
    assert_eq!(decode::<AddressErrorCode>(&[]), length(0x8001));
    assert_eq!(decode::<AddressErrorCode>(&[3, 0, 4, 40]), value(0x8001));
    assert_eq!(decode::<AddressErrorCode>(&[2, 0, 4]), length(0x8001), "the error names the attribute it came in");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
    }

    #[test]
    fn random_attributes_never_panic(
        attributes in proptest::collection::vec(
            (prop_oneof![0..0x30_u16, 0x8000..0x8030_u16, any::<u16>()], proptest::collection::vec(any::<u8>(), 0..30)),
            0..8,
        ),
        cut in 0..12_usize,
    ) {
        let mut bytes = raw(&[]);
        for (kind, value) in &attributes {
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
            bytes.extend_from_slice(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes.truncate((bytes.len() - cut.min(bytes.len() - 20)).next_multiple_of(4));
        set_length(&mut bytes);
        read_all(&bytes);
    }

    #[test]
    fn tampered_messages_never_panic(
        values in values(),
        tampered in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<Option<prop::sample::Index>>(),
    ) {
        let (mut bytes, _) = everything(&values, Class::Request, Method::ALLOCATE);
        for (at, value) in &tampered {
            bytes[at.index(values.text.len() + 20)] = *value;
        }
        if let Some(length) = length {
            bytes.truncate(20 + length.index(bytes.len() - 20) / 4 * 4);
            set_length(&mut bytes);
        }
        read_all(&bytes);
    }

    #[test]
    fn a_cut_inside_an_attribute_is_refused_also_with_a_fitting_length(values in values()) {
        let (bytes, _) = everything(&values, Class::Request, Method::ALLOCATE);
        let mut ends = vec![20];
        for (_, value) in Message::parse(&bytes).unwrap().attributes() {
            ends.push(ends[ends.len() - 1] + 4 + value.len().next_multiple_of(4));
        }
        prop_assert_eq!(ends.last(), Some(&bytes.len()));
        for end in (20..bytes.len()).step_by(4) {
            let mut cut = bytes[..end].to_vec();
            set_length(&mut cut);
            let expected = (!ends.contains(&end)).then_some(ParseError::Attribute);
            prop_assert_eq!(Message::parse(&cut).err(), expected, "cut at {}", end);
        }
    }
}
