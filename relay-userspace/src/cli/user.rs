//! `hairpin user`: a line for a file of users, with the keys made from a password instead of the password.

use std::io::{self, IsTerminal as _, Read as _};
use std::process::ExitCode;

use hairpin_users::users_file::hashed_line;

use super::value::realm;
use super::{complain, print, usage_error};

/// Make a line for --user-file that holds keys instead of the password, which is read from standard input.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The username
    #[arg(value_name = "NAME")]
    name: String,

    /// The realm that the keys are for: with another one they are worth nothing
    #[arg(long, value_name = "REALM", default_value = "hairpin", env = "HAIRPIN_REALM", value_parser = realm)]
    realm: String,
}

/// Prints the line.
pub(super) fn run(args: &Args) -> ExitCode {
    let mut password = String::new();
    if io::stdin().is_terminal() {
        complain("type the password, it is shown, and end with Ctrl-D");
    }
    // A password in the arguments would be seen by everybody on this host.
    if let Err(error) = io::stdin().read_to_string(&mut password) {
        return usage_error(&format!("standard input: {error}"));
    }
    let password = password.strip_suffix('\n').unwrap_or(&password);
    if password.is_empty() {
        return usage_error("standard input holds no password");
    }
    if password.contains('\n') {
        return usage_error("standard input holds more than one line");
    }
    match hashed_line(&args.name, &args.realm, password) {
        Ok(line) => print(&line, ExitCode::SUCCESS),
        Err(error) => usage_error(&error.to_string()),
    }
}
