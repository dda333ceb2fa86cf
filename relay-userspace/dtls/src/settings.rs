//! What servers and clients have in common.

use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslContextBuilder, SslContextRef, SslMethod, SslOptions, SslSessionCacheMode, SslVersion};

/// The longest datagram of a handshake, in bytes: it fits every path that IPv6 allows, below all usual tunnels.
pub const HANDSHAKE_MTU: u32 = 1200;
/// The protocol name of TURN (RFC 7443).
pub const ALPN_TURN: &str = "stun.turn";
/// The protocol name of NAT discovery (RFC 7443).
pub const ALPN_NAT_DISCOVERY: &str = "stun.nat-discovery";

/// ECDHE before DHE, which costs a server more; RFC 8489 section 6.2.3 asks for both, with AES-128-GCM and RSA. Nothing
/// without forward secrecy, nothing without AEAD.
const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!PSK";
/// Without the larger ones, which a client would choose only to make the server work.
const GROUPS: &str = "X25519:P-256:P-384";

/// A builder with the version, ciphers and options of both sides.
pub(crate) fn builder(method: SslMethod) -> Result<SslContextBuilder, ErrorStack> {
    let mut builder = SslContextBuilder::new(method)?;
    builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    builder.set_max_proto_version(Some(SslVersion::DTLS1_2))?;
    builder.set_cipher_list(CIPHERS)?;
    builder.set_groups_list(GROUPS)?;
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_options(
        SslOptions::NO_COMPRESSION
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_TICKET
            | SslOptions::CIPHER_SERVER_PREFERENCE
            | SslOptions::NO_QUERY_MTU,
    );
    Ok(builder)
}

/// A session of a context.
pub(crate) fn ssl(context: &SslContextRef) -> Result<Ssl, ErrorStack> {
    let mut ssl = Ssl::new(context)?;
    ssl.set_mtu(HANDSHAKE_MTU)?;
    Ok(ssl)
}

/// Names as ALPN has them in its extension: each after its length (RFC 7301 section 3.1).
pub(crate) fn alpn_list(names: &[&str]) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        list.push(name.len() as u8);
        list.extend_from_slice(name.as_bytes());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alpn_list_counts_the_bytes_of_each_name() {
        assert_eq!(alpn_list(&[ALPN_TURN, ALPN_NAT_DISCOVERY]), b"\x09stun.turn\x12stun.nat-discovery");
    }
}
