//! One form for texts that look alike: what names and passwords are made into before they are hashed.
//!
//! A profile forbids some texts. Clients that know nothing of profiles use these all the same, and so does the server: they
//! stay as they are.

use std::borrow::Cow;

use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use ring::digest;

/// OpaqueString (RFC 8265 section 4.2), which RFC 8489 asks for. It leaves ASCII alone.
pub fn opaque_string(text: &str) -> Cow<'_, str> {
    unless_ascii(text, |text| OpaqueString::enforce(text).ok())
}

/// SASLprep (RFC 4013), which RFC 5389 asked for and clients made for that still use. It leaves ASCII alone.
pub fn sasl_prep(text: &str) -> Cow<'_, str> {
    // What it maps to nothing as a whole would be as good as no password.
    unless_ascii(text, |text| stringprep::saslprep(text).ok().filter(|prepared| !prepared.is_empty()))
}

fn unless_ascii<'t>(text: &'t str, profile: impl FnOnce(&'t str) -> Option<Cow<'t, str>>) -> Cow<'t, str> {
    let prepared = if text.is_ascii() { None } else { profile(text) };
    prepared.unwrap_or(Cow::Borrowed(text))
}

/// The USERHASH of a name in a realm: SHA-256 of both, prepared, with a colon between them (RFC 8489 section 14.4).
pub fn user_hash(username: &str, realm: &str) -> [u8; 32] {
    sha256([&opaque_string(username), ":", &opaque_string(realm)].map(str::as_bytes))
}

/// SHA-256 of some bytes after each other.
pub(super) fn sha256<const N: usize>(parts: [&[u8]; N]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
