//! What is asked about sessions, looked at value by value, in the words of the engine. All that is wrong is told at once.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::ice::{Candidate, Parameters};
use hairpin_proto::media::{
    Choice, LegKind, Limits, Offer, PlainAddress, Remote, Request, Side, StreamCandidates, StreamRequest, Terms,
    Timeouts,
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
/// The longest that a remote may take to prove that it still wants what it is sent (RFC 7675 section 5.1).
const LONGEST_CONSENT: u32 = 30;
/// How many datagrams a second a session may be limited to, as in general.
const PACKETS: RangeInclusive<u64> = 1..=1_000_000_000;
/// How many bytes a second: in general it is said in bits, from 1k to 1000G.
const BYTES: RangeInclusive<u64> = 125..=125_000_000_000;
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
    let ice::Create { label, a, b, streams, families, addresses, limits, timeouts } = create;
    let mut problems = Problems::default();
    check_label(label, &mut problems);
    let streams = read_streams(streams, &mut problems);
    for (side, leg) in Side::BOTH.into_iter().zip([a, b]) {
        if let ice::Leg::Turn { allocation } = leg {
            check_turn(side, allocation, &streams, &mut problems);
        }
    }
    let terms = read_terms(timeouts, limits, &Terms::default(), &mut problems);
    let legs = [a, b].map(|leg| match leg {
        ice::Leg::Ice {} => LegKind::Ice,
        ice::Leg::Plain { latch } => LegKind::Plain { latch: *latch },
        ice::Leg::Turn { .. } => LegKind::Plain { latch: false },
    });
    problems.or(Request { label: label.clone(), legs, streams, choice: read_choice(families, addresses), terms })
}

/// A session that is to be made of an offer.
pub(super) fn offer(offer: &ice::Offer) -> Result<Offer, IceError> {
    let ice::Offer { sdp, to, latch, label, families, addresses, limits, timeouts } = offer;
    let mut problems = Problems::default();
    check_label(label, &mut problems);
    let terms = read_terms(timeouts, limits, &Terms::default(), &mut problems);
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
    let (label, choice) = (label.clone(), read_choice(families, addresses));
    problems.or(Offer { description, to, latch: *latch, label, choice, terms })
}

/// A session description.
pub(super) fn description(sdp: &str) -> Result<Description, IceError> {
    Ok(Description::parse(sdp)?)
}

/// What shall change. The function makes new terms of those that there are.
pub(super) fn update(update: &ice::Update) -> Result<(Option<String>, impl FnOnce(&Terms) -> Terms + use<>), IceError> {
    let ice::Update { label, limits, timeouts } = update;
    let mut problems = Problems::default();
    if let Some(label) = label {
        check_label(label, &mut problems);
    }
    // Whatever there is, what is asked for is allowed or not.
    read_terms(timeouts, limits, &Terms::default(), &mut problems);
    let (timeouts, limits) = (timeouts.clone(), limits.clone());
    problems.or((label.clone(), move |before: &Terms| read_terms(&timeouts, &limits, before, &mut Problems::default())))
}

/// Who is on the other side of a leg.
pub(super) fn remote(remote: &ice::Remote) -> Result<Told, IceError> {
    Ok(match remote {
        ice::Remote::Agent(agent) => {
            let ice::Agent { ufrag, pwd, lite, candidates, stream, end_of_candidates } = agent;
            let parameters = Parameters::new(ufrag.as_str(), pwd.as_str())?;
            let (candidates, are_all) = read_candidates(candidates, stream.as_deref())?;
            let end_of_candidates = *end_of_candidates || are_all;
            Told::Remote(Remote::Ice { parameters, is_lite: *lite, candidates, end_of_candidates })
        }
        ice::Remote::Plain(ice::Plain { addresses, latch }) => {
            Told::Remote(Remote::Plain { addresses: read_addresses(addresses)?, latch: *latch, is_hint: false })
        }
        ice::Remote::Described(ice::Described { sdp }) => Told::Described(description(sdp)?),
    })
}

/// Candidates, and whether they are all.
pub(super) fn candidates(candidates: &ice::Candidates) -> Result<(Vec<StreamCandidates>, bool), IceError> {
    let ice::Candidates { candidates, stream, end_of_candidates } = candidates;
    let (candidates, are_all) = read_candidates(candidates, stream.as_deref())?;
    Ok((candidates, *end_of_candidates || are_all))
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
    let components: u32 = streams.iter().map(|stream| u32::from(stream.components)).sum();
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

fn read_choice(families: &[ice::Family], addresses: &[IpAddr]) -> Choice {
    let read = |family: &ice::Family| match family {
        ice::Family::Ipv4 => AddressFamily::V4,
        ice::Family::Ipv6 => AddressFamily::V6,
    };
    Choice {
        families: families.iter().map(read).collect(),
        addresses: addresses.iter().map(IpAddr::to_canonical).collect(),
    }
}

/// Timeouts and limits; where nothing is said, as they were.
fn read_terms(timeouts: &ice::Timeouts, limits: &ice::Limits, before: &Terms, problems: &mut Problems) -> Terms {
    Terms {
        timeouts: read_timeouts(timeouts, &before.timeouts, problems),
        limits: read_limits(limits, &before.limits, problems),
    }
}

/// Limits of its own; 0 is none.
fn read_limits(asked: &ice::Limits, before: &Limits, problems: &mut Problems) -> Limits {
    let mut read = |key: &str, asked: Option<u64>, before, allowed: RangeInclusive<u64>| {
        let Some(asked) = asked else { return before };
        if asked != 0 && !allowed.contains(&asked) {
            let allowed =
                format_args!("{} to {} a second are, and 0 for none of its own", allowed.start(), allowed.end());
            problems.refuse(format_args!("limits.{key}"), asked, allowed);
        }
        NonZeroU64::new(asked)
    };
    let ice::Limits { packets, bytes } = asked;
    Limits {
        packets: read("packets", *packets, before.packets, PACKETS),
        bytes: read("bytes", *bytes, before.bytes, BYTES),
    }
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
        consent: read("consent", *consent, 1..=LONGEST_CONSENT).unwrap_or(before.consent),
        paused: read("paused", *paused, 1..=LONGEST).unwrap_or(before.paused),
        idle: match read("idle", *idle, 0..=LONGEST) {
            Some(idle) => Some(idle).filter(|idle| !idle.is_zero()),
            None => before.idle,
        },
    }
}

/// Candidates of a stream, and whether their end is among them.
fn read_candidates(candidates: &[String], stream: Option<&str>) -> Result<(Vec<StreamCandidates>, bool), IceError> {
    let mut problems = Problems::default();
    if candidates.len() > CANDIDATES {
        let found = format_args!("{} candidates", candidates.len());
        problems.refuse("candidates", found, format_args!("at most {CANDIDATES} are"));
        return problems.or(Default::default());
    }
    let (mut read, mut are_all) = (Vec::new(), false);
    for (at, text) in candidates.iter().enumerate() {
        if is_end_of_candidates(text) {
            are_all = true;
            continue;
        }
        match text.parse::<Candidate>() {
            Ok(candidate) => read.push(candidate),
            Err(error) => problems.0.push(format!("candidates[{at}]: {error}")),
        }
    }
    problems.or((vec![StreamCandidates { stream: stream.map(str::to_owned), candidates: read }], are_all))
}

/// Whether this is what stands behind the last candidate: an empty one of a browser, elsewhere a line of a description (RFC 8840).
fn is_end_of_candidates(text: &str) -> bool {
    let text = text.trim_ascii_end();
    text.is_empty() || text.strip_prefix("a=").unwrap_or(text) == "end-of-candidates"
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str, components: u16) -> ice::StreamRequest {
        ice::StreamRequest { name: name.to_owned(), components }
    }

    fn turn(allocation: &str) -> ice::Leg {
        ice::Leg::Turn { allocation: allocation.to_owned() }
    }

    fn timeouts(setup: u32, consent: u32, paused: u32, idle: u32) -> ice::Timeouts {
        ice::Timeouts { setup: Some(setup), consent: Some(consent), paused: Some(paused), idle: Some(idle) }
    }

    fn limits(packets: u64, bytes: u64) -> ice::Limits {
        ice::Limits { packets: Some(packets), bytes: Some(bytes) }
    }

    /// What is wrong, each in a line.
    #[track_caller]
    fn problems<T>(read: Result<T, IceError>) -> Vec<String> {
        match read {
            Err(IceError::Values(problems)) => problems,
            Err(other) => vec![other.to_string()],
            Ok(_) => panic!("nothing is wrong"),
        }
    }

    #[test]
    fn what_is_not_said_is_as_is_usual() {
        let request = create(&ice::Create::default()).unwrap();
        assert_eq!(request.label, "");
        assert_eq!(request.legs, [LegKind::Ice; 2]);
        assert_eq!(request.streams, [StreamRequest { name: "media".to_owned(), components: 1 }]);
        assert_eq!(request.choice, Choice::default());
        assert_eq!(request.terms, Terms::default());
    }

    #[test]
    fn what_is_said_is_meant() {
        let request = create(&ice::Create {
            label: "ü".repeat(128),
            a: ice::Leg::Plain { latch: true },
            b: ice::Leg::Plain { latch: false },
            streams: vec![stream(&"n".repeat(64), 2), stream("m", 1)],
            families: vec![ice::Family::Ipv6, ice::Family::Ipv4],
            addresses: vec!["192.0.2.1".parse().unwrap(), "::ffff:192.0.2.2".parse().unwrap()],
            limits: limits(1_000_000_000, 125),
            timeouts: timeouts(1, 30, 2, 0),
        });
        let request = request.unwrap();
        assert_eq!(request.label, "ü".repeat(128));
        assert_eq!(request.legs, [LegKind::Plain { latch: true }, LegKind::Plain { latch: false }]);
        assert_eq!(request.streams.iter().map(|stream| stream.components).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(request.choice.families, [AddressFamily::V6, AddressFamily::V4]);
        let [setup, consent, paused] = [1, 30, 2].map(Duration::from_secs);
        assert_eq!(request.terms.timeouts, Timeouts { setup, consent, paused, idle: None });
        let [packets, bytes] = [1_000_000_000, 125].map(NonZeroU64::new);
        assert_eq!(request.terms.limits, Limits { packets, bytes });
        let addresses: Vec<_> = request.choice.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1", "192.0.2.2"], "an address of IPv4 is one");

        let request = create(&ice::Create { b: turn("0-12"), streams: vec![stream("a", 1)], ..Default::default() });
        assert_eq!(request.unwrap().legs[1], LegKind::Plain { latch: false });
    }

    #[test]
    fn each_value_that_is_wrong_is_named_with_what_is_allowed() {
        let with = |change: fn(&mut ice::Create)| {
            let mut request = ice::Create::default();
            change(&mut request);
            problems(create(&request))
        };
        #[allow(clippy::type_complexity, reason = "a table of requests and what is said of them")]
        let cases: [(fn(&mut ice::Create), &[&str]); 18] = [
            (|create| create.label = "l".repeat(129), &["label: `lll", "at most 128 printable"]),
            (|create| create.label = "a\nb".to_owned(), &["label: `a\\u{a}b` is not allowed"]),
            (
                |create| create.streams = (0..17).map(|at| stream(&at.to_string(), 1)).collect(),
                &["streams", "17", "16"],
            ),
            (|create| create.streams = vec![stream("", 1)], &["streams[0].name: ``", "1 to 64"]),
            (
                |create| create.streams = vec![stream("a", 1), stream(&"n".repeat(65), 1)],
                &["streams[1].name", "1 to 64"],
            ),
            (|create| create.streams = vec![stream("a\u{202E}", 1)], &["streams[0].name: `a\\u{202e}`", "printable"]),
            (
                |create| create.streams = vec![stream("a", 1), stream("a", 1)],
                &["streams[1].name: `a`", "another stream"],
            ),
            (|create| create.streams = vec![stream("a", 0)], &["streams[0].components: `0`", "1 is, or 2"]),
            (|create| create.streams = vec![stream("a", 3)], &["streams[0].components: `3`", "1 is, or 2"]),
            (|create| create.timeouts.setup = Some(0), &["timeouts.setup: `0`", "1 to 86400"]),
            (|create| create.timeouts.consent = Some(31), &["timeouts.consent: `31`", "1 to 30"]),
            (|create| create.timeouts.paused = Some(0), &["timeouts.paused: `0`", "1 to 86400"]),
            (|create| create.timeouts.idle = Some(86_401), &["timeouts.idle: `86401`", "0 to 86400"]),
            (
                |create| create.limits = limits(1_000_000_001, 0),
                &["limits.packets: `1000000001`", "1 to 1000000000 a second"],
            ),
            (
                |create| create.limits = limits(0, 124),
                &["limits.bytes: `124`", "125 to 125000000000 a second", "0 for none"],
            ),
            (|create| create.limits = limits(1, 125_000_000_001), &["limits.bytes: `125000000001`", "125 to"]),
            (|create| create.a = turn("twelve"), &["a.allocation: `twelve`", "such as 0-12"]),
            (
                |create| (create.b, create.streams) = (turn("0-1"), vec![stream("a", 1), stream("b", 1)]),
                &["streams: `2 components`", "one stream of one component"],
            ),
        ];
        for (change, words) in cases {
            let problems = with(change);
            assert_eq!(problems.len(), 1, "{problems:?}");
            for word in words {
                assert!(problems[0].contains(word), "`{word}` is missing: {}", problems[0]);
            }
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let request = ice::Create { label: "\n".to_owned(), timeouts: timeouts(0, 1, 1, 1), ..ice::Create::default() };
        let error = create(&request).unwrap_err();
        assert_eq!(error.to_string(), "2 values are not allowed");
        assert_eq!(error.problems().len(), 2);
        let update = ice::Update { label: Some("\n".to_owned()), limits: limits(1, 1), timeouts: timeouts(0, 1, 1, 1) };
        assert_eq!(problems(super::update(&update).map(|_| ())).len(), 3);
        let offer = ice::Offer {
            sdp: "v=0\r\nm=audio 0 RTP/AVP 0\r\n".to_owned(),
            to: ice::To::Ice,
            latch: false,
            label: "\n".to_owned(),
            families: Vec::new(),
            addresses: Vec::new(),
            limits: limits(1, 1),
            timeouts: timeouts(0, 1, 1, 1),
        };
        assert_eq!(problems(super::offer(&offer)).len(), 4);
    }

    #[test]
    fn an_update_changes_what_it_says() {
        let asked = ice::Update {
            label: Some("new".to_owned()),
            limits: limits(50, 0),
            timeouts: ice::Timeouts { idle: Some(0), consent: Some(7), ..ice::Timeouts::default() },
        };
        let (label, change) = update(&asked).unwrap();
        assert_eq!(label.as_deref(), Some("new"));
        let before = Terms {
            timeouts: Timeouts { setup: Duration::from_secs(99), ..Timeouts::default() },
            limits: Limits { packets: None, bytes: NonZeroU64::new(9) },
        };
        let expected = Terms {
            timeouts: Timeouts { consent: Duration::from_secs(7), idle: None, ..before.timeouts },
            limits: Limits { packets: NonZeroU64::new(50), bytes: None },
        };
        assert_eq!(change(&before), expected);
        let (label, change) = update(&ice::Update::default()).unwrap();
        assert_eq!((label, change(&expected)), (None, expected), "and nothing, if it says nothing");
    }

    #[test]
    fn of_candidates_that_are_none_it_is_told_which_and_why() {
        let good = "candidate:1 1 UDP 2130706431 198.51.100.7 4000 typ host";
        let asked = |candidates: &[&str]| ice::Candidates {
            candidates: candidates.iter().map(|text| (*text).to_owned()).collect(),
            stream: Some("audio".to_owned()),
            end_of_candidates: true,
        };
        let (read, are_all) = candidates(&asked(&[good])).unwrap();
        assert_eq!((read.len(), read[0].stream.as_deref(), are_all), (1, Some("audio"), true));
        assert_eq!(read[0].candidates[0].to_string(), good);
        let problems = problems(candidates(&asked(&[good, "nonsense", &good.replace("4000", "70000")])));
        assert!(problems[0].starts_with("candidates[1]: \"nonsense\""), "{problems:?}");
        assert!(problems[1].starts_with("candidates[2]: \"70000\" is no port"), "{problems:?}");
        assert_eq!(problems.len(), 2);
        let many = vec![good; 257];
        assert!(self::problems(candidates(&asked(&many)))[0].contains("at most 256"));
    }

    #[test]
    fn candidates_are_read_as_lines_of_a_description_and_as_browsers_say_them() {
        let good = "candidate:1 1 UDP 2130706431 198.51.100.7 4000 typ host";
        let read = |candidates: &[&str]| {
            let candidates = candidates.iter().map(|text| (*text).to_owned()).collect();
            let (read, are_all) = super::candidates(&ice::Candidates { candidates, ..Default::default() }).unwrap();
            (read[0].candidates.iter().map(ToString::to_string).collect::<Vec<_>>(), are_all)
        };
        for form in
            [good.to_owned(), format!("a={good}"), format!("a={good}\r\n"), format!("{good} generation 0 ufrag u")]
        {
            assert_eq!(read(&[&form]), (vec![good.to_owned()], false), "{form}");
        }
        for end in ["", "end-of-candidates", "a=end-of-candidates", "a=end-of-candidates\r\n"] {
            assert_eq!(read(&[end]), (vec![], true), "{end:?}");
            assert_eq!(read(&[good, end]), (vec![good.to_owned()], true), "{end:?}");
            let agent = ice::Agent {
                ufrag: "abcd".to_owned(),
                pwd: "abcdefghijklmnopqrstuv".to_owned(),
                lite: false,
                candidates: vec![end.to_owned()],
                stream: None,
                end_of_candidates: false,
            };
            let told = remote(&ice::Remote::Agent(agent));
            assert!(matches!(told, Ok(Told::Remote(Remote::Ice { end_of_candidates: true, .. }))), "{told:?}");
        }
        for bad in ["a=", "a=a=end-of-candidates", "end-of-candidates: 1", "candidate:"] {
            let asked = ice::Candidates { candidates: vec![bad.to_owned()], ..Default::default() };
            assert_eq!(problems(super::candidates(&asked)).len(), 1, "{bad}");
        }
    }

    #[test]
    fn addresses_are_of_one_host_each() {
        let at =
            |address: &str, component| ice::PlainAddress { stream: None, component, address: address.parse().unwrap() };
        let read = |addresses| remote(&ice::Remote::Plain(ice::Plain { addresses, latch: true }));
        let Ok(Told::Remote(Remote::Plain { addresses, latch: true, is_hint: false })) =
            read(vec![at("192.0.2.1:5000", 1), at("[::ffff:192.0.2.1]:5001", 2)])
        else {
            panic!("they are good");
        };
        assert_eq!(addresses[1].address.to_string(), "192.0.2.1:5001", "an address of IPv4 is one");
        for bad in ["192.0.2.1:0", "0.0.0.0:5000", "[::]:5000", "224.0.0.1:5000", "[ff02::1]:5000"] {
            let problems = problems(read(vec![at(bad, 1)]));
            assert!(problems[0].starts_with(&format!("addresses[0].address: `{bad}`")), "{problems:?}");
        }
        let problems = problems(read(vec![at("192.0.2.1:5000", 1), at("192.0.2.1:5001", 1)]));
        assert!(problems[0].starts_with("addresses[1].component: `1`"), "{problems:?}");
    }

    #[test]
    fn a_password_that_is_none_is_not_repeated() {
        let agent = |ufrag: &str, pwd: &str| {
            remote(&ice::Remote::Agent(ice::Agent {
                ufrag: ufrag.to_owned(),
                pwd: pwd.to_owned(),
                lite: false,
                candidates: Vec::new(),
                stream: None,
                end_of_candidates: false,
            }))
        };
        assert!(agent("abcd", "abcdefghijklmnopqrstuv").is_ok());
        let error = agent("abcd", "too-short").unwrap_err().to_string();
        assert!(error.contains("22 to 256") && !error.contains("too-short"), "{error}");
        assert!(agent("abc", "abcdefghijklmnopqrstuv").unwrap_err().to_string().contains("4 to 256"));
    }

    #[test]
    fn an_id_is_two_numbers() {
        assert_eq!(numbers("0-12"), Some((0, 12)));
        assert_eq!(numbers("7-0"), Some((7, 0)));
        for bad in ["", "-", "1", "1-", "-1", "a-1", "1-2-3", "+1-2", "1-+2", " 1-2", "1-99999999999999999999"] {
            assert_eq!(numbers(bad), None, "{bad}");
        }
    }
}
