//! `hairpin config --show`: the settings as they are, and where each comes from.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::layer::Written;
use super::options::{self, Opt};
use super::problem::Place;
use super::toml_text;

/// What stands in the place of a secret.
const HIDDEN: &str = "(hidden)";

/// What an option is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its long name.
    pub name: &'static str,
    /// Its values; none: it is not given, and has no default value. Secrets are hidden.
    pub values: Vec<String>,
    /// Where they come from. Of several, where the first one does.
    pub origin: Place,
}

/// All options but `config`, with the values that were chosen.
pub(super) fn settings(chosen: &BTreeMap<&'static str, Vec<Written>>) -> Vec<Setting> {
    options::keys().map(|option| setting(option, chosen.get(option.name()).map(Vec::as_slice))).collect()
}

fn setting(option: &'static Opt, chosen: Option<&[Written]>) -> Setting {
    let Some(first) = chosen.unwrap_or_default().first() else {
        let value = option.default().filter(|_| option.has_value()).map(str::to_owned);
        return Setting { name: option.name(), values: value.into_iter().collect(), origin: Place::Default };
    };
    let shown = |value: &Written| {
        if option.is_secret() { HIDDEN.to_owned() } else { value.text.to_string_lossy().into_owned() }
    };
    let values = chosen.unwrap_or_default().iter().map(shown).collect();
    Setting { name: option.name(), values, origin: first.place.clone() }
}

/// As a file that could be read again, but for its secrets.
pub(in crate::cli) fn print(settings: &[Setting]) -> String {
    let mut text = String::new();
    for setting in settings {
        let Some(option) = options::find(setting.name) else { continue };
        let origin = match &setting.origin {
            Place::Default => "default".to_owned(),
            Place::Flag => format!("--{}", option.name()),
            Place::Variable => option.variable().to_owned(),
            Place::Line(path, line) => format!("{}:{line}", path.display()),
        };
        let name = setting.name;
        // Writing to a string cannot fail.
        let _ = if setting.values.is_empty() {
            match option.default() {
                Some(default) => writeln!(text, "# {name}: {default}"),
                None => writeln!(text, "# {name}: none"),
            }
        } else {
            writeln!(text, "{name} = {} # {origin}", toml_text::value(option, &setting.values))
        };
    }
    text
}
