//! The test vectors of RFC 5769, which real implementations made and agreed on.

use std::net::SocketAddr;

use hairpin_proto::stun::attribute::{
    AttributeError, ConnectionId, Icmp, MobilityTicket, Nonce, Realm, Software, Username, XorMappedAddress,
};
use hairpin_proto::stun::{Class, Integrity, LongTermKey, Message, MessageBuilder, Method, TransactionId};

/// The short-term password of sections 2.1 to 2.3.
const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

/// The transaction id of sections 2.1 to 2.3.
const ID: TransactionId = TransactionId(*b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae");

/// RFC 5769 section 2.1.
pub(crate) const REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x10STUN test client\
    \x00\x24\x00\x04\x6e\x00\x01\xff\
    \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
    \x00\x06\x00\x09evtj:h6vY\x20\x20\x20\
    \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
    \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

/// RFC 5769 section 2.2.
pub(crate) const RESPONSE_V4: &[u8] =
    b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0btest vector\x20\
    \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
    \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
    \x80\x28\x00\x04\xc0\x7d\x4c\x96";

/// RFC 5769 section 2.3.
pub(crate) const RESPONSE_V6: &[u8] =
    b"\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0btest vector\x20\
    \x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\
    \x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\
    \x80\x28\x00\x04\xc8\xfb\x0b\x4c";

/// RFC 5769 section 2.4.
pub(crate) const LONG_TERM_REQUEST: &[u8] =
    b"\x00\x01\x00\x60\x21\x12\xa4\x42\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e\
    \x00\x06\x00\x12\xe3\x83\x9e\xe3\x83\x88\xe3\x83\xaa\xe3\x83\x83\xe3\x82\xaf\xe3\x82\xb9\x00\x00\
    \x00\x15\x00\x1cf//499k954d6OL34oL9FSTvy64sA\
    \x00\x14\x00\x0bexample.org\x00\
    \x00\x08\x00\x14\xf6\x70\x24\x65\x6d\xd6\x4a\x3e\x02\xb8\xe0\x71\x2e\x85\xc9\xa2\x8c\xa8\x96\x66";

#[test]
fn request_of_section_2_1_is_read_and_authentic() {
    let message = Message::parse(REQUEST).unwrap();

    assert_eq!((message.class(), message.method()), (Class::Request, Method::BINDING));
    assert_eq!(message.transaction_id(), ID);
    assert_eq!(message.attribute(), Ok(Some(Software("STUN test client"))));
    assert_eq!(message.attribute(), Ok(Some(Username("evtj:h6vY"))));
    assert_eq!(message.find(0x0024), Some(&[0x6e, 0x00, 0x01, 0xff][..]), "PRIORITY");
    assert_eq!(message.unknown_required(&[0x0006]).collect::<Vec<_>>(), [0x0024]);
    assert!(message.has_fingerprint());
    assert!(message.verify_integrity(&LongTermKey::from_bytes(PASSWORD)));
    assert!(!message.verify_integrity(&LongTermKey::from_bytes(b"VOkJxbRl1RmTxUk/WvJxBT")));
}

#[test]
fn responses_of_sections_2_2_and_2_3_are_read_and_authentic() {
    for (bytes, mapped) in
        [(RESPONSE_V4, "192.0.2.1:32853"), (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let message = Message::parse(bytes).unwrap();

        assert_eq!((message.class(), message.method()), (Class::Success, Method::BINDING));
        assert_eq!(message.transaction_id(), ID);
        assert_eq!(message.attribute(), Ok(Some(Software("test vector"))));
        assert_eq!(message.attribute(), Ok(Some(XorMappedAddress(mapped.parse::<SocketAddr>().unwrap()))));
        assert!(message.has_fingerprint());
        assert!(message.verify_integrity(&LongTermKey::from_bytes(PASSWORD)), "{mapped}");
    }
}

#[test]
fn request_of_section_2_4_is_authentic_by_its_long_term_credential() {
    let message = Message::parse(LONG_TERM_REQUEST).unwrap();
    let (username, realm) = ("\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}", "example.org");

    assert_eq!(message.attribute(), Ok(Some(Username(username))));
    assert_eq!(message.attribute(), Ok(Some(Nonce("f//499k954d6OL34oL9FSTvy64sA"))));
    assert_eq!(message.attribute(), Ok(Some(Realm(realm))));
    assert!(!message.has_fingerprint());
    // The vector's password is the one that SASLprep makes of its example.
    assert!(message.verify_integrity(&LongTermKey::derive(username, realm, "TheMatrIX")));
    assert!(!message.verify_integrity(&LongTermKey::derive(username, realm, "TheMatrix")));
}

#[test]
fn section_2_4_is_written_byte_for_byte() {
    // Of the vectors, this is the one whose padding is zero, as a writer of today leaves it.
    let (username, realm) = ("\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}", "example.org");
    let id = TransactionId(*b"\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e");
    let mut buffer = Vec::new();
    MessageBuilder::new(&mut buffer, Class::Request, Method::BINDING, id)
        .with(&Username(username))
        .with(&Nonce("f//499k954d6OL34oL9FSTvy64sA"))
        .with(&Realm(realm))
        .with_integrity(&LongTermKey::derive(username, realm, "TheMatrIX"), Integrity::Sha1)
        .finish(false);
    assert_eq!(buffer, LONG_TERM_REQUEST);
}

#[test]
fn type_and_code_of_icmp_have_seven_bits_and_nine() {
    let mut buffer = Vec::new();
    MessageBuilder::new(&mut buffer, Class::Indication, Method::DATA, ID)
        .with(&Icmp { kind: 3, code: 4, error_data: 1400 })
        .finish(false);
    assert_eq!(buffer[20..], *b"\x80\x04\x00\x08\x00\x00\x06\x04\x00\x00\x05\x78");
    // What is reserved is not looked at.
    buffer[24..26].fill(0xff);
    let message = Message::parse(&buffer).unwrap();
    assert_eq!(message.attribute(), Ok(Some(Icmp { kind: 3, code: 4, error_data: 1400 })));
}

#[test]
fn a_connection_id_is_four_bytes_and_a_ticket_whatever_its_maker_likes() {
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::CONNECTION_BIND, TransactionId([1; 12]))
        .with(&ConnectionId(0x0102_0304))
        .with(&MobilityTicket(b"ticket"))
        .finish(false);
    let expected = [0, 0x2a, 0, 4, 1, 2, 3, 4, 0x80, 0x30, 0, 6, b't', b'i', b'c', b'k', b'e', b't', 0, 0];
    assert_eq!((&bytes[..2], &bytes[20..]), (&[0, 0x0b][..], &expected[..]));
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.attribute(), Ok(Some(ConnectionId(0x0102_0304))));
    assert_eq!(message.attribute(), Ok(Some(MobilityTicket(b"ticket"))));
    bytes[23] = 3;
    bytes[27] = 0;
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.attribute::<ConnectionId>(), Err(AttributeError::Length(0x002a)));
}
