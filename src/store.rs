//! What is checked into GitHub: trust policies, and the organizations' lists of trusted issuers.
//!
//! Both are files in a repository, read with a token that can read that one repository and do
//! nothing else. A file is remembered for a while, then revalidated by a conditional request, which
//! costs no quota while it is unchanged. A copy that could not be revalidated serves within a
//! bound; what was refused is never served from a stale copy.

mod changes;
mod list;
mod policies;
mod reader;

use std::{sync::Arc, time::Duration};

use self::{
    changes::{Blob, Changes},
    list::CachedList,
    policies::CachedPolicy,
    reader::Reader,
};
pub use changes::{AsOf, Change, Files, Push};
pub use list::List;
pub use policies::{Found, Located, PolicyFile};

use crate::{
    cache::{Bounds, Cache, CallerTrust, Stamped},
    clock::{Clock, Moment},
    cpu_limiter::{self, CpuLimiter},
    github::{self, GitHub},
    name::{AccountId, Owner, PolicyName, RepoName, Scope},
    policy::{self, PolicyKind, TrustedIssuers},
    reason::Reason,
    yaml::Errors,
};

/// Where policies are and how long what is known of them holds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The repository of an organization's own policies and of its list.
    pub policy_repo: RepoName,
    /// How long a file serves before it is revalidated.
    pub ttl: Duration,
    /// How long a missing, unreadable or broken file is cached as such.
    pub absent_ttl: Duration,
    /// How long a file or its absence is used for unverified callers: the same for both, so that
    /// the time of an answer does not tell them apart.
    pub unverified_ttl: Duration,
    /// How long a policy serves after it was last proven, while GitHub cannot be reached.
    pub stale: Duration,
    /// The same for a list.
    pub list_stale: Duration,
    /// The wait before GitHub is called again while a stale copy is in use.
    pub retry: Duration,
    /// What the operator allows policies to say.
    pub rules: Arc<policy::Rules>,
}

impl Settings {
    /// The documented defaults.
    pub fn new(policy_repo: RepoName) -> Self {
        Self {
            policy_repo,
            ttl: Duration::from_secs(60),
            absent_ttl: Duration::from_secs(10),
            unverified_ttl: Duration::from_secs(10),
            stale: Duration::from_secs(5 * 60),
            list_stale: Duration::from_secs(60 * 60),
            retry: Duration::from_secs(5),
            rules: Arc::default(),
        }
    }
}

/// Memory of the cached policies. A usual one takes about 20 KiB, the largest possible one 10 MiB.
const POLICIES: Bounds = Bounds { verified: 64 << 20, unverified: 16 << 20 };
/// Memory of the cached lists of trusted issuers, and of their absences.
const LISTS: Bounds = Bounds { verified: 24 << 20, unverified: 12 << 20 };
/// Paths of one push that are read from its commits.
const MAX_SETTLED: usize = 20;
/// Files that are compiled concurrently. All others wait, one of each owner at a time in front,
/// since nothing is known of a file before it is compiled and usual ones take a millisecond.
const COMPILING: cpu_limiter::Limits =
    cpu_limiter::Limits { concurrent: 2, per_owner: 4096, total: 16_384 };

/// Why a file's content is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// GitHub, or the way to it.
    #[error(transparent)]
    GitHub(#[from] github::Error),
    /// GitHub still shows the file as it was before a push that it announced.
    #[error("GitHub still shows the policy as it was before the last push")]
    Superseded,
    /// The list could not be read, and no copy of it is recent enough.
    #[error("trusted-issuer list: {0}")]
    ListUnavailable(github::Error),
    /// GitHub limits the reading of the list, and no copy of it is recent enough.
    #[error("trusted-issuer list: {0}")]
    ListRateLimited(github::Error),
    /// The list cannot be understood, and no copy that could be is recent enough.
    #[error("trusted-issuer list: {0}")]
    ListInvalid(Errors),
}

impl Error {
    /// The stable word.
    pub fn reason(&self) -> Reason {
        match self {
            Self::GitHub(error) => error.reason(),
            Self::Superseded => Reason::GithubUnavailable,
            Self::ListUnavailable(_) => Reason::TrustedIssuersUnavailable,
            Self::ListRateLimited(_) => Reason::GithubRateLimited,
            Self::ListInvalid(_) => Reason::TrustedIssuersInvalid,
        }
    }

    /// How long to wait before a retry can help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::GitHub(error) | Self::ListUnavailable(error) | Self::ListRateLimited(error) => {
                error.retry_after()
            }
            Self::Superseded => Some(Duration::from_secs(1)),
            Self::ListInvalid(_) => None,
        }
    }
}

/// The key of a policy: where it is, not what it is called for. The account is part of it: who
/// takes over a name does not take over what was read under it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PolicyKey {
    account: AccountId,
    owner: Owner,
    repo: RepoName,
    name: PolicyName,
}

/// Finds policies and lists.
#[derive(Clone)]
pub struct Store {
    settings: Settings,
    reader: Reader,
    policies: Cache<PolicyKey, CachedPolicy, Error>,
    lists: Cache<(AccountId, Owner), CachedList, Error>,
    compiler: Arc<CpuLimiter>,
    changes: Arc<Changes>,
    clock: Arc<dyn Clock>,
}

impl Store {
    /// An empty store.
    pub fn new(settings: Settings, github: GitHub, clock: Arc<dyn Clock>) -> Self {
        // The stale copy of a list is in use longest, and only while GitHub cannot be reached.
        let longest = settings.ttl.max(settings.stale);
        Self {
            settings,
            changes: Arc::new(Changes::new(longest, Arc::clone(&clock))),
            reader: Reader::new(github, Arc::clone(&clock)),
            policies: Cache::new(Arc::clone(&clock), POLICIES, policies::weigh),
            lists: Cache::new(Arc::clone(&clock), LISTS, list::weigh),
            compiler: Arc::new(CpuLimiter::new(COMPILING)),
            clock,
        }
    }

    /// The repository of organization policies.
    pub fn policy_repo(&self) -> &RepoName {
        &self.settings.policy_repo
    }

    /// The policy called `name` for `scope`. `OWNER` and `OWNER/<policy repo>` read the same file,
    /// as a policy of the organization.
    ///
    /// # Errors
    /// GitHub cannot be reached, and no copy is recent enough.
    pub async fn policy(
        &self,
        scope: &Scope,
        name: &PolicyName,
        trust: CallerTrust,
    ) -> Result<Located, Error> {
        let repo = self.home_of(scope).clone();
        let settles = self.changes.settles(scope.owner(), &repo);
        let is_fresh = |held: &Stamped<CachedPolicy>| self.is_fresh_policy(held, trust, settles);
        let account = self.reader.account(scope.owner(), trust).await?;
        let held = self.policy_if((account, scope, name), trust, is_fresh).await?;
        if let Found::Present(file) = &held.value.found
            && self.changes.is_superseded(scope.owner(), &repo, &name.path(), &file.blob)
        {
            return Err(Error::Superseded);
        }
        let CachedPolicy { found, proven_at, .. } = held.value;
        Ok(Located {
            found,
            proven_at,
            account,
            owner: scope.owner().clone(),
            repo,
            path: name.path(),
        })
    }

    async fn policy_if(
        &self,
        (account, scope, name): (AccountId, &Scope, &PolicyName),
        trust: CallerTrust,
        is_fresh: impl Fn(&Stamped<CachedPolicy>) -> bool,
    ) -> Result<Stamped<CachedPolicy>, Error> {
        let kind = PolicyKind::of(scope, &self.settings.policy_repo);
        let load =
            |held| self.clone().load_policy(self.key(account, scope, name), kind, held, trust);
        self.policies.get_or_load(self.key(account, scope, name), trust, is_fresh, load).await
    }

    fn key(&self, account: AccountId, scope: &Scope, name: &PolicyName) -> PolicyKey {
        let repo = self.home_of(scope).clone();
        PolicyKey { account, owner: scope.owner().clone(), repo, name: name.clone() }
    }

    /// The repository that holds the scope's policies.
    fn home_of<'a>(&'a self, scope: &'a Scope) -> &'a RepoName {
        scope.repo().unwrap_or(&self.settings.policy_repo)
    }

    /// The list of issuers that `owner` trusts; `None` where every issuer may be named by a policy.
    ///
    /// # Errors
    /// The list's state is not known, or it cannot be understood, and no copy is recent
    /// enough.
    pub async fn trusted_issuers(
        &self,
        owner: &Owner,
        trust: CallerTrust,
    ) -> Result<Option<Arc<TrustedIssuers>>, Error> {
        let key = (self.reader.account(owner, trust).await?, owner.clone());
        let settles = self.list_settles(owner);
        let held =
            self.list_if(key, trust, |held| self.is_fresh_list(held, trust, settles)).await?;
        if held.value.blob.as_deref().is_some_and(|blob| self.is_list_superseded(owner, blob)) {
            return Err(Error::Superseded);
        }
        held.value.list.map(List::into_trusted_issuers).map_err(Error::ListInvalid)
    }

    async fn list_if(
        &self,
        key: (AccountId, Owner),
        trust: CallerTrust,
        is_fresh: impl Fn(&Stamped<CachedList>) -> bool,
    ) -> Result<Stamped<CachedList>, Error> {
        let owner = key.1.clone();
        let load = |held| self.clone().load_list(owner, held, trust);
        self.lists.get_or_load(key, trust, is_fresh, load).await
    }

    /// Whether the owner's list and the policy can be had from the cache.
    pub fn is_cached(&self, scope: &Scope, name: &PolicyName, trust: CallerTrust) -> bool {
        let Some((list, policy)) = self.keys(scope, name) else { return false };
        let owner = scope.owner();
        let list_settles = self.list_settles(owner);
        let settles = self.changes.settles(owner, self.home_of(scope));
        let is_fresh = |held| self.is_fresh_policy(&held, trust, settles);
        self.lists.get(&list).is_some_and(|held| self.is_fresh_list(&held, trust, list_settles))
            && self.policies.get(&policy).is_some_and(is_fresh)
    }

    /// Keeps the cached list and policy, whichever caller they were looked up for, for verified
    /// callers.
    pub fn promote(&self, scope: &Scope, name: &PolicyName) {
        if let Some((list, policy)) = self.keys(scope, name) {
            self.lists.promote(&list);
            self.policies.promote(&policy);
        }
    }

    /// Whether the list's or the policy's lifetime is nearly over.
    pub fn is_refresh_due(&self, scope: &Scope, name: &PolicyName) -> bool {
        let Some((list, policy)) = self.keys(scope, name) else { return false };
        self.lists.get(&list).is_some_and(|held| self.is_due(held.at))
            || self.policies.get(&policy).is_some_and(|held| self.is_due(held.at))
    }

    /// Revalidates the list and the policy if their lifetime is nearly over.
    ///
    /// # Errors
    /// As [`Store::policy`].
    pub async fn refresh(&self, scope: &Scope, name: &PolicyName) -> Result<(), Error> {
        let Some((list, PolicyKey { account, .. })) = self.keys(scope, name) else { return Ok(()) };
        let trust = CallerTrust::Verified;
        self.list_if(list, trust, |held| !self.is_due(held.at)).await?;
        self.policy_if((account, scope, name), trust, |held| !self.is_due(held.at))
            .await
            .map(|_| ())
    }

    /// The keys of the list and the policy, if the owner's installation is cached.
    fn keys(&self, scope: &Scope, name: &PolicyName) -> Option<((AccountId, Owner), PolicyKey)> {
        let account = self.reader.cached_account(scope.owner())?;
        Some(((account, scope.owner().clone()), self.key(account, scope, name)))
    }

    /// Never longer than a policy serves: what an unverified caller had looked up may be used to
    /// mint once the caller is verified.
    fn unverified_ttl(&self) -> Duration {
        self.settings.unverified_ttl.min(self.settings.ttl)
    }

    /// The last quarter of an entry's lifetime.
    fn is_due(&self, stored_at: Moment) -> bool {
        let age = self.clock.monotonic().since(stored_at);
        (self.settings.ttl * 3 / 4..self.settings.ttl).contains(&age)
    }

    /// This moment in the order of announced changes. A decision takes it before it reads anything.
    pub fn as_of(&self) -> AsOf {
        self.changes.as_of()
    }

    /// Whether a decision on what was read since `as_of` still stands: no change was announced to
    /// the policy's repository, the list's, or the owner.
    pub fn is_current(&self, scope: &Scope, as_of: AsOf) -> bool {
        let repos = [self.home_of(scope), &self.settings.policy_repo];
        self.changes.is_current(scope.owner(), repos, as_of)
    }

    /// Removes every copy that an announced change concerns. Decisions on them are void, and for
    /// ten seconds every attempt reads from GitHub. Returns how many copies there were.
    pub fn invalidate(&self, change: &Change) -> usize {
        let (owner, repo) = (change.owner(), change.repo());
        let concerns =
            |of: &Owner, at: &RepoName| of == owner && repo.is_none_or(|repo| repo == at);
        let policies = self.policies.invalidate_if(|key| concerns(&key.owner, &key.repo));
        let policy_repo = &self.settings.policy_repo;
        let lists = self.lists.invalidate_if(|(_, of)| concerns(of, policy_repo));
        if !matches!(change, Change::Files(_)) {
            self.reader.forget(owner, repo);
        }
        let copies = policies.len() + lists.len();
        let old_lists = lists.into_iter().filter_map(|(_, held)| held.value.blob);
        let old_policies = policies.into_iter().filter_map(|(key, held)| {
            let blob = held.value.present()?.blob.clone();
            Some((key.name.path(), blob))
        });
        let old: Vec<Blob> =
            old_policies.chain(old_lists.map(|blob| (list::PATH.to_owned(), blob))).collect();
        self.changes.record(change, old);
        copies
    }

    /// Reads what a push left at the paths that it changed, from its commits, which do not lag
    /// behind as the default branch may. Until then, a copy from before the push is not used even
    /// if the file is the same again.
    ///
    /// # Errors
    /// GitHub cannot be reached. The versions stay superseded until the window ends.
    pub async fn settle(&self, push: &Push) -> Result<(), Error> {
        let mut paths = self.changes.superseded_paths(&push.owner, &push.repo);
        if let Files::Paths(changed) = &push.files {
            paths.extend(changed.iter().cloned());
        }
        paths.sort();
        paths.dedup();
        for path in paths.iter().take(MAX_SETTLED) {
            let after = self.blob_at(push, path, &push.after).await?;
            let before = self.blob_at(push, path, &push.before).await?;
            let before = before.filter(|before| after.as_ref() != Some(before));
            self.changes.confirm(push, path, before, after);
        }
        Ok(())
    }

    async fn blob_at(
        &self,
        push: &Push,
        path: &str,
        commit: &str,
    ) -> Result<Option<String>, Error> {
        let (owner, repo) = (&push.owner, &push.repo);
        let trust = CallerTrust::Verified;
        let request =
            reader::Request { owner, repo, path, known: None, trust, commit: Some(commit) };
        let read = self.reader.read(request).await?;
        Ok(if let reader::Read::Present { sha, .. } = read { Some(sha) } else { None })
    }

    fn list_settles(&self, owner: &Owner) -> Option<Moment> {
        self.changes.settles(owner, &self.settings.policy_repo)
    }

    fn is_list_superseded(&self, owner: &Owner, blob: &str) -> bool {
        self.changes.is_superseded(owner, &self.settings.policy_repo, list::PATH, blob)
    }

    /// Gives back every token that reads, to be revoked.
    pub fn close(&self) {
        self.reader.close();
    }
}
