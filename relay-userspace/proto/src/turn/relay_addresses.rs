//! The addresses that relayed transport addresses are made of, now and before.

use std::net::SocketAddr;

use super::config::RelayAddress;
use crate::address::{AddressFamily, RelayedAddr};

/// Those that are configured, and those that were: what was made of one is still told by its public address.
#[derive(Debug)]
pub(super) struct RelayAddresses {
    current: Vec<RelayAddress>,
    former: Vec<RelayAddress>,
}

impl RelayAddresses {
    pub(super) fn new(addresses: Vec<RelayAddress>) -> Self {
        Self { current: addresses, former: Vec::new() }
    }

    /// Takes other addresses from now on.
    pub(super) fn replace(&mut self, addresses: Vec<RelayAddress>) {
        self.former.append(&mut self.current);
        self.current = addresses;
        let current = &self.current;
        self.former.retain(|former| current.iter().all(|address| address.bind != former.bind));
    }

    /// Whether there are any of this family.
    pub(super) fn serves(&self, family: AddressFamily) -> bool {
        self.current.iter().any(|address| AddressFamily::of(address.bind) == family)
    }

    /// The socket address behind one that the world knows, if it is of a current one.
    pub(super) fn bound(&self, public: SocketAddr) -> Option<RelayedAddr> {
        let address = self.current.iter().find(|address| address.public == public.ip())?;
        Some(RelayedAddr::new(SocketAddr::new(address.bind, public.port())))
    }

    /// A relayed transport address as the world sees it.
    pub(super) fn public(&self, address: RelayedAddr) -> SocketAddr {
        let known = self.current.iter().chain(&self.former).find(|known| known.bind == address.ip());
        SocketAddr::new(known.map_or(address.ip(), |known| known.public), address.port())
    }
}
