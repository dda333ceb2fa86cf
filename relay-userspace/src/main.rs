//! The `hairpin` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    hairpin::capabilities::use_permitted();
    hairpin::cli::run()
}
