//! The server side of TURN (RFC 8656) as a state machine.
//!
//! [`Server`] is the way in. What a datagram means is decided in the file of its kind: `authentication` lets a
//! request in or challenges it (whom, `realm` and `credentials` say, or `directory`, where somebody else has to be asked,
//! whose answers are `known` for a while), then one file for each method carries it out (`allocate`, `refresh`, `permission`,
//! `channel_bind`, `connection` for those of RFC 6062, `mobility` for RFC 8016); `binding` answers everybody, also those
//! who probe their NAT (`discovery`); `redirect` sends clients to other servers; `relaying` moves application data, and
//! `icmp` tells of what was lost. What they all work on is in `allocation`; `flow` tells the driver what of it may be
//! forwarded without asking.
//!
//! For whoever runs the server, each `refusal` has a `cause` that its client is not told, `describe` says what there is,
//! and `reconfigure` changes the settings of a server that runs.

mod allocate;
mod allocation;
mod asking;
mod attributes;
mod authentication;
mod binding;
mod cause;
mod channel_bind;
mod classic;
mod config;
mod connection;
mod credentials;
mod describe;
mod directory;
mod discovery;
mod effect;
mod expiry;
mod flow;
mod icmp;
mod identity;
mod known;
mod message_counts;
mod mobility;
mod nonce;
mod outbox;
mod peer_policy;
mod pending_allocate;
mod permission;
mod port_pool;
mod quota;
mod realm;
mod reconfigure;
mod redirect;
mod refresh;
mod refusal;
mod relay_addresses;
mod relaying;
mod request;
mod retransmission;
mod server;
mod ticket;
mod timer;
mod token;
mod translation;

pub use crate::random::Random;
pub use allocation::PeerTransport;
pub use cause::Cause;
pub use config::{Limits, RelayAddress, ServerConfig, Settings};
pub use credentials::Credentials;
pub use describe::{AllocationInfo, ChannelInfo, PermissionInfo, RelayInfo};
pub use directory::{Answer, Grant, Question, Subject, User};
pub use discovery::{Discovery, DiscoveryError};
pub use effect::{
    AllocationId, BindError, BindRequest, ConnectError, ConnectionId, Discard, Disposition, Effect, EndReason, Flow,
    Forward, FrameHeader, IcmpError, Now, RelayId, Scope,
};
pub use known::Freshness;
pub use message_counts::MessageCounts;
pub use nonce::NonceKey;
pub use peer_policy::PeerPolicy;
pub use port_pool::PortStripe;
pub use quota::{Quotas, RealmUsage};
pub use realm::Realm;
pub use redirect::{AlternateError, AlternateServer, Draining, Encryption, comes_by};
pub use refusal::Refusal;
pub use server::Server;
pub use token::{AccessToken, MacKey, TokenAlgorithm, TokenError, TokenKey, TokenKeyError, TokenTimestamp};
pub use translation::{Translation, TranslationError};
