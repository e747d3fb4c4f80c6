//! Which issuers are known, and the keys held of each.
//!
//! Known issuers are there from the start and stay. Those that the gate admits are a stranger's
//! choice: they share a small part of their own, in which they push out each other and nobody else.

use std::{collections::HashMap, sync::Arc};

use moka::policy::EvictionPolicy;
use tokio::sync::Semaphore;

use super::{
    PrivateNetworks, Settings, Unverified,
    claims::IssuerKind,
    held::{Held, Source},
};
use crate::{
    clock::Clock,
    egress::{AddressRule, Documents, Egress},
    name::Issuer,
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
}

impl Admission {
    /// For the gate alone, when it admits `issuer`.
    pub(crate) fn by_gate(issuer: &Issuer) -> Self {
        Self { issuer: issuer.clone() }
    }

    /// Whose tokens.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }
}

/// One issuer: how it is trusted, and its keys.
pub(super) struct Trusted {
    pub(super) kind: IssuerKind,
    pub(super) held: Arc<Held>,
}

/// All issuers of which keys are held.
pub(super) struct Issuers {
    known: HashMap<Issuer, Trusted>,
    admitted: moka::sync::Cache<Issuer, Arc<Held>>,
    /// What an admitted issuer's keys are fetched with.
    strangers: Fetching,
}

struct Fetching {
    documents: Documents,
    places: Option<Arc<Semaphore>>,
    fetch_timeout: std::time::Duration,
    clock: Arc<dyn Clock>,
}

impl Fetching {
    fn held(&self, issuer: &Issuer) -> Arc<Held> {
        Arc::new(Held::new(Source {
            issuer: issuer.clone(),
            documents: self.documents.clone(),
            clock: Arc::clone(&self.clock),
            fetch_timeout: self.fetch_timeout,
            places: self.places.clone(),
        }))
    }
}

impl Issuers {
    pub(super) fn new(settings: &Settings, egress: &Egress, clock: &Arc<dyn Clock>) -> Self {
        let (for_known, for_strangers) = match settings.private_networks {
            PrivateNetworks::Blocked => (AddressRule::Public, AddressRule::Public),
            PrivateNetworks::Known => (AddressRule::PrivateToo, AddressRule::Public),
            PrivateNetworks::All => (AddressRule::PrivateToo, AddressRule::PrivateToo),
        };
        let fetching = |rule, places| Fetching {
            documents: egress.documents(rule),
            places,
            fetch_timeout: settings.fetch_timeout,
            clock: Arc::clone(clock),
        };
        let well_known = fetching(for_known, None);
        // The first to name an issuer says of which kind it is.
        let mut known = HashMap::new();
        let mut add = |issuer: Issuer, kind| {
            known.entry(issuer).or_insert_with_key(|issuer| Trusted { kind, held: well_known.held(issuer) });
        };
        add(settings.actions_issuer.clone(), IssuerKind::Actions);
        BUILT_IN.iter().filter_map(|issuer| issuer.parse().ok()).for_each(|issuer| add(issuer, IssuerKind::BuiltIn));
        settings.configured.iter().for_each(|issuer| add(issuer.clone(), IssuerKind::Configured));
        let admitted = moka::sync::Cache::builder()
            .max_capacity(settings.admitted_issuers)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { known, admitted, strangers: fetching(for_strangers, Some(Arc::new(Semaphore::new(PLACES)))) }
    }

    /// The admission that a known issuer has by itself.
    pub(super) fn known(&self, token: &Unverified) -> Option<Admission> {
        let (issuer, _) = self.known.get_key_value(token.issuer())?;
        Some(Admission { issuer: issuer.clone() })
    }

    /// The issuer, if anything is held of it.
    pub(super) fn find(&self, issuer: &Issuer) -> Option<Trusted> {
        self.find_known(issuer)
            .or_else(|| Some(Trusted { kind: IssuerKind::Admitted, held: self.admitted.get(issuer)? }))
    }

    /// The issuer that was admitted.
    pub(super) fn admit(&self, admission: &Admission) -> Trusted {
        let issuer = &admission.issuer;
        self.find_known(issuer).unwrap_or_else(|| Trusted {
            kind: IssuerKind::Admitted,
            held: self.admitted.get_with_by_ref(issuer, || self.strangers.held(issuer)),
        })
    }

    fn find_known(&self, issuer: &Issuer) -> Option<Trusted> {
        self.known.get(issuer).map(|known| Trusted { kind: known.kind, held: Arc::clone(&known.held) })
    }

    #[cfg(test)]
    pub(super) fn admitted_count(&self) -> u64 {
        self.admitted.run_pending_tasks();
        self.admitted.entry_count()
    }
}
