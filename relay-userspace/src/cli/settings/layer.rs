//! One layer of settings: what the command line, the environment or the file says.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::options::Opt;
use super::problem::{Place, Problem};

/// A value as it was written.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) text: OsString,
    pub(super) place: Place,
}

/// What one layer says, by the names of options, and what it says wrongly.
#[derive(Default)]
pub(super) struct Layer {
    values: BTreeMap<&'static str, Vec<Written>>,
    pub(super) problems: Vec<Problem>,
    /// Options that are said something wrong of.
    pub(super) bad: Vec<&'static str>,
    /// Whether nobody knows what else it says, for it cannot be read.
    pub(super) is_unread: bool,
    /// What is no error, but should be known.
    pub(super) warnings: Vec<String>,
}

impl Layer {
    /// One that cannot be read.
    pub(super) fn unread(problem: Problem) -> Self {
        Self { problems: vec![problem], is_unread: true, ..Self::default() }
    }

    /// Says what an option is.
    pub(super) fn set(&mut self, option: &'static str, values: Vec<Written>) {
        self.values.insert(option, values);
    }

    /// What is said of an option, if anything.
    pub(super) fn get(&self, option: &Opt) -> Option<&[Written]> {
        self.values.get(option.name()).map(Vec::as_slice)
    }

    /// Takes out values.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&Written) -> bool) {
        self.values.values_mut().for_each(|values| values.retain(&is_kept));
    }

    /// Takes out, and complains of, values that are none for their option.
    pub(super) fn check(&mut self) {
        for option in super::options::all() {
            let Some(values) = self.values.get_mut(option.name()) else { continue };
            values.retain(|value| match option.check(&value.text) {
                Ok(()) => true,
                Err(what) => {
                    self.problems.push(Problem::of_value(option, &value.place, &value.text.to_string_lossy(), what));
                    self.bad.push(option.name());
                    false
                }
            });
        }
    }
}
