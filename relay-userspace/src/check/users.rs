//! Whoever is asked about users: whether each database and the webhook answers. They are asked whether they are there, about
//! nobody.

use super::{Finding, Findings};
use crate::config::Config;
use crate::inquiries::directory;

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::about("users");
    if config.directory.is_empty() {
        return findings.or_ok(format!("{} is known without asking anybody", realms(config)));
    }
    let directory = match directory(&config.directory) {
        Ok(Some(directory)) => directory,
        Ok(None) => return Vec::new(),
        Err(error) => {
            findings.error(format!("{error:#}"), "correct it: the relay does not start");
            return findings.list;
        }
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return findings.list;
    };
    for (name, answer) in runtime.block_on(directory.probe()) {
        match answer {
            Ok(()) => findings.ok(format!("{name} answers")),
            Err(error) => findings.warning(
                format!("{name} does not answer: {error}"),
                "the relay starts, and users that it may know are told to try again (500) until it does",
            ),
        }
    }
    findings.list
}

/// Whose users these are.
fn realms(config: &Config) -> String {
    match config.realms.as_slice() {
        [realm] => format!("who may relay in realm {}", realm.name),
        realms => format!("who may relay in {} realms", realms.len()),
    }
}
