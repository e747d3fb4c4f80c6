//! Every GitHub path, header and error.
//!
//! An owner is served by a pool of Apps. [`GitHub::reader`] chooses the installation that reads,
//! [`GitHub::read_token`] mints a token that reads one repository, [`GitHub::file`] reads a policy
//! with it, [`GitHub::minter`] chooses the installation that mints, and [`GitHub::mint`] mints what a
//! [`Grant`] says. All calls pass one gate, which obeys the limits that GitHub announced and says
//! what a failure means, and then one client, which repeats what may be repeated. A token that was
//! minted and not handed over is revoked.

mod about;
mod checks;
mod client;
mod contents;
mod deliveries;
mod drift;
mod error;
mod explain;
mod failure;
mod installation;
mod jwt;
mod limits;
mod meaning;
mod mint;
mod mint_calls;
mod mint_reply;
mod pool;
mod quota;
mod replication;
mod revoke;
mod select;
mod signer;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use http::{HeaderValue, Uri};
use tokio_util::task::TaskTracker;

pub use self::{
    about::{AboutApp, AboutInstallation, Refused},
    checks::{Annotation, CheckRun, CheckToken, Folder, MAX_SUMMARY, Output, PullRequest},
    contents::{File, ReadToken},
    deliveries::{Attempts, DeliveryAttempt, HookConfig},
    drift::WORTH_A_WARNING,
    error::{Cause, Error},
    installation::Installation,
    jwt::{KeyProof, MAX_AHEAD, MAX_BEHIND},
    mint::IssuedToken,
    mint_calls::MintCalls,
    pool::{App, AppSettings, Pools, Routing, SignerSource},
    quota::Scarce,
    select::{Route, is_bound_to_one_app},
    signer::{
        KeyError, KmsKey, KmsProvider, PemSigner, PublicKey, Signer, SignerError, SignerErrorKind,
    },
};
use self::{
    client::{ApiReply, Call, Client, Limits},
    explain::Checked,
    installation::Installations,
    limits::{Gate, LimitKey},
    meaning::Meaning,
    pool::{Pool, PoolSet, Tier},
    revoke::Revoker,
};
use crate::{
    cache::CallerTrust,
    clock::{Clock, Moment},
    cloud::Access,
    egress::Egress,
    environment::Environment,
    name::{AccountId, AppId, InstallationId, Owner, RepoName},
    policy::Grant,
    telemetry::{label, metric},
};

/// What this module needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The API's root: `https://api.github.com`, or `https://HOST/api/v3`. A slash at its end does
    /// not matter.
    pub api: Uri,
    /// The Apps, by owner. For an owner without any, every lookup ends as [`Error::NoApp`].
    pub pools: Pools,
    /// How the Apps of a pool share the work.
    pub routing: Routing,
    /// Names the credentials for key management services.
    pub environment: Environment,
    /// How long one try of one call may take, from the connection to the end of the body; and how
    /// long the signer may take.
    pub try_timeout: Duration,
    /// The wait before the second try; it doubles from there, and varies.
    pub first_backoff: Duration,
    /// The largest reply that is read, in bytes.
    pub max_body: usize,
}

impl Settings {
    /// The usual figures: three tries of 4 s fit into an exchange's 15 s, and 2 MiB hold a file of
    /// 1 MB, the largest that GitHub sends as JSON, in base64.
    pub fn new(api: Uri, pools: Pools) -> Self {
        Self {
            api,
            pools,
            routing: Routing::default(),
            environment: Environment::default(),
            try_timeout: Duration::from_secs(4),
            first_backoff: Duration::from_millis(100),
            max_body: 2 << 20,
        }
    }
}

/// The API's root is not an absolute `http` or `https` URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address of the GitHub API is not an absolute http or https URI")]
pub struct ApiAddressError;

/// GitHub, as the configured Apps see it. Clones share everything.
#[derive(Clone)]
pub struct GitHub {
    inner: Arc<Inner>,
}

struct Inner {
    gate: Arc<Gate>,
    pools: RwLock<Arc<PoolSet>>,
    routing: Routing,
    /// How long a signer may take.
    sign_timeout: Duration,
    /// The way to key management services.
    access: Access,
    installations: Installations,
    checked_repositories: Checked,
    revoker: Revoker,
    /// Mints go on when their caller does not, so that their tokens can be revoked.
    minting: TaskTracker,
}

impl fmt::Debug for GitHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitHub").finish_non_exhaustive()
    }
}

impl GitHub {
    /// Sets everything up; calls nothing. Must run within a tokio runtime.
    ///
    /// # Errors
    /// The API's address is no absolute URI.
    pub fn new(
        settings: Settings,
        egress: &Egress,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ApiAddressError> {
        let Settings { api, pools, routing, try_timeout, first_backoff, max_body, .. } = settings;
        let access = Access::new(egress.clone(), Arc::clone(&clock), settings.environment);
        if !matches!(api.scheme_str(), Some("https" | "http")) {
            return Err(ApiAddressError);
        }
        let limits = Limits { attempt_timeout: try_timeout, first_backoff, max_body };
        let client = Client::new(&api, limits, egress).ok_or(ApiAddressError)?;
        let pools = PoolSet::new(pools, &PoolSet::default(), try_timeout, &access);
        let gate = Arc::new(Gate::new(client, Arc::clone(&clock)));
        let inner = Inner {
            revoker: Revoker::start(Arc::clone(&gate)),
            checked_repositories: explain::cache(Arc::clone(&clock)),
            installations: installation::cache(clock),
            minting: TaskTracker::new(),
            gate,
            pools: RwLock::new(Arc::new(pools)),
            routing,
            sign_timeout: try_timeout,
            access,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Replaces the Apps. Those that stay the same keep their credentials; exchanges in flight end
    /// with the Apps that they began with.
    pub fn replace_pools(&self, pools: Pools) {
        let mut current = self.inner.pools.write().unwrap_or_else(PoisonError::into_inner);
        let inner = &self.inner;
        let next = PoolSet::new(pools, &current, inner.sign_timeout, &inner.access);
        *current = Arc::new(next);
    }

    /// The way to clouds.
    pub fn cloud(&self) -> &Access {
        &self.inner.access
    }

    /// Every App of every pool, by id.
    pub fn apps(&self) -> Vec<Arc<App>> {
        self.inner.pools().apps().to_vec()
    }

    /// Proves that the App's key signs. Makes no call to GitHub.
    ///
    /// # Errors
    /// [`Error::Signer`].
    pub async fn prove_key(&self, app: &App) -> Result<KeyProof, Error> {
        let proof = app.jwt.prove().await;
        self.inner.note_signature(app, &proof);
        proof
    }

    /// Proves that the key of at least one App signs. Makes no call to GitHub.
    ///
    /// # Errors
    /// [`Error::NoApp`], or the first App's error if no key signs.
    pub async fn prove_any_key(&self) -> Result<(), Error> {
        let mut failure = Error::NoApp;
        for app in self.inner.pools().apps() {
            match self.inner.app_header(app).await {
                Ok(_) => return Ok(()),
                Err(error) if failure == Error::NoApp => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    /// The account that has the owner's name, by an installation of one of the owner's Apps. An
    /// installation is cached for an hour, its absence for 5 s; either for 10 s if the caller is
    /// unverified.
    ///
    /// # Errors
    /// [`Error::NoApp`], [`Error::NotInstalled`], [`Error::Suspended`], or that GitHub could not be
    /// called.
    pub async fn account(&self, owner: &Owner, trust: CallerTrust) -> Result<AccountId, Error> {
        match installation::latest(&self.inner, owner, Some(trust)) {
            Some(found) => {
                if trust == CallerTrust::Verified {
                    self.inner.installations.promote(&(found.app_id(), owner.clone()));
                }
                Ok(found.account())
            }
            None => self.reader(owner, trust, None, &[]).await.map(|found| found.account()),
        }
    }

    /// An installation to read the owner's files with: `preferred` if it can be used, else by what
    /// is left of the Apps' quotas, without the Apps that are `passed_over`.
    ///
    /// # Errors
    /// As [`GitHub::account`].
    pub async fn reader(
        &self,
        owner: &Owner,
        trust: CallerTrust,
        preferred: Option<InstallationId>,
        passed_over: &[AppId],
    ) -> Result<Installation, Error> {
        select::reader(&self.inner, owner, trust, preferred, passed_over).await
    }

    /// The installation that mints by a grant: of the App that the policy pins; for `checks: write`
    /// always the same one for a route; otherwise by what is left of the Apps' quotas, without the
    /// Apps that are `passed_over`.
    ///
    /// # Errors
    /// [`Error::Pin`], and as [`GitHub::account`].
    pub async fn minter(
        &self,
        grant: &Grant,
        route: Route<'_>,
        passed_over: &[AppId],
    ) -> Result<Installation, Error> {
        select::minter(&self.inner, grant, route, passed_over).await
    }

    /// Whether [`GitHub::account`] would answer from the cache.
    pub fn is_installation_cached(&self, owner: &Owner, trust: CallerTrust) -> bool {
        installation::is_cached(&self.inner, owner, trust)
    }

    /// The account that has the name, as far as an installation of it is cached, however old.
    pub fn cached_account(&self, owner: &Owner) -> Option<AccountId> {
        installation::latest(&self.inner, owner, None).map(|found| found.account())
    }

    /// Keeps the cached installations, whichever caller they were looked up for, for verified
    /// callers.
    pub fn promote_installation(&self, owner: &Owner) {
        self.inner.for_each_app(owner, |key| self.inner.installations.promote(&key));
    }

    /// Whether a found installation's lifetime is nearly over.
    pub fn is_refresh_due(&self, owner: &Owner) -> bool {
        !installation::refresh_due(&self.inner, owner).is_empty()
    }

    /// Looks up the installations again whose lifetime is nearly over.
    ///
    /// # Errors
    /// As [`GitHub::account`].
    pub async fn refresh_installation(&self, owner: &Owner) -> Result<(), Error> {
        for app in installation::refresh_due(&self.inner, owner) {
            installation::refresh(&self.inner, &app, owner).await?;
        }
        Ok(())
    }

    /// Whether lookups for the owner would use the part of a quota that is kept for proven callers.
    pub fn scarce(&self, owner: &Owner) -> Option<Scarce> {
        let is_cached = self.is_installation_cached(owner, CallerTrust::Verified);
        quota::scarce(&self.inner, owner, is_cached)
    }

    /// The same App's installation for the owner, by a lookup that was made at `since` or later, up
    /// to two seconds of leeway. A token for all repositories of an installation needs it: GitHub's
    /// reply to such a mint does not say whose they are. With `since` the moment at which the policy
    /// was last read, the account that has the name, and not one that had it earlier, both wrote the
    /// policy and gives the token.
    ///
    /// # Errors
    /// As [`GitHub::account`].
    pub async fn installation_since(
        &self,
        before: &Installation,
        owner: &Owner,
        since: Moment,
    ) -> Result<Installation, Error> {
        installation::find_since(&self.inner, before, owner, since).await
    }

    /// The same App's installation for the owner, cached or not.
    ///
    /// # Errors
    /// As [`GitHub::account`].
    pub async fn installation_again(
        &self,
        before: &Installation,
        owner: &Owner,
        trust: CallerTrust,
    ) -> Result<Installation, Error> {
        installation::find(&self.inner, before.app(), owner, trust).await
    }

    /// What GitHub says of the App itself.
    ///
    /// # Errors
    /// Why GitHub does not say, in more detail than exchanges need.
    pub async fn about_app(&self, app: &App) -> Result<AboutApp, Refused> {
        about::app(&self.inner, app).await
    }

    /// Seconds by which this machine's clock is ahead of GitHub's, by the latest reply; negative if
    /// it is behind, `None` before the first reply.
    pub fn clock_drift(&self) -> Option<i64> {
        self.inner.gate.drift.seconds()
    }

    /// The App's installations, a hundred at most, and whether there are more.
    ///
    /// # Errors
    /// GitHub could not be reached.
    pub async fn installations(&self, app: &App) -> Result<(Vec<AboutInstallation>, bool), Error> {
        about::installations(&self.inner, app).await
    }

    /// How many calls the installation may still make in this hour, if GitHub reported it lately.
    pub fn calls_left(&self, installation: &Installation) -> Option<u64> {
        self.inner.calls_left(installation)
    }

    /// What GitHub says of an installation at this moment; nothing of it is held.
    ///
    /// # Errors
    /// [`Error::Stale`], or that GitHub could not be reached.
    pub async fn about_installation(
        &self,
        installation: &Installation,
    ) -> Result<AboutInstallation, Error> {
        about::installation(&self.inner, installation).await
    }

    /// Evicts the cached installation of this App: see [`Error::doubts_installation`].
    pub fn forget_installation(&self, installation: &Installation, owner: &Owner) {
        self.inner.installations.invalidate(&(installation.app_id(), owner.clone()));
    }

    /// The owner's installations that are cached, however old.
    pub fn cached_installations(&self, owner: &Owner) -> Vec<InstallationId> {
        let Ok(pool) = self.inner.pool(owner) else { return Vec::new() };
        let cached = pool.apps.iter().map(|app| installation::cached(&self.inner, app, owner));
        cached.flatten().map(|found| found.id()).collect()
    }

    /// Evicts what is cached of all the owner's Apps.
    pub fn forget_installations(&self, owner: &Owner) {
        self.inner.for_each_app(owner, |key| self.inner.installations.invalidate(&key));
    }

    /// A token that reads the contents of one repository, and nothing else.
    ///
    /// # Errors
    /// [`Error::RepositoryNotAccessible`], [`Error::Forbidden`], [`Error::Stale`],
    /// [`Error::Suspended`], [`Error::Wider`], or that GitHub could not be reached. The call may take
    /// minutes: GitHub may mint and answer late, and it is not repeated then.
    pub async fn read_token(
        &self,
        installation: &Installation,
        repo: &RepoName,
    ) -> Result<ReadToken, Error> {
        contents::read_token(&self.inner, installation, repo).await
    }

    /// The file at `path` of the token's repository, at a commit or on the default branch. With the
    /// `etag` of an earlier answer to the same token, an unchanged file costs no quota.
    ///
    /// # Errors
    /// [`Error::TokenRefused`], [`Error::Forbidden`], [`Error::Moved`], or that GitHub could not be
    /// asked. A token that is a few seconds old is tried again before it counts as refused or
    /// forbidden: GitHub takes a moment to spread it.
    pub async fn file(
        &self,
        token: &ReadToken,
        path: &str,
        commit: Option<&str>,
        etag: Option<&str>,
    ) -> Result<File, Error> {
        contents::file(&self.inner, token, path, commit, etag).await
    }

    /// Whether GitHub shows the token its repository. It may not yet, in the token's first moments.
    ///
    /// # Errors
    /// As [`GitHub::file`].
    pub async fn repository_visible(&self, token: &ReadToken) -> Result<bool, Error> {
        contents::repository_visible(&self.inner, token).await
    }

    /// Mints what the grant says, and nothing wider, and counts the calls. If the caller goes away
    /// meanwhile, the call goes on, and the token is revoked when it arrives.
    ///
    /// # Errors
    /// [`Error::Pin`], [`Error::PermissionRefused`], [`Error::RepositoryRefused`],
    /// [`Error::Stale`], [`Error::Suspended`], [`Error::Wider`], or that GitHub could not be
    /// asked.
    pub async fn mint(
        &self,
        grant: &Grant,
        installation: &Installation,
        calls: &MintCalls,
    ) -> Result<IssuedToken, Error> {
        mint::mint(&self.inner, grant, installation, calls).await
    }

    /// How long a caller waits for something that is looked up for it.
    pub fn lookup_timeout(&self) -> Duration {
        self.inner.gate.client.attempt_timeout()
    }

    /// Waits for mints that are under way and revokes what is queued, for no longer than `within`.
    /// What is dropped after that is not revoked.
    pub async fn close(&self, within: Duration) {
        let drain = async {
            self.inner.minting.close();
            self.inner.minting.wait().await;
            self.inner.revoker.close().await;
        };
        if tokio::time::timeout(within, drain).await.is_err() {
            tracing::warn!("not all tokens could be revoked before the end");
        }
    }
}

/// Replies as they are read, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use bytes::Bytes;

    use super::{ApiReply, File, contents};

    /// What the body of a success says of the file at `path`, if it says anything.
    pub fn contents(body: Bytes, path: &str) -> Option<File> {
        let (status, headers) = (http::StatusCode::OK, http::HeaderMap::new());
        contents::parse(&ApiReply { status, headers, body }, path).ok()
    }
}

impl Inner {
    fn pools(&self) -> Arc<PoolSet> {
        Arc::clone(&self.pools.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn pool(&self, owner: &Owner) -> Result<Arc<Pool>, Error> {
        self.pools().of(owner)
    }

    /// Calls `act` with the key of the cached installation of each of the owner's Apps.
    fn for_each_app(&self, owner: &Owner, act: impl Fn((AppId, Owner))) {
        if let Ok(pool) = self.pool(owner) {
            pool.apps.iter().for_each(|app| act((app.id(), owner.clone())));
        }
    }

    /// The tier of the installation's quota, if that is known.
    fn tier(&self, installation: &Installation) -> Option<Tier> {
        self.calls_left(installation).map(|left| self.routing.tier(left))
    }

    fn calls_left(&self, installation: &Installation) -> Option<u64> {
        let times = (self.gate.clock.now(), self.gate.clock.monotonic());
        self.gate.quotas.remaining(installation.id(), self.routing.stale, times)
    }

    /// The App's own credential.
    async fn app_header(&self, app: &App) -> Result<HeaderValue, Error> {
        let header = app.jwt.header().await;
        self.note_signature(app, &header);
        header
    }

    fn note_signature<T>(&self, app: &App, outcome: &Result<T, Error>) {
        if let Err(error @ Error::Signer(signer)) = outcome {
            self.app_failed(app, signer.kind.as_str(), error);
        }
    }

    /// A call with the App's own credential. One that GitHub does not accept is not used again:
    /// after the operator corrected the clock or the key, a new one works. If the App has another
    /// key, as during a rotation, the call is repeated with that.
    async fn call_as(&self, app: &App, key: LimitKey, call: &Call) -> Result<ApiReply, Meaning> {
        let mut outcome = self.gate.call(key, call).await;
        if outcome.as_ref().is_err_and(Meaning::refuses_app)
            && app.jwt.refused(&call.authorization)
            && let Ok(authorization) = self.app_header(app).await
        {
            outcome = self.gate.call(key, &Call { authorization, ..call.clone() }).await;
        }
        match &outcome {
            Err(meaning) if meaning.refuses_app() => {
                self.app_failed(app, "refused", &Error::from(meaning.clone()));
            }
            Ok(_) => app.note_outcome(true, self.gate.clock.monotonic()),
            Err(_) => {}
        }
        outcome
    }

    /// The App is tried after the others for a while, and the operator learns of it.
    fn app_failed(&self, app: &App, cause: &'static str, error: &Error) {
        app.note_outcome(false, self.gate.clock.monotonic());
        let labels = [(label::APP_ID, app.id().to_string()), (label::CAUSE, cause.to_owned())];
        metrics::counter!(metric::APP_FAILURES, &labels).increment(1);
        tracing::warn!(app_id = %app.id(), cause, %error, "the App's credential cannot be used");
    }
}
