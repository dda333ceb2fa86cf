//! Who is on the other side of a leg, as its owner says it.

use std::net::SocketAddr;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::one;

/// Who is on the other side of a leg: an ICE agent (`ufrag` and `pwd`), addresses without ICE (`addresses`), or what a
/// session description says (`sdp`). The leg becomes of its kind: `addresses` make a leg of ICE a plain one, since that side has
/// no ICE, and an agent makes a plain leg one of ICE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = IceRemote)]
pub enum Remote {
    /// An ICE agent.
    Agent(Agent),
    /// Addresses without ICE.
    Plain(Plain),
    /// A session description: its media sections are the session's streams, in order.
    Described(Described),
}

/// An ICE agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IceAgent)]
pub struct Agent {
    /// Its username fragment.
    pub ufrag: String,
    /// Its password.
    pub pwd: String,
    /// Whether it is lite, too: then nobody checks, and media goes to the best of its candidates.
    #[serde(default)]
    pub lite: bool,
    /// Its candidates, as in a session description, with `a=` or without; 256 at most, and of what is added later, those beyond
    /// are ignored. An empty one, as browsers give it, or `end-of-candidates` means that there will be no more.
    #[serde(default)]
    pub candidates: Vec<String>,
    /// The stream that they are of; the first where nothing is said.
    #[serde(default)]
    pub stream: Option<String>,
    /// Whether there will be no more, of any stream.
    #[serde(default)]
    pub end_of_candidates: bool,
}

/// Addresses without ICE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IcePlain)]
pub struct Plain {
    /// Where media goes. What is not named has no remote, until it latches.
    pub addresses: Vec<PlainAddress>,
    /// Whether the first that sends something takes the remote's place, if the peer rules allow it (`allow-peer`).
    #[serde(default)]
    pub latch: bool,
}

/// Where a component is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IcePlainAddress)]
pub struct PlainAddress {
    /// The stream; the first where nothing is said.
    #[serde(default)]
    pub stream: Option<String>,
    /// 1, or 2 for RTCP.
    #[serde(default = "one")]
    pub component: u16,
    /// IP address and port.
    #[serde(deserialize_with = "address")]
    #[schema(value_type = String)]
    pub address: SocketAddr,
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let needed = "is not an address: IP:PORT is needed, such as 192.0.2.1:5000 or [2001:db8::1]:5000";
    text.parse().map_err(|_| D::Error::custom(format!("`{text}` {needed}")))
}

/// A session description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IceDescribed)]
pub struct Described {
    /// Its text.
    pub sdp: String,
}

impl<'de> Deserialize<'de> for Remote {
    /// By what only one of the kinds has, so that of what is wrong the right thing is told.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn read<T: DeserializeOwned, E: Error>(value: Value) -> Result<T, E> {
            serde_json::from_value(value).map_err(E::custom)
        }
        let value = Value::deserialize(deserializer)?;
        let has = |key: &str| value.get(key).is_some();
        match (has("sdp"), has("addresses"), has("ufrag") || has("pwd")) {
            (true, false, false) => read(value).map(Self::Described),
            (false, true, false) => read(value).map(Self::Plain),
            (false, false, true) => read(value).map(Self::Agent),
            _ => Err(D::Error::custom(
                "either `ufrag` and `pwd` of an ICE agent are needed, or `addresses` without ICE, or a description in `sdp`",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Remote, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_remote_is_of_the_kind_whose_keys_it_has() {
        for (text, expected) in [
            (r#"{"sdp": "v=0"}"#, Remote::Described(Described { sdp: "v=0".to_owned() })),
            (
                r#"{"addresses": [{"address": "[2001:db8::1]:9"}], "latch": true}"#,
                Remote::Plain(Plain {
                    addresses: vec![PlainAddress {
                        stream: None,
                        component: 1,
                        address: "[2001:db8::1]:9".parse().unwrap(),
                    }],
                    latch: true,
                }),
            ),
            (
                r#"{"ufrag": "u", "pwd": "p"}"#,
                Remote::Agent(Agent {
                    ufrag: "u".to_owned(),
                    pwd: "p".to_owned(),
                    lite: false,
                    candidates: Vec::new(),
                    stream: None,
                    end_of_candidates: false,
                }),
            ),
        ] {
            assert_eq!(read(text), Ok(expected.clone()));
            assert_eq!(read(&serde_json::to_string(&expected).unwrap()), Ok(expected), "what is written is read");
        }
    }

    #[test]
    fn what_is_wrong_with_a_remote_is_named() {
        for (text, named) in [
            ("{}", "`addresses`"),
            ("7", "`addresses`"),
            (r#"{"latch": true}"#, "`ufrag`"),
            (r#"{"sdp": "v=0", "ufrag": "u"}"#, "either"),
            (r#"{"ufrag": "u"}"#, "missing field `pwd`"),
            (r#"{"pwd": "p"}"#, "missing field `ufrag`"),
            (r#"{"ufrag": "u", "pwd": "p", "latch": true}"#, "unknown field `latch`"),
            (r#"{"addresses": [{"address": "here"}]}"#, "`here` is not an address: IP:PORT"),
            (r#"{"addresses": [{}]}"#, "missing field `address`"),
            (r#"{"sdp": 1}"#, "integer `1`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
