//! New settings for a server that runs.

use super::config::Settings;
use super::effect::Now;
use super::server::Server;

impl Server {
    /// Takes other settings.
    pub fn reconfigure(&mut self, _now: Now, settings: Settings) {
        let _ = settings;
    }
}
