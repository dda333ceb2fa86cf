//! The log: what `HAIRPIN_LOG` asks for, on standard error.

use std::env::{self, VarError};
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const VARIABLE: &str = "HAIRPIN_LOG";
const DEFAULT: &str = "info";

/// Begins to log. An error is one line that names the variable.
pub(super) fn start() -> Result<(), String> {
    let filter = match env::var(VARIABLE) {
        Ok(text) => filter(&text)?,
        Err(VarError::NotPresent) => EnvFilter::new(DEFAULT),
        Err(VarError::NotUnicode(_)) => return Err(refusal("it")),
    };
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(filter)
        .with_target(false)
        // A log that cannot be written (a full disk, a reader that is gone) is no reason to stop relaying, and the library
        // would complain of it in a way that ends the thread.
        .log_internal_errors(false)
        .init();
    Ok(())
}

fn filter(text: &str) -> Result<EnvFilter, String> {
    if text.trim().is_empty() {
        return Ok(EnvFilter::new(DEFAULT));
    }
    for part in text.split(',').map(str::trim) {
        // A word alone could also name a part of the program, and a mistyped level would then silence all others.
        if !part.contains('=') && part.parse::<LevelFilter>().is_err() {
            return Err(refusal(&format!("`{part}`")));
        }
    }
    EnvFilter::builder().parse(text).map_err(|_| refusal(&format!("`{text}`")))
}

fn refusal(what: &str) -> String {
    format!(
        "{VARIABLE}: {what} is neither a level (off, error, warn, info, debug, trace) nor a filter like hairpin=debug"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_understood_and_nothing_else() {
        for (text, meaning) in [("", "info"), ("debug", "debug"), ("WARN", "warn"), ("off", "off")] {
            assert_eq!(filter(text).unwrap().to_string(), meaning, "{text}");
        }
        assert!(filter("info,hairpin::shard=trace").is_ok());
        for bad in ["verbose", "info,loud", "hairpin=loud", "=", "info;debug"] {
            assert!(filter(bad).unwrap_err().starts_with("HAIRPIN_LOG: "), "{bad}");
        }
    }
}
