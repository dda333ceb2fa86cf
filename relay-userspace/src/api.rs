//! What the admin interface says and takes, as JSON: shared by the daemon that answers and the commands that ask.
//!
//! Times are seconds since the Unix epoch, durations are seconds, amounts of data are bytes without any framing. Addresses are
//! as the world knows them. Fields are only ever added.

use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub mod ice;

/// How the relay is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The version that runs.
    pub version: String,
    /// What it is doing now.
    pub state: State,
    /// When the process began.
    pub started: u64,
    /// When the configuration that is in force was read.
    pub configured: u64,
    /// The file it was read from.
    pub config_file: Option<String>,
    /// Why the last reload changed nothing; empty after one that was good.
    pub reload_problems: Vec<String>,
    /// While draining: until when, if there is a deadline.
    pub drain_deadline: Option<u64>,
    /// While draining: whether the relay ends when nothing is left.
    #[serde(default)]
    pub drain_stops: bool,
    /// Threads that serve packets, and those of them that answer.
    pub shards: Share,
    /// Live allocations, and how many there may be.
    pub allocations: Share,
    /// Sessions of two legs, and how many there may be.
    #[serde(default)]
    pub sessions: Share,
    /// Users that have an allocation.
    pub users: u64,
    /// Where clients reach the server.
    pub listeners: Vec<ListenerStatus>,
    /// What relayed addresses are made of.
    pub relay_addresses: Vec<RelayAddressStatus>,
    /// Realms: users, secrets and quotas of their own. The first is that of whoever is in no other.
    #[serde(default)]
    pub realms: Vec<RealmStatus>,
    /// Databases and the webhook that know users.
    #[serde(default)]
    pub user_stores: Vec<UserStoreStatus>,
    /// Forwarding in the kernel.
    pub kernel: KernelStatus,
    /// Certificates for TLS and DTLS.
    pub certificates: Vec<CertificateStatus>,
    /// Application data relayed since the start.
    pub relayed: Totals,
    /// Media sent on for sessions since the start.
    pub media: MediaTotals,
    /// Datagrams dropped since the start, by reason, those that are not zero, most first.
    pub dropped: Vec<ReasonCount>,
    /// Requests refused since the start, by cause, those that are not zero, most first.
    pub refused: Vec<ReasonCount>,
    /// What an operator should look at, most urgent first; each says what to do.
    pub warnings: Vec<String>,
}

/// A realm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RealmStatus {
    /// What clients are told.
    pub name: String,
    /// Live allocations and reserved ports, and how many there may be; 0 of a realm that is no longer configured.
    pub allocations: Share,
    /// Users that have any.
    pub users: u64,
    /// How many of them one user may have, unless something else is said of it.
    pub allocations_per_user: u64,
}

/// A place where users are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserStoreStatus {
    /// Which.
    pub name: String,
    /// Whether it answers, as far as the last questions say.
    pub up: bool,
    /// Questions that it had an answer for.
    pub found: u64,
    /// Questions about whom it does not know, or does not let in.
    pub unknown: u64,
    /// Questions that it has not answered.
    pub failed: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When, in seconds since the Unix epoch.
    pub last_error_at: Option<u64>,
}

/// What a relay is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// New clients are welcome.
    Serving,
    /// New clients are sent elsewhere, those that are there stay.
    Draining,
    /// A part of it does not answer.
    Degraded,
}

/// A part of a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// How many there are, in use, or well.
    pub used: u64,
    /// How many there may be.
    pub of: u64,
}

/// A listener.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ListenerStatus {
    /// `udp`, `tcp`, `tls` or `dtls`.
    pub transport: String,
    /// This host's address and port.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// What clients know it by, where that differs.
    #[schema(value_type = String)]
    pub public: SocketAddr,
    /// Live allocations of clients that came by it.
    pub allocations: u64,
    /// It is no longer configured: it stays for the allocations it has, and takes no others.
    pub draining: bool,
}

/// An address that relayed addresses are made of.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RelayAddressStatus {
    /// This host's address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// What peers know it by, where that differs.
    #[schema(value_type = String)]
    pub public: IpAddr,
    /// Ports in use, and how many there are.
    pub ports: Share,
    /// It is no longer configured: it stays for the allocations it has, and takes no others.
    pub draining: bool,
}

/// Forwarding in the kernel.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct KernelStatus {
    /// Whether the kernel forwards at all.
    pub active: bool,
    /// One line for people.
    pub summary: String,
    /// Each interface that was considered.
    pub interfaces: Vec<InterfaceStatus>,
    /// Records in the table of flows, and how many there may be.
    pub records: Option<Share>,
    /// Flows that found no room; the daemon relays them.
    pub insert_failures: u64,
}

/// The XDP program on an interface.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InterfaceStatus {
    /// Its name.
    pub interface: String,
    /// `native`, `generic` or `none`.
    pub mode: String,
    /// Why it is no better.
    pub reason: Option<String>,
}

/// A certificate for TLS and DTLS.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CertificateStatus {
    /// Where it was read from.
    pub file: String,
    /// The names it is for.
    pub names: Vec<String>,
    /// When it ends.
    pub expires: u64,
}

/// Data relayed in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// From clients to peers.
    pub to_peer: Amount,
    /// From peers to clients.
    pub to_client: Amount,
    /// The part of both that the kernel has forwarded.
    pub in_kernel: Amount,
}

/// What was sent on between legs of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MediaTotals {
    /// All of it.
    pub all: Amount,
    /// The part of it that the kernel has forwarded.
    pub in_kernel: Amount,
}

/// Packets and their application data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Amount {
    /// Datagrams; of connections with peers (RFC 6062), none.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Totals {
    /// Bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.to_peer.bytes.saturating_add(self.to_client.bytes)
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.to_peer += other.to_peer;
        self.to_client += other.to_client;
        self.in_kernel += other.in_kernel;
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// How often something was the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReasonCount {
    /// As in metrics.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// An allocation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Allocation {
    /// Names it as long as the relay runs.
    pub id: String,
    /// Who made it.
    pub username: String,
    /// The part of the username that quotas count by.
    pub user: String,
    /// The realm it was made in.
    pub realm: String,
    /// `udp`, `tcp`, `tls` or `dtls`.
    pub transport: String,
    /// Where the client is.
    #[schema(value_type = String)]
    pub client: SocketAddr,
    /// Where it reached the server.
    #[schema(value_type = String)]
    pub server: SocketAddr,
    /// `udp`, or `tcp` (RFC 6062).
    pub peer_transport: String,
    /// What peers see, one of each IP version at most.
    #[schema(value_type = Vec<String>)]
    pub relayed: Vec<SocketAddr>,
    /// When it was made.
    pub began: u64,
    /// Until when it lives unless its client refreshes it.
    pub expires: u64,
    /// How many peers may send to it.
    pub permissions: u64,
    /// How many channels are bound.
    pub channels: u64,
    /// Connections with peers (RFC 6062).
    pub connections: u64,
    /// What it has relayed so far.
    pub relayed_data: Totals,
}

#[cfg(test)]
impl Allocation {
    /// One as it may be, for tests.
    pub(crate) fn example() -> Self {
        let amount = |packets, bytes| Amount { packets, bytes };
        Self {
            id: "1".to_owned(),
            username: "1700000000:alice".to_owned(),
            user: "alice".to_owned(),
            realm: "example.org".to_owned(),
            transport: "udp".to_owned(),
            client: SocketAddr::from(([192, 0, 2, 1], 5000)),
            server: SocketAddr::from(([192, 0, 2, 9], 3478)),
            peer_transport: "udp".to_owned(),
            relayed: vec![SocketAddr::from(([203, 0, 113, 7], 50_000))],
            began: 1_000,
            expires: 1_600,
            permissions: 1,
            channels: 1,
            connections: 0,
            relayed_data: Totals {
                to_peer: amount(9_000, 9_000_000),
                to_client: amount(8_000, 1_234_567),
                in_kernel: amount(17_000, 10_234_567),
            },
        }
    }
}

/// An allocation with all that belongs to it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AllocationDetail {
    /// The allocation.
    #[serde(flatten)]
    pub allocation: Allocation,
    /// Peers that may send to it, and until when.
    pub permission_list: Vec<Permission>,
    /// Its channels.
    pub channel_list: Vec<Channel>,
}

/// A permission (RFC 8656 section 9).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Permission {
    /// The peer, on every port.
    #[schema(value_type = String)]
    pub peer: IpAddr,
    /// Its end.
    pub expires: u64,
}

/// A channel (RFC 8656 section 12).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Channel {
    /// Its number, such as `0x4000`.
    pub number: String,
    /// The peer.
    #[schema(value_type = String)]
    pub peer: SocketAddr,
    /// Its end.
    pub expires: u64,
}

/// Which allocations are meant: those that all that is given is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The one with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Those of a user: the username, or the part of it that quotas count by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Those of clients at this address, with or without a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Those with this relayed address, with or without a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relayed: Option<String>,
    /// Those of a realm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
}

/// How many allocations were closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Closed {
    /// How many.
    pub closed: u64,
}

/// A user that has an allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// The part of the username that quotas count by.
    pub user: String,
    /// Its realm.
    pub realm: String,
    /// Its allocations, and how many it may have.
    pub allocations: Share,
    /// What its live allocations have relayed.
    pub relayed_data: Totals,
}

/// Something that was refused to a client, or failed for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// Where the client was.
    #[schema(value_type = String)]
    pub client: SocketAddr,
    /// `udp`, `tcp`, `tls` or `dtls`.
    pub transport: String,
    /// When it happened last.
    pub at: u64,
    /// How often in a row.
    pub count: u64,
    /// What the client wanted: a STUN method such as `allocate`, or `handshake`.
    pub action: String,
    /// The error code of the answer, if there was one.
    pub code: Option<u16>,
    /// Why, as in metrics.
    pub cause: String,
    /// Why, and what to do about it, for people.
    pub explanation: String,
    /// As whom the client came, if it said so.
    pub username: Option<String>,
    /// The peer that it was about.
    #[schema(value_type = Option<String>)]
    pub peer: Option<SocketAddr>,
}

/// A token for the status page.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct PageToken {
    /// What the page shows.
    pub token: String,
    /// When it ends.
    pub expires: u64,
    /// The page with the token, as a browser on this host finds it.
    pub url: String,
}

/// What happens to allocations, as it happens.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It was made.
    Began {
        /// The allocation.
        allocation: Allocation,
    },
    /// It has ended.
    Ended {
        /// The allocation, with all that it has relayed.
        allocation: Allocation,
        /// Why.
        reason: String,
    },
    /// So many events were too many for the connection.
    Missed {
        /// How many.
        count: u64,
    },
}

/// What a reload is asked to do.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadRequest {
    /// Close the allocations and sessions of listeners and relay addresses that are removed, instead of waiting for their end.
    pub force: bool,
}

/// What a reload has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// What has changed, one line each.
    pub changed: Vec<String>,
    /// What was removed and is still in use, one line each.
    pub draining: Vec<String>,
    /// What has changed in the file and needs a restart, one line each.
    pub needs_restart: Vec<String>,
}

/// What a drain is asked to do.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainRequest {
    /// Seconds after which allocations and sessions that are left are closed; none: they live as long as their clients want.
    pub timeout: Option<u64>,
    /// Whether the relay ends when nothing is left.
    pub stop: bool,
    /// Whether clients that are there are sent to other relays, too, when they refresh what they have.
    pub move_clients: bool,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainStatus {
    /// Whether new clients are sent elsewhere.
    pub draining: bool,
    /// Allocations that are left.
    pub allocations: u64,
    /// Sessions of two legs that are left.
    #[serde(default)]
    pub sessions: u64,
    /// When those that are left are closed.
    pub deadline: Option<u64>,
    /// Whether the relay ends then.
    pub stop: bool,
    /// Whether clients that are there are sent to other relays when they refresh what they have.
    #[serde(default)]
    pub move_clients: bool,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// A level (`off` to `trace`), or a filter such as `info,hairpin::shard=debug`.
    pub level: String,
}

/// What credentials are asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialsRequest {
    /// A name to go with the credential; users are told apart by it.
    pub name: Option<String>,
    /// How long it is valid, in seconds.
    pub ttl: Option<u64>,
}

/// Credentials for a client, with `iceServers` as WebRTC's `RTCConfiguration` takes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The servers.
    pub ice_servers: Vec<IceServer>,
    /// How long the credential is valid, in seconds.
    pub ttl: u64,
    /// When it ends.
    pub expires: u64,
}

/// A server as WebRTC's `RTCIceServer` names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IceServer {
    /// Its URIs (RFC 7065).
    pub urls: Vec<String>,
    /// The username.
    pub username: String,
    /// The password.
    pub credential: String,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What was wrong, and what to do about it.
    pub error: String,
    /// Each single problem, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The line of a session description that is wrong, the first being 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}
