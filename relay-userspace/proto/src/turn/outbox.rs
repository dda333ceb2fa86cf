//! Effects on their way to the driver.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use super::directory::Question;
use super::effect::Effect;
use super::refusal::Refusal;
use crate::address::FiveTuple;

/// A queue of effects. Messages, and the usernames of those who are refused, are written one behind the other into one
/// buffer, which is used again as soon as the queue was drained: answering a stranger takes no memory.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Queued>,
    buffer: Vec<u8>,
    /// Since when effects wait that the driver does not know of.
    hurry: Option<Instant>,
    /// What was asked last.
    question: Option<Question>,
}

#[derive(Debug)]
enum Queued {
    Respond {
        five_tuple: FiveTuple,
        message: Range<usize>,
    },
    /// The username stands apart.
    Refused {
        refusal: Refusal<'static>,
        username: Option<Range<usize>>,
    },
    LookUp(Question),
    Other(Effect<'static>),
}

impl Outbox {
    /// Queues an effect that is not a message.
    pub(super) fn push(&mut self, effect: Effect<'static>) {
        self.queue.push_back(Queued::Other(effect));
    }

    /// Queues the message that `write` appends to the buffer. Returns its bytes.
    pub(super) fn respond(&mut self, five_tuple: FiveTuple, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let message = self.write(write);
        self.queue.push_back(Queued::Respond { five_tuple, message: message.clone() });
        &self.buffer[message]
    }

    /// Queues a refusal: right behind its response.
    pub(super) fn refuse(&mut self, refusal: Refusal<'_>) {
        let username = refusal.username.map(|name| self.write(|buffer| buffer.extend_from_slice(name.as_bytes())));
        self.queue.push_back(Queued::Refused { refusal: refusal.anonymous(), username });
    }

    /// Queues a question that nobody waits for.
    pub(super) fn look_up(&mut self, question: Question) {
        self.queue.push_back(Queued::LookUp(question));
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        if self.queue.is_empty() {
            self.buffer.clear();
        }
        let start = self.buffer.len();
        write(&mut self.buffer);
        start..self.buffer.len()
    }

    /// Has the driver come for effects that it would not ask for: those of data, which is forwarded without looking
    /// here.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.hurry.get_or_insert(now);
    }

    /// When the driver should have come.
    pub(super) fn due(&self) -> Option<Instant> {
        self.hurry
    }

    pub(super) fn pop(&mut self) -> Option<Effect<'_>> {
        let Some(next) = self.queue.pop_front() else {
            self.hurry = None;
            return None;
        };
        Some(match next {
            Queued::Respond { five_tuple, message } => Effect::Respond { five_tuple, message: &self.buffer[message] },
            Queued::Refused { refusal, username } => {
                let text = |range| std::str::from_utf8(&self.buffer[range]).expect("a username was written");
                Effect::Refused(Refusal { username: username.map(text), ..refusal })
            }
            Queued::LookUp(question) => Effect::LookUp { question: self.question.insert(question) },
            Queued::Other(effect) => effect,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::effect::RelayId;
    use super::*;
    use crate::address::{ClientAddr, ServerAddr};

    fn five_tuple() -> FiveTuple {
        let address = ([192, 0, 2, 1], 3478).into();
        FiveTuple::udp(ClientAddr::new(address), ServerAddr::new(address))
    }

    #[test]
    fn effects_come_in_order_and_each_response_is_its_own() {
        let mut outbox = Outbox::default();
        outbox.respond(five_tuple(), |buffer| buffer.extend_from_slice(b"first"));
        outbox.push(Effect::Close { relay: RelayId(1) });
        outbox.respond(five_tuple(), |buffer| buffer.extend_from_slice(b"second"));
        assert_eq!(outbox.pop(), Some(Effect::Respond { five_tuple: five_tuple(), message: b"first" }));
        assert_eq!(outbox.pop(), Some(Effect::Close { relay: RelayId(1) }));
        assert_eq!(outbox.pop(), Some(Effect::Respond { five_tuple: five_tuple(), message: b"second" }));
        assert_eq!(outbox.pop(), None);
    }

    #[test]
    fn the_buffer_does_not_grow_with_the_number_of_responses() {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.respond(five_tuple(), |buffer| buffer.extend_from_slice(b"response"));
            outbox.respond(five_tuple(), |buffer| buffer.extend_from_slice(b"response"));
            while outbox.pop().is_some() {}
        }
        assert_eq!(outbox.buffer.len(), 16);
    }
}
