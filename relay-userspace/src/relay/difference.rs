//! What differs between two configurations, and what of it a running relay can follow.

use crate::config::Config;

/// Options that have changed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Those that a running relay follows.
    pub(super) followed: Vec<&'static str>,
    /// Those that the next start follows.
    pub(super) needs_restart: Vec<&'static str>,
}

/// Tells fields of the same name apart, and takes over those that need a restart from the old configuration. Names every
/// field, so that none is forgotten that is added.
macro_rules! compare {
    ($old:ident, $new:ident; follow: $($field:ident => $option:literal),+; restart: $($kept:ident => $restart:literal),+; other: $($other:ident),+) => {{
        let Config { $($field: _,)+ $($kept: _,)+ $($other: _,)+ } = $old;
        let mut difference = Difference::default();
        $(if $old.$field != $new.$field { difference.followed.push($option); })+
        $(if $old.$kept != $new.$kept {
            difference.needs_restart.push($restart);
            $new.$kept.clone_from(&$old.$kept);
        })+
        difference
    }};
}

/// What has changed. Of `new`, all that needs a restart is set back to what is in force.
pub(super) fn follow(old: &Config, new: &mut Config) -> Difference {
    compare!(
        old, new;
        follow:
            listeners => "listen",
            certificates => "certificate",
            proxies => "proxy-protocol",
            connections => "max-connections",
            tcp_relay => "tcp-relay",
            mobility => "mobility",
            alternates => "alternate-server",
            relay_addresses => "relay-address",
            realm => "realm",
            authentication => "user, auth-secret",
            allow_peers => "allow-peer",
            deny_peers => "deny-peer",
            credentials_tokens => "credentials-token",
            credentials_origins => "credentials-origin",
            credentials_rate => "credentials-rate",
            credentials_ttl => "credentials-ttl",
            admin_tokens => "admin-token",
            drain_timeout => "drain-timeout",
            log => "log",
            log_allocations => "log-allocations",
            log_sample => "log-sample",
            log_client_addresses => "log-client-addresses",
            max_allocations_per_user => "max-allocations-per-user",
            rates => "rates";
        restart:
            discovery => "nat-discovery",
            relay_ports => "relay-ports",
            xdp => "xdp",
            interfaces => "interface",
            admin => "admin",
            admin_socket => "admin-socket",
            log_format => "log-format",
            otlp => "otlp",
            otlp_sample => "otlp-sample",
            shards => "shards",
            max_allocations => "max-allocations",
            kernel_records => "kernel-records";
        other: config_file, translation
    )
}
