//! Lines in the log about users that are refused for what they have already, or for want of room. They are about who has
//! proven to be a user, so there is no end to them only if there is none to what users ask for: each cause is told once in a
//! while, with how often it came meanwhile.

use std::time::{Duration, Instant};

use hairpin_proto::turn::{Cause, Refusal};

/// How often a shard tells of one cause.
const REST: Duration = Duration::from_secs(10);

/// Whether an operator is told by the log, too, and not only by who asks.
fn is_told(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::UserQuota
            | Cause::SourceQuota
            | Cause::RealmQuota
            | Cause::RelayFull
            | Cause::NoPort
            | Cause::NoSocket
            | Cause::AddressInUse
            | Cause::AddressNotHere
            | Cause::PermissionsFull
            | Cause::ChannelsFull
            | Cause::ConnectionsFull
            | Cause::NotAdmitted
            | Cause::UsersUnavailable
    )
}

/// What was told lately.
#[derive(Debug)]
pub(super) struct Complaints {
    told: [Option<Instant>; Cause::COUNT],
    /// How many were not, since then.
    passed_over: [u64; Cause::COUNT],
}

impl Default for Complaints {
    fn default() -> Self {
        Self { told: [None; Cause::COUNT], passed_over: [0; Cause::COUNT] }
    }
}

impl Complaints {
    /// How many of its cause were passed over before this one, if it is to be told.
    fn due(&mut self, cause: Cause, now: Instant) -> Option<u64> {
        if !is_told(cause) {
            return None;
        }
        let at = cause as usize;
        if self.told[at].is_some_and(|told| now < told + REST) {
            self.passed_over[at] += 1;
            return None;
        }
        self.told[at] = Some(now);
        Some(std::mem::take(&mut self.passed_over[at]))
    }

    /// Tells of a refusal, or counts it.
    pub(super) fn add(&mut self, refusal: &Refusal<'_>, with_address: bool) {
        let Some(passed_over) = self.due(refusal.cause, Instant::now()) else { return };
        let Refusal { cause, code, username, five_tuple, .. } = refusal;
        let client = with_address.then(|| five_tuple.client.socket()).map(tracing::field::display);
        let (cause, code, user) = (cause.label(), code.number(), username.unwrap_or_default());
        tracing::info!(cause, code, user, client, passed_over, "a request was refused: `hairpin why` says what to do");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once_in_a_while_with_how_many_were_not() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.due(Cause::UserQuota, now), Some(0));
        assert_eq!(complaints.due(Cause::RealmQuota, now), Some(0), "another cause");
        for seconds in [0, 5, 9] {
            assert_eq!(complaints.due(Cause::UserQuota, now + Duration::from_secs(seconds)), None);
        }
        assert_eq!(complaints.due(Cause::UserQuota, now + REST), Some(3));
        assert_eq!(complaints.due(Cause::UserQuota, now + 2 * REST), Some(0));
        assert_eq!(complaints.due(Cause::WrongPassword, now), None, "anybody can have as many of these as they like");
    }
}
