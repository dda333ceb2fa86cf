//! Receiving datagrams in batches: many per system call, none copied, nothing allocated after the start.
#![allow(unsafe_code, reason = "recvmmsg takes an array of C structures that point into buffers")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use super::errors::past_pending;
use super::message::{self, Control, IpFields};

/// How many buffers a batch has.
pub const BATCH: usize = 64;
/// The largest UDP datagram there is fits, so that nothing is ever cut.
const BUFFER: usize = 65_536;

/// Buffers for received datagrams, filled from one or several sockets in turn.
///
/// `T` says which socket a datagram came from.
pub struct ReceiveBatch<T> {
    storage: NonNull<Storage>,
    sockets: Vec<T>,
}

/// What the kernel writes to. It points into itself, so it is only reached through the pointer it was allocated with: a
/// reference that may write would take that right from the pointers inside.
struct Storage {
    headers: [libc::mmsghdr; BATCH],
    vectors: [libc::iovec; BATCH],
    names: [libc::sockaddr_storage; BATCH],
    controls: [Control; BATCH],
    buffers: [[u8; BUFFER]; BATCH],
}

// SAFETY: the batch is the only owner of its storage, which stays where it is when the batch moves.
unsafe impl<T: Send> Send for ReceiveBatch<T> {}

/// A received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Received<'b, T> {
    /// The socket it came through.
    pub socket: T,
    /// Who sent it.
    pub source: SocketAddr,
    /// Which address of this host it was sent to.
    pub destination: Option<IpAddr>,
    /// What its IP header said.
    pub ip: IpFields,
    /// Its content.
    pub payload: &'b [u8],
}

impl<T> Drop for ReceiveBatch<T> {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`, and nothing that it holds needs to be dropped.
        unsafe { dealloc(self.storage.as_ptr().cast(), Layout::new::<Storage>()) }
    }
}

impl<T: Copy> Default for ReceiveBatch<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> ReceiveBatch<T> {
    /// Allocates the buffers, about 4 MiB of address space; memory is used as far as datagrams reach.
    pub fn new() -> Self {
        let layout = Layout::new::<Storage>();
        // SAFETY: the layout is not empty. Zero bytes are a valid `Storage`: numbers and pointers.
        let storage =
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout)).cast();
        let batch = Self { storage, sockets: Vec::with_capacity(BATCH) };
        let storage: *mut Storage = batch.storage.as_ptr();
        for at in 0..BATCH {
            // SAFETY: all of these are places inside of the storage, of which nobody else has a reference.
            unsafe {
                (*storage).vectors[at] =
                    libc::iovec { iov_base: (&raw mut (*storage).buffers[at]).cast(), iov_len: BUFFER };
                let header = &raw mut (*storage).headers[at].msg_hdr;
                (*header).msg_name = (&raw mut (*storage).names[at]).cast();
                (*header).msg_iov = &raw mut (*storage).vectors[at];
                (*header).msg_iovlen = 1;
                (*header).msg_control = (&raw mut (*storage).controls[at]).cast();
            }
            batch.make_room(at);
        }
        batch
    }

    /// The kernel overwrites these lengths with what it used.
    fn make_room(&self, at: usize) {
        // SAFETY: the storage lives, and there is no reference to it while this runs: `clear` borrows the batch mutably.
        unsafe {
            let header = &raw mut (*self.storage.as_ptr()).headers[at].msg_hdr;
            (*header).msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            (*header).msg_controllen = message::CONTROL_LEN as _;
        }
    }

    /// Forgets what was received.
    pub fn clear(&mut self) {
        for at in 0..self.sockets.len() {
            self.make_room(at);
        }
        self.sockets.clear();
    }

    /// Whether there is no room for another datagram.
    pub fn is_full(&self) -> bool {
        self.sockets.len() == BATCH
    }

    /// Whether there is nothing in the batch.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Receives as many datagrams as are there and as there is room for, behind those that were received before.
    ///
    /// Returns how many. `WouldBlock` is the answer of an empty socket. An error of a datagram sent before, which this
    /// call might get instead, is no reason to leave here what has arrived.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, socket: T) -> io::Result<usize> {
        let first = self.sockets.len();
        let received = past_pending(|| {
            // SAFETY: every header points to a name, a vector, a buffer and a control buffer of its own, all inside of
            // the storage, to which nobody has a reference while `self` is borrowed mutably.
            let received = unsafe {
                libc::recvmmsg(
                    fd.as_raw_fd(),
                    (&raw mut (*self.storage.as_ptr()).headers).cast::<libc::mmsghdr>().add(first),
                    (BATCH - first) as u32,
                    libc::MSG_DONTWAIT as _,
                    ptr::null_mut(),
                )
            };
            usize::try_from(received).map_err(|_| io::Error::last_os_error())
        })?;
        self.sockets.extend(std::iter::repeat_n(socket, received));
        Ok(received)
    }

    /// What was received, in order.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_, T>> {
        self.sockets.iter().enumerate().flat_map(|(at, socket)| self.datagrams(at, *socket))
    }

    /// The datagrams in one buffer: several if the kernel has joined them (UDP_GRO), all of one flow and of one size, but
    /// for the last, which may be shorter.
    fn datagrams(&self, at: usize, socket: T) -> impl Iterator<Item = Received<'_, T>> {
        // SAFETY: as long as `self` is borrowed, neither the kernel nor `make_room` writes to the storage.
        let storage = unsafe { self.storage.as_ref() };
        let header = &storage.headers[at];
        let ancillary = message::read_ancillary(&header.msg_hdr);
        let content = &storage.buffers[at][..(header.msg_len as usize).min(BUFFER)];
        let size = ancillary.segment.unwrap_or(0).max(1);
        // A datagram may be empty, and `chunks` would not show it.
        let (first, rest) =
            content.split_at(if ancillary.segment.is_some() { size.min(content.len()) } else { content.len() });
        let source = message::read_address(&storage.names[at]);
        std::iter::once(first).chain(rest.chunks(size)).filter_map(move |payload| {
            Some(Received {
                socket,
                source: source?,
                destination: ancillary.destination,
                ip: IpFields {
                    hop_limit: ancillary.hop_limit.unwrap_or(IpFields::ORIGINATED.hop_limit),
                    traffic_class: ancillary.traffic_class.unwrap_or(0),
                },
                payload,
            })
        })
    }
}
