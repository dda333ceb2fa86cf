//! Every metric that there is: the one list of names, kinds, labels and explanations. `docs/metrics.md` has the same.
//!
//! Label values come from fixed sets (transports, verdicts, reasons, methods, error codes) or from this host and its
//! configuration (interfaces, relay addresses, certificates, shards); a client can make none, and none names a client or user.

/// What the number of a metric means to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the relay is started again.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

impl Kind {
    /// The name in the text format.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! families {
    ($($family:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// A metric with all its label values.
        #[allow(missing_docs, reason = "each has its explanation for people in `help`")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Family {
            $($family,)*
        }

        impl Family {
            /// Every family, in the order of `as usize`, which is that of a scrape.
            pub const ALL: &'static [Self] = &[$(Self::$family,)*];

            /// The name in a scrape.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$family => $name,)* }
            }

            /// What its number means.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$family => Kind::$kind,)* }
            }

            /// The names of its labels.
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$family => &[$($label),*],)* }
            }

            /// The explanation, one line.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$family => $help,)* }
            }
        }
    };
}

families! {
    // Is it healthy?
    BuildInfo = Gauge "hairpin_build_info" ["version"]
        "Constant 1, labelled with the version that runs.";
    StartTime = Gauge "hairpin_start_time_seconds" []
        "When the relay began, in seconds since the Unix epoch.";
    LastReloadSuccessful = Gauge "hairpin_config_last_reload_successful" []
        "1 unless the last reload has changed nothing because of problems.";
    LastReloadSuccess = Gauge "hairpin_config_last_reload_success_timestamp_seconds" []
        "When the configuration that is in force was read, in seconds since the Unix epoch.";
    Reloads = Counter "hairpin_config_reloads_total" ["result"]
        "Reloads of the configuration, by result.";
    Shards = Gauge "hairpin_shards" []
        "Threads that serve packets.";
    ShardsUp = Gauge "hairpin_shards_up" []
        "Those that answered; of the others, what they said last is shown.";
    ShardLag = Gauge "hairpin_shard_lag_seconds" ["shard"]
        "How long the thread took to answer this scrape: all packets wait about as long for it.";
    Draining = Gauge "hairpin_draining" []
        "1 while new clients are sent elsewhere.";
    DrainDeadline = Gauge "hairpin_drain_deadline_timestamp_seconds" []
        "When what a drain has left is closed, in seconds since the Unix epoch; 0 without a deadline.";
    CertificateExpiry = Gauge "hairpin_certificate_expiry_timestamp_seconds" ["file"]
        "When the certificate ends, in seconds since the Unix epoch.";
    LogLinesDropped = Counter "hairpin_log_lines_dropped_total" []
        "Lines of the log that were dropped, because nobody took them in time.";
    TracesExported = Counter "hairpin_traces_exported_total" ["result"]
        "Spans of requests that were sent to the collector of --otlp, by result.";
    TracesDropped = Counter "hairpin_traces_dropped_total" []
        "Spans of requests that found no room in the queue to the collector.";

    // Is it full?
    Allocations = Gauge "hairpin_allocations" ["transport", "family"]
        "Live allocations, by what their clients speak: transport and IP version.";
    AllocationsCapacity = Gauge "hairpin_allocations_capacity" []
        "Allocations that there can be at once.";
    AllocationsBegun = Counter "hairpin_allocations_begun_total" []
        "Allocations that were made.";
    AllocationsEnded = Counter "hairpin_allocations_ended_total" ["reason"]
        "Allocations that have ended, by reason.";
    AllocationSetup = Histogram "hairpin_allocation_setup_seconds" []
        "Time from the arrival of an Allocate request to its success.";
    AllocationLifetime = Histogram "hairpin_allocation_lifetime_seconds" []
        "How long allocations lived that have ended.";
    RelayPortsInUse = Gauge "hairpin_relay_ports_in_use" ["address"]
        "Ports of relayed addresses that are bound, reserved ones included.";
    RelayPortsCapacity = Gauge "hairpin_relay_ports_capacity" ["address"]
        "Ports that relayed addresses can have.";
    IceSessions = Gauge "hairpin_ice_sessions" ["state"]
        "Sessions of two legs, by state.";
    IceSessionsCapacity = Gauge "hairpin_ice_sessions_capacity" []
        "Sessions that there can be at once.";
    IceSessionsCreated = Counter "hairpin_ice_sessions_created_total" []
        "Sessions that were created.";
    IceSessionsClosed = Counter "hairpin_ice_sessions_closed_total" ["reason"]
        "Sessions that have ended, by reason.";
    ByteLimits = Gauge "hairpin_limit_bytes_per_second" ["limit"]
        "Bytes of application data that are relayed in a second at most, by limit; 0 without one.";
    PacketLimits = Gauge "hairpin_limit_packets_per_second" ["limit"]
        "Datagrams that are taken in a second at most, by limit; 0 without one.";

    RealmAllocations = Gauge "hairpin_realm_allocations" ["realm"]
        "Live allocations and reserved ports, by realm.";
    RealmAllocationsCapacity = Gauge "hairpin_realm_allocations_capacity" ["realm"]
        "How many there can be at once; 0 of a realm that is no longer configured.";
    RealmUsers = Gauge "hairpin_realm_users" ["realm"]
        "Users that have allocations, by realm.";

    // Who is hurting, is it an attack?
    Refusals = Counter "hairpin_refusals_total" ["cause"]
        "Requests refused, by cause; first challenges and stale nonces are none.";
    StunRequests = Counter "hairpin_stun_requests_total" ["path", "method"]
        "STUN requests received, by the path that answers, and method.";
    StunResponses = Counter "hairpin_stun_responses_total" ["path", "method", "code"]
        "STUN responses sent, by path, method and code (200: success).";
    IceChecks = Counter "hairpin_ice_checks_total" ["result"]
        "Connectivity checks that legs of sessions have answered, by the answer: success, or which error.";
    UserStoreUp = Gauge "hairpin_user_store_up" ["store"]
        "1 while the database or webhook answers, as far as the last questions say.";
    UserStoreAnswers = Counter "hairpin_user_store_answers_total" ["store", "answer"]
        "Questions about users that a database or the webhook was asked, by what has become of them.";
    UserStoreSeconds = Histogram "hairpin_user_store_seconds" ["store"]
        "Time that a database or the webhook took to answer.";
    RequestsWaiting = Gauge "hairpin_requests_waiting" []
        "Requests that wait until a database or the webhook has answered.";
    CredentialsMinted = Counter "hairpin_credentials_minted_total" []
        "Credentials that the admin interface has made for applications.";
    CredentialsRefused = Counter "hairpin_credentials_refused_total" ["reason"]
        "Requests for credentials that it refused, by reason.";

    // What is relayed, and what is not?
    RelayedPackets = Counter "hairpin_relayed_packets_total" ["path", "direction"]
        "Datagrams relayed, by the path they took and their direction.";
    RelayedBytes = Counter "hairpin_relayed_bytes_total" ["path", "direction"]
        "Application data relayed, in bytes, without any framing.";
    RelayToRelay = Counter "hairpin_relay_to_relay_packets_total" []
        "Datagrams that the kernel took from one client to another; those are relayed twice, once in each direction.";
    MediaPackets = Counter "hairpin_media_packets_total" ["path"]
        "Datagrams of media sessions that came to one leg and left from the other, by the path they took.";
    MediaBytes = Counter "hairpin_media_bytes_total" ["path"]
        "Their payload, in bytes.";
    TcpRelayedBytes = Counter "hairpin_tcp_relayed_bytes_total" ["direction"]
        "Bytes carried over connections with peers, by direction.";
    Dropped = Counter "hairpin_dropped_packets_total" ["path", "reason"]
        "Datagrams dropped, by path and reason.";

    // What does the kernel do?
    XdpAttached = Gauge "hairpin_xdp_attached" ["interface", "mode", "reason"]
        "1 where the XDP program is attached, by interface, mode, and why it is not a better one.";
    XdpPassed = Counter "hairpin_xdp_passed_packets_total" ["reason"]
        "Packets that XDP left to the kernel's stack, by reason.";
    Flows = Gauge "hairpin_flows" []
        "Relayed addresses, permissions, channels and media paths that the kernel knows.";
    FlowInsertFailures = Counter "hairpin_flow_insert_failures_total" []
        "Those that it could not take; userspace serves them.";
    KernelRecords = Gauge "hairpin_kernel_records" []
        "Records in the kernel's table of flows.";
    KernelRecordsCapacity = Gauge "hairpin_kernel_records_capacity" []
        "Records that it has room for; 0 without XDP.";
    KernelNextHops = Gauge "hairpin_kernel_next_hops" []
        "Next hops that the kernel's records send to.";
    KernelNextHopsCapacity = Gauge "hairpin_kernel_next_hops_capacity" []
        "Next hops that there can be; 0 without XDP.";

    // How are connections?
    Connections = Gauge "hairpin_connections" ["transport"]
        "Clients' connections that are there, by transport.";
    NewConnections = Gauge "hairpin_new_connections" []
        "Those of them whose client has no allocation (yet).";
    ConnectionsBegun = Counter "hairpin_connections_begun_total" ["transport"]
        "Clients' connections that were begun, by transport.";
    ConnectionsEnded = Counter "hairpin_connections_ended_total" ["reason"]
        "Clients' connections that have ended, by reason.";
    PeerConnections = Gauge "hairpin_peer_connections" []
        "Connections with peers (RFC 6062) that are there.";
    HandshakeSeconds = Histogram "hairpin_handshake_seconds" ["transport"]
        "Time that a handshake took that succeeded, by transport.";
    HandshakeFailures = Counter "hairpin_handshake_failures_total" ["transport"]
        "Handshakes that failed, by transport.";

    // What does the process use?
    ProcessCpu = Counter "process_cpu_seconds_total" []
        "Processor time of the process in user and kernel mode; what the XDP program takes is not in it.";
    ProcessResident = Gauge "process_resident_memory_bytes" []
        "Memory of the process that is in RAM; the kernel's maps are not in it.";
    ProcessVirtual = Gauge "process_virtual_memory_bytes" []
        "Memory that the process has addresses for.";
    ProcessOpenFiles = Gauge "process_open_fds" []
        "Open files, sockets included.";
    ProcessMaxFiles = Gauge "process_max_fds" []
        "Files that may be open.";
    ProcessStart = Gauge "process_start_time_seconds" []
        "When the process began, in seconds since the Unix epoch.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_as_prometheus_wants_them() {
        let mut names = HashSet::new();
        for (index, family) in Family::ALL.iter().enumerate() {
            let (name, kind) = (family.name(), family.kind());
            assert_eq!(*family as usize, index);
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("hairpin_") || name.starts_with("process_"), "{name}");
            assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(kind != Kind::Histogram || name.ends_with("_seconds"), "{name} says its unit");
            assert!(!family.labels().contains(&"le"), "{name} leaves this label to histograms");
            assert!(family.help().ends_with('.'), "{name} is explained in a sentence");
        }
    }
}
