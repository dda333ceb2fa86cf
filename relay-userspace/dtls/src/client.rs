//! A client: whom it trusts, and how a session with a server begins.

use std::net::IpAddr;
use std::time::Duration;

use openssl::ssl::{SslContext, SslMethod, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;

use crate::certificate::Pem;
use crate::error::SetupError;
use crate::session::Session;
use crate::{ffi, settings};

/// Whose certificates a client believes.
#[derive(Clone, Copy, Debug)]
pub enum Roots<'a> {
    /// Those that the system's OpenSSL does.
    System,
    /// Those of a PEM file.
    Pem(Pem<'a>),
    /// Anybody's, for tests and load: whoever is on the path can be the server.
    Unverified,
}

/// A client's roots and settings. A clone is the same client.
#[derive(Clone)]
pub struct ClientContext {
    context: SslContext,
    verified: bool,
    first_timeout: Option<Duration>,
}

impl ClientContext {
    /// A client that believes `roots`, and offers the protocols `alpn`, best first: [`ALPN_TURN`](crate::ALPN_TURN),
    /// [`ALPN_NAT_DISCOVERY`](crate::ALPN_NAT_DISCOVERY) or none. A server that does not know ALPN does not mind.
    ///
    /// # Errors
    ///
    /// The file of the roots is of no use, or OpenSSL has none.
    pub fn new(roots: Roots<'_>, alpn: &[&str]) -> Result<Self, SetupError> {
        let mut builder = settings::builder(SslMethod::dtls_client())?;
        match roots {
            Roots::System => builder.set_default_verify_paths()?,
            Roots::Pem(pem) => {
                let mut store = X509StoreBuilder::new()?;
                for root in pem.certificates()? {
                    store.add_cert(root)?;
                }
                builder.set_cert_store(store.build());
            }
            Roots::Unverified => {}
        }
        let verified = !matches!(roots, Roots::Unverified);
        builder.set_verify(if verified { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        if !alpn.is_empty() {
            builder.set_alpn_protos(&settings::alpn_list(alpn))?;
        }
        Ok(Self { context: builder.build(), verified, first_timeout: None })
    }

    /// As [`ServerContext::with_first_timeout`](crate::ServerContext::with_first_timeout).
    #[must_use]
    pub fn with_first_timeout(mut self, timeout: Duration) -> Self {
        self.first_timeout = Some(timeout);
        self
    }

    /// Begins a session. `server_name` is what the server's certificate must be for: a domain name, which is also sent
    /// to the server, or an IP address. The ClientHello is among the session's datagrams.
    ///
    /// # Errors
    ///
    /// The name cannot be one.
    pub fn connect(&self, server_name: &str) -> Result<Session, SetupError> {
        let mut ssl = settings::ssl(&self.context)?;
        let ip = server_name.parse::<IpAddr>().ok();
        if ip.is_none() {
            let usable = !server_name.is_empty() && server_name.is_ascii() && !server_name.contains('\0');
            let set = usable && ssl.set_hostname(server_name).is_ok();
            if !set {
                return Err(SetupError::ServerName(server_name.to_owned()));
            }
        }
        if self.verified {
            match ip {
                Some(ip) => ssl.param_mut().set_ip(ip)?,
                None => ssl.param_mut().set_host(server_name)?,
            }
        }
        if let Some(timeout) = self.first_timeout {
            ffi::set_first_timeout(&mut ssl, timeout)?;
        }
        Ok(Session::connect(ssl)?)
    }
}
