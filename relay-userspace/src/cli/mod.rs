//! The command line.

mod admin;
mod check;
mod completions;
mod configuration;
mod credentials;
mod import_coturn;
mod manual;
mod overview;
mod serve;
pub mod settings;
mod style;
mod user;
mod value;

pub(crate) use value::number;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{load, printable};

/// Bad usage, as for most commands of Unix.
const USAGE: u8 = 2;

/// A TURN relay that forwards in the kernel.
#[derive(Debug, Parser)]
#[command(
    name = "hairpin",
    version,
    long_version = overview::VERSION.as_str(),
    styles = style::HELP,
    about,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay.
    Serve(settings::Flags),
    /// Measure a TURN server: real allocations, paced traffic, loss and latency.
    Load(Box<load::Args>),
    /// Reflect datagrams to where they came from: a peer for `load --mode echo --peer`.
    EchoPeer(load::EchoPeerArgs),
    /// Show the options of the relay: an example file, a reference, or what holds.
    Config(configuration::Args),
    /// Mint a username and password that expire, from a shared secret.
    Credentials(credentials::Args),
    /// Make a line for a file of users that holds keys instead of the password.
    User(user::Args),
    /// Show how the running relay is: warnings first, then what it serves.
    Status(admin::status::Args),
    /// Print a link to the status page of the running relay, for a browser.
    Page(admin::page::Args),
    /// List, show, watch or close allocations.
    Allocations(admin::allocations::Args),
    /// Create, list, show, change, close or watch sessions of two legs (ICE-lite, RTP).
    Ice(Box<admin::ice::Args>),
    /// List users that have allocations, or close all allocations of one.
    Users(admin::users::Args),
    /// Show what failed lately, newest first, and what to do about it.
    Why(admin::why::Args),
    /// Have the running relay read its configuration again. A bad one changes nothing.
    Reload(admin::reload::Args),
    /// Send new clients elsewhere; those that are here may stay for a time, or move.
    Drain(admin::drain::Args),
    /// Show what the running relay logs, or change it until its next reload or restart.
    LogLevel(admin::log_level::Args),
    /// Print the OpenAPI document of the admin interface.
    Openapi,
    /// Say whether the relay would start on this host, and how well it would run. Asks nobody but user stores.
    Check(check::Args),
    /// Make a configuration file of coturn's, a turnserver.conf.
    ImportCoturn(import_coturn::Args),
    /// Write the manual into a folder, as pages of man(1).
    Manual(manual::Args),
    /// Print a script that completes command lines of hairpin in a shell.
    Completions(completions::Args),
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let cli = match command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match cli.command {
        Command::Serve(flags) => serve::run(flags),
        Command::Load(args) => load::run(&args),
        Command::EchoPeer(args) => load::run_echo_peer(&args),
        Command::Config(args) => configuration::run(args),
        Command::Credentials(args) => credentials::run(&args),
        Command::User(args) => user::run(&args),
        Command::Status(args) => admin::status::run(&args),
        Command::Page(args) => admin::page::run(&args),
        Command::Allocations(args) => admin::allocations::run(&args),
        Command::Ice(args) => admin::ice::run(&args),
        Command::Users(args) => admin::users::run(&args),
        Command::Why(args) => admin::why::run(&args),
        Command::Reload(args) => admin::reload::run(&args),
        Command::Drain(args) => admin::drain::run(&args),
        Command::LogLevel(args) => admin::log_level::run(&args),
        Command::Openapi => admin::openapi::run(),
        Command::Check(args) => check::run(args),
        Command::ImportCoturn(args) => import_coturn::run(&args),
        Command::Manual(args) => manual::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Ends with one line that says what is wrong with the command line.
pub fn usage_error(message: &str) -> ExitCode {
    complain(message);
    ExitCode::from(USAGE)
}

/// One line on standard error, if anybody reads it. What was typed or read is repeated in it, so it is made fit for a
/// terminal.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "hairpin: {}", printable::clean(message));
}

/// Ends with all that is wrong with the settings, one line each.
pub(crate) fn complain_of_all(problems: &[settings::Problem]) -> ExitCode {
    for problem in problems {
        complain(&problem.to_string());
    }
    ExitCode::from(USAGE)
}

/// Prints a text, and ends with this code, or with a failure if it was lost. A reader that has gone is nobody's problem.
fn print(text: &str, code: ExitCode) -> ExitCode {
    match write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => code,
    }
}

/// Writes a text to standard output, ended by a new line if it is not empty. Its colours are for a terminal only.
fn write(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.is_empty() && !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Help and version are what was asked for; a closed pipe is nobody's problem.
        let _ = error.print();
        return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
    }
    // The first paragraph is the error; hints and usage follow it.
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or(&text);
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let hint = text.lines().find_map(|line| line.trim_start().strip_prefix("tip: "));
    let line = hint.map_or(line.clone(), |hint| format!("{line} ({hint})"));
    usage_error(&plainly(line.strip_prefix("error: ").unwrap_or(&line)))
}

/// The standard library's words about numbers, as somebody would say it who is asked for one.
fn plainly(text: &str) -> String {
    let needed = "a whole number is needed";
    text.replace("invalid digit found in string", needed)
        .replace("cannot parse integer from empty string", needed)
        .replace("number too large to fit in target type", "the number is too large")
}

/// The definition of the command line, for documentation and tests.
pub fn command() -> clap::Command {
    let command = Cli::command();
    let help = overview::help(&command);
    command.override_help(help)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_is_sound() {
        super::command().debug_assert();
    }
}
