//! The STUN codec (RFC 8489): messages are read in place and written into a buffer of the caller's.

pub mod attribute;
mod builder;
mod error_code;
mod header;
mod integrity;
mod message;
mod password;
pub mod prepare;
mod security_features;
mod unknown;

pub use builder::MessageBuilder;
pub use error_code::ErrorCode;
pub use header::{Class, Method, TransactionId};
pub use integrity::{Integrity, LongTermKey, hmac_sha1};
pub use message::{Attributes, Message, ParseError};
pub use password::{PasswordAlgorithm, PasswordKeys};
pub use prepare::{opaque_string, user_hash};
pub use security_features::SecurityFeatures;

pub(crate) use message::padded;
pub(crate) use unknown::Unknown;
