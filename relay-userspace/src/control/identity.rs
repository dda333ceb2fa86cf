//! Realms and user stores, as an operator reads them.

use std::time::UNIX_EPOCH;

use hairpin_proto::turn::RealmUsage;
use hairpin_users::StoreReport;

use super::Control;
use crate::relay::published::RealmLimits;
use crate::shard::Histogram;
use crate::{api, metrics};

impl Control {
    /// What each realm has in use, in the order of the configuration; behind those, what is left of others.
    pub(super) fn realms(&self) -> Vec<api::RealmStatus> {
        realms(&self.published().realms, &self.0.sources.quotas.usage())
    }

    /// How the user stores are, and the webhook.
    pub(super) fn user_stores(&self) -> Vec<api::UserStoreStatus> {
        self.store_reports().iter().map(user_store).collect()
    }

    /// The same for a scrape.
    pub(super) fn user_store_metrics(&self) -> Vec<metrics::UserStore> {
        let one = |report: StoreReport| metrics::UserStore {
            seconds: Histogram::of(&hairpin_users::BUCKETS, &report.buckets, report.count, report.sum.as_secs_f64()),
            answers: [
                ("found", report.found),
                ("unknown", report.unknown),
                ("failed", report.failed),
                ("timeout", report.timeout),
            ],
            is_up: report.is_up,
            store: report.name,
        };
        self.store_reports().into_iter().map(one).collect()
    }

    fn store_reports(&self) -> Vec<StoreReport> {
        self.0.sources.directory.load().as_ref().map(|directory| directory.report()).unwrap_or_default()
    }
}

fn realms(limits: &[RealmLimits], usage: &[RealmUsage]) -> Vec<api::RealmStatus> {
    let status = |name: &str, of: u64, per_user: usize| {
        let usage = usage.iter().find(|usage| *usage.realm == *name);
        api::RealmStatus {
            name: name.to_owned(),
            allocations: api::Share { used: usage.map_or(0, |usage| usage.allocations as u64), of },
            users: usage.map_or(0, |usage| usage.users as u64),
            allocations_per_user: per_user as u64,
        }
    };
    let configured = limits.iter().map(|realm| status(&realm.name, realm.allocations, realm.allocations_per_user));
    let is_gone = |usage: &&RealmUsage| !limits.iter().any(|realm| *realm.name == *usage.realm);
    configured.chain(usage.iter().filter(is_gone).map(|usage| status(&usage.realm, 0, 0))).collect()
}

fn user_store(report: &StoreReport) -> api::UserStoreStatus {
    let error = report.last_error.as_ref();
    api::UserStoreStatus {
        name: report.name.clone(),
        up: report.is_up,
        found: report.found,
        unknown: report.unknown,
        failed: report.failed + report.timeout,
        last_error: error.map(|error| error.text.clone()),
        last_error_at: error.and_then(|error| error.at.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs()),
    }
}

/// What an operator should look at.
pub(super) fn warnings(realms: &[api::RealmStatus], stores: &[api::UserStoreStatus]) -> Vec<String> {
    let down = stores.iter().filter(|store| !store.up).map(|store| {
        let error = store.last_error.as_deref().unwrap_or("no answer");
        format!("{}: {error}: new users that it may know are told to try again (500), calls go on", store.name)
    });
    let full = realms.iter().filter(|realm| super::view::is_nearly_full(realm.allocations)).map(|realm| {
        let api::Share { used, of } = realm.allocations;
        format!(
            "{used} of {of} allocations of realm {}: new ones will be refused; raise max-realm-allocations",
            realm.name
        )
    });
    down.chain(full).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realms_that_are_gone_are_told_as_long_as_something_is_left_of_them() {
        let limits = [("a", 10), ("b", 20)].map(|(name, allocations)| RealmLimits {
            name: name.to_owned(),
            allocations,
            allocations_per_user: 3,
        });
        let usage = [("b", 4, 2), ("old", 1, 1)].map(|(realm, allocations, users)| RealmUsage {
            realm: realm.into(),
            allocations,
            users,
        });
        let told: Vec<_> = realms(&limits, &usage)
            .into_iter()
            .map(|realm| (realm.name, realm.allocations.used, realm.allocations.of, realm.users))
            .collect();
        let expected = [("a", 0, 10, 0), ("b", 4, 20, 2), ("old", 1, 0, 1)];
        assert_eq!(told, expected.map(|(name, used, of, users)| (name.to_owned(), used, of, users)));
    }

    #[test]
    fn a_store_that_is_down_and_a_realm_that_is_nearly_full_are_warned_of() {
        let store = |up| api::UserStoreStatus {
            name: "redis".to_owned(),
            up,
            found: 0,
            unknown: 0,
            failed: 0,
            last_error: Some("refused".to_owned()),
            last_error_at: None,
        };
        let realm = |used| api::RealmStatus {
            name: "r".to_owned(),
            allocations: api::Share { used, of: 10 },
            users: 0,
            allocations_per_user: 1,
        };
        assert_eq!(warnings(&[realm(8)], &[store(true)]), [] as [String; 0]);
        let told = warnings(&[realm(9)], &[store(false)]);
        assert!(told[0].starts_with("redis: refused") && told[1].starts_with("9 of 10"), "{told:?}");
    }
}
