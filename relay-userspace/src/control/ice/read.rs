//! What is asked about sessions, looked at value by value, in the words of the engine. All that is wrong is told at once.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::ice::{Candidate, Parameters};
use hairpin_proto::media::{
    LegKind, Offer, PlainAddress, Remote, Request, Side, StreamCandidates, StreamRequest, Timeouts,
};
use hairpin_proto::sdp::{Description, Media};

use super::error::IceError;
use crate::api::ice;
use crate::printable::clean;

/// The longest label, in characters.
const LABEL: usize = 128;
/// The longest name of a stream, in characters.
const NAME: usize = 64;
/// The most streams of a session that is made without a description.
const STREAMS: usize = 16;
/// The most candidates that are told at once.
const CANDIDATES: usize = 256;
/// The longest time that a session may wait for anything, in seconds.
const LONGEST: u32 = 86_400;
/// What the only stream is called where nothing is said.
const ONLY_STREAM: &str = "media";

/// Who is on the other side of a leg.
#[derive(Debug)]
pub(super) enum Told {
    /// In the words of ICE, or as addresses.
    Remote(Remote),
    /// As a session description.
    Described(Description),
}

/// What is wrong, one line for each value.
#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    fn refuse(&mut self, key: impl Display, value: impl Display, allowed: impl Display) {
        self.0.push(format!("{key}: `{}` is not allowed: {allowed}", clean(&value.to_string())));
    }

    /// This, if nothing is wrong.
    fn or<T>(self, value: T) -> Result<T, IceError> {
        if self.0.is_empty() { Ok(value) } else { Err(IceError::Values(self.0)) }
    }
}

/// A session that is to be. What the remote of a leg of TURN is has to be found out yet.
pub(super) fn create(create: &ice::Create) -> Result<Request, IceError> {
    let ice::Create { label, a, b, streams, families, timeouts } = create;
    let mut problems = Problems::default();
    check_label(label, &mut problems);
    let streams = read_streams(streams, &mut problems);
    for (side, leg) in Side::BOTH.into_iter().zip([a, b]) {
        if let ice::Leg::Turn { allocation } = leg {
            check_turn(side, allocation, &streams, &mut problems);
        }
    }
    let timeouts = read_timeouts(timeouts, &Timeouts::default(), &mut problems);
    let legs = [a, b].map(|leg| match leg {
        ice::Leg::Ice {} => LegKind::Ice,
        ice::Leg::Plain { latch } => LegKind::Plain { latch: *latch },
        ice::Leg::Turn { .. } => LegKind::Plain { latch: false },
    });
    problems.or(Request { label: label.clone(), legs, streams, families: read_families(families), timeouts })
}

/// A session that is to be made of an offer.
pub(super) fn offer(offer: &ice::Offer) -> Result<Offer, IceError> {
    let ice::Offer { sdp, to, latch, label, families, timeouts } = offer;
    let mut problems = Problems::default();
    check_label(label, &mut problems);
    let timeouts = read_timeouts(timeouts, &Timeouts::default(), &mut problems);
    let description = description(sdp)?;
    if !description.media().iter().any(Media::is_active) {
        problems
            .0
            .push("sdp: all media sections are rejected (port 0): an offer has one at least that is not".to_owned());
    }
    let to = match to {
        ice::To::Ice => LegKind::Ice,
        ice::To::Plain => LegKind::Plain { latch: *latch },
    };
    let (label, families) = (label.clone(), read_families(families));
    problems.or(Offer { description, to, latch: *latch, label, families, timeouts })
}

/// A session description.
pub(super) fn description(sdp: &str) -> Result<Description, IceError> {
    Ok(Description::parse(sdp)?)
}

/// What shall change. The function makes new timeouts of those that there are.
pub(super) fn update(
    update: &ice::Update,
) -> Result<(Option<String>, impl FnOnce(&Timeouts) -> Timeouts + use<>), IceError> {
    let ice::Update { label, timeouts } = update;
    let mut problems = Problems::default();
    if let Some(label) = label {
        check_label(label, &mut problems);
    }
    // Whatever there is, what is asked for is allowed or not.
    read_timeouts(timeouts, &Timeouts::default(), &mut problems);
    let timeouts = timeouts.clone();
    problems.or((label.clone(), move |before: &Timeouts| read_timeouts(&timeouts, before, &mut Problems::default())))
}

/// Who is on the other side of a leg.
pub(super) fn remote(remote: &ice::Remote) -> Result<Told, IceError> {
    Ok(match remote {
        ice::Remote::Agent(agent) => {
            let ice::Agent { ufrag, pwd, lite, candidates, stream, end_of_candidates } = agent;
            Told::Remote(Remote::Ice {
                parameters: Parameters::new(ufrag.as_str(), pwd.as_str())?,
                is_lite: *lite,
                candidates: read_candidates(candidates, stream.as_deref())?,
                end_of_candidates: *end_of_candidates,
            })
        }
        ice::Remote::Plain(ice::Plain { addresses, latch }) => {
            Told::Remote(Remote::Plain { addresses: read_addresses(addresses)?, latch: *latch })
        }
        ice::Remote::Described(ice::Described { sdp }) => Told::Described(description(sdp)?),
    })
}

/// Candidates, and whether they are all.
pub(super) fn candidates(candidates: &ice::Candidates) -> Result<(Vec<StreamCandidates>, bool), IceError> {
    let ice::Candidates { candidates, stream, end_of_candidates } = candidates;
    Ok((read_candidates(candidates, stream.as_deref())?, *end_of_candidates))
}

fn check_label(label: &str, problems: &mut Problems) {
    if label.chars().count() > LABEL || clean(label) != label {
        problems.refuse("label", label, format_args!("at most {LABEL} printable characters are"));
    }
}

fn read_streams(streams: &[ice::StreamRequest], problems: &mut Problems) -> Vec<StreamRequest> {
    if streams.is_empty() {
        return vec![StreamRequest { name: ONLY_STREAM.to_owned(), components: 1 }];
    }
    if streams.len() > STREAMS {
        problems.refuse("streams", format_args!("{} streams", streams.len()), format_args!("at most {STREAMS} are"));
    }
    let mut names = BTreeSet::new();
    for (at, ice::StreamRequest { name, components }) in streams.iter().enumerate() {
        if !(1..=NAME).contains(&name.chars().count()) || clean(name) != *name {
            let key = format_args!("streams[{at}].name");
            problems.refuse(key, name, format_args!("1 to {NAME} printable characters are"));
        }
        if !names.insert(name) {
            problems.refuse(format_args!("streams[{at}].name"), name, "another stream has this name");
        }
        if !(1..=2).contains(components) {
            let allowed = "1 is, or 2 where RTCP has an address of its own";
            problems.refuse(format_args!("streams[{at}].components"), components, allowed);
        }
    }
    let streams = streams.iter();
    streams.map(|stream| StreamRequest { name: stream.name.clone(), components: stream.components }).collect()
}

/// An allocation has one address of a family, and RTP and RTCP could not be told from each other behind it.
fn check_turn(side: Side, allocation: &str, streams: &[StreamRequest], problems: &mut Problems) {
    let leg = side.label();
    if numbers(allocation).is_none() {
        let allowed = "the id of an allocation is, such as 0-12 (`hairpin allocations list`)";
        problems.refuse(format_args!("{leg}.allocation"), allocation, allowed);
    }
    let components: u16 = streams.iter().map(|stream| stream.components.min(2)).sum();
    if components > 1 {
        let allowed = "a leg of TURN has one stream of one component, as its allocation has one address";
        problems.refuse("streams", format_args!("{components} components"), allowed);
    }
}

/// The numbers that the id of an allocation or a session has: of its shard, and of itself.
pub(super) fn numbers(id: &str) -> Option<(usize, u64)> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (shard, serial) = id.split_once('-').filter(|(shard, serial)| digits(shard) && digits(serial))?;
    Some((shard.parse().ok()?, serial.parse().ok()?))
}

fn read_families(families: &[ice::Family]) -> Vec<AddressFamily> {
    let read = |family: &ice::Family| match family {
        ice::Family::Ipv4 => AddressFamily::V4,
        ice::Family::Ipv6 => AddressFamily::V6,
    };
    families.iter().map(read).collect()
}

/// Timeouts; where nothing is said, as they were.
fn read_timeouts(asked: &ice::Timeouts, before: &Timeouts, problems: &mut Problems) -> Timeouts {
    let mut read = |key: &str, seconds: Option<u32>, allowed: RangeInclusive<u32>| {
        let seconds = seconds?;
        if !allowed.contains(&seconds) {
            let allowed = format_args!("{} to {} seconds are", allowed.start(), allowed.end());
            problems.refuse(format_args!("timeouts.{key}"), seconds, allowed);
        }
        Some(Duration::from_secs(seconds.into()))
    };
    let ice::Timeouts { setup, consent, paused, idle } = asked;
    Timeouts {
        setup: read("setup", *setup, 1..=LONGEST).unwrap_or(before.setup),
        consent: read("consent", *consent, 1..=LONGEST).unwrap_or(before.consent),
        paused: read("paused", *paused, 1..=LONGEST).unwrap_or(before.paused),
        idle: match read("idle", *idle, 0..=LONGEST) {
            Some(idle) => Some(idle).filter(|idle| !idle.is_zero()),
            None => before.idle,
        },
    }
}

fn read_candidates(candidates: &[String], stream: Option<&str>) -> Result<Vec<StreamCandidates>, IceError> {
    let mut problems = Problems::default();
    if candidates.len() > CANDIDATES {
        let found = format_args!("{} candidates", candidates.len());
        problems.refuse("candidates", found, format_args!("at most {CANDIDATES} are"));
        return problems.or(Vec::new());
    }
    let mut read = Vec::new();
    for (at, text) in candidates.iter().enumerate() {
        match text.parse::<Candidate>() {
            Ok(candidate) => read.push(candidate),
            Err(error) => problems.0.push(format!("candidates[{at}]: {error}")),
        }
    }
    problems.or(vec![StreamCandidates { stream: stream.map(str::to_owned), candidates: read }])
}

fn read_addresses(addresses: &[ice::PlainAddress]) -> Result<Vec<PlainAddress>, IceError> {
    let mut problems = Problems::default();
    let mut named = BTreeSet::new();
    let mut read = Vec::new();
    for (at, ice::PlainAddress { stream, component, address }) in addresses.iter().enumerate() {
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            let allowed = "the IP address and port of one host are";
            problems.refuse(format_args!("addresses[{at}].address"), address, allowed);
        }
        if !named.insert((stream, component)) {
            let key = format_args!("addresses[{at}].component");
            problems.refuse(key, component, "another address is said to be of this component");
        }
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        read.push(PlainAddress { stream: stream.clone(), component: *component, address });
    }
    problems.or(read)
}
