//! The end of consent, and of sessions.

use std::time::{Duration, Instant};

use super::effect::{CloseReason, Event, SessionId};
use super::end::{Far, Side};
use super::session::{Session, SessionState};
use super::sessions::Sessions;
use super::settings::{Terms, Timeouts};
use crate::ice::Outcome;

/// How seldom to look whether media flows, at most.
const LOOK: Duration = Duration::from_secs(30);

impl Sessions {
    /// Ends what is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            // First, since what was heard of a remote may be all the consent there is.
            self.look(id, now);
            self.expire_consent(id, now);
            match self.is_over(id, now) {
                Some(reason) => {
                    self.close(id, reason);
                }
                None => self.settle(id, now),
            }
        }
    }

    /// Follows what has changed of a session: what state it is in, and when to look at it again.
    pub(super) fn settle(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.table.get(&id) else { return };
        let (state, old_timer, idle) = (self.state_of(session), session.timer, self.idle(session));
        let is_connected = session.paths().filter_map(|path| self.path(path)).any(super::session::Path::is_connected);
        let consents = session
            .paths()
            .filter_map(|path| self.path(path))
            .flat_map(|path| path.ends.iter().filter_map(|end| end.consent_ends(path.consent)).collect::<Vec<_>>());
        let consent_ends = consents.min();
        let Some(session) = self.table.get_mut(&id) else { return };
        if is_connected && !session.was_connected {
            session.was_connected = true;
            session.active = now;
        }
        session.paused_since = (state == SessionState::Paused).then(|| session.paused_since.unwrap_or(now));
        let setup = (!session.was_connected).then_some(session.began + session.terms.timeouts.setup);
        let paused = session.paused_since.map(|since| since + session.terms.timeouts.paused);
        let idle = idle.filter(|_| session.was_connected).map(|idle| session.active + idle);
        // Often enough that what is heard extends what a fast path may do before its time is over.
        let look = session.was_connected.then(|| now + LOOK.min(session.terms.timeouts.consent / 3));
        let next = [setup, paused, idle, look, consent_ends]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(session.began + session.terms.timeouts.setup);
        session.timer = next.max(now);
        let timer = session.timer;
        self.timers.remove(&(old_timer, id));
        self.timers.insert((timer, id));
    }

    fn expire_consent(&mut self, id: SessionId, now: Instant) {
        for path in self.paths_of(id) {
            for side in Side::BOTH {
                let Some(entry) = self.paths.find_mut(path.0) else { continue };
                let consent = entry.consent;
                let Far::Ice(selection) = &mut entry.end_mut(side).far else { continue };
                let event = match selection.expire(now, consent) {
                    Outcome::Lost => Event::ConsentLost,
                    Outcome::Moved => Event::Moved,
                    Outcome::Unchanged | Outcome::Nominated | Outcome::Resumed => continue,
                };
                self.happened(id, event, path, side);
            }
            self.update_flow(path, now);
        }
    }

    /// Looks what has come to the legs since the last time.
    fn look(&mut self, id: SessionId, now: Instant) {
        for path in self.paths_of(id) {
            let counts = self.counts(path);
            let Some(entry) = self.paths.find_mut(path.0) else { continue };
            for side in Side::BOTH {
                let all = counts.all[side as usize].packets;
                if std::mem::replace(&mut entry.seen[side as usize], all) == all {
                    continue;
                }
                entry.active = now;
                // A fast path takes it from nobody else.
                if let Far::Ice(selection) = &mut entry.end_mut(side).far
                    && let Some((base, remote)) = selection.usable().map(|pair| (pair.base, pair.remote))
                {
                    selection.heard(base, remote, now);
                }
                if let Some(session) = self.table.get_mut(&id) {
                    session.active = now;
                }
            }
        }
    }

    /// How long no media may flow. Where nobody is asked for consent, there has to be an end.
    fn idle(&self, session: &Session) -> Option<Duration> {
        let mut ends = session.paths().filter_map(|path| self.path(path)).flat_map(|path| &path.ends);
        let asks = ends.any(|end| matches!(end.far, Far::Ice(_)));
        session.terms.timeouts.idle.or(Timeouts::default().idle.filter(|_| !asks))
    }

    /// The terms of a session, as they hold.
    pub(super) fn terms(&self, session: &Session) -> Terms {
        Terms { timeouts: Timeouts { idle: self.idle(session), ..session.terms.timeouts }, ..session.terms }
    }

    fn is_over(&self, id: SessionId, now: Instant) -> Option<CloseReason> {
        let session = self.table.get(&id)?;
        if !session.was_connected && session.began + session.terms.timeouts.setup <= now {
            return Some(CloseReason::Setup);
        }
        // A stream that was taken out may have been what the session had paused for.
        let is_paused = self.state_of(session) == SessionState::Paused;
        if is_paused && session.paused_since.is_some_and(|since| since + session.terms.timeouts.paused <= now) {
            return Some(CloseReason::ConsentLost);
        }
        let is_idle = self.idle(session).is_some_and(|idle| session.active + idle <= now);
        (session.was_connected && is_idle).then_some(CloseReason::Idle)
    }
}
