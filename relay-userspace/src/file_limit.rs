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

/// What a relay opens files for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Sockets of relayed addresses.
    pub sockets: usize,
    /// Connections of clients.
    pub connections: usize,
    /// Listeners of one shard.
    pub listeners: usize,
    /// How many shards there are.
    pub shards: u32,
}

impl Needed {
    /// How many files that is.
    pub fn files(&self) -> u64 {
        let per_shard = self.listeners as u64 + PER_SHARD;
        (self.sockets + self.connections) as u64 + per_shard * u64::from(self.shards) + FIXED
    }

    /// What there is room for: where files are missing, sockets and connections lose the same share.
    #[must_use]
    pub fn room(&self, limit: Option<u64>) -> Self {
        let missing = limit.map_or(0, |limit| self.files().saturating_sub(limit)) as usize;
        let wanted = self.sockets + self.connections;
        let left = wanted.saturating_sub(missing);
        let share = |of: usize| if missing == 0 { of } else { (of * left / wanted.max(1)).max(1) };
        Self { sockets: share(self.sockets), connections: share(self.connections), ..*self }
    }

    /// What to tell the operator if the limit is too low.
    pub fn warning(&self, limit: Option<u64>) -> Option<String> {
        let needed = self.files();
        let limit = limit.filter(|limit| *limit < needed)?;
        let Self { sockets, connections, .. } = self;
        Some(format!(
            "the limit of open files is {limit}, and {needed} are needed to use {sockets} relay ports and {connections} \
             connections: raise it (LimitNOFILE= of systemd, ulimit -Hn), narrow --relay-ports, or lower \
             --max-allocations or --max-connections"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(sockets: usize, listeners: usize, shards: u32) -> Needed {
        Needed { sockets, connections: 0, listeners, shards }
    }

    #[test]
    fn every_port_every_connection_and_every_listener_of_every_shard_is_a_file() {
        assert_eq!(needed(32_768, 2, 4).files() - needed(32_768, 1, 4).files(), 4);
        assert_eq!(needed(1000, 2, 4).files() - needed(900, 2, 4).files(), 100);
        assert_eq!(Needed { connections: 50, ..needed(900, 2, 4) }.files() - needed(900, 2, 4).files(), 50);
        assert!(needed(1000, 2, 4).files() > 1008);
    }

    #[test]
    fn relaying_leaves_files_for_everything_else() {
        let needed = needed(4900, 2, 1);
        let files = needed.files();
        let room = |limit| needed.room(limit).sockets;
        assert_eq!(room(None), 4900);
        assert_eq!(room(Some(files)), 4900);
        assert_eq!(room(Some(files - 1000)), 3900);
        assert_eq!(room(Some(50)), 1);
    }

    #[test]
    fn sockets_and_connections_share_what_is_missing() {
        let needed = Needed { connections: 100, ..needed(300, 2, 1) };
        let room = needed.room(Some(needed.files() - 200));
        assert_eq!((room.sockets, room.connections), (150, 50));
    }

    #[test]
    fn only_a_limit_that_is_too_low_is_worth_a_warning() {
        let needed = Needed { connections: 77, ..needed(4900, 2, 1) };
        let files = needed.files();
        assert_eq!(needed.warning(None), None);
        assert_eq!(needed.warning(Some(files)), None);
        let text = needed.warning(Some(files - 1)).unwrap();
        for figure in [(files - 1).to_string(), files.to_string(), "4900".to_owned(), "77".to_owned()] {
            assert!(text.contains(&figure), "{text}");
        }
    }
}
