//! Answers that are kept for a while, so that whoever has not got one can ask again without having it done again.
//!
//! It decides what is the same request, and what there is room for; it does nothing itself and reads no clock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::StatusCode;
use tokio::sync::watch;

/// For how long an answer is kept.
const KEPT: Duration = Duration::from_mins(10);
/// How many are, whatever their length.
const MAX_COUNT: usize = 1024;
/// How many bytes they may have together.
const MAX_BYTES: usize = 16 << 20;

/// What was asked, in as few bytes as tell it from everything else.
pub(super) type Digest = [u8; 32];

/// An answer as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// What answers a request: now, or as soon as it is known.
pub(super) type Awaited = watch::Receiver<Option<Answer>>;

/// What is kept.
#[derive(Debug, Default)]
pub(in crate::admin) struct Kept(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    /// The oldest first.
    entries: VecDeque<Entry>,
    /// Of all answers.
    bytes: usize,
    begun: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    key: String,
    request: Digest,
    began: Instant,
    answer: Awaited,
    bytes: usize,
}

/// What to do with a request.
pub(super) enum Found {
    /// It was asked before: this is answered.
    Same(Awaited),
    /// Something else was asked with its key.
    Another,
    /// It is the first one: do it, and say what was answered.
    First(Doing, Awaited),
}

/// A request that is being answered. One that is dropped without an answer may be asked again.
pub(super) struct Doing {
    kept: Arc<Kept>,
    number: u64,
    answer: watch::Sender<Option<Answer>>,
    is_done: bool,
}

impl Kept {
    /// Looks for a request by its key.
    pub(super) fn find(self: &Arc<Self>, now: Instant, key: &str, request: Digest) -> Found {
        let mut shelf = self.shelf();
        shelf.expire(now);
        if let Some(entry) = shelf.entries.iter().find(|entry| entry.key == key) {
            return if entry.request == request { Found::Same(entry.answer.clone()) } else { Found::Another };
        }
        let number = shelf.begun;
        shelf.begun += 1;
        let (sender, answer) = watch::channel(None);
        let key = key.to_owned();
        shelf.entries.push_back(Entry { number, key, request, began: now, answer: answer.clone(), bytes: 0 });
        shelf.make_room();
        Found::First(Doing { kept: Arc::clone(self), number, answer: sender, is_done: false }, answer)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // A panic elsewhere leaves entries that are whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doing {
    /// Says what was answered, to all who wait for it. What only had no room may be tried again, and is not kept.
    pub(super) fn done(mut self, answer: Answer) {
        self.is_done = true;
        let mut shelf = self.kept.shelf();
        if answer.status.is_server_error() {
            shelf.forget(self.number);
        } else {
            shelf.weigh(self.number, answer.body.len());
        }
        drop(shelf);
        self.answer.send_replace(Some(answer));
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        if !self.is_done {
            self.kept.shelf().forget(self.number);
        }
    }
}

impl Shelf {
    fn expire(&mut self, now: Instant) {
        while self.entries.front().is_some_and(|entry| now.saturating_duration_since(entry.began) >= KEPT) {
            self.drop_oldest();
        }
    }

    /// Lets the oldest go until the rest has room.
    fn make_room(&mut self) {
        while self.entries.len() > MAX_COUNT || self.bytes > MAX_BYTES {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        self.bytes -= self.entries.pop_front().map_or(0, |entry| entry.bytes);
    }

    /// Takes the length of an answer into account.
    fn weigh(&mut self, number: u64, bytes: usize) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.number == number) {
            entry.bytes = bytes;
            self.bytes += bytes;
            self.make_room();
        }
    }

    fn forget(&mut self, number: u64) {
        if let Some(at) = self.entries.iter().position(|entry| entry.number == number) {
            self.bytes -= self.entries.remove(at).map_or(0, |entry| entry.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: StatusCode, bytes: usize) -> Answer {
        Answer { status, body: vec![b'x'; bytes].into() }
    }

    fn good(bytes: usize) -> Answer {
        answer(StatusCode::OK, bytes)
    }

    /// A request, as one byte.
    fn find(kept: &Arc<Kept>, now: Instant, key: &str, request: u8) -> Found {
        kept.find(now, key, [request; 32])
    }

    fn first(kept: &Arc<Kept>, now: Instant, key: &str) -> (Doing, Awaited) {
        match find(kept, now, key, 0) {
            Found::First(doing, awaited) => (doing, awaited),
            _ => panic!("{key} is known already"),
        }
    }

    fn knows(kept: &Arc<Kept>, now: Instant, key: &str) -> bool {
        // One that is looked for in vain is forgotten at once.
        matches!(find(kept, now, key, 0), Found::Same(_))
    }

    #[test]
    fn who_asks_the_same_gets_the_same_whether_it_is_done_or_not() {
        let (kept, now) = (Arc::<Kept>::default(), Instant::now());
        let (doing, awaited) = first(&kept, now, "key");
        let Found::Same(early) = find(&kept, now, "key", 0) else { panic!("it is being done") };
        assert_eq!(*early.borrow(), None);
        doing.done(good(5));
        let Found::Same(late) = find(&kept, now, "key", 0) else { panic!("it was done") };
        for awaited in [awaited, early, late] {
            assert_eq!(*awaited.borrow(), Some(good(5)));
        }
    }

    #[test]
    fn a_key_is_for_one_request() {
        let (kept, now) = (Arc::<Kept>::default(), Instant::now());
        let (doing, _awaited) = first(&kept, now, "key");
        assert!(matches!(find(&kept, now, "key", 1), Found::Another), "while it is being done");
        doing.done(good(5));
        assert!(matches!(find(&kept, now, "key", 1), Found::Another), "and afterwards");
        assert!(matches!(find(&kept, now, "Key", 1), Found::First(..)), "another key");
    }

    #[test]
    fn an_answer_is_kept_for_ten_minutes() {
        let (kept, now) = (Arc::<Kept>::default(), Instant::now());
        first(&kept, now, "key").0.done(good(5));
        assert!(knows(&kept, now + Duration::from_secs(599), "key"));
        assert!(!knows(&kept, now + Duration::from_secs(600), "key"));
        assert_eq!(kept.shelf().bytes, 0);
    }

    #[test]
    fn the_oldest_make_way_for_more_than_a_thousand() {
        let (kept, now) = (Arc::<Kept>::default(), Instant::now());
        for number in 0..MAX_COUNT + 2 {
            first(&kept, now, &number.to_string()).0.done(good(5));
        }
        assert_eq!(kept.shelf().entries.len(), MAX_COUNT);
        assert_eq!(kept.shelf().bytes, 5 * MAX_COUNT);
        assert!(knows(&kept, now, "2"));
        assert!(!knows(&kept, now, "1"));
    }

    #[test]
    fn the_oldest_make_way_for_long_answers() {
        let (kept, now) = (Arc::<Kept>::default(), Instant::now());
        for number in 0..17 {
            first(&kept, now, &number.to_string()).0.done(good(1 << 20));
        }
        assert_eq!(kept.shelf().bytes, MAX_BYTES);
        assert!(knows(&kept, now, "1") && !knows(&kept, now, "0"));
        let (doing, awaited) = first(&kept, now, "huge");
        doing.done(good(MAX_BYTES + 1));
        assert!(awaited.borrow().is_some(), "who waits gets it");
        assert!(kept.shelf().entries.is_empty(), "and it is not kept");
        assert_eq!(kept.shelf().bytes, 0);
    }

    #[test]
    fn what_had_no_room_may_be_tried_again_and_what_was_wrong_stays_wrong() {
        let (kept, now) = (Arc::<Kept>::default(), Instant::now());
        let (doing, awaited) = first(&kept, now, "full");
        doing.done(answer(StatusCode::SERVICE_UNAVAILABLE, 5));
        assert!(awaited.borrow().is_some(), "who waits is told");
        assert!(!knows(&kept, now, "full"));
        first(&kept, now, "wrong").0.done(answer(StatusCode::UNPROCESSABLE_ENTITY, 5));
        assert!(knows(&kept, now, "wrong"));
    }

    #[test]
    fn what_came_to_no_end_may_be_asked_again() {
        let (kept, now) = (Arc::<Kept>::default(), Instant::now());
        let (doing, awaited) = first(&kept, now, "key");
        drop(doing);
        assert!(awaited.has_changed().is_err(), "who waits is told that there is nothing to wait for");
        assert!(!knows(&kept, now, "key"));
    }
}
