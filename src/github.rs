//! Every GitHub path, header and error.
//!
//! The way through: [`GitHub::installation`] finds the owner's installation of our App,
//! [`GitHub::read_token`] mints a token that reads one repository, [`GitHub::file`] reads a policy
//! with it, and [`GitHub::mint`] mints what a [`Grant`] says. All calls pass one gate, which
//! obeys the limits that GitHub announced and says what a failure means, and then one client, which
//! repeats what may be repeated. A token that was minted and not handed over is revoked, whatever
//! happened in between.

mod about;
mod client;
mod contents;
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
mod quota;
mod replication;
mod revoke;
mod signer;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use http::Uri;
use tokio_util::task::TaskTracker;

pub use self::{
    about::{AboutApp, AboutInstallation, Refused},
    contents::{File, ReadToken},
    drift::WORTH_A_WARNING,
    error::{Cause, Error},
    installation::Installation,
    jwt::{MAX_AHEAD, MAX_BEHIND},
    mint::{IssuedToken, check_pin},
    mint_calls::MintCalls,
    quota::Scarce,
    signer::{KeyError, PemSigner, Signer, SignerError},
};
use self::{
    client::{ApiReply, Call, Client, Limits},
    explain::Checked,
    installation::Installations,
    jwt::AppJwt,
    limits::{Gate, LimitKey},
    meaning::Meaning,
    revoke::Revoker,
};
use crate::{
    cache::CallerTrust,
    clock::{Clock, Moment},
    egress::Egress,
    name::{AccountId, AppId, Owner, RepoName},
    policy::Grant,
};

/// An App, and who signs for it.
#[derive(Clone)]
pub struct AppSettings {
    /// The App's id.
    pub id: AppId,
    /// Holds the App's private key, or knows who does.
    pub signer: Arc<dyn Signer>,
}

impl fmt::Debug for AppSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppSettings").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What this module needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The API's root: `https://api.github.com`, or `https://HOST/api/v3`. A slash at its end does
    /// not matter.
    pub api: Uri,
    /// The App that everything is done with; without one, every look-up ends as [`Error::NoApp`].
    pub app: Option<AppSettings>,
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
    pub fn new(api: Uri, app: Option<AppSettings>) -> Self {
        let (try_timeout, first_backoff) = (Duration::from_secs(4), Duration::from_millis(100));
        Self { api, app, try_timeout, first_backoff, max_body: 2 << 20 }
    }
}

/// The API's root is not an absolute `http` or `https` URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address of the GitHub API is not an absolute http or https URI")]
pub struct ApiAddressError;

/// GitHub, as one App sees it. Clones share everything.
#[derive(Clone)]
pub struct GitHub {
    inner: Arc<Inner>,
}

struct Inner {
    gate: Arc<Gate>,
    app: Option<App>,
    installations: Installations,
    checked_repositories: Checked,
    revoker: Revoker,
    /// Mints go on when their caller does not, so that their tokens can be revoked.
    minting: TaskTracker,
}

struct App {
    id: AppId,
    jwt: AppJwt,
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
        let Settings { api, app, try_timeout, first_backoff, max_body } = settings;
        if !matches!(api.scheme_str(), Some("https" | "http")) {
            return Err(ApiAddressError);
        }
        let limits = Limits { attempt_timeout: try_timeout, first_backoff, max_body };
        let client = Client::new(&api, limits, egress).ok_or(ApiAddressError)?;
        let app = app
            .map(|app| App { id: app.id, jwt: AppJwt::new(app, try_timeout, Arc::clone(&clock)) });
        let gate = Arc::new(Gate::new(client, Arc::clone(&clock)));
        let inner = Inner {
            revoker: Revoker::start(Arc::clone(&gate)),
            checked_repositories: explain::cache(Arc::clone(&clock)),
            installations: installation::cache(clock),
            minting: TaskTracker::new(),
            gate,
            app,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Proves that the App's key signs. Asks GitHub nothing.
    ///
    /// # Errors
    /// [`Error::NoApp`], [`Error::Signer`].
    pub async fn prove_key(&self) -> Result<(), Error> {
        self.inner.app()?.jwt.header().await.map(|_| ())
    }

    /// The owner's installation of the App. It is cached for an hour, its absence for 5 s; either
    /// for 10 s if the caller is unverified.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Suspended`], or that GitHub could not be asked.
    pub async fn installation(
        &self,
        owner: &Owner,
        trust: CallerTrust,
    ) -> Result<Installation, Error> {
        installation::find(&self.inner, owner, trust).await
    }

    /// Whether [`GitHub::installation`] would answer from the cache.
    pub fn is_installation_cached(&self, owner: &Owner, trust: CallerTrust) -> bool {
        installation::is_cached(&self.inner, owner, trust)
    }

    /// The account that has the name, as far as an installation of it is cached, however old.
    pub fn cached_account(&self, owner: &Owner) -> Option<AccountId> {
        installation::cached_account(&self.inner, owner)
    }

    /// Keeps a cached installation, whichever caller it was looked up for, for verified callers.
    pub fn promote_installation(&self, owner: &Owner) {
        self.inner.installations.promote(owner);
    }

    /// Whether a found installation's lifetime is nearly over.
    pub fn is_refresh_due(&self, owner: &Owner) -> bool {
        installation::is_refresh_due(&self.inner, owner)
    }

    /// Looks up the installation again if its lifetime is nearly over.
    ///
    /// # Errors
    /// As [`GitHub::installation`].
    pub async fn refresh_installation(&self, owner: &Owner) -> Result<(), Error> {
        installation::refresh(&self.inner, owner).await
    }

    /// Whether lookups for the owner would use the part of a quota that is kept for proven callers.
    pub fn scarce(&self, owner: &Owner) -> Option<Scarce> {
        quota::scarce(&self.inner, owner, self.is_installation_cached(owner, CallerTrust::Verified))
    }

    /// The owner's installation, by a lookup that was made at `since` or later, up to two seconds
    /// of leeway. A token for all repositories of an installation needs it: GitHub's reply to
    /// such a mint does not say whose they are. With `since` the moment at which the policy was
    /// last read, the account that has the name, and not one that had it earlier, both wrote
    /// the policy and gives the token.
    ///
    /// # Errors
    /// As [`GitHub::installation`].
    pub async fn installation_since(
        &self,
        owner: &Owner,
        since: Moment,
    ) -> Result<Installation, Error> {
        installation::find_since(&self.inner, owner, CallerTrust::Verified, since).await
    }

    /// Asks GitHub about the App itself.
    ///
    /// # Errors
    /// Why GitHub does not say, told apart further than exchanges need it.
    pub async fn about_app(&self) -> Result<AboutApp, Refused> {
        about::app(&self.inner).await
    }

    /// Seconds by which this machine's clock is ahead of GitHub's, by the latest reply; negative if
    /// it is behind, `None` before the first reply.
    pub fn clock_drift(&self) -> Option<i64> {
        self.inner.gate.drift.seconds()
    }

    /// The App's installations, a hundred at most, and whether there are more.
    ///
    /// # Errors
    /// GitHub could not be asked.
    pub async fn installations(&self) -> Result<(Vec<AboutInstallation>, bool), Error> {
        about::installations(&self.inner).await
    }

    /// What GitHub says of an installation at this moment; nothing of it is held.
    ///
    /// # Errors
    /// [`Error::Stale`], or that GitHub could not be asked.
    pub async fn about_installation(
        &self,
        installation: &Installation,
    ) -> Result<AboutInstallation, Error> {
        about::installation(&self.inner, installation).await
    }

    /// Evicts the owner's cached installation: see [`Error::doubts_installation`].
    pub fn forget_installation(&self, owner: &Owner) {
        self.inner.installations.invalidate(owner);
    }

    /// A token that reads the contents of one repository, and nothing else.
    ///
    /// # Errors
    /// [`Error::RepositoryNotAccessible`], [`Error::Forbidden`], [`Error::Stale`],
    /// [`Error::Suspended`], [`Error::Wider`], or that GitHub could not be asked. The call may take
    /// minutes: GitHub may mint and answer late, and it is not repeated then.
    pub async fn read_token(
        &self,
        installation: &Installation,
        repo: &RepoName,
    ) -> Result<ReadToken, Error> {
        contents::read_token(&self.inner, installation, repo).await
    }

    /// The file at `path` on the default branch of the token's repository. With the `etag` of an
    /// earlier answer to the same token, an unchanged file costs no quota.
    ///
    /// # Errors
    /// [`Error::TokenRefused`], [`Error::Forbidden`], [`Error::Moved`], or that GitHub could not be
    /// asked. A token that is a few seconds old is tried again before it counts as refused or
    /// forbidden: GitHub takes a moment to spread it.
    pub async fn file(
        &self,
        token: &ReadToken,
        path: &str,
        etag: Option<&str>,
    ) -> Result<File, Error> {
        contents::file(&self.inner, token, path, etag).await
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
    fn app(&self) -> Result<&App, Error> {
        self.app.as_ref().ok_or(Error::NoApp)
    }

    /// A call with the App's own credential. One that GitHub does not accept is not used again:
    /// after the operator corrected the clock or the key, a new one works.
    async fn call_as(&self, app: &App, key: LimitKey, call: &Call) -> Result<ApiReply, Meaning> {
        let outcome = self.gate.call(key, call).await;
        if outcome.as_ref().is_err_and(Meaning::refuses_app) {
            app.jwt.forget();
        }
        outcome
    }
}
