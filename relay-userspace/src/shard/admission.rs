//! Who may have a connection, or an association over DTLS, and for how long.
//!
//! One is *new* until its client has an allocation. New ones are what an attacker can have for nothing, so they have
//! little time and there are few of them: of one source address, the newest is refused; of all, the oldest has to go, since
//! whoever means it is quick.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// How long a client may take for its first whole message, handshake included.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How long a client without an allocation may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// How many connections a shard has room for, and as many associations over DTLS.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Of all clients.
    pub all: usize,
    /// Of clients without an allocation.
    pub new: usize,
    /// Of clients without an allocation at one address, of IPv6 one /64.
    pub new_of_source: usize,
}

/// There are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// What is known of one that was admitted; kept with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    since: Instant,
    is_new: bool,
    /// Under which address it is counted as new.
    counted_at: Option<IpAddr>,
    last_message: Option<Instant>,
    deadline: Instant,
}

impl Standing {
    /// Whether its client has no allocation, as far as it was looked at.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// How long ago it came.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether a whole message has come.
    pub(super) fn was_heard(&self) -> bool {
        self.last_message.is_some()
    }

    /// Learns that a whole message has come.
    pub(super) fn heard(&mut self, now: Instant) {
        self.last_message = Some(now);
    }
}

/// How many new ones each source has, on all shards. Locked when one comes or goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Sources {
    fn count(&self, source: IpAddr) -> usize {
        self.lock().get(&prefix(source)).copied().unwrap_or_default()
    }

    fn add(&self, source: IpAddr) {
        *self.lock().entry(prefix(source)).or_default() += 1;
    }

    fn remove(&self, source: IpAddr) {
        let mut counts = self.lock();
        if let Some(count) = counts.get_mut(&prefix(source)) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&prefix(source));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Every step on the table leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the count of what is named by `K`.
#[derive(Debug)]
pub(super) struct Admission<K> {
    limits: ConnectionLimits,
    admitted: usize,
    sources: Sources,
    /// The oldest first.
    new: BTreeSet<(Instant, K)>,
    deadlines: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Ord> Admission<K> {
    pub(super) fn new(limits: ConnectionLimits, sources: Sources) -> Self {
        Self { limits, admitted: 0, sources, new: BTreeSet::new(), deadlines: BTreeSet::new() }
    }

    /// Lets so many in from now on; who is there stays.
    pub(super) fn set_limits(&mut self, limits: ConnectionLimits) {
        self.limits = limits;
    }

    /// Whether there is room for one more. `source`: whose it is, if that is known.
    pub(super) fn may_come(&self, source: Option<IpAddr>) -> Result<(), TooMany> {
        let is_crowded = source.is_some_and(|source| self.is_crowded(source));
        let is_full = self.admitted >= self.limits.all && self.new.is_empty();
        if is_full || is_crowded { Err(TooMany) } else { Ok(()) }
    }

    /// Who has to go to make room for a new one.
    pub(super) fn displaced(&self) -> Option<K> {
        let is_full = self.new.len() >= self.limits.new || self.admitted >= self.limits.all;
        self.new.first().filter(|_| is_full).map(|(_, key)| *key)
    }

    /// Takes one in.
    pub(super) fn admit(&mut self, key: K, source: Option<IpAddr>, now: Instant) -> Standing {
        self.admitted += 1;
        self.new.insert((now, key));
        let mut standing =
            Standing { since: now, is_new: true, counted_at: None, last_message: None, deadline: now + FIRST_MESSAGE };
        self.deadlines.insert((standing.deadline, key));
        if let Some(source) = source {
            self.count_at(&mut standing, source);
        }
        standing
    }

    /// Learns whose one is, if that was not known before.
    pub(super) fn is_of(&mut self, standing: &mut Standing, source: IpAddr) -> Result<(), TooMany> {
        if standing.counted_at.is_some() || !standing.is_new {
            return Ok(());
        }
        if self.is_crowded(source) {
            return Err(TooMany);
        }
        self.count_at(standing, source);
        Ok(())
    }

    fn is_crowded(&self, source: IpAddr) -> bool {
        self.sources.count(source) >= self.limits.new_of_source
    }

    fn count_at(&mut self, standing: &mut Standing, source: IpAddr) {
        standing.counted_at = Some(source);
        self.sources.add(source);
    }

    /// No longer counts one as new: its client has an allocation.
    pub(super) fn vouch(&mut self, key: K, standing: &mut Standing) {
        if !standing.is_new {
            return;
        }
        standing.is_new = false;
        self.new.remove(&(standing.since, key));
        if let Some(source) = standing.counted_at.take() {
            self.sources.remove(source);
        }
    }

    /// Counts one as what it is: new, unless its client has an allocation.
    pub(super) fn judge_anew(&mut self, key: K, standing: &mut Standing, source: IpAddr, has_allocation: bool) {
        if has_allocation {
            self.vouch(key, standing);
        } else if !standing.is_new {
            standing.is_new = true;
            self.new.insert((standing.since, key));
            self.count_at(standing, source);
        }
    }

    /// When somebody's time may be over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Whose time may be over: [`Admission::judge`] says whether it is.
    pub(super) fn due(&mut self, now: Instant) -> Option<K> {
        self.next_deadline().filter(|deadline| *deadline <= now)?;
        self.deadlines.pop_first().map(|(_, key)| key)
    }

    /// Whether the time of one is over that was due. `stays`: something else vouches for it.
    pub(super) fn judge(&mut self, key: K, standing: &mut Standing, stays: bool, now: Instant) -> bool {
        let silent_until = standing.last_message.map_or(standing.since + FIRST_MESSAGE, |at| at + SILENCE);
        if !stays && silent_until <= now {
            return true;
        }
        standing.deadline = if stays { now + SILENCE } else { silent_until };
        self.deadlines.insert((standing.deadline, key));
        false
    }

    /// Forgets one.
    pub(super) fn leave(&mut self, key: K, mut standing: Standing) {
        self.vouch(key, &mut standing);
        self.deadlines.remove(&(standing.deadline, key));
        self.admitted -= 1;
    }

    /// How many are new.
    pub(super) fn new_ones(&self) -> usize {
        self.new.len()
    }
}

/// What counts as one source: an IPv4 address, or the network that one IPv6 host has to itself.
fn prefix(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits { all: 5, new: 3, new_of_source: 2 };

    fn ip(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn one_source_has_so_many_new_ones_and_as_many_as_it_likes_with_an_allocation() {
        let now = Instant::now();
        let mut admission = Admission::new(LIMITS, Sources::default());
        let alice = ip("2001:db8::1");
        let mut first = admission.admit(1, alice, now);
        admission.admit(2, ip("2001:db8::2"), now);
        assert_eq!(admission.may_come(alice), Err(TooMany), "the /64 has two");
        assert_eq!(admission.may_come(ip("2001:db8:0:1::1")), Ok(()));
        admission.vouch(1, &mut first);
        assert_eq!(admission.may_come(alice), Ok(()));
        assert_eq!(admission.new_ones(), 1);
    }

    #[test]
    fn a_source_is_one_on_all_shards() {
        let now = Instant::now();
        let sources = Sources::default();
        let mut shards = [(); 2].map(|()| Admission::new(LIMITS, sources.clone()));
        let alice = ip("192.0.2.1");
        let first = shards[0].admit(1, alice, now);
        shards[1].admit(1, alice, now);
        assert_eq!(shards[0].may_come(alice), Err(TooMany));
        shards[0].leave(1, first);
        assert_eq!(shards[1].may_come(alice), Ok(()));
    }

    #[test]
    fn whoever_came_behind_a_load_balancer_is_counted_as_soon_as_it_is_known() {
        let now = Instant::now();
        let mut admission = Admission::new(LIMITS, Sources::default());
        let mut standings: Vec<_> = (0..3).map(|key| admission.admit(key, None, now)).collect();
        let source = "192.0.2.1".parse().unwrap();
        let known: Vec<_> = standings.iter_mut().map(|standing| admission.is_of(standing, source)).collect();
        assert_eq!(known, [Ok(()), Ok(()), Err(TooMany)]);
    }

    #[test]
    fn one_is_counted_once_at_its_source_and_a_source_of_nobody_is_forgotten() {
        let now = Instant::now();
        let mut admission = Admission::new(LIMITS, Sources::default());
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let mut standing = admission.admit(1, Some(source), now);
        assert_eq!(admission.is_of(&mut standing, source), Ok(()));
        assert_eq!(admission.may_come(Some(source)), Ok(()), "there is one");
        admission.vouch(1, &mut standing);
        assert_eq!(admission.is_of(&mut standing, source), Ok(()));
        assert!(admission.sources.lock().is_empty(), "{:?}", admission.sources);
        let second = admission.admit(2, Some(source), now);
        admission.leave(2, second);
        assert!(admission.sources.lock().is_empty(), "{:?}", admission.sources);
        admission.leave(1, standing);
        assert_eq!(admission.next_deadline(), None, "who has left has no deadline");
    }

    #[test]
    fn an_ipv4_address_is_a_source_of_its_own_also_when_it_is_mapped() {
        let now = Instant::now();
        let mut admission = Admission::new(LIMITS, Sources::default());
        for (key, source) in [(1, "::ffff:192.0.2.1"), (2, "192.0.2.1")] {
            assert_eq!(admission.may_come(ip(source)), Ok(()));
            admission.admit(key, ip(source), now);
        }
        assert_eq!(admission.may_come(ip("::ffff:192.0.2.1")), Err(TooMany));
        assert_eq!(admission.may_come(ip("::ffff:192.0.2.2")), Ok(()));
    }

    #[test]
    fn whoever_has_no_allocation_any_more_is_new_again() {
        let now = Instant::now();
        let mut admission = Admission::new(LIMITS, Sources::default());
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let mut standing = admission.admit(1, Some(source), now);
        admission.judge_anew(1, &mut standing, source, true);
        assert_eq!(admission.new_ones(), 0);
        admission.judge_anew(1, &mut standing, source, false);
        admission.admit(2, Some(source), now);
        assert_eq!((admission.new_ones(), admission.may_come(Some(source))), (2, Err(TooMany)));
        admission.leave(1, standing);
        assert_eq!((admission.new_ones(), admission.may_come(Some(source))), (1, Ok(())));
    }

    #[test]
    fn the_oldest_new_one_has_to_go_and_all_are_limited() {
        let now = Instant::now();
        let mut admission = Admission::new(LIMITS, Sources::default());
        for (key, source) in [(1, "192.0.2.1"), (2, "192.0.2.2"), (3, "192.0.2.3")] {
            assert_eq!(admission.displaced(), None, "before {key}");
            admission.admit(key, ip(source), now + Duration::from_secs(key));
        }
        assert_eq!(admission.displaced(), Some(1));
        admission.admit(4, ip("192.0.2.4"), now + Duration::from_secs(4));
        let mut last = admission.admit(5, ip("192.0.2.5"), now + Duration::from_secs(5));
        assert_eq!((admission.may_come(ip("192.0.2.6")), admission.displaced()), (Ok(()), Some(1)), "it is full");
        admission.vouch(5, &mut last);
        assert_eq!(admission.displaced(), Some(1), "who has no allocation makes way");
        let keys: Vec<_> = admission.new.iter().map(|(_, key)| *key).collect();
        for key in keys {
            let since = admission.new.iter().find(|(_, other)| *other == key).expect("it is new").0;
            let mut standing = Standing { since, is_new: true, counted_at: None, last_message: None, deadline: since };
            admission.vouch(key, &mut standing);
        }
        assert_eq!((admission.may_come(ip("192.0.2.6")), admission.displaced()), (Err(TooMany), None));
    }

    #[test]
    fn a_new_one_has_ten_seconds_and_later_a_minute_of_silence() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut admission = Admission::new(LIMITS, Sources::default());
        let silent = admission.admit(1, None, now);
        let mut heard = admission.admit(2, None, now);
        heard.heard(at(5));
        assert_eq!(admission.due(at(9)), None);
        for key in [1, 2] {
            assert_eq!(admission.due(at(10)), Some(key));
        }
        assert!(admission.judge(1, &mut { silent }, false, at(10)));
        assert!(!admission.judge(2, &mut heard, false, at(10)));
        assert_eq!((admission.next_deadline(), admission.due(at(64))), (Some(at(65)), None));
        assert_eq!(admission.due(at(65)), Some(2));
        assert!(!admission.judge(2, &mut heard, true, at(65)), "an allocation vouches for it");
        assert_eq!(admission.due(at(125)), Some(2));
        assert!(admission.judge(2, &mut heard, false, at(125)));
        admission.leave(1, silent);
        admission.leave(2, heard);
        assert_eq!((admission.admitted, admission.new_ones(), admission.next_deadline()), (0, 0, None));
    }
}
