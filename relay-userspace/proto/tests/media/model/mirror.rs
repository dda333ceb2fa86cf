//! What a session is, by what was done to it: who has proven itself, when, and who was nominated. There are no timers here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hairpin_proto::media::{PathId, SessionId, Side};

use crate::agent::Agent;

pub(super) struct Mirror {
    pub(super) id: SessionId,
    pub(super) legs: [Leg; 2],
    /// In the order of streams and components.
    pub(super) paths: Vec<Path>,
    pub(super) consent: Duration,
    pub(super) idle: Option<Duration>,
    /// When media has flowed last that the engine can know of.
    pub(super) active: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ice,
    Plain { latch: bool },
}

pub(super) struct Leg {
    pub(super) kind: Kind,
    /// Whether the other side was said to be lite, too.
    pub(super) is_lite: bool,
    /// All that it has had, as far as they were told.
    pub(super) credentials: Vec<Option<Agent>>,
    /// Whether those before the last are still good.
    pub(super) previous: bool,
}

pub(super) struct Path {
    pub(super) id: PathId,
    pub(super) stream: String,
    pub(super) component: u16,
    /// Of each local address, whether it is of IPv6.
    pub(super) families: Vec<bool>,
    pub(super) ends: [End; 2],
}

#[derive(Clone, Debug)]
pub(super) enum End {
    Ice(Ice),
    Plain(Plain),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Ice {
    pub(super) proven: BTreeMap<(usize, SocketAddr), Proof>,
    /// The latest credentials that anything was nominated with.
    pub(super) generation: Option<u32>,
}

/// Whether media from somewhere is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepts {
    Yes,
    No,
    /// Who comes first takes the place.
    First,
    /// Consent had ended, and then it was said to last longer: whether that is remembered is of no matter.
    Perhaps,
}

#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "they are facts that have nothing to do with each other")]
pub(super) struct Proof {
    pub(super) at: Instant,
    pub(super) nominated: Option<u32>,
    /// Whether its consent has ended since.
    pub(super) has_ended: bool,
    /// Whether it has had consent ever since it was nominated.
    pub(super) is_continuous: bool,
    /// Since when it is nominated with these credentials.
    pub(super) since: Option<Instant>,
    /// Whether something of it was heard since its last check, by who was selected then: everybody sends something after each step.
    pub(super) has_sent: bool,
    /// Whether it was checked two seconds later, or more, though it had been heard. Who was not, and is nominated, lives by what it
    /// sends.
    pub(super) keeps_checking: bool,
}

impl Proof {
    /// Whether it may have consent without any check.
    fn may_live_on(&self) -> bool {
        self.nominated.is_some() && !self.keeps_checking
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plain {
    pub(super) remote: Option<(usize, SocketAddr)>,
    pub(super) told: Option<SocketAddr>,
    pub(super) latches: bool,
}

impl Kind {
    pub(super) fn end(self) -> End {
        match self {
            Self::Ice => End::Ice(Ice::default()),
            Self::Plain { latch } => End::Plain(Plain { latches: latch, ..Plain::default() }),
        }
    }
}

impl Leg {
    pub(super) fn generation(&self) -> u32 {
        self.credentials.len() as u32 - 1
    }
}

impl Path {
    /// The first local address that is of the same family.
    pub(super) fn base_for(&self, address: SocketAddr) -> Option<usize> {
        self.families.iter().position(|is_v6| *is_v6 == address.is_ipv6())
    }
}

impl Ice {
    fn checked(&mut self, base: usize, source: SocketAddr, (at, nominated): (Instant, Option<u32>), consent: Duration) {
        let since = nominated.map(|_| at);
        let proof = self.proven.entry((base, source)).or_insert(Proof {
            at,
            nominated,
            has_ended: false,
            is_continuous: true,
            since,
            has_sent: false,
            keeps_checking: false,
        });
        if proof.nominated < nominated {
            (proof.since, proof.keeps_checking) = (since, false);
        } else if proof.has_ended || proof.at + consent <= at {
            // It may have been forgotten, and how often it was checked before with it.
            (proof.since, proof.keeps_checking) = (None, false);
        }
        let is_late = proof.since.is_some_and(|since| since + Duration::from_secs(2) <= at);
        proof.keeps_checking |= std::mem::take(&mut proof.has_sent) && is_late;
        proof.is_continuous = nominated.is_some() || (proof.is_continuous && at < proof.at + consent);
        (proof.at, proof.nominated, proof.has_ended) = (at, proof.nominated.max(nominated), false);
        self.generation = self.generation.max(nominated);
    }
}

impl Mirror {
    pub(super) fn leg(&mut self, side: Side) -> &mut Leg {
        &mut self.legs[side as usize]
    }

    /// A check was answered.
    pub(super) fn checked(
        &mut self,
        (side, path, base): (Side, usize, usize),
        source: SocketAddr,
        (at, nominated): (Instant, Option<u32>),
    ) {
        let end = &mut self.paths[path].ends[side as usize];
        if matches!(end, End::Plain(_)) && nominated.is_some() {
            // It has said that it is lite, and is not.
            *end = End::Ice(Ice::default());
        }
        let consent = self.consent;
        if let End::Ice(ice) = end {
            ice.checked(base, source, (at, nominated), consent);
        }
        let current = self.legs[side as usize].generation();
        let is_over = self.paths.iter().all(|path| match &path.ends[side as usize] {
            End::Ice(ice) => ice.generation.is_none_or(|generation| generation == current),
            End::Plain(_) => true,
        });
        self.leg(side).previous &= !is_over;
    }

    /// Notes who was heard: whoever is selected, as everybody has sent something.
    pub(super) fn hear(&mut self, (side, path, base): (Side, usize, usize), remote: SocketAddr) {
        if let End::Ice(ice) = &mut self.paths[path].ends[side as usize]
            && let Some(proof) = ice.proven.get_mut(&(base, remote))
        {
            proof.has_sent = true;
        }
    }

    /// Notes who has no consent any more.
    pub(super) fn age(&mut self, now: Instant) {
        let consent = self.consent;
        for end in self.paths.iter_mut().flat_map(|path| &mut path.ends) {
            if let End::Ice(ice) = end {
                let late = ice.proven.values_mut().filter(|proof| proof.at + consent <= now);
                late.for_each(|proof| (proof.has_ended, proof.is_continuous) = (true, false));
            }
        }
    }

    pub(super) fn accepts(
        &self,
        (side, path, base): (Side, usize, usize),
        source: SocketAddr,
        now: Instant,
    ) -> Accepts {
        let yes = |is: bool| if is { Accepts::Yes } else { Accepts::No };
        match &self.paths[path].ends[side as usize] {
            End::Ice(ice) => match ice.proven.get(&(base, source)) {
                Some(proof) if now < proof.at + self.consent && !proof.has_ended => Accepts::Yes,
                Some(proof) if now < proof.at + self.consent || proof.may_live_on() => Accepts::Perhaps,
                _ => Accepts::No,
            },
            End::Plain(plain) if plain.latches => Accepts::First,
            End::Plain(plain) => yes(plain.remote == Some((base, source))),
        }
    }

    /// Where media for an end may go, and whether there certainly is somewhere, if no timer is late.
    pub(super) fn targets(&self, side: Side, path: usize, now: Instant) -> (Vec<(usize, SocketAddr)>, bool) {
        match &self.paths[path].ends[side as usize] {
            End::Ice(ice) => {
                let nominated = ice.proven.iter().filter(|(_, proof)| {
                    proof.nominated.is_some()
                        && proof.nominated == ice.generation
                        && (now < proof.at + self.consent || proof.may_live_on())
                });
                let has_consent = |proof: &Proof| now < proof.at + self.consent;
                let certain = nominated.clone().any(|(_, proof)| proof.is_continuous && has_consent(proof));
                (nominated.map(|(pair, _)| *pair).collect(), certain)
            }
            End::Plain(plain) => (plain.remote.into_iter().collect(), plain.remote.is_some()),
        }
    }
}
