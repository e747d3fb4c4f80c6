//! What GitHub says of an App itself, for operators who look for errors.
//!
//! Exchanges need none of this. A refusal says more than they need: whether the key, the id or the
//! clock is wrong.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    Inner,
    client::{ApiReply, Call, Endpoint},
    error::{Cause, Error},
    installation::Installation,
    limits::LimitKey,
    meaning::{AppFault, Meaning},
    pool::App,
};
use crate::policy::{Level, Permissions};

/// Why GitHub does not say who the App is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The signature is of none of the App's keys.
    #[error("GitHub does not take the signature: {0}")]
    Key(Cause),
    /// There is no App of that id.
    #[error("GitHub knows no App of that id: {0}")]
    Id(Cause),
    /// The times in the App's credential are not GitHub's.
    #[error("GitHub does not take the times: {0}")]
    Clock(Cause),
    /// GitHub could not be reached, or said something else.
    #[error(transparent)]
    Other(Error),
}

/// An App.
#[derive(Debug, Clone)]
pub struct AboutApp {
    /// The App's id.
    pub id: u64,
    /// The App's name in addresses.
    pub slug: String,
    /// What it requests where it is installed.
    pub permissions: Permissions,
    /// The events that GitHub sends to its webhook.
    pub events: Vec<String>,
}

/// An App's installation.
#[derive(Debug, Clone)]
pub struct AboutInstallation {
    /// The account's name.
    pub account: String,
    /// What the App may do there.
    pub permissions: Permissions,
    /// Whether it sees all repositories, not some.
    pub is_of_all: bool,
    /// Whether it is suspended.
    pub is_suspended: bool,
}

#[derive(Deserialize)]
struct AppReply {
    id: u64,
    slug: Option<String>,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    #[serde(default)]
    events: Vec<String>,
}

#[derive(Deserialize)]
struct InstallationReply {
    account: Option<Account>,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    repository_selection: Option<String>,
    suspended_at: Option<String>,
}

#[derive(Deserialize)]
struct Account {
    login: Option<String>,
}

/// As [`super::GitHub::about_app`].
pub(super) async fn app(inner: &Inner, app: &App) -> Result<AboutApp, Refused> {
    let reply =
        call(inner, app, "/app".to_owned()).await.map_err(Refused::Other)?.map_err(refused)?;
    let AppReply { id, slug, permissions, events } = reply.json().map_err(Refused::Other)?;
    Ok(AboutApp { id, slug: slug.unwrap_or_default(), permissions: known(permissions), events })
}

/// As [`super::GitHub::installations`].
pub(super) async fn installations(
    inner: &Inner,
    app: &App,
) -> Result<(Vec<AboutInstallation>, bool), Error> {
    let reply = call(inner, app, "/app/installations?per_page=100".to_owned()).await??;
    let has_more = reply
        .headers
        .get("link")
        .is_some_and(|link| link.as_bytes().windows(4).any(|part| part == b"next"));
    let found: Vec<InstallationReply> = reply.json()?;
    Ok((found.into_iter().map(AboutInstallation::from).collect(), has_more))
}

/// As [`super::GitHub::about_installation`].
pub(super) async fn installation(
    inner: &Inner,
    installation: &Installation,
) -> Result<AboutInstallation, Error> {
    match call(inner, installation.app(), format!("/app/installations/{}", installation.id()))
        .await?
    {
        Ok(reply) => Ok(reply.json::<InstallationReply>()?.into()),
        Err(Meaning::NotFound(cause)) => Err(Error::Stale(cause)),
        Err(meaning) => Err(meaning.into()),
    }
}

async fn call(inner: &Inner, app: &App, path: String) -> Result<Result<ApiReply, Meaning>, Error> {
    let call = Call::get(Endpoint::App, path, inner.app_header(app).await?);
    Ok(inner.call_as(app, LimitKey::App(app.id()), &call).await)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what has no special consequence here is decided in one place"
)]
fn refused(meaning: Meaning) -> Refused {
    match meaning {
        Meaning::AppRefused(AppFault::Key, cause) | Meaning::Unauthorized(cause) => {
            Refused::Key(cause)
        }
        Meaning::AppRefused(AppFault::Id, cause) => Refused::Id(cause),
        Meaning::AppRefused(AppFault::Clock, cause) => Refused::Clock(cause),
        other => Refused::Other(other.into()),
    }
}

impl From<InstallationReply> for AboutInstallation {
    fn from(reply: InstallationReply) -> Self {
        Self {
            account: reply.account.and_then(|account| account.login).unwrap_or_default(),
            permissions: known(reply.permissions),
            is_of_all: reply.repository_selection.as_deref() == Some("all"),
            is_suspended: reply.suspended_at.is_some(),
        }
    }
}

/// The permissions of which the level is one that we know.
fn known(permissions: BTreeMap<String, String>) -> Permissions {
    permissions
        .into_iter()
        .filter_map(|(name, level)| Some((name, Level::parse(&level)?)))
        .collect()
}
