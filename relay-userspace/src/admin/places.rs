//! Places for connections: only so many, and whoever wants one while none is free gets that of the client which has been
//! asking for nothing the longest. A crowd that says nothing shuts nobody out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{self, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// All places of a listener.
pub(super) struct Places {
    free: Arc<Semaphore>,
    resting: Mutex<Resting>,
}

/// Connections whose client asks for nothing, by when it began to do so.
#[derive(Default)]
struct Resting {
    next: u64,
    ends: BTreeMap<u64, Arc<Notify>>,
}

/// A place, as long as it is not dropped.
pub(super) struct Place {
    places: Arc<Places>,
    end: Arc<Notify>,
    state: Mutex<State>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Since when, as a key of [`Resting`].
    Resting(u64),
    /// A request is being answered.
    Busy,
}

/// While it is not dropped, a request is being answered.
pub(super) struct Busy(Arc<Place>);

impl Places {
    /// So many.
    pub(super) fn new(number: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(number)), resting: Mutex::default() })
    }

    /// Takes a place, as soon as there is one.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Place> {
        let permit = if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            permit
        } else {
            if let Some((_, end)) = self.resting().ends.pop_first() {
                end.notify_one();
            }
            Arc::clone(&self.free).acquire_owned().await.expect("it is never closed")
        };
        let end = Arc::new(Notify::new());
        let state = Mutex::new(State::Resting(self.resting().add(&end)));
        Arc::new(Place { places: Arc::clone(self), end, state, _permit: permit })
    }

    fn resting(&self) -> MutexGuard<'_, Resting> {
        // A panic elsewhere leaves a map that is whole.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resting {
    fn add(&mut self, end: &Arc<Notify>) -> u64 {
        self.next += 1;
        self.ends.insert(self.next, Arc::clone(end));
        self.next
    }
}

impl Place {
    /// Waits until somebody else gets the place.
    pub(super) async fn is_lost(&self) {
        self.end.notified().await;
    }

    /// A request has come. `None` if the place is somebody else's already: then nothing may be begun.
    pub(super) fn begin(self: &Arc<Self>) -> Option<Busy> {
        let mut state = self.state();
        if let State::Resting(since) = *state {
            self.places.resting().ends.remove(&since)?;
        }
        *state = State::Busy;
        Some(Busy(Arc::clone(self)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let State::Resting(since) = *self.state() {
            self.places.resting().ends.remove(&since);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Place { places, end, state, .. } = &*self.0;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State::Resting(places.resting().add(end));
    }
}

/// The body of an answer, whose end is that of the request.
pub(super) struct Answer {
    pub(super) body: body::Body,
    pub(super) _busy: Busy,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_longest_silence_ends_for_who_comes_and_no_request_does() {
        let places = Places::new(3);
        let [first, second, third] = [places.take().await, places.take().await, places.take().await];
        let busy = first.begin().expect("nobody else has its place");
        let mut fourth = Box::pin(places.take());
        assert!(fourth.as_mut().now_or_never().is_none());
        assert!(first.is_lost().now_or_never().is_none(), "it is being answered");
        assert!(second.is_lost().now_or_never().is_some(), "it has been silent the longest");
        assert!(second.begin().is_none(), "a request that comes too late is not begun");
        assert!(third.is_lost().now_or_never().is_none());
        drop(second);
        let fourth = fourth.await;

        drop(busy);
        let mut fifth = Box::pin(places.take());
        assert!(fifth.as_mut().now_or_never().is_none());
        assert!(third.is_lost().now_or_never().is_some(), "the first has spoken since");
        drop(third);
        drop((fifth.await, fourth, first));
        assert!(places.resting().ends.is_empty());
    }
}
