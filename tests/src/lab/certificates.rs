//! Certificates for servers that speak TLS and DTLS, and the authority that signed them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::folder::Folder;
use super::process;

/// A certificate authority that nobody trusts who was not told to.
#[derive(Debug)]
pub struct Authority {
    folder: Arc<Folder>,
}

/// What kind of key a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// RSA of 2048 bits.
    Rsa,
    /// ECDSA on P-256.
    Ecdsa,
}

/// A server's certificate and its private key, both as PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub file: PathBuf,
    /// Its private key.
    pub private_key: PathBuf,
    /// Has both of them.
    _folder: Arc<Folder>,
}

impl Authority {
    /// Makes one.
    pub fn new() -> Self {
        let authority = Self { folder: Arc::new(Folder::new("authority")) };
        let constraints = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"];
        authority.request("authority", Key::Ecdsa, &constraints, &[]);
        authority
    }

    /// Its own certificate, as a PEM file: what a client has to trust.
    pub fn certificate(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// Issues a certificate to the server with this name and these addresses.
    pub fn issue(&self, key: Key, name: &str, addresses: &[IpAddr]) -> Certificate {
        let mut names = format!("subjectAltName=DNS:{name}");
        for address in addresses {
            write!(names, ",IP:{address}").expect("a string takes everything");
        }
        // A name may have a certificate of each kind.
        let file = format!("{name}-{key:?}");
        let extensions = ["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth", &names];
        let signer = [self.certificate(), self.path("authority.key")];
        self.request(&file, key, &extensions, &[("-CA", &signer[0]), ("-CAkey", &signer[1])]);
        let [file, private_key] = ["pem", "key"].map(|kind| self.path(&format!("{file}.{kind}")));
        Certificate { file, private_key, _folder: Arc::clone(&self.folder) }
    }

    /// Issues one that has ended a day ago.
    pub fn issue_expired(&self, name: &str, addresses: &[IpAddr]) -> Certificate {
        let certificate = self.issue(Key::Ecdsa, name, addresses);
        // What makes a new one takes no time before now; what signs a request does.
        let request = self.path("request.csr");
        let mut command = Command::new("openssl");
        command.args(["x509", "-x509toreq", "-copy_extensions", "copy", "-in"]).arg(&certificate.file);
        command.arg("-signkey").arg(&certificate.private_key).arg("-out").arg(&request);
        process::run(&mut command).expect_success();
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-copy_extensions", "copy", "-days", "-1", "-in"]).arg(&request);
        command.arg("-CA").arg(self.certificate()).arg("-CAkey").arg(self.path("authority.key"));
        command.arg("-CAserial").arg(self.path("authority.srl")).arg("-CAcreateserial");
        command.arg("-out").arg(&certificate.file);
        process::run(&mut command).expect_success();
        certificate
    }

    /// Makes a key, and a certificate for it that is signed by itself or by the signer named in `files`.
    fn request(&self, name: &str, key: Key, extensions: &[&str], files: &[(&str, &Path)]) {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "30", "-subj", &format!("/CN={name}")]);
        match key {
            Key::Rsa => command.args(["-newkey", "rsa:2048"]),
            Key::Ecdsa => command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        };
        command.arg("-out").arg(self.path(&format!("{name}.pem")));
        command.arg("-keyout").arg(self.path(&format!("{name}.key")));
        // What the host's own configuration adds would be there twice.
        command.args(["-config", "/dev/stdin"]).args(extensions.iter().flat_map(|extension| ["-addext", *extension]));
        command.args(files.iter().flat_map(|(option, file)| [option.as_ref(), file.as_os_str()]));
        process::run(&mut command).expect_success();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
