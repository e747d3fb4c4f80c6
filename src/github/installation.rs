//! Which installation of the App serves an owner.
//!
//! Asked by owner, never by walking the list of all installations: `/users/{owner}` answers for
//! organizations too, `/orgs/{owner}` is tried where it does not.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use super::{
    App, Inner,
    client::{Call, Endpoint},
    error::{Cause, Error},
    failure::one_line,
    limits::LimitKey,
    meaning::Meaning,
};
use crate::{
    cache::{Bounds, Cache, CallerTrust, Stamped, heap_bytes},
    clock::{Clock, Moment},
    name::{AccountId, AppId, InstallationId, Owner},
};

/// How long a found installation is used. A mint through one that is gone says so at once.
const PRESENT: Duration = Duration::from_secs(3600);
/// How long a missing or suspended one is cached.
const ABSENT: Duration = Duration::from_secs(5);
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

/// What is known of an owner.
#[derive(Debug, Clone)]
pub(super) enum Known {
    Installed(Installation),
    Suspended(Cause),
    Absent,
    /// Absent, and GitHub redirects from the name.
    Moved(Cause),
}

pub(super) type Installations = Cache<Owner, Known, Error>;

pub(super) fn cache(clock: Arc<dyn Clock>) -> Installations {
    Cache::new(clock, BOUNDS, weigh)
}

fn weigh(owner: &Owner, known: &Known) -> usize {
    let name = |owner: &Owner| 2 * heap_bytes(owner.as_str());
    let found = match known {
        Known::Installed(installation) => {
            name(&installation.owner) + heap_bytes(&installation.slug)
        }
        Known::Suspended(cause) | Known::Moved(cause) => heap_bytes(cause),
        Known::Absent => 0,
    };
    name(owner) + found
}

/// As [`super::GitHub::installation`]. While GitHub cannot be asked, an installation that was found
/// earlier stays in use: minting through it is its own proof. Any other failure ends it.
pub(super) async fn find(
    inner: &Arc<Inner>,
    owner: &Owner,
    trust: CallerTrust,
) -> Result<Installation, Error> {
    find_since(inner, owner, trust, Moment::default()).await
}

/// As [`super::GitHub::installation_since`].
pub(super) async fn find_since(
    inner: &Arc<Inner>,
    owner: &Owner,
    trust: CallerTrust,
    since: Moment,
) -> Result<Installation, Error> {
    let now = inner.gate.clock.monotonic();
    let is_fresh = |held: &Stamped<Known>| is_fresh(held, trust, (now, since));
    match find_if(inner, owner, trust, is_fresh).await? {
        installation if installation.is_as_of(since) => Ok(installation),
        _ => Err(Error::unavailable("the owner's installation could not be looked up again")),
    }
}

/// Whether [`find`] would call nobody.
pub(super) fn is_cached(inner: &Inner, owner: &Owner, trust: CallerTrust) -> bool {
    let times = (inner.gate.clock.monotonic(), Moment::default());
    inner.installations.get(owner).is_some_and(|held| is_fresh(&held, trust, times))
}

/// As [`super::GitHub::cached_account`].
pub(super) fn cached_account(inner: &Inner, owner: &Owner) -> Option<AccountId> {
    match inner.installations.get(owner)?.value {
        Known::Installed(installation) => Some(installation.account),
        Known::Suspended(_) | Known::Absent | Known::Moved(_) => None,
    }
}

/// Whether a found installation's lifetime is nearly over.
pub(super) fn is_refresh_due(inner: &Inner, owner: &Owner) -> bool {
    let now = inner.gate.clock.monotonic();
    inner
        .installations
        .get(owner)
        .is_some_and(|held| (REFRESH..PRESENT).contains(&now.since(held.at)))
}

/// Looks up a found installation again if its lifetime is nearly over.
pub(super) async fn refresh(inner: &Arc<Inner>, owner: &Owner) -> Result<(), Error> {
    let now = inner.gate.clock.monotonic();
    find_if(inner, owner, CallerTrust::Verified, |held| now.since(held.at) < REFRESH)
        .await
        .map(|_| ())
}

async fn find_if(
    inner: &Arc<Inner>,
    owner: &Owner,
    trust: CallerTrust,
    is_fresh: impl Fn(&Stamped<Known>) -> bool,
) -> Result<Installation, Error> {
    inner.app()?;
    let (task, key) = (Arc::clone(inner), owner.clone());
    let load = |held: Option<Stamped<Known>>| async move {
        let found = look_up(&task, &key).await;
        match (found, held.map(|held| held.value)) {
            (Err(error), Some(held @ Known::Installed(_))) if error.is_outage() => Ok(held),
            (Err(error), Some(_)) if !error.is_outage() => {
                task.installations.invalidate(&key);
                Err(error)
            }
            (found, _) => found,
        }
    };
    let known = inner.installations.get_or_load(owner.clone(), trust, is_fresh, load).await?;
    match known.value {
        Known::Installed(installation) => Ok(installation),
        Known::Suspended(cause) => Err(Error::Suspended(cause)),
        Known::Absent => Err(Error::NotInstalled),
        Known::Moved(cause) => Err(Error::AccountMoved(cause)),
    }
}

fn is_fresh(held: &Stamped<Known>, trust: CallerTrust, (now, since): (Moment, Moment)) -> bool {
    let lifetime = match (trust, &held.value) {
        (CallerTrust::Unverified, _) => UNVERIFIED,
        (CallerTrust::Verified, Known::Installed(_)) => PRESENT,
        (CallerTrust::Verified, Known::Suspended(_) | Known::Absent | Known::Moved(_)) => ABSENT,
    };
    let is_as_of = match &held.value {
        Known::Installed(installation) => installation.is_as_of(since),
        Known::Suspended(_) | Known::Absent | Known::Moved(_) => true,
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

async fn look_up(inner: &Inner, owner: &Owner) -> Result<Known, Error> {
    let app = inner.app()?;
    let looked_up_at = inner.gate.clock.monotonic();
    let mut absent = Known::Absent;
    for kind in ["users", "orgs"] {
        let path = format!("/{kind}/{owner}/installation");
        let call = Call::get(Endpoint::Installation, path, app.jwt.header().await?);
        match inner.call_as(app, LimitKey::App, &call).await {
            Ok(reply) => {
                return judge(&reply.json::<InstallationReply>()?, app, owner, looked_up_at);
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

fn judge(
    reply: &InstallationReply,
    app: &App,
    owner: &Owner,
    looked_up_at: Moment,
) -> Result<Known, Error> {
    if reply.app_id != app.id.0 {
        return Err(Error::Misconfigured("GitHub answered with another App's installation".into()));
    }
    let login =
        reply.account.as_ref().and_then(|account| account.login.as_deref()).unwrap_or_default();
    let Some(login) = login.parse::<Owner>().ok().filter(|login| login == owner) else {
        return Ok(Known::Absent);
    };
    if let Some(since) = &reply.suspended_at {
        return Ok(Known::Suspended(
            format!("the installation is suspended since {}", one_line(since)).into(),
        ));
    }
    // Some servers that speak GitHub's API leave the account's id out.
    let account = reply.account.as_ref().and_then(|account| account.id).unwrap_or(reply.id);
    Ok(Known::Installed(Installation {
        id: InstallationId(reply.id),
        account: AccountId(account),
        looked_up_at,
        app: app.id,
        slug: reply.app_slug.as_str().into(),
        owner: login,
    }))
}
