//! What differs between two configurations, and what of it a running relay can follow.

use hairpin_users::users_file::UserLine;

use crate::config::{Authentication, Config, Realm};

/// Options that have changed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Those that a running relay follows.
    pub(super) followed: Vec<&'static str>,
    /// Those that the next start follows.
    pub(super) needs_restart: Vec<&'static str>,
}

/// Something that a configuration says.
struct Aspect {
    /// The options that say it.
    options: &'static [&'static str],
    differs: fn(&Config, &Config) -> bool,
    /// Takes it over from the configuration in force; none: a running relay follows it.
    keep: Option<fn(&Config, &mut Config)>,
}

macro_rules! followed {
    ($($field:ident).+, $($option:literal),+) => {
        Aspect { options: &[$($option),+], differs: |a, b| a.$($field).+ != b.$($field).+, keep: None }
    };
}

macro_rules! kept {
    ($field:ident, $($option:literal),+) => {
        Aspect {
            options: &[$($option),+],
            differs: |a, b| a.$field != b.$field,
            keep: Some(|old, new| new.$field.clone_from(&old.$field)),
        }
    };
}

macro_rules! of_realms {
    ($differs:expr, $($option:literal),+) => {
        Aspect {
            options: &[$($option),+],
            differs: |a, b| {
                // One that has come or gone is told by its name.
                let of_same = |one: &Realm| b.realms.iter().find(|other| other.name == one.name);
                let differs: fn(&Realm, &Realm) -> bool = $differs;
                a.realms.iter().any(|one| of_same(one).is_some_and(|other| differs(one, other)))
            },
            keep: None,
        }
    };
}

/// All there is, in the order of the fields. `config-file` and the state directory are places, not what is found there.
const ASPECTS: &[Aspect] = &[
    followed!(drain_timeout, "drain-timeout"),
    followed!(drain_move, "drain-move"),
    followed!(listeners, "listen"),
    followed!(certificates, "certificate", "private-key"),
    followed!(proxies, "proxy-protocol"),
    followed!(connections.all, "max-connections"),
    followed!(connections.new, "max-new-connections"),
    followed!(connections.new_of_source, "max-new-connections-per-source"),
    followed!(tcp_relay, "tcp-relay"),
    followed!(mobility, "mobility"),
    Aspect {
        options: &["nat-discovery"],
        differs: |a, b| a.discovery != b.discovery,
        // Its sockets are among the listeners.
        keep: Some(|old, new| {
            new.discovery.clone_from(&old.discovery);
            new.listeners.clone_from(&old.listeners);
        }),
    },
    followed!(nonce_keys, "nonce-key", "nonce-key-file"),
    followed!(alternates, "alternate-server"),
    followed!(relay_addresses, "relay-address"),
    kept!(relay_ports, "relay-ports"),
    followed!(reserved_ports, "reserved-ports"),
    Aspect {
        options: &["realm", "realm-file"],
        differs: |a, b| !a.realms.iter().map(|realm| &realm.name).eq(b.realms.iter().map(|realm| &realm.name)),
        keep: None,
    },
    of_realms!(|a, b| a.listeners != b.listeners || a.server_names != b.server_names, "server-name"),
    of_realms!(|a, b| users(a) != users(b), "user", "user-file"),
    of_realms!(|a, b| secrets(a) != secrets(b), "auth-secret", "auth-secret-file"),
    of_realms!(|a, b| a.reserved_addresses != b.reserved_addresses, "reserved-address"),
    of_realms!(|a, b| a.password_algorithms != b.password_algorithms, "password-algorithms"),
    of_realms!(|a, b| a.token_audience != b.token_audience, "token-audience"),
    of_realms!(|a, b| a.token_keys != b.token_keys, "token-key", "token-key-file"),
    of_realms!(|a, b| a.max_allocations != b.max_allocations, "max-realm-allocations"),
    of_realms!(|a, b| a.max_allocations_per_user != b.max_allocations_per_user, "max-allocations-per-user"),
    followed!(directory.stores, "user-store", "user-store-file"),
    followed!(directory.webhook, "webhook", "webhook-token", "webhook-token-file", "webhook-ca"),
    followed!(directory.timeout, "user-timeout"),
    followed!(directory.cache, "user-cache"),
    followed!(allow_peers, "allow-peer"),
    followed!(deny_peers, "deny-peer"),
    kept!(xdp, "xdp"),
    kept!(interfaces, "interface"),
    kept!(admin, "admin"),
    kept!(admin_socket, "admin-socket"),
    followed!(admin_tokens, "admin-token", "admin-token-file"),
    followed!(credentials_tokens, "credentials-token", "credentials-token-file"),
    followed!(credentials_origins, "credentials-origin"),
    followed!(credentials_rate, "credentials-rate"),
    followed!(credentials_ttl, "credentials-ttl"),
    followed!(log, "log"),
    followed!(log_format, "log-format"),
    followed!(log_allocations, "log-allocations"),
    followed!(log_sample, "log-sample"),
    followed!(log_client_addresses, "log-client-addresses"),
    kept!(otlp, "otlp"),
    kept!(otlp_sample, "otlp-sample"),
    kept!(shards, "shards"),
    kept!(max_allocations, "max-allocations"),
    followed!(max_allocations_per_source, "max-allocations-per-source"),
    followed!(max_permissions, "max-permissions"),
    followed!(max_channels, "max-channels"),
    followed!(max_lifetime, "max-lifetime"),
    kept!(ice_max_sessions, "ice-max-sessions"),
    kept!(kernel_records, "kernel-records"),
    followed!(rates.allocation_bits, "allocation-bit-rate"),
    followed!(rates.allocation_packets, "allocation-packet-rate"),
    followed!(rates.relay_bits, "relay-bit-rate"),
    followed!(rates.source_packets, "source-packet-rate"),
    followed!(rates.control_packets, "control-packet-rate"),
];

fn users(realm: &Realm) -> &[UserLine] {
    match &realm.authentication {
        Authentication::Given { users, .. } => users,
        Authentication::Generated { .. } => &[],
    }
}

/// None of a relay that makes its own.
fn secrets(realm: &Realm) -> Option<&[String]> {
    match &realm.authentication {
        Authentication::Given { secrets, .. } => Some(secrets),
        Authentication::Generated { .. } => None,
    }
}

/// What has changed. Of `new`, all that needs a restart is set back to what is in force.
pub(super) fn follow(old: &Config, new: &mut Config) -> Difference {
    let mut difference = Difference::default();
    // First, since what they take back may undo what others would follow.
    for aspect in ASPECTS {
        if let Some(keep) = aspect.keep.filter(|_| (aspect.differs)(old, new)) {
            keep(old, new);
            difference.needs_restart.extend(aspect.options.first());
        }
    }
    let followed = ASPECTS.iter().filter(|aspect| aspect.keep.is_none() && (aspect.differs)(old, new));
    difference.followed = followed.filter_map(|aspect| aspect.options.first()).copied().collect();
    difference
}

/// A field that is added to the configuration has to be added above: then it is named here, too.
#[allow(dead_code, reason = "compiling it is the check")]
fn names_every_field(config: &Config) {
    let Config {
        config_file: _,
        drain_timeout: _,
        drain_move: _,
        listeners: _,
        certificates: _,
        proxies: _,
        connections: _,
        tcp_relay: _,
        mobility: _,
        discovery: _,
        translation: _,
        nonce_keys: _,
        alternates: _,
        relay_addresses: _,
        relay_ports: _,
        reserved_ports: _,
        realms: _,
        directory: _,
        allow_peers: _,
        deny_peers: _,
        xdp: _,
        interfaces: _,
        admin: _,
        admin_socket: _,
        admin_tokens: _,
        credentials_tokens: _,
        credentials_origins: _,
        credentials_rate: _,
        credentials_ttl: _,
        log: _,
        log_format: _,
        log_allocations: _,
        log_sample: _,
        log_client_addresses: _,
        otlp: _,
        otlp_sample: _,
        shards: _,
        max_allocations: _,
        max_allocations_per_source: _,
        max_permissions: _,
        max_channels: _,
        max_lifetime: _,
        ice_max_sessions: _,
        kernel_records: _,
        rates: _,
    } = config;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::{self, Reload, Source};
    use crate::config::Rate;

    #[test]
    fn what_is_followed_is_what_the_reference_says() {
        let mut named = vec!["config", "state-dir"];
        for aspect in ASPECTS {
            for option in aspect.options {
                let expected = if aspect.keep.is_some() { Reload::Restart } else { Reload::Live };
                assert_eq!(settings::reload(option), Some(expected), "{option}");
                named.push(option);
            }
        }
        let mut defined: Vec<_> = settings::names().collect();
        named.sort_unstable();
        defined.sort_unstable();
        assert_eq!(named, defined);
    }

    fn config(variables: &[(&str, &str)]) -> Config {
        let all = [("HAIRPIN_LISTEN", "127.0.0.1:3478"), ("HAIRPIN_CONFIG", "/dev/null")];
        let variables = all.iter().chain(variables).map(|(name, value)| ((*name).into(), (*value).into()));
        let loaded = Source::with_environment(settings::Flags::default(), variables).load();
        loaded.unwrap_or_else(|problems| panic!("{}", problems[0])).config
    }

    #[test]
    fn a_change_is_followed_or_waits_for_a_restart() {
        let old = config(&[]);
        let mut same = config(&[]);
        assert_eq!(follow(&old, &mut same), Difference::default());
        let changes = [("HAIRPIN_REALM", "elsewhere"), ("HAIRPIN_SHARDS", "7"), ("HAIRPIN_RELAY_BIT_RATE", "1G")];
        let mut new = config(&changes);
        let difference = follow(&old, &mut new);
        let expected = Difference { followed: vec!["realm", "relay-bit-rate"], needs_restart: vec!["shards"] };
        assert_eq!(difference, expected);
        assert_eq!((new.shards, new.realms[0].name.as_str()), (old.shards, "elsewhere"));
        assert_ne!(new.rates.relay_bits, Rate::Off);
    }
}
