//! The Apps that serve an owner, and the order in which they are tried.
//!
//! A pool is a set of Apps that stand in for each other. [`Pools`] are what the operator configured:
//! one pool for each listed owner, and perhaps one for all others. [`PoolSet`] is the same in use.
//! An App that stays when the configuration is replaced keeps its credential.
//!
//! The order follows what is left of each App's quota for the owner, in three tiers. While that is
//! not known of every App that may be installed, the Apps take turns. An App that failed a moment
//! ago, or whose limit GitHub announced, is tried last.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    Inner,
    error::Error,
    installation::Known,
    jwt::AppJwt,
    limits::LimitKey,
    signer::{KmsKey, Signer},
};
use crate::{
    clock::Moment,
    cloud::Access,
    name::{AppId, AppName, InstallationId, Owner},
};

/// So long after a failure of its own an App is tried after the others.
const AVOIDED_FOR: Duration = Duration::from_secs(30);

/// An App, and who signs for it.
#[derive(Clone)]
pub struct AppSettings {
    /// The App's id.
    pub id: AppId,
    /// The name by which policies pin it, if the operator gave it one.
    pub name: Option<AppName>,
    /// Holds the App's private key, or knows who does.
    pub signer: SignerSource,
}

/// What signs for an App.
#[derive(Clone)]
pub enum SignerSource {
    /// This.
    Ready(Arc<dyn Signer>),
    /// A key management service, which is called with the credentials of the environment.
    Kms(KmsKey),
}

impl SignerSource {
    fn open(&self, access: &Access) -> Arc<dyn Signer> {
        match self {
            Self::Ready(signer) => Arc::clone(signer),
            Self::Kms(key) => key.signer(access),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ready(one), Self::Ready(other)) => Arc::ptr_eq(one, other),
            (Self::Kms(one), Self::Kms(other)) => one == other,
            (Self::Ready(_), Self::Kms(_)) | (Self::Kms(_), Self::Ready(_)) => false,
        }
    }
}

impl fmt::Debug for AppSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppSettings")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Which Apps serve which owner.
#[derive(Debug, Clone, Default)]
pub struct Pools {
    listed: HashMap<Owner, Vec<AppSettings>>,
    others: Vec<AppSettings>,
}

impl Pools {
    /// One pool for every owner. An id that is given twice counts once.
    pub fn for_every_owner(apps: Vec<AppSettings>) -> Self {
        Self { listed: HashMap::new(), others: distinct(apps) }
    }

    /// The same with a pool of its own for one owner, in place of the pool for all others.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner, apps: Vec<AppSettings>) -> Self {
        self.listed.insert(owner, distinct(apps));
        self
    }
}

impl Pools {
    /// Every App of every pool.
    pub fn apps_mut(&mut self) -> impl Iterator<Item = &mut AppSettings> {
        self.listed.values_mut().flatten().chain(&mut self.others)
    }
}

fn distinct(apps: Vec<AppSettings>) -> Vec<AppSettings> {
    let mut distinct: Vec<AppSettings> = Vec::with_capacity(apps.len());
    for app in apps {
        if distinct.iter().all(|other| other.id != app.id) {
            distinct.push(app);
        }
    }
    distinct
}

/// How the Apps of a pool share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// An App with at least so many calls left in the hour is comfortable.
    pub soft_floor: u64,
    /// An App with at least so many is tight; with fewer it is the last resort.
    pub hard_floor: u64,
    /// What is left of a quota is unknown so long after GitHub last reported it.
    pub stale: Duration,
}

impl Default for Routing {
    /// The Go service's figures.
    fn default() -> Self {
        Self { soft_floor: 5000, hard_floor: 1500, stale: Duration::from_secs(5 * 60) }
    }
}

/// How much is left of an App's quota for an owner. The order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    Comfortable,
    Tight,
    LastResort,
}

impl Tier {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Comfortable => "comfortable",
            Self::Tight => "tight",
            Self::LastResort => "last_resort",
        }
    }
}

impl Routing {
    pub(super) fn tier(self, remaining: u64) -> Tier {
        if remaining >= self.soft_floor {
            Tier::Comfortable
        } else if remaining >= self.hard_floor {
            Tier::Tight
        } else {
            Tier::LastResort
        }
    }
}

/// A configured App in use.
pub struct App {
    id: AppId,
    name: Option<AppName>,
    signer: SignerSource,
    pub(super) jwt: Arc<AppJwt>,
    /// Its name in addresses, once GitHub has said it.
    slug: Arc<OnceLock<Arc<str>>>,
    failed_at: Arc<Mutex<Option<Moment>>>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl App {
    /// The App's id.
    pub fn id(&self) -> AppId {
        self.id
    }

    /// The name that the operator gave it.
    pub fn name(&self) -> Option<&AppName> {
        self.name.as_ref()
    }

    /// The name by which policies pin it: the operator's, or else the slug, if that is known yet.
    pub(super) fn pin_name(&self) -> Option<&str> {
        match &self.name {
            Some(name) => Some(name.as_str()),
            None => self.slug.get().map(|slug| &**slug),
        }
    }

    pub(super) fn note_slug(&self, slug: &Arc<str>) {
        let _ = self.slug.set(Arc::clone(slug));
    }

    /// Notes whether the App's own credential was accepted.
    pub(super) fn note_outcome(&self, is_accepted: bool, now: Moment) {
        let mut failed_at = self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        *failed_at = (!is_accepted).then_some(now);
    }

    fn failed_recently(&self, now: Moment) -> bool {
        let failed_at = *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        failed_at.is_some_and(|at| now.since(at) < AVOIDED_FOR)
    }
}

/// Apps that stand in for each other.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) apps: Vec<Arc<App>>,
    turn: AtomicUsize,
}

/// All pools.
#[derive(Debug, Default)]
pub(super) struct PoolSet {
    listed: HashMap<Owner, Arc<Pool>>,
    others: Option<Arc<Pool>>,
    /// Every App once, by its id.
    apps: Vec<Arc<App>>,
}

impl PoolSet {
    /// Puts pools into use. An App of `before` with the same id and signer keeps its credential.
    pub(super) fn new(
        pools: Pools,
        before: &Self,
        sign_timeout: Duration,
        access: &Access,
    ) -> Self {
        let mut set = Self::default();
        let Pools { listed, others } = pools;
        let mut pool = |apps: Vec<AppSettings>| {
            let apps = apps.into_iter().map(|app| set.app(app, before, sign_timeout, access));
            Arc::new(Pool { apps: apps.collect(), turn: AtomicUsize::new(0) })
        };
        let others = (!others.is_empty()).then(|| pool(others));
        let listed = listed.into_iter().map(|(owner, apps)| (owner, pool(apps))).collect();
        set.apps.sort_by_key(|app| app.id.0);
        Self { listed, others, ..set }
    }

    fn app(
        &mut self,
        settings: AppSettings,
        before: &Self,
        sign_timeout: Duration,
        access: &Access,
    ) -> Arc<App> {
        if let Some(app) = self.apps.iter().find(|app| app.id == settings.id) {
            return Arc::clone(app);
        }
        let is_same =
            |app: &&Arc<App>| app.id == settings.id && app.signer.is_same(&settings.signer);
        let known = before.apps.iter().find(is_same);
        let AppSettings { id, name, signer } = settings;
        let app = match known {
            Some(app) => App {
                id,
                name,
                signer,
                jwt: Arc::clone(&app.jwt),
                slug: Arc::clone(&app.slug),
                failed_at: Arc::clone(&app.failed_at),
            },
            None => {
                let clock = Arc::clone(&access.network.clock);
                let jwt = AppJwt::new(id, signer.open(access), sign_timeout, clock);
                App {
                    id,
                    name,
                    signer,
                    jwt: Arc::new(jwt),
                    slug: Arc::default(),
                    failed_at: Arc::default(),
                }
            }
        };
        let app = Arc::new(app);
        self.apps.push(Arc::clone(&app));
        app
    }

    /// The Apps of the owner.
    pub(super) fn of(&self, owner: &Owner) -> Result<Arc<Pool>, Error> {
        self.listed.get(owner).or(self.others.as_ref()).cloned().ok_or(Error::NoApp)
    }

    /// Every App of every pool, by id.
    pub(super) fn apps(&self) -> &[Arc<App>] {
        &self.apps
    }
}

/// What is known of an App and an owner, without a call.
enum Prospect {
    /// It is not installed, as of a moment ago.
    NotInstalled,
    /// It is or may be installed, and how much is left is not known.
    Unknown,
    /// It is installed and has so many calls left.
    Left(u64),
}

/// Which calls are about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Mint,
}

impl Purpose {
    fn limit_key(self, installation: InstallationId) -> LimitKey {
        match self {
            Self::Read => LimitKey::Read(installation),
            Self::Mint => LimitKey::Mint(installation),
        }
    }
}

/// The pool's Apps in the order in which they are tried.
pub(super) fn order(inner: &Inner, pool: &Pool, owner: &Owner, purpose: Purpose) -> Vec<Arc<App>> {
    let mut apps = pool.apps.clone();
    if apps.len() < 2 {
        return apps;
    }
    let now = inner.gate.clock.monotonic();
    let times = (inner.gate.clock.now(), now);
    let prospects: HashMap<AppId, (Prospect, bool)> = apps
        .iter()
        .map(|app| {
            let known = inner.installations.get(&(app.id, owner.clone())).map(|held| held.value);
            let prospect = match &known {
                Some(Known::Installed(found)) => inner
                    .gate
                    .quotas
                    .remaining(found.id(), inner.routing.stale, times)
                    .map_or(Prospect::Unknown, Prospect::Left),
                Some(Known::Suspended(_) | Known::Absent { .. } | Known::Moved(_)) => {
                    Prospect::NotInstalled
                }
                None => Prospect::Unknown,
            };
            let is_limited = match &known {
                Some(Known::Installed(found)) => {
                    inner.gate.is_limited(purpose.limit_key(found.id()))
                }
                _ => false,
            };
            (app.id, (prospect, is_limited || app.failed_recently(now)))
        })
        .collect();
    let turns = prospects.values().any(|(prospect, _)| matches!(prospect, Prospect::Unknown));
    if turns {
        let count = apps.len();
        apps.rotate_left(pool.turn.fetch_add(1, Ordering::Relaxed) % count);
    }
    apps.sort_by_key(|app| match prospects.get(&app.id) {
        Some((Prospect::Left(left), avoided)) if !turns => {
            (*avoided, false, inner.routing.tier(*left), Reverse(*left))
        }
        Some((prospect, avoided)) => {
            let is_absent = matches!(prospect, Prospect::NotInstalled);
            (*avoided, is_absent, Tier::Comfortable, Reverse(0))
        }
        None => (true, true, Tier::LastResort, Reverse(0)),
    });
    apps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floors_belong_to_the_better_tier() {
        let routing = Routing::default();
        for (remaining, tier) in [
            (15_000, Tier::Comfortable),
            (5000, Tier::Comfortable),
            (4999, Tier::Tight),
            (1500, Tier::Tight),
            (1499, Tier::LastResort),
            (0, Tier::LastResort),
        ] {
            assert_eq!(routing.tier(remaining), tier, "{remaining}");
        }
    }
}
