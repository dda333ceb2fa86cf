//! `hairpin drain`: new clients are sent elsewhere, and those that are there go in their own time, or at a deadline.

use std::process::ExitCode;
use std::time::Duration;

use hyper::Method;
use tokio::time::sleep;

use super::client::{Answer, Client, Connection};
use super::failed::Failed;
use super::human::until;
use super::output::{note, print, print_json};
use super::place::Place;
use crate::api::{DrainRequest, DrainStatus};
use crate::clock::unix_seconds;
use crate::shard::InService;

/// How often is asked how far it is.
const POLL: Duration = Duration::from_secs(1);
/// More is a slip of the fingers: nobody waits so long for the last call to end.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Send new clients elsewhere; those that are here may stay for a time, or move.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(in crate::cli) struct Args {
    /// Close what is left after so long, such as 30s, 10m or 2h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,

    /// End the relay when nothing is left
    #[arg(long)]
    stop: bool,

    /// Send clients that are there to other relays, too (300 to a Refresh), of those that --alternate-server names; what they
    /// have here stays until its lifetime ends
    #[arg(long = "move")]
    move_clients: bool,

    /// Wait until nothing is left, and show how it goes; of a drain that runs already, if nothing else is said
    #[arg(long)]
    wait: bool,

    /// Let new clients in again
    #[arg(long, conflicts_with_all = ["timeout", "stop", "move_clients", "wait"])]
    cancel: bool,

    /// Only show whether it drains, and how far it is
    #[arg(long, conflicts_with_all = ["timeout", "stop", "move_clients", "wait", "cancel"])]
    show: bool,

    #[command(flatten)]
    place: Place,
}

/// Asks and prints.
pub(in crate::cli) fn run(args: &Args) -> ExitCode {
    super::run(async {
        let client = Client::new(&args.place)?;
        if args.cancel {
            let answer = client.delete("/v1/drain").await?;
            return if args.place.json { print_json(answer.text()) } else { print("new clients are welcome") };
        }
        let json = args.place.json;
        if args.show {
            return tell(&client.get("/v1/drain").await?, json);
        }
        if !args.wait {
            return tell(&begin(&client, args).await?, json);
        }
        // Before it is told to end: afterwards nobody may answer, or another relay.
        let connection = client.connect().await?;
        wait(connection, begin(&client, args).await?, json).await
    })
}

/// Has it begin. Who only wants to wait does not take its deadline from a drain that runs already.
async fn begin(client: &Client, args: &Args) -> Result<Answer, Failed> {
    if args.wait && args.timeout.is_none() && !args.stop && !args.move_clients {
        let answer = client.get("/v1/drain").await?;
        if answer.read::<DrainStatus>()?.draining {
            return Ok(answer);
        }
    }
    let request = DrainRequest {
        timeout: args.timeout.map(|timeout| timeout.as_secs()),
        stop: args.stop,
        move_clients: args.move_clients,
    };
    client.send(Method::POST, "/v1/drain", &request).await
}

/// Tells each change until nothing is left.
async fn wait(mut relay: Connection<'_>, mut answer: Answer, json: bool) -> Result<(), Failed> {
    let mut told = None;
    loop {
        let status: DrainStatus = answer.read()?;
        if told.replace(status) != Some(status) {
            tell(&answer, json)?;
        }
        if !status.draining {
            return Err(Failed::Here("somebody has let new clients in again".to_owned()));
        }
        if status.allocations + status.sessions == 0 {
            return Ok(());
        }
        sleep(POLL).await;
        answer = match relay.get("/v1/drain").await {
            Err(Failed::Here(reason)) if status.stop => {
                // It has nothing left, and ends before it can be asked.
                note(&format!("the relay has ended ({reason})"));
                return Ok(());
            }
            answer => answer?,
        };
    }
}

fn tell(answer: &Answer, json: bool) -> Result<(), Failed> {
    if json { print_json(answer.text()) } else { print(&render(&answer.read()?, unix_seconds())) }
}

fn render(status: &DrainStatus, now: u64) -> String {
    let DrainStatus { draining, allocations, sessions, deadline, stop, move_clients } = *status;
    if !draining {
        return "not draining".to_owned();
    }
    let then = if stop { ", then the relay ends" } else { "" };
    let left = left(allocations, sessions);
    let moved = if move_clients { ", sent to other relays as they refresh" } else { "" };
    match deadline {
        _ if allocations + sessions == 0 => format!("drained: nothing is left{then}"),
        Some(deadline) => format!("draining: {left} left{moved}, closed in {}{then}", until(now, deadline)),
        None => format!("draining: {left} left{moved}, no deadline{then}"),
    }
}

/// How much is left: `12 allocations and 1 media session`.
pub(super) fn left(allocations: u64, sessions: u64) -> InService {
    let [allocations, sessions] = [allocations, sessions].map(|count| count.try_into().unwrap_or(usize::MAX));
    InService { allocations, sessions }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 30s, 10m or 2h"))?;
    match parsed {
        _ if parsed.subsec_nanos() != 0 => Err("whole seconds are needed".to_owned()),
        _ if parsed > LONGEST => Err("at most 30 days are allowed".to_owned()),
        _ => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_fits_in_a_line() {
        let status = DrainStatus {
            draining: true,
            allocations: 12,
            sessions: 0,
            deadline: Some(1_290),
            stop: true,
            move_clients: false,
        };
        assert_eq!(render(&status, 1_000), "draining: 12 allocations left, closed in 4m50s, then the relay ends");
        let endless = DrainStatus { allocations: 1, deadline: None, stop: false, ..status };
        assert_eq!(render(&endless, 1_000), "draining: 1 allocation left, no deadline");
        let moved = DrainStatus { move_clients: true, ..endless };
        assert_eq!(
            render(&moved, 1_000),
            "draining: 1 allocation left, sent to other relays as they refresh, no deadline"
        );
        let calls = DrainStatus { sessions: 2, ..endless };
        assert_eq!(render(&calls, 1_000), "draining: 1 allocation and 2 media sessions left, no deadline");
        let only = DrainStatus { allocations: 0, sessions: 1, ..endless };
        assert_eq!(render(&only, 1_000), "draining: 1 media session left, no deadline");
        let over = DrainStatus { allocations: 0, stop: false, ..status };
        assert_eq!(render(&over, 1_000), "drained: nothing is left");
        assert_eq!(render(&DrainStatus { draining: false, ..status }, 1_000), "not draining");
    }
}
