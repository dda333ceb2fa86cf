//! A client of HTTP/1.1 that asks one thing for each connection, over TCP or a Unix socket, and hides nothing of the answer; and
//! what servers of the lab have in common.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::namespace::Namespace;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection: whatever bytes may go over.
pub trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// The head of an answer, and what is to come behind it.
pub struct Stream {
    /// The head; its body is empty.
    pub head: Answer,
    rest: BufReader<Box<dyn Connection>>,
}

/// What a server is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Lines of the head, names of headers in lower case.
    pub head: Vec<String>,
    /// As long as the head says.
    pub body: Vec<u8>,
}

/// A connection over TCP, from within a namespace.
///
/// # Panics
/// When nobody listens there.
pub fn tcp(namespace: &Namespace, address: SocketAddr) -> Box<dyn Connection> {
    let stream = namespace.enter(|| TcpStream::connect_timeout(&address, PATIENCE));
    let stream = stream.unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(2 * PATIENCE)).expect("the time is not zero");
    Box::new(stream)
}

/// A connection over a Unix socket.
///
/// # Panics
/// When nobody listens there.
pub fn unix(path: &Path) -> Box<dyn Connection> {
    let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    stream.set_read_timeout(Some(2 * PATIENCE)).expect("the time is not zero");
    Box::new(stream)
}

/// Sends a request; `headers` are whole lines.
///
/// # Panics
/// When the connection breaks.
pub fn ask(connection: Box<dyn Connection>, method: &str, path: &str, headers: &[&str], body: &str) -> Stream {
    begin(connection, method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

fn begin(
    mut connection: Box<dyn Connection>,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> io::Result<Stream> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    if !body.is_empty() {
        request.push_str("Content-Length: ");
        request.push_str(&body.len().to_string());
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.push_str(body);
    // Whoever refuses a long body need not read it.
    let sent = connection.write_all(request.as_bytes());
    Stream::receive(connection).or_else(|error| sent.and(Err(error)))
}

impl Stream {
    /// Waits for the head of an answer.
    pub fn receive(connection: Box<dyn Connection>) -> io::Result<Self> {
        let mut rest = BufReader::new(connection);
        let lines = head(&mut rest)?;
        let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("this is no HTTP: {lines:?}")))?;
        let headers = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Ok(Self { head: Answer { status, headers: headers.collect(), body: String::new() }, rest })
    }

    /// The whole answer.
    ///
    /// # Panics
    /// When the connection breaks.
    pub fn all(mut self) -> Answer {
        let mut body = String::new();
        self.rest.read_to_string(&mut body).unwrap_or_else(|error| panic!("{:?}: {error}", self.head));
        Answer { body, ..self.head }
    }

    /// The data of the next server-sent event.
    ///
    /// # Panics
    /// When the stream ends before, or has only signs of life.
    pub fn event(&mut self) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut line = String::new();
            let read = self.rest.read_line(&mut line);
            assert!(read.is_ok_and(|bytes| bytes > 0), "the stream of events has ended");
            assert!(Instant::now() < end, "nothing has happened");
            // The sizes of chunks stand between.
            if let Some(data) = line.strip_prefix("data:") {
                return serde_json::from_str(data).unwrap_or_else(|error| panic!("{data}: {error}"));
            }
        }
    }
}

impl Request {
    /// Waits for one; it is an error if the connection ends before.
    pub fn receive(from: &mut impl BufRead) -> io::Result<Self> {
        let head = head(from)?;
        let length = head.iter().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        from.read_exact(&mut body)?;
        Ok(Self { head, body })
    }

    /// Such as `GET`.
    pub fn method(&self) -> &str {
        self.word(0)
    }

    /// With the query.
    pub fn path(&self) -> &str {
        self.word(1)
    }

    fn word(&self, number: usize) -> &str {
        self.head.first().and_then(|line| line.split_whitespace().nth(number)).unwrap_or_default()
    }
}

/// Answers with a page, and that this is all.
pub fn answer_with_page(mut to: impl Write, page: &str) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length";
    write!(to, "{head}: {}\r\n\r\n{page}", page.len())
}

/// The lines before the empty one, names of headers in lower case.
fn head(from: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        match line.split_once(':') {
            _ if line.is_empty() => return Ok(lines),
            Some((name, value)) if !lines.is_empty() => lines.push(format!("{}:{value}", name.to_ascii_lowercase())),
            _ => lines.push(line.to_owned()),
        }
    }
}

impl Answer {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Checks that it refuses, with this status and for a reason.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn expect_problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self}");
        let error = self.json()["error"].as_str().map(str::to_owned);
        error.filter(|error| !error.is_empty()).unwrap_or_else(|| panic!("no reason is given: {self}"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        self.headers.iter().try_for_each(|(name, value)| write!(f, "\n  {name}: {value}"))?;
        write!(f, "\n  {}", self.body)
    }
}
