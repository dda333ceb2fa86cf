//! Which number of a snapshot is which sample.

use std::collections::BTreeMap;

use hairpin_common::maps::Count;
use hairpin_common::verdict::{Action, Verdict};
use hairpin_proto::address::{AddressFamily, Transport};
use hairpin_proto::media::{self as proto, CloseReason, SessionState};
use hairpin_proto::turn::Discard;

use super::exposition::Page;
use super::family::Family;
use super::snapshot::{Configuration, Credentials, Snapshot, Traces};
use crate::config::Rates;
use crate::shard::{ConnectionCounts, End, Histogram, LIMITS, Report};

/// How Binding requests that the program has answered are told.
const BINDING: &str = "binding";
const SUCCESS: u16 = 200;
/// Transports whose clients have connections, or associations.
const CONNECTED: [Transport; 3] = [Transport::Tcp, Transport::Tls, Transport::Dtls];
/// Transports that begin with a handshake.
const ENCRYPTED: [Transport; 2] = [Transport::Tls, Transport::Dtls];

/// Puts everything on a page but where XDP is attached, which takes memory of earlier scrapes.
pub(super) fn record(page: &mut Page, snapshot: &Snapshot) {
    health(page, snapshot);
    allocations(page, snapshot);
    sessions(page, snapshot);
    users(page, snapshot);
    limits(page, &snapshot.rates);
    requests(page, snapshot);
    traffic(page, snapshot);
    kernel(page, snapshot);
    connections(page, &snapshot.shards);
    process(page, snapshot);
}

fn health(page: &mut Page, snapshot: &Snapshot) {
    page.put(Family::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1);
    page.put(Family::StartTime, &[], snapshot.started);
    let Configuration { read, has_failed, reloads, failures } = snapshot.configuration;
    page.put(Family::LastReloadSuccessful, &[], u8::from(!has_failed));
    page.put(Family::LastReloadSuccess, &[], read);
    page.put(Family::Reloads, &["success"], reloads);
    page.put(Family::Reloads, &["failure"], failures);
    page.put(Family::Shards, &[], snapshot.shards_all);
    page.put(Family::ShardsUp, &[], snapshot.shards_up);
    for (shard, lag) in snapshot.lag.iter().enumerate() {
        page.put(Family::ShardLag, &[&shard.to_string()], lag.as_secs_f64());
    }
    let is_draining = snapshot.shards.iter().any(|shard| shard.is_draining);
    page.put(Family::Draining, &[], u8::from(is_draining));
    page.put(Family::DrainDeadline, &[], snapshot.drain_deadline.unwrap_or(0));
    for certificate in &snapshot.certificates {
        page.put(Family::CertificateExpiry, &[&certificate.file], certificate.expires);
    }
    page.put(Family::LogLinesDropped, &[], snapshot.log_lines_dropped);
    let Traces { exported, failed, dropped } = snapshot.traces;
    page.put(Family::TracesExported, &["success"], exported);
    page.put(Family::TracesExported, &["failure"], failed);
    page.put(Family::TracesDropped, &[], dropped);
}

fn allocations(page: &mut Page, snapshot: &Snapshot) {
    let shards = &snapshot.shards;
    for transport in Transport::ALL {
        for family in AddressFamily::ALL {
            let of_shard = |shard: &Report| shard.allocations_by_client[transport as usize][family.index()];
            let live: usize = shards.iter().map(of_shard).sum();
            page.put(Family::Allocations, &[transport.label(), family.label()], live);
        }
    }
    page.put(Family::AllocationsCapacity, &[], snapshot.allocation_capacity);
    page.put(Family::AllocationsBegun, &[], total(shards, |shard| shard.allocated));
    for (reason, ended) in &snapshot.ended {
        page.put(Family::AllocationsEnded, &[reason], ended);
    }
    histogram(page, Family::AllocationSetup, &[], shards, |shard| &shard.times.setup);
    histogram(page, Family::AllocationLifetime, &[], shards, |shard| &shard.times.lifetime);
    for ports in &snapshot.ports {
        let address = ports.address.to_string();
        page.put(Family::RelayPortsInUse, &[&address], ports.in_use);
        page.put(Family::RelayPortsCapacity, &[&address], ports.capacity);
    }
}

fn sessions(page: &mut Page, snapshot: &Snapshot) {
    let shards = &snapshot.shards;
    for state in SessionState::ALL {
        let live: usize = shards.iter().map(|shard| shard.media.by_state[state as usize]).sum();
        page.put(Family::IceSessions, &[state.label()], live);
    }
    page.put(Family::IceSessionsCapacity, &[], snapshot.session_capacity);
    page.put(Family::IceSessionsCreated, &[], total(shards, |shard| shard.media.created));
    for reason in CloseReason::ALL {
        let closed = total(shards, |shard| shard.media.closed[reason as usize]);
        page.put(Family::IceSessionsClosed, &[reason.label()], closed);
    }
    for answer in proto::Answer::ALL {
        let answered = total(shards, |shard| shard.media.checks[answer as usize]);
        page.put(Family::IceChecks, &[answer.label()], answered);
    }
}

fn users(page: &mut Page, snapshot: &Snapshot) {
    for realm in &snapshot.realms {
        page.put(Family::RealmAllocations, &[&realm.name], realm.allocations.used);
        page.put(Family::RealmAllocationsCapacity, &[&realm.name], realm.allocations.of);
        page.put(Family::RealmUsers, &[&realm.name], realm.users);
    }
    page.put(Family::RequestsWaiting, &[], snapshot.shards.iter().map(|shard| shard.waiting).sum::<usize>());
    for store in &snapshot.user_stores {
        let name = store.store.as_str();
        page.put(Family::UserStoreUp, &[name], u8::from(store.is_up));
        for (answer, count) in store.answers {
            page.put(Family::UserStoreAnswers, &[name, answer], count);
        }
        page.put_histogram(Family::UserStoreSeconds, &[name], &store.seconds);
    }
}

/// Limits have the name that their victims have among what was dropped.
fn limits(page: &mut Page, rates: &Rates) {
    let bits = [(Verdict::AllocationBitRate, rates.allocation_bits), (Verdict::RelayBitRate, rates.relay_bits)];
    for (limit, rate) in bits {
        page.put(Family::ByteLimits, &[limit.label()], rate.number().div_ceil(8));
    }
    for (limit, rate) in [
        (Verdict::AllocationPacketRate, rates.allocation_packets),
        (Verdict::SourceRate, rates.source_packets),
        (Verdict::ControlRate, rates.control_packets),
    ] {
        page.put(Family::PacketLimits, &[limit.label()], rate.number());
    }
}

fn requests(page: &mut Page, snapshot: &Snapshot) {
    for (cause, refused) in &snapshot.refusals {
        page.put(Family::Refusals, &[cause], refused);
    }
    for (method, requests) in sum(snapshot.shards.iter().flat_map(|shard| shard.messages.requests())) {
        requested(page, "userspace", method, requests);
    }
    for ((method, code), responses) in sum(snapshot.shards.iter().flat_map(|shard| shard.messages.responses())) {
        responded(page, "userspace", method, code, responses);
    }
    let answered = snapshot.kernel.verdicts[Verdict::Binding as usize].packets;
    requested(page, "kernel", BINDING, answered);
    responded(page, "kernel", BINDING, SUCCESS, answered);
    let Credentials { minted, refused } = &snapshot.credentials;
    page.put(Family::CredentialsMinted, &[], minted);
    for (reason, refused) in refused {
        page.put(Family::CredentialsRefused, &[reason], refused);
    }
}

fn traffic(page: &mut Page, snapshot: &Snapshot) {
    let shards = &snapshot.shards;
    let userspace = |count: fn(&Report) -> Count| shards.iter().map(count).fold(Count::default(), add);
    relayed(page, "userspace", "to_peer", userspace(|shard| shard.counters.to_peer));
    relayed(page, "userspace", "to_client", userspace(|shard| shard.counters.to_client));
    media(page, "userspace", userspace(|shard| shard.counters.media));
    for reason in proto::Discard::ALL {
        dropped(page, "userspace", reason.label(), total(shards, |shard| shard.media.discarded[*reason as usize]));
    }
    for reason in Discard::ALL {
        dropped(page, "userspace", reason.label(), total(shards, |shard| shard.counters.discarded[*reason as usize]));
    }
    for limit in LIMITS {
        dropped(page, "userspace", limit.label(), total(shards, |shard| shard.counters.refused[limit as usize]));
    }
    dropped(page, "userspace", "hop_limit", total(shards, |shard| shard.counters.hop_limit));
    dropped(page, "userspace", "send_failed", total(shards, |shard| shard.counters.send_failed));
    dropped(page, "userspace", "queue_full", total(shards, |shard| shard.connections.queue_full));
    for (direction, bytes) in [
        ("to_peer", total(shards, |shard| shard.counters.stream_bytes_to_peer)),
        ("to_client", total(shards, |shard| shard.counters.stream_bytes_to_client)),
    ] {
        page.put(Family::TcpRelayedBytes, &[direction], bytes);
    }
}

fn kernel(page: &mut Page, snapshot: &Snapshot) {
    let kernel = &snapshot.kernel;
    let of = |verdicts: &[Verdict]| {
        verdicts.iter().map(|verdict| kernel.verdicts[*verdict as usize]).fold(Count::default(), add)
    };
    for verdict in Verdict::ALL {
        let count = kernel.verdicts[*verdict as usize];
        match verdict.action() {
            // Those that were sent are below.
            Action::Transmit => {}
            Action::Drop => dropped(page, "kernel", verdict.label(), count.packets),
            Action::Pass => page.put(Family::XdpPassed, &[verdict.label()], count.packets),
        }
    }
    // What goes from client to client goes to a peer, and to a client; and between a client and a leg, one of these. Answers
    // to Binding requests are counted with responses.
    relayed(page, "kernel", "to_peer", of(&Verdict::RELAYED_TO_PEER));
    relayed(page, "kernel", "to_client", of(&Verdict::RELAYED_TO_CLIENT));
    page.put(Family::RelayToRelay, &[], of(&[Verdict::RelayToRelay]).packets);
    media(page, "kernel", of(&Verdict::CARRIED_MEDIA));
    page.put(Family::Flows, &[], kernel.flows);
    page.put(Family::FlowInsertFailures, &[], kernel.insert_failures);
    page.put(Family::KernelRecords, &[], kernel.records.used);
    page.put(Family::KernelRecordsCapacity, &[], kernel.records.capacity);
    page.put(Family::KernelNextHops, &[], kernel.next_hops.used);
    page.put(Family::KernelNextHopsCapacity, &[], kernel.next_hops.capacity);
}

fn connections(page: &mut Page, shards: &[Report]) {
    let of_all = |count: fn(&ConnectionCounts) -> u64| total(shards, |shard| count(&shard.connections));
    for transport in CONNECTED {
        let (at, labels) = (transport as usize, [transport.label()]);
        page.put(Family::Connections, &labels, total(shards, |shard| shard.connections.open[at]));
        page.put(Family::ConnectionsBegun, &labels, total(shards, |shard| shard.connections.begun[at]));
    }
    page.put(Family::ConnectionsBegun, &["unknown"], of_all(|counts| counts.unknown));
    page.put(Family::NewConnections, &[], of_all(|counts| counts.new));
    for end in End::ALL {
        let ended = total(shards, |shard| shard.connections.ended[end as usize]);
        page.put(Family::ConnectionsEnded, &[end.label()], ended);
    }
    page.put(Family::PeerConnections, &[], shards.iter().map(|shard| shard.peers).sum::<usize>());
    for transport in ENCRYPTED {
        let (at, labels) = (transport as usize, [transport.label()]);
        histogram(page, Family::HandshakeSeconds, &labels, shards, |shard| &shard.times.handshakes[at]);
        page.put(Family::HandshakeFailures, &labels, total(shards, |shard| shard.handshake_failures[at]));
    }
}

fn process(page: &mut Page, snapshot: &Snapshot) {
    let process = &snapshot.process;
    if let Some(seconds) = process.cpu_seconds {
        page.put(Family::ProcessCpu, &[], seconds);
    }
    if let Some(seconds) = process.started {
        page.put(Family::ProcessStart, &[], seconds);
    }
    for (family, value) in [
        (Family::ProcessResident, process.resident_bytes),
        (Family::ProcessVirtual, process.virtual_bytes),
        (Family::ProcessOpenFiles, process.open_files),
        (Family::ProcessMaxFiles, process.max_files),
    ] {
        if let Some(value) = value {
            page.put(family, &[], value);
        }
    }
}

fn requested(page: &mut Page, path: &str, method: &str, requests: u64) {
    page.put(Family::StunRequests, &[path, method], requests);
}

fn responded(page: &mut Page, path: &str, method: &str, code: u16, responses: u64) {
    page.put(Family::StunResponses, &[path, method, &code.to_string()], responses);
}

fn relayed(page: &mut Page, path: &str, direction: &str, count: Count) {
    page.put(Family::RelayedPackets, &[path, direction], count.packets);
    page.put(Family::RelayedBytes, &[path, direction], count.bytes);
}

fn media(page: &mut Page, path: &str, count: Count) {
    page.put(Family::MediaPackets, &[path], count.packets);
    page.put(Family::MediaBytes, &[path], count.bytes);
}

fn dropped(page: &mut Page, path: &str, reason: &str, packets: u64) {
    page.put(Family::Dropped, &[path, reason], packets);
}

/// What all shards have counted together. Before the first one has answered there is none, and not an empty one.
fn histogram<'s>(
    page: &mut Page,
    family: Family,
    labels: &[&str],
    shards: &'s [Report],
    of: impl Fn(&'s Report) -> &'s Histogram,
) {
    let all = shards.iter().map(of).cloned().reduce(|mut all, one| {
        all.add(&one);
        all
    });
    if let Some(all) = all {
        page.put_histogram(family, labels, &all);
    }
}

fn total(shards: &[Report], count: impl Fn(&Report) -> u64) -> u64 {
    shards.iter().map(count).sum()
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
