//! Any relay serves any client: users, secrets and nonces are those of all.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use hairpin_client::Credentials;
use hairpin_tests::lab::coturn::{PEER_PORT, Tally, uclient};
use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::binary;
use hairpin_tests::lab::server::is_installed;
use hairpin_tests::lab::{Folder, relayed_page};
use hairpin_users::testing::PostgresServer;

use crate::network::{NAME_SERVER, Network, PEER};
use crate::relays::{Bed, Fleet, PASSWORD, SECRET, Shared, USER, schema, server};

#[test]
fn any_relay_serves_any_client_and_takes_the_nonces_of_the_others() {
    let Some(bed) = Bed::new() else { return };
    let (network, shared, fleet) = (&bed.network, &bed.shared, bed.fleet());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later").as_secs();
    let minted = Credentials::mint(SECRET, Some("bob"), now + 600);
    for (user, password) in [(USER, PASSWORD), (&minted.username, &minted.password)] {
        for home in 0..3 {
            let mut client = fleet.client_of(home, user, password);
            client.allocate().unwrap_or_else(|refused| panic!("{user} at relay {home}: {refused:?}"));
            for other in (0..3).filter(|other| *other != home) {
                let asked = |code| fleet.responses(other, "allocate", code);
                let before = ["401", "438"].map(asked);
                let local = SocketAddr::new([0; 4].into(), 0);
                let mut elsewhere = client.elsewhere(&network.clients, local, server(other));
                elsewhere.allocate().unwrap_or_else(|refused| panic!("{user} at relay {other}: {refused:?}"));
                assert_eq!(["401", "438"].map(asked), before, "the nonce of relay {home} is one of relay {other}");
            }
        }
    }
    // Whoever is added is known to all at once.
    shared.add("carol", "8110e42dfdff157d6cbf4e4b7a3c9cd8");
    for relay in 0..3 {
        fleet
            .client_of(relay, "carol", "calm")
            .allocate()
            .unwrap_or_else(|refused| panic!("relay {relay}: {refused:?}"));
    }
    // A secret that only one relay has would be a client that only one serves.
    let other = Credentials::mint("another secret", Some("bob"), now + 600);
    for relay in 0..3 {
        assert_eq!(fleet.client_of(relay, &other.username, &other.password).allocate().unwrap_err().0, 401);
    }
}

#[test]
fn a_user_that_is_added_to_postgresql_is_served_by_all() {
    let (Some(network), Some(schema)) = (Network::new(), schema()) else { return };
    let Some(postgres) = PostgresServer::start() else { return };
    postgres.create("coturn");
    postgres.script("coturn", schema);
    let shared = Shared::by(&postgres.socket_url("coturn"));
    let fleet = Fleet::start(&network, &shared);
    for relay in 0..3 {
        assert_eq!(fleet.client_of(relay, "dave", "wait").allocate().unwrap_err().0, 401, "nobody has added it yet");
    }
    let key = "md5('dave:example.org:wait')";
    postgres.sql(
        "coturn",
        &format!("insert into turnusers_lt (realm, name, hmackey) values ('example.org', 'dave', {key})"),
    );
    for relay in 0..3 {
        // That there is no such user holds for five seconds.
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while let Err(refused) = fleet.client_of(relay, "dave", "wait").allocate() {
            assert!(std::time::Instant::now() < end, "relay {relay}: {refused:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn clients_that_know_only_the_name_are_served() {
    let Some(bed) = Bed::new() else { return };
    let (network, fleet) = (&bed.network, bed.fleet());
    // By NAPTR and SRV: ours.
    let peer = SocketAddr::new(PEER, PEER_PORT).to_string();
    for (name, transport) in [
        ("turn:turn.example.org", "udp"),
        ("turn:turn.example.org?transport=tcp", "tcp"),
        ("turn.example.org", "udp"),
        ("turn1.example.org:3478", "udp"),
    ] {
        let mut command = network.clients.command(binary());
        let dns = NAME_SERVER.to_string();
        command.args(["load", "--server", name, "--dns", &dns, "--family", "ipv4", "--peer", &peer, "--json"]);
        command.args(["--user", USER, "--password", PASSWORD, "--duration", "500ms", "--allocations", "2"]);
        let finished = run(&mut command);
        let report: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished}"));
        assert_eq!(report["transport"], transport, "{name}: {finished}");
        assert!(report["packets_received"].as_u64() > Some(0), "{name}: {finished}");
        assert!(finished.stderr.contains(&format!("{name}: trying ")), "{finished}");
    }
    // By /etc/resolv.conf, as any program does.
    let mut command = network.clients.command(binary());
    command.args(["load", "--server", "turn:turn.example.org", "--peer", &peer, "--duration", "300ms"]);
    run(command.args(["--user", USER, "--password", PASSWORD])).expect_success();
    // By addresses alone: coturn's.
    if is_installed("turnutils_uclient") {
        let arguments = format!("-u {USER} -w {PASSWORD} -e {PEER} -r {PEER_PORT} -n 5 -m 2 -c turn.example.org");
        let finished = uclient(&network.clients, &arguments);
        assert!(Tally::of(&finished).is_some_and(|tally| tally.is_complete()), "{finished}");
    }
    if is_installed("chromium") {
        let home = Folder::new("chromium");
        let url = "turn:turn.example.org?transport=udp";
        let (result, finished) = relayed_page::run(&network.clients, home.path(), url, USER, PASSWORD);
        assert_eq!(result["messages"], 50, "{result}: {finished}");
    }
    let served: u64 = (0..3).map(|relay| fleet.responses(relay, "allocate", "200")).sum();
    assert!(served > 0);
}
