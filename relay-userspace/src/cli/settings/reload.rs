//! Which options a reload can change.

use super::options;

/// When a new value of an option takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// As soon as the settings are read anew.
    Live,
    /// When the relay is started again.
    Restart,
}

/// Options of what is made or opened once: threads, maps, the admin interface, the sender of traces.
const RESTART: [&str; 16] = [
    "config",
    "shards",
    "state-dir",
    "nat-discovery",
    "relay-ports",
    "mobility",
    "xdp",
    "interface",
    "kernel-records",
    "max-allocations",
    "admin",
    "admin-socket",
    "admin-token",
    "admin-token-file",
    "otlp",
    "otlp-sample",
];

/// Options of what is looked up anew, or can be changed while packets pass.
const LIVE: [&str; 34] = [
    "drain-timeout",
    "listen",
    "certificate",
    "private-key",
    "proxy-protocol",
    "alternate-server",
    "relay-address",
    "tcp-relay",
    "realm",
    "user",
    "user-file",
    "auth-secret",
    "auth-secret-file",
    "allow-peer",
    "deny-peer",
    "max-allocations-per-user",
    "max-connections",
    "max-new-connections",
    "max-new-connections-per-source",
    "allocation-bit-rate",
    "allocation-packet-rate",
    "relay-bit-rate",
    "source-packet-rate",
    "control-packet-rate",
    "credentials-token",
    "credentials-token-file",
    "credentials-origin",
    "credentials-rate",
    "credentials-ttl",
    "log",
    "log-format",
    "log-allocations",
    "log-sample",
    "log-client-addresses",
];

/// When a new value of an option takes effect, by its long name; `None`: there is no such option.
pub fn reload(option: &str) -> Option<Reload> {
    options::find(option)?;
    if LIVE.contains(&option) { Some(Reload::Live) } else { Some(Reload::Restart) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_said_once_when_it_takes_effect() {
        let mut said: Vec<&str> = RESTART.into_iter().chain(LIVE).collect();
        let mut defined: Vec<&str> = options::all().iter().map(options::Opt::name).collect();
        said.sort_unstable();
        defined.sort_unstable();
        assert_eq!(said, defined);
        assert_eq!((reload("user"), reload("shards"), reload("no")), (Some(Reload::Live), Some(Reload::Restart), None));
    }
}
