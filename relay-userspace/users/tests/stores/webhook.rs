//! Authorization servers.

use std::time::{Duration, Instant};

use hairpin_proto::stun::PasswordAlgorithm;
use hairpin_users::testing::Folder;
use hairpin_users::{Answer, Grant, Store, StoreError, Webhook, WebhookError, WebhookOptions};
use hyper::Method;
use serde_json::{Value, json};

use crate::asking::{TIMEOUT, admission, ask, found, hash_of, is_refused, proves, proves_by_md5, token, try_ask, user};
use crate::http::{HttpServer, Reply};

fn options(url: &str) -> WebhookOptions {
    WebhookOptions { url: url.to_owned(), token: None, roots: None, timeout: TIMEOUT }
}

fn webhook(server: &HttpServer) -> Webhook {
    Webhook::new(&options(&server.url())).unwrap()
}

#[tokio::test]
async fn it_is_told_who_asks_from_where() {
    let server = HttpServer::start(Reply::Says(200, json!({"allow": true, "password": "sesame"}).to_string())).await;
    let with_token = WebhookOptions { token: Some("north".to_owned()), ..options(&server.url()) };
    let webhook = Webhook::new(&with_token).unwrap();
    let alice = found(&webhook, &user("alice \"quoted\"\n")).await;
    assert!(proves_by_md5(&alice, "sesame") && alice.is_admitted);
    assert!(matches!(ask(&webhook, &admission("alice")).await, Answer::Admitted(_)));
    let heard = server.heard();
    let bodies: Vec<Value> = heard.iter().map(|heard| serde_json::from_str(&heard.body).unwrap()).collect();
    let common =
        json!({"realm": "north.gov", "client": "192.0.2.7:5000", "server": "198.51.100.1:3478", "transport": "udp"});
    let with = |more: Value| {
        let mut all = common.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    assert_eq!(
        bodies,
        [
            with(json!({"subject": "user", "username": "alice \"quoted\"\n"})),
            with(json!({"subject": "admission", "username": "alice", "account": "alice"})),
        ]
    );
    for heard in heard {
        assert_eq!((&heard.method, heard.target.as_str()), (&Method::POST, "/turn?v=1"));
        assert_eq!(heard.authorization.as_deref(), Some("Bearer north"));
        assert_eq!(heard.host, server.address.to_string());
    }
    assert_eq!(server.connections(), 1, "a connection is kept");
    for question in [hash_of("alice"), token("k")] {
        assert!(is_refused(&ask(&webhook, &question).await));
    }
    assert!(server.heard().is_empty(), "it is not asked what it can't know");
}

#[tokio::test]
async fn it_may_send_keys_and_grants() {
    let server = HttpServer::start(Reply::Hangs).await;
    let webhook = webhook(&server);
    let (md5, sha256) =
        ("3996dcb60afa9830c4618281d70bd605", "a0fc7d7b046400c7f5560948e3c37978def589a2994714047beb8825052df940");
    server.says(
        &json!({
            "allow": true, "key": {"md5": md5}, "relayed_addresses": ["192.0.2.1:5000"], "allocations": 2, "more": [1]
        })
        .to_string(),
    );
    let alice = found(&webhook, &user("alice")).await;
    assert!(proves_by_md5(&alice, "sesame"));
    let grant = Grant { addresses: vec!["192.0.2.1:5000".parse().unwrap()], allocations: Some(2) };
    assert_eq!(alice.grant, grant);
    assert!(matches!(ask(&webhook, &admission("alice")).await, Answer::Admitted(told) if told == grant));
    server.says(&json!({"allow": true, "key": {"sha256": sha256}}).to_string());
    let carol = found(&webhook, &user("carol")).await;
    assert!(proves(&carol.keys, PasswordAlgorithm::Sha256, "carol", "sesame"));
}

#[tokio::test]
async fn a_no_is_a_no() {
    let server = HttpServer::start(Reply::Says(200, json!({"allow": false}).to_string())).await;
    let webhook = webhook(&server);
    for reply in [json!({"allow": false}), json!({"allow": false, "password": "sesame"})] {
        server.says(&reply.to_string());
        assert!(
            is_refused(&ask(&webhook, &user("alice")).await) && is_refused(&ask(&webhook, &admission("alice")).await)
        );
    }
    for status in [401, 403, 404] {
        server.reply(Reply::Says(status, json!({"allow": true, "password": "sesame"}).to_string()));
        assert!(is_refused(&ask(&webhook, &user("alice")).await), "{status}");
    }
}

#[tokio::test]
async fn whatever_else_it_says_lets_nobody_in() {
    let server = HttpServer::start(Reply::Hangs).await;
    let webhook = webhook(&server);
    let long = format!("{{\"allow\": true, \"password\": \"sesame\", \"x\": \"{}\"}}", "x".repeat(64 * 1024));
    for body in [
        "",
        "{}",
        "[]",
        "null",
        "true",
        "{\"allow\": true}",
        "{\"allow\": \"true\", \"password\": \"sesame\"}",
        "{\"allow\": 1, \"password\": \"sesame\"}",
        "{\"allow\": true, \"password\": 5}",
        "{\"allow\": true, \"key\": {}}",
        "{\"allow\": true, \"key\": {\"md5\": \"sesame\"}}",
        "{\"allow\": true, \"password\": \"sesame\", \"allocations\": -1}",
        "{\"allow\": true, \"password\": \"sesame\", \"relayed_addresses\": [\"sesame\"]}",
        "{\"allow\": true, \"password\": \"sesame\"",
        "{\"allow\": true, \"password\": \"sesame\"} sesame",
        "<html>sesame</html>",
        &long,
    ] {
        server.says(body);
        let error = try_ask(&webhook, &user("alice")).await.unwrap_err();
        assert!(matches!(error, StoreError::Entry { .. }), "{body}: {error:?}");
        assert!(!error.to_string().contains("sesame"), "{error}");
    }
    for status in [201, 204, 301, 302, 400, 418, 429, 500] {
        server.reply(Reply::Says(status, json!({"allow": true, "password": "sesame"}).to_string()));
        let answer = try_ask(&webhook, &user("alice")).await;
        assert!(matches!(answer, Err(StoreError::Entry { .. })), "{status}: {answer:?}");
        webhook.probe().await.unwrap();
    }
    for status in [502, 503, 504] {
        server.reply(Reply::Says(status, String::new()));
        let answer = try_ask(&webhook, &user("alice")).await;
        assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{status}: {answer:?}");
        assert!(webhook.probe().await.is_err());
    }
}

#[tokio::test]
async fn it_may_hang_end_and_come_back() {
    let allowed = json!({"allow": true, "password": "sesame"}).to_string();
    let server = HttpServer::start(Reply::Says(200, allowed.clone())).await;
    let webhook = webhook(&server);
    found(&webhook, &user("alice")).await;
    server.reply(Reply::Hangs);
    let start = Instant::now();
    assert_eq!(webhook.answer(&user("alice")).await.unwrap_err(), StoreError::Timeout);
    assert!(start.elapsed() < TIMEOUT + Duration::from_millis(200), "{:?}", start.elapsed());
    server.reply(Reply::HangsUp);
    let answer = try_ask(&webhook, &user("alice")).await;
    assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{answer:?}");
    server.says(&allowed);
    found(&webhook, &user("alice")).await;
    let address = server.stop().await;
    let answer = try_ask(&webhook, &user("alice")).await;
    assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{answer:?}");
    assert!(webhook.probe().await.is_err());
    let server = HttpServer::start_at(address, Reply::Says(200, allowed), None).await;
    found(&webhook, &user("alice")).await;
    webhook.probe().await.unwrap();
    drop(server);
}

#[tokio::test]
async fn an_answer_holds_as_long_as_it_says_and_for_whom() {
    let server = HttpServer::start(Reply::Hangs).await;
    let webhook = webhook(&server);
    server.says(&json!({"allow": true, "password": "sesame", "cache_seconds": 1}).to_string());
    let mut question = user("alice");
    found(&webhook, &question).await;
    server.says(&json!({"allow": false}).to_string());
    question.client.set_port(6000);
    found(&webhook, &question).await;
    question.client.set_ip("192.0.2.8".parse().unwrap());
    assert!(is_refused(&ask(&webhook, &question).await), "another client is asked about");
    assert!(is_refused(&ask(&webhook, &user("bob")).await), "another user");
    assert!(is_refused(&ask(&webhook, &admission("alice")).await), "another question");
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert!(is_refused(&ask(&webhook, &user("alice")).await));
    server.says(&json!({"allow": true, "password": "sesame"}).to_string());
    found(&webhook, &user("alice")).await;
    assert_eq!(server.heard().len(), 6);
}

#[tokio::test]
async fn its_certificate_is_checked() {
    let folder = Folder::new("webhook");
    let reply = Reply::Says(200, json!({"allow": true, "password": "sesame"}).to_string());
    let server = HttpServer::start_with_tls(reply.clone(), &folder.file("roots.pem")).await;
    let other = HttpServer::start_with_tls(reply, &folder.file("other.pem")).await;
    drop(other);
    let url = server.url().replace("http:", "https:");
    let trusting = |roots: Option<&str>, url: &str| {
        let roots = roots.map(|name| folder.file(name));
        Webhook::new(&WebhookOptions { roots, ..options(url) }).unwrap()
    };
    found(&trusting(Some("roots.pem"), &url), &user("alice")).await;
    found(&trusting(Some("roots.pem"), &url.replace("127.0.0.1", "localhost")), &user("alice")).await;
    for webhook in [trusting(None, &url), trusting(Some("other.pem"), &url)] {
        let answer = try_ask(&webhook, &user("alice")).await;
        assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{answer:?}");
    }
    let missing = WebhookOptions { roots: Some(folder.file("none.pem")), ..options(&url) };
    assert!(matches!(Webhook::new(&missing), Err(WebhookError::Roots(_))));
    std::fs::write(folder.file("empty.pem"), "").unwrap();
    let empty = WebhookOptions { roots: Some(folder.file("empty.pem")), ..options(&url) };
    assert!(matches!(Webhook::new(&empty), Err(WebhookError::Roots(_))));
}

#[test]
fn what_is_no_url_or_token_is_told() {
    for url in
        ["", "turn", "/turn", "ftp://host/", "http://", "http://user:pw@host/", "http://host:x/", "http://host:99999/"]
    {
        assert_eq!(Webhook::new(&options(url)).err(), Some(WebhookError::Url), "{url}");
    }
    for url in ["http://host", "https://host/", "http://[::1]:8080/turn", "http://host/turn?a=b"] {
        assert!(Webhook::new(&options(url)).is_ok(), "{url}");
    }
    for token in ["", "a b", "a\r\nX: y", "ä"] {
        let options = WebhookOptions { token: Some(token.to_owned()), ..options("http://host/") };
        assert_eq!(Webhook::new(&options).err(), Some(WebhookError::Token), "{token:?}");
    }
}
