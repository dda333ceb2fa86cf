//! Going to another server because one says so (RFC 8489 section 10).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hairpin_proto::stun::Message;
use hairpin_proto::stun::attribute::{AlternateDomain, AlternateServerAttribute};

use crate::client::Client;
use crate::error::Error;
use crate::link::Route;
use crate::request::Request;

/// A server that was asked within this time is not asked again because another one says so.
const MEMORY: Duration = Duration::from_secs(5 * 60);

/// Reads a 300 response.
pub(crate) fn alternate(message: &Message<'_>) -> Error {
    let servers = message.each().filter_map(Result::ok).map(|AlternateServerAttribute(server)| server).collect();
    let domain = message.attribute().ok().flatten().map(|AlternateDomain(domain)| domain.to_owned());
    Error::TryAlternate { servers, domain }
}

/// Which servers were asked and when, so that those who point at each other are not followed for ever.
#[derive(Clone, Debug, Default)]
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

/// Where a server sends a client that has an allocation there (300 to a Refresh): it keeps that until its lifetime ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where to: ALTERNATE-SERVER, as often as it is there.
    pub servers: Vec<SocketAddr>,
    /// What the certificate there is for: ALTERNATE-DOMAIN.
    pub domain: Option<String>,
}

impl Redirect {
    /// What a failed request says of it.
    pub(crate) fn of(request: &Request, error: &Error) -> Option<Self> {
        match (request, error) {
            (Request::Refresh { .. }, Error::TryAlternate { servers, domain }) => {
                Some(Self { servers: servers.clone(), domain: domain.clone() })
            }
            _ => None,
        }
    }
}

impl Client {
    /// Waits until the server sends this client elsewhere although it has an allocation, which is not lost yet: who asks
    /// [`Client::successor`] for another client, allocates with it, and ends this one afterwards, loses nothing.
    pub async fn sent_away(&self) -> Redirect {
        let mut redirects = self.shared.redirects();
        let redirect = redirects.wait_for(Option::is_some).await.expect("the other end is in the same place");
        redirect.clone().expect("it was waited for")
    }

    /// Another client, at the server that this one was sent to, with the same settings. It has no allocation yet. `None` if it
    /// has been there within the last five minutes.
    pub async fn successor(&self, redirect: &Redirect) -> Result<Option<Self>, Error> {
        let Some(route) = self.route_to(&redirect.servers, redirect.domain.as_deref()) else { return Ok(None) };
        let successor = self.at(route).await?;
        *successor.shared.asked() = self.shared.asked().clone();
        Ok(Some(successor))
    }

    /// Goes to another server, if that is wanted and right.
    pub(crate) async fn follow(&self, offered: &[SocketAddr], domain: Option<&str>) -> Result<bool, Error> {
        let route = self.route_to(offered, domain).filter(|_| self.follows_alternates);
        let Some(route) = route else { return Ok(false) };
        self.shared.take_way(route).await?;
        self.shared.state().session.handle_redirect();
        Ok(true)
    }

    /// The way to one of the servers that were offered.
    fn route_to(&self, offered: &[SocketAddr], domain: Option<&str>) -> Option<Route> {
        let mut route = self.shared.way().route.clone();
        let before = route.server;
        let server = self.shared.asked().choose(before, offered, Instant::now())?;
        if let Some(tls) = &mut route.tls {
            // The certificate is to be for the name that it was for before, unless there is another.
            let before = || tls.server_name.take().unwrap_or_else(|| route.server.ip().to_string());
            tls.server_name = Some(domain.map_or_else(before, str::to_owned));
        }
        route.server = server;
        // Where the other server is reached from is for the system to say, and the port here is in use.
        route.local =
            route.local.map(|local| SocketAddr::new(local.ip(), 0)).filter(|_| server.is_ipv4() == before.is_ipv4());
        Some(route)
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
