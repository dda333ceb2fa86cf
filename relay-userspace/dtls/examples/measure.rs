//! What DTLS costs: `cargo run --release -p hairpin-dtls --example measure`.
//!
//! Of a handshake, only the server's part is counted. Memory is what the process grows by, from
//! /proc/self/statm, so it has the allocator's share in it.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hairpin_dtls::{CertifiedKey, ClientContext, Hello, MAX_PLAINTEXT, Pem, Roots, ServerContext, Session};
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::{X509Builder, X509Name};

const HANDSHAKES: u32 = 400;
const RECORDS: u32 = 200_000;
const SESSIONS: usize = 2000;
const PACKET: [u8; 160] = [1; 160];

fn main() -> Result<(), ErrorStack> {
    let client = ClientContext::new(Roots::Unverified, &[]).expect("a client needs nothing");
    let rsa = server(&PKey::from_rsa(Rsa::generate(2048)?)?)?;
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let ecdsa = server(&PKey::from_ec_key(EcKey::generate(&curve)?)?)?;

    for (name, server) in [("RSA-2048", &rsa), ("ECDSA P-256", &ecdsa)] {
        let mut busy = Duration::ZERO;
        for _ in 0..HANDSHAKES {
            let (_, _, took) = connect(&client, server);
            busy += took;
        }
        println!("handshakes, {name}: {:.0} a second", f64::from(HANDSHAKES) / busy.as_secs_f64());
    }
    cookies(&client, &ecdsa);
    records(&client, &ecdsa);
    memory(&client, &ecdsa);
    Ok(())
}

/// What a ClientHello without a cookie costs.
fn cookies(client: &ClientContext, server: &ServerContext) {
    let mut session = client.connect("localhost").expect("a name");
    let hello = session.next_datagram().expect("a ClientHello").to_vec();
    let (mut reply, start) = (Vec::new(), Instant::now());
    for _ in 0..RECORDS {
        server.hello(address(), address(), start, &hello, &mut reply);
    }
    println!("HelloVerifyRequest: {} ns", (start.elapsed() / RECORDS).as_nanos());
}

/// What a record costs in each direction of a server.
fn records(client: &ClientContext, server: &ServerContext) {
    let (mut client, mut server, _) = connect(client, server);
    let mut buffer = Box::new([0; MAX_PLAINTEXT]);
    let (mut sending, mut receiving) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..RECORDS / 32 {
        let start = Instant::now();
        for _ in 0..32 {
            client.send(&PACKET).expect("it fits");
        }
        sending += start.elapsed();
        let mut datagrams = Vec::new();
        while let Some(datagram) = client.next_datagram() {
            datagrams.push(datagram.to_vec());
        }
        let start = Instant::now();
        for datagram in &datagrams {
            server.receive(datagram).expect("it is right");
            while server.next_plaintext(&mut buffer).is_some() {}
        }
        receiving += start.elapsed();
    }
    let each = |time: Duration| (time / (RECORDS / 32 * 32)).as_nanos();
    println!("records of {} bytes: {} ns sent, {} ns received", PACKET.len(), each(sending), each(receiving));
}

/// What a server's sessions take: half open and silent, established and idle.
fn memory(client: &ClientContext, server: &ServerContext) {
    // What is loaded and allocated once has been by now.
    let mut half_open = Vec::with_capacity(SESSIONS);
    let before = resident();
    for _ in 0..SESSIONS {
        let (_, mut session) = greet(client, server);
        while session.next_datagram().is_some() {}
        half_open.push(session);
    }
    let grown = resident() - before;
    println!("a server's session in its handshake: {} bytes", grown / SESSIONS);
    drop(half_open);

    let mut established = Vec::with_capacity(SESSIONS);
    let before = resident();
    for _ in 0..SESSIONS {
        let (_, session, _) = connect(client, server);
        established.push(session);
    }
    // The half-open ones have left their memory to these, so only what is more than that is seen.
    let more = resident().saturating_sub(before);
    println!("a server's session established and idle: at most {} bytes", (grown + more) / SESSIONS);
}

fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

/// A client and a server's session that has read its ClientHello.
fn greet(client: &ClientContext, server: &ServerContext) -> (Session, Session) {
    let mut client = client.connect("localhost").expect("a name");
    let mut reply = Vec::new();
    loop {
        let hello = client.next_datagram().expect("a ClientHello").to_vec();
        match server.hello(address(), address(), Instant::now(), &hello, &mut reply) {
            Hello::Reply => client.receive(&reply).expect("a HelloVerifyRequest"),
            Hello::Accepted(session) => return (client, session),
            Hello::Ignored => unreachable!("a ClientHello is none"),
        }
    }
}

/// Both sides of a session, and how long the server's part took.
fn connect(client: &ClientContext, server: &ServerContext) -> (Session, Session, Duration) {
    let mut busy = Duration::ZERO;
    let mut client = client.connect("localhost").expect("a name");
    let mut reply = Vec::new();
    let mut server = loop {
        let hello = client.next_datagram().expect("a ClientHello").to_vec();
        let start = Instant::now();
        let answer = server.hello(address(), address(), start, &hello, &mut reply);
        busy += start.elapsed();
        match answer {
            Hello::Reply => client.receive(&reply).expect("a HelloVerifyRequest"),
            Hello::Accepted(session) => break session,
            Hello::Ignored => unreachable!("a ClientHello is none"),
        }
    };
    let mut buffer = Box::new([0; MAX_PLAINTEXT]);
    while !(client.is_established() && server.is_established()) {
        while let Some(datagram) = server.next_datagram() {
            client.receive(datagram).expect("the server is right");
        }
        let start = Instant::now();
        while let Some(datagram) = client.next_datagram() {
            server.receive(datagram).expect("the client is right");
        }
        busy += start.elapsed();
    }
    while server.next_plaintext(&mut buffer).is_some() {}
    while client.next_plaintext(&mut buffer).is_some() {}
    while server.next_datagram().is_some() {}
    (client, server, busy)
}

fn address() -> SocketAddr {
    ([127, 0, 0, 1], 5349).into()
}

/// A server with a certificate that it has signed itself.
fn server(key: &PKey<Private>) -> Result<ServerContext, ErrorStack> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, "localhost")?;
    let name = name.build();
    let mut certificate = X509Builder::new()?;
    certificate.set_version(2)?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_pubkey(key)?;
    let (today, tomorrow) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(1)?);
    certificate.set_not_before(&today)?;
    certificate.set_not_after(&tomorrow)?;
    certificate.sign(key, MessageDigest::sha256())?;
    let (chain, key) = (certificate.build().to_pem()?, key.private_key_to_pem_pkcs8()?);
    let certified = CertifiedKey {
        chain: Pem { name: "the certificate", bytes: &chain },
        key: Pem { name: "the key", bytes: &key },
    };
    Ok(ServerContext::new(&[certified], [1; 32]).expect("certificate and key are of a pair"))
}
