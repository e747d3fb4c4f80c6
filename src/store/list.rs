//! The organization's list of trusted issuers, and what its absence or trouble means.
//!
//! The list can forbid, so its state must be known: only a proven absence, or a policy repository
//! that the App cannot see, means that every issuer may be named. Everything else is the last known
//! state, for at most an hour, or a refusal.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Error, Store,
    reader::{Read, Request, Version},
};
use crate::{
    cache::{CallerTrust, Stamped, heap_bytes},
    clock::Moment,
    github,
    name::{AccountId, Owner},
    policy::TrustedIssuers,
    yaml::{Errors, Invalid},
};

pub(super) const PATH: &str = ".github/chainguard/trusted-token-issuers.yaml";

/// The state of an organization's list.
#[derive(Debug, Clone)]
pub enum List {
    /// There is one.
    Present(Arc<TrustedIssuers>),
    /// There is none, and that is proven.
    Absent,
    /// The App does not see the policy repository.
    Invisible,
}

impl List {
    pub(super) fn into_trusted_issuers(self) -> Option<Arc<TrustedIssuers>> {
        match self {
            Self::Present(list) => Some(list),
            Self::Absent | Self::Invisible => None,
        }
    }
}

/// The memory behind a cached list.
pub(super) fn weigh((_, owner): &(AccountId, Owner), held: &CachedList) -> usize {
    let list = match (&held.list, &held.seen) {
        (_, Some((list, _))) | (Ok(List::Present(list)), None) => {
            size_of::<TrustedIssuers>() + list.heap_bytes()
        }
        (Ok(List::Absent | List::Invisible) | Err(_), None) => 0,
    };
    let invalid = held.list.as_ref().err().map_or(0, Errors::heap_bytes);
    let texts =
        2 * heap_bytes(owner.as_str()) + held.version.as_ref().map_or(0, Version::heap_bytes);
    let texts = texts + held.blob.as_deref().map_or(0, heap_bytes);
    list + invalid + texts
}

/// What is remembered of a list.
#[derive(Debug, Clone)]
pub(super) struct CachedList {
    pub(super) list: Result<List, Errors>,
    /// When GitHub last said so.
    proven_at: Moment,
    /// The list was not found in order this time: this is the last known state.
    stale: bool,
    /// The last list that was in order, and when GitHub last showed it.
    seen: Option<(Arc<TrustedIssuers>, Moment)>,
    version: Option<Version>,
    /// The git blob id of a list that is present.
    pub(super) blob: Option<String>,
}

impl Store {
    /// `settles`: until when GitHub may show the state from before a change.
    pub(super) fn is_fresh_list(
        &self,
        held: &Stamped<CachedList>,
        trust: CallerTrust,
        settles: Option<Moment>,
    ) -> bool {
        let now = self.clock.monotonic();
        let age = now.since(held.at);
        match &held.value {
            _ if settles.is_some_and(|settles| held.at < settles) => false,
            CachedList { stale: true, proven_at, .. }
                if now.since(*proven_at) >= self.settings.list_stale =>
            {
                false
            }
            _ if trust == CallerTrust::Unverified => age < self.unverified_ttl(),
            CachedList { stale: true, .. } => age < self.settings.retry,
            CachedList { list: Ok(_), .. } => age < self.settings.ttl,
            CachedList { list: Err(_), .. } => age < self.settings.absent_ttl,
        }
    }

    pub(super) async fn load_list(
        self,
        owner: Owner,
        held: Option<Stamped<CachedList>>,
        trust: CallerTrust,
    ) -> Result<CachedList, Error> {
        let before = held.map(|held| held.value);
        let version = before.as_ref().and_then(|held| held.version.as_ref());
        let read = self.read_list(&owner, version, trust).await;
        match (read, before) {
            (
                Ok(Read::Unchanged),
                Some(CachedList { seen: Some((list, _)), version, blob, .. }),
            ) => Ok(self.proven(List::Present(list), version, blob)),
            (Ok(Read::Present { bytes, sha, version }), before) => {
                match self.compile_list(&owner, bytes).await {
                    Ok(Ok(list)) => {
                        Ok(self.proven(List::Present(Arc::new(list)), version, Some(sha)))
                    }
                    Ok(Err(invalid)) => Ok(self.invalid(&owner, invalid, before)),
                    Err(error) => self.unread(&owner, error, before),
                }
            }
            (Ok(Read::NotAFile), before) => Ok(self.invalid(
                &owner,
                Invalid::file("the path holds no regular file").into(),
                before,
            )),
            (Ok(Read::Absent), _) => Ok(self.proven(List::Absent, None, None)),
            (Ok(Read::Inaccessible), before) => {
                match before.and_then(|before| self.last_seen(before)) {
                    Some(seen) => Ok(seen),
                    None => {
                        tracing::warn!(%owner, "the App does not see the policy repository: every issuer may be named");
                        Ok(self.proven(List::Invisible, None, None))
                    }
                }
            }
            (Err(error), before) => self.unread(&owner, error, before),
            (Ok(Read::Unchanged), _) => Err(Error::ListUnavailable(github::Error::Unexpected(
                "304 to an unconditional request".into(),
            ))),
        }
    }

    /// Compiles off the async threads, like a policy.
    async fn compile_list(
        &self,
        owner: &Owner,
        bytes: Bytes,
    ) -> Result<Result<TrustedIssuers, Errors>, github::Error> {
        let compiled = self.compiler.run(owner, move || TrustedIssuers::parse(&bytes)).await;
        compiled.map_err(|error| {
            github::Error::Unexpected(format!("the list was not compiled: {error}").into())
        })
    }

    /// Reads the file. That the repository is not accessible is believed only if every App of the
    /// owner says so twice, the second time by installations that were looked up anew.
    async fn read_list(
        &self,
        owner: &Owner,
        known: Option<&Version>,
        trust: CallerTrust,
    ) -> Result<Read, github::Error> {
        let repo = &self.settings.policy_repo;
        let request = Request { owner, repo, path: PATH, known, trust, commit: None };
        match self.reader.read(request).await {
            Ok(Read::Inaccessible) => {
                self.reader.forget_installations(owner);
                self.reader.read(request).await
            }
            outcome => outcome,
        }
    }

    fn proven(&self, list: List, version: Option<Version>, blob: Option<String>) -> CachedList {
        let now = self.clock.monotonic();
        let seen = list.clone().into_trusted_issuers().map(|list| (list, now));
        CachedList { list: Ok(list), proven_at: now, stale: false, seen, version, blob }
    }

    fn invalid(&self, owner: &Owner, invalid: Errors, before: Option<CachedList>) -> CachedList {
        tracing::warn!(%owner, %invalid, "the trusted-issuer list is invalid");
        before.and_then(|before| self.last_seen(before)).unwrap_or_else(|| CachedList {
            list: Err(invalid),
            proven_at: self.clock.monotonic(),
            stale: false,
            seen: None,
            version: None,
            blob: None,
        })
    }

    /// The last valid list, if GitHub showed it recently enough. It is not revalidated by its ETag:
    /// the file has changed since.
    fn last_seen(&self, before: CachedList) -> Option<CachedList> {
        let (list, at) = before.seen?;
        (self.clock.monotonic().since(at) < self.settings.list_stale).then(|| CachedList {
            list: Ok(List::Present(Arc::clone(&list))),
            proven_at: at,
            stale: true,
            seen: Some((list, at)),
            version: None,
            blob: before.blob,
        })
    }

    fn unread(
        &self,
        owner: &Owner,
        error: github::Error,
        before: Option<CachedList>,
    ) -> Result<CachedList, Error> {
        use github::Error as E;
        // These say that there is no way to the owner at all, not that its list could not be read.
        let is_unreachable = matches!(
            error,
            E::NoApp | E::NotInstalled | E::AccountMoved(_) | E::Suspended(_) | E::Signer(_)
        );
        if is_unreachable {
            return Err(error.into());
        }
        let settles = self.list_settles(owner);
        let recent = |held: &CachedList| {
            held.list.is_ok()
                && settles.is_none_or(|settles| held.proven_at >= settles)
                && self.clock.monotonic().since(held.proven_at) < self.settings.list_stale
        };
        if let Some(before) = before.filter(recent) {
            tracing::warn!(%error, %owner, "serving the last known trusted-issuer list");
            return Ok(CachedList { stale: true, ..before });
        }
        // These are not about the list: every other call gets the same answer, for the same reason.
        let is_general = matches!(error, E::Refused(_) | E::Misconfigured(_) | E::Unauthorized(_));
        Err(if matches!(error, E::RateLimited { .. }) {
            Error::ListRateLimited(error)
        } else if is_general {
            error.into()
        } else {
            Error::ListUnavailable(error)
        })
    }
}
