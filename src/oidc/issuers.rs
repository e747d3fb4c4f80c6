//! Which issuers are known, and the keys held of each.
//!
//! Known issuers are the built-in ones, those of the settings, and those of the issuers file, which
//! may change: then a new table takes the old one's place, and an issuer of which nothing changed
//! takes its keys along. Those that the gate admits are a stranger's choice: they share a small part
//! of their own, in which they push out each other and nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use moka::policy::EvictionPolicy;
use tokio::sync::Semaphore;

use super::{
    Error, PrivateNetworks, Settings, Unverified,
    claims::IssuerKind,
    discovery::Remote,
    held::{Held, Keys, Source},
    listed::{KeysFrom, Listed, Reach},
    rules::Rules,
};
use crate::{
    clock::Clock,
    egress::{Access, AddressRule, Documents, Egress},
    name::Issuer,
    pattern::Pattern,
};

/// The built-in issuers beside that of GitHub Actions.
const BUILT_IN: [&str; 5] = [
    "https://accounts.google.com",
    "https://gitlab.com",
    "https://agent.buildkite.com",
    "https://app.terraform.io",
    "https://issuer.enforce.dev",
];

/// As many issuers that are not known are asked at a time.
const PLACES: usize = 32;

/// Leave to verify a token of one issuer: it is known, or it passed the gate.
#[derive(Debug, Clone)]
pub struct Admission {
    issuer: Issuer,
    /// What made it known. An issuer that is no longer listed when its token is verified was known
    /// when this was given, and is not one that the gate let in.
    known: Option<Trusted>,
}

impl Admission {
    /// For the gate alone, when it admits `issuer`.
    pub(crate) fn by_gate(issuer: &Issuer) -> Self {
        Self { issuer: issuer.clone(), known: None }
    }

    /// Whose tokens.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }
}

/// One issuer: how it is trusted, its keys, and what is asked of its tokens.
#[derive(Debug, Clone)]
pub(super) struct Trusted {
    pub(super) kind: IssuerKind,
    pub(super) keys: Keys,
    pub(super) rules: Arc<Rules>,
}

/// All issuers of which keys are held.
pub(super) struct Issuers {
    table: RwLock<Arc<Table>>,
    admitted: moka::sync::Cache<Issuer, Arc<Held>>,
    means: Means,
}

/// The issuers that are known, and what the issuers file says of the others.
struct Table {
    known: HashMap<Issuer, Known>,
    patterns: Vec<(Pattern, Arc<Rules>)>,
    /// Nobody else is taken.
    only_listed: bool,
}

struct Known {
    trusted: Trusted,
    /// Where its keys come from, if the issuers file says so.
    keys_from: Option<KeysFrom>,
    listed: bool,
}

impl Table {
    /// The rules for an issuer of which no entry speaks by name.
    fn pattern_rules(&self, issuer: &Issuer) -> Option<&Arc<Rules>> {
        self.patterns.iter().find(|(pattern, _)| pattern.is_match(issuer.as_str())).map(|(_, rules)| rules)
    }

    /// Whether tokens of the issuer may be looked into at all.
    fn takes(&self, issuer: &Issuer) -> bool {
        !self.only_listed
            || self.known.get(issuer).is_some_and(|known| known.listed)
            || self.pattern_rules(issuer).is_some()
    }
}

impl Issuers {
    pub(super) fn new(settings: &Settings, egress: &Egress, clock: &Arc<dyn Clock>) -> Self {
        let admitted = moka::sync::Cache::builder()
            .max_capacity(settings.admitted_issuers)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        let means = Means::new(settings, egress, clock);
        let nothing = Table { known: HashMap::new(), patterns: Vec::new(), only_listed: false };
        let issuers = Self { table: RwLock::new(Arc::new(nothing)), admitted, means };
        issuers.take_up(settings, settings.issuers_file.as_ref().map(|(_, listed)| listed));
        issuers
    }

    /// Puts what the settings and the issuers file say now in the place of what they said before.
    pub(super) fn take_up(&self, settings: &Settings, listed: Option<&Listed>) {
        let before = self.table();
        let entries = listed.map(|listed| listed.entries.as_slice()).unwrap_or_default();
        let patterns = listed.map(|listed| listed.patterns.clone()).unwrap_or_default();
        let only_listed = listed.is_some_and(|listed| listed.only_listed);
        let mut table = Table { known: HashMap::new(), patterns, only_listed };
        // The first to name an issuer says of which kind it is, an entry of the file whatever else.
        let built_in = BUILT_IN.iter().filter_map(|issuer| issuer.parse().ok());
        let kinds = [(settings.actions_issuer.clone(), IssuerKind::Actions)]
            .into_iter()
            .chain(built_in.map(|issuer| (issuer, IssuerKind::BuiltIn)))
            .chain(settings.configured.iter().map(|issuer| (issuer.clone(), IssuerKind::Configured)))
            .chain(entries.iter().map(|entry| (entry.issuer.clone(), IssuerKind::Configured)));
        for (issuer, kind) in kinds {
            if !table.known.contains_key(&issuer) {
                let entry = entries.iter().find(|entry| entry.issuer == issuer);
                let rules = entry.map(|entry| &entry.rules).or_else(|| table.pattern_rules(&issuer));
                let rules = rules.map(Arc::clone).unwrap_or_default();
                let keys_from = entry.map(|entry| entry.keys.clone());
                let same = before.known.get(&issuer).filter(|known| known.keys_from == keys_from);
                let keys = same.map(|known| known.trusted.keys.clone());
                let keys = keys.unwrap_or_else(|| self.means.keys(&issuer, keys_from.as_ref()));
                let trusted = Trusted { kind, keys, rules };
                table.known.insert(issuer, Known { trusted, keys_from, listed: entry.is_some() });
            }
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// The admission that a known issuer has by itself.
    ///
    /// # Errors
    /// [`Error::NotListed`], where only listed issuers are taken and this one is not.
    pub(super) fn known(&self, token: &Unverified) -> Result<Option<Admission>, Error> {
        let (table, issuer) = (self.table(), token.issuer());
        if !table.takes(issuer) {
            return Err(Error::NotListed);
        }
        let known = table.known.get(issuer).map(|known| known.trusted.clone());
        Ok(known.map(|known| Admission { issuer: issuer.clone(), known: Some(known) }))
    }

    /// Every known issuer that is taken, in the order of their names.
    pub(super) fn every_known(&self) -> Vec<(Issuer, Trusted)> {
        let table = self.table();
        let taken = table.known.iter().filter(|(issuer, _)| table.takes(issuer));
        let mut all: Vec<_> = taken.map(|(issuer, known)| (issuer.clone(), known.trusted.clone())).collect();
        all.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        all
    }

    /// The issuer, if it is taken and anything is held of it.
    pub(super) fn find(&self, issuer: &Issuer) -> Option<Trusted> {
        let table = self.table();
        if !table.takes(issuer) {
            return None;
        }
        match table.known.get(issuer) {
            Some(known) => Some(known.trusted.clone()),
            None => Some(admitted(&table, issuer, self.admitted.get(issuer)?)),
        }
    }

    /// The issuer that was admitted.
    ///
    /// # Errors
    /// [`Error::NotListed`], where only listed issuers are taken and this one is not.
    pub(super) fn admit(&self, admission: &Admission) -> Result<Trusted, Error> {
        let (table, issuer) = (self.table(), &admission.issuer);
        if !table.takes(issuer) {
            return Err(Error::NotListed);
        }
        Ok(admission.known.clone().unwrap_or_else(|| {
            let held = self.admitted.get_with_by_ref(issuer, || self.means.strangers(issuer));
            admitted(&table, issuer, held)
        }))
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub(super) fn admitted_count(&self) -> u64 {
        self.admitted.run_pending_tasks();
        self.admitted.entry_count()
    }
}

fn admitted(table: &Table, issuer: &Issuer, held: Arc<Held>) -> Trusted {
    let rules = table.pattern_rules(issuer).map(Arc::clone).unwrap_or_default();
    Trusted { kind: IssuerKind::Admitted, keys: Keys::Fetched(held), rules }
}

/// What keys are fetched with.
struct Means {
    egress: Egress,
    /// For issuers that are known, without an entry that says otherwise.
    known: Documents,
    known_rule: AddressRule,
    admitted: Documents,
    /// Bounds the fetches for admitted issuers.
    places: Arc<Semaphore>,
    fetch_timeout: std::time::Duration,
    clock: Arc<dyn Clock>,
}

impl Means {
    fn new(settings: &Settings, egress: &Egress, clock: &Arc<dyn Clock>) -> Self {
        let (for_known, for_admitted) = match settings.private_networks {
            PrivateNetworks::Blocked => (AddressRule::Public, AddressRule::Public),
            PrivateNetworks::Known => (AddressRule::PrivateToo, AddressRule::Public),
            PrivateNetworks::All => (AddressRule::PrivateToo, AddressRule::PrivateToo),
        };
        Self {
            known: egress.documents(&Access::by(for_known)),
            known_rule: for_known,
            admitted: egress.documents(&Access::by(for_admitted)),
            egress: egress.clone(),
            places: Arc::new(Semaphore::new(PLACES)),
            fetch_timeout: settings.fetch_timeout,
            clock: Arc::clone(clock),
        }
    }

    /// A known issuer's keys, of which nothing is held yet.
    fn keys(&self, issuer: &Issuer, from: Option<&KeysFrom>) -> Keys {
        let remote = match from {
            Some(KeysFrom::Fixed(keys)) => return Keys::Fixed(Arc::clone(&keys.set)),
            None => self.remote(issuer, &self.known),
            Some(KeysFrom::Discovery(reach)) => self.remote_by(issuer, None, reach),
            Some(KeysFrom::Address(uri, reach)) => self.remote_by(issuer, Some(uri.clone()), reach),
        };
        Keys::Fetched(self.held(remote, None))
    }

    /// The keys of an issuer that the gate admitted.
    fn strangers(&self, issuer: &Issuer) -> Arc<Held> {
        self.held(self.remote(issuer, &self.admitted), Some(Arc::clone(&self.places)))
    }

    fn remote(&self, issuer: &Issuer, documents: &Documents) -> Remote {
        let (home, elsewhere) = (documents.clone(), documents.clone());
        Remote { issuer: issuer.clone(), keys_at: None, home, elsewhere, bearer: None }
    }

    fn remote_by(&self, issuer: &Issuer, keys_at: Option<http::Uri>, reach: &Reach) -> Remote {
        let rule = if reach.private_network { AddressRule::PrivateToo } else { self.known_rule };
        let elsewhere = Access { proxy: reach.proxy, ..Access::by(self.known_rule) };
        let home = Access { rule, roots: reach.roots.clone(), proxy: reach.proxy };
        Remote {
            issuer: issuer.clone(),
            keys_at,
            home: self.egress.documents(&home),
            elsewhere: self.egress.documents(&elsewhere),
            bearer: reach.bearer.clone(),
        }
    }

    fn held(&self, remote: Remote, places: Option<Arc<Semaphore>>) -> Arc<Held> {
        let clock = Arc::clone(&self.clock);
        Arc::new(Held::new(Source { remote, clock, fetch_timeout: self.fetch_timeout, places }))
    }
}
