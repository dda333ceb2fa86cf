//! Requests to one server of HTTP/1.1, over connections that are kept.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::WebhookError;
use crate::layout::wrong;
use crate::{StoreError, tls};

/// A longer answer is none.
const LONGEST_ANSWER: usize = 64 * 1024;

/// So many connections are kept that nobody uses.
const KEPT: usize = 16;

type Connection = SendRequest<Full<Bytes>>;

/// A server, and connections to it.
pub(super) struct Server {
    host: String,
    port: u16,
    encryption: Option<(TlsConnector, ServerName<'static>)>,
    target: Uri,
    /// Host and port as the URL has them.
    authority: HeaderValue,
    authorization: Option<HeaderValue>,
    idle: Mutex<Vec<Connection>>,
}

impl Server {
    pub(super) fn new(
        uri: &Uri,
        authorization: Option<HeaderValue>,
        roots: Option<&Path>,
    ) -> Result<Self, WebhookError> {
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or(WebhookError::Url)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (encryption, port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => {
                let config = tls::config(roots).map_err(WebhookError::Roots)?;
                let name = ServerName::try_from(host.clone()).map_err(|_| WebhookError::Url)?;
                (Some((TlsConnector::from(config), name)), 443)
            }
            _ => return Err(WebhookError::Url),
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = target.parse().map_err(|_| WebhookError::Url)?;
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().ends_with(authority.host()) => port,
            None => return Err(WebhookError::Url),
        };
        let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| WebhookError::Url)?;
        Ok(Self { host, port, encryption, target, authority, authorization, idle: Mutex::default() })
    }

    /// Sends a request and receives the whole response.
    pub(super) async fn send(&self, method: Method, body: Vec<u8>) -> Result<(StatusCode, Bytes), StoreError> {
        let body = Bytes::from(body);
        while let Some(mut connection) = self.take() {
            // The server may have ended it meanwhile. Asking twice does no harm.
            if let Ok(response) = connection.send_request(self.request(&method, &body)).await {
                return self.receive(connection, response).await;
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(self.request(&method, &body)).await.map_err(|error| lost(&error))?;
        self.receive(connection, response).await
    }

    async fn receive(
        &self,
        mut connection: Connection,
        response: Response<Incoming>,
    ) -> Result<(StatusCode, Bytes), StoreError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => lost(&error),
            Err(_) => wrong("answer", format!("it is longer than {LONGEST_ANSWER} bytes")),
        })?;
        if connection.ready().await.is_ok() {
            self.keep(connection);
        }
        Ok((status, body.to_bytes()))
    }

    fn request(&self, method: &Method, body: &Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = self.target.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("hairpin"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        request
    }

    async fn connect(&self) -> Result<Connection, StoreError> {
        let unreachable = |error: std::io::Error| StoreError::Unreachable(error.to_string());
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        // What is sent is one small segment, and waits for nothing.
        stream.set_nodelay(true).map_err(unreachable)?;
        match &self.encryption {
            None => shake_hands(stream).await,
            Some((connector, name)) => {
                shake_hands(connector.connect(name.clone(), stream).await.map_err(unreachable)?).await
            }
        }
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(SendRequest::is_ready);
        idle.pop()
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
    }
}

async fn shake_hands(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Connection, StoreError> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
    // Ends when nobody sends any more.
    tokio::spawn(connection);
    Ok(sender)
}

fn lost(error: &hyper::Error) -> StoreError {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    StoreError::Unreachable(format!("{error}{source}"))
}
