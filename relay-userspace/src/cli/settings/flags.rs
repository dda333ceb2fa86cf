//! The command line: what is given there, not looked at yet.

use std::ffi::OsString;
use std::fmt;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::layer::{Layer, Written};
use super::options;
use super::problem::Place;

/// The flags of `hairpin serve` that somebody has given. Other commands that need to know how the relay would run take them
/// too.
#[derive(Clone, Default)]
pub struct Flags(Vec<(&'static str, Vec<OsString>)>);

impl Flags {
    pub(super) fn layer(&self) -> Layer {
        let mut layer = Layer::default();
        for (name, values) in &self.0 {
            let written = values.iter().map(|text| Written { text: text.clone(), place: Place::Flag });
            layer.set(name, written.collect());
        }
        layer
    }
}

/// Their values can be secret.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(options::all().iter().map(options::Opt::lenient))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let given = options::all().iter().filter(|option| is_given(option.id()));
        let flags = given.map(|option| {
            let values =
                matches.get_raw(option.id()).ok_or_else(|| clap::Error::new(ErrorKind::MissingRequiredArgument));
            values.map(|values| (option.name(), values.map(OsString::from).collect()))
        });
        flags.collect::<Result<_, _>>().map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
