//! Whether the relay would start on this host with a configuration, and how well it would run: findings, each with what to
//! do about it.
//!
//! Each file looks at one thing: it reads what there is to know into numbers and names, and a pure function judges them.
//! Nothing here sends a packet, but to whoever is asked about users, or changes anything but what the process itself may open.

mod addresses;
mod certificates;
mod clock;
mod firewall;
mod interfaces;
mod kernel;
mod places;
mod ports;
mod read;
mod room;
mod sockets;
mod users;

use std::fmt;

pub(crate) use kernel::OLDEST as OLDEST_KERNEL;
use serde::Serialize;

use crate::config::Config;
use crate::datapath::XdpMode;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// Worth to know.
    Notice,
    /// The relay would start, and not all would work, or not well.
    Warning,
    /// The relay would not start.
    Error,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What it is about, in one word.
    pub about: &'static str,
    /// What was found.
    pub text: String,
    /// What to do, where something should be done.
    pub advice: Option<String>,
}

/// Looks at everything.
pub fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(kernel::check(config));
    findings.extend(interfaces::check(config));
    findings.extend(addresses::check(config));
    findings.extend(sockets::check(config));
    findings.extend(ports::check(config));
    findings.extend(room::check(config));
    findings.extend(certificates::check(config));
    findings.extend(places::check(config));
    findings.extend(users::check(config));
    findings.extend(firewall::check(config));
    findings.extend(clock::check());
    findings
}

/// Whether the relay would start.
pub fn would_start(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != Level::Error)
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Two lines at most: what was found, and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, about, text, advice } = self;
        write!(f, "{level:<8} {about}: {text}")?;
        advice.as_ref().map_or(Ok(()), |advice| write!(f, "\n{:9}{advice}", ""))
    }
}

/// Findings about one thing.
struct Findings {
    about: &'static str,
    list: Vec<Finding>,
}

impl Findings {
    fn about(about: &'static str) -> Self {
        Self { about, list: Vec::new() }
    }

    fn ok(&mut self, text: impl Into<String>) {
        self.list.push(Finding { level: Level::Ok, about: self.about, text: text.into(), advice: None });
    }

    fn add(&mut self, level: Level, text: impl Into<String>, advice: impl Into<String>) {
        let advice = Some(advice.into()).filter(|advice| !advice.is_empty());
        self.list.push(Finding { level, about: self.about, text: text.into(), advice });
    }

    fn notice(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Notice, text, advice);
    }

    fn warning(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Warning, text, advice);
    }

    fn error(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Error, text, advice);
    }

    /// What keeps XDP away: the relay does not start where it must have it.
    fn without_xdp(&mut self, mode: XdpMode, text: impl Into<String>, advice: impl Into<String>) {
        match mode {
            XdpMode::Off => {}
            XdpMode::Auto => self.warning(format!("{}: userspace relays", text.into()), advice),
            XdpMode::Native | XdpMode::Generic => self.error(text, advice),
        }
    }

    /// All of them; where there are none, that all is well.
    fn or_ok(mut self, text: impl Into<String>) -> Vec<Finding> {
        if self.list.is_empty() {
            self.ok(text);
        }
        self.list
    }
}

/// Whether packets would come by the program at all, as the relay decides it: not where clients come by connections only,
/// or only from this host, unless interfaces are named.
fn wants_xdp(config: &Config) -> bool {
    let datagrams: Vec<_> = config.listeners.iter().filter(|listener| !listener.transport.is_stream()).collect();
    let is_of_use = datagrams.iter().any(|listener| !listener.address.ip().is_loopback());
    match config.xdp {
        XdpMode::Off => false,
        XdpMode::Auto => is_of_use || !config.interfaces.is_empty(),
        XdpMode::Native | XdpMode::Generic => true,
    }
}

#[cfg(test)]
fn levels(findings: &[Finding]) -> Vec<Level> {
    findings.iter().map(|finding| finding.level).collect()
}

/// Expects one finding of a level with these words, in its text or its advice.
#[cfg(test)]
#[track_caller]
fn expect(findings: &[Finding], level: Level, words: &str) {
    let is_it = |finding: &&Finding| finding.level == level && finding.to_string().contains(words);
    assert!(findings.iter().any(|finding| is_it(&finding)), "{level} with `{words}` is missing: {findings:#?}");
}

#[cfg(test)]
mod tests {
    use crate::cli::settings::{Flags, Source};
    use crate::config::Config;

    /// A configuration with these listeners and relay addresses, and a user.
    pub(super) fn config(listen: &[&str], relay: &[&str]) -> Config {
        let variables = [
            ("HAIRPIN_CONFIG", "/dev/null".to_owned()),
            ("HAIRPIN_LISTEN", listen.join("\n")),
            ("HAIRPIN_RELAY_ADDRESS", relay.join("\n")),
            ("HAIRPIN_USER", "alice:opensesame".to_owned()),
        ];
        let environment = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let config = Source::with_environment(Flags::default(), environment).load().map(|loaded| loaded.config);
        let mut config = config.unwrap_or_else(|problems| panic!("{problems:?}"));
        config.certificates.clear();
        config
    }
}
