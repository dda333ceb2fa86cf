//! What DTLS costs: `cargo run --release -p hairpin-dtls --example measure`.
//!
//! Of a handshake, only the server's part is counted. Memory is what the process grows by, from
//! /proc/self/statm, so it has the allocator's share in it. Times are those that the thread was running.

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use hairpin_dtls::{CertifiedKey, ClientContext, Hello, MAX_PLAINTEXT, Pem, Roots, ServerContext, Session};
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::{X509Builder, X509Name};
use rustix::time::{ClockId, clock_gettime};

const HANDSHAKES: u64 = 400;
const RECORDS: u64 = 200_000;
const SESSIONS: usize = 2000;
const PACKET: [u8; 160] = [1; 160];

fn main() -> Result<(), ErrorStack> {
    let client = ClientContext::new(Roots::Unverified, &[]).expect("a client needs nothing");
    let rsa = server(&PKey::from_rsa(Rsa::generate(2048)?)?)?;
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let ecdsa = server(&PKey::from_ec_key(EcKey::generate(&curve)?)?)?;

    for (name, server) in [("RSA-2048", &rsa), ("ECDSA P-256", &ecdsa)] {
        let mut busy = 0;
        for _ in 0..HANDSHAKES {
            let (_, _, took) = connect(&client, server);
            busy += took;
        }
        println!("handshakes, {name}: {} a second", HANDSHAKES * 1_000_000_000 / busy);
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
    let (mut reply, now, start) = (Vec::new(), Instant::now(), cpu());
    for _ in 0..RECORDS {
        server.hello(address(), address(), now, &hello, &mut reply);
    }
    println!("HelloVerifyRequest: {} ns", (cpu() - start) / RECORDS);
}

/// What a record costs in each direction of a server.
fn records(client: &ClientContext, server: &ServerContext) {
    let (mut client, mut server, _) = connect(client, server);
    let mut buffer = Box::new([0; MAX_PLAINTEXT]);
    let (mut sending, mut receiving) = (0, 0);
    for _ in 0..RECORDS / 32 {
        let start = cpu();
        for _ in 0..32 {
            client.send(&PACKET).expect("it fits");
        }
        sending += cpu() - start;
        let mut datagrams = Vec::new();
        while let Some(datagram) = client.next_datagram() {
            datagrams.push(datagram.to_vec());
        }
        let start = cpu();
        for datagram in &datagrams {
            server.receive(datagram).expect("it is right");
            while server.next_plaintext(&mut buffer).is_some() {}
        }
        receiving += cpu() - start;
    }
    let each = |time: u64| time / (RECORDS / 32 * 32);
    println!("records of {} bytes: {} ns sent, {} ns received", PACKET.len(), each(sending), each(receiving));
}

/// What a server's sessions take: half open and silent, established and idle.
fn memory(client: &ClientContext, server: &ServerContext) {
    // What is loaded and allocated once has been by now.
    let (mut established, mut half_open) = (Vec::with_capacity(SESSIONS), Vec::with_capacity(SESSIONS));
    let before = resident();
    for _ in 0..SESSIONS {
        let (_, session, _) = connect(client, server);
        established.push(session);
    }
    let idle = resident();
    for _ in 0..SESSIONS {
        let (_, mut session) = greet(client, server);
        while session.next_datagram().is_some() {}
        half_open.push(session);
    }
    println!("a server's session, idle: {} bytes", (idle - before) / SESSIONS);
    println!("a server's session in its handshake: {} bytes", (resident() - idle) / SESSIONS);
}

/// How long this thread has been running, in ns.
fn cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).cast_unsigned()
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
fn connect(client: &ClientContext, server: &ServerContext) -> (Session, Session, u64) {
    let mut busy = 0;
    let mut client = client.connect("localhost").expect("a name");
    let mut reply = Vec::new();
    let mut server = loop {
        let hello = client.next_datagram().expect("a ClientHello").to_vec();
        let start = cpu();
        let answer = server.hello(address(), address(), Instant::now(), &hello, &mut reply);
        busy += cpu() - start;
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
        let start = cpu();
        while let Some(datagram) = client.next_datagram() {
            server.receive(datagram).expect("the client is right");
        }
        busy += cpu() - start;
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
