//! Which relay is asked, and how its answers are shown.

use std::path::{Path, PathBuf};

use crate::admin::{default_socket, system_socket};

use super::failed::Failed;

/// Which relay is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The Unix socket of the relay's admin interface [default: /run/hairpin/admin.sock, or hairpin/admin.sock in
    /// $XDG_RUNTIME_DIR]
    #[arg(long, global = true, value_name = "PATH", env = "HAIRPIN_ADMIN_SOCKET")]
    admin_socket: Option<PathBuf>,

    /// Ask over TCP instead. Nothing is encrypted: go through a tunnel, or stay on one host
    #[arg(long, global = true, value_name = "http://HOST:PORT", env = "HAIRPIN_ADMIN_URL", value_parser = url)]
    admin_url: Option<Host>,

    /// File with the bearer token for --admin-url
    #[arg(long, global = true, value_name = "FILE", env = "HAIRPIN_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,

    /// Print JSON, as the admin interface says it
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// Host and port of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Unix(PathBuf),
    Tcp { host: Host, token: Option<String> },
}

impl Place {
    /// What a browser would be told to reach the same relay over TCP, if that is how it is asked.
    pub(super) fn origin(&self) -> Option<String> {
        self.admin_url.as_ref().map(|host| format!("http://{}", host.authority()))
    }

    /// Where to connect to.
    pub(super) fn target(&self) -> Result<Target, Failed> {
        if let Some(host) = self.admin_url.clone() {
            let token = self.admin_token_file.as_deref().map(token).transpose()?;
            return Ok(Target::Tcp { host, token });
        }
        match &self.admin_socket {
            Some(path) if path.as_os_str() == "off" => {
                Err(Failed::Usage("--admin-socket is off: name a socket, or --admin-url".to_owned()))
            }
            Some(path) => Ok(Target::Unix(path.clone())),
            None => Ok(Target::Unix(nearest_socket())),
        }
    }
}

impl Host {
    /// As it stands in a URL.
    pub(super) fn authority(&self) -> String {
        let Self { name, port } = self;
        if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
    }
}

/// The default one of this user's own relay, or else that of the system's.
fn nearest_socket() -> PathBuf {
    default_socket().filter(|path| path.exists()).unwrap_or_else(|| system_socket().to_owned())
}

/// Something, at least: with nothing, it would not be known what is meant.
pub(super) fn given(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn token(path: &Path) -> Result<String, Failed> {
    let failed =
        |error: &dyn std::fmt::Display| Failed::Usage(format!("--admin-token-file {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let text = text.trim_start_matches('\u{feff}');
    let token = text.lines().map(str::trim).find(|line| !line.is_empty()).ok_or_else(|| failed(&"it is empty"))?;
    let is_visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    is_visible.then(|| token.to_owned()).ok_or_else(|| failed(&"a token is of ASCII without spaces"))
}

fn url(text: &str) -> Result<Host, String> {
    let needed = || "http://HOST:PORT is needed, such as http://127.0.0.1:9641".to_owned();
    let authority = text.strip_prefix("http://").ok_or_else(needed)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (name, port) = authority.rsplit_once(':').ok_or_else(needed)?;
    let port = port.parse().map_err(|_| needed())?;
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let is_ipv6 = bare.is_some_and(|bare| bare.parse::<std::net::Ipv6Addr>().is_ok());
    if port == 0 || !(is_name || is_ipv6) {
        return Err(needed());
    }
    Ok(Host { name: bare.unwrap_or(name).to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_a_port() {
        let host = |name: &str, port| Ok(Host { name: name.to_owned(), port });
        assert_eq!(url("http://127.0.0.1:9641"), host("127.0.0.1", 9641));
        assert_eq!(url("http://relay.example.org:80/"), host("relay.example.org", 80));
        assert_eq!(url("http://[2001:db8::1]:9641"), host("2001:db8::1", 9641));
        for bad in [
            "",
            "127.0.0.1:9641",
            "https://127.0.0.1:9641",
            "http://127.0.0.1",
            "http://:9641",
            "http://a:0",
            "http://a:b",
            "http://u@a:1",
            "http://a:1/v1",
            "http://2001:db8::1:9641",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_has_the_token_in_its_first_line() {
        let path = std::env::temp_dir().join(format!("hairpin-token-{}", std::process::id()));
        for (text, expected) in [
            ("north\n", Some("north")),
            ("\n  north \nsouth\n", Some("north")),
            ("\u{feff}north\r\n", Some("north")),
            ("\n", None),
            ("a b", None),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(token(&path).ok().as_deref(), expected, "{text:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(token(&path), Err(Failed::Usage(message)) if message.contains("--admin-token-file")));
    }
}
