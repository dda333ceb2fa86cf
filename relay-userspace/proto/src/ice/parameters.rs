//! The credentials of an ICE agent for one stream: username fragment and password (RFC 8839 section 5.4).

use std::fmt;
use std::ops::RangeInclusive;

/// How long a username fragment may be, in characters.
const UFRAG: RangeInclusive<usize> = 4..=256;
/// How long a password may be, in characters.
const PWD: RangeInclusive<usize> = 22..=256;

/// What both agents prove that they know in each check.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The username fragment: 4 to 256 ice-chars.
    pub ufrag: String,
    /// The password: 22 to 256 ice-chars.
    pub pwd: String,
}

/// Why something can be no username fragment or password. No password is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParametersError {
    /// The username fragment has another length, or other characters.
    #[error("an ice-ufrag has 4 to 256 of the characters A-Z, a-z, 0-9, + and /: this one {0}")]
    Ufrag(Misshape),
    /// The password has.
    #[error("an ice-pwd has 22 to 256 of the characters A-Z, a-z, 0-9, + and /: this one {0}")]
    Pwd(Misshape),
}

/// What is wrong with it, without showing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misshape {
    /// It has so many characters.
    #[error("has {0}")]
    Length(usize),
    /// The character at this place, the first being 1, is another.
    #[error("has another at place {0}")]
    Character(usize),
}

impl Parameters {
    /// Takes both, if they have the shape that the RFC asks for.
    pub fn new(ufrag: impl Into<String>, pwd: impl Into<String>) -> Result<Self, ParametersError> {
        let (ufrag, pwd) = (ufrag.into(), pwd.into());
        Self::check_ufrag(&ufrag)?;
        Self::check_pwd(&pwd)?;
        Ok(Self { ufrag, pwd })
    }

    /// Whether this can be a username fragment.
    pub fn check_ufrag(ufrag: &str) -> Result<(), ParametersError> {
        check(ufrag, &UFRAG).map_err(ParametersError::Ufrag)
    }

    /// Whether this can be a password.
    pub fn check_pwd(pwd: &str) -> Result<(), ParametersError> {
        check(pwd, &PWD).map_err(ParametersError::Pwd)
    }
}

fn check(text: &str, lengths: &RangeInclusive<usize>) -> Result<(), Misshape> {
    if let Some(at) = text.chars().position(|character| !u8::try_from(character).is_ok_and(is_ice_char)) {
        return Err(Misshape::Character(at + 1));
    }
    if lengths.contains(&text.len()) { Ok(()) } else { Err(Misshape::Length(text.len())) }
}

/// Whether this is one of the characters that foundations, username fragments and passwords are made of (`ice-char`,
/// RFC 8839 section 5.1).
pub fn is_ice_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of every log.
        f.debug_struct("Parameters").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "asd88fgpdd777uzjYhagZg";

    #[test]
    fn the_lengths_of_the_rfc_are_taken_and_no_others() {
        for (ufrag, pwd, expected) in [
            (4, 22, Ok(())),
            (256, 256, Ok(())),
            (3, 22, Err(ParametersError::Ufrag(Misshape::Length(3)))),
            (257, 22, Err(ParametersError::Ufrag(Misshape::Length(257)))),
            (0, 22, Err(ParametersError::Ufrag(Misshape::Length(0)))),
            (4, 21, Err(ParametersError::Pwd(Misshape::Length(21)))),
            (4, 257, Err(ParametersError::Pwd(Misshape::Length(257)))),
        ] {
            let taken = Parameters::new("u".repeat(ufrag), "p".repeat(pwd));
            assert_eq!(taken.map(drop), expected, "{ufrag} and {pwd}");
        }
    }

    #[test]
    fn every_character_is_an_ice_char() {
        assert_eq!((0..=u8::MAX).filter(|byte| is_ice_char(*byte)).count(), 26 + 26 + 10 + 2);
        assert!(Parameters::new("aZ09+/", PASSWORD).is_ok());
        for (ufrag, at) in [("8hh-Y", 4), ("8hhY ", 5), ("8h\r\nhY", 3), ("üüüü", 1), ("abcd\u{100}", 5), ("abc=", 4)]
        {
            assert_eq!(
                Parameters::new(ufrag, PASSWORD),
                Err(ParametersError::Ufrag(Misshape::Character(at))),
                "{ufrag:?}"
            );
        }
        let pwd = format!("{PASSWORD}:");
        assert_eq!(Parameters::new("8hhY", pwd), Err(ParametersError::Pwd(Misshape::Character(23))));
    }

    #[test]
    fn no_password_is_printed() {
        let printed = format!("{:?}", Parameters::new("8hhY", PASSWORD));
        assert!(printed.contains("8hhY") && !printed.contains(PASSWORD), "{printed}");
        let wrong = Parameters::new("8hhY", "not-a-password-of-any-sort").unwrap_err();
        let printed = format!("{wrong} {wrong:?}");
        assert!(!printed.contains("not-a"), "{printed}");
        assert!(printed.contains("22 to 256"), "what is allowed is told: {printed}");
    }
}
