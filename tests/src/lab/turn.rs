//! A TURN client that asks one thing at a time and waits for the answer.
//!
//! It keeps nothing alive and does nothing by itself, so that a test decides what a server gets to see, and when.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hairpin_common::wire::{ChannelDataHeader, Datagram as Kind};
use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::attribute::{
    Attribute, AttributeError, ChannelNumberAttribute, Data, DontFragment, ErrorCodeAttribute, EvenPort, Lifetime,
    MobilityTicket, Nonce, Realm, RequestedAddressFamily, RequestedTransport, Username, XorPeerAddress,
    XorRelayedAddress,
};
use hairpin_proto::stun::{Class, Integrity, LongTermKey, Message, MessageBuilder, Method, TransactionId};

use super::link::Link;
use super::namespace::Namespace;
use super::server::Transport;
use super::stream::Stream;

/// How long a request may take, and how often it is sent again.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(500);
const PROTOCOL_UDP: u8 = 17;

/// A client with one five-tuple.
#[derive(Debug)]
pub struct Client {
    way: Way,
    username: String,
    password: String,
    /// Realm, nonce and key, once the server has told them.
    session: Option<(String, String, LongTermKey)>,
    /// The realm that it takes the server's for, whatever the server says.
    fixed_realm: Option<String>,
    refusal: Option<Response>,
}

/// How it reaches its server.
#[derive(Debug)]
enum Way {
    /// What it has opened itself.
    Link(Link),
    /// A connection that was there.
    Stream(Mutex<Stream>),
}

/// The code of an error response, with its reason phrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub u16, pub String);

/// A response.
#[derive(Clone, Debug)]
pub struct Response(Vec<u8>);

impl Response {
    /// An attribute of the response.
    pub fn get<T>(&self, read: impl FnOnce(&Message<'_>) -> Option<T>) -> Option<T> {
        read(&Message::parse(&self.0).expect("parsed before"))
    }
}

impl Client {
    /// A client in a namespace, from a local address (port 0: any) to a server.
    pub fn new(namespace: &Namespace, local: SocketAddr, server: SocketAddr, username: &str, password: &str) -> Self {
        Self::at(Transport::Udp, namespace, local, server, username, password)
    }

    /// The same over any transport.
    pub fn at(
        transport: Transport,
        namespace: &Namespace,
        local: SocketAddr,
        server: SocketAddr,
        username: &str,
        password: &str,
    ) -> Self {
        Self::by(Way::Link(Link::open(namespace, transport, local, server)), username, password)
    }

    /// The same, asking for a server of this name over TLS and DTLS.
    pub fn by_name(
        transport: Transport,
        namespace: &Namespace,
        server: (SocketAddr, &str),
        username: &str,
        password: &str,
    ) -> Self {
        let (server, name) = server;
        let local = SocketAddr::new(if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0);
        let link = Link::open_by_name(namespace, transport, local, server, Some(name));
        Self::by(Way::Link(link), username, password)
    }

    /// A client over a connection that is there.
    pub fn over(stream: Stream, username: &str, password: &str) -> Self {
        Self::by(Way::Stream(Mutex::new(stream)), username, password)
    }

    fn by(way: Way, username: &str, password: &str) -> Self {
        let [username, password] = [username, password].map(str::to_owned);
        Self { way, username, password, session: None, fixed_realm: None, refusal: None }
    }

    /// The same client with a realm of its own: it does not listen to the server.
    #[must_use]
    pub fn in_realm(self, realm: &str) -> Self {
        Self { fixed_realm: Some(realm.to_owned()), ..self }
    }

    /// The same client at another address: it knows what it has learned of the server.
    #[must_use]
    pub fn elsewhere(&self, namespace: &Namespace, local: SocketAddr, server: SocketAddr) -> Self {
        let other = Self::at(Transport::Udp, namespace, local, server, &self.username, &self.password);
        Self { session: self.session.clone(), ..other }
    }

    /// The connection that it is over.
    ///
    /// # Panics
    /// When it is not over one that was there before.
    pub fn into_stream(self) -> Stream {
        match self.way {
            Way::Link(_) => panic!("the client has no connection to give"),
            Way::Stream(stream) => stream.into_inner().expect("no test goes on after a panic"),
        }
    }

    /// The client's own address.
    pub fn local(&self) -> SocketAddr {
        match &self.way {
            Way::Link(link) => link.local(),
            Way::Stream(stream) => locked(stream).local(),
        }
    }

    /// The realm of the server, once it has asked for credentials.
    pub fn realm(&self) -> Option<&str> {
        self.session.as_ref().map(|(realm, _, _)| realm.as_str())
    }

    /// The whole of the last error response that a request has ended with.
    pub fn refusal(&self) -> Option<&Response> {
        self.refusal.as_ref()
    }

    /// Allocates a relayed address of the family that the client itself has.
    pub fn allocate(&mut self) -> Result<SocketAddr, Refused> {
        self.allocate_with(false)
    }

    /// The same, with DONT-FRAGMENT or without.
    pub fn allocate_with(&mut self, dont_fragment: bool) -> Result<SocketAddr, Refused> {
        self.allocate_of(AddressFamily::of(self.local().ip()), dont_fragment)
    }

    /// The same, of any family.
    pub fn allocate_of(&mut self, family: AddressFamily, dont_fragment: bool) -> Result<SocketAddr, Refused> {
        let family = RequestedAddressFamily(Ok(family));
        let dont_fragment = dont_fragment.then_some(DontFragment);
        let response = self.request(Method::ALLOCATE, |message| {
            message.with(&RequestedTransport(PROTOCOL_UDP)).with(&family).with_option(dont_fragment.as_ref())
        })?;
        let relayed = response.get(|message| message.attribute::<XorRelayedAddress>().ok().flatten());
        Ok(relayed.expect("an allocation has a relayed address").0)
    }

    /// Allocates an even port and has the next one reserved for whoever brings a token, which is not kept.
    pub fn allocate_pair(&mut self) -> Result<SocketAddr, Refused> {
        let pair = EvenPort { reserve_next: true };
        let response =
            self.request(Method::ALLOCATE, |message| message.with(&RequestedTransport(PROTOCOL_UDP)).with(&pair))?;
        let relayed = response.get(|message| message.attribute::<XorRelayedAddress>().ok().flatten());
        Ok(relayed.expect("an allocation has a relayed address").0)
    }

    /// Allocates as [`Client::allocate`] does, and gets a ticket to move with (RFC 8016).
    pub fn allocate_mobile(&mut self) -> Result<(SocketAddr, Vec<u8>), Refused> {
        let family = RequestedAddressFamily(Ok(AddressFamily::of(self.local().ip())));
        let response = self.request(Method::ALLOCATE, |message| {
            message.with(&RequestedTransport(PROTOCOL_UDP)).with(&family).with(&MobilityTicket(&[]))
        })?;
        let relayed = response.get(|message| message.attribute::<XorRelayedAddress>().ok().flatten());
        Ok((relayed.expect("an allocation has a relayed address").0, ticket(&response)))
    }

    /// Shows a ticket: the allocation comes here. Returns the next ticket.
    pub fn move_here(&mut self, shown: &[u8]) -> Result<Vec<u8>, Refused> {
        let response = self.request(Method::REFRESH, |message| message.with(&MobilityTicket(shown)))?;
        Ok(ticket(&response))
    }

    /// Sets the remaining lifetime, in seconds; 0 ends the allocation. Returns what the server granted.
    pub fn refresh(&mut self, seconds: u32) -> Result<u32, Refused> {
        let response = self.request(Method::REFRESH, |message| message.with(&Lifetime(seconds)))?;
        let granted = response.get(|message| message.attribute::<Lifetime>().ok().flatten());
        Ok(granted.expect("a refresh is answered with a lifetime").0)
    }

    /// Installs a permission.
    pub fn permit(&mut self, peer: IpAddr) -> Result<(), Refused> {
        let peer = XorPeerAddress(SocketAddr::new(peer, 0));
        self.request(Method::CREATE_PERMISSION, |message| message.with(&peer)).map(drop)
    }

    /// Binds a channel, or refreshes it.
    pub fn bind_channel(&mut self, channel: u16, peer: SocketAddr) -> Result<(), Refused> {
        self.request(Method::CHANNEL_BIND, |message| {
            message.with(&ChannelNumberAttribute(channel)).with(&XorPeerAddress(peer))
        })
        .map(drop)
    }

    /// Sends application data over a channel.
    pub fn send_on_channel(&self, channel: u16, data: &[u8]) {
        self.send(&channel_data(channel, data));
    }

    /// Sends application data in a Send indication.
    pub fn send_indication(&mut self, peer: SocketAddr, data: &[u8]) {
        self.send_indication_with(peer, data, false);
    }

    /// The same, with DONT-FRAGMENT or without.
    pub fn send_indication_with(&mut self, peer: SocketAddr, data: &[u8], dont_fragment: bool) {
        let mut message = Vec::new();
        MessageBuilder::new(&mut message, Class::Indication, Method::SEND, Self::next_id())
            .with(&XorPeerAddress(peer))
            .with_option(dont_fragment.then_some(DontFragment).as_ref())
            .with(&Data(data))
            .finish(false);
        self.send(&message);
    }

    /// A Send indication, for who sends it in another way; all of them have one transaction ID.
    pub fn indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        MessageBuilder::new(&mut message, Class::Indication, Method::SEND, TransactionId([0xa5; 12]))
            .with(&XorPeerAddress(peer))
            .with(&Data(data))
            .finish(false);
        message
    }

    /// The data of the next ChannelData message, if one comes in time, and its channel.
    pub fn receive_on_channel(&self, limit: Duration) -> Option<(u16, Vec<u8>)> {
        let end = Instant::now() + limit;
        loop {
            let datagram = self.receive(end.checked_duration_since(Instant::now())?)?;
            if let Some((header, data)) = datagram.split_first_chunk()
                && Kind::of(header[0]) == Kind::ChannelData
            {
                let header = ChannelDataHeader::parse(*header);
                let data = data.get(..usize::from(header.length));
                return Some((header.channel, data.expect("a whole ChannelData message").to_vec()));
            }
        }
    }

    /// Peer and data of the next Data indication, if one comes in time.
    pub fn receive_indication(&self, limit: Duration) -> Option<(SocketAddr, Vec<u8>)> {
        let end = Instant::now() + limit;
        loop {
            let datagram = self.receive(end.checked_duration_since(Instant::now())?)?;
            let Ok(message) = Message::parse(&datagram) else { continue };
            if (message.class(), message.method()) == (Class::Indication, Method::DATA) {
                let XorPeerAddress(peer) = message.attribute().ok().flatten().expect("a Data indication has a peer");
                let Data(data) = message.attribute().ok().flatten().expect("a Data indication has data");
                return Some((peer, data.to_vec()));
            }
        }
    }

    /// Sends a message to the server as it is; in a stream, with the padding that belongs there.
    pub fn send(&self, message: &[u8]) {
        match &self.way {
            Way::Link(link) => link.send(message),
            Way::Stream(stream) => {
                let mut padded = message.to_vec();
                padded.resize(message.len().next_multiple_of(4), 0);
                locked(stream).send(&padded);
            }
        }
    }

    /// The next message from the server, if one comes in time.
    pub fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        match &self.way {
            Way::Link(link) => link.receive(limit),
            Way::Stream(stream) => locked(stream).receive(limit),
        }
    }

    /// Sends a request, authenticated as soon as the server has said how, and waits for the answer.
    pub fn request(
        &mut self,
        method: Method,
        fill: impl for<'b> Fn(MessageBuilder<'b>) -> MessageBuilder<'b>,
    ) -> Result<Response, Refused> {
        for _ in 0..3 {
            let id = Self::next_id();
            let mut request = Vec::new();
            let message = fill(MessageBuilder::new(&mut request, Class::Request, method, id));
            match &self.session {
                None => message.finish(true),
                Some((realm, nonce, key)) => message
                    .with(&Username(&self.username))
                    .with(&Realm(realm))
                    .with(&Nonce(nonce))
                    .with_integrity(key, Integrity::Sha1)
                    .finish(true),
            }
            let answer = self.exchange(&request, id);
            let response = Message::parse(&answer).expect("parsed before");
            if response.class() == Class::Success {
                if let Some((_, _, key)) = &self.session {
                    assert!(response.verify_integrity(key), "a success response is signed: {answer:02x?}");
                }
                return Ok(Response(answer));
            }
            let refused = refusal(&response);
            let first = self.session.is_none();
            match refused.0 {
                // Unauthenticated the first time, or a stale nonce.
                401 if first => self.learn(&response),
                438 => self.learn(&response),
                _ => {
                    self.refusal = Some(Response(answer));
                    return Err(refused);
                }
            }
        }
        panic!("{method:?} is refused again and again");
    }

    fn learn(&mut self, challenge: &Message<'_>) {
        let told = text::<Realm<'_>>(challenge, |realm| realm.0.to_owned());
        let realm = self.fixed_realm.clone().unwrap_or(told);
        let nonce = text::<Nonce<'_>>(challenge, |nonce| nonce.0.to_owned());
        let key = LongTermKey::derive(&self.username, &realm, &self.password);
        self.session = Some((realm, nonce, key));
    }

    fn exchange(&self, request: &[u8], id: TransactionId) -> Vec<u8> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            self.send(request);
            // Nothing is lost on a connection, and nothing is sent again.
            let again = if matches!(self.way, Way::Link(_)) { Instant::now() + AGAIN } else { end };
            while let Some(left) = again.checked_duration_since(Instant::now()) {
                let Some(datagram) = self.receive(left) else { break };
                if Message::parse(&datagram).is_ok_and(|message| message.transaction_id() == id) {
                    return datagram;
                }
            }
        }
        panic!("no answer to {request:02x?}");
    }

    fn next_id() -> TransactionId {
        // Never the same again: a server would take it for a retransmission, also from the next client of an address.
        static REQUESTS: AtomicU32 = AtomicU32::new(0);
        let mut id = [0x5a; 12];
        id[..4].copy_from_slice(&REQUESTS.fetch_add(1, Relaxed).to_be_bytes());
        TransactionId(id)
    }
}

fn ticket(response: &Response) -> Vec<u8> {
    let ticket = response.get(|message| Some(message.attribute::<MobilityTicket<'_>>().ok()??.0.to_vec()));
    ticket.expect("who asks for a ticket gets one")
}

/// A ChannelData message without padding.
pub fn channel_data(channel: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("it fits in a datagram");
    let mut message = ChannelDataHeader { channel, length }.to_bytes().to_vec();
    message.extend_from_slice(data);
    message
}

fn locked(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().expect("no test goes on after a panic")
}

fn refusal(response: &Message<'_>) -> Refused {
    let error = response.attribute::<ErrorCodeAttribute<'_>>().ok().flatten();
    let error = error.unwrap_or_else(|| panic!("neither success nor error: {response:?}"));
    Refused(error.code.number(), error.reason.to_owned())
}

fn text<'a, A: Attribute<'a>>(message: &Message<'a>, take: impl FnOnce(A) -> String) -> String {
    let attribute: Result<Option<A>, AttributeError> = message.attribute();
    take(attribute.ok().flatten().expect("a challenge has a realm and a nonce"))
}
