//! A store that does as it is told.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hairpin_proto::stun::PasswordKeys;
use hairpin_users::{Answer, Grant, Question, Store, StoreError, Subject, User, Work};

/// A store that does as it is told. Clones are the same store.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Inner>);

struct Inner {
    name: &'static str,
    known: Mutex<HashSet<String>>,
    error: Mutex<Option<StoreError>>,
    probe_error: Mutex<Option<StoreError>>,
    delay: Mutex<Duration>,
    asked: AtomicUsize,
    probed: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Fake {
    /// One that knows these users, whose relayed address tells who has told of them.
    pub(crate) fn new(name: &'static str, known: &[&str]) -> Self {
        let known = known.iter().map(|&name| name.to_owned()).collect();
        Self(Arc::new(Inner {
            name,
            known: Mutex::new(known),
            error: Mutex::default(),
            probe_error: Mutex::default(),
            delay: Mutex::default(),
            asked: AtomicUsize::new(0),
            probed: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn boxed(&self) -> Box<dyn Store> {
        Box::new(self.clone())
    }

    /// Fails from now on, or does not.
    pub(crate) fn fail(&self, error: Option<StoreError>) {
        self.0.probe_error.lock().unwrap().clone_from(&error);
        *self.0.error.lock().unwrap() = error;
    }

    /// Fails from now on whatever is asked, but for whether it is there.
    pub(crate) fn fail_questions(&self, error: StoreError) {
        *self.0.error.lock().unwrap() = Some(error);
    }

    /// How long an answer takes from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        *self.0.delay.lock().unwrap() = delay;
    }

    /// How many questions came.
    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// How often it was asked whether it is there.
    pub(crate) fn probed(&self) -> usize {
        self.0.probed.load(Ordering::SeqCst)
    }

    /// How many questions there were at once, at most.
    pub(crate) fn most(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }

    fn find(&self, question: &Question) -> Answer {
        let grant = Grant { addresses: Vec::new(), allocations: Some(self.0.name.len() as u32) };
        match &question.subject {
            Subject::User(name) if self.0.known.lock().unwrap().contains(&**name) => {
                let keys = PasswordKeys::derive(name, &question.realm, "sesame");
                Answer::User(User { name: name.clone(), keys, grant, is_admitted: false })
            }
            Subject::Admission { username, .. } if self.0.known.lock().unwrap().contains(&**username) => {
                Answer::Admitted(grant)
            }
            _ => Answer::Refused,
        }
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Store for Fake {
    fn name(&self) -> &str {
        self.0.name
    }

    fn answer<'a>(&'a self, question: &'a Question) -> Work<'a, Answer> {
        Box::pin(async {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.0.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.0.most.fetch_max(now, Ordering::SeqCst);
            let _counted = Counted(&self.0.now);
            let delay = *self.0.delay.lock().unwrap();
            tokio::time::sleep(delay).await;
            let error = self.0.error.lock().unwrap().clone();
            error.map_or_else(|| Ok(self.find(question)), Err)
        })
    }

    fn probe(&self) -> Work<'_, ()> {
        Box::pin(async {
            self.0.probed.fetch_add(1, Ordering::SeqCst);
            let delay = *self.0.delay.lock().unwrap();
            tokio::time::sleep(delay).await;
            let error = self.0.probe_error.lock().unwrap().clone();
            error.map_or(Ok(()), Err)
        })
    }
}
