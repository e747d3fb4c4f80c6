//! Who are you: a bearer token in, a [`VerifiedToken`] out.
//!
//! [`Oidc::read`] takes from the token what leads to its issuer's keys. The keys of a known issuer
//! may be fetched immediately; those of any other only if the gate admits it, which is why
//! [`Oidc::verify`] requires an [`Admission`]. The values carry the proof onward: `keys` alone
//! verifies signatures, `claims` alone makes a verified token, and neither can be left out. What is
//! cached of each issuer, and when it is fetched again, is decided in `key_cache`.

mod admitted;
mod algorithm;
mod claims;
mod diagnose;
mod discovery;
mod error;
mod fetch_limit;
mod issuers;
mod json;
mod jwk;
mod key_cache;
mod keys;
mod issuers_file;
mod rules;
mod surrogates;
#[cfg(test)]
mod tests;
mod token;

use std::{num::NonZero, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

pub use self::{
    admitted::AdmittedBounds,
    claims::{EXPIRY_LEEWAY, IssuerKind, VerifiedToken},
    diagnose::{Diagnosis, UsableKeys},
    error::{Error, Fault, Unexpected, Unfit},
    issuers::{Admission, BUILT_IN},
    issuers_file::{IssuersFile, ListedIssuers, Pod},
    rules::Replay,
    token::Unverified,
};
use self::{
    claims::Demands,
    issuers::{Issuers, Trusted},
    key_cache::Found,
    keys::{KeySet, NotSigned, Signed},
};
use crate::{
    clock::Clock,
    egress::{Egress, Origin},
    name::{Issuer, Owner, Subject},
};

/// Whose keys may be fetched from private networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrivateNetworks {
    /// For nobody's.
    #[default]
    Blocked,
    /// For those of known issuers.
    Known,
    /// For those of any issuer.
    All,
}

/// What verification needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The Actions issuer of the configured GitHub.
    pub actions_issuer: Issuer,
    /// The issuers that are known because the operator says so.
    pub configured: Vec<Issuer>,
    /// The issuers file and what it says at the start.
    pub issuers_file: Option<(IssuersFile, ListedIssuers)>,
    /// Whose keys may be fetched from private networks.
    pub private_networks: PrivateNetworks,
    /// No token is longer.
    pub max_token_bytes: usize,
    /// How far `nbf` and `iat` may lie ahead; five minutes at most count.
    pub leeway: Duration,
    /// How long discovery and keys of an issuer may take together.
    pub fetch_timeout: Duration,
    /// How much is cached of the issuers that the gate admitted.
    pub admitted: AdmittedBounds,
    /// The origin of a configured GitHub Enterprise Server. It may have a private address, for the
    /// Actions issuer alone.
    pub private_origin: Option<Origin>,
}

impl Settings {
    /// The defaults of the contract.
    pub fn new(actions_issuer: Issuer) -> Self {
        Self {
            actions_issuer,
            configured: Vec::new(),
            issuers_file: None,
            private_networks: PrivateNetworks::Blocked,
            max_token_bytes: 32 << 10,
            leeway: Duration::from_secs(60),
            fetch_timeout: Duration::from_secs(5),
            admitted: AdmittedBounds { issuers: 2_048, bytes: 8 << 20 },
            private_origin: None,
        }
    }
}

/// The largest leeway for `nbf` and `iat`.
const MAX_LEEWAY: Duration = Duration::from_secs(5 * 60);

/// Verifies tokens. Clones share the cached keys.
#[derive(Clone)]
pub struct Oidc {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    issuers: Issuers,
    expensive_checks: ExpensiveChecks,
    clock: Arc<dyn Clock>,
}

/// Bounds the signature checks on blocking threads. Known issuers do not wait for the tokens of
/// unknown ones.
struct ExpensiveChecks {
    known: Arc<Semaphore>,
    unknown: Arc<Semaphore>,
}

impl ExpensiveChecks {
    fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let permits = || Arc::new(Semaphore::new(cores.div_ceil(2)));
        Self { known: permits(), unknown: permits() }
    }

    fn of(&self, kind: IssuerKind) -> &Arc<Semaphore> {
        match kind {
            IssuerKind::Actions | IssuerKind::BuiltIn | IssuerKind::Configured => &self.known,
            IssuerKind::Admitted => &self.unknown,
        }
    }
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

impl Oidc {
    /// With no cached keys; they are fetched when the first token needs them.
    pub fn new(settings: Settings, egress: Egress, clock: Arc<dyn Clock>) -> Self {
        let issuers = Issuers::new(&settings, &egress, &clock);
        Self {
            inner: Arc::new(Inner {
                settings,
                issuers,
                expensive_checks: ExpensiveChecks::new(),
                clock,
            }),
        }
    }

    /// Reads a token's header and issuer; no network.
    ///
    /// # Errors
    /// A token that no key could make acceptable.
    pub fn read(&self, bearer: &str) -> Result<Unverified, Error> {
        Unverified::read(bearer, self.inner.settings.max_token_bytes)
    }

    /// The admission that the token's issuer has by itself, if it is built in or configured.
    ///
    /// # Errors
    /// [`Error::NotListed`], where only listed issuers are accepted and this one is not.
    pub fn known(&self, token: &Unverified) -> Result<Option<Admission>, Error> {
        self.inner.issuers.known(token)
    }

    /// Whether `issuer` is that of GitHub Actions of the configured GitHub.
    pub fn is_actions(&self, issuer: &Issuer) -> bool {
        *issuer == self.inner.settings.actions_issuer
    }

    /// Verifies the token with the keys that are cached for `owner`, without any fetch, if they
    /// suffice. It says who calls, not that the gate admits the issuer: that is up to
    /// [`Oidc::confirm`].
    pub async fn verify_with_cached_keys(
        &self,
        token: &Unverified,
        owner: &Owner,
    ) -> Option<CachedVerification> {
        let trusted = self.inner.issuers.cached(token.issuer(), owner)?;
        let keys = trusted.keys.cached()?;
        let token = self.check(token, &trusted, &keys).await.ok()?.ok()?;
        Some(CachedVerification { token, keys })
    }

    /// The token that cached keys verified, now that its issuer is admitted. Keys that are due are
    /// fetched in the background. Where their lifetime has ended, the call waits for the fetch
    /// and verifies again.
    ///
    /// # Errors
    /// As [`Oidc::verify`].
    pub async fn confirm(
        &self,
        token: &Unverified,
        cached: CachedVerification,
        admission: &Admission,
    ) -> Result<VerifiedToken, Error> {
        if admission.issuer() != token.issuer() || cached.issuer() != token.issuer() {
            return Err(Error::NotAdmitted);
        }
        let trusted = self.inner.issuers.admit(admission)?;
        let current = trusted.keys.current().await?;
        if Arc::ptr_eq(&current.keys, &cached.keys) {
            return Ok(cached.token);
        }
        self.verify_by(token, &trusted, current).await
    }

    /// Verifies the token: keys, signature, claims and times. Keys are fetched only if the cached
    /// ones are not enough, and only once for all callers that wait for them.
    ///
    /// # Errors
    /// Everything that speaks against the token, and [`Error::Unavailable`] if it cannot be
    /// decided.
    pub async fn verify(
        &self,
        token: &Unverified,
        admission: &Admission,
    ) -> Result<VerifiedToken, Error> {
        if admission.issuer() != token.issuer() {
            return Err(Error::NotAdmitted);
        }
        let trusted = self.inner.issuers.admit(admission)?;
        let found = trusted.keys.current().await?;
        self.verify_by(token, &trusted, found).await
    }

    async fn verify_by(
        &self,
        token: &Unverified,
        trusted: &Trusted,
        mut found: Found,
    ) -> Result<VerifiedToken, Error> {
        loop {
            if trusted.origin.kind == IssuerKind::Admitted {
                self.inner.issuers.trim();
            }
            let unknown = match self.check(token, trusted, &found.keys).await {
                Ok(verdict) => return verdict,
                Err(unknown) => unknown,
            };
            found = match trusted.keys.newer(&found).await {
                Ok(newer) => newer,
                Err(limit) => return Err(unknown.answer(&found.keys, limit.retry_after)),
            };
        }
    }

    /// The verdict by these keys, or why others might give another.
    async fn check(
        &self,
        token: &Unverified,
        trusted: &Trusted,
        keys: &Arc<KeySet>,
    ) -> Result<Result<VerifiedToken, Error>, Unknown> {
        let now = self.inner.clock.now();
        let signed = match self.check_signature(token, keys, trusted.origin.kind).await {
            None => {
                return Ok(Err(Error::Unavailable {
                    cause: Fault::Interrupted,
                    retry_after: Duration::ZERO,
                }));
            }
            Some(Ok(signed)) => signed,
            Some(Err(NotSigned::Invalid(why))) => {
                return Ok(Err(Error::Signature(why.to_string().into())));
            }
            Some(Err(NotSigned::UnknownKey)) => return Err(Unknown::KeyId),
            Some(Err(NotSigned::NoneFits)) => return Err(Unknown::Key),
        };
        let leeway = self.inner.settings.leeway.min(MAX_LEEWAY);
        let demands = Demands { now, leeway, rules: &trusted.rules };
        Ok(VerifiedToken::read(&signed, trusted.origin, demands))
    }

    /// Checks the signature here if that is quick, else on a blocking thread. `None` if that ended
    /// early.
    async fn check_signature(
        &self,
        token: &Unverified,
        keys: &Arc<KeySet>,
        kind: IssuerKind,
    ) -> Option<Result<Signed, NotSigned>> {
        let now = self.inner.clock.now();
        if !keys.is_expensive(token, now) {
            return Some(keys.verify(token, now));
        }
        let permit = Arc::clone(self.inner.expensive_checks.of(kind)).acquire_owned().await.ok()?;
        let (token, keys) = (token.clone(), Arc::clone(keys));
        let check = move || {
            let _permit = permit;
            keys.verify(&token, now)
        };
        tokio::task::spawn_blocking(check).await.ok()
    }
}

/// Who calls, by keys that were cached, before the gate has admitted the issuer.
#[derive(Debug)]
pub struct CachedVerification {
    token: VerifiedToken,
    keys: Arc<KeySet>,
}

impl CachedVerification {
    /// The token's issuer.
    pub fn issuer(&self) -> &Issuer {
        self.token.issuer()
    }

    /// The token's subject.
    pub fn subject(&self) -> &Subject {
        self.token.subject()
    }
}

/// These keys do not verify the token, newer ones may.
#[derive(Debug, Clone, Copy)]
enum Unknown {
    /// The token names a key that is not among them.
    KeyId,
    /// The token names no key.
    Key,
}

impl Unknown {
    /// The answer if no newer keys are fetched now. The issuer may publish the key in a moment, so
    /// a caller that names an unknown key can retry later.
    fn answer(self, keys: &KeySet, retry_after: Duration) -> Error {
        match self {
            _ if keys.usable_count() == 0 => {
                Error::Unavailable { cause: Fault::NoKeys, retry_after }
            }
            Self::KeyId => Error::Unavailable { cause: Fault::UnknownKey, retry_after },
            Self::Key => Error::Signature(
                "the token names no key, and none of the issuer's keys verifies it".into(),
            ),
        }
    }
}

/// What an issuer publishes, read as it is fetched, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use futures_util::FutureExt;

    use super::{KeySet, Oidc, Unverified, VerifiedToken, discovery};

    /// The token, if cached keys verify it.
    pub fn verify_with_cached_keys(oidc: &Oidc, token: &Unverified) -> Option<VerifiedToken> {
        let owner = "octo-org".parse().ok()?;
        let cached = oidc.verify_with_cached_keys(token, &owner).now_or_never()??;
        Some(cached.token)
    }

    /// Whether the bytes are a discovery document that leads to keys.
    pub fn is_discovery(document: &[u8]) -> bool {
        discovery::Discovery::read(document).is_ok()
    }

    /// Whether the bytes are a key set, and if so, whether one of its keys verifies the token.
    pub fn verifies(key_set: &[u8], token: &Unverified) -> Option<bool> {
        KeySet::read(key_set, None)
            .map(|keys| keys.verify(token, crate::clock::UnixTime::from_secs(0)).is_ok())
    }
}
