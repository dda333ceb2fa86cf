//! What the kernel says in its files.

use std::fs;
use std::path::Path;

/// A file's text without the blanks around it; `None` if it cannot be read.
pub(super) fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// A kernel parameter, named with slashes.
pub(super) fn sysctl(name: &str) -> Option<String> {
    text(format!("/proc/sys/{name}"))
}

/// A kernel parameter that is a number.
pub(super) fn number(name: &str) -> Option<u64> {
    sysctl(name)?.split_whitespace().next()?.parse().ok()
}
