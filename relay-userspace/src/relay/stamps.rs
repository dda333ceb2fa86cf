//! By what a file is known to be the same as before.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

/// Time and length of a file; none if it cannot be looked at. A link that points elsewhere changes them too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<(SystemTime, u64)>);

impl Stamp {
    /// Of the file that is there now.
    pub(super) fn of(path: &Path) -> Self {
        let about = fs::metadata(path).ok();
        Self(about.and_then(|about| Some((about.modified().ok()?, about.len()))))
    }
}
