//! libnice, which does not know what a lite agent is, and in its own way of nomination and of consent.

use std::path::Path;
use std::thread;
use std::time::Duration;

use hairpin_tests::lab::{Agent, Lab, Namespace, python};
use serde_json::{Value, json};

use super::{connect, exchange, expect_kernel, ice, start};

const IMPORTS: &str = "import gi; gi.require_version('Nice', '0.1'); from gi.repository import GLib, Nice";

#[test]
fn regular_nomination_with_requests_for_consent() {
    pair("regular", "consent");
}

#[test]
fn aggressive_nomination_with_nothing_but_indications_afterwards() {
    pair("aggressive", "keepalive");
}

/// By default libnice sends indications, which prove nothing, and no requests. Its media shows that it is alive.
#[test]
fn an_agent_that_never_asks_for_consent_goes_on_for_as_long_as_it_sends() {
    let Some(interpreter) = python::from_debian(IMPORTS) else { return };
    let lab = Lab::routed_with(2, 0);
    let relay = start(&lab);
    let session = relay.create_with(&json!({ "a": ice(), "b": ice(), "timeouts": { "consent": 4, "paused": 4 } }));
    let mut agents = [0, 1].map(|index| agent(&lab.clients[index], interpreter, ["regular", "keepalive"]));
    for (agent, leg) in agents.iter_mut().zip(["a", "b"]) {
        connect(agent, &session, leg);
    }
    let [one, other] = &mut agents;
    for agent in [&mut *one, &mut *other] {
        agent.tell("send", &json!({ "count": 1000, "interval": 0.01 }));
    }
    for _ in 0..10 {
        thread::sleep(Duration::from_secs(1));
        assert_eq!(session.show()["state"], "connected");
    }
    for agent in [one, other] {
        agent.hear("sent");
        agent.wait_for("all have arrived", |report| report["rtp"] == 500 && report["dtls"] == 500);
    }
    expect_kernel(&session.close(), 2000, 99);
    relay.relay.stop();
}

/// They meet, exchange datagrams, and do so again after one of them has restarted, from the same sockets.
fn pair(nomination: &str, liveness: &str) {
    let Some(interpreter) = python::from_debian(IMPORTS) else { return };
    let lab = Lab::routed_with(2, 0);
    let relay = start(&lab);
    let session = relay.create(&ice(), &ice(), 1);
    let mut agents = [0, 1].map(|index| agent(&lab.clients[index], interpreter, [nomination, liveness]));
    for (agent, leg) in agents.iter_mut().zip(["a", "b"]) {
        connect(agent, &session, leg);
    }
    let before = session.wait_for_kernel();
    let [one, other] = &mut agents;
    exchange([&mut *one, &mut *other], 200, 0);

    session.restart("b");
    other.tell("restart", &Value::Null);
    connect(other, &session, "b");
    let after = session.wait_for_kernel();
    assert_ne!(before["b"]["ufrag"], after["b"]["ufrag"]);
    exchange([one, other], 200, 200);
    expect_kernel(&session.close(), 800, 99);
    relay.relay.stop();
}

fn agent(host: &Namespace, interpreter: &Path, arguments: [&str; 2]) -> Agent {
    Agent::start(host, interpreter, "libnice_agent.py", arguments)
}
