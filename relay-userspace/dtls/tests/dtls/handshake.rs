//! Handshakes over good and bad networks.

use hairpin_dtls::{ALPN_NAT_DISCOVERY, ALPN_TURN, ClientContext, Error, HANDSHAKE_MTU, Pem, Roots};

use crate::network::{Faults, Network, drain, read};
use crate::pki;

#[test]
fn rsa_and_ecdsa_certificates_are_verified_with_their_chains() {
    for (files, name, cipher) in [
        (pki::rsa(), "turn.example.org", "ECDHE-RSA-AES256-GCM-SHA384"),
        (pki::ecdsa(), "turn.example.net", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ] {
        let mut network = Network::established(&pki::client(), name, &files.server());
        assert_eq!(network.timeouts, 0);
        assert_eq!(network.client.cipher(), Some(cipher));
        assert_eq!(network.server().server_name(), Some(name));
        assert_eq!(network.server().alpn(), Some(ALPN_TURN.as_bytes()));
        assert_eq!(network.client.alpn(), Some(ALPN_TURN.as_bytes()));
        assert_eq!(network.client.poll_timeout(), None);
        assert_eq!(network.server().poll_timeout(), None);
    }
}

#[test]
fn a_handshake_survives_lost_repeated_and_reordered_datagrams() {
    let (client, server) = (pki::client(), pki::rsa().server());
    let mut timeouts = 0;
    for seed in 0..40 {
        let faults = Faults { lost: 10, repeated: 20, shuffled: 30 };
        let mut network = Network::new(&client, "turn.example.org", &server, faults, seed);
        network.run_handshake();
        assert!(network.is_established(), "seed {seed}");
        timeouts += network.timeouts;
    }
    assert!(timeouts > 0, "no flight was ever lost");
}

#[test]
fn a_reordered_handshake_needs_no_retransmission() {
    let (client, server) = (pki::client(), pki::rsa().server());
    for seed in 0..20 {
        let faults = Faults { repeated: 50, shuffled: 30, ..Faults::default() };
        let mut network = Network::new(&client, "turn.example.org", &server, faults, seed);
        network.run_handshake();
        assert!(network.is_established(), "seed {seed}");
        assert_eq!(network.timeouts, 0, "seed {seed}");
    }
}

#[test]
fn long_chains_are_cut_to_fit_the_mtu() {
    let names: Vec<_> = (0..200).map(|number| format!("turn-{number}.a-rather-long-name.example.org")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let files = pki::issue(&pki::ec_key(), &names);
    let network = Network::established(&pki::client(), names[199], &files.server());
    assert!(files.chain.len() > 8 * 1024, "{} bytes", files.chain.len());
    assert!(network.longest <= HANDSHAKE_MTU as usize, "{} bytes", network.longest);
}

#[test]
fn a_client_refuses_a_certificate_for_another_name() {
    let mut network = Network::new(&pki::client(), "other.example.org", &pki::rsa().server(), Faults::default(), 0);
    network.run_handshake();
    assert!(network.client.is_closed());
    assert_eq!(network.client.receive(b""), Err(Error::Closed));
    // The server hears of it by an alert.
    network.carry();
    assert!(network.server().is_closed());
}

#[test]
fn a_client_says_why_it_believes_nobody() {
    let stranger = pki::ecdsa();
    let roots = Roots::Pem(Pem { name: "root.pem", bytes: &stranger.chain });
    let client = ClientContext::new(roots, &[]).unwrap();
    let mut network = Network::new(&client, "turn.example.org", &pki::rsa().server(), Faults::default(), 0);
    let failure = loop {
        for datagram in drain(&mut network.client) {
            network.deliver(&datagram);
        }
        let answer = network.server.as_mut().map(drain).unwrap_or_default();
        if let Some(failure) = answer.iter().find_map(|datagram| network.client.receive(datagram).err()) {
            break failure;
        }
    };
    assert_eq!(failure.to_string(), "DTLS failed: certificate verify failed: unable to get issuer certificate");
}

#[test]
fn a_client_that_verifies_nothing_connects_by_address() {
    let client = ClientContext::new(Roots::Unverified, &[]).unwrap();
    let mut network = Network::established(&client, "198.51.100.1", &pki::ecdsa().server());
    assert_eq!(network.server().server_name(), None);
    assert_eq!(network.server().alpn(), None);
    network.client.send(b"hello").unwrap();
    network.carry();
    assert_eq!(read(network.server()), [b"hello"]);
}

#[test]
fn alpn_is_chosen_from_what_both_know() {
    let server = pki::ecdsa().server();
    for (offered, chosen) in [
        (&[ALPN_NAT_DISCOVERY][..], Some(ALPN_NAT_DISCOVERY)),
        (&["http/1.1", ALPN_TURN], Some(ALPN_TURN)),
        (&[], None),
    ] {
        let client = ClientContext::new(Roots::Unverified, offered).unwrap();
        let mut network = Network::established(&client, "turn.example.net", &server);
        assert_eq!(network.server().alpn(), chosen.map(str::as_bytes), "{offered:?}");
        assert_eq!(network.client.alpn(), chosen.map(str::as_bytes), "{offered:?}");
    }
}

#[test]
fn a_client_that_wants_only_other_protocols_is_refused() {
    // RFC 7301 section 3.2: no_application_protocol.
    let client = ClientContext::new(Roots::Unverified, &["http/1.1"]).unwrap();
    let mut network = Network::new(&client, "turn.example.net", &pki::ecdsa().server(), Faults::default(), 0);
    network.run_handshake();
    assert!(network.server().is_closed());
    network.carry();
    assert!(network.client.is_closed());
}

#[test]
fn a_session_gives_up_when_nobody_answers() {
    // OpenSSL takes less than 15 ms for nothing, so all timers up to the last one end at once.
    let client = pki::client().with_first_timeout(std::time::Duration::from_micros(1));
    let mut session = client.connect("turn.example.org").unwrap();
    assert_eq!(drain(&mut session).len(), 1 + 12);
    assert!(session.is_closed());
    assert_eq!(session.poll_timeout(), None);
    assert_eq!(session.handle_timeout(), Ok(()));
}
