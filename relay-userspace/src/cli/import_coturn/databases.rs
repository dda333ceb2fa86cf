//! Databases of a turnserver.conf, as the URLs that hairpin takes. Their tables and keys are read as they are.

use std::fmt::Write as _;

use super::line::Line;

/// A file of SQLite.
pub(super) fn sqlite(line: &Line<'_>) -> Result<String, String> {
    let path = line.trimmed();
    if !path.starts_with('/') {
        return Err("a path from the root on is needed".to_owned());
    }
    Ok(format!("sqlite://{path}"))
}

/// A connection string of PostgreSQL: a URI, or words such as `host=db dbname=coturn user=turn password=secret`.
pub(super) fn postgres(line: &Line<'_>) -> Result<String, String> {
    let text = line.trimmed();
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Ok(text.to_owned());
    }
    let words = Words::of(text);
    let host = words.get(&["host", "hostaddr", "ip"]).unwrap_or("127.0.0.1");
    let database = words.get(&["dbname", "db", "database"]).unwrap_or("coturn");
    let mut parameters: Vec<String> = Vec::new();
    let mut url = format!("postgres://{}", login(&words, true));
    // A folder with a socket is no host.
    if host.starts_with('/') {
        parameters.push(format!("host={}", encoded(host)));
    } else {
        url.push_str(&authority(host));
        url.extend(words.get(&["port"]).map(|port| format!(":{port}")));
    }
    let _ = write!(url, "/{}", encoded(database));
    parameters.extend(words.get(&["sslmode"]).map(|mode| format!("sslmode={}", encoded(mode))));
    for (at, parameter) in parameters.iter().enumerate() {
        let _ = write!(url, "{}{parameter}", if at == 0 { '?' } else { '&' });
    }
    checked(url)
}

/// Words about a Redis server, such as `ip=127.0.0.1 dbname=0 password=secret port=6379`.
pub(super) fn redis(line: &Line<'_>) -> Result<String, String> {
    let words = Words::of(line.trimmed());
    let host = words.get(&["ip", "host", "addr"]).unwrap_or("127.0.0.1");
    let port = words.get(&["port"]).filter(|port| *port != "0").unwrap_or("6379");
    let database = words.get(&["dbname", "db", "database"]).unwrap_or("0");
    checked(format!("redis://{}{}:{port}/{}", login(&words, false), authority(host), encoded(database)))
}

/// Words of the form `key=value`, with blanks between them.
struct Words<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Words<'t> {
    fn of(text: &'t str) -> Self {
        Self(text.split_whitespace().filter_map(|word| word.split_once('=')).collect())
    }

    fn get(&self, names: &[&str]) -> Option<&'t str> {
        let found = self.0.iter().find(|(name, _)| names.contains(name));
        found.map(|(_, value)| value.trim_matches('\'')).filter(|value| !value.is_empty())
    }
}

fn login(words: &Words<'_>, needs_user: bool) -> String {
    let user = words.get(&["user", "username"]).or(needs_user.then_some("turn")).unwrap_or_default();
    let password = words.get(&["password", "pwd", "secret"]);
    match (user, password) {
        ("", None) => String::new(),
        (user, None) => format!("{}@", encoded(user)),
        (user, Some(password)) => format!("{}:{}@", encoded(user), encoded(password)),
    }
}

fn authority(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// As a part of a URL has it (RFC 3986 section 2.1).
fn encoded(text: &str) -> String {
    let mut url = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(byte.into());
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

fn checked(url: String) -> Result<String, String> {
    url.parse::<hairpin_users::StoreUrl>().map_err(|error| error.to_string())?;
    Ok(url)
}
