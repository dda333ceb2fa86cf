//! What a fast path is told: never more than userspace would do, and for no longer.

use std::time::Duration;

use hairpin_proto::media::{Disposition, Effect, MediaFlow, Side};

use crate::agent::Check;
use crate::harness::{At, Bed, ICE, LATCHING, MEDIA, PLAIN, REMOTE, STRICT, amount, bound, request, socket};

/// A relayed address of this relay.
const RELAYED: &str = "198.51.100.15:41234";

#[test]
fn there_is_a_flow_when_both_legs_have_a_remote_and_not_before() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, STRICT]);
    let agent = bed.agent(At::a(id));
    bed.succeeds(At::a(id), REMOTE, &agent.nomination());
    assert_eq!(bed.flow(), None);
    bed.plain(At::b(id), PLAIN, false).unwrap();
    let [server, relayed] = [At::a(id), At::b(id)].map(|at| bound(bed.local(at)));
    let path = bed.path(At::a(id)).path;
    let flow = MediaFlow { path, client: socket(REMOTE), server, relayed, peer: socket(PLAIN), client_side: Side::A };
    assert_eq!(bed.flow(), Some((flow, bed.after(30_000))));
    let info = bed.path(At::a(id));
    assert_eq!((info.installed, info.client_side), (Some(bed.after(30_000)), Side::A));
}

#[test]
fn a_flow_ends_with_the_consent_that_ends_first() {
    let mut bed = Bed::default();
    let id = bed.session([ICE, ICE]);
    let [a, b] = [At::a(id), At::b(id)].map(|at| bed.agent(at));
    bed.succeeds(At::a(id), REMOTE, &a.nomination());
    let first = bed.after(30_000);
    bed.pass_seconds(9);
    bed.succeeds(At::b(id), PLAIN, &b.nomination());
    assert_eq!(bed.flow().map(|(_, expires)| expires), Some(first));
    bed.pass_seconds(6);
    bed.succeeds(At::a(id), REMOTE, &a.check());
    assert_eq!(bed.flow().map(|(_, expires)| expires), Some(first + Duration::from_secs(9)), "now that is B's");
}

#[test]
fn not_every_check_is_worth_a_word() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    let mut words = 0;
    for _ in 0..100 {
        bed.pass(1000);
        let port = bed.port(At::a(id));
        bed.sessions.datagram(bed.now.instant, port, socket(REMOTE), &agent.check().bytes());
        let effects = bed.drain();
        words += effects.len();
        assert!(effects.iter().all(|effect| matches!(effect, Effect::InstallFlow { .. })), "{effects:?}");
        let expires = bed.flow().expect("it never ends").1;
        assert!(expires > bed.after(26_000), "it is never much shorter than consent");
        assert!(expires <= bed.after(30_000));
    }
    // An eighth of 30 s: every fourth.
    assert_eq!(words, 25);
}

#[test]
fn what_nobody_proves_is_extended_by_timers_for_as_long_as_media_flows() {
    for consent in [30, 3600] {
        let mut bed = Bed::default();
        let mut request = request([STRICT, STRICT]);
        (request.terms.timeouts.idle, request.terms.timeouts.consent) = (None, Duration::from_secs(consent));
        let id = bed.create(request).unwrap();
        bed.plain(At::a(id), "9.9.9.9:9", false).unwrap();
        bed.plain(At::b(id), PLAIN, false).unwrap();
        assert_eq!(bed.flow().map(|(_, expires)| expires), Some(bed.after(60_000)), "a daemon may be dead by then");
        for _ in 0..100 {
            bed.relays_fast(At::b(id), 1);
            bed.pass(7_000);
            let expires = bed.flow().expect("it never ends").1;
            assert!(bed.after(20_000) < expires && expires <= bed.after(60_000), "consent of {consent} s");
        }
        bed.pass_seconds(100);
        assert_eq!(bed.flow(), None, "nobody sends anything");
        assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("9.9.9.9:9")));
        assert!(bed.flow().is_some(), "somebody does");
    }
}

#[test]
fn a_leg_with_consent_says_when_the_flow_of_both_ends() {
    let mut bed = Bed::default();
    let (_, _) = bed.connected();
    bed.pass_seconds(29);
    assert_eq!(bed.flow().map(|(_, expires)| expires), Some(bed.after(1000)), "timers extend nothing");
}

#[test]
fn who_is_behind_a_relayed_address_of_this_relay_is_the_peer() {
    for own in [RELAYED, "[2001:db8::15]:41234"] {
        let mut bed = Bed::default();
        let mut request = request([STRICT, STRICT]);
        request.choice.families.clear();
        let id = bed.create(request).unwrap();
        let base = usize::from(!socket(own).is_ipv6());
        bed.plain(At::a(id), own, false).unwrap();
        bed.plain(At::b(id), PLAIN, false).unwrap();
        let [a, b] = [At { base, ..At::a(id) }, At { base: 1, ..At::b(id) }].map(|at| bound(bed.local(at)));
        let path = bed.path(At::a(id)).path;
        let flow =
            MediaFlow { path, client: socket(PLAIN), server: b, relayed: a, peer: socket(own), client_side: Side::B };
        assert_eq!(bed.flow().map(|(flow, _)| flow), Some(flow));
        assert_eq!(bed.path(At::a(id)).client_side, Side::B);
        bed.plain(At::b(id), "9.9.9.9:9", false).unwrap();
        bed.remote(
            At::a(id),
            hairpin_proto::media::Remote::Plain { addresses: Vec::new(), latch: false, is_hint: false },
        )
        .unwrap();
        let info = bed.path(At::a(id));
        assert_eq!((info.installed, info.client_side), (None, Side::B), "what was counted is still to be understood");
    }
}

#[test]
fn what_was_counted_stays_with_its_leg_when_another_is_the_clients() {
    let mut bed = Bed::default();
    let id = bed.session([STRICT, STRICT]);
    bed.plain(At::a(id), "9.9.9.9:9", false).unwrap();
    bed.plain(At::b(id), PLAIN, false).unwrap();
    bed.relays_fast(At::a(id), 5);
    bed.relays_fast(At::b(id), 2);
    let counted = [amount(5, 30), amount(2, 12)];
    assert_eq!(bed.path(At::a(id)).counts.all, counted);
    bed.plain(At::a(id), RELAYED, false).unwrap();
    let info = bed.path(At::a(id));
    assert_eq!((info.client_side, info.counts.all), (Side::B, counted));
    bed.relays_fast(At::b(id), 1);
    assert_eq!(bed.path(At::a(id)).counts.forwarded, [amount(5, 30), amount(3, 18)]);
    bed.plain(At::a(id), "9.9.9.9:9", false).unwrap();
    bed.relays_fast(At::a(id), 1);
    assert_eq!(bed.path(At::a(id)).counts.forwarded, [amount(6, 36), amount(3, 18)]);
}

#[test]
fn of_two_relayed_addresses_leg_bs_is_the_peer_and_so_it_is_where_that_is_the_only_one() {
    for a in ["198.51.100.15:41111", "9.9.9.9:9"] {
        let mut bed = Bed::default();
        let id = bed.session([STRICT, STRICT]);
        bed.plain(At::a(id), a, false).unwrap();
        bed.plain(At::b(id), RELAYED, false).unwrap();
        let (flow, _) = bed.flow().unwrap();
        assert_eq!((flow.client, flow.peer, flow.client_side), (socket(a), socket(RELAYED), Side::A));
    }
}

#[test]
fn a_bound_address_counts_as_one_of_the_relays_own_too() {
    let mut bed = Bed::with(|settings| settings.peer_policy.allow("192.0.2.15/32".parse().unwrap()));
    let id = bed.session([STRICT, STRICT]);
    bed.plain(At::a(id), "192.0.2.15:41234", false).unwrap();
    bed.plain(At::b(id), PLAIN, false).unwrap();
    assert_eq!(bed.flow().map(|(flow, _)| flow.client_side), Some(Side::B));
}

#[test]
fn a_flow_is_taken_back_when_a_remote_is_gone() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    let (flow, _) = bed.flow().unwrap();
    let nobody = hairpin_proto::media::Remote::Plain { addresses: Vec::new(), latch: false, is_hint: false };
    bed.sessions.set_remote(bed.now.instant, id, Side::B, nobody).unwrap();
    assert_eq!(bed.drain(), [Effect::RemoveFlow { flow }]);
    assert_eq!(bed.path(At::a(id)).installed, None);
}

#[test]
fn nothing_is_installed_while_a_leg_waits_for_who_sends_first() {
    let mut bed = Bed::default();
    let id = bed.session([LATCHING, STRICT]);
    bed.plain(At::b(id), PLAIN, false).unwrap();
    bed.plain(At::a(id), "9.9.9.9:9", true).unwrap();
    assert_eq!(bed.arrives(At::b(id), PLAIN, MEDIA).target(), Some(socket("9.9.9.9:9")));
    assert_eq!(bed.flow(), None);
    bed.arrives(At::a(id), "9.9.9.9:10", MEDIA);
    assert_eq!(bed.flow().map(|(flow, _)| flow.client), Some(socket("9.9.9.9:10")));
    bed.plain(At::a(id), "9.9.9.8:9", true).unwrap();
    assert_eq!(bed.flow(), None, "it begins anew");
}

#[test]
fn a_check_that_nominates_nothing_else_installs_nothing_else() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    let before = bed.flow();
    bed.pass(500);
    bed.succeeds(At::a(id), "203.0.113.9:9", &Check { priority: Some(1), ..agent.nomination() });
    bed.succeeds(At::a(id), "203.0.113.9:10", &agent.check());
    assert_eq!(bed.flow(), before);
}

#[test]
fn whose_direction_it_is_is_said_as_the_fast_path_has_it() {
    for (remote, client) in [("9.9.9.9:9", Side::A), (RELAYED, Side::B)] {
        let mut bed = Bed::default();
        let id = bed.session([STRICT, STRICT]);
        bed.plain(At::a(id), remote, false).unwrap();
        bed.plain(At::b(id), PLAIN, false).unwrap();
        assert_eq!(bed.flow().map(|(flow, _)| flow.client_side), Some(client));
        for (at, source) in [(At::a(id), remote), (At::b(id), PLAIN)] {
            let port = bed.port(at);
            let got = bed.sessions.datagram(bed.now.instant, port, socket(source), MEDIA);
            let Disposition::Forward(forward) = got else { panic!("{got:?}") };
            assert_eq!((forward.from, forward.is_clients), (at.side, at.side == client), "{remote}");
        }
    }
}

#[test]
fn a_flow_lasts_as_long_however_late_the_legs_have_their_remotes() {
    let mut bed = Bed::default();
    let id = bed.session([STRICT, STRICT]);
    bed.pass_seconds(100);
    bed.plain(At::a(id), "9.9.9.9:9", false).unwrap();
    bed.plain(At::b(id), PLAIN, false).unwrap();
    assert_eq!(bed.flow().map(|(_, expires)| expires), Some(bed.after(60_000)));
}
