//! How many connections there may be, who is refused, and who has to go.

use std::time::Duration;

use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Namespace, Stream, Transport};

use super::{LISTEN, PASSWORD, PATIENCE, Server, USER, local, mapped};

const MOMENT: Duration = Duration::from_millis(300);

#[test]
fn of_too_many_new_connections_the_oldest_goes_and_none_with_an_allocation() {
    let host = Namespace::new("limits");
    let server = Server::start(&host, &format!("{LISTEN} --shards 1 --max-new-connections 3"));
    let mut allocated = [Transport::Tcp, Transport::Tls].map(|transport| server.client(transport));
    for client in &mut allocated {
        client.allocate().expect("there is room");
    }
    let mut new: Vec<Stream> = Vec::new();
    for transport in [Transport::Tcp, Transport::Tls, Transport::Tcp, Transport::Tcp, Transport::Tls] {
        let mut stream = server.connect(transport);
        assert_eq!(mapped(&mut stream), stream.local());
        new.push(stream);
    }
    server.expect_ended("too_many", 2);
    assert_eq!(server.relay.metrics().sum("hairpin_new_connections", &[]), 3);
    for (number, stream) in new.iter_mut().enumerate() {
        if number < 2 {
            assert!(stream.ends(PATIENCE), "number {number} was the oldest");
        } else {
            assert_eq!(mapped(stream), stream.local(), "number {number} stays");
        }
    }
    // Who gets an allocation makes room, and is not displaced either.
    let mut third = Client::over(new.remove(2), USER, PASSWORD);
    third.allocate().expect("there is room");
    let mut more: Vec<Stream> = (0..4).map(|_| server.connect(Transport::Tcp)).collect();
    for stream in &mut more {
        stream.offer(&super::binding(9));
    }
    for client in allocated.iter_mut().chain([&mut third]) {
        assert_eq!(client.refresh(600), Ok(600), "a client with an allocation is never displaced");
    }
    server.relay.stop();
}

#[test]
fn one_source_has_so_many_new_connections_and_another_has_its_own() {
    let host = Namespace::new("limits");
    host.ip("addr add 10.9.0.1/32 dev lo");
    let options =
        "--listen tcp:127.0.0.1:3478 --listen tcp:10.9.0.1:3478 --shards 1 --max-new-connections-per-source 2";
    let server = Server::start(&host, &format!("{options} --relay-address 127.0.0.1"));
    let mut first: Vec<Stream> = (0..2).map(|_| server.connect(Transport::Tcp)).collect();
    for stream in &mut first {
        assert_eq!(mapped(stream), stream.local());
    }
    let mut third = server.connect(Transport::Tcp);
    third.offer(&super::binding(1));
    assert!(third.ends(PATIENCE), "there are two");
    server.expect_ended("too_many", 1);
    // What is sent to another address of this host is sent from there.
    let mut other = Stream::connect(&host, ([10, 9, 0, 1], 3478).into(), Transport::Tcp);
    assert_eq!(mapped(&mut other), other.local());
    assert_eq!(other.local().ip().to_string(), "10.9.0.1");
    for stream in &mut first {
        assert_eq!(mapped(stream), stream.local(), "it is the newest that is refused");
    }
    let mut client = Client::over(first.remove(0), USER, PASSWORD);
    client.allocate().expect("there is room");
    let mut again = server.connect(Transport::Tcp);
    assert_eq!(mapped(&mut again), again.local(), "the one with an allocation is new no more");
    server.relay.stop();
}

#[test]
fn of_too_many_connections_a_new_one_makes_way_and_without_any_the_newest_is_refused() {
    let host = Namespace::new("limits");
    let server = Server::start(&host, &format!("{LISTEN} --shards 1 --max-connections 3"));
    let mut clients: Vec<Client> = (0..2).map(|_| server.client(Transport::Tls)).collect();
    for client in &mut clients {
        client.allocate().expect("there is room");
    }
    let mut third = server.connect(Transport::Tcp);
    assert_eq!(mapped(&mut third), third.local());
    let mut fourth = server.client(Transport::Tcp);
    fourth.allocate().expect("there is room");
    assert!(third.ends(PATIENCE), "it has no allocation");
    server.expect_ended("too_many", 1);
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut stream = server.connect(transport);
        stream.offer(&super::binding(1));
        assert!(stream.ends(PATIENCE), "there are three, with an allocation each");
    }
    server.expect_ended("too_many", 3);
    for client in clients.iter_mut().chain([&mut fourth]) {
        assert_eq!(client.refresh(600), Ok(600));
    }
    // When one has gone there is room for one.
    drop(fourth);
    server.expect_ended("client", 1);
    let mut next = server.connect(Transport::Tcp);
    assert_eq!(mapped(&mut next), next.local());
    assert_eq!(next.receive(MOMENT), None);
    let mut udp = server.udp_client();
    assert!(udp.allocate().is_ok(), "UDP has no connections to count");
    assert_ne!(udp.local(), local(0));
    server.relay.stop();
}
