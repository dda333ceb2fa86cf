//! Redis servers.

use std::time::Instant;

use hairpin_proto::stun::{PasswordAlgorithm, user_hash};
use hairpin_users::testing::RedisServer;
use hairpin_users::{Answer, Grant, StoreError, Subject};

use crate::asking::{
    REALM, TIMEOUT, ask, finds_what_hairpin_adds, finds_what_turnadmin_has_written, found, hash_of, is_refused,
    knows_no_hostile_name, proves, proves_by_md5, question, secrets, store, token, try_ask, user,
};
use crate::certificates;
use crate::coturn::write_users;

const KEY: &str = "3996dcb60afa9830c4618281d70bd605";
const TOKEN: &str = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK";

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

/// The same users as in the tables of the other databases.
fn fill(server: &RedisServer) {
    let hash = hex(&user_hash("carol", REALM));
    let by_hash = format!("hairpin/realm/north.gov/userhash/{hash}");
    let sha256 = "a0fc7d7b046400c7f5560948e3c37978def589a2994714047beb8825052df940";
    let addresses = "192.0.2.1:5000,[2001:db8::1]:5001";
    let commands: &[&[&str]] = &[
        &["SET", "turn/realm/north.gov/user/alice/key", KEY],
        &["SET", "turn/realm/north.gov/user/it's/key", KEY],
        &["SET", "turn/realm/north.gov/user/broken/key", "not a key"],
        &["SADD", "turn/realm/north.gov/secret", "logen", ""],
        &["HSET", "hairpin/realm/north.gov/user/alice", "relayed_addresses", addresses, "allocations", "3"],
        &["HSET", "hairpin/realm/north.gov/user/carol", "sha256", sha256],
        &["SET", &by_hash, "carol"],
        &["HSET", "hairpin/realm/north.gov/user/dave", "allocations", "1"],
        &["HSET", "turn/oauth/kid/oldempire", "ikm_key", TOKEN, "as_rs_alg", "A256GCM"],
        &["HSET", "turn/oauth/kid/elsewhere", "ikm_key", TOKEN, "realm", "south.gov"],
        &["HSET", "turn/oauth/kid/over", "ikm_key", TOKEN, "timestamp", "1000", "lifetime", "5"],
        &["HSET", "turn/oauth/kid/short", "ikm_key", "MTIz", "as_rs_alg", "A128GCM"],
    ];
    for command in commands {
        server.command(command);
    }
}

#[tokio::test]
async fn what_turnadmin_has_written_is_found() {
    let Some(server) = RedisServer::start() else { return };
    if write_users(&["-N", &server.connection_string(2)]) {
        finds_what_turnadmin_has_written(&*store(&server.url(2))).await;
        assert!(is_refused(&ask(&*store(&server.url(1)), &user("alice")).await), "another database");
    }
}

#[tokio::test]
async fn what_hairpin_adds_is_found_beside_it() {
    let Some(server) = RedisServer::start() else { return };
    fill(&server);
    finds_what_hairpin_adds(&*store(&server.url(0))).await;
    finds_what_hairpin_adds(&*store(&format!("redis+unix://{}", server.socket().display()))).await;
}

#[tokio::test]
async fn hostile_names_are_nobody() {
    let Some(server) = RedisServer::start() else { return };
    fill(&server);
    knows_no_hostile_name(&*store(&server.url(0))).await;
}

#[tokio::test]
async fn a_name_reaches_no_other_realm() {
    let Some(server) = RedisServer::start() else { return };
    // Whose key this is, a realm that is named so may know; in another it is nobody's.
    server.command(&["SET", "turn/realm/north.gov/user/a/user/bob/key", KEY]);
    server.command(&["HSET", "hairpin/realm/north.gov/user/a/user/bob", "allocations", "1"]);
    server.command(&["SADD", "turn/realm/north.gov/secret", "logen"]);
    let store = store(&server.url(0));
    assert!(is_refused(&ask(&*store, &user("a/user/bob")).await));
    assert_eq!(secrets(&*store, "1700000000:a/user/bob").await.1, Grant::default());
    let theirs = question("north.gov/user/a", Subject::User("bob".into()));
    assert!(matches!(ask(&*store, &theirs).await, Answer::User(_)));
    // Slashes alone are no reason: coturn has such names.
    server.command(&["SET", "turn/realm/north.gov/user/team/bob/key", KEY]);
    found(&*store, &user("team/bob")).await;
}

#[tokio::test]
async fn a_value_of_another_kind_is_this_users_own_trouble() {
    let Some(server) = RedisServer::start() else { return };
    fill(&server);
    server.command(&["SADD", "turn/realm/north.gov/user/erin/key", KEY]);
    server.command(&["SET", "hairpin/realm/north.gov/user/frank", "x"]);
    server.command(&["HSET", "hairpin/realm/north.gov/user/it's", "allocations", "many"]);
    server.command(&["SET", "turn/oauth/kid/k", "x"]);
    let store = store(&server.url(0));
    for question in [user("erin"), user("frank"), user("it's"), token("k")] {
        let answer = try_ask(&*store, &question).await;
        assert!(matches!(answer, Err(StoreError::Entry { .. })), "{question:?}: {answer:?}");
    }
    found(&*store, &user("alice")).await;
    // A hash that leads to a user of another hash.
    let hash = hex(&user_hash("erin", REALM));
    server.command(&["SET", &format!("hairpin/realm/north.gov/userhash/{hash}"), "alice"]);
    let answer = try_ask(&*store, &hash_of("erin")).await;
    assert!(matches!(answer, Err(StoreError::Entry { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_server_that_comes_back_is_asked_again() {
    let Some(mut server) = RedisServer::start() else { return };
    fill(&server);
    server.command(&["SAVE"]);
    let store = store(&server.url(0));
    found(&*store, &user("alice")).await;
    server.restart();
    found(&*store, &user("alice")).await;
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
    let carol = found(&*store, &user("carol")).await;
    assert!(proves(&carol.keys, PasswordAlgorithm::Sha256, "carol", "sesame"));
}

#[tokio::test]
async fn passwords_and_certificates_are_checked() {
    let authority = certificates::Authority::new();
    let mut port = 0;
    let Some(server) = RedisServer::start_with(&["-a", "n@rth"], |folder, tls_port| {
        port = tls_port;
        authority.write_server(folder);
        std::fs::write(folder.join("other.pem"), certificates::Authority::new().pem()).unwrap();
        let file = |name: &str| folder.join(name).display().to_string();
        let files = ["--tls-cert-file", &file("server.pem"), "--tls-key-file", &file("key.pem")].map(str::to_owned);
        let others = ["--requirepass", "n@rth", "--tls-auth-clients", "no", "--tls-port", &port.to_string()];
        [&files[..], &others.map(str::to_owned)].concat()
    }) else {
        return;
    };
    fill(&server);
    let plain = server.port();
    let roots = server.socket().with_file_name("roots.pem").display().to_string();
    let other = server.socket().with_file_name("other.pem").display().to_string();
    for url in [
        format!("redis://:n%40rth@127.0.0.1:{plain}"),
        format!("redis://default:n@rth@localhost:{plain}/0"),
        format!("redis+unix://{}?password=n@rth", server.socket().display()),
        format!("rediss://:n@rth@127.0.0.1:{port}?sslrootcert={roots}"),
        format!("rediss://:n@rth@localhost:{port}/0?sslrootcert={roots}"),
    ] {
        assert!(proves_by_md5(&found(&*store(&url), &user("alice")).await, "sesame"), "{url}");
    }
    for url in [format!("redis://127.0.0.1:{plain}"), format!("redis://:south@127.0.0.1:{plain}")] {
        let error = try_ask(&*store(&url), &user("alice")).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed(_)), "{url}: {error}");
        assert!(!error.to_string().contains("south"), "{error}");
    }
    for url in
        [format!("rediss://:n@rth@127.0.0.1:{port}"), format!("rediss://:n@rth@127.0.0.1:{port}?sslrootcert={other}")]
    {
        let answer = try_ask(&*store(&url), &user("alice")).await;
        assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{url}: {answer:?}");
    }
}
