//! Who answers Binding requests where clients discover their NAT (RFC 5780), and where they do not: the program knows
//! neither RESPONSE-ORIGIN nor OTHER-ADDRESS, so it must not answer for a daemon that does.

use std::net::SocketAddr;

use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{OtherAddress, ResponseOrigin, XorMappedAddress};
use hairpin_tests::lab::coturn::{natdiscovery, stunclient};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::server::is_installed;
use hairpin_tests::lab::turn::{Client, Response};
use hairpin_tests::lab::{Family, Lab, Metrics, Relay};

const SECOND_ADDRESSES: &str = "addr add 11.3.0.77/24 dev eth0\naddr add 2a0e:11:3::77/64 dev eth0 nodad";

/// Binding requests that were answered, by path.
fn answered(metrics: &Metrics) -> [u64; 2] {
    let answered = [("method", "binding"), ("code", "200")];
    ["kernel", "userspace"]
        .map(|path| metrics.sum("hairpin_stun_responses_total", &[("path", path), answered[0], answered[1]]))
}

#[test]
fn the_program_leaves_discovery_to_the_daemon() {
    if !is_installed("turnutils_natdiscovery") {
        return;
    }
    let lab = Lab::routed();
    lab.relay.ip(SECOND_ADDRESSES);
    let discovery = ["--nat-discovery", "11.3.0.77", "--nat-discovery", "2a0e:11:3::77"];
    let listeners = ["--listen", "11.3.0.2:3478", "--listen", "[2a0e:11:3::2]:3478", "--xdp", "native"];
    let relay = Relay::start(&lab.relay, &[&listeners[..], &discovery].concat());
    for (family, second) in [(Family::V4, "11.3.0.77"), (Family::V6, "2a0e:11:3::77")] {
        let first = Lab::relay_ip(family);
        let before = answered(&relay.metrics());
        let response = binding(&lab, family);
        let origin = response.get(|message| message.attribute().ok().flatten());
        assert_eq!(origin, Some(ResponseOrigin(SocketAddr::new(first, PORT))), "{family:?}");
        let other = SocketAddr::new(second.parse().expect("an address"), PORT + 1);
        assert_eq!(response.get(|message| message.attribute().ok().flatten()), Some(OtherAddress(other)), "{family:?}");

        let finished = natdiscovery(&lab.clients[0], &format!("-m -f {first}"));
        let places = |name: &str| -> Vec<_> {
            let lines = finished.stdout.lines().filter_map(|line| line.split_once(name)).map(|(_, place)| place.trim());
            lines.map(str::to_owned).collect()
        };
        // Coturn writes no brackets.
        let at = |ip: &str, port: u16| format!("{ip}:{port}");
        let first = first.to_string();
        // The first answer is printed twice; the others are from where they were asked, and from where they asked for.
        let origins = [at(&first, 3478), at(&first, 3478), at(second, 3478), at(&first, 3478), at(second, 3479)];
        assert_eq!(places("Response origin: : "), origins, "{finished}");
        let others = [at(second, 3479), at(&first, 3479), at(second, 3479), at(second, 3479)];
        assert_eq!(places("Other addr: : "), others, "{finished}");
        let after = answered(&relay.metrics());
        assert_eq!((after[0] - before[0], after[1] - before[1]), (0, 5), "{finished}");

        let finished = stunclient(&lab.clients[0], Lab::relay_ip(family));
        for number in 1..=3 {
            assert!(finished.stdout.contains(&format!("RFC 5780 response {number}")), "{number}: {finished}");
        }
        assert_eq!(answered(&relay.metrics())[0], before[0], "{finished}");
    }
    relay.stop();
}

#[test]
fn without_discovery_the_program_answers() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for family in Family::ALL {
        let before = answered(&relay.metrics());
        let response = binding(&lab, family);
        assert_eq!(response.get(|message| message.attribute::<ResponseOrigin>().ok().flatten()), None);
        let after = answered(&relay.metrics());
        assert_eq!((after[0] - before[0], after[1] - before[1]), (1, 0), "{family:?}");
    }
    relay.stop();
}

/// The response to a Binding request that asks for nothing else, as most of them do.
fn binding(lab: &Lab, family: Family) -> Response {
    let local = SocketAddr::new(Lab::client_ip(family, 0), 0);
    let server = SocketAddr::new(Lab::relay_ip(family), PORT);
    let mut client = Client::new(&lab.clients[0], local, server, USER, PASSWORD);
    let response = client.request(Method::BINDING, |request| request).expect("nobody has to be known for that");
    let mapped = response.get(|message| message.attribute::<XorMappedAddress>().ok().flatten());
    assert_eq!(mapped, Some(XorMappedAddress(client.local())));
    response
}
