//! The keys of the file, for its page of man(5).

use std::fmt::Write as _;

use super::example::value_of;
use super::options::{self, Kind, Opt};
use super::reload::{Reload, reload};

/// A key of the file.
pub(in crate::cli) struct Key {
    pub(in crate::cli) name: &'static str,
    /// What groups it with others.
    pub(in crate::cli) heading: &'static str,
    /// The default value, or else one that it could have.
    pub(in crate::cli) example: String,
    /// What it means, what is allowed and what holds without it, in sentences.
    pub(in crate::cli) meaning: String,
}

/// All of them, in the order of the help.
pub(in crate::cli) fn keys() -> impl Iterator<Item = Key> {
    options::keys().map(|option| Key {
        name: option.name(),
        heading: option.heading(),
        example: value_of(option),
        meaning: meaning(option),
    })
}

fn meaning(option: &Opt) -> String {
    let mut text = option.help().to_owned();
    for (choice, help) in option.choices() {
        let help = help.map(|help| format!(": {help}")).unwrap_or_default();
        let _ = write!(text, "; {choice}{help}");
    }
    if option.kind() == Kind::Switch {
        text.push_str(" (true or false)");
    }
    if !text.ends_with('.') {
        text.push('.');
    }
    if let Some(default) = option.default() {
        let _ = write!(text, " Default: {default}.");
    }
    if reload(option.name()) == Some(Reload::Live) {
        text.push_str(" Live.");
    }
    text
}
