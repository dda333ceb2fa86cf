//! Clients over DTLS and the limits for strangers: the program cannot see into an association, so the daemon vouches.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use hairpin_tests::lab::call::{CHANNEL, bind, receive};
use hairpin_tests::lab::relay::{PASSWORD, USER, every_transport};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Authority, Family, Key, Lab, Metrics, Relay, Transport};

/// Datagrams that a stranger may send in a second, and that many at once.
const RATE: u64 = 50;
/// More than that, in about a second.
const DATAGRAMS: u64 = 400;
const PAUSE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(2);

/// Datagrams of strangers that were too many, by path.
fn refused(metrics: &Metrics) -> [u64; 2] {
    ["kernel", "userspace"].map(|path| metrics.dropped(path, "source_rate"))
}

/// Sends [`DATAGRAMS`], and returns how many of them the program dropped. What it lets through is all that userspace
/// gets, whose own meter may be a little stricter with some that have waited.
fn refused_of(relay: &Relay<'_>, mut send: impl FnMut(u64)) -> u64 {
    let before = refused(&relay.metrics());
    for number in 0..DATAGRAMS {
        send(number);
        thread::sleep(PAUSE);
    }
    let after = refused(&relay.metrics());
    assert!(after[1] - before[1] < RATE / 5, "what is too much ends in the kernel: {before:?} {after:?}");
    after[0] - before[0]
}

#[test]
fn a_client_over_dtls_is_no_stranger_as_long_as_it_has_an_allocation() {
    let lab = Lab::routed_with(2, 1);
    let certificate = Authority::new().issue(Key::Ecdsa, "turn.test", &Family::ALL.map(Lab::relay_ip));
    let (rate, listeners) = (RATE.to_string(), every_transport(&certificate));
    let limited = ["--xdp", "native", "--source-packet-rate", &rate];
    let options: Vec<&str> = limited.into_iter().chain(listeners.iter().map(String::as_str)).collect();
    let relay = Relay::start(&lab.relay, &options);
    for family in Family::ALL {
        let server = SocketAddr::new(Lab::relay_ip(family), Transport::Dtls.port());
        let here = SocketAddr::new(Lab::client_ip(family, 0), 0);
        let mut client = Client::at(Transport::Dtls, &lab.clients[0], here, server, USER, PASSWORD);
        let relayed = client.allocate().expect("the relay has room");
        let peer = bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(family, 0), 0));
        peer.connect(relayed).expect("the lab has a route");
        client.bind_channel(CHANNEL, peer.local_addr().expect("it is bound")).expect("a peer of the lab is allowed");
        relay.wait_for("the kernel knows the client", |metrics| metrics.sum("hairpin_flows", &[]) == 1);

        // Each datagram arrives, and is answered, although a stranger at the same address sends as many.
        let stranger = bind(&lab.clients[0], here);
        let too_many = refused_of(&relay, |number| {
            let data = number.to_be_bytes();
            stranger.send_to(&[0xff; 40], server).expect("the lab has a route");
            client.send_on_channel(CHANNEL, &data);
            assert_eq!(receive(&peer, PATIENCE).as_deref(), Some(&data[..]), "{family:?} {number}");
            peer.send(&data).expect("the lab has a route");
            assert_eq!(client.receive_on_channel(PATIENCE), Some((CHANNEL, data.to_vec())), "{family:?} {number}");
        });
        assert!((DATAGRAMS / 4..DATAGRAMS).contains(&too_many), "{too_many} of the stranger's were dropped");

        // One more association, without an allocation, at another address.
        let there = SocketAddr::new(Lab::client_ip(family, 1), 0);
        let guest = Client::at(Transport::Dtls, &lab.clients[1], there, server, USER, PASSWORD);
        let too_many = refused_of(&relay, |number| guest.send_on_channel(CHANNEL, &number.to_be_bytes()));
        assert!((DATAGRAMS / 4..DATAGRAMS).contains(&too_many), "{too_many} of the guest's were dropped");

        // Without its allocation the client is what the guest is.
        assert_eq!(client.refresh(0), Ok(0));
        relay.wait_for("the kernel has forgotten the client", |metrics| metrics.sum("hairpin_flows", &[]) == 0);
        let too_many = refused_of(&relay, |number| client.send_on_channel(CHANNEL, &number.to_be_bytes()));
        assert!((DATAGRAMS / 4..DATAGRAMS).contains(&too_many), "{too_many} of the former client's were dropped");
    }
    relay.stop();
}
