//! One association: what comes and goes in datagrams, and what the caller reads and writes.

use std::fmt;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{ErrorCode, NameType, Ssl, SslCipherRef, SslStream};
use openssl::x509::X509VerifyResult;

use crate::error::{Error, alert, reason};
use crate::ffi;
use crate::hello::ClientHello;
use crate::record::{Plausible, plausible};
use crate::wire::Wire;

/// The longest plaintext, in bytes: that of a record (RFC 6347 section 4.1). A datagram of a longer record than the path
/// takes is fragmented by IP, like any other.
pub const MAX_PLAINTEXT: usize = 16_384;

/// What AES-GCM adds to a plaintext: nonce and tag (RFC 5288).
const GCM_OVERHEAD: usize = 8 + 16;
/// What ChaCha20-Poly1305 adds: a tag (RFC 7905).
const CHACHA_OVERHEAD: usize = 16;
/// How many datagrams with protected records a handshake takes. OpenSSL keeps each that comes before its keys in 17 kB,
/// up to a hundred of them. A client has one such record to send, and another when it begins to use the association.
const EARLY: u8 = 16;

/// A DTLS association, of the server or the client.
///
/// Datagrams that are not of this association, are damaged, or have come before, are dropped without a word.
///
/// # Memory
///
/// Measured by `examples/measure.rs` with OpenSSL 3.0 on x86-64: a server's session takes 36 kB when it is idle, of
/// which 17 kB are the buffer of the handshake's messages, which OpenSSL keeps for DTLS. Buffers for records are freed
/// whenever all there is has been read, and would take 33 kB more. During its handshake a session takes 78 kB, and at
/// most 17 kB more for each of 16 records that come before their keys, and for each of ten messages that come in
/// pieces or too early.
pub struct Session {
    stream: SslStream<Wire>,
    state: State,
    /// Whether OpenSSL has said that it waits for a datagram, and got none since: it holds no piece of a record.
    waits: bool,
    /// The longest plaintext that the peer takes.
    limit: usize,
    /// What protection adds to each plaintext. Until it is known, the most that it can be.
    overhead: usize,
    /// How many more protected records may come before the handshake ends.
    early: u8,
    /// What tells this session's ClientHello from others, at a server.
    client_random: Option<[u8; 32]>,
    /// What the peer has ended the handshake by.
    alert: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshake,
    Established,
    Closed,
}

impl Session {
    /// A server's session that begins with this ClientHello, whose cookie is right. `None` if OpenSSL cannot read it.
    pub(crate) fn accept(ssl: Ssl, client_hello: &[u8]) -> Option<Self> {
        let mut session = Self::new(ssl).ok()?;
        session.client_random = ClientHello::parse(client_hello).and_then(|hello| hello.random.first_chunk().copied());
        ffi::clear_errors();
        session.wire().inbox.push(client_hello);
        session.wire().peeking = true;
        let listened = ffi::listen(&mut session.stream);
        session.wire().peeking = false;
        if !listened {
            ffi::clear_errors();
            return None;
        }
        // A session that refuses the client, for example its ciphers, has an alert to send.
        let _ = session.advance();
        Some(session)
    }

    /// A client's session.
    pub(crate) fn connect(mut ssl: Ssl) -> Result<Self, ErrorStack> {
        ssl.set_connect_state();
        let mut session = Self::new(ssl)?;
        // It only writes its ClientHello, to memory.
        let _ = session.advance();
        Ok(session)
    }

    fn new(ssl: Ssl) -> Result<Self, ErrorStack> {
        let stream = SslStream::new(ssl, Wire::default())?;
        Ok(Self {
            stream,
            state: State::Handshake,
            waits: false,
            limit: MAX_PLAINTEXT,
            overhead: GCM_OVERHEAD,
            early: EARLY,
            client_random: None,
            alert: None,
        })
    }

    /// Gives the session a datagram from the peer.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] before, or [`Error::Failed`] now: then there may be an alert to send.
    pub fn receive(&mut self, datagram: &[u8]) -> Result<(), Error> {
        if self.state == State::Closed {
            return Err(Error::Closed);
        }
        let plausible = plausible(datagram, self.overhead);
        if plausible == Plausible::No {
            return Ok(());
        }
        let handshake = self.state == State::Handshake;
        if handshake && plausible == Plausible::Protected {
            let Some(left) = self.early.checked_sub(1) else { return Ok(()) };
            self.early = left;
        }
        self.wire().inbox.push(datagram);
        self.waits = false;
        if handshake { self.advance() } else { Ok(()) }
    }

    /// Takes the next plaintext: its length in `buffer`. Each is what the peer has sent by one call.
    ///
    /// To be called until there is none, also when no data is expected: it is what answers a peer that repeats the end
    /// of its handshake, and what hears that the peer has closed.
    pub fn next_plaintext(&mut self, buffer: &mut [u8; MAX_PLAINTEXT]) -> Option<usize> {
        while self.state == State::Established && !self.waits {
            if !ffi::prepare(&mut self.stream) {
                return None;
            }
            let before = self.wire().inbox.waiting();
            let error = match self.stream.ssl_read(buffer) {
                Ok(len) => return Some(len),
                Err(error) => error,
            };
            match error.code() {
                ErrorCode::WANT_READ | ErrorCode::WANT_WRITE => self.wait(),
                ErrorCode::ZERO_RETURN => self.close(),
                _ if self.is_broken() => self.state = State::Closed,
                // An error that ended nothing, of a record that was dropped. There may be more in the same datagram.
                _ if self.wire().inbox.waiting() < before => {}
                _ => return None,
            }
        }
        None
    }

    /// Takes the next datagram for the peer.
    pub fn next_datagram(&mut self) -> Option<&[u8]> {
        self.wire().outbox.pop()
    }

    /// Makes a datagram of a plaintext, in one record. An empty plaintext makes none.
    ///
    /// # Errors
    ///
    /// [`Error::NotEstablished`] and [`Error::Closed`]; [`Error::TooLong`] for more than [`Session::max_plaintext`].
    pub fn send(&mut self, plaintext: &[u8]) -> Result<(), Error> {
        match self.state {
            State::Handshake => return Err(Error::NotEstablished),
            State::Closed => return Err(Error::Closed),
            State::Established => {}
        }
        let (len, limit) = (plaintext.len(), self.limit);
        if len > limit {
            return Err(Error::TooLong { len, limit });
        }
        if !ffi::prepare(&mut self.stream) {
            return Err(Error::Failed("out of memory".to_owned()));
        }
        let written = self.stream.ssl_write(plaintext);
        if self.waits {
            ffi::free_buffers(&mut self.stream);
        }
        match written {
            Ok(_) => Ok(()),
            Err(error) => Err(self.fail(error.ssl_error())),
        }
    }

    /// The longest plaintext that [`send`](Self::send) takes, in bytes: [`MAX_PLAINTEXT`], or less if the peer has asked
    /// for it (RFC 6066 section 4).
    pub fn max_plaintext(&self) -> usize {
        self.limit
    }

    /// Whether the handshake is finished, and the session not closed.
    pub fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// Whether the session has ended. There may be a last datagram to send.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The number of the alert (RFC 8446 section 6) by which the peer has ended the handshake, if it did.
    pub fn alert(&self) -> Option<u8> {
        self.alert
    }

    /// How long until [`handle_timeout`](Self::handle_timeout) is due, while a handshake waits for the peer.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.is_closed() { None } else { ffi::timeout(&self.stream) }
    }

    /// Sends the last flight of the handshake again, if it is time.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if it has been sent a dozen times.
    pub fn handle_timeout(&mut self) -> Result<(), Error> {
        if self.is_closed() {
            return Ok(());
        }
        if !ffi::prepare(&mut self.stream) {
            return Ok(());
        }
        let handled = ffi::handle_timeout(&mut self.stream);
        if self.waits {
            ffi::free_buffers(&mut self.stream);
        }
        handled.map_err(|errors| self.fail(Some(&errors)))
    }

    /// Ends the session, and tells the peer (close_notify, RFC 5246 section 7.2.1) if the handshake was finished.
    pub fn close(&mut self) {
        if self.state == State::Established && ffi::prepare(&mut self.stream) {
            // Writes to memory, and does not wait for the peer's answer.
            let _ = self.stream.shutdown();
        }
        self.state = State::Closed;
    }

    /// Whether `datagram` begins another session than this one: a ClientHello of a client that has lost its state, and
    /// uses the same address again.
    ///
    /// It goes to [`ServerContext::hello`](crate::ServerContext::hello), and the new session takes this one's place
    /// when it is established, not before: RFC 6347 section 4.2.8, and anybody could replay a ClientHello.
    pub fn is_succeeded_by(&self, datagram: &[u8]) -> bool {
        let Some(ours) = self.client_random else { return false };
        ClientHello::parse(datagram).is_some_and(|hello| hello.random != ours)
    }

    /// The protocol that both sides have chosen (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.ssl().selected_alpn_protocol()
    }

    /// The name that the client has asked for (RFC 6066 section 3).
    pub fn server_name(&self) -> Option<&str> {
        self.stream.ssl().servername(NameType::HOST_NAME)
    }

    /// The cipher suite, by OpenSSL's name for it, once it is chosen.
    pub fn cipher(&self) -> Option<&'static str> {
        self.stream.ssl().current_cipher().map(SslCipherRef::name)
    }

    fn wire(&mut self) -> &mut Wire {
        self.stream.get_mut()
    }

    /// Takes the handshake as far as the datagrams go.
    fn advance(&mut self) -> Result<(), Error> {
        if !ffi::prepare(&mut self.stream) {
            return Ok(());
        }
        let error = match self.stream.do_handshake() {
            Ok(()) => {
                self.state = State::Established;
                if self.cipher().is_some_and(|cipher| cipher.contains("CHACHA20")) {
                    self.overhead = CHACHA_OVERHEAD;
                }
                self.limit = ffi::max_fragment_length(self.stream.ssl()).unwrap_or(MAX_PLAINTEXT);
                return Ok(());
            }
            Err(error) => error,
        };
        match error.code() {
            ErrorCode::WANT_READ | ErrorCode::WANT_WRITE => {
                self.wait();
                Ok(())
            }
            _ if self.is_broken() => Err(self.fail(error.ssl_error())),
            _ => Ok(()),
        }
    }

    /// OpenSSL has read all there is.
    fn wait(&mut self) {
        self.waits = true;
        ffi::free_buffers(&mut self.stream);
    }

    /// Whether OpenSSL will do nothing more with this session: an error of a record that it has dropped is none.
    fn is_broken(&self) -> bool {
        self.stream.ssl().state_string_long() == "error"
    }

    fn fail(&mut self, errors: Option<&ErrorStack>) -> Error {
        self.state = State::Closed;
        self.alert = errors.and_then(alert);
        let reason = errors.and_then(reason).unwrap_or_else(|| "no reason given".to_owned());
        let verified = self.stream.ssl().verify_result();
        Error::Failed(if verified == X509VerifyResult::OK {
            reason
        } else {
            format!("{reason}: {}", verified.error_string())
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").field("state", &self.state).finish_non_exhaustive()
    }
}
