//! What is refused, and what is said about it.

use hairpin_proto::ice::{Misshape, ParametersError};
use hairpin_proto::sdp::{Description, Problem, SdpError};

use crate::samples::{ALL, CHROME_OFFER};

fn refused(text: &str) -> (usize, Problem) {
    let SdpError { line, problem } = Description::parse(text).expect_err(text);
    (line, problem)
}

/// A description of which line 4 is this.
fn with(line: &str) -> String {
    format!("v=0\r\ns=-\r\nm=audio 9 RTP/AVP 0\r\n{line}\r\na=sendrecv\r\n")
}

#[test]
fn a_description_begins_with_its_version_and_describes_something() {
    for text in ["", "\r\n", "s=-\nm=audio 9 RTP/AVP 0\n", "v=1\nm=audio 9 RTP/AVP 0\n", " v=0\nm=audio 9 RTP/AVP 0\n"]
    {
        assert_eq!(refused(text), (1, Problem::Version), "{text:?}");
    }
    assert_eq!(refused("v=0"), (1, Problem::NoMedia));
    assert_eq!(refused("v=0\ns=-\nc=IN IP4 198.51.100.1\n\n\n"), (3, Problem::NoMedia));
}

#[test]
fn what_is_no_line_is_shown() {
    for line in ["", "nonsense", "a =sendrecv", " a=sendrecv", "=", "ä=1", "1=2"] {
        assert_eq!(refused(&with(line)), (4, Problem::Shape(line.to_owned())), "{line:?}");
    }
    let long = "x".repeat(1000);
    assert_eq!(refused(&with(&long)), (4, Problem::Shape("x".repeat(64))), "and cut");
}

#[test]
fn what_others_may_take_for_the_end_of_a_line_is_not_let_through() {
    assert_eq!(refused(&with("a=x\0")), (4, Problem::Character('\0')));
    assert_eq!(refused(&with("a=x\ra=candidate:1")), (4, Problem::Character('\r')));
    assert_eq!(refused(&with("a=x\r")), (4, Problem::Character('\r')));
}

#[test]
fn a_line_has_a_length() {
    let longest = format!("a={}", "x".repeat(8190));
    assert!(Description::parse(&with(&longest)).is_ok());
    assert_eq!(refused(&with(&format!("{longest}x"))), (4, Problem::LineLength(8193)));
}

#[test]
fn a_description_has_a_length() {
    let mut text = "v=0\nm=audio 9 RTP/AVP 0\n".to_owned();
    while text.len() < 65_536 {
        let room = 65_536 - text.len();
        text.extend(["a=", &"x".repeat(room.min(1000) - 3), "\n"]);
    }
    assert_eq!(text.len(), 65_536);
    assert!(Description::parse(&text).is_ok());
    let last = text.lines().count();
    text.insert(text.len() - 1, 'x');
    assert_eq!(refused(&text), (last, Problem::Length(65_537)));
}

#[test]
fn there_are_so_many_sections_and_candidates_and_no_more() {
    let sections = |count| format!("v=0\n{}", "m=audio 9 RTP/AVP 0\n".repeat(count));
    assert_eq!(Description::parse(&sections(64)).unwrap().media().len(), 64);
    assert_eq!(refused(&sections(65)), (66, Problem::Media));

    let readable = "a=candidate:1 1 UDP 1 198.51.100.1 4000 typ host\n".repeat(100);
    let section = |unreadable| format!("m=audio 9 RTP/AVP 0\n{readable}{}", "a=candidate:\n".repeat(unreadable));
    let both = format!("v=0\n{}{}", section(28), section(28));
    let both = Description::parse(&both).unwrap();
    assert!(both.media().iter().all(|media| (media.candidates.len(), media.ignored_candidates) == (100, 28)));
    assert_eq!(refused(&format!("v=0\n{}", section(29))), (131, Problem::Candidates));
}

#[test]
fn a_media_section_has_a_port_and_a_protocol() {
    for line in ["m=", "m=audio", "m=audio 9", "m=audio 9 "] {
        assert_eq!(refused(&with(line)), (4, Problem::MediaLine(line.to_owned())), "{line:?}");
    }
    for port in ["65536", "-1", "+9", "x", "9/", "/9", "9/x", "9/2/2"] {
        assert_eq!(refused(&with(&format!("m=audio {port} RTP/AVP 0"))), (4, Problem::Port(port.to_owned())));
    }
}

#[test]
fn what_says_no_address_is_not_taken_for_one() {
    for value in ["", "IN", "IN IP4", "198.51.100.1"] {
        assert_eq!(refused(&with(&format!("c={value}"))), (4, Problem::Connection(value.to_owned())));
        assert_eq!(
            refused(&format!("v=0\nc={value}\nm=audio 9 RTP/AVP 0")),
            (2, Problem::Connection(value.to_owned()))
        );
    }
    for value in ["", "x", "65536", "+1", "5001 IN", "5001 198.51.100.1"] {
        assert_eq!(refused(&with(&format!("a=rtcp:{value}"))), (4, Problem::Rtcp(value.to_owned())));
    }
}

#[test]
fn wrong_credentials_of_ice_are_told_with_their_line_and_not_shown() {
    for (line, problem) in [
        ("a=ice-ufrag:abc", ParametersError::Ufrag(Misshape::Length(3))),
        ("a=ice-ufrag", ParametersError::Ufrag(Misshape::Length(0))),
        ("a=ice-ufrag:ab cd", ParametersError::Ufrag(Misshape::Character(3))),
        ("a=ice-pwd:secretsecret", ParametersError::Pwd(Misshape::Length(12))),
    ] {
        let text = with(line);
        let error = Description::parse(&text).unwrap_err();
        assert_eq!((error.line, &error.problem), (4, &Problem::Parameters(problem)), "{line}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        let of_session = format!("v=0\n{line}\nm=audio 9 RTP/AVP 0");
        assert_eq!(refused(&of_session).0, 2, "{line}");
    }
}

#[test]
fn one_credential_of_ice_needs_the_other() {
    let (ufrag, pwd) = ("a=ice-ufrag:abcd", "a=ice-pwd:0123456789abcdefghijkl");
    let alone = |present, missing| Problem::Alone { present, missing };
    assert_eq!(refused(&with(ufrag)), (4, alone("ice-ufrag", "ice-pwd")));
    assert_eq!(refused(&with(pwd)), (4, alone("ice-pwd", "ice-ufrag")));
    assert!(Description::parse(&format!("v=0\n{pwd}\nm=audio 9 RTP/AVP 0\n{ufrag}\n")).is_ok(), "of two levels");
}

#[test]
fn an_error_says_where_and_what_is_allowed() {
    let text = CHROME_OFFER.before().replace("a=ice-ufrag:zL4k", "a=ice-ufrag:z");
    let error = Description::parse(&text).unwrap_err().to_string();
    assert_eq!(
        error,
        "line 14 of the description: an ice-ufrag has 4 to 256 of the characters A-Z, a-z, 0-9, + and /: this one has 1"
    );
}

#[test]
fn a_description_that_ends_anywhere_is_read_or_refused_where_it_ends() {
    for sample in ALL {
        let text = sample.before();
        for end in 0..text.len() {
            let Err(error) = Description::parse(&text[..end]) else { continue };
            // The first of two credentials may be there without the other.
            let alone = matches!(error.problem, Problem::Alone { .. });
            let last = text[..end].lines().count().max(1);
            assert!(error.line == last || alone && error.line < last, "{}, cut at {end}: {error}", sample.name);
        }
    }
}
