//! Which installation of the App serves an owner.
//!
//! Asked by owner, never by walking the list of all installations: `/users/{owner}` answers for
//! organizations too, `/orgs/{owner}` is tried where it does not.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use super::{
    App, Inner,
    client::{Call, Kind},
    error::{Error, Failure},
    limits::Lane,
};
use crate::{
    cache::{Bounds, Cache, Stamped, Standing, heap_bytes},
    clock::{Clock, Moment},
    name::{AppId, InstallationId, Owner},
};

/// How long a found installation is used. A mint through one that is gone says so at once.
const PRESENT: Duration = Duration::from_secs(3600);
/// How long a missing or suspended one is remembered.
const ABSENT: Duration = Duration::from_secs(30);
/// Memory of the cached owners: about 14,000 that are served, and 900 that unverified callers name.
const BOUNDS: Bounds = Bounds { verified: 16 << 20, unverified: 1 << 20 };

/// An installation whose account and App are those that were asked for.
#[derive(Debug, Clone)]
pub struct Installation {
    id: InstallationId,
    app: AppId,
    slug: Arc<str>,
    owner: Owner,
}

impl Installation {
    /// The installation's id.
    pub fn id(&self) -> InstallationId {
        self.id
    }

    /// The App's id.
    pub fn app_id(&self) -> AppId {
        self.app
    }

    /// The App's name in addresses, and with `[bot]` the name under which it acts.
    pub fn app_slug(&self) -> &str {
        &self.slug
    }

    /// The account, as GitHub spells it.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

/// What is known of an owner.
#[derive(Debug, Clone)]
pub(super) enum Known {
    Installed(Installation),
    Suspended,
    Absent,
}

pub(super) type Installations = Cache<Owner, Known, Error>;

pub(super) fn cache(clock: Arc<dyn Clock>) -> Installations {
    Cache::new(clock, BOUNDS, weigh)
}

fn weigh(owner: &Owner, known: &Known) -> usize {
    let name = |owner: &Owner| 2 * heap_bytes(owner.as_str());
    let found = match known {
        Known::Installed(installation) => name(&installation.owner) + heap_bytes(&installation.slug),
        Known::Suspended | Known::Absent => 0,
    };
    name(owner) + found
}

/// As [`super::GitHub::installation`]. While GitHub limits us or does not answer, an installation
/// that was found earlier serves on: minting through it is its own proof.
pub(super) async fn find(inner: &Arc<Inner>, owner: &Owner, standing: Standing) -> Result<Installation, Error> {
    inner.app()?;
    let now = inner.gate.clock.monotonic();
    let (task, asked) = (Arc::clone(inner), owner.clone());
    let load = |held: Option<Stamped<Known>>| async move {
        let found = look_up(&task, &asked).await;
        match (found, held.map(|held| held.value)) {
            (Err(error), Some(held @ Known::Installed(_))) if error.is_transient() => Ok(held),
            (found, _) => found,
        }
    };
    let known = inner.installations.get_or_load(owner.clone(), standing, |held| is_fresh(held, now), load).await?;
    match known.value {
        Known::Installed(installation) => Ok(installation),
        Known::Suspended => Err(Error::Suspended),
        Known::Absent => Err(Error::NotInstalled),
    }
}

fn is_fresh(held: &Stamped<Known>, now: Moment) -> bool {
    let lives = match held.value {
        Known::Installed(_) => PRESENT,
        Known::Suspended | Known::Absent => ABSENT,
    };
    now.since(held.at) < lives
}

#[derive(Deserialize)]
struct InstallationReply {
    id: u64,
    app_id: u64,
    app_slug: String,
    account: Option<Account>,
    suspended_at: Option<String>,
}

#[derive(Deserialize)]
struct Account {
    login: Option<String>,
}

async fn look_up(inner: &Inner, owner: &Owner) -> Result<Known, Error> {
    let app = inner.app()?;
    for kind in ["users", "orgs"] {
        let path = format!("/{kind}/{owner}/installation");
        let call = Call::get(Kind::Installation, path, app.jwt.header().await?);
        match inner.call_as(app, Lane::App, &call).await {
            Ok(reply) => return judge(&reply.json::<InstallationReply>()?, app, owner),
            Err(Failure::Answered(answer)) if answer.refuses_app() => return Err(Error::Misconfigured(answer.cause())),
            // A redirect means that the account was renamed: nothing is installed under this name.
            Err(Failure::Answered(answer)) if answer.status == 404 || answer.moved() => {}
            Err(Failure::Answered(answer)) if answer.status == 401 => {
                app.jwt.forget();
                return Err(Error::Misconfigured(answer.cause()));
            }
            Err(failure) => {
                let error = Error::from(failure);
                return if error == Error::Suspended { Ok(Known::Suspended) } else { Err(error) };
            }
        }
    }
    Ok(Known::Absent)
}

fn judge(reply: &InstallationReply, app: &App, owner: &Owner) -> Result<Known, Error> {
    if reply.app_id != app.id.0 {
        return Err(Error::Misconfigured("GitHub answered with another App's installation".into()));
    }
    let login = reply.account.as_ref().and_then(|account| account.login.as_deref()).unwrap_or_default();
    let Some(login) = login.parse::<Owner>().ok().filter(|login| login == owner) else { return Ok(Known::Absent) };
    if reply.suspended_at.is_some() {
        return Ok(Known::Suspended);
    }
    Ok(Known::Installed(Installation {
        id: InstallationId(reply.id),
        app: app.id,
        slug: reply.app_slug.as_str().into(),
        owner: login,
    }))
}
