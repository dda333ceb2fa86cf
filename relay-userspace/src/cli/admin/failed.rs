//! Why a command has not done what it should, and the exit code of that.

use std::io;
use std::process::ExitCode;

use crate::api::Problem;
use crate::cli::{complain, usage_error};

/// Why a command has failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// What was asked makes no sense.
    Usage(String),
    /// The relay was not reached, or has not answered as it should.
    Here(String),
    /// The relay has refused.
    Refused(Problem),
    /// Nobody reads the output any more: no failure at all.
    Unread,
}

impl Failed {
    /// Says it, in one line or, of several problems, one for each.
    pub(super) fn exit(self) -> ExitCode {
        match self {
            Self::Usage(message) => return usage_error(&message),
            Self::Here(message) => complain(&message),
            Self::Refused(Problem { error, problems, line: _ }) => {
                complain(&error);
                for problem in &problems {
                    complain(problem);
                }
            }
            Self::Unread => return ExitCode::SUCCESS,
        }
        ExitCode::FAILURE
    }
}

impl From<io::Error> for Failed {
    /// Of writing to standard output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Unread;
        }
        Self::Here(format!("standard output: {error}"))
    }
}
