//! The STUN codec against the vectors of RFC 5769 and RFC 8489, against itself, against noise, and against another implementation.

mod interop;
mod noise;
mod passwords;
mod plain_attributes;
mod reserved;
mod round_trip;
mod signatures;
mod vectors;
mod vectors_of_sha256;
