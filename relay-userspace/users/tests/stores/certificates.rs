//! An authority of a test's own, and certificates of servers on loopback.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key of a server, as PEM.
    pub(crate) fn server(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Writes `roots.pem`, and `server.pem` with `key.pem` for a server that wants files.
    pub(crate) fn write_server(&self, folder: &Path) {
        let (certificate, key) = self.server();
        fs::write(folder.join("roots.pem"), self.pem()).unwrap();
        fs::write(folder.join("server.pem"), certificate).unwrap();
        let file = folder.join("key.pem");
        fs::write(&file, key).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
}
