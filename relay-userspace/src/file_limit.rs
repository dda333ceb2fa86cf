//! The limit of open files: each relayed address has a socket, so the limit is a limit of relaying.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that have nothing to do with how much is relayed: standard streams, runtime, admin interface, BPF maps.
const FIXED: u64 = 64;
/// Files of one shard, besides its listeners: what it waits and is woken by.
const PER_SHARD: u64 = 8;

/// Raises the soft limit, often 1024, to the hard one, and both to what is `needed` where this process may. Returns what
/// holds now; `None` is no limit.
pub fn raise(needed: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let set = |to: Option<u64>| setrlimit(Resource::Nofile, Rlimit { current: to, maximum: to }).map(|()| to);
    // Only CAP_SYS_RESOURCE raises the hard one.
    let wanted = limit.maximum.map(|hard| hard.max(needed));
    set(wanted).or_else(|_| set(limit.maximum)).unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files cannot be raised");
        limit.current
    })
}

/// How many files a relay may have open that has so many sockets of relayed addresses, with `listeners` for each of its
/// shards.
pub fn needed(sockets: usize, listeners: usize, shards: u32) -> u64 {
    let per_shard = listeners as u64 + PER_SHARD;
    sockets as u64 + per_shard * u64::from(shards) + FIXED
}

/// How many of these sockets fit, so that the admin interface can still be opened when all are in use.
pub fn room(limit: Option<u64>, needed: u64, sockets: usize) -> usize {
    let missing = limit.map_or(0, |limit| needed.saturating_sub(limit));
    sockets.saturating_sub(usize::try_from(missing).unwrap_or(usize::MAX)).max(1)
}

/// What the operator has to know when the limit ends relaying before everything else does.
pub fn warning(limit: Option<u64>, needed: u64, sockets: usize) -> Option<String> {
    let limit = limit.filter(|limit| *limit < needed)?;
    Some(format!(
        "the limit of open files is {limit}, and {needed} are needed to use {sockets} relay ports: raise it \
         (LimitNOFILE= of systemd, ulimit -Hn), narrow --relay-ports, or lower --max-allocations"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_and_every_listener_of_every_shard_is_a_file() {
        assert_eq!(needed(32_768, 2, 4) - needed(32_768, 1, 4), 4);
        assert_eq!(needed(1000, 2, 4) - needed(900, 2, 4), 100);
        assert!(needed(1000, 2, 4) > 1008);
    }

    #[test]
    fn relaying_leaves_files_for_everything_else() {
        assert_eq!(room(None, 5000, 4900), 4900);
        assert_eq!(room(Some(6000), 5000, 4900), 4900);
        assert_eq!(room(Some(1024), 5000, 4900), 924);
        assert_eq!(room(Some(50), 5000, 4900), 1);
    }

    #[test]
    fn only_a_limit_that_is_too_low_is_worth_a_warning() {
        assert_eq!(warning(None, 5000, 4900), None);
        assert_eq!(warning(Some(5000), 5000, 4900), None);
        let text = warning(Some(4999), 5000, 4900).unwrap();
        for figure in ["4999", "5000", "4900"] {
            assert!(text.contains(figure), "{text}");
        }
    }
}
