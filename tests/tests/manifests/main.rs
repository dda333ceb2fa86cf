//! What `deploy` has for containers and hosts: each file is judged by the program that reads it, or by its schema, and then a
//! relay is run as it says. There is no runtime of containers here: what one does to a process is done with util-linux.

mod compose;
mod container;
mod host;
mod image;
mod kubernetes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use hairpin_tests::lab::process::{Finished, run};
use hairpin_tests::lab::python;
use hairpin_tests::lab::relay::binary;

/// A path in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").join(path)
}

/// A file of the repository.
fn read(path: &str) -> String {
    let path = repository(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Has a script of `tests/clients` look at a file or folder.
fn judged(interpreter: &Path, script: &str, file: &Path) -> Finished {
    run(Command::new(interpreter).arg("-B").arg(python::scripts().join(script)).arg(file))
}

/// Whether the relay has an option of this variable.
fn is_option(variable: &str) -> bool {
    static REFERENCE: OnceLock<String> = OnceLock::new();
    let reference =
        REFERENCE.get_or_init(|| run(Command::new(binary()).args(["config", "--reference"])).expect_success());
    // The command line has it, but the file cannot name itself.
    variable == "HAIRPIN_CONFIG" || reference.contains(&format!("| `{variable}` |"))
}

/// The version of the workspace.
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// A duration as configurations write it, `10m` or `1m30s`, in seconds.
fn seconds(text: &str) -> u64 {
    let mut sum = 0;
    for part in text.split_inclusive(['h', 'm', 's']) {
        let (number, unit) = part.split_at(part.len() - 1);
        let number: u64 = number.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        sum += number
            * match unit {
                "h" => 3600,
                "m" => 60,
                _ => 1,
            };
    }
    sum
}

/// What stands behind a key of a TOML file, without quotes.
fn toml(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).trim().trim_matches('"').to_owned()
}
