//! A media section, and where its media goes.

use std::fmt;
use std::net::SocketAddr;

use super::line::attribute;
use crate::ice::{Candidate, Parameters};

/// A media section of a description.
#[derive(Clone, PartialEq, Eq)]
pub struct Media {
    /// What is sent: `audio`, `video`, `application` and others.
    pub kind: String,
    /// What it is sent over, such as `UDP/TLS/RTP/SAVPF`.
    pub protocol: String,
    /// The port as it is written. 0 rejects the section, if it is not [bundle-only](Self::is_bundle_only).
    pub port: u16,
    /// Its name (RFC 5888).
    pub mid: Option<String>,
    /// Where media can be sent without ICE. None for the name of a host, which is not resolved, and for what nothing
    /// can be sent to: port 0, an unspecified address (as before candidates are known, or on hold), a multicast one.
    pub address: Option<SocketAddr>,
    /// Where RTCP can be sent if it is not multiplexed: as `a=rtcp` says (RFC 3605), else one port above media. None
    /// where `address` would be, and for media that is no RTP.
    pub rtcp: Option<SocketAddr>,
    /// The credentials of ICE, of the section or else of the session.
    pub parameters: Option<Parameters>,
    /// Its candidates, in order, also those that are of no use here.
    pub candidates: Vec<Candidate>,
    /// How many candidates could not be read.
    pub ignored_candidates: usize,
    /// Whether there are no more candidates, by the word of the section or of the session.
    pub(super) ended: bool,
    /// What the line that begins the section says before the port.
    pub(super) before_port: String,
    /// What it says behind the port and the number of ports.
    pub(super) after_port: String,
    /// The other lines of the section.
    pub(super) lines: Vec<String>,
}

impl Media {
    /// Whether it is not rejected.
    pub fn is_active(&self) -> bool {
        self.port != 0 || self.is_bundle_only()
    }

    /// Whether it has no port because it shall be used in a bundle or not at all (RFC 9143 section 6). With a port, the
    /// attribute means nothing.
    pub fn is_bundle_only(&self) -> bool {
        self.port == 0 && self.has("bundle-only")
    }

    /// Whether RTP is sent, and RTCP with it.
    pub fn is_rtp(&self) -> bool {
        self.protocol.split('/').any(|layer| layer.eq_ignore_ascii_case("RTP"))
    }

    /// Whether RTCP may come to the port of RTP (RFC 5761).
    pub fn rtcp_mux(&self) -> bool {
        self.has("rtcp-mux")
    }

    /// Whether RTCP comes to the port of RTP or not at all (RFC 8858).
    pub fn rtcp_mux_only(&self) -> bool {
        self.has("rtcp-mux-only")
    }

    /// Whether its agent has no more candidates to tell (RFC 8840 section 8.2).
    pub fn end_of_candidates(&self) -> bool {
        self.ended
    }

    fn has(&self, name: &str) -> bool {
        self.lines.iter().any(|line| attribute(line).is_some_and(|(found, _)| found == name))
    }
}

impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Among the lines are keys and passwords.
        f.debug_struct("Media")
            .field("kind", &self.kind)
            .field("protocol", &self.protocol)
            .field("port", &self.port)
            .field("mid", &self.mid)
            .field("address", &self.address)
            .field("rtcp", &self.rtcp)
            .field("parameters", &self.parameters)
            .field("candidates", &self.candidates)
            .field("ignored_candidates", &self.ignored_candidates)
            .finish_non_exhaustive()
    }
}
