//! What goes to standard output: data, and nothing else.

use std::io::{self, Write as _};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::de::DeserializeOwned;

use super::client::Answer;
use super::failed::Failed;
use crate::cli::write;
use crate::printable;

/// Prints an answer: as the relay says it, or rendered for people.
pub(super) fn show<T: DeserializeOwned>(
    json: bool,
    answer: &Answer,
    render: impl FnOnce(&T) -> String,
) -> Result<(), Failed> {
    if json { print_json(answer.text()) } else { print(&render(&answer.read()?)) }
}

/// Prints a text, ended by a new line if it is not empty.
pub(super) fn print(text: &str) -> Result<(), Failed> {
    Ok(write(text)?)
}

/// Prints a document of JSON, which strangers have a part in.
pub(super) fn print_json(document: &str) -> Result<(), Failed> {
    print(&printable::json(document))
}

/// Whether nobody can read it any more. Without data to write, only asking tells.
pub(super) fn is_unread() -> bool {
    let out = io::stdout();
    let mut watched = [PollFd::new(&out, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut watched, Some(&now)).is_ok_and(|_| watched[0].revents().contains(PollFlags::ERR))
}

/// Says on standard error what is no data.
pub(super) fn note(text: &str) {
    // Who does not read it does not miss it.
    let _ = writeln!(io::stderr(), "{text}");
}
