//! Attributes of RFC 5780 and the plain addresses, byte by byte as the RFCs draw them.

use hairpin_proto::stun::attribute::{
    AlternateDomain, AlternateServerAttribute, Attribute, AttributeError, ChangeRequest, MappedAddress, OtherAddress,
    Padding, ResponseOrigin, ResponsePort,
};
use hairpin_proto::stun::{Class, Message, MessageBuilder, Method, TransactionId};
use proptest::prelude::*;
use stun_types::attribute as stun;
use stun_types::message as theirs;

const ID: TransactionId = TransactionId(*b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae");

fn written<'a, A: Attribute<'a>>(attribute: &A) -> Vec<u8> {
    let mut message = Vec::new();
    MessageBuilder::new(&mut message, Class::Success, Method::BINDING, ID).with(attribute).finish(false);
    assert!(Message::parse(&message).is_ok());
    message.split_off(20)
}

fn read<'a, A: Attribute<'a>>(value: &'a [u8]) -> Result<A, AttributeError> {
    A::decode(value, &ID)
}

#[test]
fn plain_addresses_are_not_mixed_with_anything() {
    const V4: [u8; 8] = [0, 1, 0x80, 0x55, 192, 0, 2, 1];
    let v6 = [&[0, 2, 0x80, 0x55][..], &[0x20, 1, 0x0d, 0xb8], &[0; 11], &[1]].concat();
    let [four, six] = ["192.0.2.1:32853", "[2001:db8::1]:32853"].map(|text| text.parse().unwrap());
    assert_eq!(written(&MappedAddress(four)), [&[0x00, 0x01, 0, 8][..], &V4].concat());
    assert_eq!(written(&AlternateServerAttribute(four)), [&[0x80, 0x23, 0, 8][..], &V4].concat());
    assert_eq!(written(&ResponseOrigin(four)), [&[0x80, 0x2b, 0, 8][..], &V4].concat());
    assert_eq!(written(&OtherAddress(six)), [&[0x80, 0x2c, 0, 20][..], &v6].concat());
    assert_eq!(read(&V4), Ok(MappedAddress(four)));
    assert_eq!(read(&v6), Ok(OtherAddress(six)));
    assert_eq!(read::<MappedAddress>(&V4[..7]), Err(AttributeError::Length(0x0001)));
    assert_eq!(read::<OtherAddress>(&[0, 3, 0, 0, 0, 0, 0, 0]), Err(AttributeError::Value(0x802c)));
}

#[test]
fn change_request_has_two_flags() {
    for (ip, port, flags) in [(false, false, 0), (true, false, 4), (false, true, 2), (true, true, 6)] {
        let change = ChangeRequest { ip, port };
        assert_eq!(written(&change), [0x00, 0x03, 0, 4, 0, 0, 0, flags]);
        assert_eq!(read(&[0, 0, 0, flags]), Ok(change));
        assert_eq!(read(&[0xff, 0xff, 0xff, flags | 0xf9]), Ok(change));
    }
    assert_eq!(read::<ChangeRequest>(&[0, 0, 6]), Err(AttributeError::Length(0x0003)));
}

#[test]
fn response_port_is_followed_by_two_bytes() {
    assert_eq!(written(&ResponsePort(0x1234)), [0x00, 0x27, 0, 4, 0x12, 0x34, 0, 0]);
    assert_eq!(read(&[0x12, 0x34, 9, 9]), Ok(ResponsePort(0x1234)));
    assert_eq!(read(&[0x12, 0x34]), Ok(ResponsePort(0x1234)), "as if they were padding of the attribute");
    assert_eq!(read::<ResponsePort>(&[0x12, 0x34, 0]), Err(AttributeError::Length(0x0027)));
}

#[test]
fn padding_is_as_long_as_it_is() {
    assert_eq!(written(&Padding(3)), [0x00, 0x26, 0, 3, 0, 0, 0, 0]);
    assert_eq!(read(b"whatever"), Ok(Padding(8)));
    assert_eq!(read(&[]), Ok(Padding(0)));
}

#[test]
fn a_domain_is_no_longer_than_a_name_can_be() {
    assert_eq!(written(&AlternateDomain("a.example")), *b"\x80\x03\x00\x09a.example\x00\x00\x00");
    assert_eq!(read(&[b'a'; 256]), Err::<AlternateDomain<'_>, _>(AttributeError::Length(0x8003)));
    assert!(read::<AlternateDomain<'_>>(&[b'a'; 255]).is_ok());
}

fn round_trip<A: for<'a> Attribute<'a> + PartialEq + std::fmt::Debug>(attribute: &A) -> Result<(), TestCaseError> {
    let mut message = Vec::new();
    MessageBuilder::new(&mut message, Class::Success, Method::BINDING, ID).with(attribute).finish(true);
    let read: Option<A> = Message::parse(&message).unwrap().attribute().unwrap();
    prop_assert_eq!(read.as_ref(), Some(attribute));
    Ok(())
}

proptest! {
    #[test]
    fn every_value_is_read_back(ip in any::<[u8; 16]>(), v4 in any::<[u8; 4]>(), port in any::<u16>(), flags in any::<[bool; 2]>()) {
        for address in [(ip, port).into(), (v4, port).into()] {
            round_trip(&MappedAddress(address))?;
            round_trip(&AlternateServerAttribute(address))?;
            round_trip(&ResponseOrigin(address))?;
            round_trip(&OtherAddress(address))?;
        }
        let [ip, port_too] = flags;
        round_trip(&ChangeRequest { ip, port: port_too })?;
        round_trip(&ResponsePort(port))?;
        round_trip(&Padding(port.min(65_000)))?;
    }

    #[test]
    fn noise_is_read_without_a_panic(value in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read::<MappedAddress>(&value);
        let _ = read::<ChangeRequest>(&value);
        let _ = read::<ResponsePort>(&value);
        let _ = read::<AlternateDomain<'_>>(&value);
        prop_assert_eq!(read(&value), Ok(Padding(value.len() as u16)));
    }
}

#[test]
fn others_read_where_a_client_is_sent_to() {
    for address in ["192.0.2.1:3478", "[2001:db8::1]:5349"].map(|text| text.parse().unwrap()) {
        let mut bytes = Vec::new();
        MessageBuilder::new(&mut bytes, Class::Error, Method::ALLOCATE, ID)
            .with(&AlternateServerAttribute(address))
            .with(&AlternateDomain("turn.example.org"))
            .finish(true);
        let message = theirs::Message::from_bytes(&bytes).unwrap();
        assert_eq!(message.attribute::<stun::AlternateServer>().unwrap().server(), address);
        assert_eq!(message.attribute::<stun::AlternateDomain>().unwrap().domain(), "turn.example.org");
    }
}
