//! Chromium without a screen: a page with two peer connections that may use relayed candidates only.
//!
//! It is in a lab, not on loopback, which Chromium does not take for a network.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use hairpin_tests::lab::relay::{PASSWORD, USER};
use hairpin_tests::lab::server::is_installed;
use hairpin_tests::lab::{Authority, Family, Folder, Key, Lab, Namespace, Process, Setup, Transport, process, python};
use serde_json::{Value, json};

/// The page gives up after 30 seconds and says why.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_page_exchanges_messages_and_video_over_udp() {
    run(Transport::Udp, "turn:11.3.0.2:3478?transport=udp");
}

#[test]
fn a_page_exchanges_messages_and_video_over_udp_and_ipv6() {
    run(Transport::Udp, "turn:[2a0e:11:3::2]:3478?transport=udp");
}

#[test]
fn a_page_exchanges_messages_and_video_over_tcp() {
    run(Transport::Tcp, "turn:11.3.0.2:3478?transport=tcp");
}

#[test]
fn a_page_exchanges_messages_and_video_over_tls() {
    run(Transport::Tls, "turns:11.3.0.2:5349?transport=tcp");
}

fn run(transport: Transport, url: &str) {
    if !is_installed("chromium") || !is_installed("certutil") {
        return;
    }
    let lab = Lab::routed();
    let authority = Authority::new();
    // Chromium asks for no family of the relayed address, which means IPv4, also on a way over IPv6.
    let addresses = Family::ALL.map(Lab::relay_ip);
    let certificate = authority.issue(Key::Ecdsa, "turn.test", &addresses);
    let certificates = if transport == Transport::Tls { vec![certificate] } else { Vec::new() };
    let server = Setup::new(&addresses).transports(&[transport]).certificates(&certificates).start(&lab.relay);

    let host = &lab.clients[0];
    let home = Folder::new("chromium");
    trust(&authority.certificate(), home.path());
    let (page, result) = serve(host);
    let question = format!("?url={}&user={USER}&password={PASSWORD}", escaped(url));
    let browser = open(host, home.path(), &format!("{page}{question}"));
    let result = result.recv_timeout(PATIENCE);
    let finished = browser.wait(Duration::ZERO);
    let result = result.unwrap_or_else(|error| panic!("the page says nothing: {error}; {finished}"));

    let protocol = match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls | Transport::Dtls => "tls",
    };
    let way = json!(["relay", "relay", protocol]);
    let expected = json!({ "messages": 50, "frames": 10, "size": [320, 240], "red": true, "ways": [way, way] });
    assert_eq!(result, expected, "{finished}");
    // At least each message, to the other side and back, and each frame; each by both of the relayed addresses.
    server.expect_relayed(100 + 10);
    server.stop();
}

/// Has the browser with this home trust an authority. Its connections to `turns:` ask the same database as those to pages.
fn trust(authority: &Path, home: &Path) {
    let folder = home.join(".pki/nssdb");
    std::fs::create_dir_all(&folder).expect("the home is ours");
    let database = format!("sql:{}", folder.display());
    let certutil = |arguments: &[&str]| {
        let mut command = std::process::Command::new("certutil");
        process::run(command.args(["-d", &database]).args(arguments)).expect_success();
    };
    certutil(&["-N", "--empty-password"]);
    certutil(&["-A", "-t", "C,,", "-n", "authority", "-i", &authority.display().to_string()]);
}

fn open(host: &Namespace, home: &Path, url: &str) -> Process {
    let mut command = host.command("chromium");
    command.args(["--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"]);
    // The tests are root, who gets no sandbox.
    command.arg("--no-sandbox");
    command.arg(format!("--user-data-dir={}", home.join("profile").display())).arg(url);
    Process::spawn(command.env("HOME", home))
}

/// Serves the page inside a namespace until it has posted its result: the page's URL, and where the result comes.
fn serve(host: &Namespace) -> (String, Receiver<Value>) {
    let listener = host.enter(|| TcpListener::bind("127.0.0.1:0")).expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let (sender, result) = mpsc::channel();
    thread::spawn(move || {
        let posted = listener.incoming().flatten().find_map(|stream| answer(&stream).ok().flatten());
        let posted = posted.unwrap_or_default();
        let _ = sender.send(serde_json::from_str(&posted).unwrap_or(Value::String(posted)));
    });
    (format!("http://localhost:{port}/"), result)
}

/// Answers one request: with the page, or to what it posts, which is returned.
fn answer(stream: &TcpStream) -> std::io::Result<Option<String>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let (mut request, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut request)?;
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let posted = request.starts_with("POST").then(|| String::from_utf8_lossy(&body).into_owned());
    let page = if request.starts_with("GET / ") || request.starts_with("GET /?") {
        std::fs::read_to_string(python::scripts().join("chromium.html"))?
    } else {
        String::new()
    };
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length";
    write!(&*stream, "{head}: {}\r\n\r\n{page}", page.len())?;
    Ok(posted)
}

/// A URL as the value in the query of another one.
fn escaped(url: &str) -> String {
    let reserved = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("%{:02X}", c as u32) };
    url.chars().map(reserved).collect()
}
