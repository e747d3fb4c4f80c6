//! Which issuers are known, and the cached keys of each.
//!
//! Known issuers are the built-in ones, those of the settings, and those of the issuers file. If
//! the file changes, a new table replaces the old one, and an issuer of which nothing changed keeps
//! its cached keys. The issuers that the gate admits are cached apart, in `admitted`.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::Semaphore;

use super::{
    Error, PrivateNetworks, Settings, Unverified,
    admitted::AdmittedIssuers,
    claims::{IssuerKind, TokenOrigin},
    discovery::Remote,
    issuers_file::{Entry, KeysFrom, ListedIssuers, Reach},
    key_cache::{Fetcher, KeyCache, Keys},
    rules::Rules,
};
use crate::{
    clock::Clock,
    egress::{Access, AddressRule, Documents, Egress},
    name::{Issuer, Owner},
    pattern::Pattern,
};

/// The built-in issuers beside that of GitHub Actions.
pub const BUILT_IN: [&str; 5] = [
    "https://accounts.google.com",
    "https://gitlab.com",
    "https://agent.buildkite.com",
    "https://app.terraform.io",
    "https://issuer.enforce.dev",
];

/// The issuer of GitHub Actions on github.com. It issues tokens for everyone, whichever GitHub is
/// configured.
const GITHUB_COM_ACTIONS: &str = "https://token.actions.githubusercontent.com";

/// The largest number of concurrent fetches for unknown issuers.
const MAX_CONCURRENT_FETCHES: usize = 32;

/// Permission to verify tokens of one issuer: it is known, or the gate admits it.
#[derive(Debug, Clone)]
pub struct Admission {
    issuer: Issuer,
    by: AdmittedBy,
}

#[derive(Debug, Clone)]
enum AdmittedBy {
    /// The issuer was known then. If it is no longer listed when its token is verified, its own
    /// keys and rules count all the same.
    Operator(Trusted),
    /// This owner's policy, and its organization's list.
    Gate(Owner),
}

impl Admission {
    /// For the gate alone, when `owner`'s policy and list admit `issuer`.
    pub(crate) fn by_gate(issuer: &Issuer, owner: &Owner) -> Self {
        Self { issuer: issuer.clone(), by: AdmittedBy::Gate(owner.clone()) }
    }

    /// Whose tokens.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }
}

/// One issuer: how it is trusted, its keys, and the rules for its tokens.
#[derive(Debug, Clone)]
pub(super) struct Trusted {
    pub(super) origin: TokenOrigin,
    pub(super) keys: Keys,
    pub(super) rules: Arc<Rules>,
}

/// All issuers with cached keys.
pub(super) struct Issuers {
    table: RwLock<Arc<Table>>,
    admitted: AdmittedIssuers,
    means: Means,
}

/// The issuers that are known, and what the issuers file says of the others.
struct Table {
    known: HashMap<Issuer, Known>,
    patterns: Vec<(Pattern, Arc<Rules>)>,
    /// No other issuer is accepted.
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
        self.patterns
            .iter()
            .find(|(pattern, _)| pattern.is_match(issuer.as_str()))
            .map(|(_, rules)| rules)
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
        let admitted = AdmittedIssuers::new(settings.admitted);
        let means = Means::new(settings, egress, clock);
        let nothing = Table { known: HashMap::new(), patterns: Vec::new(), only_listed: false };
        let issuers = Self { table: RwLock::new(Arc::new(nothing)), admitted, means };
        issuers.replace(settings, settings.issuers_file.as_ref().map(|(_, listed)| listed));
        issuers
    }

    /// Replaces the known issuers by those that the settings and the issuers file have now.
    pub(super) fn replace(&self, settings: &Settings, listed: Option<&ListedIssuers>) {
        let before = self.table();
        let entries = listed.map(|listed| listed.entries.as_slice()).unwrap_or_default();
        let patterns = listed.map(|listed| listed.patterns.clone()).unwrap_or_default();
        let only_listed = listed.is_some_and(|listed| listed.only_listed);
        let mut table = Table { known: HashMap::new(), patterns, only_listed };
        // The first source that lists an issuer sets its kind. If the file has an entry for it,
        // that entry sets its rules and keys.
        let built_in = BUILT_IN.iter().filter_map(|issuer| issuer.parse().ok());
        let kinds = [(settings.actions_issuer.clone(), IssuerKind::Actions)]
            .into_iter()
            .chain(built_in.map(|issuer| (issuer, IssuerKind::BuiltIn)))
            .chain(
                settings.configured.iter().map(|issuer| (issuer.clone(), IssuerKind::Configured)),
            )
            .chain(entries.iter().map(|entry| (entry.issuer.clone(), IssuerKind::Configured)));
        for (issuer, kind) in kinds {
            if !table.known.contains_key(&issuer) {
                let entry = entries.iter().find(|entry| entry.issuer == issuer);
                let rules =
                    entry.map(|entry| &entry.rules).or_else(|| table.pattern_rules(&issuer));
                let rules = rules.map(Arc::clone).unwrap_or_default();
                let keys_from = entry.map(|entry| entry.keys.clone());
                let same = before.known.get(&issuer).filter(|known| known.keys_from == keys_from);
                let keys = same.map(|known| known.trusted.keys.clone());
                let keys = keys.unwrap_or_else(|| self.means.keys(&issuer, keys_from.as_ref()));
                let is_single_tenant = entry.is_some_and(|entry| is_single_tenant(kind, entry));
                let trusted =
                    Trusted { origin: TokenOrigin { kind, is_single_tenant }, keys, rules };
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
        Ok(known.map(|known| Admission { issuer: issuer.clone(), by: AdmittedBy::Operator(known) }))
    }

    /// Every known issuer that is taken, in the order of their names.
    pub(super) fn every_known(&self) -> Vec<(Issuer, Trusted)> {
        let table = self.table();
        let taken = table.known.iter().filter(|(issuer, _)| table.takes(issuer));
        let mut all: Vec<_> =
            taken.map(|(issuer, known)| (issuer.clone(), known.trusted.clone())).collect();
        all.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        all
    }

    /// The issuer, if it is accepted and, where it is unknown, in the owner's share of the cached
    /// ones.
    pub(super) fn cached(&self, issuer: &Issuer, owner: &Owner) -> Option<Trusted> {
        let table = self.table();
        if !table.takes(issuer) {
            return None;
        }
        match table.known.get(issuer) {
            Some(known) => Some(known.trusted.clone()),
            None => Some(admitted(&table, issuer, self.admitted.get(owner, issuer)?)),
        }
    }

    /// The issuer that was admitted.
    ///
    /// # Errors
    /// [`Error::NotListed`], where only listed issuers are accepted and this one is not.
    pub(super) fn admit(&self, admission: &Admission) -> Result<Trusted, Error> {
        let (table, issuer) = (self.table(), &admission.issuer);
        if !table.takes(issuer) {
            return Err(Error::NotListed);
        }
        Ok(match &admission.by {
            AdmittedBy::Operator(known) => known.clone(),
            AdmittedBy::Gate(owner) => {
                let cache = self.admitted.admit(owner, issuer, || self.means.unknown(issuer));
                admitted(&table, issuer, cache)
            }
        })
    }

    /// To be called when a fetch for an unknown issuer may have ended.
    pub(super) fn trim(&self) {
        self.admitted.trim();
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub(super) fn admitted_total(&self) -> super::AdmittedBounds {
        self.admitted.total()
    }
}

fn admitted(table: &Table, issuer: &Issuer, cache: Arc<KeyCache>) -> Trusted {
    let rules = table.pattern_rules(issuer).map(Arc::clone).unwrap_or_default();
    let origin = TokenOrigin { kind: IssuerKind::Admitted, is_single_tenant: false };
    Trusted { origin, keys: Keys::Fetched(cache), rules }
}

/// Built-in issuers are shared by many tenants, whatever the file says.
fn is_single_tenant(kind: IssuerKind, entry: &Entry) -> bool {
    entry.is_single_tenant && !kind.is_built_in() && entry.issuer.as_str() != GITHUB_COM_ACTIONS
}

/// What keys are fetched with.
struct Means {
    egress: Egress,
    /// For issuers that are known, without an entry that says otherwise.
    known: Documents,
    known_rule: AddressRule,
    actions_issuer: Issuer,
    /// For the Actions issuer of the configured GitHub.
    actions: Documents,
    admitted: Documents,
    /// Bounds the concurrent fetches for unknown issuers.
    permits: Arc<Semaphore>,
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
            actions_issuer: settings.actions_issuer.clone(),
            actions: egress.documents(&Access {
                private_origin: settings.private_origin.clone(),
                ..Access::by(for_known)
            }),
            admitted: egress.documents(&Access::by(for_admitted)),
            egress: egress.clone(),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_FETCHES)),
            fetch_timeout: settings.fetch_timeout,
            clock: Arc::clone(clock),
        }
    }

    /// A known issuer's keys, of which nothing is cached yet.
    fn keys(&self, issuer: &Issuer, from: Option<&KeysFrom>) -> Keys {
        let remote = match from {
            Some(KeysFrom::Fixed(keys)) => return Keys::Fixed(Arc::clone(&keys.set)),
            None if *issuer == self.actions_issuer => self.remote(issuer, &self.actions),
            None => self.remote(issuer, &self.known),
            Some(KeysFrom::Discovery(reach)) => self.remote_by(issuer, None, reach),
            Some(KeysFrom::Address(uri, reach)) => self.remote_by(issuer, Some(uri.clone()), reach),
        };
        Keys::Fetched(Arc::new(self.cache(remote, None)))
    }

    /// The keys of an issuer that the gate admitted.
    fn unknown(&self, issuer: &Issuer) -> KeyCache {
        self.cache(self.remote(issuer, &self.admitted), Some(Arc::clone(&self.permits)))
    }

    fn remote(&self, issuer: &Issuer, documents: &Documents) -> Remote {
        let (home, elsewhere) = (documents.clone(), documents.clone());
        Remote { issuer: issuer.clone(), keys_at: None, home, elsewhere, bearer: None }
    }

    fn remote_by(&self, issuer: &Issuer, keys_at: Option<http::Uri>, reach: &Reach) -> Remote {
        let rule = if reach.private_network { AddressRule::PrivateToo } else { self.known_rule };
        let elsewhere = Access { proxy: reach.proxy, ..Access::by(self.known_rule) };
        let home = Access { roots: reach.roots.clone(), proxy: reach.proxy, ..Access::by(rule) };
        Remote {
            issuer: issuer.clone(),
            keys_at,
            home: self.egress.documents(&home),
            elsewhere: self.egress.documents(&elsewhere),
            bearer: reach.bearer.clone(),
        }
    }

    fn cache(&self, remote: Remote, permits: Option<Arc<Semaphore>>) -> KeyCache {
        KeyCache::new(Fetcher {
            remote,
            clock: Arc::clone(&self.clock),
            timeout: self.fetch_timeout,
            permits,
        })
    }
}
