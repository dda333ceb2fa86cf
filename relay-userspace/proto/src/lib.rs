//! STUN (RFC 8489) and the server side of TURN (RFC 8656) without input, output, clock or randomness of their own.
//!
//! - [`stun`]: the codec;
//! - [`turn`]: the server's state machine;
//! - [`ice`]: the words of ICE, and what a lite agent makes of connectivity checks;
//! - [`media`]: sessions of two legs, between which media is relayed;
//! - [`framing`]: where a message ends in a stream;
//! - [`sdp`]: session descriptions, read and written again;
//! - [`address`]: a type for each role of an address.
//!
//! The invariant of this crate: time and randomness are arguments. The state machine is given a datagram, a timer or an
//! answer of its driver, together with `now`, and says what is to be done as effects. It never does anything itself.

pub mod address;
pub mod framing;
pub mod ice;
pub mod media;
mod random;
pub mod sdp;
mod slab;
pub mod stun;
pub mod turn;
