//! Offers and answers (RFC 3264): both sides of a call are told the session's legs instead of each other.
//!
//! A media section of a description is a stream, unless it shares that of another (RFC 9143). What is offered may turn out not
//! to be needed: the answer takes sections, second components (RFC 5761) and transports of bundled sections away.

use super::effect::SessionId;
use super::end::{End, Local, Side};
use super::open::{OpenError, OpenPort, Request, StreamRequest};
use super::remote::{PlainAddress, Remote, RemoteError, StreamCandidates};
use super::session::{LegKind, Session};
use super::sessions::Sessions;
use super::settings::Timeouts;
use crate::address::AddressFamily;
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
    /// Of which families it has addresses; none: of all.
    pub families: Vec<AddressFamily>,
    /// How long it lives without what it lives for.
    pub timeouts: Timeouts,
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

/// What the media sections of the last offer are.
#[derive(Clone, Debug)]
pub(super) struct Negotiation {
    from: Side,
    sections: Vec<Agreed>,
}

/// What a media section is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Agreed {
    /// Nothing: it was rejected.
    Rejected,
    /// A stream of its own.
    Stream(String),
    /// A part of what this section is.
    Bundled(usize),
}

impl Sessions {
    /// Makes a session of an offer. With what the other side is to be offered.
    pub fn offer(
        &mut self,
        now: Now,
        offer: &Offer,
        ports: &mut dyn OpenPort,
    ) -> Result<(SessionId, String), NegotiationError> {
        let Offer { description, to, latch, label, families, timeouts } = offer;
        let from = if description.has_ice() { LegKind::Ice } else { LegKind::Plain { latch: *latch } };
        let sections = first_sections(description);
        let streams = description.media().iter().zip(&sections).filter_map(|(media, agreed)| match agreed {
            Agreed::Stream(name) => Some(StreamRequest { name: name.clone(), components: components(media) }),
            _ => None,
        });
        let request = Request {
            label: label.clone(),
            legs: [from, *to],
            streams: streams.collect(),
            families: families.clone(),
            timeouts: *timeouts,
        };
        let id = self.create(now, request, ports)?;
        if let Some(session) = self.table.get_mut(&id) {
            session.negotiation = Some(Negotiation { from: Side::A, sections: sections.clone() });
            session.latches = *latch;
        }
        if let Err(error) = self.tell(now, id, Side::A, description, &sections) {
            self.discard(id);
            return Err(error);
        }
        let text = self.rewrite(id, Side::B, description)?;
        Ok((id, text))
    }

    /// Takes another offer of a side: new or fewer sections, another address, a restart of ICE. With what the other side is to
    /// be offered.
    pub fn reoffer(
        &mut self,
        now: Now,
        id: SessionId,
        from: Side,
        offer: &Description,
        ports: &mut dyn OpenPort,
    ) -> Result<String, NegotiationError> {
        let session = self.table.get(&id).ok_or(NegotiationError::NoSession)?;
        let Negotiation { sections: before, .. } = session.negotiation.clone().ok_or(NegotiationError::NotOffered)?;
        if offer.media().len() < before.len() {
            let (found, expected) = (offer.media().len(), before.len());
            return Err(NegotiationError::Sections { found, expected });
        }
        let is_restarted = restarts(session, from, offer);
        let (sections, added) = later_sections(offer, &before);
        let mut opened = Vec::new();
        for at in added {
            let Agreed::Stream(name) = &sections[at] else { continue };
            let stream = StreamRequest { name: name.clone(), components: components(&offer.media()[at]) };
            if let Err(error) = self.add_stream(now.instant, id, &stream, ports) {
                self.remove_streams(id, opened);
                return Err(error.into());
            }
            opened.push(name.clone());
        }
        if let Err(error) = self.tell(now, id, from, offer, &sections) {
            self.remove_streams(id, opened);
            return Err(error);
        }
        self.agree(id, &before, Negotiation { from, sections });
        if is_restarted {
            self.restart(id, from);
        }
        self.rewrite(id, from.other(), offer)
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
        let Negotiation { from: offered_by, sections: before } =
            session.negotiation.clone().ok_or(NegotiationError::NotOffered)?;
        if offered_by == from {
            return Err(NegotiationError::OwnOffer);
        }
        let (found, expected) = (answer.media().len(), before.len());
        if found != expected {
            return Err(NegotiationError::Sections { found, expected });
        }
        let sections = answered_sections(answer, &before)?;
        stay_muxed(session, answer, &sections)?;
        self.tell(now, id, from, answer, &sections)?;
        self.agree(id, &before, Negotiation { from: offered_by, sections: sections.clone() });
        for (media, agreed) in answer.media().iter().zip(&sections) {
            if let Agreed::Stream(name) = agreed
                && (media.rtcp_mux() || !media.is_rtp())
            {
                self.remove_rtcp(id, name);
            }
        }
        self.rewrite(id, from.other(), answer)
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
        self.tell(now, id, side, description, &sections)
    }

    fn remove_streams(&mut self, id: SessionId, names: Vec<String>) {
        for name in names {
            self.remove_stream(id, &name);
        }
    }

    /// Takes streams away that no section is any more, and remembers what the sections are.
    fn agree(&mut self, id: SessionId, before: &[Agreed], negotiation: Negotiation) {
        for agreed in before {
            if let Agreed::Stream(name) = agreed
                && !negotiation.sections.contains(agreed)
            {
                self.remove_stream(id, name);
            }
        }
        if let Some(session) = self.table.get_mut(&id) {
            session.negotiation = Some(negotiation);
        }
    }

    /// Learns from a description who is on the other side of a leg. When it cannot be, everything stays as it was.
    fn tell(
        &mut self,
        now: Now,
        id: SessionId,
        side: Side,
        description: &Description,
        sections: &[Agreed],
    ) -> Result<(), NegotiationError> {
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
            let latch = session.latches || matches!(session.leg(side).kind, LegKind::Plain { latch: true });
            let addresses = streams().flat_map(|(media, stream)| {
                let both = [(1, media.address), (2, media.rtcp.filter(|_| stream.paths.len() > 1))];
                let known = both.into_iter().filter_map(|(component, at)| Some((component, at?)));
                known.map(|(component, address)| {
                    let stream = Some(stream.name.clone());
                    PlainAddress { stream, component, address, is_hint: latch }
                })
            });
            Remote::Plain { addresses: addresses.collect(), latch }
        };
        Ok(self.set_remote(now.instant, id, side, remote)?)
    }

    /// A description with a leg of the session in place of whoever it is from.
    fn rewrite(&self, id: SessionId, side: Side, description: &Description) -> Result<String, NegotiationError> {
        let session = self.table.get(&id).ok_or(NegotiationError::NoSession)?;
        let negotiation = session.negotiation.as_ref().ok_or(NegotiationError::NotOffered)?;
        let sections: Vec<_> = description
            .media()
            .iter()
            .zip(&negotiation.sections)
            .map(|(media, agreed)| match agreed {
                _ if !media.is_active() => Section::Rejected,
                Agreed::Rejected => Section::Rejected,
                Agreed::Stream(name) => self.endpoint(session, side, name).map_or(Section::Rejected, Section::Own),
                Agreed::Bundled(at) => match negotiation.sections.get(*at) {
                    Some(Agreed::Stream(name)) => {
                        self.endpoint(session, side, name).map_or(Section::Rejected, Section::Bundled)
                    }
                    _ => Section::Rejected,
                },
            })
            .collect();
        Ok(description.rewrite(&sections))
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
fn components(media: &Media) -> u16 {
    if media.is_rtp() && !media.rtcp_mux_only() { 2 } else { 1 }
}

/// Whether a side has other credentials than before: it wants to begin again (RFC 8839 section 4.4.1.1.1).
fn restarts(session: &Session, from: Side, offer: &Description) -> bool {
    let known = session.leg(from).remote.as_ref().map(|agent| &agent.parameters);
    let told = offer.media().iter().filter(|media| media.is_active()).find_map(|media| media.parameters.as_ref());
    known.zip(told).is_some_and(|(known, told)| known != told)
}

/// A name for the stream of a section: that of the section, or its place.
fn name_of(description: &Description, at: usize) -> String {
    let media = &description.media()[at];
    let is_alone =
        |mid: &&String| description.media().iter().filter(|other| other.mid.as_ref() == Some(*mid)).count() == 1;
    match media.mid.as_ref().filter(is_alone).filter(|mid| mid.len() <= 64) {
        Some(mid) => mid.clone(),
        None => format!("{}-{at}", media.kind),
    }
}

/// The section that those of a bundle share the transport of: the first of them that has one.
fn bundle_of(description: &Description, at: usize, has_stream: impl Fn(usize) -> bool) -> Option<usize> {
    let mid = description.media()[at].mid.as_ref()?;
    let group = description.bundles().iter().find(|group| group.contains(mid))?;
    let place = |mid: &String| description.media().iter().position(|media| media.mid.as_ref() == Some(mid));
    group.iter().filter_map(place).find(|place| *place != at && has_stream(*place))
}

/// What the sections of a first offer are: a stream each, but those that will be bundled or nothing.
fn first_sections(offer: &Description) -> Vec<Agreed> {
    let has_port = |at: usize| offer.media()[at].port != 0;
    let sections = offer.media().iter().enumerate().map(|(at, media)| match media {
        media if !media.is_active() => Agreed::Rejected,
        media if media.is_bundle_only() => bundle_of(offer, at, has_port).map_or(Agreed::Rejected, Agreed::Bundled),
        _ => Agreed::Stream(name_of(offer, at)),
    });
    sections.collect()
}

/// What the sections of a later offer are, and which of them need a new stream.
fn later_sections(offer: &Description, before: &[Agreed]) -> (Vec<Agreed>, Vec<usize>) {
    let is_stream = |at: usize| matches!(before.get(at), Some(Agreed::Stream(_))) && offer.media()[at].is_active();
    let mut added = Vec::new();
    let sections = offer.media().iter().enumerate().map(|(at, media)| match before.get(at) {
        _ if !media.is_active() => Agreed::Rejected,
        Some(agreed @ Agreed::Stream(_)) => agreed.clone(),
        Some(Agreed::Bundled(with)) if is_stream(*with) => Agreed::Bundled(*with),
        _ => {
            // What is agreed to be one transport is offered as one.
            if let Some(with) = bundle_of(offer, at, is_stream) {
                return Agreed::Bundled(with);
            }
            added.push(at);
            Agreed::Stream(name_of(offer, at))
        }
    });
    let sections = sections.collect();
    (sections, added)
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
