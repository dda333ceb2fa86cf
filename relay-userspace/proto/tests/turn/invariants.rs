//! What holds whatever clients, peers and time do: see [`model`](crate::model).

use hairpin_proto::turn::{BindError, Disposition};
use proptest::prelude::*;

use crate::harness::{Client, Relay};
use crate::model::{ADDRESSES, CHANNELS, CLIENTS, Change, PEERS, PORTS, RULE_COUNT, Step, USERS, World};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![12 => request(), 8 => other_input(), 4 => time(), 3 => operator()]
}

/// Mostly one difference, or none.
fn operator() -> impl Strategy<Value = Step> {
    let mostly = |there: bool| proptest::bool::weighted(if there { 0.8 } else { 0.2 });
    let rules = proptest::array::uniform::<_, RULE_COUNT>(mostly(false));
    let addresses =
        (mostly(true), mostly(false), mostly(true)).prop_map(|(v4, new, v6)| [v4, new, v6] as [bool; ADDRESSES]);
    let users = (mostly(true), mostly(true)).prop_map(|(alice, bob)| [alice, bob] as [bool; USERS]);
    let change = (rules, addresses, users, mostly(false), mostly(false))
        .prop_map(|(rules, addresses, users, retired, low)| Change { rules, addresses, users, retired, low });
    prop_oneof![
        4 => change.prop_map(Step::Reconfigure),
        2 => Just(Step::Reconfigure(Change::default())),
        2 => (0..CLIENTS, any::<bool>()).prop_map(|(client, drained)| Step::Close { client, drained }),
    ]
}

fn request() -> impl Strategy<Value = Step> {
    let (client, user) = (0..CLIENTS, prop_oneof![4 => Just(0), 1 => 0..USERS]);
    let lifetime = proptest::option::of(prop_oneof![Just(0_u32), 1..5000_u32]);
    let later = proptest::bool::weighted(0.2);
    let family = any::<Option<bool>>();
    let even = any::<Option<bool>>();
    prop_oneof![
        4 => (client.clone(), user.clone(), family, any::<bool>(), even, lifetime.clone(), later).prop_map(
            |(client, user, v6, additional, even, lifetime, later)| Step::Allocate {
                client, user, v6, additional, even, lifetime, later
            }
        ),
        1 => (client.clone(), user.clone(), later)
            .prop_map(|(client, user, later)| Step::Redeem { client, user, later }),
        2 => (client.clone(), user.clone(), lifetime, any::<Option<bool>>())
            .prop_map(|(client, user, lifetime, v6)| Step::Refresh { client, user, lifetime, v6 }),
        4 => (client.clone(), user.clone(), proptest::collection::vec(0..PEERS.len(), 0..3))
            .prop_map(|(client, user, peers)| Step::Permit { client, user, peers }),
        6 => (client.clone(), user, 0..CHANNELS.len(), 0..PEERS.len())
            .prop_map(|(client, user, channel, peer)| Step::Bind { client, user, channel, peer }),
        1 => client.clone().prop_map(|client| Step::Repeat { client }),
        1 => client.prop_map(|client| Step::WrongPassword { client }),
    ]
}

fn other_input() -> impl Strategy<Value = Step> {
    let (client, at, peer) = (0..CLIENTS, 0..4_usize, 0..PEERS.len());
    let failure = proptest::sample::select(&[None, None, Some(BindError::InUse), Some(BindError::Unavailable)][..]);
    prop_oneof![
        2 => (client.clone(), proptest::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(client, bytes)| Step::Noise { client, bytes }),
        2 => (client.clone(), proptest::option::of(0..CHANNELS.len()), peer.clone(), 0..2000_u16)
            .prop_map(|(client, channel, peer, length)| Step::ToPeer { client, channel, peer, length }),
        2 => (at.clone(), peer.clone(), prop_oneof![0..2000_u16, 65_400..=u16::MAX])
            .prop_map(|(at, peer, length)| Step::FromPeer { at, peer, length }),
        1 => (at.clone(), peer, 0..12_u8, 0..6_u8, any::<u32>())
            .prop_map(|(at, peer, kind, code, mtu)| Step::Icmp { at, peer, kind, code, mtu }),
        3 => (at.clone(), failure).prop_map(|(at, failure)| Step::Answer { at, failure }),
        1 => PORTS.prop_map(|port| Step::Take { port }),
        1 => any::<bool>().prop_map(|v6| Step::Break { v6 }),
        1 => at.prop_map(|at| Step::LoseSocket { at }),
        1 => client.prop_map(|client| Step::LoseClient { client }),
    ]
}

fn time() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (prop_oneof![1..20_u64, 100..700_u64], any::<bool>())
            .prop_map(|(seconds, timers)| Step::Time { seconds, timers }),
        1 => Just(Step::ShutDown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_forwarded_without_a_right_and_nothing_is_left_in_the_end(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.shut_down();
    }

    #[test]
    fn noise_that_looks_like_a_message_is_answered_or_dropped_and_changes_nothing(
        kind in prop_oneof![
            proptest::sample::select(&[0x0001_u16, 0x0003, 0x0004, 0x0008, 0x0009, 0x0016][..]),
            any::<u16>(),
        ],
        body in proptest::collection::vec(any::<u8>(), 0..200),
        whole in any::<bool>(),
    ) {
        let mut relay = Relay::default();
        let mut client = Client::alice("203.0.113.7:41000");
        relay.allocate(&mut client);
        let body = if whole { &body[..body.len() & !3] } else { &body[..] };
        let mut datagram = kind.to_be_bytes().to_vec();
        datagram.extend_from_slice(&(body.len() as u16).to_be_bytes());
        datagram.extend_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
        datagram.extend_from_slice(&[5; 12]);
        datagram.extend_from_slice(body);
        let timeout = relay.server.poll_timeout();
        let disposition = relay.client_sends(&client, &datagram);
        prop_assert!(!matches!(disposition, Disposition::Forward(_)), "{disposition:?}");
        let control = disposition == Disposition::Control;
        let events = relay.drain();
        prop_assert_eq!(events.len(), usize::from(control));
        prop_assert_eq!(relay.server.poll_timeout(), timeout);
        prop_assert_eq!(relay.server.allocations(), 1);
    }
}
