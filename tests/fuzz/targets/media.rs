//! Sessions of two legs, driven by steps that the model of their own tests judges: nothing is sent without consent, a fast
//! path is told nothing that userspace would not do, and nothing is left in the end.
//!
//! To add a kind of input, add it to `Step` of the model, and to [`step`] here at the end, so that the corpus keeps its
//! meaning.

#![no_main]

#[allow(dead_code, unused_imports, reason = "the tests of sessions use more of it")]
#[path = "../../../relay-userspace/proto/tests/media/agent.rs"]
mod agent;
#[allow(dead_code, unused_imports, reason = "the tests of sessions use more of it")]
#[path = "../../../relay-userspace/proto/tests/media/harness.rs"]
mod harness;
#[path = "../../../relay-userspace/proto/tests/media/model/mod.rs"]
mod model;

use arbitrary::{Result, Unstructured};
use hairpin_proto::media::{LegKind, Side};
use libfuzzer_sys::{Corpus, fuzz_target};
use model::{By, Change, Flaw, PORTS, Place, RULE_COUNT, SOURCE_COUNT, Step, Times, World};

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
    let any = |input: &mut Unstructured<'_>| input.choose_index(4);
    let source = |input: &mut Unstructured<'_>| input.choose_index(SOURCE_COUNT);
    Ok(match input.arbitrary::<u8>()? % KINDS {
        0 => {
            let kinds = [kind(input)?, kind(input)?];
            let components = (0..input.int_in_range(1..=2)?).map(|_| input.int_in_range(1..=2));
            let components = components.collect::<Result<_>>()?;
            Step::Create { kinds, components, families: input.arbitrary()?, timeouts: times(input)? }
        }
        1 => Step::AddStream { session: any(input)?, components: input.int_in_range(1..=2)? },
        2 => Step::RemoveStream { session: any(input)?, stream: any(input)? },
        3 => Step::RemoveRtcp { session: any(input)?, stream: any(input)? },
        4 => Step::Close { session: any(input)? },
        5 => Step::Full { place: place(input)? },
        6 => Step::Lite { place: place(input)?, source: source(input)? },
        7 => {
            let place = place(input)?;
            let source = if input.arbitrary()? { Some(source(input)?) } else { None };
            Step::Plain { place, source, latch: input.arbitrary()? }
        }
        8 => Step::Restart { place: place(input)? },
        9 | 10 => Step::Check {
            place: place(input)?,
            source: source(input)?,
            by: by(input)?,
            nominates: input.arbitrary()?,
            priority: input.arbitrary()?,
            flaw: if input.ratio(1, 4)? { Some(flaw(input)?) } else { None },
        },
        11 => Step::Media {
            place: place(input)?,
            source: source(input)?,
            first: input.arbitrary()?,
            length: input.int_in_range(0..=40)?,
        },
        12 => {
            let (place, source, length) = (place(input)?, source(input)?, input.int_in_range(0..=100)?);
            Step::Noise { place, source, bytes: input.bytes(input.len().min(length))?.to_vec() }
        }
        13 => Step::Fast { place: place(input)?, packets: input.arbitrary()? },
        14 => Step::Time { milliseconds: milliseconds(input)?, timers: input.ratio(3, 4)? },
        15 => Step::Update { session: any(input)?, times: times(input)? },
        16 => Step::Reconfigure(Change {
            rules: input.arbitrary::<[bool; RULE_COUNT]>()?,
            gone: input.arbitrary()?,
            low: input.arbitrary()?,
        }),
        17 => Step::Take { port: input.int_in_range(PORTS)? },
        18 => match input.arbitrary()? {
            true => Step::Break { v6: input.arbitrary()? },
            false => Step::Left { sockets: if input.arbitrary()? { Some(input.choose_index(10)?) } else { None } },
        },
        _ => Step::ShutDown,
    })
}

fn kind(input: &mut Unstructured<'_>) -> Result<LegKind> {
    Ok(if input.ratio(3, 4)? { LegKind::Ice } else { LegKind::Plain { latch: input.arbitrary()? } })
}

fn place(input: &mut Unstructured<'_>) -> Result<Place> {
    let bits = input.arbitrary::<u8>()?;
    let [session, path] = [bits & 3, bits >> 2 & 3].map(usize::from);
    let side = if bits & 16 == 0 { Side::A } else { Side::B };
    Ok(Place { session, side, path, base: usize::from(bits >> 5 & 1) })
}

fn by(input: &mut Unstructured<'_>) -> Result<By> {
    Ok(match input.int_in_range(0..=7)? {
        0..=3 => By::Before(0),
        4 => By::Before(1),
        5 => By::Before(2),
        6 => By::Other,
        _ => By::Guess,
    })
}

fn flaw(input: &mut Unstructured<'_>) -> Result<Flaw> {
    Ok(match input.int_in_range(0..=9)? {
        0 => Flaw::NoFingerprint,
        1 => Flaw::NoUsername,
        2 => Flaw::NoIntegrity,
        3 => Flaw::NoPriority,
        4 => Flaw::Controlled,
        5 => Flaw::Unknown,
        6 => Flaw::Indication,
        _ => Flaw::Flipped(input.arbitrary()?),
    })
}

fn times(input: &mut Unstructured<'_>) -> Result<Times> {
    if input.ratio(1, 2)? {
        return Ok(Times { setup: 300, consent: 30, paused: 60, idle: Some(300) });
    }
    let seconds = |input: &mut Unstructured<'_>| input.int_in_range(1..=500);
    let idle = if input.arbitrary()? { Some(seconds(input)?) } else { None };
    Ok(Times { setup: seconds(input)?, consent: seconds(input)?, paused: seconds(input)?, idle })
}

/// The ends of timeouts, just before and after them, and anything in between.
fn milliseconds(input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match input.int_in_range(0..=7)? {
        0 => 0,
        1 => 2000,
        2 => 29_999,
        3 => 30_000,
        4 => 60_000,
        5 => input.int_in_range(0..=5000)?,
        _ => input.int_in_range(0..=400_000)?,
    })
}
