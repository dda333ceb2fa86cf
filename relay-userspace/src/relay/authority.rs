//! Who may relay, and whom clients may reach.

use std::io;
use std::net::IpAddr;

use anyhow::Context;
use hairpin_proto::turn::{Credentials, PeerPolicy, RelayAddress};

use crate::config::{Authentication, Config, Listener, User};
use crate::state;

/// Users and secrets, whoever gave them.
#[derive(Clone)]
pub(super) struct Authority {
    users: Vec<User>,
    secrets: Vec<String>,
    /// Whether the only secret is the relay's own.
    generated: bool,
}

impl Authority {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(match &config.authentication {
            Authentication::Given { users, secrets } => {
                Self { users: users.clone(), secrets: secrets.clone(), generated: false }
            }
            Authentication::Generated { state_dir } => {
                Self { users: Vec::new(), secrets: vec![state::auth_secret(state_dir)?], generated: true }
            }
        })
    }

    /// The relay's own secret: its operator has to be told how to use it.
    pub(super) fn generated(&self) -> Option<&str> {
        self.secret().filter(|_| self.generated)
    }

    /// What credentials are minted with: the first secret, so a new one is put in front.
    pub(super) fn secret(&self) -> Option<&str> {
        self.secrets.first().map(String::as_str)
    }

    pub(super) fn credentials(&self, realm: &str) -> Credentials {
        let mut credentials = Credentials::new(realm);
        for user in &self.users {
            credentials.add_user(&user.name, &user.password);
        }
        for secret in &self.secrets {
            credentials.add_secret(secret);
        }
        credentials
    }
}

/// The addresses of this host. Without them its own services would be open to whoever may relay, so there is no relay.
pub(super) fn own_addresses(found: io::Result<Vec<if_addrs::Interface>>) -> anyhow::Result<Vec<IpAddr>> {
    let interfaces = found.context(
        "the addresses of this host, which no peer may have, cannot be listed (does a sandbox forbid AF_NETLINK?)",
    )?;
    Ok(interfaces.iter().map(if_addrs::Interface::ip).collect())
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
        let error = own_addresses(Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT))).unwrap_err();
        let line = format!("{error:#}");
        assert!(line.contains("addresses of this host") && line.contains("not supported"), "{line}");
        let own = own_addresses(if_addrs::get_if_addrs()).unwrap();
        assert!(own.iter().any(IpAddr::is_loopback), "{own:?}");
    }
}
