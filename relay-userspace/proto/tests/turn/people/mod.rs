//! The people of [`invariants_of_rights`](crate::invariants_of_rights): what they sign with, what is known of them in
//! advance, and what the directory says.

mod judge;

use std::net::SocketAddr;
use std::sync::Arc;

use hairpin_proto::address::Transport;
use hairpin_proto::stun::{LongTermKey, PasswordKeys};
use hairpin_proto::turn::{
    AccessToken, Answer, Credentials, Grant, MacKey, Realm, Settings, Subject, TokenTimestamp, User,
};

use crate::harness::{REALM, config, socket};
use crate::tokens::{AUDIENCE, token_key};

pub(crate) use judge::{AdmissionDenied, Case, Denied, Known, Memory, Proof};

pub(crate) const REALMS: [&str; 2] = [REALM, "example.net"];
/// Where clients of the second realm come by.
pub(crate) const OTHER_SERVER: &str = "192.0.2.16:3478";
/// Whose tokens are taken: the name of their key.
pub(crate) const HOLDER: &str = "key";
const NORTH: &str = "north";
const SOUTH: &str = "south";

/// What somebody signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signing {
    /// The first password, or one that it was changed to.
    Password(u8),
    Secret(&'static str),
    /// The key in a token.
    Mac(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) made: u64,
    pub(crate) lifetime: u32,
    pub(crate) mac: u8,
}

/// All that a request says of its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) realm: usize,
    pub(crate) name: String,
    pub(crate) signing: Signing,
    pub(crate) token: Option<Token>,
    /// When its nonce was made.
    pub(crate) nonce: u64,
}

/// Somebody who would like to relay.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Person {
    /// Known in advance, or not any more.
    Alice,
    /// Known in advance, with an address that is kept for him.
    Bob,
    /// Known to the directory.
    Carol,
    /// Known to it, with an address and a quota.
    Dave,
    /// Has a credential of a secret that is known in advance, and an address.
    Erin,
    /// Has one of a secret that the directory knows.
    Frank,
    /// Has a token.
    Holder,
}

pub(crate) const PEOPLE: [Person; 7] =
    [Person::Alice, Person::Bob, Person::Carol, Person::Dave, Person::Erin, Person::Frank, Person::Holder];

/// What somebody knows, right or wrong: the second password, another's secret; and how long it is good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knows {
    pub(crate) password: u8,
    pub(crate) seconds: u32,
}

impl Person {
    pub(crate) fn credential(self, realm: usize, now: u64, knows: Knows) -> Credential {
        let is_right = knows.password == 0;
        let expires = now - 20 + u64::from(knows.seconds);
        let (name, signing) = match self {
            Self::Alice => ("alice".to_owned(), Signing::Password(knows.password)),
            Self::Bob => ("bob".to_owned(), Signing::Password(knows.password)),
            Self::Carol => ("carol".to_owned(), Signing::Password(knows.password)),
            Self::Dave => ("dave".to_owned(), Signing::Password(knows.password)),
            Self::Erin => (format!("{expires}:erin"), Signing::Secret(if is_right { NORTH } else { "west" })),
            Self::Frank => (format!("{expires}:frank"), Signing::Secret(if is_right { SOUTH } else { "west" })),
            Self::Holder => (HOLDER.to_owned(), Signing::Mac(knows.password)),
        };
        let token = Token { made: now - 20, lifetime: knows.seconds, mac: 0 };
        let token = matches!(self, Self::Holder).then_some(token);
        Credential { realm, name, signing, token, nonce: now }
    }
}

impl Credential {
    pub(crate) fn key(&self) -> LongTermKey {
        let realm = REALMS[self.realm];
        match self.signing {
            Signing::Password(version) => LongTermKey::derive(&self.name, realm, &password(version)),
            Signing::Secret(secret) => {
                let (expires, name) = expiry_and_account(&self.name).expect("it is a name of its own kind");
                let (_, password) = Credentials::mint(secret, name, expires);
                LongTermKey::derive(&self.name, realm, &password)
            }
            Signing::Mac(mac) => mac_key(mac).to_key(),
        }
    }

    pub(crate) fn sealed_token(&self) -> Option<Vec<u8>> {
        let Token { made, lifetime, mac } = self.token?;
        let token = AccessToken { mac_key: mac_key(mac), timestamp: TokenTimestamp::from_unix(made), lifetime };
        Some(token_key(1).seal(AUDIENCE, &token, [6; 12]))
    }

    /// Whose quota counts.
    pub(crate) fn account(&self) -> &str {
        expiry_and_account(&self.name).map_or(&self.name, |(_, account)| account)
    }
}

fn mac_key(mac: u8) -> MacKey {
    MacKey::new(&[mac; 20]).expect("20 bytes are enough")
}

fn password(version: u8) -> String {
    format!("password {version}")
}

pub(crate) fn expiry_and_account(name: &str) -> Option<(u64, &str)> {
    let (expires, account) = name.split_once(':')?;
    Some((expires.parse().ok()?, account))
}

/// What the settings of one realm are.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a matter of its own")]
pub(crate) struct RealmRules {
    pub(crate) asks_for_users: bool,
    pub(crate) asks_for_admission: bool,
    pub(crate) knows_alice: bool,
    pub(crate) knows_secret: bool,
    pub(crate) takes_tokens: bool,
    pub(crate) knows_token_key: bool,
    pub(crate) allocations: usize,
    pub(crate) allocations_per_user: usize,
}

/// What the settings are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) realms: [RealmRules; 2],
    /// Whether there is the second.
    pub(crate) has_second: bool,
    pub(crate) has_reserved: bool,
    pub(crate) allocations_per_source: usize,
}

/// What is kept for somebody, whoever tells of it. Of the ports, the last is not of the reserved ones.
pub(crate) fn granted(account: &str) -> Grant {
    let addresses: &[&str] = match account {
        "bob" => &["198.51.100.15:50001"],
        "dave" => &["198.51.100.15:50002", "198.51.100.15:50003"],
        "erin" => &["198.51.100.15:50004", "198.51.100.15:51000"],
        _ => &[],
    };
    let addresses: Vec<SocketAddr> = addresses.iter().map(|address| socket(address)).collect();
    Grant { addresses, allocations: (account == "dave").then_some(1) }
}

impl Rules {
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = config().settings;
        settings.realms = (0..if self.has_second { 2 } else { 1 }).map(|at| Arc::new(self.realm(at))).collect();
        settings.reserved_ports = self.has_reserved.then_some(50_000..=50_009);
        settings.limits.allocations_per_source = self.allocations_per_source;
        settings.mobility = Some([5; 32]);
        settings
    }

    fn realm(&self, at: usize) -> Realm {
        let rules = &self.realms[at];
        let mut credentials = Credentials::new(REALMS[at]);
        for account in ["bob", "erin"] {
            credentials.grant(account, granted(account));
        }
        credentials.add_user("bob", &password(0));
        if rules.knows_alice {
            credentials.add_user("alice", &password(0));
        }
        if rules.knows_secret {
            credentials.add_secret(NORTH);
        }
        if rules.knows_token_key {
            credentials.add_token_key(HOLDER, token_key(1));
        }
        let listeners = [Transport::Udp, Transport::Tcp].map(|of| (of, socket(OTHER_SERVER))).to_vec();
        Realm {
            listeners: if at == 1 { listeners } else { Vec::new() },
            asks_for_users: rules.asks_for_users,
            asks_for_admission: rules.asks_for_admission,
            token_audience: rules.takes_tokens.then(|| AUDIENCE.to_owned()),
            allocations: rules.allocations,
            allocations_per_user: rules.allocations_per_user,
            ..Realm::new(REALMS[at], credentials)
        }
    }
}

/// What was told of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    User {
        name: String,
        password: u8,
        grant: Grant,
        is_admitted: bool,
    },
    /// Mallory, by mistake: with keys of whom was asked about.
    Another(String),
    Secret(&'static str, Grant),
    TokenKey,
    Admitted(Grant),
    Refused,
    Unavailable,
}

impl Told {
    pub(crate) fn answer(&self, realm: &str) -> Answer {
        match self.clone() {
            Self::User { name, password: version, grant, is_admitted } => {
                let keys = PasswordKeys::derive(&name, realm, &password(version));
                Answer::User(User { name: name.into(), keys, grant, is_admitted })
            }
            Self::Another(name) => {
                let keys = PasswordKeys::derive(&name, realm, &password(0));
                let grant = Grant::default();
                Answer::User(User { name: "mallory".into(), keys, grant, is_admitted: true })
            }
            Self::Secret(secret, grant) => Answer::Secrets { secrets: vec![secret.to_owned()], grant },
            Self::TokenKey => Answer::TokenKey(token_key(1)),
            Self::Admitted(grant) => Answer::Admitted(grant),
            Self::Refused => Answer::Refused,
            Self::Unavailable => Answer::Unavailable,
        }
    }
}

/// Whom somebody else knows in a realm, at the moment.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a matter of its own")]
pub(crate) struct Directory {
    pub(crate) alice: bool,
    pub(crate) carol: Option<u8>,
    pub(crate) dave: Option<u8>,
    pub(crate) knows_secret: bool,
    pub(crate) knows_token_key: bool,
    /// Whether whoever is known is admitted with that.
    pub(crate) admits_at_once: bool,
    /// Whether anybody is.
    pub(crate) admits: bool,
    /// How many allocations one may have who is.
    pub(crate) admits_to: Option<u32>,
}

impl Directory {
    pub(crate) fn ask(&self, subject: &Subject) -> Told {
        let user = |name: &str, password: u8| Told::User {
            name: name.to_owned(),
            password,
            grant: granted(name),
            is_admitted: self.admits_at_once,
        };
        match subject {
            Subject::User(name) => match (&**name, expiry_and_account(name)) {
                (_, Some((_, account))) if self.knows_secret => Told::Secret(SOUTH, granted(account)),
                ("alice", _) if self.alice => user("alice", 0),
                ("carol", _) => self.carol.map_or(Told::Refused, |password| user("carol", password)),
                ("dave", _) => self.dave.map_or(Told::Refused, |password| user("dave", password)),
                _ => Told::Refused,
            },
            Subject::TokenKey(_) if self.knows_token_key => Told::TokenKey,
            Subject::Admission { .. } if self.admits => {
                Told::Admitted(Grant { allocations: self.admits_to, ..Grant::default() })
            }
            Subject::UserHash(_) | Subject::TokenKey(_) | Subject::Admission { .. } => Told::Refused,
        }
    }
}
