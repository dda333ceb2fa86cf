//! Sockets by the engine's small numbers, which are used again.

use super::socket::Generation;

/// A table of things that come and go under numbers that are used again; each use of a number is a generation of its own.
pub(super) struct Places<T>(Vec<Place<T>>);

struct Place<T> {
    thing: Option<T>,
    generation: Generation,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Places<T> {
    /// The generation that the next thing under this number will have.
    pub(super) fn prepare(&mut self, number: u32) -> Generation {
        let at = number as usize;
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || Place { thing: None, generation: Generation::default() });
        }
        let place = &mut self.0[at];
        place.generation = place.generation.next();
        place.generation
    }

    /// Puts a thing where there is none, after [`Places::prepare`].
    pub(super) fn put(&mut self, number: u32, thing: T) {
        if let Some(place) = self.0.get_mut(number as usize) {
            place.thing = Some(thing);
        }
    }

    pub(super) fn take(&mut self, number: u32) -> Option<T> {
        self.0.get_mut(number as usize)?.thing.take()
    }

    /// What has this number now.
    pub(super) fn now(&self, number: u32) -> Option<(&T, Generation)> {
        let place = self.0.get(number as usize)?;
        Some((place.thing.as_ref()?, place.generation))
    }

    /// The same, unless it is another than that of this generation.
    pub(super) fn get(&self, number: u32, generation: Generation) -> Option<&T> {
        self.now(number).filter(|(_, now)| *now == generation).map(|(thing, _)| thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_used_again_names_another_thing() {
        let mut places = Places::default();
        let first = places.prepare(3);
        places.put(3, "first");
        assert_eq!(places.get(3, first), Some(&"first"));
        assert_eq!(places.take(3), Some("first"));
        assert_eq!(places.get(3, first), None);
        let second = places.prepare(3);
        places.put(3, "second");
        assert_eq!((places.get(3, first), places.get(3, second)), (None, Some(&"second")));
        assert_eq!(places.now(3), Some((&"second", second)));
        assert_eq!((places.now(0), places.now(4)), (None, None));
        assert_eq!(places.take(9), None);
    }
}
