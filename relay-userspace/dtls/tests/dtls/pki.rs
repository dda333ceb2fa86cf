//! Certificates made for the tests: a root, an intermediate authority, and servers.

use std::sync::OnceLock;

use hairpin_dtls::{CertifiedKey, ClientContext, Pem, Roots, ServerContext};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name};

pub(crate) const COOKIE_KEY: [u8; 32] = [7; 32];

/// A server's files: its certificate and the intermediate one, and its key.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) chain: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl Files {
    pub(crate) fn certified(&self) -> CertifiedKey<'_> {
        CertifiedKey {
            chain: Pem { name: "chain.pem", bytes: &self.chain },
            key: Pem { name: "key.pem", bytes: &self.key },
        }
    }

    pub(crate) fn server(&self) -> ServerContext {
        ServerContext::new(&[self.certified()], COOKIE_KEY).unwrap()
    }
}

/// A root that the tests' clients believe, in PEM.
pub(crate) fn root() -> &'static [u8] {
    &authority().root
}

/// A client that believes the root and offers TURN.
pub(crate) fn client() -> ClientContext {
    let roots = Roots::Pem(Pem { name: "root.pem", bytes: root() });
    ClientContext::new(roots, &[hairpin_dtls::ALPN_TURN]).unwrap()
}

/// turn.example.org with an RSA key, made once.
pub(crate) fn rsa() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| issue(&rsa_key(2048), &["turn.example.org"]))
}

/// turn.example.net and all below wild.example.net with an ECDSA key, made once.
pub(crate) fn ecdsa() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| issue(&ec_key(), &["turn.example.net", "*.wild.example.net"]))
}

pub(crate) fn rsa_key(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

pub(crate) fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// The files of a server with this key and these names.
pub(crate) fn issue(key: &PKey<Private>, names: &[&str]) -> Files {
    let authority = authority();
    let leaf = build(key, names[0], names, Some(&authority.intermediate));
    let chain = [leaf.to_pem().unwrap(), authority.intermediate.certificate.to_pem().unwrap()].concat();
    Files { chain, key: key.private_key_to_pem_pkcs8().unwrap() }
}

struct Authority {
    root: Vec<u8>,
    intermediate: Issuer,
}

struct Issuer {
    certificate: X509,
    key: PKey<Private>,
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let (root_key, key) = (ec_key(), ec_key());
        let root = build(&root_key, "Root", &[], None);
        let root = Issuer { certificate: root, key: root_key };
        let intermediate = Issuer { certificate: build(&key, "Intermediate", &[], Some(&root)), key };
        Authority { root: root.certificate.to_pem().unwrap(), intermediate }
    })
}

/// A server's certificate if there are names, an authority's if not, and a root if there is no issuer.
fn build(key: &PKey<Private>, subject: &str, names: &[&str], issuer: Option<&Issuer>) -> X509 {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, subject).unwrap();
    let name = name.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(64, openssl::bn::MsbOption::MAYBE_ZERO, false).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(issuer.map_or(&name, |issuer| issuer.certificate.subject_name())).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    if names.is_empty() {
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    } else {
        let mut alternatives = SubjectAlternativeName::new();
        for name in names {
            alternatives.dns(name);
        }
        let alternatives = alternatives.build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(alternatives).unwrap();
    }
    builder.sign(issuer.map_or(key, |issuer| &issuer.key), MessageDigest::sha256()).unwrap();
    builder.build()
}
