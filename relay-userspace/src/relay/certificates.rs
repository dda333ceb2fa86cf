//! The certificates that clients over TLS and DTLS are shown: read, and read again when their files change.

use std::sync::Arc;

use hairpin_dtls::ServerContext;

use super::stamps::Stamp;
use crate::api;
use crate::clock::unix_seconds;
use crate::config::Config;
use crate::tls::{self, Certificate, CertificateFiles, TlsError};

/// What clients are shown, and where it comes from.
pub(super) struct Certificates {
    read: Vec<Certificate>,
    stamps: Stamps,
    /// For TLS; none: nobody asks for it.
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    /// For DTLS; likewise.
    pub(super) dtls: Option<ServerContext>,
}

/// Of certificate and key.
pub(super) type Stamps = Vec<[Stamp; 2]>;

impl Certificates {
    /// Reads what a configuration names.
    pub(super) fn read(config: &Config) -> anyhow::Result<Self> {
        // Before the files: what is written in between is noticed next time.
        let stamps = stamps(&config.certificates);
        let read = config.certificates.iter().map(Certificate::read).collect::<Result<Vec<_>, TlsError>>()?;
        let tls = (!read.is_empty()).then(|| tls::server_config(&read)).transpose()?;
        let has_dtls = config.listeners.iter().any(|listener| listener.transport.label() == "dtls");
        let dtls = has_dtls.then(|| tls::dtls_context(&read)).transpose()?;
        Ok(Self { read, stamps, tls, dtls })
    }

    /// Keeps in use what shows the same: those who come back with a session ticket are known, and handshakes go on. What is
    /// no longer asked for stays for listeners that are drained.
    pub(super) fn take_over(&mut self, before: &Self) {
        let is_same = self.are_like(before);
        if is_same || self.tls.is_none() {
            self.tls = before.tls.clone().or(self.tls.take());
        }
        if is_same && before.dtls.is_some() || self.dtls.is_none() {
            self.dtls.clone_from(&before.dtls);
        }
    }

    /// The stamps of files that may have changed since they were read. To be taken before they are read again: what is
    /// written in between is noticed next time.
    pub(super) fn changed(&self) -> Option<Stamps> {
        let now = stamps(&self.files());
        (self.stamps != now).then_some(now)
    }

    /// Does not look again before a file changes once more.
    pub(super) fn leave(&mut self, stamps: Stamps) {
        self.stamps = stamps;
    }

    /// Whether both show the same.
    pub(super) fn are_like(&self, other: &Self) -> bool {
        let contents = |all: &Self| all.read.iter().map(|one| (one.chain.clone(), one.key.clone())).collect::<Vec<_>>();
        contents(self) == contents(other)
    }

    /// What is wrong with their times.
    pub(super) fn complaints(&self) -> impl Iterator<Item = String> {
        self.read.iter().filter_map(Certificate::complaint)
    }

    /// What an operator wants to know of each.
    pub(super) fn status(&self) -> Vec<api::CertificateStatus> {
        let status = |certificate: &Certificate| {
            let details = hairpin_dtls::details(&certificate.chain);
            let (names, expires) = details.map(|details| (details.names, details.expires)).unwrap_or_default();
            let file = certificate.files.certificate.display().to_string();
            api::CertificateStatus { file, names, expires: u64::try_from(expires).unwrap_or_default() }
        };
        self.read.iter().map(status).collect()
    }

    fn files(&self) -> Vec<CertificateFiles> {
        self.read.iter().map(|certificate| certificate.files.clone()).collect()
    }
}

fn stamps(files: &[CertificateFiles]) -> Stamps {
    files.iter().map(|files| [Stamp::of(&files.certificate), Stamp::of(&files.private_key)]).collect()
}

/// What an operator should do about a certificate that ends soon.
pub(crate) fn warning(certificate: &api::CertificateStatus) -> Option<String> {
    /// As long as a certificate of Let's Encrypt is overdue for renewal when this is said.
    const SOON: u64 = 14;
    let now = unix_seconds();
    let api::CertificateStatus { file, expires, .. } = certificate;
    if *expires <= now {
        return Some(format!("certificate {file} has expired: clients over TLS and DTLS are refused; renew it"));
    }
    let days = (expires - now) / 86_400;
    (days < SOON).then(|| format!("certificate {file} ends in {days} days: renew it"))
}
