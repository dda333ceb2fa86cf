//! The log: lines on standard error, in the form that their reader wants.
//!
//! Whoever logs never waits for the reader, and never fails because of it: lines go through a queue to a thread of their
//! own, and what finds no room there is counted and forgotten.

mod lines;
mod queue;

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use self::lines::{Form, Lines};
use self::queue::Queue;

/// How long the end of the process waits for the log to be written.
const PATIENCE: Duration = Duration::from_secs(1);

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

/// A log that has begun, to be changed while it is written.
#[derive(Clone)]
pub struct Handle {
    filter: reload::Handle<EnvFilter, Registry>,
    form: Arc<Form>,
    queue: Queue,
}

/// Begins to log, once in a process. An error is one line, without the name of an option.
pub fn start(text: &str, format: Format) -> Result<Handle, String> {
    let (filter, handle) = reload::Layer::new(filter(text)?);
    let queue = Queue::start(io::stderr()).map_err(|error| format!("the thread of the log: {error}"))?;
    let form = Arc::new(Form::new(resolved(format)));
    let lines = fmt::layer()
        .with_writer(queue.clone())
        .with_ansi(io::stderr().is_terminal())
        .event_format(Lines::new(Arc::clone(&form)))
        // The library would complain of it in a way that ends the thread.
        .log_internal_errors(false);
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    started.map_err(|error| error.to_string())?;
    Ok(Handle { filter: handle, form, queue })
}

impl Handle {
    /// What is logged: a level, or filters.
    pub fn level(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Logs something else from now on. An error says what is allowed.
    pub fn set_level(&self, text: &str) -> Result<(), String> {
        self.filter.reload(filter(text)?).map_err(|error| error.to_string())
    }

    /// Writes the lines that come in another form.
    pub fn set_format(&self, format: Format) {
        self.form.set(resolved(format));
    }

    /// How many lines were lost, since there was no room for them or they could not be written.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Waits until what has been logged is written, but not for long.
    pub fn flush(&self) {
        self.queue.flush(PATIENCE);
    }
}

/// Whether a filter can be understood. An error says what is allowed.
pub fn check(text: &str) -> Result<(), String> {
    filter(text).map(|_| ())
}

fn filter(text: &str) -> Result<EnvFilter, String> {
    for part in text.split(',').map(str::trim) {
        // A word alone could also name a part of the program, and a mistyped level would then silence all others.
        if part.is_empty() || !part.contains('=') && part.parse::<LevelFilter>().is_err() {
            return Err(refusal(part));
        }
    }
    EnvFilter::builder().parse(text).map_err(|_| refusal(text))
}

fn refusal(what: &str) -> String {
    format!("`{what}` is neither a level (off, error, warn, info, debug, trace) nor a filter like hairpin=debug")
}

/// What `auto` means here.
fn resolved(format: Format) -> Format {
    let stream = env::var("JOURNAL_STREAM").unwrap_or_default();
    match format {
        Format::Auto if is_stream(&stream, io::stderr()) => Format::Journal,
        Format::Auto => Format::Text,
        other => other,
    }
}

/// Whether a file is the one that systemd means by device and inode (systemd.exec(5)): a child of a service may have another.
fn is_stream(named: &str, file: impl AsFd) -> bool {
    let metadata = file.as_fd().try_clone_to_owned().and_then(|file| File::from(file).metadata());
    metadata.is_ok_and(|file| named == format!("{}:{}", file.dev(), file.ino()))
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
            assert!(check(bad).unwrap_err().contains("neither a level"), "{bad}");
        }
    }

    #[test]
    fn the_stream_of_the_journal_is_known_by_device_and_inode() {
        let file = File::open("/dev/null").unwrap();
        let metadata = file.metadata().unwrap();
        assert!(is_stream(&format!("{}:{}", metadata.dev(), metadata.ino()), &file));
        assert!(!is_stream(&format!("{}:{}", metadata.dev(), metadata.ino() + 1), &file));
        assert!(!is_stream("", &file));
    }

    #[test]
    fn a_log_can_be_changed_while_it_is_written() {
        let log = start("warn", Format::Text).unwrap();
        assert_eq!(log.level(), "warn");
        assert!(!tracing::enabled!(tracing::Level::INFO));
        log.set_level("info").unwrap();
        assert_eq!(log.level(), "info");
        assert!(tracing::enabled!(tracing::Level::INFO));
        assert!(log.set_level("loud").unwrap_err().contains("`loud`"));
        assert_eq!(log.level(), "info", "what is wrong changes nothing");
        log.set_level("off").unwrap();
    }
}
