//! TLS towards a server whose certificate is checked.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// TLS that trusts the authorities of a file, or the system's.
pub(crate) fn config(roots: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let roots = match roots {
        Some(path) => given(path)?,
        None => of_the_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The authorities of a file, as they are: for those who read them themselves.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn given(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(path)?) {
        let certificate = certificate.map_err(|error| format!("{}: {error}", path.display()))?;
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if roots.is_empty() { Err(format!("{}: no certificate in it", path.display())) } else { Ok(roots) }
}

fn of_the_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("the system has no certificates of authorities (on Debian: the package ca-certificates)".to_owned());
    }
    Ok(roots)
}
