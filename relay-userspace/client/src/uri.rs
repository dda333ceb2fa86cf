//! How a TURN server is named: `turn:` and `turns:` URIs (RFC 7065), names and addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hairpin_proto::address::Transport;

/// Where a server is, as an operator writes it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUri {
    /// Whether clients encrypt: `turns:`.
    pub secure: bool,
    /// A name that DNS knows, or an address.
    pub host: Host,
    /// The port, if it is named.
    pub port: Option<u16>,
    /// How clients reach it, if that is named.
    pub transport: Option<Transport>,
    /// Whether it is a URI, and not only a name or an address.
    pub has_scheme: bool,
}

/// A name or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address: nobody has to be asked.
    Ip(IpAddr),
    /// A name that DNS knows.
    Name(String),
}

/// What is allowed instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("turn:HOST, turns:HOST or HOST is needed, with :PORT and, behind a scheme, ?transport=udp or tcp if wanted")]
pub struct UriError;

impl ServerUri {
    /// The port of who names none (RFC 8656 section 3.1).
    pub fn default_port(&self) -> u16 {
        if self.secure { 5349 } else { 3478 }
    }

    /// Whether it is an address with a port: nothing is to be looked up, and nothing left to choose.
    pub fn socket(&self) -> Option<SocketAddr> {
        match (&self.host, self.port) {
            (Host::Ip(ip), Some(port)) if !self.has_scheme => Some(SocketAddr::new(*ip, port)),
            _ => None,
        }
    }
}

impl FromStr for ServerUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        // A name could be called `turn`, but no name with a port ends in anything but digits.
        let scheme = [("turns:", true), ("turn:", false)].into_iter().find_map(|(scheme, secure)| {
            let (start, rest) = text.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some((secure, rest))
        });
        let (secure, rest) = scheme.unwrap_or((false, text));
        let (rest, transport) = match rest.split_once('?') {
            None => (rest, None),
            Some(_) if scheme.is_none() => return Err(UriError),
            Some((rest, query)) => {
                let named = query.strip_prefix("transport=").ok_or(UriError)?;
                let transport = match (named.to_ascii_lowercase().as_str(), secure) {
                    ("udp", false) => Transport::Udp,
                    ("tcp", false) => Transport::Tcp,
                    ("tcp", true) => Transport::Tls,
                    // RFC 7350 section 4.6.
                    ("udp", true) => Transport::Dtls,
                    _ => return Err(UriError),
                };
                (rest, Some(transport))
            }
        };
        let (host, port) = host_and_port(rest)?;
        Ok(Self { secure, host, port, transport, has_scheme: scheme.is_some() })
    }
}

fn host_and_port(text: &str) -> Result<(Host, Option<u16>), UriError> {
    let port = |text: &str| text.parse().ok().filter(|port| *port != 0).ok_or(UriError);
    if let Ok(ip) = text.parse() {
        return Ok((Host::Ip(ip), None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']').ok_or(UriError)?;
        let ip: std::net::Ipv6Addr = ip.parse().map_err(|_| UriError)?;
        let port = if rest.is_empty() { None } else { Some(port(rest.strip_prefix(':').ok_or(UriError)?)?) };
        return Ok((Host::Ip(ip.into()), port));
    }
    let (name, port) = match text.split_once(':') {
        None => (text, None),
        Some((name, number)) => (name, Some(port(number)?)),
    };
    if let Ok(ip) = name.parse() {
        return Ok((Host::Ip(ip), port));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    // What looks like a bad address is one.
    let is_name = name.bytes().any(|byte| byte.is_ascii_alphabetic()) && name.bytes().all(fits) && name.len() <= 253;
    if is_name { Ok((Host::Name(name.trim_end_matches('.').to_owned()), port)) } else { Err(UriError) }
}

impl fmt::Display for ServerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_scheme {
            f.write_str(if self.secure { "turns:" } else { "turn:" })?;
        }
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            Host::Ip(ip) => write!(f, "{ip}")?,
            Host::Name(name) => f.write_str(name)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.transport {
            Some(Transport::Udp | Transport::Dtls) => f.write_str("?transport=udp"),
            Some(Transport::Tcp | Transport::Tls) => f.write_str("?transport=tcp"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_in_many_ways() {
        let name = || Host::Name("turn.example.org".to_owned());
        let ip = |text: &str| Host::Ip(text.parse().unwrap());
        for (text, secure, host, port, transport) in [
            ("turn:turn.example.org", false, name(), None, None),
            ("turns:turn.example.org", true, name(), None, None),
            ("TURN:turn.example.org:3479?transport=UDP", false, name(), Some(3479), Some(Transport::Udp)),
            ("turn:turn.example.org?transport=tcp", false, name(), None, Some(Transport::Tcp)),
            ("turns:turn.example.org?transport=tcp", true, name(), None, Some(Transport::Tls)),
            ("turns:turn.example.org?transport=udp", true, name(), None, Some(Transport::Dtls)),
            ("turn.example.org.", false, name(), None, None),
            ("turn.example.org:80", false, name(), Some(80), None),
            ("192.0.2.1:3478", false, ip("192.0.2.1"), Some(3478), None),
            ("turn:192.0.2.1", false, ip("192.0.2.1"), None, None),
            ("[2001:db8::1]:3478", false, ip("2001:db8::1"), Some(3478), None),
            ("turns:[2001:db8::1]", true, ip("2001:db8::1"), None, None),
            ("2001:db8::1", false, ip("2001:db8::1"), None, None),
        ] {
            let uri: ServerUri = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((uri.secure, &uri.host, uri.port, uri.transport), (secure, &host, port, transport), "{text}");
            assert_eq!(uri.to_string().parse(), Ok(uri), "{text}");
        }
    }

    #[test]
    fn what_names_no_server_is_told() {
        for text in [
            "",
            "turn:",
            "turns:?transport=tcp",
            "turn:a?transport=sctp",
            "turn:a?x=y",
            "a?transport=udp",
            "a:0",
            "a:65536",
            "a:b",
            "[::1",
            "[::1]3478",
            "[192.0.2.1]",
            "1.2.3",
            "1.2.3.4.5",
            "a b",
            "turn://a",
            "ü",
        ] {
            assert_eq!(text.parse::<ServerUri>(), Err(UriError), "{text}");
        }
    }
}
