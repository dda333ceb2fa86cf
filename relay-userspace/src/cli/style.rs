//! Colours, for terminals only: whatever writes takes them out where nobody would see them (`NO_COLOR`, a pipe, a file).

use clap::builder::styling::{AnsiColor, Style, Styles};

pub(in crate::cli) const HEADING: Style = Style::new().bold();
pub(in crate::cli) const GOOD: Style = AnsiColor::Green.on_default();
pub(in crate::cli) const WARNING: Style = AnsiColor::Yellow.on_default();
pub(in crate::cli) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What is typed as it stands.
pub(in crate::cli) const LITERAL: Style = AnsiColor::Cyan.on_default();

/// Those of the help.
pub(in crate::cli) const HELP: Styles = Styles::styled()
    .header(HEADING)
    .usage(HEADING)
    .literal(LITERAL)
    .placeholder(AnsiColor::Green.on_default())
    .error(BAD)
    .valid(GOOD)
    .invalid(WARNING);

/// A text in a style.
pub(in crate::cli) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// As it is without a terminal.
#[cfg(test)]
pub(in crate::cli) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}
