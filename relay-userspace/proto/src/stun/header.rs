//! The fields of a message header (RFC 8489 section 5).

use std::fmt;

/// What a message is to its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Asks for a response.
    Request,
    /// Asks for none.
    Indication,
    /// The answer to a request that was carried out.
    Success,
    /// The answer to a request that was not.
    Error,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method(u16);

impl Method {
    /// RFC 8489 section 18.2.
    pub const BINDING: Self = Self(0x001);
    /// RFC 8656 section 17.
    pub const ALLOCATE: Self = Self(0x003);
    /// RFC 8656 section 17.
    pub const REFRESH: Self = Self(0x004);
    /// RFC 8656 section 17.
    pub const SEND: Self = Self(0x006);
    /// RFC 8656 section 17.
    pub const DATA: Self = Self(0x007);
    /// RFC 8656 section 17.
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// RFC 8656 section 17.
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// RFC 6062 section 6.1.
    pub const CONNECT: Self = Self(0x00a);
    /// RFC 6062 section 6.1.
    pub const CONNECTION_BIND: Self = Self(0x00b);
    /// RFC 6062 section 6.1; only an indication.
    pub const CONNECTION_ATTEMPT: Self = Self(0x00c);

    /// A short name for metrics; one of a fixed set.
    pub fn label(self) -> &'static str {
        match self {
            Self::BINDING => "binding",
            Self::ALLOCATE => "allocate",
            Self::REFRESH => "refresh",
            Self::SEND => "send",
            Self::DATA => "data",
            Self::CREATE_PERMISSION => "create_permission",
            Self::CHANNEL_BIND => "channel_bind",
            Self::CONNECT => "connect",
            Self::CONNECTION_BIND => "connection_bind",
            Self::CONNECTION_ATTEMPT => "connection_attempt",
            _ => "other",
        }
    }
}

/// Matches a response to its request (RFC 8489 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Class and method share the first 14 bits, interleaved (RFC 8489 section 5, figure 3).
pub(super) fn message_type(class: Class, method: Method) -> u16 {
    let class = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    let Method(m) = method;
    class | (m & 0x000f) | (m & 0x0070) << 1 | (m & 0x0f80) << 2
}

/// The reverse of [`message_type`].
pub(super) fn class_and_method(message_type: u16) -> (Class, Method) {
    let class = match message_type & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    let t = message_type;
    (class, Method((t & 0x000f) | (t & 0x00e0) >> 1 | (t & 0x3e00) >> 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_the_rfc() {
        // RFC 8656 section 17 and RFC 8489 section 5 give these values.
        assert_eq!(message_type(Class::Request, Method::BINDING), 0x0001);
        assert_eq!(message_type(Class::Success, Method::BINDING), 0x0101);
        assert_eq!(message_type(Class::Error, Method::ALLOCATE), 0x0113);
        assert_eq!(message_type(Class::Indication, Method::SEND), 0x0016);
        assert_eq!(message_type(Class::Indication, Method::DATA), 0x0017);
        // The numbers of RFC 6062 section 6.1.
        assert_eq!(message_type(Class::Request, Method::CONNECT), 0x000a);
        assert_eq!(message_type(Class::Request, Method::CONNECTION_BIND), 0x000b);
        assert_eq!(message_type(Class::Indication, Method::CONNECTION_ATTEMPT), 0x001c);
    }

    #[test]
    fn every_type_splits_and_joins() {
        for message_type_ in 0..0x4000 {
            let (class, method) = class_and_method(message_type_);
            assert_eq!(message_type(class, method), message_type_);
        }
    }
}
