//! `hairpin log-level`: what the running relay logs.

use std::process::ExitCode;

use hyper::Method;

use super::client::Client;
use super::human::clean;
use super::output::show;
use super::place::Place;
use crate::api::LogLevel;

/// Show what the running relay logs, or change it until its next reload or restart.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A level (off, error, warn, info, debug, trace) or a filter such as info,hairpin::shard=debug
    level: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Asks and prints.
pub(in crate::cli) fn run(args: &Args) -> ExitCode {
    super::run(async {
        let client = Client::new(&args.place)?;
        let answer = match &args.level {
            None => client.get("/v1/log-level").await?,
            Some(level) => client.send(Method::PUT, "/v1/log-level", &LogLevel { level: level.clone() }).await?,
        };
        show(args.place.json, &answer, |level: &LogLevel| clean(&level.level))
    })
}
