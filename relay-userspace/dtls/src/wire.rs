//! The two directions of a session's datagrams, as OpenSSL sees them: one read takes a datagram, one write makes one.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;

/// How many bytes of datagrams wait in one direction of a session; what is too much is lost, as on a network.
const LIMIT: usize = 128 * 1024;
/// A buffer that has grown longer than this is given back to the system.
const KEPT: usize = 4096;
/// How many buffers a thread keeps: more than a few only when many sessions hold datagrams at once.
const SPARE: usize = 64;

thread_local! {
    /// Buffers of queues that are empty. Idle sessions have none, and busy ones allocate none.
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// What is between a session and the network.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) inbox: DatagramQueue,
    pub(crate) outbox: DatagramQueue,
    /// Reads leave the datagram where it is.
    pub(crate) peeking: bool,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = if self.peeking { self.inbox.peek() } else { self.inbox.pop() };
        let datagram = datagram.ok_or(ErrorKind::WouldBlock)?;
        let len = datagram.len().min(buffer.len());
        buffer[..len].copy_from_slice(&datagram[..len]);
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.outbox.push(datagram);
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Datagrams in one buffer, each after its length in two bytes.
#[derive(Default)]
pub(crate) struct DatagramQueue {
    bytes: Vec<u8>,
    /// Where the first one that has not been taken begins.
    next: usize,
}

impl DatagramQueue {
    /// Adds a datagram, if there is room.
    pub(crate) fn push(&mut self, datagram: &[u8]) {
        let Ok(len) = u16::try_from(datagram.len()) else { return };
        if self.bytes.len() + datagram.len() > LIMIT {
            return;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = BUFFERS.try_with(|buffers| buffers.borrow_mut().pop()).ok().flatten().unwrap_or_default();
        }
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(datagram);
    }

    /// Takes the oldest datagram. When there is none, the buffer is given back.
    pub(crate) fn pop(&mut self) -> Option<&[u8]> {
        let Some(end) = self.end_of_next() else {
            self.give_back();
            return None;
        };
        let start = mem::replace(&mut self.next, end) + size_of::<u16>();
        Some(&self.bytes[start..end])
    }

    /// The oldest datagram.
    pub(crate) fn peek(&self) -> Option<&[u8]> {
        self.end_of_next().map(|end| &self.bytes[self.next + size_of::<u16>()..end])
    }

    /// How many bytes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.bytes.len() - self.next
    }

    fn end_of_next(&self) -> Option<usize> {
        let (len, _) = self.bytes[self.next..].split_first_chunk()?;
        Some(self.next + size_of::<u16>() + usize::from(u16::from_ne_bytes(*len)))
    }

    fn give_back(&mut self) {
        self.next = 0;
        let mut buffer = mem::take(&mut self.bytes);
        if (1..=KEPT).contains(&buffer.capacity()) {
            buffer.clear();
            // A thread that ends has no list any more.
            let _ = BUFFERS.try_with(|buffers| {
                let mut buffers = buffers.borrow_mut();
                if buffers.len() < SPARE {
                    buffers.push(buffer);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_keep_their_boundaries_and_order() {
        let mut queue = DatagramQueue::default();
        queue.push(b"north");
        queue.push(b"");
        queue.push(b"south");
        assert_eq!(queue.peek(), Some(b"north".as_slice()));
        assert_eq!(queue.pop(), Some(b"north".as_slice()));
        assert_eq!(queue.pop(), Some(b"".as_slice()));
        queue.push(b"east");
        assert_eq!(queue.pop(), Some(b"south".as_slice()));
        assert_eq!(queue.pop(), Some(b"east".as_slice()));
        assert_eq!(queue.pop(), None);
        assert_eq!((queue.waiting(), queue.bytes.capacity()), (0, 0));
    }

    #[test]
    fn a_full_queue_loses_what_comes_last() {
        let mut queue = DatagramQueue::default();
        for byte in 0..4 {
            queue.push(&vec![byte; 60_000]);
        }
        assert_eq!(queue.pop(), Some(vec![0; 60_000].as_slice()));
        assert_eq!(queue.pop(), Some(vec![1; 60_000].as_slice()));
        assert_eq!(queue.pop(), None);
        queue.push(b"again");
        assert_eq!(queue.pop(), Some(b"again".as_slice()));
    }

    #[test]
    fn one_buffer_serves_one_queue_after_the_other() {
        let mut first = DatagramQueue::default();
        first.push(&[7; 1000]);
        let buffer = first.bytes.as_ptr();
        while first.pop().is_some() {}
        let mut second = DatagramQueue::default();
        second.push(b"short");
        assert_eq!(second.bytes.as_ptr(), buffer);
    }

    #[test]
    fn a_read_takes_one_datagram_and_a_peek_none() {
        let mut wire = Wire::default();
        wire.inbox.push(b"one");
        wire.inbox.push(b"two");
        let mut buffer = [0; 10];
        wire.peeking = true;
        assert_eq!(wire.read(&mut buffer).unwrap(), 3);
        wire.peeking = false;
        assert_eq!(wire.read(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"one");
        assert_eq!(wire.read(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"two");
        assert_eq!(wire.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
