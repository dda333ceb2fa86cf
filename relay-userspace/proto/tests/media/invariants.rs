//! What holds whatever remotes, operators and time do: see [`model`](crate::model).

use hairpin_proto::media::{LegKind, Side};
use proptest::prelude::*;

use crate::model::{By, Change, Flaw, PORTS, Place, RULE_COUNT, SOURCE_COUNT, Step, Times, World};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![3 => making(), 3 => remote(), 12 => datagram(), 5 => time(), 2 => operator()]
}

fn kind() -> impl Strategy<Value = LegKind> {
    prop_oneof![4 => Just(LegKind::Ice), 1 => any::<bool>().prop_map(|latch| LegKind::Plain { latch })]
}

fn times() -> impl Strategy<Value = Times> {
    let idle = proptest::option::of(prop_oneof![20..100_u16, Just(300)]);
    (prop_oneof![1..60_u16, Just(300)], prop_oneof![4 => Just(30), 1 => 1..400_u16], 1..90_u16, idle)
        .prop_map(|(setup, consent, paused, idle)| Times { setup, consent, paused, idle })
}

fn place() -> impl Strategy<Value = Place> {
    let side = any::<bool>().prop_map(|a| if a { Side::A } else { Side::B });
    (0..3_usize, side, 0..3_usize, 0..2_usize).prop_map(|(session, side, path, base)| Place {
        session,
        side,
        path,
        base,
    })
}

fn making() -> impl Strategy<Value = Step> {
    let families = proptest::array::uniform2(any::<bool>());
    let components = prop_oneof![3 => Just(vec![1]), 1 => Just(vec![2]), 1 => Just(vec![1, 2])];
    let (session, stream) = (0..3_usize, 0..3_usize);
    prop_oneof![
        6 => (kind(), kind(), components, families, times()).prop_map(|(a, b, components, families, timeouts)| {
            Step::Create { kinds: [a, b], components, families, timeouts }
        }),
        1 => (session.clone(), 1..3_u16).prop_map(|(session, components)| Step::AddStream { session, components }),
        1 => (session.clone(), stream.clone()).prop_map(|(session, stream)| Step::RemoveStream { session, stream }),
        1 => (session.clone(), stream).prop_map(|(session, stream)| Step::RemoveRtcp { session, stream }),
        1 => session.prop_map(|session| Step::Close { session }),
    ]
}

fn remote() -> impl Strategy<Value = Step> {
    let source = 0..SOURCE_COUNT;
    prop_oneof![
        2 => place().prop_map(|place| Step::Full { place }),
        1 => (place(), source.clone()).prop_map(|(place, source)| Step::Lite { place, source }),
        4 => (place(), proptest::option::of(source), any::<bool>())
            .prop_map(|(place, source, latch)| Step::Plain { place, source, latch }),
        2 => place().prop_map(|place| Step::Restart { place }),
    ]
}

fn flaw() -> impl Strategy<Value = Flaw> {
    use Flaw::{Controlled, Indication, NoFingerprint, NoIntegrity, NoPriority, NoUsername, Unknown};
    let named = vec![NoFingerprint, NoUsername, NoIntegrity, NoPriority, Controlled, Unknown, Indication];
    prop_oneof![3 => proptest::sample::select(named), 1 => any::<u16>().prop_map(Flaw::Flipped)]
}

fn datagram() -> impl Strategy<Value = Step> {
    let source = 0..SOURCE_COUNT;
    let by = prop_oneof![
        12 => Just(By::Before(0)),
        4 => Just(By::Before(1)),
        1 => Just(By::Before(2)),
        1 => Just(By::Other),
        1 => Just(By::Guess),
    ];
    let flaw = proptest::option::weighted(0.2, flaw());
    prop_oneof![
        8 => (place(), source.clone(), by, any::<bool>(), prop_oneof![1..4_u32, any::<u32>()], flaw).prop_map(
            |(place, source, by, nominates, priority, flaw)| Step::Check { place, source, by, nominates, priority, flaw }
        ),
        3 => (place(), source.clone(), any::<u8>(), 0..40_u16)
            .prop_map(|(place, source, first, length)| Step::Media { place, source, first, length }),
        1 => (place(), source, proptest::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(place, source, bytes)| Step::Noise { place, source, bytes }),
        1 => (place(), 0..3_u8).prop_map(|(place, packets)| Step::Fast { place, packets }),
    ]
}

fn time() -> impl Strategy<Value = Step> {
    let milliseconds = prop_oneof![
        4 => 0..3000_u64,
        4 => (1..40_u64).prop_map(|seconds| seconds * 1000),
        1 => 40_000..400_000_u64,
    ];
    (milliseconds, proptest::bool::weighted(0.8)).prop_map(|(milliseconds, timers)| Step::Time { milliseconds, timers })
}

/// Mostly one difference, or none.
fn operator() -> impl Strategy<Value = Step> {
    let rarely = || proptest::bool::weighted(0.2);
    let rules = proptest::array::uniform::<_, RULE_COUNT>(rarely());
    let change = (rules, proptest::array::uniform2(rarely()), rarely()).prop_map(|(rules, gone, low)| Change {
        rules,
        gone,
        low,
    });
    prop_oneof![
        3 => change.prop_map(Step::Reconfigure),
        2 => Just(Step::Reconfigure(Change::default())),
        3 => (0..3_usize, times()).prop_map(|(session, times)| Step::Update { session, times }),
        2 => PORTS.prop_map(|port| Step::Take { port }),
        1 => any::<bool>().prop_map(|v6| Step::Break { v6 }),
        1 => proptest::option::weighted(0.5, 0..8_usize).prop_map(|sockets| Step::Left { sockets }),
        1 => Just(Step::ShutDown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_sent_without_consent_or_taken_from_strangers_and_nothing_is_left_in_the_end(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.shut_down();
    }
}
