//! The key caches of unknown issuers that the gate admitted.
//!
//! An issuer is admitted by an owner's policy, and counts as that owner's. If there are too many,
//! the owner with the most loses the one that it has not used for longest. So a policy whose
//! pattern admits any number of issuers evicts those of its own owner and no others. Two owners
//! that admit the same issuer share its cache, and with it the limits of fetches.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::key_cache::KeyCache;
use crate::name::{Issuer, Owner};

/// How much may be cached, all owners together.
#[derive(Debug, Clone, Copy)]
pub struct AdmittedBounds {
    /// Issuers.
    pub issuers: usize,
    /// Bytes, as the key sets use them.
    pub bytes: usize,
}

pub(super) struct AdmittedIssuers {
    bounds: AdmittedBounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shares: HashMap<Owner, HashMap<Issuer, Entry>>,
    /// Numbers the uses.
    uses: u64,
}

struct Entry {
    cache: Arc<KeyCache>,
    last_use: u64,
}

impl AdmittedIssuers {
    pub(super) fn new(bounds: AdmittedBounds) -> Self {
        Self { bounds, state: Mutex::default() }
    }

    /// The issuer's cache, if it is in the owner's share.
    pub(super) fn get(&self, owner: &Owner, issuer: &Issuer) -> Option<Arc<KeyCache>> {
        self.state().touch(owner, issuer)
    }

    /// The issuer's cache, in the owner's share from now on.
    pub(super) fn admit(
        &self,
        owner: &Owner,
        issuer: &Issuer,
        make: impl FnOnce() -> KeyCache,
    ) -> Arc<KeyCache> {
        let mut state = self.state();
        if let Some(cache) = state.touch(owner, issuer) {
            return cache;
        }
        let others = state.shares.values().find_map(|share| share.get(issuer));
        let cache = others.map_or_else(|| Arc::new(make()), |entry| Arc::clone(&entry.cache));
        state.uses += 1;
        let entry = Entry { cache: Arc::clone(&cache), last_use: state.uses };
        state.shares.entry(owner.clone()).or_default().insert(issuer.clone(), entry);
        state.trim(self.bounds);
        cache
    }

    /// Evicts what is too much. To be called when a fetch has ended: it may have made an entry
    /// larger.
    pub(super) fn trim(&self) {
        self.state().trim(self.bounds);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn total(&self) -> AdmittedBounds {
        self.state().total()
    }
}

impl State {
    fn touch(&mut self, owner: &Owner, issuer: &Issuer) -> Option<Arc<KeyCache>> {
        let entry = self.shares.get_mut(owner)?.get_mut(issuer)?;
        self.uses += 1;
        entry.last_use = self.uses;
        Some(Arc::clone(&entry.cache))
    }

    fn total(&self) -> AdmittedBounds {
        let sizes = self.shares.values().map(size);
        sizes.fold(AdmittedBounds { issuers: 0, bytes: 0 }, |sum, share| AdmittedBounds {
            issuers: sum.issuers + share.issuers,
            bytes: sum.bytes + share.bytes,
        })
    }

    fn trim(&mut self, bounds: AdmittedBounds) {
        loop {
            let total = self.total();
            let (is_over_bytes, is_over_count) =
                (total.bytes > bounds.bytes, total.issuers > bounds.issuers);
            if !is_over_bytes && !is_over_count {
                return;
            }
            let weight = |share: &HashMap<Issuer, Entry>| {
                let size = size(share);
                let oldest = share.values().map(|entry| entry.last_use).min();
                (if is_over_bytes { size.bytes } else { size.issuers }, std::cmp::Reverse(oldest))
            };
            let Some((owner, share)) =
                self.shares.iter_mut().max_by_key(|(_, share)| weight(share))
            else {
                return;
            };
            let oldest = share
                .iter()
                .min_by_key(|(_, entry)| entry.last_use)
                .map(|(issuer, _)| issuer.clone());
            if let Some(issuer) = oldest {
                share.remove(&issuer);
            }
            if share.is_empty() {
                let owner = owner.clone();
                self.shares.remove(&owner);
            }
        }
    }
}

fn size(share: &HashMap<Issuer, Entry>) -> AdmittedBounds {
    AdmittedBounds {
        issuers: share.len(),
        bytes: share.values().map(|entry| entry.cache.size()).sum(),
    }
}
