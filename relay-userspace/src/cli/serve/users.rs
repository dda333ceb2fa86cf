//! The options about users: those that each realm has, and whom all realms ask.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use hairpin_users::StoreUrl;
use hairpin_users::users_file::UserLine;

use super::args::MAX_ALLOCATIONS;
use super::contradiction::Contradiction;
use crate::cli::value::{
    OrOff, realm, reserved_address, secret, server_name, token, token_audience, token_key, user, user_cache,
    user_store, user_timeout, webhook,
};
use crate::config::{
    self, Authentication, Listener, NamedTokenKey, PasswordAlgorithms, Realm, ReservedAddress, Webhook,
};

/// The options that a realm file may have, besides `listen`: those of [`Users`].
pub(in crate::cli) const OF_REALM: [&str; 14] = [
    "realm",
    "server-name",
    "user",
    "user-file",
    "auth-secret",
    "auth-secret-file",
    "reserved-address",
    "password-algorithms",
    "token-audience",
    "token-key",
    "token-key-file",
    "max-realm-allocations",
    "max-allocations-per-user",
    "listen",
];

/// Who may relay in a realm.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Users")]
pub(super) struct Users {
    /// Realm of the long-term credentials
    #[arg(long, value_name = "REALM", default_value = "hairpin", value_parser = realm)]
    pub(super) realm: String,

    /// Name that clients of this realm ask for when they connect over tls or dtls; may be repeated. Of use where there are
    /// realm files; whoever asks for no name of a realm is in that of its listener, else in this one
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    pub(super) server_name: Vec<String>,

    /// A user that may always relay, with its password, or 0x and the MD5 of NAME:REALM:PASSWORD in hexadecimal, or what
    /// `hairpin user` prints, which has no password in it; may be repeated
    #[arg(long, value_name = "NAME:PASSWORD", hide_env_values = true, value_parser = user)]
    pub(super) user: Vec<UserLine>,

    /// File with such users, one a line; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(super) user_file: Option<PathBuf>,

    /// Secret shared with whoever mints credentials that expire; may be repeated, all are valid [default: with no user
    /// either, a random one is made at the first start and kept in the state directory]
    #[arg(long, value_name = "SECRET", hide_env_values = true, value_parser = secret)]
    pub(super) auth_secret: Vec<String>,

    /// File with such secrets, one a line; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(super) auth_secret_file: Option<PathBuf>,

    /// Relayed address that nobody else gets, and this user gets at each allocation: a relay address, as clients are told
    /// it, with one of the reserved-ports. The name is a user's, or the part behind the expiry of a credential that
    /// expires, or a token key's; may be repeated, of several for one user the first is given that is free
    #[arg(long, value_name = "NAME=ADDR:PORT", value_parser = reserved_address)]
    pub(super) reserved_address: Vec<ReservedAddress>,

    /// What clients may make their keys by (RFC 8489)
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = PasswordAlgorithms::Auto)]
    pub(super) password_algorithms: PasswordAlgorithms,

    /// Name of this server in access tokens (RFC 7635), which clients are told, and whoever makes tokens has to use
    /// [default: tokens are not taken]
    #[arg(long, value_name = "NAME", value_parser = token_audience)]
    pub(super) token_audience: Option<String>,

    /// Key that access tokens are sealed with: its name, A256GCM or A128GCM, and the key in base64; may be repeated, all are
    /// valid
    #[arg(long, value_name = "NAME:ALGORITHM:KEY", hide_env_values = true, value_parser = token_key)]
    pub(super) token_key: Vec<NamedTokenKey>,

    /// File with such keys, one a line; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(super) token_key_file: Option<PathBuf>,

    /// Allocations that there may be at once in this realm [default: as many as there may be at all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_ALLOCATIONS))]
    pub(super) max_realm_allocations: Option<u32>,

    /// Allocations that one user of this realm may have at once [default: three quarters of all that there may be]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_ALLOCATIONS))]
    pub(super) max_allocations_per_user: Option<u32>,
}

/// Other realms, and whom all realms ask.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Other realms and user stores")]
pub(super) struct Directory {
    /// File with another realm: realm, and of listen, server-name, user, user-file, auth-secret, auth-secret-file,
    /// reserved-address, password-algorithms, token-audience, token-key, token-key-file, max-realm-allocations and
    /// max-allocations-per-user what it needs, each a key of TOML; its listeners are opened, too; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(super) realm_file: Vec<PathBuf>,

    /// Database with users, secrets and token keys of all realms, in the tables or keys of coturn: sqlite:///PATH,
    /// postgres://USER:PASSWORD@HOST:PORT/DATABASE or redis://:PASSWORD@HOST:PORT/NUMBER; may be repeated, they are asked in
    /// turn
    #[arg(long, value_name = "URL", hide_env_values = true, value_parser = user_store)]
    pub(super) user_store: Vec<StoreUrl>,

    /// File with such URLs, one a line
    #[arg(long, value_name = "FILE")]
    pub(super) user_store_file: Option<PathBuf>,

    /// How long an answer of a database or of the webhook may take; whoever waits for it longer is told to try again
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = user_timeout)]
    pub(super) user_timeout: Duration,

    /// How long such an answer holds; that there is no such user, 5 seconds at most
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = user_cache)]
    pub(super) user_cache: Duration,

    /// Application that is asked over HTTP whether a user may have a new allocation, unless its last answer holds still, and
    /// for the passwords of users that nobody else knows; or off
    #[arg(long, value_name = "URL|off", default_value = "off", value_parser = webhook)]
    pub(super) webhook: OrOff<String>,

    /// Bearer token that the webhook is shown; of several the first
    #[arg(long, value_name = "TOKEN", hide_env_values = true, value_parser = token)]
    pub(super) webhook_token: Vec<String>,

    /// File with such a token
    #[arg(long, value_name = "FILE")]
    pub(super) webhook_token_file: Option<PathBuf>,

    /// PEM file with the authorities that may have signed the webhook's certificate [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub(super) webhook_ca: Option<PathBuf>,
}

impl Users {
    /// A realm of these users. `of_its_own` says who may relay where nobody is named.
    pub(super) fn realm(
        self,
        listeners: &[Listener],
        of_its_own: impl FnOnce(&mut Vec<Contradiction>) -> Authentication,
        problems: &mut Vec<Contradiction>,
    ) -> Realm {
        // There can be many thousands.
        let mut names = HashSet::new();
        for (at, user) in self.user.iter().enumerate() {
            if !names.insert(&user.name) {
                problems.push(Contradiction::of_value("user", at).say(format!(" {} is given twice", user.name)));
            }
        }
        let mut names = HashSet::new();
        for (at, key) in self.token_key.iter().enumerate() {
            if !names.insert(&key.name) {
                problems.push(Contradiction::of_value("token-key", at).say(format!(" {} is given twice", key.name)));
            }
        }
        if !self.token_key.is_empty() && self.token_audience.is_none() {
            problems.push(Contradiction::of("token-key").say(" needs a ").and("token-audience"));
        }
        let has_any = !self.user.is_empty() || !self.auth_secret.is_empty() || self.token_audience.is_some();
        let authentication = if has_any {
            Authentication::Given { users: self.user, secrets: self.auth_secret }
        } else {
            of_its_own(problems)
        };
        let files = [self.user_file, self.auth_secret_file, self.token_key_file];
        Realm {
            files: files.into_iter().flatten().collect(),
            name: self.realm,
            listeners: listeners.iter().map(|listener| (listener.transport, listener.address)).collect(),
            server_names: self.server_name,
            authentication,
            reserved_addresses: self.reserved_address,
            password_algorithms: self.password_algorithms,
            token_audience: self.token_audience,
            token_keys: self.token_key,
            max_allocations: self.max_realm_allocations,
            max_allocations_per_user: self.max_allocations_per_user,
        }
    }
}

impl Directory {
    /// Whom all realms ask.
    pub(super) fn meaning(self, problems: &mut Vec<Contradiction>) -> config::Directory {
        let webhook = match self.webhook {
            OrOff::Off => {
                let without =
                    [("webhook-token", !self.webhook_token.is_empty()), ("webhook-ca", self.webhook_ca.is_some())];
                for (option, _) in without.into_iter().filter(|(_, is_given)| *is_given) {
                    problems.push(Contradiction::of(option).say(" needs a ").and("webhook"));
                }
                None
            }
            OrOff::On(url) => {
                let token = self.webhook_token.into_iter().next();
                Some(Webhook { url, token, authorities: self.webhook_ca })
            }
        };
        config::Directory { stores: self.user_store, webhook, timeout: self.user_timeout, cache: self.user_cache }
    }
}

/// What does not go together about realms and the addresses that are reserved in them.
pub(super) fn check_realms(
    realms: &[Realm],
    asks: bool,
    reserved_ports: Option<config::PortRange>,
    relay_addresses: &[hairpin_proto::turn::RelayAddress],
    problems: &mut Vec<Contradiction>,
) {
    for (at, realm) in realms.iter().enumerate().skip(1) {
        let before = &realms[..at];
        let twice = |what: String| Contradiction::of_value("realm-file", at - 1).say(what);
        if before.iter().any(|other| other.name == realm.name) {
            problems.push(twice(format!(": realm {} is given twice", realm.name)));
        }
        for (transport, address) in &realm.listeners {
            // Those of the first realm are whosever nobody else's are.
            if before.iter().skip(1).any(|other| other.listeners.contains(&(*transport, *address))) {
                problems.push(twice(format!(": listener {transport}:{address} is of another realm already")));
            }
        }
        let nobody = Authentication::Given { users: Vec::new(), secrets: Vec::new() };
        if realm.authentication == nobody && realm.token_keys.is_empty() && !asks {
            let name = &realm.name;
            problems.push(twice(format!(": realm {name} lets nobody in: it needs user, auth-secret or token-key")));
        }
        if realm.listeners.is_empty() && realm.server_names.is_empty() {
            problems.push(twice(format!(": realm {} needs listen or server-name, or nobody is in it", realm.name)));
        }
    }
    let names = realms.iter().flat_map(|realm| &realm.server_names);
    let mut seen = HashSet::new();
    for name in names.filter(|name| !seen.insert(*name)) {
        problems.push(Contradiction::of("server-name").say(format!(" {name} is given twice")));
    }
    let mut seen = HashSet::new();
    for reserved in realms.iter().flat_map(|realm| &realm.reserved_addresses) {
        let ReservedAddress { name, address } = reserved;
        let complaint = || Contradiction::of("reserved-address").say(format!(" {name}={address}"));
        if !seen.insert(address) {
            problems.push(complaint().say(" is given twice"));
        }
        if !relay_addresses.iter().any(|relay| relay.public == address.ip()) {
            problems.push(complaint().say(" is of no ").and("relay-address"));
        }
        if !reserved_ports.is_some_and(|ports| ports.range().contains(&address.port())) {
            problems.push(complaint().say(" is not among the ").and("reserved-ports"));
        }
    }
}
