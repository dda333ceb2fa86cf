//! How many allocations each user has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::stun::attribute::ReservationToken;

/// Counts allocations and reserved ports by user, over all shards. A clone is a handle to the same counts.
///
/// Locked when an allocation begins or ends, never for a packet.
#[derive(Clone, Debug, Default)]
pub struct Quotas(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// A user without any is not in here: the table is as large as what lives.
    accounts: HashMap<Box<str>, usize>,
    /// Whom a reserved port is counted for.
    reservations: HashMap<ReservationToken, Box<str>>,
}

/// One allocation's place in its user's quota; given back when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    quotas: Quotas,
    account: Box<str>,
}

impl Quotas {
    /// Allocations and reserved ports of all users.
    pub fn in_use(&self) -> usize {
        self.lock().accounts.values().sum()
    }

    /// Counts an allocation, unless the user has `limit` already.
    pub(super) fn lease(&self, account: &str, limit: usize) -> Option<Lease> {
        self.lock().take(account, limit).then(|| self.lease_of(account))
    }

    /// Counts a reserved port, unless the user has `limit` already.
    pub(super) fn reserve(&self, token: ReservationToken, account: &str, limit: usize) -> bool {
        let mut counts = self.lock();
        let taken = counts.take(account, limit);
        if taken {
            counts.reservations.insert(token, account.into());
        }
        taken
    }

    /// Counts an allocation that redeems a reserved port: if it is the user's own, it is counted already.
    pub(super) fn redeem(&self, token: ReservationToken, account: &str, limit: usize) -> Option<Lease> {
        let mut counts = self.lock();
        if counts.reservations.get(&token).is_some_and(|owner| **owner == *account) {
            counts.reservations.remove(&token);
        } else if !counts.take(account, limit) {
            return None;
        }
        drop(counts);
        Some(self.lease_of(account))
    }

    /// Counts a reserved port no longer, if nobody has redeemed it.
    pub(super) fn release(&self, token: ReservationToken) {
        let mut counts = self.lock();
        if let Some(account) = counts.reservations.remove(&token) {
            counts.give_back(&account);
        }
    }

    fn lease_of(&self, account: &str) -> Lease {
        Lease { quotas: self.clone(), account: account.into() }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Each step leaves the counts whole: a panic elsewhere harms nothing in here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn take(&mut self, account: &str, limit: usize) -> bool {
        match self.accounts.get_mut(account) {
            Some(count) if *count < limit => *count += 1,
            None if limit > 0 => {
                self.accounts.insert(account.into(), 1);
            }
            _ => return false,
        }
        true
    }

    fn give_back(&mut self, account: &str) {
        if let Some(count) = self.accounts.get_mut(account) {
            *count -= 1;
            if *count == 0 {
                self.accounts.remove(account);
            }
        }
    }
}

impl Lease {
    /// Whom it counts for.
    pub(super) fn account(&self) -> &str {
        &self.account
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.quotas.lock().give_back(&self.account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: ReservationToken = ReservationToken([1; 8]);

    #[test]
    fn a_user_has_no_more_than_its_quota() {
        let quotas = Quotas::default();
        let first = quotas.lease("alice", 2).unwrap();
        let second = quotas.clone().lease("alice", 2).unwrap();
        assert!(quotas.lease("alice", 2).is_none());
        let other = quotas.lease("bob", 2).unwrap();
        assert_eq!(quotas.in_use(), 3);
        drop(first);
        let third = quotas.lease("alice", 2).unwrap();
        drop((second, third, other));
        assert_eq!(quotas.in_use(), 0);
        assert!(quotas.lock().accounts.is_empty(), "nothing is kept about users without allocations");
        assert!(quotas.lease("alice", 0).is_none());
        assert!(quotas.lock().accounts.is_empty());
    }

    #[test]
    fn a_reserved_port_counts_once_whether_redeemed_or_not() {
        let quotas = Quotas::default();
        let even = quotas.lease("alice", 2).unwrap();
        assert!(quotas.reserve(TOKEN, "alice", 2));
        assert!(!quotas.reserve(ReservationToken([2; 8]), "alice", 2));
        let odd = quotas.redeem(TOKEN, "alice", 2).unwrap();
        assert_eq!(quotas.in_use(), 2);
        quotas.release(TOKEN);
        assert_eq!(quotas.in_use(), 2, "what was redeemed is not released again");
        drop((even, odd));
        assert!(quotas.reserve(TOKEN, "alice", 2));
        quotas.release(TOKEN);
        assert_eq!(quotas.in_use(), 0);
    }

    #[test]
    fn a_token_of_another_user_is_no_way_around_the_quota() {
        let quotas = Quotas::default();
        assert!(quotas.reserve(TOKEN, "alice", 1));
        assert!(quotas.redeem(TOKEN, "bob", 0).is_none());
        let lease = quotas.redeem(TOKEN, "bob", 1).unwrap();
        assert_eq!(quotas.in_use(), 2, "the reservation is still alice's until it is released");
        quotas.release(TOKEN);
        drop(lease);
        assert_eq!(quotas.in_use(), 0);
    }
}
