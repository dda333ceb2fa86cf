//! What the process uses, named as Prometheus clients of every language do.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// What the process uses. What the system does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Processor time in user and kernel mode, of all threads, in seconds. What the XDP program takes is nobody's.
    pub cpu_seconds: Option<f64>,
    /// Memory that it has in RAM, in bytes; the kernel's maps are not part of it.
    pub resident_bytes: Option<u64>,
    /// Memory that it has addresses for, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Open files, sockets included.
    pub open_files: Option<u64>,
    /// How many it may open; none: without a limit.
    pub max_files: Option<u64>,
    /// When it began, in seconds since the Unix epoch.
    pub started: Option<f64>,
}

impl Process {
    /// This process, now. Costs a few small files in `/proc`, and a listing of the open ones.
    pub fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let usage = stat.as_deref().and_then(Usage::parse);
        let ticks = |ticks: u64| seconds(ticks, clock_ticks_per_second());
        let booted = fs::read_to_string("/proc/stat").ok().as_deref().and_then(booted);
        Self {
            cpu_seconds: usage.map(|usage| ticks(usage.cpu)),
            resident_bytes: usage.map(|usage| usage.resident_pages * page_size() as u64),
            virtual_bytes: usage.map(|usage| usage.virtual_bytes),
            // The listing itself opens one.
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as u64),
            max_files: getrlimit(Resource::Nofile).current,
            started: usage.zip(booted).map(|(usage, booted)| booted + ticks(usage.started)),
        }
    }
}

/// What `/proc/self/stat` says (proc(5)). Times are in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usage {
    cpu: u64,
    started: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Usage {
    fn parse(stat: &str) -> Option<Self> {
        // The second field is a name in parentheses, and may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        // They are counted from 1, and the first of these is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu: field(14)? + field(15)?,
            started: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the host was started, in seconds since the Unix epoch, as `/proc/stat` says.
fn booted(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[allow(clippy::cast_precision_loss, reason = "a process that has run for a million years would round")]
fn seconds(ticks: u64, per_second: u64) -> f64 {
    ticks as f64 / per_second as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix_seconds;

    #[test]
    fn a_name_may_look_like_fields() {
        let stat = "7 (a) 1 2) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 3 0 1234 4096000 25 9 9 9\n";
        let expected = Usage { cpu: 200, started: 1234, virtual_bytes: 4_096_000, resident_pages: 25 };
        assert_eq!(Usage::parse(stat), Some(expected));
        assert_eq!(Usage::parse("7 (cut) S 1 7"), None);
    }

    #[test]
    fn this_process_has_memory_files_and_a_past() {
        let before = Process::now();
        let _file = fs::File::open("/proc/self/stat").unwrap();
        let process = Process::now();
        assert!(process.resident_bytes.unwrap() > 1 << 20 && process.virtual_bytes >= process.resident_bytes);
        assert!(process.open_files.unwrap() > 3, "{before:?} {process:?}");
        let now = seconds(unix_seconds(), 1);
        let started = process.started.unwrap();
        assert!(started <= now + 1.0 && now - started < 3600.0, "{started} is not just before {now}");
        assert!(process.cpu_seconds.unwrap() >= before.cpu_seconds.unwrap());
    }
}
