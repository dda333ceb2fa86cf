//! What is sent, and what must come of it.

use std::net::SocketAddr;

use hairpin_client::frame::{channel_data, send_indication};
use hairpin_common::wire::{CHANNEL_DATA_LEN, STUN_LEN};
use hairpin_proto::stun::attribute::{Data, XorMappedAddress, XorPeerAddress};
use hairpin_proto::stun::{Class, Message, MessageBuilder, Method, TransactionId};

use super::frame::{self, HOP_LIMIT, Link, headers};
use super::program::Shape;
use crate::load::Carrier;

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From clients, through their relayed addresses, to peers.
    ToPeer,
    /// From peers, through relayed addresses, to clients.
    ToClient,
    /// From clients, through two relayed addresses of the same relay, to other clients.
    Pair,
    /// Binding requests, and the answers to them.
    Binding,
}

/// The addresses of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    /// The client's relayed address.
    pub(super) relayed: SocketAddr,
    /// To whom its data goes: a host, or the relayed address of the partner.
    pub(super) peer: SocketAddr,
    /// The client at the other end of a pair.
    pub(super) partner: SocketAddr,
    /// The channel between them, for both ends of a pair.
    pub(super) channel: u16,
}

/// What a frame must have become.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    source: SocketAddr,
    destination: SocketAddr,
    /// How often it was relayed; each takes one from the TTL (RFC 8656 section 13).
    hops: u8,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Exactly(Vec<u8>),
    /// A Data indication, whose transaction id is the relay's choice.
    DataIndication {
        peer: SocketAddr,
        data: Vec<u8>,
    },
    BindingResponse {
        transaction: TransactionId,
        mapped: SocketAddr,
    },
}

/// A frame for each flow, and what must become of it. All frames are of one length, before and after.
#[derive(Clone, Debug)]
pub(super) struct Trips {
    pub(super) frames: Vec<Vec<u8>>,
    expected: Vec<Expected>,
    /// What comes back.
    pub(super) shape: Shape,
    /// Where the mark is in what is sent.
    mark_at: usize,
}

/// Length of the attribute header of DATA and of XOR-PEER-ADDRESS (RFC 8489 section 14).
const ATTRIBUTE_LEN: usize = 4;
/// Where the transaction id is in a STUN message.
const TRANSACTION_AT: usize = 8;

impl Trips {
    /// Frames of application data, `payload` bytes in each, at least 8.
    pub(super) fn of_data(
        way: Way,
        carrier: Carrier,
        link: Link,
        flows: &[Flow],
        payload: usize,
        run: [u8; 4],
    ) -> Self {
        let mut frames = Vec::with_capacity(flows.len());
        let mut expected = Vec::with_capacity(flows.len());
        let from_client = way != Way::ToClient;
        let to_client = way != Way::ToPeer;
        for (number, flow) in flows.iter().enumerate() {
            let data = data(payload, run, number);
            let sent = if from_client { framed(carrier, flow, run, number, &data) } else { data.clone() };
            let (from, to) = if from_client { (flow.client, flow.server) } else { (flow.peer, flow.relayed) };
            frames.push(frame::build(link, from, to, &sent));

            let content = match carrier {
                _ if !to_client => Content::Exactly(data),
                Carrier::Channel => Content::Exactly(framed(carrier, flow, run, number, &data)),
                Carrier::Send => {
                    let peer = if way == Way::Pair { flow.relayed } else { flow.peer };
                    Content::DataIndication { peer, data }
                }
            };
            let (source, destination) = match way {
                Way::Pair => (flow.server, flow.partner),
                Way::ToClient => (flow.server, flow.client),
                _ => (flow.relayed, flow.peer),
            };
            expected.push(Expected { source, destination, hops: if way == Way::Pair { 2 } else { 1 }, content });
        }
        // What stands before the data, and behind it.
        let around = |is_framed: bool, peer: SocketAddr| match carrier {
            _ if !is_framed => (0, 0),
            Carrier::Channel => (CHANNEL_DATA_LEN, 0),
            Carrier::Send => {
                let address = ATTRIBUTE_LEN + if peer.is_ipv4() { 8 } else { 20 };
                (STUN_LEN + address + ATTRIBUTE_LEN, payload.next_multiple_of(4) - payload)
            }
        };
        let (before, _) = around(from_client, flows[0].peer);
        let mark_at = headers(if from_client { flows[0].client.ip() } else { flows[0].peer.ip() }) + before;
        let (before, behind) = around(to_client, flows[0].peer);
        let start = headers(expected[0].source.ip()) + before;
        let shape = Shape { length: start + payload + behind, mark_at: start, run };
        Self { frames, expected, shape, mark_at }
    }

    /// Binding requests without attributes; the answers are so long in UDP.
    pub(super) fn of_bindings(link: Link, flows: &[Flow], answer: usize, run: [u8; 4]) -> Self {
        let (frames, expected) = flows
            .iter()
            .enumerate()
            .map(|(number, Flow { client, server, .. })| {
                let transaction = transaction(run, number);
                let mut request = Vec::new();
                MessageBuilder::new(&mut request, Class::Request, Method::BINDING, transaction).finish(false);
                let content = Content::BindingResponse { transaction, mapped: *client };
                let expected = Expected { source: *server, destination: *client, hops: 0, content };
                (frame::build(link, *client, *server, &request), expected)
            })
            .unzip();
        let start = headers(flows[0].server.ip());
        let shape = Shape { length: start + answer, mark_at: start + TRANSACTION_AT, run };
        Self { frames, expected, shape, mark_at: shape.mark_at }
    }

    /// The same frames for another link, at whose end they are only turned around.
    pub(super) fn reflected(&self, link: Link) -> Self {
        let mut frames = self.frames.clone();
        for frame in &mut frames {
            frame[..6].copy_from_slice(&link.destination);
            frame[6..12].copy_from_slice(&link.source);
        }
        let expected = frames
            .iter()
            .filter_map(|frame| frame::parse(frame).ok())
            .map(|frame| Expected {
                source: frame.source,
                destination: frame.destination,
                hops: 0,
                content: Content::Exactly(frame.payload),
            })
            .collect();
        let shape = Shape { length: frames[0].len(), mark_at: self.mark_at, run: self.shape.run };
        Self { frames, expected, shape, mark_at: self.mark_at }
    }

    /// Checks a frame that came back, to the last bit that is not the relay's choice; an error says what is wrong.
    pub(super) fn check(&self, frame: &[u8]) -> Result<(), String> {
        let mark = frame.get(self.shape.mark_at + 4..self.shape.mark_at + 8).and_then(|mark| mark.try_into().ok());
        let number = mark.map(u32::from_le_bytes).ok_or("it is too short")?;
        let expected = self.expected.get(number as usize).ok_or_else(|| format!("there is no flow {number}"))?;
        let got = frame::parse(frame)?;
        let addresses = |from: SocketAddr, to: SocketAddr| format!("{from} to {to}");
        let (is, should) = (addresses(got.source, got.destination), addresses(expected.source, expected.destination));
        if is != should {
            return Err(format!("it is from {is} and should be from {should}"));
        }
        // The answer to a request is a packet of the relay's own, which has its own TTL.
        let answers = matches!(expected.content, Content::BindingResponse { .. });
        if !answers && got.hop_limit != HOP_LIMIT - expected.hops {
            return Err(format!("its TTL is {} after {} hops from {HOP_LIMIT}", got.hop_limit, expected.hops));
        }
        if expected.content.is(&got.payload) { Ok(()) } else { Err("it carries something else".to_owned()) }
    }
}

impl Content {
    fn is(&self, payload: &[u8]) -> bool {
        let parse = |class, method| {
            Message::parse(payload).ok().filter(|message| (message.class(), message.method()) == (class, method))
        };
        match self {
            Self::Exactly(bytes) => bytes == payload,
            Self::DataIndication { peer, data } => parse(Class::Indication, Method::DATA).is_some_and(|message| {
                let mut expected = Vec::with_capacity(payload.len());
                MessageBuilder::new(&mut expected, Class::Indication, Method::DATA, message.transaction_id())
                    .with(&XorPeerAddress(*peer))
                    .with(&Data(data))
                    .finish(false);
                expected == payload
            }),
            Self::BindingResponse { transaction, mapped } => {
                parse(Class::Success, Method::BINDING).is_some_and(|message| {
                    message.transaction_id() == *transaction
                        && message.attribute() == Ok(Some(XorMappedAddress(*mapped)))
                })
            }
        }
    }
}

fn mark(run: [u8; 4], number: usize) -> [u8; 8] {
    let mut mark = [0; 8];
    mark[..4].copy_from_slice(&run);
    mark[4..].copy_from_slice(&(number as u32).to_le_bytes());
    mark
}

fn data(payload: usize, run: [u8; 4], number: usize) -> Vec<u8> {
    let filler = (8..payload).map(|at| at as u8);
    mark(run, number).into_iter().chain(filler).collect()
}

fn transaction(run: [u8; 4], number: usize) -> TransactionId {
    let mut id = [0; 12];
    id[..8].copy_from_slice(&mark(run, number));
    TransactionId(id)
}

fn framed(carrier: Carrier, flow: &Flow, run: [u8; 4], number: usize, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match carrier {
        Carrier::Channel => channel_data(&mut out, flow.channel, data),
        Carrier::Send => send_indication(&mut out, transaction(run, number), flow.peer, data, false),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { destination: [2, 0, 0, 0, 0, 1], source: [2, 0, 0, 0, 0, 2] };
    const RUN: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];

    fn flow(client: &str, relayed: &str, peer: &str) -> Flow {
        let server = if client.starts_with('[') { "[2a0e::9]:3478" } else { "11.0.0.9:3478" };
        let [client, relayed, peer, server] = [client, relayed, peer, server].map(|address| address.parse().unwrap());
        Flow { client, server, relayed, peer, partner: client, channel: 0x4001 }
    }

    /// What a relay would have to send.
    fn relayed(trips: &Trips, number: usize) -> Vec<u8> {
        let Expected { source, destination, hops, content } = &trips.expected[number];
        let mut payload = Vec::new();
        match content {
            Content::Exactly(bytes) => payload.clone_from(bytes),
            Content::DataIndication { peer, data } => {
                MessageBuilder::new(&mut payload, Class::Indication, Method::DATA, TransactionId([9; 12]))
                    .with(&XorPeerAddress(*peer))
                    .with(&Data(data))
                    .finish(false);
            }
            Content::BindingResponse { transaction, mapped } => {
                MessageBuilder::new(&mut payload, Class::Success, Method::BINDING, *transaction)
                    .with(&XorMappedAddress(*mapped))
                    .finish(false);
            }
        }
        frame::with_hop_limit(frame::build(LINK, *source, *destination, &payload), HOP_LIMIT - hops)
    }

    #[test]
    fn what_should_come_back_has_the_shape_that_is_waited_for_and_is_accepted() {
        let v4 = flow("11.0.0.1:1", "11.0.0.9:50000", "11.0.0.1:7");
        let v6 = flow("[2a0e::1]:1", "[2a0e::9]:50000", "[2a0e::1]:7");
        let mixed = flow("11.0.0.1:1", "[2a0e::9]:50000", "[2a0e::1]:7");
        for flow in [v4, v6, mixed] {
            for payload in [24, 161] {
                let mut all =
                    vec![Trips::of_bindings(LINK, &[flow; 3], if flow.client.is_ipv4() { 32 } else { 44 }, RUN)];
                for way in [Way::ToPeer, Way::ToClient, Way::Pair] {
                    for carrier in [Carrier::Channel, Carrier::Send] {
                        all.push(Trips::of_data(way, carrier, LINK, &[flow; 3], payload, RUN));
                    }
                }
                let reflected: Vec<_> = all.iter().map(|trips| trips.reflected(LINK)).collect();
                for trips in all.iter().chain(&reflected) {
                    let frame = relayed(trips, 2);
                    let Shape { length, mark_at, run } = trips.shape;
                    assert_eq!(frame.len(), length, "{:?}", trips.expected[2]);
                    assert_eq!(frame[mark_at..mark_at + 8], mark(run, 2), "{:?}", trips.expected[2]);
                    assert_eq!(trips.check(&frame), Ok(()), "{:?}", trips.expected[2]);
                }
                for (trips, frame) in reflected.iter().map(|trips| (trips, &trips.frames[1])) {
                    assert_eq!(trips.check(frame), Ok(()));
                }
            }
        }
    }

    #[test]
    fn what_is_not_quite_right_is_told() {
        let flow = flow("11.0.0.1:1", "11.0.0.9:50000", "11.0.0.1:7");
        let flows = [Flow { client: "11.0.0.1:2".parse().unwrap(), ..flow }, flow];
        let trips = Trips::of_data(Way::ToClient, Carrier::Send, LINK, &flows, 24, RUN);
        let whole = frame::parse(&relayed(&trips, 1)).unwrap();
        let rebuilt = |source, destination, payload: &[u8], hop_limit| {
            frame::with_hop_limit(frame::build(LINK, source, destination, payload), hop_limit)
        };
        let (from, to) = (whole.source, whole.destination);
        assert_eq!(trips.check(&rebuilt(from, to, &whole.payload, 63)), Ok(()));
        let told = |frame: &[u8]| trips.check(frame).unwrap_err();
        assert!(told(&rebuilt(from, to, &whole.payload, 64)).contains("TTL"));
        assert!(told(&rebuilt(to, to, &whole.payload, 63)).contains("should be from"));
        assert!(told(&rebuilt(from, from, &whole.payload, 63)).contains("should be from"));
        for at in 0..whole.payload.len() {
            let mut payload = whole.payload.clone();
            payload[at] ^= 1;
            let frame = rebuilt(from, to, &payload, 63);
            // The transaction id is the relay's.
            assert_eq!(trips.check(&frame).is_ok(), (TRANSACTION_AT..STUN_LEN).contains(&at), "byte {at}");
        }
        assert!(told(&trips.frames[1]).contains("no flow") || told(&trips.frames[1]).contains("too short"));
    }
}
