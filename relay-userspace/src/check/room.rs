//! Room for what the configuration wants: open files, and buffers of sockets.

use super::{Finding, Findings, read};
use crate::capacity::Capacity;
use crate::config::Config;

/// The buffer that a listener asks for: the bursts of all clients while its shard is busy.
const LISTENER_BUFFER: u64 = 4 << 20;
const CAP_NET_ADMIN: u32 = 12;

/// What there is to know.
#[derive(Clone, Debug)]
struct Room {
    capacity: Capacity,
    /// `rmem_max` and `wmem_max`.
    buffers: [(&'static str, Option<u64>); 2],
    /// Whether this process may have larger ones.
    may_exceed: bool,
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let names = [("net.core.rmem_max", "net/core/rmem_max"), ("net.core.wmem_max", "net/core/wmem_max")];
    let status = read::text("/proc/self/status").unwrap_or_default();
    let capabilities =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    judge(&Room {
        capacity: Capacity::of(config),
        buffers: names.map(|(name, path)| (name, read::number(path))),
        may_exceed: capabilities.is_some_and(|capabilities| capabilities >> CAP_NET_ADMIN & 1 == 1),
    })
}

fn judge(room: &Room) -> Vec<Finding> {
    let Room { capacity, buffers, may_exceed } = room;
    let Capacity { ports, allocations, allocations_per_user, connections, .. } = capacity;
    let mut findings = Findings::about("room");
    if let Some(warning) = &capacity.warning {
        findings.warning(warning.clone(), "");
    }
    for (name, bytes) in buffers {
        if let Some(bytes) = bytes.filter(|bytes| *bytes < LISTENER_BUFFER && !may_exceed) {
            findings.warning(
                format!("sockets get buffers of {} KiB only, and bursts of clients are lost", bytes / 1024),
                format!("sysctl {name}={LISTENER_BUFFER}, or run with CAP_NET_ADMIN"),
            );
        }
    }
    findings.or_ok(format!(
        "{allocations} allocations ({allocations_per_user} of one user) on {ports} relay ports, {connections} connections"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::{Level, expect, levels};
    use super::*;

    fn room() -> Room {
        let capacity = Capacity {
            ports: 100,
            allocations: 100,
            allocations_per_user: 75,
            records: 1056,
            sessions: 0,
            paths: 0,
            connections: 200,
            warning: None,
        };
        Room {
            capacity,
            buffers: [("net.core.rmem_max", Some(212_992)), ("net.core.wmem_max", Some(8 << 20))],
            may_exceed: true,
        }
    }

    #[test]
    fn few_files_and_small_buffers_are_warnings() {
        assert_eq!(levels(&judge(&room())), [Level::Ok], "who may exceed the limit is not held by it");
        let bound = Room { may_exceed: false, ..room() };
        assert_eq!(levels(&judge(&bound)), [Level::Warning]);
        expect(&judge(&bound), Level::Warning, "net.core.rmem_max=4194304");
        let capacity = Capacity { warning: Some("the limit of open files is 1024".to_owned()), ..room().capacity };
        expect(&judge(&Room { capacity, ..room() }), Level::Warning, "open files");
    }
}
