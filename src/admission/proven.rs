//! Who was granted a token within the last day, and by which policies.
//!
//! Only hashes are kept. Their number is bounded: an owner whose policy grants to everyone loses
//! its own oldest entries, not those of other owners.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::{Clock, Moment},
    name::{Issuer, Owner, PolicyName, Scope, Subject},
};

/// How long a grant counts.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Entries of all owners, at most: about 8 MiB.
const MAX_ENTRIES: usize = 1 << 17;

/// What a grant proves of its owner.
#[derive(Hash)]
enum Fact<'a> {
    /// The issuer signs for callers of the owner.
    Issuer(&'a Issuer),
    /// The caller is one of the owner's.
    Caller(&'a Issuer, &'a Subject),
    /// The policy is in use.
    Policy(&'a Scope, &'a PolicyName),
}

#[derive(Default)]
struct Table {
    owners: HashMap<Owner, HashMap<u64, Moment>>,
    entries: usize,
}

impl Table {
    /// Halves the entries of the owner that has most of them, the oldest first; those of the last
    /// day only if there are no others.
    fn make_room(&mut self, now: Moment) {
        self.owners.retain(|_, facts| {
            facts.retain(|_, at| now.since(*at) < LIFETIME);
            !facts.is_empty()
        });
        self.entries = self.owners.values().map(HashMap::len).sum();
        if self.entries < MAX_ENTRIES {
            return;
        }
        if let Some(facts) = self.owners.values_mut().max_by_key(|facts| facts.len()) {
            let mut moments: Vec<_> = facts.values().copied().collect();
            let (_, median, _) = moments.select_nth_unstable(facts.len() / 2);
            let median = *median;
            facts.retain(|_, at| *at > median);
        }
        self.entries = self.owners.values().map(HashMap::len).sum();
    }
}

/// The grants of the last day.
pub(super) struct Proven {
    table: Mutex<Table>,
    hasher: RandomState,
    clock: Arc<dyn Clock>,
}

impl Proven {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { table: Mutex::default(), hasher: RandomState::new(), clock }
    }

    /// A token was granted.
    pub(super) fn note(
        &self,
        (issuer, subject): (&Issuer, &Subject),
        scope: &Scope,
        identity: &PolicyName,
    ) {
        let facts =
            [Fact::Issuer(issuer), Fact::Caller(issuer, subject), Fact::Policy(scope, identity)];
        let facts = facts.map(|fact| self.hasher.hash_one(fact));
        let now = self.clock.monotonic();
        let mut table = self.table();
        if table.entries + facts.len() > MAX_ENTRIES {
            table.make_room(now);
        }
        let owned = table.owners.entry(scope.owner().clone()).or_default();
        let new = facts.into_iter().filter(|fact| owned.insert(*fact, now).is_none()).count();
        table.entries += new;
    }

    /// Whether a caller with a token of this issuer was granted one for the owner.
    pub(super) fn knows_issuer(&self, issuer: &Issuer, owner: &Owner) -> bool {
        self.holds(&Fact::Issuer(issuer), owner)
    }

    /// Whether the caller was granted a token for the owner.
    pub(super) fn knows_caller(
        &self,
        (issuer, subject): (&Issuer, &Subject),
        owner: &Owner,
    ) -> bool {
        self.holds(&Fact::Caller(issuer, subject), owner)
    }

    /// Whether anyone was granted a token by the policy.
    pub(super) fn knows_policy(&self, scope: &Scope, identity: &PolicyName) -> bool {
        self.holds(&Fact::Policy(scope, identity), scope.owner())
    }

    fn holds(&self, fact: &Fact<'_>, owner: &Owner) -> bool {
        let (fact, now) = (self.hasher.hash_one(fact), self.clock.monotonic());
        let table = self.table();
        let at = table.owners.get(owner).and_then(|facts| facts.get(&fact));
        at.is_some_and(|at| now.since(*at) < LIFETIME)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Proven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proven").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixTime};

    fn proven() -> (Proven, ManualClock) {
        let clock = ManualClock::at(UnixTime::from_secs(1_000_000));
        (Proven::new(Arc::new(clock.clone())), clock)
    }

    fn note(proven: &Proven, subject: &str, scope: &str) {
        let issuer = "https://idp.example.com".parse().unwrap();
        let subject = subject.parse().unwrap();
        proven.note((&issuer, &subject), &scope.parse().unwrap(), &"ci".parse().unwrap());
    }

    fn knows(proven: &Proven, subject: &str, owner: &str) -> bool {
        let issuer = "https://idp.example.com".parse().unwrap();
        let subject = subject.parse().unwrap();
        proven.knows_caller((&issuer, &subject), &owner.parse().unwrap())
    }

    #[test]
    fn a_grant_counts_for_its_caller_its_owner_and_a_day() {
        let (proven, clock) = proven();
        note(&proven, "a", "octo-org/hello");
        assert!(
            knows(&proven, "a", "Octo-Org")
                && !knows(&proven, "b", "octo-org")
                && !knows(&proven, "a", "other")
        );
        let (scope, other) = ("octo-org/hello".parse().unwrap(), "octo-org/other".parse().unwrap());
        assert!(proven.knows_policy(&scope, &"ci".parse().unwrap()));
        assert!(!proven.knows_policy(&scope, &"cd".parse().unwrap()));
        assert!(!proven.knows_policy(&other, &"ci".parse().unwrap()));
        clock.advance(LIFETIME);
        assert!(
            !knows(&proven, "a", "octo-org")
                && !proven.knows_policy(&scope, &"ci".parse().unwrap())
        );
    }

    #[test]
    fn an_owner_that_grants_to_everyone_forgets_its_own_callers_only() {
        let (proven, clock) = proven();
        note(&proven, "honest", "octo-org/hello");
        for n in 0..MAX_ENTRIES * 2 {
            clock.advance(Duration::from_micros(1));
            note(&proven, &format!("s{n}"), "evil/x");
        }
        assert!(proven.table().entries <= MAX_ENTRIES);
        assert!(knows(&proven, "honest", "octo-org") && !knows(&proven, "s0", "evil"));
        assert!(knows(&proven, &format!("s{}", MAX_ENTRIES * 2 - 1), "evil"));
    }
}
