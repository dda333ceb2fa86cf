//! Name servers that refuse some of what they are asked: the rest counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use hairpin_client::{Error, Resolver, ServerUri, Transport};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

const SPOKEN: [Transport; 2] = [Transport::Udp, Transport::Tcp];

/// What is said of a name and type: records, or that it is refused. Of all others there is nothing.
type Zone = Vec<(&'static str, RecordType, Option<RData>)>;

fn srv(priority: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, 0, port, target.parse::<Name>().unwrap()))
}

fn address(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(192, 0, 2, last)))
}

/// Serves a zone on loopback for as long as the test runs.
fn serve(zone: Zone) -> SocketAddr {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let answer = answer(&zone, &asked);
            let _ = socket.send_to(&answer.to_vec().unwrap(), from);
        }
    });
    server
}

fn answer(zone: &Zone, asked: &Message) -> Message {
    let query = &asked.queries[0];
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.queries.push(query.clone());
    for (name, kind, data) in zone {
        if query.name == name.parse::<Name>().unwrap() && query.query_type == *kind {
            match data {
                Some(data) => drop(answer.add_answer(Record::from_rdata(query.name.clone(), 60, data.clone()))),
                None => answer.metadata.response_code = ResponseCode::Refused,
            }
        }
    }
    answer
}

/// What a URI stands for, as text.
fn resolve(zone: Zone, uri: &str) -> Result<Vec<String>, Error> {
    let server = serve(zone);
    let uri: ServerUri = uri.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(async { Resolver::at(server)?.targets(&uri, &SPOKEN).await })?;
    Ok(found.iter().map(|target| format!("{} {}", target.transport, target.address)).collect())
}

#[test]
fn a_host_that_is_refused_does_not_take_the_others_with_it() {
    for bad in [5, 20] {
        let zone = vec![
            ("_turn._udp.example.org.", RecordType::SRV, Some(srv(10, 3479, "good.test."))),
            ("_turn._udp.example.org.", RecordType::SRV, Some(srv(bad, 3480, "bad.other."))),
            ("good.test.", RecordType::A, Some(address(1))),
            ("bad.other.", RecordType::A, None),
            ("bad.other.", RecordType::AAAA, None),
        ];
        let found = resolve(zone, "turn:example.org?transport=udp").unwrap();
        assert_eq!(found, ["udp 192.0.2.1:3479"], "the bad one has priority {bad}");
    }
}

#[test]
fn a_server_that_refuses_to_tell_of_naptr_is_asked_for_the_rest() {
    let zone = vec![("example.org.", RecordType::NAPTR, None), ("example.org.", RecordType::A, Some(address(9)))];
    assert_eq!(resolve(zone, "turn:example.org").unwrap(), ["udp 192.0.2.9:3478", "tcp 192.0.2.9:3478"]);
}

#[test]
fn without_a_server_it_is_said_what_was_refused_and_nothing_is_no_refusal() {
    let error = resolve(vec![("example.org.", RecordType::NAPTR, None)], "turn:example.org").unwrap_err();
    assert!(matches!(&error, Error::Dns(name, _) if name == "example.org"), "{error}");
    let error = resolve(vec![], "turn:example.org").unwrap_err();
    assert!(matches!(error, Error::NoServer(_)), "{error}");
}
