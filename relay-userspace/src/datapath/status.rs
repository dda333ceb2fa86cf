//! What became of each interface, for whoever wants to know: the log, the metrics, a test.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::program::ProgramError;

/// Whether and how the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
    /// Not attached.
    None,
}

impl AttachedMode {
    /// The name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::None => "none",
        }
    }
}

/// Why the program is not attached to an interface, or not in the driver: what a metric can say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is one end of a virtual cable, which `auto` leaves alone.
    Veth,
    /// The driver takes no native XDP program, or not with its settings.
    NativeRefused,
    /// Another XDP program is there.
    Busy,
    /// This process may not.
    NotPermitted,
    /// There is no such interface (any more).
    Gone,
    /// Anything else; the log says what.
    Failed,
}

impl Cause {
    /// The name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::NativeRefused => "native_refused",
            Self::Busy => "busy",
            Self::NotPermitted => "not_permitted",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }
}

/// Why not better, for metrics and for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What kind of reason it is.
    pub cause: Cause,
    /// The same in words.
    pub text: String,
}

impl From<&ProgramError> for Reason {
    fn from(error: &ProgramError) -> Self {
        let cause = match error {
            ProgramError::NativeRefused { .. } => Cause::NativeRefused,
            ProgramError::Busy(_) => Cause::Busy,
            ProgramError::NotPermitted(_) => Cause::NotPermitted,
            ProgramError::UnknownInterface(_) => Cause::Gone,
            _ => Cause::Failed,
        };
        Self { cause, text: error.to_string() }
    }
}

/// What became of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Its name.
    pub interface: String,
    /// How the program is attached.
    pub mode: AttachedMode,
    /// Why not better.
    pub reason: Option<Reason>,
}

impl fmt::Display for InterfaceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, mode, reason } = self;
        match mode {
            AttachedMode::Native => write!(f, "native on {interface}")?,
            AttachedMode::Generic => write!(f, "generic on {interface}")?,
            AttachedMode::None => write!(f, "not on {interface}")?,
        }
        match reason {
            Some(reason) => write!(f, " ({})", reason.text),
            None => Ok(()),
        }
    }
}

/// The latest of every interface. Clones look at the same; nobody who looks is made to wait.
#[derive(Clone, Debug, Default)]
pub struct Interfaces {
    statuses: Arc<Mutex<Vec<InterfaceStatus>>>,
}

impl Interfaces {
    /// Every interface that was considered, as it is now.
    pub fn status(&self) -> Vec<InterfaceStatus> {
        // It is only ever replaced as a whole.
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn publish(&self, statuses: Vec<InterfaceStatus>) {
        *self.statuses.lock().unwrap_or_else(PoisonError::into_inner) = statuses;
    }
}
