//! Minting, and what becomes of a mint that GitHub refuses.
//!
//! Two requests would mean "everything": no permissions, and an empty list of repositories. Neither
//! is ever sent. `mint_reply` compares GitHub's reply with the request before anyone gets the
//! token.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use secrecy::SecretString;
use serde::Serialize;
use tracing::Instrument as _;

use super::{
    Inner,
    client::{Call, Endpoint},
    error::Error,
    explain,
    installation::Installation,
    limits::LimitKey,
    meaning::Meaning,
    mint_calls::MintCalls,
    mint_reply::{self, Minted, Requested},
    pool::Tier,
    revoke::RevokeOnDrop,
};
use crate::{
    clock::UnixTime,
    name::{InstallationId, RepoName},
    policy::{Grant, Permissions, Repositories},
    telemetry::{label, metric},
};

/// A minted token that is no wider than its grant. It is revoked when it is dropped, unless it was
/// handed over.
pub struct IssuedToken {
    token: RevokeOnDrop,
    expires_at: UnixTime,
    permissions: Permissions,
    repositories: Option<Vec<String>>,
    installation: InstallationId,
}

impl IssuedToken {
    /// Hands the token over to the caller: from here on it is theirs.
    pub fn hand_over(self) -> (SecretString, UnixTime) {
        (self.token.release(), self.expires_at)
    }

    /// When it ends.
    pub fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// What it may do, as GitHub says.
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// What it reaches, as GitHub spells it; `None` is all that the installation sees.
    pub fn repositories(&self) -> Option<&[String]> {
        self.repositories.as_deref()
    }

    /// By which installation it was minted.
    pub fn installation(&self) -> InstallationId {
        self.installation
    }

    /// The token's SHA-256 in hexadecimal, and in base64 as GitHub's audit log has it in
    /// `hashed_token`.
    pub fn digests(&self) -> (String, String) {
        let digest = digest(&SHA256, self.token.expose().as_bytes());
        let mut hex = String::with_capacity(2 * digest.as_ref().len());
        for byte in digest.as_ref() {
            for digit in [byte >> 4, byte & 15] {
                hex.extend(char::from_digit(digit.into(), 16));
            }
        }
        (hex, STANDARD.encode(digest))
    }
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken")
            .field("expires_at", &self.expires_at)
            .field("permissions", &self.permissions)
            .field("repositories", &self.repositories)
            .field("installation", &self.installation)
            .finish_non_exhaustive()
    }
}

/// As [`super::GitHub::mint`].
pub(super) async fn mint(
    inner: &Arc<Inner>,
    grant: &Grant,
    installation: &Installation,
    calls: &MintCalls,
) -> Result<IssuedToken, Error> {
    if grant.owner() != installation.owner() {
        return Err(Error::Wider("the installation is another owner's".into()));
    }
    let repositories = match grant.repositories() {
        Repositories::All => None,
        Repositories::These(names) => Some(names.clone()),
    };
    let requested = Requested {
        endpoint: Endpoint::Mint,
        repositories,
        permissions: grant.permissions().clone(),
    };
    let minted = match mint_checked(inner, installation, requested, calls).await {
        Ok(minted) => minted,
        Err(MintRefused::Error(error)) => return Err(error),
        Err(MintRefused::Answer(meaning)) => {
            return Err(refused(inner, grant, installation, meaning).await);
        }
    };
    // In GitHub's requests an empty list means everything, so in a reply it bounds nothing.
    if minted.repositories.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::Wider("it names no repository".into()));
    }
    Ok(IssuedToken {
        token: minted.token,
        expires_at: minted.expires_at,
        permissions: minted.permissions,
        repositories: minted
            .repositories
            .map(|all| all.into_iter().map(|repository| repository.name).collect()),
        installation: installation.id(),
    })
}

/// What it means that GitHub does not mint by a grant.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what has no special consequence here is decided in one place"
)]
async fn refused(
    inner: &Arc<Inner>,
    grant: &Grant,
    installation: &Installation,
    meaning: Meaning,
) -> Error {
    match meaning {
        Meaning::NotFound(cause) => Error::Stale(cause),
        Meaning::PermissionMissing(cause)
        | Meaning::Forbidden(cause)
        | Meaning::PermissionsNotGranted(cause)
        | Meaning::Unprocessable(cause) => {
            let lacking =
                explain::lacking_permissions(inner, installation, grant.permissions()).await;
            Error::PermissionRefused { cause, lacking }
        }
        Meaning::RepositoryNotAccessible(cause) => {
            let missing =
                explain::missing_repositories(inner, installation, grant.repositories()).await;
            Error::RepositoryRefused { cause, missing }
        }
        Meaning::TooManyRepositories(cause) => Error::RepositoryRefused { cause, missing: None },
        meaning => meaning.into(),
    }
}

/// Why there is no token.
pub(super) enum MintRefused {
    /// GitHub's answer, of which the request's purpose decides what follows.
    Answer(Meaning),
    /// Anything else.
    Error(Error),
}

impl From<Error> for MintRefused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Mints in its own task: when the caller goes away, the call goes on, and the token that arrives
/// is dropped there, and so revoked.
pub(super) async fn mint_checked(
    inner: &Arc<Inner>,
    installation: &Installation,
    requested: Requested,
    calls: &MintCalls,
) -> Result<Minted, MintRefused> {
    if requested.permissions.is_empty()
        || requested.repositories.as_ref().is_some_and(Vec::is_empty)
    {
        return Err(Error::Wider("an empty request would be granted everything".into()).into());
    }
    if !calls.may_begin() {
        return Err(Error::unavailable("the outcome of two calls to mint is unknown").into());
    }
    let (task, installation, calls) = (Arc::clone(inner), installation.clone(), calls.clone());
    let work = async move { mint_now(&task, &installation, &requested, &calls).await };
    match inner.minting.spawn(work.in_current_span()).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Unexpected("the mint was interrupted".into()).into()),
    }
}

async fn mint_now(
    inner: &Inner,
    installation: &Installation,
    requested: &Requested,
    calls: &MintCalls,
) -> Result<Minted, MintRefused> {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        repositories: Option<Vec<&'a str>>,
        permissions: &'a Permissions,
    }
    let repositories =
        requested.repositories.as_ref().map(|names| names.iter().map(RepoName::as_str).collect());
    let body = serde_json::to_string(&Body { repositories, permissions: &requested.permissions });
    let app = installation.app();
    let path = format!("/app/installations/{}/access_tokens", installation.id());
    let call = Call {
        method: Method::POST,
        body: Some(body.map_err(|_| Error::Unexpected("the request has no JSON form".into()))?),
        mint: Some(calls.clone()),
        ..Call::get(requested.endpoint, path, inner.app_header(app).await?)
    };
    let tier = inner.tier(installation);
    let outcome = inner.call_as(app, LimitKey::Mint(installation.id()), &call).await;
    let labels = [
        (label::APP_ID, app.id().to_string()),
        (label::TIER, tier.map_or("unknown", Tier::as_str).to_owned()),
        (label::OUTCOME, if outcome.is_ok() { "done" } else { "failed" }.to_owned()),
    ];
    metrics::counter!(metric::APP_MINTS, &labels).increment(1);
    let reply = outcome.map_err(MintRefused::Answer)?;
    let Some(token) = mint_reply::token(&reply) else {
        calls.token_lost();
        return Err(Error::Unexpected("the reply has no token".into()).into());
    };
    let token =
        RevokeOnDrop::new(token, installation.id(), inner.gate.clock.now(), inner.revoker.clone());
    Ok(mint_reply::accept(token, installation, requested, &reply)?)
}
