//! How much is served, in the words that an operator is told it in.

use std::fmt;
use std::iter::Sum;
use std::ops::AddAssign;

/// How many allocations and media sessions there are of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InService {
    /// Allocations.
    pub allocations: usize,
    /// Sessions of two legs.
    pub sessions: usize,
}

impl InService {
    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.count() == 0
    }

    /// Both together.
    pub fn count(self) -> usize {
        self.allocations + self.sessions
    }
}

impl AddAssign for InService {
    fn add_assign(&mut self, other: Self) {
        self.allocations += other.allocations;
        self.sessions += other.sessions;
    }
}

impl Sum for InService {
    fn sum<I: Iterator<Item = Self>>(served: I) -> Self {
        served.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

/// `2 allocations`, `1 media session`, `2 allocations and 1 media session`.
impl fmt::Display for InService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allocations, sessions } = *self;
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        if allocations > 0 || sessions == 0 {
            write!(f, "{allocations} allocation{}", plural(allocations))?;
        }
        if allocations > 0 && sessions > 0 {
            f.write_str(" and ")?;
        }
        if sessions > 0 {
            write!(f, "{sessions} media session{}", plural(sessions))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_is_named() {
        for (allocations, sessions, text) in [
            (0, 0, "0 allocations"),
            (1, 0, "1 allocation"),
            (2, 0, "2 allocations"),
            (0, 1, "1 media session"),
            (0, 2, "2 media sessions"),
            (1, 2, "1 allocation and 2 media sessions"),
        ] {
            let served = InService { allocations, sessions };
            assert_eq!(served.to_string(), text);
            assert_eq!((served.count(), served.is_empty()), (allocations + sessions, text == "0 allocations"));
        }
    }
}
