//! The TURN server, driven through its public interface with a clock and randomness of the test's own.

mod allocate;
mod answers;
mod authentication;
mod binding;
mod channels;
mod credentials;
mod dual;
mod harness;
mod icmp;
mod invariants;
mod model;
mod permissions;
mod refresh;
mod relaying;
mod retransmissions;
mod sockets;
