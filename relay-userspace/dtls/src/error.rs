//! What goes wrong while a session lives, and before there is one.

use openssl::error::ErrorStack;
use thiserror::Error;

use crate::certificate::CertificateError;

/// Why a session did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The handshake has not been finished: nothing can be sent yet.
    #[error("the DTLS handshake is not finished")]
    NotEstablished,
    /// The session has ended: by either side's close_notify, by a fatal alert, or because nobody answered.
    #[error("the DTLS session is closed")]
    Closed,
    /// A plaintext does not fit a record.
    #[error("{len} bytes do not fit a DTLS record, which takes {limit}")]
    TooLong {
        /// Bytes of the plaintext.
        len: usize,
        /// Bytes that would have fitted.
        limit: usize,
    },
    /// The session has ended with this call.
    #[error("DTLS failed: {0}")]
    Failed(String),
}

/// Why a context could not be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A file with a certificate or a key is of no use.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A server needs a certificate.
    #[error("no certificate: DTLS needs one, with its private key")]
    NoCertificate,
    /// What a client calls the server is neither an IP address nor a domain name.
    #[error("server name {0:?}: a domain name or an IP address is needed")]
    ServerName(String),
    /// OpenSSL refuses: by its configuration, or because it is out of memory.
    #[error("OpenSSL: {0}")]
    OpenSsl(#[from] ErrorStack),
}

/// The number of the alert that the peer has sent, if that is what OpenSSL stumbled over.
pub(crate) fn alert(errors: &ErrorStack) -> Option<u8> {
    /// OpenSSL's reasons for alerts of the peer begin here (SSL_AD_REASON_OFFSET).
    const OFFSET: i32 = 1000;
    errors.errors().iter().find_map(|error| u8::try_from(error.reason_code().checked_sub(OFFSET)?).ok())
}

/// The first reason of a stack of OpenSSL's errors, in its words.
pub(crate) fn reason(errors: &ErrorStack) -> Option<String> {
    errors.errors().iter().find_map(openssl::error::Error::reason).map(str::to_owned)
}
