//! Page tokens: what the status page shows to read about users and addresses with. They are kept in memory only, as codes,
//! and end by themselves.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use super::Admin;
use super::problem::Refusal;
use crate::api;
use crate::clock::unix_seconds;
use crate::random::{self, NoRandomness};

/// How long one is good: a day's work.
pub(super) const VALIDITY: Duration = Duration::from_secs(12 * 3600);
/// How many there are at once. One more takes the place of the oldest.
const MOST: usize = 64;

/// Those that are good, or were until lately, the oldest first.
#[derive(Default)]
pub(super) struct PageTokens(VecDeque<Issued>);

struct Issued {
    tag: hmac::Tag,
    /// On the monotonic clock, in nanoseconds.
    expires: u64,
}

impl PageTokens {
    /// Whether there have been none lately.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes one.
    pub(super) fn issue(&mut self, key: &hmac::Key, now: u64) -> Result<String, NoRandomness> {
        let token = URL_SAFE_NO_PAD.encode(random::bytes::<24>()?);
        self.0.retain(|issued| now < issued.expires);
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        let expires = now.saturating_add(VALIDITY.as_nanos() as u64);
        self.0.push_back(Issued { tag: hmac::sign(key, token.as_bytes()), expires });
        Ok(token)
    }

    /// Whether a token is good. All are compared, whether or not one was right.
    pub(super) fn has(&self, key: &hmac::Key, token: &[u8], now: u64) -> bool {
        let good = self.0.iter().filter(|issued| now < issued.expires);
        good.fold(false, |known, issued| known | hmac::verify(key, token, issued.tag.as_ref()).is_ok())
    }
}

/// Makes a token for the status page, which may read what the page shows, for twelve hours, and nothing else.
#[utoipa::path(post, path = "/v1/page-tokens", operation_id = "issue_page_token", tag = "relay", responses(
    (status = 200, description = "The token, and the page with it", body = api::PageToken),
    (status = 409, description = "No page is served: `--admin` is off", body = api::Problem),
))]
pub(super) async fn issue(State(admin): State<Admin>) -> Result<impl IntoResponse, Refusal> {
    let Some(origin) = &admin.origin else {
        let error =
            "the status page is served at --admin, which is off: set it to 127.0.0.1:9641, and restart the relay";
        return Err(Refusal::new(StatusCode::CONFLICT, error));
    };
    let token = admin.gate.issue_page_token();
    let token = token.map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let (expires, url) = (unix_seconds() + VALIDITY.as_secs(), format!("{origin}/#token={token}"));
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(api::PageToken { token, expires, url })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, b"a key")
    }

    #[test]
    fn a_token_is_good_for_twelve_hours() {
        let (key, mut tokens) = (key(), PageTokens::default());
        let token = tokens.issue(&key, HOUR).unwrap();
        assert!(tokens.has(&key, token.as_bytes(), 13 * HOUR - 1));
        assert!(!tokens.has(&key, token.as_bytes(), 13 * HOUR));
        for other in [&token[1..], "", &token.to_lowercase()] {
            assert!(!tokens.has(&key, other.as_bytes(), HOUR), "{other}");
        }
    }

    #[test]
    fn of_too_many_the_oldest_ends() {
        let (key, mut tokens) = (key(), PageTokens::default());
        let issued: Vec<_> = (0..=MOST as u64).map(|now| tokens.issue(&key, now).unwrap()).collect();
        let good: Vec<_> = issued.iter().map(|token| tokens.has(&key, token.as_bytes(), HOUR)).collect();
        assert!(!good[0] && good[1..].iter().all(|good| *good), "{good:?}");
    }

    #[test]
    fn those_whose_time_is_over_make_room() {
        let (key, mut tokens) = (key(), PageTokens::default());
        let old = tokens.issue(&key, 0).unwrap();
        (1..MOST).for_each(|_| drop(tokens.issue(&key, HOUR)));
        let newest = tokens.issue(&key, 12 * HOUR).unwrap();
        assert_eq!(tokens.0.len(), MOST);
        assert!(tokens.has(&key, newest.as_bytes(), 12 * HOUR) && !tokens.has(&key, old.as_bytes(), 12 * HOUR));
    }
}
