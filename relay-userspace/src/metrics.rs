//! Prometheus exposition. Nothing is counted here: at each scrape, what shards and kernel have counted is collected.
//!
//! Label values come from fixed sets (verdicts, reasons, methods, error codes) or from the configuration (interfaces); a
//! client can make none.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hairpin_common::maps::Count;
use hairpin_common::verdict::{Action, Verdict};
use hairpin_proto::address::Transport;
use hairpin_proto::turn::Discard;
use metrics::{Recorder, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::datapath::{self, AttachedMode, InterfaceStatus};
use crate::shard::{ConnectionCounts, End, LIMITS, Report};

/// Everything that a scrape shows.
#[derive(Debug)]
pub struct Snapshot {
    /// What each shard has reported last; none of one that has never answered.
    pub shards: Vec<Report>,
    /// How many shards there are.
    pub shards_all: usize,
    /// How many of them answered for this scrape.
    pub shards_up: usize,
    /// What the kernel path has counted; zeros without XDP.
    pub kernel: datapath::Counters,
    /// Where XDP is attached.
    pub interfaces: Vec<InterfaceStatus>,
    /// Sockets that are reserved for a token.
    pub reserved: usize,
    /// How many relay ports there are, over all relay addresses.
    pub port_capacity: usize,
    /// How many allocations there may be at once.
    pub allocation_capacity: u32,
}

/// Renders snapshots.
pub struct Exporter {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    attachments: Mutex<BTreeMap<Attachment, bool>>,
}

impl Default for Exporter {
    fn default() -> Self {
        Self::new()
    }
}

impl Exporter {
    /// Describes the metrics.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, describe);
        Self { recorder, handle, attachments: Mutex::default() }
    }

    /// The exposition of a snapshot, as text.
    pub fn render(&self, snapshot: &Snapshot) -> String {
        let attached = self.attached(&snapshot.interfaces);
        metrics::with_local_recorder(&self.recorder as &dyn Recorder, || {
            record(snapshot);
            for ([interface, mode, reason], is_attached) in attached {
                let gauge =
                    gauge!("hairpin_xdp_attached", "interface" => interface, "mode" => mode, "reason" => reason);
                gauge.set(if is_attached { 1.0 } else { 0.0 });
            }
        });
        self.handle.render()
    }
}

/// Interface, mode and reason of an attachment.
type Attachment = [String; 3];

impl Exporter {
    /// Every attachment that there ever was, and whether it is there now: a series that was 1 has to become 0.
    fn attached(&self, interfaces: &[InterfaceStatus]) -> BTreeMap<Attachment, bool> {
        // A panic elsewhere leaves what has been seen.
        let mut seen = self.attachments.lock().unwrap_or_else(PoisonError::into_inner);
        seen.values_mut().for_each(|is_attached| *is_attached = false);
        for InterfaceStatus { interface, mode, reason } in interfaces {
            let reason = reason.as_ref().map_or("", |reason| reason.cause.label());
            let attachment = [interface.clone(), mode.label().to_owned(), reason.to_owned()];
            seen.insert(attachment, *mode != AttachedMode::None);
        }
        seen.clone()
    }
}

/// How Binding requests that the program has answered are told.
const BINDING: &str = "binding";
const SUCCESS: u16 = 200;

fn describe() {
    describe_gauge!("hairpin_build_info", "Constant 1, labelled with the version that runs.");
    describe_gauge!("hairpin_shards", "Threads that serve packets.");
    describe_gauge!("hairpin_shards_up", "Those that answered; of the others, what they said last is shown.");
    describe_gauge!("hairpin_draining", "1 while new clients are sent elsewhere (SIGUSR1, until SIGUSR2).");
    describe_gauge!("hairpin_allocations", "Live allocations.");
    describe_gauge!("hairpin_allocations_capacity", "Allocations that there can be at once.");
    describe_counter!("hairpin_relayed_packets_total", "Datagrams relayed, by the path they took and their direction.");
    describe_counter!("hairpin_relayed_bytes_total", "Application data relayed, in bytes, without any framing.");
    describe_counter!(
        "hairpin_relay_to_relay_packets_total",
        "Datagrams that the kernel took from one client to another; those are relayed twice, once in each direction."
    );
    describe_counter!("hairpin_dropped_packets_total", "Datagrams dropped, by path and reason.");
    describe_counter!("hairpin_xdp_passed_packets_total", "Packets that XDP left to the kernel's stack, by reason.");
    describe_counter!("hairpin_stun_requests_total", "STUN requests received, by the path that answers, and method.");
    describe_counter!("hairpin_stun_responses_total", "STUN responses sent, by path, method and code (200: success).");
    describe_gauge!("hairpin_relay_ports_in_use", "Ports of relayed addresses that are bound, reserved ones included.");
    describe_gauge!("hairpin_relay_ports_capacity", "Ports that relayed addresses can have.");
    describe_gauge!(
        "hairpin_xdp_attached",
        "1 where the XDP program is attached, by interface, mode, and why it is not a better one."
    );
    describe_gauge!("hairpin_connections", "Clients' connections that are there, by transport.");
    describe_gauge!("hairpin_new_connections", "Those of them whose client has no allocation (yet).");
    describe_counter!("hairpin_connections_begun_total", "Clients' connections that were begun, by transport.");
    describe_counter!("hairpin_connections_ended_total", "Clients' connections that have ended, by reason.");
    describe_gauge!("hairpin_peer_connections", "Connections with peers (RFC 6062) that are there.");
    describe_counter!("hairpin_tcp_relayed_bytes_total", "Bytes carried over connections with peers, by direction.");
    describe_gauge!("hairpin_flows", "Relayed addresses, permissions and channels that the kernel knows.");
    describe_counter!("hairpin_flow_insert_failures_total", "Those that it could not take; userspace serves them.");
}

fn record(snapshot: &Snapshot) {
    gauge!("hairpin_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("hairpin_shards").set(as_gauge(snapshot.shards_all));
    gauge!("hairpin_shards_up").set(as_gauge(snapshot.shards_up));
    let shards = &snapshot.shards;
    let is_draining = shards.iter().any(|shard| shard.is_draining);
    gauge!("hairpin_draining").set(if is_draining { 1.0 } else { 0.0 });
    gauge!("hairpin_allocations").set(as_gauge(shards.iter().map(|shard| shard.allocations).sum()));
    gauge!("hairpin_allocations_capacity").set(snapshot.allocation_capacity);
    let bound: usize = shards.iter().map(|shard| shard.relays).sum();
    gauge!("hairpin_relay_ports_in_use").set(as_gauge(bound + snapshot.reserved));
    gauge!("hairpin_relay_ports_capacity").set(as_gauge(snapshot.port_capacity));

    let userspace = |count: fn(&Report) -> Count| shards.iter().map(count).fold(Count::default(), add);
    relayed("userspace", "to_peer", userspace(|shard| shard.counters.to_peer));
    relayed("userspace", "to_client", userspace(|shard| shard.counters.to_client));
    for reason in Discard::ALL {
        let discarded = shards.iter().map(|shard| shard.counters.discarded[*reason as usize]).sum();
        dropped("userspace", reason.label(), discarded);
    }
    for limit in LIMITS {
        let refused = shards.iter().map(|shard| shard.counters.refused[limit as usize]).sum();
        dropped("userspace", limit.label(), refused);
    }
    dropped("userspace", "hop_limit", shards.iter().map(|shard| shard.counters.hop_limit).sum());
    dropped("userspace", "send_failed", shards.iter().map(|shard| shard.counters.send_failed).sum());

    let of_connections =
        |count: fn(&ConnectionCounts) -> u64| shards.iter().map(|shard| count(&shard.connections)).sum();
    dropped("userspace", "queue_full", of_connections(|counts| counts.queue_full));
    for transport in Transport::ALL.into_iter().filter(|transport| *transport != Transport::Udp) {
        let sum = |count: fn(&ConnectionCounts) -> &[u64; Transport::ALL.len()]| {
            shards.iter().map(|shard| count(&shard.connections)[transport as usize]).sum::<u64>()
        };
        let label = transport.label();
        gauge!("hairpin_connections", "transport" => label).set(as_gauge(sum(|counts| &counts.open) as usize));
        counter!("hairpin_connections_begun_total", "transport" => label).absolute(sum(|counts| &counts.begun));
    }
    let unknown = of_connections(|counts| counts.unknown);
    counter!("hairpin_connections_begun_total", "transport" => "unknown").absolute(unknown);
    gauge!("hairpin_new_connections").set(as_gauge(of_connections(|counts| counts.new) as usize));
    for end in End::ALL {
        let ended = shards.iter().map(|shard| shard.connections.ended[end as usize]).sum();
        counter!("hairpin_connections_ended_total", "reason" => end.label()).absolute(ended);
    }
    gauge!("hairpin_peer_connections").set(as_gauge(shards.iter().map(|shard| shard.peers).sum()));
    let carried = |count: fn(&Report) -> u64| shards.iter().map(count).sum();
    for (direction, bytes) in [
        ("to_peer", carried(|shard| shard.counters.stream_bytes_to_peer)),
        ("to_client", carried(|shard| shard.counters.stream_bytes_to_client)),
    ] {
        counter!("hairpin_tcp_relayed_bytes_total", "direction" => direction).absolute(bytes);
    }

    let between_relays = snapshot.kernel.verdicts[Verdict::RelayToRelay as usize];
    for verdict in Verdict::ALL {
        let count = snapshot.kernel.verdicts[*verdict as usize];
        match verdict.action() {
            // It is a response, and counted with them.
            Action::Transmit if *verdict == Verdict::Binding => {}
            Action::Transmit if *verdict == Verdict::RelayToRelay => {
                counter!("hairpin_relay_to_relay_packets_total").absolute(count.packets);
            }
            // What goes from client to client goes to a peer, and to a client.
            Action::Transmit => relayed("kernel", verdict.label(), add(count, between_relays)),
            Action::Drop => dropped("kernel", verdict.label(), count.packets),
            Action::Pass => {
                counter!("hairpin_xdp_passed_packets_total", "reason" => verdict.label()).absolute(count.packets);
            }
        }
    }
    gauge!("hairpin_flows").set(as_gauge(snapshot.kernel.flows as usize));
    counter!("hairpin_flow_insert_failures_total").absolute(snapshot.kernel.insert_failures);

    for (method, requests) in sum(shards.iter().flat_map(|shard| shard.messages.requests())) {
        requested("userspace", method, requests);
    }
    for ((method, code), responses) in sum(shards.iter().flat_map(|shard| shard.messages.responses())) {
        responded("userspace", method, code, responses);
    }
    let answered = snapshot.kernel.verdicts[Verdict::Binding as usize].packets;
    requested("kernel", BINDING, answered);
    responded("kernel", BINDING, SUCCESS, answered);
}

fn requested(path: &'static str, method: &'static str, requests: u64) {
    counter!("hairpin_stun_requests_total", "path" => path, "method" => method).absolute(requests);
}

fn responded(path: &'static str, method: &'static str, code: u16, responses: u64) {
    let code = code.to_string();
    counter!("hairpin_stun_responses_total", "path" => path, "method" => method, "code" => code).absolute(responses);
}

fn relayed(path: &'static str, direction: &'static str, count: Count) {
    counter!("hairpin_relayed_packets_total", "path" => path, "direction" => direction).absolute(count.packets);
    counter!("hairpin_relayed_bytes_total", "path" => path, "direction" => direction).absolute(count.bytes);
}

fn dropped(path: &'static str, reason: &'static str, packets: u64) {
    counter!("hairpin_dropped_packets_total", "path" => path, "reason" => reason).absolute(packets);
}

fn add(a: Count, b: Count) -> Count {
    Count { packets: a.packets + b.packets, bytes: a.bytes + b.bytes }
}

/// Sums what several shards have under the same key.
fn sum<K: Ord>(counts: impl Iterator<Item = (K, u64)>) -> BTreeMap<K, u64> {
    let mut sums = BTreeMap::new();
    for (key, count) in counts {
        *sums.entry(key).or_default() += count;
    }
    sums
}

#[allow(clippy::cast_precision_loss, reason = "counts of ports and allocations stay far below 2^52")]
fn as_gauge(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            shards: Vec::new(),
            shards_all: 4,
            shards_up: 3,
            kernel: datapath::Counters::default(),
            interfaces: Vec::new(),
            reserved: 0,
            port_capacity: 0,
            allocation_capacity: 0,
        }
    }

    #[test]
    fn an_attachment_that_is_gone_stays_as_zero_and_comes_back() {
        let exporter = Exporter::new();
        let native = "hairpin_xdp_attached{interface=\"eth0\",mode=\"native\",reason=\"\"}";
        let gone = "hairpin_xdp_attached{interface=\"eth0\",mode=\"none\",reason=\"gone\"}";
        let reason = datapath::Reason { cause: datapath::Cause::Gone, text: "it is away".to_owned() };
        let away = (AttachedMode::None, Some(reason));
        let there = (AttachedMode::Native, None);
        let steps = [(&there, vec![(native, 1)]), (&away, vec![(native, 0), (gone, 0)]), (&there, vec![(native, 1)])];
        for ((mode, reason), expected) in steps {
            let interface = "eth0".to_owned();
            let status = InterfaceStatus { interface, mode: *mode, reason: reason.clone() };
            let text = exporter.render(&Snapshot { interfaces: vec![status], ..snapshot() });
            for (series, value) in expected {
                assert!(text.contains(&format!("\n{series} {value}\n")), "{series} is not {value}: {text}");
            }
        }
    }

    #[test]
    fn what_the_program_answers_is_a_request_with_a_response_and_nothing_that_is_relayed() {
        let mut kernel = datapath::Counters::default();
        kernel.verdicts[Verdict::Binding as usize] = Count { packets: 7, bytes: 300 };
        let text = Exporter::new().render(&Snapshot { kernel, ..snapshot() });
        for line in [
            "hairpin_stun_requests_total{path=\"kernel\",method=\"binding\"} 7",
            "hairpin_stun_responses_total{path=\"kernel\",method=\"binding\",code=\"200\"} 7",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
        }
        assert!(!text.contains("direction=\"binding\""), "{text}");
    }

    #[test]
    fn shards_that_do_not_answer_show() {
        let text = Exporter::new().render(&snapshot());
        assert!(text.contains("\nhairpin_shards 4\n") && text.contains("\nhairpin_shards_up 3\n"), "{text}");
    }
}
