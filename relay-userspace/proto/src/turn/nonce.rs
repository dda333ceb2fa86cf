//! Stateless nonces: the server remembers none, it recognises its own.

use std::fmt;
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

/// What nonces are made with: the same for all shards, and for all servers that a client may come to with one nonce.
#[derive(Clone, PartialEq, Eq)]
pub struct NonceKey([u8; 32]);

impl NonceKey {
    /// The fewest characters of a text that a key is made of.
    pub const MIN_TEXT: usize = 32;

    /// A key of random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key that a text stands for, on every server that is told the text; `None` if it is too short.
    pub fn of_text(text: &str) -> Option<Self> {
        if text.chars().count() < Self::MIN_TEXT {
            return None;
        }
        // The label keeps a text that is also a secret of something else from being the same key there.
        let label = hmac::Key::new(hmac::HMAC_SHA256, b"hairpin nonce key");
        let tag = hmac::sign(&label, text.as_bytes());
        Some(Self(tag.as_ref().try_into().expect("SHA-256 has 32 bytes")))
    }
}

/// Nothing prints it.
impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey")
    }
}

/// Makes and recognises nonces: the server's features, the time, the client's port, and an HMAC-SHA256 over these and the
/// client's IP address. So nobody on the way can take a feature away (RFC 8489 section 9.2.1).
///
/// So no two clients share one (RFC 8489 section 9.2.4), every shard recognises those of the others, and a flood of
/// requests costs no memory. A nonce is good on every port of its client: those that connect several times, as RFC 6062
/// asks, use on one connection what they have got on another.
#[derive(Debug)]
pub(super) struct Nonces {
    /// The first makes them, each is good: while keys are exchanged, those of the key before are still about.
    keys: Vec<hmac::Key>,
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
    /// # Panics
    ///
    /// Without any key.
    pub(super) fn new(keys: &[NonceKey], lifetime: Duration) -> Self {
        let mut nonces = Self { keys: Vec::new(), lifetime };
        nonces.set_keys(keys);
        nonces
    }

    /// Takes other keys from now on.
    pub(super) fn set_keys(&mut self, keys: &[NonceKey]) {
        assert!(!keys.is_empty(), "nonces need a key");
        self.keys = keys.iter().map(|NonceKey(bytes)| hmac::Key::new(hmac::HMAC_SHA256, bytes)).collect();
    }

    pub(super) fn issue(&self, unix: u64, client: ClientAddr, features: SecurityFeatures) -> NonceText {
        let prefix = features.prefix();
        let mut nonce = [0; CONTENT_LEN + MAC_LEN];
        nonce[..TIME_LEN].copy_from_slice(&unix.to_be_bytes()[8 - TIME_LEN..]);
        nonce[TIME_LEN..CONTENT_LEN].copy_from_slice(&client.port().to_be_bytes());
        let mac = mac(&self.keys[0], &prefix, &nonce[..CONTENT_LEN], client.ip());
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
        let (content, shown) = nonce.split_at(CONTENT_LEN);
        let made_with = |key| bool::from(mac(key, prefix.as_bytes(), content, client.ip()).ct_eq(shown));
        let genuine = self.keys.iter().any(made_with);
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
}

fn mac(key: &hmac::Key, prefix: &[u8], content: &[u8], client: IpAddr) -> [u8; MAC_LEN] {
    let mut context = hmac::Context::with_key(key);
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_700_000_000;

    const HOUR: Duration = Duration::from_secs(3600);

    fn nonces_of(keys: &[u8]) -> Nonces {
        let keys: Vec<_> = keys.iter().map(|key| NonceKey::new([*key; 32])).collect();
        Nonces::new(&keys, HOUR)
    }

    fn nonces() -> Nonces {
        nonces_of(&[7])
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
        assert!(!nonces_of(&[8]).is_valid(text.as_str(), NOON, client("192.0.2.1:5000")));
    }

    #[test]
    fn the_first_key_makes_nonces_and_every_key_knows_its_own() {
        let alice = client("192.0.2.1:5000");
        let text = |keys: &[u8]| nonces_of(keys).issue(NOON, alice, ALL);
        let knows = |keys: &[u8], text: &NonceText| nonces_of(keys).is_valid(text.as_str(), NOON, alice);
        let (before, after) = (text(&[7]), text(&[8, 7]));
        assert_eq!((before, after), (text(&[7, 8]), text(&[8])));
        assert!(knows(&[8, 7], &before) && knows(&[7, 8], &before) && knows(&[9, 8, 7], &before));
        assert!(knows(&[8], &after) && !knows(&[7], &after) && !knows(&[8], &before));
        let mut exchanged = nonces_of(&[7]);
        exchanged.set_keys(&[NonceKey::new([8; 32])]);
        assert!(!exchanged.is_valid(before.as_str(), NOON, alice) && exchanged.is_valid(after.as_str(), NOON, alice));
    }

    #[test]
    fn a_text_of_32_characters_is_a_key_and_the_same_one_everywhere() {
        let text = "ä".repeat(32);
        let key = NonceKey::of_text(&text).unwrap();
        assert_eq!(NonceKey::of_text(&text), Some(key.clone()));
        assert_ne!(NonceKey::of_text(&format!("{text} ")), Some(key.clone()));
        assert_eq!(NonceKey::of_text(&"ä".repeat(31)), None);
        assert_eq!(format!("{key:?}"), "NonceKey");
        // Servers of other versions have to make the same: HMAC-SHA256 of the text under the label.
        let NonceKey(bytes) = NonceKey::of_text("0123456789abcdef0123456789abcdef").unwrap();
        assert_eq!(bytes[..4], [0xc6, 0x1d, 0xd7, 0x4c]);
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
