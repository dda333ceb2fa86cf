//! Raw frames on an interface (packet(7)).
#![allow(unsafe_code, reason = "packet sockets: neither the standard library nor rustix has their addresses")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use super::namespace::Namespace;

/// Longer than any frame of the lab.
const LARGEST: usize = 65_536;
/// How long a queue may stay full.
const PATIENCE: Duration = Duration::from_secs(5);
/// Room for what arrives while a test is busy, in bytes.
const RECEIVE_BUFFER: libc::c_int = 64 << 20;
/// `ETH_P_ALL`, in network byte order.
const EVERYTHING: u16 = (libc::ETH_P_ALL as u16).to_be();

/// An interface, below its host's stack: sends frames as they are, and receives what comes in, not what goes out.
///
/// What XDP takes away at this interface is not seen here.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens an interface of a namespace; frames that come from now on are kept.
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        let opened = namespace.enter(|| open(interface));
        let socket = opened.unwrap_or_else(|error| panic!("{interface} in {}: {error}", namespace.name()));
        Self { socket }
    }

    /// Sends a frame; waits while the interface's queue is full.
    pub fn send(&self, frame: &[u8]) {
        let end = Instant::now() + PATIENCE;
        loop {
            // SAFETY: the pointer and the length are those of a slice.
            let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
            if usize::try_from(sent) == Ok(frame.len()) {
                return;
            }
            let error = io::Error::last_os_error();
            assert!(error.raw_os_error() == Some(libc::ENOBUFS) && Instant::now() < end, "{sent}: {error}");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The next frame, if one comes in time.
    pub fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(limit.as_millis()).expect("tests don't wait that long");
        // SAFETY: one entry, which is ours.
        if unsafe { libc::poll(&raw mut poll, 1, milliseconds) } != 1 {
            return None;
        }
        let mut frame = vec![0; LARGEST];
        // SAFETY: the pointer and the length are those of a vector.
        let length = unsafe { libc::recv(self.socket.as_raw_fd(), frame.as_mut_ptr().cast(), LARGEST, 0) };
        frame.truncate(usize::try_from(length).unwrap_or_else(|_| panic!("{}", io::Error::last_os_error())));
        Some(frame)
    }

    /// The next frame that is looked for, if it comes in time; others are thrown away.
    pub fn find<T>(&self, limit: Duration, wanted: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if let Some(found) = self.receive(left).and_then(|frame| wanted(&frame)) {
                return Some(found);
            }
        }
        None
    }

    /// Every frame that has come, until none comes for `quiet`.
    pub fn drain(&self, quiet: Duration) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.receive(quiet)).collect()
    }
}

fn open(interface: &str) -> io::Result<OwnedFd> {
    let name = CString::new(interface)?;
    // SAFETY: a string that ends in zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // Without a protocol nothing arrives before the socket is bound to its interface.
    // SAFETY: no pointers.
    let socket = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just given us this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: EVERYTHING,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: an address of the socket's family, and its length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

fn option(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the option is an int.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) })?;
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
