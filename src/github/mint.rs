//! Minting, and the check that a token is no wider than what was asked for.
//!
//! Two requests would mean "everything": no permissions, and an empty list of repositories. Neither
//! is ever sent. And what GitHub replies is held against the request before anybody gets the token.

use std::{collections::BTreeMap, fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Method, StatusCode};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;

use super::{
    Inner,
    client::{Call, Kind, Reply},
    error::{Answer, Error, Failure},
    installation::Installation,
    limits::Lane,
    revoke::Held,
};
use crate::{
    clock::UnixTime,
    name::{InstallationId, Owner, RepoName},
    policy::{AppPin, Grant, Level, Permissions, Repositories},
};

/// A minted token that is no wider than its grant. It is revoked when it is dropped, unless it was
/// handed over.
pub struct IssuedToken {
    token: Held,
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

/// Whether the installation's App is the one that the grant's policy pins.
///
/// # Errors
/// [`Error::Pin`] if it is another.
pub fn check_pin(grant: &Grant, installation: &Installation) -> Result<(), Error> {
    let (id, slug) = (installation.app_id().to_string(), installation.app_slug());
    let fits = match grant.pin() {
        None => true,
        Some(pin) => pin_admits(pin, &id, slug),
    };
    if fits { Ok(()) } else { Err(Error::Pin) }
}

fn pin_admits(pin: &AppPin, id: &str, slug: &str) -> bool {
    match pin {
        AppPin::Exact(pin) => pin == id || pin == slug,
        AppPin::Pattern(pattern) => pattern.is_match(slug) || pattern.is_match(id),
    }
}

/// As [`super::GitHub::mint`].
pub(super) async fn mint(inner: &Arc<Inner>, grant: &Grant, installation: &Installation) -> Result<IssuedToken, Error> {
    check_pin(grant, installation)?;
    if grant.owner() != installation.owner() {
        return Err(Error::Wider("the installation is another owner's".into()));
    }
    let repositories = match grant.repositories() {
        Repositories::All => None,
        Repositories::These(names) => Some(names.clone()),
    };
    let asked = Asked { kind: Kind::Mint, repositories, permissions: grant.permissions().clone() };
    let minted = mint_checked(inner, installation, asked).await?;
    // In GitHub's requests an empty list means everything, so in a reply it bounds nothing.
    if minted.repositories.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::Wider("it names no repository".into()));
    }
    Ok(IssuedToken {
        token: minted.token,
        expires_at: minted.expires_at,
        permissions: minted.permissions,
        repositories: minted.repositories.map(|all| all.into_iter().map(|repository| repository.name).collect()),
        installation: installation.id(),
    })
}

/// What a token is asked for.
pub(super) struct Asked {
    /// [`Kind::Mint`] for a caller's token, [`Kind::ReadMint`] for one of our own.
    pub(super) kind: Kind,
    /// `None`: all that the installation sees.
    pub(super) repositories: Option<Vec<RepoName>>,
    pub(super) permissions: Permissions,
}

/// A token that is no wider than what was asked for.
pub(super) struct Minted {
    pub(super) token: Held,
    pub(super) expires_at: UnixTime,
    pub(super) permissions: Permissions,
    /// Present if the request named repositories.
    pub(super) repositories: Option<Vec<Repository>>,
}

/// A repository in GitHub's reply.
#[derive(Deserialize)]
pub(super) struct Repository {
    pub(super) name: String,
    full_name: Option<String>,
    pub(super) private: Option<bool>,
}

/// Mints in a task of its own: when the caller goes away, the token that arrives is dropped there,
/// and so revoked.
pub(super) async fn mint_checked(
    inner: &Arc<Inner>,
    installation: &Installation,
    asked: Asked,
) -> Result<Minted, Error> {
    if asked.permissions.is_empty() || asked.repositories.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::Wider("an empty request would be granted everything".into()));
    }
    let (task, installation) = (Arc::clone(inner), installation.clone());
    let work = async move { mint_now(&task, &installation, &asked).await };
    match inner.minting.spawn(work.in_current_span()).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::unavailable("the mint was interrupted")),
    }
}

async fn mint_now(inner: &Inner, installation: &Installation, asked: &Asked) -> Result<Minted, Error> {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        repositories: Option<Vec<&'a str>>,
        permissions: &'a Permissions,
    }
    let repositories = asked.repositories.as_ref().map(|names| names.iter().map(RepoName::as_str).collect());
    let body = serde_json::to_string(&Body { repositories, permissions: &asked.permissions });
    let app = inner.app()?;
    let path = format!("/app/installations/{}/access_tokens", installation.id());
    let call = Call {
        method: Method::POST,
        body: Some(body.map_err(|_| Error::unavailable("the request has no JSON form"))?),
        ..Call::get(asked.kind, path, app.jwt.header().await?)
    };
    match inner.call_as(app, Lane::Mint(installation.id()), &call).await {
        Ok(reply) => accept(inner, installation, asked, &reply),
        Err(Failure::Answered(answer)) => Err(refused(*answer, asked.kind)),
        Err(failure) => Err(failure.into()),
    }
}

/// What GitHub means when it does not mint.
fn refused(answer: Answer, kind: Kind) -> Error {
    let reading = kind == Kind::ReadMint;
    let cause = answer.cause();
    match answer.status {
        _ if answer.refuses_app() => Error::Misconfigured(cause),
        StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => Error::Stale,
        StatusCode::FORBIDDEN if answer.says("suspended") => Error::Suspended,
        StatusCode::FORBIDDEN if reading => Error::Forbidden(cause),
        StatusCode::FORBIDDEN => Error::PermissionRefused(cause),
        // Of the sentence only what it means: servers that speak GitHub's API word it in other ways.
        StatusCode::UNPROCESSABLE_ENTITY if answer.says("not accessible") => {
            if reading {
                Error::RepositoryNotAccessible
            } else {
                Error::RepositoryRefused(cause)
            }
        }
        StatusCode::UNPROCESSABLE_ENTITY if answer.says("permissions requested") => {
            if reading {
                Error::Forbidden(cause)
            } else {
                Error::PermissionRefused(cause)
            }
        }
        StatusCode::UNPROCESSABLE_ENTITY if !reading && answer.says("too many repositories") => {
            Error::RepositoryRefused(cause)
        }
        StatusCode::UNPROCESSABLE_ENTITY if !reading => Error::PermissionRefused(cause),
        _ => Failure::Answered(Box::new(answer)).into(),
    }
}

#[derive(Deserialize)]
struct TokenReply {
    token: String,
}

#[derive(Deserialize)]
struct Terms {
    expires_at: String,
    permissions: Option<BTreeMap<String, String>>,
    repository_selection: Option<String>,
    repositories: Option<Vec<Repository>>,
}

/// Reads the reply and holds it against the request. The token is taken out first, so that it is
/// revoked if the rest does not do.
fn accept(inner: &Inner, installation: &Installation, asked: &Asked, reply: &Reply) -> Result<Minted, Error> {
    let (id, owner) = (installation.id(), installation.owner());
    let TokenReply { token } = reply.json()?;
    if token.is_empty() {
        return Err(Error::unavailable("the reply has no token"));
    }
    let token = Held::new(token, id, inner.gate.clock.now(), inner.revoker.clone());
    let terms: Terms = reply.json()?;
    let expires_at =
        UnixTime::parse_rfc3339(&terms.expires_at).ok_or_else(|| Error::unavailable("the reply has no expiry"))?;
    let permissions = checked_permissions(&asked.permissions, terms.permissions)?;
    let repositories = match &asked.repositories {
        None => None,
        Some(_) if terms.repository_selection.as_deref() == Some("all") => {
            return Err(Error::Wider("it reaches all repositories".into()));
        }
        Some(names) => Some(checked_repositories(owner, names, terms.repositories)?),
    };
    Ok(Minted { token, expires_at, permissions, repositories })
}

/// GitHub adds `metadata: read` by itself; anything else must have been asked for, at that level
/// at least.
fn checked_permissions(asked: &Permissions, granted: Option<BTreeMap<String, String>>) -> Result<Permissions, Error> {
    let granted = granted.ok_or(Error::Wider("it does not say which permissions it has".into()))?;
    let check = |(name, level): (String, String)| {
        let level = [Level::Read, Level::Write, Level::Admin].into_iter().find(|known| known.as_str() == level);
        let most = asked.get(&name).copied().or_else(|| (name == "metadata").then_some(Level::Read));
        match (level, most) {
            (Some(level), Some(most)) if level <= most => Ok((name, level)),
            _ => Err(Error::Wider("it has a permission that was not asked for".into())),
        }
    };
    granted.into_iter().map(check).collect()
}

fn checked_repositories(
    owner: &Owner,
    asked: &[RepoName],
    granted: Option<Vec<Repository>>,
) -> Result<Vec<Repository>, Error> {
    let granted = granted.ok_or(Error::Wider("it does not say which repositories it reaches".into()))?;
    let was_asked = |repository: &Repository| {
        let named = asked.iter().find(|name| name.as_str().eq_ignore_ascii_case(&repository.name));
        named.is_some_and(|name| {
            let full = repository.full_name.as_deref();
            full.is_none_or(|full| full.eq_ignore_ascii_case(&format!("{owner}/{name}")))
        })
    };
    if granted.iter().all(was_asked) {
        Ok(granted)
    } else {
        Err(Error::Wider("it reaches a repository that was not asked for".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_an_id_or_a_slug() {
        for (pin, admits) in [("5", true), ("sts", true), ("55", false), ("st", false), ("", false)] {
            assert_eq!(pin_admits(&AppPin::Exact(pin.into()), "5", "sts"), admits, "{pin}");
        }
        let pattern = |text: &str| AppPin::Pattern(crate::pattern::Pattern::compile(text).unwrap());
        for (pin, admits) in [("st.", true), ("[0-9]", true), ("other", false)] {
            assert_eq!(pin_admits(&pattern(pin), "5", "sts"), admits, "{pin}");
        }
    }
}
