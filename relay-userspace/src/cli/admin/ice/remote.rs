//! `hairpin ice remote`: who is on the other side of a leg.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ArgGroup;

use super::super::failed::Failed;
use super::super::place::given;
use super::exchange::{WANTED, read};
use super::side;
use crate::api::ice::{Agent, Described, Plain, PlainAddress, Remote, Side};

/// Say who is on the other side of a leg: an ICE agent, addresses without ICE, or a session description.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("who").args(["sdp", "ufrag", "addresses", "latch"]).required(true).multiple(true))]
pub(super) struct Args {
    /// The session's id, as `list` shows it.
    #[arg(value_parser = given)]
    pub(super) id: String,

    /// Which leg: a or b.
    #[arg(value_parser = side)]
    pub(super) leg: Side,

    /// A session description, or - for standard input: its media sections are the session's streams, in order
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ufrag", "addresses", "latch"])]
    sdp: Option<PathBuf>,

    /// The username fragment of an ICE agent
    #[arg(long, value_name = "TEXT", requires = "pwd", conflicts_with_all = ["addresses", "latch"])]
    ufrag: Option<String>,

    /// The password of the agent
    #[arg(long, value_name = "TEXT", requires = "ufrag")]
    pwd: Option<String>,

    /// A candidate of the agent, such as "candidate:1 1 UDP 2130706431 198.51.100.7 4000 typ host"
    #[arg(long = "candidate", value_name = "TEXT", requires = "ufrag")]
    candidates: Vec<String>,

    /// The stream that its candidates are of [default: the first]
    #[arg(long, value_name = "NAME", requires = "ufrag")]
    stream: Option<String>,

    /// The agent is lite, too: media goes to the best of its candidates
    #[arg(long, requires = "ufrag")]
    lite: bool,

    /// There will be no more candidates
    #[arg(long, requires = "ufrag")]
    end_of_candidates: bool,

    /// Where a component of a stream is reached without ICE, such as 198.51.100.7:4000 or audio/2=198.51.100.7:4001
    #[arg(long = "address", value_name = "[STREAM[/COMPONENT]=]IP:PORT", value_parser = address)]
    addresses: Vec<PlainAddress>,

    /// Whoever sends first takes the remote's place, without ICE
    #[arg(long)]
    latch: bool,
}

impl Args {
    pub(super) fn request(&self) -> Result<Remote, Failed> {
        if let Some(file) = &self.sdp {
            return Ok(Remote::Described(Described { sdp: read(file, WANTED)? }));
        }
        let (Some(ufrag), Some(pwd)) = (self.ufrag.clone(), self.pwd.clone()) else {
            return Ok(Remote::Plain(Plain { addresses: self.addresses.clone(), latch: self.latch }));
        };
        let Self { lite, candidates, stream, end_of_candidates, .. } = self;
        let (candidates, stream) = (candidates.clone(), stream.clone());
        Ok(Remote::Agent(Agent { ufrag, pwd, lite: *lite, candidates, stream, end_of_candidates: *end_of_candidates }))
    }
}

fn address(text: &str) -> Result<PlainAddress, String> {
    let needed = || {
        "IP:PORT is needed, or STREAM=IP:PORT, or STREAM/COMPONENT=IP:PORT, such as audio/2=192.0.2.1:5001".to_owned()
    };
    let (place, address) = match text.rsplit_once('=') {
        Some((place, address)) => (Some(place), address),
        None => (None, text),
    };
    let address: SocketAddr = address.parse().map_err(|_| needed())?;
    let (stream, component) = match place.map(|place| place.rsplit_once('/').unwrap_or((place, "1"))) {
        Some((stream, component)) => (Some(stream.to_owned()), component.parse().map_err(|_| needed())?),
        None => (None, 1),
    };
    if stream.as_ref().is_some_and(String::is_empty) {
        Err(needed())
    } else {
        Ok(PlainAddress { stream, component, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_say_whose_it_is() {
        let at = |stream: Option<&str>, component, address: &str| {
            Ok(PlainAddress { stream: stream.map(str::to_owned), component, address: address.parse().unwrap() })
        };
        assert_eq!(address("192.0.2.1:5000"), at(None, 1, "192.0.2.1:5000"));
        assert_eq!(address("audio=[2001:db8::1]:5000"), at(Some("audio"), 1, "[2001:db8::1]:5000"));
        assert_eq!(address("audio/2=192.0.2.1:5001"), at(Some("audio"), 2, "192.0.2.1:5001"));
        assert_eq!(address("a/b/2=192.0.2.1:5001"), at(Some("a/b"), 2, "192.0.2.1:5001"));
        for bad in ["", "192.0.2.1", "audio=", "=192.0.2.1:5000", "/2=192.0.2.1:5000", "audio/x=192.0.2.1:5000"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
