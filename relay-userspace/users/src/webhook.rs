//! An authorization server that is asked by HTTP.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Answer, Question, Store, StoreError, Work};

/// Who is asked, and how.
#[derive(Clone)]
pub struct WebhookOptions {
    /// `http://` or `https://`.
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// The authorities that may have signed the server's certificate, as PEM; the system's if there is none.
    pub roots: Option<PathBuf>,
    /// How long a question may take. Connections are given up after that.
    pub timeout: Duration,
}

/// Why options are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// Not a URL of a server.
    #[error("the URL of a webhook is http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH")]
    Url,
    /// Not a token.
    #[error("a token is printable ASCII without spaces")]
    Token,
    /// The authorities can't be read.
    #[error("{0}")]
    Roots(String),
}

/// An authorization server.
pub struct Webhook {}

impl Webhook {
    /// One that is asked as the options say. Nothing is connected yet.
    pub fn new(_options: &WebhookOptions) -> Result<Self, WebhookError> {
        Err(WebhookError::Url)
    }
}

impl Store for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn answer<'a>(&'a self, _question: &'a Question) -> Work<'a, Answer> {
        Box::pin(async { Ok(Answer::Unavailable) })
    }

    fn probe(&self) -> Work<'_, ()> {
        Box::pin(async { Err(StoreError::Timeout) })
    }
}
