//! Messages over a stream, plain or within TLS, on a socket of the caller's that never blocks.
//!
//! A pipe reads and writes only when it is told to, and only as much as the socket has or takes. What waits to be sent
//! is limited by the caller, who looks at [`Pipe::waiting`] before [`Pipe::push`].

use std::io::{self, ErrorKind, Read, Write};

use hairpin_proto::framing::Frame;
use rustls::client::ClientConnection;

use crate::error::Error;
use crate::tls::Tls;

/// The most that is read before the caller is asked to take messages out.
const FILL: usize = 256 << 10;
/// What a read or a TLS record takes at a time.
const PIECE: usize = 16 << 10;

/// One end of a stream.
#[derive(Debug)]
pub struct Pipe {
    tls: Option<Box<ClientConnection>>,
    incoming: Queue,
    outgoing: Queue,
    ended: bool,
}

impl Pipe {
    /// The end of a stream that has just been connected; with TLS, which begins with [`Pipe::flush`].
    pub fn new(tls: Option<&Tls>) -> Result<Self, Error> {
        let tls = tls.map(Tls::connection).transpose()?.map(Box::new);
        Ok(Self { tls, incoming: Queue::default(), outgoing: Queue::default(), ended: false })
    }

    /// Whether TLS is still being agreed upon. Until then nothing that is pushed is sent.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// The protocol that the server has chosen by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.alpn_protocol()
    }

    /// How many bytes were pushed and did not fit into the socket yet.
    pub fn waiting(&self) -> usize {
        self.outgoing.as_slice().len()
    }

    /// Whether [`Pipe::flush`] has something to do once the socket is writable.
    pub fn wants_write(&self) -> bool {
        match &self.tls {
            Some(tls) => tls.wants_write() || (!tls.is_handshaking() && self.waiting() > 0),
            None => self.waiting() > 0,
        }
    }

    /// Appends bytes to what is to be sent.
    pub fn push(&mut self, bytes: &[u8]) {
        self.outgoing.push(bytes);
    }

    /// Writes as much as the socket takes.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.wants_write() {
            let written = match &mut self.tls {
                Some(tls) if tls.wants_write() => tls.write_tls(socket),
                Some(tls) => {
                    let piece = self.outgoing.as_slice();
                    let length = tls.writer().write(&piece[..piece.len().min(PIECE)])?;
                    self.outgoing.take(length);
                    if length > 0 {
                        continue;
                    }
                    Ok(0)
                }
                None => socket.write(self.outgoing.as_slice()).inspect(|length| {
                    self.outgoing.take(*length);
                }),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what the socket has, up to a limit: take the messages out, and call it again.
    pub fn fill(&mut self, socket: &mut (impl Read + Write)) -> io::Result<()> {
        let mut piece = [0; PIECE];
        while !self.ended && self.incoming.as_slice().len() < FILL {
            let read = match &mut self.tls {
                Some(tls) => tls.read_tls(socket),
                None => socket.read(&mut piece).inspect(|length| self.incoming.push(&piece[..*length])),
            };
            match read {
                Ok(0) => self.ended = true,
                Ok(_) => self.decrypt(socket, &mut piece)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn decrypt(&mut self, socket: &mut impl Write, piece: &mut [u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        if let Err(error) = tls.process_new_packets() {
            // The alert that tells the server why; it need not arrive.
            let _ = tls.write_tls(socket);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        loop {
            match tls.reader().read(piece) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(length) => self.incoming.push(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        // Such as the last word of the handshake.
        self.flush(socket)
    }

    /// Takes bytes out as they are, at most so many.
    pub fn take_bytes(&mut self, most: usize) -> &[u8] {
        let length = self.incoming.as_slice().len().min(most);
        self.incoming.take(length)
    }

    /// Whether the other side will send no more than what is here already.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Tells the other side that nothing will follow. Without TLS, shutting the socket down does.
    pub fn end(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
    }

    /// Takes the next whole message out (RFC 8489 section 6.2.2, RFC 8656 section 12.5). Once the stream has ended, or
    /// holds something else, that is an error.
    pub fn next_message(&mut self) -> io::Result<Option<&[u8]>> {
        match Frame::of(self.incoming.as_slice()) {
            Frame::Complete(length) => Ok(Some(self.incoming.take(length))),
            Frame::Incomplete if self.ended => {
                Err(io::Error::new(ErrorKind::UnexpectedEof, "the server has closed it"))
            }
            Frame::Incomplete => Ok(None),
            Frame::Broken => {
                Err(io::Error::new(ErrorKind::InvalidData, "the server sent neither STUN nor ChannelData"))
            }
        }
    }
}

/// Bytes that come in at the end and leave at the beginning.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

impl Queue {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn push(&mut self, bytes: &[u8]) {
        // What has left is cleared away when it is as much as what stays: each byte is moved once at most.
        if self.start >= self.bytes.len() - self.start {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self, length: usize) -> &[u8] {
        let from = self.start;
        self.start = (from + length).min(self.bytes.len());
        &self.bytes[from..self.start]
    }
}
