//! Which socket of a shard, as a name that fits into an epoll event.

use hairpin_proto::media::PortId;
use hairpin_proto::turn::{ConnectionId, RelayId};
use rustix::event::epoll;

/// Which socket of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Socket {
    /// A socket for datagrams of clients, by its place in the list.
    Listener(u32),
    /// The socket of a relayed address, and how often its name was used before: what is still in a batch from the last
    /// socket of that name must not pass for the next one's.
    Relay(RelayId, Generation),
    /// A socket where clients connect, by its place in the list.
    Acceptor(u32),
    /// A client's connection, by its place and how often that was used before.
    Connection(u32, Generation),
    /// An address of a leg of a session.
    Media(PortId, Generation),
    /// A connection between a relayed address and a peer (RFC 6062).
    Peer(ConnectionId),
    /// A client's connection that is joined to a peer's.
    Joined(ConnectionId),
}

/// Counts the sockets that had one name, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(u32);

impl Generation {
    /// The next one; they come round only after half a thousand million.
    pub(super) fn next(self) -> Self {
        Self((self.0 + 1) & GENERATIONS)
    }
}

/// Generations stay below the kind.
const GENERATIONS: u32 = (1 << (KIND_SHIFT - 32)) - 1;
const KIND_SHIFT: u32 = 61;

impl Socket {
    pub(super) fn token(self) -> epoll::EventData {
        let (kind, generation, id) = match self {
            Self::Listener(at) => (0, 0, at),
            Self::Relay(RelayId(id), Generation(generation)) => (1, generation, id),
            Self::Acceptor(at) => (2, 0, at),
            Self::Connection(at, Generation(generation)) => (3, generation, at),
            Self::Peer(ConnectionId(id)) => (4, 0, id),
            Self::Joined(ConnectionId(id)) => (5, 0, id),
            Self::Media(PortId(id), Generation(generation)) => (6, generation, id),
        };
        epoll::EventData::new_u64(kind << KIND_SHIFT | u64::from(generation) << 32 | u64::from(id))
    }

    pub(super) fn from_token(token: u64) -> Self {
        let (id, generation) = (token as u32, Generation((token >> 32) as u32 & GENERATIONS));
        match token >> KIND_SHIFT {
            0 => Self::Listener(id),
            1 => Self::Relay(RelayId(id), generation),
            2 => Self::Acceptor(id),
            3 => Self::Connection(id, generation),
            4 => Self::Peer(ConnectionId(id)),
            5 => Self::Joined(ConnectionId(id)),
            _ => Self::Media(PortId(id), generation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_is_recognised_by_its_token() {
        let last = Generation(GENERATIONS);
        assert_eq!(last.next(), Generation(0));
        for socket in [
            Socket::Listener(7),
            Socket::Relay(RelayId(u32::MAX), last),
            Socket::Relay(RelayId(1), Generation(5)),
            Socket::Media(PortId(u32::MAX), last),
            Socket::Media(PortId(2), Generation(1)),
            Socket::Acceptor(u32::MAX),
            Socket::Connection(u32::MAX, last),
            Socket::Connection(3, Generation::default()),
            Socket::Peer(ConnectionId(u32::MAX)),
            Socket::Joined(ConnectionId(7)),
        ] {
            assert_eq!(Socket::from_token(socket.token().u64()), socket);
        }
    }
}
