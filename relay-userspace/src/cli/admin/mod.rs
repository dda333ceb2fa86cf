//! Commands that ask a running relay, by its admin interface: each is one request or a few, and a way to show the answer
//! to people. With `--json`, what the interface has said is printed as it is.

pub(super) mod allocations;
mod client;
pub(super) mod drain;
mod failed;
mod human;
pub(super) mod ice;
pub(super) mod log_level;
pub(super) mod openapi;
mod output;
pub(super) mod page;
mod place;
pub(super) mod reload;
pub(super) mod status;
mod table;
pub(super) mod users;
mod watch;
pub(super) mod why;

use std::process::ExitCode;

use failed::Failed;

/// Runs a command to its end.
fn run(command: impl Future<Output = Result<(), Failed>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(|error| Failed::Here(error.to_string())).and_then(|runtime| runtime.block_on(command));
    ended.map_or_else(Failed::exit, |()| ExitCode::SUCCESS)
}
