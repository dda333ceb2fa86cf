//! Three relays behind one name, and clients that can go from any of them to any other.
//!
//! The name server says what `deploy/dns` says, and the relays are told what `docs/fleet.md` says, with the addresses that
//! stand there: the network is the test's own.

mod draining;
mod killing;
mod names;
mod network;
mod relays;
mod roaming;
mod serving;
