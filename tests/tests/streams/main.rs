//! The real binary and clients over TCP and TLS that no library would be: too slow, too many, too curious.

mod carried;
mod drain;
mod framing;
mod limits;
mod moving;
mod proxy;
mod queue;

use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::stun::{Class, Message, MessageBuilder, Method, TransactionId};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::server::SECURE_PORT;
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Authority, Certificate, Key, Namespace, Relay, Stream, Transport};

/// How long anything may take that has no time of its own.
const PATIENCE: Duration = Duration::from_secs(20);
/// Listeners for both, each at its port.
const LISTEN: &str = "--listen tcp:127.0.0.1:3478 --listen tls:127.0.0.1:5349 --listen udp:127.0.0.1:3478";
const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Tls];

/// A relay on loopback with a certificate.
struct Server<'n> {
    host: &'n Namespace,
    relay: Relay<'n>,
    _certificate: Certificate,
}

impl<'n> Server<'n> {
    /// Starts one with these options, beside what every one here has.
    fn start(host: &'n Namespace, options: &str) -> Self {
        let certificate = Authority::new().issue(Key::Ecdsa, "turn.test", &[[127, 0, 0, 1].into()]);
        let (file, key) = (certificate.file.display(), certificate.private_key.display());
        let certified =
            if options.contains("tls:") { format!("--certificate {file} --private-key {key}") } else { String::new() };
        let options = format!("--xdp off --allow-peer 127.0.0.0/8 {certified} {options}");
        let relay = Relay::start(host, &options.split_whitespace().collect::<Vec<_>>());
        Self { host, relay, _certificate: certificate }
    }

    /// A connection to it.
    fn connect(&self, transport: Transport) -> Stream {
        Stream::connect(self.host, at(transport), transport)
    }

    /// A client over a connection to it.
    fn client(&self, transport: Transport) -> Client {
        Client::over(self.connect(transport), USER, PASSWORD)
    }

    /// A client over UDP.
    fn udp_client(&self) -> Client {
        Client::new(self.host, local(0), local(PORT), USER, PASSWORD)
    }

    /// Waits until so many connections have ended for a reason.
    #[track_caller]
    fn expect_ended(&self, reason: &str, count: u64) {
        let labels = [("reason", reason)];
        let what = format!("{count} have ended: {reason}");
        self.relay.wait_for(&what, |metrics| metrics.sum("hairpin_connections_ended_total", &labels) == count);
    }
}

/// Where the server of [`LISTEN`] is for a transport.
fn at(transport: Transport) -> SocketAddr {
    local(if transport == Transport::Tls { SECURE_PORT } else { PORT })
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A Binding request; the number is in its transaction ID.
fn binding(number: u32) -> Vec<u8> {
    let mut id = [0xb1; 12];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let mut request = Vec::new();
    MessageBuilder::new(&mut request, Class::Request, Method::BINDING, TransactionId(id)).finish(false);
    request
}

/// Checks that the next message is the answer to a Binding request, and returns the address in it.
#[track_caller]
fn expect_answer(stream: &mut Stream, number: u32) -> SocketAddr {
    let answer = stream.receive(PATIENCE).unwrap_or_else(|| panic!("no answer to request {number}"));
    let message = Message::parse(&answer).unwrap_or_else(|error| panic!("{error}: {answer:02x?}"));
    assert_eq!((message.class(), message.method()), (Class::Success, Method::BINDING), "{answer:02x?}");
    assert_eq!(message.transaction_id().0[..4], number.to_be_bytes(), "answers come in order");
    let mapped = message.attribute::<hairpin_proto::stun::attribute::XorMappedAddress>();
    mapped.ok().flatten().expect("a Binding response has an address").0
}

/// Asks, and returns what the server takes the other end of the connection for.
#[track_caller]
fn mapped(stream: &mut Stream) -> SocketAddr {
    stream.send(&binding(1));
    expect_answer(stream, 1)
}

/// Small buffers in the kernel, so that what waits does so in the relay, or where it came from.
fn small_buffers(host: &Namespace) {
    host.enter(|| {
        for name in ["tcp_rmem", "tcp_wmem"] {
            std::fs::write(format!("/proc/sys/net/ipv4/{name}"), "4096 16384 65536").expect("a namespace of our own");
        }
    });
}

/// Runs code with sockets inside a namespace.
fn inside<T: Send>(host: &Namespace, code: impl Future<Output = T> + Send) -> T {
    host.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime needs nothing").block_on(code)
    })
}
