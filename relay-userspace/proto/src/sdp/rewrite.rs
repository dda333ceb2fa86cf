//! Writing a description again, with its media elsewhere.

use std::fmt::{self, Write};
use std::iter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::line::attribute;
use super::{Description, Media};
use crate::ice::{Candidate, Parameters};

/// What becomes of a media section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// It is rejected: its port is 0.
    Rejected,
    /// It shares the transport of another section, which has the candidates for both. The credentials are told again: RFC
    /// 9143 section 7.1.3 wants them once, but there are agents that refuse a section without.
    Bundled(Endpoint),
    /// It has a transport of its own.
    Own(Endpoint),
}

/// Where the media of a section goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where RTP goes, or whatever else it is.
    pub rtp: SocketAddr,
    /// Where RTCP goes. None if it goes with RTP.
    pub rtcp: Option<SocketAddr>,
    /// How it is reached by ICE. None without ICE.
    pub ice: Option<LocalIce>,
}

/// The ICE-lite agent of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalIce {
    /// Its credentials.
    pub parameters: Parameters,
    /// All its candidates. Those of component 2 are only told where RTCP has an address.
    pub candidates: Vec<Candidate>,
}

/// Attributes that say where media goes and how it is reached, of whichever level.
const TRANSPORT: [&str; 10] = [
    "candidate",
    "end-of-candidates",
    "ice-lite",
    "ice-mismatch",
    "ice-options",
    "ice-pacing",
    "ice-pwd",
    "ice-ufrag",
    "remote-candidates",
    "rtcp",
];

/// The host of what has none.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Writes a description again.
pub(super) fn description(description: &Description, sections: &[Section]) -> String {
    let mut lines = Lines(String::new());
    // Every section has connection data of its own in the end, so there are none of the session.
    for line in description.session.iter().filter(|line| !is_transport(line)) {
        lines.push(line);
    }
    if sections.iter().zip(&description.media).any(|(section, _)| section.own_ice().is_some()) {
        lines.push("a=ice-lite");
        lines.push("a=ice-options:ice2");
    }
    let sections = sections.iter().chain(iter::repeat(&Section::Rejected));
    for (media, section) in description.media.iter().zip(sections) {
        lines.push_section(media, section);
    }
    lines.0
}

fn is_transport(line: &str) -> bool {
    line.starts_with("c=") || attribute(line).is_some_and(|(name, _)| TRANSPORT.contains(&name))
}

impl Section {
    fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Rejected => None,
            Self::Bundled(endpoint) | Self::Own(endpoint) => Some(endpoint),
        }
    }

    /// The agent that this section has to tell of.
    fn own_ice(&self) -> Option<&LocalIce> {
        match self {
            Self::Own(endpoint) => endpoint.ice.as_ref(),
            Self::Rejected | Self::Bundled(_) => None,
        }
    }
}

/// What has been written so far.
struct Lines(String);

impl Lines {
    fn push(&mut self, line: impl fmt::Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{line}\r\n");
    }

    fn push_section(&mut self, media: &Media, section: &Section) {
        let port = match section {
            Section::Rejected => 0,
            // In an offer it has no port until the bundle is agreed on.
            Section::Bundled(_) if media.is_bundle_only() => 0,
            Section::Bundled(endpoint) | Section::Own(endpoint) => endpoint.rtp.port(),
        };
        self.push(format_args!("{}{port}{}", media.before_port, media.after_port));
        // A title stands before connection data, all else behind them (RFC 8866 section 5).
        let title = media.lines.iter().take_while(|line| line.starts_with("i=")).count();
        let (titles, rest) = media.lines.split_at(title);
        for line in titles {
            self.push(line);
        }
        self.push(format_args!("c={}", Place(section.endpoint().map_or(NOWHERE, |endpoint| endpoint.rtp.ip()))));
        for line in rest.iter().filter(|line| !is_transport(line)) {
            // With this attribute, port 0 would not reject it.
            if !matches!((section, attribute(line)), (Section::Rejected, Some(("bundle-only", _)))) {
                self.push(line);
            }
        }
        let rtcp = section.endpoint().and_then(|endpoint| endpoint.rtcp);
        if let Some(rtcp) = rtcp {
            self.push(format_args!("a=rtcp:{} {}", rtcp.port(), Place(rtcp.ip())));
        }
        if let Some(ice) = section.endpoint().and_then(|endpoint| endpoint.ice.as_ref()) {
            self.push(format_args!("a=ice-ufrag:{}", ice.parameters.ufrag));
            self.push(format_args!("a=ice-pwd:{}", ice.parameters.pwd));
        }
        if let Some(ice) = section.own_ice() {
            self.push_candidates(ice, rtcp.is_some());
        }
    }

    fn push_candidates(&mut self, ice: &LocalIce, has_rtcp: bool) {
        for candidate in ice.candidates.iter().filter(|candidate| candidate.component < 2 || has_rtcp) {
            self.push(format_args!("a={candidate}"));
        }
        self.push("a=end-of-candidates");
    }
}

/// A host as connection data name it.
struct Place(IpAddr);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_canonical() {
            IpAddr::V4(ip) => write!(f, "IN IP4 {ip}"),
            IpAddr::V6(ip) => write!(f, "IN IP6 {ip}"),
        }
    }
}
