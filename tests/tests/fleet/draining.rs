//! A relay is drained, and its clients move to the others while media flows.

use std::time::{Duration, Instant};

use crate::relays::{Bed, Fleet, server};
use crate::roaming::{Log, PATIENCE, Roamers, Why};

const CLIENTS: usize = 12;

#[test]
fn clients_move_by_300_while_media_flows() {
    let Some(bed) = Bed::new() else { return };
    let fleet = bed.fleet();
    let mut began = None;
    let logs = Roamers::during(&bed.network, CLIENTS, None, |roamers| {
        roamers.settle();
        let before = roamers.logs();
        let drained = fullest(&before);
        began = Some((Instant::now(), drained, before.clone()));
        let told = fleet.ask(drained, &["drain", "--move"]).expect_success();
        assert!(told.contains("sent to other relays as they refresh"), "{told}");
        roamers.wait("all have moved", |logs| have_moved(logs, &before, drained));
        roamers.settle();
        wait_until_empty(&fleet, drained);
        let why = fleet.ask(drained, &["why", &crate::network::ip(200).to_string()]).expect_success();
        assert!(why.contains("sent_away") || why.contains("sent a client"), "{why}");
    });
    let (began, drained, before) = began.expect("it was drained");
    let was_there = |index: usize| before[index].server == Some(server(drained));
    for (index, log) in logs.iter().enumerate() {
        let whys: Vec<_> = log.moves.iter().map(|(_, why)| *why).collect();
        assert_eq!(whys, if was_there(index) { vec![Why::SentAway] } else { vec![] }, "client {index}: {log:?}");
    }
    let moved: Vec<_> = (0..CLIENTS).filter(|index| was_there(*index)).map(|index| &logs[index]).collect();
    assert!(fleet.responses(drained, "refresh", "300") >= moved.len() as u64);
    report("drained", began, &moved, &logs);

    // And back again: nobody is sent away any more, and new clients are welcome.
    fleet.ask(drained, &["drain", "--cancel"]).expect_success();
    fleet.client(drained).allocate().expect("it takes clients again");
}

#[test]
fn sigterm_moves_clients_and_the_relay_ends_with_the_last() {
    let Some(bed) = Bed::new() else { return };
    let mut fleet = bed.fleet();
    Roamers::during(&bed.network, CLIENTS / 2, None, |roamers| {
        roamers.settle();
        let ending = fullest(&roamers.logs());
        let finished = fleet.terminate(ending).wait(PATIENCE);
        assert_eq!(finished.code(), Some(0), "{finished}");
        assert!(finished.stderr.contains("those that refresh what they have"), "{finished}");
        roamers.settle();
        let all = roamers.logs();
        assert!(all.iter().all(|log| log.server != Some(server(ending))), "{all:?}");
        assert!(all.iter().flat_map(|log| &log.moves).all(|(_, why)| *why == Why::SentAway), "{all:?}");
        // Upgraded one by one: the next version takes clients at once.
        fleet.launch(ending);
        fleet.client(ending).allocate().expect("it is back");
    });
}

#[test]
fn there_is_nowhere_to_move_to_without_other_relays() {
    let network = hairpin_tests::lab::Namespace::new("alone");
    let relay = hairpin_tests::lab::Relay::start(
        &network,
        &["--listen", "127.0.0.1:3478", "--admin-socket", "off", "--admin-token", "lab"],
    );
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9641));
    let ask = |body: &str| {
        let headers = ["Content-Type: application/json", "Authorization: Bearer lab"];
        let connection = hairpin_tests::lab::http::tcp(&network, address);
        hairpin_tests::lab::http::ask(connection, "POST", "/v1/drain", &headers, body).all()
    };
    let problem = ask("{\"move_clients\": true}").expect_problem(422);
    assert!(problem.contains("alternate-server"), "{problem}");
    assert_eq!(relay.metrics().sum("hairpin_draining", &[]), 0, "nothing has changed");
    assert_eq!(ask("{}").json()["draining"], true);
    relay.stop();
}

/// Whether those who were at a relay have heard from another one.
pub(crate) fn have_moved(logs: &[Log], before: &[Log], relay: usize) -> bool {
    let was_there = |log: &Log| log.server == Some(server(relay));
    logs.iter().zip(before).all(|(log, before)| !was_there(before) || !was_there(log) && !log.moves.is_empty())
}

/// The relay that has the most clients.
pub(crate) fn fullest(logs: &[Log]) -> usize {
    let clients = |relay: &usize| logs.iter().filter(|log| log.server == Some(server(*relay))).count();
    (0..3).max_by_key(clients).expect("there are three")
}

fn wait_until_empty(fleet: &Fleet<'_>, relay: usize) {
    let end = Instant::now() + PATIENCE;
    while fleet.relay(relay).metrics().sum("hairpin_allocations", &[]) > 0 {
        assert!(Instant::now() < end, "somebody is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says how long it took, and what it cost; nothing is decided by that.
pub(crate) fn report(what: &str, began: Instant, moved: &[&Log], all: &[Log]) {
    let mut times: Vec<_> = moved.iter().filter_map(|log| Some(log.moves.first()?.0.duration_since(began))).collect();
    times.sort_unstable();
    let (first, last) = (times.first().copied().unwrap_or_default(), times.last().copied().unwrap_or_default());
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let (lost, sent) = moved.iter().fold((0, 0), |(lost, sent), log| (lost + log.lost(), sent + log.sent));
    let others: u64 = all.iter().map(Log::lost).sum::<u64>() - lost;
    println!(
        "figures: {what}: {} clients moved, the first after {first:.2?}, half after {median:.2?}, the last after {last:.2?}; \
         they lost {lost} of {sent} datagrams, the {} others {others}",
        moved.len(),
        all.len() - moved.len()
    );
}
