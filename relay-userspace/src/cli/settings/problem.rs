//! What is wrong, and where it was said.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::options::Opt;
use crate::cli::serve::{Contradiction, Part};

/// More are not told at once.
const MOST: usize = 100;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nobody has said anything.
    Default,
    /// The command line.
    Flag,
    /// The environment.
    Variable,
    /// A line of a file: the configuration, or one with secrets.
    Line(Arc<Path>, usize),
}

/// One thing that is wrong, in one line that names where it was said. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{0}")]
pub struct Problem(String);

impl Problem {
    /// Of a line of a file.
    pub(super) fn of_line(path: &Path, line: usize, what: impl fmt::Display) -> Self {
        Self(format!("{}:{line}: {what}", path.display()))
    }

    /// Of a file as a whole.
    pub(super) fn of_file(path: &Path, what: impl fmt::Display) -> Self {
        Self(format!("{}: {what}", path.display()))
    }

    /// Of a value of an option. The value is not for everybody to see if the option is a secret.
    pub(super) fn of_value(option: &Opt, place: &Place, value: &str, what: impl fmt::Display) -> Self {
        let prefix = prefix(place);
        let name = named(option, place);
        if option.is_secret() {
            return Self(format!("{prefix}{name}: {what}"));
        }
        // A URL may have a password in it.
        if value.contains("://") && value.contains('@') {
            return Self(format!("{prefix}{name}: {what}"));
        }
        let value = if value.is_empty() { Cow::from("\"\"") } else { value.escape_debug().to_string().into() };
        Self(format!("{prefix}{name} {value}: {what}"))
    }

    /// Of options that do not go together; `place` knows where each was given.
    pub(super) fn of_contradiction(
        contradiction: &Contradiction,
        place: impl Fn(&str, Option<usize>) -> Place,
    ) -> Self {
        let mut first = None;
        let mut text = String::new();
        for part in contradiction.parts() {
            match part {
                Part::Text(said) => text.push_str(said),
                Part::Option(option, at) => {
                    let place = place(option, *at);
                    text.push_str(&named_so(option, &place));
                    text.push_str(&whereabouts(first.as_ref(), &place));
                    if first.is_none() && matches!(place, Place::Line(..)) {
                        first = Some(place);
                    }
                }
            }
        }
        Self(format!("{}{text}", first.as_ref().map(prefix).unwrap_or_default()))
    }

    /// Of an option in a file of options of another kind.
    pub(super) fn misplaced(option: &Opt, place: &Place, what: impl fmt::Display) -> Self {
        Self(format!("{}{} {what}", prefix(place), option.name()))
    }

    /// Those that somebody reads, and how many there are besides.
    pub(super) fn first_of(mut problems: Vec<Self>) -> Vec<Self> {
        let more = problems.len().saturating_sub(MOST);
        if more > 0 {
            problems.truncate(MOST);
            problems.push(Self(format!("and {more} more")));
        }
        problems
    }

    /// What only a bug can bring about.
    pub(super) fn unforeseen(error: &clap::Error) -> Self {
        Self(error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

/// The name of an option, as it is written where it was given.
fn named(option: &Opt, place: &Place) -> String {
    named_so(option.name(), place)
}

fn named_so(option: &str, place: &Place) -> String {
    match place {
        Place::Default | Place::Flag => format!("--{option}"),
        Place::Variable => super::options::find(option).map_or_else(String::new, |option| option.variable().to_owned()),
        Place::Line(..) => option.to_owned(),
    }
}

/// What has to be said of a place behind the sentence's first line.
fn whereabouts(first: Option<&Place>, place: &Place) -> String {
    match (first, place) {
        (Some(first), Place::Line(path, line)) if first != place => match first {
            Place::Line(known, _) if known == path => format!(" (line {line})"),
            _ => format!(" ({}:{line})", path.display()),
        },
        _ => String::new(),
    }
}

fn prefix(place: &Place) -> String {
    match place {
        Place::Line(path, line) => format!("{}:{line}: ", path.display()),
        _ => String::new(),
    }
}
