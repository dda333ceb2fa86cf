//! Error codes (RFC 8489 section 14.8, RFC 8656 section 19).

/// The code of an error response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(u16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $reason:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The default reason phrase of the RFC that defines the code.
            pub fn reason(self) -> &'static str {
                match self {
                    $(Self::$name => $reason,)*
                    _ => "",
                }
            }

            /// Every code with a name here.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

codes! {
    /// The request should go to another server (RFC 8489 section 14.8).
    TRY_ALTERNATE = 300, "Try Alternate";
    /// The request was malformed (RFC 8489 section 14.8).
    BAD_REQUEST = 400, "Bad Request";
    /// The credentials are missing or wrong (RFC 8489 section 14.8).
    UNAUTHENTICATED = 401, "Unauthenticated";
    /// The server's policy does not allow it (RFC 8656 section 19).
    FORBIDDEN = 403, "Forbidden";
    /// The server's policy does not allow mobility (RFC 8016 section 3.1).
    MOBILITY_FORBIDDEN = 405, "Mobility Forbidden";
    /// An attribute that must be understood was not (RFC 8489 section 14.8).
    UNKNOWN_ATTRIBUTE = 420, "Unknown Attribute";
    /// There is no such allocation, or there is one already (RFC 8656 section 19).
    ALLOCATION_MISMATCH = 437, "Allocation Mismatch";
    /// The nonce is no longer valid (RFC 8489 section 14.8).
    STALE_NONCE = 438, "Stale Nonce";
    /// The address family is not served (RFC 8656 section 19).
    ADDRESS_FAMILY_NOT_SUPPORTED = 440, "Address Family not Supported";
    /// The credentials are not those that the allocation was made with (RFC 8656 section 19).
    WRONG_CREDENTIALS = 441, "Wrong Credentials";
    /// The transport to the peer is not served (RFC 8656 section 19).
    UNSUPPORTED_TRANSPORT_PROTOCOL = 442, "Unsupported Transport Protocol";
    /// The peer's address is not of the relayed address's family (RFC 8656 section 19).
    PEER_ADDRESS_FAMILY_MISMATCH = 443, "Peer Address Family Mismatch";
    /// There is a connection to this peer, or it is under way (RFC 6062 section 6.3).
    CONNECTION_ALREADY_EXISTS = 446, "Connection Already Exists";
    /// No connection to the peer came about (RFC 6062 section 6.3).
    CONNECTION_TIMEOUT_OR_FAILURE = 447, "Connection Timeout or Failure";
    /// The user has as many allocations as it may (RFC 8656 section 19).
    ALLOCATION_QUOTA_REACHED = 486, "Allocation Quota Reached";
    /// Both agents take themselves for the controlling, or for the controlled one (RFC 8445 section 16.2).
    ROLE_CONFLICT = 487, "Role Conflict";
    /// The server failed; the client may try again (RFC 8489 section 14.8).
    SERVER_ERROR = 500, "Server Error";
    /// The server cannot do it now for want of something (RFC 8656 section 19).
    INSUFFICIENT_CAPACITY = 508, "Insufficient Capacity";
}

impl ErrorCode {
    /// The number, 300 to 699.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The code with this number, if it is in the range of the protocol.
    pub fn from_number(number: u16) -> Option<Self> {
        (300..700).contains(&number).then_some(Self(number))
    }
}
