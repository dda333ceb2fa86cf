//! Where a message ends in a stream: STUN and ChannelData over TCP and TLS (RFC 8489 section 6.2.2, RFC 8656 section
//! 12.5).
//!
//! Both say how long they are, and ChannelData is padded to a multiple of four bytes. Nothing marks a beginning, so a
//! stream that once holds something else is lost.

use hairpin_common::wire::{CHANNEL_DATA_LEN, ChannelDataHeader, Datagram, MAGIC_COOKIE, STUN_LEN};

use crate::stun::padded;

/// The longest frame there is: a STUN message of the greatest length that its header can say.
pub const MAX_FRAME: usize = STUN_LEN + 65_532;

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole message of so many bytes, padding included.
    Complete(usize),
    /// A message whose end is not there yet.
    Incomplete,
    /// Nothing that a TURN client sends, nor the beginning of it.
    Broken,
}

impl Frame {
    /// Looks at the first bytes of a stream.
    pub fn of(bytes: &[u8]) -> Self {
        let Some(first) = bytes.first() else { return Self::Incomplete };
        let length = match Datagram::of(*first) {
            Datagram::Stun => match bytes.get(4..STUN_LEN) {
                Some(rest) if rest.starts_with(&MAGIC_COOKIE.to_be_bytes()) => {
                    STUN_LEN + usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))
                }
                Some(_) => return Self::Broken,
                None => return Self::Incomplete,
            },
            Datagram::ChannelData => match bytes.first_chunk::<CHANNEL_DATA_LEN>() {
                Some(header) => CHANNEL_DATA_LEN + padded(usize::from(ChannelDataHeader::parse(*header).length)),
                None => return Self::Incomplete,
            },
            Datagram::Other => return Self::Broken,
        };
        // A STUN message is a multiple of four bytes long, as all that is padded.
        if length != padded(length) {
            Self::Broken
        } else if length <= bytes.len() {
            Self::Complete(length)
        } else {
            Self::Incomplete
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stun(length: u16) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend(length.to_be_bytes());
        bytes.extend(MAGIC_COOKIE.to_be_bytes());
        bytes.resize(STUN_LEN + usize::from(length), 0);
        bytes
    }

    #[test]
    fn a_message_is_complete_with_its_last_byte() {
        for (whole, what) in [
            (stun(0), "a bare header"),
            (stun(8), "a message"),
            (stun(65_532), "the longest message"),
            (vec![0x40, 0, 0, 0], "empty ChannelData"),
            (vec![0x40, 0, 0, 4, 1, 2, 3, 4], "ChannelData"),
            (vec![0x7f, 0xff, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0], "padded ChannelData"),
        ] {
            for cut in 0..whole.len() {
                assert_eq!(Frame::of(&whole[..cut]), Frame::Incomplete, "{what}, cut at {cut}");
            }
            assert_eq!(Frame::of(&whole), Frame::Complete(whole.len()), "{what}");
            let longer = [&whole[..], &whole].concat();
            assert_eq!(Frame::of(&longer), Frame::Complete(whole.len()), "{what}, and another");
            assert!(whole.len() <= MAX_FRAME);
        }
    }

    #[test]
    fn what_is_neither_stun_nor_channel_data_breaks_the_stream() {
        let mut other_cookie = stun(0);
        other_cookie[7] ^= 1;
        for (bytes, what) in [
            (other_cookie, "another magic cookie"),
            (stun(6), "a length that is no multiple of four"),
            (vec![0x16, 3, 1], "TLS"),
            (vec![0x80; 4], "RTP"),
        ] {
            assert_eq!(Frame::of(&bytes), Frame::Broken, "{what}");
        }
    }
}
