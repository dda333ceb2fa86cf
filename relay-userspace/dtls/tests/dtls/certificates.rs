//! Certificates of operators: chosen by name, and refused with a reason.

use hairpin_dtls::{CertifiedKey, ClientContext, Pem, Roots, ServerContext};
use openssl::symm::Cipher;

use crate::network::{Faults, Network};
use crate::pki;

#[test]
fn sni_chooses_the_certificate() {
    let files = [pki::rsa(), pki::ecdsa()];
    let server = ServerContext::new(&files.map(|files| files.certified()), pki::COOKIE_KEY).unwrap();
    for (name, cipher) in [
        ("turn.example.org", "ECDHE-RSA-AES256-GCM-SHA384"),
        ("turn.example.net", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("a.wild.example.net", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("TURN.EXAMPLE.NET", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ] {
        // The client would refuse another's certificate.
        let network = Network::established(&pki::client(), name, &server);
        assert_eq!(network.client.cipher(), Some(cipher), "{name}");
    }
    let anybody = ClientContext::new(Roots::Unverified, &[hairpin_dtls::ALPN_TURN]).unwrap();
    for name in ["unknown.example.com", "198.51.100.1"] {
        let network = Network::established(&anybody, name, &server);
        assert_eq!(network.client.cipher(), Some("ECDHE-RSA-AES256-GCM-SHA384"), "{name}: not the first");
    }
}

#[test]
fn a_certificate_chosen_by_sni_has_its_own_chain_and_alpn() {
    let files = [pki::rsa(), pki::ecdsa()];
    let server = ServerContext::new(&files.map(|files| files.certified()), pki::COOKIE_KEY).unwrap();
    let network = Network::established(&pki::client(), "turn.example.net", &server);
    assert_eq!(network.client.alpn(), Some(b"stun.turn".as_slice()));
    // Without the intermediate certificate, the same client cannot find the way to the root.
    let key = pki::ecdsa();
    let leaf_end = key.chain.windows(20).position(|bytes| bytes.starts_with(b"-----END CERTIFICATE")).unwrap() + 26;
    let alone = pki::Files { chain: key.chain[..leaf_end].to_vec(), key: key.key.clone() };
    let mut network = Network::new(&pki::client(), "turn.example.net", &alone.server(), Faults::default(), 0);
    network.run_handshake();
    assert!(network.client.is_closed());
}

#[test]
fn errors_name_the_file_and_say_why() {
    let (rsa, ecdsa) = (pki::rsa(), pki::ecdsa());
    let encrypted = {
        let key = pki::ec_key();
        key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"sesame").unwrap()
    };
    let damaged = {
        let mut chain = rsa.chain.clone();
        let second = chain.len() - 200;
        chain[second..second + 20].fill(b'!');
        chain
    };
    let weak = pki::issue(&pki::rsa_key(1024), &["weak.example.org"]);
    for (chain, key, message) in [
        (
            &b"nothing"[..],
            &rsa.key[..],
            "chain.pem: no certificate in it: a PEM file is needed, with the server's own certificate first",
        ),
        (&rsa.chain, b"nothing", "key.pem: no private key in it that can be read: an unencrypted PEM file is needed"),
        (&rsa.chain, &encrypted, "key.pem: the private key is encrypted: one without a passphrase is needed"),
        (&rsa.chain, &ecdsa.key, "key.pem: the private key is not that of the first certificate in chain.pem"),
        (&damaged, &rsa.key, "chain.pem: cannot use certificate 2 in it: bad base64 decode"),
        (&weak.chain, &weak.key, "chain.pem: cannot use certificate 1 in it: ee key too small"),
    ] {
        let certified =
            CertifiedKey { chain: Pem { name: "chain.pem", bytes: chain }, key: Pem { name: "key.pem", bytes: key } };
        let error = ServerContext::new(&[certified], pki::COOKIE_KEY).err().expect("refused");
        assert_eq!(error.to_string(), message);
    }
    let error = ServerContext::new(&[], pki::COOKIE_KEY).err().expect("refused");
    assert_eq!(error.to_string(), "no certificate: DTLS needs one, with its private key");
}

#[test]
fn certificate_and_key_may_be_in_one_file() {
    let files = pki::ecdsa();
    let both = [&files.key[..], &files.chain].concat();
    let pem = Pem { name: "both.pem", bytes: &both };
    let server = ServerContext::new(&[CertifiedKey { chain: pem, key: pem }], pki::COOKIE_KEY).unwrap();
    Network::established(&pki::client(), "turn.example.net", &server);
}

#[test]
fn a_name_that_cannot_be_one_is_refused() {
    let client = pki::client();
    for name in ["", "a\0b", "é.example.org"] {
        let error = client.connect(name).expect_err("refused");
        assert_eq!(error.to_string(), format!("server name {name:?}: a domain name or an IP address is needed"));
    }
}
