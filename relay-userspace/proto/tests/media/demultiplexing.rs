//! What a datagram is by its first byte (RFC 7983): STUN stays, everything else goes on. Whose side speaks no ICE may send what only
//! begins like it.

use hairpin_proto::media::{Discard, PortId};

use hairpin_common::wire::MAGIC_COOKIE;

use crate::harness::{At, Bed, Got, PLAIN, REMOTE, socket};

#[test]
fn whatever_begins_with_0_to_3_is_never_sent_on_from_a_side_with_ice() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    for first in 0..=3 {
        for rest in [&b""[..], b"x", &[0; 19], &[7; 1200]] {
            let datagram = [&[first], rest].concat();
            assert_eq!(bed.arrives(At::a(id), REMOTE, &datagram), Got::Dropped(Discard::Stun), "{datagram:02x?}");
            // T.38 counts its datagrams from zero in the first two bytes (UDPTL).
            assert_eq!(bed.arrives(At::b(id), PLAIN, &datagram).target(), Some(socket(REMOTE)), "{datagram:02x?}");
            let stun = [&[first, 1, 0, 0], &MAGIC_COOKIE.to_be_bytes()[..], rest].concat();
            for (at, source) in [(At::a(id), REMOTE), (At::b(id), PLAIN)] {
                assert_eq!(bed.arrives(at, source, &stun), Got::Dropped(Discard::Stun), "{stun:02x?}");
            }
        }
    }
    for check in [agent.check(), agent.nomination()] {
        assert_eq!(bed.arrives(At::a(id), REMOTE, &check.bytes()).target(), None);
        assert_eq!(bed.arrives(At::b(id), PLAIN, &check.bytes()).target(), None);
    }
}

#[test]
fn whatever_begins_with_4_to_255_is_sent_on_both_ways() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    for first in 4..=255 {
        for rest in [&b""[..], b"x", &[0; 19], &[7; 1200]] {
            let datagram = [&[first], rest].concat();
            assert_eq!(bed.arrives(At::a(id), REMOTE, &datagram).target(), Some(socket(PLAIN)), "{first}");
            assert_eq!(bed.arrives(At::b(id), PLAIN, &datagram).target(), Some(socket(REMOTE)), "{first}");
        }
    }
}

#[test]
fn an_empty_datagram_is_media() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    assert_eq!(bed.arrives(At::a(id), REMOTE, b"").target(), Some(socket(PLAIN)));
    assert_eq!(bed.arrives(At::b(id), PLAIN, b"").target(), Some(socket(REMOTE)));
    assert_eq!(bed.arrives(At::b(id), REMOTE, b""), Got::Dropped(Discard::UnknownRemote));
}

#[test]
fn a_datagram_of_any_length_is_sent_on_as_it_is() {
    let mut bed = Bed::default();
    let (id, _) = bed.connected();
    for length in [1, 2, 20, 1500, 65_507] {
        let datagram = vec![0x80; length];
        let Got::Sent { bytes, .. } = bed.arrives(At::a(id), REMOTE, &datagram) else { panic!("{length} bytes") };
        assert_eq!(bytes, datagram);
    }
}

#[test]
fn what_comes_to_a_socket_of_a_session_that_has_ended_is_dropped() {
    let mut bed = Bed::default();
    let (id, agent) = bed.connected();
    let ports = [At::a(id), At::b(id)].map(|at| bed.port(at));
    // The driver has not closed them yet.
    assert!(bed.sessions.close(id, hairpin_proto::media::CloseReason::Deleted));
    for port in ports.into_iter().chain([PortId(77)]) {
        for datagram in [&b"\x80media"[..], &agent.check().bytes(), b""] {
            let got = bed.sessions.datagram(bed.now.instant, port, socket(REMOTE), datagram);
            assert_eq!(got, hairpin_proto::media::Disposition::Discard(Discard::NoLeg));
        }
    }
}

#[test]
fn every_reason_has_a_name_of_its_own() {
    use hairpin_proto::media::{CloseReason, LegState, SessionState};
    let unique = |names: Vec<&str>| names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len();
    assert!(unique(Discard::ALL.iter().map(|reason| reason.label()).collect()));
    assert!(Discard::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    assert!(unique(CloseReason::ALL.iter().map(|reason| reason.label()).collect()));
    assert!(CloseReason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    assert!(unique(SessionState::ALL.iter().map(|state| state.label()).collect()));
    assert!(SessionState::ALL.iter().enumerate().all(|(at, state)| *state as usize == at));
    assert!(unique([LegState::Waiting, LegState::Nominated, LegState::Paused].map(LegState::label).to_vec()));
}
