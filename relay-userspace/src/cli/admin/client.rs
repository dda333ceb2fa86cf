//! A client of the admin interface: HTTP over a Unix socket, or over TCP with a token.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::failed::Failed;
use super::place::{Place, Target};
use crate::api::Problem;

/// How long an answer may take. A reload asks all shards.
const PATIENCE: Duration = Duration::from_secs(60);
/// For requests that are said by their path alone.
const NO_BODY: Option<&()> = None;

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
}

/// One connection, for questions to one life of a relay: where a service manager has opened its socket, another connection
/// may start another relay.
#[derive(Debug)]
pub(super) struct Connection<'c> {
    client: &'c Client,
    sender: SendRequest<Full<Bytes>>,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer(String);

/// A stream of server-sent events.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    begun: Vec<u8>,
}

/// What comes by such a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The data of an event.
    Data(String),
    /// A sign of life.
    Quiet,
}

impl Client {
    /// Asks this relay; nothing is sent yet.
    pub(super) fn new(place: &Place) -> Result<Self, Failed> {
        Ok(Self { target: place.target()? })
    }

    /// Reads something.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failed> {
        self.ask(Method::GET, path, NO_BODY).await
    }

    /// Ends something.
    pub(super) async fn delete(&self, path: &str) -> Result<Answer, Failed> {
        self.ask(Method::DELETE, path, NO_BODY).await
    }

    /// Has something done.
    pub(super) async fn send(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Answer, Failed> {
        self.ask(method, path, Some(body)).await
    }

    /// Watches something.
    pub(super) async fn events(&self, path: &str) -> Result<Events, Failed> {
        let response = self.request(Method::GET, path, NO_BODY).await?;
        Ok(Events { body: response.into_body(), begun: Vec::new() })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Answer, Failed> {
        self.in_time(async { self.collected(self.request(method, path, body).await?).await }).await
    }

    async fn in_time(&self, answer: impl Future<Output = Result<Answer, Failed>>) -> Result<Answer, Failed> {
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.broken(&format!("no answer within {} seconds", PATIENCE.as_secs()))),
        }
    }

    async fn collected(&self, response: Response<Incoming>) -> Result<Answer, Failed> {
        let bytes = response.into_body().collect().await.map_err(|error| self.broken(&error))?.to_bytes();
        let text = String::from_utf8(bytes.to_vec()).map_err(|error| self.broken(&error))?;
        Ok(Answer(text))
    }

    /// The answer, if it is a good one.
    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, Failed> {
        let request = self.prepare(method, path, body)?;
        self.connect().await?.exchange(request).await
    }

    fn prepare(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Request<Full<Bytes>>, Failed> {
        let mut request = Request::builder().method(method).uri(path);
        if let Target::Tcp { token: Some(token), .. } = &self.target {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let host = match &self.target {
            Target::Unix(_) => "localhost".to_owned(),
            Target::Tcp { host, .. } => host.authority(),
        };
        request = request.header(header::HOST, host);
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            bytes = serde_json::to_vec(body).map_err(|error| self.broken(&error))?.into();
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(bytes)).map_err(|error| self.broken(&error))
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<Connection<'_>, Failed> {
        match &self.target {
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| no_socket(path, &error))?;
                self.over(stream).await
            }
            Target::Tcp { host, .. } => {
                let stream = TcpStream::connect((host.name.as_str(), host.port)).await;
                let stream = stream.map_err(|error| {
                    self.broken(&format!("{error}; is the relay running, with --admin at this address?"))
                })?;
                self.over(stream).await
            }
        }
    }

    async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Connection<'_>, Failed> {
        let connected = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = connected.map_err(|error| self.broken(&error))?;
        // Its error is the one of the request, too.
        tokio::spawn(connection);
        Ok(Connection { client: self, sender })
    }

    async fn refused(&self, response: Response<Incoming>) -> Failed {
        let status = response.status();
        let body = response.into_body().collect().await.map(Collected::to_bytes);
        let problem = body.ok().and_then(|body| serde_json::from_slice::<Problem>(&body).ok());
        match problem {
            Some(problem) if status == StatusCode::BAD_REQUEST => Failed::Usage(problem.error),
            Some(problem) => Failed::Refused(problem),
            None => self.broken(&format!("{status}: this is not the admin interface of hairpin")),
        }
    }

    fn broken(&self, error: &(impl std::fmt::Display + ?Sized)) -> Failed {
        Failed::Here(match &self.target {
            Target::Unix(path) => format!("{}: {error}", path.display()),
            Target::Tcp { host, .. } => format!("http://{}: {error}", host.authority()),
        })
    }
}

impl Connection<'_> {
    /// Reads something.
    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, Failed> {
        let client = self.client;
        let request = client.prepare(Method::GET, path, NO_BODY)?;
        client.in_time(async { client.collected(self.exchange(request).await?).await }).await
    }

    /// The answer, if it is a good one.
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failed> {
        let lost =
            |error| self.client.broken(&format!("{error}: the relay has ended, or is about to; its log says more"));
        self.sender.ready().await.map_err(lost)?;
        let response = self.sender.send_request(request).await.map_err(lost)?;
        if response.status().is_success() { Ok(response) } else { Err(self.client.refused(response).await) }
    }
}

fn no_socket(path: &Path, error: &io::Error) -> Failed {
    let path = path.display();
    Failed::Here(match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "{path}: this is for root, the user of the relay and its group: run the command as one of them, or use --admin-url \
             and --admin-token-file"
        ),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!(
                "{path}: no relay answers there; is it running? --admin-socket names another socket, --admin-url another host"
            )
        }
        _ => format!("{path}: {error}"),
    })
}

impl Answer {
    /// The JSON as it came.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// What it means.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failed> {
        let read = serde_json::from_str(&self.0);
        read.map_err(|error| Failed::Here(format!("the relay's answer: {error}; is it of another version than this?")))
    }
}

impl Events {
    /// The next one; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(data) = line.strip_prefix("data:") {
                    return Some(Line::Data(data.trim().to_owned()));
                }
                if line.starts_with(':') {
                    return Some(Line::Quiet);
                }
                continue;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(bytes) = frame.into_data() {
                self.begun.extend_from_slice(&bytes);
            }
        }
    }
}

/// A path with a query of what is given.
pub(super) fn with_query(path: &str, query: &[(&str, Option<&str>)]) -> String {
    let mut all = path.to_owned();
    for (key, value) in query {
        if let Some(value) = value {
            all.push(if all.contains('?') { '&' } else { '?' });
            // Writing to a string never fails.
            let _ = write!(all, "{key}={}", escaped(value));
        }
    }
    all
}

/// A text as one part of a path or query (RFC 3986 section 2.3).
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_a_query_is_escaped() {
        let query = [("user", Some("a&b=ç d/%")), ("realm", None), ("client", Some("[::1]:9"))];
        let expected = "/v1/allocations?user=a%26b%3D%C3%A7%20d%2F%25&client=%5B%3A%3A1%5D%3A9";
        assert_eq!(with_query("/v1/allocations", &query), expected);
        assert_eq!(with_query("/v1/users", &[]), "/v1/users");
    }
}
