//! What a turnserver.conf means to coturn, once all of its lines are read: of an option that is given twice the last one
//! holds, and a list has them all.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

/// Something that stands in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// Addresses from one to another, of the same IP version.
pub(super) type Range = RangeInclusive<IpAddr>;

/// A public address, and whose it is: of all relay addresses, or of one address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct External {
    pub(super) public: IpAddr,
    pub(super) private: Option<IpAddr>,
}

/// Which clients coturn would not listen for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch of coturn's")]
pub(super) struct Not {
    pub(super) udp: bool,
    pub(super) tcp: bool,
    pub(super) tls: bool,
    pub(super) dtls: bool,
}

/// What the lines say that have a counterpart.
#[derive(Debug, Default)]
pub(super) struct Coturn {
    pub(super) listening_ips: Vec<At<IpAddr>>,
    pub(super) listening_port: Option<At<u16>>,
    pub(super) tls_listening_port: Option<At<u16>>,
    pub(super) alt_listening_port: Option<At<u16>>,
    pub(super) tcp_proxy_port: Option<At<u16>>,
    pub(super) aux_servers: Vec<At<SocketAddr>>,
    pub(super) not: Not,
    pub(super) cert: Option<At<String>>,
    pub(super) pkey: Option<At<String>>,
    pub(super) rfc5780: Option<At<bool>>,

    pub(super) relay_ips: Vec<At<IpAddr>>,
    pub(super) external_ips: Vec<At<External>>,
    pub(super) min_port: Option<At<u16>>,
    pub(super) max_port: Option<At<u16>>,
    pub(super) no_tcp_relay: bool,
    pub(super) mobility: bool,
    /// In hairpin's words.
    pub(super) alternate_servers: Vec<At<String>>,

    pub(super) realm: Option<At<String>>,
    pub(super) users: Vec<At<String>>,
    pub(super) secrets: Vec<At<String>>,
    pub(super) use_auth_secret: Option<At<bool>>,
    pub(super) nonce_secret: Option<At<String>>,
    pub(super) no_auth: Option<At<bool>>,
    /// In hairpin's words.
    pub(super) databases: Vec<At<String>>,
    pub(super) oauth: Option<At<bool>>,
    pub(super) server_name: Option<At<String>>,

    pub(super) allowed_peers: Vec<At<Range>>,
    pub(super) denied_peers: Vec<At<Range>>,
    pub(super) allow_loopback_peers: Option<At<bool>>,

    pub(super) user_quota: Option<At<u64>>,
    pub(super) total_quota: Option<At<u64>>,
    pub(super) max_bps: Option<At<u64>>,
    pub(super) bps_capacity: Option<At<u64>>,
    pub(super) relay_threads: Option<At<u64>>,

    pub(super) devices: Vec<At<String>>,
    pub(super) prometheus: bool,
    pub(super) prometheus_address: Option<At<IpAddr>>,
    pub(super) prometheus_port: Option<At<u16>>,
}

impl Coturn {
    /// The secrets hold also without `use-auth-secret`, which only says where else to look for them.
    pub(super) fn has_secrets(&self) -> bool {
        !self.secrets.is_empty() || self.use_auth_secret.as_ref().is_some_and(|at| at.value)
    }

    /// Whether there are clients of TLS and DTLS: coturn leaves them out where there is no certificate.
    pub(super) fn has_certificate(&self) -> bool {
        self.cert.is_some() && self.pkey.is_some()
    }
}
