//! Later offers: nothing of one is in force before its answer (RFC 3264 section 8).

use hairpin_proto::media::{NegotiationError, Offer, RemoteError, SessionId};
use hairpin_proto::sdp::{Description, Media};

use crate::harness::{At, Bed, ICE, LATCHING, MEDIA, REMOTE, STRICT, socket};
use crate::offers::{bundle, description, ice, offer, plain_calls_ice, section};

const CALLEE: &str = "9.9.9.9:5000";

/// Two without ICE, that are told to be at these ports.
fn plain_calls_plain(bed: &mut Bed) -> SessionId {
    let (id, _) = bed.offer(&offer(&caller(4000), STRICT)).unwrap();
    bed.answer(At::b(id), &callee()).unwrap();
    id
}

fn caller(port: u16) -> String {
    description("", &[section("a", port, "a=rtcp-mux\n")])
}

fn callee() -> String {
    description("", &[section("a", 5000, "c=IN IP4 9.9.9.9\na=rtcp-mux\n")])
}

/// Where media of the callee goes.
fn goes_to(bed: &mut Bed, id: SessionId) -> Option<std::net::SocketAddr> {
    bed.arrives(At::b(id), CALLEE, MEDIA).target()
}

fn told(text: &str) -> Vec<Media> {
    Description::parse(text).unwrap().media().to_vec()
}

#[test]
fn where_a_side_says_it_is_holds_when_it_has_been_answered() {
    let mut bed = Bed::default();
    let id = plain_calls_plain(&mut bed);
    let first = Some(socket("8.8.8.8:4000"));
    assert_eq!(goes_to(&mut bed, id), first);
    let before = bed.describe(id);
    bed.reoffer(At::a(id), &caller(4002)).unwrap();
    assert_eq!(bed.describe(id), before, "it is offered, and nothing more");
    assert_eq!(goes_to(&mut bed, id), first);
    bed.answer(At::b(id), &callee()).unwrap();
    assert_eq!(goes_to(&mut bed, id), Some(socket("8.8.8.8:4002")));
    bed.answer(At::b(id), &callee()).unwrap();
    assert_eq!(goes_to(&mut bed, id), Some(socket("8.8.8.8:4002")), "the final answer says it again");
}

#[test]
fn what_was_rejected_the_next_offer_replaces() {
    let mut bed = Bed::default();
    let id = plain_calls_plain(&mut bed);
    let sockets = bed.ports.open.clone();
    let with = |video: u16| description("", &[section("a", 4006, "a=rtcp-mux\n"), section("v", video, "")]);
    bed.reoffer(At::a(id), &with(4008)).unwrap();
    assert_eq!(bed.ports.open.len(), sockets.len() + 4, "what is offered is there");
    // The callee had no use for it, and offers something itself.
    bed.reoffer(At::b(id), &callee()).unwrap();
    assert_eq!(bed.ports.open, sockets, "what nobody wants is gone");
    assert_eq!(bed.answer(At::b(id), &callee()), Err(NegotiationError::OwnOffer));
    bed.answer(At::a(id), &caller(4002)).unwrap();
    assert_eq!(goes_to(&mut bed, id), Some(socket("8.8.8.8:4002")));
    assert_eq!(bed.describe(id).streams.len(), 1);
}

#[test]
fn the_same_offer_again_is_told_the_same() {
    let mut bed = Bed::default();
    let id = plain_calls_plain(&mut bed);
    let two = description("", &[section("a", 4000, ""), section("v", 4008, "")]);
    let first = bed.reoffer(At::a(id), &two).unwrap();
    assert_eq!(bed.reoffer(At::a(id), &two).unwrap(), first, "as after a challenge for credentials");
    assert_eq!(bed.ports.open.len(), 8);
    bed.reoffer(At::a(id), &caller(4000)).unwrap();
    assert_eq!(bed.ports.open.len(), 4, "the second component is still offered");
    bed.answer(At::b(id), &callee()).unwrap();
    assert_eq!(bed.ports.open.len(), 2);
}

#[test]
fn one_that_cannot_be_leaves_the_one_before_it_to_be_answered() {
    let mut bed = Bed::default();
    let id = plain_calls_plain(&mut bed);
    let two = description("", &[section("a", 4002, "a=rtcp-mux\n"), section("v", 4008, "a=rtcp-mux\n")]);
    bed.reoffer(At::a(id), &two).unwrap();
    let forbidden = two.replace("c=IN IP4 8.8.8.8", "c=IN IP4 10.0.0.1");
    let error = bed.reoffer(At::a(id), &forbidden).unwrap_err();
    assert_eq!(error, NegotiationError::Remote(RemoteError::Forbidden(socket("10.0.0.1:4002"))));
    bed.ports.left = Some(2);
    let three = format!("{two}{}", section("w", 4010, ""));
    assert!(matches!(bed.reoffer(At::b(id), &three), Err(NegotiationError::Open(_))));
    let answer = format!("{}{}", callee(), section("v", 5002, "a=rtcp-mux\n"));
    bed.answer(At::b(id), &answer).unwrap();
    assert_eq!(goes_to(&mut bed, id), Some(socket("8.8.8.8:4002")));
    assert_eq!(bed.describe(id).streams.len(), 2);
}

#[test]
fn new_rules_may_forbid_what_was_offered_before_it_is_answered() {
    let mut bed = Bed::default();
    let id = plain_calls_plain(&mut bed);
    bed.reoffer(At::a(id), &caller(4002).replace("c=IN IP4 8.8.8.8", "c=IN IP4 8.8.4.4")).unwrap();
    let mut settings = crate::harness::settings();
    settings.peer_policy.deny("8.8.4.4/32".parse().unwrap());
    bed.sessions.reconfigure(bed.now.instant, settings);
    bed.drain();
    let forbidden = RemoteError::Forbidden(socket("8.8.4.4:4002"));
    assert_eq!(bed.answer(At::b(id), &callee()), Err(NegotiationError::Remote(forbidden)));
    assert_eq!(goes_to(&mut bed, id), Some(socket("8.8.8.8:4000")), "and all stays as it was");
}

#[test]
fn rtcp_that_came_with_rtp_may_go_apart_again() {
    let mut bed = Bed::default();
    let id = plain_calls_plain(&mut bed);
    assert_eq!(bed.path(At::a(id)).component, 1);
    let apart = description("", &[section("a", 4000, "")]);
    let offered = bed.reoffer(At::a(id), &apart).unwrap();
    let rtcp = bed.local(At { path: 1, ..At::b(id) });
    assert_eq!(told(&offered)[0].rtcp, Some(rtcp));
    assert_ne!(told(&offered)[0].address, Some(rtcp));
    bed.answer(At::b(id), &callee().replace("a=rtcp-mux\n", "")).unwrap();
    let second = |side: At| At { path: 1, ..side };
    let got = bed.arrives(second(At::b(id)), "9.9.9.9:5001", MEDIA);
    assert_eq!(got.target(), Some(socket("8.8.8.8:4001")));

    // Together, and apart again; and this time the other side does not want that.
    bed.reoffer(At::a(id), &caller(4000)).unwrap();
    bed.answer(At::b(id), &callee()).unwrap();
    assert_eq!(bed.ports.open.len(), 2);
    bed.reoffer(At::a(id), &apart.replace("a=mid", "a=rtcp-mux\na=rtcp:4001\na=mid")).unwrap();
    assert_eq!(bed.ports.open.len(), 2, "it is as it was");
    bed.reoffer(At::a(id), &apart).unwrap();
    assert_eq!(bed.ports.open.len(), 4);
    bed.answer(At::b(id), &callee()).unwrap();
    assert_eq!(bed.ports.open.len(), 2);
}

#[test]
fn a_component_that_comes_back_has_the_priority_of_its_number() {
    let mut bed = Bed::default();
    let (id, _) = bed.offer(&offer(&description("", &[section("a", 9, &ice("caller"))]), ICE)).unwrap();
    bed.answer(At::b(id), &description("", &[section("a", 9, &ice("callee"))])).unwrap();
    let apart = ice("caller").replace("a=rtcp-mux\n", "");
    let offered = bed.reoffer(At::a(id), &description("", &[section("a", 9, &apart)])).unwrap();
    let candidates = told(&offered)[0].candidates.clone();
    assert_eq!(candidates.iter().map(|one| one.component).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(candidates[0].priority - candidates[1].priority, 1, "RFC 8445 section 5.1.2.1");
}

#[test]
fn other_credentials_restart_that_leg_alone_when_they_are_answered() {
    let mut bed = Bed::default();
    let id = bundle(&mut bed);
    let sections = |who: &str| [section("a", 9, &ice(who)), section("v", 9, &ice(who))];
    let text = |who: &str| description("a=group:BUNDLE a v\n", &sections(who));
    bed.answer(At::b(id), &text("callee")).unwrap();
    let own = |bed: &Bed| bed.describe(id).legs.map(|leg| leg.parameters.unwrap());
    let before = own(&bed);
    bed.reoffer(At::a(id), &text("caller")).unwrap();
    bed.answer(At::b(id), &text("callee")).unwrap();
    assert_eq!(own(&bed), before, "the same as before");
    let offered = bed.reoffer(At::a(id), &text("restarted")).unwrap();
    assert_eq!(told(&offered)[0].parameters.as_ref(), Some(&before[1]));
    assert_eq!(own(&bed), before, "it may be rejected yet");
    let answered = bed.answer(At::b(id), &text("callee")).unwrap();
    let after = own(&bed);
    assert_eq!(after[1], before[1]);
    assert!(after[0].ufrag != before[0].ufrag && after[0].pwd != before[0].pwd);
    assert_eq!(told(&answered)[0].parameters.as_ref(), Some(&after[0]));
    bed.answer(At::b(id), &text("callee")).unwrap();
    assert_eq!(own(&bed), after, "the final answer restarts nothing more");
}

#[test]
fn one_may_come_from_either_side_and_adds_and_takes_away() {
    let mut bed = Bed::default();
    let (id, _) = plain_calls_ice(&mut bed);
    let callee = ice("callee");
    bed.answer(At::b(id), &description("", &[section("a", 9, &callee)])).unwrap();
    let two = description("", &[section("a", 9, &callee), section("v", 9, &callee)]);
    let offered = bed.reoffer(At::b(id), &two).unwrap();
    assert_eq!((bed.describe(id).streams.len(), bed.ports.open.len()), (2, 6));
    assert_eq!(told(&offered)[1].address, Some(bed.local(At { path: 1, ..At::a(id) })));
    let answer = description("", &[section("a", 4000, "a=rtcp-mux\n"), section("v", 4004, "a=rtcp-mux\n")]);
    bed.answer(At::a(id), &answer).unwrap();
    assert_eq!(bed.ports.open.len(), 4);

    let rejected = description("", &[section("a", 4000, "a=rtcp-mux\n"), section("v", 0, "")]);
    bed.reoffer(At::a(id), &rejected).unwrap();
    assert_eq!(bed.describe(id).streams.len(), 2, "not before it is answered");
    bed.answer(At::b(id), &description("", &[section("a", 9, &callee), section("v", 0, "")])).unwrap();
    assert_eq!((bed.describe(id).streams.len(), bed.ports.open.len()), (1, 2));
    bed.reoffer(At::a(id), &answer).unwrap();
    assert_eq!(bed.describe(id).streams.len(), 2, "a section may come back");
}

#[test]
fn a_session_that_ends_takes_an_offer_along() {
    let mut bed = Bed::default();
    let id = plain_calls_plain(&mut bed);
    let two = description("", &[section("a", 4000, ""), section("v", 4008, "")]);
    bed.reoffer(At::a(id), &two).unwrap();
    bed.close(id);
    assert!(bed.ports.open.is_empty() && bed.paths.is_empty());
}

#[test]
fn credentials_of_a_section_that_is_rejected_restart_nothing() {
    let mut bed = Bed::default();
    let id = bundle(&mut bed);
    let text = |a: String, v: String| description("", &[a, v]);
    let callee = text(section("a", 9, &ice("callee")), section("v", 9, &ice("callee")));
    bed.answer(At::b(id), &callee).unwrap();
    let before = bed.describe(id).legs[0].parameters.clone();
    let rejects = |who: &str, more: &str| text(section("a", 0, more), section("v", 9, &ice(who)));
    bed.reoffer(At::a(id), &rejects("caller", &ice("forgotten"))).unwrap();
    bed.answer(At::b(id), &rejects("callee", "")).unwrap();
    assert_eq!(bed.describe(id).legs[0].parameters, before);
}

#[test]
fn what_has_shared_the_transport_of_a_section_that_is_rejected_gets_its_own() {
    let mut bed = Bed::default();
    let id = bundle(&mut bed);
    let both =
        |who: &str| description("a=group:BUNDLE a v\n", &[section("a", 9, &ice(who)), section("v", 9, &ice(who))]);
    bed.answer(At::b(id), &both("callee")).unwrap();
    let alone = |who: &str, group: &str| description(group, &[section("a", 0, ""), section("v", 9, &ice(who))]);
    for group in ["a=group:BUNDLE v\n", "a=group:BUNDLE a v\n"] {
        let offered = told(&bed.reoffer(At::a(id), &alone("caller", group)).unwrap());
        assert!(!offered[0].is_active() && offered[1].is_active(), "{group}");
        assert_eq!(offered[1].address, Some(bed.local(At { path: 1, ..At::b(id) })), "{group}");
    }
    bed.answer(At::b(id), &alone("callee", "a=group:BUNDLE v\n")).unwrap();
    let names: Vec<_> = bed.describe(id).streams.into_iter().map(|stream| stream.name).collect();
    assert_eq!((names.as_slice(), bed.ports.open.len()), (&["v".to_owned()][..], 2));
}

#[test]
fn sections_that_are_added_together_are_two_streams_though_they_have_one_name() {
    let mut bed = Bed::default();
    let id = plain_calls_plain(&mut bed);
    let sections = ["a", "x", "x"].into_iter().zip([4000, 4002, 4004]);
    let sections: Vec<_> = sections.map(|(name, port)| section(name, port, "a=rtcp-mux\n")).collect();
    let offered = told(&bed.reoffer(At::a(id), &description("", &sections)).unwrap());
    assert_ne!(offered[1].address, offered[2].address);
    assert_eq!(bed.describe(id).streams.len(), 3);
}

#[test]
fn what_was_offered_and_is_not_wanted_is_gone_with_the_answer() {
    let mut bed = Bed::default();
    let id = plain_calls_plain(&mut bed);
    let sockets = bed.ports.open.clone();
    let with = |video: u16| section("v", video, "");
    bed.reoffer(At::a(id), &format!("{}{}", caller(4000), with(4008))).unwrap();
    assert_ne!(bed.ports.open, sockets);
    bed.answer(At::b(id), &format!("{}{}", callee(), with(0))).unwrap();
    assert_eq!((bed.describe(id).streams.len(), &bed.ports.open), (1, &sockets));
}

#[test]
fn a_side_that_gives_up_ice_is_where_it_sends_from_if_that_was_said_of_the_session() {
    let mut bed = Bed::default();
    let caller = description("", &[section("a", 9, &ice("caller"))]);
    let (id, _) = bed.offer(&Offer { latch: true, ..offer(&caller, ICE) }).unwrap();
    let callee = description("", &[section("a", 9, &ice("callee"))]);
    bed.answer(At::b(id), &callee).unwrap();
    // Behind a NAT, which the peer rules have no need to allow.
    bed.reoffer(At::a(id), &self::caller(4000).replace("c=IN IP4 8.8.8.8", "c=IN IP4 10.0.0.1")).unwrap();
    bed.answer(At::b(id), &callee).unwrap();
    assert_eq!(bed.describe(id).legs[0].kind, LATCHING);
    let agent = bed.agent(At::b(id));
    bed.succeeds(At::b(id), REMOTE, &agent.nomination());
    assert_eq!(bed.arrives(At::a(id), "9.9.9.9:1234", MEDIA).target(), Some(socket(REMOTE)));
}
