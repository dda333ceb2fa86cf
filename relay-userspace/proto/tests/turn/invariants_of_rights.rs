//! Who is let in, and how much each may have, whatever clients, settings, the directory and time do.
//!
//! A model without timers says of each request how it has to end, and keeps its own book of what everybody has. It does
//! not say which ports are picked, only whose they may be.

use hairpin_proto::turn::BindError;
use proptest::prelude::*;

use crate::people::{Directory, Knows, PEOPLE, Person, RealmRules, Rules};
use crate::world_of_rights::{Action, PLACES, Reply, Step, World};

fn step() -> impl Strategy<Value = Step> {
    let directory = (0..2_usize, directory()).prop_map(|(realm, directory)| Step::Directory { realm, directory });
    let failure = proptest::sample::select(&[None, None, Some(BindError::InUse), Some(BindError::Unavailable)][..]);
    let seconds = prop_oneof![1..20_u64, 28..32_u64, 55..65_u64, 100..400_u64, 590..1000_u64];
    prop_oneof![
        24 => request(),
        3 => (0..4_usize).prop_map(|at| Step::Deliver { at }),
        3 => (0..4_usize, reply()).prop_map(|(at, reply)| Step::Learn { at, reply }),
        3 => (0..4_usize, failure).prop_map(|(at, failure)| Step::Bind { at, failure }),
        3 => directory,
        3 => rules().prop_map(Step::Reconfigure),
        2 => (0..PLACES).prop_map(|place| Step::Lose { place }),
        1 => (0..4_usize).prop_map(|at| Step::Close { at }),
        1 => proptest::bool::weighted(0.3).prop_map(|taken| Step::Take { taken }),
        6 => seconds.prop_map(|seconds| Step::Time { seconds }),
    ]
}

fn request() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        6 => (proptest::bool::weighted(0.2), any::<bool>())
            .prop_map(|(pair, mobile)| Action::Allocate { pair, mobile }),
        4 => proptest::bool::weighted(0.2).prop_map(|ends| Action::Refresh { ends }),
        3 => (0..4_usize).prop_map(|at| Action::Move { at }),
    ];
    let knows = (prop_oneof![4 => Just(0_u8), 1 => Just(1)], 0..200_u32)
        .prop_map(|(password, seconds)| Knows { password, seconds });
    // The same as before, most of the time: then there is something to go on with.
    let who = (person(), knows, proptest::bool::weighted(0.6), any::<bool>());
    let replies = (reply(), reply());
    (0..PLACES, action, who, replies, proptest::bool::weighted(0.3), proptest::bool::weighted(0.2)).prop_map(
        |(place, action, (person, knows, same, token), replies, renews, waits)| Step::Request {
            place,
            action,
            person,
            knows,
            same,
            token,
            replies: [replies.0, replies.1],
            renews,
            waits,
        },
    )
}

fn person() -> impl Strategy<Value = Person> {
    proptest::sample::select(&PEOPLE[..])
}

fn reply() -> impl Strategy<Value = Reply> {
    let replies = [Reply::True, Reply::Another, Reply::Refused, Reply::Unavailable, Reply::Late, Reply::Never];
    prop_oneof![5 => Just(Reply::True), 3 => proptest::sample::select(replies.to_vec())]
}

fn directory() -> impl Strategy<Value = Directory> {
    let mostly = || proptest::bool::weighted(0.8);
    let password = || proptest::option::weighted(0.8, prop_oneof![3 => Just(0_u8), 1 => Just(1)]);
    let admits_to = proptest::option::weighted(0.3, 0..3_u32);
    (mostly(), password(), password(), mostly(), mostly(), any::<bool>(), mostly(), admits_to).prop_map(
        |(alice, carol, dave, knows_secret, knows_token_key, admits_at_once, admits, admits_to)| Directory {
            alice,
            carol,
            dave,
            knows_secret,
            knows_token_key,
            admits_at_once,
            admits,
            admits_to,
        },
    )
}

fn rules() -> impl Strategy<Value = Rules> {
    let realms = [realm_rules(), realm_rules()];
    (realms, proptest::bool::weighted(0.8), proptest::bool::weighted(0.7), quota()).prop_map(
        |(realms, has_second, has_reserved, allocations_per_source)| Rules {
            realms,
            has_second,
            has_reserved,
            allocations_per_source,
        },
    )
}

fn realm_rules() -> impl Strategy<Value = RealmRules> {
    let mostly = || proptest::bool::weighted(0.7);
    (mostly(), any::<bool>(), mostly(), mostly(), mostly(), mostly(), quota(), quota()).prop_map(
        |(
            asks_for_users,
            asks_for_admission,
            knows_alice,
            knows_secret,
            takes_tokens,
            knows_token_key,
            allocations,
            allocations_per_user,
        )| {
            RealmRules {
                asks_for_users,
                asks_for_admission,
                knows_alice,
                knows_secret,
                takes_tokens,
                knows_token_key,
                allocations,
                allocations_per_user,
            }
        },
    )
}

fn quota() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(100_usize), 2 => 0..4_usize]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_let_in_without_a_right_or_has_more_than_it_may(
        rules in rules(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(rules);
        for step in steps {
            world.take(step);
            world.check();
        }
        world.shut_down();
    }
}
