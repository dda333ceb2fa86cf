//! What expires on the server, and when it is to be renewed.

use std::time::{Duration, Instant};

use crate::request::{Outcome, Request};

/// A permission lives five minutes (RFC 8656 section 9), and binding a channel renews that of its peer as well. So
/// channels, which live ten (section 12), are renewed at the same pace, and need no permission of their own.
const PERMISSION_PACE: Duration = Duration::from_secs(4 * 60);
/// RFC 8656 section 8.1 recommends to refresh an allocation one minute before it expires.
const MARGIN: Duration = Duration::from_secs(60);

/// The renewals that lie ahead.
#[derive(Debug, Default)]
pub(crate) struct Renewals(Vec<(Instant, Request)>);

impl Renewals {
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(at, _)| *at).min()
    }

    /// Takes a renewal that is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Request> {
        let index = self.0.iter().position(|(at, _)| *at <= now)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Learns from a request that succeeded.
    pub(crate) fn learn(&mut self, request: &Request, outcome: &Outcome, now: Instant) {
        match (request, outcome) {
            (_, Outcome::Allocated(allocation)) => self.allocation(allocation.lifetime, now),
            (Request::Refresh { family: None, .. } | Request::Move { .. }, Outcome::Refreshed(lifetime)) => {
                self.allocation(*lifetime, now);
            }
            (Request::CreatePermission(_) | Request::ChannelBind { .. }, _) => {
                self.0.retain(|(_, other)| other != request);
                self.0.push((now + PERMISSION_PACE, request.clone()));
            }
            _ => {}
        }
    }

    fn allocation(&mut self, lifetime: Duration, now: Instant) {
        if lifetime.is_zero() {
            self.0.clear();
            return;
        }
        self.0.retain(|(_, request)| !matches!(request, Request::Refresh { .. }));
        let pace = lifetime.saturating_sub(MARGIN).max(lifetime / 2);
        // The server chooses the lifetime again, by the same rule as at first.
        self.0.push((now + pace, Request::Refresh { lifetime: None, family: None }));
    }
}
