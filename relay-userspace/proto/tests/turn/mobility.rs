//! Tickets (RFC 8016 sections 3.1.2 and 3.2.2): who gets one, and what it is good for.

use hairpin_proto::address::{AddressFamily, Transport};
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, Lifetime, MobilityTicket, RequestedAddressFamily, ReservationToken,
};
use hairpin_proto::turn::{Credentials, Disposition, RelayId, ServerConfig};

use crate::harness::{Answer, Client, Event, Relay, SECRET, TCP, UDP, channel_data, config_with, delivered};

pub(crate) const AT: &str = "203.0.113.7:41000";
pub(crate) const ELSEWHERE: &str = "198.51.100.77:52000";
pub(crate) const PEER: &str = "8.8.8.8:53";
const KEY: [u8; 32] = [5; 32];

pub(crate) fn mobile_config() -> ServerConfig {
    config_with(|settings| (settings.mobility, settings.tcp_relay) = (Some(KEY), true))
}

impl Relay {
    /// An allocation of a client that may move, and its ticket.
    pub(crate) fn allocate_mobile(&mut self, client: &mut Client) -> (RelayId, Vec<u8>) {
        let answer = self.request(client, Method::ALLOCATE, |request| request.with(&UDP).with(&MobilityTicket(&[])));
        answer.expect_success(client);
        (answer.bound(), answer.ticket().expect("a ticket was asked for"))
    }

    /// A Refresh request that shows a ticket.
    pub(crate) fn show(&mut self, client: &mut Client, ticket: &[u8]) -> Answer {
        self.request(client, Method::REFRESH, |request| request.with(&MobilityTicket(ticket)))
    }
}

/// An allocation with a channel, the client's new place, and its ticket.
pub(crate) fn channel_and_ticket(transport: Transport) -> (Relay, Client, RelayId, Vec<u8>) {
    let mut relay = Relay::new(mobile_config());
    let mut client = Client::alice(AT).over(transport);
    let (id, ticket) = relay.allocate_mobile(&mut client);
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    (relay, client, id, ticket)
}

#[test]
fn who_asks_for_a_ticket_gets_one_and_nobody_else() {
    let mut relay = Relay::new(mobile_config());
    let mut client = Client::alice(AT);
    let (_, ticket) = relay.allocate_mobile(&mut client);
    assert!(ticket.len() <= 64, "{} bytes", ticket.len());
    assert_eq!(relay.refresh(&mut client, 600).ticket(), None, "the old one is still good");
    let mut other = Client::alice(ELSEWHERE);
    let answer = relay.request(&mut other, Method::ALLOCATE, |request| request.with(&UDP));
    assert_eq!(answer.ticket(), None);
    relay.shut_down();
}

#[test]
fn mobility_that_is_not_allowed_is_forbidden() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let empty = MobilityTicket(&[]);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&empty)).expect_error(&client, 405);
    let full = MobilityTicket(b"ticket");
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&full)).expect_error(&client, 400);
    relay.show(&mut client, b"ticket").expect_error(&client, 405);
    relay.allocate(&mut client);
    relay.show(&mut client, b"ticket").expect_error(&client, 405);
    relay.shut_down();
}

#[test]
fn a_ticket_is_no_way_to_ask_for_one() {
    let mut relay = Relay::new(mobile_config());
    let mut client = Client::alice(AT);
    let ticket = MobilityTicket(b"ticket");
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&ticket)).expect_error(&client, 400);
    relay.shut_down();
}

#[test]
fn every_kind_of_allocation_may_be_mobile() {
    let mut relay = Relay::new(mobile_config());
    let empty = MobilityTicket(&[]);
    let both = AdditionalAddressFamily(Ok(AddressFamily::V6));
    let mut dual = Client::alice("203.0.113.7:1");
    let answer = relay.request(&mut dual, Method::ALLOCATE, |request| request.with(&UDP).with(&both).with(&empty));
    assert!(answer.ticket().is_some() && answer.relayed().len() == 2);
    let mut stream = Client::alice("203.0.113.7:2").over(Transport::Tls);
    let answer = relay.request(&mut stream, Method::ALLOCATE, |request| request.with(&TCP).with(&empty));
    assert!(answer.ticket().is_some());
    let mut late = Client::alice("203.0.113.7:3");
    let unknown = ReservationToken([9; 8]);
    let answer = relay.request(&mut late, Method::ALLOCATE, |request| request.with(&UDP).with(&unknown).with(&empty));
    assert_eq!((answer.code(), answer.ticket()), (508, None));
    relay.shut_down();
}

#[test]
fn a_refresh_with_the_ticket_from_elsewhere_gives_a_new_one() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    relay.pass(100);
    let mut moved = client.at(ELSEWHERE);
    let lifetime = Lifetime(1200);
    let answer =
        relay.request(&mut moved, Method::REFRESH, |request| request.with(&MobilityTicket(&ticket)).with(&lifetime));
    answer.expect_success(&moved);
    assert_eq!(answer.lifetime(), 1200);
    let next = answer.ticket().expect("a new ticket");
    assert_ne!(next, ticket);
    let moves = answer.events.iter().find(|event| matches!(event, Event::Moved(..)));
    let Some(Event::Moved(_, from, to)) = moves else { panic!("{answer:?}") };
    assert_eq!((*from, *to), (client.five_tuple, moved.five_tuple));
    assert_eq!(relay.server.allocations(), 1);
    relay.shut_down();
}

#[test]
fn a_ticket_that_nobody_has_made_is_refused() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    let mut moved = client.at(ELSEWHERE);
    let mut touched = ticket.clone();
    touched[20] ^= 1;
    for bytes in [&[][..], b"ticket", &ticket[1..], &touched] {
        relay.show(&mut moved, bytes).expect_error(&moved, 400);
    }
    let mut other = Relay::new(config_with(|settings| settings.mobility = Some([6; 32])));
    let (_, foreign) = other.allocate_mobile(&mut Client::alice(AT));
    relay.show(&mut moved, &foreign).expect_error(&moved, 400);
    relay.shut_down();
}

#[test]
fn a_ticket_of_an_allocation_that_has_ended_finds_none() {
    let (mut relay, mut client, _, ticket) = channel_and_ticket(Transport::Udp);
    relay.refresh(&mut client, 0).expect_success(&client);
    let mut moved = client.at(ELSEWHERE);
    relay.show(&mut moved, &ticket).expect_error(&moved, 437);
    // The next allocation has the same name, and is another one.
    let mut next = Client::alice("203.0.113.7:41001");
    relay.allocate_mobile(&mut next);
    assert_eq!(relay.allocations.iter().map(|id| id.0).collect::<Vec<_>>(), [0]);
    relay.show(&mut moved, &ticket).expect_error(&moved, 437);
    relay.refresh(&mut next, 0).expect_success(&next);
    let mut without = Client::alice("203.0.113.7:41002");
    relay.allocate(&mut without);
    relay.show(&mut moved, &ticket).expect_error(&moved, 437);
    relay.shut_down();
}

#[test]
fn a_ticket_ends_with_its_allocation_also_when_a_timer_is_late() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    let mut moved = client.at(ELSEWHERE);
    moved.nonce = relay.challenge(&moved);
    relay.sleep(600);
    assert_eq!(relay.show(&mut moved, &ticket).code(), 437);
    relay.shut_down();
}

#[test]
fn who_has_not_moved_may_not_show_a_ticket() {
    let (mut relay, mut client, _, ticket) = channel_and_ticket(Transport::Udp);
    relay.show(&mut client, &ticket).expect_error(&client, 400);
    let mut moved = client.at(ELSEWHERE);
    let next = relay.show(&mut moved, &ticket).ticket().unwrap();
    relay.show(&mut moved, &next).expect_error(&moved, 400);
    relay.shut_down();
}

#[test]
fn a_ticket_is_good_for_the_user_who_made_the_allocation() {
    let (mut relay, _, _, ticket) = channel_and_ticket(Transport::Udp);
    let mut bob = Client::new(ELSEWHERE, "bob", "hunter2");
    relay.show(&mut bob, &ticket).expect_error(&bob, 441);
    let mut mallory = Client::new(ELSEWHERE, "alice", "guess");
    assert_eq!(relay.show(&mut mallory, &ticket).code(), 401);
    let mut alice = Client::alice(ELSEWHERE);
    relay.show(&mut alice, &ticket).expect_success(&alice);
    relay.shut_down();
}

#[test]
fn a_stranger_with_a_ticket_is_challenged() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    let mut bytes = Vec::new();
    let id = relay.transaction_id();
    hairpin_proto::stun::MessageBuilder::new(&mut bytes, hairpin_proto::stun::Class::Request, Method::REFRESH, id)
        .with(&MobilityTicket(&ticket))
        .finish(false);
    let moved = client.at(ELSEWHERE);
    let answer = relay.answer(&moved, &bytes);
    assert_eq!((answer.code(), answer.events.len()), (401, 0));
    relay.shut_down();
}

#[test]
fn the_nonce_of_the_old_address_is_stale_at_the_new_one() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    let mut moved = Client { nonce: client.nonce.clone(), ..client.at(ELSEWHERE) };
    assert_eq!(relay.show(&mut moved, &ticket).code(), 438);
    let mut moved = client.at(ELSEWHERE);
    relay.show(&mut moved, &ticket).expect_success(&moved);
    relay.shut_down();
}

#[test]
fn a_credential_that_has_expired_meanwhile_still_moves_what_it_has_made() {
    let mut relay = Relay::new(mobile_config());
    let (username, password) = Credentials::mint(SECRET, "carol", relay.now.unix + 10);
    let mut client = Client::new(AT, &username, &password);
    let (_, ticket) = relay.allocate_mobile(&mut client);
    relay.pass(20);
    let mut moved = client.at(ELSEWHERE);
    assert_eq!(relay.refresh(&mut moved, 600).code(), 401, "without the ticket nobody knows what it is about");
    relay.show(&mut moved, &ticket).expect_success(&moved);
    relay.shut_down();
}

#[test]
fn a_ticket_is_good_for_one_move() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    let mut moved = client.at(ELSEWHERE);
    let next = relay.show(&mut moved, &ticket).ticket().unwrap();
    let mut third = client.at("198.51.100.78:1");
    relay.show(&mut third, &ticket).expect_error(&third, 400);
    relay.show(&mut third, &next).expect_success(&third);
    relay.show(&mut moved, &ticket).expect_error(&moved, 400);
    relay.shut_down();
}

#[test]
fn a_client_that_missed_its_answer_may_show_the_old_ticket_for_thirty_seconds() {
    for (seconds, code) in [(29, 200), (30, 400)] {
        let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
        let mut moved = client.at(ELSEWHERE);
        relay.show(&mut moved, &ticket).expect_success(&moved);
        relay.sleep(seconds);
        let mut bob = Client::new(ELSEWHERE, "bob", "hunter2");
        let expected = if code == 200 { 441 } else { 400 };
        relay.show(&mut bob, &ticket).expect_error(&bob, expected);
        let answer = relay.show(&mut moved, &ticket);
        assert_eq!(answer.code(), code, "after {seconds} seconds");
        if code == 200 {
            assert!(!answer.events.iter().any(|event| matches!(event, Event::Moved(..))), "it has moved already");
            let next = answer.ticket().expect("the ticket that was missed, or one as good");
            let mut third = client.at("198.51.100.78:1");
            relay.show(&mut third, &next).expect_success(&third);
        }
        relay.shut_down();
    }
}

#[test]
fn who_sends_data_has_its_answer_and_the_old_ticket_is_discarded() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    let mut moved = client.at(ELSEWHERE);
    relay.show(&mut moved, &ticket).expect_success(&moved);
    delivered(relay.client_sends(&moved, &channel_data(0x4000, b"data")));
    relay.drain();
    relay.show(&mut moved, &ticket).expect_error(&moved, 400);
    relay.shut_down();
}

#[test]
fn a_move_that_comes_again_is_answered_again() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    let mut moved = client.at(ELSEWHERE);
    let request = relay.signed(&mut moved, Method::REFRESH, |request| request.with(&MobilityTicket(&ticket)));
    let first = relay.answer(&moved, &request);
    first.expect_success(&moved);
    delivered(relay.client_sends(&moved, &channel_data(0x4000, b"data")));
    relay.drain();
    relay.pass(30);
    let again = relay.answer(&moved, &request);
    assert_eq!((&again.bytes, &again.events[..]), (&first.bytes, &[][..]));
    relay.shut_down();
}

#[test]
fn a_refresh_that_is_refused_moves_nothing() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    let mut moved = client.at(ELSEWHERE);
    let v6 = RequestedAddressFamily(Ok(AddressFamily::V6));
    relay
        .request(&mut moved, Method::REFRESH, |request| request.with(&MobilityTicket(&ticket)).with(&v6))
        .expect_error(&moved, 443);
    relay.refresh(&mut moved, 600).expect_error(&moved, 437);
    relay.show(&mut moved, &ticket).expect_success(&moved);
    relay.shut_down();
}

#[test]
fn an_address_that_has_an_allocation_takes_no_other() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    let mut busy = client.at(ELSEWHERE);
    relay.allocate(&mut busy);
    relay.show(&mut busy, &ticket).expect_error(&busy, 437);
    let mut waiting = client.at("198.51.100.78:1");
    relay.binds = false;
    let allocate = relay.signed(&mut waiting, Method::ALLOCATE, |request| request.with(&UDP));
    relay.control(&waiting, &allocate);
    relay.show(&mut waiting, &ticket).expect_error(&waiting, 437);
    relay.shut_down();
}

#[test]
fn where_a_client_has_moved_to_it_cannot_allocate_again() {
    let (mut relay, client, _, ticket) = channel_and_ticket(Transport::Udp);
    let mut moved = client.at(ELSEWHERE);
    relay.show(&mut moved, &ticket).expect_success(&moved);
    relay.request(&mut moved, Method::ALLOCATE, |request| request.with(&UDP)).expect_error(&moved, 437);
    relay.shut_down();
}

#[test]
fn a_ticket_of_another_shard_is_for_that_shard() {
    let sharded = |shard, shards| Relay::new(ServerConfig { shard, shards, ..mobile_config() });
    let mut owner = sharded(2, 3);
    let mut client = Client::alice(AT);
    let (_, ticket) = owner.allocate_mobile(&mut client);
    let mut first = sharded(0, 3);
    let mut moved = client.at(ELSEWHERE);
    let request = first.signed(&mut moved, Method::REFRESH, |request| request.with(&MobilityTicket(&ticket)));
    first.drain();
    let counts = |relay: &Relay| relay.server.message_counts().requests().collect::<Vec<_>>();
    let before = counts(&first);
    assert_eq!(first.client_sends(&moved, &request), Disposition::Elsewhere { shard: 2 });
    assert_eq!((first.drain(), counts(&first)), (vec![], before), "it was not looked at");
    owner.answer(&moved, &request).expect_success(&moved);
    owner.shut_down();
    // After a restart there may be fewer shards.
    let mut fewer = sharded(0, 2);
    fewer.show(&mut moved, &ticket).expect_error(&moved, 437);
}
