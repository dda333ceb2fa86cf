//! The result of `hairpin load --blast`, for people and for scripts.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

use super::Counts;
use crate::load::{Carrier, Direction, Family, Mode, ServerLost};

/// The result of a run. The names of the fields are those of the JSON and don't change; new ones may come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlastReport {
    /// The relay.
    pub server: SocketAddr,
    /// The veth that frames left by and came back by.
    pub interface: String,
    /// `echo` for frames between clients and peers, `pair` for those between clients.
    pub mode: Mode,
    /// `to-peer` or `to-client`; null for pairs.
    pub direction: Option<Direction>,
    /// `channel` or `send`.
    pub method: Carrier,
    /// `ipv4` or `ipv6`: the family of the relayed addresses.
    pub family: Family,
    /// How many allocations there were, each with one flow.
    pub allocations: u32,
    /// Application data in each frame, in bytes.
    pub payload_bytes: usize,
    /// The frames a second that were asked for; 0 for as many as possible.
    pub rate: u64,
    /// How and when the relay was lost during the run, which then ended early; null if it was there to the end.
    pub server_lost: Option<ServerLost>,
    /// How long frames were sent, in seconds.
    pub seconds: f64,
    /// Frames that the link took: those that the relay's interface received.
    pub packets_sent: u64,
    /// Frames that the link had no room for; not among those sent.
    pub packets_refused: u64,
    /// Frames that came back, of the right length and with the mark of this run.
    pub packets_received: u64,
    /// Frames that were sent and did not come back.
    pub packets_lost: u64,
    /// Of these, frames that the relay sent and that found no room on the link back.
    pub packets_overrun: u64,
    /// `packets_lost` as a share of `packets_sent`: 0 to 1.
    pub loss: f64,
    /// `packets_received` as a share of `packets_sent`: 0 to 1.
    pub share: f64,
    /// Frames that were compared, to the last bit, with what they should be.
    pub packets_verified: u64,
    /// Frames sent, a second.
    pub sent_packets_per_second: f64,
    /// Frames that came back, a second.
    pub received_packets_per_second: f64,
    /// Application data that came back, in bits a second.
    pub received_bits_per_second: f64,
}

impl BlastReport {
    /// Fills in what follows from the counts.
    #[allow(clippy::cast_precision_loss, reason = "counts of packets are far below 2^52")]
    pub(super) fn with(mut self, counts: Counts, seconds: f64) -> Self {
        // Among what the link refused can be a packet or two of the stack's own.
        let sent = counts.made.saturating_sub(counts.refused).max(counts.received);
        let lost = sent.saturating_sub(counts.received);
        let of_sent = |count: u64| if sent == 0 { 0.0 } else { count as f64 / sent as f64 };
        self.seconds = seconds;
        self.packets_sent = sent;
        self.packets_refused = counts.refused;
        self.packets_received = counts.received;
        self.packets_lost = lost;
        self.packets_overrun = counts.overrun;
        self.loss = of_sent(lost);
        self.share = of_sent(counts.received);
        self.sent_packets_per_second = sent as f64 / seconds;
        self.received_packets_per_second = counts.received as f64 / seconds;
        self.received_bits_per_second = self.received_packets_per_second * (self.payload_bytes * 8) as f64;
        self
    }
}

impl fmt::Display for BlastReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match (self.mode, self.direction) {
            (Mode::Pair, _) => "client to client",
            (Mode::Echo, None | Some(Direction::ToPeer)) => "client to peer",
            (Mode::Echo, Some(Direction::ToClient)) => "peer to client",
        };
        let method = match self.method {
            Carrier::Channel => "channels",
            Carrier::Send => "indications",
        };
        let (server, interface) = (self.server, &self.interface);
        writeln!(f, "{} allocations on {server} by {interface} ({way}, {method})", self.allocations)?;
        let rate = |f: &mut fmt::Formatter<'_>, label, packets, per_second| {
            writeln!(f, "{label:<10}{packets:>12} packets {per_second:>12.0} packets/s")
        };
        rate(f, "sent", self.packets_sent, self.sent_packets_per_second)?;
        rate(f, "received", self.packets_received, self.received_packets_per_second)?;
        let (lost, loss) = (self.packets_lost, self.loss * 100.0);
        writeln!(f, "{:<10}{lost:>12} packets {loss:>12.4} %", "lost")?;
        for (label, count, what) in [
            ("overrun", self.packets_overrun, "of the lost, by a full link back"),
            ("refused", self.packets_refused, "not sent, by a full link"),
        ] {
            if count > 0 {
                writeln!(f, "{label:<10}{count:>12} packets {what}")?;
            }
        }
        if let Some(lost) = self.server_lost {
            writeln!(f, "the server was lost {lost}")?;
        }
        let Self { packets_verified, received_bits_per_second, seconds, .. } = self;
        writeln!(f, "{:<10}{packets_verified:>12} packets to the last bit", "compared")?;
        write!(f, "{:<10}{:.2} Mbit/s of application data in {seconds:.2} s", "carried", received_bits_per_second / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_link_refused_was_never_sent_and_what_did_not_come_back_is_lost() {
        let report = BlastReport {
            server: "192.0.2.1:3478".parse().unwrap(),
            interface: "veth0".to_owned(),
            mode: Mode::Echo,
            direction: Some(Direction::ToClient),
            method: Carrier::Channel,
            family: Family::V4,
            allocations: 10,
            payload_bytes: 100,
            rate: 0,
            server_lost: None,
            seconds: 0.0,
            packets_sent: 0,
            packets_refused: 0,
            packets_received: 0,
            packets_lost: 0,
            packets_overrun: 0,
            loss: 0.0,
            share: 0.0,
            packets_verified: 74,
            sent_packets_per_second: 0.0,
            received_packets_per_second: 0.0,
            received_bits_per_second: 0.0,
        };
        let counts = Counts { made: 5000, refused: 1000, received: 3000, overrun: 600, others: 9 };
        let report = report.with(counts, 0.5);
        let expected = "\
10 allocations on 192.0.2.1:3478 by veth0 (peer to client, channels)
sent              4000 packets         8000 packets/s
received          3000 packets         6000 packets/s
lost              1000 packets      25.0000 %
overrun            600 packets of the lost, by a full link back
refused           1000 packets not sent, by a full link
compared            74 packets to the last bit
carried   4.80 Mbit/s of application data in 0.50 s";
        assert_eq!(report.to_string(), expected);
        let json = serde_json::to_value(report).unwrap();
        assert_eq!((&json["loss"], &json["share"]), (&0.25.into(), &0.75.into()));
        assert_eq!((&json["direction"], &json["mode"]), (&"to-client".into(), &"echo".into()));
    }
}
