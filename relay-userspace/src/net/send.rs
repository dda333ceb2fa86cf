//! Sending datagrams in batches: many per system call, none copied, nothing allocated after the start.
//!
//! Datagrams of one size to one destination leave as a *train*: the kernel takes them as one large datagram through its
//! stack and cuts it at the end (UDP_SEGMENT), which costs it little more than a single one.
#![allow(unsafe_code, reason = "sendmmsg takes an array of C structures that point into buffers")]

use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::errors::past_pending;
use super::message::{self, Control, IpFields, Zeroed as _};
use super::receive::BATCH;
use super::socket::UdpSocket;

/// The longest header in front of a payload: a Data indication's.
const HEADER: usize = 48;
/// Header, payload, padding.
const PARTS: usize = 3;
/// How many batches go without trains after the kernel could not cut one.
const PAUSE: u32 = 4096;
/// A train is one IP packet to the kernel before it is cut.
const MAX_TRAIN: usize = 65_000;

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

/// One datagram, waiting.
struct Slot<S> {
    socket: S,
    destination: SocketAddr,
    source: Option<IpAddr>,
    ip: IpFields,
    header: [u8; HEADER],
    header_len: u8,
    padding: u8,
    payload: *const u8,
    payload_len: usize,
}

impl<S: Copy + Ord> Slot<S> {
    fn len(&self) -> usize {
        usize::from(self.header_len) + self.payload_len + usize::from(self.padding)
    }

    /// Whether `next` may follow this one in a train, as far as addresses and header fields go.
    fn leads(&self, next: &Self) -> bool {
        self.socket == next.socket
            && self.destination == next.destination
            && self.source == next.source
            && self.ip == next.ip
    }
}

/// What one system call takes for one train.
#[derive(Clone, Copy)]
struct Envelope {
    name: libc::sockaddr_storage,
    control: Control,
}

/// Room for datagrams to be sent; used through an [`Outbox`].
pub struct SendBatch<S> {
    slots: Vec<Slot<S>>,
    /// Slots in the order of sending.
    order: Vec<u8>,
    /// How many slots, in that order, each train has.
    trains: Vec<u8>,
    envelopes: Box<[Envelope; BATCH]>,
    vectors: Box<[libc::iovec; BATCH * PARTS]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
    /// For how many more batches no trains are made: the kernel has said that it cannot cut them on some way out.
    pause: u32,
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
        let envelope = Envelope { name: libc::sockaddr_storage::zeroed(), control: Control([0; message::CONTROL_LEN]) };
        Self {
            slots: Vec::with_capacity(BATCH),
            order: Vec::with_capacity(BATCH),
            trains: Vec::with_capacity(BATCH),
            envelopes: Box::new([envelope; BATCH]),
            vectors: Box::new([libc::iovec::zeroed(); BATCH * PARTS]),
            headers: Box::new([libc::mmsghdr::zeroed(); BATCH]),
            pause: 0,
        }
    }

    /// Starts an empty batch of datagrams whose payloads live for `'p`.
    pub fn start<'p>(&mut self) -> Outbox<'_, 'p, S> {
        self.slots.clear();
        Outbox { batch: self, payloads: PhantomData }
    }

    /// Brings the datagrams of one socket and destination together. Between two of them order is kept; between
    /// destinations it carries no meaning.
    fn sort(&mut self) {
        let slots = &self.slots;
        let key = |at: u8| {
            let slot = &slots[usize::from(at)];
            (slot.socket, slot.destination)
        };
        self.order.clear();
        self.order.extend(0..slots.len() as u8);
        if !self.order.is_sorted_by_key(|at| key(*at)) {
            self.order.sort_by_key(|at| key(*at));
        }
    }

    /// Couples what may leave together: equal sizes, but the last may be shorter.
    fn couple(&mut self) {
        self.trains.clear();
        self.pause = self.pause.saturating_sub(1);
        let mut rest = self.order.as_slice();
        while let Some((first, behind)) = rest.split_first() {
            let first = &self.slots[usize::from(*first)];
            let size = first.len();
            let (mut count, mut bytes, mut closed) = (1, size, size == 0 || self.pause > 0);
            for next in behind {
                let next = &self.slots[usize::from(*next)];
                let len = next.len();
                if closed || len > size || len == 0 || bytes + len > MAX_TRAIN || !first.leads(next) {
                    break;
                }
                closed = len < size;
                count += 1;
                bytes += len;
            }
            self.trains.push(count as u8);
            rest = &rest[count..];
        }
    }

    /// Fills in what the kernel is shown of each train.
    fn address(&mut self) {
        let (mut first, mut vector) = (0, 0);
        for (train, count) in self.trains.iter().enumerate() {
            let members = &self.order[first..first + usize::from(*count)];
            first += members.len();
            let first_vector = vector;
            for at in members {
                let slot = &self.slots[usize::from(*at)];
                let (header_len, padding) = (usize::from(slot.header_len), usize::from(slot.padding));
                let parts =
                    [(slot.header.as_ptr(), header_len), (slot.payload, slot.payload_len), (ZEROS.as_ptr(), padding)];
                for (base, len) in parts.into_iter().filter(|(_, len)| *len > 0) {
                    self.vectors[vector] = libc::iovec { iov_base: base.cast_mut().cast(), iov_len: len };
                    vector += 1;
                }
            }
            let slot = &self.slots[usize::from(members[0])];
            let envelope = &mut self.envelopes[train];
            let header = &mut self.headers[train].msg_hdr;
            header.msg_namelen = message::write_address(&mut envelope.name, slot.destination);
            header.msg_name = (&raw mut envelope.name).cast();
            let segment = (members.len() > 1).then(|| slot.len());
            header.msg_controllen = message::write_ancillary(
                &mut envelope.control,
                slot.source,
                slot.destination.is_ipv4(),
                slot.ip,
                segment,
            ) as _;
            header.msg_control = envelope.control.0.as_mut_ptr().cast();
            header.msg_iov = (&raw mut self.vectors[first_vector..]).cast();
            header.msg_iovlen = (vector - first_vector) as _;
        }
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
        assert!(datagram.padding < ZEROS.len(), "STUN pads to four bytes");
        let mut header = [0; HEADER];
        header[..datagram.header.len()].copy_from_slice(datagram.header);
        self.batch.slots.push(Slot {
            socket: datagram.socket,
            destination: datagram.destination,
            source: datagram.source,
            ip: datagram.ip,
            header,
            header_len: datagram.header.len() as u8,
            padding: datagram.padding as u8,
            payload: datagram.payload.as_ptr(),
            payload_len: datagram.payload.len(),
        });
    }

    /// Sends everything and starts anew. `resolve` gives the descriptor of a socket. `refused` is told the socket and the
    /// payload length of each datagram that the kernel does not take (buffer full, no route, too big) or whose socket is
    /// gone.
    pub fn flush<'f>(&mut self, resolve: impl Fn(S) -> Option<BorrowedFd<'f>>, mut refused: impl FnMut(S, usize)) {
        let batch = &mut *self.batch;
        batch.sort();
        batch.couple();
        batch.address();
        let (mut train, mut first) = (0, 0);
        while train < batch.trains.len() {
            let socket = batch.slots[usize::from(batch.order[first])].socket;
            let fd = resolve(socket);
            let (sent, split) = fd.map_or((0, false), |fd| batch.send(fd, train, first));
            let done: usize = batch.trains[train..train + sent].iter().map(|count| usize::from(*count)).sum();
            train += sent;
            first += done;
            if sent == 0 {
                let members = usize::from(batch.trains[train]);
                for at in &batch.order[first..first + members] {
                    let slot = &batch.slots[usize::from(*at)];
                    if !fd.is_some_and(|fd| members > 1 && split && send_slot(fd, slot)) {
                        refused(slot.socket, slot.payload_len);
                    }
                }
                train += 1;
                first += members;
            }
        }
        batch.slots.clear();
    }
}

impl<S: Copy + Ord> SendBatch<S> {
    /// Sends the trains from `train` on that leave through the same socket. Returns how many the kernel took; none means
    /// that it refused the first, and then whether its datagrams should be tried one by one.
    fn send(&mut self, fd: BorrowedFd<'_>, train: usize, first: usize) -> (usize, bool) {
        let socket = self.slots[usize::from(self.order[first])].socket;
        let mut ends = first;
        let count = self.trains[train..]
            .iter()
            .take_while(|members| {
                let at = self.order[ends];
                ends += usize::from(**members);
                self.slots[usize::from(at)].socket == socket
            })
            .count();
        let messages = &mut self.headers[train..train + count];
        loop {
            let sent = past_pending(|| {
                // SAFETY: the headers point into this batch and to payloads that the outbox borrows.
                let sent = unsafe {
                    let flags = libc::MSG_DONTWAIT as _;
                    libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, flags)
                };
                usize::try_from(sent).map_err(|_| io::Error::last_os_error())
            });
            let error = match sent {
                Ok(sent) => return (sent, false),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The way out has no checksum offload, or encrypts, and this kernel cannot cut trains for it.
                Some(libc::EIO) => {
                    self.pause = PAUSE;
                    return (0, true);
                }
                // What is too large for the link cannot be cut to fit, but a single datagram can be fragmented.
                Some(libc::EINVAL | libc::EMSGSIZE) => return (0, true),
                // A full buffer or a missing route is no better for single datagrams.
                _ => return (0, false),
            }
        }
    }
}

/// Sends one datagram of a train that the kernel did not take. Returns whether it took the datagram.
fn send_slot<S>(fd: BorrowedFd<'_>, slot: &Slot<S>) -> bool {
    // SAFETY: called while the outbox borrows the payload.
    let payload = unsafe { std::slice::from_raw_parts(slot.payload, slot.payload_len) };
    let header = &slot.header[..usize::from(slot.header_len)];
    let padding = &ZEROS[..usize::from(slot.padding)];
    send_parts(fd, slot.source, slot.destination, slot.ip, [header, payload, padding]).is_ok()
}

/// Sends one datagram at once.
pub fn send_one(
    socket: &UdpSocket,
    source: Option<IpAddr>,
    destination: SocketAddr,
    ip: IpFields,
    bytes: &[u8],
) -> io::Result<()> {
    send_parts(socket.as_fd(), source, destination, ip, [bytes, &[], &[]])
}

fn send_parts(
    fd: BorrowedFd<'_>,
    source: Option<IpAddr>,
    destination: SocketAddr,
    ip: IpFields,
    parts: [&[u8]; PARTS],
) -> io::Result<()> {
    let mut name = libc::sockaddr_storage::zeroed();
    let mut control = Control([0; message::CONTROL_LEN]);
    let mut vectors = parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    let mut header = libc::msghdr::zeroed();
    header.msg_namelen = message::write_address(&mut name, destination);
    header.msg_name = (&raw mut name).cast();
    header.msg_controllen = message::write_ancillary(&mut control, source, destination.is_ipv4(), ip, None) as _;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = PARTS as _;
    past_pending(|| {
        // SAFETY: the header points to locals and to `parts`, all of which outlive the call.
        let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ReceiveBatch;

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

    /// Sends payloads of these lengths from one socket to another, and gives back what arrived.
    fn deliver(lengths: &[usize], header: &[u8]) -> Vec<Vec<u8>> {
        let sender = UdpSocket::relay("127.0.0.1:0".parse().unwrap()).unwrap();
        let receiver = UdpSocket::relay("127.0.0.1:0".parse().unwrap()).unwrap();
        let payloads: Vec<Vec<u8>> = (0..).zip(lengths).map(|(n, len)| vec![n; *len]).collect();
        let mut batch = SendBatch::new();
        let mut outbox = batch.start();
        for payload in &payloads {
            let (destination, ip) = (receiver.local(), IpFields::ORIGINATED);
            outbox.push(&Outgoing { socket: (), source: None, destination, ip, header, payload, padding: 0 });
        }
        outbox.flush(|()| Some(sender.as_fd()), |(), len| panic!("{len} bytes were refused"));
        wait();
        let mut received = ReceiveBatch::new();
        received.receive(receiver.as_fd(), ()).unwrap();
        let expected: Vec<_> = payloads.iter().map(|payload| [header, payload].concat()).collect();
        let got: Vec<_> = received.iter().map(|datagram| datagram.payload.to_vec()).collect();
        assert_eq!(got, expected);
        got
    }

    #[test]
    fn a_train_arrives_as_the_datagrams_that_it_was_made_of() {
        deliver(&[100; 64], &[]);
        deliver(&[100; 64], &[0x40, 0, 0, 100]);
        deliver(&[100, 100, 40, 100, 100, 100, 1, 2, 3], &[]);
        deliver(&[0, 0, 5, 0, 5, 5, 0], &[]);
        deliver(&[0, 0, 5, 0, 5, 5, 0], &[7; 4]);
    }

    #[test]
    fn datagrams_too_large_for_a_train_leave_one_by_one() {
        // Two of these are more than one IP packet can hold, and each is more than a link of 1500 bytes takes at once.
        deliver(&[40_000; 3], &[]);
        deliver(&[60_000, 60_000, 10], &[1]);
    }
}
