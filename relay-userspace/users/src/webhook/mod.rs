//! An authorization server that is asked by HTTP.
//!
//! It gets a POST with a JSON object, and answers with another; 401, 403 and 404 say no as well as `"allow": false`.
//! Whatever else it says is no answer, and nobody is let in by it.

mod cache;
mod connection;
mod json;

use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode, Uri};
use tokio::time::timeout;

use crate::layout::wrong;
use crate::{Answer, Question, Store, StoreError, Subject, Work};
use cache::Cache;
use connection::Server;

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
    #[error("the URL of a webhook is http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH, without a login")]
    Url,
    /// Not a token.
    #[error("a token is printable ASCII without spaces")]
    Token,
    /// The authorities can't be read.
    #[error("{0}")]
    Roots(String),
}

/// An authorization server. It may say how long an answer holds, and is not asked again until then.
pub struct Webhook {
    server: Server,
    timeout: Duration,
    cache: Cache,
}

impl Webhook {
    /// One that is asked as the options say. Nothing is connected yet.
    pub fn new(options: &WebhookOptions) -> Result<Self, WebhookError> {
        let uri: Uri = options.url.parse().map_err(|_| WebhookError::Url)?;
        let token = options.token.as_deref().map(authorization).transpose()?;
        let server = Server::new(&uri, token, options.roots.as_deref())?;
        Ok(Self { server, timeout: options.timeout, cache: Cache::default() })
    }

    async fn ask(&self, question: &Question) -> Result<Answer, StoreError> {
        let Some(body) = json::question(question) else { return Ok(Answer::Refused) };
        if let Some(answer) = self.cache.get(question) {
            return Ok(answer);
        }
        let (status, body) = self.server.send(Method::POST, body).await?;
        match status {
            StatusCode::OK => {
                let (answer, lasts) = json::answer(&body, question)?;
                self.cache.put(question, &answer, lasts);
                Ok(answer)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(Answer::Refused),
            status if is_absent(status) => Err(StoreError::Unreachable(format!("it answers {status}"))),
            // It may have stumbled over this question alone.
            status => Err(wrong("answer", format!("it answers {status}"))),
        }
    }
}

impl Store for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn answer<'a>(&'a self, question: &'a Question) -> Work<'a, Answer> {
        Box::pin(async { timeout(self.timeout, self.ask(question)).await.unwrap_or(Err(StoreError::Timeout)) })
    }

    fn probe(&self) -> Work<'_, ()> {
        Box::pin(async {
            let asked = timeout(self.timeout, self.server.send(Method::OPTIONS, Vec::new())).await;
            match asked.unwrap_or(Err(StoreError::Timeout))? {
                (status, _) if is_absent(status) => Err(StoreError::Unreachable(format!("it answers {status}"))),
                // Whether it likes the method or not: it is there.
                _ => Ok(()),
            }
        })
    }
}

/// Whether a proxy says that the server is not there, or the server that it can't work.
fn is_absent(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

fn authorization(token: &str) -> Result<HeaderValue, WebhookError> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(WebhookError::Token);
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| WebhookError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

/// What an answer is about, in messages.
fn label(subject: &Subject) -> Option<(&'static str, &str, Option<&str>)> {
    match subject {
        Subject::User(name) => Some(("user", name, None)),
        Subject::Admission { username, account } => Some(("admission", username, Some(account))),
        Subject::UserHash(_) | Subject::TokenKey(_) => None,
    }
}
