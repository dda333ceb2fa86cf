//! How many allocations there are, of each user, from each source address and in each realm.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::cause::Cause;
use crate::stun::attribute::ReservationToken;

/// Counts allocations and reserved ports, over all shards. A clone is a handle to the same counts.
///
/// Locked when an allocation begins, moves or ends, never for a packet.
#[derive(Clone, Debug, Default)]
pub struct Quotas(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// What has none is not in here: the table is as large as what lives.
    counts: HashMap<Holder, usize>,
    /// What a reserved port is counted for.
    reservations: HashMap<ReservationToken, Claim>,
}

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    User { realm: Arc<str>, account: Arc<str> },
    Source(IpAddr),
    Realm(Arc<str>),
}

/// How many each may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ceilings {
    pub(super) user: usize,
    pub(super) source: usize,
    pub(super) realm: usize,
}

/// All that one allocation counts for.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    realm: Arc<str>,
    account: Arc<str>,
    source: IpAddr,
}

/// One allocation's place in all quotas; given back when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    quotas: Quotas,
    claim: Claim,
}

/// What a realm has in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealmUsage {
    /// Its name.
    pub realm: Arc<str>,
    /// Allocations and reserved ports.
    pub allocations: usize,
    /// Users that have any.
    pub users: usize,
}

impl Claim {
    /// An address of IPv6 stands for its /64, which is what one host or site has.
    pub(super) fn new(realm: &Arc<str>, account: &str, source: IpAddr) -> Self {
        Self { realm: Arc::clone(realm), account: account.into(), source: prefix(source) }
    }

    fn is_of_same_user(&self, other: &Self) -> bool {
        self.realm == other.realm && self.account == other.account
    }

    fn user(&self) -> Holder {
        Holder::User { realm: Arc::clone(&self.realm), account: Arc::clone(&self.account) }
    }

    fn holders(&self) -> [Holder; 3] {
        [self.user(), Holder::Source(self.source), Holder::Realm(Arc::clone(&self.realm))]
    }
}

fn prefix(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

impl Quotas {
    /// Allocations and reserved ports of all users.
    pub fn in_use(&self) -> usize {
        self.usage().iter().map(|realm| realm.allocations).sum()
    }

    /// What each realm has in use, by name; one that has nothing is left out. Looks at every user: not for packets.
    pub fn usage(&self) -> Vec<RealmUsage> {
        let counts = self.lock();
        let mut realms: Vec<RealmUsage> = Vec::new();
        for (holder, count) in &counts.counts {
            if let Holder::Realm(realm) = holder {
                realms.push(RealmUsage { realm: Arc::clone(realm), allocations: *count, users: 0 });
            }
        }
        for holder in counts.counts.keys() {
            if let Holder::User { realm, .. } = holder
                && let Some(usage) = realms.iter_mut().find(|usage| usage.realm == *realm)
            {
                usage.users += 1;
            }
        }
        realms.sort_by(|one, other| one.realm.cmp(&other.realm));
        realms
    }

    /// Source addresses that have allocations.
    pub fn sources(&self) -> usize {
        self.lock().counts.keys().filter(|holder| matches!(holder, Holder::Source(_))).count()
    }

    /// Counts an allocation, unless one of those that it counts for has as many as it may have.
    pub(super) fn lease(&self, claim: Claim, ceilings: Ceilings) -> Result<Lease, Cause> {
        self.lock().take(&claim, ceilings)?;
        Ok(self.lease_of(claim))
    }

    /// Counts a reserved port, likewise.
    pub(super) fn reserve(&self, token: ReservationToken, claim: Claim, ceilings: Ceilings) -> Result<(), Cause> {
        let mut counts = self.lock();
        counts.take(&claim, ceilings)?;
        counts.reservations.insert(token, claim);
        Ok(())
    }

    /// Counts an allocation that redeems a reserved port: if it is the user's own, it is counted already.
    pub(super) fn redeem(&self, token: ReservationToken, claim: Claim, ceilings: Ceilings) -> Result<Lease, Cause> {
        let mut counts = self.lock();
        let is_own = counts.reservations.get(&token).is_some_and(|owner| owner.is_of_same_user(&claim));
        let reserved = if is_own { counts.reservations.remove(&token) } else { None };
        if reserved.is_none() {
            counts.take(&claim, ceilings)?;
        }
        drop(counts);
        Ok(self.lease_of(reserved.unwrap_or(claim)))
    }

    /// Counts a reserved port no longer, if nobody has redeemed it.
    pub(super) fn release(&self, token: ReservationToken) {
        let mut counts = self.lock();
        if let Some(claim) = counts.reservations.remove(&token) {
            counts.give_back(&claim);
        }
    }

    fn lease_of(&self, claim: Claim) -> Lease {
        Lease { quotas: self.clone(), claim }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Each step leaves the counts whole: a panic elsewhere harms nothing in here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// All or nothing.
    fn take(&mut self, claim: &Claim, ceilings: Ceilings) -> Result<(), Cause> {
        let Ceilings { user, source, realm } = ceilings;
        let holders = claim.holders();
        let limits = [(user, Cause::UserQuota), (source, Cause::SourceQuota), (realm, Cause::RealmQuota)];
        for (holder, (limit, cause)) in holders.iter().zip(limits) {
            if self.counts.get(holder).copied().unwrap_or(0) >= limit {
                return Err(cause);
            }
        }
        for holder in holders {
            self.add(holder);
        }
        Ok(())
    }

    fn give_back(&mut self, claim: &Claim) {
        for holder in &claim.holders() {
            self.remove(holder);
        }
    }

    fn add(&mut self, holder: Holder) {
        *self.counts.entry(holder).or_default() += 1;
    }

    fn remove(&mut self, holder: &Holder) {
        if let Some(count) = self.counts.get_mut(holder) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(holder);
            }
        }
    }
}

impl Lease {
    /// Whom it counts for.
    pub(super) fn account(&self) -> &str {
        &self.claim.account
    }

    /// The realm that it counts for.
    pub(super) fn realm(&self) -> &Arc<str> {
        &self.claim.realm
    }

    /// The client has moved, and its new address counts it, whatever that has already: a call is not cut off.
    pub(super) fn move_to(&mut self, source: IpAddr) {
        let to = prefix(source);
        let mut counts = self.quotas.lock();
        counts.remove(&Holder::Source(self.claim.source));
        counts.add(Holder::Source(to));
        drop(counts);
        self.claim.source = to;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.quotas.lock().give_back(&self.claim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: ReservationToken = ReservationToken([1; 8]);
    const FREE: Ceilings = Ceilings { user: 100, source: 100, realm: 100 };

    fn claim(account: &str) -> Claim {
        claim_at("realm", account, "192.0.2.1")
    }

    fn claim_at(realm: &str, account: &str, source: &str) -> Claim {
        Claim::new(&realm.into(), account, source.parse().unwrap())
    }

    fn user(limit: usize) -> Ceilings {
        Ceilings { user: limit, ..FREE }
    }

    fn assert_nothing_is_kept(quotas: &Quotas) {
        let counts = quotas.lock();
        assert!(counts.counts.is_empty() && counts.reservations.is_empty(), "{counts:?}");
    }

    #[test]
    fn a_user_has_no_more_than_its_quota() {
        let quotas = Quotas::default();
        let first = quotas.lease(claim("alice"), user(2)).unwrap();
        let second = quotas.clone().lease(claim("alice"), user(2)).unwrap();
        assert_eq!(quotas.lease(claim("alice"), user(2)).unwrap_err(), Cause::UserQuota);
        let other = quotas.lease(claim("bob"), user(2)).unwrap();
        let namesake = quotas.lease(claim_at("other", "alice", "192.0.2.1"), user(1)).unwrap();
        assert_eq!(quotas.in_use(), 4);
        drop(first);
        let third = quotas.lease(claim("alice"), user(2)).unwrap();
        drop((second, third, other, namesake));
        assert_nothing_is_kept(&quotas);
        assert_eq!(quotas.lease(claim("alice"), user(0)).unwrap_err(), Cause::UserQuota);
        assert_nothing_is_kept(&quotas);
    }

    #[test]
    fn a_source_address_has_no_more_than_its_quota_and_of_ipv6_it_is_a_network() {
        let quotas = Quotas::default();
        let limit = Ceilings { source: 1, ..FREE };
        let held = [
            quotas.lease(claim_at("realm", "alice", "192.0.2.1"), limit).unwrap(),
            quotas.lease(claim_at("realm", "alice", "192.0.2.2"), limit).unwrap(),
            quotas.lease(claim_at("realm", "alice", "2001:db8::1"), limit).unwrap(),
            quotas.lease(claim_at("realm", "alice", "2001:db8:0:1::1"), limit).unwrap(),
        ];
        for source in ["192.0.2.1", "2001:db8::2", "2001:db8:0:1:ffff::"] {
            let refused = quotas.lease(claim_at("other", "bob", source), limit).unwrap_err();
            assert_eq!(refused, Cause::SourceQuota, "{source}");
        }
        assert_eq!(quotas.sources(), 4);
        drop(held);
        assert_nothing_is_kept(&quotas);
    }

    #[test]
    fn a_realm_has_no_more_than_its_quota_and_what_is_refused_counts_for_nobody() {
        let quotas = Quotas::default();
        let limit = Ceilings { realm: 2, ..FREE };
        let held = ["alice", "bob"].map(|account| quotas.lease(claim(account), limit).unwrap());
        assert_eq!(quotas.lease(claim("carol"), limit).unwrap_err(), Cause::RealmQuota);
        assert_eq!(quotas.reserve(TOKEN, claim("carol"), limit).unwrap_err(), Cause::RealmQuota);
        let usage = RealmUsage { realm: "realm".into(), allocations: 2, users: 2 };
        assert_eq!(quotas.usage(), [usage]);
        let elsewhere = quotas.lease(claim_at("other", "carol", "192.0.2.1"), limit).unwrap();
        assert_eq!(quotas.usage().len(), 2);
        drop((held, elsewhere));
        assert_nothing_is_kept(&quotas);
    }

    #[test]
    fn a_client_that_moves_counts_where_it_is() {
        let quotas = Quotas::default();
        let limit = Ceilings { source: 1, ..FREE };
        let mut moving = quotas.lease(claim_at("realm", "alice", "192.0.2.1"), limit).unwrap();
        let there = quotas.lease(claim_at("realm", "bob", "192.0.2.2"), limit).unwrap();
        moving.move_to("192.0.2.2".parse().unwrap());
        let back = quotas.lease(claim_at("realm", "carol", "192.0.2.1"), limit).unwrap();
        drop(there);
        let refused = quotas.lease(claim_at("realm", "dave", "192.0.2.2"), limit).unwrap_err();
        assert_eq!(refused, Cause::SourceQuota, "the one that has moved counts here");
        drop((moving, back));
        assert_nothing_is_kept(&quotas);
    }

    #[test]
    fn a_reserved_port_counts_once_whether_redeemed_or_not() {
        let quotas = Quotas::default();
        let even = quotas.lease(claim("alice"), user(2)).unwrap();
        assert_eq!(quotas.reserve(TOKEN, claim("alice"), user(2)), Ok(()));
        assert_eq!(quotas.reserve(ReservationToken([2; 8]), claim("alice"), user(2)), Err(Cause::UserQuota));
        let odd = quotas.redeem(TOKEN, claim_at("realm", "alice", "192.0.2.9"), user(2)).unwrap();
        assert_eq!(quotas.in_use(), 2);
        quotas.release(TOKEN);
        assert_eq!(quotas.in_use(), 2, "what was redeemed is not released again");
        drop((even, odd));
        assert_eq!(quotas.reserve(TOKEN, claim("alice"), user(2)), Ok(()));
        quotas.release(TOKEN);
        assert_nothing_is_kept(&quotas);
    }

    #[test]
    fn a_token_of_another_user_is_no_way_around_the_quota() {
        let quotas = Quotas::default();
        assert_eq!(quotas.reserve(TOKEN, claim("alice"), user(1)), Ok(()));
        assert_eq!(quotas.redeem(TOKEN, claim("bob"), user(0)).unwrap_err(), Cause::UserQuota);
        let namesake = claim_at("other", "alice", "192.0.2.1");
        assert_eq!(quotas.redeem(TOKEN, namesake, user(0)).unwrap_err(), Cause::UserQuota);
        let lease = quotas.redeem(TOKEN, claim("bob"), user(1)).unwrap();
        assert_eq!(quotas.in_use(), 2, "the reservation is still alice's until it is released");
        quotas.release(TOKEN);
        drop(lease);
        assert_nothing_is_kept(&quotas);
    }
}
