//! What becomes of a description: its media goes elsewhere, and all else is as it came.

use hairpin_proto::sdp::{Description, Endpoint, Section};

use crate::samples::{
    ALL, ASTERISK_OFFER, AUDIO_VIDEO, BARESIP_OFFER, CHROME_ANSWER, CHROME_MAX_BUNDLE_OFFER, CHROME_OFFER,
    FIREFOX_OFFER, FREESWITCH_OFFER, LINPHONE_ANSWER, MULTICAST, Sample, TRUNK_IPV4, TRUNK_IPV6, V4, V6, by_ice, muxed,
    split,
};

/// Compares line by line, so that a failure shows the first that differs.
fn rewritten(sample: &Sample, sections: &[Section]) {
    let name = sample.name;
    let written = sample.parse().rewrite(sections);
    let expected = sample.after();
    for (number, (line, expected)) in written.split("\r\n").zip(expected.split("\r\n")).enumerate() {
        assert_eq!(line, expected, "line {} of {name}, rewritten:\n{written}", number + 1);
    }
    assert_eq!(written, expected, "{name}");
    let again = Description::parse(&written).unwrap();
    assert_eq!(again.rewrite(sections), written, "{name}, once more");
}

fn own(endpoint: Endpoint) -> Section {
    Section::Own(endpoint)
}

fn without_ice(text: &str) {
    for word in ["candidate", "ice-"] {
        assert!(!text.contains(word), "{text}");
    }
}

#[test]
fn an_offer_of_chrome_stays_one_bundle() {
    let endpoint = by_ice(&muxed(V4, 40_000));
    let sections = [own(endpoint.clone()), Section::Bundled(endpoint.clone()), Section::Bundled(endpoint)];
    rewritten(&CHROME_OFFER, &sections);
}

#[test]
fn an_answer_of_chrome_goes_on_rejecting_what_it_has_rejected() {
    let endpoint = by_ice(&muxed(V6, 40_000));
    rewritten(&CHROME_ANSWER, &[own(endpoint.clone()), Section::Rejected, Section::Bundled(endpoint)]);
}

#[test]
fn a_section_for_a_bundle_only_gets_no_port() {
    let endpoint = by_ice(&muxed(V4, 40_000));
    rewritten(&CHROME_MAX_BUNDLE_OFFER, &[own(endpoint.clone()), Section::Bundled(endpoint)]);
}

#[test]
fn an_offer_of_firefox_becomes_plain() {
    rewritten(&FIREFOX_OFFER, &[own(muxed(V4, 40_000)), own(split(V4, 40_002))]);
    without_ice(&FIREFOX_OFFER.after());
}

#[test]
fn an_offer_of_baresip_keeps_two_components() {
    rewritten(&BARESIP_OFFER, &[own(by_ice(&split(V4, 40_000)))]);
}

#[test]
fn an_answer_of_linphone_becomes_plain() {
    rewritten(&LINPHONE_ANSWER, &[own(split(V6, 40_000))]);
    without_ice(&LINPHONE_ANSWER.after());
}

#[test]
fn an_offer_of_asterisk_becomes_plain() {
    rewritten(&ASTERISK_OFFER, &[own(muxed(V4, 40_000))]);
}

#[test]
fn an_offer_of_freeswitch_gets_ice() {
    rewritten(&FREESWITCH_OFFER, &[own(by_ice(&split(V4, 40_000)))]);
}

#[test]
fn plain_trunks_go_elsewhere() {
    rewritten(&TRUNK_IPV4, &[own(muxed(V4, 40_000))]);
    rewritten(&TRUNK_IPV6, &[own(split(V6, 40_000))]);
}

#[test]
fn sections_go_to_ports_of_their_own() {
    let other_host = Endpoint { rtcp: split(V6, 40_000).rtcp, ..muxed(V4, 40_000) };
    rewritten(&AUDIO_VIDEO, &[own(other_host), own(split(V4, 40_002))]);
}

#[test]
fn one_address_takes_the_place_of_several() {
    rewritten(&MULTICAST, &[own(muxed(V4, 40_000)), own(muxed(V6, 40_002))]);
}

#[test]
fn sections_that_are_missing_are_rejected_and_others_are_not_looked_at() {
    let offer = AUDIO_VIDEO.parse();
    let [audio, more] = [own(muxed(V4, 40_000)), own(by_ice(&muxed(V4, 40_002)))];
    let expected = offer.rewrite(&[audio.clone(), Section::Rejected]);
    assert_eq!(offer.rewrite(std::slice::from_ref(&audio)), expected);
    assert_eq!(offer.rewrite(&[audio, Section::Rejected, more]), expected, "and its ICE is not told of");
    without_ice(&expected);
}

#[test]
fn a_description_that_is_rejected_tells_of_no_address_and_no_section_is_without_one() {
    for sample in ALL {
        let written = sample.parse().rewrite(&[]);
        without_ice(&written);
        let again = Description::parse(&written).unwrap();
        assert_eq!(again.media().len(), sample.parse().media().len(), "{}", sample.name);
        for media in again.media() {
            assert!(!media.is_active() && media.address.is_none() && media.rtcp.is_none(), "{}", sample.name);
        }
        let count = |start: &str| written.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!((count("c=IN IP4 0.0.0.0"), count("c=")), (count("m="), count("m=")), "{}", sample.name);
    }
}

#[test]
fn a_section_for_a_bundle_only_can_be_rejected() {
    let written = CHROME_MAX_BUNDLE_OFFER.parse().rewrite(&[own(muxed(V4, 40_000)), Section::Rejected]);
    let again = Description::parse(&written).unwrap();
    assert!(again.media()[0].is_active() && !again.media()[1].is_active(), "{written}");
}

#[test]
fn a_section_for_a_bundle_only_gets_a_port_of_its_own_where_there_is_no_bundle() {
    let written = CHROME_MAX_BUNDLE_OFFER.parse().rewrite(&[own(muxed(V4, 40_000)), own(muxed(V4, 40_002))]);
    assert_eq!(Description::parse(&written).unwrap().media()[1].address, muxed(V4, 40_002).rtp.into());
}

#[test]
fn what_is_written_is_read_as_what_was_meant() {
    let endpoint = by_ice(&split(V6, 40_000));
    let written = FREESWITCH_OFFER.parse().rewrite(&[own(endpoint.clone())]);
    let again = Description::parse(&written).unwrap();
    let (media, ice) = (&again.media()[0], endpoint.ice.unwrap());
    assert!(again.is_lite() && again.has_ice() && media.end_of_candidates());
    assert_eq!((media.address, media.rtcp), (Some(endpoint.rtp), endpoint.rtcp));
    assert_eq!(media.parameters.as_ref(), Some(&ice.parameters));
    assert_eq!(media.candidates, ice.candidates);
}

#[test]
fn rtcp_without_an_address_has_no_candidates() {
    let written = FREESWITCH_OFFER.parse().rewrite(&[own(by_ice(&muxed(V4, 40_000)))]);
    let again = Description::parse(&written).unwrap();
    let components: Vec<u16> = again.media()[0].candidates.iter().map(|candidate| candidate.component).collect();
    assert_eq!(components, [1]);
    assert!(!written.contains("a=rtcp:"), "{written}");
}

#[test]
fn an_ipv4_address_is_written_as_one() {
    let mapped = "[::ffff:192.0.2.10]:40000".parse().unwrap();
    let endpoint = Endpoint { rtp: mapped, rtcp: Some(mapped), ice: None };
    let written = FREESWITCH_OFFER.parse().rewrite(&[own(endpoint)]);
    assert!(written.contains("c=IN IP4 192.0.2.10\r\n") && written.contains("a=rtcp:40000 IN IP4 192.0.2.10\r\n"));
}

#[test]
fn connection_data_stand_behind_the_title_wherever_they_came() {
    let text = "v=0\nm=audio 9 RTP/AVP 0\ni=One\nb=AS:64\nc=IN IP4 198.51.100.1\na=sendrecv\n";
    let written = Description::parse(text).unwrap().rewrite(&[own(muxed(V4, 40_000))]);
    let expected = "v=0\r\nm=audio 40000 RTP/AVP 0\r\ni=One\r\nc=IN IP4 192.0.2.10\r\nb=AS:64\r\na=sendrecv\r\n";
    assert_eq!(written, expected);
}

#[test]
fn attributes_of_ice_go_from_both_levels() {
    let lines = "a=ice-lite\na=ice-options:trickle\na=ice-pacing:50\na=ice-ufrag:abcd\n\
                 a=ice-pwd:0123456789abcdefghijkl\n\
                 a=ice-mismatch\na=remote-candidates:1 198.51.100.1 4000\na=end-of-candidates\na=rtcp:9\n\
                 a=candidate:1 1 UDP 1 198.51.100.1 4000 typ host\na=candidate:what\n";
    let text =
        format!("v=0\nc=IN IP4 198.51.100.1\n{lines}m=audio 9/2 RTP/AVP  0\n{lines}a=rtcp-mux\na=rtcp-fb:* nack\n");
    let written = Description::parse(&text).unwrap().rewrite(&[own(muxed(V4, 40_000))]);
    let expected = "v=0\r\nm=audio 40000 RTP/AVP  0\r\nc=IN IP4 192.0.2.10\r\na=rtcp-mux\r\na=rtcp-fb:* nack\r\n";
    assert_eq!(written, expected);
}
