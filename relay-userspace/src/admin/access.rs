//! Who may do what, and how often: tokens, origins, and the rate of minting. A reload changes them while requests run.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hairpin_common::limit::{Limit, Meter};
use ring::hmac;

use super::Via;
use super::page_tokens::PageTokens;
use super::problem::Refusal;
use crate::clock::monotonic_nanoseconds;
use crate::config::Rate;
use crate::random::{self, NoRandomness};

/// What the operator says about access over TCP, and about credentials.
#[derive(Clone)]
pub struct Access {
    /// Bearer tokens that allow everything.
    pub admin_tokens: Vec<String>,
    /// Bearer tokens that allow to mint credentials, and nothing else.
    pub credentials_tokens: Vec<String>,
    /// Origins whose pages may mint credentials (CORS); `*` for all.
    pub origins: Vec<String>,
    /// Mintings a second.
    pub rate: Rate,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("origins", &self.origins).field("rate", &self.rate).finish_non_exhaustive()
    }
}

/// Decides about requests, and counts those for credentials.
pub struct Gate {
    /// Tokens are kept and compared as codes under this key, which takes the same time wherever two of them differ.
    key: hmac::Key,
    rules: ArcSwap<Rules>,
    page_tokens: Mutex<PageTokens>,
    meter: Mutex<Meter>,
    minted: AtomicU64,
    refused: AtomicU64,
}

struct Rules {
    admin: Vec<hmac::Tag>,
    credentials: Vec<hmac::Tag>,
    origins: Vec<String>,
    limit: Limit,
}

/// What a path asks of who comes over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Nothing,
    CredentialsToken,
    /// Or an admin token.
    PageToken,
    AdminToken,
}

/// The one path that a credentials token is for.
pub(super) const CREDENTIALS: &str = "/v1/credentials";
/// What page tokens may read.
pub(super) const READ_BY_PAGES: [&str; 3] = ["/v1/status", "/v1/allocations", "/v1/failures"];
const PREFIX: &str = "/v1";
const BURST: u64 = 1_000_000_000;

impl Gate {
    /// Begins with these rules.
    pub fn new(access: &Access) -> Result<Self, NoRandomness> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()?);
        let rules = ArcSwap::from_pointee(Rules::new(access, &key));
        let (minted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { key, rules, page_tokens: Mutex::default(), meter: Mutex::default(), minted, refused })
    }

    /// From now on these rules hold. With other admin tokens page tokens end: that is how they are taken back.
    pub fn change(&self, access: &Access) {
        let codes = |rules: &Rules| rules.admin.iter().map(|tag| tag.as_ref().to_vec()).collect::<Vec<_>>();
        let rules = Rules::new(access, &self.key);
        if codes(&rules) != codes(&self.rules.load()) {
            *self.page_tokens() = PageTokens::default();
        }
        self.rules.store(rules.into());
    }

    /// How often credentials were minted.
    pub fn minted(&self) -> u64 {
        self.minted.load(Ordering::Relaxed)
    }

    /// How often they were not, for the rate.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether a request may be answered at all.
    pub(super) fn admit(&self, via: Via, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let asks = Asks::of(method, path);
        if via == Via::Unix || asks == Asks::Nothing {
            return Ok(());
        }
        let rules = self.rules.load();
        let may_mint = asks == Asks::CredentialsToken;
        let page_tokens = self.page_tokens();
        if rules.admin.is_empty() && page_tokens.is_empty() && (!may_mint || rules.credentials.is_empty()) {
            return Err(closed(may_mint));
        }
        let Some(token) = bearer(headers)? else { return Err(unauthorized("a bearer token is needed", false)) };
        // All are compared, whether or not one was right.
        let knows = |tags: &[hmac::Tag]| {
            tags.iter().fold(false, |known, tag| known | hmac::verify(&self.key, token, tag.as_ref()).is_ok())
        };
        let of_page = page_tokens.has(&self.key, token, monotonic_nanoseconds());
        let only = |what| Err(Refusal::new(StatusCode::FORBIDDEN, format!("this token may only {what}")));
        match (knows(&rules.admin), knows(&rules.credentials), of_page) {
            (true, ..) => Ok(()),
            (_, true, _) if may_mint => Ok(()),
            (.., true) if asks == Asks::PageToken => Ok(()),
            (_, true, _) => only("mint credentials: an admin token (--admin-token-file) is needed"),
            (.., true) => only("read what the status page shows: an admin token (--admin-token-file) is needed"),
            _ => Err(unauthorized("this bearer token is none of the relay's, or its time is over", true)),
        }
    }

    /// Makes a token for the status page.
    pub(super) fn issue_page_token(&self) -> Result<String, NoRandomness> {
        self.page_tokens().issue(&self.key, monotonic_nanoseconds())
    }

    fn page_tokens(&self) -> MutexGuard<'_, PageTokens> {
        // A panic elsewhere leaves a list that is whole.
        self.page_tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there may be one more minting now.
    pub(super) fn admit_minting(&self) -> Result<(), Refusal> {
        let limit = self.rules.load().limit;
        // A panic elsewhere leaves a number.
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        if limit.is_set() {
            let Some(admitted) = limit.admit(*meter, monotonic_nanoseconds(), 1) else {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let refusal = Refusal::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too many credentials are asked for: --credentials-rate says how many there may be in a second",
                );
                return Err(refusal.with(header::RETRY_AFTER, HeaderValue::from_static("1")));
            };
            *meter = admitted;
        }
        Ok(())
    }

    /// Counts credentials that were handed out.
    pub(super) fn count_minted(&self) {
        self.minted.fetch_add(1, Ordering::Relaxed);
    }

    /// What `Access-Control-Allow-Origin` says to a page of this origin; `None` if it may not know the answer.
    pub(super) fn allowed_origin(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let rules = self.rules.load();
        if rules.origins.iter().any(|allowed| allowed == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        rules.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }
}

impl Rules {
    fn new(access: &Access, key: &hmac::Key) -> Self {
        let tags = |tokens: &[String]| {
            // An empty one, from whatever mistake, must not be what everybody has.
            let tokens = tokens.iter().filter(|token| !token.is_empty());
            tokens.map(|token| hmac::sign(key, token.as_bytes())).collect()
        };
        Self {
            admin: tags(&access.admin_tokens),
            credentials: tags(&access.credentials_tokens),
            origins: access.origins.clone(),
            limit: Limit::per_second(access.rate.number(), BURST),
        }
    }
}

impl Asks {
    /// By the path as it was sent: one that is spelled in another way is no path of ours.
    fn of(method: &Method, path: &str) -> Self {
        match path.strip_prefix(PREFIX) {
            _ if path == CREDENTIALS => Self::CredentialsToken,
            _ if READ_BY_PAGES.contains(&path) && [Method::GET, Method::HEAD].contains(method) => Self::PageToken,
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Self::AdminToken,
            _ => Self::Nothing,
        }
    }
}

/// The bearer token of a request (RFC 6750 section 2.1). The two other ways of that RFC leave it in logs and histories.
fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let split = value.as_bytes().split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    match split {
        Some((_, token)) if values.next().is_none() => Ok(Some(token.trim_ascii())),
        _ => Err(unauthorized("`Authorization: Bearer TOKEN` is needed, once", true)),
    }
}

fn unauthorized(error: &str, was_token: bool) -> Refusal {
    let challenge =
        if was_token { r#"Bearer realm="hairpin", error="invalid_token""# } else { r#"Bearer realm="hairpin""# };
    let challenge = HeaderValue::from_static(challenge);
    Refusal::new(StatusCode::UNAUTHORIZED, error).with(header::WWW_AUTHENTICATE, challenge)
}

fn closed(may_mint: bool) -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        if may_mint {
            "credentials are not minted over TCP without a token: --credentials-token-file (or --admin-token-file) allows \
             it; the Unix socket (--admin-socket) needs none"
        } else {
            "the admin interface is closed over TCP without a token: --admin-token-file allows it; the Unix socket \
             (--admin-socket) needs none"
        },
    )
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn access(admin: &[&str], credentials: &[&str]) -> Access {
        let owned = |tokens: &[&str]| tokens.iter().map(|token| (*token).to_owned()).collect();
        Access {
            admin_tokens: owned(admin),
            credentials_tokens: owned(credentials),
            origins: Vec::new(),
            rate: Rate::Off,
        }
    }

    fn status(gate: &Gate, path: &str, authorization: &[&str]) -> u16 {
        asked(gate, &Method::GET, path, authorization)
    }

    fn asked(gate: &Gate, method: &Method, path: &str, authorization: &[&str]) -> u16 {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        gate.admit(Via::Tcp, method, path, &headers).map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
    }

    #[test]
    fn each_token_opens_its_paths_and_no_other() {
        let gate = Gate::new(&access(&["north", "south"], &["mint"])).unwrap();
        for (authorization, open, minting, rest) in [
            (&[][..], 200, 401, 401),
            (&["Bearer north"], 200, 200, 200),
            (&["bearer south"], 200, 200, 200),
            (&["BEARER  south "], 200, 200, 200),
            (&["Bearer mint"], 200, 200, 403),
            (&["Bearer nort"], 200, 401, 401),
            (&["Bearer northh"], 200, 401, 401),
            (&["Bearer "], 200, 401, 401),
            (&["Bearer"], 200, 401, 401),
            (&["Basic north"], 200, 401, 401),
            (&["north"], 200, 401, 401),
            (&["Bearer north", "Bearer north"], 200, 401, 401),
        ] {
            for path in ["/metrics", "/healthz", "/readyz", "/", "/v2/status", "/v1x"] {
                assert_eq!(status(&gate, path, authorization), open, "{path} {authorization:?}");
            }
            assert_eq!(status(&gate, "/v1/credentials", authorization), minting, "{authorization:?}");
            for path in ["/v1", "/v1/", "/v1/status", "/v1/credentials/", "/v1/nothing", "/v1//status"] {
                assert_eq!(status(&gate, path, authorization), rest, "{path} {authorization:?}");
            }
        }
    }

    #[test]
    fn without_tokens_tcp_is_closed_and_says_what_opens_it() {
        let gate = Gate::new(&access(&[], &[])).unwrap();
        for path in ["/v1/status", "/v1/credentials"] {
            for authorization in [&[][..], &["Bearer "], &["Bearer north"]] {
                assert_eq!(status(&gate, path, authorization), 403, "{path} {authorization:?}");
            }
            assert!(gate.admit(Via::Unix, &Method::GET, path, &HeaderMap::new()).is_ok(), "{path}");
        }
        gate.change(&access(&[""], &[""]));
        assert_eq!(status(&gate, "/v1/status", &["Bearer "]), 403, "an empty token is none");
        gate.change(&access(&[], &["mint"]));
        assert_eq!(status(&gate, "/v1/credentials", &["Bearer mint"]), 200);
        assert_eq!(status(&gate, "/v1/status", &["Bearer mint"]), 403);
        gate.change(&access(&["north"], &[]));
        assert_eq!(status(&gate, "/v1/credentials", &["Bearer mint"]), 401, "a token that was taken back");
        assert_eq!(status(&gate, "/v1/credentials", &["Bearer north"]), 200);
    }

    #[test]
    fn page_tokens_end_with_the_admin_tokens_of_their_time() {
        let gate = Gate::new(&access(&["north"], &[])).unwrap();
        let token = format!("Bearer {}", gate.issue_page_token().unwrap());
        gate.change(&access(&["north"], &["mint"]));
        assert_eq!(status(&gate, "/v1/status", &[&token]), 200);
        gate.change(&access(&["south"], &["mint"]));
        assert_eq!(status(&gate, "/v1/status", &[&token]), 401);
    }

    #[test]
    fn a_page_token_reads_what_the_page_shows_and_does_nothing_else() {
        for admin in [&[][..], &["north"]] {
            let gate = Gate::new(&access(admin, &["mint"])).unwrap();
            let token = format!("Bearer {}", gate.issue_page_token().unwrap());
            for path in READ_BY_PAGES {
                assert_eq!(status(&gate, path, &[&token]), 200, "{path}");
                assert_eq!(asked(&gate, &Method::HEAD, path, &[&token]), 200, "{path}");
                for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
                    assert_eq!(asked(&gate, &method, path, &[&token]), 403, "{method} {path}");
                }
                assert_eq!(status(&gate, path, &[]), 401, "{path}");
                assert_eq!(status(&gate, path, &["Bearer mint"]), 403, "{path}");
                assert_eq!(status(&gate, path, &["Bearer other"]), 401, "{path}");
            }
            for path in ["/v1", "/v1/status/", "/v1/allocations/1", "/v1/allocations/events", "/v1/users", "/v1/drain"]
            {
                assert_eq!(status(&gate, path, &[&token]), 403, "{path}");
            }
            for path in ["/v1/credentials", "/v1/page-tokens"] {
                assert_eq!(asked(&gate, &Method::POST, path, &[&token]), 403, "{path}");
            }
            gate.change(&access(admin, &[]));
            assert_eq!(status(&gate, "/v1/status", &[&token]), 200, "a reload leaves them");
        }
    }

    #[test]
    fn no_more_than_the_rate_is_minted_and_refusals_are_counted() {
        let rate = Rate::PerSecond(NonZeroU64::new(3).unwrap());
        let gate = Gate::new(&Access { rate, ..access(&[], &[]) }).unwrap();
        // A test that is stopped for a third of a second has one more.
        let minted = (0..1000).filter(|_| gate.admit_minting().is_ok()).count();
        assert!((3..20).contains(&minted), "{minted}");
        assert_eq!(gate.refused(), 1000 - minted as u64);
        gate.change(&access(&[], &[]));
        assert!((0..1000).all(|_| gate.admit_minting().is_ok()), "off is no limit");
    }

    #[test]
    fn no_token_is_ever_printed() {
        let printed = format!("{:?}", access(&["north"], &["mint"]));
        assert!(!printed.contains("north") && !printed.contains("mint"), "{printed}");
    }

    #[test]
    fn pages_of_an_allowed_origin_may_know_the_answer_and_no_others() {
        let with = |origins: &[&str]| {
            let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
            Gate::new(&Access { origins, ..access(&[], &[]) }).unwrap()
        };
        let ours = HeaderValue::from_static("https://meet.example.org");
        for other in ["https://meet.example.org:444", "http://meet.example.org", "https://example.org", "null", ""] {
            let gate = with(&["https://meet.example.org"]);
            assert_eq!(gate.allowed_origin(&ours), Some(ours.clone()));
            assert_eq!(gate.allowed_origin(&other.parse().unwrap()), None, "{other}");
            assert_eq!(with(&[]).allowed_origin(&ours), None);
            assert_eq!(with(&["*"]).allowed_origin(&other.parse().unwrap()).unwrap(), "*");
        }
    }
}
