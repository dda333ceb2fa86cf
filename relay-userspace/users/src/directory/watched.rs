//! A store, and whether it is up.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::report::{Counters, LastError, Outcome, StoreReport};
use crate::{Answer, Question, Store, StoreError, Subject};

/// A store that is down is tried again after so long, and then after twice as long each time...
const FIRST_TRY: Duration = Duration::from_millis(100);

/// ...up to so long.
const LAST_TRY: Duration = Duration::from_secs(1);

/// A store is down when so many questions in a row had no answer in time.
const LATE: u32 = 2;

/// How often the log is told of answers that are none.
const REST: Duration = Duration::from_secs(10);

/// A store, and whether it is up. Nothing is asked of one that is down but whether it is back, so that nobody waits for
/// it, and it is not met by everybody who has waited when it comes back.
pub(super) struct Watched {
    store: Box<dyn Store>,
    is_down: AtomicBool,
    counters: Counters,
    last_error: Mutex<Option<LastError>>,
    /// Questions in a row that had no answer in time.
    late: AtomicU32,
    /// When the log was told last of an answer that is none.
    told: Mutex<Option<Instant>>,
}

impl Watched {
    pub(super) fn new(store: Box<dyn Store>) -> Arc<Self> {
        let (is_down, counters, last_error) = (AtomicBool::new(false), Counters::default(), Mutex::new(None));
        let (late, told) = (AtomicU32::new(0), Mutex::new(None));
        Arc::new(Self { store, is_down, counters, last_error, late, told })
    }

    /// Asks, until a time. None: it could not tell.
    pub(super) async fn ask(self: &Arc<Self>, question: &Question, limit: Duration, end: Instant) -> Option<Answer> {
        if self.is_down.load(Ordering::Acquire) {
            self.counters.count(Outcome::Failed);
            return None;
        }
        let start = Instant::now();
        let result = timeout_at(end, self.store.answer(question)).await;
        let took = start.elapsed();
        self.counters.took(took);
        if matches!(result, Ok(Ok(_))) {
            self.late.store(0, Ordering::Relaxed);
        }
        match result {
            Ok(Ok(Answer::Refused)) => {
                self.counters.count(Outcome::Unknown);
                Some(Answer::Refused)
            }
            Ok(Ok(Answer::Unavailable)) => {
                self.counters.count(Outcome::Failed);
                None
            }
            Ok(Ok(answer)) => {
                self.counters.count(Outcome::Found);
                Some(answer)
            }
            Ok(Err(error @ StoreError::Entry { .. })) => {
                self.counters.count(Outcome::Failed);
                self.note(&error);
                self.tell(question, &error);
                None
            }
            Ok(Err(StoreError::Timeout)) | Err(_) => {
                self.counters.count(Outcome::Timeout);
                self.note(&StoreError::Timeout);
                // A store is not down because another has used up the time, or because a name is long to look for.
                let was_long = took >= limit / 2 && !matches!(question.subject, Subject::UserHash(_));
                // Nor because it finds no end about one user, whom somebody may have chosen.
                if was_long && self.late.fetch_add(1, Ordering::Relaxed) + 1 >= LATE {
                    self.go_down(&StoreError::Timeout, limit);
                }
                None
            }
            Ok(Err(error)) => {
                self.counters.count(Outcome::Failed);
                self.note(&error);
                // It may fail about this user alone: then it is there for the others.
                let rest = end.saturating_duration_since(Instant::now()).min(LAST_TRY);
                if self.probe(rest).await.is_err() {
                    self.go_down(&error, limit);
                } else {
                    self.tell(question, &error);
                }
                None
            }
        }
    }

    /// Finds out whether it is there, before anybody asks.
    pub(super) async fn look(self: &Arc<Self>, limit: Duration) {
        if let Err(error) = self.probe(limit).await {
            self.go_down(&error, limit);
        }
    }

    /// Asks whether it is there.
    pub(super) async fn probe(&self, limit: Duration) -> Result<(), StoreError> {
        let result = timeout(limit, self.store.probe()).await.unwrap_or(Err(StoreError::Timeout));
        if let Err(error) = &result {
            self.note(error);
        }
        result
    }

    pub(super) fn name(&self) -> &str {
        self.store.name()
    }

    pub(super) fn report(&self) -> StoreReport {
        let last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.counters.report(self.name(), !self.is_down.load(Ordering::Acquire), last_error)
    }

    fn note(&self, error: &StoreError) {
        let error = LastError { text: in_one_line(error), at: SystemTime::now() };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn go_down(self: &Arc<Self>, error: &StoreError, limit: Duration) {
        if !self.is_down.swap(true, Ordering::AcqRel) {
            let error = in_one_line(error);
            self.late.store(0, Ordering::Relaxed);
            warn!(store = self.name(), error, "a store of users is down: whom it may know gets no answer");
            tokio::spawn(watch(Arc::downgrade(self), limit));
        }
    }
}

impl Watched {
    /// Tells of a question that a store cannot answer although it is there, once in a while.
    fn tell(&self, question: &Question, error: &StoreError) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= REST) {
            *told = Some(Instant::now());
            let user = match &question.subject {
                Subject::User(name) | Subject::TokenKey(name) => name,
                Subject::Admission { username, .. } => username,
                Subject::UserHash(_) => "",
            };
            let error = in_one_line(error);
            info!(store = self.name(), user, error, "a store of users has no answer about this one");
        }
    }
}

/// What a server says may have several lines.
fn in_one_line(error: &StoreError) -> String {
    error.to_string().split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Tries a store until it is back, or nobody has it any more.
async fn watch(store: Weak<Watched>, limit: Duration) {
    let since = Instant::now();
    let mut pause = FIRST_TRY;
    let mut next = since + pause;
    loop {
        sleep(next.saturating_duration_since(Instant::now())).await;
        let Some(store) = store.upgrade() else { return };
        pause = (pause * 2).min(LAST_TRY);
        next = Instant::now() + pause;
        if store.probe(limit.min(LAST_TRY)).await.is_ok() {
            store.is_down.store(false, Ordering::Release);
            info!(store = store.name(), seconds = since.elapsed().as_secs_f64(), "a store of users is back");
            return;
        }
    }
}
