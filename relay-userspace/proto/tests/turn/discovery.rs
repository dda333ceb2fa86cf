//! NAT behaviour discovery (RFC 5780 sections 6 and 7).

use std::net::{IpAddr, SocketAddr};

use hairpin_proto::address::{ClientAddr, FiveTuple, ServerAddr, Transport};
use hairpin_proto::stun::attribute::{
    AlternateServerAttribute, Attribute, AttributeError, ChangeRequest, ErrorCodeAttribute, MappedAddress,
    OtherAddress, Padding, ResponseOrigin, ResponsePort, Software, UnknownAttributes, XorMappedAddress,
};
use hairpin_proto::stun::{Class, Message, MessageBuilder, Method, TransactionId};
use hairpin_proto::turn::{
    AlternateServer, Discard, Discovery, DiscoveryError, Disposition, Draining, RelayAddress, Translation,
};

use crate::harness::{Client, Relay, UDP, config, dropped, socket};

const ID: TransactionId = TransactionId([7; 12]);
const CLIENT: &str = "203.0.113.7:41000";
const CLIENT_V6: &str = "[2001:db8::7]:41000";
/// Each as bound and as the world sees it.
const FIRST: [&str; 2] = ["192.0.2.15", "198.51.100.15"];
const SECOND: [&str; 2] = ["192.0.2.16", "198.51.100.16"];
const PORTS: [u16; 2] = [3478, 3479];
const ETHERNET: u16 = 1500;
const NO_CHANGE: ChangeRequest = ChangeRequest { ip: false, port: false };
const PORT: ChangeRequest = ChangeRequest { ip: false, port: true };
const IP: ChangeRequest = ChangeRequest { ip: true, port: false };
const BOTH: ChangeRequest = ChangeRequest { ip: true, port: true };
const CHANGES: [ChangeRequest; 4] = [NO_CHANGE, PORT, IP, BOTH];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// A server with these sockets for discovery, behind a 1:1 NAT.
fn relay_with(add: impl FnOnce(&mut Discovery)) -> Relay {
    let mut config = config();
    let mut discovery = Discovery::new(ETHERNET);
    add(&mut discovery);
    config.discovery = Some(discovery);
    config.settings.translation =
        Translation::new(&[FIRST, SECOND].map(|[bind, public]| RelayAddress { bind: ip(bind), public: ip(public) }))
            .unwrap();
    Relay::new(config)
}

fn two_addresses() -> Relay {
    relay_with(|discovery| discovery.add_sockets(Transport::Udp, [ip(FIRST[0]), ip(SECOND[0])], PORTS).unwrap())
}

fn one_address() -> Relay {
    relay_with(|_| {})
}

fn request(attributes: impl FnOnce(MessageBuilder<'_>) -> MessageBuilder<'_>) -> Vec<u8> {
    let mut datagram = Vec::new();
    attributes(MessageBuilder::new(&mut datagram, Class::Request, Method::BINDING, ID)).finish(false);
    datagram
}

/// A response, and the way that it goes.
struct Reply {
    five_tuple: FiveTuple,
    bytes: Vec<u8>,
}

impl Reply {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    fn get<'m, A: Attribute<'m>>(&'m self) -> Option<A> {
        self.message().attribute().unwrap()
    }

    fn code(&self) -> u16 {
        self.get::<ErrorCodeAttribute<'_>>().map_or(200, |error| error.code.number())
    }

    fn from(&self) -> SocketAddr {
        self.five_tuple.server.socket()
    }

    fn to(&self) -> SocketAddr {
        self.five_tuple.client.socket()
    }

    /// Asserts a short error that goes back the way the request has come, with nothing of discovery in it.
    fn expect_error(&self, code: u16, server: SocketAddr) {
        assert_eq!((self.code(), self.from(), self.to()), (code, server, socket(CLIENT)));
        for kind in [Padding::TYPE, OtherAddress::TYPE, ResponseOrigin::TYPE, MappedAddress::TYPE] {
            assert_eq!(self.message().find(kind), None, "0x{kind:04x}");
        }
        assert!(self.bytes.len() <= 64, "{} bytes", self.bytes.len());
    }

    fn unknown(&self) -> Vec<[u8; 2]> {
        self.get::<UnknownAttributes<'_>>().map(|unknown| unknown.0.to_vec()).unwrap_or_default()
    }
}

fn ask_over(relay: &mut Relay, transport: Transport, client: &str, server: SocketAddr, datagram: &[u8]) -> Reply {
    let five_tuple = FiveTuple { client: ClientAddr::new(socket(client)), server: ServerAddr::new(server), transport };
    assert_eq!(relay.server.client_datagram(relay.now, five_tuple, datagram), Disposition::Control);
    let before = relay.responses.len();
    assert_eq!(relay.drain().len(), 1);
    assert_eq!(relay.responses.len(), before + 1);
    let five_tuple = relay.answered.expect("it went somewhere");
    let reply = Reply { five_tuple, bytes: relay.responses.pop().expect("there is an answer") };
    assert_eq!(relay.server.poll_timeout(), None, "nothing is remembered of a stranger");
    assert_eq!(reply.message().transaction_id(), ID);
    reply
}

fn ask(relay: &mut Relay, server: SocketAddr, datagram: &[u8]) -> Reply {
    ask_over(relay, Transport::Udp, CLIENT, server, datagram)
}

#[test]
fn a_response_comes_from_where_the_flags_say_and_names_public_addresses() {
    let mut relay = two_addresses();
    let ips = [FIRST, SECOND];
    for (ip, port) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for change in CHANGES {
            let [other_ip, other_port] = [1 - ip, 1 - port];
            let from_ip = if change.ip { other_ip } else { ip };
            let from_port = if change.port { other_port } else { port };
            let reply = ask(&mut relay, at(ips[ip][0], PORTS[port]), &request(|request| request.with(&change)));
            assert_eq!(reply.code(), 200);
            assert_eq!(reply.from(), at(ips[from_ip][0], PORTS[from_port]), "{ip} {port} {change:?}");
            assert_eq!(reply.to(), socket(CLIENT));
            assert_eq!(reply.get(), Some(ResponseOrigin(at(ips[from_ip][1], PORTS[from_port]))));
            assert_eq!(reply.get(), Some(OtherAddress(at(ips[other_ip][1], PORTS[other_port]))), "whatever the flags");
        }
    }
}

#[test]
fn without_a_question_of_discovery_the_answer_has_its_addresses_all_the_same() {
    let mut relay = two_addresses();
    let reply = ask(&mut relay, at(FIRST[0], 3478), &request(|request| request));
    assert_eq!((reply.from(), reply.to()), (at(FIRST[0], 3478), socket(CLIENT)));
    assert_eq!(reply.get(), Some(XorMappedAddress(socket(CLIENT))));
    assert_eq!(reply.get(), Some(MappedAddress(socket(CLIENT))));
    assert_eq!(reply.get(), Some(ResponseOrigin(at(FIRST[1], 3478))));
    assert_eq!(reply.get(), Some(OtherAddress(at(SECOND[1], 3479))));
    assert_eq!(reply.message().find(Padding::TYPE), None);
    assert_eq!(reply.message().find(Software::TYPE), None);
    assert_eq!(reply.bytes.len(), 20 + 4 * 12);
}

#[test]
fn both_ip_versions_may_have_two_addresses() {
    let mut relay = relay_with(|discovery| {
        discovery.add_sockets(Transport::Udp, [ip(FIRST[0]), ip(SECOND[0])], PORTS).unwrap();
        discovery.add_sockets(Transport::Udp, [ip("2001:db8::15"), ip("2001:db8::16")], PORTS).unwrap();
    });
    let datagram = request(|request| request.with(&IP));
    let reply = ask_over(&mut relay, Transport::Udp, CLIENT_V6, at("2001:db8::15", 3479), &datagram);
    assert_eq!((reply.from(), reply.to()), (at("2001:db8::16", 3479), socket(CLIENT_V6)));
    assert_eq!(reply.get(), Some(MappedAddress(socket(CLIENT_V6))));
    assert_eq!(reply.get(), Some(OtherAddress(at("2001:db8::16", 3478))));
}

#[test]
fn with_one_address_every_change_request_is_unknown_and_there_is_no_other_address() {
    let mut relay = one_address();
    for change in CHANGES {
        let reply = ask(&mut relay, at(FIRST[0], 3478), &request(|request| request.with(&change)));
        reply.expect_error(420, at(FIRST[0], 3478));
        assert_eq!(reply.unknown(), [[0x00, 0x03]]);
    }
    let reply = ask(&mut relay, at(FIRST[0], 3478), &request(|request| request.with(&Padding(8))));
    assert_eq!((reply.code(), reply.from()), (200, at(FIRST[0], 3478)));
    assert_eq!(reply.get(), Some(MappedAddress(socket(CLIENT))));
    assert_eq!(reply.get(), Some(ResponseOrigin(at(FIRST[1], 3478))));
    assert_eq!(reply.get::<OtherAddress>(), None);
    assert_eq!(reply.get(), Some(Padding(8)));
    let reply = ask(&mut relay, at(FIRST[0], 3478), &request(|request| request.with(&ResponsePort(99))));
    assert_eq!((reply.code(), reply.to()), (200, at("203.0.113.7", 99)));
}

#[test]
fn a_socket_that_is_none_of_the_four_has_no_alternate() {
    let mut relay = two_addresses();
    for server in [at(FIRST[0], 3480), at("192.0.2.17", 3478)] {
        ask(&mut relay, server, &request(|request| request.with(&PORT))).expect_error(420, server);
        let reply = ask(&mut relay, server, &request(|request| request));
        assert_eq!((reply.code(), reply.get::<OtherAddress>()), (200, None));
    }
}

#[test]
fn without_discovery_its_attributes_are_unknown_and_its_answers_are_not_given() {
    let mut relay = Relay::default();
    let datagram = request(|request| request.with(&PORT).with(&Padding(4)).with(&ResponsePort(99)));
    let reply = ask(&mut relay, at(FIRST[0], 3478), &datagram);
    reply.expect_error(420, at(FIRST[0], 3478));
    assert_eq!(reply.unknown(), [[0x00, 0x03], [0x00, 0x26], [0x00, 0x27]]);
    let reply = ask(&mut relay, at(FIRST[0], 3478), &request(|request| request));
    assert_eq!(reply.bytes.len(), 20 + 12, "XOR-MAPPED-ADDRESS and nothing else");
}

#[test]
fn a_response_port_is_where_the_response_goes() {
    let mut relay = two_addresses();
    for change in CHANGES {
        let datagram = request(|request| request.with(&ResponsePort(65_535)).with(&change));
        let reply = ask(&mut relay, at(FIRST[0], 3478), &datagram);
        assert_eq!(reply.to(), at("203.0.113.7", 65_535));
        assert_eq!(
            reply.from(),
            at(if change.ip { SECOND[0] } else { FIRST[0] }, if change.port { 3479 } else { 3478 })
        );
        assert_eq!(reply.get(), Some(XorMappedAddress(socket(CLIENT))), "where the request came from");
        assert_eq!(reply.get(), Some(MappedAddress(socket(CLIENT))));
    }
    let two_bytes = [&request(|request| request)[..2], &[0, 8], &request(|request| request)[4..]].concat();
    let two_bytes = [&two_bytes[..], &[0x00, 0x27, 0, 2, 0x00, 0x63, 0, 0]].concat();
    assert_eq!(ask(&mut relay, at(FIRST[0], 3478), &two_bytes).to(), at("203.0.113.7", 99));
}

#[test]
fn nothing_is_sent_to_port_zero() {
    let mut relay = two_addresses();
    let datagram = request(|request| request.with(&ResponsePort(0)).with(&BOTH));
    ask(&mut relay, at(FIRST[0], 3478), &datagram).expect_error(400, at(FIRST[0], 3478));
}

#[test]
fn padding_for_another_port_is_refused_where_the_request_came_from() {
    let mut relay = two_addresses();
    let datagram = request(|request| request.with(&Padding(1500)).with(&ResponsePort(99)).with(&BOTH));
    ask(&mut relay, at(FIRST[0], 3478), &datagram).expect_error(400, at(FIRST[0], 3478));
}

#[test]
fn padding_is_answered_by_as_much_up_to_the_mtu() {
    let mut relay = two_addresses();
    for (asked, given) in [(0, 0), (1, 4), (4, 4), (1497, 1500), (1500, 1500), (1501, 1500), (60_000, 1500)] {
        for change in CHANGES {
            let datagram = request(|request| request.with(&Padding(asked)).with(&change));
            let reply = ask(&mut relay, at(FIRST[0], 3478), &datagram);
            assert_eq!(reply.get(), Some(Padding(given)), "{asked}");
            // The four addresses, less CHANGE-REQUEST: the response is no longer than that of a plain request.
            assert!(reply.bytes.len() <= datagram.len() + 40, "{} after {}", reply.bytes.len(), datagram.len());
        }
    }
}

#[test]
fn an_mtu_that_is_no_multiple_of_four_is_rounded_up_and_the_longest_response_fits_into_a_datagram() {
    for (mtu, given) in [(1498, 1500), (1280, 1280), (65_535, 65_000)] {
        let mut config = config();
        config.discovery = Some(Discovery::new(mtu));
        let mut relay = Relay::new(config);
        let reply = ask(&mut relay, at(FIRST[0], 3478), &request(|request| request.with(&Padding(65_400))));
        assert_eq!(reply.get(), Some(Padding(given)));
        assert!(reply.bytes.len() <= 65_507);
    }
}

#[test]
fn a_value_of_the_wrong_length_is_a_bad_request() {
    struct Wrong<const KIND: u16>;
    impl<const KIND: u16> Attribute<'_> for Wrong<KIND> {
        const TYPE: u16 = KIND;

        fn decode(_: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
            Ok(Self)
        }

        fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
            out.extend_from_slice(&[6; 3]);
        }
    }
    let mut relay = two_addresses();
    let server = at(FIRST[0], 3478);
    ask(&mut relay, server, &request(|request| request.with(&Wrong::<0x0003>))).expect_error(400, server);
    ask(&mut relay, server, &request(|request| request.with(&Wrong::<0x0027>))).expect_error(400, server);
    let reply = ask(&mut relay, server, &request(|request| request.with(&Wrong::<0x7fff>).with(&BOTH)));
    reply.expect_error(420, server);
    assert_eq!(reply.unknown(), [[0x7f, 0xff]], "what is served is not among what is unknown");
}

#[test]
fn other_bits_of_a_change_request_mean_nothing() {
    let mut relay = two_addresses();
    let mut datagram = request(|request| request.with(&IP));
    datagram[24..28].copy_from_slice(&[0xff, 0xff, 0xff, 0xfd]);
    assert_eq!(ask(&mut relay, at(FIRST[0], 3478), &datagram).from(), at(SECOND[0], 3478));
}

#[test]
fn streams_and_dtls_are_told_the_addresses_and_understand_nothing_more() {
    for transport in [Transport::Tcp, Transport::Tls, Transport::Dtls] {
        let mut relay = relay_with(|discovery| {
            discovery.add_sockets(transport, [ip(FIRST[0]), ip(SECOND[0])], PORTS).unwrap();
        });
        let server = at(FIRST[0], 3478);
        let datagram = request(|request| request.with(&PORT).with(&Padding(4)).with(&ResponsePort(99)));
        let reply = ask_over(&mut relay, transport, CLIENT, server, &datagram);
        reply.expect_error(420, server);
        assert_eq!(reply.unknown(), [[0x00, 0x03], [0x00, 0x26], [0x00, 0x27]]);

        let reply = ask_over(&mut relay, transport, CLIENT, server, &request(|request| request));
        assert_eq!((reply.from(), reply.to(), reply.five_tuple.transport), (server, socket(CLIENT), transport));
        assert_eq!(reply.get(), Some(MappedAddress(socket(CLIENT))));
        assert_eq!(reply.get(), Some(ResponseOrigin(at(FIRST[1], 3478))));
        assert_eq!(reply.get(), Some(OtherAddress(at(SECOND[1], 3479))));

        let reply = ask(&mut relay, server, &request(|request| request));
        assert_eq!(reply.get::<OtherAddress>(), None, "those are the sockets of another transport");
    }
}

#[test]
fn a_fingerprint_is_answered_with_one_behind_the_padding() {
    let mut relay = two_addresses();
    let mut datagram = Vec::new();
    MessageBuilder::new(&mut datagram, Class::Request, Method::BINDING, ID).with(&Padding(100)).finish(true);
    let reply = ask(&mut relay, at(FIRST[0], 3478), &datagram);
    assert!(reply.message().has_fingerprint());
    assert_eq!(reply.get(), Some(Padding(100)));
}

#[test]
fn no_alternate_server_is_named_to_who_probes() {
    let mut config = config();
    config.discovery = Some(Discovery::new(ETHERNET));
    config.settings.alternates = vec![AlternateServer::new(socket("198.51.100.99:3478")).unwrap()];
    let mut relay = Relay::new(config);
    relay.server.set_draining(Draining::NewClients);
    let reply = ask(&mut relay, at(FIRST[0], 3478), &request(|request| request));
    assert_eq!((reply.code(), reply.message().find(AlternateServerAttribute::TYPE)), (200, None));
}

#[test]
fn only_binding_understands_what_discovery_asks() {
    let mut relay = two_addresses();
    let mut client = Client::alice(CLIENT);
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&BOTH));
    answer.expect_error(&client, 420);
    relay.shut_down();
}

#[test]
fn clients_of_rfc_3489_are_not_answered() {
    let mut relay = two_addresses();
    let client = Client::alice(CLIENT);
    let datagram = [&[0x00, 0x01, 0, 8][..], &[9; 16], &[0x00, 0x03, 0, 4, 0, 0, 0, 6]].concat();
    assert_eq!(relay.client_sends(&client, &datagram), dropped(Discard::MalformedStun));
    assert_eq!(relay.drain(), []);
}

#[test]
fn probes_are_counted_as_binding() {
    let mut relay = two_addresses();
    let server = at(FIRST[0], 3478);
    ask(&mut relay, server, &request(|request| request.with(&BOTH)));
    ask(&mut relay, server, &request(|request| request.with(&ResponsePort(0))));
    let counts: Vec<_> = relay.server.message_counts().responses().collect();
    assert_eq!(counts, [(("binding", 200), 1), (("binding", 400), 1)]);
}

#[test]
fn four_sockets_are_two_addresses_of_one_version_with_two_ports_and_belong_to_no_others() {
    let mut discovery = Discovery::new(ETHERNET);
    let [first, second, v6] = [FIRST[0], SECOND[0], "2001:db8::15"].map(ip);
    let mut add = |addresses, ports| discovery.add_sockets(Transport::Udp, addresses, ports);
    assert_eq!(add([first, first], PORTS), Err(DiscoveryError::SameAddress(first)));
    assert_eq!(add([first, ip("::ffff:192.0.2.15")], PORTS), Err(DiscoveryError::SameAddress(first)));
    assert_eq!(add([first, second], [7, 7]), Err(DiscoveryError::SamePort(7)));
    assert_eq!(add([first, v6], PORTS), Err(DiscoveryError::Families(first, v6)));
    assert_eq!(add([first, second], [7, 0]), Err(DiscoveryError::NotASocket(at(FIRST[0], 0))));
    assert_eq!(add([first, ip("0.0.0.0")], PORTS), Err(DiscoveryError::NotASocket(at("0.0.0.0", 3478))));
    assert_eq!(add([first, second], PORTS), Ok(()));
    assert_eq!(add([ip("192.0.2.17"), second], [3479, 9]), Err(DiscoveryError::Taken(at(SECOND[0], 3479))));
    assert_eq!(discovery.add_sockets(Transport::Tcp, [first, second], PORTS), Ok(()));
    let tls = discovery.add_sockets(Transport::Tls, [first, second], [5349, 3479]);
    assert_eq!(tls, Err(DiscoveryError::Taken(at(FIRST[0], 3479))), "TCP has it");
    let sockets: Vec<_> = discovery.sockets().map(|(transport, socket)| format!("{transport}:{socket}")).collect();
    let expected = ["192.0.2.15:3478", "192.0.2.15:3479", "192.0.2.16:3478", "192.0.2.16:3479"];
    assert_eq!(sockets, ["udp", "tcp"].map(|transport| expected.map(|at| format!("{transport}:{at}"))).concat());
}
