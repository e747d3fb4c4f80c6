//! The cached keys of one issuer: when they are used, when they are fetched, and how often at most.
//!
//! - Keys are fresh for their lifetime. In its last quarter the next call fetches them in the
//!   background.
//! - After that they are stale, and a call waits for a fetch. If it fails, the stale keys are used
//!   for another hour, then they are dropped. A failed fetch is repeated after 1, 2, 4 … 30 s.
//! - A token may name a new key. What may be fetched because of that is up to [`FetchLimit`]; the
//!   fetches above do not count.
//!
//! There is one fetch at a time. It runs in its own task, so a caller that disconnects fails
//! nobody.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, Shared};
use tokio::sync::Semaphore;

use super::{
    discovery::Remote,
    error::{Error, Fault},
    fetch_limit::FetchLimit,
    keys::KeySet,
};
use crate::{
    clock::{Clock, Moment},
    telemetry::{label, metric},
};

/// For how long after their lifetime keys are used while the issuer is down.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// The longest wait after failed fetches.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// What a retry has to wait for where keys are not fetched but supplied in a file: the file is read
/// again every ten seconds.
const FIXED_RETRY_AFTER: Duration = Duration::from_secs(10);

type InFlight = Shared<BoxFuture<'static, Result<Arc<KeySet>, Error>>>;

/// One issuer's keys.
#[derive(Clone)]
pub(super) enum Keys {
    /// Supplied by the operator; nothing is fetched.
    Fixed(Arc<KeySet>),
    /// As the issuer publishes them.
    Fetched(Arc<KeyCache>),
}

impl Keys {
    /// The cached keys, without any fetch, also if they are stale.
    pub(super) fn cached(&self) -> Option<Arc<KeySet>> {
        match self {
            Self::Fixed(keys) => Some(Arc::clone(keys)),
            Self::Fetched(cache) => cache.cached(),
        }
    }

    /// The keys by the rules above.
    pub(super) async fn current(&self) -> Result<Found, Error> {
        match self {
            Self::Fixed(keys) => Ok(Found { keys: Arc::clone(keys), source: Source::Cache }),
            Self::Fetched(cache) => cache.current().await,
        }
    }

    /// Newer keys than those `found`, because a token names one that is not among them.
    pub(super) async fn newer(&self, found: &Found) -> Result<Found, LimitReached> {
        match self {
            Self::Fixed(_) => Err(LimitReached { retry_after: FIXED_RETRY_AFTER }),
            Self::Fetched(cache) => cache.newer(found).await,
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fixed(_) => "Fixed",
            Self::Fetched(_) => "Fetched",
        })
    }
}

/// What a fetch of one issuer's keys needs.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub(super) remote: Remote,
    pub(super) clock: Arc<dyn Clock>,
    /// How long discovery and keys may take together.
    pub(super) timeout: Duration,
    /// Bounds the concurrent fetches for unknown issuers; known issuers never wait for another's.
    pub(super) permits: Option<Arc<Semaphore>>,
}

/// The cached keys of one issuer.
pub(super) struct KeyCache {
    fetcher: Fetcher,
    state: Mutex<State>,
    /// What the cached keys hold in memory.
    key_bytes: AtomicUsize,
}

#[derive(Default)]
struct State {
    cached: Option<Cached>,
    /// Failed fetches since the last successful one.
    failures: u32,
    /// After a failed fetch: no regular fetch is made until then, for this reason.
    backing_off: Option<(Moment, Fault)>,
    limit: FetchLimit,
    in_flight: Option<InFlight>,
}

struct Cached {
    keys: Arc<KeySet>,
    /// When the fetch began, so a key withdrawn while it ran is not trusted for longer.
    at: Moment,
    lifetime: Duration,
}

/// Keys, and where the call that got them found them.
pub(super) struct Found {
    pub(super) keys: Arc<KeySet>,
    source: Source,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// They were cached, or came by a fetch that another call had started.
    Cache,
    /// This call fetched them.
    Fetch,
    /// This call fetched them because of an unknown key id.
    FetchForUnknownKey,
}

/// No fetch because of an unknown key id is made before this time has passed.
#[derive(Debug)]
pub(super) struct LimitReached {
    pub(super) retry_after: Duration,
}

enum KeyState {
    Fresh(Arc<KeySet>),
    /// Fresh, and in the last quarter of their lifetime.
    RefreshDue(Arc<KeySet>),
    /// To be used only if a fetch fails.
    Stale(Arc<KeySet>),
    Missing,
    /// Missing, and for that long no fetch is made.
    BackingOff(Fault, Duration),
}

impl KeyCache {
    pub(super) fn new(fetcher: Fetcher) -> Self {
        Self { fetcher, state: Mutex::default(), key_bytes: AtomicUsize::new(0) }
    }

    /// The issuer that the discovery document at this one's address names.
    pub(super) async fn named_issuer(&self) -> Option<String> {
        self.fetcher.remote.named_issuer(self.fetcher.timeout).await
    }

    /// What it holds in memory, in bytes; an upper bound.
    pub(super) fn size(&self) -> usize {
        /// The entry itself, its names, and what the fetch needs.
        const ENTRY: usize = 2 << 10;
        ENTRY + self.key_bytes.load(Ordering::Relaxed)
    }

    fn cached(&self) -> Option<Arc<KeySet>> {
        match self.state().keys(self.fetcher.clock.monotonic()) {
            KeyState::Fresh(keys) | KeyState::RefreshDue(keys) | KeyState::Stale(keys) => {
                Some(keys)
            }
            KeyState::Missing | KeyState::BackingOff(..) => None,
        }
    }

    async fn current(self: &Arc<Self>) -> Result<Found, Error> {
        let cached = |keys| Found { keys, source: Source::Cache };
        let (in_flight, has_started, fallback) = {
            let mut state = self.state();
            match state.keys(self.fetcher.clock.monotonic()) {
                KeyState::Fresh(keys) => return Ok(cached(keys)),
                KeyState::RefreshDue(keys) => {
                    let _in_background = self.join(&mut state);
                    return Ok(cached(keys));
                }
                KeyState::BackingOff(cause, retry_after) => {
                    return Err(Error::Unavailable { cause, retry_after });
                }
                KeyState::Stale(keys) => {
                    let (in_flight, has_started) = self.join(&mut state);
                    (in_flight, has_started, Some(keys))
                }
                KeyState::Missing => {
                    let (in_flight, has_started) = self.join(&mut state);
                    (in_flight, has_started, None)
                }
            }
        };
        match (in_flight.await, fallback) {
            (Ok(keys), _) => {
                Ok(Found { keys, source: if has_started { Source::Fetch } else { Source::Cache } })
            }
            (Err(_), Some(keys)) => Ok(cached(keys)),
            (Err(error), None) => Err(error),
        }
    }

    async fn newer(self: &Arc<Self>, found: &Found) -> Result<Found, LimitReached> {
        let (in_flight, has_started) = {
            let (mut state, now) = (self.state(), self.fetcher.clock.monotonic());
            if found.source == Source::Fetch {
                // This call's own fetch counts: its keys are as new as can be.
                state.limit.try_acquire(now);
            }
            // A fetch in flight may predate the new key. If so, the caller comes back for one of
            // its own.
            if found.source != Source::Cache
                || !(state.is_in_flight() || state.limit.try_acquire(now))
            {
                return Err(LimitReached { retry_after: state.limit.wait(now) });
            }
            self.join(&mut state)
        };
        let source = if has_started { Source::FetchForUnknownKey } else { Source::Cache };
        match in_flight.await {
            Ok(keys) => Ok(Found { keys, source }),
            // The answer is the same as for callers that start no fetch.
            Err(_) => Err(LimitReached {
                retry_after: self.state().limit.wait(self.fetcher.clock.monotonic()),
            }),
        }
    }

    /// The fetch in flight, or a new one, and whether it is new.
    fn join(self: &Arc<Self>, state: &mut State) -> (InFlight, bool) {
        if let Some(in_flight) = state.in_flight.as_ref().filter(|_| state.is_in_flight()) {
            return (in_flight.clone(), false);
        }
        let task = tokio::spawn(Arc::clone(self).fetch());
        let interrupted = |_| {
            Err(Error::Unavailable {
                cause: Fault::Interrupted,
                retry_after: Duration::from_secs(1),
            })
        };
        let in_flight =
            task.map(move |outcome| outcome.unwrap_or_else(interrupted)).boxed().shared();
        state.in_flight = Some(in_flight.clone());
        (in_flight, true)
    }

    async fn fetch(self: Arc<Self>) -> Result<Arc<KeySet>, Error> {
        let Fetcher { remote, clock, timeout, permits } = &self.fetcher;
        let at = clock.monotonic();
        let fetch = async {
            let _permit = match permits {
                Some(permits) => Some(permits.acquire().await),
                None => None,
            };
            remote.fetch(*timeout).await
        };
        let outcome = tokio::time::timeout(*timeout, fetch).await.unwrap_or(Err(Fault::TooSlow));
        let ended = if outcome.is_ok() { "done" } else { "failed" };
        metrics::counter!(metric::ISSUER_FETCHES, label::OUTCOME => ended).increment(1);
        let mut state = self.state();
        state.in_flight = None;
        match outcome {
            Ok(published) => {
                let keys = Arc::new(published.keys);
                self.key_bytes.store(keys.size(), Ordering::Relaxed);
                state.cached =
                    Some(Cached { keys: Arc::clone(&keys), at, lifetime: published.lifetime });
                state.failures = 0;
                state.backing_off = None;
                Ok(keys)
            }
            Err(cause) => {
                let wait = Duration::from_secs(1 << state.failures.min(5)).min(MAX_BACKOFF);
                state.failures = state.failures.saturating_add(1);
                state.backing_off = Some((clock.monotonic().plus(wait), cause));
                tracing::warn!(issuer.url = %remote.issuer, error = %cause, failures = state.failures, "an issuer's keys cannot be fetched");
                Err(Error::Unavailable { cause, retry_after: wait })
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keys(&mut self, now: Moment) -> KeyState {
        let backing_off = self.backing_off.filter(|(until, _)| *until > now);
        let age = |cached: &Cached| now.since(cached.at);
        self.cached = self.cached.take().filter(|cached| age(cached) < cached.lifetime + GRACE);
        match (&self.cached, backing_off) {
            (None, Some((until, cause))) => KeyState::BackingOff(cause, until.since(now)),
            (None, None) => KeyState::Missing,
            (Some(cached), Some(_)) => KeyState::Fresh(Arc::clone(&cached.keys)),
            (Some(cached), None) if age(cached) >= cached.lifetime => {
                KeyState::Stale(Arc::clone(&cached.keys))
            }
            (Some(cached), None) if age(cached) >= cached.lifetime * 3 / 4 => {
                KeyState::RefreshDue(Arc::clone(&cached.keys))
            }
            (Some(cached), None) => KeyState::Fresh(Arc::clone(&cached.keys)),
        }
    }

    /// Whether a fetch is in flight. One that ended by a panic is still stored.
    fn is_in_flight(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.peek().is_none())
    }
}
