//! Packets that the kernel dropped because a socket's buffer was full: losses of the generator, not of the server.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use crate::net::UdpSocket;

/// How many packets these sockets have lost to a full receive buffer. `None` where /proc does not say.
pub(super) fn receive_buffer_drops<'s>(sockets: impl Iterator<Item = &'s UdpSocket>) -> Option<u64> {
    let inodes: HashSet<u64> = sockets
        .map(|socket| fs::metadata(format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd())).ok().map(|file| file.ino()))
        .collect::<Option<_>>()?;
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(row);
    Some(rows.filter(|(inode, _)| inodes.contains(inode)).map(|(_, drops)| drops).sum())
}

/// Inode and drops of a socket: the columns are those of proc_net_udp(5).
fn row(line: &str) -> Option<(u64, u64)> {
    let mut columns = line.split_ascii_whitespace().skip(9);
    let inode = columns.next()?.parse().ok()?;
    let drops = columns.last()?.parse().ok()?;
    Some((inode, drops))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_kernel_are_read() {
        let line = "  563: 0100007F:0D96 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 \
                    80511 2 00000000f3b5a8c5 42        ";
        assert_eq!(row(line), Some((80_511, 42)));
        assert_eq!(row(""), None);
    }

    #[test]
    fn a_full_buffer_is_noticed() {
        let socket = UdpSocket::relay("127.0.0.1:0".parse().unwrap()).unwrap();
        let other = UdpSocket::relay("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(receive_buffer_drops([&socket, &other].into_iter()), Some(0));
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..10_000 {
            sender.send_to(&[0; 1000], socket.local()).unwrap();
        }
        assert!(receive_buffer_drops([&socket, &other].into_iter()) > Some(1000));
        assert_eq!(receive_buffer_drops([&other].into_iter()), Some(0));
    }
}
