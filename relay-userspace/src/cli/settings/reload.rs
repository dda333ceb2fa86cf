//! Which options a reload can change.

/// When a new value of an option takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// As soon as the settings are read anew.
    Live,
    /// When the relay is started again.
    Restart,
}

/// First options of what is made or opened once: threads, maps, the admin interface, the sender of traces. Then those of
/// what is looked up anew, or can be changed while packets pass.
const TABLE: [(&str, Reload); 75] = [
    ("config", Reload::Restart),
    ("shards", Reload::Restart),
    ("state-dir", Reload::Restart),
    ("nat-discovery", Reload::Restart),
    ("relay-ports", Reload::Restart),
    ("mobility", Reload::Live),
    ("xdp", Reload::Restart),
    ("interface", Reload::Restart),
    ("ice-max-sessions", Reload::Restart),
    ("kernel-records", Reload::Restart),
    ("max-allocations", Reload::Restart),
    ("admin", Reload::Restart),
    ("admin-socket", Reload::Restart),
    ("admin-token", Reload::Live),
    ("admin-token-file", Reload::Live),
    ("otlp", Reload::Restart),
    ("otlp-sample", Reload::Restart),
    ("drain-timeout", Reload::Live),
    ("drain-move", Reload::Live),
    ("listen", Reload::Live),
    ("certificate", Reload::Live),
    ("private-key", Reload::Live),
    ("proxy-protocol", Reload::Live),
    ("alternate-server", Reload::Live),
    ("relay-address", Reload::Live),
    ("tcp-relay", Reload::Live),
    ("realm", Reload::Live),
    ("user", Reload::Live),
    ("user-file", Reload::Live),
    ("auth-secret", Reload::Live),
    ("auth-secret-file", Reload::Live),
    ("server-name", Reload::Live),
    ("reserved-address", Reload::Live),
    ("reserved-ports", Reload::Live),
    ("password-algorithms", Reload::Live),
    ("token-audience", Reload::Live),
    ("token-key", Reload::Live),
    ("token-key-file", Reload::Live),
    ("max-realm-allocations", Reload::Live),
    ("realm-file", Reload::Live),
    ("user-store", Reload::Live),
    ("user-store-file", Reload::Live),
    ("user-timeout", Reload::Live),
    ("user-cache", Reload::Live),
    ("webhook", Reload::Live),
    ("webhook-token", Reload::Live),
    ("webhook-token-file", Reload::Live),
    ("webhook-ca", Reload::Live),
    ("nonce-key", Reload::Live),
    ("nonce-key-file", Reload::Live),
    ("max-allocations-per-source", Reload::Live),
    ("max-permissions", Reload::Live),
    ("max-channels", Reload::Live),
    ("max-lifetime", Reload::Live),
    ("allow-peer", Reload::Live),
    ("deny-peer", Reload::Live),
    ("max-allocations-per-user", Reload::Live),
    ("max-connections", Reload::Live),
    ("max-new-connections", Reload::Live),
    ("max-new-connections-per-source", Reload::Live),
    ("allocation-bit-rate", Reload::Live),
    ("allocation-packet-rate", Reload::Live),
    ("relay-bit-rate", Reload::Live),
    ("source-packet-rate", Reload::Live),
    ("control-packet-rate", Reload::Live),
    ("credentials-token", Reload::Live),
    ("credentials-token-file", Reload::Live),
    ("credentials-origin", Reload::Live),
    ("credentials-rate", Reload::Live),
    ("credentials-ttl", Reload::Live),
    ("log", Reload::Live),
    ("log-format", Reload::Live),
    ("log-allocations", Reload::Live),
    ("log-sample", Reload::Live),
    ("log-client-addresses", Reload::Live),
];

/// When a new value of an option takes effect, by its long name; `None`: there is no such option.
pub fn reload(option: &str) -> Option<Reload> {
    TABLE.iter().find(|(name, _)| *name == option).map(|(_, reload)| *reload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::options;

    #[test]
    fn every_option_is_said_once_when_it_takes_effect() {
        let mut said: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
        let mut defined: Vec<&str> = options::all().iter().map(options::Opt::name).collect();
        said.sort_unstable();
        defined.sort_unstable();
        assert_eq!(said, defined);
        assert_eq!((reload("user"), reload("shards"), reload("no")), (Some(Reload::Live), Some(Reload::Restart), None));
    }
}
