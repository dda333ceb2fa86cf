//! What goes into the state machine and what comes out of it.

use std::net::IpAddr;
use std::time::Instant;

use hairpin_common::wire::STUN_LEN;

use super::directory::Question;
use super::refusal::Refusal;
use crate::address::{FiveTuple, PeerAddr, RelayedAddr};
pub use crate::stun::attribute::ConnectionId;
use crate::stun::attribute::ReservationToken;

/// The time of an input, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For lifetimes: never goes back.
    pub instant: Instant,
    /// For nonces and for credentials that expire: seconds since the Unix epoch.
    pub unix: u64,
}

/// What an ICMP packet said about a datagram that had gone to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Its type: of ICMP or ICMPv6, as the peer's address is of IPv4 or IPv6.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The MTU of the next hop in bytes. It counts only where type and code say that the datagram was too big.
    pub mtu: u32,
}

/// Names an allocation for as long as it lives; afterwards the number is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(pub u32);

/// Names a relayed transport address for as long as it lives; afterwards the number is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(pub u32);

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition<'p> {
    /// Its payload is to be sent on, now.
    Forward(Forward<'p>),
    /// It was a message to the server. What is to be done about it, if anything, is in the queue of effects.
    Control,
    /// It is a message for another shard, which alone knows what it is about. Nothing was done and nothing is
    /// remembered; the driver gives it to that shard, a stream's together with the connection it came over.
    Elsewhere {
        /// The shard.
        shard: u32,
    },
    /// It is a request that cannot be answered before somebody was asked what [`Server::take_question`] says. Nothing was
    /// done and nothing is remembered: the driver keeps the message, and brings it again with the answer, by
    /// [`Server::answered`].
    ///
    /// [`Server::take_question`]: super::Server::take_question
    /// [`Server::answered`]: super::Server::answered
    Ask,
    /// It is to be dropped.
    Discard(Discard),
}

/// A payload to be sent on. It borrows from the datagram that it came in: nothing is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward<'p> {
    /// From the relayed address to a peer, as a plain datagram.
    ToPeer {
        /// Whose traffic it is.
        allocation: AllocationId,
        /// The relayed address to send from.
        relay: RelayId,
        /// Where to.
        peer: PeerAddr,
        /// The application data.
        payload: &'p [u8],
        /// Whether the client asked, by DONT-FRAGMENT, that the datagram not be fragmented.
        dont_fragment: bool,
    },
    /// From the server's address to a client: header, payload, then `padding` zero bytes.
    ToClient {
        /// Whose traffic it is.
        allocation: AllocationId,
        /// The client, and the server's address to send from.
        five_tuple: FiveTuple,
        /// ChannelData or Data indication, up to where the payload starts.
        header: FrameHeader,
        /// The application data.
        payload: &'p [u8],
        /// 0 to 3; a Data indication is padded (RFC 8489 section 14), and ChannelData in a stream (RFC 8656 section 12.5).
        padding: usize,
    },
}

/// The bytes in front of a payload on its way to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    bytes: [u8; Self::CAPACITY],
    len: u8,
}

impl FrameHeader {
    /// STUN header, XOR-PEER-ADDRESS of IPv6, and the header of DATA: the longest there is.
    const CAPACITY: usize = STUN_LEN + 24 + 4;

    /// Copies a header.
    ///
    /// # Panics
    ///
    /// If it is longer than a Data indication's.
    pub fn new(header: &[u8]) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        bytes[..header.len()].copy_from_slice(header);
        Self { bytes, len: header.len() as u8 }
    }

    /// The header's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Why a datagram is dropped. Each is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Discard {
    /// Neither STUN nor ChannelData.
    NotTurn,
    /// It looks like STUN, but its structure is broken.
    MalformedStun,
    /// ChannelData with a length that does not fit, or a number outside of the range.
    MalformedChannelData,
    /// An indication or a response that a server has no use for.
    Unexpected,
    /// A Send indication that lacks an attribute or has one that is not understood.
    BadIndication,
    /// Data of a client that has no allocation.
    NoAllocation,
    /// ChannelData on a number that is not bound.
    NoChannel,
    /// To or from a peer without a permission.
    NoPermission,
    /// To a peer that the policy forbids.
    ForbiddenPeer,
    /// To a peer of a family for which the allocation has no relayed address.
    FamilyMismatch,
    /// From a peer, and too long for a UDP datagram with the header that a client needs in front of it.
    TooLong,
    /// An ICMP packet of a type that clients are not told.
    OtherIcmp,
    /// Data in a message, of a client whose allocation has connections to its peers (RFC 6062).
    TcpAllocation,
    /// From a peer, for a client whose connection has ended and that has not come back yet (RFC 8016).
    NoClient,
}

impl Discard {
    /// Every reason, in the order of `as usize`.
    pub const ALL: &'static [Self] = &[
        Self::NotTurn,
        Self::MalformedStun,
        Self::MalformedChannelData,
        Self::Unexpected,
        Self::BadIndication,
        Self::NoAllocation,
        Self::NoChannel,
        Self::NoPermission,
        Self::ForbiddenPeer,
        Self::FamilyMismatch,
        Self::TooLong,
        Self::OtherIcmp,
        Self::TcpAllocation,
        Self::NoClient,
    ];

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotTurn => "not_turn",
            Self::MalformedStun => "malformed_stun",
            Self::MalformedChannelData => "malformed_channel_data",
            Self::Unexpected => "unexpected",
            Self::BadIndication => "bad_indication",
            Self::NoAllocation => "no_allocation",
            Self::NoChannel => "no_channel",
            Self::NoPermission => "no_permission",
            Self::ForbiddenPeer => "forbidden_peer",
            Self::FamilyMismatch => "family_mismatch",
            Self::TooLong => "too_long",
            Self::OtherIcmp => "other_icmp",
            Self::TcpAllocation => "tcp_allocation",
            Self::NoClient => "no_client",
        }
    }
}

/// What the driver is asked to do. A message borrows from the state machine: send it before the next input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'s> {
    /// Send a message of the server's own, a response or an indication, from `five_tuple.server` to
    /// `five_tuple.client`.
    Respond {
        /// Where to, and from where.
        five_tuple: FiveTuple,
        /// The message.
        message: &'s [u8],
    },
    /// Bind a socket, then answer with `Server::relay_bound`. May be answered at once or later.
    Bind {
        /// The relayed address to be.
        relay: RelayId,
        /// Which address and port.
        request: BindRequest,
    },
    /// Close the socket of a relayed address. Nothing of it may be passed in any more.
    Close {
        /// The relayed address that was.
        relay: RelayId,
    },
    /// Forget a reserved socket, if nobody has taken it.
    DropReservation {
        /// Its token.
        token: ReservationToken,
    },
    /// Open a TCP connection from a relayed address to a peer, then answer with `Server::peer_connected`, at once or
    /// later. `Effect::CloseConnection` may come before the answer.
    Connect {
        /// The connection to be.
        connection: ConnectionId,
        /// The relayed address that it comes from.
        relay: RelayId,
        /// Where to.
        peer: PeerAddr,
    },
    /// From now on the client's connection and the peer's carry bytes to each other as they are, beginning with what
    /// the peer has sent already, and with what the client has sent behind its request. What the client sends is no
    /// longer given to the server; when either side ends, so does the other, and `Server::connection_closed` is called.
    Join {
        /// The peer's connection.
        connection: ConnectionId,
        /// The client's connection: the one on which ConnectionBind came.
        five_tuple: FiveTuple,
    },
    /// Close a peer's connection, or give up opening it, and close the client's connection that is joined to it, if
    /// there is one. Nothing of it may be passed in any more.
    CloseConnection {
        /// The connection that was.
        connection: ConnectionId,
    },
    /// Traffic of this flow may be forwarded without asking, until `expires`. Given again whenever that changes, and
    /// before the response to the request that has changed it.
    ///
    /// A channel's flow comes after its permission's, and that after the one of its relayed address.
    InstallFlow {
        /// The flow.
        flow: Flow,
        /// When the first ends of all that it rests on: relayed address, permission, channel binding.
        expires: Instant,
    },
    /// Traffic of this flow may no longer be forwarded without asking. Comes for every flow that was installed, also for
    /// one that has expired, and in the opposite order.
    RemoveFlow {
        /// The flow.
        flow: Flow,
    },
    /// An allocation was made.
    Allocated {
        /// Its name.
        allocation: AllocationId,
    },
    /// The client of an allocation has come back from another address (RFC 8016): what comes from `to` is the
    /// allocation's too. What comes from `from` still is, until [`Effect::Left`] says otherwise.
    Moved {
        /// The allocation.
        allocation: AllocationId,
        /// Where the client was.
        from: FiveTuple,
        /// Where it is.
        to: FiveTuple,
    },
    /// What comes from a five-tuple is no longer the allocation's, which goes on without it. For all five-tuples that
    /// it still has when it ends, [`Effect::Freed`] says so.
    Left {
        /// The allocation.
        allocation: AllocationId,
        /// Where the client was.
        five_tuple: FiveTuple,
    },
    /// An allocation has ended; its name is free from now on.
    Freed {
        /// Its name.
        allocation: AllocationId,
        /// Why the last of its relayed addresses has ended.
        reason: EndReason,
    },
    /// What is known of the user of an allocation has aged: ask this, and give the answer to `Server::learn`. Nobody waits for
    /// it.
    LookUp {
        /// What is to be asked.
        question: &'s Question,
    },
    /// A request was refused. Comes right behind the response that says so to its client.
    Refused(Refusal<'s>),
}

/// Why an allocation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndReason {
    /// Its client has not refreshed it in time.
    Expired,
    /// Its client has ended it, by a Refresh request with lifetime 0.
    Refreshed,
    /// The connection of its client has ended.
    ClientLost,
    /// The socket of its relayed address is lost.
    SocketLost,
    /// The operator has closed it.
    Closed,
    /// It was still there at the end of the time that draining was given.
    Drained,
    /// The server has ended.
    Shutdown,
}

impl EndReason {
    /// Every reason, in the order of `as usize`.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Expired,
        Self::Refreshed,
        Self::ClientLost,
        Self::SocketLost,
        Self::Closed,
        Self::Drained,
        Self::Shutdown,
    ];

    /// How many reasons there are.
    pub const COUNT: usize = 7;

    /// The name in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Refreshed => "released",
            Self::ClientLost => "client_lost",
            Self::SocketLost => "socket_lost",
            Self::Closed => "closed",
            Self::Drained => "drained",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Which socket the driver shall bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindRequest {
    /// This address and port.
    Port(RelayedAddr),
    /// This address with its even port, and the next port too, which is kept under the token for whoever redeems it.
    Pair(RelayedAddr, ReservationToken),
    /// The socket that is kept under this token.
    Reserved(ReservationToken),
    /// This address and port, of TCP: the socket listens, and connections to peers leave from the same address.
    Stream(RelayedAddr),
}

/// Why there is no connection to a peer. The client is told the same in all cases (447, RFC 6062 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The peer refused, or cannot be reached.
    #[error("the peer cannot be connected to")]
    Failed,
    /// The system still knows an earlier connection between the same two addresses.
    #[error("an earlier connection to the peer is not over yet")]
    InUse,
    /// No connection will work now: no more files.
    #[error("no connection can be opened")]
    Unavailable,
}

/// Why a socket could not be bound. Nothing is left bound or kept then, of a pair neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The port is taken: another one may work.
    #[error("the port is in use")]
    InUse,
    /// No port will work now: no more files, no such address.
    #[error("no socket can be bound")]
    Unavailable,
    /// No socket is kept under the token.
    #[error("there is no such reservation")]
    NoReservation,
}

/// Traffic of an allocation, both directions: all that a fast path must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Whose traffic it is.
    pub allocation: AllocationId,
    /// The client's side.
    pub five_tuple: FiveTuple,
    /// The address that the peer sees, as bound.
    pub relayed: RelayedAddr,
    /// How much of the allocation's traffic.
    pub scope: Scope,
}

/// How much of an allocation's traffic a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// None by itself: the relayed address is there, and others send to it in vain without a permission. Each relayed
    /// address of an allocation has one such flow.
    Relay,
    /// All that the permission for this IP address lets through, on every port, by Send and Data indications (RFC 8656
    /// section 9). What comes from a peer with a channel is that channel's.
    Permission {
        /// The peer's IP address.
        peer: IpAddr,
    },
    /// What goes over one channel (RFC 8656 section 12).
    Channel {
        /// The channel number on the client's side.
        channel: u16,
        /// The peer.
        peer: PeerAddr,
    },
}
