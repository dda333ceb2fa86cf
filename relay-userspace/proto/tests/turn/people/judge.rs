//! Who may be let in: what the documentation says, in other words than the server's.

use std::collections::HashMap;

use hairpin_proto::turn::{Grant, Subject};

use super::{Credential, HOLDER, NORTH, RealmRules, Signing, Told, expiry_and_account, granted};

/// What was heard, of whom, and until when it holds.
#[derive(Default)]
pub(crate) struct Known {
    answers: HashMap<(usize, Subject), (Told, u64)>,
    /// Since when somebody is asked again about whom an allocation is there.
    renewals: HashMap<(usize, Subject), u64>,
}

/// What an allocation remembers of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// With the realm in which it was told: a password makes other keys in another.
    Told(usize, Told),
    Token {
        mac: u8,
        expires: u64,
    },
}

/// Why somebody may be let in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof {
    pub(crate) grant: Grant,
    pub(crate) is_admitted: bool,
    pub(crate) memory: Option<Memory>,
    /// What has aged.
    pub(crate) looks_up: Option<Subject>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Wrong,
    Ask(Subject),
    Unavailable,
}

/// What was heard, in which realm, and whether it counts only for the owner of an allocation.
struct Heard {
    told: Told,
    realm: usize,
    is_old: bool,
}

/// A request, and all that bears on it.
pub(crate) struct Case<'c> {
    pub(crate) now: u64,
    pub(crate) realm: usize,
    pub(crate) rules: &'c RealmRules,
    pub(crate) credential: &'c Credential,
    /// The username of the allocation that it is about, and what is remembered with it.
    pub(crate) owner: Option<(&'c str, Option<&'c Memory>)>,
    pub(crate) at_hand: Option<(&'c (usize, Subject), &'c Told)>,
    pub(crate) known: &'c Known,
}

impl Known {
    /// An answer was given.
    pub(crate) fn hear(&mut self, now: u64, about: &(usize, Subject), told: &Told) {
        let holds = match told {
            Told::Unavailable => return,
            Told::Refused => 5,
            _ => 60,
        };
        self.renewals.remove(about);
        self.answers.insert(about.clone(), (told.clone(), now + holds));
    }

    pub(crate) fn fresh(&self, now: u64, about: &(usize, Subject)) -> Option<&Told> {
        self.answers.get(about).filter(|(_, until)| now < *until).map(|(told, _)| told)
    }

    /// Whether somebody is asked in passing: not for what is fresh, and not within half a minute.
    pub(crate) fn is_looked_up(&mut self, now: u64, about: (usize, Subject)) -> bool {
        let is_due = self.fresh(now, &about).is_none() && self.renewals.get(&about).is_none_or(|at| now >= at + 30);
        if is_due {
            self.renewals.insert(about, now);
        }
        is_due
    }
}

impl Case<'_> {
    /// Whoever is let in has signed with what somebody has vouched for: the settings, a token, or the directory, lately or
    /// for an allocation that the request is about.
    pub(crate) fn judge(&self) -> Result<Proof, Denied> {
        let Self { now, credential, rules, owner, .. } = self;
        if let Some(token) = credential.token.filter(|_| rules.takes_tokens) {
            self.token_key()?;
            let good_until = token.made + u64::from(token.lifetime) + 5;
            let is_right = credential.signing == Signing::Mac(token.mac) && *now < good_until;
            let memory = Memory::Token { mac: token.mac, expires: good_until };
            return when(is_right, Proof { grant: granted(HOLDER), memory: Some(memory), ..Proof::default() });
        }
        if let (HOLDER, Some((_, Some(memory @ Memory::Token { mac, expires })))) = (&*credential.name, owner) {
            let is_right = credential.signing == Signing::Mac(*mac) && now < expires;
            return when(is_right, Proof { memory: Some((*memory).clone()), ..Proof::default() });
        }
        let by_settings = self.by_settings();
        if !rules.asks_for_users {
            return by_settings.unwrap_or(Err(Denied::Wrong));
        }
        by_settings.unwrap_or_else(|| self.by_directory())
    }

    fn token_key(&self) -> Result<(), Denied> {
        if self.rules.knows_token_key && self.credential.name == HOLDER {
            return Ok(());
        }
        if !self.rules.asks_for_users {
            return Err(Denied::Wrong);
        }
        match self.heard(Subject::TokenKey(self.credential.name.as_str().into()), false)?.told {
            Told::TokenKey => Ok(()),
            Told::Unavailable => Err(Denied::Unavailable),
            _ => Err(Denied::Wrong),
        }
    }

    /// What the settings say of a name; none: nothing.
    fn by_settings(&self) -> Option<Result<Proof, Denied>> {
        let Self { credential, rules, .. } = self;
        let by = |is_right: bool, account: &str| when(is_right, Proof { grant: granted(account), ..Proof::default() });
        let has_password = credential.signing == Signing::Password(0);
        match (&*credential.name, expiry_and_account(&credential.name)) {
            ("alice", _) if rules.knows_alice => Some(by(has_password, "alice")),
            ("bob", _) => Some(by(has_password, "bob")),
            (_, Some((expires, account))) if rules.knows_secret && credential.signing == Signing::Secret(NORTH) => {
                // Of others' grants, only that of Erin is in the settings.
                Some(by(self.now < expires || self.is_owner(), if account == "erin" { account } else { "" }))
            }
            _ => None,
        }
    }

    fn by_directory(&self) -> Result<Proof, Denied> {
        let credential = self.credential;
        let subject = Subject::User(credential.name.as_str().into());
        let Heard { told, realm, is_old } = self.heard(subject.clone(), self.is_owner())?;
        let is_timely = |(expires, _): (u64, &str)| self.now < expires || self.is_owner();
        let (is_right, grant, is_admitted) = match &told {
            Told::User { name, password, grant, is_admitted } => {
                let is_theirs = *name == credential.name && realm == self.realm;
                (is_theirs && credential.signing == Signing::Password(*password), grant.clone(), *is_admitted)
            }
            Told::Secret(secret, grant) => {
                let is_timely = expiry_and_account(&credential.name).is_some_and(is_timely);
                (is_timely && credential.signing == Signing::Secret(secret), grant.clone(), false)
            }
            Told::Unavailable => return Err(Denied::Unavailable),
            Told::Another(_) | Told::TokenKey | Told::Admitted(_) | Told::Refused => (false, Grant::default(), false),
        };
        match (is_right, is_old) {
            (true, _) => {}
            (false, false) => return Err(Denied::Wrong),
            // What is old is asked again, once.
            (false, true) if self.at_hand.is_some() => return Err(Denied::Unavailable),
            (false, true) => return Err(Denied::Ask(subject)),
        }
        let memory = Some(Memory::Told(self.realm, told));
        Ok(Proof { grant, is_admitted, memory, looks_up: is_old.then_some(subject) })
    }

    /// What was heard of a subject at last, or is remembered with an allocation.
    fn heard(&self, subject: Subject, is_owner: bool) -> Result<Heard, Denied> {
        let new = |told: &Told| Heard { told: told.clone(), realm: self.realm, is_old: false };
        let about = (self.realm, subject);
        let just_told = self.at_hand.filter(|(asked, _)| **asked == about).map(|(_, told)| told);
        let last = self.known.answers.get(&about).map(|(told, _)| told);
        let is_fresh = self.known.fresh(self.now, &about).is_some();
        // Who is being asked for was proven when that began, if it is known still.
        let counts = is_fresh || self.at_hand.is_some();
        match (just_told, last) {
            (Some(told), _) if *told != Told::Unavailable => return Ok(new(told)),
            (Some(_), _) if !is_owner => return Err(Denied::Unavailable),
            (_, Some(last)) if counts => return Ok(new(last)),
            _ => {}
        }
        if let Some((_, Some(Memory::Told(realm, remembered)))) = self.owner
            && is_owner
            && last != Some(&Told::Refused)
        {
            return Ok(match last {
                Some(last) => Heard { is_old: true, ..new(last) },
                None => Heard { told: remembered.clone(), realm: *realm, is_old: true },
            });
        }
        // Forgotten while its admission was asked for, by other settings.
        let asked_for = self.at_hand.is_some_and(|((realm, subject), _)| {
            *realm == self.realm && matches!(subject, Subject::Admission { .. }) && self.rules.asks_for_admission
        });
        let is_vain = just_told.is_some() || asked_for;
        Err(if is_vain { Denied::Unavailable } else { Denied::Ask(about.1) })
    }

    fn is_owner(&self) -> bool {
        self.owner.is_some_and(|(username, _)| username == self.credential.name)
    }

    /// Whether somebody who has proven itself may have an allocation, and what.
    pub(crate) fn admit(&self, proof: &Proof) -> Result<Grant, AdmissionDenied> {
        if !self.rules.asks_for_admission || proof.is_admitted {
            return Ok(proof.grant.clone());
        }
        let (username, account) = (self.credential.name.as_str().into(), self.credential.account().into());
        let about = (self.realm, Subject::Admission { username, account });
        let just_told = self.at_hand.filter(|(asked, _)| **asked == about).map(|(_, told)| told);
        match just_told.or(self.known.fresh(self.now, &about)) {
            Some(Told::Admitted(grant)) => Ok(grant.or(&proof.grant)),
            Some(Told::Unavailable) => Err(AdmissionDenied::Code(500)),
            Some(_) => Err(AdmissionDenied::Code(403)),
            None => Err(AdmissionDenied::Ask(about.1)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdmissionDenied {
    Code(u16),
    Ask(Subject),
}

fn when(is_right: bool, proof: Proof) -> Result<Proof, Denied> {
    if is_right { Ok(proof) } else { Err(Denied::Wrong) }
}
