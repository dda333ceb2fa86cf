//! Later offers, until they are answered.
//!
//! Nothing of a later offer is in force before its answer (RFC 3264 section 8): it may be rejected, and then everything goes on
//! as before. So an offer opens what it needs to be told with, and is kept. The next one takes its place.

use std::collections::BTreeSet;

use super::effect::SessionId;
use super::end::Side;
use super::negotiation::{Agreed, NegotiationError, bundle_of, components, name_of};
use super::open::{OpenError, OpenPort, StreamRequest};
use super::session::Session;
use super::sessions::Sessions;
use crate::sdp::Description;
use crate::turn::Now;

/// An offer that was not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) from: Side,
    pub(super) description: Description,
    pub(super) sections: Vec<Agreed>,
    /// Whether the side wants to begin again.
    pub(super) restarts: bool,
    opened: Opened,
}

/// What was opened for an offer.
#[derive(Clone, Debug, Default)]
struct Opened {
    streams: Vec<String>,
    /// Streams that have their second component again.
    rtcp: Vec<String>,
}

impl Opened {
    /// What belongs to streams of which this is true, and the rest.
    fn split(self, is_meant: impl Fn(&str) -> bool) -> (Self, Self) {
        let [(streams, others), (rtcp, other_rtcp)] =
            [self.streams, self.rtcp].map(|names| names.into_iter().partition(|name| is_meant(name)));
        (Self { streams, rtcp }, Self { streams: others, rtcp: other_rtcp })
    }

    fn and(mut self, other: Self) -> Self {
        self.streams.extend(other.streams);
        self.rtcp.extend(other.rtcp);
        self
    }
}

impl Sessions {
    /// Takes another offer of a side: new or fewer sections, another address, a restart of ICE. With what the other side is to
    /// be offered. It is in force when it has been answered.
    pub fn reoffer(
        &mut self,
        now: Now,
        id: SessionId,
        from: Side,
        offer: &Description,
        ports: &mut dyn OpenPort,
    ) -> Result<String, NegotiationError> {
        let session = self.table.get(&id).ok_or(NegotiationError::NoSession)?;
        let negotiation = session.negotiation.as_ref().ok_or(NegotiationError::NotOffered)?;
        let (found, expected) = (offer.media().len(), negotiation.sections.len());
        if found < expected {
            return Err(NegotiationError::Sections { found, expected });
        }
        let restarts = restarts(session, from, offer);
        let (sections, added) = later_sections(offer, &negotiation.sections);
        let mut opened = Opened::default();
        let told = self
            .open_for(now, id, offer, (&sections, &added), ports, &mut opened)
            .map_err(NegotiationError::from)
            .and_then(|()| {
                let latches = self.table.get(&id).is_some_and(|session| session.latches);
                self.prepare_described(id, from, offer, &sections, latches)?;
                self.rewrite(id, from.other(), offer, &sections)
            });
        if told.is_err() {
            self.close_opened(id, opened);
            return told;
        }
        let negotiation = self.table.get_mut(&id).and_then(|session| session.negotiation.as_mut());
        if let Some(negotiation) = negotiation {
            // Of the one before it, what this one needs, too, is taken over: it is the same offer again, more often than not.
            let (kept, rest) = match negotiation.pending.take() {
                Some(before) => before.opened.split(|name| sections.contains(&Agreed::Stream(name.to_owned()))),
                None => Default::default(),
            };
            let opened = opened.and(kept);
            negotiation.pending = Some(Pending { from, description: offer.clone(), sections, restarts, opened });
            self.close_opened(id, rest);
        }
        told
    }

    /// Opens what the sections of an offer need and do not have.
    fn open_for(
        &mut self,
        now: Now,
        id: SessionId,
        offer: &Description,
        (sections, added): (&[Agreed], &[usize]),
        ports: &mut dyn OpenPort,
        opened: &mut Opened,
    ) -> Result<(), OpenError> {
        for (at, (media, agreed)) in offer.media().iter().zip(sections).enumerate() {
            let Agreed::Stream(name) = agreed else { continue };
            let is_there = self.table.get(&id).is_some_and(|session| session.stream(name).is_some());
            if added.contains(&at) && !is_there {
                let stream = StreamRequest { name: name.clone(), components: components(media) };
                self.add_stream(now.instant, id, &stream, ports)?;
                opened.streams.push(name.clone());
            } else if components(media) > 1 && !media.rtcp_mux() && self.add_rtcp(now.instant, id, name, ports)? {
                opened.rtcp.push(name.clone());
            }
        }
        Ok(())
    }

    fn close_opened(&mut self, id: SessionId, opened: Opened) {
        for name in opened.streams {
            self.remove_stream(id, &name);
        }
        for name in opened.rtcp {
            self.remove_rtcp(id, &name);
        }
    }
}

/// Whether a side has other credentials than before: it wants to begin again (RFC 8839 section 4.4.1.1.1).
fn restarts(session: &Session, from: Side, offer: &Description) -> bool {
    let known = session.leg(from).remote.as_ref().map(|agent| &agent.parameters);
    let told = offer.media().iter().filter(|media| media.is_active()).find_map(|media| media.parameters.as_ref());
    known.zip(told).is_some_and(|(known, told)| known != told)
}

/// What the sections of a later offer are, and which of them need a new stream.
fn later_sections(offer: &Description, before: &[Agreed]) -> (Vec<Agreed>, Vec<usize>) {
    let is_stream = |at: usize| matches!(before.get(at), Some(Agreed::Stream(_))) && offer.media()[at].is_active();
    let mut added = Vec::new();
    let mut taken: BTreeSet<_> = before.iter().filter_map(Agreed::name).map(str::to_owned).collect();
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
            let name = name_of(offer, at, &taken);
            taken.insert(name.clone());
            Agreed::Stream(name)
        }
    });
    let sections = sections.collect();
    (sections, added)
}
