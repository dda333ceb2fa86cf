//! The last failures of clients, for an operator who asks why one of them cannot relay.
//!
//! Whoever fails may be anybody, so nothing here grows: the memory is of fixed size, a source's failures take only the place of
//! its own, or of another source that the hash has put into the same set. None is made for a packet that is relayed.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::str;

use hairpin_proto::address::Transport;

/// How many sets of sources there are, how many sources in one, and how many failures of each are remembered.
const SETS: usize = 64;
const SOURCES: usize = 4;
const OF_SOURCE: usize = 8;

/// Something that was refused to a client, or failed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where the client was.
    pub client: SocketAddr,
    /// What it spoke.
    pub transport: Transport,
    /// What it wanted: a STUN method, or `handshake`, or `connection`.
    pub action: &'static str,
    /// The error code of the answer, if there was one.
    pub code: Option<u16>,
    /// Why, as in metrics.
    pub cause: &'static str,
    /// Why, and what to do about it.
    pub explanation: &'static str,
    /// What the client has said about it itself, in an alert of TLS.
    pub detail: Option<&'static str>,
    /// As whom it came, if it said so.
    pub username: Option<Excerpt>,
    /// The peer that it was about.
    pub peer: Option<SocketAddr>,
    /// When it happened last, in seconds since the Unix epoch.
    pub at: u64,
    /// How often in a row.
    pub count: u64,
}

impl Failure {
    /// Whether it is the same once more, perhaps from another port.
    fn is_like(&self, other: &Self) -> bool {
        let same = |failure: &Self| Self { client: other.client, at: other.at, count: other.count, ..*failure };
        same(self) == *other
    }
}

/// The beginning of a text that a client has sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Excerpt {
    bytes: [u8; Self::CAPACITY],
    len: u8,
}

impl Excerpt {
    const CAPACITY: usize = 63;

    /// As much of a text as there is room for.
    pub fn of(text: &str) -> Self {
        let len = text.floor_char_boundary(Self::CAPACITY);
        let mut bytes = [0; Self::CAPACITY];
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        Self { bytes, len: len as u8 }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl std::fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

/// What is remembered.
pub(super) struct Failures {
    sets: Box<[Set]>,
    hasher: RandomState,
}

type Set = [Source; SOURCES];

/// What is remembered of one IP address.
#[derive(Clone, Copy)]
struct Source {
    ip: Option<IpAddr>,
    last: u64,
    /// The next place to be taken.
    next: usize,
    failures: [Option<Failure>; OF_SOURCE],
}

const NOBODY: Source = Source { ip: None, last: 0, next: 0, failures: [None; OF_SOURCE] };

impl Source {
    /// Seconds do not tell: several may be of the same.
    fn newest_first(&self) -> impl Iterator<Item = Failure> {
        let places = (1..=OF_SOURCE).map(|back| (self.next + OF_SOURCE - back) % OF_SOURCE);
        places.filter_map(|place| self.failures[place])
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self { sets: vec![[NOBODY; SOURCES]; SETS].into(), hasher: RandomState::new() }
    }
}

impl Failures {
    /// Remembers a failure.
    pub(super) fn add(&mut self, failure: Failure) {
        let ip = failure.client.ip();
        let at = self.set_of(ip);
        let set = &mut self.sets[at];
        let known = set.iter().position(|source| source.ip == Some(ip));
        let place = known.unwrap_or_else(|| {
            let oldest = (0..SOURCES).min_by_key(|at| set[*at].last).unwrap_or_default();
            set[oldest] = Source { ip: Some(ip), ..NOBODY };
            oldest
        });
        let source = &mut set[place];
        source.last = failure.at;
        let latest = (source.next + OF_SOURCE - 1) % OF_SOURCE;
        match &mut source.failures[latest] {
            Some(known) if known.is_like(&failure) => {
                *known = Failure { count: known.count + failure.count, ..failure };
            }
            _ => {
                source.failures[source.next] = Some(failure);
                source.next = (source.next + 1) % OF_SOURCE;
            }
        }
    }

    /// The failures of an IP address, or of all; those of one address the newest first.
    pub(super) fn of(&self, ip: Option<IpAddr>) -> Vec<Failure> {
        let sets = match ip {
            Some(ip) => std::slice::from_ref(&self.sets[self.set_of(ip)]),
            None => &self.sets,
        };
        let sources = sets.iter().flatten().filter(|source| ip.is_none() || source.ip == ip);
        sources.flat_map(Source::newest_first).collect()
    }

    fn set_of(&self, ip: IpAddr) -> usize {
        self.hasher.hash_one(ip) as usize % SETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(client: &str, cause: &'static str, at: u64) -> Failure {
        Failure {
            client: client.parse().unwrap(),
            transport: Transport::Udp,
            action: "allocate",
            code: Some(401),
            cause,
            explanation: "",
            detail: None,
            username: Some(Excerpt::of("alice")),
            peer: None,
            at,
            count: 1,
        }
    }

    #[test]
    fn the_same_once_more_is_counted_and_something_else_stands_beside_it() {
        let mut failures = Failures::default();
        for (port, cause, at) in [(1, "wrong_password", 10), (2, "wrong_password", 11), (2, "user_quota", 12)] {
            failures.add(failure(&format!("192.0.2.1:{port}"), cause, at));
        }
        let told: Vec<_> =
            failures.of("192.0.2.1".parse().ok()).into_iter().map(|f| (f.cause, f.count, f.at)).collect();
        assert_eq!(told, [("user_quota", 1, 12), ("wrong_password", 2, 11)]);
        assert_eq!(failures.of("192.0.2.2".parse().ok()), []);
        assert_eq!(failures.of(None).len(), 2);
    }

    #[test]
    fn a_source_pushes_out_its_own_and_a_flood_of_sources_takes_no_more_memory() {
        let mut failures = Failures::default();
        let causes = ["a", "b"];
        for at in 0..100 {
            failures.add(failure("192.0.2.1:1", causes[at as usize % 2], at));
        }
        let times: Vec<_> = failures.of("192.0.2.1".parse().ok()).iter().map(|failure| failure.at).collect();
        assert_eq!(times, (92..100).rev().collect::<Vec<_>>(), "the latest, the newest first");
        for at in 0..10_000_u32 {
            let client = SocketAddr::new(IpAddr::from(at.to_be_bytes()), 1);
            failures.add(Failure { client, ..failure("192.0.2.1:1", "a", 1000 + u64::from(at)) });
        }
        assert!(failures.of(None).len() <= SETS * SOURCES);
        let last = IpAddr::from(9_999_u32.to_be_bytes());
        assert_eq!(failures.of(Some(last)).len(), 1, "the newest is there");
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let name = "ü".repeat(40);
        assert_eq!(Excerpt::of(&name).as_str(), "ü".repeat(31));
        assert_eq!(Excerpt::of("alice").as_str(), "alice");
    }
}
