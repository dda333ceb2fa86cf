//! One connection of a client over TCP or TLS: bytes come in, messages come out, and the other way round.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;

use hairpin_common::wire::Datagram;
use hairpin_proto::address::{ClientAddr, FiveTuple, Transport};
use hairpin_proto::framing::MAX_FRAME;
use proxy_header::{ParseConfig, ProxyHeader};
use rustls::ServerConnection;

use super::output::{ENCRYPTED, Flushed, Output};
use crate::net::Stream;

/// How much is read at once.
const READ: usize = 16 << 10;
/// The longest header of a load balancer that is waited for: addresses, and what it likes to add.
const MAX_PROXY_HEADER: usize = 4096;
/// The first byte of every record in which a TLS handshake begins (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// What a listener lets its clients speak.
#[derive(Clone, Debug)]
pub(super) struct Accepts {
    /// Plain TCP.
    pub(super) plain: bool,
    /// TLS.
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
}

/// Why a connection has ended. Each is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client has closed it, or is gone.
    Client,
    /// What came is neither STUN nor ChannelData, or no TLS where that is asked for.
    NotTurn,
    /// TLS failed.
    Tls,
    /// The load balancer did not say whose connection it is.
    ProxyHeader,
    /// Nothing came for too long.
    Timeout,
    /// The client does not read what it has asked for.
    Stalled,
    /// There are too many, of this source or of all.
    TooMany,
    /// Its work is done: the peer at the other end has closed, or the allocation has ended.
    Finished,
}

impl End {
    /// Every reason, in the order of `as usize`.
    pub const ALL: [Self; 8] = [
        Self::Client,
        Self::NotTurn,
        Self::Tls,
        Self::ProxyHeader,
        Self::Timeout,
        Self::Stalled,
        Self::TooMany,
        Self::Finished,
    ];

    /// What it means for whoever asks why a client cannot relay, and what to do; none where nothing has failed.
    pub(super) fn explanation(self) -> Option<&'static str> {
        Some(match self {
            Self::Client | Self::Finished => return None,
            Self::NotTurn => {
                "What came is neither STUN nor ChannelData, nor TLS where only that is spoken: compare the client's URI \
                 (turn: or turns:, port, transport) with the listeners."
            }
            Self::Tls => {
                "The handshake of TLS or DTLS failed: the client may not trust the certificate, or may speak no version or \
                 cipher of the server's."
            }
            Self::ProxyHeader => {
                "The load balancer did not begin with a header of the PROXY protocol, version 2: turn it on there, or take \
                 the balancer out of proxy-protocol."
            }
            Self::Timeout => "Nothing whole came in time: the client has given up, or its network lost what it sent.",
            Self::Stalled => "The client does not read what it has asked for.",
            Self::TooMany => {
                "There are too many connections without an allocation, of this address or of all: see max-connections, \
                 max-new-connections and max-new-connections-per-source."
            }
        })
    }

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::NotTurn => "not_turn",
            Self::Tls => "tls",
            Self::ProxyHeader => "proxy_header",
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::TooMany => "too_many",
            Self::Finished => "finished",
        }
    }
}

/// How far a connection has come.
#[derive(Debug)]
enum Stage {
    /// The load balancer says first whose connection it is. What has come of that so far.
    ProxyHeader(Vec<u8>),
    /// The first byte tells TLS from plain TCP.
    First,
    Plain,
    Tls(Box<ServerConnection>),
}

/// Where what was received is put. One for all connections of a shard.
pub(super) struct StreamBuffer {
    raw: Box<[u8]>,
    plain: Vec<u8>,
}

impl StreamBuffer {
    pub(super) fn new() -> Self {
        Self { raw: vec![0; READ].into(), plain: Vec::with_capacity(MAX_FRAME + READ) }
    }

    /// Room for bytes that are on their way through.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        &mut self.raw
    }

    /// One that nothing can be read into.
    pub(super) fn empty() -> Self {
        Self { raw: Box::default(), plain: Vec::new() }
    }

    /// Whether something can be read into it.
    pub(super) fn has_room(&self) -> bool {
        !self.raw.is_empty()
    }

    /// What was received last, and before it what was kept.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.plain
    }
}

/// A connection of a client.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    five_tuple: FiveTuple,
    stage: Stage,
    accepts: Accepts,
    /// The beginning of a message whose end has not come yet.
    begun: Vec<u8>,
    output: Output,
    /// Whether the client has said, in TLS, that nothing more comes.
    has_ended: bool,
    /// What the client has said of TLS before it gave up.
    alert: Option<&'static str>,
    /// Whether the engine knows which name the client has asked for.
    is_named: bool,
}

impl Connection {
    /// A connection that was just accepted. `proxied`: the other end is a load balancer, who says first for whom.
    pub(super) fn new(stream: Stream, five_tuple: FiveTuple, accepts: Accepts, proxied: bool) -> Self {
        let stage = if proxied { Stage::ProxyHeader(Vec::new()) } else { Stage::First };
        Self {
            stream,
            five_tuple,
            stage,
            accepts,
            begun: Vec::new(),
            output: Output::default(),
            has_ended: false,
            alert: None,
            is_named: false,
        }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Who is at both ends, as far as it is known: before the first byte was read, it may turn out to be TLS, and of a
    /// connection from a load balancer the client is not known yet.
    pub(super) fn five_tuple(&self) -> FiveTuple {
        self.five_tuple
    }

    /// Whether the five-tuple is final.
    pub(super) fn is_identified(&self) -> bool {
        matches!(self.stage, Stage::Plain | Stage::Tls(_))
    }

    /// Which name the client has asked for in its handshake, once it is known.
    pub(super) fn take_server_name(&mut self) -> Option<String> {
        match &self.stage {
            Stage::Tls(tls) if !self.is_named && !tls.is_handshaking() => {
                self.is_named = true;
                tls.server_name().map(str::to_owned)
            }
            _ => None,
        }
    }

    /// Whether the handshake of TLS is still to be finished, which takes the time of thousands of messages.
    pub(super) fn is_handshaking(&self) -> bool {
        match &self.stage {
            Stage::ProxyHeader(_) | Stage::First => self.accepts.tls.is_some(),
            Stage::Tls(tls) => tls.is_handshaking(),
            Stage::Plain => false,
        }
    }

    /// Whether a step of the handshake of TLS was just taken.
    pub(super) fn has_shaken(&self) -> bool {
        matches!(&self.stage, Stage::Tls(tls) if tls.wants_write() || !tls.is_handshaking())
    }

    /// Whether something waits to be written.
    pub(super) fn is_blocked(&self) -> bool {
        !self.output.is_empty() || matches!(&self.stage, Stage::Tls(tls) if tls.wants_write())
    }

    /// What the client has said of TLS before it gave up (RFC 8446 section 6).
    pub(super) fn alert(&self) -> Option<&'static str> {
        self.alert
    }

    /// Whether nothing more comes behind what was received last.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Reads once what has arrived, and puts behind what was kept what is new, decrypted. Returns whether anything had.
    pub(super) fn receive(&mut self, buffer: &mut StreamBuffer) -> Result<bool, End> {
        let StreamBuffer { raw, plain } = buffer;
        plain.clear();
        plain.extend_from_slice(&self.begun);
        self.begun = Vec::new();
        let read = match self.stream.read(raw) {
            Ok(0) => return Err(End::Client),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(_) => return Err(End::Client),
        };
        self.take(&raw[..read], plain).map(|()| true)
    }

    /// Starts with what was kept alone: the connection has come from another shard.
    pub(super) fn resume(&mut self, buffer: &mut StreamBuffer) {
        // At the shard where it goes on.
        self.is_named = false;
        buffer.plain.clear();
        buffer.plain.extend_from_slice(&self.begun);
        self.begun = Vec::new();
    }

    /// Keeps the beginning of a message for the next time.
    pub(super) fn keep(&mut self, begun: &[u8]) {
        self.begun.extend_from_slice(begun);
    }

    fn take(&mut self, raw: &[u8], plain: &mut Vec<u8>) -> Result<(), End> {
        match &mut self.stage {
            Stage::Plain => {
                plain.extend_from_slice(raw);
                Ok(())
            }
            Stage::Tls(tls) => {
                let decrypted = decrypt(tls, raw, plain).map_err(|error| {
                    tracing::trace!(%error, "TLS failed");
                    self.alert = alert_in(&error);
                    End::Tls
                });
                self.has_ended |= decrypted?;
                Ok(())
            }
            Stage::ProxyHeader(before) => {
                before.extend_from_slice(raw);
                let all = std::mem::take(before);
                match proxied(&all)? {
                    None => self.stage = Stage::ProxyHeader(all),
                    Some((client, length)) => {
                        if let Some(client) = client {
                            self.five_tuple.client = client;
                        }
                        self.stage = Stage::First;
                        self.take(&all[length..], plain)?;
                    }
                }
                Ok(())
            }
            Stage::First => {
                let Some(first) = raw.first() else { return Ok(()) };
                match (&self.accepts.tls, *first) {
                    (Some(config), TLS_HANDSHAKE) => {
                        let mut tls = ServerConnection::new(Arc::clone(config)).map_err(|_| End::Tls)?;
                        // What waits beyond a record is kept in our own queue, which knows what may be dropped.
                        tls.set_buffer_limit(Some(ENCRYPTED));
                        self.five_tuple.transport = Transport::Tls;
                        self.stage = Stage::Tls(Box::new(tls));
                    }
                    (_, first) if self.accepts.plain && Datagram::of(first) != Datagram::Other => {
                        self.stage = Stage::Plain;
                    }
                    _ => return Err(End::NotTurn),
                }
                self.take(raw, plain)
            }
        }
    }

    /// Writes what the kernel takes.
    pub(super) fn flush(&mut self) -> Result<Flushed, End> {
        let Self { stream, stage, output, .. } = self;
        let tls = match stage {
            Stage::Tls(tls) => Some(&mut **tls),
            Stage::Plain | Stage::First | Stage::ProxyHeader(_) => None,
        };
        output.flush(stream, tls).map_err(|_| End::Client)
    }

    /// Says, behind all that waits, that nothing more comes.
    pub(super) fn finish(&mut self) {
        if let Stage::Tls(tls) = &mut self.stage {
            tls.send_close_notify();
            // What does not fit now is lost with the connection.
            let _ = self.flush();
        }
        self.stream.finish();
    }

    /// Says goodbye, as far as it can be said without waiting. What comes still may be read.
    pub(super) fn close(mut self) -> Stream {
        if matches!(self.flush(), Ok(Flushed::All)) {
            self.finish();
        }
        self.stream
    }
}

/// Returns whether nothing more comes.
fn decrypt(tls: &mut ServerConnection, mut raw: &[u8], plain: &mut Vec<u8>) -> io::Result<bool> {
    let mut has_ended = false;
    while !raw.is_empty() && !has_ended {
        tls.read_tls(&mut raw)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        has_ended = state.peer_has_closed();
        let start = plain.len();
        plain.resize(start + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut plain[start..])?;
    }
    Ok(has_ended)
}

fn alert_in(error: &io::Error) -> Option<&'static str> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => alert.as_str(),
        _ => None,
    }
}

/// What a load balancer says (PROXY protocol, version 2): whose connection it is, if not its own, and how long it took to
/// say so.
fn proxied(bytes: &[u8]) -> Result<Option<(Option<ClientAddr>, usize)>, End> {
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    match ProxyHeader::parse(bytes, config) {
        Ok((header, length)) => {
            let client = header.proxied_address().map(|address| client(address.source));
            Ok(Some((client, length)))
        }
        Err(proxy_header::Error::BufferTooShort) if bytes.len() < MAX_PROXY_HEADER => Ok(None),
        Err(_) => Err(End::ProxyHeader),
    }
}

fn client(source: SocketAddr) -> ClientAddr {
    ClientAddr::new(source)
}
