//! The proxy of the example with callers that are no phones: what is sent again, what is given up, and the offer that comes
//! late.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::Namespace;
use hairpin_tests::lab::ice::IceRelay;
use hairpin_tests::lab::sip::{PORT, Proxy};

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
        let relay =
            IceRelay::start(host, &["--listen", "127.0.0.1:3478", "--relay-address", "127.0.0.1", "--xdp", "off"]);
        let proxy = Proxy::start(host, at(PORT), &relay.socket());
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
