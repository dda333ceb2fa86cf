//! Asks the stores in order.

mod report;

use std::time::Duration;

pub use report::{BUCKETS, LastError, StoreReport};

use crate::{Answer, Question, Store, StoreError};

/// Whom a directory asks, and how long.
pub struct Options {
    /// Who is asked for users, secrets and keys of tokens, in this order. The first that knows decides.
    pub stores: Vec<Box<dyn Store>>,
    /// Who is asked for users that no store knows, and alone for admissions.
    pub webhook: Option<Box<dyn Store>>,
    /// After this long an answer is [`Answer::Unavailable`].
    pub timeout: Duration,
    /// How many questions are asked at once. Others wait, and their time runs.
    pub in_flight: usize,
}

/// Where users are looked for. Cheap to clone: clones are the same directory.
#[derive(Clone)]
pub struct Directory {}

impl Directory {
    /// A directory of these stores. Nothing is asked yet.
    pub fn new(_options: Options) -> Self {
        Self {}
    }

    /// Answers a question within the timeout. Runs on tokio, with its timers.
    #[expect(clippy::unused_async, reason = "as it will be")]
    pub async fn answer(&self, _question: Question) -> Answer {
        Answer::Unavailable
    }

    /// Whether admissions are asked of anybody. If not, whoever has proven to be a user is let in.
    pub fn has_webhook(&self) -> bool {
        false
    }

    /// Asks each store whether it is there, within the timeout, by its name.
    #[expect(clippy::unused_async, reason = "as it will be")]
    pub async fn probe(&self) -> Vec<(String, Result<(), StoreError>)> {
        Vec::new()
    }

    /// What has become of the questions to each store, the webhook last.
    pub fn report(&self) -> Vec<StoreReport> {
        Vec::new()
    }
}
