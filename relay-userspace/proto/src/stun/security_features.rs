//! What a server tells about its security, in front of its nonces (RFC 8489 sections 9.2 and 18.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The features of a server. They are part of every nonce, which the client gives back under its signature: so nobody on
/// the way can take away a feature unnoticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityFeatures {
    /// The server names the algorithms that keys may be made with, in PASSWORD-ALGORITHMS.
    pub password_algorithms: bool,
    /// The server takes USERHASH in place of USERNAME.
    pub username_anonymity: bool,
}

impl SecurityFeatures {
    /// What every nonce of a server begins with that knows RFC 8489.
    const COOKIE: &str = "obMatJos2";
    /// Three bytes of features in base64.
    const BITS_LEN: usize = 4;
    /// How long the cookie and the features are together.
    pub const PREFIX_LEN: usize = Self::COOKIE.len() + Self::BITS_LEN;

    /// Bit 0 of 24, counted from the most significant one.
    const PASSWORD_ALGORITHMS: u8 = 0x80;
    /// Bit 1.
    const USERNAME_ANONYMITY: u8 = 0x40;

    /// What a nonce begins with that tells these features.
    pub fn prefix(self) -> [u8; Self::PREFIX_LEN] {
        let mut first = 0;
        if self.password_algorithms {
            first |= Self::PASSWORD_ALGORITHMS;
        }
        if self.username_anonymity {
            first |= Self::USERNAME_ANONYMITY;
        }
        let mut prefix = [0; Self::PREFIX_LEN];
        let (cookie, bits) = prefix.split_at_mut(Self::COOKIE.len());
        cookie.copy_from_slice(Self::COOKIE.as_bytes());
        let written = STANDARD.encode_slice([first, 0, 0], bits);
        debug_assert_eq!(written, Ok(Self::BITS_LEN));
        prefix
    }

    /// The features that a nonce tells. None, if it does not begin with the cookie: then its server knows RFC 5389 only.
    ///
    /// Features without a name here are passed over.
    pub fn of_nonce(nonce: &str) -> Option<Self> {
        let bits = nonce.strip_prefix(Self::COOKIE)?.get(..Self::BITS_LEN)?;
        let mut features = [0; 3];
        STANDARD.decode_slice(bits, &mut features).ok().filter(|written| *written == features.len())?;
        Some(Self {
            password_algorithms: features[0] & Self::PASSWORD_ALGORITHMS != 0,
            username_anonymity: features[0] & Self::USERNAME_ANONYMITY != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_are_counted_from_the_most_significant_one() {
        let all = [(false, false, "AAAA"), (true, false, "gAAA"), (false, true, "QAAA"), (true, true, "wAAA")];
        for (password_algorithms, username_anonymity, bits) in all {
            let features = SecurityFeatures { password_algorithms, username_anonymity };
            let prefix = features.prefix();
            assert_eq!(std::str::from_utf8(&prefix).unwrap(), format!("obMatJos2{bits}"));
            assert_eq!(SecurityFeatures::of_nonce(&format!("obMatJos2{bits}anything")), Some(features));
        }
    }

    #[test]
    fn unknown_features_are_passed_over() {
        let features = SecurityFeatures { password_algorithms: true, username_anonymity: false };
        assert_eq!(SecurityFeatures::of_nonce("obMatJos2v///"), Some(features), "all but bit 1");
    }

    #[test]
    fn a_nonce_without_the_cookie_tells_nothing() {
        for nonce in [
            "",
            "obMatJos2",
            "obMatJos2AAA",
            "obMatJos3AAAA",
            "ObMatJos2AAAA",
            "obMatJos2A=AA",
            "obMatJos2AA==",
            "obMatJos2ÄÄÄÄ",
            "obMatJos2AAÄA",
        ] {
            assert_eq!(SecurityFeatures::of_nonce(nonce), None, "{nonce}");
        }
    }
}
