//! What shards, kernel and the relay's own thread say, as an operator reads it.

use hairpin_common::maps::Count;
use hairpin_common::verdict::{Action, Verdict};
use hairpin_proto::media;
use hairpin_proto::turn::{Cause, Discard, comes_by};
use hashbrown::HashMap;

use crate::config::Listener;
use crate::metrics::Labelled;
use crate::relay::published::{Published, RealmLimits};
use crate::shard::{Failure, LIMITS, Report};
use crate::{api, datapath};

/// From which share on something is called nearly full, in percent.
const NEARLY_FULL: u64 = 90;

pub(super) fn users(allocations: &[api::Allocation], realms: &[RealmLimits]) -> Vec<api::User> {
    // Who is in a realm that is gone is in none that has a limit for it.
    let limit = |name: &str| {
        realms.iter().find(|realm| realm.name == name).map_or(0, |realm| realm.allocations_per_user as u64)
    };
    let mut by_name: HashMap<(&str, &str), api::User> = HashMap::new();
    for allocation in allocations {
        let user = by_name.entry((&allocation.user, &allocation.realm)).or_insert_with(|| api::User {
            user: allocation.user.clone(),
            realm: allocation.realm.clone(),
            allocations: api::Share { used: 0, of: limit(&allocation.realm) },
            relayed_data: api::Totals::default(),
        });
        user.allocations.used += 1;
        user.relayed_data += allocation.relayed_data;
    }
    let mut users: Vec<_> = by_name.into_values().collect();
    users.sort_by(|a, b| b.allocations.used.cmp(&a.allocations.used).then_with(|| a.user.cmp(&b.user)));
    users
}

/// How many sessions of two legs there are.
pub(super) fn sessions(reports: &[Report]) -> u64 {
    reports.iter().map(|report| report.media.by_state.iter().sum::<usize>() as u64).sum()
}

pub(super) fn listeners(published: &Published, allocations: &[api::Allocation]) -> Vec<api::ListenerStatus> {
    let all: Vec<_> = published.listeners.iter().map(|(listener, _)| *listener).collect();
    // Of two that serve a client, the kernel takes the one with the address itself.
    let of = |allocation: &api::Allocation| {
        let serves = |listener: &&Listener| {
            listener.transport.label() == allocation.transport
                && comes_by((listener.transport, listener.address), listener.transport, allocation.server)
        };
        all.iter().filter(serves).min_by_key(|listener| listener.address.ip().is_unspecified()).copied()
    };
    let served: Vec<_> = allocations.iter().map(of).collect();
    let status = |(listener, takes_new): &(Listener, bool)| api::ListenerStatus {
        transport: listener.transport.label().to_owned(),
        address: listener.address,
        public: listener.public,
        allocations: served.iter().filter(|by| **by == Some(*listener)).count() as u64,
        draining: !takes_new,
    };
    published.listeners.iter().map(status).collect()
}

/// What an operator should look at, the most urgent first.
pub(super) fn warnings(
    published: &Published,
    shards: api::Share,
    allocations: api::Share,
    sessions: api::Share,
    relay_addresses: &[api::RelayAddressStatus],
    kernel: &api::KernelStatus,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if shards.used < shards.of {
        let api::Share { used, of } = shards;
        warnings.push(format!("{} of {of} shards do not answer: look at the log, then restart the relay", of - used));
    }
    warnings.extend(published.certificates.iter().filter_map(crate::relay::certificate_warning));
    warnings.extend(published.certificate_problem.clone());
    warnings.extend(published.user_problem.clone());
    let problems = published.reload_problems.iter();
    warnings.extend(problems.map(|problem| format!("the last reload has changed nothing: {problem}")));
    if is_nearly_full(allocations) {
        let api::Share { used, of } = allocations;
        warnings.push(format!(
            "{used} of {of} allocations: new clients will be refused; raise max-allocations, or add a relay"
        ));
    }
    if is_nearly_full(sessions) {
        let api::Share { used, of } = sessions;
        warnings.push(format!(
            "{used} of {of} sessions: new ones will be refused; end those that are over, raise ice-max-sessions, or add a relay"
        ));
    }
    for api::RelayAddressStatus { address, ports, .. } in relay_addresses {
        if is_nearly_full(*ports) {
            let api::Share { used, of } = ports;
            warnings.push(format!(
                "{used} of {of} ports of {address} are in use: new clients will be refused; widen relay-ports, or add a \
                 relay-address"
            ));
        }
    }
    if kernel.records.is_some_and(is_nearly_full) {
        warnings.push(
            "the kernel's table is nearly full: new flows are relayed in userspace; raise kernel-records".to_owned(),
        );
    }
    if !kernel.active && published.config.xdp != datapath::XdpMode::Off {
        warnings.push(format!("nothing is forwarded in the kernel: {}", kernel.summary));
    }
    for interface in kernel.interfaces.iter().filter(|interface| interface.mode != "native") {
        let api::InterfaceStatus { interface, mode, reason } = interface;
        if published.config.xdp != datapath::XdpMode::Generic && kernel.active {
            let reason = reason.as_deref().unwrap_or("no reason is known");
            warnings.push(format!("XDP on {interface} is {mode}, not native: {reason}"));
        }
    }
    warnings.extend(published.warnings.iter().cloned());
    warnings
}

pub(super) fn is_nearly_full(share: api::Share) -> bool {
    share.used * 100 >= share.of * NEARLY_FULL && share.of > 0
}

pub(super) fn failure(failure: &Failure) -> api::Failure {
    let explanation = match failure.detail {
        Some(detail) => format!("{} The client said: {detail}.", failure.explanation),
        None => failure.explanation.to_owned(),
    };
    api::Failure {
        client: failure.client,
        transport: failure.transport.label().to_owned(),
        at: failure.at,
        count: failure.count,
        action: failure.action.to_owned(),
        code: failure.code,
        cause: failure.cause.to_owned(),
        explanation,
        username: failure.username.map(|username| username.as_str().to_owned()),
        peer: failure.peer,
    }
}

pub(super) fn refusals(reports: &[Report]) -> Vec<Labelled> {
    let count = |cause: &Cause| reports.iter().map(|report| report.refusals[*cause as usize]).sum();
    Cause::ALL.iter().map(|cause| (cause.label(), count(cause))).collect()
}

/// Those that are not zero, most first.
pub(super) fn most_first(counts: Vec<Labelled>) -> Vec<api::ReasonCount> {
    let mut counts: Vec<_> = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| api::ReasonCount { reason: reason.to_owned(), count })
        .collect();
    counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
    counts
}

pub(super) fn dropped(reports: &[Report], kernel: &datapath::Counters) -> Vec<api::ReasonCount> {
    let sum = |count: &dyn Fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    let mut counts: Vec<Labelled> = Vec::new();
    counts.extend(
        Discard::ALL.iter().map(|reason| (reason.label(), sum(&|report| report.counters.discarded[*reason as usize]))),
    );
    counts.extend(
        media::Discard::ALL
            .iter()
            .map(|reason| (reason.label(), sum(&|report| report.media.discarded[*reason as usize]))),
    );
    counts.extend(LIMITS.iter().map(|limit| (limit.label(), sum(&|report| report.counters.refused[*limit as usize]))));
    counts.push(("hop_limit", sum(&|report| report.counters.hop_limit)));
    counts.push(("send_failed", sum(&|report| report.counters.send_failed)));
    counts.push(("queue_full", sum(&|report| report.connections.queue_full)));
    for verdict in Verdict::ALL.iter().filter(|verdict| verdict.action() == Action::Drop) {
        let packets = kernel.verdicts[*verdict as usize].packets;
        match counts.iter_mut().find(|(reason, _)| *reason == verdict.label()) {
            Some((_, count)) => *count += packets,
            None => counts.push((verdict.label(), packets)),
        }
    }
    most_first(counts)
}

/// What was sent on for sessions on both paths.
pub(super) fn media_relayed(reports: &[Report], kernel: &datapath::Counters) -> api::MediaTotals {
    let add = |mut sum: api::Amount, count: Count| {
        sum += api::Amount { packets: count.packets, bytes: count.bytes };
        sum
    };
    let carried = Verdict::CARRIED_MEDIA.map(|verdict| kernel.verdicts[verdict as usize]);
    let in_kernel = carried.into_iter().fold(api::Amount::default(), add);
    let all = reports.iter().map(|report| report.counters.media).fold(in_kernel, add);
    api::MediaTotals { all, in_kernel }
}

/// Application data relayed on both paths.
pub(super) fn relayed(reports: &[Report], kernel: &datapath::Counters) -> api::Totals {
    let add = |sum: api::Amount, count: Count| api::Amount {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    };
    let mut totals = api::Totals::default();
    for report in reports {
        let counters = &report.counters;
        totals.to_peer = add(totals.to_peer, counters.to_peer);
        totals.to_client = add(totals.to_client, counters.to_client);
        totals.to_peer.bytes += counters.stream_bytes_to_peer;
        totals.to_client.bytes += counters.stream_bytes_to_client;
    }
    // What goes from client to client is relayed twice.
    let [to_peer, to_client] = [Verdict::RELAYED_TO_PEER, Verdict::RELAYED_TO_CLIENT]
        .map(|verdicts| verdicts.map(|verdict| kernel.verdicts[verdict as usize]));
    for count in to_peer {
        totals.to_peer = add(totals.to_peer, count);
    }
    for count in to_client {
        totals.to_client = add(totals.to_client, count);
    }
    for count in to_peer.into_iter().chain(to_client) {
        totals.in_kernel = add(totals.in_kernel, count);
    }
    totals
}
