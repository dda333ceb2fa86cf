//! 1:1 NAT: the host's own addresses, from inside and from outside.

use std::net::{IpAddr, SocketAddr};

use super::config::RelayAddress;
use crate::address::AddressFamily;

/// Addresses of this host that the world knows by others.
///
/// Clients name each other's relayed addresses as the world sees them, and so does the state machine: it is never given,
/// and never gives out, a peer at an address that is only bound to. Who sends, receives or makes records translates:
/// [`Translation::inside`] what the state machine says of peers, [`Translation::outside`] what it is told of them. So a
/// datagram from one relayed address to another stays on the host, and needs no NAT that sends it back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Those that differ.
    addresses: Vec<RelayAddress>,
}

/// Why addresses cannot be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslationError {
    /// No NAT is meant that translates between IP versions.
    #[error("{bind} and its public address {public} are of different IP versions")]
    Families {
        /// The host's own address.
        bind: IpAddr,
        /// What the world is told.
        public: IpAddr,
    },
    /// One address, and two that the world would see it as.
    #[error("{bind} has two public addresses, {} and {}: it can have one", .public[0], .public[1])]
    TwoPublic {
        /// The host's own address.
        bind: IpAddr,
        /// What the world is told.
        public: [IpAddr; 2],
    },
    /// Two addresses that the world could not tell apart.
    #[error("{public} is the public address of {} and of {}: each needs its own", .bind[0], .bind[1])]
    SharedPublic {
        /// The host's own addresses.
        bind: [IpAddr; 2],
        /// What the world is told.
        public: IpAddr,
    },
    /// A peer at this address would be one or the other.
    #[error("{public} is the public address of {bind}, and an address of this host that has another one itself")]
    PublicIsBound {
        /// The host's own address.
        bind: IpAddr,
        /// What the world is told, and the host's own address too.
        public: IpAddr,
    },
}

impl Translation {
    /// Takes addresses that are each other's only counterpart. To name the same one twice does no harm.
    pub fn new(addresses: &[RelayAddress]) -> Result<Self, TranslationError> {
        let mut known: Vec<RelayAddress> = Vec::new();
        for address in addresses {
            let new = RelayAddress { bind: address.bind.to_canonical(), public: address.public.to_canonical() };
            if AddressFamily::of(new.bind) != AddressFamily::of(new.public) {
                return Err(TranslationError::Families { bind: new.bind, public: new.public });
            }
            known.iter().try_for_each(|other| distinct(*other, new))?;
            known.push(new);
        }
        known.retain(|address| address.bind != address.public);
        Ok(Self { addresses: known })
    }

    /// The same, and those of these addresses that can be told apart from all that it has.
    #[must_use]
    pub fn including(&self, more: &[RelayAddress]) -> Self {
        more.iter().fold(self.clone(), |known, address| {
            let all: Vec<_> = known.addresses.iter().copied().chain([*address]).collect();
            Self::new(&all).unwrap_or(known)
        })
    }

    /// Where to send what is for this address: to the bound one of ours, if it is public; else there.
    #[must_use]
    pub fn inside(&self, address: SocketAddr) -> SocketAddr {
        let ip = address.ip().to_canonical();
        match self.addresses.iter().find(|known| known.public == ip) {
            Some(known) => SocketAddr::new(known.bind, address.port()),
            None => address,
        }
    }

    /// What the world calls this address: by the public one of ours, if it is bound; else as it is.
    #[must_use]
    pub fn outside(&self, address: SocketAddr) -> SocketAddr {
        let ip = address.ip().to_canonical();
        match self.addresses.iter().find(|known| known.bind == ip) {
            Some(known) => SocketAddr::new(known.public, address.port()),
            None => address,
        }
    }
}

fn distinct(one: RelayAddress, two: RelayAddress) -> Result<(), TranslationError> {
    if one == two {
        return Ok(());
    }
    if one.bind == two.bind {
        return Err(TranslationError::TwoPublic { bind: one.bind, public: [one.public, two.public] });
    }
    if one.public == two.public {
        return Err(TranslationError::SharedPublic { bind: [one.bind, two.bind], public: one.public });
    }
    for (RelayAddress { bind, public }, other) in [(one, two), (two, one)] {
        if public == other.bind {
            return Err(TranslationError::PublicIsBound { bind, public });
        }
    }
    Ok(())
}
