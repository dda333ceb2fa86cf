//! What became of datagrams that were sent: the error queue of a socket, and errors that belong to an earlier datagram.
//!
//! A socket that keeps ICMP packets in its error queue (IP_RECVERR) also gives the last one's error to whatever call
//! comes next, once, and then the call does nothing. [`past_pending`] makes it again.
#![allow(unsafe_code, reason = "recvmsg takes C structures that point into buffers")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{self, Zeroed as _};

/// What an ICMP packet said about a datagram of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpReport {
    /// Where the datagram had been sent to, by the copy of its headers in the ICMP packet.
    pub destination: SocketAddr,
    /// The type: of ICMP or ICMPv6, as the destination is of IPv4 or IPv6.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The MTU of the next hop in bytes, if type and code say that the datagram was too big; else anything.
    pub mtu: u32,
}

/// Room for the ancillary data of an error: what a datagram has, and then error and offender, of either family.
const CONTROL_LEN: usize = 256;

#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// Takes the oldest entry out of a socket's error queue; `WouldBlock` if there is none.
///
/// `None` is an error that no ICMP packet has brought: the host itself did not send a datagram, since it was too big for
/// the first link and not to be fragmented. RFC 8656 section 11.5 is about ICMP packets that the server receives, so the
/// client hears nothing of it; whoever sent the datagram was told by the call.
pub fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<IcmpReport>> {
    let mut name = libc::sockaddr_storage::zeroed();
    let mut control = Control([0; CONTROL_LEN]);
    let mut header = libc::msghdr::zeroed();
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of_val(&name) as libc::socklen_t;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_LEN as _;
    // SAFETY: the header points to locals that outlive the call. There is no room for the datagram, which is not needed.
    let taken = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if taken < 0 {
        return Err(io::Error::last_os_error());
    }
    let error = message::read_extended_error(&header)
        .filter(|error| error.ee_origin == libc::SO_EE_ORIGIN_ICMP || error.ee_origin == libc::SO_EE_ORIGIN_ICMP6);
    let destination = message::read_address(&name);
    Ok(error.zip(destination).map(|(error, destination)| IcmpReport {
        destination,
        kind: error.ee_type,
        code: error.ee_code,
        mtu: error.ee_info,
    }))
}

/// How often a call is made again. Under a flood of ICMP packets one more may come between two calls; an error that is
/// still there then is taken for the call's own.
const AGAIN: u32 = 3;

/// Makes a call again when its error may be that of an earlier datagram. A call whose error is its own fails again, which
/// costs little: those are rare.
pub(super) fn past_pending<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..AGAIN {
        match call() {
            Err(error) if may_be_pending(&error) => {}
            result => return result,
        }
    }
    call()
}

/// Whether an ICMP packet can be the cause of this error: what the kernel translates types and codes to.
fn may_be_pending(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EMSGSIZE
                | libc::EACCES
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EHOSTDOWN
                | libc::ENONET
        )
    )
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::os::fd::AsFd as _;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::net::{IpFields, Outgoing, ReceiveBatch, SendBatch, UdpSocket};

    const FAMILIES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    fn relay(ip: IpAddr) -> UdpSocket {
        UdpSocket::relay((ip, 0).into()).unwrap()
    }

    /// An address that nobody listens at.
    fn closed(ip: IpAddr) -> SocketAddr {
        (ip, 1).into()
    }

    /// Sends datagrams of this length in one batch, from one socket, and returns how many the kernel refused.
    fn send(socket: &UdpSocket, destinations: &[SocketAddr], length: usize) -> usize {
        let payload = vec![7; length];
        let mut batch = SendBatch::new();
        let mut outbox = batch.start();
        for destination in destinations {
            outbox.push(&Outgoing {
                socket: (),
                source: None,
                destination: *destination,
                ip: IpFields::ORIGINATED,
                header: &[],
                payload: &payload,
                padding: 0,
            });
        }
        let mut refused = 0;
        outbox.flush(|()| Some(socket.as_fd()), |(), _| refused += 1);
        refused
    }

    fn received(socket: &UdpSocket) -> usize {
        thread::sleep(Duration::from_millis(20));
        let mut batch = ReceiveBatch::new();
        while !batch.is_full() && batch.receive(socket.as_fd(), ()).is_ok() {}
        batch.iter().count()
    }

    #[test]
    fn a_closed_port_is_reported_with_the_address_of_the_datagram() {
        for (ip, kind, code) in [(FAMILIES[0], 3, 3), (FAMILIES[1], 1, 4)] {
            let (socket, destination) = (relay(ip), closed(ip));
            assert_eq!(take_error(socket.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert_eq!(send(&socket, &[destination; 3], 10), 0);
            let mut reports = Vec::new();
            while let Ok(report) = take_error(socket.as_fd()) {
                let IcmpReport { destination, kind, code, .. } = report.expect("an ICMP packet");
                reports.push((destination, kind, code));
            }
            assert!(
                !reports.is_empty() && reports.iter().all(|report| *report == (destination, kind, code)),
                "{reports:?}"
            );
        }
    }

    #[test]
    fn an_error_of_an_earlier_datagram_costs_no_later_one() {
        for ip in FAMILIES {
            let (socket, receiver, closed) = (relay(ip), relay(ip), closed(ip));
            for _ in 0..10 {
                // Alone, as a train, and behind another one that fails.
                for live in [&[receiver.local()][..], &[receiver.local(); 5]] {
                    assert_eq!(send(&socket, &[closed], 10), 0);
                    assert_eq!(send(&socket, live, 100), 0);
                    assert_eq!(received(&receiver), live.len());
                }
                assert_eq!(send(&socket, &[closed, receiver.local(), closed], 10), 0);
                assert_eq!(received(&receiver), 1);
            }
        }
    }

    #[test]
    fn datagrams_that_leave_one_by_one_are_not_lost_either() {
        for ip in FAMILIES {
            let (socket, receiver, closed) = (relay(ip), relay(ip), closed(ip));
            assert_eq!(send(&socket, &[closed], 10), 0);
            assert_eq!(send(&socket, &[receiver.local(); 2], 60_000), 0);
            assert_eq!(received(&receiver), 2);
        }
    }

    #[test]
    fn what_has_arrived_is_received_in_spite_of_an_error() {
        for ip in FAMILIES {
            let (socket, friend, closed) = (relay(ip), relay(ip), closed(ip));
            assert_eq!(send(&friend, &[socket.local(); 3], 10), 0);
            assert_eq!(send(&socket, &[closed], 10), 0);
            let mut batch = ReceiveBatch::new();
            batch.receive(socket.as_fd(), ()).expect("the error is not this call's");
            assert_eq!(batch.iter().count(), 3);
        }
    }

    #[test]
    fn what_this_host_does_not_send_is_refused_and_no_report() {
        // Only of IPv6 can a datagram be larger than the loopback takes.
        let (socket, receiver) = (relay(FAMILIES[1]), relay(FAMILIES[1]));
        socket.set_dont_fragment(true).unwrap();
        assert_eq!(send(&socket, &[receiver.local()], 65_507), 1);
        let mut reports = Vec::new();
        while let Ok(report) = take_error(socket.as_fd()) {
            reports.push(report);
        }
        assert!(!reports.is_empty() && reports.iter().all(Option::is_none), "{reports:?}");
        socket.set_dont_fragment(false).unwrap();
        assert_eq!(send(&socket, &[receiver.local()], 65_507), 0);
        assert_eq!(received(&receiver), 1);
    }
}
