//! The XDP program alone: run over single packets by the kernel's `BPF_PROG_TEST_RUN`, without any network.
//!
//! - [`frame`] builds packets from their fields, with a library that shares nothing with the program, and [`stun`] their
//!   payload;
//! - [`setup`] is what a relay has promised to whom, and the records that the daemon would write for it;
//! - [`model`] says what must become of a packet in such a relay;
//! - [`world`] is a relay with everything in it, and the paths through it; [`media`] is one with media sessions;
//! - [`sys`] is the system call, for measuring; [`mod@line`] is what no table can be faster than;
//! - [`fixture`] has it on the bench;
//! - [`mod@bench`] loads the program and runs packets through it, one at a time, with its counters read before and after.

pub mod bench;
pub mod fixture;
pub mod frame;
pub mod line;
pub mod media;
pub mod model;
pub mod setup;
pub mod stun;
pub mod sys;
pub mod world;
