//! Datagrams in batches: many per system call, none copied, nothing allocated after the start.
#![allow(unsafe_code, reason = "recvmmsg and sendmmsg take arrays of C structures that point into buffers")]

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use super::message::{self, Control, IpFields};
use super::socket::UdpSocket;

/// How many datagrams a batch holds.
pub const BATCH: usize = 64;
/// The largest UDP datagram there is fits, so that nothing is ever cut.
const BUFFER: usize = 65_536;
/// The longest header in front of a payload: a Data indication's.
const HEADER: usize = 48;
/// Header, payload, padding.
const PARTS: usize = 3;

fn zeroed<T: Copy>() -> T {
    // SAFETY: used with C structures of the socket API only, for all of which zero bytes are a valid value.
    unsafe { mem::zeroed() }
}

/// Buffers for received datagrams, filled from one or several sockets in turn.
///
/// `T` says which socket a datagram came from.
pub struct ReceiveBatch<T> {
    buffers: Box<[u8]>,
    names: Box<[libc::sockaddr_storage; BATCH]>,
    controls: Box<[Control; BATCH]>,
    vectors: Box<[libc::iovec; BATCH]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
    sockets: Vec<T>,
}

// SAFETY: the pointers inside point to memory that the batch owns and that does not move with it.
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

impl<T: Copy> Default for ReceiveBatch<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> ReceiveBatch<T> {
    /// Allocates the buffers, about 4 MiB of address space; memory is used as far as datagrams reach.
    pub fn new() -> Self {
        let mut batch = Self {
            buffers: vec![0; BATCH * BUFFER].into_boxed_slice(),
            names: Box::new([zeroed(); BATCH]),
            controls: Box::new([Control([0; message::CONTROL_LEN]); BATCH]),
            vectors: Box::new([zeroed(); BATCH]),
            headers: Box::new([zeroed(); BATCH]),
            sockets: Vec::with_capacity(BATCH),
        };
        for at in 0..BATCH {
            batch.vectors[at] =
                libc::iovec { iov_base: batch.buffers[at * BUFFER..].as_mut_ptr().cast(), iov_len: BUFFER };
            let header = &mut batch.headers[at].msg_hdr;
            header.msg_name = (&raw mut batch.names[at]).cast();
            header.msg_iov = &raw mut batch.vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = batch.controls[at].0.as_mut_ptr().cast();
            batch.make_room(at);
        }
        batch
    }

    /// The kernel overwrites these lengths with what it used.
    fn make_room(&mut self, at: usize) {
        let header = &mut self.headers[at].msg_hdr;
        header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        header.msg_controllen = message::CONTROL_LEN as _;
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
    /// Returns how many. `WouldBlock` is the answer of an empty socket.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, socket: T) -> io::Result<usize> {
        let first = self.sockets.len();
        let room = &mut self.headers[first..];
        // SAFETY: every header points to a name, a vector, a buffer and a control buffer of its own, all of them owned
        // by `self`, which is borrowed mutably for the call.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                room.as_mut_ptr(),
                room.len() as u32,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        self.sockets.extend(std::iter::repeat_n(socket, received));
        Ok(received)
    }

    /// What was received, in order.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_, T>> {
        self.sockets.iter().enumerate().filter_map(|(at, socket)| {
            let header = &self.headers[at];
            let ancillary = message::read_ancillary(&header.msg_hdr);
            let start = at * BUFFER;
            Some(Received {
                socket: *socket,
                source: message::read_address(&self.names[at])?,
                destination: ancillary.destination,
                ip: IpFields {
                    hop_limit: ancillary.hop_limit.unwrap_or(IpFields::ORIGINATED.hop_limit),
                    traffic_class: ancillary.traffic_class.unwrap_or(0),
                },
                payload: &self.buffers[start..start + (header.msg_len as usize).min(BUFFER)],
            })
        })
    }
}

/// A datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'h, 'p, S> {
    /// The socket to send through.
    pub socket: S,
    /// The address of this host to send from, for sockets bound to none.
    pub source: Option<IpAddr>,
    /// Where to.
    pub destination: SocketAddr,
    /// What its IP header shall say.
    pub ip: IpFields,
    /// Bytes in front of the payload; copied, at most those of a Data indication's header.
    pub header: &'h [u8],
    /// The content; not copied.
    pub payload: &'p [u8],
    /// Zero bytes behind the payload: 0 to 3.
    pub padding: usize,
}

struct Slot<S> {
    socket: S,
    name: libc::sockaddr_storage,
    name_len: libc::socklen_t,
    control: Control,
    control_len: usize,
    header: [u8; HEADER],
    parts: [libc::iovec; PARTS],
}

/// Room for datagrams to be sent; used through an [`Outbox`].
pub struct SendBatch<S> {
    slots: Vec<Slot<S>>,
    order: Vec<u8>,
    headers: Box<[libc::mmsghdr; BATCH]>,
}

// SAFETY: pointers are only looked at while an `Outbox` holds the borrows of what they point to.
unsafe impl<S: Send> Send for SendBatch<S> {}

impl<S: Copy + Ord> Default for SendBatch<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Copy + Ord> SendBatch<S> {
    /// Allocates the room.
    pub fn new() -> Self {
        Self {
            slots: Vec::with_capacity(BATCH),
            order: Vec::with_capacity(BATCH),
            headers: Box::new([zeroed(); BATCH]),
        }
    }

    /// Starts an empty batch of datagrams whose payloads live for `'p`.
    pub fn start<'p>(&mut self) -> Outbox<'_, 'p, S> {
        self.slots.clear();
        Outbox { batch: self, payloads: PhantomData }
    }
}

/// Collects datagrams and sends them, one system call for each socket.
pub struct Outbox<'s, 'p, S> {
    batch: &'s mut SendBatch<S>,
    payloads: PhantomData<&'p [u8]>,
}

static ZEROS: [u8; 4] = [0; 4];

impl<'p, S: Copy + Ord> Outbox<'_, 'p, S> {
    /// Whether there is no room for another datagram: flush first.
    pub fn is_full(&self) -> bool {
        self.batch.slots.len() == BATCH
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.batch.slots.is_empty()
    }

    /// Adds a datagram.
    ///
    /// # Panics
    ///
    /// If the batch is full, the header longer than a Data indication's, or the padding more than 3.
    pub fn push(&mut self, datagram: &Outgoing<'_, 'p, S>) {
        assert!(!self.is_full(), "the caller flushes a full batch");
        let mut slot = Slot {
            socket: datagram.socket,
            name: zeroed(),
            name_len: 0,
            control: Control([0; message::CONTROL_LEN]),
            control_len: 0,
            header: [0; HEADER],
            parts: [zeroed(); PARTS],
        };
        slot.name_len = message::write_address(&mut slot.name, datagram.destination);
        slot.control_len =
            message::write_ancillary(&mut slot.control, datagram.source, datagram.destination.is_ipv4(), datagram.ip);
        slot.header[..datagram.header.len()].copy_from_slice(datagram.header);
        let part = |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // The header's address is known only when the slot has its place; `flush` fills it in.
        slot.parts = [part(datagram.header), part(datagram.payload), part(&ZEROS[..datagram.padding])];
        self.batch.slots.push(slot);
    }

    /// Sends everything and starts anew. `resolve` gives the descriptor of a socket. `refused` is told the socket and the
    /// payload length of each datagram that the kernel does not take (buffer full, no route, too big) or whose socket is
    /// gone.
    pub fn flush<'f>(&mut self, resolve: impl Fn(S) -> Option<BorrowedFd<'f>>, mut refused: impl FnMut(S, usize)) {
        let SendBatch { slots, order, headers } = &mut *self.batch;
        // Order within a socket is kept; between sockets it carries no meaning.
        order.clear();
        order.extend(0..slots.len() as u8);
        order.sort_by_key(|at| slots[usize::from(*at)].socket);
        for (header, at) in headers.iter_mut().zip(order.iter()) {
            let slot = &mut slots[usize::from(*at)];
            slot.parts[0].iov_base = slot.header.as_mut_ptr().cast();
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut slot.name).cast();
            header.msg_namelen = slot.name_len;
            header.msg_iov = slot.parts.as_mut_ptr();
            header.msg_iovlen = PARTS as _;
            header.msg_control = slot.control.0.as_mut_ptr().cast();
            header.msg_controllen = slot.control_len as _;
            header.msg_flags = 0;
        }
        let mut first = 0;
        for run in order.chunk_by(|a, b| slots[usize::from(*a)].socket == slots[usize::from(*b)].socket) {
            let messages = &mut headers[first..first + run.len()];
            first += run.len();
            let mut refused = |at: usize| {
                let slot = &slots[usize::from(run[at])];
                refused(slot.socket, slot.parts[1].iov_len);
            };
            match resolve(slots[usize::from(run[0])].socket) {
                Some(fd) => send_all(fd, messages, refused),
                None => (0..run.len()).for_each(&mut refused),
            }
        }
        slots.clear();
    }
}

fn send_all(fd: BorrowedFd<'_>, messages: &mut [libc::mmsghdr], mut refused: impl FnMut(usize)) {
    let mut done = 0;
    while done < messages.len() {
        let rest = &mut messages[done..];
        // SAFETY: the headers point into slots of the batch and to payloads that the outbox borrows.
        let sent =
            unsafe { libc::sendmmsg(fd.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, libc::MSG_DONTWAIT as _) };
        match usize::try_from(sent) {
            Ok(sent) => done += sent,
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            // An error is about the first message; those behind it still have their chance.
            Err(_) => {
                refused(done);
                done += 1;
            }
        }
    }
}

/// Sends one datagram at once, for messages of the server's own.
pub fn send_one(socket: &UdpSocket, source: Option<IpAddr>, destination: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let mut name: libc::sockaddr_storage = zeroed();
    let mut control = Control([0; message::CONTROL_LEN]);
    let name_len = message::write_address(&mut name, destination);
    let control_len = message::write_ancillary(&mut control, source, destination.is_ipv4(), IpFields::ORIGINATED);
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut header: libc::msghdr = zeroed();
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = name_len;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control_len as _;
    // SAFETY: the header points to locals and to `bytes`, all of which outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    fn exchange(ip: IpAddr) {
        let sender = UdpSocket::relay((ip, 0).into()).unwrap();
        let other = UdpSocket::relay((ip, 0).into()).unwrap();
        let receiver = UdpSocket::relay((ip, 0).into()).unwrap();
        let fields = IpFields { hop_limit: 17, traffic_class: 0xb9 };
        let mut batch = SendBatch::new();
        let payloads: Vec<Vec<u8>> = (0..6_u8).map(|n| vec![n; usize::from(n) * 100]).collect();
        let mut outbox = batch.start();
        for (n, payload) in payloads.iter().enumerate() {
            outbox.push(&Outgoing {
                socket: n % 2,
                source: Some(ip),
                destination: receiver.local(),
                ip: fields,
                header: &[0x40, n as u8],
                payload,
                padding: n % 4,
            });
        }
        outbox.flush(
            |socket| Some(if socket == 0 { sender.as_fd() } else { other.as_fd() }),
            |socket, len| panic!("{len} bytes refused by {socket}"),
        );
        wait();

        let mut received = ReceiveBatch::new();
        assert_eq!(received.receive(receiver.as_fd(), 'r').unwrap(), 6);
        let got: Vec<_> = received.iter().collect();
        for (at, n) in [0_usize, 2, 4, 1, 3, 5].into_iter().enumerate() {
            let expected = [&[0x40, n as u8], payloads[n].as_slice(), &[0; 3][..n % 4]].concat();
            assert_eq!(got[at].payload, expected);
            assert_eq!(got[at].source, if n % 2 == 0 { sender.local() } else { other.local() });
            assert_eq!(got[at].destination, Some(ip));
            assert_eq!(got[at].ip, fields);
            assert_eq!(got[at].socket, 'r');
        }
        assert_eq!(received.receive(receiver.as_fd(), 'r').unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_batch_keeps_bytes_addresses_and_header_fields() {
        exchange([127, 0, 0, 1].into());
        exchange(std::net::Ipv6Addr::LOCALHOST.into());
    }

    #[test]
    fn a_refused_datagram_does_not_stop_those_behind_it() {
        let socket = UdpSocket::relay("127.0.0.1:0".parse().unwrap()).unwrap();
        let receiver = UdpSocket::relay("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut batch = SendBatch::new();
        let mut outbox = batch.start();
        for (name, port) in [('a', 0), ('a', receiver.local().port()), ('b', 1)] {
            outbox.push(&Outgoing {
                socket: name,
                source: None,
                destination: ([127, 0, 0, 1], port).into(),
                ip: IpFields::ORIGINATED,
                header: &[],
                payload: b"payload",
                padding: 0,
            });
        }
        let mut refused = Vec::new();
        outbox.flush(|name| (name == 'a').then(|| socket.as_fd()), |name, len| refused.push((name, len)));
        assert_eq!(refused, [('a', 7), ('b', 7)]);
        wait();
        assert_eq!(ReceiveBatch::new().receive(receiver.as_fd(), ()).unwrap(), 1);
    }
}
