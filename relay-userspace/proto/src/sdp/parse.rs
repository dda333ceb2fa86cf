//! Reading a description: line by line, each level on its own, and then what sections have from the session.

use super::{Description, Problem, SdpError};

/// Reads a description.
pub(super) fn description(_text: &str) -> Result<Description, SdpError> {
    Err(SdpError { line: 1, problem: Problem::Version })
}
