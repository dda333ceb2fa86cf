//! Which allocations are meant: a [`Filter`] that was read once, and is then asked about many.

use std::net::{IpAddr, SocketAddr};

use crate::api::{Allocation, Filter};

/// A filter that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: `{value}` is not an address: IP or IP:PORT is needed, such as 192.0.2.1 or [2001:db8::1]:5000")]
pub struct BadFilter {
    key: &'static str,
    value: String,
}

/// What a filter means.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    id: Option<String>,
    user: Option<String>,
    client: Option<Address>,
    relayed: Option<Address>,
    realm: Option<String>,
}

impl Selection {
    /// Reads a filter.
    pub fn new(filter: &Filter) -> Result<Self, BadFilter> {
        let address = |key, value: &Option<String>| {
            let parse = |value: &String| Address::parse(value).ok_or(BadFilter { key, value: value.clone() });
            value.as_ref().map(parse).transpose()
        };
        Ok(Self {
            id: filter.id.clone(),
            user: filter.user.clone(),
            client: address("client", &filter.client)?,
            relayed: address("relayed", &filter.relayed)?,
            realm: filter.realm.clone(),
        })
    }

    /// Whether an allocation is among those that are meant.
    pub fn has(&self, allocation: &Allocation) -> bool {
        let Self { id, user, client, relayed, realm } = self;
        id.as_ref().is_none_or(|id| *id == allocation.id)
            && user.as_ref().is_none_or(|user| *user == allocation.user || *user == allocation.username)
            && client.is_none_or(|client| client.has(allocation.client))
            && relayed.is_none_or(|relayed| allocation.relayed.iter().any(|address| relayed.has(*address)))
            && realm.as_ref().is_none_or(|realm| *realm == allocation.realm)
    }
}

/// An address of which the port may be left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The IP address; never IPv4 in the guise of IPv6.
    pub ip: IpAddr,
    /// The port; none: any.
    pub port: Option<u16>,
}

impl Address {
    /// `IP` or `IP:PORT`; an IPv6 address may stand in brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self { ip: address.ip().to_canonical(), port: Some(address.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let ip: IpAddr = bare.parse().ok().filter(|ip: &IpAddr| bare == text || ip.is_ipv6())?;
        Some(Self { ip: ip.to_canonical(), port: None })
    }

    /// Whether this is it.
    pub fn has(self, address: SocketAddr) -> bool {
        self.ip == address.ip().to_canonical() && self.port.is_none_or(|port| port == address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation() -> Allocation {
        let relayed = ["203.0.113.7:50000", "[2001:db8::7]:50000"].map(|address| address.parse().unwrap());
        Allocation { id: "7".to_owned(), relayed: relayed.to_vec(), ..Allocation::example() }
    }

    fn filter(key: &str, value: &str) -> Filter {
        serde_json::from_value(serde_json::json!({ key: value })).unwrap()
    }

    #[test]
    fn everything_that_is_given_must_be_true() {
        assert!(Selection::default().has(&allocation()), "nothing is asked");
        for (key, good, bad) in [
            ("id", vec!["7"], vec!["8", "", "77"]),
            ("user", vec!["alice", "1700000000:alice"], vec!["bob", "1700000000", "Alice"]),
            ("client", vec!["192.0.2.1", "192.0.2.1:5000", "::ffff:192.0.2.1"], vec!["192.0.2.2", "192.0.2.1:5001"]),
            ("relayed", vec!["203.0.113.7", "[2001:db8::7]:50000", "2001:db8::7", "[2001:db8::7]"], vec!["::7"]),
            ("realm", vec!["example.org"], vec!["example", "hairpin"]),
        ] {
            for (values, expected) in [(good, true), (bad, false)] {
                for value in values {
                    let selection = Selection::new(&filter(key, value)).unwrap();
                    assert_eq!(selection.has(&allocation()), expected, "{key}={value}");
                }
            }
        }
        let both = Filter { user: Some("alice".to_owned()), ..filter("client", "192.0.2.2") };
        assert!(!Selection::new(&both).unwrap().has(&allocation()), "one of two is not enough");
    }

    #[test]
    fn what_is_no_address_is_refused_and_named() {
        for bad in ["", "host", "192.0.2", "192.0.2.1:", "192.0.2.1:70000", "[192.0.2.1]", "10.0.0.0/8"] {
            for key in ["client", "relayed"] {
                let error = Selection::new(&filter(key, bad)).unwrap_err().to_string();
                assert!(error.starts_with(&format!("{key}: `{bad}` ")), "{error}");
            }
        }
    }
}
