//! A server's certificates and keys, from the bytes of PEM files, and which names they are for.

use std::cmp::Ordering;

use openssl::asn1::Asn1Time;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslContextBuilder, SslMethod};
use openssl::x509::X509;
use thiserror::Error;

use crate::error::{SetupError, reason};
use crate::settings;

/// A PEM file that has been read.
#[derive(Clone, Copy, Debug)]
pub struct Pem<'a> {
    /// What errors call it: its path.
    pub name: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
}

/// A certificate with its chain, and its private key. Both may be in one file.
#[derive(Clone, Copy, Debug)]
pub struct CertifiedKey<'a> {
    /// The server's own certificate, then those that lead to a root, which itself may be left out.
    pub chain: Pem<'a>,
    /// The private key: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: Pem<'a>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// There is no certificate in it.
    #[error("{file}: no certificate in it: a PEM file is needed, with the server's own certificate first")]
    NoCertificate {
        /// The file.
        file: String,
    },
    /// A certificate in it cannot be read or used.
    #[error("{file}: cannot use certificate {number} in it: {reason}")]
    BadCertificate {
        /// The file.
        file: String,
        /// Which one, from 1.
        number: usize,
        /// OpenSSL's words.
        reason: String,
    },
    /// There is no private key in it.
    #[error("{file}: no private key in it that can be read: an unencrypted PEM file is needed")]
    NoKey {
        /// The file.
        file: String,
    },
    /// The private key in it cannot be used.
    #[error("{file}: cannot use the private key in it: {reason}")]
    BadKey {
        /// The file.
        file: String,
        /// OpenSSL's words.
        reason: String,
    },
    /// The private key is encrypted.
    #[error("{file}: the private key is encrypted: one without a passphrase is needed")]
    EncryptedKey {
        /// The file.
        file: String,
    },
    /// Key and certificate are not of one pair.
    #[error("{file}: the private key is not that of the first certificate in {certificate}")]
    WrongKey {
        /// The file with the key.
        file: String,
        /// The file with the certificate.
        certificate: String,
    },
}

impl Pem<'_> {
    /// All certificates of the file, at least one.
    pub(crate) fn certificates(self) -> Result<Vec<X509>, CertificateError> {
        let file = || self.name.to_owned();
        let blocks = certificate_blocks(self.bytes);
        let certificates = blocks.iter().enumerate().map(|(index, block)| {
            X509::from_pem(block).map_err(|errors| CertificateError::BadCertificate {
                file: file(),
                number: index + 1,
                reason: reason(&errors).unwrap_or_else(|| "not a certificate".to_owned()),
            })
        });
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        if certificates.is_empty() { Err(CertificateError::NoCertificate { file: file() }) } else { Ok(certificates) }
    }

    fn private_key(self) -> Result<PKey<Private>, CertificateError> {
        let file = self.name.to_owned();
        let mut encrypted = false;
        // Without this, OpenSSL would ask the terminal.
        let key = PKey::private_key_from_pem_callback(self.bytes, |_| {
            encrypted = true;
            Ok(0)
        });
        match key {
            Ok(key) => Ok(key),
            Err(_) if encrypted => Err(CertificateError::EncryptedKey { file }),
            Err(_) => Err(CertificateError::NoKey { file }),
        }
    }
}

/// The PEM blocks of certificates, one by one, so that an error can say which is bad.
fn certificate_blocks(bytes: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let starts: Vec<_> = (0..bytes.len()).filter(|&start| bytes[start..].starts_with(BEGIN)).collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &bytes[start..end]).collect()
}

/// A server's certificate in a context of its own, not yet finished.
pub(crate) struct Identity {
    pub(crate) names: Names,
    pub(crate) builder: SslContextBuilder,
}

impl Identity {
    pub(crate) fn new(certified: CertifiedKey<'_>) -> Result<Self, SetupError> {
        let certificates = certified.chain.certificates()?;
        let key = certified.key.private_key()?;
        let mut builder = settings::builder(SslMethod::dtls_server())?;
        let unusable = |number, errors: &_| CertificateError::BadCertificate {
            file: certified.chain.name.to_owned(),
            number,
            reason: reason(errors).unwrap_or_else(|| "refused".to_owned()),
        };
        let own = &certificates[0];
        // A key of another kind, too, is not the certificate's.
        if !own.public_key().is_ok_and(|public| public.public_eq(&key)) {
            let (file, certificate) = (certified.key.name.to_owned(), certified.chain.name.to_owned());
            return Err(CertificateError::WrongKey { file, certificate }.into());
        }
        builder.set_certificate(own).map_err(|errors| unusable(1, &errors))?;
        builder.set_private_key(&key).map_err(|errors| CertificateError::BadKey {
            file: certified.key.name.to_owned(),
            reason: reason(&errors).unwrap_or_else(|| "refused".to_owned()),
        })?;
        let names = Names::of(own);
        for (index, issuer) in certificates.into_iter().enumerate().skip(1) {
            builder.add_extra_chain_cert(issuer).map_err(|errors| unusable(index + 1, &errors))?;
        }
        Ok(Self { names, builder })
    }
}

/// The domain names of a certificate (RFC 9525): of its alternative names only, in lower case.
pub(crate) struct Names(Vec<String>);

impl Names {
    fn of(certificate: &X509) -> Self {
        let names = certificate.subject_alt_names();
        let names = names.iter().flatten().filter_map(|name| name.dnsname());
        Self(names.map(str::to_ascii_lowercase).collect())
    }

    /// Whether a client that asks for `name` means this certificate. A `*` stands for one whole label, the first.
    pub(crate) fn contain(&self, name: &str) -> bool {
        let rest = name.split_once('.').map(|(_, rest)| rest);
        self.0.iter().any(|own| match own.strip_prefix("*.") {
            Some(suffix) => rest.is_some_and(|rest| rest.eq_ignore_ascii_case(suffix)),
            None => own.eq_ignore_ascii_case(name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let names = Names(vec!["turn.example.org".to_owned(), "*.example.net".to_owned()]);
        for (name, contained) in [
            ("turn.example.org", true),
            ("TURN.Example.ORG", true),
            ("example.org", false),
            ("other.example.org", false),
            ("a.example.net", true),
            ("a.b.example.net", false),
            ("example.net", false),
            ("", false),
        ] {
            assert_eq!(names.contain(name), contained, "{name}");
        }
    }
}

/// When a certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Now,
    /// Not before this time.
    NotYet(String),
    /// Not after this time.
    NoLonger(String),
}

/// When the first certificate of a PEM file ends, in seconds since the Unix epoch. `None` if there is none that can be
/// read.
pub fn expiry(chain: &[u8]) -> Option<i64> {
    let certificate = X509::from_pem(chain).ok()?;
    let since = Asn1Time::from_unix(0).ok()?.diff(certificate.not_after()).ok()?;
    Some(i64::from(since.days) * 86_400 + i64::from(since.secs))
}

/// Whether the first certificate of a PEM file is valid now. `None` if there is none that can be read.
pub fn validity(chain: &[u8]) -> Option<Validity> {
    let certificate = X509::from_pem(chain).ok()?;
    let now = Asn1Time::days_from_now(0).ok()?;
    let (begins, ends) = (certificate.not_before(), certificate.not_after());
    Some(if begins.compare(&now).ok()? == Ordering::Greater {
        Validity::NotYet(begins.to_string())
    } else if ends.compare(&now).ok()? == Ordering::Less {
        Validity::NoLonger(ends.to_string())
    } else {
        Validity::Now
    })
}
