//! Certificates, and what TLS means here (RFC 8489 section 6.2.3, RFC 7443 for ALPN).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use hairpin_dtls::{Pem, ServerContext, Validity};
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::random;

/// What a client may ask for (RFC 7443 section 6): both are answered by the same server.
const PROTOCOLS: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];

/// The largest file that is read: no chain comes near.
const LARGEST: u64 = 1 << 20;

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the server's certificate first, then those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// PEM: the key of the first certificate.
    pub private_key: PathBuf,
}

/// A certificate and its key, as they were read.
pub struct Certificate {
    /// Where they come from.
    pub files: CertificateFiles,
    /// PEM.
    pub chain: Vec<u8>,
    /// PEM.
    pub key: Vec<u8>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{option} {path}")]
    Read {
        /// Which option names it.
        option: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its option asks for.
    #[error("{option} {path}: {problem}")]
    Content {
        /// Which option names it.
        option: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

const CERTIFICATE: &str = "--certificate";
const PRIVATE_KEY: &str = "--private-key";

impl Certificate {
    /// Reads both files.
    pub fn read(files: &CertificateFiles) -> Result<Self, TlsError> {
        let read = |option, path: &Path| {
            let failed = |source| TlsError::Read { option, path: path.to_owned(), source };
            let about = std::fs::metadata(path).map_err(failed)?;
            if !about.is_file() || about.len() > LARGEST {
                let problem = "a file of at most 1 MiB is needed".to_owned();
                return Err(TlsError::Content { option, path: path.to_owned(), problem });
            }
            std::fs::read(path).map_err(failed)
        };
        Ok(Self {
            files: files.clone(),
            chain: read(CERTIFICATE, &files.certificate)?,
            key: read(PRIVATE_KEY, &files.private_key)?,
        })
    }

    /// What is wrong with the time of a certificate. The relay starts all the same: its clients decide whom they trust.
    pub fn complaint(&self) -> Option<String> {
        let path = self.files.certificate.display();
        match hairpin_dtls::validity(&self.chain)? {
            Validity::Now => None,
            Validity::NotYet(begins) => Some(format!("--certificate {path} is not valid before {begins}")),
            Validity::NoLonger(ended) => Some(format!("--certificate {path} has expired on {ended}")),
        }
    }

    fn certified_key(&self) -> Result<CertifiedKey, TlsError> {
        let in_chain = |problem: String| {
            let path = self.files.certificate.clone();
            TlsError::Content { option: CERTIFICATE, path, problem }
        };
        let in_key = |problem: String| {
            let path = self.files.private_key.clone();
            TlsError::Content { option: PRIVATE_KEY, path, problem }
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.chain).collect();
        let chain = chain.map_err(|error| in_chain(format!("not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(in_chain("there is no certificate in PEM form (BEGIN CERTIFICATE) in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| in_key("there is no private key in PEM form without a password in it".to_owned()))?;
        let key = ring::sign::any_supported_type(&key).map_err(|_| {
            in_key("RSA (2048 to 8192 bits), ECDSA (P-256, P-384) and Ed25519 keys are allowed".to_owned())
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // A key whose public half cannot be compared is tried by the clients.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let certificate = self.files.certificate.display();
                return Err(in_key(format!("it is not the key of the first certificate in {certificate}")));
            }
            Err(error) => return Err(in_chain(error.to_string())),
        }
        certified
            .end_entity_cert()
            .and_then(|certificate| ParsedCertificate::try_from(certificate).map(drop))
            .map_err(|error| in_chain(error.to_string()))?;
        Ok(certified)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

/// What connections are made with: TLS 1.2 and 1.3, and of several certificates the one for the name that a client asks
/// for.
pub fn server_config(certificates: &[Certificate]) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let keys: Result<Vec<_>, _> =
        certificates.iter().map(|certificate| certificate.certified_key().map(Arc::new)).collect();
    let provider = Arc::new(ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has ciphers for both versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName { keys: keys? }));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // A client that comes back may be served by another shard: what it is recognised by, it brings along.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if let Ok(ticketer) = ring::Ticketer::new() {
        config.ticketer = ticketer;
    }
    Ok(Arc::new(config))
}

/// What associations over DTLS 1.2 are made with, from the same certificates.
pub fn dtls_context(certificates: &[Certificate]) -> anyhow::Result<ServerContext> {
    let names: Vec<_> = certificates
        .iter()
        .map(|Certificate { files, .. }| {
            [&files.certificate, &files.private_key].map(|path| path.display().to_string())
        })
        .collect();
    let certified: Vec<_> = certificates
        .iter()
        .zip(&names)
        .map(|(certificate, [chain, key])| hairpin_dtls::CertifiedKey {
            chain: Pem { name: chain, bytes: &certificate.chain },
            key: Pem { name: key, bytes: &certificate.key },
        })
        .collect();
    ServerContext::new(&certified, random::bytes()?).context("--certificate, --private-key")
}

/// Certificates in the order of the options.
#[derive(Debug)]
struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    /// The first certificate for this name that the client can verify; for an unknown name, or none, the first of all.
    fn choose(&self, name: Option<&str>, suits: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<CertifiedKey>> {
        let suitable = || self.keys.iter().filter(|key| suits(key));
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| suitable().find(|key| is_for(key, &name)));
        named.or_else(|| suitable().next()).cloned()
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .and_then(|certificate| verify_server_name(&certificate, name))
        .is_ok()
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        self.choose(hello.server_name(), |key| key.key.choose_scheme(schemes).is_some())
    }
}
