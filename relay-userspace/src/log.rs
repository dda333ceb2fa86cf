//! The log: lines on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Journal where standard error is journald's, else text
    #[default]
    Auto,
    /// For people
    Text,
    /// One object a line: timestamp, level, message, fields
    Json,
    /// For journald: a priority first, as of sd-daemon(3), and no time, which it adds itself
    Journal,
}

/// Begins to log.
pub fn start(text: &str, _format: Format) -> Result<(), String> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(filter(text)?)
        .with_target(false)
        // A log that cannot be written (a full disk, a reader that is gone) is no reason to stop relaying, and the library
        // would complain of it in a way that ends the thread.
        .log_internal_errors(false)
        .init();
    Ok(())
}

/// Whether a filter can be understood.
pub fn check(text: &str) -> Result<(), String> {
    filter(text).map(|_| ())
}

fn filter(text: &str) -> Result<EnvFilter, String> {
    for part in text.split(',').map(str::trim) {
        // A word alone could also name a part of the program, and a mistyped level would then silence all others.
        if !part.contains('=') && part.parse::<LevelFilter>().is_err() {
            return Err(refusal(part));
        }
    }
    EnvFilter::builder().parse(text).map_err(|_| refusal(text))
}

fn refusal(what: &str) -> String {
    format!("`{what}` is neither a level (off, error, warn, info, debug, trace) nor a filter like hairpin=debug")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_understood_and_nothing_else() {
        for (text, meaning) in [("debug", "debug"), ("WARN", "warn"), ("off", "off")] {
            assert_eq!(filter(text).unwrap().to_string(), meaning, "{text}");
        }
        assert!(filter("info,hairpin::shard=trace").is_ok());
        for bad in ["", "verbose", "info,loud", "hairpin=loud", "=", "info;debug"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
