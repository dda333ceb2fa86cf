//! The STUN codec against the vectors of RFC 5769, against itself, against noise, and against another implementation.

mod interop;
mod noise;
mod plain_attributes;
mod reserved;
mod round_trip;
mod vectors;
