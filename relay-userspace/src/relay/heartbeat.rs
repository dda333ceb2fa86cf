//! What the service manager hears of the relay now and then: how it is, and that it lives.
//!
//! A relay lives while each of its shards answers. One that hangs is not reported, so a manager with a watchdog ends the
//! process and starts another, which is all that can be done for the clients of that shard.

use std::fmt;

use super::Relay;
use crate::shard::{InService, ask_all};

/// How a relay is, in one line.
#[derive(Clone, Copy, Debug)]
struct Condition<'r> {
    served: InService,
    in_kernel: bool,
    shards: usize,
    silent: usize,
    is_draining: bool,
    /// What was wrong with the last reload.
    problem: Option<&'r str>,
}

impl Relay {
    /// Tells the service manager how the relay is, and that it lives, if every shard does.
    pub(super) async fn beat(&mut self) {
        if !self.manager.is_there() {
            return;
        }
        let counts = ask_all(&self.queries, |shard| async move { shard.in_service().await }).await;
        let condition = Condition {
            served: counts.iter().copied().flatten().sum(),
            in_kernel: self.datapath.handle().is_active(),
            shards: counts.len(),
            silent: counts.iter().filter(|count| count.is_none()).count(),
            is_draining: self.drain.is_some(),
            problem: self.reload_problems.first().map(String::as_str),
        };
        let status = condition.to_string();
        self.manager.remind();
        self.manager.status(&status);
        if condition.silent == 0 {
            self.manager.alive();
            if self.is_ending {
                self.manager.more_time();
            }
        }
    }
}

impl fmt::Display for Condition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { served, in_kernel, shards, silent, is_draining, problem } = *self;
        let state = if is_draining { "draining" } else { "serving" };
        let path = if in_kernel { "in the kernel" } else { "in userspace" };
        write!(f, "{state}, {path}: {served}")?;
        if silent > 0 {
            write!(f, "; {silent} of {shards} shards do not answer")?;
        }
        problem.map_or(Ok(()), |problem| write!(f, "; the last reload failed: {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_matters() {
        let good = Condition {
            served: InService { allocations: 12, sessions: 1 },
            in_kernel: true,
            shards: 2,
            silent: 0,
            is_draining: false,
            problem: None,
        };
        assert_eq!(good.to_string(), "serving, in the kernel: 12 allocations and 1 media session");
        let none = InService::default();
        let bad = Condition { served: none, in_kernel: false, silent: 1, problem: Some("a typo"), ..good };
        assert_eq!(
            bad.to_string(),
            "serving, in userspace: 0 allocations; 1 of 2 shards do not answer; the last reload failed: a typo"
        );
        assert!(Condition { is_draining: true, ..good }.to_string().starts_with("draining, in the kernel"));
    }
}
