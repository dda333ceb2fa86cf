//! A session as it may be, for tests.

use super::{
    Component, Fragment, Fragments, LegStatus, Limits, LocalCandidate, RemoteStatus, Selected, Session, Stream,
    Timeouts, Totals,
};
use crate::api::Amount;

impl Session {
    /// One of an ICE leg and a plain one, that has carried some media.
    pub(crate) fn example() -> Self {
        let amount = |packets, bytes| Amount { packets, bytes };
        let counts = Totals {
            a_to_b: amount(9_000, 9_000_000),
            b_to_a: amount(3_000, 1_234_567),
            kernel: amount(9_000, 8_000_000),
        };
        let component = Component { component: 1, in_kernel: true, counts };
        Self {
            id: "0-17".to_owned(),
            label: "call".to_owned(),
            created: 1_000,
            state: "connected".to_owned(),
            timeouts: Timeouts { setup: Some(300), consent: Some(30), paused: Some(60), idle: Some(0) },
            limits: Limits { packets: Some(500), bytes: Some(0) },
            totals: counts,
            streams: vec![Stream { name: "audio".to_owned(), components: vec![component] }],
            a: LegStatus {
                ufrag: Some("abcdefgh".to_owned()),
                pwd: Some("abcdefghijklmnopqrstuvwx".to_owned()),
                sdp: Fragments {
                    session: "a=ice-lite\r\n".to_owned(),
                    media: [(
                        "audio".to_owned(),
                        Fragment { port: 50_000, lines: "a=ice-ufrag:abcdefgh\r\n".to_owned() },
                    )]
                    .into(),
                },
                remote: Some(RemoteStatus {
                    ufrag: "wxyz".to_owned(),
                    lite: false,
                    candidates: vec!["candidate:1 1 UDP 2130706431 198.51.100.7 4000 typ host".to_owned()],
                    end_of_candidates: false,
                }),
                ..leg("ice", 50_000, "198.51.100.7:4000", Some(1_187))
            },
            b: leg("plain", 50_002, "192.0.2.9:6000", None),
        }
    }
}

fn leg(kind: &str, port: u16, remote: &str, last_check: Option<u64>) -> LegStatus {
    let local = std::net::SocketAddr::from(([203, 0, 113, 7], port));
    LegStatus {
        kind: kind.to_owned(),
        state: "nominated".to_owned(),
        ufrag: None,
        pwd: None,
        candidates: vec![LocalCandidate {
            stream: "audio".to_owned(),
            component: 1,
            address: local,
            candidate: (kind == "ice").then(|| format!("candidate:1 1 UDP 2130706431 203.0.113.7 {port} typ host")),
        }],
        sdp: Fragments::default(),
        refused: Vec::new(),
        remote: None,
        selected: vec![Selected {
            stream: "audio".to_owned(),
            component: 1,
            local,
            remote: remote.parse().expect("an address of the example"),
            last_check,
            lost: false,
        }],
    }
}
