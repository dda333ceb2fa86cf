//! What is said of a new session, however it is made.

use crate::api::ice::{Family, Timeouts};

/// What its owner calls it, how it is reached, and how long it lives.
#[derive(Debug, clap::Args)]
pub(super) struct Terms {
    /// What to call the session
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) label: String,

    /// The IP versions that its legs are reached by [default: all that the relay has]
    #[arg(long = "family", value_name = "ipv4|ipv6", value_parser = family)]
    pub(super) families: Vec<Family>,

    #[command(flatten)]
    pub(super) waits: Waits,
}

/// How long a session lives without what it lives for.
#[derive(Debug, clap::Args)]
pub(super) struct Waits {
    /// How long both legs may take to have a remote, such as 30s or 5m [default of a new session: 5m]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    setup: Option<u32>,

    /// How long a remote may prove nothing before it is sent nothing more [default of a new session: 30s]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    consent: Option<u32>,

    /// How long a leg without consent is waited for [default of a new session: 1m]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    paused: Option<u32>,

    /// How long it lives without media; 0s for as long as there is consent [default of a new session: 5m]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    idle: Option<u32>,
}

impl Waits {
    pub(super) fn timeouts(&self) -> Timeouts {
        let Self { setup, consent, paused, idle } = *self;
        Timeouts { setup, consent, paused, idle }
    }
}

fn family(text: &str) -> Result<Family, String> {
    match text {
        "ipv4" => Ok(Family::Ipv4),
        "ipv6" => Ok(Family::Ipv6),
        _ => Err("ipv4 or ipv6 is needed".to_owned()),
    }
}

fn seconds(text: &str) -> Result<u32, String> {
    let duration = humantime::parse_duration(text).ok().filter(|duration| duration.subsec_nanos() == 0);
    let seconds = duration.and_then(|duration| u32::try_from(duration.as_secs()).ok());
    seconds.ok_or_else(|| "whole seconds are needed, such as 30s or 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_seconds() {
        assert_eq!(seconds("30s"), Ok(30));
        assert_eq!(seconds("1h 5m"), Ok(3_900));
        assert_eq!(seconds("0s"), Ok(0));
        for bad in ["", "soon", "30", "1500ms", "200years", "-1s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
