//! PostgreSQL servers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hairpin_users::StoreError;
use hairpin_users::testing::PostgresServer;
use tokio::time::sleep;

use crate::asking::{
    TIMEOUT, admission, ask, finds_what_hairpin_adds, finds_what_turnadmin_has_written, found, hash_of, is_refused,
    knows_no_hostile_name, proves_by_md5, schema, secrets, store, token, try_ask, user,
};
use crate::certificates;
use crate::coturn::write_users;
use crate::sqlite::ROWS;

/// What Debian's coturn makes its tables with.
const COTURN_SCHEMA: &str = "/usr/share/coturn/schema.sql";

fn full(server: &PostgresServer, database: &str) {
    server.create(database);
    server.script(database, &schema("postgresql.sql"));
    server.sql(database, ROWS);
}

#[tokio::test]
async fn what_is_kept_is_found() {
    let Some(server) = PostgresServer::start() else { return };
    // Of turnadmin, in the tables that coturn brings.
    server.create("coturn");
    if Path::new(COTURN_SCHEMA).exists() {
        server.script("coturn", Path::new(COTURN_SCHEMA));
        if write_users(&["-e", &server.connection_string("coturn")]) {
            let store = store(&server.url("coturn"));
            finds_what_turnadmin_has_written(&*store).await;
            let bob = found(&*store, &hash_of("team/bob")).await;
            assert!(&*bob.name == "team/bob" && proves_by_md5(&bob, "open:wide"), "its hash is computed");
        }
    }
    // Of Hairpin, over either kind of socket.
    full(&server, "hairpin");
    for url in [server.url("hairpin"), server.socket_url("hairpin")] {
        finds_what_hairpin_adds(&*store(&url)).await;
    }
    knows_no_hostile_name(&*store(&server.url("hairpin"))).await;
    // The schema is for a database that has it, too.
    server.script("hairpin", &schema("postgresql.sql"));
}

#[tokio::test]
async fn databases_that_lack_something_know_nobody_or_say_why() {
    let Some(server) = PostgresServer::start() else { return };
    server.create("empty");
    let store_of_empty = store(&server.url("empty"));
    store_of_empty.probe().await.unwrap();
    for question in [user("alice"), user("1700000000:alice"), hash_of("alice"), token("oldempire"), admission("alice")]
    {
        assert!(is_refused(&ask(&*store_of_empty, &question).await), "{question:?}");
    }
    // What is made later is found after a while.
    server.script("empty", &schema("postgresql.sql"));
    server.sql("empty", ROWS);
    sleep(Duration::from_secs(5)).await;
    assert!(proves_by_md5(&found(&*store_of_empty, &user("alice")).await, "sesame"));
    // What is dropped later is not.
    server.sql("empty", "drop table turnusers_lt");
    assert!(is_refused(&ask(&*store_of_empty, &user("it's")).await));
    // A column that coturn did not always have.
    server.create("old");
    server.sql("old", "create table oauth_key (kid text, ikm_key text, timestamp int, lifetime int, as_rs_alg text)");
    server.sql("old", "insert into oauth_key values ('k', 'MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK', 0, 0, '')");
    let answer = ask(&*store(&server.url("old")), &token("k")).await;
    assert!(!is_refused(&answer), "{answer:?}");
    // An encoding that knows few characters.
    server.sql("postgres", "create database latin encoding 'LATIN1' template template0");
    server.script("latin", &schema("postgresql.sql"));
    server.sql("latin", ROWS);
    let latin = store(&server.url("latin"));
    assert!(is_refused(&ask(&*latin, &user("алиса")).await));
    found(&*latin, &user("alice")).await;
    // A role that may not read.
    server.sql("latin", "create role weak login password 'weak'");
    let url = server.url("latin").replace("hairpin:north", "weak:weak");
    let answer = try_ask(&*store(&url), &user("alice")).await;
    assert!(matches!(&answer, Err(StoreError::Failed(why)) if why.contains("permission denied")), "{answer:?}");
    // A wrong password, a database that is not there.
    for url in [server.url("latin").replace("north", "south"), server.url("nowhere")] {
        let error = try_ask(&*store(&url), &user("alice")).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed(_)) && !error.to_string().contains("south"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_comes_back_is_asked_again() {
    let Some(mut server) = PostgresServer::start() else { return };
    full(&server, "users");
    let store = store(&server.url("users"));
    found(&*store, &user("alice")).await;
    server.restart();
    // Each of its connections has ended, and nobody has been told so.
    for _ in 0..8 {
        found(&*store, &user("alice")).await;
    }
    server.kill();
    let start = Instant::now();
    let answer = try_ask(&*store, &user("alice")).await;
    assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{answer:?}");
    assert!(start.elapsed() < TIMEOUT, "{:?}", start.elapsed());
    server.restart();
    found(&*store, &user("alice")).await;
    server.hang();
    assert_eq!(try_ask(&*store, &user("alice")).await.unwrap_err(), StoreError::Timeout);
    server.go_on();
    assert_eq!(secrets(&*store, "1700000000:erin").await.0, ["logen"]);
}

#[tokio::test]
async fn a_table_that_is_locked_is_no_stall() {
    let Some(server) = PostgresServer::start() else { return };
    full(&server, "users");
    let store = store(&server.url("users"));
    found(&*store, &user("alice")).await;
    let lock = "begin; lock table turnusers_lt; select pg_sleep(3); commit";
    std::thread::scope(|scope| {
        scope.spawn(|| server.sql("users", lock));
        std::thread::sleep(Duration::from_millis(500));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = scope.spawn(move || runtime.block_on(try_ask(&*store, &user("alice")))).join().unwrap();
        assert_eq!(answer.unwrap_err(), StoreError::Timeout);
    });
}

#[tokio::test]
async fn certificates_are_checked() {
    let authority = certificates::Authority::new();
    let Some(server) = PostgresServer::start_with(|folder| {
        authority.write_server(folder);
        fs::write(folder.join("other.pem"), certificates::Authority::new().pem()).unwrap();
        ["ssl = on", "ssl_cert_file = 'server.pem'", "ssl_key_file = 'key.pem'"]
            .map(|line| line.replace("'server", &format!("'{}/server", folder.display())))
            .map(|line| line.replace("'key", &format!("'{}/key", folder.display())))
            .into()
    }) else {
        return;
    };
    full(&server, "users");
    let url = |parameters: &str| format!("{}?{parameters}", server.url("users"));
    let roots = server.file("roots.pem");
    let plain = url("sslmode=disable");
    found(&*store(&plain), &user("alice")).await;
    for mode in ["require", "verify-full"] {
        let trusted = url(&format!("sslmode={mode}&sslrootcert={roots}"));
        found(&*store(&trusted), &user("alice")).await;
        let by_name = trusted.replace("127.0.0.1", "localhost");
        found(&*store(&by_name), &user("alice")).await;
        // Signed by nobody whom the system knows, and by somebody else.
        for parameters in
            [format!("sslmode={mode}"), format!("sslmode={mode}&sslrootcert={}", server.file("other.pem"))]
        {
            let answer = try_ask(&*store(&url(&parameters)), &user("alice")).await;
            assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{parameters}: {answer:?}");
        }
    }
}
