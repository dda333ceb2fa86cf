//! What a session is said to have carried, in the end.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hairpin_tests::lab::ice::IceRelay;
use hairpin_tests::lab::{Family, Lab};
use serde_json::json;

use crate::of_ipv4;

/// Sessions, one after the other.
const CALLS: u16 = 12;
const MEDIA: [u8; 100] = [0x80; 100];
/// How often each side sends.
const PACE: Duration = Duration::from_micros(300);

#[test]
fn a_session_that_is_closed_amid_its_media_has_carried_what_has_arrived_to_the_packet() {
    let lab = Lab::routed();
    for xdp in ["native", "off"] {
        let relay = IceRelay::start(&lab.relay, &["--xdp", xdp]);
        for call in 0..CALLS {
            let [a, b] = [lab.clients[0].enter(|| party(Lab::client_ip(Family::V4, 0), 4000 + call)), {
                lab.peers[0].enter(|| party(Lab::peer_ip(Family::V4, 0), 5000 + call))
            }];
            let plain =
                |socket: &UdpSocket| json!({ "addresses": [{ "address": socket.local_addr().expect("it is bound") }] });
            let session = relay.create(&json!({ "kind": "plain" }), &json!({ "kind": "plain" }), 1);
            session.remote("a", &plain(&a));
            session.remote("b", &plain(&b));
            let shown = if xdp == "native" { session.wait_for_kernel() } else { session.show() };
            let legs = ["a", "b"].map(|leg| of_ipv4(&shown[leg]));
            let is_over = AtomicBool::new(false);
            let (closed, received) = thread::scope(|scope| {
                for (socket, leg) in [(&a, legs[0]), (&b, legs[1])] {
                    let is_over = &is_over;
                    scope.spawn(move || {
                        while !is_over.load(Ordering::Relaxed) {
                            let _ = socket.send_to(&MEDIA, leg);
                            thread::sleep(PACE);
                        }
                    });
                }
                let counts = [&b, &a].map(|socket| scope.spawn(|| count(socket)));
                thread::sleep(Duration::from_millis(150));
                let closed = session.close();
                is_over.store(true, Ordering::Relaxed);
                (closed, counts.map(|count| count.join().expect("it only counts")))
            });
            let totals = ["a_to_b", "b_to_a"].map(|way| closed["totals"][way]["packets"].as_u64().expect("a number"));
            assert!(received.iter().all(|received| *received > 50), "{received:?} of {closed:#}");
            assert_eq!(totals, received, "xdp {xdp}, call {call}: {closed:#}");
            if xdp == "native" {
                let kernel = closed["totals"]["kernel"]["packets"].as_u64().expect("a number");
                assert!(kernel > totals.iter().sum::<u64>() / 2, "{closed:#}");
            }
        }
        relay.relay.stop();
    }
}

fn party(ip: std::net::IpAddr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(ip, port)).expect("a host of the lab has free ports");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("the time is not zero");
    socket
}

/// How many come, until none come any more.
fn count(socket: &UdpSocket) -> u64 {
    let mut buffer = [0; 200];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).map(|length| assert_eq!(length, MEDIA.len())).count() as u64
}
