//! aioice, which asks for consent without naming its choice again, and restarts with sockets of its own.

use std::path::Path;

use hairpin_tests::lab::ice::{is_candidate, remote};
use hairpin_tests::lab::{Agent, Family, Lab, nat, python};
use serde_json::{Value, json};

use super::{connect, exchange, expect_kernel, ice, start};

const SCRIPT: &str = "aioice_agent.py";

#[test]
fn an_agent_behind_a_nat_reaches_one_that_is_not() {
    let Some(interpreter) = python::from_pypi() else { return };
    if !nat::is_possible() {
        return;
    }
    let lab = Lab::routed_with(2, 0);
    let home = nat::behind(&lab.clients[0]);
    let relay = start(&lab);
    let session = relay.create(&ice(), &ice(), 1);
    let mut agents = [&home, &lab.clients[1]].map(|host| agent(host, interpreter, 1));
    for (agent, leg) in agents.iter_mut().zip(["a", "b"]) {
        let chosen = connect(agent, &session, leg);
        assert!(is_candidate(&session.show(), leg, &chosen["1"]["remote"]), "{chosen}");
    }
    let connected = session.wait_for_kernel();
    assert_eq!(connected["state"], "connected");
    let nat = Lab::client_ip(Family::V4, 0).to_string();
    assert!(remote(&connected, "a", 1).is_some_and(|remote| remote.starts_with(&nat)), "{connected:#}");

    let [one, other] = &mut agents;
    exchange([one, other], 300, 0);
    expect_kernel(&session.close(), 600, 99);
    relay.relay.stop();
}

#[test]
fn rtp_and_rtcp_of_two_components_go_their_own_ways() {
    let Some(interpreter) = python::from_pypi() else { return };
    let lab = Lab::routed_with(2, 0);
    let relay = start(&lab);
    let session = relay.create(&ice(), &ice(), 2);
    let mut agents = [0, 1].map(|index| agent(&lab.clients[index], interpreter, 2));
    for (agent, leg) in agents.iter_mut().zip(["a", "b"]) {
        let chosen = connect(agent, &session, leg);
        assert_ne!(chosen["1"]["remote"], chosen["2"]["remote"], "{chosen}");
    }
    session.wait_for_kernel();
    let [one, other] = &mut agents;
    exchange([&mut *one, &mut *other], 100, 0);
    one.ask("send", &json!({ "count": 100, "component": 2 }), "sent");
    other.wait_for("what was sent to the second component has arrived", |report| report["rtp"] == 100);

    let closed = session.close();
    let forwarded: Vec<_> = closed["streams"][0]["components"].as_array().expect("two").iter().collect();
    let counts = forwarded.iter().map(|one| [&one["a_to_b"]["packets"], &one["b_to_a"]["packets"]]);
    assert_eq!(counts.collect::<Vec<_>>(), [[&json!(100), &json!(100)], [&json!(100), &json!(0)]], "{closed:#}");
    relay.relay.stop();
}

#[test]
fn an_agent_restarts_while_media_flows() {
    let Some(interpreter) = python::from_pypi() else { return };
    let lab = Lab::routed_with(2, 0);
    let relay = start(&lab);
    let session = relay.create(&ice(), &ice(), 1);
    let mut agents = [0, 1].map(|index| agent(&lab.clients[index], interpreter, 1));
    for (agent, leg) in agents.iter_mut().zip(["a", "b"]) {
        connect(agent, &session, leg);
    }
    let before = session.wait_for_kernel();
    let [one, other] = &mut agents;
    exchange([&mut *one, &mut *other], 100, 0);

    // The old way is there until the new one is: what the other side sends meanwhile arrives by either.
    session.restart("a");
    other.tell("send", &json!({ "count": 200 }));
    one.tell("restart", &Value::Null);
    connect(one, &session, "a");
    other.hear("sent");
    one.wait_for("nothing was lost on the way", |report| report["rtp"] == 150 && report["dtls"] == 150);

    let after = session.wait_for_kernel();
    assert_ne!(before["a"]["ufrag"], after["a"]["ufrag"]);
    assert_ne!(remote(&before, "a", 1), remote(&after, "a", 1), "it has another socket");
    assert_eq!(before["a"]["candidates"], after["a"]["candidates"], "the relay has the same");
    assert_eq!(before["b"]["ufrag"], after["b"]["ufrag"], "the other leg has nothing to do with it");
    one.ask("send", &json!({ "count": 200 }), "sent");
    other.wait_for("nor in the new way", |report| report["rtp"] == 150 && report["dtls"] == 150);
    relay.relay.stop();
}

#[test]
fn an_agent_moves_to_another_address_and_family() {
    let Some(interpreter) = python::from_pypi() else { return };
    let lab = Lab::routed_with(2, 0);
    let relay = start(&lab);
    let session = relay.create(&ice(), &ice(), 1);
    let mut agents = [0, 1].map(|index| agent(&lab.clients[index], interpreter, 1));
    let mut chosen = Value::Null;
    for (agent, leg) in agents.iter_mut().zip(["a", "b"]) {
        chosen = connect(agent, &session, leg);
    }
    session.wait_for_kernel();
    let [one, other] = &mut agents;
    exchange([&mut *one, &mut *other], 100, 0);

    let from = chosen["1"]["local"].as_str().and_then(|local| local.rsplit_once(':')).expect("an address").0;
    let from = from.trim_matches(['[', ']']);
    let to = Family::ALL.map(|family| Lab::client_ip(family, 1)).into_iter().find(|ip| ip.to_string() != from);
    let to = to.expect("there are two").to_string();
    let mut events = session.events();
    other.ask("move", &json!({ "address": to }), "moved");
    let moved = events.event();
    assert_eq!(moved["event"], "moved", "{moved}");
    session.wait_for("the relay has followed", |session| {
        remote(session, "b", 1).is_some_and(|remote| remote.contains(&to))
    });
    session.wait_for_kernel();
    exchange([one, other], 200, 100);
    expect_kernel(&session.close(), 600, 99);
    relay.relay.stop();
}

fn agent(host: &hairpin_tests::lab::Namespace, interpreter: &Path, components: u16) -> Agent {
    Agent::start(host, interpreter, SCRIPT, [components.to_string()])
}
