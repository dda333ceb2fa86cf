//! `hairpin page`: a link to the status page, with a token that lets it show users and addresses.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use hyper::Method;

use super::client::Client;
use super::human::{clean, until};
use super::output::{note, print, print_json};
use super::place::Place;
use crate::api::PageToken;
use crate::clock::unix_seconds;

/// Print a link to the status page of the running relay. It is good for twelve hours, and lets whoever has it look.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    place: Place,
}

/// Asks and prints.
pub(in crate::cli) fn run(args: &Args) -> ExitCode {
    super::run(async {
        let answer = Client::new(&args.place)?.send(Method::POST, "/v1/page-tokens", &()).await?;
        if args.place.json {
            return print_json(answer.text());
        }
        let page: PageToken = answer.read()?;
        let url = link(&page, args.place.origin().as_deref());
        print(&clean(&url))?;
        if io::stdout().is_terminal() {
            note(&clean(&hint(&url, &until(unix_seconds(), page.expires))));
        }
        Ok(())
    })
}

/// Who has asked over TCP knows better than the relay where it is.
fn link(page: &PageToken, asked: Option<&str>) -> String {
    match asked {
        Some(origin) => format!("{origin}/#token={}", page.token),
        None => page.url.clone(),
    }
}

/// How to get there.
fn hint(url: &str, left: &str) -> String {
    let authority = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let port = authority.rsplit(':').next().unwrap_or_default();
    let host = authority.strip_suffix(port).unwrap_or_default().trim_end_matches(':');
    let is_local = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    let there = if is_local { String::new() } else { format!(", with localhost instead of {host}") };
    format!("Good for {left}. From another host: ssh -L {port}:{authority} THIS-HOST, then open it there{there}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_to_where_the_relay_was_asked() {
        let page =
            PageToken { token: "abc".to_owned(), expires: 0, url: "http://localhost:9641/#token=abc".to_owned() };
        assert_eq!(link(&page, None), page.url);
        assert_eq!(link(&page, Some("http://[2001:db8::1]:80")), "http://[2001:db8::1]:80/#token=abc");
    }

    #[test]
    fn the_hint_is_a_tunnel_to_the_page() {
        let left = until(0, 43_200);
        for (url, expected) in [
            (
                "http://127.0.0.1:9641/#token=a:b",
                "Good for 12h00m. From another host: ssh -L 9641:127.0.0.1:9641 THIS-HOST, then open it there.",
            ),
            (
                "http://[2001:db8::1]:80/#token=a",
                "Good for 12h00m. From another host: ssh -L 80:[2001:db8::1]:80 THIS-HOST, then open it there, with \
                 localhost instead of [2001:db8::1].",
            ),
        ] {
            assert_eq!(hint(url, &left), expected);
        }
    }
}
