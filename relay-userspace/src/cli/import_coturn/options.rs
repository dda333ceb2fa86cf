//! Every option of coturn, and what to do about it: one row each. Those that Debian's coturn 4.6 knows, those of the
//! versions before and after it, and those that packages without a database or an exporter leave out.

use std::collections::HashMap;

use super::addresses;
use super::databases;
use super::line::{Line, lines};
use super::meaning::{At, Coturn};
use super::peers::range;
use super::render::{Kind, Note};

/// What becomes of an option.
enum Fate {
    /// A switch with a counterpart.
    Switch(fn(&mut Coturn, At<bool>)),
    /// A value with a counterpart. An error is what coturn has against it, too.
    Value(fn(&mut Coturn, &Line<'_>) -> Result<(), String>),
    /// Nothing is lost without it, and why.
    Ignored(&'static str),
    /// A switch without a counterpart, if it is on, and what to do.
    MissingSwitch(&'static str),
    /// A value without a counterpart, unless it is one of these, which say what holds here anyway; and what to do.
    Missing(&'static [&'static str], &'static str),
}

use Fate::{Ignored, Missing, MissingSwitch, Switch, Value};

const LOG: &str = "the log goes to standard error, and so to the journal; --log says how much of it";
const SERVICE: &str = "whoever starts hairpin does that: systemd, or a container";
const CLI: &str = "`hairpin status`, `hairpin allocations` and `hairpin drain` ask over a Unix socket (--admin-socket)";
const WEB: &str = "there are no pages; the admin interface (--admin-socket, --admin) speaks JSON";
const CIPHERS: &str = "TLS 1.2 and 1.3 and DTLS 1.2 are spoken with ciphers that are sound";
const OLD_TLS: &str = "nothing older than TLS 1.2 and DTLS 1.2 is spoken";
const OF_DATABASE: &str = "of the database, users, secrets and token keys are read, and nothing else";
const DATABASE: &str = "databases of this kind are not read, those of SQLite, PostgreSQL and Redis are: move the users \
     there, or write them to a file for --user-file, one a line";
const THREADS: &str = "each shard has its own sockets, and the kernel spreads the clients over them";
const OFFLOADS: &str = "datagrams are received, sent and cut in batches as the kernel allows";
const SOFTWARE: &str = "responses name hairpin and its version";
const LIFETIMES: &str = "the lifetimes of RFC 8656 hold";

const OPTIONS: &[(&str, Fate)] = &[
    // Where clients reach the server.
    ("listening-ip", Value(|c, line| push(&mut c.listening_ips, line, addresses::ip))),
    ("listening-port", Value(|c, line| port(&mut c.listening_port, line))),
    ("tls-listening-port", Value(|c, line| port(&mut c.tls_listening_port, line))),
    ("alt-listening-port", Value(|c, line| port(&mut c.alt_listening_port, line))),
    ("alt-tls-listening-port", Ignored("the second port for NAT behaviour discovery is one of UDP")),
    ("tcp-proxy-port", Value(|c, line| port(&mut c.tcp_proxy_port, line))),
    ("aux-server", Value(|c, line| push(&mut c.aux_servers, line, addresses::endpoint))),
    ("udp-self-balance", Ignored(THREADS)),
    ("listening-device", Value(|c, line| push(&mut c.devices, line, text))),
    ("relay-device", Value(|c, line| push(&mut c.devices, line, text))),
    ("no-udp", Switch(|c, at| c.not.udp = at.value)),
    ("no-tcp", Switch(|c, at| c.not.tcp = at.value)),
    ("no-tls", Switch(|c, at| c.not.tls = at.value)),
    ("no-dtls", Switch(|c, at| c.not.dtls = at.value)),
    ("dtls", Switch(|c, at| c.not.dtls = !at.value)),
    ("respond-http-unsupported", Ignored("whoever speaks HTTP at a listener is not answered")),
    // Discovery.
    ("rfc5780", Switch(|c, at| c.rfc5780 = Some(at))),
    ("no-rfc5780", Switch(|c, at| c.rfc5780 = Some(At { value: !at.value, ..at }))),
    ("stun-backward-compatibility", MissingSwitch("what is older than RFC 5389 is not answered")),
    ("no-stun-backward-compatibility", Ignored("what is older than RFC 5389 is not answered anyway")),
    ("rfc3489-compatibility", MissingSwitch("what is older than RFC 5389 is not answered")),
    ("response-origin-only-with-rfc5780", Ignored("it is so: RESPONSE-ORIGIN comes with --nat-discovery only")),
    // Relaying.
    ("relay-ip", Value(|c, line| push(&mut c.relay_ips, line, addresses::ip))),
    ("external-ip", Value(|c, line| push(&mut c.external_ips, line, addresses::external))),
    ("min-port", Value(|c, line| port(&mut c.min_port, line))),
    ("max-port", Value(|c, line| port(&mut c.max_port, line))),
    ("no-tcp-relay", Switch(|c, at| c.no_tcp_relay = at.value)),
    ("no-udp-relay", MissingSwitch("UDP is always relayed: whoever must not have it needs a firewall")),
    ("mobility", Switch(|c, at| c.mobility = at.value)),
    ("alternate-server", Value(|c, line| push(&mut c.alternate_servers, line, addresses::alternate))),
    ("udp-alternate-server", Value(|c, line| push(&mut c.alternate_servers, line, addresses::alternate))),
    ("tcp-alternate-server", Value(|c, line| push(&mut c.alternate_servers, line, addresses::alternate))),
    ("tls-alternate-server", Value(|c, line| push(&mut c.alternate_servers, line, addresses::tls_alternate))),
    ("keep-address-family", MissingSwitch("who asks for no IP version gets IPv4, as RFC 8656 says")),
    ("allocation-default-address-family", Missing(&["ipv4"], "who asks for no IP version gets IPv4, as RFC 8656 says")),
    ("server-relay", MissingSwitch("peers need a permission, and that is what keeps a relay from being a way in")),
    ("stun-only", MissingSwitch("whoever has a credential can relay: give none away")),
    ("no-stun", MissingSwitch("Binding requests are always answered, within --source-packet-rate")),
    ("secure-stun", MissingSwitch("Binding requests are answered without a credential, within --source-packet-rate")),
    ("multiplex-peer", Ignored("each allocation has a port of its own")),
    ("multiplex-peer-port", Ignored("each allocation has a port of its own")),
    ("multiplex-peer-max-peers", Ignored("each allocation has a port of its own")),
    ("rfc5766-channel-numbers", MissingSwitch("channel numbers are those of RFC 8656, 0x4000 to 0x4FFF")),
    // Who may relay.
    ("realm", Value(|c, line| set(&mut c.realm, line, text))),
    ("server-name", Value(|c, line| set(&mut c.server_name, line, trimmed))),
    ("lt-cred-mech", Ignored("clients always need long-term credentials")),
    ("use-auth-secret", Switch(|c, at| c.use_auth_secret = Some(at))),
    ("static-auth-secret", Value(|c, line| push(&mut c.secrets, line, text))),
    ("user", Value(|c, line| push(&mut c.users, line, text))),
    ("no-auth", Switch(|c, at| c.no_auth = Some(at))),
    (
        "rest-api-separator",
        Missing(&[":"], "a colon stands between time and name: let whoever mints credentials use it"),
    ),
    ("oauth", Switch(|c, at| c.oauth = Some(at))),
    ("check-origin-consistency", MissingSwitch("ORIGIN never became a standard and is not looked at")),
    ("secret-ts-exp-time", Ignored("coturn has no use for it either")),
    ("stale-nonce", Ignored("nonces always become stale, after an hour")),
    ("stateless-nonce", Ignored("nonces are recognised without being kept")),
    ("stateless-nonce-secret", Value(|c, line| set(&mut c.nonce_secret, line, text))),
    ("fingerprint", Ignored("who sends a FINGERPRINT gets one")),
    ("no-software-attribute", MissingSwitch(SOFTWARE)),
    ("prod", MissingSwitch(SOFTWARE)),
    ("software-attribute", Missing(&["", "1", "on", "yes", "true"], SOFTWARE)),
    ("include-reason-string", Ignored("errors always say their reason")),
    // Databases.
    ("userdb", Value(|c, line| push(&mut c.databases, line, databases::sqlite))),
    ("db", Value(|c, line| push(&mut c.databases, line, databases::sqlite))),
    ("psql-userdb", Value(|c, line| push(&mut c.databases, line, databases::postgres))),
    ("sql-userdb", Value(|c, line| push(&mut c.databases, line, databases::postgres))),
    ("mysql-userdb", Missing(&[""], DATABASE)),
    ("mongo-userdb", Missing(&[""], DATABASE)),
    ("redis-userdb", Value(|c, line| push(&mut c.databases, line, databases::redis))),
    ("redis-statsdb", Missing(&[""], "`hairpin allocations watch` and /metrics say what there is to know")),
    ("secret-key-file", Ignored(OF_DATABASE)),
    ("no-auth-pings", Ignored(OF_DATABASE)),
    ("no-dynamic-ip-list", Ignored(OF_DATABASE)),
    ("no-dynamic-realms", Ignored(OF_DATABASE)),
    // Peers.
    ("allowed-peer-ip", Value(|c, line| push(&mut c.allowed_peers, line, range))),
    ("denied-peer-ip", Value(|c, line| push(&mut c.denied_peers, line, range))),
    ("allow-loopback-peers", Switch(|c, at| c.allow_loopback_peers = Some(at))),
    ("no-loopback-peers", Ignored("loopback addresses are forbidden anyway")),
    ("no-multicast-peers", Ignored("multicast addresses are forbidden anyway")),
    // Limits.
    ("user-quota", Value(|c, line| number(&mut c.user_quota, line))),
    ("total-quota", Value(|c, line| number(&mut c.total_quota, line))),
    ("max-bps", Value(|c, line| number(&mut c.max_bps, line))),
    ("bps-capacity", Value(|c, line| number(&mut c.bps_capacity, line))),
    ("max-allocate-lifetime", Missing(&["3600"], LIFETIMES)),
    ("channel-lifetime", Missing(&["600"], LIFETIMES)),
    ("permission-lifetime", Missing(&["300"], LIFETIMES)),
    ("max-allocate-timeout", Ignored("connections without an allocation are closed after some seconds")),
    ("unauthorized-ratelimit", Ignored("--source-packet-rate limits strangers anyway")),
    ("unauthorized-ratelimit-rps", Missing(&[], "--source-packet-rate limits strangers, and counts otherwise")),
    ("drop-invalid-packets", Ignored("they are dropped anyway")),
    ("drop-invalid-packets-log", Ignored("they are counted in the metrics")),
    ("relay-threads", Value(|c, line| number(&mut c.relay_threads, line))),
    ("cpus", Ignored("without --shards there is one thread for each processor that may be used")),
    ("sock-buf-size", Ignored("listeners ask for buffers of 4 MiB; `hairpin check` says whether they get them")),
    ("udp-recvmmsg", Ignored(OFFLOADS)),
    ("udp-recvmmsg-log", Ignored(OFFLOADS)),
    ("udp-gso", Ignored(OFFLOADS)),
    ("ne", Ignored("there is one engine")),
    // TLS.
    ("cert", Value(|c, line| set(&mut c.cert, line, trimmed))),
    ("pkey", Value(|c, line| set(&mut c.pkey, line, trimmed))),
    (
        "pkey-pwd",
        Missing(
            &[""],
            "keys are read without a password: `openssl pkey -in KEY -out NEW` takes it away; keep NEW from others",
        ),
    ),
    ("raw-public-keys", MissingSwitch("clients are shown a certificate (no RFC 7250)")),
    ("CA-file", Missing(&[""], "clients show no certificate: their credentials say who they are")),
    ("cipher-list", Ignored(CIPHERS)),
    ("ec-curve-name", Ignored(CIPHERS)),
    ("dh566", Ignored(CIPHERS)),
    ("dh1066", Ignored(CIPHERS)),
    ("dh2066", Ignored(CIPHERS)),
    ("dh-file", Ignored(CIPHERS)),
    ("no-sslv2", Ignored(OLD_TLS)),
    ("no-sslv3", Ignored(OLD_TLS)),
    ("no-tlsv1", Ignored(OLD_TLS)),
    ("no-tlsv1_1", Ignored(OLD_TLS)),
    ("no-tlsv1_2", MissingSwitch("TLS 1.2 is spoken besides TLS 1.3, since many clients know no other")),
    ("tlsv1", MissingSwitch(OLD_TLS)),
    ("tlsv1_1", MissingSwitch(OLD_TLS)),
    ("acme-redirect", Missing(&[""], "HTTP is not spoken: let a web server or a DNS record answer the challenge")),
    // Log.
    ("verbose", Ignored(LOG)),
    ("Verbose", Ignored(LOG)),
    ("log-file", Ignored(LOG)),
    ("log-min-level", Ignored(LOG)),
    ("no-stdout-log", Ignored(LOG)),
    ("syslog", Ignored(LOG)),
    ("syslog-facility", Ignored(LOG)),
    ("simple-log", Ignored(LOG)),
    ("new-log-timestamp", Ignored(LOG)),
    ("new-log-timestamp-format", Ignored(LOG)),
    ("log-binding", Ignored(LOG)),
    // Metrics and administration.
    ("prometheus", Switch(|c, at| c.prometheus = at.value)),
    ("prometheus-address", Value(|c, line| set(&mut c.prometheus_address, line, addresses::ip))),
    ("prometheus-port", Value(|c, line| port(&mut c.prometheus_port, line))),
    ("prometheus-path", Missing(&["/metrics"], "metrics are at /metrics")),
    ("prometheus-username-labels", MissingSwitch("metrics name no users; `hairpin users` does")),
    ("cli", Ignored(CLI)),
    ("no-cli", Ignored(CLI)),
    ("cli-ip", Ignored(CLI)),
    ("cli-port", Ignored(CLI)),
    ("cli-password", Ignored(CLI)),
    ("cli-max-output-sessions", Ignored(CLI)),
    ("web-admin", MissingSwitch(WEB)),
    ("web-admin-ip", Ignored(WEB)),
    ("web-admin-port", Ignored(WEB)),
    ("web-admin-listen-on-workers", Ignored(WEB)),
    ("drain-min-allocations", Missing(&[], "a drain ends when nothing is left, or after --drain-timeout")),
    // The process.
    ("daemon", Ignored(SERVICE)),
    ("pidfile", Ignored(SERVICE)),
    ("proc-user", Ignored("the unit of systemd gives hairpin the capabilities that it needs, and no more")),
    ("proc-group", Ignored("the unit of systemd gives hairpin the capabilities that it needs, and no more")),
    ("version", Ignored("it has nothing to do in a file")),
];

/// What coturn would make of the text, and what there is to say about lines that have no part in it.
pub(super) fn read(text: &str) -> (Coturn, Vec<Note>) {
    let (mut coturn, mut notes) = (Coturn::default(), Vec::new());
    let mut explained = HashMap::new();
    for line in lines(text) {
        let mut note = |kind, text: &str| notes.push(Note::new(line.number, kind, format!("{}: {text}", line.name)));
        if line.is_too_long() {
            note(Kind::Mistake, "the line is longer than coturn reads at once");
        }
        let Some((_, fate)) = OPTIONS.iter().find(|(name, _)| *name == line.name) else {
            note(Kind::Mistake, &unknown(line.name));
            continue;
        };
        let switch = || {
            line.switch().ok_or("on and off, yes and no, true and false, 1 and 0 are allowed; coturn does not start")
        };
        let read = match fate {
            Switch(set) => {
                switch().map(|value| set(&mut coturn, At { line: line.number, value })).map_err(str::to_owned)
            }
            Value(set) => set(&mut coturn, &line),
            // The same about the whole log, or the whole of TLS, is said once.
            Ignored(why) => {
                let first = *explained.entry(*why).or_insert(line.name);
                if first == line.name {
                    note(Kind::Ignored, why);
                } else {
                    note(Kind::Ignored, &format!("as {first}"));
                }
                Ok(())
            }
            MissingSwitch(why) => switch()
                .map(|value| {
                    if value {
                        note(Kind::Missing, why);
                    }
                })
                .map_err(str::to_owned),
            Missing(same, why) => {
                if !same.contains(&line.trimmed()) {
                    note(Kind::Missing, why);
                }
                Ok(())
            }
        };
        if let Err(error) = read {
            note(Kind::Mistake, &error);
        }
        // Of a number only the digits count.
        if line.value.contains(" #") && !line.value.starts_with(|c: char| c.is_ascii_digit()) {
            note(Kind::Mistake, "a comment must be a line of its own: here it is part of the value");
        }
    }
    (coturn, notes)
}

fn unknown(name: &str) -> String {
    let bare = name.trim_start_matches('-');
    if bare != name && OPTIONS.iter().any(|(known, _)| *known == bare) {
        return format!("coturn takes no notice of the line; {bare} without dashes would be an option");
    }
    "coturn knows no such option, and takes no notice of the line".to_owned()
}

fn push<T>(list: &mut Vec<At<T>>, line: &Line<'_>, parse: fn(&Line<'_>) -> Result<T, String>) -> Result<(), String> {
    list.push(At { line: line.number, value: parse(line)? });
    Ok(())
}

fn set<T>(place: &mut Option<At<T>>, line: &Line<'_>, parse: fn(&Line<'_>) -> Result<T, String>) -> Result<(), String> {
    *place = Some(At { line: line.number, value: parse(line)? });
    Ok(())
}

/// Blanks at the end are part of it, as they are to coturn.
#[expect(clippy::unnecessary_wraps, reason = "one of several parsers")]
fn text(line: &Line<'_>) -> Result<String, String> {
    Ok(line.value.to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "one of several parsers")]
fn trimmed(line: &Line<'_>) -> Result<String, String> {
    Ok(line.trimmed().to_owned())
}

/// 0 is coturn's default.
fn port(place: &mut Option<At<u16>>, line: &Line<'_>) -> Result<(), String> {
    let number = u16::try_from(line.number()).map_err(|_| format!("{} is not a port", line.trimmed()))?;
    *place = (number != 0).then_some(At { line: line.number, value: number });
    Ok(())
}

/// 0 is no limit.
#[expect(clippy::unnecessary_wraps, reason = "one of several parsers")]
fn number(place: &mut Option<At<u64>>, line: &Line<'_>) -> Result<(), String> {
    *place = Some(At { line: line.number, value: line.number() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_one_row() {
        let names: std::collections::HashSet<_> = OPTIONS.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), OPTIONS.len());
    }
}
