//! `hairpin users`: who has allocations, and the end of all that one has.

use std::process::ExitCode;

use super::client::{Client, escaped};
use super::human::{amount, named, plural};
use super::output::{note, show};
use super::place::{Place, given};
use super::table::{Column, table};
use crate::api::{Closed, User};

/// List users that have allocations, or close all allocations of one.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List users that have allocations (what is done when nothing else is said).
    List,
    /// Close all allocations of a user, in the kernel too; new ones may be made.
    Close {
        /// The username, or the part of it that quotas count by.
        #[arg(value_parser = given)]
        user: String,
    },
}

/// Asks and prints.
pub(in crate::cli) fn run(args: &Args) -> ExitCode {
    let json = args.place.json;
    super::run(async {
        let client = Client::new(&args.place)?;
        match &args.action {
            None | Some(Action::List) => show(json, &client.get("/v1/users").await?, |users: &Vec<User>| render(users)),
            Some(Action::Close { user }) => {
                let answer = client.delete(&format!("/v1/users/{}", escaped(user))).await?;
                show(json, &answer, |closed: &Closed| format!("closed {}", plural(closed.closed, "allocation")))
            }
        }
    })
}

fn render(users: &[User]) -> String {
    if users.is_empty() {
        note("no user has an allocation");
    }
    let columns = [
        Column::Left("USER"),
        Column::Left("REALM"),
        Column::Right("ALLOCATIONS"),
        Column::Right("MOST"),
        Column::Right("TO PEERS"),
        Column::Right("TO CLIENTS"),
    ];
    let rows = users.iter().map(|user| {
        [
            named(&user.user),
            user.realm.clone(),
            user.allocations.used.to_string(),
            user.allocations.of.to_string(),
            amount(user.relayed_data.to_peer),
            amount(user.relayed_data.to_client),
        ]
    });
    table(columns, rows)
}
