//! STUN of RFC 3489, which has no magic cookie, over DTLS: its requests are answered by an error (RFC 8489 section 11).
//! Over every other transport it is dropped.

use hairpin_common::wire::{MAGIC_COOKIE, STUN_LEN};

use super::cause::Cause;
use super::effect::{Discard, Disposition};
use super::refusal::{Refusal, is_connected};
use super::server::Server;
use crate::address::FiveTuple;
use crate::stun::{Class, ErrorCode, Message, MessageBuilder};

/// Where the magic cookie is, and where RFC 3489 has the beginning of a longer transaction id.
const COOKIE: std::ops::Range<usize> = 4..8;

impl Server {
    pub(super) fn classic(&mut self, five_tuple: FiveTuple, datagram: &[u8]) -> Disposition<'static> {
        let malformed = Disposition::Discard(Discard::MalformedStun);
        let Some((header, body)) = datagram.split_first_chunk::<STUN_LEN>() else { return malformed };
        if usize::from(u16::from_be_bytes([header[2], header[3]])) != body.len() {
            return malformed;
        }
        // The header alone, as one of today.
        let mut modern = *header;
        modern[2..4].fill(0);
        modern[COOKIE].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        let Ok(request) = Message::parse(&modern) else { return malformed };
        if request.class() != Class::Request {
            return malformed;
        }
        let (method, id) = (request.method(), request.transaction_id());
        self.outbox.respond(five_tuple, |buffer| {
            let start = buffer.len();
            MessageBuilder::error(buffer, method, id, ErrorCode::SERVER_ERROR).finish(false);
            buffer[start..][COOKIE].copy_from_slice(&header[COOKIE]);
        });
        self.counts.count_request(method);
        let (code, cause) = (ErrorCode::SERVER_ERROR, Cause::ClassicStun);
        let is_proven = is_connected(&five_tuple);
        self.refused(Refusal { five_tuple, method, code, cause, is_proven, username: None, peer: None });
        Disposition::Control
    }
}
