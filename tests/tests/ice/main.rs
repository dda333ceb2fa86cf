//! Agents that are not ours at both ends of a session: libraries, browsers, and phones. Each is a full agent, for which
//! the relay is one that is lite; media goes from one leg to the other in the kernel.

mod browsers;
mod errors;
mod interop_aioice;
mod interop_aiortc;
mod interop_chromium;
mod interop_firefox;
mod interop_libnice;
mod sip;
mod sip_proxy;
mod totals;

use std::net::SocketAddr;

use hairpin_tests::lab::ice::{IceRelay, Session, packets};
use hairpin_tests::lab::{Agent, Lab};
use serde_json::{Value, json};

/// What a relay is started with in the lab.
const NATIVE: [&str; 2] = ["--xdp", "native"];

/// A leg for an agent.
fn ice() -> Value {
    json!({ "kind": "ice" })
}

fn start(lab: &Lab) -> IceRelay<'_> {
    IceRelay::start(&lab.relay, &NATIVE)
}

/// Tells an agent where its leg is, and waits until it has chosen a way to it: what it has chosen.
#[track_caller]
fn connect(agent: &mut Agent, session: &Session<'_, '_>, leg: &str) -> Value {
    let mut gathered = agent.hear("gathered");
    gathered.as_object_mut().expect("an event").remove("event");
    session.remote(leg, &gathered);
    agent.ask("connect", &session.described(leg), "connected")["selected"].take()
}

/// Has two agents send each other so many datagrams, half of them RTP and half of them DTLS to whoever looks at the
/// first byte, and checks that they have received all of these and of those before.
#[track_caller]
fn exchange(agents: [&mut Agent; 2], count: u64, before: u64) {
    let [one, other] = agents;
    for agent in [&mut *one, &mut *other] {
        agent.tell("send", &json!({ "count": count }));
    }
    for agent in [&mut *one, &mut *other] {
        agent.hear("sent");
    }
    let half = u64::midpoint(before, count);
    for agent in [one, other] {
        let report = agent.wait_for("all have arrived", |report| report["rtp"] == half && report["dtls"] == half);
        assert_eq!((&report["damaged"], &report["twice"]), (&json!(0), &json!(0)), "{report}");
    }
}

/// Checks that a session has forwarded at least so many packets, and the kernel so many percent of them.
#[track_caller]
fn expect_kernel(session: &Value, least: u64, percent: u64) {
    expect_kernel_since(&Value::Null, session, least, percent);
}

/// The same, of those since an earlier state of it.
#[track_caller]
fn expect_kernel_since(before: &Value, session: &Value, least: u64, percent: u64) {
    let (before, after) = (packets(before), packets(session));
    let (all, kernel) = (after.0 - before.0, after.1 - before.1);
    println!("{kernel} of {all} packets in the kernel");
    assert!(all >= least, "{all} packets, less than {least}: {session:#}");
    assert!(100 * kernel >= percent * all, "{kernel} of {all} packets are less than {percent} %: {session:#}");
}

/// Where a leg is reached by IPv4.
fn of_ipv4(leg: &Value) -> SocketAddr {
    let candidates = leg["candidates"].as_array().expect("a list");
    let addresses = candidates.iter().filter_map(|candidate| candidate["address"].as_str()?.parse().ok());
    addresses.into_iter().find(SocketAddr::is_ipv4).expect("the relay has an address of IPv4")
}
