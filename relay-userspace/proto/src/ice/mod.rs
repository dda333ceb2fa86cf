//! ICE (RFC 8445), as far as an agent needs it that is always reachable: a lite one (section 2.5).
//!
//! A lite agent has host candidates only and never sends a check. It answers those of the other side, which is a full agent
//! and therefore in control; what the other side nominates is where it sends to. What it cannot know by itself, whether the
//! other side still wants what it is sent, it learns from the checks that a full agent goes on sending (RFC 7675).
//!
//! - [`Candidate`], [`Parameters`]: what agents tell each other, in the words of RFC 8839;
//! - [`Credentials`]: what the other side proves its checks with;
//! - `check`: from a Binding request to a check, or to why it is none;
//! - [`Selection`]: which remote of a component is nominated, and which are known.

mod candidate;
mod check;
mod credentials;
mod parameters;
mod selection;

pub use candidate::{
    Candidate, CandidateAddress, CandidateError, CandidateKind, CandidateTransport, pair_priority, priority,
};
pub(crate) use check::{Rejection, accept, receive, refuse};
pub use credentials::Credentials;
pub use parameters::{Misshape, Parameters, ParametersError, is_ice_char};
pub use selection::{Outcome, Pair, Selection};
