//! What is said of a new session, however it is made.

use std::net::IpAddr;

use crate::api::ice::{Family, Limits, Timeouts};
use crate::cli::value::{bit_rate, packet_rate};
use crate::config::Rate;

/// What its owner calls it, how it is reached, how much it may carry, and how long it lives.
#[derive(Debug, clap::Args)]
pub(super) struct Terms {
    /// What to call the session
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) label: String,

    /// The IP versions that its legs are reached by [default: all that the relay has]
    #[arg(long = "family", value_name = "ipv4|ipv6", value_parser = family)]
    pub(super) families: Vec<Family>,

    /// One of the relay's addresses that its legs are reached at, the bound or the public one; may be repeated [default: all]
    #[arg(long = "address", value_name = "IP")]
    pub(super) addresses: Vec<IpAddr>,

    #[command(flatten)]
    pub(super) caps: Caps,

    #[command(flatten)]
    pub(super) waits: Waits,
}

/// How much of a session's own each leg may be sent.
#[derive(Debug, clap::Args)]
pub(super) struct Caps {
    /// Datagrams a second that each leg may be sent, for each component; one second's worth may come at once. off for no more
    /// than --allocation-packet-rate allows in general [default of a new session: off]
    #[arg(long, value_name = "N|off", value_parser = packet_rate)]
    packet_rate: Option<Rate>,

    /// Bits of application data a second, likewise: 500k, 20M, 1G, or off for no more than --allocation-bit-rate allows in general
    /// [default of a new session: off]
    #[arg(long, value_name = "BITS|off", value_parser = bit_rate)]
    bit_rate: Option<Rate>,
}

impl Caps {
    pub(super) fn limits(&self) -> Limits {
        Limits { packets: self.packet_rate.map(Rate::number), bytes: self.bit_rate.map(|rate| rate.number() / 8) }
    }
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
    fn rates_are_datagrams_and_bits_and_what_is_off_is_none() {
        let limits = |packet_rate: Option<&str>, bit_rate: Option<&str>| {
            let [packet_rate, bit_rate] = [packet_rate.map(super::packet_rate), bit_rate.map(super::bit_rate)]
                .map(|rate| rate.map(Result::unwrap));
            Caps { packet_rate, bit_rate }.limits()
        };
        assert_eq!(limits(Some("2k"), Some("4M")), Limits { packets: Some(2_000), bytes: Some(500_000) });
        assert_eq!(limits(Some("off"), Some("off")), Limits { packets: Some(0), bytes: Some(0) });
        assert_eq!(limits(None, None), Limits::default());
    }

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
