//! Attributes that should be understood and are not (RFC 8489 section 6.3.1).

use super::message::Message;

/// How many types UNKNOWN-ATTRIBUTES lists at most: answers to strangers stay short.
const LISTED: usize = 16;

/// The types of a message's attributes that should be understood and are not, each once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unknown {
    types: [[u8; 2]; LISTED],
    len: usize,
}

impl Unknown {
    /// Those that are in none of the lists.
    pub(crate) fn beyond(message: &Message<'_>, known: [&[u16]; 2]) -> Self {
        let mut unknown = Self::default();
        let [first, second] = known;
        for kind in message.unknown_required(first).filter(|kind| !second.contains(kind)) {
            if unknown.len < LISTED && !unknown.types().contains(&kind.to_be_bytes()) {
                unknown.types[unknown.len] = kind.to_be_bytes();
                unknown.len += 1;
            }
        }
        unknown
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn types(&self) -> &[[u8; 2]] {
        &self.types[..self.len]
    }
}
