//! Sockets: how they are opened, and how datagrams go through them in batches.
//!
//! This is the only module that speaks to the kernel in C structures. Everything it hands out is safe to use.

mod batch;
mod message;
mod socket;

pub use batch::{BATCH, Outbox, Outgoing, ReceiveBatch, Received, SendBatch, send_one};
pub use message::IpFields;
pub use socket::{SocketError, UdpSocket, source_address_towards, watch};
