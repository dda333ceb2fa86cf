//! The first two messages of a handshake, which a server reads and answers without state (RFC 6347 section 4.2.1).

use crate::cookie::COOKIE_LEN;
use crate::record::{HANDSHAKE, Record, VERSION_MAJOR};

const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
/// The handshake header: type, length, message sequence number, fragment offset and length.
const MESSAGE_HEADER_LEN: usize = 12;
/// Version, and the cookie with its length.
const VERIFY_LEN: usize = 2 + 1 + COOKIE_LEN;
/// The least ClientHello that [`ClientHello::parse`] takes: version, random, and session id and cookie that are empty.
const LEAST_HELLO_LEN: usize = 2 + 32 + 1 + 1;

// A server must not send more than what it was sent (RFC 6347 section 4.2.1).
const _: () = assert!(VERIFY_LEN <= LEAST_HELLO_LEN, "record and message headers are as long in both");

/// What a server needs to know of a ClientHello before there is any state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientHello<'d> {
    /// The record's sequence number, which the answer has, too.
    pub(crate) sequence: [u8; 6],
    /// 0 for the first of a handshake, 1 after a HelloVerifyRequest.
    pub(crate) message_seq: u16,
    /// What tells a client's handshakes apart.
    pub(crate) random: &'d [u8],
    /// What is before the cookie: version, random and session id. The client must not change it for its second one.
    pub(crate) parameters: &'d [u8],
    pub(crate) cookie: &'d [u8],
}

impl<'d> ClientHello<'d> {
    /// Reads a datagram that begins with a ClientHello in the clear, or with the first fragment of one.
    ///
    /// Later fragments tell nothing without the first, and a server without state cannot keep them: they are no
    /// ClientHello here. The cookie stands early enough for the first to have it.
    pub(crate) fn parse(datagram: &'d [u8]) -> Option<Self> {
        let (record, _) = Record::parse(datagram)?;
        let (header, rest) = record.fragment.split_first_chunk::<MESSAGE_HEADER_LEN>()?;
        let [message_type, l0, l1, l2, seq0, seq1, o0, o1, o2, f0, f1, f2] = *header;
        let [len, offset, fragment_len] =
            [[l0, l1, l2], [o0, o1, o2], [f0, f1, f2]].map(|[high, mid, low]| u32::from_be_bytes([0, high, mid, low]));
        let first = record.content_type == HANDSHAKE && record.epoch == 0 && message_type == CLIENT_HELLO;
        if !first || offset != 0 || fragment_len > len {
            return None;
        }
        let body = rest.get(..usize::try_from(fragment_len).ok()?)?;
        let (version, rest) = body.split_first_chunk::<2>()?;
        let (random, rest) = rest.split_at_checked(32)?;
        let (session_id, rest) = split_counted(rest)?;
        let parameters = &body[..body.len() - rest.len()];
        let (cookie, _) = split_counted(rest)?;
        let valid = version[0] == VERSION_MAJOR && session_id.len() <= 32;
        let message_seq = u16::from_be_bytes([seq0, seq1]);
        valid.then_some(Self { sequence: record.sequence, message_seq, random, parameters, cookie })
    }

    /// Whether this is a ClientHello that a session can begin with, if the cookie is right.
    ///
    /// OpenSSL goes on after exactly one HelloVerifyRequest, so the message has to be number 1. A client that has seen
    /// two has a cookie that ended during its handshake: it begins a new one when nobody answers.
    pub(crate) fn can_begin_session(&self) -> bool {
        self.message_seq == 1
    }

    /// Writes the HelloVerifyRequest that asks for the cookie: in the version 1.0 that the RFC asks for.
    pub(crate) fn write_verify_request(&self, cookie: &[u8; COOKIE_LEN], reply: &mut Vec<u8>) {
        let [s0, s1, s2, s3, s4, s5] = self.sequence;
        reply.clear();
        let record_len = (MESSAGE_HEADER_LEN + VERIFY_LEN) as u8;
        reply.extend_from_slice(&[HANDSHAKE, VERSION_MAJOR, 255, 0, 0, s0, s1, s2, s3, s4, s5, 0, record_len]);
        let len = VERIFY_LEN as u8;
        // Always message 0: a client that waits for message 1 does not take a second request for a session's answer.
        reply.extend_from_slice(&[HELLO_VERIFY_REQUEST, 0, 0, len, 0, 0, 0, 0, 0, 0, 0, len]);
        reply.extend_from_slice(&[VERSION_MAJOR, 255, COOKIE_LEN as u8]);
        reply.extend_from_slice(cookie);
    }
}

/// Bytes after their number in one byte, and what is behind them.
fn split_counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello, cut off after the cookie as a first fragment may be.
    fn hello(message_seq: u8, cookie: &[u8]) -> Vec<u8> {
        let body = [&[254, 253][..], &[9; 32], &[0, cookie.len() as u8], cookie].concat();
        let len = body.len() as u8;
        let record = [22, 254, 255, 0, 0, 0, 0, 0, 0, 0, 5, 0, len + 12];
        let message = [1, 0, 2, 0, 0, message_seq, 0, 0, 0, 0, 0, len];
        [&record[..], &message, &body].concat()
    }

    #[test]
    fn a_first_fragment_tells_all_that_is_needed() {
        let datagram = hello(1, b"biscuit");
        let hello = ClientHello::parse(&datagram).unwrap();
        assert_eq!(hello.sequence, [0, 0, 0, 0, 0, 5]);
        assert_eq!((hello.message_seq, hello.random, hello.cookie), (1, [9; 32].as_slice(), b"biscuit".as_slice()));
        assert_eq!(hello.parameters, [&[254, 253][..], &[9; 32], &[0]].concat());
    }

    #[test]
    fn what_is_cut_short_is_no_hello() {
        let datagram = hello(0, b"biscuit");
        for len in 0..datagram.len() {
            assert!(ClientHello::parse(&datagram[..len]).is_none(), "{len} bytes");
        }
    }

    #[test]
    fn only_a_clear_first_fragment_of_a_client_hello_is_one() {
        // Content type, version, epoch, message type, fragment offset, version of the body, length of the session id.
        for (position, value) in [(0, 23), (1, 3), (4, 1), (13, 2), (21, 1), (25, 3), (59, 33)] {
            let mut datagram = hello(0, b"");
            datagram.resize(200, 0);
            datagram[12] = 187;
            datagram[24] = 175;
            assert!(ClientHello::parse(&datagram).is_some());
            datagram[position] = value;
            assert!(ClientHello::parse(&datagram).is_none(), "byte {position}");
        }
    }

    #[test]
    fn no_request_is_longer_than_the_least_hello() {
        let datagram = hello(0, b"");
        let mut reply = Vec::new();
        ClientHello::parse(&datagram).unwrap().write_verify_request(&[7; COOKIE_LEN], &mut reply);
        assert_eq!((reply.len(), datagram.len()), (44, 61));
    }

    #[test]
    fn a_request_has_the_record_number_of_the_hello() {
        let datagram = hello(0, b"");
        let mut reply = vec![1, 2, 3];
        ClientHello::parse(&datagram).unwrap().write_verify_request(&[7; COOKIE_LEN], &mut reply);
        let expected = [
            &[22, 254, 255, 0, 0, 0, 0, 0, 0, 0, 5, 0, 31][..],
            &[3, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 19],
            &[254, 255, 16],
            &[7; 16],
        ];
        assert_eq!(reply, expected.concat());
    }
}
