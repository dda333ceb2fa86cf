//! Hairpin: a TURN relay that forwards in the kernel.
//!
//! The way of a packet, from the outside in:
//!
//! 1. the XDP program (crate `hairpin-ebpf`) forwards what [`datapath`] has told it about;
//! 2. everything else reaches a socket of a [`shard`], which receives and sends in batches ([`net`]);
//! 3. the engine of `hairpin-proto` decides, and its effects come back through the shard, to sockets and [`datapath`].
//!
//! Around it: [`cli`] reads command line, environment and file into a [`config`], [`check`] says whether it would do on
//! this host, [`relay`] builds the parts from it, has them follow another one, and takes them down again, [`capacity`] says how
//! much of everything there may be, [`announce`] says what was started, [`admin`] serves [`control`] and [`metrics`] to
//! operators, in the words of [`api`], about the allocations of a [`selection`], [`log`] writes down what happens, [`traces`]
//! tells a collector of requests, [`service`] tells the service manager, [`state`] keeps what must survive a restart, [`load`]
//! measures any TURN server. [`clock`], [`random`], [`capabilities`] and [`file_limit`] ask the system.

pub mod admin;
pub mod announce;
pub mod api;
pub mod capabilities;
pub mod capacity;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod datapath;
pub mod file_limit;
pub mod inquiries;
mod listeners;
pub mod load;
pub mod log;
pub mod metrics;
pub mod net;
mod printable;
pub mod random;
pub mod relay;
pub mod selection;
pub mod service;
pub mod shard;
pub mod state;
pub mod tls;
pub mod traces;
