//! Trust policies: read, compiled once, shared, revalidated.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;

use super::{
    Error, PolicyKey, Store,
    reader::{Read, Request, Version},
};
use crate::{
    cache::{ALLOCATION_OVERHEAD, CallerTrust, Stamped, heap_bytes},
    clock::Moment,
    github::{self, Cause},
    name::{AccountId, Owner, RepoName},
    policy::{Home, Policy, PolicyKind},
    yaml::{Errors, Invalid},
};

/// A policy and the version of the file that it was compiled from.
#[derive(Debug)]
pub struct PolicyFile {
    /// The compiled policy.
    pub policy: Policy,
    /// The git blob id.
    pub blob: String,
    /// SHA-256 of the file's bytes, in hex.
    pub sha256: String,
    version: Option<Version>,
}

/// What is where a policy should be.
#[derive(Debug, Clone)]
pub enum Found {
    /// A policy.
    Present(Arc<PolicyFile>),
    /// No file.
    Absent,
    /// A file that is not a policy.
    Invalid(Arc<Errors>),
    /// A repository that the App's installation does not see, and why.
    Inaccessible(Cause),
    /// A repository whose contents the App may not read, and what GitHub said.
    Forbidden(Cause),
}

/// What was found, and where.
#[derive(Debug, Clone)]
pub struct Located {
    /// What is there.
    pub found: Found,
    /// When GitHub last said so.
    pub proven_at: Moment,
    /// The account that had the owner's name then.
    pub account: AccountId,
    /// The repository's owner, as requested.
    pub owner: Owner,
    /// The repository that was looked into.
    pub repo: RepoName,
    /// The path there.
    pub path: String,
}

/// What is remembered of a policy.
#[derive(Debug, Clone)]
pub(super) struct CachedPolicy {
    pub(super) found: Found,
    /// When GitHub last said so.
    pub(super) proven_at: Moment,
    /// GitHub could not be reached again: this is a stale copy.
    stale: bool,
}

/// The memory behind a cached policy.
pub(super) fn weigh(key: &PolicyKey, held: &CachedPolicy) -> usize {
    let found = match &held.found {
        Found::Present(file) => file.heap_bytes(),
        Found::Invalid(errors) => errors.heap_bytes(),
        Found::Inaccessible(cause) | Found::Forbidden(cause) => heap_bytes(cause),
        Found::Absent => 0,
    };
    let names =
        [key.owner.as_str(), key.owner.key(), key.repo.as_str(), key.repo.key(), key.name.as_str()];
    names.into_iter().map(heap_bytes).sum::<usize>() + found
}

impl PolicyFile {
    fn heap_bytes(&self) -> usize {
        let texts: usize =
            [&self.blob, &self.sha256].into_iter().map(|text| heap_bytes(text)).sum();
        let texts = texts + self.version.as_ref().map_or(0, Version::heap_bytes);
        size_of::<Self>() + ALLOCATION_OVERHEAD + texts + self.policy.heap_bytes()
    }
}

impl CachedPolicy {
    pub(super) fn present(&self) -> Option<&Arc<PolicyFile>> {
        match &self.found {
            Found::Present(file) => Some(file),
            Found::Absent | Found::Invalid(_) | Found::Inaccessible(_) | Found::Forbidden(_) => {
                None
            }
        }
    }
}

impl Store {
    /// `settles`: until when GitHub may show the state from before a change.
    pub(super) fn is_fresh_policy(
        &self,
        held: &Stamped<CachedPolicy>,
        trust: CallerTrust,
        settles: Option<Moment>,
    ) -> bool {
        let now = self.clock.monotonic();
        let age = now.since(held.at);
        match &held.value {
            _ if settles.is_some_and(|settles| held.at < settles) => false,
            CachedPolicy { stale: true, proven_at, .. }
                if now.since(*proven_at) >= self.settings.stale =>
            {
                false
            }
            _ if trust == CallerTrust::Unverified => age < self.unverified_ttl(),
            CachedPolicy { stale: true, .. } => age < self.settings.retry,
            CachedPolicy { found: Found::Present(_), .. } => age < self.settings.ttl,
            CachedPolicy { .. } => age < self.settings.absent_ttl,
        }
    }

    pub(super) async fn load_policy(
        self,
        key: PolicyKey,
        kind: PolicyKind,
        held: Option<Stamped<CachedPolicy>>,
        trust: CallerTrust,
    ) -> Result<CachedPolicy, Error> {
        let before = held.map(|held| held.value);
        let file = before.as_ref().and_then(CachedPolicy::present);
        let known = file.and_then(|file| file.version.as_ref());
        let (path, PolicyKey { owner, repo, .. }) = (key.name.path(), &key);
        let request = Request { owner, repo, path: &path, known, trust, commit: None };
        let read = self.reader.read(request).await;
        let proven =
            |found| Ok(CachedPolicy { found, proven_at: self.clock.monotonic(), stale: false });
        match (read, before) {
            (Ok(Read::Unchanged), Some(before)) => proven(before.found),
            (Ok(Read::Present { bytes, sha, version }), _) => {
                proven(self.compile(&key.owner, kind, (bytes, sha, version)).await?)
            }
            (Ok(Read::Absent), _) => proven(Found::Absent),
            (Ok(Read::Inaccessible), _) => {
                proven(Found::Inaccessible("the App does not see the repository".into()))
            }
            (Ok(Read::NotAFile), _) => proven(Found::Invalid(Arc::new(
                Invalid::file("the path holds no regular file").into(),
            ))),
            // An answer ends the copy: what may not be read now must not be used.
            (Err(error @ (github::Error::Forbidden(_) | github::Error::Refused(_))), _) => {
                proven(Found::Forbidden(error.to_string().into()))
            }
            (Err(error @ github::Error::Moved(_)), _) => {
                proven(Found::Inaccessible(error.to_string().into()))
            }
            (Err(error), Some(before)) if error.is_outage() && self.may_serve(&key, &before) => {
                tracing::warn!(%error, owner = %key.owner, policy = %key.name, "serving a stale policy");
                Ok(CachedPolicy { stale: true, ..before })
            }
            (Err(error), _) => {
                if !error.is_outage() {
                    self.policies.invalidate(&key);
                }
                Err(error.into())
            }
            (Ok(Read::Unchanged), None) => {
                Err(github::Error::Unexpected("304 to an unconditional request".into()).into())
            }
        }
    }

    /// Whether a copy may serve while GitHub cannot be reached. Only a policy may: a refusal must be
    /// true now. A copy from the window after a change may be the old version.
    fn may_serve(&self, key: &PolicyKey, held: &CachedPolicy) -> bool {
        let settles = self.changes.settles(&key.owner, &key.repo);
        held.present().is_some()
            && settles.is_none_or(|settles| held.proven_at >= settles)
            && self.clock.monotonic().since(held.proven_at) < self.settings.stale
    }

    /// Compiles off the async threads: a hostile pattern costs time, bounded but noticeable.
    async fn compile(
        &self,
        owner: &Owner,
        kind: PolicyKind,
        (bytes, blob, version): (Bytes, String, Option<Version>),
    ) -> Result<Found, Error> {
        let rules = Arc::clone(&self.settings.rules);
        let home = owner.clone();
        let compiled = self.compiler.run(owner, move || {
            let policy = Policy::parse(&bytes, Home { kind, owner: Some(&home) }, &rules)?;
            Ok::<_, Errors>(PolicyFile {
                policy,
                blob,
                sha256: hex::encode(digest::digest(&digest::SHA256, &bytes)),
                version,
            })
        });
        match compiled.await {
            Ok(Ok(file)) => Ok(Found::Present(Arc::new(file))),
            Ok(Err(invalid)) => Ok(Found::Invalid(Arc::new(invalid))),
            Err(error) => Err(github::Error::Unexpected(
                format!("the policy was not compiled: {error}").into(),
            )
            .into()),
        }
    }
}
