//! TLS to the server (RFC 8489 section 6.2.3): whom to trust, and what to call the server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::Error;

/// The ALPN name of TURN (RFC 7443).
pub const ALPN_TURN: &str = "stun.turn";

/// How the server shows that it is the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whom to believe.
    pub trust: Trust,
    /// The name that the certificate has to be for, also sent as SNI; by default the server's IP address.
    pub server_name: Option<String>,
    /// The protocols that are offered by ALPN, such as [`ALPN_TURN`]; without any, ALPN is not spoken.
    pub alpn: Vec<String>,
}

/// Whose certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those that lead to one of the certificates in a PEM file.
    Roots(PathBuf),
    /// Anybody's: for tests and measurements, where nothing is secret.
    Anybody,
}

impl TlsOptions {
    /// Without a name of the server's, and without ALPN.
    pub fn new(trust: Trust) -> Self {
        Self { trust, server_name: None, alpn: Vec::new() }
    }
}

/// TLS options that were found good, for as many connections as are wanted.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Reads the roots, and checks the rest.
    pub fn new(options: &TlsOptions, server: IpAddr) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match &options.trust {
            Trust::Roots(path) => {
                let roots = Arc::new(roots(path)?);
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().map_err(failure)?
            }
            Trust::Anybody => Arc::new(Credulous(Arc::clone(&provider))),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failure)?
            // Both verifiers check the signature of the handshake.
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = options.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        // Many clients of one process are as costly to the server as clients of many.
        config.resumption = Resumption::disabled();
        let name = match &options.server_name {
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_| Error::Tls(format!("the server name {name} is no DNS name and no IP address")))?,
            None => ServerName::from(server),
        };
        Ok(Self { config: Arc::new(config), name })
    }

    pub(crate) fn connection(&self) -> Result<ClientConnection, Error> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(failure)
    }
}

fn roots(path: &PathBuf) -> Result<RootCertStore, Error> {
    let unreadable = |why: String| Error::Tls(format!("cannot read certificates from {}: {why}", path.display()));
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        store.add(certificate).map_err(|error| unreadable(error.to_string()))?;
    }
    if store.is_empty() { Err(unreadable("there is none".to_owned())) } else { Ok(store) }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn failure(error: impl ToString) -> Error {
    Error::Tls(error.to_string())
}

/// Believes every certificate, though only from whoever has its key.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
