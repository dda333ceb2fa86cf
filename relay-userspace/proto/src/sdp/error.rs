//! What makes a description unreadable.

use crate::ice::ParametersError;

/// The longest description, in bytes.
pub(super) const MAX_LENGTH: usize = 64 * 1024;
/// The longest line, in bytes, without its end.
pub(super) const MAX_LINE: usize = 8 * 1024;
/// The most media sections.
pub(super) const MAX_MEDIA: usize = 64;
/// The most candidates of a media section, those that cannot be read among them.
pub(super) const MAX_CANDIDATES: usize = 128;

/// Why a description cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the description: {problem}")]
pub struct SdpError {
    /// The line, the first being 1. For what is missing, the last one.
    pub line: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a line, and what it may be. No password is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The description is too long; here is where it would have to end.
    #[error("{0} bytes are too many, 65536 are allowed in all")]
    Length(usize),
    /// The line is too long.
    #[error("{0} bytes are too many, 8192 are allowed in a line")]
    LineLength(usize),
    /// It has a character that no line may have: NUL, or a carriage return that does not end it.
    #[error("{0:?} is not allowed in a line")]
    Character(char),
    /// It is not a letter, an equals sign, and a value.
    #[error(
        "{0:?} is no line of a description: one is a letter, \"=\" and a value, and blank lines are at the end only"
    )]
    Shape(String),
    /// The description does not begin as one.
    #[error("a description begins with \"v=0\"")]
    Version,
    /// Nothing is described.
    #[error("there is no media section: at least one line begins with \"m=\"")]
    NoMedia,
    /// There are too many media sections.
    #[error("64 media sections are allowed, this is one more")]
    Media,
    /// There are too many candidates.
    #[error("128 candidates are allowed for a media section, this is one more")]
    Candidates,
    /// The line that begins a media section lacks something.
    #[error("{0:?} begins no media section: m=MEDIA PORT PROTOCOL FORMAT... does")]
    MediaLine(String),
    /// The port of a media section is none.
    #[error("{0:?} is no port: one is a number from 0 to 65535, perhaps with a slash and the number of ports")]
    Port(String),
    /// Connection data lack something.
    #[error("{0:?} says no address: c=IN IP4 ADDRESS does, or c=IN IP6 ADDRESS")]
    Connection(String),
    /// The address of RTCP cannot be read.
    #[error("{0:?} says not where RTCP goes: a=rtcp:PORT does, or a=rtcp:PORT IN IP4 ADDRESS, or with IP6")]
    Rtcp(String),
    /// A username fragment or a password is wrong.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// Of username fragment and password there is but one.
    #[error("a={present} is of no use without a={missing}")]
    Alone {
        /// What there is.
        present: &'static str,
        /// What there is not.
        missing: &'static str,
    },
}
