//! Values of options, parsed once into what they mean. An error says what is wrong with the value; the option is named by
//! who asks.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hairpin_proto::address::Transport;
use hairpin_proto::turn::{AlternateServer, Encryption, RelayAddress};
use ipnet::IpNet;

use hairpin_proto::turn::{NonceKey, TokenAlgorithm, TokenKey};
use hairpin_users::StoreUrl;
use hairpin_users::users_file::{UserLine, parse_user};

use crate::config::{AdminAddr, Listener, NamedTokenKey, PortRange, Rate, ReservedAddress};
use crate::log;

/// The longest realm, in bytes. RFC 8489 section 14.9 can carry 763, but the realm is in each challenge (401), which
/// anybody gets for a small request with a source address of somebody else.
const MAX_REALM: usize = 127;

/// The longest username, in bytes (RFC 8489 section 14.3).
const MAX_USERNAME: usize = 508;

/// What a second may hold, in bits. A datagram that fills an Ethernet frame takes 12 seconds of the least.
const BIT_RATES: RangeInclusive<u64> = 1_000..=1_000_000_000_000;
/// The same in datagrams.
const PACKET_RATES: RangeInclusive<u64> = 1..=1_000_000_000;

/// The longest time that makes sense; more could not be added to what a clock says.
const MAX_DURATION: Duration = Duration::from_secs(365 * 86_400);

/// What can be turned off by `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OrOff<T> {
    Off,
    On(T),
}

/// `--relay-address IP[=PUBLIC-IP]`.
pub(super) fn relay_address(text: &str) -> Result<RelayAddress, String> {
    let (bind, public) = text.split_once('=').unwrap_or((text, text));
    let (bind, public) = (host(bind)?, host(public)?);
    if bind.is_ipv4() != public.is_ipv4() {
        return Err("both addresses must be of the same IP version".to_owned());
    }
    Ok(RelayAddress { bind, public })
}

/// `--relay-ports MIN-MAX`.
pub(super) fn port_range(text: &str) -> Result<PortRange, String> {
    let parse = |text: &str| match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a port from 1 to 65535")),
        Ok(port) => Ok(port),
    };
    let (min, max) = text.split_once('-').ok_or("two ports are needed, such as 49152-65535")?;
    let (min, max) = (parse(min)?, parse(max)?);
    if min > max { Err(format!("{min} is above {max}")) } else { Ok(PortRange { min, max }) }
}

/// `--user NAME:PASSWORD`.
pub(super) fn user(text: &str) -> Result<UserLine, String> {
    parse_user(text).map_err(|error| error.to_string())
}

/// `--server-name NAME`.
pub(super) fn server_name(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    match rustls::pki_types::DnsName::try_from(name.as_str()) {
        Ok(_) => Ok(name),
        Err(_) => Err("a name of DNS is needed, such as turn.example.org".to_owned()),
    }
}

/// `--reserved-address NAME=ADDR:PORT`.
pub(super) fn reserved_address(text: &str) -> Result<ReservedAddress, String> {
    // A name may have such a sign in it, an address has none.
    let (name, address) = text.rsplit_once('=').ok_or("NAME=ADDR:PORT is needed")?;
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    Ok(ReservedAddress { name: name.to_owned(), address: socket_address(address)? })
}

/// `--token-key NAME:ALGORITHM:BASE64`. The key is not told.
pub(super) fn token_key(text: &str) -> Result<NamedTokenKey, String> {
    let mut parts = text.rsplitn(3, ':');
    let (Some(key), Some(algorithm), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("NAME:ALGORITHM:KEY is needed, the key in base64".to_owned());
    };
    if name.is_empty() || name.len() > MAX_USERNAME {
        return Err(format!("the name must have 1 to {MAX_USERNAME} bytes"));
    }
    let algorithm = match algorithm {
        "A256GCM" => TokenAlgorithm::A256Gcm,
        "A128GCM" => TokenAlgorithm::A128Gcm,
        _ => return Err("A256GCM and A128GCM are allowed as algorithm".to_owned()),
    };
    let key = STANDARD.decode(key).map_err(|_| "the key is not base64".to_owned())?;
    TokenKey::new(algorithm, &key).map_err(|error| error.to_string())?;
    Ok(NamedTokenKey { name: name.to_owned(), algorithm, key })
}

/// `--token-audience NAME`.
pub(super) fn token_audience(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_REALM || text.chars().any(char::is_control) {
        return Err(format!(
            "1 to {MAX_REALM} bytes without control characters are allowed: strangers are told it, too"
        ));
    }
    Ok(text.to_owned())
}

/// `--user-store URL`. What is wrong is said without the password in it.
pub(super) fn user_store(text: &str) -> Result<StoreUrl, String> {
    text.parse().map_err(|error: hairpin_users::StoreUrlError| error.to_string())
}

/// `--webhook URL|off`.
pub(super) fn webhook(text: &str) -> Result<OrOff<String>, String> {
    if text == "off" {
        return Ok(OrOff::Off);
    }
    let fits = |uri: &axum::http::Uri| {
        let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
        is_known && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    };
    match text.parse::<axum::http::Uri>() {
        Ok(uri) if fits(&uri) => Ok(OrOff::On(text.to_owned())),
        _ => Err("http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH is needed, without a name or password, or `off`"
            .to_owned()),
    }
}

/// How long an answer may take, `--user-timeout DURATION`.
pub(super) fn user_timeout(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(50), Duration::from_secs(20))
}

/// How long an answer holds, `--user-cache DURATION`.
pub(super) fn user_cache(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_secs(1), Duration::from_secs(86_400))
}

/// `--max-lifetime DURATION`: not below the default of RFC 8656 section 3.2.
pub(super) fn max_lifetime(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_secs(600), Duration::from_secs(86_400))
}

fn duration_within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let wanted = || {
        let [least, most] = [least, most].map(humantime::format_duration);
        format!("a duration from {least} to {most} is needed")
    };
    let duration = humantime::parse_duration(text).map_err(|_| wanted())?;
    if (least..=most).contains(&duration) { Ok(duration) } else { Err(wanted()) }
}

/// `--admin ADDR:PORT|off`.
pub(super) fn admin_address(text: &str) -> Result<AdminAddr, String> {
    if text == "off" {
        return Ok(AdminAddr::Off);
    }
    socket_address(text).map(AdminAddr::At).map_err(|error| format!("{error}, or `off`"))
}

/// `--listen [udp|tcp|tls|dtls]:ADDR:PORT[=PUBLIC-IP]`.
pub(super) fn listener(text: &str) -> Result<Listener, String> {
    let named = Transport::ALL
        .into_iter()
        .find_map(|transport| Some((transport, text.strip_prefix(transport.label())?.strip_prefix(':')?)));
    let (transport, rest) = named.unwrap_or((Transport::Udp, text));
    let (local, public) = rest.split_once('=').map_or((rest, None), |(local, public)| (local, Some(public)));
    let address = listen_address(local).map_err(|error| match rest.split_once(':') {
        Some((word, _)) if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            format!("`{word}` is no transport: udp, tcp, tls and dtls are")
        }
        _ => error,
    })?;
    let ip = public.map_or(Ok(address.ip()), host)?;
    if ip.is_ipv4() != address.is_ipv4() {
        return Err("both addresses must be of the same IP version".to_owned());
    }
    Ok(Listener { transport, address, public: SocketAddr::new(ip, address.port()), is_optional: false })
}

/// An address that is one host's.
fn host(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| format!("`{text}` is not an IP address"))?;
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255; 4]) {
        return Err(format!("`{text}` is not the address of one host"));
    }
    refuse_link_local(ip)?;
    Ok(ip.to_canonical())
}

/// A second address for NAT behaviour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AlternateAddress {
    /// This host's.
    pub(super) ip: IpAddr,
    /// The second port, if not the one after the listener's.
    pub(super) port: Option<u16>,
    /// The address that clients know.
    pub(super) public: IpAddr,
}

/// `--nat-discovery IP[:PORT][=PUBLIC-IP]`.
pub(super) fn nat_discovery(text: &str) -> Result<AlternateAddress, String> {
    let (local, public) = text.split_once('=').map_or((text, None), |(local, public)| (local, Some(public)));
    let (ip, port) = match local.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => return Err(format!("`{local}` has no port from 1 to 65535")),
        Ok(address) => (host(&address.ip().to_string())?, Some(address.port())),
        Err(_) => (host(local)?, None),
    };
    let public = public.map_or(Ok(ip), host)?;
    if public.is_ipv4() != ip.is_ipv4() {
        return Err("both addresses must be of the same IP version".to_owned());
    }
    Ok(AlternateAddress { ip, port, public })
}

/// `--alternate-server [turn:|turns:]ADDR:PORT[=DOMAIN]`.
pub(super) fn alternate_server(text: &str) -> Result<AlternateServer, String> {
    let kinds = [("turns:", Encryption::Encrypted), ("turn:", Encryption::Plain)];
    let named = kinds.into_iter().find_map(|(scheme, encryption)| Some((encryption, text.strip_prefix(scheme)?)));
    let (encryption, rest) = named.unwrap_or((Encryption::Either, text));
    let (address, domain) = rest.split_once('=').map_or((rest, None), |(address, domain)| (address, Some(domain)));
    let server = AlternateServer::new(socket_address(address)?).map_err(|error| error.to_string())?;
    let server = domain.map_or(Ok(server.clone()), |domain| server.with_domain(domain));
    Ok(server.map_err(|error| error.to_string())?.for_clients(encryption))
}

/// `ADDR:PORT` of a socket of this host.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let address = socket_address(text)?;
    refuse_link_local(address.ip())?;
    Ok(address)
}

/// `--realm R`.
pub(super) fn realm(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_REALM || text.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        return Err(format!(
            "1 to {MAX_REALM} bytes without quotes, backslashes and control characters are allowed: strangers are told \
             it, too"
        ));
    }
    Ok(text.to_owned())
}

/// `--auth-secret S`.
pub(super) fn secret(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("the secret is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// `--nonce-key TEXT`. The text is not told.
pub(super) fn nonce_key(text: &str) -> Result<NonceKey, String> {
    let (least, count) = (NonceKey::MIN_TEXT, text.chars().count());
    NonceKey::of_text(text).ok_or_else(|| format!("at least {least} characters are needed, these are {count}"))
}

/// `--admin-token TOKEN`, `--credentials-token TOKEN`: what a header of HTTP can carry.
pub(super) fn token(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("letters, digits and signs of ASCII without blanks are allowed".to_owned());
    }
    Ok(text.to_owned())
}

/// `--admin-socket PATH|off`.
#[expect(clippy::unnecessary_wraps, reason = "clap asks for a Result")]
pub(super) fn admin_socket(text: &str) -> Result<OrOff<PathBuf>, String> {
    Ok(if text == "off" { OrOff::Off } else { OrOff::On(PathBuf::from(text)) })
}

/// `--credentials-origin ORIGIN|*`: what a browser says in the header `Origin` (RFC 6454 section 7).
pub(super) fn origin(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_host = |rest: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() && !byte.is_ascii_uppercase() || b".-:[]".contains(&byte);
        !rest.is_empty() && rest.bytes().all(fits)
    };
    if text != "*" && !rest.is_some_and(is_host) {
        return Err("https://HOST, with :PORT if it is another than usual, is needed, or `*`".to_owned());
    }
    Ok(text.to_owned())
}

/// `--otlp URL|off`: without TLS, which a collector on this host speaks to others.
pub(super) fn otlp_endpoint(text: &str) -> Result<OrOff<String>, String> {
    if text == "off" {
        return Ok(OrOff::Off);
    }
    let fits = |uri: &axum::http::Uri| {
        // A name and password would go nowhere but to the log.
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        uri.scheme_str() == Some("http") && authority.is_some_and(|authority| !authority.host().is_empty())
    };
    if text.parse().as_ref().is_ok_and(fits) {
        return Ok(OrOff::On(text.to_owned()));
    }
    Err("http://HOST:PORT is needed, such as http://127.0.0.1:4318, with a path if it is another than /v1/traces and \
         without a name and password, or `off`; for https have a collector on this host pass them on"
        .to_owned())
}

/// `--log FILTER`.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    log::check(text).map(|()| text.to_owned())
}

/// `--drain-timeout DURATION`.
pub(super) fn drain_timeout(text: &str) -> Result<Duration, String> {
    duration(text, Duration::ZERO)
}

/// `--credentials-ttl DURATION`, `--ttl DURATION`.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1))
}

fn duration(text: &str, least: Duration) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if (least..=MAX_DURATION).contains(&duration) => Ok(duration),
        Ok(_) => Err(format!("{}s to 365d are allowed", least.as_secs())),
        Err(error) => Err(format!("{error}; write it like 30m, 1h or 7d")),
    }
}

/// `--allow-peer CIDR`, `--deny-peer CIDR`; an address alone is a network of one host.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let single = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(|| single(text)).ok_or_else(|| "ADDR/LENGTH is needed, such as 10.0.0.0/8".to_owned())
}

/// `--interface IF`.
pub(super) fn interface(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("the name of an interface is needed".to_owned()) } else { Ok(text.to_owned()) }
}

/// `--allocation-bit-rate BITS|off` and what else is counted in bits.
pub(super) fn bit_rate(text: &str) -> Result<Rate, String> {
    let allowed = "1k to 1000G bits a second are allowed, such as 500k, 20M or 1G, and `off`";
    rate(text, BIT_RATES).ok_or_else(|| allowed.to_owned())
}

/// `--source-packet-rate N|off` and what else is counted in datagrams.
pub(super) fn packet_rate(text: &str) -> Result<Rate, String> {
    let allowed = "1 to 1G datagrams a second are allowed, such as 200 or 50k, and `off`";
    rate(text, PACKET_RATES).ok_or_else(|| allowed.to_owned())
}

/// `--credentials-rate N|off`.
pub(super) fn mintings(text: &str) -> Result<Rate, String> {
    rate(text, PACKET_RATES).ok_or_else(|| "1 to 1G a second are allowed, such as 20 or 1k, and `off`".to_owned())
}

fn rate(text: &str, allowed: RangeInclusive<u64>) -> Option<Rate> {
    if text == "off" {
        return Some(Rate::Off);
    }
    NonZeroU64::new(number(text)?).filter(|number| allowed.contains(&number.get())).map(Rate::PerSecond)
}

/// A number that may end in `k`, `M` or `G`.
pub(crate) fn number(text: &str) -> Option<u64> {
    let suffixes = [('k', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)];
    let split = suffixes.into_iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)));
    let (digits, unit) = split.unwrap_or((text, 1));
    // A sign is no digit, though the library would take it.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(unit)
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "ADDR:PORT is needed, such as 192.0.2.1:3478 or [2001:db8::1]:3478".to_owned())?;
    if address.port() == 0 {
        return Err("the port must be from 1 to 65535".to_owned());
    }
    if address.ip().is_multicast() || address.ip() == IpAddr::from([255; 4]) {
        return Err("a multicast or broadcast address cannot listen".to_owned());
    }
    Ok(address)
}

/// What follows from an address is kept without the scope that makes a link-local one mean something (RFC 4007).
fn refuse_link_local(ip: IpAddr) -> Result<(), String> {
    match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Err(format!("{v6} is link-local and means another host on each link: choose an address without scope"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_addresses() {
        let both = RelayAddress { bind: [10, 0, 0, 1].into(), public: [198, 51, 100, 1].into() };
        assert_eq!(relay_address("10.0.0.1=198.51.100.1"), Ok(both));
        assert_eq!(relay_address("10.0.0.1"), Ok(RelayAddress { public: both.bind, ..both }));
        for bad in [
            "",
            "10.0.0",
            "10.0.0.1=",
            "10.0.0.1=::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "host",
            "fe80::1",
        ] {
            assert!(relay_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_ranges() {
        assert_eq!(port_range("49152-65535"), Ok(PortRange::DYNAMIC));
        assert_eq!(port_range("5000-5000"), Ok(PortRange { min: 5000, max: 5000 }));
        for bad in ["", "1", "0-10", "10-9", "1-65536", "a-b", "-", "1-2-3"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn users() {
        let user_with_colons = user("alice:a:b").unwrap();
        assert_eq!(user_with_colons.name, "alice");
        assert!(user_with_colons.secret == hairpin_users::users_file::Secret::Password("a:b".to_owned()));
        for bad in ["", "alice", "alice:", ":secret"] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn admin_addresses() {
        assert_eq!(admin_address("off"), Ok(AdminAddr::Off));
        assert_eq!(admin_address("[::1]:9641"), Ok(AdminAddr::At("[::1]:9641".parse().unwrap())));
        for bad in ["", "on", "9641", "127.0.0.1", "127.0.0.1:0", "224.0.0.1:1"] {
            assert!(admin_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn listeners_have_no_scope() {
        assert!(listen_address("[2001:db8::1]:3478").is_ok());
        for bad in ["[fe80::1]:3478", "[fe80::1%2]:3478", "[febf::1]:3478"] {
            assert!(listen_address(bad).unwrap_err().contains("link-local"), "{bad}");
        }
    }

    #[test]
    fn listeners_are_of_udp_unless_they_say_so_and_of_their_own_address() {
        let (inside, outside) = ("192.0.2.1:3478".parse().unwrap(), "198.51.100.1:3478".parse().unwrap());
        let of = |transport, public| Ok(Listener { transport, address: inside, public, is_optional: false });
        assert_eq!(listener("192.0.2.1:3478"), of(Transport::Udp, inside));
        assert_eq!(listener("192.0.2.1:3478=198.51.100.1"), of(Transport::Udp, outside));
        for transport in Transport::ALL {
            assert_eq!(listener(&format!("{}:192.0.2.1:3478=198.51.100.1", transport.label())), of(transport, outside));
        }
    }

    #[test]
    fn other_servers_are_for_all_clients_unless_they_say_for_which() {
        let server = AlternateServer::new("192.0.2.1:3478".parse().unwrap()).unwrap();
        let of = |encryption| Ok(server.clone().for_clients(encryption));
        assert_eq!(alternate_server("192.0.2.1:3478"), of(Encryption::Either));
        assert_eq!(alternate_server("turn:192.0.2.1:3478"), of(Encryption::Plain));
        assert_eq!(alternate_server("turns:192.0.2.1:3478"), of(Encryption::Encrypted));
        let named = server.clone().with_domain("turn.example.org").unwrap();
        assert_eq!(alternate_server("192.0.2.1:3478=turn.example.org"), Ok(named));
    }

    #[test]
    fn addresses_for_nat_discovery() {
        let ip = [192, 0, 2, 2].into();
        let plain = AlternateAddress { ip, port: None, public: ip };
        let public = [198, 51, 100, 2].into();
        assert_eq!(nat_discovery("192.0.2.2"), Ok(plain));
        assert_eq!(nat_discovery("192.0.2.2:4000"), Ok(AlternateAddress { port: Some(4000), ..plain }));
        assert_eq!(nat_discovery("192.0.2.2=198.51.100.2"), Ok(AlternateAddress { public, ..plain }));
        assert_eq!(
            nat_discovery("[2001:db8::2]:1").map(|address| (address.ip, address.port)),
            Ok(("2001:db8::2".parse().unwrap(), Some(1)))
        );
    }

    #[test]
    fn realms_are_too_short_to_amplify() {
        assert!(realm(&"r".repeat(127)).is_ok());
        for bad in ["", "a\"b", "a\\b", "a\nb", &"r".repeat(128)] {
            assert!(realm(bad).unwrap_err().contains("127"), "{bad}");
        }
    }

    #[test]
    fn rates() {
        let per_second = |number| Ok(Rate::PerSecond(NonZeroU64::new(number).unwrap()));
        for (text, number) in
            [("1k", 1_000), ("64000", 64_000), ("500k", 500_000), ("20M", 20_000_000), ("1000G", 1_000_000_000_000)]
        {
            assert_eq!(bit_rate(text), per_second(number), "{text}");
        }
        for (text, number) in [("1", 1), ("1000", 1_000), ("50k", 50_000), ("1G", 1_000_000_000)] {
            assert_eq!(packet_rate(text), per_second(number), "{text}");
        }
        assert_eq!((bit_rate("off"), packet_rate("off")), (Ok(Rate::Off), Ok(Rate::Off)));
        let nonsense =
            ["", "k", "0", "0k", "-1", "+5000", "1.5M", "5m", "5K", "5 k", "5kk", "5T", "OFF", "none", "0x10k"];
        for bad in nonsense.into_iter().chain(["18446744073709551616", "18446744073709551615G"]) {
            assert!(bit_rate(bad).unwrap_err().contains("1k to 1000G"), "{bad}");
            assert!(packet_rate(bad).unwrap_err().contains("1 to 1G"), "{bad}");
        }
        for bad in ["999", "1001G"] {
            assert!(bit_rate(bad).is_err(), "{bad}");
        }
        assert!(packet_rate("1001M").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!((ttl("7d"), drain_timeout("0s")), (Ok(Duration::from_secs(7 * 86_400)), Ok(Duration::ZERO)));
        for bad in ["", "1", "0s", "500ms", "-1h", "1 fortnight", "366d", "10000000000y"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tokens_origins_and_endpoints() {
        assert_eq!(token("a-Z_0.~+/="), Ok("a-Z_0.~+/=".to_owned()));
        for bad in ["", "a b", "\u{fc}", "a\n"] {
            assert!(token(bad).is_err(), "{bad}");
        }
        for good in ["*", "https://app.example.org", "http://localhost:8080", "https://[2001:db8::1]"] {
            assert_eq!(origin(good), Ok(good.to_owned()));
        }
        for bad in ["", "app.example.org", "https://", "https://a/", "https://a/b", "ftp://a", "https://A", "**"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
        assert_eq!(otlp_endpoint("off"), Ok(OrOff::Off));
        for good in ["http://127.0.0.1:4318", "http://collector/v1/traces"] {
            assert_eq!(otlp_endpoint(good), Ok(OrOff::On(good.to_owned())));
        }
        for bad in ["", "127.0.0.1:4318", "https://collector", "http://", "http://:4318", "/v1/traces", "http://a:b@c"]
        {
            assert!(otlp_endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks() {
        assert_eq!(network("10.0.0.0/8"), Ok("10.0.0.0/8".parse().unwrap()));
        assert_eq!(network("10.0.0.1"), Ok("10.0.0.1/32".parse().unwrap()));
        assert!(network("10.0.0.0/33").is_err());
    }
}
