//! Which remote of a component is nominated, and which others have proven themselves (RFC 8445 sections 7.3 and 8.1).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Pairs that are remembered for a component: a full agent forms at most a hundred (RFC 8445 section 6.1.2.5), few of which
/// work. Of more, those that were silent for longest are forgotten; only who knows the password has any.
const PAIRS: usize = 16;

/// For how long after its first nomination a component goes by priority.
///
/// An agent that nominates aggressively (RFC 5245 section 8.1.1.2) says USE-CANDIDATE in every check, in whatever order they
/// get through, and means the pair of the highest priority; its checks take no longer than this. An agent that nominates a
/// pair later means just that one, as a phone that has left its Wi-Fi behind.
const SETTLING: Duration = Duration::from_secs(2);

/// A local candidate and a remote that has proven, by a check, that it knows the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The local candidate, by its place among those of the component.
    pub base: usize,
    /// Where the checks come from, and where to send to.
    pub remote: SocketAddr,
    /// Priority of the pair (RFC 8445 section 6.1.2.3).
    pub priority: u64,
    /// When its last check was, or whatever else counts as one.
    pub checked: Instant,
    /// Which of the successive credentials it was last nominated with, if it was.
    pub nominated: Option<u32>,
    /// Since when it is nominated with them.
    since: Option<Instant>,
    /// Whether it has been checked after all that belongs to its nomination, and though something had come from it since the check
    /// before: its agent sends checks for consent (RFC 7675), and is held to them. One that checks only while nothing flows, as
    /// that of pion before 4, is not.
    keeps_checking: bool,
    /// Whether something has come from it since its last check.
    has_sent: bool,
}

impl Pair {
    /// As a check shows it.
    pub fn checked(
        (base, remote): (usize, SocketAddr),
        priority: u64,
        checked: Instant,
        nominated: Option<u32>,
    ) -> Self {
        let since = nominated.map(|_| checked);
        Self { base, remote, priority, checked, nominated, since, keeps_checking: false, has_sent: false }
    }

    /// Learns what another check of the same pair shows.
    fn update(&mut self, check: &Self) {
        if self.nominated < check.nominated {
            // After a restart, too, all that belongs to it begins anew.
            (self.nominated, self.since, self.keeps_checking) = (check.nominated, check.since, false);
        }
        let is_late = self.since.is_some_and(|since| since + SETTLING <= check.checked);
        self.keeps_checking |= std::mem::take(&mut self.has_sent) && is_late;
        (self.priority, self.checked) = (check.priority, check.checked);
    }

    fn has_consent(&self, now: Instant, consent: Duration) -> bool {
        now < self.checked + consent
    }
}

/// What a check, or time, has changed about where to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Unchanged,
    /// There is a nominated pair now, where there was none.
    Nominated,
    /// Another pair is nominated now.
    Moved,
    /// There is a nominated pair with consent again, the same or another one.
    Resumed,
    /// The nominated pair has lost its consent, and no other one has it.
    Lost,
}

/// The pairs of one component.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pairs: Vec<Pair>,
    /// The one to send to, by what names it.
    selected: Option<(usize, SocketAddr)>,
    /// When the first one was nominated, and with which credentials.
    settling: Option<(Instant, u32)>,
    is_lost: bool,
}

impl Selection {
    /// The nominated pair, whether it has consent or not.
    pub fn selected(&self) -> Option<&Pair> {
        let (base, remote) = self.selected?;
        self.find(base, remote)
    }

    /// The nominated pair, unless nothing may be sent to it.
    pub fn usable(&self) -> Option<&Pair> {
        self.selected().filter(|_| !self.is_lost)
    }

    /// Whether the nominated pair has lost its consent.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether media from this remote is taken: that of every remote that has proven itself, since an agent may use a pair
    /// before its nomination has arrived (RFC 8445 section 12.2).
    pub fn accepts(&self, base: usize, remote: SocketAddr, now: Instant, consent: Duration) -> bool {
        self.find(base, remote).is_some_and(|pair| pair.has_consent(now, consent))
    }

    /// Takes a check that was proven.
    pub fn checked(&mut self, check: Pair, consent: Duration) -> Outcome {
        let now = check.checked;
        let before = self.find(check.base, check.remote).copied();
        self.remember(check);
        if check.nominated > self.settling.map(|(_, generation)| generation) {
            self.settling = check.nominated.map(|generation| (now, generation));
        }
        if self.selected == Some((check.base, check.remote)) {
            let was_lost = std::mem::take(&mut self.is_lost);
            return if was_lost { Outcome::Resumed } else { Outcome::Unchanged };
        }
        let current = self.selected().copied();
        let takes_over = current.is_none_or(|current| self.takes_over(&check, &current, now, consent));
        let is_left = current.zip(before).is_some_and(|(current, before)| self.is_left_for(&current, &before, now));
        if !(check.nominated.is_some() && takes_over || is_left) {
            return Outcome::Unchanged;
        }
        self.selected = Some((check.base, check.remote));
        match (current, std::mem::take(&mut self.is_lost)) {
            (None, _) => Outcome::Nominated,
            (Some(_), true) => Outcome::Resumed,
            (Some(_), false) => Outcome::Moved,
        }
    }

    /// Takes a sign of life that proves nothing: media, or an indication that keeps a NAT's binding (RFC 8445 section 11).
    ///
    /// There are full agents that never check again what they have nominated, or only while nothing flows. From them, what comes from
    /// the nominated address has to do; from those that go on checking it counts for nothing.
    pub fn heard(&mut self, base: usize, remote: SocketAddr, now: Instant) -> Outcome {
        let is_selected = self.selected == Some((base, remote));
        let mut pairs = self.pairs.iter_mut();
        let pair = pairs.find(|pair| is_selected && (pair.base, pair.remote) == (base, remote));
        let Some(pair) = pair else { return Outcome::Unchanged };
        pair.has_sent = true;
        if pair.keeps_checking {
            return Outcome::Unchanged;
        }
        pair.checked = pair.checked.max(now);
        if std::mem::take(&mut self.is_lost) { Outcome::Resumed } else { Outcome::Unchanged }
    }

    /// Forgets what has no consent. When the nominated pair is among it, the best of the others that were nominated takes
    /// its place; where there is none, it stays, and is lost until it is checked again.
    pub fn expire(&mut self, now: Instant, consent: Duration) -> Outcome {
        let selected = self.selected;
        self.pairs.retain(|pair| pair.has_consent(now, consent) || selected == Some((pair.base, pair.remote)));
        let Some(current) = self.selected() else { return Outcome::Unchanged };
        if self.is_lost || current.has_consent(now, consent) {
            return Outcome::Unchanged;
        }
        // What was nominated before a restart is nothing to go back to.
        let is_as_good = |pair: &&Pair| pair.nominated == current.nominated && pair.has_consent(now, consent);
        if let Some(other) = self.pairs.iter().filter(is_as_good).max_by_key(|pair| pair.priority) {
            self.selected = Some((other.base, other.remote));
            return Outcome::Moved;
        }
        self.is_lost = true;
        Outcome::Lost
    }

    /// When the nominated pair loses its consent, unless it is checked before.
    pub fn consent_ends(&self, consent: Duration) -> Option<Instant> {
        self.usable().map(|pair| pair.checked + consent)
    }

    /// Whether a newly nominated pair takes the place of the one that is.
    fn takes_over(&self, pair: &Pair, current: &Pair, now: Instant, consent: Duration) -> bool {
        if pair.nominated != current.nominated {
            // RFC 8445 section 9: what was agreed after a restart counts as soon as there is something, and for good.
            return pair.nominated > current.nominated;
        }
        let is_settling = self.settling.is_some_and(|(since, _)| now < since + SETTLING);
        !is_settling || pair.priority > current.priority || !current.has_consent(now, consent)
    }

    /// Whether the nominated pair has been silent since another one, which was nominated while priority decided, was checked before:
    /// then its agent means that one, and has said so too early.
    fn is_left_for(&self, current: &Pair, before: &Pair, now: Instant) -> bool {
        let is_settling = self.settling.is_some_and(|(since, _)| now < since + SETTLING);
        !is_settling && before.nominated == current.nominated && current.checked < before.checked
    }

    /// Adds the pair, or what is new about it.
    fn remember(&mut self, check: Pair) {
        let is_it = |pair: &&mut Pair| (pair.base, pair.remote) == (check.base, check.remote);
        if let Some(pair) = self.pairs.iter_mut().find(is_it) {
            pair.update(&check);
            return;
        }
        if self.pairs.len() >= PAIRS {
            let selected = self.selected;
            let others = self.pairs.iter().enumerate();
            let others = others.filter(|(_, pair)| selected != Some((pair.base, pair.remote)));
            if let Some((oldest, _)) = others.min_by_key(|(_, pair)| pair.checked) {
                self.pairs.swap_remove(oldest);
            }
        }
        self.pairs.push(check);
    }

    fn find(&self, base: usize, remote: SocketAddr) -> Option<&Pair> {
        self.pairs.iter().find(|pair| (pair.base, pair.remote) == (base, remote))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSENT: Duration = Duration::from_secs(30);

    /// A component, and a clock.
    struct Bench {
        selection: Selection,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { selection: Selection::default(), start: Instant::now() }
        }

        fn at(&self, milliseconds: u64) -> Instant {
            self.start + Duration::from_millis(milliseconds)
        }

        /// A check of the remote with this number, which is also its priority.
        fn check(&mut self, milliseconds: u64, remote: u16, generation: u32, is_nominated: bool) -> Outcome {
            let checked = self.at(milliseconds);
            let (remote, priority) = (at(remote), remote.into());
            let pair = Pair::checked((0, remote), priority, checked, is_nominated.then_some(generation));
            self.selection.checked(pair, CONSENT)
        }

        fn nominate(&mut self, milliseconds: u64, remote: u16) -> Outcome {
            self.check(milliseconds, remote, 0, true)
        }

        fn expire(&mut self, milliseconds: u64) -> Outcome {
            let now = self.at(milliseconds);
            self.selection.expire(now, CONSENT)
        }

        fn usable(&self) -> Option<u16> {
            self.selection.usable().map(|pair| pair.remote.port())
        }
    }

    fn at(remote: u16) -> SocketAddr {
        ([198, 51, 100, 7], remote).into()
    }

    #[test]
    fn nothing_is_sent_before_a_nomination() {
        let mut bench = Bench::new();
        assert_eq!(bench.check(0, 5, 0, false), Outcome::Unchanged);
        assert_eq!(bench.usable(), None);
        assert!(bench.selection.accepts(0, at(5), bench.at(1), CONSENT), "but it is listened to");
        assert!(!bench.selection.accepts(1, at(5), bench.at(1), CONSENT), "at the candidate that was checked");
        assert_eq!(bench.nominate(50, 5), Outcome::Nominated);
        assert_eq!(bench.usable(), Some(5));
        assert_eq!(bench.nominate(100, 5), Outcome::Unchanged);
    }

    #[test]
    fn of_aggressive_nominations_the_highest_priority_counts() {
        let mut bench = Bench::new();
        assert_eq!(bench.nominate(0, 5), Outcome::Nominated);
        assert_eq!(bench.nominate(20, 9), Outcome::Moved);
        assert_eq!(bench.nominate(40, 7), Outcome::Unchanged);
        assert_eq!(bench.usable(), Some(9));
    }

    #[test]
    fn of_equal_priorities_the_first_counts_and_of_a_remote_that_of_its_last_check() {
        let mut bench = Bench::new();
        let check = |bench: &mut Bench, remote: u16, priority: u64| {
            let (remote, checked) = (at(remote), bench.at(0));
            bench.selection.checked(Pair::checked((0, remote), priority, checked, Some(0)), CONSENT)
        };
        assert_eq!(check(&mut bench, 1, 9), Outcome::Nominated);
        assert_eq!(check(&mut bench, 2, 9), Outcome::Unchanged);
        assert_eq!(check(&mut bench, 1, 3), Outcome::Unchanged);
        assert_eq!(check(&mut bench, 2, 4), Outcome::Moved);
    }

    #[test]
    fn a_later_nomination_counts_whatever_its_priority() {
        let mut bench = Bench::new();
        bench.nominate(0, 9);
        assert_eq!(bench.nominate(1999, 5), Outcome::Unchanged);
        assert_eq!(bench.nominate(2000, 5), Outcome::Moved);
        // The old one is still checked, as by an agent that keeps it for another change.
        assert_eq!(bench.check(2500, 9, 0, false), Outcome::Unchanged);
        assert_eq!(bench.usable(), Some(5));
    }

    #[test]
    fn who_has_moved_early_is_followed_once_the_old_pair_is_silent() {
        let mut bench = Bench::new();
        bench.nominate(0, 9);
        bench.check(10, 7, 0, false);
        assert_eq!(bench.nominate(1000, 5), Outcome::Unchanged, "it could be aggressive");
        assert_eq!(bench.check(1900, 5, 0, false), Outcome::Unchanged, "it still could");
        bench.check(2500, 9, 0, false);
        assert_eq!(bench.check(3000, 5, 0, false), Outcome::Unchanged, "both are checked");
        bench.check(3500, 7, 0, false);
        assert_eq!(bench.check(7000, 7, 0, false), Outcome::Unchanged, "it was never nominated");
        assert_eq!(bench.check(8000, 5, 0, false), Outcome::Moved);
        assert_eq!(bench.usable(), Some(5));
    }

    #[test]
    fn a_restart_counts_with_its_first_nomination_and_not_before() {
        let mut bench = Bench::new();
        bench.nominate(0, 9);
        assert_eq!(bench.check(3000, 5, 1, false), Outcome::Unchanged);
        assert_eq!(bench.usable(), Some(9));
        assert_eq!(bench.check(3010, 5, 1, true), Outcome::Moved);
        assert_eq!(bench.check(9000, 9, 0, true), Outcome::Unchanged, "the old credentials nominate no more");
        assert_eq!(bench.check(3500, 4, 1, true), Outcome::Unchanged, "the new ones settle anew");
        assert_eq!(bench.usable(), Some(5));
    }

    #[test]
    fn the_same_remote_may_be_nominated_again_after_a_restart() {
        let mut bench = Bench::new();
        bench.nominate(0, 9);
        bench.nominate(10, 5);
        assert_eq!(bench.check(3000, 9, 1, false), Outcome::Unchanged);
        assert_eq!(bench.check(3010, 9, 1, true), Outcome::Unchanged, "it is the one already");
        assert_eq!(bench.check(6000, 5, 0, true), Outcome::Unchanged, "of the old credentials");
        assert_eq!(bench.usable(), Some(9));
    }

    #[test]
    fn without_checks_consent_ends_and_with_them_it_comes_back() {
        let mut bench = Bench::new();
        bench.nominate(0, 5);
        bench.check(10_000, 5, 0, false);
        assert_eq!(bench.selection.consent_ends(CONSENT), Some(bench.at(40_000)));
        assert_eq!(bench.expire(39_999), Outcome::Unchanged);
        assert_eq!(bench.expire(40_000), Outcome::Lost);
        assert_eq!((bench.usable(), bench.selection.consent_ends(CONSENT)), (None, None));
        assert!(!bench.selection.accepts(0, at(5), bench.at(40_000), CONSENT));
        assert_eq!(bench.expire(41_000), Outcome::Unchanged, "it is said once");
        assert_eq!(bench.check(45_000, 5, 0, false), Outcome::Resumed);
        assert_eq!(bench.usable(), Some(5));
    }

    #[test]
    fn an_agent_that_never_checks_again_lives_by_what_it_sends() {
        let mut bench = Bench::new();
        bench.nominate(0, 5);
        bench.nominate(1999, 5);
        let heard = |bench: &mut Bench, milliseconds, remote| {
            let now = bench.at(milliseconds);
            bench.selection.heard(0, at(remote), now)
        };
        assert_eq!(heard(&mut bench, 20_000, 6), Outcome::Unchanged, "somebody else");
        assert_eq!(bench.expire(31_999), Outcome::Lost);
        assert_eq!(heard(&mut bench, 40_000, 5), Outcome::Resumed);
        assert_eq!(heard(&mut bench, 60_000, 5), Outcome::Unchanged);
        assert_eq!((bench.expire(89_999), bench.expire(90_000)), (Outcome::Unchanged, Outcome::Lost));
    }

    #[test]
    fn an_agent_that_goes_on_checking_is_held_to_it() {
        let mut bench = Bench::new();
        bench.nominate(0, 5);
        let early = bench.at(1500);
        bench.selection.heard(0, at(5), early);
        bench.check(2000, 5, 0, false);
        let now = bench.at(31_000);
        assert_eq!(bench.selection.heard(0, at(5), now), Outcome::Unchanged);
        assert_eq!(bench.expire(32_000), Outcome::Lost);
        assert_eq!(bench.selection.heard(0, at(5), now), Outcome::Unchanged);
        assert_eq!(bench.usable(), None);
        // Where it moves to, it may be another kind of agent, as behind another gateway.
        bench.nominate(40_000, 6);
        let now = bench.at(60_000);
        bench.selection.heard(0, at(6), now);
        assert_eq!(bench.expire(80_000), Outcome::Unchanged);
    }

    #[test]
    fn checks_of_an_agent_that_was_silent_before_hold_it_to_nothing() {
        let mut bench = Bench::new();
        bench.nominate(0, 5);
        for time in [2000, 4000, 6000] {
            bench.check(time, 5, 0, false);
        }
        let now = bench.at(30_000);
        bench.selection.heard(0, at(5), now);
        assert_eq!(bench.expire(59_999), Outcome::Unchanged);
        assert_eq!(bench.expire(60_000), Outcome::Lost);
    }

    #[test]
    fn where_consent_ends_the_best_of_the_others_that_were_nominated_takes_over() {
        let mut bench = Bench::new();
        for remote in [9, 5, 7, 8, 3] {
            bench.check(0, remote, 0, remote != 8);
        }
        // The best is neither the first nor the last that is left.
        for remote in [5, 7, 8, 3] {
            bench.check(20_000, remote, 0, false);
        }
        assert_eq!(bench.expire(30_000), Outcome::Moved);
        assert_eq!(bench.usable(), Some(7));
    }

    #[test]
    fn a_lost_pair_makes_way_for_any_nomination() {
        let mut bench = Bench::new();
        bench.nominate(0, 9);
        bench.expire(30_000);
        assert_eq!(bench.nominate(31_000, 2), Outcome::Resumed);
        assert_eq!(bench.usable(), Some(2));
    }

    #[test]
    fn of_too_many_remotes_the_silent_are_forgotten_and_never_the_nominated() {
        let mut bench = Bench::new();
        bench.nominate(0, 1);
        for remote in 2..100 {
            bench.check(u64::from(remote), remote, 0, false);
        }
        assert_eq!(bench.usable(), Some(1));
        assert_eq!(bench.selection.pairs.len(), PAIRS);
        assert!(bench.selection.accepts(0, at(99), bench.at(100), CONSENT));
        assert!(!bench.selection.accepts(0, at(2), bench.at(100), CONSENT));
    }
}
