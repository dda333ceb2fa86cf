//! The TURN server, driven by steps that the model of its own tests judges: nothing is forwarded without a right, each
//! install has its removal, and nothing is left in the end.
//!
//! To add a kind of input, add it to `Step` of the model, and to [`step`] here at the end, so that the corpus keeps its
//! meaning.

#![no_main]

#[allow(dead_code, unused_imports, reason = "the tests of the server use more of it")]
#[path = "../../../relay-userspace/proto/tests/turn/harness/mod.rs"]
mod harness;
#[path = "../../../relay-userspace/proto/tests/turn/model/mod.rs"]
mod model;

use arbitrary::{Result, Unstructured};
use hairpin_proto::turn::BindError;
use libfuzzer_sys::{Corpus, fuzz_target};
use model::{ADDRESSES, CHANNELS, CLIENTS, Change, PEERS, PORTS, RULE_COUNT, Step, USERS, World};

/// More than this says nothing new, and is slow.
const STEPS: usize = 128;

fuzz_target!(|input: &[u8]| -> Corpus {
    let mut input = Unstructured::new(input);
    let mut world = World::new();
    for _ in 0..STEPS {
        let Ok(step) = step(&mut input) else { break };
        world.take(step);
    }
    world.shut_down();
    Corpus::Keep
});

/// The kinds of steps that there are.
const KINDS: u8 = 20;

fn step(input: &mut Unstructured<'_>) -> Result<Step> {
    if input.is_empty() {
        return Err(arbitrary::Error::NotEnoughData);
    }
    let client = |input: &mut Unstructured<'_>| input.choose_index(CLIENTS);
    // Strangers to the allocation are tried less often.
    let user = |input: &mut Unstructured<'_>| if input.ratio(1, 8)? { input.choose_index(USERS) } else { Ok(0) };
    let peer = |input: &mut Unstructured<'_>| input.choose_index(PEERS.len());
    let socket = |input: &mut Unstructured<'_>| input.choose_index(8);
    Ok(match input.arbitrary::<u8>()? % KINDS {
        0 => Step::Allocate {
            client: client(input)?,
            user: user(input)?,
            v6: input.arbitrary()?,
            additional: input.arbitrary()?,
            even: input.arbitrary()?,
            lifetime: lifetime(input)?,
            later: input.arbitrary()?,
        },
        1 => Step::Redeem { client: client(input)?, user: user(input)?, later: input.arbitrary()? },
        2 => Step::Answer { at: socket(input)?, failure: failure(input)? },
        3 => Step::Refresh {
            client: client(input)?,
            user: user(input)?,
            lifetime: lifetime(input)?,
            v6: input.arbitrary()?,
        },
        4 => {
            let (client, user) = (client(input)?, user(input)?);
            let peers = (0..input.int_in_range(0..=3)?).map(|_| peer(input)).collect::<Result<_>>()?;
            Step::Permit { client, user, peers }
        }
        5 => Step::Bind {
            client: client(input)?,
            user: user(input)?,
            channel: input.choose_index(CHANNELS.len())?,
            peer: peer(input)?,
        },
        6 => Step::Repeat { client: client(input)? },
        7 => Step::WrongPassword { client: client(input)? },
        8 => {
            let (client, length) = (client(input)?, input.int_in_range(0..=200)?);
            Step::Noise { client, bytes: input.bytes(input.len().min(length))?.to_vec() }
        }
        9 => {
            let channel = if input.arbitrary()? { Some(input.choose_index(CHANNELS.len())?) } else { None };
            Step::ToPeer { client: client(input)?, channel, peer: peer(input)?, length: length(input)? }
        }
        10 => Step::FromPeer { at: socket(input)?, peer: peer(input)?, length: length(input)? },
        11 => Step::Icmp {
            at: socket(input)?,
            peer: peer(input)?,
            kind: input.int_in_range(0..=15)?,
            code: input.arbitrary()?,
            mtu: input.arbitrary()?,
        },
        12 => Step::Take { port: input.int_in_range(PORTS)? },
        13 => Step::Break { v6: input.arbitrary()? },
        14 => Step::LoseSocket { at: socket(input)? },
        15 => Step::LoseClient { client: client(input)? },
        16 => Step::Time { seconds: seconds(input)?, timers: input.arbitrary()? },
        17 => Step::ShutDown,
        18 => Step::Reconfigure(change(input)?),
        _ => Step::Close { client: client(input)?, drained: input.arbitrary()? },
    })
}

fn change(input: &mut Unstructured<'_>) -> Result<Change> {
    Ok(Change {
        rules: input.arbitrary::<[bool; RULE_COUNT]>()?,
        addresses: input.arbitrary::<[bool; ADDRESSES]>()?,
        users: input.arbitrary::<[bool; USERS]>()?,
        retired: input.arbitrary()?,
        low: input.arbitrary()?,
    })
}

fn lifetime(input: &mut Unstructured<'_>) -> Result<Option<u32>> {
    Ok(match input.int_in_range(0..=3)? {
        0 => None,
        1 => Some(0),
        2 => Some(input.int_in_range(1..=5000)?),
        _ => Some(input.arbitrary()?),
    })
}

fn failure(input: &mut Unstructured<'_>) -> Result<Option<BindError>> {
    Ok(match input.int_in_range(0..=4)? {
        0..=2 => None,
        3 => Some(BindError::InUse),
        _ => Some(BindError::Unavailable),
    })
}

/// Mostly short, or about as long as a datagram can be.
fn length(input: &mut Unstructured<'_>) -> Result<u16> {
    if input.ratio(7, 8)? { input.int_in_range(0..=64) } else { input.int_in_range(65_400..=u16::MAX) }
}

/// The ends of lifetimes, just before and after them, and anything in between.
fn seconds(input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match input.int_in_range(0..=7)? {
        0 => 30,
        1 => 40,
        2 => 299,
        3 => 300,
        4 => 600,
        5 => input.int_in_range(0..=20)?,
        _ => input.int_in_range(0..=4000)?,
    })
}
