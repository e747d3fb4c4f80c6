//! Whether the keys of each known issuer are available, for `doctor`.

use futures_util::future::join_all;

use super::{
    Error, Fault, IssuerKind, Oidc, issuers::Trusted, issuers_file::reload::WARN_BEFORE,
    key_cache::Keys, keys::KeySet,
};
use crate::{clock::UnixTime, name::Issuer};

/// What is known of a known issuer.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    /// Which one.
    pub issuer: Issuer,
    /// Why it is known.
    pub kind: IssuerKind,
    /// Its keys, or why there are none.
    pub keys: Result<UsableKeys, Fault>,
    /// Where its discovery document names another issuer: which.
    pub other: Option<String>,
}

/// The keys of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsableKeys {
    /// Whether the operator supplied them, and nothing is fetched.
    pub are_fixed: bool,
    /// How many can verify a token.
    pub usable: usize,
    /// How many are published beside them that cannot.
    pub unusable: usize,
    /// For which algorithms there is a key, and which the issuer does not exclude.
    pub algorithms: Vec<&'static str>,
    /// Id and end of each key that says when it ends.
    pub ends: Vec<(String, UnixTime)>,
}

impl UsableKeys {
    fn of(keys: &KeySet, are_fixed: bool) -> Self {
        let usable = keys.usable_count();
        let ends = keys.ends().map(|(id, end)| (id.unwrap_or_default().to_owned(), end)).collect();
        let unusable = keys.unusable_count();
        Self { are_fixed, usable, unusable, algorithms: keys.algorithms(), ends }
    }

    /// The keys that have ended or will within two weeks.
    pub fn ending(&self, now: UnixTime) -> impl Iterator<Item = &(String, UnixTime)> {
        self.ends.iter().filter(move |(_, end)| *end < now.plus(WARN_BEFORE))
    }
}

impl Oidc {
    /// Fetches the keys of every known issuer of a kind that is `asked` for, all concurrently.
    pub async fn diagnose(&self, asked: impl Fn(IssuerKind) -> bool) -> Vec<Diagnosis> {
        let known = self
            .inner
            .issuers
            .every_known()
            .into_iter()
            .filter(|(_, trusted)| asked(trusted.origin.kind));
        join_all(known.map(|(issuer, trusted)| diagnose(issuer, trusted))).await
    }
}

async fn diagnose(issuer: Issuer, Trusted { origin, keys: source, .. }: Trusted) -> Diagnosis {
    let keys = match source.current().await {
        Ok(found) if found.keys.usable_count() == 0 => Err(Fault::NoKeys),
        Ok(found) => Ok(UsableKeys::of(&found.keys, matches!(source, Keys::Fixed(_)))),
        Err(Error::Unavailable { cause, .. }) => Err(cause),
        // Nothing else comes of a fetch.
        Err(_) => Err(Fault::Interrupted),
    };
    let other = match (&keys, &source) {
        (Err(Fault::OtherIssuer | Fault::Template), Keys::Fetched(cache)) => {
            cache.named_issuer().await
        }
        _ => None,
    };
    Diagnosis { issuer, kind: origin.kind, keys, other }
}
