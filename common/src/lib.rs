//! What the XDP program and the daemon must agree on.
//!
//! This crate is compiled twice: for the host and for the BPF target. It therefore allocates nothing, panics nowhere,
//! and holds only data layout and pure arithmetic:
//!
//! - [`wire`]: where the fields of a packet are, and what a datagram is by its first byte;
//! - [`checksum`]: one's complement sums and their incremental update (RFC 1624);
//! - [`stun`]: the few STUN messages that the program reads and writes, as words;
//! - [`limit`]: limits of rate;
//! - [`maps`]: keys and values of the BPF maps, their names and sizes;
//! - [`slot`]: the table of flows, the layout of its memory;
//! - [`hash`]: in which buckets of the table a key is;
//! - [`tags`]: in which slots of a bucket it may be;
//! - [`verdict`]: what the program did with a packet, and why.
#![no_std]

pub mod checksum;
pub mod hash;
pub mod limit;
pub mod maps;
pub mod slot;
pub mod stun;
pub mod tags;
pub mod verdict;
pub mod wire;
