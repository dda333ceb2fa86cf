//! The chain of stores, with stores that do as they are told. Time is what the tests make of it.

use std::cell::RefCell;
use std::io::Write;
use std::time::Duration;

use hairpin_users::{Answer, Directory, Grant, Options, Question, Store, StoreError};
use tokio::time::{Instant, sleep};

use crate::asking::{admission, hash_of, is_refused, token, user};
use crate::fake::Fake;

const TIMEOUT: Duration = Duration::from_secs(2);

fn directory_with(stores: &[&Fake], webhook: Option<&Fake>, in_flight: usize) -> Directory {
    let stores: Vec<Box<dyn Store>> = stores.iter().map(|store| store.boxed()).collect();
    Directory::new(Options { stores, webhook: webhook.map(Fake::boxed), timeout: TIMEOUT, in_flight })
}

fn directory(stores: &[&Fake], webhook: Option<&Fake>) -> Directory {
    directory_with(stores, webhook, 64)
}

/// The length of the name of the store that has told of the user.
fn told_by(answer: &Answer) -> Option<u32> {
    match answer {
        Answer::User(user) => user.grant.allocations,
        _ => None,
    }
}

fn is_unavailable(answer: &Answer) -> bool {
    matches!(answer, Answer::Unavailable)
}

fn broken() -> StoreError {
    StoreError::Unreachable("gone".to_owned())
}

/// Asks all at once, and waits for all answers.
async fn ask_all(directory: &Directory, questions: impl Iterator<Item = Question>) -> Vec<Answer> {
    let mut asking = tokio::task::JoinSet::new();
    for question in questions {
        let directory = directory.clone();
        asking.spawn(async move { directory.answer(question).await });
    }
    asking.join_all().await
}

#[tokio::test(start_paused = true)]
async fn the_first_that_knows_decides() {
    let (one, three) = (Fake::new("1", &["alice", "bob"]), Fake::new("333", &["bob", "carol"]));
    let directory = directory(&[&one, &three], None);
    assert_eq!(told_by(&directory.answer(user("alice")).await), Some(1));
    assert_eq!(told_by(&directory.answer(user("bob")).await), Some(1));
    assert_eq!(three.asked(), 0, "nobody else is asked");
    assert_eq!(told_by(&directory.answer(user("carol")).await), Some(3));
    assert!(is_refused(&directory.answer(user("dave")).await));
    assert_eq!((one.asked(), three.asked()), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_asked_last_for_users_and_alone_for_admissions() {
    let (store, webhook) = (Fake::new("1", &["alice"]), Fake::new("22", &["alice", "bob"]));
    let both = directory(&[&store], Some(&webhook));
    assert!(both.has_webhook());
    assert_eq!(told_by(&both.answer(user("alice")).await), Some(1));
    assert_eq!(told_by(&both.answer(user("bob")).await), Some(2));
    let asked = store.asked();
    let two = Grant { addresses: Vec::new(), allocations: Some(2) };
    assert!(matches!(both.answer(admission("alice")).await, Answer::Admitted(grant) if grant == two));
    assert!(is_refused(&both.answer(admission("carol")).await));
    assert_eq!((store.asked(), webhook.asked()), (asked, 3), "a store knows nothing of that");
    for question in [hash_of("bob"), token("k")] {
        assert!(is_refused(&both.answer(question).await));
    }
    assert_eq!(webhook.asked(), 3, "and the webhook nothing of these");
    let without = directory(&[&store], None);
    assert!(!without.has_webhook());
    let admitted = without.answer(admission("carol")).await;
    assert!(matches!(admitted, Answer::Admitted(grant) if grant == Grant::default()), "nobody minds");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_refused_because_a_store_is_down() {
    let (one, two, webhook) = (Fake::new("1", &["alice"]), Fake::new("22", &["bob"]), Fake::new("333", &["carol"]));
    let directory = directory(&[&one, &two], Some(&webhook));
    two.fail(Some(broken()));
    assert_eq!(told_by(&directory.answer(user("alice")).await), Some(1), "who is known before is found");
    for _ in 0..2 {
        assert!(is_unavailable(&directory.answer(user("bob")).await));
        assert!(is_unavailable(&directory.answer(user("carol")).await), "two may know another carol");
        assert!(is_unavailable(&directory.answer(user("nobody")).await));
        assert!(is_unavailable(&directory.answer(hash_of("alice")).await));
    }
    assert_eq!(webhook.asked(), 0);
    assert_eq!(two.asked(), 1, "while it is known to be down it is not asked");
    assert!(matches!(directory.answer(admission("carol")).await, Answer::Admitted(_)), "that is none of its business");
    webhook.fail(Some(broken()));
    assert!(is_unavailable(&directory.answer(admission("carol")).await));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_tried_again_by_itself() {
    let store = Fake::new("store", &["alice"]);
    let directory = directory(&[&store], None);
    store.fail(Some(broken()));
    assert!(is_unavailable(&directory.answer(user("alice")).await));
    assert!(!directory.report()[0].is_up);
    sleep(Duration::from_secs(60)).await;
    let probed = store.probed();
    assert!((60..=64).contains(&probed), "once a second, and sooner at first: {probed}");
    store.fail(None);
    sleep(Duration::from_millis(1000)).await;
    assert!(directory.report()[0].is_up, "nobody had to ask");
    assert_eq!(told_by(&directory.answer(user("alice")).await), Some(5));
    assert_eq!(store.asked(), 2);
    sleep(Duration::from_secs(60)).await;
    assert!(store.probed() <= probed + 1, "one that is up is left alone");
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_gone_leaves_nothing_behind() {
    let store = Fake::new("store", &["alice"]);
    let directory = directory(&[&store], None);
    store.fail(Some(broken()));
    assert!(is_unavailable(&directory.answer(user("alice")).await));
    drop(directory);
    sleep(Duration::from_secs(60)).await;
    assert!(store.probed() <= 1, "{}", store.probed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_the_timeout_twice() {
    let (one, two) = (Fake::new("1", &["alice"]), Fake::new("22", &["bob"]));
    let directory = directory(&[&one, &two], None);
    two.delay(Duration::from_secs(3600));
    for _ in 0..2 {
        assert!(directory.report()[1].is_up, "one user may be hard to find");
        let start = Instant::now();
        assert!(is_unavailable(&directory.answer(user("bob")).await));
        assert!(start.elapsed() <= TIMEOUT + Duration::from_millis(10), "{:?}", start.elapsed());
    }
    let start = Instant::now();
    assert!(is_unavailable(&directory.answer(user("carol")).await));
    assert_eq!(told_by(&directory.answer(user("alice")).await), Some(1));
    assert!(start.elapsed() < Duration::from_millis(10), "{:?}", start.elapsed());
    let report = &directory.report()[1];
    assert_eq!((report.is_up, report.timeout, report.failed), (false, 2, 1));
    two.delay(Duration::ZERO);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(told_by(&directory.answer(user("bob")).await), Some(2));
}

#[tokio::test(start_paused = true)]
async fn whose_time_another_has_used_up_is_not_down() {
    let (slow, quick) = (Fake::new("1", &[]), Fake::new("22", &["bob"]));
    let directory = directory(&[&slow, &quick], None);
    slow.delay(Duration::from_millis(1900));
    quick.delay(Duration::from_millis(200));
    assert!(is_unavailable(&directory.answer(user("bob")).await));
    let report = directory.report();
    assert_eq!(report.iter().map(|store| (store.is_up, store.timeout)).collect::<Vec<_>>(), [(true, 0), (true, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_about_one_user_is_there_for_the_others() {
    let store = Fake::new("store", &["alice"]);
    let directory = directory(&[&store], None);
    store.fail_questions(broken());
    for _ in 0..3 {
        assert!(is_unavailable(&directory.answer(user("bob")).await));
    }
    assert!(directory.report()[0].is_up && store.probed() == 3);
    store.fail(None);
    // Nor is it down as long as somebody has an answer in between.
    for _ in 0..3 {
        store.delay(2 * TIMEOUT);
        assert!(is_unavailable(&directory.answer(user("bob")).await));
        store.delay(Duration::ZERO);
        assert_eq!(told_by(&directory.answer(user("alice")).await), Some(5));
    }
    assert!(directory.report()[0].is_up);
}

#[tokio::test(start_paused = true)]
async fn who_looks_knows_what_is_down_before_anybody_asks() {
    let (one, two) = (Fake::new("1", &["alice"]), Fake::new("22", &["bob"]));
    let directory = directory(&[&one, &two], None);
    two.fail(Some(broken()));
    directory.look().await;
    assert_eq!(directory.report().iter().map(|store| store.is_up).collect::<Vec<_>>(), [true, false]);
    two.fail(None);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(told_by(&directory.answer(user("bob")).await), Some(2), "it is tried again");
}

#[tokio::test(start_paused = true)]
async fn one_bad_entry_or_slow_hash_is_not_the_whole_store() {
    let store = Fake::new("store", &["alice"]);
    let directory = directory(&[&store], None);
    store.fail_questions(StoreError::Entry { what: "hmackey", why: "no key".to_owned() });
    assert!(is_unavailable(&directory.answer(user("alice")).await), "whoever it is, it is not unknown");
    store.fail_questions(StoreError::Timeout);
    store.delay(TIMEOUT);
    assert!(is_unavailable(&directory.answer(hash_of("alice")).await));
    let report = &directory.report()[0];
    assert_eq!((report.is_up, report.failed, report.timeout), (true, 1, 1));
    assert_eq!(report.last_error.as_ref().unwrap().text, "no answer in time");
    store.fail(None);
    store.delay(Duration::ZERO);
    assert_eq!(told_by(&directory.answer(user("alice")).await), Some(5));
}

#[tokio::test(start_paused = true)]
async fn equal_questions_are_asked_once() {
    let store = Fake::new("store", &["alice"]);
    let directory = directory(&[&store], None);
    store.delay(Duration::from_millis(100));
    let elsewhere = |index: u16| {
        let mut question = user("alice");
        question.client.set_port(index + 1);
        question
    };
    let answers = ask_all(&directory, (0..1000).map(elsewhere)).await;
    assert!(answers.iter().all(|answer| told_by(answer) == Some(5)));
    assert_eq!(store.asked(), 1, "where a client is makes no difference to a database");
    directory.answer(user("alice")).await;
    assert_eq!(store.asked(), 2, "nothing is kept");
}

#[tokio::test(start_paused = true)]
async fn what_differs_for_a_webhook_is_another_question() {
    let (store, webhook) = (Fake::new("1", &[]), Fake::new("22", &["alice"]));
    let directory = directory(&[&store], Some(&webhook));
    webhook.delay(Duration::from_millis(100));
    for question in [user("alice"), admission("alice")] {
        let before = webhook.asked();
        let elsewhere = |index: u8| {
            let mut question = question.clone();
            question.client.set_ip([192, 0, 2, index % 2].into());
            question
        };
        ask_all(&directory, (0..100).map(elsewhere)).await;
        assert_eq!(webhook.asked() - before, 2, "{question:?}: one for each client");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_takes_nobody_along() {
    let store = Fake::new("store", &["alice"]);
    let directory = directory(&[&store], None);
    store.delay(Duration::from_millis(500));
    let first = tokio::spawn({
        let directory = directory.clone();
        async move { directory.answer(user("alice")).await }
    });
    sleep(Duration::from_millis(100)).await;
    let second = tokio::spawn({
        let directory = directory.clone();
        async move { directory.answer(user("alice")).await }
    });
    sleep(Duration::from_millis(100)).await;
    first.abort();
    assert_eq!(told_by(&second.await.unwrap()), Some(5));
    assert_eq!(store.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn few_are_asked_at_once_and_few_wait() {
    let store = Fake::new("store", &[]);
    let directory = directory_with(&[&store], None, 64);
    store.delay(Duration::from_millis(50));
    let names = |count: usize| (0..count).map(|index| user(&format!("user{index}")));
    let answers = ask_all(&directory, names(1000)).await;
    assert!(answers.iter().all(is_refused));
    assert_eq!((store.asked(), store.most()), (1000, 64));
    // 64 are asked, 960 wait; the others are too many.
    let answers = ask_all(&directory, names(2000)).await;
    assert_eq!(answers.iter().filter(|answer| is_unavailable(answer)).count(), 2000 - 64 * 16);
    assert!(is_refused(&directory.answer(user("alice")).await), "that was all forgotten");
    // Whose turn does not come in time gets no answer, and that is not the store's fault.
    store.delay(Duration::from_millis(500));
    let answers = ask_all(&directory, names(1000)).await;
    let unavailable = answers.iter().filter(|answer| is_unavailable(answer)).count();
    assert!((1000 - 64 * 4..=1000 - 64 * 3).contains(&unavailable), "{unavailable}");
    assert!(directory.report()[0].is_up);
}

#[tokio::test(start_paused = true)]
async fn hashes_leave_the_others_their_turns() {
    let store = Fake::new("store", &["alice"]);
    let directory = directory_with(&[&store], None, 16);
    store.delay(Duration::from_millis(1500));
    let hashes = tokio::spawn({
        let directory = directory.clone();
        async move { ask_all(&directory, (0..200).map(|index| hash_of(&format!("user{index}")))).await }
    });
    sleep(Duration::from_millis(10)).await;
    assert_eq!(store.asked(), 2);
    store.delay(Duration::ZERO);
    let start = Instant::now();
    assert_eq!(told_by(&directory.answer(user("alice")).await), Some(5));
    assert!(start.elapsed() < Duration::from_millis(10), "{:?}", start.elapsed());
    hashes.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_questions_is_counted() {
    let (store, webhook) = (Fake::new("store", &["alice"]), Fake::new("webhook", &[]));
    let directory = directory(&[&store], Some(&webhook));
    store.delay(Duration::from_millis(20));
    directory.answer(user("alice")).await;
    directory.answer(user("bob")).await;
    store.fail(Some(broken()));
    directory.answer(user("carol")).await;
    directory.answer(user("dave")).await;
    let reports = directory.report();
    let report = &reports[0];
    assert_eq!((report.name.as_str(), report.is_up), ("store", false));
    assert_eq!((report.found, report.unknown, report.failed, report.timeout), (1, 1, 2, 0));
    assert_eq!((report.count, report.buckets), (3, [0, 0, 0, 0, 0, 3, 0, 0, 0, 0]), "the last was not asked");
    assert!(report.sum >= Duration::from_millis(60) && report.sum < Duration::from_millis(70), "{:?}", report.sum);
    let error = report.last_error.as_ref().unwrap();
    assert_eq!(error.text, "unreachable: gone");
    assert!(error.at.elapsed().unwrap() < Duration::from_secs(60));
    let report = &reports[1];
    assert_eq!((report.name.as_str(), report.is_up, report.unknown), ("webhook", true, 1));
    assert_eq!(report.last_error, None);
}

#[tokio::test(start_paused = true)]
async fn probes_ask_each_within_the_timeout() {
    let (one, two, webhook) = (Fake::new("1", &[]), Fake::new("22", &[]), Fake::new("333", &[]));
    let directory = directory(&[&one, &two], Some(&webhook));
    one.delay(Duration::from_secs(3600));
    two.fail(Some(broken()));
    let start = Instant::now();
    let probes = directory.probe().await;
    assert!(start.elapsed() <= TIMEOUT + Duration::from_millis(10), "{:?}", start.elapsed());
    let names = ["1", "22", "333"].map(str::to_owned);
    let results = [Err(StoreError::Timeout), Err(broken()), Ok(())];
    assert_eq!(probes, names.into_iter().zip(results).collect::<Vec<_>>());
}

thread_local! {
    /// What this thread logged.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes to the log of the thread that logs.
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_and_comes_is_logged_once_each() {
    // For the whole process: whether anybody listens is decided once for each line, in the thread
    // that meets it first, and that may be another test's.
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
    tracing::callsite::rebuild_interest_cache();
    let store = Fake::new("cellar", &["alice"]);
    let directory = directory(&[&store], None);
    store.fail(Some(broken()));
    for _ in 0..100 {
        directory.answer(user("alice")).await;
        sleep(Duration::from_millis(100)).await;
    }
    store.fail(None);
    sleep(Duration::from_secs(2)).await;
    directory.answer(user("alice")).await;
    let text = String::from_utf8(LOG.take()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("WARN") && lines[0].contains("cellar") && lines[0].contains("gone"), "{text}");
    assert!(lines[1].contains("INFO") && lines[1].contains("cellar") && lines[1].contains("back"), "{text}");
    assert!(!text.contains("alice"), "{text}");
}
