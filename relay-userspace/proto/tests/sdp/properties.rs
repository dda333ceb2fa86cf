//! Whatever comes: it is read or refused; what is written can be read, and what says nothing of transport survives.

use hairpin_proto::sdp::{Description, Section};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::samples::{ALL, V4, V6, by_ice, muxed, split};

/// Attributes that are not to survive.
const TRANSPORT: &str = "candidate end-of-candidates ice-lite ice-mismatch ice-options ice-pacing ice-pwd ice-ufrag \
                         remote-candidates rtcp";

/// Lines of all samples, so that every agent's are mixed with every other's.
fn lines() -> impl Strategy<Value = String> {
    let lines: Vec<String> =
        ALL.iter().flat_map(|sample| sample.before().lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    prop_oneof![
        8 => select(lines),
        2 => select(vec!["a=bundle-only", "a=ice-lite", "a=end-of-candidates", "i=title", "m=audio 0 RTP/AVP 0"])
            .prop_map(str::to_owned),
        1 => "[a-z]=\\PC{0,40}".prop_filter("may be wrong", |line| !line.starts_with("m=") && !line.starts_with("c=")),
    ]
}

fn sections() -> impl Strategy<Value = Vec<Section>> {
    let ip = select(vec![V4, V6]);
    let endpoint = (ip, 1..u16::MAX - 1, any::<bool>(), any::<bool>()).prop_map(|(ip, port, is_split, has_ice)| {
        let endpoint = if is_split { split(ip, port) } else { muxed(ip, port) };
        if has_ice { by_ice(&endpoint) } else { endpoint }
    });
    let section = prop_oneof![
        Just(Section::Rejected),
        endpoint.clone().prop_map(Section::Bundled),
        endpoint.prop_map(Section::Own)
    ];
    vec(section, 0..6)
}

/// What has to be the same before and after. Ports are not; of credentials, one may have lost the other.
fn survivors(text: &str) -> Vec<String> {
    let survives = |line: &&str| {
        let attribute = line.strip_prefix("a=").map(|rest| rest.split(':').next().unwrap_or(rest).trim());
        !line.starts_with("c=")
            && attribute != Some("bundle-only")
            && !attribute.is_some_and(|name| TRANSPORT.split(' ').any(|other| other == name))
    };
    let portless = |line: &str| {
        let mut words: Vec<_> = line.split(' ').collect();
        // Between two blanks is nothing, and no port.
        let port = words.iter().skip(1).position(|word| !word.is_empty()).filter(|_| line.starts_with("m="));
        port.map(|port| words.remove(1 + port));
        words.join(" ")
    };
    text.split('\n').map(|line| line.trim_end_matches('\r')).filter(survives).map(portless).collect()
}

fn check(text: &str, sections: &[Section]) -> Result<(), TestCaseError> {
    let Ok(description) = Description::parse(text) else { return Ok(()) };
    let written = description.rewrite(sections);
    prop_assert_eq!(survivors(text.trim_end_matches(['\r', '\n'])), survivors(written.trim_end_matches(['\r', '\n'])));
    let whole = written.lines().all(|line| !line.contains(['\r', '\n']));
    prop_assert!(whole && written.ends_with("\r\n"));

    let again = Description::parse(&written);
    prop_assert!(again.is_ok(), "{:?}\n{}", again, written);
    let again = again.unwrap();
    prop_assert_eq!(again.bundles(), description.bundles());
    prop_assert_eq!(again.media().len(), description.media().len());
    prop_assert_eq!(&again.rewrite(sections), &written, "once more is the same");
    let rejected = sections.iter().chain(std::iter::repeat(&Section::Rejected));
    for ((before, after), section) in description.media().iter().zip(again.media()).zip(rejected) {
        prop_assert_eq!((&before.kind, &before.protocol, &before.mid), (&after.kind, &after.protocol, &after.mid));
        prop_assert_eq!((before.rtcp_mux(), before.rtcp_mux_only()), (after.rtcp_mux(), after.rtcp_mux_only()));
        match section {
            Section::Rejected => prop_assert!(!after.is_active()),
            Section::Bundled(_) if before.is_bundle_only() => prop_assert!(after.is_bundle_only()),
            Section::Bundled(endpoint) => {
                prop_assert_eq!(after.address, Some(endpoint.rtp));
                let ice = endpoint.ice.as_ref();
                prop_assert_eq!(after.parameters.as_ref(), ice.map(|ice| &ice.parameters));
                prop_assert_eq!(after.candidates.len(), 0);
            }
            Section::Own(endpoint) => {
                prop_assert_eq!(after.address, Some(endpoint.rtp));
                let ice = endpoint.ice.as_ref();
                prop_assert_eq!(after.parameters.as_ref(), ice.map(|ice| &ice.parameters));
                prop_assert_eq!(after.end_of_candidates(), ice.is_some());
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn noise_is_read_without_a_panic(text in any::<String>(), sections in sections()) {
        check(&text, &sections)?;
        check(&format!("v=0\nm=audio 9 RTP/AVP 0\n{text}"), &sections)?;
    }

    #[test]
    fn a_description_of_lines_in_any_order_keeps_what_is_not_transport(
        lines in vec(lines(), 0..60),
        sections in sections(),
        end in select(vec!["\n", "\r\n"]),
    ) {
        check(&format!("v=0{end}{}{end}m=audio 9 RTP/AVP 0", lines.join(end)), &sections)?;
    }

    #[test]
    fn a_description_with_a_piece_missing_or_doubled_is_no_worse(
        sample in 0..ALL.len(),
        (from, to) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        sections in sections(),
    ) {
        let text = ALL[sample].before();
        let (from, to) = (from.index(text.len()), to.index(text.len()));
        check(&format!("{}{}", &text[..from], &text[to..]), &sections)?;
    }
}

#[test]
fn every_sample_keeps_what_is_not_transport() {
    let endpoint = by_ice(&split(V6, 5000));
    for sample in ALL {
        let sections = [Section::Own(endpoint.clone()), Section::Bundled(endpoint.clone())];
        check(&sample.before(), &sections).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
    }
}
