//! Sessions that are made of descriptions: both sides are told a leg in place of each other (RFC 3264, RFC 8839).

use std::net::SocketAddr;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::media::{
    Choice, LegKind, NegotiationError, Offer, OpenError, RemoteError, SessionId, SessionState, Side, Terms,
};
use hairpin_proto::sdp::{Description, Media};

use crate::harness::{At, Bed, ICE, LATCHING, MEDIA, PLAIN, PUBLIC_V4, REMOTE, STRICT, socket};

impl Bed {
    /// Makes a session of an offer. With what the other side is offered.
    pub(crate) fn offer(&mut self, offer: &Offer) -> Result<(SessionId, String), NegotiationError> {
        let before = self.ports.open.clone();
        let offered = self.sessions.offer(self.now, offer, &mut self.ports);
        match &offered {
            Ok((id, _)) => {
                self.learn_paths(*id);
                self.drain();
            }
            Err(_) => self.nothing_is_left(&before),
        }
        offered
    }

    /// Another offer of a side.
    pub(crate) fn reoffer(&mut self, at: At, offer: &str) -> Result<String, NegotiationError> {
        let before = (self.ports.open.clone(), self.sessions.describe(at.id));
        let offer = Description::parse(offer).unwrap();
        let offered = self.sessions.reoffer(self.now, at.id, at.side, &offer, &mut self.ports);
        if offered.is_ok() {
            self.learn_paths(at.id);
            self.drain();
        } else {
            self.nothing_is_left(&before.0);
            assert_eq!(self.sessions.describe(at.id), before.1, "what failed has changed something");
        }
        offered
    }

    /// The answer of a side.
    pub(crate) fn answer(&mut self, at: At, answer: &str) -> Result<String, NegotiationError> {
        let before = self.sessions.describe(at.id);
        let answered = self.sessions.answer(self.now, at.id, at.side, &Description::parse(answer).unwrap());
        if answered.is_err() {
            assert_eq!(self.sessions.describe(at.id), before, "what failed has changed something");
        }
        self.drain();
        answered
    }
}

/// A description of these sections, each without its credentials.
pub(crate) fn description(session: &str, sections: &[String]) -> String {
    format!("v=0\no=- 1 1 IN IP4 8.8.8.8\ns=-\nc=IN IP4 8.8.8.8\nt=0 0\n{session}{}", sections.concat())
}

pub(crate) fn section(mid: &str, port: u16, attributes: &str) -> String {
    let kind = if mid.starts_with('v') { "video" } else { "audio" };
    format!("m={kind} {port} RTP/AVP 96\na=mid:{mid}\n{attributes}")
}

/// Credentials of the side that has them.
pub(crate) fn ice(ufrag: &str) -> String {
    format!("a=ice-ufrag:{ufrag}\na=ice-pwd:password/of/the/side+{ufrag}\na=rtcp-mux\n")
}

pub(crate) fn offer(text: &str, to: LegKind) -> Offer {
    Offer {
        description: Description::parse(text).unwrap(),
        to,
        latch: false,
        label: "a call".to_owned(),
        choice: vec![AddressFamily::V4].into(),
        terms: Terms::default(),
    }
}

fn first_of(text: &str) -> Media {
    Description::parse(text).unwrap().media()[0].clone()
}

/// Somebody without ICE calls a browser: RTP and RTCP have two ports.
pub(crate) fn plain_calls_ice(bed: &mut Bed) -> (SessionId, Description) {
    let text = description("", &[section("a", 4000, "")]);
    let (id, offered) = bed.offer(&offer(&text, ICE)).unwrap();
    (id, Description::parse(&offered).unwrap())
}

/// A browser calls somebody with ICE, by a bundle of two sections.
pub(crate) fn bundle(bed: &mut Bed) -> SessionId {
    let sections = [section("a", 9, &ice("caller")), section("v", 9, &ice("caller"))];
    bed.offer(&offer(&description("a=group:BUNDLE a v\n", &sections), ICE)).unwrap().0
}

#[test]
fn an_offer_without_ice_becomes_one_of_a_lite_agent() {
    let mut bed = Bed::default();
    let (id, offered) = plain_calls_ice(&mut bed);
    let info = bed.describe(id);
    assert_eq!(info.legs.each_ref().map(|leg| leg.kind), [STRICT, ICE]);
    assert_eq!((info.label.as_str(), info.streams.len()), ("a call", 1));
    let media = &offered.media()[0];
    assert!(offered.is_lite());
    assert_eq!(media.parameters, info.legs[1].parameters);
    let [rtp, rtcp] = [0, 1].map(|path| bed.local(At { path, ..At::b(id) }));
    assert_eq!((media.address, media.rtcp), (Some(rtp), Some(rtcp)), "the default destination");
    let told: Vec<_> = media.candidates.iter().filter_map(|one| one.usable().map(|at| (one.component, at))).collect();
    assert_eq!(told, [(1, rtp), (2, rtcp)], "which is a candidate, for RTCP too");
    assert!(media.end_of_candidates());
}

#[test]
fn the_answer_says_where_the_session_is_to_who_has_offered() {
    let mut bed = Bed::default();
    let (id, _) = plain_calls_ice(&mut bed);
    let answer = description("", &[section("a", 9, &ice("callee"))]);
    let answered = bed.answer(At::b(id), &answer).unwrap();
    assert!(!answered.contains("ice-") && !answered.contains("candidate"), "{answered}");
    let media = first_of(&answered);
    assert_eq!(media.address, Some(bed.local(At::a(id))));
    assert_eq!(bed.describe(id).streams[0].paths.len(), 1, "RTCP goes with RTP now");
    assert_eq!(bed.ports.open.len(), 2);
    let agent = bed.agent(At::b(id));
    bed.succeeds(At::b(id), REMOTE, &agent.nomination());
    assert_eq!(bed.arrives(At::a(id), PLAIN, MEDIA).target(), Some(socket(REMOTE)));
    assert_eq!(bed.arrives(At::b(id), REMOTE, MEDIA).target(), Some(socket(PLAIN)));
}

#[test]
fn an_offer_of_ice_becomes_a_plain_one() {
    let mut bed = Bed::default();
    let text = description("", &[section("a", 9, &ice("caller").replace("a=rtcp-mux\n", ""))]);
    let (id, offered) = bed.offer(&offer(&text, LATCHING)).unwrap();
    assert!(!offered.contains("ice-") && !offered.contains("candidate"), "{offered}");
    let media = first_of(&offered);
    let [rtp, rtcp] = [0, 1].map(|path| bed.local(At { path, ..At::b(id) }));
    assert_eq!((media.address, media.rtcp), (Some(rtp), Some(rtcp)));
    assert_eq!(bed.describe(id).legs[0].remote.as_ref().map(|remote| remote.ufrag.as_str()), Some("caller"));

    let answered = bed.answer(At::b(id), &description("", &[section("a", 4000, "a=rtcp:5555\n")])).unwrap();
    let selected = |path| bed.path(At { path, ..At::b(id) }).ends[1].selected.map(|selected| selected.remote);
    assert_eq!([0, 1].map(selected), ["8.8.8.8:4000", "8.8.8.8:5555"].map(|remote| Some(socket(remote))));
    let media = first_of(&answered);
    assert_eq!(media.parameters, bed.describe(id).legs[0].parameters);
    assert_eq!(media.candidates.len(), 2);
}

#[test]
fn a_default_destination_that_nobody_is_at_is_no_failure_of_ice() {
    let mut bed = Bed::default();
    let text = description("", &[section("a", 9, &ice("caller"))]).replace("8.8.8.8", "0.0.0.0");
    let (id, _) = bed.offer(&offer(&text, ICE)).unwrap();
    bed.answer(At::b(id), &text.replace("caller", "callee")).unwrap();
    for at in [At::a(id), At::b(id)] {
        let agent = bed.agent(at);
        bed.succeeds(at, REMOTE, &agent.nomination());
    }
    assert_eq!(bed.state(id), SessionState::Connected);
}

#[test]
fn each_section_has_a_stream_until_a_bundle_is_agreed_on() {
    let mut bed = Bed::default();
    let id = bundle(&mut bed);
    let names: Vec<_> = bed.describe(id).streams.iter().map(|stream| stream.name.clone()).collect();
    assert_eq!(names, ["a", "v"]);
    assert_eq!(bed.ports.open.len(), 8, "two components, as nobody has agreed to less");
    let sections = [section("a", 9, &ice("callee")), section("v", 9, &ice("callee"))];
    let answered = bed.answer(At::b(id), &description("a=group:BUNDLE a v\n", &sections)).unwrap();
    assert_eq!((bed.describe(id).streams.len(), bed.ports.open.len()), (1, 2));
    let answered = Description::parse(&answered).unwrap();
    assert_eq!(answered.media()[0].address, Some(bed.local(At::a(id))));
    assert_eq!(answered.media()[1].address, answered.media()[0].address);
    assert_eq!(answered.media()[1].parameters, answered.media()[0].parameters);
}

#[test]
fn an_answer_without_the_bundle_keeps_all_streams() {
    let mut bed = Bed::default();
    let id = bundle(&mut bed);
    let sections = [section("a", 9, &ice("callee")), section("v", 9, &ice("callee"))];
    bed.answer(At::b(id), &description("", &sections)).unwrap();
    assert_eq!((bed.describe(id).streams.len(), bed.ports.open.len()), (2, 4));
}

#[test]
fn a_section_that_is_rejected_has_no_stream_and_no_candidates() {
    let mut bed = Bed::default();
    let id = bundle(&mut bed);
    let sections = [section("a", 9, &ice("callee")), section("v", 0, "")];
    let answered = bed.answer(At::b(id), &description("a=group:BUNDLE a\n", &sections)).unwrap();
    assert_eq!((bed.describe(id).streams.len(), bed.ports.open.len()), (1, 2));
    let answered = Description::parse(&answered).unwrap();
    assert!(!answered.media()[1].is_active() && answered.media()[1].candidates.is_empty());
    assert!(answered.media()[1].parameters.is_none());
}

#[test]
fn a_section_that_was_offered_as_rejected_is_not_answered_to_anything_else() {
    let mut bed = Bed::default();
    let text = description("", &[section("a", 9, &ice("caller")), section("v", 0, "")]);
    let (id, _) = bed.offer(&offer(&text, ICE)).unwrap();
    let answer = description("", &[section("a", 9, &ice("callee")), section("v", 9, &ice("callee"))]);
    let answered = Description::parse(&bed.answer(At::b(id), &answer).unwrap()).unwrap();
    assert!(answered.media()[0].is_active() && !answered.media()[1].is_active());
    assert_eq!(bed.describe(id).streams.len(), 1);
}

#[test]
fn a_section_on_hold_is_told_of_like_any_other() {
    let mut bed = Bed::default();
    let text = description("", &[section("a", 4000, "a=inactive\n")]);
    let (_, offered) = bed.offer(&offer(&text, ICE)).unwrap();
    assert!(offered.contains("a=inactive"), "{offered}");
    let media = first_of(&offered);
    assert!(media.parameters.is_some() && media.candidates.len() == 2, "{offered}");
}

#[test]
fn a_later_offer_says_what_the_first_said() {
    let mut bed = Bed::default();
    let (id, first) = plain_calls_ice(&mut bed);
    bed.answer(At::b(id), &description("", &[section("a", 9, &ice("callee").replace("a=rtcp-mux\n", ""))])).unwrap();
    let again = bed.reoffer(At::a(id), &description("", &[section("a", 4002, "")])).unwrap();
    let again = Description::parse(&again).unwrap();
    assert_eq!(again.media()[0].parameters, first.media()[0].parameters, "no restart");
    assert_eq!(again.media()[0].candidates, first.media()[0].candidates);
    assert_eq!(again.media()[0].address, first.media()[0].address);
    assert!(again.is_lite());
}

#[test]
fn an_answer_may_come_twice_and_from_whoever_was_offered_something() {
    let mut bed = Bed::default();
    let (id, _) = plain_calls_ice(&mut bed);
    let answer = description("", &[section("a", 9, &ice("callee"))]);
    let first = bed.answer(At::b(id), &answer).unwrap();
    assert_eq!(bed.answer(At::b(id), &answer).unwrap(), first, "as with a provisional response before the final one");
    assert_eq!(bed.answer(At::a(id), &answer), Err(NegotiationError::OwnOffer));
    bed.reoffer(At::b(id), &answer).unwrap();
    assert_eq!(bed.answer(At::b(id), &answer), Err(NegotiationError::OwnOffer));
}

#[test]
fn an_answer_has_as_many_sections_as_its_offer_and_a_later_offer_no_fewer() {
    let mut bed = Bed::default();
    let id = bundle(&mut bed);
    for sections in [vec![section("a", 9, &ice("callee"))], vec![section("a", 9, &ice("callee")); 3]] {
        let (found, expected) = (sections.len(), 2);
        let wrong = Err(NegotiationError::Sections { found, expected });
        assert_eq!(bed.answer(At::b(id), &description("", &sections)), wrong);
        if found < expected {
            assert_eq!(bed.reoffer(At::b(id), &description("", &sections)), wrong);
        }
    }
}

#[test]
fn what_was_agreed_to_share_a_port_cannot_go_back() {
    let mut bed = Bed::default();
    let (id, _) = plain_calls_ice(&mut bed);
    let mux = |muxed: bool| {
        let ice = ice("callee");
        description("", &[section("a", 9, if muxed { &ice } else { ice.trim_end_matches("a=rtcp-mux\n") })])
    };
    bed.answer(At::b(id), &mux(true)).unwrap();
    assert_eq!(bed.answer(At::b(id), &mux(false)), Err(NegotiationError::Unmuxed(1)));

    let id = bundle(&mut bed);
    let sections = [section("a", 9, &ice("callee")), section("v", 9, &ice("callee"))];
    bed.answer(At::b(id), &description("a=group:BUNDLE a v\n", &sections)).unwrap();
    assert_eq!(bed.answer(At::b(id), &description("", &sections)), Err(NegotiationError::Unbundled(2)));
}

#[test]
fn of_an_offer_that_cannot_be_nothing_is_left() {
    let mut bed = Bed::default();
    let text = description("", &[section("a", 4000, "")]).replace("8.8.8.8", "10.0.0.1");
    let forbidden = bed.offer(&offer(&text, ICE)).map(drop);
    let at: SocketAddr = socket("10.0.0.1:4000");
    assert_eq!(forbidden, Err(NegotiationError::Remote(RemoteError::Forbidden(at))));
    bed.ports.left = Some(3);
    let text = description("", &[section("a", 4000, "")]);
    assert_eq!(bed.offer(&offer(&text, ICE)).map(drop), Err(NegotiationError::Open(OpenError::NoSocket)));
    assert!(bed.sessions.is_empty() && bed.ports.open.is_empty());
    assert_eq!(bed.sessions.poll_timeout(), None);
}

#[test]
fn where_a_later_offer_cannot_be_everything_stays() {
    let mut bed = Bed::default();
    let (id, _) = plain_calls_ice(&mut bed);
    let two = [section("a", 4000, ""), section("v", 4004, "")];
    bed.ports.left = Some(3);
    let none = Err(NegotiationError::Open(OpenError::NoSocket));
    assert_eq!(bed.reoffer(At::a(id), &description("", &two)), none);
    bed.ports.left = None;
    let forbidden = description("", &two).replace("8.8.8.8", "10.0.0.1");
    let at = socket("10.0.0.1:4000");
    assert_eq!(bed.reoffer(At::a(id), &forbidden), Err(NegotiationError::Remote(RemoteError::Forbidden(at))));
    assert_eq!(bed.describe(id).streams.len(), 1);
    bed.reoffer(At::a(id), &description("", &two)).unwrap();
}

#[test]
fn who_latches_need_not_be_where_it_says() {
    let mut bed = Bed::default();
    let text = description("", &[section("a", 4000, "a=rtcp-mux\n")]).replace("8.8.8.8", "10.0.0.1");
    let (id, _) = bed.offer(&Offer { latch: true, ..offer(&text, ICE) }).unwrap();
    assert_eq!(bed.describe(id).legs[0].kind, LATCHING);
    bed.answer(At::b(id), &description("", &[section("a", 9, &ice("callee"))])).unwrap();
    let agent = bed.agent(At::b(id));
    bed.succeeds(At::b(id), REMOTE, &agent.nomination());
    assert_eq!(bed.arrives(At::a(id), "9.9.9.9:1234", MEDIA).target(), Some(socket(REMOTE)));
}

#[test]
fn an_answer_without_ice_has_the_leg_be_plain() {
    let mut bed = Bed::default();
    let (id, _) = plain_calls_ice(&mut bed);
    bed.answer(At::b(id), &description("", &[section("a", 4004, "")])).unwrap();
    assert_eq!(bed.describe(id).legs[1].kind, STRICT);
    assert_eq!(bed.arrives(At::a(id), PLAIN, MEDIA).target(), Some(socket("8.8.8.8:4004")));
}

#[test]
fn a_lite_agent_is_known_by_its_description() {
    let mut bed = Bed::default();
    let candidate = "a=candidate:1 1 UDP 2130706431 9.9.9.9 4444 typ host\n";
    let text = description("a=ice-lite\n", &[section("a", 4444, &(ice("caller") + candidate))]);
    let (id, _) = bed.offer(&offer(&text, ICE)).unwrap();
    assert!(bed.describe(id).legs[0].remote_is_lite);
    let selected = bed.path(At::a(id)).ends[0].selected.map(|selected| selected.remote);
    assert_eq!(selected, Some(socket("9.9.9.9:4444")));
}

#[test]
fn the_default_is_the_address_that_is_in_use_or_else_one_of_ipv4() {
    let mut bed = Bed::default();
    let text = description("", &[section("a", 4000, "a=rtcp-mux\n")]);
    let (id, offered) = bed.offer(&Offer { choice: Choice::default(), ..offer(&text, ICE) }).unwrap();
    let of = |text: &str| first_of(text).address.unwrap();
    assert_eq!(of(&offered).ip().to_string(), PUBLIC_V4);
    bed.answer(At::b(id), &description("", &[section("a", 9, &ice("callee"))])).unwrap();
    let agent = bed.agent(At::b(id));
    bed.succeeds(At::b(id), "[2001:db8:7::7]:40000", &agent.nomination());
    let again = bed.reoffer(At::a(id), &text).unwrap();
    assert_eq!(of(&again), bed.local(At::b(id)), "the remote has chosen that of IPv6");
}

#[test]
fn a_session_that_was_not_made_of_an_offer_is_not_negotiated() {
    let mut bed = Bed::default();
    let (id, _) = bed.waiting();
    let text = description("", &[section("a", 9, &ice("caller"))]);
    assert_eq!(bed.reoffer(At::a(id), &text), Err(NegotiationError::NotOffered));
    assert_eq!(bed.answer(At::a(id), &text), Err(NegotiationError::NotOffered));
    let described = |bed: &mut Bed, text: &str| {
        let description = Description::parse(text).unwrap();
        let told = bed.sessions.set_described(bed.now, id, Side::A, &description);
        bed.drain();
        told
    };
    assert_eq!(described(&mut bed, &text), Ok(()), "but it may be told who is there");
    assert_eq!(bed.describe(id).legs[0].remote.as_ref().map(|remote| remote.ufrag.as_str()), Some("caller"));
    let two = description("", &[section("a", 9, &ice("caller")), section("v", 9, "")]);
    assert_eq!(described(&mut bed, &two), Err(NegotiationError::Sections { found: 2, expected: 1 }));
    bed.close(id);
    assert_eq!(described(&mut bed, &text), Err(NegotiationError::NoSession));
    assert_eq!(bed.reoffer(At::a(id), &text), Err(NegotiationError::NoSession));
    assert_eq!(bed.answer(At::a(id), &text), Err(NegotiationError::NoSession));
}

#[test]
fn streams_have_names_of_their_own_whatever_sections_are_called() {
    let mut bed = Bed::default();
    let nameless = section("0", 4002, "").replace("a=mid:0\n", "");
    let same = [section("audio-1", 4000, ""), nameless.clone(), section("audio-1", 4004, "")];
    let (id, _) = bed.offer(&offer(&description("", &same), STRICT)).unwrap();
    let names = |bed: &Bed| bed.describe(id).streams.iter().map(|stream| stream.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&bed), ["audio-1", "audio-1-2", "audio-1-3"]);
    let all = [section("x", 4000, ""), nameless, section("y", 4004, ""), section("audio-1", 4006, "")];
    bed.answer(At::b(id), &description("", &same)).unwrap();
    let told = bed.reoffer(At::a(id), &description("", &all)).unwrap();
    let ports: std::collections::BTreeSet<_> =
        Description::parse(&told).unwrap().media().iter().map(|media| media.port).collect();
    assert_eq!(ports.len(), 4, "another section is another stream, whatever its name: {told}");
    assert_eq!(names(&bed).len(), 4);
}

#[test]
fn an_offer_whose_sections_all_lean_on_others_is_none() {
    let mut bed = Bed::default();
    let text = description("a=group:BUNDLE a\n", &[section("a", 0, "a=bundle-only\n")]);
    assert_eq!(bed.offer(&offer(&text, ICE)).unwrap_err(), NegotiationError::NoTransport);
    assert_eq!(bed.sessions.created(), 0);
}

#[test]
fn an_answer_without_ice_latches_if_that_was_said_of_the_session_or_of_the_leg() {
    let text = description("", &[section("a", 4000, "a=rtcp-mux\n")]);
    for (latch, to) in [(true, ICE), (false, LATCHING)] {
        let mut bed = Bed::default();
        let (id, _) = bed.offer(&Offer { latch, ..offer(&text, to) }).unwrap();
        bed.answer(At::b(id), &text.replace("c=IN IP4 8.8.8.8", "c=IN IP4 10.0.0.1")).unwrap();
        assert_eq!(bed.describe(id).legs[1].kind, LATCHING);
        assert_eq!(bed.arrives(At::b(id), "9.9.9.9:1234", MEDIA).target(), Some(socket(PLAIN)));
        assert_eq!(bed.arrives(At::a(id), PLAIN, MEDIA).target(), Some(socket("9.9.9.9:1234")));
    }
}

#[test]
fn what_is_no_rtp_has_one_port_and_is_answered_as_often_as_anything_else() {
    let mut bed = Bed::default();
    let fax = "m=image 4000 udptl t38\na=T38FaxVersion:0\n".to_owned();
    let channel = format!("m=application 4002 UDP/DTLS/SCTP webrtc-datachannel\n{}", ice("peer"));
    let text = description("", &[fax, channel.replace("a=rtcp-mux\n", "")]);
    let (id, _) = bed.offer(&offer(&text, ICE)).unwrap();
    assert_eq!(bed.ports.open.len(), 4);
    let first = bed.answer(At::b(id), &text).unwrap();
    assert_eq!(bed.answer(At::b(id), &text), Ok(first));
    bed.reoffer(At::b(id), &text).unwrap();
    bed.answer(At::a(id), &text).unwrap();
    assert_eq!(bed.ports.open.len(), 4);
}

#[test]
fn a_description_of_a_leg_has_a_section_for_each_stream() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, STRICT]);
    bed.add_stream(id, "video", 1).unwrap();
    let before = bed.describe(id);
    for found in [1, 3] {
        let sections = vec![section("a", 9, &ice("caller")); found];
        let description = Description::parse(&description("", &sections)).unwrap();
        let described = bed.sessions.set_described(bed.now, id, Side::A, &description);
        assert_eq!(described, Err(NegotiationError::Sections { found, expected: 2 }));
        assert_eq!(bed.describe(id), before);
    }
}

#[test]
fn an_agent_has_no_more_candidates_when_no_section_has() {
    for (video, is_end) in [("", false), ("a=end-of-candidates\n", true)] {
        let mut bed = Bed::default();
        let audio = ice("caller") + "a=end-of-candidates\n";
        let sections = [section("a", 9, &audio), section("v", 9, &(ice("caller") + video))];
        let (id, _) = bed.offer(&offer(&description("", &sections), ICE)).unwrap();
        assert_eq!(bed.describe(id).legs[0].end_of_candidates, is_end);
    }
}

#[test]
fn a_stream_is_named_by_its_section_unless_that_is_too_long_a_name() {
    let mut bed = Bed::default();
    let [name, too_long] = [64, 65].map(|length| "x".repeat(length));
    let sections = [section(&name, 4000, ""), section(&too_long, 4002, "")];
    let (id, _) = bed.offer(&offer(&description("", &sections), STRICT)).unwrap();
    let names: Vec<_> = bed.describe(id).streams.into_iter().map(|stream| stream.name).collect();
    assert_eq!(names, [name, "audio-1".to_owned()]);
}
