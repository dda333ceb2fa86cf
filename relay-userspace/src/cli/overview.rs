//! What `hairpin` says without arguments: the commands by what they are for, with where to begin first.

use std::fmt::Write as _;
use std::sync::LazyLock;

use clap::Command;
use clap::builder::StyledStr;

use super::style::{HEADING, LITERAL, paint};
use crate::check::OLDEST_KERNEL;

/// Each command once, in the order in which they are met.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Set up and run", &["check", "serve", "config", "import-coturn"]),
    ("Who may relay", &["credentials", "user"]),
    ("A running relay", &["status", "page", "why", "allocations", "users", "ice", "reload", "drain", "log-level"]),
    ("Measure any TURN server", &["load", "echo-peer"]),
    ("For programs and packages", &["openapi", "manual", "completions"]),
];

const BEGIN: [(&str, &str); 3] = [
    ("hairpin check", "would a relay start here, and how well would it run"),
    ("hairpin serve", "start one: it makes its own secret, and prints what a client needs to try it"),
    ("hairpin status", "see how it is, warnings first; `hairpin why` says what failed, and what to do"),
];

/// The help of the whole, in place of clap's own, which knows no groups.
pub(super) fn help(command: &Command) -> StyledStr {
    let mut text = String::new();
    // Writing to a string never fails.
    let _ = write!(text, "{}\n\n{} hairpin COMMAND [OPTIONS]\n", heading(&about(command)), heading("Usage:"));
    let _ = writeln!(text, "\n{}", heading("Begin with"));
    for (typed, meaning) in BEGIN {
        line(&mut text, typed, meaning);
    }
    for (name, members) in GROUPS {
        let _ = writeln!(text, "\n{}", heading(name));
        for member in members {
            line(&mut text, member, &command.find_subcommand(member).map(about).unwrap_or_default());
        }
    }
    let last = "`hairpin COMMAND --help` explains a command and its options, `hairpin --version` what was built in.";
    let _ = write!(text, "\n{last}\n");
    text.into()
}

/// The first sentence of what it is.
fn about(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    about.split(". ").next().unwrap_or_default().to_owned()
}

fn heading(text: &str) -> String {
    paint(HEADING, text)
}

fn line(text: &mut String, name: &str, meaning: &str) {
    const WIDTH: usize = 15;
    let gap = WIDTH.saturating_sub(name.len());
    let _ = writeln!(text, "  {}{:gap$} {meaning}", paint(LITERAL, name), "");
}

/// What `--version` says: what is built in, as far as a report of a fault should name it.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let program = if cfg!(feature = "xdp") {
        let (major, minor) = OLDEST_KERNEL;
        format!("built in, for Linux {major}.{minor} or later")
    } else {
        "not built in: everything is relayed in userspace".to_owned()
    };
    let lines = [
        format!("{} for {}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS),
        format!("XDP program: {program}"),
        format!("TLS: rustls with ring; DTLS: {}", hairpin_dtls::library()),
        "Licence: MIT OR Apache-2.0; of the XDP program also GPL".to_owned(),
    ];
    lines.join("\n")
});

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::style::plain;

    #[test]
    fn every_command_is_in_one_group() {
        let command = crate::cli::command();
        let all: BTreeSet<_> = command.get_subcommands().map(Command::get_name).collect();
        let grouped: Vec<_> = GROUPS.iter().flat_map(|(_, members)| members.iter().copied()).collect();
        assert_eq!(grouped.len(), all.len(), "each once");
        assert_eq!(grouped.into_iter().collect::<BTreeSet<_>>(), all);
    }

    #[test]
    fn the_overview_fits_a_terminal() {
        let help = plain(&help(&crate::cli::command()).ansi().to_string());
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        assert!(help.lines().count() <= 45, "{help}");
    }
}
