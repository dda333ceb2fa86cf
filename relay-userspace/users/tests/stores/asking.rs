//! What all stores are asked.

use std::time::Duration;

use hairpin_proto::address::Transport;
use hairpin_proto::stun::{
    Class, Integrity, LongTermKey, Message, MessageBuilder, Method, PasswordAlgorithm, PasswordKeys, TransactionId,
    user_hash,
};
use hairpin_users::{Answer, Grant, Question, Store, StoreError, StoreOptions, StoreUrl, Subject, User, open};
use tokio::time::timeout;

pub(crate) const REALM: &str = "north.gov";

/// How long stores may take here.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1000);

/// Names that mean something to somebody, and that no store knows.
pub(crate) fn hostile_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        "' or '1'='1",
        "alice' --",
        "\"alice\"",
        "alice\\",
        "alice\0",
        "\0",
        "alice ",
        " alice",
        "ALICE",
        "alice\n",
        "\r\nGET x\r\n",
        "*",
        "al*",
        "al%",
        "alic_",
        "alice/key",
        "../alice",
        "a/user/alice",
        "alice/key/../../alice",
        "$1",
        "?1",
        ":realm",
        "%s%n",
        "{}",
        "𝒶lice",
    ]
    .map(str::to_owned)
    .into();
    names.push("x".repeat(508));
    names.push("'".repeat(508));
    names.push("/".repeat(508));
    names
}

pub(crate) fn question(realm: &str, subject: Subject) -> Question {
    Question {
        realm: realm.into(),
        subject,
        client: "192.0.2.7:5000".parse().unwrap(),
        server: "198.51.100.1:3478".parse().unwrap(),
        transport: Transport::Udp,
    }
}

pub(crate) fn user(name: &str) -> Question {
    question(REALM, Subject::User(name.into()))
}

pub(crate) fn hash_of(name: &str) -> Question {
    question(REALM, Subject::UserHash(user_hash(name, REALM)))
}

pub(crate) fn token(name: &str) -> Question {
    question(REALM, Subject::TokenKey(name.into()))
}

pub(crate) fn admission(username: &str) -> Question {
    question(REALM, Subject::Admission { username: username.into(), account: username.into() })
}

/// The store of a URL, with the timeout of the tests.
pub(crate) fn store(url: &str) -> Box<dyn Store> {
    let url: StoreUrl = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    open(&url, &StoreOptions { timeout: TIMEOUT }).unwrap()
}

pub(crate) async fn try_ask(store: &dyn Store, question: &Question) -> Result<Answer, StoreError> {
    timeout(TIMEOUT, store.answer(question)).await.unwrap_or(Err(StoreError::Timeout))
}

pub(crate) async fn ask(store: &dyn Store, question: &Question) -> Answer {
    try_ask(store, question).await.unwrap_or_else(|error| panic!("{question:?}: {error}"))
}

pub(crate) async fn found(store: &dyn Store, question: &Question) -> User {
    match ask(store, question).await {
        Answer::User(user) => user,
        other => panic!("{question:?}: {other:?}"),
    }
}

pub(crate) async fn secrets(store: &dyn Store, username: &str) -> (Vec<String>, Grant) {
    match ask(store, &user(username)).await {
        Answer::Secrets { mut secrets, grant } => {
            secrets.sort();
            (secrets, grant)
        }
        other => panic!("{username}: {other:?}"),
    }
}

pub(crate) fn is_refused(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused)
}

/// Whether the first key that an algorithm makes is the one of this password.
pub(crate) fn proves(keys: &PasswordKeys, algorithm: PasswordAlgorithm, name: &str, password: &str) -> bool {
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::BINDING, TransactionId([7; 12]))
        .with_integrity(&algorithm.derive(name, REALM, password), Integrity::Sha256)
        .finish(false);
    let message = Message::parse(&bytes).unwrap();
    let mut keys = keys.for_algorithm(algorithm);
    keys.next().is_some_and(|key: &LongTermKey| message.verify_integrity(key))
}

pub(crate) fn proves_by_md5(user: &User, password: &str) -> bool {
    proves(&user.keys, PasswordAlgorithm::Md5, &user.name, password)
}

/// What a schema file makes, in the dialect of the database.
pub(crate) fn schema(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/sql").join(name)
}

/// Asks for what [`write_users`](crate::coturn::write_users) has written.
pub(crate) async fn finds_what_turnadmin_has_written(store: &dyn Store) {
    store.probe().await.unwrap();
    let alice = found(store, &user("alice")).await;
    assert!(proves_by_md5(&alice, "sesame") && !proves_by_md5(&alice, "other"));
    assert_eq!((&*alice.name, alice.is_admitted, &alice.grant), ("alice", false, &Grant::default()));
    assert!(proves_by_md5(&found(store, &user("team/bob")).await, "open:wide"), "names may have slashes");
    for question in [user("carol"), question("east.gov", Subject::User("alice".into())), admission("alice")] {
        assert!(is_refused(&ask(store, &question).await), "{question:?}");
    }
    let both = vec!["bloody9".to_owned(), "logen".to_owned()];
    assert_eq!(secrets(store, "1700000000:dave").await, (both.clone(), Grant::default()));
    assert_eq!(secrets(store, "1700000000").await, (both, Grant::default()));
    assert!(is_refused(&ask(store, &user("17x:dave")).await), "no expiry, no secret");
    let east = question("east.gov", Subject::User("1700000000:dave".into()));
    assert!(is_refused(&ask(store, &east).await), "a realm without secrets");
}

/// Asks for what the tables have of coturn and of Hairpin (`ROWS`).
pub(crate) async fn finds_what_hairpin_adds(store: &dyn Store) {
    let addresses = ["192.0.2.1:5000", "[2001:db8::1]:5001"].map(|address| address.parse().unwrap());
    let grant = Grant { addresses: addresses.into(), allocations: Some(3) };
    let alice = found(store, &user("alice")).await;
    assert!(proves_by_md5(&alice, "sesame"));
    assert_eq!(alice.grant, grant);
    assert_eq!(secrets(store, "1700000000:alice").await, (vec!["logen".to_owned()], grant), "by the name behind");
    assert_eq!(secrets(store, "1700000000:erin").await.1, Grant::default());
    assert_eq!(secrets(store, "1700000000:dave").await.1.allocations, Some(1));
    let carol = found(store, &user("carol")).await;
    assert!(proves(&carol.keys, PasswordAlgorithm::Sha256, "carol", "sesame"), "it has this key alone");
    assert!(!proves_by_md5(&carol, "sesame"));
    assert_eq!(&*found(store, &hash_of("carol")).await.name, "carol");
    assert!(is_refused(&ask(store, &hash_of("nobody")).await));
    assert!(is_refused(&ask(store, &user("dave")).await), "nothing proves it");
    for name in ["oldempire", "elsewhere"] {
        assert!(matches!(ask(store, &token(name)).await, Answer::TokenKey(_)), "{name}");
    }
    for name in ["over", "newempire"] {
        assert!(is_refused(&ask(store, &token(name)).await), "{name}");
    }
    for question in [user("broken"), token("short")] {
        let answer = try_ask(store, &question).await;
        assert!(matches!(answer, Err(StoreError::Entry { .. })), "{question:?}: {answer:?}");
        assert!(!answer.unwrap_err().to_string().contains("not a key"), "what is kept is not told");
    }
}

/// Asks for names that nobody has, and for tokens and realms of such names.
pub(crate) async fn knows_no_hostile_name(store: &dyn Store) {
    for name in hostile_names() {
        for question in [
            user(&name),
            hash_of(&name),
            token(&name),
            question(&name, Subject::User("alice".into())),
            question(&name, Subject::User("1700000000:alice".into())),
        ] {
            assert!(is_refused(&ask(store, &question).await), "{question:?}");
        }
        let behind = ask(store, &user(&format!("1700000000:{name}"))).await;
        let is_text = !name.contains('\0');
        assert_eq!(matches!(behind, Answer::Secrets { grant, .. } if grant == Grant::default()), is_text, "{name:?}");
    }
    assert!(matches!(ask(store, &user("alice")).await, Answer::User(_)), "it goes on");
}
