//! The way of a connectivity check (RFC 8445 section 7.3).

use std::net::SocketAddr;
use std::time::Instant;

use super::effect::{Answer, Discard, Disposition, Event, PathId};
use super::end::{Far, Refused, RefusedFor, Side};
use super::session::LegKind;
use super::sessions::Sessions;
use crate::ice::{self, Outcome, Pair, Rejection, Selection, pair_priority};
use crate::stun::{Class, ErrorCode, Message};

impl Sessions {
    pub(super) fn check<'p>(
        &mut self,
        now: Instant,
        (id, side, base): (PathId, Side, usize),
        source: SocketAddr,
        datagram: &[u8],
    ) -> Disposition<'p> {
        let Self { table, paths, response, .. } = self;
        let (Ok(message), Some(path)) = (Message::parse(datagram), paths.find_mut(id.0)) else {
            return Disposition::Discard(Discard::Stun);
        };
        let (session, consent) = (path.session, path.consent);
        let Some(leg) = table.get(&session).map(|session| session.leg(side)) else {
            return Disposition::Discard(Discard::NoLeg);
        };
        let end = path.end_mut(side);
        let own = end.locals.get(base).map_or(0, |local| local.priority);
        if leg.kind != LegKind::Ice {
            return Disposition::Discard(Discard::Stun);
        }
        let credentials: Vec<_> = [Some(&leg.credentials), leg.previous.as_ref()].into_iter().flatten().collect();
        response.clear();
        let check = match ice::receive(&message, &credentials) {
            Ok(check) => check,
            Err(Rejection::Ignore) => {
                // What an agent that never checks again keeps its NAT's binding with.
                if message.class() == Class::Indication {
                    self.heard(now, (id, side, base), source);
                }
                return Disposition::Discard(Discard::Stun);
            }
            Err(Rejection::Refuse { code, credentials: own, unknown }) => {
                let key = own.and_then(|at| credentials.get(at)).map(|credentials| credentials.key());
                ice::refuse(response, &message, code, &unknown, key);
                let answer = answer(code);
                end.refused = Some(Refused { remote: source, reason: RefusedFor::Check(answer) });
                return Disposition::Respond(answer);
            }
        };
        ice::accept(response, &message, source, credentials[check.credentials].key());
        let known = leg.remote.iter().flat_map(|agent| &agent.candidates);
        let known = known.map(|(_, candidate)| candidate).find(|candidate| candidate.usable() == Some(source));
        let priority = pair_priority(known.map_or(check.priority, |candidate| candidate.priority), own);
        let nominated = check.use_candidate.then_some(leg.generation - check.credentials as u32);
        let pair = Pair::checked((base, source), priority, now, nominated);
        let event = match &mut end.far {
            Far::Ice(selection) => match selection.checked(pair, consent) {
                Outcome::Nominated => Some(Event::Nominated),
                Outcome::Moved => Some(Event::Moved),
                Outcome::Resumed => Some(Event::Resumed),
                Outcome::Unchanged | Outcome::Lost => None,
            },
            // It has said that it is lite, as Janus may, which checks and nominates all the same: that proves more than what it says.
            Far::Plain(plain) if check.use_candidate => {
                let before = plain.remote;
                let mut selection = Selection::default();
                selection.checked(pair, consent);
                end.far = Far::Ice(selection);
                match before {
                    None => Some(Event::Nominated),
                    Some(before) => (before != (base, source)).then_some(Event::Moved),
                }
            }
            Far::Plain(_) => None,
        };
        if let Some(event) = event {
            end.refused = None;
            self.happened(session, event, id, side);
        }
        // The pair may be the one that media flows to already, which may do so for longer now.
        self.update_flow(id, now);
        if event.is_some() {
            self.settle(session, now);
        }
        self.forget_previous(session, side);
        Disposition::Respond(Answer::Success)
    }

    /// Takes the credentials of before a restart back, once nothing flows by them any more.
    fn forget_previous(&mut self, id: super::SessionId, side: Side) {
        let Some(session) = self.table.get(&id).filter(|session| session.leg(side).previous.is_some()) else { return };
        let generation = session.leg(side).generation;
        // A remote that stays where it was is selected already: that it has been nominated anew is what counts.
        let is_new = |pair: &Pair| pair.nominated == Some(generation);
        let is_over = session.paths().filter_map(|path| self.path(path)).all(|path| match &path.end(side).far {
            Far::Ice(selection) => selection.selected().is_none_or(is_new),
            Far::Plain(_) => true,
        });
        if is_over && let Some(session) = self.table.get_mut(&id) {
            session.leg_mut(side).previous = None;
        }
    }
}

fn answer(code: ErrorCode) -> Answer {
    match code {
        ErrorCode::UNAUTHENTICATED => Answer::Unauthenticated,
        ErrorCode::UNKNOWN_ATTRIBUTE => Answer::UnknownAttribute,
        ErrorCode::ROLE_CONFLICT => Answer::RoleConflict,
        _ => Answer::BadRequest,
    }
}
