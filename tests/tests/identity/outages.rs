//! A database that ends or hangs: those who talk notice nothing, those who are new are told soon, and all is well again
//! when it is back.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_client::Credentials;
use hairpin_proto::turn;
use hairpin_tests::lab::coturn::turnadmin;
use hairpin_tests::lab::relay::PORT;
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Family, Folder, Lab, Namespace};
use hairpin_users::testing::{PostgresServer, RedisServer};

use crate::bed::{Bed, expect_refused, wait};
use crate::stores::has_coturn;
use crate::talk::during;

const REALM: &str = "north.gov";
const PASSWORD: &str = "youhavetoberealistic";
/// How long the relay waits for an answer, and how much longer a client may have to on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(1);
/// What comes without waiting comes within this.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What was known of the one who talks is too old by far after so many renewals of the call.
const RENEWALS: u64 = 60;

/// The MD5 of `hers:hairpin:sesame`, as coturn keeps it.
const KEY: &str = "759da3a15e14e49718d8e8de52654dbc";

/// A database and how coturn's program names it.
enum Database {
    Postgres(PostgresServer),
    Redis(RedisServer),
}

impl Database {
    fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.socket_url("coturn"),
            Self::Redis(server) => format!("redis+unix://{}", server.socket().display()),
        }
    }

    fn add(&self, user: &str) {
        let (option, database) = match self {
            Self::Postgres(server) => ("-e", server.connection_string("coturn")),
            Self::Redis(server) => ("-N", server.connection_string(0)),
        };
        turnadmin(&["-a", "-u", user, "-r", REALM, "-p", PASSWORD, option, &database]);
        if let Self::Redis(server) = self {
            server.command(&["SAVE"]);
        }
    }

    fn end(&mut self, how: How) {
        match (self, how) {
            (Self::Postgres(server), How::Killed) => server.kill(),
            (Self::Postgres(server), How::Hangs) => server.hang(),
            (Self::Redis(server), How::Killed) => server.kill(),
            (Self::Redis(server), How::Hangs) => server.hang(),
        }
    }

    fn begin(&mut self, how: How) {
        match (self, how) {
            (Self::Postgres(server), How::Killed) => server.restart(),
            (Self::Postgres(server), How::Hangs) => server.go_on(),
            (Self::Redis(server), How::Killed) => server.restart(),
            (Self::Redis(server), How::Hangs) => server.go_on(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Killed,
    Hangs,
}

#[test]
fn postgresql_ends_and_hangs_and_comes_back() {
    if !has_coturn() {
        return;
    }
    let Some(server) = PostgresServer::start() else { return };
    server.create("coturn");
    server.script("coturn", Path::new("/usr/share/coturn/schema.sql"));
    survives(Database::Postgres(server));
}

#[test]
fn redis_ends_and_hangs_and_comes_back() {
    if !has_coturn() {
        return;
    }
    let Some(server) = RedisServer::start() else { return };
    survives(Database::Redis(server));
}

#[test]
fn a_relay_starts_without_its_databases_and_finds_them_later() {
    let (Some(mut first), Some(mut second)) = (RedisServer::start(), RedisServer::start()) else { return };
    for server in [&first, &second] {
        server.command(&["SET", "turn/realm/hairpin/user/hers/key", KEY]);
        server.command(&["SAVE"]);
    }
    // One user that only the second has.
    second.command(&["SADD", "turn/realm/hairpin/secret", "north"]);
    second.command(&["SAVE"]);
    first.kill();
    second.kill();
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let stores = [&first, &second].map(|server| format!("--user-store redis+unix://{}", server.socket().display()));
    let options = format!("--user static:sesame --user-cache 1s {} {}", stores[0], stores[1]);
    let bed = Bed::at_home(&host, &folder, &options);
    let (name, password) = turn::Credentials::mint("north", "minted", 4_000_000_000);
    bed.client("static", "sesame").allocate().expect("nobody has to be asked");
    expect_refused(&mut bed.client("hers", "sesame"), 500);

    // The first may know of everybody whom it cannot be asked about.
    second.restart();
    expect_refused(&mut bed.client("hers", "sesame"), 500);
    expect_refused(&mut bed.client(&name, &password), 500);
    expect_refused(&mut bed.client("static", "wrong"), 401);
    first.restart();
    wait("both are found", || {
        bed.client("hers", "sesame").allocate().is_ok() && bed.client(&name, &password).allocate().is_ok()
    });
    // Now everybody knows who is nobody.
    bed.wait_for("both are up", |metrics| metrics.sum("hairpin_user_store_up", &[]) == 2);
    expect_refused(&mut bed.client("his", "sesame"), 401);
    expect_refused(&mut bed.client("hers", "wrong"), 401);
}

fn survives(mut database: Database) {
    for user in ["talks", "new-0", "new-1", "later-0", "later-1"] {
        database.add(user);
    }
    let (lab, folder) = (Lab::routed(), Folder::new("identity"));
    let server = SocketAddr::new(Lab::relay_ip(Family::V4), PORT);
    let options = format!(
        "--listen udp:{server} --xdp native --shards 2 --realm {REALM} --user static:{PASSWORD} --user-store {} \
         --user-timeout {}s --user-cache 1s",
        database.url(),
        TIMEOUT.as_secs()
    );
    let mut bed = Bed::start(&lab.relay, &folder, options.split_whitespace().map(str::to_owned).collect());
    let client = |user: &str| {
        let local = SocketAddr::new(Lab::client_ip(Family::V4, 0), 0);
        Client::new(&lab.clients[0], local, server, user, PASSWORD)
    };
    during(&lab, server, Credentials::new("talks", PASSWORD), |call| {
        for (number, how) in [How::Killed, How::Hangs].into_iter().enumerate() {
            database.end(how);
            thread::scope(|scope| {
                let asks = scope.spawn(|| {
                    let start = Instant::now();
                    expect_refused(&mut client(&format!("new-{number}")), 500);
                    start.elapsed()
                });
                if how == How::Hangs {
                    bed.wait_for("the request waits", |metrics| metrics.sum("hairpin_requests_waiting", &[]) > 0);
                }
                let start = Instant::now();
                client("static").allocate().expect("nobody has to be asked");
                assert!(start.elapsed() < AT_ONCE, "{how:?}: {:?}", start.elapsed());
                let took = asks.join().expect("it is refused");
                println!("{how:?}: told after {took:?}");
                assert!(took < TIMEOUT + SLACK, "{how:?}: {took:?}");
            });
            bed.wait_for("the database is known to be down", |metrics| {
                metrics.of("hairpin_user_store_up", &[]).count() == 1 && metrics.sum("hairpin_user_store_up", &[]) == 0
            });
            bed.wait_for("nobody waits", |metrics| metrics.sum("hairpin_requests_waiting", &[]) == 0);
            let start = Instant::now();
            expect_refused(&mut client(&format!("new-{number}")), 500);
            assert!(start.elapsed() < AT_ONCE, "{how:?}: whoever comes now need not wait: {:?}", start.elapsed());
            let status = bed.json(&["status"]);
            let store = &status["user_stores"][0];
            assert!(store["up"] == false && store["failed"].as_u64() > Some(0), "{how:?}: {status}");
            assert!(store["last_error"].as_str().is_some_and(|error| !error.is_empty()), "{how:?}: {status}");
            let name = store["name"].as_str().expect("a name");
            assert!(bed.warnings().iter().any(|warning| warning.contains(name)), "{how:?}: {status}");
            call.go_on(300, RENEWALS);

            database.begin(how);
            // Nobody has to tell the relay so.
            wait("new users are let in", || client(&format!("new-{number}")).allocate().is_ok());
            bed.wait_for("the database is known to be up", |metrics| metrics.sum("hairpin_user_store_up", &[]) == 1);
            client(&format!("later-{number}")).allocate().expect("it is asked again");
            assert_eq!(bed.warnings(), [] as [String; 0], "{how:?}");
            call.go_on(100, 10);
        }
    });
    let metrics = bed.metrics();
    assert!(metrics.relayed("kernel") > metrics.relayed("userspace"), "the call went by the kernel");
    let log = bed.log();
    let complaints = log.lines().filter(|line| line.contains("WARN") && line.contains("store")).count();
    assert!((2..=4).contains(&complaints) && !log.contains("ERROR") && !log.contains("panicked"), "{log}");
    assert!(log.lines().count() < 60 && !log.contains(PASSWORD), "{log}");
}
