//! A relay dies without a word, and its clients come back on another.

use std::time::{Duration, Instant};

use crate::draining::{fullest, have_moved, report};
use crate::relays::{Bed, server};
use crate::roaming::{Roamers, Why};

const CLIENTS: usize = 12;
/// A relay that is slow is not one that is gone.
const SILENCE: Duration = Duration::from_secs(3);

#[test]
fn clients_of_a_relay_that_is_killed_come_back_on_another() {
    let Some(bed) = Bed::new() else { return };
    let mut fleet = bed.fleet();
    let mut began = None;
    let logs = Roamers::during(&bed.network, CLIENTS, Some(SILENCE), |roamers| {
        roamers.settle();
        let before = roamers.logs();
        let killed = fullest(&before);
        began = Some((Instant::now(), killed, before.clone()));
        fleet.kill(killed);
        roamers.wait("all have come back", |logs| have_moved(logs, &before, killed));
        roamers.settle();
    });
    let (began, killed, before) = began.expect("it was killed");
    for (before, log) in before.iter().zip(&logs) {
        let whys: Vec<_> = log.moves.iter().map(|(_, why)| *why).collect();
        let was_there = before.server == Some(server(killed));
        assert_eq!(whys, if was_there { vec![Why::Silence] } else { vec![] }, "{log:?}");
    }
    let moved: Vec<_> = before
        .iter()
        .zip(&logs)
        .filter(|(before, _)| before.server == Some(server(killed)))
        .map(|(_, log)| log)
        .collect();
    assert!(!moved.is_empty());
    report(&format!("killed, with clients that wait for {SILENCE:?}"), began, &moved, &logs);

    // Started again, it knows nobody, and serves everybody: with a nonce of another one, too.
    fleet.launch(killed);
    let mut client = fleet.client((killed + 1) % 3);
    client.allocate().expect("the others have never stopped");
    let local = std::net::SocketAddr::new([0; 4].into(), 0);
    client.elsewhere(&bed.network.clients, local, server(killed)).allocate().expect("it is back");
    assert_eq!(["401", "438"].map(|code| fleet.responses(killed, "allocate", code)), [0, 0]);
}
