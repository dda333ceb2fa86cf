//! An application that is asked who may have an allocation.

use hairpin_tests::lab::webhook::{Say, Webhook};
use hairpin_tests::lab::{Folder, Namespace};

use crate::bed::{Bed, HOME, expect_refused, wait};

const TOKEN: &str = "small-token";
/// More than enough on loopback, and short enough to wait for.
const TIMEOUT: &str = "1s";
const ALLOW: &str = r#"{"allow": true}"#;

/// A relay with some users of its own, which asks this webhook.
fn start<'n>(host: &'n Namespace, folder: &'n Folder, webhook: &Webhook, options: &str) -> Bed<'n> {
    let users = ["alice", "bob", "carol", "slow", "rude"].map(|name| format!("--user {name}:sesame")).join(" ");
    let asked = format!("--webhook {} --webhook-token {TOKEN} --user-timeout {TIMEOUT}", webhook.url());
    // Each shard remembers for itself.
    Bed::at_home(host, folder, &format!("--shards 1 {users} {asked} {options}"))
}

#[test]
fn it_is_asked_for_each_new_allocation_and_for_nothing_else() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let webhook = Webhook::start(&host);
    webhook.say("alice", Say::json(ALLOW));
    webhook.say("bob", Say::json(ALLOW));
    let bed = start(&host, &folder, &webhook, "--user-cache 1s");
    let mut client = bed.client("alice", "sesame");
    client.allocate().expect("the webhook has said yes");
    client.refresh(700).expect("nobody is asked");
    client.permit(HOME).expect("nobody is asked");
    client.bind_channel(0x4000, (HOME, 9).into()).expect("nobody is asked");
    let asked = webhook.asked("admission", "alice");
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].head[0], "POST /authorize HTTP/1.1");
    assert!(asked[0].head.contains(&format!("authorization: Bearer {TOKEN}")), "{asked:?}");
    let body = &asked[0].body;
    for (member, value) in [
        ("realm", "hairpin".to_owned()),
        ("account", "alice".to_owned()),
        ("client", client.local().to_string()),
        ("server", "127.0.0.1:3478".to_owned()),
        ("transport", "udp".to_owned()),
    ] {
        assert_eq!(body[member], value, "{body}");
    }
    assert_eq!(webhook.asked("user", "alice").len(), 0, "the relay knows alice itself");

    // Whoever has not proven to be bob is not asked about.
    expect_refused(&mut bed.client("bob", "wrong"), 401);
    assert_eq!(webhook.asked("admission", "bob").len(), 0);
    // What was said a second ago is asked again.
    wait("an allocation later on is asked for", || {
        let mut next = bed.client("alice", "sesame");
        next.allocate().expect("the webhook says yes");
        assert_eq!(next.refresh(0), Ok(0));
        webhook.asked("admission", "alice").len() > 1
    });
    // What is said now goes for those that come, and not for one that is there.
    webhook.say("alice", Say::json(r#"{"allow": false}"#));
    wait("the webhook says no", || {
        let mut next = bed.client("alice", "sesame");
        let relayed = next.allocate();
        let _ = relayed.is_ok().then(|| next.refresh(0));
        relayed.is_err_and(|refused| refused.0 == 403)
    });
    client.refresh(700).expect("nobody is asked");
    bed.stop();
}

#[test]
fn it_is_asked_once_while_its_answer_holds() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let webhook = Webhook::start(&host);
    webhook.say("alice", Say::json(ALLOW));
    // It remembers nothing on its own: the answer says no word about it.
    let bed = start(&host, &folder, &webhook, "--user-cache 1h");
    for _ in 0..5 {
        bed.client("alice", "sesame").allocate().expect("the webhook has said yes");
    }
    assert_eq!(webhook.asked("admission", "alice").len(), 1);

    // An answer may say how long it holds, which is for all shards.
    webhook.say("bob", Say::json(r#"{"allow": true, "cache_seconds": 3600}"#));
    bed.stop();
    let bed = start(&host, &folder, &webhook, "--user-cache 1s");
    for _ in 0..3 {
        bed.client("bob", "sesame").allocate().expect("the webhook has said yes");
    }
    let since = webhook.asked("admission", "alice").len();
    wait("what shards remember is over", || {
        bed.client("alice", "sesame").allocate().expect("the webhook has said yes");
        webhook.asked("admission", "alice").len() > since + 1
    });
    bed.client("bob", "sesame").allocate().expect("the webhook has said yes");
    assert_eq!(webhook.asked("admission", "bob").len(), 1);
    bed.stop();
}

#[test]
fn nobody_is_let_in_by_anything_but_a_yes() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let webhook = Webhook::start(&host);
    webhook.say("carol", Say::json(r#"{"allow": true, "cache_seconds": 0}"#));
    let mut bed = start(&host, &folder, &webhook, "--user-cache 1s");
    let up = |bed: &Bed<'_>| {
        bed.wait_for("the webhook is up", |metrics| metrics.sum("hairpin_user_store_up", &[("store", "webhook")]) == 1);
    };
    // A no holds for a moment, so everybody says it once.
    let no = [Say::json(r#"{"allow": false}"#), Say::Answer(403, String::new()), Say::Answer(404, String::new())];
    for (user, say) in ["alice", "bob", "rude"].into_iter().zip(no) {
        webhook.say(user, say);
        expect_refused(&mut bed.client(user, "sesame"), 403);
    }
    assert_eq!(bed.refused("not_admitted"), 3);
    let none = [
        Say::Answer(500, ALLOW.to_owned()),
        Say::Answer(503, ALLOW.to_owned()),
        Say::Answer(302, ALLOW.to_owned()),
        Say::json("yes"),
        Say::json(""),
        Say::json("{}"),
        Say::json(r#"{"allow": "true"}"#),
        Say::json(r#"{"allow": true"#),
        Say::json(r#"{"allow": true, "relayed_addresses": ["nowhere"]}"#),
        Say::Bytes("this is no HTTP\r\n\r\n"),
        Say::Bytes("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"allow\": true}"),
        Say::Bytes(""),
    ];
    for (number, say) in none.into_iter().enumerate() {
        webhook.say("slow", say.clone());
        expect_refused(&mut bed.client("slow", "sesame"), 500);
        assert_eq!(bed.refused("users_unavailable"), number as u64 + 1, "{say:?}");
        up(&bed);
    }
    // While it says nothing, a request is sent three times and asked about once.
    webhook.say("slow", Say::Nothing);
    let before = webhook.asked("admission", "slow").len();
    expect_refused(&mut bed.client("slow", "sesame"), 500);
    assert_eq!(webhook.asked("admission", "slow").len(), before + 1);
    // It comes back by itself, and then says what it has to say.
    up(&bed);
    bed.client("carol", "sesame").allocate().expect("the webhook says yes");
    let log = bed.log();
    assert!(!log.contains(TOKEN) && !log.contains("sesame") && !log.contains("panicked"), "{log}");
    assert!(log.lines().count() < 60, "{log}");
}

#[test]
fn it_may_know_users_that_nobody_else_knows() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let webhook = Webhook::start(&host);
    webhook.say("dave", Say::json(r#"{"allow": true, "password": "from-afar"}"#));
    webhook.say("erin", Say::json(r#"{"allow": true, "key": {"md5": "2b6dbf8c53b4bfe4c2b5bd6bd8c0a1ef"}}"#));
    webhook.say("keyless", Say::json(ALLOW));
    let bed = start(&host, &folder, &webhook, "");
    let mut dave = bed.client("dave", "from-afar");
    dave.allocate().expect("the webhook knows dave");
    dave.refresh(700).expect("dave is known");
    assert_eq!(webhook.asked("user", "dave").len(), 1);
    assert_eq!(webhook.asked("admission", "dave").len(), 0, "it has said yes already");
    expect_refused(&mut bed.client("dave", "wrong"), 401);
    expect_refused(&mut bed.client("erin", "wrong"), 401);
    // Nobody knows frank, and whoever has no password proves nothing.
    expect_refused(&mut bed.client("frank", "sesame"), 401);
    expect_refused(&mut bed.client("keyless", ""), 500);
    bed.stop();
}
