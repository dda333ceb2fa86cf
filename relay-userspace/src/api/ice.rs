//! Sessions of two legs (ICE-lite or plain), as the admin interface takes and tells them.

#[cfg(test)]
mod example;
mod remote;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

pub use remote::{Agent, Described, Plain, PlainAddress, Remote};

use super::Amount;

/// A session that is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IceCreate)]
pub struct Create {
    /// What its owner calls it: at most 128 characters.
    #[serde(default)]
    pub label: String,
    /// One leg.
    pub a: Leg,
    /// The other leg.
    pub b: Leg,
    /// Its streams; one of one component where nothing is said.
    #[serde(default)]
    pub streams: Vec<StreamRequest>,
    /// The IP versions that its legs are reached by; all that the relay has where nothing is said.
    #[serde(default)]
    pub families: Vec<Family>,
    /// Which of the relay's addresses its legs are reached at, each as it is bound or as it is outside; all where nothing is said.
    /// Of them, those of `families`.
    #[serde(default, deserialize_with = "addresses")]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// How much each leg may be sent.
    #[serde(default)]
    pub limits: Limits,
    /// How long it lives without what it lives for.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// What a leg speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = IceLeg)]
pub enum Leg {
    /// ICE: the leg is a lite agent (RFC 8445 section 2.5).
    Ice {},
    /// Nothing: media goes to an address that is told.
    Plain {
        /// Whether the first that sends something becomes the remote, as for a side behind a NAT. The peer rules hold for it as for
        /// an address that is told: by default no private one is a remote (`allow-peer`).
        #[serde(default)]
        latch: bool,
    },
    /// TURN: the remote is the relayed address of an allocation of this relay, whose client permits the leg's address.
    Turn {
        /// The allocation's id.
        allocation: String,
    },
}

impl Default for Leg {
    fn default() -> Self {
        Self::Ice {}
    }
}

/// A stream that is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IceStreamRequest)]
pub struct StreamRequest {
    /// Its name: 1 to 64 characters, other than those of the others.
    pub name: String,
    /// 1, or 2 where RTCP has an address of its own.
    #[serde(default = "one")]
    pub components: u16,
}

fn one() -> u16 {
    1
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let read = |text: &String| {
        let needed = "is not an IP address, such as 192.0.2.1 or 2001:db8::1";
        text.parse().map_err(|_| D::Error::custom(format!("`{text}` {needed}")))
    };
    texts.iter().map(read).collect()
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = IceFamily)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// How long a session lives without what it lives for, in seconds; what is not said stays as it is, or as is usual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IceTimeouts)]
pub struct Timeouts {
    /// Until both legs have a remote: 300 where nothing is said.
    pub setup: Option<u32>,
    /// For a remote to prove that it still wants what it is sent: 30 where nothing is said, and at most (RFC 7675).
    pub consent: Option<u32>,
    /// For a leg that has lost its consent to get it back: 60 where nothing is said.
    pub paused: Option<u32>,
    /// Without media: 300 where nothing is said, 0 for as long as there is consent; where no leg speaks ICE there is none, and 0 is
    /// 300.
    pub idle: Option<u32>,
}

/// How much each leg may be sent in a second, for each component; one second's worth may come at once, and what is too much is
/// dropped. What is not said stays as it is, and 0 is no limit of its own: `allocation-packet-rate` and `allocation-bit-rate`
/// hold then, which such a limit takes the place of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IceLimits)]
pub struct Limits {
    /// Datagrams: 1 to 1000000000.
    pub packets: Option<u64>,
    /// Bytes of application data: 125 to 125000000000.
    pub bytes: Option<u64>,
}

/// What may be changed about a session; what is not said stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IceUpdate)]
pub struct Update {
    /// What its owner calls it: at most 128 characters.
    pub label: Option<String>,
    /// How much each leg may be sent.
    #[serde(default)]
    pub limits: Limits,
    /// How long it lives without what it lives for.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// Candidates that have come later (RFC 8838). Of a leg's remote, 256 are remembered, and those that come behind them, or behind
/// the end, are ignored: an agent that is not lite is known by its checks all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IceCandidates)]
pub struct Candidates {
    /// The candidates, as in a session description, with `a=` or without; at most 256 at once. An empty one, as browsers give it,
    /// or `end-of-candidates` means that there will be no more.
    #[serde(default)]
    pub candidates: Vec<String>,
    /// The stream that they are of; the first where nothing is said.
    #[serde(default)]
    pub stream: Option<String>,
    /// Whether there will be no more, of any stream.
    #[serde(default)]
    pub end_of_candidates: bool,
}

/// The offer of a new session: of the side that becomes leg A, for the side that becomes leg B.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IceOffer)]
pub struct Offer {
    /// The session description.
    pub sdp: String,
    /// What leg B shall speak: `ice`, or `plain`.
    #[serde(default)]
    pub to: To,
    /// Whether a side without ICE is taken to be where it first sends from, if the peer rules allow that (`allow-peer`).
    #[serde(default)]
    pub latch: bool,
    /// What its owner calls the session: at most 128 characters.
    #[serde(default)]
    pub label: String,
    /// The IP versions that its legs are reached by; all that the relay has where nothing is said.
    #[serde(default)]
    pub families: Vec<Family>,
    /// Which of the relay's addresses its legs are reached at, each as it is bound or as it is outside; all where nothing is said.
    /// Of them, those of `families`.
    #[serde(default, deserialize_with = "addresses")]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// How much each leg may be sent.
    #[serde(default)]
    pub limits: Limits,
    /// How long it lives without what it lives for.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// What a leg that is offered speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = IceTo)]
pub enum To {
    /// ICE.
    #[default]
    Ice,
    /// No ICE.
    Plain,
}

/// A session description of one side of a session that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IceExchange)]
pub struct Exchange {
    /// Whose it is.
    pub from: Side,
    /// The session description.
    pub sdp: String,
}

/// Which leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = IceSide)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// A session, and what the other side is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceExchanged)]
pub struct Exchanged {
    /// The session.
    pub session: Session,
    /// The session description for the other side.
    pub sdp: String,
}

/// All sessions that are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceSessions)]
pub struct Sessions {
    /// The sessions, the oldest first.
    pub sessions: Vec<Session>,
}

/// Which sessions are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Those with this label.
    pub label: Option<String>,
    /// The one with this id.
    pub session: Option<String>,
}

impl Filter {
    /// Whether a session of this id and label is among those that are meant.
    pub fn has(&self, id: &str, label: &str) -> bool {
        self.session.as_ref().is_none_or(|session| session == id) && self.label.as_ref().is_none_or(|of| of == label)
    }

    /// Whether something that has happened is.
    pub fn has_event(&self, event: &Event) -> bool {
        match event {
            Event::Nominated(end) | Event::Moved(end) | Event::ConsentLost(end) | Event::Resumed(end) => {
                self.has(&end.session, &end.label)
            }
            Event::Closed { session, .. } => self.has(&session.id, &session.label),
            // One of them may have been meant.
            Event::Missed { .. } => true,
        }
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceSession)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// What its owner calls it.
    pub label: String,
    /// When it was created.
    pub created: u64,
    /// `new`, `connected` or `paused`.
    pub state: String,
    /// How long it lives without what it lives for: all are said.
    pub timeouts: Timeouts,
    /// How much each leg may be sent: both are said.
    pub limits: Limits,
    /// What was sent on of all its streams, also of those that it has no more.
    pub totals: Totals,
    /// Its streams.
    pub streams: Vec<Stream>,
    /// One leg.
    pub a: LegStatus,
    /// The other leg.
    pub b: LegStatus,
}

/// What was sent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceTotals)]
pub struct Totals {
    /// What has come to leg A and left from leg B.
    pub a_to_b: Amount,
    /// What has come to leg B and left from leg A.
    pub b_to_a: Amount,
    /// The part of both that the kernel has forwarded.
    pub kernel: Amount,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceStream)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// Its components.
    pub components: Vec<Component>,
}

/// A component of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceComponent)]
pub struct Component {
    /// 1, or 2 for RTCP.
    pub component: u16,
    /// Whether the kernel was told to forward it.
    pub in_kernel: bool,
    /// What was sent on.
    #[serde(flatten)]
    pub counts: Totals,
}

/// A leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceLegStatus)]
pub struct LegStatus {
    /// `ice` or `plain`.
    pub kind: String,
    /// `waiting`: none of its components has a remote yet. `nominated`: one at least has. `paused`: one had, that has lost its consent or
    /// is there no more, and none has another.
    pub state: String,
    /// Its username fragment, where it speaks ICE.
    pub ufrag: Option<String>,
    /// Its password, where it speaks ICE.
    pub pwd: Option<String>,
    /// Where it is reached.
    pub candidates: Vec<LocalCandidate>,
    /// What a session description says of it.
    pub sdp: Fragments,
    /// The other side, as far as it has said who it is.
    pub remote: Option<RemoteStatus>,
    /// Where media goes.
    pub selected: Vec<Selected>,
    /// Who has last tried to become the remote of a component that has none, or of one that has.
    pub refused: Vec<Refused>,
}

/// Somebody who has tried to become a remote, and did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceRefused)]
pub struct Refused {
    /// The stream.
    pub stream: String,
    /// 1, or 2 for RTCP.
    pub component: u16,
    /// Where it is.
    #[schema(value_type = String)]
    pub remote: SocketAddr,
    /// `forbidden`: it was the first to send something, and the peer rules forbid it (`allow-peer`, `deny-peer`), or it is of this
    /// relay. Else its check was answered by an error: `unauthenticated` (401: another username fragment or password),
    /// `role_conflict` (487, which is usual once), `bad_request` (400) or `unknown_attribute` (420).
    pub reason: String,
}

/// Lines of a session description (RFC 8839), each with its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceFragments)]
pub struct Fragments {
    /// Those of the session level, before all media sections.
    pub session: String,
    /// Those of the media section of each stream.
    pub media: BTreeMap<String, Fragment>,
}

/// What the media section of a stream says of a leg.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceFragment)]
pub struct Fragment {
    /// The port in its first line.
    pub port: u16,
    /// The lines behind that.
    pub lines: String,
}

/// Where a leg is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceLocalCandidate)]
pub struct LocalCandidate {
    /// The stream.
    pub stream: String,
    /// 1, or 2 for RTCP.
    pub component: u16,
    /// IP address and port.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// As a candidate: `candidate:1 1 UDP 2130706431 192.0.2.1 50000 typ host`. Nothing where no ICE is spoken.
    pub candidate: Option<String>,
}

/// What the other side has said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceRemoteStatus)]
pub struct RemoteStatus {
    /// Its username fragment.
    pub ufrag: String,
    /// Whether it is lite.
    pub lite: bool,
    /// Its candidates.
    pub candidates: Vec<String>,
    /// Whether there will be no more.
    pub end_of_candidates: bool,
}

/// Where the media of a component goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceSelected)]
pub struct Selected {
    /// The stream.
    pub stream: String,
    /// 1, or 2 for RTCP.
    pub component: u16,
    /// The leg's own address.
    #[schema(value_type = String)]
    pub local: SocketAddr,
    /// The other side's.
    #[schema(value_type = String)]
    pub remote: SocketAddr,
    /// When it last proved that it wants to be sent something; nothing for one that does not.
    pub last_check: Option<u64>,
    /// Whether its consent has ended.
    pub lost: bool,
}

/// Something that has happened to a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schema(as = IceEvent)]
pub enum Event {
    /// A leg has a remote now, where it had none.
    Nominated(EndEvent),
    /// A leg has another remote.
    Moved(EndEvent),
    /// A leg's remote has lost its consent: it is sent nothing more.
    ConsentLost(EndEvent),
    /// A leg's remote has consent again.
    Resumed(EndEvent),
    /// A session has ended.
    Closed {
        /// As it was in the end.
        session: Box<Session>,
        /// `deleted`, `setup`, `consent_lost`, `idle`, `drained` or `shutdown`.
        reason: String,
    },
    /// So many events were too much for this reader.
    Missed {
        /// How many.
        count: u64,
    },
}

/// Which end of a session something has happened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = IceEndEvent)]
pub struct EndEvent {
    /// The session's id.
    pub session: String,
    /// What its owner calls it.
    pub label: String,
    /// Which leg.
    pub leg: Side,
    /// The stream.
    pub stream: String,
    /// 1, or 2 for RTCP.
    pub component: u16,
    /// The leg's own address.
    #[schema(value_type = Option<String>)]
    pub local: Option<SocketAddr>,
    /// The other side's.
    #[schema(value_type = Option<String>)]
    pub remote: Option<SocketAddr>,
    /// When.
    pub at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_what_all_of_it_is_true_of() {
        let session = Session::example();
        let filter = |id: Option<&str>, label: Option<&str>| Filter {
            session: id.map(str::to_owned),
            label: label.map(str::to_owned),
        };
        for (filter, is_meant) in [
            (filter(None, None), true),
            (filter(Some("0-17"), None), true),
            (filter(None, Some("call")), true),
            (filter(Some("0-17"), Some("call")), true),
            (filter(Some("0-1"), Some("call")), false),
            (filter(Some("0-17"), Some("cal")), false),
        ] {
            assert_eq!(filter.has(&session.id, &session.label), is_meant, "{filter:?}");
            let end = EndEvent {
                session: session.id.clone(),
                label: session.label.clone(),
                leg: Side::A,
                stream: "audio".to_owned(),
                component: 1,
                local: None,
                remote: None,
                at: 0,
            };
            let closed = Event::Closed { session: Box::new(session.clone()), reason: "idle".to_owned() };
            for event in
                [Event::Nominated(end.clone()), Event::Moved(end.clone()), Event::ConsentLost(end.clone()), closed]
            {
                assert_eq!(filter.has_event(&event), is_meant, "{filter:?}: {event:?}");
            }
            assert_eq!(filter.has_event(&Event::Resumed(end)), is_meant, "{filter:?}");
            assert!(filter.has_event(&Event::Missed { count: 1 }));
        }
    }
}
