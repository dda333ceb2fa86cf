//! Hairpin: a TURN relay that forwards in the kernel.
//!
//! The way of a packet, from the outside in:
//!
//! 1. the XDP program (crate `hairpin-ebpf`) forwards what [`datapath`] has told it about;
//! 2. everything else reaches a socket of a [`shard`], which receives and sends in batches ([`net`]);
//! 3. the engine of `hairpin-proto` decides, and its effects come back through the shard, to sockets and [`datapath`].
//!
//! Around it: [`cli`] reads the command line, [`relay`] builds the parts and takes them down again, [`admin`] and
//! [`metrics`] show what happens, [`state`] keeps what must survive a restart, [`load`] measures any TURN server.

pub mod admin;
pub mod cli;
pub mod credentials;
pub mod datapath;
pub mod load;
pub mod metrics;
pub mod net;
pub mod relay;
pub mod shard;
pub mod state;
