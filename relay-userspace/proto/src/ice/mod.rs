//! What ICE (RFC 8445) says in words: candidates, and the credentials that go with them (RFC 8839).

mod candidate;
mod parameters;

pub use candidate::{
    Candidate, CandidateAddress, CandidateError, CandidateKind, CandidateTransport, pair_priority, priority,
};
pub use parameters::{Misshape, Parameters, ParametersError, is_ice_char};
