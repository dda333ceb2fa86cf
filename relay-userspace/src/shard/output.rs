//! What waits to be written to a connection.
//!
//! A client that reads too slowly must cost no memory and no other client's time: beyond a limit, what is newest is
//! dropped, as a router would.

use std::io;

use hairpin_proto::framing::Frame;

use crate::net::Stream;

/// How much application data waits at most. At 1 Mbit/s this is one second's worth.
const DATA: usize = 128 << 10;
/// How much more may wait of responses: a client that does not even read those is not there any more.
const RESPONSES: usize = 64 << 10;
/// A buffer that has grown larger is given back when it is empty.
const KEPT: usize = 16 << 10;
/// How much is encrypted at once: the most that one record of TLS takes.
const RECORD: usize = 16 << 10;
/// How much is encrypted before it is written.
const TOGETHER: usize = 32 << 10;
/// How much TLS is let keep of what is encrypted: what comes together, and the framing of that.
pub(super) const ENCRYPTED: usize = 4 * TOGETHER;

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Whether all was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    All,
    /// The kernel takes no more at the moment.
    Partly,
}

/// Bytes that wait, first in, first out.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    written: usize,
    /// Whether these are a peer's bytes (RFC 6062), and no messages.
    is_raw: bool,
    /// How much of the first message is left.
    begun: usize,
}

impl Output {
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Adds a frame of application data, whole or not at all.
    pub(super) fn push_data(&mut self, parts: [&[u8]; 3]) -> Result<(), Full> {
        self.push(&parts, DATA)
    }

    /// Adds a message of the server's own.
    pub(super) fn push_response(&mut self, message: &[u8]) -> Result<(), Full> {
        self.push(&[message], DATA + RESPONSES)
    }

    /// Adds bytes whose source is stopped as long as something waits.
    pub(super) fn push_all(&mut self, bytes: &[u8]) {
        self.is_raw = true;
        self.bytes.extend_from_slice(bytes);
    }

    fn push(&mut self, parts: &[&[u8]], limit: usize) -> Result<(), Full> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.waiting().len() + length > limit {
            return Err(Full);
        }
        if self.written > 0 && self.bytes.len() + length > self.bytes.capacity() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        Ok(())
    }

    fn take(&mut self, count: usize) {
        self.written += count;
        if self.written == self.bytes.len() {
            self.written = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT {
                self.bytes = Vec::new();
            }
        }
    }

    /// Writes what the connection takes.
    pub(super) fn flush(&mut self, stream: &Stream, tls: Option<&mut rustls::ServerConnection>) -> io::Result<Flushed> {
        let Some(tls) = tls else { return self.flush_plain(stream) };
        loop {
            while tls.wants_write() {
                match tls.write_tls(&mut Writer(stream)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Partly),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if self.is_empty() || tls.is_handshaking() {
                return Ok(Flushed::All);
            }
            // Several records leave together.
            let mut encrypted = 0;
            while encrypted < TOGETHER && !self.is_empty() {
                let record = self.record();
                let taken = io::Write::write(&mut tls.writer(), &self.waiting()[..record])?;
                self.begun = self.begun.saturating_sub(taken);
                self.take(taken);
                encrypted += taken;
            }
        }
    }

    fn flush_plain(&mut self, stream: &Stream) -> io::Result<Flushed> {
        while !self.is_empty() {
            match stream.write(self.waiting()) {
                Ok(written) => self.take(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Partly),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Flushed::All)
    }

    /// How much goes into one record of TLS: one message, since there are clients, as that of coturn, which look for one
    /// only; of one that is longer than a record, as much as fits.
    fn record(&mut self) -> usize {
        if self.begun == 0 {
            self.begun = match Frame::of(self.waiting()) {
                Frame::Complete(length) if !self.is_raw => length,
                _ => self.waiting().len(),
            };
        }
        self.begun.min(RECORD)
    }
}

struct Writer<'s>(&'s Stream);

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_dropped_whole_where_a_response_still_fits() {
        let mut output = Output::default();
        let data = vec![1; DATA - 10];
        assert_eq!(output.push_data([&[0; 4], &data, &[]]), Ok(()));
        assert_eq!(output.push_data([&[0; 4], &[1; 3], &[]]), Err(Full));
        assert_eq!(output.waiting().len(), DATA - 6);
        assert_eq!(output.push_data([&[0; 4], &[1; 2], &[]]), Ok(()));
        assert_eq!(output.push_response(&vec![2; RESPONSES]), Ok(()));
        assert_eq!(output.push_response(&[2]), Err(Full));
    }

    #[test]
    fn what_was_written_takes_no_room_and_a_large_buffer_is_given_back() {
        let mut output = Output::default();
        output.push_data([&vec![1; DATA], &[], &[]]).unwrap();
        output.take(DATA - 100);
        assert_eq!(output.push_data([&vec![2; DATA - 100], &[], &[]]), Ok(()));
        assert_eq!((output.waiting()[99], output.waiting()[100], output.waiting().len()), (1, 2, DATA));
        output.take(DATA);
        assert_eq!((output.is_empty(), output.bytes.capacity()), (true, 0));
        output.push_data([&[3; KEPT], &[], &[]]).unwrap();
        output.take(KEPT);
        assert_eq!((output.is_empty(), output.bytes.capacity()), (true, KEPT), "a small one is kept");
    }

    #[test]
    fn each_message_has_a_record_of_its_own_and_bytes_share_them() {
        let mut output = Output::default();
        let next = |output: &mut Output| {
            let record = output.record();
            output.begun -= record;
            output.take(record);
            record
        };
        output.push_data([&[0x40, 0, 0, 5], &[1; 5], &[0; 3]]).unwrap();
        // A long one, whose middle looks like messages of four bytes.
        output.push_data([&[0x40, 0, 0x75, 0x30], &[0x40, 0, 0, 0].repeat(7500), &[]]).unwrap();
        output.push_data([&[0x40, 0, 0, 4], &[2; 4], &[]]).unwrap();
        let records = [(); 4].map(|()| next(&mut output));
        assert_eq!(records, [12, RECORD, 30_004 - RECORD, 8]);
        // So do bytes that look like messages.
        output.push_all(&[0x40, 0, 0, 0].repeat(5000));
        assert_eq!([(); 2].map(|()| next(&mut output)), [RECORD, 20_000 - RECORD]);
    }

    #[test]
    fn bytes_leave_in_order_and_room_is_used_again() {
        let mut output = Output::default();
        let mut expected = 0_u8;
        let mut next = 0_u8;
        for _ in 0..10_000 {
            output.push_data([&[next], &[next + 1], &[next + 2]]).unwrap();
            next = (next + 3) % 240;
            while output.waiting().len() > 5 {
                assert_eq!(output.waiting()[0], expected);
                expected = (expected + 1) % 240;
                output.take(1);
            }
        }
        assert!(output.bytes.capacity() < 1024, "{}", output.bytes.capacity());
    }
}
