//! The XDP program alone: run over single packets by the kernel's `BPF_PROG_TEST_RUN`, without any network.
//!
//! - [`frame`] builds packets from their fields, with a library that shares nothing with the program;
//! - [`flow`] is a relayed flow as the daemon would install it, and what a packet of it must become;
//! - [`sys`] is the system call, for measuring;
//! - [`mod@bench`] loads the program and runs packets through it, one at a time, with its counters read before and after.

pub mod bench;
pub mod flow;
pub mod frame;
pub mod sys;
