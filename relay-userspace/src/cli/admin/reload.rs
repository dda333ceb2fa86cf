//! `hairpin reload`: the running relay reads its configuration again.

use std::process::ExitCode;

use hyper::Method;

use super::client::Client;
use super::human::clean;
use super::output::{note, show};
use super::place::Place;
use crate::api::{ReloadRequest, Reloaded};

/// Have the running relay read its configuration again. A bad one changes nothing.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Close the allocations and sessions of listeners and relay addresses that are removed, instead of waiting for their end
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    place: Place,
}

/// Asks and prints.
pub(in crate::cli) fn run(args: &Args) -> ExitCode {
    super::run(async {
        let request = ReloadRequest { force: args.force };
        let answer = Client::new(&args.place)?.send(Method::POST, "/v1/reload", &request).await?;
        show(args.place.json, &answer, render)
    })
}

fn render(reloaded: &Reloaded) -> String {
    let Reloaded { changed, draining, needs_restart } = reloaded;
    if [changed, draining, needs_restart].iter().all(|lines| lines.is_empty()) {
        note("nothing has changed");
    }
    let parts = [("changed", changed), ("draining", draining), ("needs a restart", needs_restart)];
    let lines =
        parts.iter().flat_map(|(title, lines)| lines.iter().map(move |line| format!("{title}: {}\n", clean(line))));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_what_kind_of_change_it_is() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let reloaded = Reloaded {
            changed: lines(&["realm: a, was b", "two users added"]),
            draining: lines(&["203.0.113.7 still has 12 allocations: --force clears them"]),
            needs_restart: lines(&["shards"]),
        };
        let expected = "\
changed: realm: a, was b
changed: two users added
draining: 203.0.113.7 still has 12 allocations: --force clears them
needs a restart: shards
";
        assert_eq!(render(&reloaded), expected);
    }
}
