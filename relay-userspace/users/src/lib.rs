//! Where users are kept: whoever drives a server brings its [`Question`]s here and gets [`Answer`]s.
//!
//! A [`Store`] is one place: a database with coturn's tables, a key-value store with coturn's keys, or an authorization
//! server that is asked by HTTP. [`Directory`] asks them in order, each question once however often it is asked
//! meanwhile, and ends within its timeout whatever the servers do.
//!
//! What is known of nobody is never told: a dead database makes an answer [`Answer::Unavailable`], not
//! [`Answer::Refused`].

mod directory;
mod error;
mod hex;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis", feature = "webhook"))]
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "redis")),
    allow(dead_code, reason = "a webhook alone has no tables")
)]
mod layout;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod lease;
mod open;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tls")]
#[cfg_attr(
    not(all(feature = "postgres", feature = "redis", feature = "webhook")),
    allow(dead_code, reason = "what has TLS of its own only needs the file read")
)]
mod tls;
mod url;
pub mod users_file;
#[cfg(feature = "webhook")]
mod webhook;

use std::pin::Pin;

pub use hairpin_proto::turn::{Answer, Grant, Question, Subject, User};

pub use directory::{BUCKETS, Directory, LastError, Options, StoreReport};
pub use error::StoreError;
pub use open::{StoreOptions, open};
pub use url::{StoreKind, StoreUrl, StoreUrlError};
#[cfg(feature = "webhook")]
pub use webhook::{Webhook, WebhookError, WebhookOptions};

/// What a store is working on.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A place where users are kept.
pub trait Store: Send + Sync {
    /// The name in metrics and logs. No secret is in it.
    fn name(&self) -> &str;

    /// Answers a question. [`Answer::Refused`] says that nothing is known here, so that the next store is asked. May be
    /// given up at any time.
    fn answer<'a>(&'a self, question: &'a Question) -> Work<'a, Answer>;

    /// Whether the server is there and would answer.
    fn probe(&self) -> Work<'_, ()>;
}
