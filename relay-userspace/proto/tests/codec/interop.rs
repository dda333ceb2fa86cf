//! The codec against stun-types and turn-types, which share no line with it.

use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, AddressErrorCode, ChannelNumberAttribute, Data, DontFragment, ErrorCodeAttribute,
    EvenPort, Icmp, Lifetime, Nonce, Realm, RequestedAddressFamily, RequestedTransport, ReservationToken, Software,
    UnknownAttributes, Username, XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};
use hairpin_proto::stun::{Class, Integrity, LongTermKey, Message, MessageBuilder, Method, TransactionId};
use proptest::prelude::*;
use stun_types::attribute as stun;
use stun_types::message as theirs;
use stun_types::message::{IntegrityAlgorithm, MessageWrite, MessageWriteExt, MessageWriteVec};
use turn_types::attribute as turn;

use crate::round_trip::{Values, each_attribute, values};

fn their_id(id: TransactionId) -> theirs::TransactionId {
    let mut bytes = [0; 16];
    bytes[4..].copy_from_slice(&id.0);
    u128::from_be_bytes(bytes).into()
}

fn their_credentials() -> theirs::MessageIntegrityCredentials {
    theirs::LongTermKeyCredentials::new("alice".to_owned(), "secret".to_owned(), "example.org".to_owned()).into()
}

fn our_key() -> LongTermKey {
    LongTermKey::derive("alice", "example.org", "secret")
}

/// They refuse every ADDITIONAL-ADDRESS-FAMILY but IPv6, which is all that RFC 8656 section 18.11 allows; we leave it to
/// the server to answer the others.
fn values_of_ipv6() -> impl Strategy<Value = Values> {
    values().prop_map(|values| Values { family: Ok(AddressFamily::V6), ..values })
}

/// They split type and code in the middle of the two bytes that have both; RFC 8656 section 18.13 draws 7 bits and 9.
fn their_icmp(values: &Values) -> [u8; 2] {
    (u16::from(values.protocol & 0x7f) << 9 | values.channel & 0x1ff).to_be_bytes()
}

proptest! {
    #[test]
    fn they_read_what_we_write(values in values_of_ipv6(), fingerprint in any::<bool>()) {
        let mut bytes = Vec::new();
        let mut builder = MessageBuilder::new(&mut bytes, Class::Request, Method::ALLOCATE, values.id);
        macro_rules! add {
            ($attribute:expr) => {
                builder = builder.with(&$attribute);
            };
        }
        each_attribute!(values, add);
        builder.with_integrity(&our_key(), Integrity::Sha1).finish(fingerprint);

        let message = theirs::Message::from_bytes(&bytes).unwrap();
        let id = message.transaction_id();
        prop_assert_eq!(id, their_id(values.id));
        prop_assert_eq!(message.class(), theirs::MessageClass::Request);
        prop_assert_eq!(message.method(), turn_types::message::ALLOCATE);
        prop_assert!(message.validate_integrity(&their_credentials()).is_ok());
        prop_assert_eq!(message.attribute::<stun::Fingerprint>().is_ok(), fingerprint);

        assert_eq!(message.attribute::<stun::Username>().unwrap().username(), &values.text);
        assert_eq!(message.attribute::<stun::Realm>().unwrap().realm(), &values.text);
        assert_eq!(message.attribute::<stun::Nonce>().unwrap().nonce(), &values.text);
        assert_eq!(message.attribute::<stun::Software>().unwrap().software(), &values.text);
        prop_assert_eq!(message.attribute::<stun::XorMappedAddress>().unwrap().addr(id), values.addresses[0]);
        prop_assert_eq!(message.attribute::<turn::XorPeerAddress>().unwrap().addr(id), values.addresses[1]);
        prop_assert_eq!(message.attribute::<turn::XorRelayedAddress>().unwrap().addr(id), values.addresses[2]);
        let error = message.attribute::<stun::ErrorCode>().unwrap();
        prop_assert_eq!((error.code(), error.reason()), (values.code.number(), &*values.text));
        let unknown = message.attribute::<stun::UnknownAttributes>().unwrap();
        for kind in &values.unknown {
            prop_assert!(unknown.has_attribute(stun::AttributeType::new(u16::from_be_bytes(*kind))));
        }
        prop_assert_eq!(message.attribute::<turn::ChannelNumber>().unwrap().channel(), values.channel);
        prop_assert_eq!(message.attribute::<turn::Lifetime>().unwrap().seconds(), values.lifetime);
        assert_eq!(message.attribute::<turn::Data>().unwrap().data(), &values.data);
        let family = stun_types::AddressFamily::IPV6;
        prop_assert_eq!(message.attribute::<turn::RequestedAddressFamily>().unwrap().family(), family);
        prop_assert_eq!(message.attribute::<turn::AdditionalAddressFamily>().unwrap().family(), family);
        prop_assert_eq!(message.attribute::<turn::EvenPort>().unwrap().requested(), values.flag);
        prop_assert_eq!(message.attribute::<turn::RequestedTransport>().unwrap().protocol(), values.protocol);
        prop_assert!(message.attribute::<turn::DontFragment>().is_ok());
        let token = message.attribute::<turn::ReservationToken>().unwrap().token();
        prop_assert_eq!(token, u64::from_be_bytes(values.token));
        let address_error = message.attribute::<turn::AddressErrorCode>().unwrap();
        prop_assert_eq!(address_error.family(), stun_types::AddressFamily::IPV6);
        prop_assert_eq!(address_error.error().code(), values.code.number());
        let icmp = message.attribute::<turn::Icmp>().unwrap();
        let [high, low] = their_icmp(&values);
        prop_assert_eq!((icmp.icmp_type(), icmp.code(), icmp.data()), (high, low, values.lifetime));
    }

    #[test]
    fn we_read_what_they_write(values in values_of_ipv6(), fingerprint in any::<bool>()) {
        let id = their_id(values.id);
        let kind = theirs::MessageType::from_class_method(theirs::MessageClass::Success, turn_types::message::REFRESH);
        let mut builder = theirs::Message::builder(kind, id, MessageWriteVec::new());
        let family = stun_types::AddressFamily::IPV6;
        let mut unknown = stun::UnknownAttributes::new(&[]);
        let mut listed: Vec<[u8; 2]> = Vec::new();
        for kind in &values.unknown {
            // They keep a set.
            if !listed.contains(kind) {
                listed.push(*kind);
                unknown.add_attribute(stun::AttributeType::new(u16::from_be_bytes(*kind)));
            }
        }
        let code = values.code.number();
        let error = || stun::ErrorCode::new(code, &values.text).unwrap();
        builder.add_attribute(&stun::Username::new(&values.text).unwrap()).unwrap();
        builder.add_attribute(&stun::Realm::new(&values.text).unwrap()).unwrap();
        builder.add_attribute(&stun::Nonce::new(&values.text).unwrap()).unwrap();
        builder.add_attribute(&stun::Software::new(&values.text).unwrap()).unwrap();
        builder.add_attribute(&stun::XorMappedAddress::new(values.addresses[0], id)).unwrap();
        builder.add_attribute(&turn::XorPeerAddress::new(values.addresses[1], id)).unwrap();
        builder.add_attribute(&turn::XorRelayedAddress::new(values.addresses[2], id)).unwrap();
        builder.add_attribute(&error()).unwrap();
        builder.add_attribute(&unknown).unwrap();
        builder.add_attribute(&turn::ChannelNumber::new(values.channel)).unwrap();
        builder.add_attribute(&turn::Lifetime::new(values.lifetime)).unwrap();
        builder.add_attribute(&turn::Data::new(&values.data)).unwrap();
        builder.add_attribute(&turn::RequestedAddressFamily::new(family)).unwrap();
        builder.add_attribute(&turn::AdditionalAddressFamily::new(family)).unwrap();
        builder.add_attribute(&turn::EvenPort::new(values.flag)).unwrap();
        builder.add_attribute(&turn::RequestedTransport::new(values.protocol)).unwrap();
        builder.add_attribute(&turn::DontFragment::new()).unwrap();
        builder.add_attribute(&turn::ReservationToken::new(u64::from_be_bytes(values.token))).unwrap();
        builder.add_attribute(&turn::AddressErrorCode::new(stun_types::AddressFamily::IPV6, error())).unwrap();
        let [high, low] = their_icmp(&values);
        builder.add_attribute(&turn::Icmp::new(high, low, values.lifetime)).unwrap();
        builder.add_message_integrity(&their_credentials(), IntegrityAlgorithm::Sha1).unwrap();
        if fingerprint {
            builder.add_fingerprint().unwrap();
        }
        let bytes = builder.finish();

        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!((message.class(), message.method()), (Class::Success, Method::REFRESH));
        prop_assert_eq!(message.transaction_id(), values.id);
        prop_assert_eq!(message.has_fingerprint(), fingerprint);
        prop_assert!(message.verify_integrity(&our_key()));
        prop_assert_eq!(message.attributes().count(), 20);
        let values = Values { unknown: listed, ..values };
        macro_rules! is_there {
            ($attribute:expr) => {
                prop_assert_eq!(message.attribute(), Ok(Some($attribute)));
            };
        }
        each_attribute!(values, is_there);
    }
}

#[test]
fn they_accept_an_error_response_of_ours() {
    let mut bytes = Vec::new();
    MessageBuilder::error(
        &mut bytes,
        Method::ALLOCATE,
        TransactionId([1; 12]),
        hairpin_proto::stun::ErrorCode::ALLOCATION_MISMATCH,
    )
    .finish(true);
    let message = theirs::Message::from_bytes(&bytes).unwrap();
    assert_eq!(message.class(), theirs::MessageClass::Error);
    let error = message.attribute::<stun::ErrorCode>().unwrap();
    assert_eq!((error.code(), error.reason()), (437, "Allocation Mismatch"));
}

#[test]
fn both_write_the_family_ipv4_alike() {
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::ALLOCATE, TransactionId([1; 12]))
        .with(&RequestedAddressFamily(Ok(AddressFamily::V4)))
        .finish(false);
    let message = theirs::Message::from_bytes(&bytes).unwrap();
    let family = message.attribute::<turn::RequestedAddressFamily>().unwrap().family();
    assert_eq!(family, stun_types::AddressFamily::IPV4);
}
