//! Which store, and where: what an operator writes as a URL.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Which store, and where. Neither `Display` nor `Debug` print the password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    pub(crate) place: Place,
}

/// The kinds of stores that a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A file of SQLite.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
    /// A Redis server.
    Redis,
}

/// Why a URL names no store. What it says is not repeated: there may be a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// It begins with nothing that is known.
    #[error("not a store: use sqlite://, postgres://, postgresql://, redis://, rediss:// or redis+unix://")]
    Scheme,
    /// A file is named in a way that depends on where the daemon was started.
    #[error("an absolute path is needed, without parameters: sqlite:///path/to.db")]
    SqlitePath,
    /// A socket is named in a way that depends on where the daemon was started.
    #[error("an absolute path is needed: redis+unix:///path/to/socket?db=0")]
    SocketPath,
    /// There is no host.
    #[error("a host is needed, as HOST or HOST:PORT (for a Unix socket of PostgreSQL: ?host=/folder)")]
    Host,
    /// What follows the host is no port.
    #[error("the port is a number from 1 to 65535; / ? # @ and % in a password are written %2F %3F %23 %40 and %25")]
    Port,
    /// There is no user.
    #[error("a user is needed: postgres://USER:PASSWORD@HOST/DATABASE")]
    User,
    /// What follows the host is no database.
    #[error("the database of Redis is a number: redis://HOST/0")]
    Database,
    /// A percent sign is not followed by two hexadecimal digits, or what they mean is no text.
    #[error("% is followed by two hexadecimal digits; the sign itself is written %25")]
    Escape,
    /// There is a parameter that is not known.
    #[error(
        "parameters are host, port, user, password, dbname, sslmode and sslrootcert (PostgreSQL), sslrootcert (rediss), \
         and db, user and password (redis+unix)"
    )]
    Parameter,
    /// The parameter sslmode is something else.
    #[error("sslmode is disable, require or verify-full; the last two check the server's certificate")]
    SslMode,
    /// A certificate where there is no TLS.
    #[error("sslrootcert needs TLS, and TLS is not used over a Unix socket or with sslmode=disable")]
    RootCertificate,
}

/// What a URL was taken apart into.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Postgres(Server),
    Redis(Server),
}

/// A server and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    /// The name of a database of PostgreSQL, the number of one of Redis.
    pub(crate) database: String,
    pub(crate) tls: Option<Tls>,
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name or an address.
    Name(String),
    /// A Unix socket, or the folder that it is in (PostgreSQL).
    Unix(PathBuf),
}

/// TLS that checks the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    /// The authorities that may have signed it; the system's if there is none.
    pub(crate) roots: Option<PathBuf>,
}

const POSTGRES_PORT: u16 = 5432;
const REDIS_PORT: u16 = 6379;

impl StoreUrl {
    /// What kind of a store it is.
    pub fn kind(&self) -> StoreKind {
        match self.place {
            Place::Sqlite(_) => StoreKind::Sqlite,
            Place::Postgres(_) => StoreKind::Postgres,
            Place::Redis(_) => StoreKind::Redis,
        }
    }

    /// The same with a password that was kept elsewhere. A file has none.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        if let Place::Postgres(server) | Place::Redis(server) = &mut self.place {
            server.password = Some(password.to_owned());
        }
        self
    }
}

impl StoreKind {
    /// The name in options and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(StoreUrlError::Scheme)?;
        let place = match scheme {
            "sqlite" => Place::Sqlite(sqlite(rest)?),
            "postgres" | "postgresql" => Place::Postgres(postgres(rest)?),
            "redis" => Place::Redis(redis(rest, false)?),
            "rediss" => Place::Redis(redis(rest, true)?),
            "redis+unix" => Place::Redis(redis_socket(rest)?),
            _ => return Err(StoreUrlError::Scheme),
        };
        Ok(Self { place })
    }
}

fn sqlite(rest: &str) -> Result<PathBuf, StoreUrlError> {
    let path = PathBuf::from(decode(rest)?);
    if path.is_absolute() && !rest.contains(['?', '#']) { Ok(path) } else { Err(StoreUrlError::SqlitePath) }
}

fn postgres(rest: &str) -> Result<Server, StoreUrlError> {
    let parts = Parts::of(rest)?;
    let (mut host, mut port) = (parts.host.clone(), parts.port);
    let (mut user, mut password) = (parts.user.clone(), parts.password.clone());
    let mut database = parts.path.clone();
    let (mut mode, mut roots) = (None, None);
    for (name, value) in parts.parameters {
        match name.as_str() {
            "host" => host = value,
            "port" => port = Some(parse_port(&value)?),
            "user" => user = Some(value),
            "password" => password = Some(value),
            "dbname" => database = value,
            "sslmode" => mode = Some(value),
            "sslrootcert" => roots = Some(PathBuf::from(value)),
            _ => return Err(StoreUrlError::Parameter),
        }
    }
    let user = user.filter(|user| !user.is_empty()).ok_or(StoreUrlError::User)?;
    if database.is_empty() {
        database.clone_from(&user);
    }
    let (host, is_near) = match host.as_str() {
        "" => return Err(StoreUrlError::Host),
        folder if folder.starts_with('/') => (Host::Unix(folder.into()), true),
        name => (Host::Name(name.to_owned()), is_loopback(name)),
    };
    let is_encrypted = match mode.as_deref() {
        // Nobody listens between a server and a client of one host.
        None => !is_near || roots.is_some(),
        Some("disable") => false,
        Some("require" | "verify-full") => true,
        Some(_) => return Err(StoreUrlError::SslMode),
    };
    let is_encrypted = is_encrypted && matches!(host, Host::Name(_));
    if roots.is_some() && !is_encrypted {
        return Err(StoreUrlError::RootCertificate);
    }
    let tls = is_encrypted.then_some(Tls { roots });
    Ok(Server { host, port: port.unwrap_or(POSTGRES_PORT), user: Some(user), password, database, tls })
}

fn redis(rest: &str, is_encrypted: bool) -> Result<Server, StoreUrlError> {
    let parts = Parts::of(rest)?;
    if parts.host.is_empty() {
        return Err(StoreUrlError::Host);
    }
    let mut roots = None;
    for (name, value) in parts.parameters {
        match name.as_str() {
            "sslrootcert" if is_encrypted => roots = Some(PathBuf::from(value)),
            "sslrootcert" => return Err(StoreUrlError::RootCertificate),
            _ => return Err(StoreUrlError::Parameter),
        }
    }
    Ok(Server {
        host: Host::Name(parts.host),
        port: parts.port.unwrap_or(REDIS_PORT),
        user: parts.user.filter(|user| !user.is_empty()),
        password: parts.password,
        database: parse_redis_database(&parts.path)?,
        tls: is_encrypted.then_some(Tls { roots }),
    })
}

fn redis_socket(rest: &str) -> Result<Server, StoreUrlError> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = PathBuf::from(decode(path)?);
    if !path.is_absolute() {
        return Err(StoreUrlError::SocketPath);
    }
    let (mut user, mut password, mut database) = (None, None, String::new());
    for (name, value) in parse_parameters(query)? {
        match name.as_str() {
            "db" => database = value,
            "user" => user = Some(value),
            "password" => password = Some(value),
            _ => return Err(StoreUrlError::Parameter),
        }
    }
    let database = parse_redis_database(&database)?;
    Ok(Server { host: Host::Unix(path), port: REDIS_PORT, user, password, database, tls: None })
}

/// What all URLs of servers have: `[user[:password]@]host[:port][/path][?parameters]`.
struct Parts {
    user: Option<String>,
    password: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
    parameters: Vec<(String, String)>,
}

impl Parts {
    fn of(rest: &str) -> Result<Self, StoreUrlError> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').ok_or(login)) {
            Some(Ok((user, password))) => (Some(decode(user)?), Some(decode(password)?)),
            Some(Err(user)) => (Some(decode(user)?), None),
            None => (None, None),
        };
        let (host, port) = host_and_port(place)?;
        Ok(Self { user, password, host, port, path: decode(path)?, parameters: parse_parameters(query)? })
    }
}

fn host_and_port(place: &str) -> Result<(String, Option<u16>), StoreUrlError> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(StoreUrlError::Host)?;
            if host.parse::<IpAddr>().is_err() {
                return Err(StoreUrlError::Host);
            }
            match rest.strip_prefix(':') {
                None if rest.is_empty() => (host, None),
                None => return Err(StoreUrlError::Port),
                Some(port) => (host, Some(port)),
            }
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    Ok((decode(host)?, port.map(parse_port).transpose()?))
}

fn parse_port(text: &str) -> Result<u16, StoreUrlError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| is_number && port != 0).ok_or(StoreUrlError::Port)
}

fn parse_redis_database(text: &str) -> Result<String, StoreUrlError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() <= 5;
    let number = if text.is_empty() { "0" } else { text };
    if is_number { Ok(number.to_owned()) } else { Err(StoreUrlError::Database) }
}

fn parse_parameters(query: &str) -> Result<Vec<(String, String)>, StoreUrlError> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or(StoreUrlError::Parameter)?;
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Text whose odd characters were written as percent signs and digits.
fn decode(text: &str) -> Result<String, StoreUrlError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (high, low) = (digit().ok_or(StoreUrlError::Escape)?, digit().ok_or(StoreUrlError::Escape)?);
            decoded.push((high * 16 + low) as u8);
        } else {
            decoded.push(byte);
        }
    }
    let text = String::from_utf8(decoded).map_err(|_| StoreUrlError::Escape)?;
    if text.contains('\0') { Err(StoreUrlError::Escape) } else { Ok(text) }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Sqlite(path) => write!(f, "sqlite://{}", Printable(path)),
            Place::Postgres(server) => write!(f, "postgres://{server}"),
            Place::Redis(Server { host: Host::Unix(path), database, .. }) => {
                write!(f, "redis+unix://{}?db={database}", Printable(path))
            }
            Place::Redis(server) => write!(f, "redis{}://{server}", if server.tls.is_some() { "s" } else { "" }),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{}@", Printable(Path::new(user)))?;
        }
        let (port, database) = (self.port, Printable(Path::new(&self.database)));
        match &self.host {
            Host::Name(name) if name.contains(':') => write!(f, "[{name}]:{port}/{database}"),
            Host::Name(name) => write!(f, "{}:{port}/{database}", Printable(Path::new(name))),
            Host::Unix(folder) => write!(f, "/{database}?host={}&port={port}", Printable(folder)),
        }
    }
}

/// Text for a line of a log, where control characters have no place.
struct Printable<'a>(&'a Path);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string_lossy().chars().try_for_each(|character| {
            if character.is_control() { f.write_char(char::REPLACEMENT_CHARACTER) } else { f.write_char(character) }
        })
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}
