//! What is reserved is written as zero and is not looked at.

use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::attribute::{
    AddressErrorCode, Attribute, ChangeRequest, ChannelNumberAttribute, ErrorCodeAttribute, EvenPort, Icmp,
    MappedAddress, RequestedAddressFamily, RequestedTransport, ResponsePort, XorPeerAddress,
};
use hairpin_proto::stun::{ErrorCode, TransactionId};

const ID: TransactionId = TransactionId([0x5a; 12]);

/// `reserved` has ones where the value has reserved bits.
#[track_caller]
fn check<A: for<'a> Attribute<'a> + PartialEq + std::fmt::Debug>(attribute: &A, reserved: &[u8]) {
    let mut value = Vec::new();
    attribute.encode(&mut value, &ID);
    assert!(value.iter().zip(reserved).all(|(byte, mask)| byte & mask == 0), "{value:02x?}");
    let filled: Vec<u8> =
        value.iter().enumerate().map(|(at, byte)| byte | reserved.get(at).copied().unwrap_or(0)).collect();
    assert_eq!(A::decode(&filled, &ID).as_ref(), Ok(attribute));
}

#[test]
fn reserved_bits_are_zero_and_are_ignored() {
    check(&XorPeerAddress("192.0.2.1:53".parse().unwrap()), &[0xff]);
    check(&XorPeerAddress("[2001:db8::1]:53".parse().unwrap()), &[0xff]);
    check(&MappedAddress("192.0.2.1:53".parse().unwrap()), &[0xff]);
    check(&ChangeRequest { ip: true, port: false }, &[0xff, 0xff, 0xff, 0xf9]);
    check(&ResponsePort(53), &[0, 0, 0xff, 0xff]);
    check(&ChannelNumberAttribute(0x4000), &[0, 0, 0xff, 0xff]);
    check(&RequestedTransport(17), &[0, 0xff, 0xff, 0xff]);
    check(&RequestedAddressFamily(Ok(AddressFamily::V6)), &[0, 0xff, 0xff, 0xff]);
    check(&EvenPort { reserve_next: true }, &[0x7f]);
    check(&Icmp { kind: 3, code: 4, error_data: 5 }, &[0xff, 0xff]);
    // The first byte is the family.
    check(&AddressErrorCode { family: AddressFamily::V6, code: ErrorCode::FORBIDDEN }, &[0, 0xff, 0xf8]);
}

#[test]
fn reserved_bits_of_an_error_code_are_zero_and_are_ignored() {
    let error = ErrorCodeAttribute { code: ErrorCode::UNKNOWN_ATTRIBUTE, reason: "no" };
    let mut value = Vec::new();
    error.encode(&mut value, &ID);
    assert_eq!(value, [0, 0, 4, 20, b'n', b'o']);
    let filled = [0xff, 0xff, 0xfc, 20, b'n', b'o'];
    assert_eq!(ErrorCodeAttribute::decode(&filled, &ID), Ok(error));
}

#[test]
fn every_error_has_a_reason_that_a_client_can_read() {
    for code in ErrorCode::ALL {
        assert!((1..128).contains(&code.reason().chars().count()), "{code:?}");
        let mut value = Vec::new();
        ErrorCodeAttribute { code: *code, reason: code.reason() }.encode(&mut value, &ID);
        assert!((3..=6).contains(&value[2]) && value[3] < 100, "{code:?}");
        assert_eq!(u16::from(value[2]) * 100 + u16::from(value[3]), code.number());
    }
}
