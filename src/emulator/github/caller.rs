//! Authentication: anonymous, an App or an installation token; and what a token may see.

use std::time::Duration;

use super::super::server::Request;
use super::{
    app_jwt,
    files::Repository,
    options::ReplicationDelay,
    record::Credential,
    reply::{DOCS, Reply},
    route::{Audience, Route},
    state::{Permissions, State, TokenKey, allows, rank, token_key},
};
use crate::{
    clock::UnixTime,
    name::{AppId, InstallationId},
};

/// An authenticated caller.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    Anonymous,
    App(u64),
    Token(Access),
}

impl Caller {
    /// For the log; `None` without a credential.
    pub(super) fn credential(&self) -> Option<Credential> {
        match self {
            Self::Anonymous => None,
            Self::App(app) => Some(Credential::App(AppId(*app))),
            Self::Token(access) => Some(Credential::Token(InstallationId(access.installation))),
        }
    }
}

/// What a live token reaches right now.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) key: TokenKey,
    pub(super) installation: u64,
    /// The token's, as far as the installation still has them.
    pub(super) permissions: Permissions,
    pub(super) repositories: Option<Vec<u64>>,
    /// The token is not yet known wherever private repositories are served.
    lagging: bool,
}

/// Which of GitHub's servers know a new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replication {
    Unknown,
    WithoutPermissions,
    WithoutRepositories,
    Everywhere,
}

/// Authenticates by what the operation wants.
pub(super) fn authenticate(
    state: &mut State,
    request: &Request,
    route: &Route,
) -> Result<Caller, Reply> {
    let credential = request.header("authorization").and_then(|value| value.trim().split_once(' '));
    let present = request.headers.contains_key("authorization");
    match (route.audience(), credential) {
        (Audience::App, Some((scheme, jwt))) if scheme.eq_ignore_ascii_case("bearer") => {
            app_jwt::authenticate(state, jwt.trim()).map(Caller::App)
        }
        (Audience::App, _) => Err(app_jwt::undecodable()),
        (_, Some((scheme, token)))
            if ["bearer", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) =>
        {
            by_token(state, token.trim()).map(Caller::Token)
        }
        (Audience::Anyone, None) if !present => Ok(Caller::Anonymous),
        (Audience::Installation, None) if !present => {
            Err(Reply::error(401, "Requires authentication", route.kind().documentation()))
        }
        (Audience::Installation | Audience::Anyone, _) => Err(bad_credentials()),
    }
}

pub(super) fn bad_credentials() -> Reply {
    Reply::error(401, "Bad credentials", DOCS)
}

pub(super) fn by_token(state: &mut State, token: &str) -> Result<Access, Reply> {
    let key = token_key(token);
    let now = state.now();
    let delay = state.options.replication_delay;
    let token = state.tokens.get_mut(&key).filter(|token| !token.revoked && token.expires_at > now);
    let token = token.ok_or_else(bad_credentials)?;
    let reached = replication(delay, token.uses, token.minted_at, now);
    token.uses = token.uses.saturating_add(1);
    let installation = state.installations.get(&token.installation).ok_or_else(bad_credentials)?;
    if installation.suspended_at.is_some() {
        return Err(Reply::error(403, "This installation has been suspended", DOCS));
    }
    match reached {
        Replication::Unknown => return Err(bad_credentials()),
        Replication::WithoutPermissions => {
            return Err(Reply::error(403, "Resource not accessible by integration", DOCS));
        }
        Replication::WithoutRepositories | Replication::Everywhere => {}
    }
    Ok(Access {
        key,
        installation: installation.id,
        permissions: common(&token.permissions, &installation.permissions),
        repositories: token.repositories.clone(),
        lagging: reached == Replication::WithoutRepositories,
    })
}

fn replication(
    delay: ReplicationDelay,
    uses: u32,
    minted_at: UnixTime,
    now: UnixTime,
) -> Replication {
    let reached = |bounds: [bool; 3]| match bounds {
        [true, _, _] => Replication::Unknown,
        [_, true, _] => Replication::WithoutPermissions,
        [_, _, true] => Replication::WithoutRepositories,
        [false, false, false] => Replication::Everywhere,
    };
    match delay {
        ReplicationDelay::None => Replication::Everywhere,
        ReplicationDelay::Requests { unauthorized, forbidden, not_found } => {
            let forbidden = unauthorized.saturating_add(forbidden);
            reached([
                uses < unauthorized,
                uses < forbidden,
                uses < forbidden.saturating_add(not_found),
            ])
        }
        ReplicationDelay::Time { unauthorized, forbidden, not_found } => {
            let age: Duration = now.since(minted_at);
            let forbidden = unauthorized.saturating_add(forbidden);
            reached([
                age < unauthorized,
                age < forbidden,
                age < forbidden.saturating_add(not_found),
            ])
        }
    }
}

/// What both have, at the lower level.
fn common(token: &Permissions, installation: &Permissions) -> Permissions {
    let lower = |(name, level): (&String, &String)| {
        let held = installation.get(name)?;
        let level = if rank(held) < rank(level) { held } else { level };
        Some((name.clone(), level.clone()))
    };
    token.iter().filter_map(lower).collect()
}

impl Access {
    /// Whether the repository is among the token's and the installation still covers it.
    pub(super) fn reaches(&self, state: &State, repository: &Repository) -> bool {
        let installation = state.installations.get(&self.installation);
        installation.is_some_and(|installation| installation.covers(repository))
            && self.repositories.as_ref().is_none_or(|listed| listed.contains(&repository.id))
    }
}

/// Whether the caller gets to know that the repository exists.
pub(super) fn sees(state: &State, caller: &Caller, repository: &Repository) -> bool {
    match caller {
        _ if !repository.private => true,
        Caller::Anonymous => false,
        Caller::App(app) => state
            .installation_of(*app, repository.owner)
            .is_some_and(|installation| installation.covers(repository)),
        Caller::Token(access) => !access.lagging && access.reaches(state, repository),
    }
}

/// Demands all of `needed` on the repository; `read` of what is public is open to all.
pub(super) fn demand(
    state: &State,
    caller: &Caller,
    repository: &Repository,
    needed: &[(&str, &str)],
) -> Result<(), Reply> {
    if !repository.private && needed.iter().all(|(_, level)| *level == "read") {
        return Ok(());
    }
    let granted = match caller {
        Caller::Token(access) => {
            access.reaches(state, repository)
                && needed.iter().all(|(name, level)| allows(&access.permissions, name, level))
        }
        Caller::Anonymous | Caller::App(_) => false,
    };
    if granted {
        return Ok(());
    }
    let accepted: Vec<String> =
        needed.iter().map(|(name, level)| format!("{name}={level}")).collect();
    Err(Reply::error(403, "Resource not accessible by integration", DOCS)
        .with("x-accepted-github-permissions", accepted.join(",")))
}
