//! Asks the stores in order.

mod report;
mod watched;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hairpin_proto::address::Transport;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

pub use report::{BUCKETS, LastError, StoreReport};

use crate::{Answer, Grant, Question, Store, StoreError, Subject};
use watched::Watched;

/// For each question that is asked, so many may wait. More are turned away: memory is not for whoever asks for more.
const WAITING: usize = 16;

/// One in so many questions may be about the hash of a name, which takes databases longer.
const HASHES: usize = 8;

/// Whom a directory asks, and how long.
pub struct Options {
    /// Who is asked for users, secrets and keys of tokens, in this order. The first that knows decides.
    pub stores: Vec<Box<dyn Store>>,
    /// Who is asked for users that no store knows, and alone for admissions.
    pub webhook: Option<Box<dyn Store>>,
    /// After this long an answer is [`Answer::Unavailable`].
    pub timeout: Duration,
    /// How many different questions are asked at once. Others wait, and their time runs.
    pub in_flight: usize,
}

/// Where users are looked for. Cheap to clone: clones are the same directory.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    stores: Vec<Arc<Watched>>,
    webhook: Option<Arc<Watched>>,
    timeout: Duration,
    /// What is asked now, and where the answer will be.
    asked: Mutex<HashMap<Question, watch::Receiver<Option<Answer>>>>,
    most_asked: usize,
    turns: Semaphore,
    hash_turns: Semaphore,
}

impl Directory {
    /// A directory of these stores. Nothing is asked yet.
    pub fn new(options: Options) -> Self {
        let Options { stores, webhook, timeout, in_flight } = options;
        let in_flight = in_flight.clamp(1, Semaphore::MAX_PERMITS / WAITING);
        Self(Arc::new(Inner {
            stores: stores.into_iter().map(Watched::new).collect(),
            webhook: webhook.map(Watched::new),
            timeout,
            asked: Mutex::default(),
            most_asked: in_flight * WAITING,
            turns: Semaphore::new(in_flight),
            hash_turns: Semaphore::new((in_flight / HASHES).max(1)),
        }))
    }

    /// Answers a question within the timeout. Runs on tokio, with its timers.
    ///
    /// A question that is being asked already is not asked again: both get the same answer.
    pub async fn answer(&self, question: Question) -> Answer {
        let Some(mut answer) = self.ask_once(question) else { return Answer::Unavailable };
        let told = answer.wait_for(Option::is_some).await;
        told.ok().and_then(|answer| answer.clone()).unwrap_or(Answer::Unavailable)
    }

    /// Whether admissions are asked of anybody. If not, whoever has proven to be a user is let in.
    pub fn has_webhook(&self) -> bool {
        self.0.webhook.is_some()
    }

    /// Asks each store whether it is there, within the timeout, by its name.
    pub async fn probe(&self) -> Vec<(String, Result<(), StoreError>)> {
        let mut probes = tokio::task::JoinSet::new();
        for (index, store) in self.all().cloned().enumerate() {
            let timeout = self.0.timeout;
            probes.spawn(async move { (index, store.name().to_owned(), store.probe(timeout).await) });
        }
        let mut results = probes.join_all().await;
        results.sort_unstable_by_key(|(index, ..)| *index);
        results.into_iter().map(|(_, name, result)| (name, result)).collect()
    }

    /// Finds out which stores are there, so that who is told how they are need not wait until somebody asks them.
    pub async fn look(&self) {
        let mut looks = tokio::task::JoinSet::new();
        for store in self.all() {
            let (store, timeout) = (Arc::clone(store), self.0.timeout);
            looks.spawn(async move { store.look(timeout).await });
        }
        looks.join_all().await;
    }

    /// What has become of the questions to each store, the webhook last.
    pub fn report(&self) -> Vec<StoreReport> {
        self.all().map(|store| store.report()).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Watched>> {
        self.0.stores.iter().chain(&self.0.webhook)
    }

    /// Where the answer will be. Nothing: too much is asked already.
    fn ask_once(&self, question: Question) -> Option<watch::Receiver<Option<Answer>>> {
        let key = self.0.key(&question);
        let mut asked = self.0.asked();
        let is_full = asked.len() >= self.0.most_asked;
        let vacant = match asked.entry(key) {
            Entry::Occupied(entry) => return Some(entry.get().clone()),
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(entry) => entry,
        };
        let (teller, answer) = watch::channel(None);
        let key = vacant.key().clone();
        vacant.insert(answer.clone());
        drop(asked);
        // A task of its own: whoever asked first may stop waiting, and others have joined.
        let pending = Pending { inner: Arc::clone(&self.0), key };
        tokio::spawn(async move {
            let answer = pending.inner.ask(&question).await;
            drop(pending);
            let _ = teller.send(Some(answer));
        });
        Some(answer)
    }
}

/// A question that is being asked: no longer when this is dropped.
struct Pending {
    inner: Arc<Inner>,
    key: Question,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.inner.asked().remove(&self.key);
    }
}

impl Inner {
    fn asked(&self) -> MutexGuard<'_, HashMap<Question, watch::Receiver<Option<Answer>>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What makes a question the same as another. Databases are not told where a client is, so that is no difference,
    /// but a webhook is, and it may like one client and not another.
    fn key(&self, question: &Question) -> Question {
        let is_told = match question.subject {
            Subject::User(_) => self.webhook.is_some(),
            Subject::UserHash(_) | Subject::TokenKey(_) => false,
            Subject::Admission { .. } => true,
        };
        let mut key = question.clone();
        if !is_told {
            let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            (key.client, key.server, key.transport) = (nowhere, nowhere, Transport::Udp);
        }
        key
    }

    async fn ask(&self, question: &Question) -> Answer {
        let end = Instant::now() + self.timeout;
        let turns = if matches!(question.subject, Subject::UserHash(_)) { &self.hash_turns } else { &self.turns };
        let Ok(Ok(_turn)) = timeout_at(end, turns.acquire()).await else { return Answer::Unavailable };
        let (stores, webhook): (&[_], _) = match question.subject {
            Subject::User(_) => (&self.stores, self.webhook.as_ref()),
            Subject::UserHash(_) | Subject::TokenKey(_) => (&self.stores, None),
            Subject::Admission { .. } if self.webhook.is_none() => return Answer::Admitted(Grant::default()),
            Subject::Admission { .. } => (&[], self.webhook.as_ref()),
        };
        for store in stores.iter().chain(webhook) {
            match store.ask(question, self.timeout, end).await {
                // It does not know: the next one may.
                Some(Answer::Refused) => {}
                Some(answer) => return answer,
                // It may know, and the next one may know another of that name.
                None => return Answer::Unavailable,
            }
        }
        Answer::Refused
    }
}
