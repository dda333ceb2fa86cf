//! What the builder writes, the parser reads back: every attribute, any value, in order.

use std::net::SocketAddr;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, AddressErrorCode, Attribute, ChannelNumberAttribute, Data, DontFragment,
    ErrorCodeAttribute, EvenPort, FINGERPRINT, Icmp, Lifetime, MESSAGE_INTEGRITY, Nonce, Realm, RequestedAddressFamily,
    RequestedTransport, ReservationToken, Software, UnknownAttributes, Username, XorMappedAddress, XorPeerAddress,
    XorRelayedAddress,
};
use hairpin_proto::stun::{Class, ErrorCode, Integrity, LongTermKey, Message, MessageBuilder, Method, TransactionId};
use proptest::prelude::*;

/// Values for one attribute of each type.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    pub(crate) id: TransactionId,
    pub(crate) text: String,
    pub(crate) addresses: [SocketAddr; 3],
    pub(crate) code: ErrorCode,
    pub(crate) unknown: Vec<[u8; 2]>,
    pub(crate) channel: u16,
    pub(crate) lifetime: u32,
    pub(crate) data: Vec<u8>,
    pub(crate) family: Result<AddressFamily, u8>,
    pub(crate) flag: bool,
    pub(crate) protocol: u8,
    pub(crate) token: [u8; 8],
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![any::<([u8; 4], u16)>().prop_map(SocketAddr::from), any::<([u8; 16], u16)>().prop_map(SocketAddr::from),]
}

pub(crate) fn values() -> impl Strategy<Value = Values> {
    let family = any::<u8>().prop_map(|number| AddressFamily::from_wire(number).ok_or(number)).boxed();
    let family = prop_oneof![Just(Ok(AddressFamily::V4)), Just(Ok(AddressFamily::V6)), family];
    (
        (any::<[u8; 12]>(), "\\PC{0,100}", [addresses(), addresses(), addresses()], 300..700_u16),
        (proptest::collection::vec(any::<[u8; 2]>(), 0..9), any::<u16>(), any::<u32>()),
        (proptest::collection::vec(any::<u8>(), 0..1400), family, any::<bool>(), any::<u8>(), any::<[u8; 8]>()),
    )
        .prop_map(
            |((id, text, addresses, code), (unknown, channel, lifetime), (data, family, flag, protocol, token))| {
                Values {
                    id: TransactionId(id),
                    text,
                    addresses,
                    code: ErrorCode::from_number(code).unwrap(),
                    unknown,
                    channel,
                    lifetime,
                    data,
                    family,
                    flag,
                    protocol,
                    token,
                }
            },
        )
}

/// Calls `$do!` with one attribute of each type that the codec knows.
macro_rules! each_attribute {
    ($values:expr, $do:ident) => {
        let values = &$values;
        $do!(Username(&values.text));
        $do!(Realm(&values.text));
        $do!(Nonce(&values.text));
        $do!(Software(&values.text));
        $do!(XorMappedAddress(values.addresses[0]));
        $do!(XorPeerAddress(values.addresses[1]));
        $do!(XorRelayedAddress(values.addresses[2]));
        $do!(ErrorCodeAttribute { code: values.code, reason: &values.text });
        $do!(UnknownAttributes(&values.unknown));
        $do!(ChannelNumberAttribute(values.channel));
        $do!(Lifetime(values.lifetime));
        $do!(Data(&values.data));
        $do!(RequestedAddressFamily(values.family));
        $do!(AdditionalAddressFamily(values.family));
        $do!(EvenPort { reserve_next: values.flag });
        $do!(RequestedTransport(values.protocol));
        $do!(DontFragment);
        $do!(ReservationToken(values.token));
        $do!(AddressErrorCode { family: AddressFamily::V6, code: values.code });
        $do!(Icmp { kind: values.protocol & 0x7f, code: values.channel & 0x1ff, error_data: values.lifetime });
    };
}
pub(crate) use each_attribute;

/// A message with all attributes, and their types in order.
pub(crate) fn everything(values: &Values, class: Class, method: Method) -> (Vec<u8>, Vec<u16>) {
    let (mut buffer, mut types) = (Vec::new(), Vec::new());
    let mut builder = MessageBuilder::new(&mut buffer, class, method, values.id);
    macro_rules! add {
        ($attribute:expr) => {
            let attribute = $attribute;
            types.push(type_of(&attribute));
            builder = builder.with(&attribute);
        };
    }
    each_attribute!(*values, add);
    builder.finish(false);
    (buffer, types)
}

fn type_of<'a, A: Attribute<'a>>(_: &A) -> u16 {
    A::TYPE
}

fn classes() -> impl Strategy<Value = Class> {
    prop::sample::select(vec![Class::Request, Class::Indication, Class::Success, Class::Error])
}

fn methods() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![
        Method::BINDING,
        Method::ALLOCATE,
        Method::REFRESH,
        Method::SEND,
        Method::DATA,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
        Method::CONNECT,
        Method::CONNECTION_BIND,
        Method::CONNECTION_ATTEMPT,
    ])
}

proptest! {
    #[test]
    fn every_attribute_alone(values in values()) {
        macro_rules! survives {
            ($attribute:expr) => {
                let attribute = $attribute;
                let mut buffer = vec![0xaa; 3];
                MessageBuilder::new(&mut buffer, Class::Request, Method::ALLOCATE, values.id)
                    .with_option(Some(&attribute))
                    .finish(false);
                prop_assert_eq!(&buffer[..3], [0xaa; 3], "what was in the buffer before is left alone");
                let message = Message::parse(&buffer[3..]).unwrap();
                prop_assert_eq!(message.attribute(), Ok(Some(attribute)));
            };
        }
        each_attribute!(values, survives);
    }

    #[test]
    fn all_attributes_together(values in values(), class in classes(), method in methods()) {
        let (bytes, types) = everything(&values, class, method);
        let message = Message::parse(&bytes).unwrap();

        prop_assert_eq!((message.class(), message.method()), (class, method));
        prop_assert_eq!(message.transaction_id(), values.id);
        prop_assert!(!message.has_integrity() && !message.has_fingerprint());
        prop_assert_eq!(message.attributes().map(|(kind, _)| kind).collect::<Vec<_>>(), &types[..]);
        macro_rules! is_there {
            ($attribute:expr) => {
                prop_assert_eq!(message.attribute(), Ok(Some($attribute)));
            };
        }
        each_attribute!(values, is_there);
        let required: Vec<_> = types.iter().copied().filter(|kind| *kind < 0x8000).collect();
        prop_assert_eq!(message.unknown_required(&[]).collect::<Vec<_>>(), required);
        prop_assert_eq!(message.unknown_required(&types).count(), 0);
    }

    #[test]
    fn an_absent_attribute_is_none(id in any::<[u8; 12]>()) {
        let mut buffer = Vec::new();
        MessageBuilder::new(&mut buffer, Class::Request, Method::REFRESH, TransactionId(id))
            .with_option(None::<&Lifetime>)
            .finish(true);
        prop_assert_eq!(Message::parse(&buffer).unwrap().attribute::<Lifetime>(), Ok(None));
    }

    #[test]
    fn repeated_attributes_keep_their_order(peers in proptest::collection::vec(addresses(), 0..8)) {
        let mut buffer = Vec::new();
        let id = TransactionId([7; 12]);
        let mut builder = MessageBuilder::new(&mut buffer, Class::Request, Method::CREATE_PERMISSION, id);
        for peer in &peers {
            builder = builder.with(&XorPeerAddress(*peer)).with(&Lifetime(1));
        }
        builder.finish(true);

        let message = Message::parse(&buffer).unwrap();
        let read: Vec<_> = message.each::<XorPeerAddress>().map(|peer| peer.unwrap().0).collect();
        prop_assert_eq!(&read, &peers);
        prop_assert_eq!(message.attribute(), Ok(peers.first().map(|first| XorPeerAddress(*first))));
    }

    #[test]
    fn integrity_covers_every_bit(values in values(), fingerprint in any::<bool>(), flip in any::<prop::sample::Index>()) {
        let key = LongTermKey::derive("alice", "example.org", "secret");
        let mut buffer = Vec::new();
        MessageBuilder::new(&mut buffer, Class::Request, Method::ALLOCATE, values.id)
            .with(&Data(&values.data))
            .with(&Username(&values.text))
            .with_integrity(&key, Integrity::Sha1)
            .finish(fingerprint);

        let message = Message::parse(&buffer).unwrap();
        prop_assert_eq!(message.has_fingerprint(), fingerprint);
        prop_assert!(message.verify_integrity(&key));
        prop_assert!(!message.verify_integrity(&LongTermKey::derive("alice", "example.org", "Secret")));
        prop_assert_eq!(message.find(MESSAGE_INTEGRITY), None, "it is no attribute to look at, only to verify");

        let end = buffer.len() - if fingerprint { 8 } else { 0 };
        let bit = flip.index(end * 8);
        buffer[bit / 8] ^= 1 << (bit % 8);
        let authentic = Message::parse(&buffer).is_ok_and(|message| message.verify_integrity(&key));
        prop_assert!(!authentic, "bit {} of {:02x?}", bit, buffer);
    }

    #[test]
    fn fingerprint_covers_every_bit(values in values(), flip in any::<prop::sample::Index>()) {
        let (mut buffer, _) = everything(&values, Class::Request, Method::ALLOCATE);
        buffer.clear();
        MessageBuilder::new(&mut buffer, Class::Success, Method::BINDING, values.id)
            .with(&XorMappedAddress(values.addresses[0]))
            .with_fingerprint();
        prop_assert!(Message::parse(&buffer).unwrap().has_fingerprint());
        prop_assert_eq!(Message::parse(&buffer).unwrap().find(FINGERPRINT), None);

        let bit = flip.index(buffer.len() * 8);
        buffer[bit / 8] ^= 1 << (bit % 8);
        // A flip in its own type makes it another attribute: then the message has none.
        let accepted = Message::parse(&buffer).is_ok_and(|message| message.has_fingerprint());
        prop_assert!(!accepted, "bit {} of {:02x?}", bit, buffer);
    }
}
