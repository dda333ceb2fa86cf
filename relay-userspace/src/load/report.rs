//! The result of a run, for people and for scripts.

use std::fmt;
use std::net::SocketAddr;

use clap::ValueEnum;
use serde::Serialize;

use super::args::{Carrier, Family, Mode, Transport};
use super::pulse::Lost;

/// The result of a run. The names of the fields are those of the JSON and don't change; new ones may come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The server under test.
    pub server: SocketAddr,
    /// `echo` or `pair`.
    pub mode: Mode,
    /// `channel` or `send`.
    pub method: Carrier,
    /// `ipv4` or `ipv6`: the family of the relayed addresses.
    pub family: Family,
    /// `udp`, `tcp` or `tls`: how the clients reached the server.
    pub transport: Transport,
    /// How many allocations there were.
    pub allocations: u32,
    /// Allocations a second, while they were made (with authentication, 64 at a time).
    pub allocations_per_second: f64,
    /// How and when the server was lost during the run, which then ended early; null if it was there to the end.
    pub server_lost: Option<ServerLost>,
    /// Permissions, channels and allocations that the server did not renew during the run.
    pub lost_renewals: u64,
    /// Application data in each packet, in bytes.
    pub payload_bytes: usize,
    /// The packets a second that were asked for; 0 for as fast as possible.
    pub rate: u64,
    /// How long packets were sent, in seconds.
    pub seconds: f64,
    /// Packets that the clients sent.
    pub packets_sent: u64,
    /// Packets that came back, each counted once.
    pub packets_received: u64,
    /// Packets that were sent and did not come back within a second after the last was sent.
    pub packets_lost: u64,
    /// `packets_lost` as a share of `packets_sent`: 0 to 1.
    pub loss: f64,
    /// Packets that came back behind one of the same flow that was sent later (RFC 4737).
    pub packets_reordered: u64,
    /// Further copies of packets that came back already.
    pub packets_duplicated: u64,
    /// Packets that this host's kernel refused to send, or that a connection had no room for; not among those sent.
    pub packets_refused: u64,
    /// Packets that were never sent because the generator had no time; not among those sent.
    pub packets_skipped: u64,
    /// Packets that the generator's own peer sent back; null where there is none.
    pub packets_reflected: Option<u64>,
    /// Packets lost in full receive buffers of the generator: not the server's fault. Null if the host does not say.
    pub receive_buffer_drops: Option<u64>,
    /// Packets sent, a second.
    pub sent_packets_per_second: f64,
    /// Packets received, a second of sending.
    pub received_packets_per_second: f64,
    /// Application data sent, in bits a second.
    pub sent_bits_per_second: f64,
    /// Application data received, in bits a second of sending.
    pub received_bits_per_second: f64,
    /// The time from sending to receiving, in microseconds; null if nothing came back.
    pub latency_microseconds: Option<Latency>,
    /// Processor time that the generator itself took while packets flowed, in seconds, its own peer included.
    pub cpu_seconds: f64,
}

/// A server that died while packets flowed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ServerLost {
    /// `gone`, `silent`, `restarted` or `closed`.
    pub how: Lost,
    /// When it was noticed, in seconds since the first packet.
    pub after_seconds: f64,
}

impl fmt::Display for ServerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:.1} s: {}", self.after_seconds, self.how)
    }
}

/// Percentiles of the latency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the packets were faster.
    pub p50: f64,
    /// 90 % of the packets were faster.
    pub p90: f64,
    /// 99 % of the packets were faster.
    pub p99: f64,
    /// The slowest packet.
    pub max: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} allocations on {} ({}, {}, {}), {:.0} allocations/s",
            self.allocations,
            self.server,
            name(&self.mode),
            name(&self.method),
            name(&self.family),
            self.allocations_per_second,
        )?;
        let rate = |f: &mut fmt::Formatter<'_>, label, packets, per_second, bits: f64| {
            writeln!(f, "{label:<10}{packets:>12} packets {per_second:>12.0} packets/s {:>10.2} Mbit/s", bits / 1e6)
        };
        rate(f, "sent", self.packets_sent, self.sent_packets_per_second, self.sent_bits_per_second)?;
        rate(f, "received", self.packets_received, self.received_packets_per_second, self.received_bits_per_second)?;
        writeln!(f, "{:<10}{:>12} packets {:>12.4} %", "lost", self.packets_lost, self.loss * 100.0)?;
        if let Some(lost) = self.server_lost {
            writeln!(f, "the server was lost {lost}")?;
        }
        writeln!(f, "{:<10}{:>12} packets", "reordered", self.packets_reordered)?;
        for (label, count) in [
            ("duplicated", Some(self.packets_duplicated)),
            ("refused by this host's kernel or by full connections", Some(self.packets_refused)),
            ("skipped, this host was too slow", Some(self.packets_skipped)),
            ("lost in the generator's own buffers", self.receive_buffer_drops),
            ("renewals lost", Some(self.lost_renewals)),
        ] {
            if let Some(count) = count.filter(|count| *count > 0) {
                writeln!(f, "{label}: {count}")?;
            }
        }
        if let Some(Latency { p50, p90, p99, max }) = self.latency_microseconds {
            writeln!(f, "{:<10}p50 {p50:.0} us, p90 {p90:.0} us, p99 {p99:.0} us, max {max:.0} us", "latency")?;
        }
        write!(f, "{:<10}{:.2} s of processor time in {:.2} s", "generator", self.cpu_seconds, self.seconds)
    }
}

fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            server: "192.0.2.1:3478".parse().unwrap(),
            mode: Mode::Echo,
            method: Carrier::Channel,
            family: Family::V4,
            transport: Transport::Udp,
            allocations: 10,
            allocations_per_second: 1234.5,
            server_lost: None,
            lost_renewals: 0,
            payload_bytes: 160,
            rate: 1000,
            seconds: 10.0,
            packets_sent: 10_000,
            packets_received: 9_990,
            packets_lost: 10,
            loss: 0.001,
            packets_reordered: 3,
            packets_duplicated: 0,
            packets_refused: 0,
            packets_skipped: 7,
            packets_reflected: Some(9_995),
            receive_buffer_drops: None,
            sent_packets_per_second: 1000.0,
            received_packets_per_second: 999.0,
            sent_bits_per_second: 1_280_000.0,
            received_bits_per_second: 1_278_720.0,
            latency_microseconds: Some(Latency { p50: 81.2, p90: 95.0, p99: 300.7, max: 2000.0 }),
            cpu_seconds: 0.25,
        }
    }

    #[test]
    fn people_read_what_matters() {
        let expected = "\
10 allocations on 192.0.2.1:3478 (echo, channel, ipv4), 1234 allocations/s
sent             10000 packets         1000 packets/s       1.28 Mbit/s
received          9990 packets          999 packets/s       1.28 Mbit/s
lost                10 packets       0.1000 %
reordered            3 packets
skipped, this host was too slow: 7
latency   p50 81 us, p90 95 us, p99 301 us, max 2000 us
generator 0.25 s of processor time in 10.00 s";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn scripts_find_each_field_under_its_name() {
        let value = serde_json::to_value(report()).unwrap();
        let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "allocations",
                "allocations_per_second",
                "cpu_seconds",
                "family",
                "latency_microseconds",
                "loss",
                "lost_renewals",
                "method",
                "mode",
                "packets_duplicated",
                "packets_lost",
                "packets_received",
                "packets_reflected",
                "packets_refused",
                "packets_reordered",
                "packets_sent",
                "packets_skipped",
                "payload_bytes",
                "rate",
                "receive_buffer_drops",
                "received_bits_per_second",
                "received_packets_per_second",
                "seconds",
                "sent_bits_per_second",
                "sent_packets_per_second",
                "server",
                "server_lost",
                "transport",
            ]
        );
        assert_eq!(value["mode"], "echo");
        assert_eq!(value["latency_microseconds"]["p99"], 300.7);
        assert!(value["receive_buffer_drops"].is_null());
        assert_eq!((&value["family"], &value["transport"]), (&"ipv4".into(), &"udp".into()));
        let lost = Some(ServerLost { how: Lost::Restarted, after_seconds: 1.5 });
        let value = serde_json::to_value(Report { server_lost: lost, ..report() }).unwrap();
        assert_eq!(value["server_lost"], serde_json::json!({ "how": "restarted", "after_seconds": 1.5 }));
    }
}
