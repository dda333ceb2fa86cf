//! Files of SQLite.

use std::time::{Duration, Instant};

use hairpin_users::testing::Folder;
use hairpin_users::{StoreError, StoreOptions, StoreUrl, open};
use rusqlite::Connection;

use crate::asking::{
    TIMEOUT, admission, ask, finds_what_hairpin_adds, finds_what_turnadmin_has_written, found, hash_of, is_refused,
    knows_no_hostile_name, proves_by_md5, schema, store, token, try_ask, user,
};
use crate::coturn::write_users;

/// Rows of users, secrets and keys, for any dialect.
pub(crate) const ROWS: &str = "
    insert into turnusers_lt (realm, name, hmackey) values
        ('north.gov', 'alice', '3996dcb60afa9830c4618281d70bd605'),
        ('north.gov', 'it''s', '3996dcb60afa9830c4618281d70bd605'),
        ('north.gov', 'broken', 'not a key');
    insert into turn_secret (realm, value) values ('north.gov', 'logen'), ('north.gov', '');
    insert into hairpin_user (realm, name, sha256, relayed_addresses, allocations, userhash) values
        ('north.gov', 'alice', null, '192.0.2.1:5000,[2001:db8::1]:5001', 3, null),
        ('north.gov', 'carol', 'a0fc7d7b046400c7f5560948e3c37978def589a2994714047beb8825052df940', null, null,
            '73a5f88607251a626c4b893674aa6371bf1899ed58324fa01fedb72ec91dc7fd'),
        ('north.gov', 'dave', null, null, 1, null);
    insert into oauth_key (kid, ikm_key, timestamp, lifetime, as_rs_alg, realm) values
        ('oldempire', 'MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK', 0, 0, 'A256GCM', ''),
        ('elsewhere', 'MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK', 0, 0, 'A256GCM', 'south.gov'),
        ('over', 'MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK', 1000, 5, 'A256GCM', 'north.gov'),
        ('short', 'MTIz', 0, 0, 'A128GCM', 'north.gov');
";

struct Database {
    folder: Folder,
}

impl Database {
    fn empty() -> Self {
        let folder = Folder::new("sqlite");
        drop(Connection::open(folder.file("users.db")).unwrap());
        Self { folder }
    }

    fn full() -> Self {
        let database = Self::empty();
        let connection = database.connect();
        connection.execute_batch(&std::fs::read_to_string(schema("sqlite.sql")).unwrap()).unwrap();
        connection.execute_batch(ROWS).unwrap();
        database
    }

    fn path(&self) -> String {
        self.folder.file("users.db").display().to_string()
    }

    fn url(&self) -> String {
        format!("sqlite://{}", self.path())
    }

    fn connect(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }
}

#[tokio::test]
async fn what_turnadmin_has_written_is_found() {
    let database = Database::empty();
    if !write_users(&["-b", &database.path()]) {
        return;
    }
    let store = store(&database.url());
    finds_what_turnadmin_has_written(&*store).await;
    let bob = found(&*store, &hash_of("team/bob")).await;
    assert_eq!(&*bob.name, "team/bob", "its hash is computed");
    assert!(proves_by_md5(&bob, "open:wide"));
}

#[tokio::test]
async fn what_hairpin_adds_is_found_beside_it() {
    let database = Database::full();
    finds_what_hairpin_adds(&*store(&database.url())).await;
}

#[tokio::test]
async fn hostile_names_are_nobody() {
    let database = Database::full();
    knows_no_hostile_name(&*store(&database.url())).await;
}

#[tokio::test]
async fn a_table_that_is_missing_knows_nobody() {
    let database = Database::empty();
    let store = store(&database.url());
    store.probe().await.unwrap();
    for question in [user("alice"), user("1700000000:alice"), hash_of("alice"), token("oldempire"), admission("alice")]
    {
        assert!(is_refused(&ask(&*store, &question).await), "{question:?}");
    }
    database.connect().execute_batch(&std::fs::read_to_string(schema("sqlite.sql")).unwrap()).unwrap();
    database.connect().execute_batch(ROWS).unwrap();
    found(&*store, &user("alice")).await;
    database.connect().execute_batch("drop table turnusers_lt; drop table hairpin_user").unwrap();
    assert!(is_refused(&ask(&*store, &user("alice")).await));
}

#[tokio::test]
async fn a_file_that_is_locked_is_no_stall() {
    let database = Database::full();
    let store = store(&database.url());
    found(&*store, &user("alice")).await;
    let writer = database.connect();
    writer.execute_batch("begin exclusive").unwrap();
    let start = Instant::now();
    let answer = try_ask(&*store, &user("alice")).await;
    assert_eq!(answer.unwrap_err(), StoreError::Unreachable("it is locked".to_owned()));
    assert!(start.elapsed() < TIMEOUT, "{:?}", start.elapsed());
    writer.execute_batch("rollback").unwrap();
    found(&*store, &user("alice")).await;
}

#[tokio::test]
async fn a_file_that_is_replaced_is_read_anew() {
    let (database, other) = (Database::full(), Database::full());
    let store = store(&database.url());
    assert!(proves_by_md5(&found(&*store, &user("alice")).await, "sesame"));
    assert!(is_refused(&ask(&*store, &user("erin")).await));
    let erin = "insert into turnusers_lt values ('north.gov', 'erin', '3996dcb60afa9830c4618281d70bd605')";
    other.connect().execute_batch(erin).unwrap();
    std::fs::rename(other.path(), database.path()).unwrap();
    found(&*store, &user("erin")).await;
    std::fs::remove_file(database.path()).unwrap();
    let gone = try_ask(&*store, &user("erin")).await;
    assert!(matches!(gone, Err(StoreError::Unreachable(_))), "who was in it is not unknown: {gone:?}");
    assert!(store.probe().await.is_err());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error() {
    let database = Database::empty();
    std::fs::write(database.path(), "alice:sesame\n".repeat(1000)).unwrap();
    let answer = try_ask(&*store(&database.url()), &user("alice")).await;
    assert!(matches!(answer, Err(StoreError::Failed(_))), "{answer:?}");
}

#[tokio::test]
async fn what_is_looked_for_too_long_is_given_up() {
    let database = Database::full();
    let many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
        insert into turnusers_lt select 'north.gov', 'user' || i, '' from n";
    database.connect().execute_batch(many).unwrap();
    let url: StoreUrl = database.url().parse().unwrap();
    let store = open(&url, &StoreOptions { timeout: Duration::from_millis(20) }).unwrap();
    let start = Instant::now();
    let answer = store.answer(&hash_of("nobody")).await;
    assert!(matches!(answer, Err(StoreError::Timeout)), "{answer:?} after {:?}", start.elapsed());
    found(&*store, &user("alice")).await;
}
