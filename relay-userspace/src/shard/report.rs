//! What a shard has counted. Kept by its thread alone and copied when somebody asks: no packet touches a shared counter.

use std::net::IpAddr;

use hairpin_common::maps::Count;
use hairpin_common::verdict::Verdict;
use hairpin_proto::turn::{Cause, Discard, EndReason, MessageCounts};

use super::connections::ConnectionCounts;
use super::histogram::Histogram;
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
            _ => &mut self.to_client,
        }
    }
}

/// What a shard has counted, and what it holds.
#[derive(Clone, Debug)]
pub struct Report {
    /// Traffic through userspace.
    pub counters: Counters,
    /// Live allocations.
    pub allocations: usize,
    /// Open sockets of relayed addresses.
    pub relays: usize,
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
    /// Allocations that have begun.
    pub begun: u64,
    /// Allocations that have ended, by reason.
    pub ended: [u64; EndReason::COUNT],
    /// How long things took.
    pub times: Times,
    /// Open sockets of relayed addresses, by this host's address.
    pub ports: Vec<(IpAddr, usize)>,
}

/// How long things took, in seconds.
#[derive(Clone, Debug)]
pub struct Times {
    /// From an Allocate request's arrival to its success response.
    pub setup: Histogram,
    /// From an allocation's beginning to its end.
    pub lifetime: Histogram,
    /// Handshakes of TLS that were finished.
    pub tls_handshake: Histogram,
    /// The same of DTLS.
    pub dtls_handshake: Histogram,
}

const SETUP: &[f64] = &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
const LIFETIME: &[f64] = &[1.0, 10.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 43_200.0, 86_400.0];
const HANDSHAKE: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Default for Times {
    fn default() -> Self {
        Self {
            setup: Histogram::new(SETUP),
            lifetime: Histogram::new(LIFETIME),
            tls_handshake: handshakes(),
            dtls_handshake: handshakes(),
        }
    }
}

/// Handshakes that took no time so far.
pub(super) fn handshakes() -> Histogram {
    Histogram::new(HANDSHAKE)
}
