//! A relay that is drained, or full, sends new clients elsewhere (RFC 8489 section 10).

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hairpin_client::{AllocateOptions, Credentials, Error, Options, Settings};
use hairpin_proto::stun::LongTermKey;
use hairpin_proto::stun::attribute::{AlternateDomain, AlternateServerAttribute};
use hairpin_tests::lab::turn::{Client, Refused};
use hairpin_tests::lab::{Namespace, Relay, Transport};
use rustix::process::Signal;

use super::{LISTEN, PASSWORD, PATIENCE, Server, USER, inside, local};

const CHANNEL: u16 = 0x4000;
const ALL: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

impl Server<'_> {
    fn client_of(&self, transport: Transport) -> Client {
        if transport == Transport::Udp { self.udp_client() } else { self.client(transport) }
    }

    fn switch(&self, is_draining: bool) {
        self.relay.signal(if is_draining { Signal::USR1 } else { Signal::USR2 });
        self.relay.wait_for("it is as it was told to be", |metrics| {
            metrics.sum("hairpin_draining", &[]) == u64::from(is_draining)
        });
        let (status, text) = self.relay.get("/readyz").expect("the admin interface answers");
        assert_eq!(status, if is_draining { 503 } else { 200 }, "{text}");
        assert_eq!(text.contains("draining"), is_draining, "{text}");
        assert_eq!(self.relay.get("/healthz").map(|(status, _)| status), Some(200), "it lives in any case");
    }
}

#[test]
fn a_drained_relay_sends_new_clients_elsewhere_and_serves_the_others() {
    let host = Namespace::new("drain");
    let alternates = "--alternate-server turn:127.0.0.1:4000 --alternate-server turns:127.0.0.1:4001=other.test";
    let server = Server::start(&host, &format!("{LISTEN} {alternates}"));
    let mut clients = ALL.map(|transport| {
        let mut client = server.client_of(transport);
        let relayed = client.allocate().expect("there is room");
        let peer = host.enter(|| UdpSocket::bind(local(0))).expect("a free port");
        client.bind_channel(CHANNEL, peer.local_addr().unwrap()).expect("loopback is allowed");
        peer.connect(relayed).expect("loopback is everywhere");
        (client, peer)
    });
    server.switch(true);
    for transport in ALL {
        let mut client = server.client_of(transport);
        let Refused(code, _) = client.allocate().expect_err("it is drained");
        assert_eq!(code, 300, "{transport:?}");
        let key = LongTermKey::derive(USER, client.realm().expect("it was told"), PASSWORD);
        let (alternates, domain, is_signed) = client
            .refusal()
            .expect("it was refused")
            .get(|message| {
                let alternates =
                    message.each().map(|alternate| alternate.map(|AlternateServerAttribute(at)| at.port()));
                let domain = message.attribute().ok().flatten().map(|AlternateDomain(domain)| domain.to_owned());
                Some((alternates.collect::<Result<Vec<_>, _>>().unwrap(), domain, message.verify_integrity(&key)))
            })
            .expect("a message");
        let (port, name) = if transport == Transport::Tls { (4001, Some("other.test")) } else { (4000, None) };
        assert_eq!((alternates, domain.as_deref()), (vec![port], name), "{transport:?}");
        assert!(is_signed, "{transport:?}: nobody else has sent it");
    }
    for (client, peer) in &mut clients {
        assert_eq!(client.refresh(600), Ok(600));
        client.permit([127, 0, 0, 2].into()).expect("loopback is allowed");
        super::queue::echo(client, peer, 1);
    }
    server.switch(false);
    for transport in ALL {
        assert!(server.client_of(transport).allocate().is_ok(), "{transport:?}: new clients are welcome again");
    }
    server.relay.stop();
}

#[test]
fn a_drained_relay_that_knows_no_other_has_no_room() {
    let host = Namespace::new("drain");
    let server = Server::start(&host, LISTEN);
    server.switch(true);
    for transport in ALL {
        assert!(matches!(server.client_of(transport).allocate(), Err(Refused(508, _))), "{transport:?}");
    }
    server.switch(false);
    assert!(server.udp_client().allocate().is_ok());
    server.relay.stop();
}

#[test]
fn a_full_relay_sends_the_next_client_elsewhere() {
    let host = Namespace::new("drain");
    let options = "--user bob:in-a-lab --shards 1 --max-allocations 1 --alternate-server 127.0.0.1:4000";
    let server = Server::start(&host, &format!("{LISTEN} {options}"));
    let mut first = server.udp_client();
    first.allocate().expect("there is room for one");
    let bob = || Client::new(&host, local(0), local(3478), "bob", PASSWORD);
    assert!(matches!(bob().allocate(), Err(Refused(300, _))));
    assert_eq!(server.relay.get("/readyz").map(|(status, _)| status), Some(200), "full is not drained");
    assert_eq!(first.refresh(0), Ok(0));
    assert!(bob().allocate().is_ok(), "there is room again");
    server.relay.stop();
}

#[test]
fn a_client_that_follows_ends_up_at_the_other_relay() {
    let [first, second] = two_hosts();
    let drained = relay(&first, "10.8.0.1", "--alternate-server 10.8.0.2:3478");
    let other = relay(&second, "10.8.0.2", "--alternate-server 10.8.0.1:3478");
    drained.signal(Signal::USR1);
    drained.wait_for("it is drained", |metrics| metrics.sum("hairpin_draining", &[]) == 1);
    for transport in [hairpin_client::Transport::Udp, hairpin_client::Transport::Tcp] {
        inside(&first, async {
            let client = hairpin_client::Client::connect(FIRST, following(transport)).await.expect("it listens");
            let allocation = client.allocate(AllocateOptions::default()).await.expect("the other one has room");
            assert_eq!(allocation.relayed[0].ip().to_string(), "10.8.0.2", "{transport}");
            assert_eq!(client.server(), SECOND);
            client.release().await.expect("it is the other's");
        });
    }
    let allocations = |relay: &Relay<'_>| {
        relay.metrics().sum("hairpin_stun_responses_total", &[("method", "allocate"), ("code", "200")])
    };
    assert_eq!((allocations(&drained), allocations(&other)), (0, 2));
    drained.stop();
    other.stop();
}

#[test]
fn two_full_relays_that_name_each_other_are_each_asked_once() {
    let [first, second] = two_hosts();
    let full = "--shards 1 --max-allocations 1";
    let relays = [
        relay(&first, "10.8.0.1", &format!("{full} --alternate-server 10.8.0.2:3478")),
        relay(&second, "10.8.0.2", &format!("{full} --alternate-server 10.8.0.1:3478")),
    ];
    let mut others =
        [FIRST, SECOND].map(|server| Client::new(&first, ([10, 8, 0, 1], 0).into(), server, USER, PASSWORD));
    for client in &mut others {
        client.allocate().expect("there is room for one");
    }
    inside(&first, async {
        let options = Options {
            settings: Settings { credentials: Some(Credentials::new("bob", PASSWORD)), ..Settings::default() },
            ..following(hairpin_client::Transport::Udp)
        };
        let client = hairpin_client::Client::connect(FIRST, options).await.expect("it listens");
        let refused = client.allocate(AllocateOptions::default()).await;
        assert!(matches!(&refused, Err(Error::TryAlternate { servers, .. }) if *servers == [FIRST]), "{refused:?}");
    });
    for relay in relays {
        let labels = [("method", "allocate"), ("code", "300")];
        assert_eq!(relay.metrics().sum("hairpin_stun_responses_total", &labels), 1);
        relay.stop();
    }
}

const FIRST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 8, 0, 1)), 3478);
const SECOND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 8, 0, 2)), 3478);

/// Two hosts with a link between them.
fn two_hosts() -> [Namespace; 2] {
    let hosts = [Namespace::new("first"), Namespace::new("second")];
    hosts[0].ip(&format!("link add to-other type veth peer name to-other netns {}", hosts[1].name()));
    for (host, address) in hosts.iter().zip(["10.8.0.1/24", "10.8.0.2/24"]) {
        host.ip(&format!("addr add {address} dev to-other\nlink set to-other up"));
    }
    hosts
}

fn relay<'n>(host: &'n Namespace, address: &str, options: &str) -> Relay<'n> {
    let listen = format!("--listen udp:{address}:3478 --listen tcp:{address}:3478 --xdp off --user bob:{PASSWORD}");
    Relay::start(host, &format!("{listen} {options}").split_whitespace().collect::<Vec<_>>())
}

fn following(transport: hairpin_client::Transport) -> Options {
    let mut settings = Settings { credentials: Some(Credentials::new(USER, PASSWORD)), ..Settings::default() };
    settings.timing.rto = Duration::from_millis(200).min(PATIENCE);
    Options { transport, follow_alternates: true, settings, ..Options::default() }
}
