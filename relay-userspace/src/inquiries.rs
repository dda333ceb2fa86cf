//! Questions about users, on their way from the shards to whoever knows, and back.
//!
//! A thread of its own asks databases and the webhook: a shard only leaves a question, and is told the answer like any other
//! command.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use arc_swap::ArcSwapOption;
use hairpin_proto::turn::{Answer, Freshness, Question};
use hairpin_users::{Directory, Options, Store, StoreOptions, Webhook, WebhookError, WebhookOptions, open};
use tokio::sync::mpsc;

use crate::config;

/// How many questions may be on their way, over all shards.
const MOST: usize = 8192;
/// How many of them are asked at once.
const AT_ONCE: usize = 256;

/// Who is told the answer.
type Reply = Box<dyn FnOnce(Question, Answer) + Send>;

/// Asks, for as long as it is there.
pub struct Inquiries {
    asker: Asker,
    directory: Arc<ArcSwapOption<Directory>>,
}

/// Leaves questions.
#[derive(Clone)]
pub struct Asker {
    questions: mpsc::UnboundedSender<(Question, Reply)>,
    on_their_way: Arc<AtomicUsize>,
}

impl Inquiries {
    /// Starts the thread that asks.
    pub fn start(directory: Option<Directory>) -> io::Result<Self> {
        let (questions, mut asked) = mpsc::unbounded_channel::<(Question, Reply)>();
        let on_their_way = Arc::new(AtomicUsize::new(0));
        let directory: Arc<ArcSwapOption<Directory>> = Arc::new(ArcSwapOption::from_pointee(directory));
        let (current, counted) = (Arc::clone(&directory), Arc::clone(&on_their_way));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("inquiries".to_owned()).spawn(move || {
            runtime.block_on(async {
                if let Some(directory) = current.load_full() {
                    tokio::spawn(async move { directory.look().await });
                }
                while let Some((question, reply)) = asked.recv().await {
                    let directory = current.load_full();
                    let counted = Arc::clone(&counted);
                    tokio::spawn(async move {
                        let answer = match directory {
                            Some(directory) => directory.answer(question.clone()).await,
                            // Nobody is left to be asked.
                            None => Answer::Refused,
                        };
                        counted.fetch_sub(1, Ordering::Relaxed);
                        reply(question, answer);
                    });
                }
            });
        })?;
        Ok(Self { asker: Asker { questions, on_their_way }, directory })
    }

    /// Asks somebody else from now on.
    pub fn ask(&self, directory: Option<Directory>) {
        self.directory.store(directory.map(Arc::new));
    }

    /// Who is asked.
    pub fn directory(&self) -> Arc<ArcSwapOption<Directory>> {
        Arc::clone(&self.directory)
    }

    /// For a shard.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }
}

impl Asker {
    /// Asks, and tells the answer, within the time that is configured. Where too much is on its way nobody can tell.
    pub fn ask(&self, question: Question, reply: impl FnOnce(Question, Answer) + Send + 'static) {
        if self.on_their_way.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.on_their_way.fetch_sub(1, Ordering::Relaxed);
            return reply(question, Answer::Unavailable);
        }
        if let Err(mpsc::error::SendError((question, reply))) = self.questions.send((question, Box::new(reply))) {
            self.on_their_way.fetch_sub(1, Ordering::Relaxed);
            reply(question, Answer::Unavailable);
        }
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("on_their_way", &self.on_their_way).finish_non_exhaustive()
    }
}

/// Whom a configuration has asked; nobody, if it names nobody. Nothing is connected yet: a server that is down now may be up
/// when it is asked.
pub fn directory(config: &config::Directory) -> anyhow::Result<Option<Directory>> {
    if config.is_empty() {
        return Ok(None);
    }
    let timeout = config.timeout;
    let stores = config.stores.iter().map(|url| open(url, &StoreOptions { timeout }).context("--user-store"));
    let webhook = config.webhook.as_ref().map(|webhook| {
        let config::Webhook { url, token, authorities } = webhook.clone();
        let webhook = Webhook::new(&WebhookOptions { url, token, roots: authorities, timeout });
        let webhook = webhook.map(|webhook| Box::new(webhook) as Box<dyn Store>);
        webhook.map_err(|error| match error {
            WebhookError::Roots(_) => anyhow::Error::from(error).context("--webhook-ca"),
            _ => anyhow::Error::from(error).context("--webhook"),
        })
    });
    Ok(Some(Directory::new(Options {
        stores: stores.collect::<Result<_, _>>()?,
        webhook: webhook.transpose()?,
        timeout,
        in_flight: AT_ONCE,
    })))
}

/// How long shards remember answers.
pub fn freshness(cache: std::time::Duration) -> Freshness {
    let default = Freshness::default();
    Freshness { found: cache, refused: default.refused.min(cache), ..default }
}
