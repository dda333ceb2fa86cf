//! `hairpin serve`: its options, and what they mean together.

mod args;
mod contradiction;
mod listeners;
mod meaning;
mod users;

use std::process::ExitCode;

pub(super) use self::args::Args;
pub(super) use self::contradiction::{Contradiction, Part};
pub(super) use self::meaning::RealmFile;
pub(super) use self::users::OF_REALM;
use super::settings::{Flags, Source};
use super::{complain, complain_of_all, usage_error};
use crate::service::{Manager, Passed, Variables};
use crate::{log, relay};

/// Runs the relay until it is told to stop.
pub(super) fn run(flags: Flags) -> ExitCode {
    // First of all: the process has one thread, and no file of its own.
    let variables = Variables::take();
    let passed = match Passed::of(&variables) {
        Ok(passed) => passed,
        Err(error) => return usage_error(&error.to_string()),
    };
    let source = Source::new(flags);
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(problems) => return complain_of_all(&problems),
    };
    let log = match log::start(&loaded.config.log, loaded.config.log_format) {
        Ok(log) => log,
        Err(message) => return usage_error(&message),
    };
    for warning in loaded.warnings {
        tracing::warn!("{warning}");
    }
    let end = relay::run(loaded.config, source, log.clone(), Manager::of(&variables), passed);
    log.flush();
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
