//! One line on a terminal while packets flow.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

const PACE: Duration = Duration::from_secs(1);

/// Shows nothing if standard error is no terminal, or if a script reads the result.
pub(super) struct Progress {
    next: Option<Instant>,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        let wanted = !quiet && stderr().is_terminal();
        Self { next: wanted.then(|| Instant::now() + PACE) }
    }

    pub(super) fn show(&mut self, sent: u64, received: u64, start: Instant) {
        let now = Instant::now();
        let Some(next) = self.next.filter(|next| *next <= now) else { return };
        self.next = Some(next + PACE);
        let seconds = now.duration_since(start).as_secs();
        // A terminal that is gone is no reason to stop.
        let _ = write!(stderr(), "\r{seconds} s: {sent} packets sent, {received} received ");
    }

    pub(super) fn clear(&self) {
        if self.next.is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
