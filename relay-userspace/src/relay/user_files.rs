//! Files with users, secrets and keys: read again when they change.

use std::sync::Arc;

use super::Relay;
use super::authority::Authority;
use super::stamps::Stamp;
use crate::config::{Config, Realm};

/// The stamps of all files that realms name, in their order.
pub(super) fn stamps(config: &Config) -> Vec<Stamp> {
    config.realms.iter().flat_map(|realm| &realm.files).map(|path| Stamp::of(path)).collect()
}

impl Relay {
    /// Takes who may relay from files that have changed, and nothing else. Of bad ones it is told once, and those of before
    /// stay.
    pub(super) async fn follow_user_files(&mut self) {
        // Before they are read: what is written in between is noticed next time.
        let stamps = stamps(&self.config);
        if stamps == self.user_files {
            return;
        }
        let problem = match self.read_users() {
            Ok(has_changed) => {
                self.user_files = stamps;
                if has_changed {
                    self.tell_shards(Vec::new()).await;
                    self.publish();
                    tracing::info!("files with users have changed, and who is in them now may relay");
                }
                None
            }
            // Tried again: what is in the way may be another file than those.
            Err(problem) => {
                Some(format!("files with users have changed and cannot be used, the users of before stay: {problem}"))
            }
        };
        if problem == self.user_problem {
            return;
        }
        if let Some(problem) = &problem {
            tracing::error!("{problem}");
        }
        self.user_problem = problem;
        self.publish();
    }

    /// Returns whether anything is another thing now.
    fn read_users(&mut self) -> Result<bool, String> {
        let loaded = self.source.load().map_err(|problems| problems[0].to_string())?;
        let mut config = Config::clone(&self.config);
        for realm in &mut config.realms {
            let read = loaded.config.realms.iter().find(|read| read.name == realm.name && read.files == realm.files);
            let Some(read) = read else {
                let name = &realm.name;
                return Err(format!("the configuration has another realm than {name}, or other files: reload it"));
            };
            let Realm { authentication, token_keys, .. } = read.clone();
            realm.authentication = authentication;
            realm.token_keys = token_keys;
        }
        if config.realms == self.config.realms {
            return Ok(false);
        }
        self.authority = Authority::new(&config).map_err(|error| format!("{error:#}"))?;
        self.config = Arc::new(config);
        Ok(true)
    }
}
