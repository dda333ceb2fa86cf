//! Why a store has no answer.

/// Why a store has no answer. The text is for the operator, and has no secret in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The server can't be reached, or the connection ended.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The server had no answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The server answered something that is no answer.
    #[error("{0}")]
    Failed(String),
    /// What is kept of this user or key is not what it should be. The others may be found all the same.
    #[error("{what}: {why}")]
    Entry {
        /// Which column, field or answer.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The store can't be opened as it is configured.
    #[error("{0}")]
    Configuration(String),
}
