//! Session descriptions (RFC 8866), read and written again as a relay between both sides of a call needs it.
//!
//! [`Description::parse`] finds where media goes: addresses, ICE (RFC 8839), bundles (RFC 9143), RTCP (RFC 3605, RFC
//! 5761, RFC 8858). [`Description::rewrite`] has it go elsewhere. Whatever says something else than where is kept as it
//! came, byte for byte, whether it is known here or not: what the two sides agree on is their business.

mod error;
mod line;
mod media;
mod parse;
mod rewrite;

use std::fmt;

pub use error::{Problem, SdpError};
pub use media::Media;
pub use rewrite::{Endpoint, LocalIce, Section};

/// A session description, whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Description {
    /// The lines before the first media section.
    session: Vec<String>,
    media: Vec<Media>,
    bundles: Vec<Vec<String>>,
}

impl Description {
    /// Reads a description. Its lines may end in LF or CRLF.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        parse::description(text)
    }

    /// Whether it comes from an ICE-lite agent (RFC 8839 section 5.3).
    pub fn is_lite(&self) -> bool {
        self.session.iter().any(|line| line::attribute(line).is_some_and(|(name, _)| name == "ice-lite"))
    }

    /// Whether ICE is used for some of its media.
    pub fn has_ice(&self) -> bool {
        self.media.iter().any(|media| media.is_active() && media.parameters.is_some())
    }

    /// The groups of media sections that share a transport (RFC 9143), each by the `mid` of its sections, in order.
    /// None is empty.
    pub fn bundles(&self) -> &[Vec<String>] {
        &self.bundles
    }

    /// Its media sections, in order.
    pub fn media(&self) -> &[Media] {
        &self.media
    }

    /// Writes it again, with its media at other addresses: one section for each of its media sections, in order. Those
    /// that are missing are rejected, and what is too much is not looked at.
    ///
    /// Only what says where media goes is written anew; all other lines are as they came. Lines end in CRLF. Of a
    /// description that is nearly too long to be read, the result may be longer than that.
    pub fn rewrite(&self, sections: &[Section]) -> String {
        rewrite::description(self, sections)
    }
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Among the lines are keys and passwords.
        f.debug_struct("Description")
            .field("media", &self.media)
            .field("bundles", &self.bundles)
            .finish_non_exhaustive()
    }
}
