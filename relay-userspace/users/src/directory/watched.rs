//! A store, and whether it is up.

use std::sync::atomic::{AtomicBool, Ordering};
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

/// A store, and whether it is up. Nothing is asked of one that is down but whether it is back, so that nobody waits for
/// it, and it is not met by everybody who has waited when it comes back.
pub(super) struct Watched {
    store: Box<dyn Store>,
    is_down: AtomicBool,
    counters: Counters,
    last_error: Mutex<Option<LastError>>,
}

impl Watched {
    pub(super) fn new(store: Box<dyn Store>) -> Arc<Self> {
        let (is_down, counters, last_error) = (AtomicBool::new(false), Counters::default(), Mutex::new(None));
        Arc::new(Self { store, is_down, counters, last_error })
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
                None
            }
            Ok(Err(StoreError::Timeout)) | Err(_) => {
                self.counters.count(Outcome::Timeout);
                self.note(&StoreError::Timeout);
                // A store is not down because another has used up the time, or because a name is long to look for.
                let was_long = took >= limit / 2 && !matches!(question.subject, Subject::UserHash(_));
                if was_long {
                    self.go_down(&StoreError::Timeout, limit);
                }
                None
            }
            Ok(Err(error)) => {
                self.counters.count(Outcome::Failed);
                self.note(&error);
                self.go_down(&error, limit);
                None
            }
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
        let error = LastError { text: error.to_string(), at: SystemTime::now() };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn go_down(self: &Arc<Self>, error: &StoreError, limit: Duration) {
        if !self.is_down.swap(true, Ordering::AcqRel) {
            warn!(store = self.name(), %error, "a store of users is down: whom it may know gets no answer");
            tokio::spawn(watch(Arc::downgrade(self), limit));
        }
    }
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
