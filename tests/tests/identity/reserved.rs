//! Relayed addresses that are kept for users.

use std::collections::HashSet;
use std::net::SocketAddr;

use hairpin_tests::lab::http;
use hairpin_tests::lab::relay::PORT;
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Folder, Namespace, Transport};
use serde_json::{Value, json};

use crate::bed::{Bed, HOME, expect_refused};
use crate::quotas::race;

/// What is kept for alice, and for bob who has two.
const OF_ALICE: u16 = 50_003;
const OF_BOB: [u16; 2] = [50_004, 50_007];

fn start<'n>(host: &'n Namespace, folder: &'n Folder, options: &str) -> Bed<'n> {
    let users = "--user alice:sesame --user bob:sesame --user carol:sesame";
    let own = [("alice", OF_ALICE), ("bob", OF_BOB[0]), ("bob", OF_BOB[1]), ("minted", 50_005)];
    let kept = own.map(|(name, port)| format!("--reserved-address {name}=127.0.0.1:{port}")).join(" ");
    let options = format!("{users} --auth-secret north {kept} --listen tcp:127.0.0.1:{PORT} {options}");
    Bed::at_home(host, folder, &options)
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(HOME, port)
}

#[test]
fn a_user_has_the_same_address_each_time_and_after_a_restart() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let mut bed = start(&host, &folder, "--shards 4 --relay-ports 50000-50999 --reserved-ports 50000-50009");
    for _ in 0..2 {
        for transport in [Transport::Udp, Transport::Tcp] {
            // Each comes by a port of its own, and so to any shard.
            for _ in 0..8 {
                let mut alice = bed.client_at(transport, PORT, "alice", "sesame");
                assert_eq!(alice.allocate(), Ok(at(OF_ALICE)));
                assert_eq!(alice.refresh(0), Ok(0));
            }
        }
        // Whose credential expires has it by the name behind the time.
        for expires in [4_000_000_000, 4_000_000_001] {
            let (user, password) = hairpin_proto::turn::Credentials::mint("north", "minted", expires);
            let mut minted = bed.client(&user, &password);
            assert_eq!(minted.allocate(), Ok(at(50_005)));
            assert_eq!(minted.refresh(0), Ok(0));
        }
        // The restart finds an allocation.
        let mut alice = bed.client("alice", "sesame");
        assert_eq!(alice.allocate(), Ok(at(OF_ALICE)));
        bed.end();
        bed.go_on();
    }
    bed.stop();
}

#[test]
fn whoever_comes_while_it_is_taken_is_refused_until_it_is_free() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let bed = start(&host, &folder, "--shards 4 --relay-ports 50000-50999 --reserved-ports 50000-50009");
    let mut alice = bed.client("alice", "sesame");
    assert_eq!(alice.allocate(), Ok(at(OF_ALICE)));
    let mut others = (0..8).map(|_| bed.client("alice", "sesame")).collect::<Vec<_>>();
    for other in &mut others {
        expect_refused(other, 508);
    }
    assert_eq!(bed.refused("address_in_use"), 8);
    assert_eq!(alice.refresh(0), Ok(0));
    assert_eq!(others[3].allocate(), Ok(at(OF_ALICE)));

    // Of many that ask at once one gets it; of two addresses each is given once.
    let mut bobs: Vec<_> = (0..16).map(|_| bed.client("bob", "sesame")).collect();
    let given: Vec<_> = race(&mut bobs, Client::allocate).into_iter().flatten().map(|address| address.port()).collect();
    assert_eq!(given.len(), 2, "{given:?}");
    assert_eq!(given.iter().copied().collect::<HashSet<_>>(), HashSet::from(OF_BOB));
    bed.text(&["allocations", "close", "--user", "bob"]);
    bed.wait_for("bob has nothing", |metrics| metrics.sum("hairpin_realm_users", &[]) == 1);
    // The first that is free.
    assert_eq!(bed.client("bob", "sesame").allocate(), Ok(at(OF_BOB[0])));
    assert_eq!(bed.client("bob", "sesame").allocate(), Ok(at(OF_BOB[1])));
    expect_refused(&mut bed.client("bob", "sesame"), 508);
    bed.stop();
}

#[test]
fn nobody_else_ever_gets_a_reserved_port() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let bed = start(&host, &folder, "--shards 4 --relay-ports 50000-53999 --reserved-ports 50000-50999");
    let mut clients: Vec<_> = (0..1000).map(|_| bed.client("carol", "sesame")).collect();
    let mut numbered: Vec<_> = clients.iter_mut().enumerate().collect();
    let given = race(&mut numbered, |(number, client)| {
        // Some have the next port reserved, too.
        let relayed = if *number % 4 == 0 { client.allocate_pair() } else { client.allocate() };
        relayed.unwrap_or_else(|refused| panic!("there is room: {refused:?}")).port()
    });
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), 1000);
    let reserved: Vec<_> = given.iter().filter(|port| (50_000..51_000).contains(*port)).collect();
    assert!(reserved.is_empty(), "{reserved:?}");
    assert_eq!(bed.client("alice", "sesame").allocate(), Ok(at(OF_ALICE)));
    bed.stop();
}

#[test]
fn a_relay_that_is_full_keeps_what_is_reserved() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let ports = "--shards 1 --relay-ports 50000-50019 --reserved-ports 50000-50009";
    let mut bed = start(&host, &folder, ports);
    let mut carols = Vec::new();
    let refused = loop {
        let mut carol = bed.client("carol", "sesame");
        match carol.allocate() {
            Ok(relayed) => assert!((50_010..50_020).contains(&relayed.port()), "{relayed}"),
            Err(refused) => break refused,
        }
        carols.push(carol);
        assert!(carols.len() <= 10);
    };
    assert!([486, 508].contains(&refused.0), "{refused:?}");
    assert_eq!(bed.client("alice", "sesame").allocate(), Ok(at(OF_ALICE)));
    bed.end();

    // Sessions of two legs need ports, too, and get none of those.
    let bed = start(&host, &folder, ports);
    let mut sessions = 0;
    loop {
        let body = json!({ "a": { "kind": "ice" }, "b": { "kind": "plain" } }).to_string();
        let connection = http::unix(&folder.path().join("admin.sock"));
        let answer =
            http::ask(connection, "POST", "/v1/ice/sessions", &["Content-Type: application/json"], &body).all();
        if answer.status >= 300 {
            break;
        }
        let ports = ports_in(&answer.json());
        assert!(!ports.is_empty(), "{answer}");
        assert!(ports.iter().all(|port| (50_010..50_020).contains(port)), "{answer}");
        sessions += 1;
        assert!(sessions <= 10);
    }
    assert!(sessions > 0, "there is room for some");
    assert_eq!(bed.client("alice", "sesame").allocate(), Ok(at(OF_ALICE)));
    assert_eq!(bed.client("bob", "sesame").allocate(), Ok(at(OF_BOB[0])));
    bed.stop();
}

/// All ports of this host that are in a description of a session.
fn ports_in(value: &Value) -> Vec<u16> {
    match value {
        Value::Object(members) => members.values().flat_map(ports_in).collect(),
        Value::Array(items) => items.iter().flat_map(ports_in).collect(),
        // `ADDRESS:PORT`, or `ADDRESS PORT` in a candidate.
        Value::String(text) => {
            let words: Vec<_> = text.split_whitespace().collect();
            let joined = words.iter().filter_map(|word| word.parse::<SocketAddr>().ok());
            let apart = words.windows(2).filter_map(|pair| format!("{}:{}", pair[0], pair[1]).parse().ok());
            let addresses = joined.chain(apart).filter(|address| address.ip() == HOME);
            addresses.map(|address| address.port()).collect()
        }
        _ => Vec::new(),
    }
}
