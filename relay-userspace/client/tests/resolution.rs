//! RFC 5928 section 3, step by step: which servers a URI stands for, and in which order they are tried.

use std::net::IpAddr;

use hairpin_client::resolution::{Answers, Naptr, Question, Srv, Target, Unresolved, targets};
use hairpin_client::{ServerUri, Transport};

const ALL: [Transport; 4] = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Dtls];
const NAME: &str = "example.org";

/// What DNS says in a test: nothing, of what nobody mentions.
#[derive(Clone, Default)]
struct Zone(Answers);

impl Zone {
    fn naptr(mut self, name: &str, (order, preference): (u16, u16), flags: &str, services: &str, to: &str) -> Self {
        let [flags, services, replacement] = [flags, services, to].map(str::to_owned);
        let record = Naptr { order, preference, flags, services, replacement };
        self.0.naptr.entry(name.to_owned()).or_default().push(record);
        self
    }

    fn srv(mut self, name: &str, (priority, weight): (u16, u16), port: u16, target: &str) -> Self {
        let record = Srv { priority, weight, port, target: target.to_owned() };
        self.0.srv.entry(name.to_owned()).or_default().push(record);
        self
    }

    fn at(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.0.addresses.insert(name.to_owned(), addresses);
        self
    }

    /// Answers whatever is asked, and says what was: the targets as text.
    fn resolve_drawing(
        &self,
        uri: &str,
        spoken: &[Transport],
        lots: &mut dyn FnMut(u32) -> u32,
    ) -> (Vec<String>, Vec<Question>) {
        let uri: ServerUri = uri.parse().unwrap();
        let (mut known, mut asked) = (Answers::default(), Vec::new());
        loop {
            match targets(&uri, spoken, &known, lots) {
                Ok(found) => return (found.iter().map(text).collect(), asked),
                Err(Unresolved::NoTransport) => panic!("no transport for {uri}"),
                Err(Unresolved::Ask(question)) => {
                    match question.clone() {
                        Question::Naptr(name) => {
                            let records = self.0.naptr.get(&name).cloned().unwrap_or_default();
                            known.naptr.insert(name, records);
                        }
                        Question::Srv(name) => {
                            let records = self.0.srv.get(&name).cloned().unwrap_or_default();
                            known.srv.insert(name, records);
                        }
                        Question::Addresses(name) => {
                            let records = self.0.addresses.get(&name).cloned().unwrap_or_default();
                            known.addresses.insert(name, records);
                        }
                    }
                    assert!(!asked.contains(&question), "{question:?} is asked again");
                    asked.push(question);
                }
            }
        }
    }

    #[track_caller]
    fn expect(&self, uri: &str, spoken: &[Transport], expected: &[&str]) {
        assert_eq!(self.resolve_drawing(uri, spoken, &mut |_| 0).0, expected, "{uri}");
    }
}

fn text(Target { transport, address }: &Target) -> String {
    format!("{transport} {address}")
}

#[test]
fn an_address_is_what_it_is_and_nobody_is_asked() {
    let zone = Zone::default();
    for (uri, expected) in [
        ("turn:192.0.2.1", vec!["udp 192.0.2.1:3478", "tcp 192.0.2.1:3478"]),
        ("turns:192.0.2.1", vec!["tls 192.0.2.1:5349", "dtls 192.0.2.1:5349"]),
        ("turn:192.0.2.1:80?transport=tcp", vec!["tcp 192.0.2.1:80"]),
        ("turns:[2001:db8::1]?transport=tcp", vec!["tls [2001:db8::1]:5349"]),
    ] {
        let (found, asked) = zone.resolve_drawing(uri, &ALL, &mut |_| 0);
        assert_eq!((found, asked), (expected.into_iter().map(str::to_owned).collect(), vec![]), "{uri}");
    }
}

#[test]
fn a_name_with_a_port_is_its_addresses() {
    let zone = Zone::default()
        .at(NAME, &["192.0.2.1", "2001:db8::1"])
        .srv("_turn._udp.example.org", (0, 0), 9, "other.example.org")
        .naptr(NAME, (1, 1), "s", "RELAY:turn.udp", "_turn._udp.example.org");
    zone.expect("turn:example.org:80?transport=udp", &ALL, &["udp 192.0.2.1:80", "udp [2001:db8::1]:80"]);
    zone.expect(
        "turn:example.org:80",
        &[Transport::Tcp, Transport::Udp],
        &["tcp 192.0.2.1:80", "tcp [2001:db8::1]:80", "udp 192.0.2.1:80", "udp [2001:db8::1]:80"],
    );
}

#[test]
fn a_name_with_a_transport_is_what_srv_says_else_its_addresses() {
    let zone = Zone::default()
        .at(NAME, &["192.0.2.9"])
        .at("a.example.org", &["192.0.2.1"])
        .srv("_turn._udp.example.org", (0, 0), 3479, "a.example.org")
        .srv("_turns._tcp.example.org", (0, 0), 443, "a.example.org")
        .srv("_turns._udp.example.org", (0, 0), 444, "a.example.org")
        .naptr(NAME, (1, 1), "a", "RELAY:turn.udp", NAME);
    zone.expect("turn:example.org?transport=udp", &ALL, &["udp 192.0.2.1:3479"]);
    zone.expect("turns:example.org?transport=tcp", &ALL, &["tls 192.0.2.1:443"]);
    zone.expect("turns:example.org?transport=udp", &ALL, &["dtls 192.0.2.1:444"]);
    zone.expect("turn:example.org?transport=tcp", &ALL, &["tcp 192.0.2.9:3478"]);
}

#[test]
fn a_service_that_there_is_not_is_looked_for_nowhere_else() {
    let zone = Zone::default().at(NAME, &["192.0.2.9"]).srv("_turn._tcp.example.org", (0, 0), 0, ".");
    zone.expect("turn:example.org?transport=tcp", &ALL, &[]);
}

#[test]
fn a_name_alone_is_what_naptr_says_in_the_order_of_its_records() {
    let zone = Zone::default()
        .at("a.example.org", &["192.0.2.1"])
        .at("b.example.org", &["192.0.2.2"])
        .srv("_turn._udp.example.org", (0, 0), 3478, "a.example.org")
        .srv("_turn._tcp.example.org", (0, 0), 3478, "b.example.org")
        // Not about this, and not to be followed.
        .naptr(NAME, (1, 1), "s", "SIP+D2U", "_sip._udp.example.org")
        .naptr(NAME, (20, 1), "S", "relay:TURN.udp", "_turn._udp.example.org")
        .naptr(NAME, (10, 9), "a", "RELAY:turn.udp", "b.example.org")
        .naptr(NAME, (10, 1), "s", "RELAY:turn.tcp:turn.tls", "_turn._tcp.example.org");
    zone.expect("turn:example.org", &ALL, &["tcp 192.0.2.2:3478", "udp 192.0.2.2:3478", "udp 192.0.2.1:3478"]);
    zone.expect("turns:example.org", &ALL, &["tls 192.0.2.2:3478"]);
    zone.expect("example.org", &[Transport::Udp], &["udp 192.0.2.2:3478", "udp 192.0.2.1:3478"]);
}

#[test]
fn of_transports_with_the_same_rank_the_client_chooses() {
    let zone = Zone::default().at(NAME, &["192.0.2.1"]).naptr(NAME, (1, 1), "a", "RELAY:turn.udp:turn.tcp", NAME);
    zone.expect("turn:example.org", &[Transport::Udp, Transport::Tcp], &["udp 192.0.2.1:3478", "tcp 192.0.2.1:3478"]);
    zone.expect("turn:example.org", &[Transport::Tcp, Transport::Udp], &["tcp 192.0.2.1:3478", "udp 192.0.2.1:3478"]);
}

#[test]
fn naptr_may_lead_to_naptr_but_not_for_ever() {
    let zone = Zone::default()
        .at("a.example.net", &["192.0.2.1"])
        .naptr(NAME, (1, 1), "", "RELAY:turn.udp:turn.tcp", "example.net")
        .naptr("example.net", (1, 1), "a", "RELAY:turn.tcp", "a.example.net");
    zone.expect("turn:example.org", &ALL, &["tcp 192.0.2.1:3478"]);
    Zone::default().naptr(NAME, (1, 1), "", "RELAY:turn.udp", NAME).expect("turn:example.org", &ALL, &[]);
}

#[test]
fn without_naptr_srv_of_each_transport_is_asked_for_and_without_any_the_addresses() {
    let zone = Zone::default().at(NAME, &["192.0.2.9"]).at("a.example.org", &["192.0.2.1"]);
    let with_srv = zone.clone().srv("_turn._tcp.example.org", (0, 0), 80, "a.example.org");
    with_srv.expect("turn:example.org", &ALL, &["tcp 192.0.2.1:80"]);
    zone.expect("turn:example.org", &ALL, &["udp 192.0.2.9:3478", "tcp 192.0.2.9:3478"]);
    zone.expect("turns:example.org", &ALL, &["tls 192.0.2.9:5349", "dtls 192.0.2.9:5349"]);
    // One that is about something else says nothing of this.
    let other = zone.naptr(NAME, (1, 1), "s", "SIP+D2U", "_sip._udp.example.org");
    other.expect("turn:example.org?transport=udp", &ALL, &["udp 192.0.2.9:3478"]);
    other.expect("turn:example.org", &[Transport::Udp], &["udp 192.0.2.9:3478"]);
}

#[test]
fn srv_records_are_tried_by_priority_and_by_lot() {
    let mut zone = Zone::default();
    for (at, terms) in [(1, (20, 0)), (2, (10, 1)), (3, (10, 3)), (4, (10, 0))] {
        let host = format!("h{at}");
        zone = zone.srv("_turn._udp.example.org", terms, at, &host).at(&host, &["192.0.2.1"]);
    }
    let ports = |lots: &mut dyn FnMut(u32) -> u32| -> Vec<u16> {
        let (found, _) = zone.resolve_drawing("turn:example.org?transport=udp", &ALL, lots);
        found.iter().map(|target| target.rsplit(':').next().unwrap().parse().unwrap()).collect()
    };
    assert_eq!(ports(&mut |_| 0), [4, 2, 3, 1], "the lowest lot falls on what has no weight");
    assert_eq!(ports(&mut |most| most), [3, 2, 4, 1], "the highest on the last");
    assert_eq!(ports(&mut |most| most.min(1)), [2, 3, 4, 1]);
    // Over all lots, weights are how often each is first.
    let mut firsts = [0; 5];
    for lot in 1..=4 {
        // The first is drawn among all of that priority, whose weights are four.
        firsts[usize::from(ports(&mut |most| if most == 4 { lot } else { most })[0])] += 1;
    }
    assert_eq!(firsts, [0, 0, 1, 3, 0]);
}

#[test]
fn what_is_not_spoken_is_told_and_nothing_is_asked() {
    for (uri, spoken) in [
        ("turns:example.org", &ALL[..2]),
        ("turn:example.org", &ALL[2..]),
        ("turns:example.org?transport=udp", &ALL[..3]),
        ("turn:192.0.2.1?transport=tcp", &ALL[..1]),
    ] {
        let uri: ServerUri = uri.parse().unwrap();
        assert_eq!(targets(&uri, spoken, &Answers::default(), &mut |_| 0), Err(Unresolved::NoTransport), "{uri}");
    }
}

#[test]
fn a_server_is_tried_once_however_often_it_is_named() {
    let zone = Zone::default().at(NAME, &["192.0.2.1"]).naptr(NAME, (1, 1), "a", "RELAY:turn.udp", NAME).naptr(
        NAME,
        (2, 1),
        "a",
        "RELAY:turn.udp",
        NAME,
    );
    zone.expect("turn:example.org", &ALL, &["udp 192.0.2.1:3478"]);
}

/// As many answers as records can ask for: a name that leads nowhere must not be looked at for ever.
#[test]
fn records_that_lead_back_or_apart_are_followed_once() {
    const RECORDS: u16 = 14;
    let mut circle = Zone::default().at("a.example.org", &["192.0.2.1"]);
    let mut fan = circle.clone();
    for record in 0..RECORDS {
        circle = circle.naptr(NAME, (record, 1), "", "RELAY:turn.udp:turn.tcp", NAME);
        for depth in 0..8 {
            let [name, next] =
                [depth, depth + 1].map(|depth| if depth == 0 { NAME.into() } else { format!("n{depth}") });
            fan = fan.naptr(&name, (record, 1), "", "RELAY:turn.udp", &next);
        }
    }
    circle = circle.naptr(NAME, (RECORDS, 1), "a", "RELAY:turn.udp", "a.example.org");
    circle.expect("turn:example.org", &ALL, &["udp 192.0.2.1:3478"]);
    fan = fan.naptr("n8", (1, 1), "a", "RELAY:turn.udp", "a.example.org");
    fan.expect("turn:example.org", &ALL, &["udp 192.0.2.1:3478"]);
}

#[test]
fn there_is_an_end_to_what_is_asked_and_to_what_is_found() {
    let mut chain = Zone::default();
    let mut hosts = Zone::default();
    for number in 0..200 {
        chain = chain.naptr(&format!("n{number}"), (1, 1), "", "RELAY:turn.udp", &format!("n{}", number + 1));
        let host = format!("h{number}");
        hosts = hosts.srv("_turn._udp.example.org", (number, 0), 3478, &host);
        hosts = hosts.at(&host, if number < 2 { &["192.0.2.1", "192.0.2.2"] } else { &[] });
    }
    let (found, asked) = chain.resolve_drawing("turn:n0", &ALL, &mut |_| 0);
    assert_eq!((found, asked.len()), (vec![], 64));
    let (found, asked) = hosts.resolve_drawing("turn:example.org?transport=udp", &ALL, &mut |_| 0);
    assert_eq!(found, ["udp 192.0.2.1:3478", "udp 192.0.2.2:3478"], "what was found before counts");
    assert_eq!(asked.len(), 64);

    let addresses: Vec<_> = (0..200).map(|host| format!("192.0.2.{host}")).collect();
    let many = Zone::default().at(NAME, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let (found, _) = many.resolve_drawing("turn:example.org:80?transport=udp", &ALL, &mut |_| 0);
    let first: Vec<_> = addresses.iter().take(64).map(|address| format!("udp {address}:80")).collect();
    assert_eq!(found, first);
}
