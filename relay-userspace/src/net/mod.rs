//! Sockets: how they are opened, and how datagrams go through them in batches.
//!
//! This is the only module that speaks to the kernel in C structures. Everything it hands out is safe to use.

mod errors;
mod message;
mod receive;
mod send;
mod socket;
mod stream;

pub use errors::{IcmpReport, take_error};
pub use message::IpFields;
pub use receive::{BATCH, ReceiveBatch, Received};
pub use send::{Outbox, Outgoing, SendBatch, send_one};
pub use socket::{SocketError, UdpSocket, source_address_towards, watch};
pub use stream::{Stream, StreamListener};
