//! The TURN server, driven through its public interface with a clock and randomness of the test's own.

mod allocate;
mod answers;
mod authentication;
mod binding;
mod channels;
mod credentials;
mod discovery;
mod dual;
mod harness;
mod icmp;
mod invariants;
mod invariants_of_moves;
mod mobility;
mod model;
mod moves;
mod nat;
mod permissions;
mod redirect;
mod refresh;
mod relaying;
mod retransmissions;
mod sockets;
mod tcp_allocations;
mod tcp_connections;
