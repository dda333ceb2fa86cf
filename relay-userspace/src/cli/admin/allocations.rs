//! `hairpin allocations`: which there are, what belongs to one, what happens to them, and the end of some.

use std::process::ExitCode;

use super::client::{Client, escaped, with_query};
use super::failed::Failed;
use super::human::{age, amount, bit_rate, clean, named, plural, size, until};
use super::output::{note, show};
use super::place::{Place, given};
use super::table::{Column, section, table};
use super::watch::{render, watch};
use crate::api::{Allocation, AllocationDetail, Closed};
use crate::clock::unix_seconds;

/// List, show, watch or close allocations.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List live allocations: those that all that is given is true of.
    List {
        #[command(flatten)]
        which: Which,
        /// At most so many
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
    /// Show one allocation, with its permissions and channels.
    Show {
        /// Its id, as `list` shows it.
        #[arg(value_parser = given)]
        id: String,
    },
    /// Show allocations as they begin and end, one line each, until Ctrl-C.
    Watch {
        #[command(flatten)]
        which: Which,
    },
    /// Close allocations, in the kernel too: those that all that is given is true of.
    Close {
        /// The one with this id.
        #[arg(value_parser = given)]
        id: Option<String>,
        #[command(flatten)]
        which: Which,
        /// All that there are
        #[arg(long, conflicts_with_all = ["id", "user", "client", "relayed", "realm"])]
        all: bool,
    },
}

/// Which allocations are meant.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Those of a user: the username, or the part of it that quotas count by
    #[arg(long, value_parser = given)]
    user: Option<String>,
    /// Those of clients at this address
    #[arg(long, value_name = "IP[:PORT]", value_parser = given)]
    client: Option<String>,
    /// Those with this relayed address
    #[arg(long, value_name = "IP[:PORT]", value_parser = given)]
    relayed: Option<String>,
    /// Those of a realm
    #[arg(long, value_parser = given)]
    realm: Option<String>,
}

impl Which {
    /// As a query.
    pub(super) fn query(&self) -> [(&'static str, Option<&str>); 4] {
        let Self { user, client, relayed, realm } = self;
        [
            ("user", user.as_deref()),
            ("client", client.as_deref()),
            ("relayed", relayed.as_deref()),
            ("realm", realm.as_deref()),
        ]
    }
}

/// Asks and prints.
pub(in crate::cli) fn run(args: &Args) -> ExitCode {
    let json = args.place.json;
    super::run(async {
        let client = Client::new(&args.place)?;
        match &args.action {
            Action::List { which, limit } => {
                let limit = limit.map(|limit| limit.to_string());
                let path = with_query("/v1/allocations", &which.query());
                let answer = client.get(&with_query(&path, &[("limit", limit.as_deref())])).await?;
                show(json, &answer, |allocations: &Vec<Allocation>| list(allocations, unix_seconds()))
            }
            Action::Show { id } => {
                let answer = client.get(&format!("/v1/allocations/{}", escaped(id))).await?;
                show(json, &answer, |detail| describe(detail, unix_seconds()))
            }
            Action::Watch { which } => {
                watch(&client, &with_query("/v1/allocations/events", &which.query()), json, render).await
            }
            Action::Close { id, which, all } => {
                let answer = client.delete(&closing(id.as_deref(), which, *all)?).await?;
                show(json, &answer, |closed: &Closed| format!("closed {}", plural(closed.closed, "allocation")))
            }
        }
    })
}

/// The path that closes what is meant. One that is named alone has to be there.
fn closing(id: Option<&str>, which: &Which, all: bool) -> Result<String, Failed> {
    let query = which.query();
    let has_filter = query.iter().any(|(_, value)| value.is_some());
    match id {
        Some(id) if !has_filter => Ok(format!("/v1/allocations/{}", escaped(id))),
        None if all => Ok("/v1/allocations?all=true".to_owned()),
        None if !has_filter => {
            let usage = "say which: an id, --user, --client, --relayed or --realm, or --all for all that there are";
            Err(Failed::Usage(usage.to_owned()))
        }
        _ => Ok(with_query(&with_query("/v1/allocations", &query), &[("id", id)])),
    }
}

fn list(allocations: &[Allocation], now: u64) -> String {
    if allocations.is_empty() {
        note("there is no such allocation");
    }
    let columns = [
        Column::Left("ID"),
        Column::Left("USER"),
        Column::Left("CLIENT"),
        Column::Left("OVER"),
        Column::Left("RELAYED"),
        Column::Right("PEERS"),
        Column::Right("AGE"),
        Column::Right("ENDS IN"),
        Column::Right("TO PEERS"),
        Column::Right("TO CLIENT"),
        Column::Right("MEAN RATE"),
    ];
    let rows = allocations.iter().map(|allocation| {
        let data = allocation.relayed_data;
        let lived = now.saturating_sub(allocation.began);
        [
            allocation.id.clone(),
            named(&allocation.user),
            allocation.client.to_string(),
            allocation.transport.clone(),
            relayed(allocation),
            allocation.permissions.to_string(),
            age(lived),
            until(now, allocation.expires),
            size(data.to_peer.bytes),
            size(data.to_client.bytes),
            bit_rate(data.bytes(), lived),
        ]
    });
    table(columns, rows)
}

fn describe(detail: &AllocationDetail, now: u64) -> String {
    let AllocationDetail { allocation, permission_list, channel_list } = detail;
    let data = allocation.relayed_data;
    let lived = now.saturating_sub(allocation.began);
    let rate = bit_rate(data.bytes(), lived);
    let rows = [
        ("id", allocation.id.clone()),
        ("username", named(&allocation.username)),
        ("user", named(&allocation.user)),
        ("realm", allocation.realm.clone()),
        ("client", format!("{} over {}, to {}", allocation.client, allocation.transport, allocation.server)),
        ("relayed", format!("{} over {}", relayed(allocation), allocation.peer_transport)),
        ("age", age(lived)),
        ("ends in", until(now, allocation.expires)),
        ("to peers", amount(data.to_peer)),
        ("to client", amount(data.to_client)),
        ("in the kernel", amount(data.in_kernel)),
        ("mean rate", rate),
        ("connections", allocation.connections.to_string()),
    ];
    let rows = rows.map(|(name, value)| [name.to_owned(), value]);
    let permissions =
        permission_list.iter().map(|permission| [permission.peer.to_string(), until(now, permission.expires)]);
    let channels = channel_list
        .iter()
        .map(|channel| [channel.number.clone(), channel.peer.to_string(), until(now, channel.expires)]);
    let permissions = table([Column::Left("PEER"), Column::Right("ENDS IN")], permissions);
    let channels = table([Column::Left("NUMBER"), Column::Left("PEER"), Column::Right("ENDS IN")], channels);
    table([Column::Left(""), Column::Left("")], rows)
        + &section("PERMISSIONS", &permissions)
        + &section("CHANNELS", &channels)
}

/// Relayed addresses in one word.
pub(super) fn relayed(allocation: &Allocation) -> String {
    let addresses: Vec<String> = allocation.relayed.iter().map(ToString::to_string).collect();
    addresses.join(",")
}

/// Who has an allocation, in one word.
pub(super) fn user(allocation: &Allocation) -> String {
    clean(&named(&allocation.user))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Channel, Permission};
    use crate::cli::style::plain;

    fn which(user: Option<&str>) -> Which {
        Which { user: user.map(str::to_owned), client: None, relayed: None, realm: None }
    }

    #[test]
    fn a_list_has_a_line_for_each() {
        let mobile = Allocation {
            id: "1234".to_owned(),
            user: "bob\nroot".to_owned(),
            client: "[2001:db8::1]:5000".parse().unwrap(),
            ..Allocation::example()
        };
        let expected = "\
ID    USER          CLIENT              OVER  RELAYED            PEERS    AGE  ENDS IN  TO PEERS  TO CLIENT   MEAN RATE
1     alice         192.0.2.1:5000      udp   203.0.113.7:50000      1  3m12s    6m48s    9.0 MB     1.2 MB  426 kbit/s
1234  bob\\u{a}root  [2001:db8::1]:5000  udp   203.0.113.7:50000      1  3m12s    6m48s    9.0 MB     1.2 MB  426 kbit/s
";
        assert_eq!(list(&[Allocation::example(), mobile], 1_192), expected);
        assert_eq!(list(&[], 1_192), "");
        let nameless = Allocation { user: String::new(), ..Allocation::example() };
        assert!(list(&[nameless], 1_192).contains("\n1   (none)  192.0.2.1:5000"));
    }

    #[test]
    fn one_is_shown_with_all_that_belongs_to_it() {
        let detail = AllocationDetail {
            allocation: Allocation::example(),
            permission_list: vec![Permission { peer: "198.51.100.9".parse().unwrap(), expires: 1_300 }],
            channel_list: vec![Channel {
                number: "0x4000".to_owned(),
                peer: "198.51.100.9:9".parse().unwrap(),
                expires: 1_500,
            }],
        };
        let expected = "\
id             1
username       1700000000:alice
user           alice
realm          example.org
client         192.0.2.1:5000 over udp, to 192.0.2.9:3478
relayed        203.0.113.7:50000 over udp
age            3m12s
ends in        6m48s
to peers       9.0 MB (9.0k packets)
to client      1.2 MB (8.0k packets)
in the kernel  10.2 MB (17.0k packets)
mean rate      426 kbit/s
connections    0

PERMISSIONS
  PEER          ENDS IN
  198.51.100.9    1m48s

CHANNELS
  NUMBER  PEER            ENDS IN
  0x4000  198.51.100.9:9    5m08s
";
        assert_eq!(plain(&describe(&detail, 1_192)), expected);
    }

    #[test]
    fn nothing_is_closed_that_was_not_asked_for() {
        let path = |id, user, all| closing(id, &which(user), all).ok();
        assert_eq!(path(Some("7"), None, false).as_deref(), Some("/v1/allocations/7"));
        assert_eq!(path(Some("7"), Some("a b"), false).as_deref(), Some("/v1/allocations?user=a%20b&id=7"));
        assert_eq!(path(None, Some("alice"), false).as_deref(), Some("/v1/allocations?user=alice"));
        assert_eq!(path(None, None, true).as_deref(), Some("/v1/allocations?all=true"));
        assert!(matches!(closing(None, &which(None), false), Err(Failed::Usage(message)) if message.contains("--all")));
    }
}
