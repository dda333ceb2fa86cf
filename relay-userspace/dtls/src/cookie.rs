//! Cookies (RFC 6347 section 4.2.1): what shows that a client receives at the address it claims, without state.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use openssl::memcmp;
use ring::hmac;

pub(crate) const COOKIE_LEN: usize = 16;
/// How long the same cookie is given. It is accepted during the next step, too: for one to two steps in all.
const STEP: Duration = Duration::from_secs(30);

/// Whom a cookie is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'d> {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    /// Of the ClientHello: with another one, the cookie is not worth anything (RFC 6347 section 4.2.1).
    pub(crate) parameters: &'d [u8],
}

/// Makes and recognises cookies. All shards of a relay have the same, so a client may change from one to another.
pub(crate) struct Cookies {
    key: hmac::Key,
    start: Instant,
}

impl Cookies {
    pub(crate) fn new(key: &[u8; 32], start: Instant) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), start }
    }

    /// The cookie for a client at this time.
    pub(crate) fn make(&self, asking: Asking<'_>, now: Instant) -> [u8; COOKIE_LEN] {
        self.at_step(asking, self.step(now))
    }

    /// Whether the cookie was given to this client not long ago.
    pub(crate) fn accept(&self, cookie: &[u8], asking: Asking<'_>, now: Instant) -> bool {
        let step = self.step(now);
        cookie.len() == COOKIE_LEN
            // The comparison's time must not tell a forger how many bytes are right.
            && [Some(step), step.checked_sub(1)]
                .into_iter()
                .flatten()
                .any(|step| memcmp::eq(&self.at_step(asking, step), cookie))
    }

    fn step(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / STEP.as_secs()
    }

    fn at_step(&self, asking: Asking<'_>, step: u64) -> [u8; COOKIE_LEN] {
        let mut tag = hmac::Context::with_key(&self.key);
        tag.update(&step.to_be_bytes());
        for address in [asking.client, asking.server] {
            let ip = match address.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            tag.update(&ip.octets());
            tag.update(&address.port().to_be_bytes());
        }
        tag.update(asking.parameters);
        let tag = tag.sign();
        *tag.as_ref().first_chunk().expect("a tag of SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking<'d>(client: &str, server: &str, parameters: &'d [u8]) -> Asking<'d> {
        Asking { client: client.parse().unwrap(), server: server.parse().unwrap(), parameters }
    }

    #[test]
    fn a_cookie_is_accepted_from_whom_it_was_given_to() {
        let start = Instant::now();
        let client = asking("192.0.2.1:4000", "198.51.100.1:5349", b"random");
        let cookies = Cookies::new(&[1; 32], start);
        let cookie = cookies.make(client, start);
        assert!(cookies.accept(&cookie, client, start));
        assert!(Cookies::new(&[1; 32], start).accept(&cookie, client, start));
        for other in [
            asking("192.0.2.1:4001", "198.51.100.1:5349", b"random"),
            asking("192.0.2.2:4000", "198.51.100.1:5349", b"random"),
            asking("[2001:db8::1]:4000", "198.51.100.1:5349", b"random"),
            asking("192.0.2.1:4000", "198.51.100.1:443", b"random"),
            asking("192.0.2.1:4000", "198.51.100.2:5349", b"random"),
            asking("192.0.2.1:4000", "198.51.100.1:5349", b"another"),
        ] {
            assert!(!cookies.accept(&cookie, other, start), "{other:?}");
        }
        assert!(!Cookies::new(&[2; 32], start).accept(&cookie, client, start));
        assert!(!cookies.accept(&cookie[..15], client, start));
        assert!(!cookies.accept(&[], client, start));
        for position in 0..COOKIE_LEN {
            let mut wrong = cookie;
            wrong[position] ^= 1;
            assert!(!cookies.accept(&wrong, client, start), "byte {position}");
        }
    }

    #[test]
    fn a_cookie_ends_with_the_step_after_its_own() {
        let start = Instant::now();
        let client = asking("192.0.2.1:4000", "198.51.100.1:5349", b"random");
        let cookies = Cookies::new(&[1; 32], start);
        let cookie = cookies.make(client, start + Duration::from_secs(100));
        for (seconds, accepted) in [(89, false), (90, true), (119, true), (120, true), (149, true), (150, false)] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(cookies.accept(&cookie, client, now), accepted, "after {seconds} s");
        }
    }
}
