//! What the servers of tests are made of.

use std::sync::Arc;
use std::time::Duration;

use hairpin_proto::turn::{
    Credentials, Freshness, Limits, NonceKey, PeerPolicy, PortStripe, Quotas, Realm, RelayAddress, ServerConfig,
    Settings, Translation,
};

use super::{PUBLIC_V4, REALM, RELAY_V4, RELAY_V6, SECRET};

pub(crate) fn config() -> ServerConfig {
    let mut credentials = Credentials::new(REALM);
    credentials.add_user("alice", "sesame");
    credentials.add_user("bob", "hunter2");
    credentials.add_secret(SECRET);
    let relay_addresses = vec![
        RelayAddress { bind: RELAY_V4.parse().unwrap(), public: PUBLIC_V4.parse().unwrap() },
        RelayAddress { bind: RELAY_V6.parse().unwrap(), public: RELAY_V6.parse().unwrap() },
    ];
    let mut peer_policy = PeerPolicy::default();
    // The tests speak of peers in the documentation prefix.
    peer_policy.allow("2001:db8::/32".parse().unwrap());
    peer_policy.add_own_address(RELAY_V6.parse().unwrap());
    peer_policy.set_relay(&relay_addresses, 49_152..=65_535);
    let settings = Settings {
        realms: vec![Arc::new(Realm::new(REALM, credentials))],
        freshness: Freshness::default(),
        nonce_keys: vec![NonceKey::new([9; 32])],
        peer_policy,
        relay_addresses,
        networks: Vec::new(),
        reserved_ports: None,
        translation: Translation::default(),
        alternates: Vec::new(),
        limits: Limits::default(),
        tcp_relay: false,
        mobility: None,
        listeners: Vec::new(),
    };
    ServerConfig {
        settings,
        software: Some("hairpin test".to_owned()),
        nonce_lifetime: Duration::from_secs(3600),
        discovery: None,
        ports: PortStripe::new(49_152..=65_535, 0, 1),
        quotas: Quotas::default(),
        shard: 0,
        shards: 1,
    }
}

/// The only realm.
pub(crate) fn realm(settings: &mut Settings) -> &mut Realm {
    Arc::make_mut(&mut settings.realms[0])
}

/// The settings of [`config`], with some difference.
pub(crate) fn config_with(change: impl FnOnce(&mut Settings)) -> ServerConfig {
    let mut config = config();
    change(&mut config.settings);
    config
}
