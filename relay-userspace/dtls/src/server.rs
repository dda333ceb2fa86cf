//! A server: certificates, cookies, and the step from datagrams without state to a session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openssl::ssl::{AlpnError, NameType, SniError, SslContext, SslRef, select_next_proto};

use crate::certificate::{CertifiedKey, Identity, Names};
use crate::cookie::{Asking, Cookies};
use crate::error::SetupError;
use crate::ffi;
use crate::hello::ClientHello;
use crate::session::Session;
use crate::settings::{self, ALPN_NAT_DISCOVERY, ALPN_TURN};

/// A server's certificates and settings. A clone is the same server: one for each thread costs nothing.
#[derive(Clone)]
pub struct ServerContext {
    shared: Arc<Shared>,
    first_timeout: Option<Duration>,
}

struct Shared {
    context: SslContext,
    cookies: Cookies,
}

/// What a datagram from an address without a session is.
#[derive(Debug)]
pub enum Hello {
    /// A ClientHello without a cookie that is accepted: the reply asks for one. Nothing is remembered.
    Reply,
    /// A ClientHello with a cookie: the session has read it, and has datagrams to send.
    Accepted(Session),
    /// Anything else.
    Ignored,
}

impl ServerContext {
    /// A server with these certificates. A client gets the first one that is for the name it asks for by SNI (RFC 6066
    /// section 3), and the very first if there is none, or it does not ask. To have keys of two kinds for one name is
    /// not possible.
    ///
    /// `cookie_key` is random, and the same for all that may receive datagrams of one client.
    ///
    /// # Errors
    ///
    /// Say which file is of no use, and why.
    pub fn new(certificates: &[CertifiedKey<'_>], cookie_key: [u8; 32]) -> Result<Self, SetupError> {
        let mut identities = certificates.iter().map(|certified| Identity::new(*certified));
        let mut first = identities.next().ok_or(SetupError::NoCertificate)??;
        let mut others = Vec::new();
        for identity in identities {
            let mut identity = identity?;
            complete(&mut identity);
            others.push((identity.names, identity.builder.build()));
        }
        complete(&mut first);
        let names = first.names;
        first.builder.set_servername_callback(move |ssl, _| choose(ssl, &names, &others));
        let cookies = Cookies::new(&cookie_key, Instant::now());
        Ok(Self { shared: Arc::new(Shared { context: first.builder.build(), cookies }), first_timeout: None })
    }

    /// The same, but a flight of a handshake that nobody answers is first sent again after `timeout`, then after twice
    /// that, and so on. Without this it is a second, as RFC 6347 section 4.2.4.1 asks. OpenSSL takes less than 15 ms for
    /// nothing.
    #[must_use]
    pub fn with_first_timeout(mut self, timeout: Duration) -> Self {
        self.first_timeout = Some(timeout);
        self
    }

    /// Looks at a datagram from an address that has no session. `server` is where it was sent to.
    ///
    /// For [`Hello::Reply`], `reply` is overwritten by the datagram to send back, which is shorter than the one that
    /// asks for it (RFC 6347 section 4.2.1). Nothing is kept: the
    /// cookie says that this client has asked at this time.
    ///
    /// Of a ClientHello in fragments the first is answered, and begins the session; those that come later are the
    /// session's. One that comes before the first is ignored, and the client sends it again.
    pub fn hello(
        &self,
        client: SocketAddr,
        server: SocketAddr,
        now: Instant,
        datagram: &[u8],
        reply: &mut Vec<u8>,
    ) -> Hello {
        let Some(hello) = ClientHello::parse(datagram) else { return Hello::Ignored };
        let cookies = &self.shared.cookies;
        let asking = Asking { client, server, parameters: hello.parameters };
        if !hello.can_begin_session() || !cookies.accept(hello.cookie, asking, now) {
            hello.write_verify_request(&cookies.make(asking, now), reply);
            return Hello::Reply;
        }
        self.session(datagram).map_or(Hello::Ignored, Hello::Accepted)
    }

    /// A session that begins with this ClientHello, if OpenSSL can read it.
    fn session(&self, datagram: &[u8]) -> Option<Session> {
        let mut ssl = settings::ssl(&self.shared.context).ok()?;
        if let Some(timeout) = self.first_timeout {
            ffi::set_first_timeout(&mut ssl, timeout).ok()?;
        }
        Session::accept(ssl, datagram)
    }
}

/// What every certificate's context needs, since the one that SNI chooses takes the place of the first.
fn complete(identity: &mut Identity) {
    let protocols = settings::alpn_list(&[ALPN_TURN, ALPN_NAT_DISCOVERY]);
    identity.builder.set_alpn_select_callback(move |_, offered| {
        let ours = select_next_proto(&protocols, offered).ok_or(AlpnError::ALERT_FATAL)?;
        // The same bytes, but of the client's list, which is what OpenSSL wants.
        offered.windows(ours.len()).find(|name| *name == ours).ok_or(AlpnError::ALERT_FATAL)
    });
    ffi::choose_dh_group(&mut identity.builder);
    // No client is asked for a certificate: no message of its is long.
    ffi::set_max_certificates_len(&mut identity.builder, 1 << 14);
    // The cookie has been looked at before there was a session.
    identity.builder.set_cookie_verify_cb(|_, _| true);
}

fn choose(ssl: &mut SslRef, first: &Names, others: &[(Names, SslContext)]) -> Result<(), SniError> {
    let Some(name) = ssl.servername(NameType::HOST_NAME) else { return Err(SniError::NOACK) };
    if first.contain(name) {
        return Ok(());
    }
    let other = others.iter().find(|(names, _)| names.contain(name));
    let (_, context) = other.ok_or(SniError::NOACK)?;
    ssl.set_ssl_context(context).map_err(|_| SniError::ALERT_FATAL)
}
