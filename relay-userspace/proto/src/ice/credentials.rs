//! Short-term credentials of one side (RFC 8445 section 5.3).

use std::fmt;

use crate::random::RandomPool;
use crate::stun::LongTermKey;

/// Characters of a username fragment: 48 bits of randomness, where RFC 8445 section 5.3 asks for 24.
const UFRAG_LEN: usize = 8;
/// Characters of a password: 144 bits of randomness, where RFC 8445 section 5.3 asks for 128.
const PWD_LEN: usize = 24;
/// The `ice-char` of RFC 8839 section 5.4; 64 of them, so that six random bits choose one without bias.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Username fragment and password of a leg: what its remote addresses checks to, and proves them with.
#[derive(Clone)]
pub struct Credentials {
    ufrag: String,
    pwd: String,
    key: LongTermKey,
}

impl Credentials {
    pub(crate) fn generate(random: &mut RandomPool) -> Self {
        let ufrag = text(random.bytes::<UFRAG_LEN>());
        let pwd = text(random.bytes::<PWD_LEN>());
        // Of ASCII, OpaqueString and SASLprep make what it is already.
        let key = LongTermKey::from_bytes(pwd.as_bytes());
        Self { ufrag, pwd, key }
    }

    /// The username fragment.
    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// The password: a secret between the two sides.
    pub fn pwd(&self) -> &str {
        &self.pwd
    }

    pub(crate) fn key(&self) -> &LongTermKey {
        &self.key
    }

    /// Whether a USERNAME addresses whoever has these credentials: its first part, up to the colon, is the fragment (RFC 8445
    /// section 7.3). What follows is the other side's, which may not be known yet.
    pub(crate) fn are_of(&self, username: &str) -> bool {
        username.split_once(':').is_some_and(|(local, _)| local == self.ufrag)
    }
}

/// As many characters as random bytes, six bits of each.
fn text<const N: usize>(random: [u8; N]) -> String {
    random.iter().map(|byte| char::from(ICE_CHARS[usize::from(byte % 64)])).collect()
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::counting;

    #[test]
    fn each_leg_has_its_own_of_the_length_that_the_rfc_asks_for() {
        let mut random = counting();
        let [first, second] = [(); 2].map(|()| Credentials::generate(&mut random));
        assert_ne!((first.ufrag(), first.pwd()), (second.ufrag(), second.pwd()));
        for text in [first.ufrag(), first.pwd(), second.ufrag(), second.pwd()] {
            assert!(text.bytes().all(|byte| ICE_CHARS.contains(&byte)), "{text}");
        }
        // Six bits a character: RFC 8445 section 5.3 asks for 24 and 128.
        assert!(first.ufrag().len() * 6 >= 24 && first.pwd().len() * 6 >= 128);
    }

    #[test]
    fn a_username_is_of_whom_its_first_part_names() {
        let credentials = Credentials { ufrag: "abcd".into(), ..Credentials::generate(&mut counting()) };
        for (username, is_ours) in
            [("abcd:wxyz", true), ("abcd:", true), ("abcd", false), ("wxyz:abcd", false), ("abc:d", false), ("", false)]
        {
            assert_eq!(credentials.are_of(username), is_ours, "{username}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let credentials = Credentials::generate(&mut counting());
        assert!(!format!("{credentials:?}").contains(credentials.pwd()));
    }
}
