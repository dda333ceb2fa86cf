//! Starts the servers that tests ask: PostgreSQL and Redis, each of a test's own, in a folder of its own.
//!
//! A server ends with its guard, and with the thread that has started it, however that ends.

mod postgres;
mod process;
mod redis;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub use postgres::PostgresServer;
pub use redis::RedisServer;

/// A new and empty folder, removed with what is in it when this goes out of scope.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one; `role` is part of its name.
    pub fn new(role: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Names of Unix sockets are short.
        let path = std::env::temp_dir().join(format!("hairpin-{role}-{}-{number}", std::process::id()));
        // Process ids come again: what is there was left by one that was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a file in it would be.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether tests that lack a program fail, and are not skipped.
fn requires_all() -> bool {
    std::env::var_os("HAIRPIN_REQUIRE_ALL").is_some()
}

/// Says why a test is skipped, or fails where nothing may be skipped.
fn skip<T>(why: &str) -> Option<T> {
    assert!(!requires_all(), "{why}");
    eprintln!("skipped: {why}");
    None
}
