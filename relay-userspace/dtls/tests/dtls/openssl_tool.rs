//! Both sides against the `openssl` command, over UDP on loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hairpin_dtls::{Hello, ServerContext, Session};

use crate::network::{drain, read};
use crate::pki::{self, Files};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running `openssl`. It ends with its guard.
struct Tool(Child);

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Tool {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().expect("the tests need the command openssl (see deploy/setup.sh)"))
    }

    fn write(&mut self, text: &str) {
        self.0.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// What it has said, once it has ended.
    fn output(mut self) -> String {
        let end = Instant::now() + PATIENCE;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "the tool does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut output = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        output
    }
}

/// Files for a tool, until the end of the test.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hairpin-dtls-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

/// A socket for one session, which does not wait for long.
fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket
}

/// Waits a little for a datagram, gives it to the session, and sends what the session has to send.
fn step(session: &mut Session, socket: &UdpSocket, peer: SocketAddr) -> Vec<Vec<u8>> {
    let mut buffer = [0; 2048];
    if let Ok((len, source)) = socket.recv_from(&mut buffer) {
        assert_eq!(source, peer);
        let _ = session.receive(&buffer[..len]);
    }
    session.handle_timeout().unwrap();
    let plaintexts = read(session);
    send_all(session, socket, peer);
    plaintexts
}

fn send_all(session: &mut Session, socket: &UdpSocket, peer: SocketAddr) {
    for datagram in drain(session) {
        // Nobody listens yet, or any more.
        let _ = socket.send_to(&datagram, peer);
    }
}

/// Lets the tool's client connect with `options`, answers its "ping", lets it go, and returns what it has printed. The
/// session is what remains of the server.
fn serve_client(test: &str, server: &ServerContext, options: &[&str]) -> (Session, String) {
    let directory = Directory::new(test);
    let root = directory.write("root.pem", pki::root());
    let socket = socket();
    let address = socket.local_addr().unwrap();
    let connect = address.to_string();
    let common = ["s_client", "-dtls1_2", "-connect", &connect, "-CAfile", &root, "-verify_return_error"];
    let mut tool = Tool::start(&[&common, options].concat());
    tool.write("ping\n");

    let end = Instant::now() + PATIENCE;
    let (mut buffer, mut reply) = ([0; 2048], Vec::new());
    let (mut session, peer) = loop {
        assert!(Instant::now() < end, "no ClientHello with a cookie");
        let Ok((len, peer)) = socket.recv_from(&mut buffer) else { continue };
        match server.hello(peer, address, Instant::now(), &buffer[..len], &mut reply) {
            Hello::Reply => assert_eq!(socket.send_to(&reply, peer).unwrap(), reply.len()),
            Hello::Accepted(session) => break (session, peer),
            // A later fragment of a ClientHello.
            Hello::Ignored => assert_eq!(buffer[13], 1),
        }
    };
    send_all(&mut session, &socket, peer);
    while !session.is_closed() {
        assert!(Instant::now() < end, "{session:?}");
        for plaintext in step(&mut session, &socket, peer) {
            assert_eq!(plaintext, b"ping\n");
            session.send(b"pong from the server\n").unwrap();
            send_all(&mut session, &socket, peer);
            // Ends the client, when it is read as a line of its own.
            tool.write("Q\n");
        }
    }
    (session, tool.output())
}

#[test]
fn the_client_of_openssl_connects() {
    let files = [pki::rsa(), pki::ecdsa()];
    let server = ServerContext::new(&files.map(Files::certified), pki::COOKIE_KEY).unwrap();
    for (test, name, cipher, options) in [
        ("rsa", "turn.example.org", "ECDHE-RSA-AES256-GCM-SHA384", &[][..]),
        ("ecdsa", "turn.example.net", "ECDHE-ECDSA-AES256-GCM-SHA384", &[]),
        // What RFC 8489 section 6.2.3 asks of every server.
        ("ecdhe", "turn.example.org", "ECDHE-RSA-AES128-GCM-SHA256", &["-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]),
        ("dhe", "turn.example.org", "DHE-RSA-AES128-GCM-SHA256", &["-cipher", "DHE-RSA-AES128-GCM-SHA256"]),
        ("chacha", "turn.example.net", "ECDHE-ECDSA-CHACHA20-POLY1305", &["-cipher", "CHACHA20"]),
        // Its ClientHello comes in fragments.
        ("mtu", "turn.example.org", "ECDHE-RSA-AES256-GCM-SHA384", &["-mtu", "256"]),
    ] {
        let options = [&["-servername", name, "-verify_hostname", name, "-alpn", "stun.turn"], options].concat();
        let (session, output) = serve_client(test, &server, &options);
        assert_eq!(session.cipher(), Some(cipher), "{test}");
        assert_eq!(session.server_name(), Some(name), "{test}");
        for said in ["Verification: OK", "ALPN protocol: stun.turn", "pong from the server", cipher] {
            assert!(output.contains(said), "{test}: no {said:?} in {output}");
        }
    }
}

#[test]
fn a_client_with_small_records_gets_no_longer_ones() {
    let (mut session, output) = serve_client("fragment", &pki::rsa().server(), &["-maxfraglen", "512"]);
    assert!(output.contains("pong from the server"), "{output}");
    assert_eq!(session.max_plaintext(), 512);
    assert_eq!(session.send(&[0; 513]), Err(hairpin_dtls::Error::Closed));
}

#[test]
fn a_client_of_another_version_is_refused() {
    let directory = Directory::new("version");
    let root = directory.write("root.pem", pki::root());
    let socket = socket();
    let address = socket.local_addr().unwrap();
    let connect = address.to_string();
    // Security level 0, without which OpenSSL 3 itself has no DTLS 1.0.
    let _tool =
        Tool::start(&["s_client", "-dtls1", "-cipher", "ALL:@SECLEVEL=0", "-connect", &connect, "-CAfile", &root]);
    let server = pki::rsa().server();
    let end = Instant::now() + PATIENCE;
    let (mut buffer, mut reply) = ([0; 2048], Vec::new());
    let mut session = loop {
        assert!(Instant::now() < end, "no ClientHello with a cookie");
        let Ok((len, peer)) = socket.recv_from(&mut buffer) else { continue };
        match server.hello(peer, address, Instant::now(), &buffer[..len], &mut reply) {
            Hello::Reply => assert_eq!(socket.send_to(&reply, peer).unwrap(), reply.len()),
            Hello::Accepted(session) => break session,
            Hello::Ignored => panic!("not a ClientHello"),
        }
    };
    assert!(session.is_closed());
    // A fatal alert: protocol_version.
    let alert = drain(&mut session).remove(0);
    assert_eq!((alert[0], &alert[13..]), (21, &[2, 70][..]));
}

#[test]
fn we_connect_to_the_server_of_openssl() {
    let directory = Directory::new("server");
    let files = pki::rsa();
    let (chain, key) = (directory.write("chain.pem", &files.chain), directory.write("key.pem", &files.key));
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let accept = peer.to_string();
    let mut tool = Tool::start(&[
        "s_server",
        "-dtls1_2",
        "-listen",
        "-accept",
        &accept,
        "-cert",
        &chain,
        "-cert_chain",
        &chain,
        "-key",
        &key,
        "-alpn",
        "stun.turn",
        "-naccept",
        "1",
    ]);
    let socket = socket();
    let client = pki::client().with_first_timeout(Duration::from_millis(100));
    let mut session = client.connect("turn.example.org").unwrap();
    send_all(&mut session, &socket, peer);
    let end = Instant::now() + PATIENCE;
    while !session.is_established() {
        assert!(Instant::now() < end, "{session:?}");
        step(&mut session, &socket, peer);
    }
    assert_eq!(session.alpn(), Some(b"stun.turn".as_slice()));
    tool.write("from the tool\n");
    let mut heard = Vec::new();
    while heard.is_empty() {
        assert!(Instant::now() < end, "nothing heard");
        heard = step(&mut session, &socket, peer);
    }
    assert_eq!(heard, [b"from the tool\n"]);
    session.send(b"from the session\n").unwrap();
    session.close();
    send_all(&mut session, &socket, peer);
    let output = tool.output();
    assert!(output.contains("from the session"), "{output}");
}
