//! The options of `hairpin serve` as the layers see them: all that there is to know of one comes from its definition.

use std::any::TypeId;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Args as _, Command};

use crate::cli::plainly;
use crate::cli::serve::Args;
use crate::config::Rate;

/// An option.
#[derive(Debug)]
pub(super) struct Opt {
    arg: Arg,
    name: String,
    variable: String,
    help: String,
    default: Option<String>,
}

/// What the file may hold for an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A boolean.
    Switch,
    /// An integer, or the same as a string.
    Count,
    /// An integer, or a string with a suffix or `off`.
    Rate,
    /// A string.
    Text,
}

/// The option that names the file; it is not a key of the file.
pub(super) const CONFIG: &str = "config";

/// All of them, in the order of the help.
pub(super) fn all() -> &'static [Opt] {
    static ALL: LazyLock<Vec<Opt>> = LazyLock::new(|| definition().get_arguments().map(Opt::new).collect());
    &ALL
}

/// The one with a name.
pub(super) fn find(name: &str) -> Option<&'static Opt> {
    all().iter().find(|option| option.name == name)
}

/// Those that the file may have.
pub(super) fn keys() -> impl Iterator<Item = &'static Opt> {
    all().iter().filter(|option| option.name != CONFIG)
}

/// The definition of them all.
pub(super) fn definition() -> Command {
    Args::augment_args(Command::new("serve").no_binary_name(true).disable_help_flag(true))
}

impl Opt {
    fn new(arg: &Arg) -> Self {
        let name = arg.get_long().expect("every option has a long name").to_owned();
        let variable = format!("HAIRPIN_{}", name.to_uppercase().replace('-', "_"));
        let text = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        // What no value can say stands at the end of the help.
        let told = text.strip_suffix(']').and_then(|text| text.rsplit_once(" [default: "));
        let (help, told) = told.map_or((text.clone(), None), |(help, told)| (help.to_owned(), Some(told.to_owned())));
        let value = arg.get_default_values().first().and_then(|value| value.to_str()).map(str::to_owned);
        Self { arg: arg.clone(), name, variable, help, default: value.or(told) }
    }

    /// The long flag without its dashes, which is also the key in the file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What clap calls it.
    pub(super) fn id(&self) -> &str {
        self.arg.get_id().as_str()
    }

    /// The variable of the environment.
    pub(super) fn variable(&self) -> &str {
        &self.variable
    }

    /// What groups it with others.
    pub(super) fn heading(&self) -> &str {
        self.arg.get_help_heading().unwrap_or_default()
    }

    /// What it means, without its default.
    pub(super) fn help(&self) -> &str {
        &self.help
    }

    /// What holds unless it is given: a value or, where [`has_value`](Self::has_value) says no, words.
    pub(super) fn default(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// Whether the default is a value.
    pub(super) fn has_value(&self) -> bool {
        !self.arg.get_default_values().is_empty()
    }

    /// How the flag is written.
    pub(super) fn usage(&self) -> String {
        let placeholder = self.arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        match self.kind() {
            Kind::Switch => format!("--{}", self.name),
            _ => format!("--{} {placeholder}", self.name),
        }
    }

    /// The values that are allowed, where they are few.
    pub(super) fn choices(&self) -> Vec<(String, Option<String>)> {
        if self.kind() == Kind::Switch {
            return Vec::new();
        }
        let values = self.arg.get_possible_values();
        values.iter().map(|value| (value.get_name().to_owned(), value.get_help().map(ToString::to_string))).collect()
    }

    /// What the file may hold for it.
    pub(super) fn kind(&self) -> Kind {
        let id = self.arg.get_value_parser().type_id();
        if id == TypeId::of::<bool>() {
            Kind::Switch
        } else if id == TypeId::of::<u32>() {
            Kind::Count
        } else if id == TypeId::of::<Rate>() {
            Kind::Rate
        } else {
            Kind::Text
        }
    }

    /// Whether it may be repeated.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.arg.get_action(), clap::ArgAction::Append)
    }

    /// Whether its values must be told to nobody.
    pub(super) fn is_secret(&self) -> bool {
        self.arg.is_hide_env_values_set()
    }

    /// The option that names a file with values for this one.
    pub(super) fn file(&self) -> Option<&'static Self> {
        self.is_secret().then(|| find(&format!("{}-file", self.name))).flatten()
    }

    /// The option that this one names a file with values for.
    pub(super) fn values_of(&self) -> Option<&'static Self> {
        find(self.name.strip_suffix("-file")?).filter(|option| option.is_secret())
    }

    /// Whether a value is one for this option. An error says what is wrong with it, or what is allowed.
    pub(super) fn check(&self, value: &OsStr) -> Result<(), String> {
        let command = Command::new("check").no_binary_name(true).disable_help_flag(true).arg(self.arg.clone());
        match command.try_get_matches_from([self.argument(value)]) {
            Ok(_) => Ok(()),
            Err(error) => Err(words(&error, value)),
        }
    }

    /// The flag with its value, in one word.
    pub(super) fn argument(&self, value: &OsStr) -> OsString {
        let mut word = OsString::from(format!("--{}=", self.name));
        word.push(value);
        word
    }

    /// The option for the command line, which takes whatever stands there: values are looked at when all are known.
    pub(super) fn lenient(&self) -> Arg {
        self.arg.clone().value_parser(Anything(self.arg.get_possible_values()))
    }
}

/// What a parser has said, without what clap puts around it.
fn words(error: &clap::Error, value: &OsStr) -> String {
    if let Some(source) = error.source() {
        return plainly(&source.to_string());
    }
    if value.is_empty() {
        return "a value is needed".to_owned();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => match values.as_slice() {
            [others @ .., last] if !others.is_empty() => format!("{} and {last} are allowed", others.join(", ")),
            _ => format!("{} is allowed", values.join(", ")),
        },
        _ => "it is not UTF-8".to_owned(),
    }
}

/// Takes any value. It remembers which ones would be right, for the help.
#[derive(Clone)]
struct Anything(Vec<clap::builder::PossibleValue>);

impl clap::builder::TypedValueParser for Anything {
    type Value = PathBuf;

    fn parse_ref(&self, _: &Command, _: Option<&Arg>, value: &OsStr) -> Result<PathBuf, clap::Error> {
        Ok(value.into())
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = clap::builder::PossibleValue> + '_>> {
        if self.0.is_empty() { None } else { Some(Box::new(self.0.iter().cloned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_knows_what_its_definition_says() {
        let ports = find("relay-ports").unwrap();
        assert_eq!((ports.variable(), ports.heading()), ("HAIRPIN_RELAY_PORTS", "Relaying"));
        assert_eq!((ports.default(), ports.has_value()), (Some("49152-65535"), true));
        let listen = find("listen").unwrap();
        assert!(listen.is_list() && !listen.is_secret());
        assert_eq!((listen.default(), listen.has_value()), (Some("udp and tcp port 3478 of every address"), false));
        assert!(!listen.help().contains("default"), "{}", listen.help());
        let kinds = ["tcp-relay", "shards", "relay-bit-rate", "realm"].map(|name| find(name).unwrap().kind());
        assert_eq!(kinds, [Kind::Switch, Kind::Count, Kind::Rate, Kind::Text]);
        assert_eq!(find("xdp").unwrap().choices().len(), 4);
    }

    #[test]
    fn every_secret_can_come_from_a_file() {
        let secrets: Vec<_> = all().iter().filter(|option| option.is_secret()).collect();
        assert_eq!(
            secrets.iter().map(|option| option.name()).collect::<Vec<_>>(),
            [
                "user",
                "auth-secret",
                "token-key",
                "user-store",
                "webhook-token",
                "nonce-key",
                "admin-token",
                "credentials-token"
            ]
        );
        for option in secrets {
            let file = option.file().expect("a twin");
            assert!(option.is_list() && !file.is_list() && !file.is_secret(), "{}", option.name());
            assert_eq!(file.values_of().map(Opt::name), Some(option.name()));
        }
    }

    #[test]
    fn a_value_is_checked_by_the_parser_of_the_option_and_in_its_words() {
        let check = |name: &str, value: &str| find(name).unwrap().check(value.as_ref());
        assert_eq!(check("shards", "4"), Ok(()));
        assert_eq!(check("shards", "0").unwrap_err(), "0 is not in 1..=256");
        assert_eq!(check("shards", "").unwrap_err(), "a whole number is needed");
        assert_eq!(check("xdp", "fast").unwrap_err(), "auto, native, generic and off are allowed");
        assert_eq!(check("certificate", "").unwrap_err(), "a value is needed");
        assert_eq!(check("tcp-relay", "on").unwrap_err(), "true and false are allowed");
        assert!(check("relay-ports", "5").unwrap_err().starts_with("two ports are needed"));
        assert_eq!(check("realm", "--shards"), Ok(()), "what looks like a flag is a value");
    }
}
