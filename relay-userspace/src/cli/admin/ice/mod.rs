//! `hairpin ice`: sessions of two legs, which there are, what is on either side of them, and what happens to them.

mod candidates;
mod create;
mod exchange;
mod list;
mod remote;
mod show;
mod terms;
mod update;
mod watch;

use std::process::ExitCode;

use hyper::Method;

use self::exchange::{Answer, Offer};
use super::client::{Client, escaped, with_query};
use super::output::{note, print, show};
use super::place::{Place, given};
use crate::api::ice::{Session, Sessions, Side};
use crate::clock::unix_seconds;

/// Create, list, show, change, close or watch sessions of two legs.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a session, and show where its legs are reached.
    Create(create::Args),
    /// List sessions: those that all that is given is true of.
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Show one session: its legs, their candidates, where media goes, and how much of it in the kernel.
    Show {
        /// Its id, as `list` shows it.
        #[arg(value_parser = given)]
        id: String,
        /// Only one leg, as lines of a session description
        #[arg(long, value_name = "LEG", value_parser = side)]
        sdp: Option<Side>,
    },
    /// Change what a session is called, how much it may carry, or how long it lives; what is not said stays as it is.
    Update(update::Args),
    /// Close a session, in the kernel too, and show it as it was in the end.
    Close {
        /// Its id, as `list` shows it.
        #[arg(value_parser = given)]
        id: String,
    },
    /// Say who is on the other side of a leg: an ICE agent, addresses without ICE, or a session description.
    Remote(remote::Args),
    /// Add candidates of an ICE agent that a leg knows already (trickle ICE).
    Candidates(candidates::Args),
    /// Give a leg of ICE new credentials.
    Restart {
        /// The session's id, as `list` shows it.
        #[arg(value_parser = given)]
        id: String,
        /// Which leg: a or b.
        #[arg(value_parser = side)]
        leg: Side,
    },
    /// Make a session of an offer, or take another one of it, and print the offer for the other side.
    Offer(Offer),
    /// Take the answer to an offer, and print the answer for the side that has offered.
    Answer(Answer),
    /// Show what happens to sessions, one line each, until Ctrl-C.
    Watch {
        #[command(flatten)]
        which: Which,
        /// The one with this id
        #[arg(long, value_name = "ID", value_parser = given)]
        session: Option<String>,
    },
}

/// Which sessions are meant.
#[derive(Debug, clap::Args)]
struct Which {
    /// Those with this label
    #[arg(long, value_parser = given)]
    label: Option<String>,
}

/// Asks and prints.
pub(in crate::cli) fn run(args: &Args) -> ExitCode {
    let json = args.place.json;
    super::run(async {
        let client = Client::new(&args.place)?;
        let describe = |session: &Session| show::describe(session, unix_seconds());
        match &args.action {
            Action::Create(create) => {
                let answer = client.send(Method::POST, "/v1/ice/sessions", &create.request()).await?;
                show(json, &answer, describe)
            }
            Action::List { which } => {
                let path = with_query("/v1/ice/sessions", &[("label", which.label.as_deref())]);
                let answer = client.get(&path).await?;
                show(json, &answer, |Sessions { sessions }| list::list(sessions, unix_seconds()))
            }
            Action::Show { id, sdp } => {
                let answer = client.get(&session(id)).await?;
                match sdp {
                    // One leg is shown to whoever puts it into a description, whatever else could be said.
                    Some(side) => {
                        let session = answer.read()?;
                        note(&show::ports(&session, *side));
                        print(&show::fragment(&session, *side))
                    }
                    None => show(json, &answer, describe),
                }
            }
            Action::Update(update) => {
                show(json, &client.send(Method::PATCH, &session(&update.id), &update.request()).await?, describe)
            }
            Action::Close { id } => show(json, &client.delete(&session(id)).await?, describe),
            Action::Remote(remote) => {
                let path = leg(&remote.id, remote.leg, "remote");
                show(json, &client.send(Method::PUT, &path, &remote.request()?).await?, describe)
            }
            Action::Candidates(candidates) => {
                let path = leg(&candidates.id, candidates.leg, "candidates");
                show(json, &client.send(Method::POST, &path, &candidates.request()?).await?, describe)
            }
            Action::Restart { id, leg: side } => {
                let path = leg(id, *side, "restart");
                show(json, &client.send(Method::POST, &path, &serde_json::json!({})).await?, describe)
            }
            Action::Offer(offer) => offer.run(&client, json).await,
            Action::Answer(answer) => answer.run(&client, json).await,
            Action::Watch { which, session } => {
                let query = [("label", which.label.as_deref()), ("session", session.as_deref())];
                super::watch::watch(&client, &with_query("/v1/ice/events", &query), json, watch::render).await
            }
        }
    })
}

/// The path of a session.
fn session(id: &str) -> String {
    format!("/v1/ice/sessions/{}", escaped(id))
}

/// The path of something that is done to a leg.
fn leg(id: &str, side: Side, what: &str) -> String {
    format!("{}/legs/{}/{what}", session(id), label(side))
}

fn side(text: &str) -> Result<Side, String> {
    match text {
        "a" => Ok(Side::A),
        "b" => Ok(Side::B),
        _ => Err("a or b is needed".to_owned()),
    }
}

fn label(side: Side) -> &'static str {
    match side {
        Side::A => "a",
        Side::B => "b",
    }
}
