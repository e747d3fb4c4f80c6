//! What GitHub says of the App itself, for whoever looks for mistakes.
//!
//! Exchanges need none of this. A refusal is told apart further than they need to: whether the key,
//! the id or the clock is wrong.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Deserialize;

use super::{
    Inner,
    client::{Call, Kind, Reply},
    error::{Answer, Cause, Error, Failure, date},
    installation::Installation,
    limits::Lane,
};
use crate::{
    clock::UnixTime,
    policy::{Level, Permissions},
};

/// What came of a question, and GitHub's time where it answered.
#[derive(Debug, Clone)]
pub struct About<T> {
    /// The `Date` of the reply.
    pub date: Option<UnixTime>,
    /// The answer.
    pub answer: Result<T, Refused>,
}

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
    /// GitHub could not be asked, or said something else.
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
    /// What it asks for where it is installed.
    pub permissions: Permissions,
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
pub(super) async fn app(inner: &Inner) -> Result<About<AboutApp>, Error> {
    let told = match ask(inner, "/app".to_owned()).await? {
        Ok(reply) => About { date: date(&reply.headers), answer: read_app(&reply) },
        Err(Failure::Answered(answer)) => About { date: answer.date, answer: Err(refused(*answer)) },
        Err(failure) => About { date: None, answer: Err(Refused::Other(failure.into())) },
    };
    Ok(told)
}

/// As [`super::GitHub::installations`].
pub(super) async fn installations(inner: &Inner) -> Result<(Vec<AboutInstallation>, bool), Error> {
    let reply = ask(inner, "/app/installations?per_page=100".to_owned()).await??;
    let has_more = reply.headers.get("link").is_some_and(|link| link.as_bytes().windows(4).any(|part| part == b"next"));
    let found: Vec<InstallationReply> = reply.json()?;
    Ok((found.into_iter().map(AboutInstallation::from).collect(), has_more))
}

/// As [`super::GitHub::about_installation`].
pub(super) async fn installation(inner: &Inner, installation: &Installation) -> Result<AboutInstallation, Error> {
    match ask(inner, format!("/app/installations/{}", installation.id())).await? {
        Ok(reply) => Ok(reply.json::<InstallationReply>()?.into()),
        Err(Failure::Answered(answer)) if answer.status == StatusCode::NOT_FOUND => Err(Error::Stale),
        Err(failure) => Err(failure.into()),
    }
}

async fn ask(inner: &Inner, path: String) -> Result<Result<Reply, Failure>, Error> {
    let app = inner.app()?;
    let call = Call::get(Kind::App, path, app.jwt.header().await?);
    Ok(inner.call_as(app, Lane::App, &call).await)
}

fn read_app(reply: &Reply) -> Result<AboutApp, Refused> {
    let AppReply { id, slug, permissions } = reply.json().map_err(|failure| Refused::Other(failure.into()))?;
    Ok(AboutApp { id, slug: slug.unwrap_or_default(), permissions: known(permissions) })
}

fn refused(answer: Answer) -> Refused {
    let is_of_times = answer.says("claim ('exp')") || answer.says("claim ('iat')");
    match answer.status {
        StatusCode::UNAUTHORIZED if is_of_times => Refused::Clock(answer.cause()),
        StatusCode::UNAUTHORIZED => Refused::Key(answer.cause()),
        StatusCode::NOT_FOUND if answer.says("Integration not found") => Refused::Id(answer.cause()),
        _ => Refused::Other(Failure::Answered(Box::new(answer)).into()),
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
    permissions.into_iter().filter_map(|(name, level)| Some((name, Level::parse(&level)?))).collect()
}
