//! Coturn's client with users of every kind of store, where coturn's own program has written them.

use std::path::Path;
use std::process::Command;
use std::thread;

use hairpin_tests::lab::coturn::{self, EchoPeer, Tally, turnadmin};
use hairpin_tests::lab::process;
use hairpin_tests::lab::server::is_installed;
use hairpin_tests::lab::{Finished, Folder, Namespace};
use hairpin_users::testing::{PostgresServer, RedisServer};

use crate::bed::{Bed, HOME, expect_refused, file};

/// What Debian's coturn makes its tables with.
const SCHEMA: &str = "/usr/share/coturn/schema.sql";
/// Not the name that coturn's client falls back to: it must listen to what it is told.
const AUDIENCE: &str = "relay.test";
/// The three keys that coturn's client seals tokens with, one of them for each request: name, algorithm, and the key as
/// coturn keeps it, with a line feed behind it.
const TOKEN_KEYS: [(&str, &str, &str); 3] = [
    ("north", "A256GCM", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK"),
    ("union", "A128GCM", "MTIzNDU2Nzg5MDEyMzQ1Ngo="),
    ("oldempire", "A256GCM", "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK"),
];
/// The same without the line feed: what is given on a command line has no other length than the algorithm's.
const EXACT_TOKEN_KEYS: [&str; 3] = [
    "north:A256GCM:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "union:A128GCM:MTIzNDU2Nzg5MDEyMzQ1Ng==",
    "oldempire:A256GCM:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=",
];
/// A realm that is not the default.
const REALM: &str = "north.gov";
/// Ways to be let in, by the options of `turnutils_uclient`.
const BY_PASSWORD: &str = "-u ninefingers -w youhavetoberealistic";
const BY_SECRET: &str = "-u bob -W logen";
const BY_TOKEN: &str = "-J";

/// Whether coturn is installed, so that a test can say why it is skipped.
pub(crate) fn has_coturn() -> bool {
    ["turnadmin", "turnutils_uclient", "turnutils_peer"].into_iter().all(is_installed)
}

/// Runs coturn's client in each of these ways at once, and checks that all that it sent came back.
fn expect_relayed(host: &Namespace, ways: &[&str]) {
    let failed: Vec<Finished> = thread::scope(|scope| {
        let run = |way: &&str| {
            let arguments = format!("{way} -n 40 -z 5 -m 3 -c -e {HOME} {HOME}");
            scope.spawn(move || coturn::uclient(host, &arguments))
        };
        let running: Vec<_> = ways.iter().map(run).collect();
        let finished = running.into_iter().map(|client| client.join().expect("no client panics"));
        finished.filter(|finished| !Tally::of(finished).is_some_and(|tally| tally.is_complete())).collect()
    });
    let reports: Vec<_> = failed.iter().map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{} of {ways:?} failed:\n{}", failed.len(), reports.join("\n"));
}

/// Checks that those who are in no store are not let in, and that nothing is wrong with the store.
fn expect_nobody_else(bed: &Bed<'_>) {
    for (user, password) in [("ninefingers", "unrealistic"), ("bayaz", "youhavetoberealistic"), ("2000000000:bob", "x")]
    {
        expect_refused(&mut bed.client(user, password), 401);
    }
    let status = bed.json(&["status"]);
    let stores = status["user_stores"].as_array().expect("a list");
    assert!(stores.iter().all(|store| store["up"] == true && store["failed"] == 0), "{status}");
}

/// Writes a user and a secret into the database that the arguments name.
fn write_users(database: &[&str]) {
    turnadmin(&[&["-a", "-u", "ninefingers", "-r", REALM, "-p", "youhavetoberealistic"], database].concat());
    turnadmin(&[&["-s", "logen", "-r", REALM], database].concat());
}

/// What puts a key of all realms into coturn's table.
fn insert_token_key((kid, algorithm, key): (&str, &str, &str)) -> String {
    let columns = "kid, ikm_key, timestamp, lifetime, as_rs_alg, realm";
    format!("insert into oauth_key ({columns}) values ('{kid}', '{key}', 0, 0, '{algorithm}', '')")
}

#[test]
fn users_and_secrets_of_files() {
    if !has_coturn() {
        return;
    }
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let users = file(&folder, "users", "# a comment\n\nninefingers:youhavetoberealistic\ngorst:hero\n");
    let secrets = file(&folder, "secrets", "bloody9\nlogen\n");
    let files = format!("--user-file {} --auth-secret-file {}", users.display(), secrets.display());
    let bed = Bed::at_home(&host, &folder, &format!("--realm {REALM} {files}"));
    let _peer = EchoPeer::start(&host, &[HOME]);
    expect_relayed(&host, &[BY_PASSWORD, BY_SECRET, "-u gorst -w hero"]);
    expect_nobody_else(&bed);
    bed.stop();
}

#[test]
fn users_secrets_and_token_keys_of_sqlite() {
    if !has_coturn() {
        return;
    }
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let database = folder.path().join("turndb");
    let path = database.to_str().expect("a folder of ours");
    write_users(&["-b", path]);
    // It has made the table of keys, and no way to fill it.
    let statements: Vec<_> = TOKEN_KEYS.into_iter().map(insert_token_key).collect();
    let script =
        format!("import sqlite3; sqlite3.connect('{path}').executescript(\"\"\"{}\"\"\")", statements.join(";"));
    process::run(Command::new("python3").args(["-c", &script])).expect_success();
    let options = format!("--realm {REALM} --token-audience {AUDIENCE} --user-store sqlite://{path}");
    let bed = Bed::at_home(&host, &folder, &options);
    let _peer = EchoPeer::start(&host, &[HOME]);
    expect_relayed(&host, &[BY_PASSWORD, BY_SECRET, BY_TOKEN, BY_TOKEN, BY_TOKEN]);
    expect_nobody_else(&bed);
    // What is written later is found, too.
    turnadmin(&["-a", "-u", "gorst", "-r", REALM, "-p", "hero", "-b", path]);
    bed.client("gorst", "hero").allocate().expect("gorst is a user now");
    bed.stop();
}

#[test]
fn users_secrets_and_token_keys_of_postgresql() {
    if !has_coturn() {
        return;
    }
    let Some(server) = PostgresServer::start() else { return };
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    server.create("coturn");
    server.script("coturn", Path::new(SCHEMA));
    write_users(&["-e", &server.connection_string("coturn")]);
    for key in TOKEN_KEYS {
        server.sql("coturn", &insert_token_key(key));
    }
    let url = server.socket_url("coturn");
    let options = format!("--realm {REALM} --token-audience {AUDIENCE} --user-store {url}");
    let bed = Bed::at_home(&host, &folder, &options);
    let _peer = EchoPeer::start(&host, &[HOME]);
    expect_relayed(&host, &[BY_PASSWORD, BY_SECRET, BY_TOKEN, BY_TOKEN, BY_TOKEN]);
    expect_nobody_else(&bed);
    bed.stop();
}

#[test]
fn users_secrets_and_token_keys_of_redis() {
    if !has_coturn() {
        return;
    }
    let Some(server) = RedisServer::start() else { return };
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    write_users(&["-N", &server.connection_string(0)]);
    for (kid, algorithm, key) in TOKEN_KEYS {
        server.command(&["HSET", &format!("turn/oauth/kid/{kid}"), "ikm_key", key, "as_rs_alg", algorithm]);
    }
    let url = format!("redis+unix://{}", server.socket().display());
    let options = format!("--realm {REALM} --token-audience {AUDIENCE} --user-store {url}");
    let bed = Bed::at_home(&host, &folder, &options);
    let _peer = EchoPeer::start(&host, &[HOME]);
    expect_relayed(&host, &[BY_PASSWORD, BY_SECRET, BY_TOKEN, BY_TOKEN, BY_TOKEN]);
    expect_nobody_else(&bed);
    bed.stop();
}

#[test]
fn token_keys_of_the_command_line() {
    if !has_coturn() {
        return;
    }
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let keys: Vec<_> = EXACT_TOKEN_KEYS.iter().map(|key| format!("--token-key {key}")).collect();
    let options = format!("--realm {REALM} --token-audience {AUDIENCE} {}", keys.join(" "));
    let bed = Bed::at_home(&host, &folder, &options);
    let _peer = EchoPeer::start(&host, &[HOME]);
    expect_relayed(&host, &[BY_TOKEN, BY_TOKEN, BY_TOKEN, BY_TOKEN]);
    expect_refused(&mut bed.client("ninefingers", "youhavetoberealistic"), 401);
    bed.stop();
}
