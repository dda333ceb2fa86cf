//! `hairpin why`: what failed lately for a client, or for all, and what to do about it.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::client::{Client, with_query};
use super::human::{clean, plural, since};
use super::output::{note, print, print_json};
use super::place::Place;
use crate::api::{Allocation, Failure};
use crate::clock::unix_seconds;
use crate::selection::Address;

/// Show what failed lately for a client, or for all, newest first, and what to do about it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Where the client is, as the relay sees it: behind a NAT, its public address [default: all clients]
    #[arg(value_name = "IP[:PORT]", value_parser = address)]
    client: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Asks and prints.
pub(in crate::cli) fn run(args: &Args) -> ExitCode {
    super::run(async {
        let client = Client::new(&args.place)?;
        let whose = [("client", args.client.as_deref())];
        let answer = client.get(&with_query("/v1/failures", &whose)).await?;
        if args.place.json {
            return print_json(answer.text());
        }
        let failures: Vec<Failure> = answer.read()?;
        match &args.client {
            Some(whose_are) if failures.is_empty() => {
                let allocations = client.get(&with_query("/v1/allocations", &whose)).await?;
                note(&nothing(whose_are, allocations.read::<Vec<Allocation>>()?.len() as u64));
            }
            None if failures.is_empty() => note("nothing was refused lately. Old failures are forgotten."),
            _ => {}
        }
        print(&render(&failures, unix_seconds()))
    })
}

fn address(text: &str) -> Result<String, String> {
    let needed = || "an address is needed, such as 192.0.2.1, 192.0.2.1:5000 or [2001:db8::1]:5000".to_owned();
    Address::parse(text).map(|_| text.trim().to_owned()).ok_or_else(needed)
}

fn render(failures: &[Failure], now: u64) -> String {
    let mut text = String::new();
    for failure in failures {
        let code = failure.code.map(|code| format!(" got {code}")).unwrap_or_default();
        let times = if failure.count > 1 { format!(", {} times in a row", failure.count) } else { String::new() };
        let Failure { client, transport, action, cause, explanation, .. } = failure;
        // Writing to a string never fails.
        let _ = writeln!(text, "{}: {action}{code}: {}{times}", since(now, failure.at), clean(cause));
        let _ = writeln!(text, "    {}", clean(explanation));
        let _ = write!(text, "    client {client} over {transport}");
        if let Some(username) = &failure.username {
            let _ = write!(text, ", as `{}`", clean(username));
        }
        if let Some(peer) = failure.peer {
            let _ = write!(text, ", about peer {peer}");
        }
        text.push('\n');
    }
    text
}

/// No failure is an answer, too.
fn nothing(client: &str, allocations: u64) -> String {
    match allocations {
        0 => format!(
            "nothing of {client} was refused lately, and it has no allocation: perhaps it never reached this relay. Look at \
             the address and port it was given (DNS, iceServers), at firewalls on the way, and whether the relay sees it by \
             another address (NAT). Old failures are forgotten."
        ),
        _ => format!(
            "nothing of {client} was refused lately, and it has {}: `hairpin allocations list --client {client}` shows \
             what is relayed",
            plural(allocations, "allocation")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_says_when_what_why_and_what_to_do() {
        let failure = Failure {
            client: "192.0.2.1:5000".parse().unwrap(),
            transport: "udp".to_owned(),
            at: 1_000,
            count: 3,
            action: "create_permission".to_owned(),
            code: Some(403),
            cause: "forbidden_peer".to_owned(),
            explanation: "The peer is forbidden: --allow-peer allows it.".to_owned(),
            username: Some("al\x1bice".to_owned()),
            peer: Some("10.0.0.1:9".parse().unwrap()),
        };
        let bare = Failure {
            count: 1,
            action: "handshake".to_owned(),
            code: None,
            cause: "no_shared_cipher".to_owned(),
            explanation: "The client is too old.".to_owned(),
            username: None,
            peer: None,
            transport: "tls".to_owned(),
            ..failure.clone()
        };
        let expected = "\
3m12s ago: create_permission got 403: forbidden_peer, 3 times in a row
    The peer is forbidden: --allow-peer allows it.
    client 192.0.2.1:5000 over udp, as `al\\u{1b}ice`, about peer 10.0.0.1:9
3m12s ago: handshake: no_shared_cipher
    The client is too old.
    client 192.0.2.1:5000 over tls
";
        assert_eq!(render(&[failure, bare], 1_192), expected);
    }

    #[test]
    fn nothing_means_something() {
        assert!(nothing("192.0.2.1", 0).contains("never reached this relay"));
        assert!(nothing("192.0.2.1", 2).contains("has 2 allocations"));
    }
}
