//! Draining under load: those who are there lose nothing, nobody else gets in, and what is left at the deadline is closed.

use std::time::{Duration, Instant};

use hairpin_tests::lab::process::Process;
use hairpin_tests::lab::turn::Refused;
use rustix::process::Signal;

use crate::bed::{ALLOCATIONS, Bed, Call, PATHS, PATIENCE, Settings, client_ip, lab, list, wait};

fn wait_for_output(process: &Process, text: &str) {
    wait(&format!("`{text}` is said"), || process.stdout().contains(text) || process.stderr().contains(text));
}

fn readiness(bed: &Bed<'_>) -> u16 {
    bed.relay.get("/readyz").expect("the admin interface answers").0
}

/// How the process of a relay has ended, and its log.
fn ended(mut bed: Bed<'_>) -> (Option<i32>, String) {
    let end = Instant::now() + PATIENCE;
    while bed.relay.process().is_running() {
        assert!(Instant::now() < end, "it does not end:\n{}", bed.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let finished = bed.relay.into_process().wait(Duration::ZERO);
    (finished.code(), finished.stderr)
}

#[test]
fn who_is_there_loses_nothing_while_a_relay_is_drained_and_welcomes_others_again() {
    for (xdp, path) in PATHS {
        let lab = lab();
        let bed = Bed::new(&lab, &Settings::new(xdp));
        let load = bed.load(path);
        let waiting = bed.spawn(&["drain", "--wait", "--timeout", "10m"]);
        wait_for_output(&waiting, &format!("draining: {ALLOCATIONS} allocations left, closed in "));
        assert_eq!(readiness(&bed), 503);
        assert_eq!(bed.relay.metrics().sum("hairpin_draining", &[]), 1);
        let status = bed.json(&["status"]);
        assert_eq!(status["state"], "draining", "{status}");
        assert!(status["drain_deadline"].as_u64() > Some(0), "{status}");
        load.flows();

        assert!(matches!(bed.alice(1).allocate(), Err(Refused(508, _))));
        bed.expect_reason(client_ip(1), "allocate", Some(508), "draining");
        let elsewhere = Settings::new(xdp).with("alternate-server", &list(&["192.0.2.9:3478"]));
        bed.reload(&elsewhere, &[]);
        assert_eq!(readiness(&bed), 503, "a reload ends no draining");
        assert!(matches!(bed.alice(1).allocate(), Err(Refused(300, _))));
        load.flows();

        bed.text(&["drain", "--cancel"]);
        let finished = waiting.wait(PATIENCE);
        assert_eq!(finished.code(), Some(1), "{finished}");
        assert!(finished.stderr.contains("let new clients in again"), "{finished}");
        assert_eq!(readiness(&bed), 200);
        bed.alice(1).allocate().expect("new clients are welcome");
        load.expect_no_loss();
        bed.relay.stop();
    }
}

#[test]
fn what_is_left_at_the_deadline_is_closed_and_said_so() {
    for (xdp, path) in PATHS {
        let lab = lab();
        let mut bed = Bed::new(&lab, &Settings::new(xdp));
        let mut call = Call::begin(&lab, bed.alice(0), 0);
        let mut leaves = Call::begin(&lab, bed.alice(1), 0);
        if path == "kernel" {
            call.settle(&bed);
        }
        let waiting = bed.spawn(&["drain", "--wait", "--timeout", "3s"]);
        wait_for_output(&waiting, "draining: 2 allocations left");
        assert_eq!(leaves.client.refresh(0), Ok(0));
        let finished = waiting.wait(PATIENCE);
        assert!(finished.stdout.contains("drained: nothing is left"), "{finished}");
        finished.expect_success();
        call.expect_silence();
        assert!(matches!(call.client.refresh(600), Err(Refused(437, _))));
        for (reason, count) in [("drained", 1), ("released", 1), ("closed", 0)] {
            let ended = bed.relay.metrics().sum("hairpin_allocations_ended_total", &[("reason", reason)]);
            assert_eq!(ended, count, "{reason}");
        }
        bed.logged(&["an allocation has ended", "reason=\"drained\""]);
        assert_eq!(readiness(&bed), 503, "it runs, and takes nobody");
        bed.relay.stop();
    }
}

#[test]
fn a_relay_that_is_told_to_ends_with_its_last_allocation() {
    let lab = lab();
    let bed = Bed::new(&lab, &Settings::new("native"));
    let mut call = Call::begin(&lab, bed.alice(0), 0);
    let waiting = bed.spawn(&["drain", "--wait", "--stop"]);
    wait_for_output(&waiting, "draining: 1 allocation left, no deadline, then the relay ends");
    call.exchange();
    assert_eq!(call.client.refresh(0), Ok(0));
    waiting.wait(PATIENCE).expect_success();
    let (code, log) = ended(bed);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(hairpin_tests::lab::relay::attached_programs(&lab.relay), "", "XDP is detached");
}

#[test]
fn a_relay_that_is_told_to_ends_at_the_deadline() {
    let lab = lab();
    let bed = Bed::new(&lab, &Settings::new("off"));
    let _call = Call::begin(&lab, bed.alice(0), 0);
    bed.text(&["drain", "--stop", "--timeout", "1s"]);
    let (code, log) = ended(bed);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.lines().any(|line| line.contains("an allocation has ended") && line.contains("drained")), "{log}");
}

#[test]
fn sigterm_drains_where_there_is_time_for_it() {
    let lab = lab();
    for (signal, others) in [(Signal::TERM, "info"), (Signal::INT, "warn")] {
        let settings = Settings::new("native").with("drain-timeout", "\"10m\"").with("log", &format!("\"{others}\""));
        let bed = Bed::new(&lab, &settings);
        let load = bed.load("kernel");
        bed.relay.signal(signal);
        bed.wait_for("it is drained", |metrics| metrics.sum("hairpin_draining", &[]) == 1);
        assert_eq!(readiness(&bed), 503);
        assert!(matches!(bed.alice(1).allocate(), Err(Refused(508, _))));
        load.expect_no_loss();
        // The generator has given back what it had.
        let (code, log) = ended(bed);
        assert_eq!(code, Some(0), "{log}");
    }
}

#[test]
fn a_second_sigterm_is_not_made_to_wait() {
    let lab = lab();
    let bed = Bed::new(&lab, &Settings::new("off").with("drain-timeout", "\"10m\""));
    let call = Call::begin(&lab, bed.alice(0), 0);
    bed.relay.signal(Signal::TERM);
    bed.wait_for("it is drained", |metrics| metrics.sum("hairpin_draining", &[]) == 1);
    call.exchange();
    bed.relay.signal(Signal::TERM);
    let (code, log) = ended(bed);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stopping"), "{log}");
}

#[test]
fn without_time_for_it_sigterm_ends_a_relay_at_once() {
    let lab = lab();
    let bed = Bed::new(&lab, &Settings::new("off"));
    let _call = Call::begin(&lab, bed.alice(0), 0);
    bed.relay.signal(Signal::TERM);
    let (code, log) = ended(bed);
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("draining"), "{log}");
    // Whoever reads the log sees what became of the allocation.
    assert!(log.lines().any(|line| line.contains("an allocation has ended") && line.contains("shutdown")), "{log}");
}
