//! A server that is drained and sends the clients that it has to other servers, too.

use hairpin_proto::address::Transport;
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{AlternateServerAttribute, Lifetime, MobilityTicket};
use hairpin_proto::turn::{AlternateServer, Disposition, Draining, EndReason, ServerConfig};

use crate::harness::{Answer, Client, Event, Relay, config_with, send_indication, socket};
use crate::mobility::mobile_config;

const AT: &str = "203.0.113.7:41000";
const AT_V6: &str = "[2001:db8::7]:41000";
const OTHER: &str = "198.51.100.1:3478";
const PEER: &str = "8.8.8.8:53";

fn other() -> Vec<AlternateServer> {
    vec![AlternateServer::new(socket(OTHER)).unwrap()]
}

fn with_other() -> ServerConfig {
    config_with(|settings| settings.alternates = other())
}

fn expect_sent_away(client: &Client, answer: &Answer) {
    answer.expect_error(client, 300);
    let servers: Vec<_> = answer.message().each::<AlternateServerAttribute>().map(Result::unwrap).collect();
    assert_eq!(servers, [AlternateServerAttribute(socket(OTHER))]);
    assert_eq!(answer.message().attribute::<Lifetime>(), Ok(None));
}

#[test]
fn a_client_is_sent_away_when_it_would_stay_and_has_what_it_has_until_its_lifetime_ends() {
    let mut relay = Relay::new(with_other());
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    let ends = relay.server.poll_timeout();
    relay.server.set_draining(Draining::AllClients);
    assert!(relay.server.is_draining());
    relay.pass(100);
    for lifetime in [600, 1] {
        let answer = relay.refresh(&mut client, lifetime);
        expect_sent_away(&client, &answer);
    }
    assert_eq!(relay.server.poll_timeout(), ends, "its end is where it was");
    // Media goes on while the client moves, and so does what media needs.
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    assert!(matches!(relay.client_sends(&client, &send_indication(PEER, b"x")), Disposition::Forward(_)));
    assert!(matches!(relay.peer_sends(id, PEER, b"x"), Disposition::Forward(_)));
    let events = relay.pass(500);
    assert!(events.iter().any(|event| matches!(event, Event::Freed(_, EndReason::Expired))), "{events:?}");
    relay.shut_down();
}

#[test]
fn a_client_that_leaves_by_itself_is_let_go() {
    let mut relay = Relay::new(with_other());
    let mut client = Client::alice(AT);
    relay.allocate(&mut client);
    relay.server.set_draining(Draining::AllClients);
    relay.refresh(&mut client, 0).expect_success(&client);
    assert_eq!(relay.server.allocations(), 0);
}

#[test]
fn a_client_for_which_there_is_no_other_server_stays() {
    let mut relay = Relay::new(with_other());
    let mut client = Client::alice(AT_V6);
    relay.allocate(&mut client);
    relay.server.set_draining(Draining::AllClients);
    relay.refresh(&mut client, 600).expect_success(&client);
    // Nor does anybody leave who is welcome again, or was to stay in the first place.
    for draining in [Draining::No, Draining::NewClients] {
        let mut relay = Relay::new(with_other());
        let mut client = Client::alice(AT);
        relay.allocate(&mut client);
        relay.server.set_draining(Draining::AllClients);
        relay.server.set_draining(draining);
        relay.refresh(&mut client, 600).expect_success(&client);
    }
}

#[test]
fn a_client_over_a_stream_is_sent_away_too() {
    let mut relay = Relay::new(with_other());
    let mut client = Client::alice(AT).over(Transport::Tcp);
    relay.allocate(&mut client);
    relay.server.set_draining(Draining::AllClients);
    let answer = relay.refresh(&mut client, 600);
    expect_sent_away(&client, &answer);
}

#[test]
fn a_client_whose_address_has_changed_is_served_first() {
    let mut config = mobile_config();
    config.settings.alternates = other();
    let mut relay = Relay::new(config);
    let client = &mut Client::alice(AT);
    let (_, ticket) = relay.allocate_mobile(client);
    relay.server.set_draining(Draining::AllClients);
    let mut moved = client.at("203.0.113.8:41000");
    let shown = MobilityTicket(&ticket);
    relay.request(&mut moved, Method::REFRESH, |request| request.with(&shown)).expect_success(&moved);
    let answer = relay.refresh(&mut moved, 600);
    expect_sent_away(&moved, &answer);
}
