//! What a turnserver.conf means, in hairpin's words: settings by section, and what is not quite the same.

use std::net::IpAddr;

use super::super::value;
use super::addresses::{listeners, outside, relay_addresses};
use super::meaning::{At, Coturn};
use super::peers;
use super::render::{Kind, Note, Section, Setting, Value};
use crate::config::PortRange;

/// The most that `--max-allocations` and `--shards` take.
const MAX_ALLOCATIONS: u64 = 1_000_000;
const MAX_SHARDS: u64 = 256;
/// What `--allocation-bit-rate` and `--relay-bit-rate` take.
const BIT_RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000;
/// Where both exporters are.
const METRICS_PORT: u16 = 9641;

/// Hairpin's settings.
pub(super) fn translate(coturn: &Coturn) -> (Vec<Section>, Vec<Note>) {
    let mut notes = Notes(Vec::new());
    let sections = vec![
        Section { title: "Listeners", settings: of_listeners(coturn, &mut notes) },
        Section { title: "Relaying", settings: of_relaying(coturn, &mut notes) },
        Section { title: "Users", settings: of_users(coturn, &mut notes) },
        Section { title: "Peers", settings: of_peers(coturn, &mut notes) },
        Section { title: "Limits", settings: of_limits(coturn, &mut notes) },
        Section { title: "Kernel, threads and metrics", settings: of_host(coturn, &mut notes) },
    ];
    (sections, notes.0)
}

/// What is said beside the settings.
struct Notes(Vec<Note>);

impl Notes {
    fn mistake(&mut self, line: usize, text: impl Into<String>) {
        self.0.push(Note::new(line, Kind::Mistake, text));
    }

    fn missing(&mut self, line: usize, text: impl Into<String>) {
        self.0.push(Note::new(line, Kind::Missing, text));
    }

    fn differs(&mut self, line: usize, text: impl Into<String>) {
        self.0.push(Note::new(line, Kind::Differs, text));
    }
}

fn of_listeners(coturn: &Coturn, notes: &mut Notes) -> Vec<Setting> {
    let mut settings = Vec::new();
    let all = listeners(coturn);
    // What no listener of hairpin's can be is left out, and told.
    let (mut good, mut sockets) = (Vec::new(), Vec::new());
    for text in all {
        match value::listener(&text) {
            Ok(listener) => {
                sockets.push(listener);
                good.push(text);
            }
            Err(error) => notes.mistake(0, format!("listen {text}: {error}")),
        }
    }
    let ports = relay_ports(coturn);
    let mut taken: Vec<u16> = sockets.iter().map(|listener| listener.address.port()).collect();
    taken.dedup();
    for port in taken.into_iter().filter(|port| ports.range().contains(port)) {
        notes.differs(0, format!("relay-ports {ports} contains port {port} of listen: hairpin does not start before one of them is another"));
    }
    if !good.is_empty() {
        let mut setting = Setting::new("listen", Value::List(good));
        if coturn.listening_ips.is_empty() {
            setting = setting.comment("Take the addresses of [::] out on a host without IPv6.");
        }
        settings.push(setting);
    }
    if coturn.not.udp && coturn.not.tcp && !coturn.has_certificate() {
        notes.mistake(0, "no-udp and no-tcp without a certificate leave no client that could be served");
    }
    if let Some(At { line, value: port }) = &coturn.tcp_proxy_port {
        let tls = if coturn.has_certificate() { ", and tls" } else { "" };
        let hint = Setting::hint("proxy-protocol", Value::List(vec!["ADDRESS-OF-THE-LOAD-BALANCER/32".to_owned()]));
        settings.push(hint.comment(format!(
            "Connections from a load balancer, for which coturn listened at port {port}: say what addresses it has, and \
             add its port to listen as tcp{tls}."
        )));
        notes.missing(
            *line,
            format!(
                "tcp-proxy-port: hairpin must know whose connections begin with a header of the PROXY protocol: set \
                 proxy-protocol, and add port {port} to listen; until then there are no clients over TCP"
            ),
        );
    }
    match (&coturn.cert, &coturn.pkey) {
        (Some(cert), Some(pkey)) if !(coturn.not.tls && coturn.not.dtls) => {
            for (key, At { line, value }) in [("certificate", cert), ("private-key", pkey)] {
                if !value.starts_with('/') {
                    notes.differs(
                        *line,
                        format!("{value}: coturn looks for it in several folders, hairpin where it is started"),
                    );
                }
                settings.push(Setting::new(key, Value::List(vec![value.clone()])));
            }
        }
        (Some(At { line, .. }), None) | (None, Some(At { line, .. })) => {
            notes.mistake(*line, "cert and pkey are of use together only: there is no TLS and no DTLS");
        }
        _ => {}
    }
    if !coturn.alternate_servers.is_empty() {
        let servers = coturn.alternate_servers.iter().map(|at| at.value.clone()).collect();
        settings.push(Setting::new("alternate-server", Value::List(servers)));
        for At { line, value } in &coturn.alternate_servers {
            notes.differs(
                *line,
                format!("alternate-server {value}: coturn sends every client there, hairpin those that it has no room for, and all of them while it drains"),
            );
        }
    }
    settings.extend(discovery(coturn));
    settings
}

/// Coturn up to 4.6 does it by itself where it has two addresses of one IP version, later ones when they are told.
fn discovery(coturn: &Coturn) -> Option<Setting> {
    let is_told = coturn.rfc5780.as_ref().map(|at| at.value);
    let seconds = [true, false].into_iter().filter_map(|v4| {
        let ips: Vec<IpAddr> = coturn
            .listening_ips
            .iter()
            .map(|at| at.value)
            .filter(|ip| ip.is_ipv4() == v4 && !ip.is_unspecified())
            .collect();
        let second = *ips.get(1)?;
        let socket = match &coturn.alt_listening_port {
            Some(At { value: port, .. }) => std::net::SocketAddr::new(second, *port).to_string(),
            None => second.to_string(),
        };
        Some(outside(coturn, second).map_or(socket.clone(), |public| format!("{socket}={public}")))
    });
    let seconds: Vec<_> = seconds.collect();
    if seconds.is_empty() || is_told == Some(false) || coturn.not.udp {
        return None;
    }
    let value = Value::List(seconds);
    Some(match is_told {
        Some(_) => Setting::new("nat-discovery", value),
        None => Setting::hint("nat-discovery", value).comment(
            "Clients that find out what NAT they are behind (RFC 5780): coturn up to 4.6 serves them where it has two \
             addresses, later ones with rfc5780 only.",
        ),
    })
}

fn relay_ports(coturn: &Coturn) -> PortRange {
    let bound = |at: &Option<At<u16>>, default| at.as_ref().map_or(default, |at| at.value);
    let range = PortRange {
        min: bound(&coturn.min_port, PortRange::DYNAMIC.min),
        max: bound(&coturn.max_port, PortRange::DYNAMIC.max),
    };
    if range.min > range.max { PortRange::DYNAMIC } else { range }
}

fn of_relaying(coturn: &Coturn, notes: &mut Notes) -> Vec<Setting> {
    let mut settings = Vec::new();
    let (addresses, lost) = relay_addresses(coturn);
    for line in lost {
        notes.differs(
            line,
            "another relay address has the same public one, and clients could not tell them apart: left out",
        );
    }
    let (addresses, bad): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| value::relay_address(address).is_ok());
    for address in bad {
        notes.mistake(0, format!("relay-address {address}: not an address that can be relayed from: left out"));
    }
    if !addresses.is_empty() {
        settings.push(Setting::new("relay-address", Value::List(addresses)));
    }
    let ports = relay_ports(coturn);
    match (&coturn.min_port, &coturn.max_port) {
        (Some(min), Some(max)) if min.value > max.value => notes.mistake(max.line, "max-port is below min-port"),
        (None, None) => {}
        _ => settings.push(Setting::new("relay-ports", Value::Text(ports.to_string()))),
    }
    let not = coturn.not;
    let has_streams = coturn.tcp_proxy_port.is_none() && (!not.tcp || !not.tls && coturn.has_certificate());
    if !coturn.no_tcp_relay && has_streams {
        let setting = Setting::new("tcp-relay", Value::Switch(true));
        settings
            .push(setting.comment("Coturn relays TCP (RFC 6062) unless it is told not to. Few clients ask for it."));
    }
    if coturn.mobility {
        settings.push(Setting::new("mobility", Value::Switch(true)));
    }
    settings
}

fn of_users(coturn: &Coturn, notes: &mut Notes) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(At { line, value: realm }) = coturn.realm.as_ref().filter(|at| !at.value.is_empty()) {
        match value::realm(realm) {
            Ok(realm) => settings.push(Setting::new("realm", Value::Text(realm))),
            Err(error) => notes.differs(*line, format!("realm: {error}")),
        }
    }
    if let Some(At { line, .. }) = coturn.no_auth.as_ref().filter(|at| at.value) {
        notes.missing(
            *line,
            "no-auth: hairpin is never an open relay, which anybody would soon use for attacks: give clients credentials",
        );
    }
    let mut secrets = Vec::new();
    for At { line, value: secret } in &coturn.secrets {
        if secret.is_empty() {
            notes.mistake(*line, "static-auth-secret: it is empty");
            continue;
        }
        if secret.ends_with([' ', '\t']) {
            notes.differs(*line, "static-auth-secret: the blanks at the end are part of it, here as for coturn");
        }
        if !secrets.contains(secret) {
            secrets.push(secret.clone());
        }
    }
    let users = users(coturn, notes);
    let stores: Vec<_> = coturn.databases.iter().map(|at| at.value.clone()).collect();
    if secrets.is_empty() && coturn.has_secrets() && stores.is_empty() {
        let line = coturn.use_auth_secret.as_ref().map_or(0, |at| at.line);
        notes.missing(
            line,
            "use-auth-secret: without static-auth-secret coturn takes the secrets from its database, and the file names \
             none: say where it is by --user-store, or write the secrets to a file for --auth-secret-file, one a line",
        );
        let hint = Setting::hint("auth-secret-file", Value::Text("/etc/hairpin/auth-secrets".to_owned()));
        settings.push(hint.comment("The secrets of coturn's database, one a line."));
    }
    if !secrets.is_empty() {
        settings.push(Setting::new("auth-secret", Value::List(secrets)));
    } else if users.as_ref().is_none_or(|users| !users.holds) && stores.is_empty() {
        let text = "Nobody is named here who may relay: hairpin makes a secret of its own, see `hairpin credentials`.";
        settings.push(Setting::hint("auth-secret", Value::List(vec!["SECRET".to_owned()])).comment(text));
    }
    settings.extend(users);
    if !stores.is_empty() {
        let text = "Coturn's own database, read as it is: users, secrets and keys of tokens.";
        settings.push(Setting::new("user-store", Value::List(stores)).comment(text));
    }
    settings.extend(token_audience(coturn, notes));
    settings.extend(nonce_key(coturn, notes));
    settings
}

/// What servers share that take each other's nonces. Not those of another program: what they are made of differs.
fn nonce_key(coturn: &Coturn, notes: &mut Notes) -> Option<Setting> {
    let At { line, value: text } = coturn.nonce_secret.as_ref().filter(|at| !at.value.is_empty())?;
    match value::nonce_key(text) {
        Ok(_) => Some(Setting::new("nonce-key", Value::List(vec![text.clone()]))),
        Err(error) => {
            notes.differs(*line, format!("stateless-nonce-secret: {error}: left out, give nonce-key a longer one"));
            None
        }
    }
}

/// Of access tokens coturn takes the name of the server, else that of the realm.
fn token_audience(coturn: &Coturn, notes: &mut Notes) -> Option<Setting> {
    let At { line, .. } = coturn.oauth.as_ref().filter(|at| at.value)?;
    let named = [&coturn.server_name, &coturn.realm].into_iter().flatten().find(|at| !at.value.is_empty());
    let name = named.map_or("coturn", |at| at.value.as_str());
    match value::token_audience(name) {
        Ok(name) => Some(Setting::new("token-audience", Value::Text(name))),
        Err(error) => {
            notes.differs(*line, format!("oauth: the name of the server: {error}"));
            None
        }
    }
}

/// Users with a password. Coturn knows none of them while it has secrets.
fn users(coturn: &Coturn, notes: &mut Notes) -> Option<Setting> {
    let mut names: Vec<&str> = Vec::new();
    let mut users = Vec::new();
    // Of two with the same name, coturn knows the last.
    for At { line, value: text } in coturn.users.iter().rev() {
        let (name, _) = text.split_once(':').unwrap_or((text, ""));
        let name_of = format!("user {name}");
        if names.contains(&name) {
            notes.mistake(*line, format!("{name_of}: given again further down, which is what holds"));
            continue;
        }
        names.push(name);
        match value::user(text) {
            Ok(_) => users.push(text.clone()),
            Err(error) => notes.mistake(*line, format!("{name_of}: {error}")),
        }
    }
    users.reverse();
    if users.is_empty() {
        return None;
    }
    let value = Value::List(users);
    if !coturn.has_secrets() {
        return Some(Setting::new("user", value));
    }
    let line = coturn.users.first().map_or(0, |at| at.line);
    notes.differs(line, "user: coturn knows no users while it has secrets, hairpin would know both: left as a comment");
    let text = "Coturn lets none of these in while it has secrets; hairpin would.";
    Some(Setting::hint("user", value).comment(text))
}

fn of_peers(coturn: &Coturn, notes: &mut Notes) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut rules = peers::rules(&coturn.allowed_peers, &coturn.denied_peers);
    for line in &rules.void {
        notes.differs(*line, "denied-peer-ip: void where it is inside of an allowed-peer-ip, which always beats it");
    }
    if let Some(At { line, .. }) = coturn.allow_loopback_peers.as_ref().filter(|at| at.value) {
        notes.differs(*line, "allow-loopback-peers: it lets clients reach the services of this host: for tests only");
        rules
            .allowed
            .extend(["127.0.0.0/8", "::1/128"].map(|net| net.parse::<ipnet::IpNet>().expect("these are networks")));
    }
    for (key, nets) in [("allow-peer", &rules.allowed), ("deny-peer", &rules.denied)] {
        if !nets.is_empty() {
            settings.push(Setting::new(key, Value::List(nets.iter().map(ToString::to_string).collect())));
        }
    }
    let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
    let is_decided = |net: &str| {
        let net: ipnet::IpNet = net.parse().expect("these are networks");
        rules.allowed.iter().chain(&rules.denied).any(|known| known.contains(&net))
    };
    let open: Vec<_> = private.into_iter().filter(|net| !is_decided(net)).map(str::to_owned).collect();
    if !open.is_empty() {
        let text = "Coturn lets clients reach private networks unless they are denied, hairpin does not unless they are \
                    allowed. Peers that are there need:";
        settings.push(Setting::hint("allow-peer", Value::List(open)).comment(text));
        notes.differs(0, "private and other reserved addresses are no peers unless allow-peer says so");
    }
    let own: Vec<IpAddr> = coturn.listening_ips.iter().chain(&coturn.relay_ips).map(|at| at.value).collect();
    for At { line, value } in &coturn.allowed_peers {
        if value.start() == value.end() && own.contains(value.start()) {
            notes.differs(
                *line,
                "allowed-peer-ip: it opens all services of this host, and is not needed for clients of this relay to \
                 reach each other: hairpin always allows its own relayed addresses",
            );
        }
    }
    settings
}

fn of_limits(coturn: &Coturn, notes: &mut Notes) -> Vec<Setting> {
    let mut settings = Vec::new();
    // To coturn 0 is no limit.
    let limit = |at: &Option<At<u64>>| at.as_ref().filter(|at| at.value > 0).map(|at| (at.line, at.value));
    let addresses = coturn.relay_ips.len().max(coturn.listening_ips.len()).max(1);
    let ports = (relay_ports(coturn).count() * addresses) as u64;
    if let Some((line, wanted)) = limit(&coturn.total_quota) {
        let most = ports.min(MAX_ALLOCATIONS);
        if wanted > most {
            notes.differs(
                line,
                format!("total-quota: there are relay ports for {most} allocations only, which is the limit then"),
            );
        } else {
            settings.push(Setting::new("max-allocations", Value::Number(wanted)));
        }
    }
    if let Some((_, wanted)) = limit(&coturn.user_quota) {
        settings.push(Setting::new("max-allocations-per-user", Value::Number(wanted.min(MAX_ALLOCATIONS))));
    }
    let bits = |bytes: u64| bytes.saturating_mul(8).clamp(*BIT_RATES.start(), *BIT_RATES.end());
    if let Some((_, bytes)) = limit(&coturn.max_bps) {
        let setting = Setting::new("allocation-bit-rate", Value::Number(bits(bytes)));
        settings.push(setting.comment(format!("max-bps has bytes a second, this has bits: 8 times {bytes}.")));
    }
    if let Some((line, bytes)) = limit(&coturn.bps_capacity) {
        let value = Value::Number(bits(bytes.saturating_mul(2)));
        if limit(&coturn.max_bps).is_some() {
            let text = "bps-capacity has bytes a second in one direction, this has bits in both: 16 times as many.";
            settings.push(Setting::new("relay-bit-rate", value).comment(text));
            notes.differs(line, "bps-capacity: coturn refuses clients when max-bps of all would be more, hairpin drops what is too much");
        } else {
            let text = "Without max-bps coturn takes no notice of bps-capacity.";
            settings.push(Setting::hint("relay-bit-rate", value).comment(text));
        }
    }
    settings
}

fn of_host(coturn: &Coturn, notes: &mut Notes) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(At { value: threads, .. }) = &coturn.relay_threads {
        settings.push(Setting::new("shards", Value::Number((*threads).clamp(1, MAX_SHARDS))));
    }
    if !coturn.devices.is_empty() {
        let mut names: Vec<String> = Vec::new();
        for At { line, value } in &coturn.devices {
            notes.missing(*line, format!("{value}: sockets are bound to addresses, not to devices"));
            if !names.contains(value) {
                names.push(value.clone());
            }
        }
        let text =
            "Where packets are forwarded in the kernel; hairpin finds the interfaces of its addresses by itself.";
        settings.push(Setting::hint("interface", Value::List(names)).comment(text));
    }
    if coturn.prometheus {
        let port = coturn.prometheus_port.as_ref().map_or(METRICS_PORT, |at| at.value);
        let at = |ip: IpAddr| Value::Text(std::net::SocketAddr::new(ip, port).to_string());
        match &coturn.prometheus_address {
            Some(At { value: ip, .. }) => settings.push(Setting::new("admin", at(*ip))),
            None => settings.push(Setting::hint("admin", at(IpAddr::from([0, 0, 0, 0]))).comment(
                "Metrics are at 127.0.0.1:9641 unless this says otherwise; coturn has them on every address.",
            )),
        }
        notes.differs(0, "prometheus: the metrics have other names, see docs/metrics.md");
    }
    settings
}
