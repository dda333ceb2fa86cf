//! `hairpin config --example`: a file with every option, each left as it is by default.

use std::fmt::Write as _;

use super::options::{self, Kind, Opt};
use super::toml_text::{self, wrapped};

/// The longest line.
const WIDTH: usize = 100;

const INTRODUCTION: &str = "\
# What `hairpin serve` is told, made by `hairpin config --example`.
#
# Every key is also a flag (--relay-ports) and a variable of the environment (HAIRPIN_RELAY_PORTS): flags win over
# variables, variables over this file. Lines that begin with `#` and a key are off, and show the default or an example;
# take the `#` away to use them. `hairpin check` says what a file would do, `hairpin reload` puts it in force.
#
# Keep secrets out of it: what user-file, auth-secret-file and their like name is read with it.
";

/// The file.
pub(in crate::cli) fn example() -> String {
    let mut text = String::from(INTRODUCTION);
    let mut heading = "";
    for option in options::keys() {
        if option.heading() != heading {
            heading = option.heading();
            let _ = write!(text, "\n{}\n# {heading}\n", format_args!("# {}", "-".repeat(WIDTH - 2)));
        }
        let _ = write!(text, "\n{}", about(option));
        let _ = writeln!(text, "#{} = {}", option.name(), value_of(option));
    }
    text
}

fn about(option: &Opt) -> String {
    let mut text = wrapped(option.help(), "#", WIDTH) + "\n";
    for (choice, help) in option.choices() {
        let help = help.map(|help| format!(": {help}")).unwrap_or_default();
        text.push_str(&(wrapped(&format!("- {choice}{help}"), "#", WIDTH) + "\n"));
    }
    if option.kind() == Kind::Switch {
        text.push_str("# true or false.\n");
    }
    if let Some(default) = option.default().filter(|_| !option.has_value()) {
        text.push_str(&(wrapped(&format!("By default: {default}."), "#", WIDTH) + "\n"));
    }
    text
}

/// The default value of an option, or else what it could be.
pub(super) fn value_of(option: &Opt) -> String {
    match option.default().filter(|_| option.has_value()) {
        Some(default) => toml_text::value(option, &[default]),
        None => toml_text::value(option, sample(option.name())),
    }
}

/// What an option without a default value could be. They fit together.
fn sample(option: &str) -> &'static [&'static str] {
    match option {
        "shards" => &["4"],
        "state-dir" => &["/var/lib/hairpin"],
        "listen" => &["udp:0.0.0.0:3478", "tcp:0.0.0.0:3478", "tls:0.0.0.0:5349", "dtls:0.0.0.0:5349"],
        "certificate" => &["/etc/hairpin/turn.example.org.pem"],
        "private-key" => &["/etc/hairpin/turn.example.org.key"],
        "proxy-protocol" => &["10.0.0.0/24"],
        "alternate-server" => &["203.0.113.7:3478", "turns:203.0.113.7:5349=turn2.example.org"],
        "nat-discovery" => &["203.0.113.6"],
        "relay-address" => &["203.0.113.5", "2001:db8::5"],
        "user" => &["alice:a long password"],
        "user-file" => &["/etc/hairpin/users"],
        "auth-secret" => &["a long random text"],
        "auth-secret-file" => &["/etc/hairpin/auth-secrets"],
        "reserved-ports" => &["60000-60999"],
        "reserved-address" => &["alice=203.0.113.5:60000"],
        "server-name" | "token-audience" => &["turn.example.org"],
        "token-key" => &["2026-11:A256GCM:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="],
        "token-key-file" => &["/etc/hairpin/token-keys"],
        "max-realm-allocations" | "max-allocations-per-source" => &["1000"],
        "realm-file" => &["/etc/hairpin/realms/example.net.toml"],
        "user-store" => &["postgres://hairpin:password@127.0.0.1/coturn"],
        "user-store-file" => &["/etc/hairpin/user-store"],
        "webhook-token" => &["a-third-long-random-text"],
        "webhook-token-file" => &["/etc/hairpin/webhook-token"],
        "webhook-ca" => &["/etc/hairpin/webhook-ca.pem"],
        "nonce-key" => &["a long random text of 32 characters or more"],
        "nonce-key-file" => &["/etc/hairpin/nonce-keys"],
        "allow-peer" => &["10.1.0.0/16"],
        "deny-peer" => &["198.51.100.0/24", "2001:db8:bad::/48"],
        "interface" => &["eth0"],
        "kernel-records" => &["131328"],
        "max-allocations" => &["16384"],
        "max-allocations-per-user" => &["100"],
        "max-connections" => &["20000"],
        "admin-socket" => &["/run/hairpin/admin.sock"],
        "admin-token" => &["a-long-random-text"],
        "admin-token-file" => &["/etc/hairpin/admin-tokens"],
        "credentials-token" => &["another-long-random-text"],
        "credentials-token-file" => &["/etc/hairpin/credentials-tokens"],
        "credentials-origin" => &["https://app.example.org"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::cli::settings::file;

    fn parsed(text: &str) -> crate::cli::settings::layer::Layer {
        let path: Arc<Path> = Path::new("example").into();
        let mut layer = file::parse(&path, text);
        layer.check();
        assert_eq!(layer.problems, []);
        layer
    }

    /// The file with every key on.
    fn in_force() -> String {
        let on = |line: &str| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase()) => format!("{key}\n"),
            _ => format!("{line}\n"),
        };
        example().lines().map(on).collect()
    }

    #[test]
    fn as_it_is_it_says_nothing() {
        let layer = parsed(&example());
        assert!(options::keys().all(|option| layer.get(option).is_none()));
    }

    #[test]
    fn with_every_key_on_it_says_of_every_option_what_is_right() {
        let layer = parsed(&in_force());
        for option in options::keys() {
            let values = layer.get(option).unwrap_or_default();
            assert!(!values.is_empty(), "{} has no example", option.name());
            if let Some(default) = option.default().filter(|_| option.has_value()) {
                assert_eq!(values[0].text, default, "{}", option.name());
            }
        }
    }

    #[test]
    fn no_line_is_too_long_for_a_terminal() {
        for line in example().lines() {
            assert!(line.chars().count() <= 120, "{line}");
        }
    }
}
