//! Values of options, parsed once into what they mean.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// `--relay-address IP[=PUBLIC-IP]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddr {
    /// The address of this host that relay sockets are bound to.
    pub bind: IpAddr,
    /// The address that clients are told.
    pub public: IpAddr,
}

impl FromStr for RelayAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (bind, public) = text.split_once('=').unwrap_or((text, text));
        let parse = |text: &str| {
            let ip: IpAddr = text.parse().map_err(|_| format!("`{text}` is not an IP address"))?;
            if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255; 4]) {
                return Err(format!("`{text}` is not the address of one host"));
            }
            Ok(ip.to_canonical())
        };
        let (bind, public) = (parse(bind)?, parse(public)?);
        if bind.is_ipv4() != public.is_ipv4() {
            return Err("both addresses must be of the same IP version".to_owned());
        }
        Ok(Self { bind, public })
    }
}

/// `--relay-ports MIN-MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub min: u16,
    /// The highest port.
    pub max: u16,
}

impl PortRange {
    /// The dynamic ports of RFC 6335, which RFC 8656 section 7.2 suggests.
    pub const DYNAMIC: Self = Self { min: 49_152, max: 65_535 };

    /// All ports.
    pub fn range(self) -> RangeInclusive<u16> {
        self.min..=self.max
    }

    /// How many ports there are.
    pub fn count(self) -> usize {
        self.range().count()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err(format!("`{text}` is not a port from 1 to 65535")),
            Ok(port) => Ok(port),
        };
        let (min, max) = text.split_once('-').ok_or("two ports are needed, such as 49152-65535")?;
        let (min, max) = (parse(min)?, parse(max)?);
        if min > max { Err(format!("{min} is above {max}")) } else { Ok(Self { min, max }) }
    }
}

/// `--user NAME:PASSWORD`.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The username.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, password) = text.split_once(':').ok_or("a colon must stand between name and password")?;
        if name.is_empty() || name.len() > 508 {
            return Err("the name must have 1 to 508 bytes".to_owned());
        }
        if password.is_empty() {
            return Err("the password is empty".to_owned());
        }
        Ok(Self { name: name.to_owned(), password: password.to_owned() })
    }
}

/// `--admin ADDR:PORT|off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAddr {
    /// No admin interface.
    Off,
    /// Where it listens.
    At(SocketAddr),
}

impl FromStr for AdminAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        listen_address(text).map(Self::At).map_err(|error| format!("{error}, or `off`"))
    }
}

/// `ADDR:PORT` of a listener.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "ADDR:PORT is needed, such as 192.0.2.1:3478 or [2001:db8::1]:3478".to_owned())?;
    if address.port() == 0 {
        return Err("the port must be from 1 to 65535".to_owned());
    }
    if address.ip().is_multicast() {
        return Err("a multicast address cannot listen".to_owned());
    }
    Ok(address)
}

/// `--realm R`: what RFC 8489 section 14.9 can carry.
pub(super) fn realm(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 763 || text.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        return Err("1 to 763 bytes without quotes, backslashes and control characters are allowed".to_owned());
    }
    Ok(text.to_owned())
}

/// `--auth-secret S`.
pub(super) fn secret(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("the secret is empty".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_addresses() {
        let both = RelayAddr { bind: [10, 0, 0, 1].into(), public: [198, 51, 100, 1].into() };
        assert_eq!("10.0.0.1=198.51.100.1".parse(), Ok(both));
        assert_eq!("10.0.0.1".parse(), Ok(RelayAddr { public: both.bind, ..both }));
        for bad in ["", "10.0.0", "10.0.0.1=", "10.0.0.1=::1", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "host"]
        {
            assert!(bad.parse::<RelayAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn port_ranges() {
        assert_eq!("49152-65535".parse(), Ok(PortRange::DYNAMIC));
        assert_eq!("5000-5000".parse(), Ok(PortRange { min: 5000, max: 5000 }));
        for bad in ["", "1", "0-10", "10-9", "1-65536", "a-b", "-", "1-2-3"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn users() {
        let user: User = "alice:a:b".parse().unwrap();
        assert_eq!((user.name.as_str(), user.password.as_str()), ("alice", "a:b"));
        assert!(!format!("{user:?}").contains("a:b"), "a password is never printed");
        for bad in ["", "alice", "alice:", ":secret"] {
            assert!(bad.parse::<User>().is_err(), "{bad}");
        }
    }

    #[test]
    fn admin_addresses() {
        assert_eq!("off".parse(), Ok(AdminAddr::Off));
        assert_eq!("[::1]:9641".parse(), Ok(AdminAddr::At("[::1]:9641".parse().unwrap())));
        for bad in ["", "on", "9641", "127.0.0.1", "127.0.0.1:0", "224.0.0.1:1"] {
            assert!(bad.parse::<AdminAddr>().is_err(), "{bad}");
        }
    }
}
