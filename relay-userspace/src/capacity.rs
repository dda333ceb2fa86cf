//! How much of everything there may be: what the operator has said, or else what the ports and files of this host allow.

use hairpin_common::limit::Limit;
use hairpin_proto::turn::RelayAddress;

use crate::config::{Config, PortRange, Rates, Realm};
use crate::datapath::Limits;
use crate::file_limit;

/// Allocations unless the operator says otherwise: as many as there are dynamic ports.
const DEFAULT_ALLOCATIONS: usize = 16_384;
/// How many records the kernel has room for, for each allocation: two of its relayed address, and those of two peers with
/// a permission and a channel each.
const RECORDS_PER_ALLOCATION: u32 = 8;
/// How many more there are, for listeners: one for each address of each. A host without allocations needs them, too.
const LISTENER_RECORDS: u32 = 256;
/// Sockets that an allocation has at most: a relayed address of each family, or one and the port that it has reserved.
const SOCKETS_PER_ALLOCATION: usize = 2;

/// Paths that there is room for, for each session: two streams, with RTCP apart or not yet known to be muxed. Sessions that
/// need more leave less to others.
const PATHS_PER_SESSION: u32 = 4;
/// Records of a path in the kernel: one for each direction.
const RECORDS_PER_PATH: u32 = 2;

const SECOND: u64 = 1_000_000_000;

/// How much of everything there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Relay ports, over all relay addresses.
    pub ports: usize,
    /// Allocations, over all shards: a multiple of their number.
    pub allocations: u32,
    /// Allocations and reserved ports of one user, over all shards, unless its realm says otherwise.
    pub allocations_per_user: usize,
    /// Sessions of two legs, over all shards: a multiple of their number.
    pub sessions: u32,
    /// Paths of all sessions, likewise.
    pub paths: u32,
    /// Records in the kernel.
    pub records: u32,
    /// Connections over TCP and TLS, and associations over DTLS, that there may be at once.
    pub connections: usize,
    /// What the operator has to know when there are too few files for all of this.
    pub warning: Option<String>,
}

impl Capacity {
    /// Asks the system for as many open files as are needed, and makes do with those it gives.
    pub fn of(config: &Config) -> Self {
        let wanted = match config.max_allocations {
            Some(wanted) => wanted as usize,
            None => allocations_by_ports(&config.relay_addresses, config.relay_ports).min(DEFAULT_ALLOCATIONS),
        };
        let legs = (config.ice_max_sessions as usize).saturating_mul(2 * config.relay_addresses.len());
        let sockets = ports(config).min(wanted.saturating_mul(SOCKETS_PER_ALLOCATION).saturating_add(legs));
        // Who cannot connect takes no file.
        let has_streams = config.listeners.iter().any(|listener| listener.transport.is_stream());
        // Room for newcomers, too: they have to be told that there is none.
        let connections =
            config.connections.all.unwrap_or(config.connections.new.saturating_add(wanted as u32)) as usize;
        // Each may be joined to one of a peer's.
        let ends = if config.tcp_relay { 2 } else { 1 };
        let needed = file_limit::Needed {
            sockets,
            connections: if has_streams { connections * ends } else { 0 },
            listeners: config.listeners.len(),
            shards: config.shards,
        };
        let limit = file_limit::raise(needed.files());
        let room = needed.room(limit);
        let capacity = Self::with_room(config, wanted, room.sockets);
        let connections = if has_streams { (room.connections / ends).max(1) } else { connections };
        Self { warning: needed.warning(limit), connections, ..capacity }
    }

    /// Follows a new configuration. The kernel's maps were made for as many allocations as there may be since the start.
    pub fn follow(&mut self, config: &Config) {
        let new = Self::of(config);
        let allocations_per_user = new.allocations_per_user.min(self.allocations as usize);
        let Self { allocations, sessions, paths, records, .. } = *self;
        *self = Self { allocations, allocations_per_user, sessions, paths, records, ..new };
    }

    /// Allocations and reserved ports of one user of a realm.
    pub fn of_one_user(&self, realm: &Realm) -> usize {
        realm.max_allocations_per_user.map_or(self.allocations_per_user, |most| most as usize)
    }

    /// For so many sockets of relayed addresses. Files that are left over keep metrics reachable when all are taken.
    fn with_room(config: &Config, wanted: usize, sockets: usize) -> Self {
        let has_family = |v4| config.relay_addresses.iter().any(|address| address.bind.is_ipv4() == v4);
        let families = [true, false].into_iter().filter(|v4| has_family(*v4)).count().max(1);
        let allocations = wanted.min((sockets / families).max(1));
        let of_all_shards = u32::try_from(allocations).unwrap_or(u32::MAX).next_multiple_of(config.shards);
        let sessions = config.ice_max_sessions.next_multiple_of(config.shards);
        let paths = sessions.saturating_mul(PATHS_PER_SESSION);
        Self {
            ports: ports(config),
            allocations: of_all_shards,
            allocations_per_user: share_of_one_user(allocations),
            sessions,
            paths,
            records: config.kernel_records.unwrap_or(records_for(of_all_shards, paths)),
            connections: 0,
            warning: None,
        }
    }
}

/// How many records the kernel has room for unless the operator says otherwise.
pub fn records_for(allocations: u32, paths: u32) -> u32 {
    let of_allocations = allocations.saturating_mul(RECORDS_PER_ALLOCATION);
    of_allocations.saturating_add(paths.saturating_mul(RECORDS_PER_PATH)).saturating_add(LISTENER_RECORDS)
}

fn ports(config: &Config) -> usize {
    config.relay_ports.count() * config.relay_addresses.len()
}

/// How many allocations have a relay port of their own: each takes at most one of each family.
pub fn allocations_by_ports(relay_addresses: &[RelayAddress], ports: PortRange) -> usize {
    let of_family = |v4: bool| relay_addresses.iter().filter(|address| address.bind.is_ipv4() == v4).count();
    ports.count() * of_family(true).max(of_family(false))
}

/// How many allocations one user may have: three quarters, so that nobody can take them all.
fn share_of_one_user(allocations: usize) -> usize {
    (allocations / 4 * 3 + allocations % 4 * 3 / 4).max(1)
}

/// The limits that make datagrams keep to these rates.
///
/// One second's worth may come at once. Of the whole relay's data it is a tenth of that: it guards a link, whose queue
/// would hold no more.
pub fn limits(rates: &Rates) -> Limits {
    // Less than a byte more than was asked for, rather than none.
    let bytes = |bits: u64| bits.div_ceil(8);
    Limits {
        allocation_packets: Limit::per_second(rates.allocation_packets.number(), SECOND),
        allocation_bytes: Limit::per_second(bytes(rates.allocation_bits.number()), SECOND),
        relay_bytes: Limit::per_second(bytes(rates.relay_bits.number()), SECOND / 10),
        source_packets: Limit::per_second(rates.source_packets.number(), SECOND),
        control_packets: Limit::per_second(rates.control_packets.number(), SECOND),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use super::*;
    use hairpin_proto::address::Transport;
    use hairpin_proto::turn::Translation;

    use crate::config::{AdminAddr, AdminSocket, AllocationLog, Connections, Directory, Listener, Rate};
    use crate::datapath::XdpMode;
    use crate::log::Format;

    const OFF: Rates = Rates {
        allocation_bits: Rate::Off,
        allocation_packets: Rate::Off,
        relay_bits: Rate::Off,
        source_packets: Rate::Off,
        control_packets: Rate::Off,
    };

    fn config(addresses: &[&str], relay_ports: PortRange, shards: u32) -> Config {
        let relay_addresses = addresses.iter().map(|address| address.parse().unwrap());
        Config {
            config_file: None,
            drain_move: false,
            drain_timeout: Duration::ZERO,
            listeners: vec![Listener {
                transport: Transport::Udp,
                address: ([127, 0, 0, 1], 3478).into(),
                public: ([127, 0, 0, 1], 3478).into(),
                is_optional: false,
            }],
            certificates: Vec::new(),
            proxies: Vec::new(),
            connections: Connections { all: None, new: 100, new_of_source: 10 },
            tcp_relay: false,
            mobility: false,
            discovery: None,
            translation: Translation::default(),
            nonce_keys: Vec::new(),
            alternates: Vec::new(),
            relay_addresses: relay_addresses.map(|bind| RelayAddress { bind, public: bind }).collect(),
            relay_ports,
            reserved_ports: None,
            realms: Vec::new(),
            directory: Directory { stores: Vec::new(), webhook: None, timeout: Duration::ZERO, cache: Duration::ZERO },
            allow_peers: Vec::new(),
            deny_peers: Vec::new(),
            xdp: XdpMode::Off,
            interfaces: Vec::new(),
            admin: AdminAddr::Off,
            admin_socket: AdminSocket::Off,
            admin_tokens: Vec::new(),
            credentials_tokens: Vec::new(),
            credentials_origins: Vec::new(),
            credentials_rate: Rate::Off,
            credentials_ttl: Duration::from_secs(1),
            log: "off".to_owned(),
            log_format: Format::Auto,
            log_allocations: AllocationLog::Off,
            log_sample: 1,
            log_client_addresses: false,
            otlp: None,
            otlp_sample: 1,
            shards,
            max_allocations: None,
            max_allocations_per_source: None,
            max_permissions: 1,
            max_channels: 1,
            max_lifetime: Duration::ZERO,
            ice_max_sessions: 0,
            kernel_records: None,
            rates: OFF,
        }
    }

    #[test]
    fn no_user_can_take_all_ports_but_each_can_have_one() {
        let shares = [1, 2, 3, 4, 100, 16_384].map(share_of_one_user);
        assert_eq!(shares, [1, 1, 2, 3, 75, 12_288]);
    }

    #[test]
    fn each_allocation_needs_a_port_of_one_family() {
        let by_ports = |addresses: &[&str]| {
            let config = config(addresses, PortRange { min: 5000, max: 5099 }, 1);
            allocations_by_ports(&config.relay_addresses, config.relay_ports)
        };
        assert_eq!(by_ports(&["192.0.2.1"]), 100);
        assert_eq!(by_ports(&["192.0.2.1", "2001:db8::1"]), 100, "a dual allocation takes both");
        assert_eq!(by_ports(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]), 200);
    }

    #[test]
    fn without_a_word_there_are_as_many_allocations_as_ports_up_to_the_default() {
        let narrow = Capacity::of(&config(&["192.0.2.1"], PortRange { min: 5000, max: 5009 }, 4));
        assert_eq!((narrow.ports, narrow.allocations, narrow.records), (10, 12, 96 + 256), "the same for each shard");
        assert_eq!(narrow.allocations_per_user, 7);
        let wide = config(&["192.0.2.1"], PortRange { min: 1024, max: 65_535 }, 1);
        assert_eq!(Capacity::with_room(&wide, 16_384, 32_768).allocations, 16_384);
    }

    #[test]
    fn what_the_operator_says_holds_as_far_as_there_are_files() {
        let mut config = config(&["192.0.2.1", "2001:db8::1"], PortRange::DYNAMIC, 2);
        let told = Capacity::with_room(&config, 100, 200);
        assert_eq!((told.allocations, told.allocations_per_user, told.records), (100, 75, 800 + 256));
        assert_eq!(Capacity::with_room(&config, 100, 50).allocations, 26, "two sockets each");
        assert_eq!(Capacity::with_room(&config, 100, 0).allocations, 2, "one is always tried");
        config.kernel_records = Some(77);
        assert_eq!(Capacity::with_room(&config, 100, 200).records, 77);
        config.max_allocations = Some(10);
        assert_eq!(Capacity::of(&config).allocations, 10);
    }

    #[test]
    fn connections_are_as_many_as_there_are_files_for_and_half_of_that_if_each_may_have_a_peer() {
        let mut config = config(&["192.0.2.1"], PortRange { min: 5000, max: 5009 }, 1);
        config.connections.all = Some(u32::MAX);
        assert_eq!(Capacity::of(&config).warning, None, "over UDP there are none");
        config.listeners[0].transport = Transport::Tcp;
        let alone = Capacity::of(&config);
        assert!(alone.warning.is_some() && alone.connections < u32::MAX as usize, "{alone:?}");
        config.tcp_relay = true;
        let with_peers = Capacity::of(&config);
        assert!(with_peers.connections.abs_diff(alone.connections / 2) <= 16, "{with_peers:?}, {alone:?}");
        config.connections.all = Some(5);
        assert_eq!(Capacity::of(&config).connections, 5);
    }

    #[test]
    fn rates_become_limits_of_bytes_and_datagrams() {
        assert_eq!(limits(&OFF), Limits::default());
        let rate = |number| Rate::PerSecond(NonZeroU64::new(number).unwrap());
        let rates = Rates {
            allocation_bits: rate(8_000),
            allocation_packets: rate(50),
            relay_bits: rate(1_000_000),
            source_packets: rate(1_000),
            control_packets: rate(50_000),
        };
        let expected = Limits {
            allocation_bytes: Limit::per_second(1_000, SECOND),
            allocation_packets: Limit::per_second(50, SECOND),
            relay_bytes: Limit::per_second(125_000, SECOND / 10),
            source_packets: Limit::per_second(1_000, SECOND),
            control_packets: Limit::per_second(50_000, SECOND),
        };
        assert_eq!(limits(&rates), expected);
        let odd = limits(&Rates { allocation_bits: rate(1_001), ..OFF });
        assert_eq!(odd.allocation_bytes, Limit::per_second(126, SECOND), "no less than what was asked for");
    }
}
