//! Offers and answers (RFC 3264): both sides of a call are told the session's legs instead of each other.
//!
//! A media section of a description is a stream, unless it shares that of another (RFC 9143). What is offered may turn out not
//! to be needed: the answer takes sections, second components (RFC 5761) and transports of bundled sections away.

use std::collections::BTreeSet;

use super::effect::SessionId;
use super::end::{End, Local, Side};
use super::open::{OpenError, OpenPort, Request, StreamRequest};
use super::pending::Pending;
use super::remote::{PlainAddress, Prepared, Remote, RemoteError, StreamCandidates};
use super::session::{LegKind, Session};
use super::sessions::Sessions;
use super::settings::{Choice, Terms};
use crate::ice::{Candidate, Parameters};
use crate::sdp::{Description, Endpoint, LocalIce, Media, Section};
use crate::turn::Now;

/// An offer that makes a session: of the side that becomes leg A, for the side that becomes leg B.
#[derive(Clone, Debug)]
pub struct Offer {
    /// What is offered.
    pub description: Description,
    /// What leg B shall speak. Leg A speaks ICE if the offer does.
    pub to: LegKind,
    /// Whether a side without ICE is taken to be where it first sends from.
    pub latch: bool,
    /// What its owner calls the session.
    pub label: String,
    /// Which of the relay's addresses it has.
    pub choice: Choice,
    /// What its owner may change later.
    pub terms: Terms,
}

/// Why a description cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// There is no such session.
    #[error("there is no such session")]
    NoSession,
    /// It was not made of an offer, so nobody knows which section is which stream.
    #[error("the session was not made of an offer")]
    NotOffered,
    /// The side answers its own offer.
    #[error("the last offer is of this side: the other one answers")]
    OwnOffer,
    /// An answer has as many media sections as its offer, and a later offer no fewer (RFC 3264 sections 6 and 8).
    #[error("the description has {found} media sections, where the last had {expected}")]
    Sections {
        /// How many it has.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// None of the sections of an offer has a transport of its own.
    #[error("no media section of the offer has a transport: all are rejected, or in a bundle with none that has")]
    NoTransport,
    /// The second component of a stream is gone, and cannot come back.
    #[error("media section {0} has agreed to send RTCP with RTP before, and cannot go back")]
    Unmuxed(usize),
    /// Sections that shared a transport cannot have their own again.
    #[error("media section {0} has agreed to share a transport before, and cannot go back")]
    Unbundled(usize),
    /// The session cannot have what it needs.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The other side cannot be where it says.
    #[error("{0}")]
    Remote(#[from] RemoteError),
}

/// What the media sections of the last offer are, as far as it has been answered.
#[derive(Clone, Debug)]
pub(super) struct Negotiation {
    pub(super) from: Side,
    pub(super) sections: Vec<Agreed>,
    /// The last offer, if it is a later one that has not been answered.
    pub(super) pending: Option<Pending>,
}

/// What a media section is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Agreed {
    /// Nothing: it was rejected.
    Rejected,
    /// A stream of its own.
    Stream(String),
    /// A part of what this section is.
    Bundled(usize),
}

impl Agreed {
    /// The name of its own stream.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Stream(name) => Some(name),
            Self::Rejected | Self::Bundled(_) => None,
        }
    }
}

impl Sessions {
    /// Makes a session of an offer. With what the other side is to be offered.
    pub fn offer(
        &mut self,
        now: Now,
        offer: &Offer,
        ports: &mut dyn OpenPort,
    ) -> Result<(SessionId, String), NegotiationError> {
        let Offer { description, to, latch, label, choice, terms } = offer;
        let from = if description.has_ice() { LegKind::Ice } else { LegKind::Plain { latch: *latch } };
        let sections = first_sections(description);
        let streams = description.media().iter().zip(&sections).filter_map(|(media, agreed)| match agreed {
            Agreed::Stream(name) => Some(StreamRequest { name: name.clone(), components: components(media) }),
            _ => None,
        });
        let streams: Vec<_> = streams.collect();
        if streams.is_empty() {
            return Err(NegotiationError::NoTransport);
        }
        let request =
            Request { label: label.clone(), legs: [from, *to], streams, choice: choice.clone(), terms: *terms };
        let id = self.create(now, request, ports)?;
        match self.prepare_described(id, Side::A, description, &sections, *latch) {
            Ok(remote) => self.put_remote(now.instant, id, Side::A, remote),
            Err(error) => {
                self.abandon(id);
                return Err(error);
            }
        }
        let text = self.rewrite(id, Side::B, description, &sections)?;
        if let Some(session) = self.table.get_mut(&id) {
            session.negotiation = Some(Negotiation { from: Side::A, sections, pending: None });
            session.latches = *latch;
        }
        Ok((id, text))
    }

    /// Takes the answer to the last offer; several may come, as with a provisional response before the final one. With what
    /// the side that has offered is to be answered.
    pub fn answer(
        &mut self,
        now: Now,
        id: SessionId,
        from: Side,
        answer: &Description,
    ) -> Result<String, NegotiationError> {
        let session = self.table.get(&id).ok_or(NegotiationError::NoSession)?;
        let Negotiation { from: offered_by, sections: before, pending } =
            session.negotiation.clone().ok_or(NegotiationError::NotOffered)?;
        let (offered_by, offered) =
            pending.as_ref().map_or((offered_by, &before), |pending| (pending.from, &pending.sections));
        if offered_by == from {
            return Err(NegotiationError::OwnOffer);
        }
        let (found, expected) = (answer.media().len(), offered.len());
        if found != expected {
            return Err(NegotiationError::Sections { found, expected });
        }
        let sections = answered_sections(answer, offered)?;
        stay_muxed(session, answer, &sections)?;
        let latches = session.latches;
        let mut remotes = Vec::new();
        // What was offered is in force from now on.
        if let Some(Pending { from, description, .. }) = &pending {
            remotes.push((*from, self.prepare_described(id, *from, description, &sections, latches)?));
        }
        remotes.push((from, self.prepare_described(id, from, answer, &sections, latches)?));
        for (side, remote) in remotes {
            self.put_remote(now.instant, id, side, remote);
        }
        if pending.as_ref().is_some_and(|pending| pending.restarts) {
            self.restart(id, offered_by);
        }
        self.agree(id, before.iter().chain(offered), sections.clone(), offered_by);
        for (media, agreed) in answer.media().iter().zip(&sections) {
            if let Agreed::Stream(name) = agreed
                && (media.rtcp_mux() || !media.is_rtp())
            {
                self.remove_rtcp(id, name);
            }
        }
        self.rewrite(id, from.other(), answer, &sections)
    }

    /// Takes a description as what is known of a leg's remote: its media sections are the session's streams, in order.
    pub fn set_described(
        &mut self,
        now: Now,
        id: SessionId,
        side: Side,
        description: &Description,
    ) -> Result<(), NegotiationError> {
        let session = self.table.get(&id).ok_or(NegotiationError::NoSession)?;
        let (found, expected) = (description.media().len(), session.streams.len());
        if found != expected {
            return Err(NegotiationError::Sections { found, expected });
        }
        let sections: Vec<_> = session.streams.iter().map(|stream| Agreed::Stream(stream.name.clone())).collect();
        let remote = self.prepare_described(id, side, description, &sections, session.latches)?;
        self.put_remote(now.instant, id, side, remote);
        Ok(())
    }

    /// Takes streams away that no section is any more, and remembers what the sections are.
    fn agree<'s>(
        &mut self,
        id: SessionId,
        before: impl Iterator<Item = &'s Agreed>,
        sections: Vec<Agreed>,
        from: Side,
    ) {
        for agreed in before {
            if let Agreed::Stream(name) = agreed
                && !sections.contains(agreed)
            {
                self.remove_stream(id, name);
            }
        }
        if let Some(session) = self.table.get_mut(&id) {
            session.negotiation = Some(Negotiation { from, sections, pending: None });
        }
    }

    /// What a description says of who is on the other side of a leg, if that can be.
    pub(super) fn prepare_described(
        &self,
        id: SessionId,
        side: Side,
        description: &Description,
        sections: &[Agreed],
        latches: bool,
    ) -> Result<Prepared, NegotiationError> {
        let session = self.table.get(&id).ok_or(NegotiationError::NoSession)?;
        let streams = || {
            let named = description.media().iter().zip(sections);
            named.filter_map(|(media, agreed)| match agreed {
                Agreed::Stream(name) => Some((media, session.stream(name)?)),
                _ => None,
            })
        };
        let remote = if let Some(parameters) = streams().find_map(|(media, _)| media.parameters.clone()) {
            let candidates = streams().map(|(media, stream)| StreamCandidates {
                stream: Some(stream.name.clone()),
                candidates: media.candidates.clone(),
            });
            Remote::Ice {
                parameters,
                is_lite: description.is_lite(),
                candidates: candidates.collect(),
                end_of_candidates: streams().all(|(media, _)| media.end_of_candidates()),
            }
        } else {
            let latch = latches || matches!(session.leg(side).kind, LegKind::Plain { latch: true });
            let addresses = streams().flat_map(|(media, stream)| {
                let both = [(1, media.address), (2, media.rtcp.filter(|_| stream.paths.len() > 1))];
                let known = both.into_iter().filter_map(|(component, at)| Some((component, at?)));
                known.map(|(component, address)| {
                    let stream = Some(stream.name.clone());
                    PlainAddress { stream, component, address }
                })
            });
            Remote::Plain { addresses: addresses.collect(), latch, is_hint: true }
        };
        Ok(self.prepare(id, side, remote)?)
    }

    /// A description with a leg of the session in place of whoever it is from.
    pub(super) fn rewrite(
        &self,
        id: SessionId,
        side: Side,
        description: &Description,
        sections: &[Agreed],
    ) -> Result<String, NegotiationError> {
        let session = self.table.get(&id).ok_or(NegotiationError::NoSession)?;
        let told: Vec<_> = description
            .media()
            .iter()
            .zip(sections)
            .map(|(media, agreed)| match agreed {
                _ if !media.is_active() => Section::Rejected,
                Agreed::Rejected => Section::Rejected,
                Agreed::Stream(name) => self.endpoint(session, side, name).map_or(Section::Rejected, Section::Own),
                Agreed::Bundled(at) => match sections.get(*at) {
                    Some(Agreed::Stream(name)) => {
                        self.endpoint(session, side, name).map_or(Section::Rejected, Section::Bundled)
                    }
                    _ => Section::Rejected,
                },
            })
            .collect();
        Ok(description.rewrite(&told))
    }

    /// Where a leg is reached for a stream.
    fn endpoint(&self, session: &Session, side: Side, stream: &str) -> Option<Endpoint> {
        let paths: Vec<_> = session.stream(stream)?.paths.iter().filter_map(|path| self.path(*path)).collect();
        let ends: Vec<&End> = paths.iter().map(|path| path.end(side)).collect();
        let first = *ends.first()?;
        let base = first.default_base();
        let address = |end: &&End| end.locals.get(base).map(|local| local.public);
        let leg = session.leg(side);
        let ice = (leg.kind == LegKind::Ice).then(|| LocalIce {
            parameters: Parameters { ufrag: leg.credentials.ufrag().to_owned(), pwd: leg.credentials.pwd().to_owned() },
            candidates: paths
                .iter()
                .flat_map(|path| path.end(side).locals.iter().map(|local: &Local| local.candidate(path.component)))
                .collect::<Vec<Candidate>>(),
        });
        Some(Endpoint { rtp: address(&first)?, rtcp: ends.get(1).and_then(address), ice })
    }
}

/// Whether no section would have RTCP apart again (RFC 5761), for which its stream has no path any more.
fn stay_muxed(session: &Session, description: &Description, sections: &[Agreed]) -> Result<(), NegotiationError> {
    for (at, (media, agreed)) in description.media().iter().zip(sections).enumerate() {
        let Agreed::Stream(name) = agreed else { continue };
        // A stream that is yet to be has what it needs.
        let is_muxed = session.stream(name).is_some_and(|stream| stream.paths.len() == 1);
        if is_muxed && components(media) > 1 && !media.rtcp_mux() {
            return Err(NegotiationError::Unmuxed(at + 1));
        }
    }
    Ok(())
}

/// How many components a media section may need.
pub(super) fn components(media: &Media) -> u16 {
    if media.is_rtp() && !media.rtcp_mux_only() { 2 } else { 1 }
}

/// A name for the stream of a section, other than those that are taken: that of the section, or its kind and place.
pub(super) fn name_of(description: &Description, at: usize, taken: &BTreeSet<String>) -> String {
    let media = &description.media()[at];
    let name = match media.mid.as_ref().filter(|mid| mid.len() <= 64) {
        Some(mid) => mid.clone(),
        None => format!("{}-{at}", media.kind),
    };
    let others = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.clone()).chain(others).find(|name| !taken.contains(name)).unwrap_or_default()
}

/// The section that those of a bundle share the transport of: the first of them that has one.
pub(super) fn bundle_of(description: &Description, at: usize, has_stream: impl Fn(usize) -> bool) -> Option<usize> {
    let mid = description.media()[at].mid.as_ref()?;
    let group = description.bundles().iter().find(|group| group.contains(mid))?;
    let place = |mid: &String| description.media().iter().position(|media| media.mid.as_ref() == Some(mid));
    group.iter().filter_map(place).find(|place| *place != at && has_stream(*place))
}

/// What the sections of a first offer are: a stream each, but those that will be bundled or nothing.
fn first_sections(offer: &Description) -> Vec<Agreed> {
    let has_port = |at: usize| offer.media()[at].port != 0;
    let mut taken = BTreeSet::new();
    let sections = offer.media().iter().enumerate().map(|(at, media)| match media {
        media if !media.is_active() => Agreed::Rejected,
        media if media.is_bundle_only() => bundle_of(offer, at, has_port).map_or(Agreed::Rejected, Agreed::Bundled),
        _ => {
            let name = name_of(offer, at, &taken);
            taken.insert(name.clone());
            Agreed::Stream(name)
        }
    });
    sections.collect()
}

/// What the sections are by an answer.
fn answered_sections(answer: &Description, before: &[Agreed]) -> Result<Vec<Agreed>, NegotiationError> {
    let is_stream = |at: usize| matches!(before[at], Agreed::Stream(_)) && answer.media()[at].is_active();
    let first_of = |at: usize| {
        let mid = answer.media()[at].mid.as_ref()?;
        let group = answer.bundles().iter().find(|group| group.contains(mid))?;
        let place = |mid: &String| answer.media().iter().position(|media| media.mid.as_ref() == Some(mid));
        group.iter().filter_map(place).find(|place| is_stream(*place))
    };
    let sections = answer.media().iter().enumerate().map(|(at, media)| {
        if !media.is_active() || before[at] == Agreed::Rejected {
            return Ok(Agreed::Rejected);
        }
        match (first_of(at), &before[at]) {
            (Some(first), _) if first != at => Ok(Agreed::Bundled(first)),
            (_, Agreed::Stream(name)) => Ok(Agreed::Stream(name.clone())),
            _ => Err(NegotiationError::Unbundled(at + 1)),
        }
    });
    sections.collect()
}
