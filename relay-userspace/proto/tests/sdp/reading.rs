//! What is read of a description.

use std::net::SocketAddr;

use hairpin_proto::ice::CandidateAddress;
use hairpin_proto::sdp::{Description, Media};

use crate::samples::{
    ALL, ASTERISK_OFFER, AUDIO_VIDEO, BARESIP_OFFER, CHROME_ANSWER, CHROME_MAX_BUNDLE_OFFER, CHROME_OFFER,
    FIREFOX_OFFER, FREESWITCH_OFFER, LINPHONE_ANSWER, MULTICAST, TRUNK_IPV4, TRUNK_IPV6,
};

fn at(address: &str) -> Option<SocketAddr> {
    address.parse().map(Some).unwrap()
}

/// A description with one media section of these lines.
fn only(lines: &[&str]) -> Media {
    let text = format!("v=0\no=- 1 1 IN IP4 198.51.100.1\ns=-\nt=0 0\n{}\n", lines.join("\n"));
    Description::parse(&text).unwrap().media()[0].clone()
}

fn credentials(media: &Media) -> Option<(&str, &str)> {
    media.parameters.as_ref().map(|parameters| (parameters.ufrag.as_str(), parameters.pwd.as_str()))
}

#[test]
fn an_offer_of_chrome_is_one_bundle_with_candidates_to_come() {
    let offer = CHROME_OFFER.parse();
    assert!(offer.has_ice() && !offer.is_lite());
    assert_eq!(offer.bundles(), [["0", "1", "2"]]);
    let [audio, video, data] = offer.media() else { panic!("{offer:?}") };

    assert_eq!((audio.kind.as_str(), audio.protocol.as_str(), audio.port), ("audio", "UDP/TLS/RTP/SAVPF", 9));
    assert_eq!((audio.mid.as_deref(), video.mid.as_deref(), data.mid.as_deref()), (Some("0"), Some("1"), Some("2")));
    assert_eq!((audio.address, audio.rtcp), (None, None), "0.0.0.0 is nowhere");
    for media in offer.media() {
        assert_eq!(credentials(media), Some(("zL4k", "v1DqWY+b0Gm0v5mWwPq3u6/s")));
        assert!(media.is_active() && !media.is_bundle_only() && !media.end_of_candidates() && !media.rtcp_mux_only());
    }
    assert!(audio.rtcp_mux() && video.rtcp_mux() && !data.rtcp_mux());
    assert!(audio.is_rtp() && !data.is_rtp());

    let usable: Vec<_> = audio.candidates.iter().map(hairpin_proto::ice::Candidate::usable).collect();
    assert_eq!(usable, [None, None, at("203.0.113.77:51472")], "a name, TCP, and an address");
    let name = CandidateAddress::Name("3b3c1f51-8a4c-4f0e-b1a0-6f0f7d5d0a11.local".to_owned());
    assert_eq!(audio.candidates[0].address, name);
    assert_eq!((audio.ignored_candidates, video.candidates.len()), (0, 0));
}

#[test]
fn an_answer_of_chrome_rejects_one_section() {
    let answer = CHROME_ANSWER.parse();
    assert_eq!(answer.bundles(), [["0", "2"]]);
    let active: Vec<bool> = answer.media().iter().map(Media::is_active).collect();
    assert_eq!(active, [true, false, true]);
    assert_eq!(answer.media()[0].address, at("198.51.100.23:58913"));
    assert_eq!(answer.media()[0].rtcp, None, "a=rtcp says 0.0.0.0, and so do those who multiplex");
}

#[test]
fn a_section_without_a_port_is_active_if_it_is_for_a_bundle_only() {
    let offer = CHROME_MAX_BUNDLE_OFFER.parse();
    let [audio, video] = offer.media() else { panic!("{offer:?}") };
    assert!(audio.rtcp_mux_only() && !audio.is_bundle_only());
    assert_eq!((video.port, video.is_bundle_only(), video.is_active()), (0, true, true));
    assert_eq!(video.parameters, None);

    let with_port = only(&["m=video 9 RTP/AVP 96", "a=bundle-only"]);
    assert!(with_port.is_active() && !with_port.is_bundle_only(), "with a port it means nothing");
}

#[test]
fn an_offer_of_firefox_says_where_rtcp_goes_and_when_candidates_end() {
    let offer = FIREFOX_OFFER.parse();
    let [audio, video] = offer.media() else { panic!("{offer:?}") };
    assert_eq!((audio.address, audio.rtcp), (at("198.51.100.40:53020"), at("198.51.100.40:53021")));
    assert_eq!(video.rtcp, at("198.51.100.40:53023"));
    assert!(audio.end_of_candidates() && audio.rtcp_mux());
    assert_eq!(audio.candidates.len(), 4);
    assert_eq!(credentials(video), Some(("6ae1f25a", "b2f60cbe74d5c9fcd5be0b4ea0a9a7a5")));
}

#[test]
fn what_the_session_says_holds_for_its_sections() {
    for (offer, ufrag, rtp, rtcp) in [
        (BARESIP_OFFER.parse(), "hV7t", "192.168.1.24:27142", "192.168.1.24:27143"),
        (LINPHONE_ANSWER.parse(), "e3a5f01c", "198.51.100.61:7078", "198.51.100.61:7079"),
    ] {
        let [audio] = offer.media() else { panic!("{offer:?}") };
        assert_eq!(credentials(audio).map(|(ufrag, _)| ufrag), Some(ufrag));
        assert_eq!((audio.address, audio.rtcp), (at(rtp), at(rtcp)));
        assert!(offer.has_ice() && !audio.rtcp_mux() && offer.bundles().is_empty());
    }
}

#[test]
fn a_section_knows_better_than_the_session() {
    let text = "v=0\nc=IN IP4 198.51.100.1\na=ice-ufrag:session\na=ice-pwd:sessionsessionsession0\n\
                m=audio 5000 RTP/AVP 0\nc=IN IP4 198.51.100.2\na=ice-ufrag:media\na=ice-pwd:mediamediamediamedia00\n\
                m=video 5002 RTP/AVP 96\n";
    let description = Description::parse(text).unwrap();
    let [audio, video] = description.media() else { panic!("{description:?}") };
    assert_eq!(credentials(audio), Some(("media", "mediamediamediamedia00")));
    assert_eq!(audio.address, at("198.51.100.2:5000"));
    assert_eq!(credentials(video), Some(("session", "sessionsessionsession0")));
    assert_eq!(video.address, at("198.51.100.1:5002"));
}

#[test]
fn the_end_of_candidates_can_be_said_for_all_sections() {
    let text = "v=0\na=end-of-candidates\nm=audio 9 RTP/AVP 0\nm=video 9 RTP/AVP 96\n";
    assert!(Description::parse(text).unwrap().media().iter().all(Media::end_of_candidates));
}

#[test]
fn candidates_that_cannot_be_read_are_counted() {
    let offer = ASTERISK_OFFER.parse();
    let [audio] = offer.media() else { panic!("{offer:?}") };
    assert_eq!((audio.candidates.len(), audio.ignored_candidates), (2, 1), "one has a zone");
    assert_eq!(audio.candidates[1].foundation, "Scb007105");
    assert_eq!(only(&["m=audio 9 RTP/AVP 0", "a=candidate", "a=candidate:"]).ignored_candidates, 2);
}

#[test]
fn plain_descriptions_have_an_address_and_no_ice() {
    for (offer, rtp, rtcp) in [
        (FREESWITCH_OFFER.parse(), "198.51.100.90:29416", "198.51.100.90:29417"),
        (TRUNK_IPV4.parse(), "203.0.113.20:18240", "203.0.113.20:18241"),
        (TRUNK_IPV6.parse(), "[2001:db8:51::8]:6000", "[2001:db8:51::8]:6001"),
        (AUDIO_VIDEO.parse(), "198.51.100.31:49170", "[2001:db8:30::2]:53020"),
    ] {
        let media = &offer.media()[0];
        assert_eq!((media.address, media.rtcp), (at(rtp), at(rtcp)));
        assert!(!offer.has_ice() && media.is_rtp() && media.parameters.is_none());
    }
    let offer = TRUNK_IPV4.parse();
    let fax = &offer.media()[1];
    assert_eq!((fax.kind.as_str(), fax.protocol.as_str(), fax.is_rtp(), fax.rtcp), ("image", "udptl", false, None));
    assert_eq!(fax.address, at("203.0.113.20:18242"));
}

#[test]
fn nothing_is_sent_to_where_nobody_is() {
    for (connection, port, expected, what) in [
        ("IN IP4 198.51.100.1", 4000, at("198.51.100.1:4000"), "an address"),
        ("IN IP4 198.51.100.1", 9, at("198.51.100.1:9"), "a port like others, if there is an address"),
        ("in ip4 198.51.100.1", 4000, at("198.51.100.1:4000"), "small letters"),
        ("IN IP6 2001:db8::1", 4000, at("[2001:db8::1]:4000"), "an IPv6 address"),
        ("IN IP6 ::ffff:198.51.100.1", 4000, at("198.51.100.1:4000"), "an IPv4 address as one of IPv6"),
        ("IN IP4 198.51.100.1/127", 4000, at("198.51.100.1:4000"), "a TTL that is of no use"),
        ("IN IP4 198.51.100.1", 0, None, "no port"),
        ("IN IP4 0.0.0.0", 4000, None, "on hold"),
        ("IN IP6 ::", 9, None, "nothing known yet"),
        ("IN IP4 224.2.1.1/127/3", 4000, None, "multicast"),
        ("IN IP6 ff15::101/3", 4000, None, "multicast of IPv6"),
        ("IN IP4 media.example.org", 4000, None, "a name"),
        ("ATM NSAP 198.51.100.1", 4000, None, "another network"),
    ] {
        let media = only(&[&format!("m=audio {port} RTP/AVP 0"), &format!("c={connection}")]);
        assert_eq!(media.address, expected, "{what}");
        let next = expected.map(|address| SocketAddr::new(address.ip(), port + 1));
        assert_eq!(media.rtcp, next, "{what}");
    }
    assert_eq!(only(&["m=audio 4000 RTP/AVP 0"]).address, None, "no connection data");
    assert_eq!(MULTICAST.parse().media()[0].address, None);
    let highest = only(&["m=audio 65535 RTP/AVP 0", "c=IN IP4 198.51.100.1"]);
    assert_eq!((highest.address, highest.rtcp), (at("198.51.100.1:65535"), None));
}

#[test]
fn of_what_is_said_twice_the_first_holds() {
    let media = only(&[
        "m=audio 4000 RTP/AVP 0",
        "c=IN IP4 198.51.100.1",
        "c=IN IP4 198.51.100.2",
        "a=ice-ufrag:first",
        "a=ice-ufrag:second",
        "a=ice-pwd:firstfirstfirstfirst00",
        "a=ice-pwd:secondsecondsecondsecond",
        "a=mid:0",
        "a=mid:1",
        "a=rtcp:5001",
        "a=rtcp:5003",
    ]);
    assert_eq!((media.address, media.rtcp), (at("198.51.100.1:4000"), at("198.51.100.1:5001")));
    assert_eq!(credentials(&media), Some(("first", "firstfirstfirstfirst00")));
    assert_eq!(media.mid.as_deref(), Some("0"));
}

#[test]
fn where_rtcp_goes_is_as_it_says_itself() {
    for (rtcp, expected, what) in [
        ("5001", at("198.51.100.1:5001"), "a port where media goes"),
        ("5001 IN IP4 198.51.100.2", at("198.51.100.2:5001"), "another host"),
        ("5001 IN IP6 2001:db8::2", at("[2001:db8::2]:5001"), "another IP version"),
        ("0", None, "no port"),
        ("5001 IN IP4 media.example.org", None, "a name, and not the next port instead"),
    ] {
        let media = only(&["m=audio 4000 RTP/AVP 0", "c=IN IP4 198.51.100.1", &format!("a=rtcp:{rtcp}")]);
        assert_eq!(media.rtcp, expected, "{what}");
    }
    let data = only(&["m=application 4000 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 198.51.100.1", "a=rtcp:5001"]);
    assert_eq!(data.rtcp, None, "there is no RTCP without RTP");
}

#[test]
fn lite_agents_say_so_for_the_session() {
    let lite = Description::parse("v=0\na=ice-lite\nm=audio 9 RTP/AVP 0\n").unwrap();
    assert!(lite.is_lite() && !lite.has_ice());
    let blank = Description::parse("v=0\na=ice-lite \nm=audio 9 RTP/AVP 0\na=mid: 0 \n").unwrap();
    assert!(blank.is_lite(), "blanks mean nothing");
    assert_eq!(blank.media()[0].mid.as_deref(), Some("0"));
    assert!(!blank.rewrite(&[]).contains("ice-lite"));
    let not = Description::parse("v=0\na=ice-liter\nm=audio 9 RTP/AVP 0\n").unwrap();
    assert!(!not.is_lite());
}

#[test]
fn a_rejected_section_with_credentials_is_no_ice() {
    let lines = "a=ice-ufrag:abcd\na=ice-pwd:0123456789abcdefghijkl\n";
    for (port, expected) in [(0, false), (9, true)] {
        let text = format!("v=0\nm=audio {port} RTP/AVP 0\n{lines}");
        assert_eq!(Description::parse(&text).unwrap().has_ice(), expected);
    }
}

#[test]
fn groups_of_other_kinds_and_without_members_are_no_bundles() {
    let text = "v=0\na=group:LS a b\na=group:BUNDLE\na=group:BUNDLE a\na=group:bundle b c\n\
                m=audio 9 RTP/AVP 0\na=group:BUNDLE d\n";
    let bundles = [vec!["a".to_owned()], vec!["b".to_owned(), "c".to_owned()]];
    assert_eq!(Description::parse(text).unwrap().bundles(), bundles);
}

#[test]
fn line_ends_and_blank_lines_at_the_end_make_no_difference() {
    for sample in ALL {
        let crlf = sample.before();
        let lf = crlf.replace('\r', "");
        let expected = Description::parse(&crlf).unwrap();
        let open = lf.trim_end().to_owned();
        for text in [lf.clone(), open, format!("{crlf}\r\n\r\n"), format!("{lf}\n\n\n")] {
            assert_eq!(Description::parse(&text), Ok(expected.clone()), "{}", sample.name);
        }
    }
}

#[test]
fn no_password_is_printed() {
    for sample in [CHROME_OFFER, LINPHONE_ANSWER] {
        let printed = format!("{:?}", sample.parse());
        for secret in ["v1DqWY", "4a1c6dc1", "inline"] {
            assert!(!printed.contains(secret), "{printed}");
        }
        assert!(printed.contains("audio"), "{printed}");
    }
}
