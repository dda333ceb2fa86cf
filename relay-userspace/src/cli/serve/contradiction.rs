//! What is wrong with options that are right each on its own.

/// A sentence about options, which are named by where they were given: a flag, a variable, or a key and its line.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Contradiction {
    parts: Vec<Part>,
    behind: Vec<&'static str>,
}

/// A part of the sentence.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Part {
    /// An option, by its long name, and, of one that may be repeated, which of its values.
    Option(&'static str, Option<usize>),
    /// What is said of it.
    Text(String),
}

impl Contradiction {
    /// A sentence that begins with an option.
    pub(in crate::cli) fn of(option: &'static str) -> Self {
        Self { parts: vec![Part::Option(option, None)], behind: Vec::new() }
    }

    /// A sentence that begins with one value of an option.
    pub(in crate::cli) fn of_value(option: &'static str, at: usize) -> Self {
        Self { parts: vec![Part::Option(option, Some(at))], behind: Vec::new() }
    }

    /// Goes on.
    pub(in crate::cli) fn say(mut self, text: impl Into<String>) -> Self {
        self.parts.push(Part::Text(text.into()));
        self
    }

    /// Goes on with another option.
    pub(in crate::cli) fn and(mut self, option: &'static str) -> Self {
        self.parts.push(Part::Option(option, None));
        self
    }

    /// Goes on with one value of another option.
    pub(in crate::cli) fn and_value(mut self, option: &'static str, at: usize) -> Self {
        self.parts.push(Part::Option(option, Some(at)));
        self
    }

    /// An option that is not named, but would change the sentence.
    pub(in crate::cli) fn because_of(mut self, option: &'static str) -> Self {
        self.behind.push(option);
        self
    }

    /// The sentence.
    pub(in crate::cli) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Which options it is about.
    pub(in crate::cli) fn options(&self) -> impl Iterator<Item = &'static str> {
        let named = self.parts.iter().filter_map(|part| match part {
            Part::Option(option, _) => Some(*option),
            Part::Text(_) => None,
        });
        named.chain(self.behind.iter().copied())
    }
}
