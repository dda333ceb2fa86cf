//! The chain of stores, with servers that are killed, hang, and are asked much.

use std::time::{Duration, Instant};

use hairpin_users::testing::{Folder, PostgresServer, RedisServer};
use hairpin_users::{Answer, Directory, Options, Store, StoreOptions, Webhook, WebhookOptions, open};
use rusqlite::Connection;
use serde_json::json;
use tokio::time::sleep;

use crate::asking::{is_refused, schema, user};
use crate::http::{HttpServer, Reply};

const TIMEOUT: Duration = Duration::from_millis(500);

fn directory(urls: &[String], webhook: Option<Box<dyn Store>>) -> Directory {
    let options = StoreOptions { timeout: TIMEOUT };
    let stores = urls.iter().map(|url| open(&url.parse().unwrap(), &options).unwrap()).collect();
    Directory::new(Options { stores, webhook, timeout: TIMEOUT, in_flight: 64 })
}

/// Asks for a user of the store that fails and for one of another store.
async fn is_down_in_time(directory: &Directory, known_elsewhere: &str) {
    for _ in 0..3 {
        let start = Instant::now();
        let answer = directory.answer(user("bob")).await;
        assert!(matches!(answer, Answer::Unavailable), "{answer:?}");
        assert!(start.elapsed() < TIMEOUT + Duration::from_millis(150), "{:?}", start.elapsed());
        let start = Instant::now();
        assert!(matches!(directory.answer(user(known_elsewhere)).await, Answer::User(_)));
        assert!(start.elapsed() < Duration::from_millis(150), "{:?}", start.elapsed());
    }
}

/// Waits until the store is asked again.
async fn is_back_by_itself(directory: &Directory) {
    let start = Instant::now();
    while !matches!(directory.answer(user("bob")).await, Answer::User(_)) {
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", directory.report());
        sleep(Duration::from_millis(10)).await;
    }
}

fn sqlite(folder: &Folder) -> String {
    let connection = Connection::open(folder.file("users.db")).unwrap();
    connection.execute_batch(&std::fs::read_to_string(schema("sqlite.sql")).unwrap()).unwrap();
    connection.execute_batch(&rows("alice")).unwrap();
    format!("sqlite://{}", folder.file("users.db").display())
}

fn rows(name: &str) -> String {
    format!("insert into turnusers_lt values ('north.gov', '{name}', '3996dcb60afa9830c4618281d70bd605')")
}

#[tokio::test]
async fn postgres_may_be_killed_and_hang() {
    let Some(mut server) = PostgresServer::start() else { return };
    server.create("users");
    server.script("users", &schema("postgresql.sql"));
    server.sql("users", &rows("bob"));
    let folder = Folder::new("failing");
    let directory = directory(&[sqlite(&folder), server.url("users")], None);
    is_back_by_itself(&directory).await;
    server.kill();
    is_down_in_time(&directory, "alice").await;
    server.restart();
    is_back_by_itself(&directory).await;
    server.hang();
    is_down_in_time(&directory, "alice").await;
    server.go_on();
    is_back_by_itself(&directory).await;
}

#[tokio::test]
async fn redis_may_be_killed_and_hang() {
    let Some(mut server) = RedisServer::start() else { return };
    server.command(&["SET", "turn/realm/north.gov/user/bob/key", "3996dcb60afa9830c4618281d70bd605"]);
    server.command(&["SAVE"]);
    let folder = Folder::new("failing");
    let directory = directory(&[sqlite(&folder), server.url(0)], None);
    is_back_by_itself(&directory).await;
    server.kill();
    is_down_in_time(&directory, "alice").await;
    server.restart();
    is_back_by_itself(&directory).await;
    server.hang();
    is_down_in_time(&directory, "alice").await;
    server.go_on();
    is_back_by_itself(&directory).await;
}

#[tokio::test]
async fn a_webhook_may_end_and_hang() {
    let says = Reply::Says(200, json!({"allow": true, "password": "sesame"}).to_string());
    let server = HttpServer::start(says.clone()).await;
    let options = WebhookOptions { url: server.url(), token: None, roots: None, timeout: TIMEOUT };
    let folder = Folder::new("failing");
    let directory = directory(&[sqlite(&folder)], Some(Box::new(Webhook::new(&options).unwrap())));
    is_back_by_itself(&directory).await;
    server.delay(Duration::from_secs(60));
    is_down_in_time(&directory, "alice").await;
    server.delay(Duration::ZERO);
    is_back_by_itself(&directory).await;
    let address = server.stop().await;
    is_down_in_time(&directory, "alice").await;
    let _server = HttpServer::start_at(address, says, None).await;
    is_back_by_itself(&directory).await;
}

#[tokio::test]
async fn a_locked_file_leaves_a_webhook_alone() {
    let says = Reply::Says(200, json!({"allow": true, "password": "sesame"}).to_string());
    let server = HttpServer::start(says).await;
    let options = WebhookOptions { url: server.url(), token: None, roots: None, timeout: TIMEOUT };
    let folder = Folder::new("failing");
    let directory = directory(&[sqlite(&folder)], Some(Box::new(Webhook::new(&options).unwrap())));
    let writer = Connection::open(folder.file("users.db")).unwrap();
    writer.execute_batch("begin exclusive").unwrap();
    let answer = directory.answer(user("bob")).await;
    assert!(matches!(answer, Answer::Unavailable), "who may be in the file is not asked about elsewhere: {answer:?}");
    assert!(server.heard().is_empty());
    writer.execute_batch("rollback").unwrap();
    is_back_by_itself(&directory).await;
}

/// A thousand users at once, all different, and as many that nobody knows.
async fn a_thousand_at_once(name: &str, directory: &Directory) {
    directory.answer(user("user0")).await;
    for is_known in [true, false] {
        let start = Instant::now();
        let mut asking = tokio::task::JoinSet::new();
        for index in 0..1000 {
            let directory = directory.clone();
            let name = if is_known { format!("user{index}") } else { format!("nobody{index}") };
            asking.spawn(async move { directory.answer(user(&name)).await });
        }
        let answers = asking.join_all().await;
        let right = |answer: &&Answer| if is_known { matches!(answer, Answer::User(_)) } else { is_refused(answer) };
        assert_eq!(answers.iter().filter(right).count(), 1000, "{name}, known: {is_known}: {:?}", directory.report());
        println!("{name}, known: {is_known}: 1000 questions in {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_questions_at_once_are_answered() {
    let many: String = (0..1000).map(|index| rows(&format!("user{index}")) + ";").collect();
    let folder = Folder::new("failing");
    let url = sqlite(&folder);
    Connection::open(folder.file("users.db")).unwrap().execute_batch(&format!("begin; {many} commit")).unwrap();
    a_thousand_at_once("sqlite", &directory(&[url], None)).await;
    if let Some(server) = PostgresServer::start() {
        server.create("users");
        server.script("users", &schema("postgresql.sql"));
        server.sql("users", &many);
        a_thousand_at_once("postgres", &directory(&[server.url("users")], None)).await;
    }
    if let Some(server) = RedisServer::start() {
        let script =
            "for i = 0, 999 do redis.call('SET', 'turn/realm/north.gov/user/user' .. i .. '/key', ARGV[1]) end";
        server.command(&["EVAL", script, "0", "3996dcb60afa9830c4618281d70bd605"]);
        a_thousand_at_once("redis", &directory(&[server.url(0)], None)).await;
    }
}
