//! The STUN codec and the tokens that it carries, against the vectors of RFC 5769 and RFC 8489, against themselves, against noise,
//! and against other implementations.

mod interop;
mod noise;
mod passwords;
mod plain_attributes;
mod reserved;
mod round_trip;
mod signatures;
mod tokens;
mod vectors;
mod vectors_of_sha256;
