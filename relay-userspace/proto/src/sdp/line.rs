//! What single lines say.

use std::net::{IpAddr, SocketAddr};

use super::Problem;

/// As much of a line is repeated in an error, in characters.
const EXCERPT: usize = 64;

/// Name and value of an attribute. The value is empty if there is none.
pub(super) fn attribute(line: &str) -> Option<(&str, &str)> {
    let attribute = line.strip_prefix("a=")?;
    let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
    Some((name.trim_ascii(), value.trim_ascii()))
}

/// The line that begins a media section.
pub(super) struct MediaLine<'l> {
    pub(super) kind: &'l str,
    pub(super) port: u16,
    pub(super) protocol: &'l str,
    /// All that stands before the port.
    pub(super) before_port: &'l str,
    /// All that stands behind the port and the number of ports.
    pub(super) after_port: &'l str,
}

impl<'l> MediaLine<'l> {
    /// Reads a line that begins with `m=`.
    pub(super) fn parse(line: &'l str) -> Result<Self, Problem> {
        let incomplete = || Problem::MediaLine(excerpt(line));
        let value = line.strip_prefix("m=").ok_or_else(incomplete)?;
        let (kind, rest) = word(value).ok_or_else(incomplete)?;
        let (ports, after_port) = word(rest).ok_or_else(incomplete)?;
        let (protocol, _) = word(after_port).ok_or_else(incomplete)?;
        let (port, count) = ports.split_once('/').unwrap_or((ports, "1"));
        let port = number(port).filter(|_| number(count).is_some()).ok_or_else(|| Problem::Port(excerpt(ports)))?;
        let before_port = &line[..line.len() - after_port.len() - ports.len()];
        Ok(Self { kind, port, protocol, before_port, after_port })
    }
}

/// The first word, and what is behind it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_ascii_start();
    let end = text.find(|character: char| character.is_ascii_whitespace()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A number without a sign, which the standard library would take.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The host that connection data name: one to which nothing can be sent is as good as none.
#[derive(Clone, Copy, Default)]
pub(super) struct Connection(Option<IpAddr>);

impl Connection {
    /// Reads the value of a line that begins with `c=`.
    pub(super) fn parse(value: &str) -> Result<Self, Problem> {
        let mut words = value.split_ascii_whitespace();
        let (Some(network), Some(_), Some(address)) = (words.next(), words.next(), words.next()) else {
            return Err(Problem::Connection(excerpt(value)));
        };
        // Behind a slash are the TTL of a multicast address and the number of them. The IP version is in the address.
        let address = address.split_once('/').map_or(address, |(address, _)| address);
        let ip: Option<IpAddr> = address.parse().ok().filter(|_| network.eq_ignore_ascii_case("IN"));
        let ip = ip.map(|ip| ip.to_canonical());
        Ok(Self(ip.filter(|ip| !ip.is_unspecified() && !ip.is_multicast())))
    }

    /// A port there.
    pub(super) fn at(self, port: u16) -> Option<SocketAddr> {
        self.0.filter(|_| port != 0).map(|ip| SocketAddr::new(ip, port))
    }
}

/// What `a=rtcp` says (RFC 3605 section 2.1).
#[derive(Clone, Copy)]
pub(super) struct Rtcp {
    pub(super) port: u16,
    /// None if it is the host that media goes to.
    pub(super) connection: Option<Connection>,
}

impl Rtcp {
    /// Reads the value of the attribute.
    pub(super) fn parse(value: &str) -> Result<Self, Problem> {
        let unreadable = || Problem::Rtcp(excerpt(value));
        let (port, rest) = word(value).ok_or_else(unreadable)?;
        let port = number(port).ok_or_else(unreadable)?;
        let connection = match rest.trim_ascii() {
            "" => None,
            rest => Some(Connection::parse(rest).map_err(|_| unreadable())?),
        };
        Ok(Self { port, connection })
    }
}

/// What of a line is repeated in an error.
pub(super) fn excerpt(line: &str) -> String {
    line.chars().take(EXCERPT).collect()
}
