//! Which installation of an App serves an owner.
//!
//! It is looked up by owner, never by walking the list of all installations: `/users/{owner}`
//! answers for organizations too, `/orgs/{owner}` is tried where it does not.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use super::{
    Inner,
    client::{Call, Endpoint},
    error::{Cause, Error},
    failure::one_line,
    limits::LimitKey,
    meaning::Meaning,
    pool::App,
};
use crate::{
    cache::{Bounds, Cache, CallerTrust, Stamped, heap_bytes},
    clock::{Clock, Moment},
    name::{AccountId, AppId, InstallationId, Owner},
};

/// How long a found installation is used. If the installation was removed, minting fails immediately.
const PRESENT: Duration = Duration::from_secs(3600);
/// How long a missing or suspended one is cached.
const ABSENT: Duration = Duration::from_secs(5);
/// How long it is cached that the App which a policy pins is missing.
const PINNED_ABSENT: Duration = Duration::from_secs(60);
/// How long either is used for unverified callers, so that the time of an answer does not tell them
/// apart.
const UNVERIFIED: Duration = Duration::from_secs(10);
/// From this age on, the next grant refreshes a found installation in the background.
const REFRESH: Duration = Duration::from_secs(PRESENT.as_secs() / 4 * 3);
/// Memory of the cached owners: about 14,000 that are served, and 900 that unverified callers name.
const BOUNDS: Bounds = Bounds { verified: 16 << 20, unverified: 1 << 20 };

/// So much earlier than what it is compared with a lookup may have been: see
/// [`super::GitHub::installation_since`].
const LOOKUP_LEEWAY: Duration = Duration::from_secs(2);

/// An installation whose account and App are the requested ones.
#[derive(Debug, Clone)]
pub struct Installation {
    id: InstallationId,
    account: AccountId,
    looked_up_at: Moment,
    app: Arc<App>,
    owner: Owner,
}

impl Installation {
    /// The installation's id.
    pub fn id(&self) -> InstallationId {
        self.id
    }

    /// The App's id.
    pub fn app_id(&self) -> AppId {
        self.app.id()
    }

    /// The App.
    pub(super) fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The account, which keeps its id when it is renamed.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The account's name, as GitHub spells it.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Whether the account had the name at this moment, or shortly before it.
    fn is_as_of(&self, moment: Moment) -> bool {
        self.looked_up_at.plus(LOOKUP_LEEWAY) >= moment
    }
}

/// What is known of an App and an owner.
#[derive(Debug, Clone)]
pub(super) enum Known {
    Installed(Installation),
    Suspended(Cause),
    /// Not installed; and whether that was looked up for a policy that pins the App.
    Absent {
        pinned: bool,
    },
    /// Absent, and GitHub redirects from the name.
    Moved(Cause),
}

pub(super) type Installations = Cache<(AppId, Owner), Known, Error>;

/// What a lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    Usual,
    /// A policy pins the App: a cached absence counts only if it was looked up for that.
    Pinned,
}

pub(super) fn cache(clock: Arc<dyn Clock>) -> Installations {
    Cache::new(clock, BOUNDS, weigh)
}

fn weigh((_, owner): &(AppId, Owner), known: &Known) -> usize {
    let name = |owner: &Owner| 2 * heap_bytes(owner.as_str());
    let found = match known {
        Known::Installed(installation) => name(&installation.owner),
        Known::Suspended(cause) | Known::Moved(cause) => heap_bytes(cause),
        Known::Absent { .. } => 0,
    };
    name(owner) + found
}

/// The App's installation for the owner, cached as in [`super::GitHub::account`]. While GitHub
/// cannot be reached, an installation that was found earlier stays in use: minting through it is its
/// own proof. Any other failure ends it.
pub(super) async fn find(
    inner: &Arc<Inner>,
    app: &Arc<App>,
    owner: &Owner,
    trust: CallerTrust,
) -> Result<Installation, Error> {
    let now = inner.gate.clock.monotonic();
    let fresh = |held: &Stamped<Known>| is_fresh(held, trust, (now, Moment::default()));
    find_if(inner, app, owner, (trust, Lookup::Usual), fresh).await
}

/// The same for a mint, whose caller is verified.
pub(super) async fn find_as(
    inner: &Arc<Inner>,
    app: &Arc<App>,
    owner: &Owner,
    lookup: Lookup,
) -> Result<Installation, Error> {
    let now = inner.gate.clock.monotonic();
    let trust = CallerTrust::Verified;
    let fresh = |held: &Stamped<Known>| match (lookup, &held.value) {
        (Lookup::Pinned, Known::Absent { pinned }) => *pinned && now.since(held.at) < PINNED_ABSENT,
        _ => is_fresh(held, trust, (now, Moment::default())),
    };
    find_if(inner, app, owner, (trust, lookup), fresh).await
}

/// As [`super::GitHub::installation_since`].
pub(super) async fn find_since(
    inner: &Arc<Inner>,
    before: &Installation,
    owner: &Owner,
    since: Moment,
) -> Result<Installation, Error> {
    let now = inner.gate.clock.monotonic();
    let trust = CallerTrust::Verified;
    let fresh = |held: &Stamped<Known>| is_fresh(held, trust, (now, since));
    match find_if(inner, &before.app, owner, (trust, Lookup::Usual), fresh).await? {
        installation if installation.is_as_of(since) => Ok(installation),
        _ => Err(Error::unavailable("the owner's installation could not be looked up again")),
    }
}

/// The cached installation of the App, however old.
pub(super) fn cached(inner: &Inner, app: &App, owner: &Owner) -> Option<Installation> {
    match inner.installations.get(&(app.id(), owner.clone()))?.value {
        Known::Installed(installation) => Some(installation),
        Known::Suspended(_) | Known::Absent { .. } | Known::Moved(_) => None,
    }
}

/// The cached installation that was looked up last, of all Apps of the owner's pool; with `trust`,
/// only if [`find`] would still use it.
pub(super) fn latest(
    inner: &Inner,
    owner: &Owner,
    trust: Option<CallerTrust>,
) -> Option<Installation> {
    let times = (inner.gate.clock.monotonic(), Moment::default());
    let pool = inner.pool(owner).ok()?;
    let installed = pool.apps.iter().filter_map(|app| {
        let held = inner.installations.get(&(app.id(), owner.clone()))?;
        if !trust.is_none_or(|trust| is_fresh(&held, trust, times)) {
            return None;
        }
        match held.value {
            Known::Installed(found) => Some(found),
            Known::Suspended(_) | Known::Absent { .. } | Known::Moved(_) => None,
        }
    });
    installed.max_by_key(|found| found.looked_up_at)
}

/// Whether the owner's account, or its absence, is known without a call.
pub(super) fn is_cached(inner: &Inner, owner: &Owner, trust: CallerTrust) -> bool {
    let times = (inner.gate.clock.monotonic(), Moment::default());
    let Ok(pool) = inner.pool(owner) else { return false };
    let is_known = |app: &Arc<App>| {
        let held = inner.installations.get(&(app.id(), owner.clone()));
        held.is_some_and(|held| is_fresh(&held, trust, times))
    };
    latest(inner, owner, Some(trust)).is_some() || pool.apps.iter().all(is_known)
}

/// The Apps whose installation for the owner is used and nearly at the end of its lifetime.
pub(super) fn refresh_due(inner: &Inner, owner: &Owner) -> Vec<Arc<App>> {
    let now = inner.gate.clock.monotonic();
    let Ok(pool) = inner.pool(owner) else { return Vec::new() };
    let is_due = |app: &&Arc<App>| {
        let held = inner.installations.get(&(app.id(), owner.clone()));
        held.is_some_and(|held| (REFRESH..PRESENT).contains(&now.since(held.at)))
    };
    pool.apps.iter().filter(is_due).cloned().collect()
}

/// Looks up the App's installation again if its lifetime is nearly over.
pub(super) async fn refresh(
    inner: &Arc<Inner>,
    app: &Arc<App>,
    owner: &Owner,
) -> Result<(), Error> {
    let now = inner.gate.clock.monotonic();
    let fresh = |held: &Stamped<Known>| now.since(held.at) < REFRESH;
    find_if(inner, app, owner, (CallerTrust::Verified, Lookup::Usual), fresh).await.map(|_| ())
}

async fn find_if(
    inner: &Arc<Inner>,
    app: &Arc<App>,
    owner: &Owner,
    (trust, lookup): (CallerTrust, Lookup),
    is_fresh: impl Fn(&Stamped<Known>) -> bool,
) -> Result<Installation, Error> {
    let key = (app.id(), owner.clone());
    let task = (Arc::clone(inner), Arc::clone(app), key.clone());
    let load = |held: Option<Stamped<Known>>| async move {
        let (inner, app, key) = task;
        let found = look_up(&inner, &app, &key.1, lookup).await;
        match (found, held.map(|held| held.value)) {
            (Err(error), Some(held @ Known::Installed(_))) if error.is_outage() => Ok(held),
            (Err(error), Some(_)) if !error.is_outage() => {
                inner.installations.invalidate(&key);
                Err(error)
            }
            (found, _) => found,
        }
    };
    let known = inner.installations.get_or_load(key, trust, is_fresh, load).await?;
    match known.value {
        Known::Installed(installation) => Ok(installation),
        Known::Suspended(cause) => Err(Error::Suspended(cause)),
        Known::Absent { .. } => Err(Error::NotInstalled),
        Known::Moved(cause) => Err(Error::AccountMoved(cause)),
    }
}

fn is_fresh(held: &Stamped<Known>, trust: CallerTrust, (now, since): (Moment, Moment)) -> bool {
    let lifetime = match (trust, &held.value) {
        (CallerTrust::Unverified, _) => UNVERIFIED,
        (CallerTrust::Verified, Known::Installed(_)) => PRESENT,
        (CallerTrust::Verified, Known::Suspended(_) | Known::Absent { .. } | Known::Moved(_)) => {
            ABSENT
        }
    };
    let is_as_of = match &held.value {
        Known::Installed(installation) => installation.is_as_of(since),
        Known::Suspended(_) | Known::Absent { .. } | Known::Moved(_) => true,
    };
    now.since(held.at) < lifetime && is_as_of
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
    id: Option<u64>,
    login: Option<String>,
}

async fn look_up(
    inner: &Inner,
    app: &Arc<App>,
    owner: &Owner,
    lookup: Lookup,
) -> Result<Known, Error> {
    let looked_up_at = inner.gate.clock.monotonic();
    let mut absent = Known::Absent { pinned: lookup == Lookup::Pinned };
    for kind in ["users", "orgs"] {
        let path = format!("/{kind}/{owner}/installation");
        let call = Call::get(Endpoint::Installation, path, inner.app_header(app).await?);
        match inner.call_as(app, LimitKey::App(app.id()), &call).await {
            Ok(reply) => {
                let reply = reply.json::<InstallationReply>()?;
                return judge(inner, &reply, app, owner, looked_up_at)
                    .map(|found| found.unwrap_or(absent));
            }
            Err(Meaning::NotFound(_)) => {}
            // The account was renamed: nothing is installed under this name.
            Err(Meaning::Moved(cause)) => absent = Known::Moved(cause),
            Err(Meaning::Suspended(cause)) => return Ok(Known::Suspended(cause)),
            Err(meaning) => return Err(meaning.into()),
        }
    }
    Ok(absent)
}

/// What the reply says of the owner; `None` if it is about another account.
fn judge(
    inner: &Inner,
    reply: &InstallationReply,
    app: &Arc<App>,
    owner: &Owner,
    looked_up_at: Moment,
) -> Result<Option<Known>, Error> {
    if reply.app_id != app.id().0 {
        return Err(Error::Misconfigured("GitHub answered with another App's installation".into()));
    }
    app.note_slug(&reply.app_slug.as_str().into());
    let login =
        reply.account.as_ref().and_then(|account| account.login.as_deref()).unwrap_or_default();
    let Some(login) = login.parse::<Owner>().ok().filter(|login| login == owner) else {
        return Ok(None);
    };
    if let Some(since) = &reply.suspended_at {
        let cause = format!("the installation is suspended since {}", one_line(since));
        return Ok(Some(Known::Suspended(cause.into())));
    }
    // Some servers that speak GitHub's API leave the account's id out.
    let account = reply.account.as_ref().and_then(|account| account.id).unwrap_or(reply.id);
    let id = InstallationId(reply.id);
    inner.gate.quotas.note_installation(id, app.id(), &login);
    Ok(Some(Known::Installed(Installation {
        id,
        account: AccountId(account),
        looked_up_at,
        app: Arc::clone(app),
        owner: login,
    })))
}
