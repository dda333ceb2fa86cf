//! A netlink socket for requests that are answered at once.

use std::io;

use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// Larger than any message the kernel sends in one piece (it asks for 32 KiB at most).
const BUFFER_LEN: usize = 64 * 1024;

/// The kernel's answer is there at once; this only keeps a lost one from stopping the writer for ever.
const ANSWER_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The socket, and what came last.
#[derive(Debug)]
pub(in crate::datapath) struct Requests {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Requests {
    /// Opens a socket to the kernel in the network namespace of the calling thread.
    pub(in crate::datapath) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER_LEN) })
    }

    pub(in crate::datapath) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.socket.send(message, 0).map(|_| ())
    }

    /// The next messages of the answer.
    pub(in crate::datapath) fn receive(&mut self) -> io::Result<&[u8]> {
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(&self.buffer),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut waiting = [PollFd::new(&self.socket, PollFlags::IN)];
                    match rustix::event::poll(&mut waiting, Some(&ANSWER_TIMEOUT)) {
                        Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}
