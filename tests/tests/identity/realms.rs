//! Several realms on one relay, each with users and quotas of its own.

use std::net::SocketAddr;

use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::{PORT, binary};
use hairpin_tests::lab::server::SECURE_PORT;
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Authority, Folder, Key, Namespace, Transport};

use crate::bed::{Bed, HOME, expect_refused, file, shown};

/// Where the second and the third realm listen.
const NORTH: u16 = 3500;
const SOUTH: u16 = 3501;
/// Realms, each with a listener and a user that has its own password in each.
const REALMS: [(&str, u16); 3] = [("hairpin", PORT), ("north.gov", NORTH), ("south.gov", SOUTH)];

/// What starts a relay with two realms beside its own, and with a certificate for both of their names.
fn arguments(folder: &Folder) -> String {
    let authority = Authority::new();
    let mut options = vec!["--user alice:of-hairpin --user only-hairpin:sesame".to_owned()];
    for (realm, port) in &REALMS[1..] {
        let path = file(folder, &format!("{realm}.toml"), &realm_file(realm, *port, ""));
        let certificate = authority.issue(Key::Ecdsa, &format!("turn.{realm}"), &[HOME]);
        options.push(format!("--realm-file {} {}", path.display(), shown(folder, &certificate)));
    }
    options.extend(["tls", "dtls"].map(|transport| format!("--listen {transport}:127.0.0.1:{SECURE_PORT}")));
    options.join(" ")
}

fn realm_file(realm: &str, port: u16, more: &str) -> String {
    format!(
        "realm = \"{realm}\"\nlisten = [\"udp:127.0.0.1:{port}\"]\nserver-name = [\"turn.{realm}\"]\n\
         user = [\"alice:of-{realm}\", \"only-{realm}:sesame\"]\n{more}\n"
    )
}

/// A client that asks for the server by its name.
fn by_name(host: &Namespace, transport: Transport, name: &str, user: &str, password: &str) -> Client {
    Client::by_name(transport, host, (SocketAddr::new(HOME, SECURE_PORT), name), user, password)
}

/// Checks that a client is in a realm whose users are let in by their passwords there, and by those of no other realm.
fn expect_realm(realm: &str, client: impl Fn(&str, &str) -> Client) {
    for (other, _) in REALMS {
        let mut alice = client("alice", &format!("of-{other}"));
        let mut only = client(&format!("only-{other}"), "sesame");
        if other == realm {
            alice.allocate().unwrap_or_else(|refused| panic!("alice of {realm}: {refused:?}"));
            assert_eq!(alice.realm(), Some(realm));
            only.allocate().unwrap_or_else(|refused| panic!("only-{realm}: {refused:?}"));
            assert_eq!([alice.refresh(0), only.refresh(0)], [Ok(0), Ok(0)]);
        } else {
            expect_refused(&mut alice, 401);
            expect_refused(&mut only, 401);
            assert_eq!(only.realm(), Some(realm));
        }
        // Whoever speaks of another realm than that is not let in by knowing it.
        let mut stubborn = client("alice", &format!("of-{other}")).in_realm(other);
        if other != realm {
            expect_refused(&mut stubborn, 401);
        }
    }
}

#[test]
fn a_client_is_in_the_realm_of_its_listener_or_of_the_name_that_it_asks_for() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let bed = Bed::at_home(&host, &folder, &arguments(&folder));
    for (realm, port) in REALMS {
        expect_realm(realm, |user, password| bed.client_at(Transport::Udp, port, user, password));
    }
    for transport in [Transport::Tls, Transport::Dtls] {
        for (realm, _) in &REALMS[1..] {
            let name = format!("turn.{realm}");
            expect_realm(realm, |user, password| by_name(&host, transport, &name, user, password));
        }
        // Whoever asks for another name or for none is in the realm of the listener.
        expect_realm("hairpin", |user, password| by_name(&host, transport, "turn.test", user, password));
        expect_realm("hairpin", |user, password| bed.client_at(transport, SECURE_PORT, user, password));
    }
    bed.stop();
}

#[test]
fn each_realm_has_its_own_quotas() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let options = arguments(&folder);
    file(
        &folder,
        "north.gov.toml",
        &realm_file("north.gov", NORTH, "max-allocations-per-user = 2\nmax-realm-allocations = 3"),
    );
    let bed = Bed::at_home(&host, &folder, &options);
    let at = |port, user: &str, password: &str| bed.client_at(Transport::Udp, port, user, password);
    let north = |user: &str, password: &str| at(NORTH, user, password);

    let mut alices = [0; 3].map(|_| north("alice", "of-north.gov"));
    for alice in &mut alices[..2] {
        alice.allocate().expect("two are allowed");
    }
    expect_refused(&mut alices[2], 486);
    let mut others = [0; 2].map(|_| north("only-north.gov", "sesame"));
    others[0].allocate().expect("three are allowed in all");
    expect_refused(&mut others[1], 508);
    assert_eq!([bed.refused("user_quota"), bed.refused("realm_quota")], [1, 1]);
    // Nobody else is concerned, not even of the same name.
    for (realm, port) in [REALMS[0], REALMS[2]] {
        let mut all = [0; 4].map(|_| at(port, "alice", &format!("of-{realm}")));
        assert!(all.iter_mut().all(|client| client.allocate().is_ok()), "{realm}");
    }

    let status = bed.json(&["status"]);
    let realms = status["realms"].as_array().expect("a list");
    let told: Vec<_> = realms
        .iter()
        .map(|realm| {
            let number = |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("{status}"));
            (realm["name"].as_str().expect("a name"), number(&realm["allocations"]["used"]), number(&realm["users"]))
        })
        .collect();
    assert_eq!(told, [("hairpin", 4, 1), ("north.gov", 3, 2), ("south.gov", 4, 1)]);
    assert_eq!((&realms[1]["allocations"]["of"], &realms[1]["allocations_per_user"]), (&3.into(), &2.into()));
    let metrics = bed.metrics();
    for (realm, allocations, users) in told {
        let of = |family: &str| metrics.sum(family, &[("realm", realm)]);
        assert_eq!([of("hairpin_realm_allocations"), of("hairpin_realm_users")], [allocations, users], "{realm}");
    }
    assert_eq!(metrics.sum("hairpin_realm_allocations_capacity", &[("realm", "north.gov")]), 3);
    let text = bed.text(&["status"]);
    assert!(text.contains("north.gov") && text.contains("south.gov"), "{text}");
    assert!(bed.warnings().iter().any(|warning| warning.contains("3 of 3 allocations of realm north.gov")));

    // What one lets go of another may have.
    assert_eq!(alices[0].refresh(0), Ok(0));
    others[1].allocate().expect("there is room again");
    expect_refused(&mut alices[2], 508);
    assert_eq!(others[1].refresh(0), Ok(0));
    alices[2].allocate().expect("there is room again");
    bed.stop();
}

#[test]
fn a_realm_is_added_and_removed_by_a_reload() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let realm = |name: &str, port: u16| {
        let path = file(&folder, &format!("{name}.toml"), &realm_file(name, port, ""));
        format!("{:?}", path.display().to_string())
    };
    let (north, south) = (realm("north.gov", NORTH), realm("south.gov", SOUTH));
    let settings = |realms: &[&str]| format!("user = [\"alice:of-hairpin\"]\nrealm-file = [{}]\n", realms.join(", "));
    let config = file(&folder, "hairpin.toml", &settings(&[&north]));
    let bed = Bed::at_home(&host, &folder, &format!("--config {}", config.display()));
    let client = |port, user: &str, password: &str| bed.client_at(Transport::Udp, port, user, password);
    let mut before = client(NORTH, "alice", "of-north.gov");
    before.allocate().expect("alice is a user");

    file(&folder, "hairpin.toml", &settings(&[&north, &south]));
    bed.text(&["reload"]);
    client(SOUTH, "alice", "of-south.gov").allocate().expect("there is such a realm now");
    expect_refused(&mut client(SOUTH, "alice", "of-north.gov"), 401);
    before.refresh(700).expect("nothing has changed");

    // A realm file is part of the configuration: one that is wrong is refused, and what was goes on.
    file(&folder, "south.gov.toml", "realm = \"south.gov\"\nlisten = [\"udp:127.0.0.1:3501\"]\nxdp = \"off\"\n");
    let refused = bed.run(&["reload"]);
    assert!(refused.code() != Some(0) && refused.to_string().contains("south.gov.toml"), "{refused}");
    client(SOUTH, "alice", "of-south.gov").allocate().expect("the realm is what it was");
    let check = run(host.command(binary()).args(["check", "--config"]).arg(&config));
    assert_ne!(check.code(), Some(0), "{check}");

    file(&folder, "hairpin.toml", &settings(&[&south]));
    realm("south.gov", SOUTH);
    bed.text(&["reload"]);
    assert!(before.refresh(700).is_err(), "the realm of this allocation is gone");
    client(SOUTH, "alice", "of-south.gov").allocate().expect("this one is still there");
    let names: Vec<_> = bed.json(&["status"])["realms"].as_array().expect("a list").clone();
    assert!(names.iter().any(|realm| realm["name"] == "south.gov"), "{names:?}");
}
