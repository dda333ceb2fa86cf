//! What a shard has counted. Kept by its thread alone and copied when somebody asks: no packet touches a shared counter.

use std::net::IpAddr;

use hairpin_common::maps::Count;
use hairpin_common::verdict::Verdict;
use hairpin_proto::address::{ByClient, Transport};
use hairpin_proto::turn::{Cause, Discard, EndReason, MessageCounts};

use super::connections::ConnectionCounts;
use super::histogram::{HANDSHAKE_SECONDS, Histogram, LIFETIME_SECONDS, SETUP_SECONDS};
use super::media::MediaReport;
use super::socket::Socket;

/// What limits of rate refuse.
pub const LIMITS: [Verdict; 5] = [
    Verdict::AllocationPacketRate,
    Verdict::AllocationBitRate,
    Verdict::RelayBitRate,
    Verdict::SourceRate,
    Verdict::ControlRate,
];

/// Traffic that went through userspace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Relayed from clients to peers.
    pub to_peer: Count,
    /// Relayed from peers to clients.
    pub to_client: Count,
    /// Media of sessions, both ways.
    pub media: Count,
    /// Dropped by the engine, by reason.
    pub discarded: [u64; Discard::ALL.len()],
    /// Dropped by a limit of rate, by verdict.
    pub refused: [u64; Verdict::COUNT],
    /// Dropped for its hop limit.
    pub hop_limit: u64,
    /// Not taken by the kernel.
    pub send_failed: u64,
    /// Bytes carried from clients to peers over TCP (RFC 6062).
    pub stream_bytes_to_peer: u64,
    /// Bytes carried from peers to clients over TCP.
    pub stream_bytes_to_client: u64,
}

impl Counters {
    pub(super) fn discard(&mut self, reason: Discard) {
        self.discarded[reason as usize] += 1;
    }

    pub(super) fn refuse(&mut self, limit: Verdict) {
        self.refused[limit as usize] += 1;
    }

    pub(super) fn relayed(&mut self, through: Socket, bytes: usize) {
        let count = self.direction(through);
        count.packets += 1;
        count.bytes += bytes as u64;
    }

    /// Takes back what [`Counters::relayed`] counted too early.
    pub(super) fn not_sent(&mut self, through: Socket, bytes: usize) {
        let count = self.direction(through);
        count.packets -= 1;
        count.bytes -= bytes as u64;
        self.send_failed += 1;
    }

    fn direction(&mut self, through: Socket) -> &mut Count {
        match through {
            Socket::Relay(..) => &mut self.to_peer,
            Socket::Media(..) => &mut self.media,
            _ => &mut self.to_client,
        }
    }
}

/// How long things took.
#[derive(Clone, Debug)]
pub struct Times {
    /// From the arrival of an Allocate request to its success.
    pub setup: Histogram,
    /// The life of an allocation that has ended.
    pub lifetime: Histogram,
    /// A handshake that succeeded, by transport: TLS and DTLS have one.
    pub handshakes: [Histogram; Transport::ALL.len()],
}

/// Handshakes that took no time so far.
pub(super) fn handshakes() -> Histogram {
    Histogram::new(HANDSHAKE_SECONDS)
}

impl Default for Times {
    fn default() -> Self {
        Self {
            setup: Histogram::new(SETUP_SECONDS),
            lifetime: Histogram::new(LIFETIME_SECONDS),
            handshakes: Transport::ALL.map(|_| handshakes()),
        }
    }
}

/// What a shard has counted, and what it holds.
#[derive(Clone, Debug)]
pub struct Report {
    /// Traffic through userspace.
    pub counters: Counters,
    /// Requests that wait until somebody has said who their user is.
    pub waiting: usize,
    /// Live allocations.
    pub allocations: usize,
    /// The same, by what their clients speak.
    pub allocations_by_client: ByClient,
    /// Allocations that were made.
    pub allocated: u64,
    /// How long things took.
    pub times: Times,
    /// Handshakes that failed, by transport.
    pub handshake_failures: [u64; Transport::ALL.len()],
    /// Open sockets of relayed addresses.
    pub relays: usize,
    /// The same, by this host's address.
    pub ports_in_use: Vec<(IpAddr, usize)>,
    /// Whether new clients are sent elsewhere.
    pub is_draining: bool,
    /// Connections of clients.
    pub connections: ConnectionCounts,
    /// Connections with peers (RFC 6062).
    pub peers: usize,
    /// STUN requests and responses.
    pub messages: MessageCounts,
    /// Requests that were refused, by cause.
    pub refusals: [u64; Cause::COUNT],
    /// Allocations that have ended, by reason.
    pub ended: [u64; EndReason::COUNT],
    /// Sessions of two legs.
    pub media: MediaReport,
}
