//! The end of consent, and of sessions.

use std::time::{Duration, Instant};

use super::effect::{CloseReason, Event, PathId, SessionId};
use super::end::{Far, Side};
use super::flow::UNPROVEN;
use super::session::SessionState;
use super::sessions::Sessions;
use crate::ice::Outcome;

/// How often to look whether media flows, at most.
const LOOK: Duration = Duration::from_secs(30);

impl Sessions {
    /// Ends what is over. `packets` says how many a fast path has relayed for a path, both ways.
    pub fn handle_timeout(&mut self, now: Instant, packets: &dyn Fn(PathId) -> u64) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            self.expire_consent(id, now);
            self.look(id, now, packets);
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
        let (state, old_timer) = (self.state_of(session), session.timer);
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
        let setup = (!session.was_connected).then_some(session.began + session.timeouts.setup);
        let paused = session.paused_since.map(|since| since + session.timeouts.paused);
        let idle = session.timeouts.idle.filter(|_| session.was_connected).map(|idle| session.active + idle);
        // What flows without consent is extended by half, and looked at by then.
        let look = session.was_connected.then(|| now + LOOK.min(UNPROVEN / 2));
        let next = [setup, paused, idle, look, consent_ends]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(session.began + session.timeouts.setup);
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

    /// Looks whether media has flowed since the last time.
    fn look(&mut self, id: SessionId, now: Instant, packets: &dyn Fn(PathId) -> u64) {
        let paths = self.paths_of(id);
        let relayed = paths.iter().filter_map(|path| {
            let [(from_a, _), (from_b, _)] = self.path(*path)?.relayed;
            Some(from_a + from_b + packets(*path))
        });
        let all = relayed.sum();
        if let Some(session) = self.table.get_mut(&id)
            && std::mem::replace(&mut session.packets, all) != all
        {
            session.active = now;
        }
    }

    fn is_over(&self, id: SessionId, now: Instant) -> Option<CloseReason> {
        let session = self.table.get(&id)?;
        if !session.was_connected && session.began + session.timeouts.setup <= now {
            return Some(CloseReason::Setup);
        }
        // A stream that was taken out may have been what the session had paused for.
        let is_paused = self.state_of(session) == SessionState::Paused;
        if is_paused && session.paused_since.is_some_and(|since| since + session.timeouts.paused <= now) {
            return Some(CloseReason::ConsentLost);
        }
        let is_idle = session.timeouts.idle.is_some_and(|idle| session.active + idle <= now);
        (session.was_connected && is_idle).then_some(CloseReason::Idle)
    }
}
