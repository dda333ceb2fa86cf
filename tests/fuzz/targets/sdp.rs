//! Any text is a description or is refused; what is written of a description is one again, with its media where it was
//! sent, and nothing but transport is lost.
//!
//! The first bytes say what becomes of each section; the rest is the text.

#![no_main]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hairpin_proto::ice::{Candidate, CandidateAddress, CandidateKind, CandidateTransport, Parameters, priority};
use hairpin_proto::sdp::{Description, Endpoint, LocalIce, Media, Section};
use libfuzzer_sys::{Corpus, fuzz_target};

/// How many sections are chosen for; those behind are rejected.
const SECTIONS: usize = 4;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((choices, text)) = input.split_first_chunk::<SECTIONS>() else { return Corpus::Reject };
    let Ok(text) = std::str::from_utf8(text) else { return Corpus::Reject };
    for line in text.lines() {
        check_candidate(line);
    }
    let Ok(description) = Description::parse(text) else { return Corpus::Keep };
    let sections: Vec<Section> = choices.iter().zip(40_000..).map(|(choice, port)| section(*choice, port)).collect();
    let written = description.rewrite(&sections);
    let again = Description::parse(&written).unwrap_or_else(|error| panic!("{error}\n{written}"));
    assert_eq!(again.rewrite(&sections), written, "once more is the same");
    assert_eq!(survivors(text), survivors(&written));
    assert_eq!(again.bundles(), description.bundles());
    assert_eq!(again.media().len(), description.media().len());
    let sections = sections.iter().chain(std::iter::repeat(&Section::Rejected));
    for ((before, after), section) in description.media().iter().zip(again.media()).zip(sections) {
        check(before, after, section);
    }
    Corpus::Keep
});

/// What is read as a candidate is written in a way that is read the same.
fn check_candidate(line: &str) {
    if let Ok(candidate) = line.parse::<Candidate>() {
        let written = candidate.to_string();
        assert!(!written.contains(['\r', '\n', '\0']));
        assert_eq!(written.parse(), Ok(candidate));
    }
}

fn section(choice: u8, port: u16) -> Section {
    let ip: IpAddr = if choice & 4 == 0 { [192, 0, 2, 10].into() } else { Ipv6Addr::LOCALHOST.into() };
    let rtp = SocketAddr::new(ip, port);
    let rtcp = (choice & 8 != 0).then(|| SocketAddr::new(ip, port + 100));
    let candidate = |component| Candidate {
        foundation: "1".to_owned(),
        component,
        transport: CandidateTransport::Udp,
        priority: priority(126, u16::MAX, component),
        address: CandidateAddress::Ip(ip),
        port,
        kind: CandidateKind::Host,
        related: None,
    };
    let ice = (choice & 16 != 0).then(|| LocalIce {
        parameters: Parameters::new("hpUf", "hairpinhairpinhairpin00").expect("they have the right lengths"),
        candidates: vec![candidate(1), candidate(2)],
    });
    let endpoint = Endpoint { rtp, rtcp, ice };
    match choice & 3 {
        0 => Section::Rejected,
        1 => Section::Bundled(endpoint),
        _ => Section::Own(endpoint),
    }
}

/// All lines but those of transport, without the ports.
fn survivors(text: &str) -> Vec<String> {
    let goes = ["candidate", "end-of-candidates", "remote-candidates", "rtcp", "bundle-only"];
    let lines = text.trim_end_matches(['\r', '\n']).split('\n').map(|line| line.trim_end_matches('\r'));
    let lines = lines.filter(|line| {
        let name = line.strip_prefix("a=").map(|rest| rest.split(':').next().unwrap_or(rest).trim_ascii());
        !line.starts_with("c=") && !name.is_some_and(|name| goes.contains(&name) || is_of_ice(name))
    });
    lines
        .map(|line| match line.strip_prefix("m=") {
            Some(media) => {
                let mut words: Vec<&str> = media.split_ascii_whitespace().collect();
                words.remove(1);
                words.join(" ")
            }
            None => line.to_owned(),
        })
        .collect()
}

fn is_of_ice(name: &str) -> bool {
    let rest = name.strip_prefix("ice-");
    rest.is_some_and(|rest| ["lite", "mismatch", "options", "pacing", "pwd", "ufrag"].contains(&rest))
}

fn check(before: &Media, after: &Media, section: &Section) {
    assert_eq!((&before.kind, &before.protocol, &before.mid), (&after.kind, &after.protocol, &after.mid));
    assert_eq!((before.rtcp_mux(), before.rtcp_mux_only()), (after.rtcp_mux(), after.rtcp_mux_only()));
    assert_eq!(after.ignored_candidates, 0);
    let (endpoint, ice) = match section {
        Section::Rejected => return assert!(!after.is_active()),
        Section::Bundled(_) if before.is_bundle_only() => return assert!(after.is_bundle_only()),
        // Credentials are told in each section, candidates in the first of a bundle.
        Section::Bundled(endpoint) => (endpoint, None),
        Section::Own(endpoint) => (endpoint, endpoint.ice.as_ref()),
    };
    assert_eq!(after.address, Some(endpoint.rtp));
    if let Some(rtcp) = endpoint.rtcp.filter(|_| after.is_rtp()) {
        assert_eq!(after.rtcp, Some(rtcp));
    }
    assert_eq!(after.parameters.as_ref(), endpoint.ice.as_ref().map(|ice| &ice.parameters));
    assert_eq!(after.end_of_candidates(), ice.is_some());
    let candidates = ice.map_or(0, |_| if endpoint.rtcp.is_some() { 2 } else { 1 });
    assert_eq!(after.candidates.len(), candidates);
}
