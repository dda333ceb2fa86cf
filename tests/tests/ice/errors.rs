//! What ICMP packets say of media that has left a leg.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use hairpin_tests::lab::ice::IceRelay;
use hairpin_tests::lab::{Family, Lab};
use serde_json::json;

use crate::of_ipv4;

/// More than a socket's error queue holds.
const ERRORS: usize = 3000;
const MEDIA: [u8; 12] = [0x80; 12];

#[test]
fn errors_about_a_remote_that_is_gone_do_not_make_its_leg_deaf() {
    let lab = Lab::routed();
    let (client, peer) = (&lab.clients[0], &lab.peers[0]);
    // Otherwise a host tells of some of them only.
    peer.enter(|| fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0")).expect("the namespace is ours");
    let relay = IceRelay::start(&lab.relay, &["--xdp", "off"]);
    let session = relay.create(&json!({ "kind": "plain" }), &json!({ "kind": "plain" }), 1);
    let bind = |address: SocketAddr| UdpSocket::bind(address).expect("a host of the lab has free ports");
    let caller = client.enter(|| bind(SocketAddr::new(Lab::client_ip(Family::V4, 0), 4000)));
    let gone = SocketAddr::new(Lab::peer_ip(Family::V4, 0), 5000);
    for (leg, remote) in [("a", caller.local_addr().expect("it is bound")), ("b", gone)] {
        session.remote(leg, &json!({ "addresses": [{ "address": remote.to_string() }] }));
    }
    let shown = session.show();
    let [a, b] = ["a", "b"].map(|leg| of_ipv4(&shown[leg]));
    for number in 0..ERRORS {
        caller.send_to(&MEDIA, a).expect("the lab's link is up");
        if number % 50 == 0 {
            // A busy host has the relay wait, and its socket holds some hundred.
            thread::sleep(Duration::from_millis(2));
        }
    }
    relay.relay.wait_for("all to be relayed", |metrics| {
        metrics.sum("hairpin_media_packets_total", &[("path", "userspace")]) >= ERRORS as u64 / 2
    });

    let back = peer.enter(|| bind(gone));
    caller.set_read_timeout(Some(Duration::from_secs(5))).expect("the time is not zero");
    let mut buffer = [0; 64];
    for number in 0..200_u8 {
        let mut media = MEDIA;
        media[1] = number;
        back.send_to(&media, b).expect("the lab's link is up");
        let (length, from) = caller.recv_from(&mut buffer).unwrap_or_else(|error| panic!("datagram {number}: {error}"));
        assert_eq!((&buffer[..length], from), (&media[..], a));
    }
    session.close();
    relay.relay.stop();
}
