//! What a fast path may do alone, and until when.

use std::time::{Duration, Instant};

use super::effect::{Effect, MediaFlow, PathId};
use super::end::{End, Side};
use super::session::Path;
use super::sessions::Sessions;

/// How long after the last media a fast path may serve a path on which nobody proves anything. A daemon that is dead leaves it
/// open for so long; one that lives looks twice in that time.
const UNPROVEN: Duration = Duration::from_secs(60);
/// A flow is extended once its end has moved by this part of the time that it is given: a full agent checks every few seconds
/// (RFC 7675 section 5.1), and not each of its checks is worth a change of the kernel's records.
const PART: u32 = 8;

impl Sessions {
    /// Tells the driver what has changed about what a fast path may do for a path.
    pub(super) fn update_flow(&mut self, id: PathId, now: Instant) {
        let Some(path) = self.paths.find(id.0) else { return };
        let wanted = self.wanted(id, path).filter(|(_, expires)| now < *expires);
        let installed = path.installed;
        let Some((flow, expires)) = wanted else { return self.withdraw(id) };
        if let Some((known, until)) = installed
            && known == flow
            && until <= expires
            && expires < until + path.consent.min(UNPROVEN) / PART
        {
            return;
        }
        // The new one first: records that belong to both change hands, and nothing is ever without.
        self.effects.push_back(Effect::InstallFlow { flow, expires });
        if let Some((known, _)) = installed.filter(|(known, _)| *known != flow) {
            self.effects.push_back(Effect::RemoveFlow { flow: known });
        }
        if let Some(path) = self.paths.find_mut(id.0) {
            path.installed = Some((flow, expires));
            path.tally.turn(flow.client_side, (self.fast_counts)(id));
        }
    }

    /// Has the fast path let go of a path.
    pub(super) fn withdraw(&mut self, id: PathId) {
        if let Some(path) = self.paths.find_mut(id.0)
            && let Some((flow, _)) = path.installed.take()
        {
            self.effects.push_back(Effect::RemoveFlow { flow });
        }
    }

    fn wanted(&self, id: PathId, path: &Path) -> Option<(MediaFlow, Instant)> {
        if self.table.get(&path.session).is_none_or(|session| session.is_closing) {
            return None;
        }
        // Who has latched is known by what it has sent, so that has to come by here.
        if path.ends.iter().any(End::latches) {
            return None;
        }
        let [a, b] = Side::BOTH.map(|side| path.end(side).target().map(|(local, remote)| (local.bind, remote)));
        let ([a, b], side) = match (a?, b?) {
            // Who is behind a relayed address of ours is the peer, as the fast path has it.
            (a, b) if self.settings.is_own(a.1) && !self.settings.is_own(b.1) => ([b, a], Side::B),
            ends => (ends.into(), Side::A),
        };
        let ends = Side::BOTH.into_iter().filter_map(|side| path.end(side).consent_ends(path.consent));
        let expires = ends.min().unwrap_or(path.active + UNPROVEN);
        let flow = MediaFlow { path: id, client: a.1, server: a.0, relayed: b.0, peer: b.1, client_side: side };
        Some((flow, expires))
    }
}
