//! Limits of rate, as they are configured.

use hairpin_common::limit::Limit;

/// Limits of rate, see [`hairpin_common::limit`]; none unless set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Datagrams of one allocation, in each direction.
    pub allocation_packets: Limit,
    /// Bytes of application data of one allocation, in each direction.
    pub allocation_bytes: Limit,
    /// Bytes of application data of all allocations, in both directions.
    pub relay_bytes: Limit,
    /// Datagrams that one source without an allocation sends to listeners.
    pub source_packets: Limit,
    /// Datagrams that all sources without an allocation send to listeners, as far as the daemon has to look at them.
    pub control_packets: Limit,
}
