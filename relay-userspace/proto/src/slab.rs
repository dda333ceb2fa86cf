//! Things with small numbers for names.

use std::collections::VecDeque;

/// A table that gives out the lowest numbers it can, so that others may index arrays by them.
///
/// Of the numbers that were freed, the one that has rested longest is used first: a late message about the old thing
/// rarely meets a new one.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Option<T>>,
    free: VecDeque<u32>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Keeps a thing and names it.
    pub(crate) fn insert(&mut self, thing: T) -> u32 {
        if let Some(name) = self.free.pop_front() {
            self.entries[name as usize] = Some(thing);
            return name;
        }
        self.entries.push(Some(thing));
        (self.entries.len() - 1) as u32
    }

    pub(crate) fn remove(&mut self, name: u32) -> Option<T> {
        let removed = self.entries.get_mut(name as usize)?.take();
        if removed.is_some() {
            self.free.push_back(name);
        }
        removed
    }

    #[inline]
    pub(crate) fn find(&self, name: u32) -> Option<&T> {
        self.entries.get(name as usize)?.as_ref()
    }

    pub(crate) fn find_mut(&mut self, name: u32) -> Option<&mut T> {
        self.entries.get_mut(name as usize)?.as_mut()
    }

    /// All names in use.
    pub(crate) fn names(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.entries).filter(|(_, entry)| entry.is_some()).map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_as_low_as_the_number_of_things() {
        let mut slab = Slab::new();
        let names: Vec<u32> = "abcd".chars().map(|c| slab.insert(c)).collect();
        assert_eq!(names, [0, 1, 2, 3]);
        assert_eq!(slab.remove(2), Some('c'));
        assert_eq!(slab.remove(2), None);
        assert_eq!(slab.remove(0), Some('a'));
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.insert('e'), 2, "the name that was freed first");
        assert_eq!(slab.insert('f'), 0);
        assert_eq!(slab.names().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
