//! Answers that hold for a while, as the authorization server has said.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hairpin_proto::address::Transport;

use crate::{Answer, Question, Subject};

/// No answer holds for longer, whatever its server says: a user that was shut out is not to stay in for days.
const LONGEST: Duration = Duration::from_secs(3600);

/// More answers are not kept.
const MOST: usize = 10_000;

/// Answers that hold for a while.
#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<Key, Held>>);

/// All that the server was told, but for the client's port: a client has another one for each call.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    realm: Arc<str>,
    subject: Subject,
    client: IpAddr,
    server: SocketAddr,
    transport: Transport,
}

struct Held {
    answer: Answer,
    until: Instant,
}

impl Key {
    fn of(question: &Question) -> Self {
        let Question { realm, subject, client, server, transport } = question.clone();
        Self { realm, subject, client: client.ip(), server, transport }
    }
}

impl Cache {
    pub(super) fn get(&self, question: &Question) -> Option<Answer> {
        let held = self.held();
        let held = held.get(&Key::of(question))?;
        (Instant::now() < held.until).then(|| held.answer.clone())
    }

    pub(super) fn put(&self, question: &Question, answer: &Answer, lasts: Duration) {
        if lasts.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut held = self.held();
        if held.len() >= MOST {
            held.retain(|_, held| now < held.until);
        }
        if held.len() < MOST {
            let answer = answer.clone();
            held.insert(Key::of(question), Held { answer, until: now + lasts.min(LONGEST) });
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
