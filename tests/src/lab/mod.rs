//! The lab: networks of the tests' own, in network namespaces, with the real relay in them.
//!
//! - [`namespace`] makes a namespace, runs programs and code inside it, and removes it, also when a test fails;
//! - [`topology`] joins namespaces to the network that an edge host sees: one link to a router, the rest behind it;
//! - [`process`] runs a program with a time limit and keeps what it says;
//! - [`relay`] is the `hairpin` binary in a namespace, from the start to a clean end;
//! - [`metrics`] reads what it exposes, [`http`] asks its admin interface;
//! - [`prometheus`] is a Prometheus that scrapes it;
//! - [`wire`] sends and receives raw frames, and [`datagram`] takes them apart and checks their checksums;
//! - [`turn`] is a client that asks one thing at a time, [`stream`] a connection over TCP or TLS that it may have made;
//! - [`link`] is what carries its messages otherwise: UDP, TCP, TLS or DTLS;
//! - [`call`] is a client and a peer that reach each other over a channel;
//! - [`framing`] is the same over ChannelData or indications, in any mixture of IP versions;
//! - [`in_process`] is a relay with limits that no operator can set;
//! - [`half_open`] begins TCP connections that never come to be;
//! - [`load`] runs the load generator;
//! - [`coturn`] runs coturn's clients and judges them by what they print, and has coturn fill databases;
//! - [`server`] is hairpin or coturn, for clients that are not ours, [`certificates`] are what it proves itself with;
//! - [`python`] has clients that are written in Python;
//! - [`agent`] is an ICE agent that takes orders, [`browser`] one that is a page in Chromium or Firefox;
//! - [`relayed_page`] is a page in Chromium that may use relayed candidates only;
//! - [`ice`] is a relay with sessions, and what it says of them;
//! - [`nat`] puts hosts behind a NAT;
//! - [`sip`] has phones, and the proxy of `deploy/examples` between them;
//! - [`meddler`] stands between a client and its server;
//! - [`webhook`] is an authorization server that is told what to say;
//! - [`folder`] is a folder that is removed.
//!
//! No packet leaves: the lab has no route to anywhere else. Everything needs root.

pub mod agent;
pub mod browser;
pub mod call;
pub mod certificates;
pub mod coturn;
pub mod datagram;
pub mod folder;
pub mod framing;
pub mod half_open;
pub mod http;
pub mod ice;
pub mod in_process;
pub mod link;
pub mod load;
pub mod meddler;
pub mod metrics;
pub mod namespace;
pub mod nat;
mod passing;
pub mod process;
pub mod prometheus;
pub mod python;
pub mod relay;
pub mod relayed_page;
pub mod server;
pub mod sip;
pub mod stream;
pub mod topology;
pub mod turn;
pub mod webhook;
pub mod wire;

pub use self::agent::Agent;
pub use self::call::Call;
pub use self::certificates::{Authority, Certificate, Key};
pub use self::folder::Folder;
pub use self::framing::Framing;
pub use self::metrics::Metrics;
pub use self::namespace::Namespace;
pub use self::process::{Finished, Process};
pub use self::prometheus::Prometheus;
pub use self::relay::Relay;
pub use self::server::{Server, Setup, Transport};
pub use self::stream::Stream;
pub use self::topology::{Family, Lab};
pub use self::webhook::Webhook;
