//! `hairpin ice create`: what legs and streams a session has.

use super::terms::Terms;
use crate::api::ice::{Create, Leg, StreamRequest};

/// Create a session, and show where its legs are reached.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What leg A speaks: ice; plain, or plain:latch where the remote is whoever sends first; or turn:ID, where it is an
    /// allocation of this relay
    #[arg(long, value_name = "LEG", value_parser = leg)]
    a: Leg,

    /// What leg B speaks
    #[arg(long, value_name = "LEG", value_parser = leg)]
    b: Leg,

    /// A stream: its name, and behind a colon how many components it has, 1 or 2 [default: one of one component]
    #[arg(long = "stream", value_name = "NAME[:COMPONENTS]", value_parser = stream)]
    streams: Vec<StreamRequest>,

    #[command(flatten)]
    terms: Terms,
}

impl Args {
    pub(super) fn request(&self) -> Create {
        let Self { a, b, streams, terms } = self;
        Create {
            label: terms.label.clone(),
            a: a.clone(),
            b: b.clone(),
            streams: streams.clone(),
            families: terms.families.clone(),
            addresses: terms.addresses.clone(),
            limits: terms.caps.limits(),
            timeouts: terms.waits.timeouts(),
        }
    }
}

fn leg(text: &str) -> Result<Leg, String> {
    match text.split_once(':') {
        None if text == "ice" => Ok(Leg::Ice {}),
        None if text == "plain" => Ok(Leg::Plain { latch: false }),
        Some(("plain", "latch")) => Ok(Leg::Plain { latch: true }),
        Some(("turn", id)) if !id.is_empty() => Ok(Leg::Turn { allocation: id.to_owned() }),
        _ => Err("ice, plain, plain:latch or turn:ID is needed, with the id of an allocation".to_owned()),
    }
}

fn stream(text: &str) -> Result<StreamRequest, String> {
    let (name, components) = text.rsplit_once(':').unwrap_or((text, "1"));
    let needed = "NAME or NAME:COMPONENTS is needed, such as audio or audio:2";
    let components = components.parse().map_err(|_| needed.to_owned())?;
    if name.is_empty() { Err(needed.to_owned()) } else { Ok(StreamRequest { name: name.to_owned(), components }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_is_a_word_with_what_it_needs() {
        assert_eq!(leg("ice"), Ok(Leg::Ice {}));
        assert_eq!(leg("plain"), Ok(Leg::Plain { latch: false }));
        assert_eq!(leg("plain:latch"), Ok(Leg::Plain { latch: true }));
        assert_eq!(leg("turn:0-12"), Ok(Leg::Turn { allocation: "0-12".to_owned() }));
        for bad in ["", "ICE", "ice:latch", "plain:", "plain:fixed", "turn", "turn:"] {
            assert!(leg(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stream_has_one_component_unless_it_says_more() {
        let request = |name: &str, components| Ok(StreamRequest { name: name.to_owned(), components });
        assert_eq!(stream("audio"), request("audio", 1));
        assert_eq!(stream("audio:2"), request("audio", 2));
        assert_eq!(stream("a:b:2"), request("a:b", 2));
        for bad in ["", ":2", "audio:", "audio:two"] {
            assert!(stream(bad).is_err(), "{bad}");
        }
    }
}
