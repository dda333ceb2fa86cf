//! Credentials that expire, and whose allocation it is.

use hairpin_proto::stun::Method;
use hairpin_proto::turn::Credentials;

use crate::harness::{Client, Relay, SECRET, UDP, realm};

const AT: &str = "203.0.113.7:41000";

fn minted(relay: &Relay, at: &str, name: &str, seconds: u64) -> Client {
    let (username, password) = Credentials::mint(SECRET, name, relay.now.unix + seconds);
    Client::new(at, &username, &password)
}

#[test]
fn a_minted_credential_allocates_until_it_expires() {
    let mut relay = Relay::default();
    let mut client = minted(&relay, AT, "carol", 60);
    relay.sleep(59);
    relay.allocate(&mut client);
    let mut late = minted(&relay, "203.0.113.7:41001", "carol", 60);
    relay.sleep(60);
    assert_eq!(relay.request(&mut late, Method::ALLOCATE, |request| request.with(&UDP)).code(), 401);
}

#[test]
fn a_call_outlives_the_credential_that_it_began_with() {
    let mut relay = Relay::default();
    let mut client = minted(&relay, AT, "carol", 60);
    relay.allocate(&mut client);
    relay.sleep(120);
    relay.refresh(&mut client, 600).expect_success(&client);
    relay.permit(&mut client, &["8.8.8.8:53"]).expect_success(&client);
    relay.refresh(&mut client, 0).expect_success(&client);
    assert_eq!(relay.refresh(&mut client, 600).code(), 401, "but no longer");
}

#[test]
fn an_allocation_is_its_users_alone() {
    let mut relay = Relay::default();
    let mut alice = Client::alice(AT);
    relay.allocate(&mut alice);
    let mut bob = Client::new(AT, "bob", "hunter2");
    relay.refresh(&mut bob, 0).expect_error(&bob, 441);
    relay.permit(&mut bob, &["8.8.8.8:53"]).expect_error(&bob, 441);
    relay.bind_channel(&mut bob, 0x4000, "8.8.8.8:53").expect_error(&bob, 441);
    relay.refresh(&mut alice, 600).expect_success(&alice);
}

#[test]
fn a_fresh_credential_of_the_same_user_is_another_username() {
    let mut relay = Relay::default();
    let mut client = minted(&relay, AT, "carol", 60);
    relay.allocate(&mut client);
    let mut fresh = minted(&relay, AT, "carol", 120);
    relay.refresh(&mut fresh, 600).expect_error(&fresh, 441);
}

#[test]
fn a_fresh_credential_of_the_same_user_shares_its_quota() {
    let mut config = crate::harness::config();
    realm(&mut config.settings).allocations_per_user = 1;
    let mut relay = Relay::new(config);
    relay.allocate(&mut minted(&relay, AT, "carol", 60));
    let mut again = minted(&relay, "203.0.113.7:41001", "carol", 120);
    let answer = relay.request(&mut again, Method::ALLOCATE, |request| request.with(&UDP));
    answer.expect_error(&again, 486);
    relay.allocate(&mut minted(&relay, "203.0.113.7:41002", "dave", 60));
}
