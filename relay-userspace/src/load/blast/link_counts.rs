//! What an interface has counted.

use std::fs;
use std::io;

/// Frames since the interface exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkCounts {
    /// Frames that found no room on their way out, so that nobody has received them.
    pub(super) sent_dropped: u64,
    /// Frames that found no room on their way in.
    pub(super) received_dropped: u64,
}

impl LinkCounts {
    /// Of an interface of this thread's network namespace.
    pub(super) fn of(interface: &str) -> io::Result<Self> {
        let table = fs::read_to_string("/proc/thread-self/net/dev")?;
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no counters of {interface}"));
        table.lines().find_map(|line| row(line, interface)).ok_or_else(missing)
    }

    /// What has been counted since an earlier time.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            sent_dropped: self.sent_dropped - earlier.sent_dropped,
            received_dropped: self.received_dropped - earlier.received_dropped,
        }
    }
}

/// The columns are: bytes, packets, errs, drop, fifo, frame, compressed and multicast received, then the same of sent.
fn row(line: &str, interface: &str) -> Option<LinkCounts> {
    let (name, columns) = line.split_once(':')?;
    let columns: Vec<u64> = columns.split_whitespace().map_while(|column| column.parse().ok()).collect();
    (name.trim() == interface && columns.len() >= 12)
        .then(|| LinkCounts { received_dropped: columns[3], sent_dropped: columns[11] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_kernel_are_read() {
        let line = "  veth0: 1296 16 0 3 0 0 0 0 1326 17 0 5 0 0 0 0";
        assert_eq!(row(line, "veth0"), Some(LinkCounts { received_dropped: 3, sent_dropped: 5 }));
        assert_eq!(row(line, "veth"), None);
        assert_eq!(row(" face |bytes    packets errs drop", "veth0"), None);
        assert!(LinkCounts::of("lo").is_ok() && LinkCounts::of("none").is_err());
    }
}
