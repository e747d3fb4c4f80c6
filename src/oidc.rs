//! Who are you: a bearer token in, a [`VerifiedToken`] out.
//!
//! [`Oidc::read`] takes from the token what leads to its issuer's keys. A known issuer has leave to
//! be asked for them at once; any other needs the gate's, which is why [`Oidc::verify`] wants an
//! [`Admission`]. The values carry the proof onward: `keys` alone verifies signatures, `claims` alone
//! makes a verified token, and neither can be stepped around. What is held of each issuer, and when
//! it is asked again, is the business of `held`.

mod claims;
mod diagnose;
mod discovery;
mod error;
mod follow;
mod held;
mod issuers;
mod json;
mod keys;
mod listed;
mod rules;
#[cfg(test)]
mod tests;
mod token;

use std::{sync::Arc, time::Duration};

use self::{
    claims::Demands,
    held::Spent,
    issuers::{Issuers, Trusted},
    keys::{KeySet, NotSigned},
};
pub use self::{
    claims::{IssuerKind, VerifiedToken},
    diagnose::{Diagnosis, HeldKeys},
    error::{Error, Fault, Unfit},
    issuers::Admission,
    listed::{IssuersFile, Listed, Pod},
    token::Unverified,
};
use crate::{clock::Clock, egress::Egress, name::Issuer};

/// For whose keys private networks may be asked.
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
    pub issuers_file: Option<(IssuersFile, Listed)>,
    /// For whose keys private networks may be asked.
    pub private_networks: PrivateNetworks,
    /// No token is longer.
    pub max_token_bytes: usize,
    /// How far `nbf` and `iat` may lie ahead; five minutes at most count.
    pub leeway: Duration,
    /// How long discovery and keys of an issuer may take together.
    pub fetch_timeout: Duration,
    /// Of how many issuers that the gate admitted keys are held.
    pub admitted_issuers: u64,
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
            admitted_issuers: 512,
        }
    }
}

/// The largest leeway for `nbf` and `iat`.
const MOST_LEEWAY: Duration = Duration::from_secs(5 * 60);

/// Verifies tokens. Clones share what is held.
#[derive(Clone)]
pub struct Oidc {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    issuers: Issuers,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

impl Oidc {
    /// Holds nothing yet; keys are fetched when the first token asks for them.
    pub fn new(settings: Settings, egress: Egress, clock: Arc<dyn Clock>) -> Self {
        let issuers = Issuers::new(&settings, &egress, &clock);
        Self { inner: Arc::new(Inner { settings, issuers, clock }) }
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
    /// [`Error::NotListed`], where only listed issuers are taken and this one is not.
    pub fn known(&self, token: &Unverified) -> Result<Option<Admission>, Error> {
        self.inner.issuers.known(token)
    }

    /// Whether `issuer` is that of GitHub Actions of the configured GitHub.
    pub fn is_actions(&self, issuer: &Issuer) -> bool {
        *issuer == self.inner.settings.actions_issuer
    }

    /// The verified token, if the keys that are held and serve at this moment are enough to verify
    /// it; no network. It says who asks, not that the gate lets the issuer in.
    pub fn verify_with_held_keys(&self, token: &Unverified) -> Option<VerifiedToken> {
        let trusted = self.inner.issuers.find(token.issuer())?;
        let keys = trusted.keys.at_hand()?;
        self.check(token, &trusted, &keys).ok()?.ok()
    }

    /// Verifies the token: keys, signature, claims and times. The issuer is asked only if the keys
    /// held are not enough, and only once for all who wait for it.
    ///
    /// # Errors
    /// Everything that speaks against the token, and [`Error::Unavailable`] if nobody can say.
    pub async fn verify(&self, token: &Unverified, admission: &Admission) -> Result<VerifiedToken, Error> {
        if admission.issuer() != token.issuer() {
            return Err(Error::NotAdmitted);
        }
        let trusted = self.inner.issuers.admit(admission)?;
        let mut found = trusted.keys.current().await?;
        loop {
            let unknown = match self.check(token, &trusted, &found.keys) {
                Ok(verdict) => return verdict,
                Err(unknown) => unknown,
            };
            if found.just_fetched {
                return Err(unknown.for_good());
            }
            // A fetch that was under way already may lack the key still; then one of our own is next, or is spent.
            found = match trusted.keys.for_unknown_key().await? {
                Ok(found) => found,
                Err(Spent { wait }) => return Err(unknown.while_spent(trusted.kind, wait)),
            };
        }
    }

    /// The verdict by these keys, or why others might give another.
    fn check(
        &self,
        token: &Unverified,
        trusted: &Trusted,
        keys: &KeySet,
    ) -> Result<Result<VerifiedToken, Error>, Unknown> {
        let now = self.inner.clock.now();
        let signed = match keys.verify(token, now) {
            Ok(signed) => signed,
            Err(NotSigned::Invalid(why)) => return Ok(Err(Error::Signature(why))),
            Err(NotSigned::UnknownKey) => return Err(Unknown::KeyId),
            Err(NotSigned::NoneFits) => return Err(Unknown::Key),
        };
        let leeway = self.inner.settings.leeway.min(MOST_LEEWAY);
        let demands = Demands { now, leeway, rules: &trusted.rules };
        Ok(VerifiedToken::read(&signed, trusted.kind, demands))
    }
}

/// The keys held do not verify the token, newer ones may.
#[derive(Debug, Clone, Copy)]
enum Unknown {
    /// The token names a key that is not held.
    KeyId,
    /// The token names no key.
    Key,
}

impl Unknown {
    /// The answer with the newest keys at hand.
    fn for_good(self) -> Error {
        Error::Signature(match self {
            Self::KeyId => "the issuer has no key of that id",
            Self::Key => "none of the issuer's keys verifies the signature",
        })
    }

    /// The answer while newer keys are not asked for. A known issuer may have published the key a
    /// moment ago, so its callers are told to come again.
    fn while_spent(self, kind: IssuerKind, wait: Duration) -> Error {
        match (self, kind) {
            (Self::KeyId, IssuerKind::Actions | IssuerKind::BuiltIn | IssuerKind::Configured) => {
                Error::Unavailable { cause: Fault::UnknownKey, retry_after: wait }
            }
            (Self::KeyId, IssuerKind::Admitted) | (Self::Key, _) => self.for_good(),
        }
    }
}

/// What an issuer publishes, read as it is fetched, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::{KeySet, Unverified, discovery};

    /// Whether the bytes are a discovery document that leads to keys.
    pub fn is_discovery(document: &[u8]) -> bool {
        discovery::read_discovery(document).is_ok()
    }

    /// Whether the bytes are a key set, and if so, whether one of its keys verifies the token.
    pub fn verifies(key_set: &[u8], token: &Unverified) -> Option<bool> {
        KeySet::read(key_set, None).map(|keys| keys.verify(token, crate::clock::UnixTime::from_secs(0)).is_ok())
    }
}
