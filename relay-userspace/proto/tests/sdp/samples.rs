//! Descriptions in the manner of the agents of the field, and what they are rewritten with.
//!
//! A file says both what comes and what leaves, as a patch does: a line that begins with two spaces is in both, one
//! with `-` only in what comes, one with `+` only in what leaves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hairpin_proto::ice::{Candidate, CandidateAddress, CandidateKind, CandidateTransport, Parameters, priority};
use hairpin_proto::sdp::{Description, Endpoint, LocalIce};

/// The relay's own addresses.
pub(crate) const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
pub(crate) const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));

/// The files, by their name.
macro_rules! samples {
    ($($constant:ident $name:literal,)*) => {
        $(pub(crate) const $constant: Sample = Sample {
            name: $name,
            patch: include_str!(concat!("descriptions/", $name, ".diff")),
        };)*
        pub(crate) const ALL: &[Sample] = &[$($constant,)*];
    };
}

samples! {
    ASTERISK_OFFER "asterisk_offer",
    AUDIO_VIDEO "audio_video",
    BARESIP_OFFER "baresip_offer",
    CHROME_ANSWER "chrome_answer",
    CHROME_MAX_BUNDLE_OFFER "chrome_max_bundle_offer",
    CHROME_OFFER "chrome_offer",
    FIREFOX_OFFER "firefox_offer",
    FREESWITCH_OFFER "freeswitch_offer",
    LINPHONE_ANSWER "linphone_answer",
    MULTICAST "multicast",
    TRUNK_IPV4 "trunk_ipv4",
    TRUNK_IPV6 "trunk_ipv6",
}

/// A description, and what becomes of it.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    patch: &'static str,
}

impl Sample {
    /// What comes.
    pub(crate) fn before(&self) -> String {
        self.side(["  ", "- "])
    }

    /// What leaves.
    pub(crate) fn after(&self) -> String {
        self.side(["  ", "+ "])
    }

    pub(crate) fn parse(&self) -> Description {
        Description::parse(&self.before()).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn side(&self, marks: [&str; 2]) -> String {
        let lines = self.patch.lines();
        assert!(lines.clone().all(|line| ["  ", "- ", "+ "].contains(&&line[..2])), "{}", self.name);
        lines.filter(|line| marks.contains(&&line[..2])).flat_map(|line| [&line[2..], "\r\n"]).collect()
    }
}

/// Where everything goes to one port.
pub(crate) fn muxed(ip: IpAddr, port: u16) -> Endpoint {
    Endpoint { rtp: SocketAddr::new(ip, port), rtcp: None, ice: None }
}

/// Where RTCP goes to the next port.
pub(crate) fn split(ip: IpAddr, port: u16) -> Endpoint {
    Endpoint { rtcp: Some(SocketAddr::new(ip, port + 1)), ..muxed(ip, port) }
}

/// The same by ICE, with a candidate for each of two components.
pub(crate) fn by_ice(endpoint: &Endpoint) -> Endpoint {
    let candidate = |component: u16| Candidate {
        foundation: "1".to_owned(),
        component,
        transport: CandidateTransport::Udp,
        priority: priority(126, u16::MAX, component),
        address: CandidateAddress::Ip(endpoint.rtp.ip()),
        port: endpoint.rtp.port() + component - 1,
        kind: CandidateKind::Host,
        related: None,
    };
    let parameters = Parameters::new("hpUf", "hairpinhairpinhairpin00").unwrap();
    let ice = Some(LocalIce { parameters, candidates: vec![candidate(1), candidate(2)] });
    Endpoint { ice, ..endpoint.clone() }
}
