//! An authorization server of a test's own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Authority;

/// What a server does with a request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// A status and a body.
    Says(u16, String),
    /// Nothing, ever.
    Hangs,
    /// Nothing, and the connection ends.
    HangsUp,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) host: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: String,
}

/// An authorization server, which ends with its guard.
pub(crate) struct HttpServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    reply: Mutex<Reply>,
    heard: Mutex<Vec<Heard>>,
    connections: AtomicUsize,
    delay: Mutex<Duration>,
}

impl HttpServer {
    pub(crate) async fn start(reply: Reply) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), reply, None).await
    }

    /// Starts one with TLS; the authority's certificate is written into a file.
    pub(crate) async fn start_with_tls(reply: Reply, roots: &Path) -> Self {
        let authority = Authority::new();
        std::fs::write(roots, authority.pem()).unwrap();
        let (certificate, key) = authority.server();
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        Self::start_at("127.0.0.1:0".parse().unwrap(), reply, Some(Arc::new(config).into())).await
    }

    pub(crate) async fn start_at(address: SocketAddr, reply: Reply, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            reply: Mutex::new(reply),
            heard: Mutex::default(),
            connections: AtomicUsize::new(0),
            delay: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            // Connections end with the server.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, acceptor) = (Arc::clone(&serving), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        None => serve(stream, shared).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, shared, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/turn?v=1", self.address)
    }

    /// What is answered from now on.
    pub(crate) fn reply(&self, reply: Reply) {
        *self.shared.reply.lock().unwrap() = reply;
    }

    /// What is answered from now on, with 200.
    pub(crate) fn says(&self, body: &str) {
        self.reply(Reply::Says(200, body.to_owned()));
    }

    /// How long an answer takes from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        *self.shared.delay.lock().unwrap() = delay;
    }

    /// What came since this was asked last.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.shared.heard.lock().unwrap())
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Ends it with its connections.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.task.abort();
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.address
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(request, Arc::clone(&shared)));
    let hang_up = async {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if matches!(*shared.reply.lock().unwrap(), Reply::HangsUp) && !shared.heard.lock().unwrap().is_empty() {
                return;
            }
        }
    };
    tokio::select! {
        _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {},
        () = hang_up => {},
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let header = |name| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let heard = Heard {
        method: parts.method.clone(),
        target: parts.uri.to_string(),
        host: header("host").unwrap_or_default(),
        authorization: header("authorization"),
        body: String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap(),
    };
    shared.heard.lock().unwrap().push(heard);
    let delay = *shared.delay.lock().unwrap();
    tokio::time::sleep(delay).await;
    let reply = shared.reply.lock().unwrap().clone();
    match reply {
        Reply::Says(status, body) => {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(response)
        }
        Reply::Hangs | Reply::HangsUp => std::future::pending().await,
    }
}
