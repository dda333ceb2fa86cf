//! `hairpin credentials`: mints a username and password that expire.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hairpin_client::Credentials;

use super::value::{secret, ttl};
use super::{complain_of_all, print, settings};
use crate::clock::unix_seconds;

/// Mint a username and password that expire, from a shared secret.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The secret that the server knows too
    #[arg(long, value_name = "SECRET", env = "HAIRPIN_AUTH_SECRET", hide_env_values = true, value_parser = secret,
        required_unless_present = "auth_secret_file")]
    auth_secret: Option<String>,

    /// File with such secrets, one a line, of which the first is taken instead of --auth-secret
    #[arg(long, value_name = "FILE")]
    auth_secret_file: Option<PathBuf>,

    /// A name to go with the credential; the server tells its users apart by it
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,

    /// How long the credential is valid, such as 30m, 1h or 7d
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = ttl)]
    ttl: Duration,

    /// Print JSON: username, password, ttl (seconds) and expires (seconds since the Unix epoch)
    #[arg(long)]
    json: bool,
}

/// Prints the credential.
pub(super) fn run(args: &Args) -> ExitCode {
    let secret = match &args.auth_secret_file {
        Some(file) => settings::secrets("auth-secret-file", file).map(|secrets| secrets.into_iter().next()),
        None => Ok(args.auth_secret.clone()),
    };
    match secret {
        Ok(secret) => print(&render(args, &secret.unwrap_or_default(), unix_seconds()), ExitCode::SUCCESS),
        Err(problems) => complain_of_all(&problems),
    }
}

fn render(args: &Args, secret: &str, now: u64) -> String {
    let ttl = args.ttl.as_secs();
    let expires = now.saturating_add(ttl);
    let Credentials { username, password } = Credentials::mint(secret, args.name.as_deref(), expires);
    if args.json {
        // The field names of the TURN REST API, which web applications pass on as they are.
        serde_json::json!({ "username": username, "password": password, "ttl": ttl, "expires": expires }).to_string()
    } else {
        format!("username: {username}\npassword: {password}")
    }
}

fn name(text: &str) -> Result<String, String> {
    // 508 bytes of RFC 8489 section 14.3, less the time and the colon.
    if text.is_empty() || text.len() > 480 || text.chars().any(char::is_control) {
        return Err("1 to 480 bytes without control characters are allowed".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(json: bool) -> Args {
        Args {
            auth_secret: None,
            auth_secret_file: None,
            name: Some("alice".to_owned()),
            ttl: Duration::from_secs(3600),
            json,
        }
    }

    #[test]
    fn people_get_two_lines() {
        // printf %s 1700000000:alice | openssl dgst -sha1 -hmac north -binary | base64
        let expected = "username: 1700000000:alice\npassword: Cd/49soE35ICqcJF/bCTn8Z4OyE=";
        assert_eq!(render(&args(false), "north", 1_699_996_400), expected);
    }

    #[test]
    fn scripts_get_json() {
        let value: serde_json::Value = serde_json::from_str(&render(&args(true), "north", 1_699_996_400)).unwrap();
        let expected = serde_json::json!({
            "username": "1700000000:alice",
            "password": "Cd/49soE35ICqcJF/bCTn8Z4OyE=",
            "ttl": 3600,
            "expires": 1_700_000_000,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        assert!(name("").is_err() && name("a\nb").is_err() && secret("").is_err());
    }
}
