//! What was answered about users, kept for a while.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::directory::{Answer, Question, Subject};

/// How long answers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// What was found: a user, secrets, a key, an admission.
    pub found: Duration,
    /// That there is no such user, or that it may not.
    pub refused: Duration,
    /// How many answers are kept, two at least. The oldest makes way.
    pub capacity: usize,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { found: Duration::from_secs(60), refused: Duration::from_secs(5), capacity: 16_384 }
    }
}

type Key = (Arc<str>, Subject);

/// The answers of one shard.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) freshness: Freshness,
    answers: HashMap<Key, Entry>,
    /// By the time they came. What was replaced since stands in here twice.
    order: VecDeque<(Instant, Key)>,
    /// What is being asked again, since when.
    renewals: HashMap<Key, Instant>,
}

#[derive(Debug)]
struct Entry {
    answer: Arc<Answer>,
    came: Instant,
    until: Instant,
}

/// One request may need this many answers: who its user is, and whether that is admitted.
const AT_LEAST: usize = 2;
/// How long nobody asks again for what is being asked, or could not be told.
const PATIENCE: Duration = Duration::from_secs(30);

impl Known {
    pub(super) fn new(freshness: Freshness) -> Self {
        Self { freshness, answers: HashMap::new(), order: VecDeque::new(), renewals: HashMap::new() }
    }

    /// Notes an answer. That nobody could tell is none: what was known before stays.
    pub(super) fn learn(&mut self, now: Instant, question: &Question, answer: &Arc<Answer>) {
        let key = (Arc::clone(&question.realm), question.subject.clone());
        let holds = match **answer {
            Answer::Unavailable => return,
            Answer::Refused => self.freshness.refused,
            Answer::User(_) | Answer::Secrets { .. } | Answer::TokenKey(_) | Answer::Admitted(_) => {
                self.freshness.found
            }
        };
        self.renewals.remove(&key);
        let entry = Entry { answer: Arc::clone(answer), came: now, until: now + holds };
        self.answers.insert(key.clone(), entry);
        self.order.push_back((now, key));
        let capacity = self.freshness.capacity.max(AT_LEAST);
        while self.answers.len() > capacity || self.order.len() > 2 * capacity {
            let Some((came, oldest)) = self.order.pop_front() else { break };
            if self.answers.get(&oldest).is_some_and(|entry| entry.came == came) {
                self.answers.remove(&oldest);
            }
        }
    }

    /// What is known, and whether it holds still.
    pub(super) fn find(&self, now: Instant, realm: &Arc<str>, subject: &Subject) -> Option<(&Arc<Answer>, bool)> {
        let entry = self.answers.get(&(Arc::clone(realm), subject.clone()))?;
        Some((&entry.answer, now < entry.until))
    }

    /// Whether it is time to ask again, for somebody who need not wait for the answer. Says so once in a while.
    pub(super) fn renews(&mut self, now: Instant, question: &Question) -> bool {
        if self.find(now, &question.realm, &question.subject).is_some_and(|(_, is_fresh)| is_fresh) {
            return false;
        }
        let is_over = |since: &Instant| now >= *since + PATIENCE;
        let key = (Arc::clone(&question.realm), question.subject.clone());
        if self.renewals.get(&key).is_some_and(|since| !is_over(since)) {
            return false;
        }
        if self.renewals.len() >= self.freshness.capacity {
            self.renewals.retain(|_, since| !is_over(since));
        }
        self.renewals.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Transport;
    use crate::turn::Grant;

    fn question(name: &str) -> Question {
        Question {
            realm: "realm".into(),
            subject: Subject::User(name.into()),
            client: ([192, 0, 2, 1], 5000).into(),
            server: ([192, 0, 2, 2], 3478).into(),
            transport: Transport::Udp,
        }
    }

    fn known(capacity: usize) -> Known {
        Known::new(Freshness { found: Duration::from_secs(60), refused: Duration::from_secs(5), capacity })
    }

    fn admitted() -> Arc<Answer> {
        Arc::new(Answer::Admitted(Grant::default()))
    }

    /// Whether something is known, and whether it holds.
    fn look(known: &Known, now: Instant, name: &str) -> Option<bool> {
        let question = question(name);
        known.find(now, &question.realm, &question.subject).map(|(_, is_fresh)| is_fresh)
    }

    #[test]
    fn an_answer_holds_for_its_time_and_is_known_afterwards() {
        let (mut known, now) = (known(10), Instant::now());
        known.learn(now, &question("alice"), &admitted());
        known.learn(now, &question("bob"), &Arc::new(Answer::Refused));
        known.learn(now, &question("carol"), &Arc::new(Answer::Unavailable));
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(look(&known, after(59), "alice"), Some(true));
        assert_eq!(look(&known, after(60), "alice"), Some(false));
        assert_eq!([after(4), after(5)].map(|at| look(&known, at, "bob")), [Some(true), Some(false)]);
        assert_eq!(look(&known, now, "carol"), None);
    }

    #[test]
    fn what_nobody_can_tell_changes_nothing() {
        let (mut known, now) = (known(10), Instant::now());
        known.learn(now, &question("alice"), &admitted());
        known.learn(now, &question("alice"), &Arc::new(Answer::Unavailable));
        assert_eq!(look(&known, now, "alice"), Some(true));
    }

    #[test]
    fn the_oldest_makes_way_and_memory_has_an_end() {
        let (mut known, now) = (known(2), Instant::now());
        for (at, name) in ["alice", "bob", "alice", "carol"].into_iter().enumerate() {
            known.learn(now + Duration::from_millis(at as u64), &question(name), &admitted());
        }
        assert_eq!(["alice", "bob", "carol"].map(|name| look(&known, now, name).is_some()), [true, false, true]);
        for at in 0..100 {
            known.learn(now + Duration::from_secs(at), &question("alice"), &admitted());
        }
        assert!(known.order.len() <= 4 && known.answers.len() <= 2, "{known:?}");
    }

    #[test]
    fn what_has_aged_is_asked_for_again_once() {
        let (mut known, now) = (known(10), Instant::now());
        let alice = question("alice");
        assert_eq!([now, now].map(|at| known.renews(at, &alice)), [true, false], "nothing is known");
        known.learn(now, &alice, &admitted());
        let late = now + Duration::from_secs(60);
        assert_eq!([now, late, late].map(|at| known.renews(at, &alice)), [false, true, false]);
        known.learn(late, &alice, &Arc::new(Answer::Unavailable));
        assert_eq!([late, late + PATIENCE].map(|at| known.renews(at, &alice)), [false, true], "there was no answer");
    }
}
