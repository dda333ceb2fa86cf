//! The proxy of the example with callers that are no phones: what is sent again, what is given up, and the offer that comes
//! late.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::ice::IceRelay;
use hairpin_tests::lab::sip::{PORT, Proxy};
use hairpin_tests::lab::{Folder, Namespace, http};

const PATIENCE: Duration = Duration::from_secs(10);
/// What either end says of its media.
const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
    m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";

/// A relay, the proxy, and two ends.
struct Bed<'n> {
    relay: IceRelay<'n>,
    proxy: Proxy,
    caller: UdpSocket,
    callee: UdpSocket,
}

#[test]
fn an_offer_that_is_sent_again_becomes_the_same() {
    let host = Namespace::new("sip");
    let bed = Bed::new(&host);
    let invite = request("INVITE", "1 INVITE", "", SDP);
    bed.send(&bed.caller, &invite);
    let first = bed.hear(&bed.callee, "INVITE");
    bed.send(&bed.caller, &invite);
    let again = bed.hear(&bed.callee, "INVITE");
    assert_eq!(first, again);
    assert!(!body(&first).contains("m=audio 4000 "), "the media is to go to the relay: {first}");
    assert_eq!(bed.relay.list().len(), 1);

    // An answer that comes before the call is accepted, and again when it is.
    for status in ["183 Session Progress", "200 OK"] {
        bed.send(&bed.callee, &answer(&first, status, SDP));
        let answered = bed.hear(&bed.caller, &format!("SIP/2.0 {status}"));
        assert!(!body(&answered).contains("m=audio 4000 "), "{answered}");
    }
    bed.send(&bed.caller, &request("BYE", "2 BYE", ";tag=callee", ""));
    bed.hear(&bed.callee, "BYE");
    bed.expect_no_session();
    bed.relay.relay.stop();
}

#[test]
fn calls_that_are_described_alike_are_two() {
    let host = Namespace::new("sip");
    let bed = Bed::new(&host);
    let invite = request("INVITE", "1 INVITE", "", SDP);
    for (invite, count) in [(invite.clone(), 1), (invite.replace("Call-ID: call", "Call-ID: other"), 2)] {
        bed.send(&bed.caller, &invite);
        let invite = bed.hear(&bed.callee, "INVITE");
        bed.send(&bed.callee, &answer(&invite, "200 OK", SDP));
        bed.hear(&bed.caller, "SIP/2.0 200");
        assert_eq!(bed.relay.list().len(), count);
    }
    bed.relay.relay.stop();
}

#[test]
fn what_the_relay_has_answered_in_vain_is_asked_again_and_not_done_twice() {
    let host = Namespace::new("sip");
    let folder = Folder::new("lossy");
    let (socket, lost) = (folder.path().join("admin.sock"), channel());
    let bed = Bed::by(&host, |relay| {
        lose_first_answers(&socket, relay, lost.0);
        socket.clone()
    });
    bed.send(&bed.caller, &request("INVITE", "1 INVITE", "", SDP));
    let invite = bed.hear(&bed.callee, "INVITE");
    bed.send(&bed.callee, &answer(&invite, "200 OK", SDP));
    bed.hear(&bed.caller, "SIP/2.0 200");
    let hold = SDP.replace("o=- 1 1", "o=- 1 2") + "a=sendonly\r\n";
    bed.send(&bed.caller, &request("INVITE", "2 INVITE", ";tag=callee", &hold));
    bed.hear(&bed.callee, "INVITE");

    let sessions = bed.relay.list();
    assert_eq!(sessions.len(), 1, "{}", bed.proxy.log());
    let session = format!("/v1/ice/sessions/{}", sessions[0]["id"].as_str().expect("a session has a name"));
    let replayed: Vec<_> = lost.1.try_iter().collect();
    assert_eq!(replayed, ["/v1/ice/offer".to_owned(), format!("{session}/answer"), format!("{session}/offer")]);
    bed.relay.relay.stop();
}

#[test]
fn a_call_that_is_cancelled_or_refused_leaves_nothing() {
    let host = Namespace::new("sip");
    let bed = Bed::new(&host);
    bed.send(&bed.caller, &request("INVITE", "1 INVITE", "", SDP));
    let invite = bed.hear(&bed.callee, "INVITE");
    assert_eq!(bed.relay.list().len(), 1);
    bed.send(&bed.caller, &request("CANCEL", "1 CANCEL", "", ""));
    let cancel = bed.hear(&bed.callee, "CANCEL");
    let via = |message: &str| message.lines().find(|line| line.starts_with("Via")).map(str::to_owned);
    assert_eq!(via(&invite), via(&cancel), "it is for the INVITE");
    bed.send(&bed.callee, &answer(&invite, "487 Request Terminated", ""));
    bed.hear(&bed.caller, "SIP/2.0 487");
    bed.expect_no_session();
    bed.relay.relay.stop();
}

#[test]
fn an_offer_may_come_with_the_answer_to_the_call() {
    let host = Namespace::new("sip");
    let bed = Bed::new(&host);
    bed.send(&bed.caller, &request("INVITE", "1 INVITE", "", ""));
    let invite = bed.hear(&bed.callee, "INVITE");
    assert!(bed.relay.list().is_empty(), "nothing is offered yet");
    bed.send(&bed.callee, &answer(&invite, "200 OK", SDP));
    let offer = bed.hear(&bed.caller, "SIP/2.0 200");
    assert!(!body(&offer).contains("m=audio 4000 "), "{offer}");
    bed.send(&bed.caller, &request("ACK", "1 ACK", ";tag=callee", SDP));
    let ack = bed.hear(&bed.callee, "ACK");
    assert!(body(&ack).contains("m=audio ") && !body(&ack).contains("m=audio 4000 "), "{ack}");
    assert_eq!(bed.relay.list().len(), 1);

    // Who was called puts the call on hold: a later offer, by the other side.
    let hold = SDP.replace("o=- 1 1", "o=- 1 2") + "a=sendonly\r\n";
    bed.send(&bed.callee, &request("INVITE", "7 INVITE", ";tag=callee", &hold));
    let held = bed.hear(&bed.caller, "INVITE");
    assert!(body(&held).contains("a=sendonly"), "{held}");
    bed.send(&bed.caller, &answer(&held, "200 OK", SDP));
    bed.hear(&bed.callee, "SIP/2.0 200");
    assert_eq!(bed.relay.list().len(), 1, "{}", bed.proxy.log());
    bed.relay.relay.stop();
}

#[test]
fn what_the_relay_refuses_ends_the_call() {
    let host = Namespace::new("sip");
    let bed = Bed::new(&host);
    bed.send(&bed.caller, &request("INVITE", "1 INVITE", "", "v=0\r\nthis is none\r\n"));
    bed.hear(&bed.caller, "SIP/2.0 488");
    assert!(bed.relay.list().is_empty());
    bed.relay.relay.stop();
}

impl<'n> Bed<'n> {
    fn new(host: &'n Namespace) -> Self {
        Self::by(host, Path::to_owned)
    }

    /// With a proxy that asks another socket than the relay's, which this function makes.
    fn by(host: &'n Namespace, socket: impl FnOnce(&Path) -> PathBuf) -> Self {
        let relay =
            IceRelay::start(host, &["--listen", "127.0.0.1:3478", "--relay-address", "127.0.0.1", "--xdp", "off"]);
        let proxy = Proxy::start(host, at(PORT), &socket(&relay.socket()));
        let [caller, callee] = [5071, 5072].map(|port| {
            let socket = host.enter(|| UdpSocket::bind(at(port))).expect("the port is free");
            socket.set_read_timeout(Some(PATIENCE)).expect("a valid time");
            socket.connect(at(PORT)).expect("loopback has a route");
            socket
        });
        let bed = Self { relay, proxy, caller, callee };
        let register = "REGISTER sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5072;branch=z9hG4bK-r;rport\r\n\
            From: <sip:bob@127.0.0.1>;tag=r\r\nTo: <sip:bob@127.0.0.1>\r\nCall-ID: r\r\nCSeq: 1 REGISTER\r\n\
            Contact: <sip:bob@127.0.0.1:5072>\r\nContent-Length: 0\r\n\r\n";
        bed.send(&bed.callee, register);
        bed.hear(&bed.callee, "SIP/2.0 200");
        bed
    }

    fn send(&self, from: &UdpSocket, message: &str) {
        from.send(message.as_bytes()).unwrap_or_else(|error| panic!("{error}: {}", self.proxy.log()));
    }

    /// The next message that begins so.
    #[track_caller]
    fn hear(&self, at: &UdpSocket, start: &str) -> String {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = at.recv(&mut buffer);
            let length = length.unwrap_or_else(|error| panic!("no {start}: {error}: {}", self.proxy.log()));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.starts_with(start) {
                return message;
            }
            assert!(message.starts_with("SIP/2.0 1"), "this comes instead of {start}: {message}");
        }
    }

    #[track_caller]
    fn expect_no_session(&self) {
        let end = Instant::now() + PATIENCE;
        while !self.relay.list().is_empty() {
            assert!(Instant::now() < end, "the session is still there: {}", self.proxy.log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Stands between the proxy and the relay, and loses the first answer to each request that has a key. Says which requests came
/// again and got the answer of the first.
fn lose_first_answers(socket: &Path, relay: &Path, replayed: Sender<String>) {
    let listener = UnixListener::bind(socket).expect("the folder is ours");
    let relay = relay.to_owned();
    thread::spawn(move || {
        let mut seen = BTreeSet::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let (method, path, headers, body) = read_request(&stream);
            let headers: Vec<_> = headers.iter().map(String::as_str).collect();
            let answer = http::ask(http::unix(&relay), &method, &path, &headers, &body).all();
            let key = headers.iter().find(|header| header.starts_with("Idempotency-Key: "));
            if key.is_some_and(|key| seen.insert((*key).to_owned())) {
                continue;
            }
            if answer.header("idempotency-replayed").is_some() {
                replayed.send(path).expect("the test goes on");
            }
            let head = format!("HTTP/1.1 {} x\r\nContent-Length: {}\r\n\r\n", answer.status, answer.body.len());
            stream.write_all((head + &answer.body).as_bytes()).expect("the proxy waits for it");
        }
    });
}

/// Method, path, headers that matter to the relay, and body.
fn read_request(stream: &UnixStream) -> (String, String, Vec<String>, String) {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines().map(|line| line.expect("a request has a head"));
    let start = lines.next().expect("a request begins with a line");
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let length = head.iter().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body).expect("it is as long as it says");
    let (method, rest) = start.split_once(' ').expect("METHOD PATH VERSION");
    let path = rest.split(' ').next().expect("there is always a first part");
    let kept = ["Content-Type", "Idempotency-Key"];
    let headers = head.into_iter().filter(|line| kept.iter().any(|name| line.starts_with(name)));
    (method.to_owned(), path.to_owned(), headers.collect(), body)
}

/// A request of the call, whose description may be empty.
fn request(method: &str, sequence: &str, tag: &str, sdp: &str) -> String {
    let number = sequence.split(' ').next().expect("a number");
    format!(
        "{method} sip:bob@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK-{number};rport\r\n\
         From: <sip:alice@127.0.0.1>;tag=caller\r\nTo: <sip:bob@127.0.0.1>{tag}\r\nCall-ID: call\r\nCSeq: {sequence}\r\n\
         Contact: <sip:alice@127.0.0.1>\r\nMax-Forwards: 70\r\n{}",
        with_body(sdp)
    )
}

/// The response to a request, as it was received.
fn answer(request: &str, status: &str, sdp: &str) -> String {
    let copied = ["Via:", "From:", "To:", "Call-Id:", "Cseq:", "Record-Route:"];
    let head = request.split("\r\n\r\n").next().expect("there is always a first part");
    let lines = head.lines().filter(|line| copied.iter().any(|name| line.starts_with(name)));
    let lines = lines.map(|line| match line.strip_prefix("To:") {
        Some(to) if !to.contains(";tag=") => format!("To:{to};tag=callee"),
        _ => line.to_owned(),
    });
    format!("SIP/2.0 {status}\r\n{}\r\n{}", lines.collect::<Vec<_>>().join("\r\n"), with_body(sdp))
}

fn with_body(sdp: &str) -> String {
    let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!("{kind}Content-Length: {}\r\n\r\n{sdp}", sdp.len())
}

fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
