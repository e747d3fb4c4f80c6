//! GitHub's reply to a mint, and the check that the token is no wider than the request and is for
//! the requested account.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    client::{ApiReply, Endpoint},
    error::Error,
    installation::Installation,
    revoke::RevokeOnDrop,
};
use crate::{
    clock::UnixTime,
    name::{Owner, RepoName},
    policy::{Level, Permissions},
};

/// What a token is requested for.
pub(super) struct Requested {
    /// [`Endpoint::Mint`] for a caller's token, [`Endpoint::ReadMint`] for one of our own.
    pub(super) endpoint: Endpoint,
    /// `None`: all that the installation sees.
    pub(super) repositories: Option<Vec<RepoName>>,
    pub(super) permissions: Permissions,
}

/// A token that is no wider than the request.
pub(super) struct Minted {
    pub(super) token: RevokeOnDrop,
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
    owner: Option<RepositoryOwner>,
    pub(super) private: Option<bool>,
}

#[derive(Deserialize)]
struct RepositoryOwner {
    login: Option<String>,
}

impl Repository {
    /// Whether it is of the account that has the owner's name. GitHub says whose it is in up to two
    /// places: it must say so in one of them, and what it says must fit.
    fn is_of(&self, owner: &Owner) -> bool {
        let login = self.owner.as_ref().and_then(|owner| owner.login.as_deref());
        let said = [
            self.full_name
                .as_deref()
                .map(|full| full.eq_ignore_ascii_case(&format!("{owner}/{}", self.name))),
            login.map(|login| login.eq_ignore_ascii_case(owner.as_str())),
        ];
        said.contains(&Some(true)) && !said.contains(&Some(false))
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

/// The token of a reply, whatever else is in it.
pub(super) fn token(reply: &ApiReply) -> Option<String> {
    reply.json::<TokenReply>().map(|reply| reply.token).ok().filter(|token| !token.is_empty())
}

/// Compares the reply with the request. The token is taken out before, so that it is revoked if the
/// rest does not fit.
pub(super) fn accept(
    token: RevokeOnDrop,
    installation: &Installation,
    requested: &Requested,
    reply: &ApiReply,
) -> Result<Minted, Error> {
    let terms: Terms = reply.json()?;
    let expires_at = UnixTime::parse_rfc3339(&terms.expires_at)
        .ok_or_else(|| Error::Unexpected("the reply has no expiry".into()))?;
    let permissions = checked_permissions(&requested.permissions, terms.permissions)?;
    let repositories = match &requested.repositories {
        None => None,
        Some(_) if terms.repository_selection.as_deref() == Some("all") => {
            return Err(Error::Wider("it reaches all repositories".into()));
        }
        Some(names) => Some(checked_repositories(installation, names, terms.repositories)?),
    };
    Ok(Minted { token, expires_at, permissions, repositories })
}

/// GitHub adds `metadata: read` by itself; anything else must have been requested, at that level at
/// least.
fn checked_permissions(
    requested: &Permissions,
    granted: Option<BTreeMap<String, String>>,
) -> Result<Permissions, Error> {
    let granted = granted.ok_or(Error::Wider("it does not say which permissions it has".into()))?;
    let check = |(name, level): (String, String)| {
        let level = [Level::Read, Level::Write, Level::Admin]
            .into_iter()
            .find(|known| known.as_str() == level);
        let most =
            requested.get(&name).copied().or_else(|| (name == "metadata").then_some(Level::Read));
        match (level, most) {
            (Some(level), Some(most)) if level <= most => Ok((name, level)),
            _ => Err(Error::Wider("it has a permission that was not requested".into())),
        }
    };
    granted.into_iter().map(check).collect()
}

fn checked_repositories(
    installation: &Installation,
    requested: &[RepoName],
    granted: Option<Vec<Repository>>,
) -> Result<Vec<Repository>, Error> {
    let granted =
        granted.ok_or(Error::Wider("it does not say which repositories it reaches".into()))?;
    if !granted.iter().all(|repository| repository.is_of(installation.owner())) {
        return Err(Error::Wider("it reaches a repository of another account".into()));
    }
    let is_requested = |repository: &Repository| {
        requested.iter().any(|name| name.as_str().eq_ignore_ascii_case(&repository.name))
    };
    if granted.iter().all(is_requested) {
        Ok(granted)
    } else {
        Err(Error::Wider("it reaches a repository that was not requested".into()))
    }
}
