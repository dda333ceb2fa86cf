//! Going to another server because one says so (RFC 8489 section 10).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hairpin_proto::stun::Message;
use hairpin_proto::stun::attribute::{AlternateDomain, AlternateServerAttribute};

use crate::client::Client;
use crate::error::Error;

/// A server that was asked within this time is not asked again because another one says so.
const MEMORY: Duration = Duration::from_secs(5 * 60);

/// Reads a 300 response.
pub(crate) fn alternate(message: &Message<'_>) -> Error {
    let servers = message.each().filter_map(Result::ok).map(|AlternateServerAttribute(server)| server).collect();
    let domain = message.attribute().ok().flatten().map(|AlternateDomain(domain)| domain.to_owned());
    Error::TryAlternate { servers, domain }
}

/// Which servers were asked and when, so that those who point at each other are not followed for ever.
#[derive(Debug, Default)]
pub(crate) struct Asked(Vec<(SocketAddr, Instant)>);

impl Asked {
    /// A server is asked.
    pub(crate) fn note(&mut self, server: SocketAddr, now: Instant) {
        self.0.retain(|(other, at)| *other != server && now.saturating_duration_since(*at) < MEMORY);
        self.0.push((server, now));
    }

    /// Where to go from `current`: to the first of its IP version, or else to the first. `None` if there is none, or if it
    /// was asked within the last five minutes.
    pub(crate) fn choose(&self, current: SocketAddr, offered: &[SocketAddr], now: Instant) -> Option<SocketAddr> {
        let same_family = offered.iter().find(|server| server.is_ipv4() == current.is_ipv4());
        let server = *same_family.or(offered.first())?;
        let recently = self.0.iter().any(|(other, at)| *other == server && now.saturating_duration_since(*at) < MEMORY);
        (!recently).then_some(server)
    }
}

impl Client {
    /// Goes to another server, if that is wanted and right.
    pub(crate) async fn follow(&self, offered: &[SocketAddr], domain: Option<&str>) -> Result<bool, Error> {
        let mut route = self.shared.way().route.clone();
        let chosen = self.shared.asked().choose(route.server, offered, Instant::now());
        let Some(server) = chosen.filter(|_| self.follows_alternates) else { return Ok(false) };
        if let Some(tls) = &mut route.tls {
            // The certificate is to be for the name that it was for before, unless there is another.
            let before = || tls.server_name.take().unwrap_or_else(|| route.server.ip().to_string());
            tls.server_name = Some(domain.map_or_else(before, str::to_owned));
        }
        route.server = server;
        self.shared.take_way(route).await?;
        self.shared.state().session.handle_redirect();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_server_that_was_asked_in_the_last_five_minutes_is_not_asked_again() {
        let start = Instant::now();
        let [a, b] = ["192.0.2.1:3478", "192.0.2.2:3478"].map(address);
        let mut asked = Asked::default();
        asked.note(a, start);
        assert_eq!(asked.choose(a, &[a], start), None, "itself");
        assert_eq!(asked.choose(a, &[b], start), Some(b));
        asked.note(b, start + Duration::from_secs(1));
        assert_eq!(asked.choose(b, &[a], start + Duration::from_secs(299)), None, "back again");
        assert_eq!(asked.choose(b, &[a], start + Duration::from_secs(300)), Some(a));
        assert_eq!(asked.choose(b, &[], start), None);
        let other_port = address("192.0.2.1:3479");
        assert_eq!(asked.choose(b, &[other_port], start), Some(other_port), "another port is another server");
    }

    #[test]
    fn the_first_of_the_same_ip_version_is_taken() {
        let [v4, other_v4] = ["192.0.2.1:3478", "192.0.2.2:3478"].map(address);
        let v6 = address("[2001:db8::1]:3478");
        let (asked, now) = (Asked::default(), Instant::now());
        assert_eq!(asked.choose(v4, &[v6, other_v4], now), Some(other_v4));
        assert_eq!(asked.choose(v4, &[v6], now), Some(v6));
        assert_eq!(asked.choose(v6, &[v4, v6], now), Some(v6));
    }
}
