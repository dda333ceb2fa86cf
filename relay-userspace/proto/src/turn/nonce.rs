//! Stateless nonces: the server remembers none, it recognises its own.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::address::ClientAddr;
use crate::stun::SecurityFeatures;

/// When it was made, in seconds since the Unix epoch: 40 bits, big-endian.
const TIME_LEN: usize = 5;
/// What it is about: the time, and the port of the client that it was made for.
const CONTENT_LEN: usize = TIME_LEN + 2;
/// As much of the HMAC as is kept: 88 bits. With the content that makes whole groups of base64.
const MAC_LEN: usize = 11;
/// Behind the cookie and the features of the server (RFC 8489 section 9.2), which are text.
const TEXT_LEN: usize = SecurityFeatures::PREFIX_LEN + (CONTENT_LEN + MAC_LEN) / 3 * 4;

/// Makes and recognises nonces: the server's features, the time, the client's port, and an HMAC-SHA256 over these and the
/// client's IP address. So nobody on the way can take a feature away (RFC 8489 section 9.2.1).
///
/// So no two clients share one (RFC 8489 section 9.2.4), every shard recognises those of the others, and a flood of
/// requests costs no memory. A nonce is good on every port of its client: those that connect several times, as RFC 6062
/// asks, use on one connection what they have got on another.
#[derive(Debug)]
pub(super) struct Nonces {
    key: hmac::Key,
    lifetime: Duration,
}

/// A nonce as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NonceText([u8; TEXT_LEN]);

impl NonceText {
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

impl Nonces {
    pub(super) fn new(key: &[u8; 32], lifetime: Duration) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), lifetime }
    }

    pub(super) fn issue(&self, unix: u64, client: ClientAddr, features: SecurityFeatures) -> NonceText {
        let prefix = features.prefix();
        let mut nonce = [0; CONTENT_LEN + MAC_LEN];
        nonce[..TIME_LEN].copy_from_slice(&unix.to_be_bytes()[8 - TIME_LEN..]);
        nonce[TIME_LEN..CONTENT_LEN].copy_from_slice(&client.port().to_be_bytes());
        let mac = self.mac(&prefix, &nonce[..CONTENT_LEN], client.ip());
        nonce[CONTENT_LEN..].copy_from_slice(&mac);
        let mut text = [0; TEXT_LEN];
        text[..prefix.len()].copy_from_slice(&prefix);
        let written = URL_SAFE_NO_PAD.encode_slice(nonce, &mut text[prefix.len()..]);
        debug_assert_eq!(written, Ok(TEXT_LEN - prefix.len()));
        NonceText(text)
    }

    /// Whether this is a nonce that was made for this client, not too long ago.
    pub(super) fn is_valid(&self, text: &str, unix: u64, client: ClientAddr) -> bool {
        let mut nonce = [0; CONTENT_LEN + MAC_LEN];
        let Some((prefix, rest)) = text.split_at_checked(SecurityFeatures::PREFIX_LEN) else { return false };
        // A text of another length would not fit, or would leave zeros.
        if text.len() != TEXT_LEN || URL_SAFE_NO_PAD.decode_slice(rest, &mut nonce).is_err() {
            return false;
        }
        let (content, mac) = nonce.split_at(CONTENT_LEN);
        let genuine: bool = self.mac(prefix.as_bytes(), content, client.ip()).ct_eq(mac).into();
        let mut issued = [0; 8];
        issued[8 - TIME_LEN..].copy_from_slice(&content[..TIME_LEN]);
        // A nonce from the future is one from before the clock was set back.
        genuine && unix.abs_diff(u64::from_be_bytes(issued)) < self.lifetime.as_secs()
    }

    /// The features that a text says it was issued with, if it begins as a nonce should. They are those of the server if it
    /// is valid, and may be anything if not.
    pub(super) fn features(text: &str) -> Option<SecurityFeatures> {
        SecurityFeatures::of_nonce(text)
    }

    fn mac(&self, prefix: &[u8], content: &[u8], client: IpAddr) -> [u8; MAC_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        // Both have a fixed length.
        context.update(prefix);
        context.update(content);
        match client {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        let mut mac = [0; MAC_LEN];
        mac.copy_from_slice(&context.sign().as_ref()[..MAC_LEN]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_700_000_000;

    fn nonces() -> Nonces {
        Nonces::new(&[7; 32], Duration::from_secs(3600))
    }

    const ALL: SecurityFeatures = SecurityFeatures { password_algorithms: true, username_anonymity: true };

    fn client(address: &str) -> ClientAddr {
        ClientAddr::new(address.parse().unwrap())
    }

    #[test]
    fn a_nonce_is_valid_for_its_client_and_its_lifetime_on_every_shard() {
        let alice = client("192.0.2.1:5000");
        let text = nonces().issue(NOON, alice, ALL);
        let other_shard = nonces();
        let valid = |unix| other_shard.is_valid(text.as_str(), unix, alice);
        assert!(valid(NOON) && valid(NOON + 3599) && valid(NOON - 1));
        assert!(!valid(NOON + 3600));
        assert!(valid(NOON - 3599) && !valid(NOON - 3600), "the clock was set back by too much");
        assert!(text.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    }

    #[test]
    fn a_nonce_of_another_address_or_key_is_not_valid() {
        let text = nonces().issue(NOON, client("192.0.2.1:5000"), ALL);
        for other in ["192.0.2.2:5000", "[2001:db8::1]:5000"] {
            assert!(!nonces().is_valid(text.as_str(), NOON, client(other)), "{other}");
        }
        let other_key = Nonces::new(&[8; 32], Duration::from_secs(3600));
        assert!(!other_key.is_valid(text.as_str(), NOON, client("192.0.2.1:5000")));
    }

    #[test]
    fn every_port_gets_another_nonce_and_each_is_good_on_all() {
        let [first, second] = ["192.0.2.1:5000", "192.0.2.1:5001"].map(client);
        let texts = [first, second].map(|client| nonces().issue(NOON, client, ALL));
        assert_ne!(texts[0], texts[1]);
        assert!(texts.iter().all(|text| nonces().is_valid(text.as_str(), NOON, first)));
    }

    #[test]
    fn a_nonce_tells_the_features_and_nobody_can_change_them() {
        let alice = client("192.0.2.1:5000");
        let each = [(false, false), (true, false), (false, true), (true, true)].map(|(algorithms, anonymity)| {
            SecurityFeatures { password_algorithms: algorithms, username_anonymity: anonymity }
        });
        for features in each {
            let text = nonces().issue(NOON, alice, features);
            assert!(nonces().is_valid(text.as_str(), NOON, alice));
            assert_eq!(Nonces::features(text.as_str()), Some(features));
            assert!((4..128).contains(&text.as_str().len()));
            for other in each.into_iter().filter(|other| *other != features) {
                let prefix = other.prefix();
                let bid_down = std::str::from_utf8(&prefix).unwrap().to_owned() + &text.as_str()[prefix.len()..];
                assert_eq!(Nonces::features(&bid_down), Some(other));
                assert!(!nonces().is_valid(&bid_down, NOON, alice), "{bid_down}");
            }
            let without_cookie = &text.as_str()[SecurityFeatures::PREFIX_LEN..];
            assert!(!nonces().is_valid(without_cookie, NOON, alice));
            assert_eq!(Nonces::features(without_cookie), None);
        }
    }

    #[test]
    fn a_changed_nonce_is_not_valid() {
        let alice = client("[2001:db8::1]:5000");
        let text = nonces().issue(NOON, alice, ALL);
        for at in 0..TEXT_LEN {
            let mut changed = text.as_str().to_owned().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(!nonces().is_valid(&changed, NOON, alice), "{changed}");
        }
        let multibyte = "ä".repeat(TEXT_LEN / 2) + "A";
        for garbage in ["", "A", &text.as_str()[1..], &"*".repeat(TEXT_LEN), &"A".repeat(763), &multibyte] {
            assert!(!nonces().is_valid(garbage, NOON, alice), "{garbage}");
        }
    }
}
