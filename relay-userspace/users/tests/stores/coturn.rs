//! Coturn's `turnadmin`, which writes databases.

use std::fs;
use std::process::{Command, Stdio};

/// Runs `turnadmin`. False, with a word why, if it is not installed. With `HAIRPIN_REQUIRE_ALL` set, that is a failure.
pub(crate) fn turnadmin(arguments: &[&str]) -> bool {
    let spawned = Command::new("turnadmin").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let process = match spawned {
        Ok(process) => process,
        Err(error) if std::env::var_os("HAIRPIN_REQUIRE_ALL").is_none() => {
            eprintln!("skipped: coturn's turnadmin does not start: {error}");
            return false;
        }
        Err(error) => panic!("coturn's turnadmin does not start: {error}"),
    };
    let id = process.id();
    let output = process.wait_with_output().unwrap();
    // It leaves a file for its log, which it has no option against.
    let prefix = format!("turn_{id}_");
    for folder in ["/var/log", "/var/tmp", "/tmp", "."] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    true
}

/// Writes two users and two secrets into the database that the arguments name.
pub(crate) fn write_users(database: &[&str]) -> bool {
    let add = |name: &str, realm: &str, password: &str| {
        turnadmin(&[&["-a", "-u", name, "-r", realm, "-p", password], database].concat())
    };
    let secret = |value: &str, realm: &str| turnadmin(&[&["-s", value, "-r", realm], database].concat());
    add("alice", "north.gov", "sesame")
        && add("team/bob", "north.gov", "open:wide")
        && add("alice", "south.gov", "other")
        && secret("logen", "north.gov")
        && secret("bloody9", "north.gov")
        && secret("library", "south.gov")
}
