//! Who may relay, and whom clients may reach.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use hairpin_proto::turn::{self, Credentials, Grant, PeerPolicy, RelayAddress};
use hairpin_users::users_file::{Secret, UserLine};

use crate::capacity::Capacity;
use crate::config::{Authentication, Config, Listener, PasswordAlgorithms, Realm};
use crate::state;

/// Users, secrets and keys of all realms, whoever gave them.
#[derive(Clone)]
pub(super) struct Authority {
    realms: Vec<Known>,
    /// The relay's own secret, where nobody gave any.
    generated: Option<String>,
    /// Whom all realms ask.
    asks_for_users: bool,
    asks_for_admission: bool,
}

/// What is known of a realm in advance.
#[derive(Clone)]
struct Known {
    realm: Realm,
    credentials: Credentials,
    has_secrets: bool,
    /// Whether all users have keys of both kinds.
    all_have_sha256: bool,
}

impl Authority {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let mut generated = None;
        let mut realms = Vec::new();
        for realm in &config.realms {
            let (users, secrets) = match &realm.authentication {
                Authentication::Given { users, secrets } => (users.as_slice(), secrets.clone()),
                Authentication::Generated { state_dir } => {
                    let secret = state::auth_secret(state_dir)?;
                    generated = Some(secret.clone());
                    ([].as_slice(), vec![secret])
                }
            };
            realms.push(Known {
                realm: realm.clone(),
                credentials: credentials(realm, users, &secrets),
                has_secrets: !secrets.is_empty(),
                all_have_sha256: users.iter().all(|user| !matches!(user.secret, Secret::Keys { sha256: None, .. })),
            });
        }
        let (stores, webhook) = (&config.directory.stores, &config.directory.webhook);
        Ok(Self {
            realms,
            generated,
            asks_for_users: !stores.is_empty() || webhook.is_some(),
            asks_for_admission: webhook.is_some(),
        })
    }

    /// The relay's own secret: its operator has to be told how to use it.
    pub(super) fn generated(&self) -> Option<&str> {
        self.generated.as_deref()
    }

    /// What credentials are minted with: the first secret of the first realm, so a new one is put in front.
    pub(super) fn secret(&self) -> Option<&str> {
        let first = match &self.realms.first()?.realm.authentication {
            Authentication::Given { secrets, .. } => secrets.first(),
            Authentication::Generated { .. } => self.generated.as_ref(),
        };
        first.map(String::as_str)
    }

    /// What engines are told.
    pub(super) fn realms(&self, capacity: &Capacity) -> Vec<Arc<turn::Realm>> {
        let realms = self.realms.iter().map(|known| {
            let Known { realm, credentials, has_secrets, all_have_sha256 } = known;
            let offers_sha256 = match realm.password_algorithms {
                PasswordAlgorithms::Auto => *all_have_sha256 && !self.asks_for_users,
                PasswordAlgorithms::All => true,
                PasswordAlgorithms::Md5 => false,
            };
            Arc::new(turn::Realm {
                listeners: realm.listeners.clone(),
                server_names: realm.server_names.clone(),
                asks_for_users: self.asks_for_users,
                asks_for_admission: self.asks_for_admission,
                token_audience: realm.token_audience.clone(),
                offers_sha256,
                offers_anonymity: !has_secrets && !self.asks_for_users,
                allocations: realm.max_allocations.map_or(usize::MAX, |most| most as usize),
                allocations_per_user: capacity.of_one_user(realm),
                ..turn::Realm::new(&realm.name, credentials.clone())
            })
        });
        realms.collect()
    }
}

fn credentials(realm: &Realm, users: &[UserLine], secrets: &[String]) -> Credentials {
    let mut credentials = Credentials::new(&realm.name);
    for reserved in &realm.reserved_addresses {
        let addresses = realm.reserved_addresses.iter().filter(|other| other.name == reserved.name);
        let addresses = addresses.map(|other| other.address).collect();
        credentials.grant(&reserved.name, Grant { addresses, allocations: None });
    }
    for user in users {
        match &user.secret {
            Secret::Password(password) => credentials.add_user(&user.name, password),
            Secret::Keys { .. } => credentials.add_keys(&user.name, user.keys(&realm.name)),
        }
    }
    for secret in secrets {
        credentials.add_secret(secret);
    }
    for key in &realm.token_keys {
        credentials.add_token_key(&key.name, key.key());
    }
    credentials
}

/// The addresses of this host. Without them its own services would be open to whoever may relay, so there is no relay.
pub(super) fn interfaces(found: io::Result<Vec<if_addrs::Interface>>) -> anyhow::Result<Vec<if_addrs::Interface>> {
    found.context(
        "the addresses of this host, which no peer may have, cannot be listed (does a sandbox forbid AF_NETLINK?)",
    )
}

/// All addresses of interfaces.
pub(super) fn addresses_of(interfaces: &[if_addrs::Interface]) -> Vec<IpAddr> {
    interfaces.iter().map(if_addrs::Interface::ip).collect()
}

/// Which addresses are of one network: those of one interface.
pub(super) fn networks(interfaces: &[if_addrs::Interface]) -> Vec<(IpAddr, u32)> {
    interfaces.iter().filter_map(|interface| Some((interface.ip(), interface.index?))).collect()
}

/// What a configuration says of peers, on a host with these listeners, relay addresses and addresses of its own.
pub(super) fn peer_policy(
    config: &Config,
    listeners: &[Listener],
    relay_addresses: &[RelayAddress],
    own_addresses: &[IpAddr],
) -> PeerPolicy {
    let mut policy = PeerPolicy::default();
    // Nobody reaches this host's own services through the relay, on whichever of its addresses they listen.
    let listening = listeners.iter().flat_map(|listener| [listener.address.ip(), listener.public.ip()]);
    let listening = listening.filter(|ip| !ip.is_unspecified());
    let relaying = relay_addresses.iter().flat_map(|address| [address.bind, address.public]);
    for ip in own_addresses.iter().copied().chain(listening).chain(relaying) {
        policy.add_own_address(ip);
    }
    policy.set_relay(relay_addresses, config.relay_ports.range());
    config.allow_peers.iter().for_each(|net| policy.allow(*net));
    config.deny_peers.iter().for_each(|net| policy.deny(*net));
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_does_not_know_its_addresses_does_not_relay() {
        let error = interfaces(Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT))).unwrap_err();
        let line = format!("{error:#}");
        assert!(line.contains("addresses of this host") && line.contains("not supported"), "{line}");
        let own = addresses_of(&interfaces(if_addrs::get_if_addrs()).unwrap());
        assert!(own.iter().any(IpAddr::is_loopback), "{own:?}");
    }
}
