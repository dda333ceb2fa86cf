//! `hairpin openapi`: the document that describes the admin interface.

use std::process::ExitCode;

use super::output::print;
use crate::admin;

/// Prints it.
pub(in crate::cli) fn run() -> ExitCode {
    super::run(async { print(admin::document()) })
}
