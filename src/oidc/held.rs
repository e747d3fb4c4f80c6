//! The keys held of one issuer: when they serve, when they are fetched, and how often at most.
//!
//! - Keys serve for their lifetime; in its last quarter the next call fetches them in the background.
//! - After that a call waits for a fetch. If it fails, the old keys serve for another hour, then they
//!   are dropped. A failed fetch is repeated no sooner than after 1, 2, 4 … 30 s.
//! - A key id that is not among them may be a new key: one fetch a minute is made on such account,
//!   whatever the id and however the fetch ends. The fetches above do not count.
//!
//! There is one fetch at a time. It runs as a task of its own, so a caller that hangs up fails nobody.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, Shared};
use tokio::sync::Semaphore;

use super::{
    discovery::Remote,
    error::{Error, Fault},
    keys::KeySet,
};
use crate::{
    clock::{Clock, UnixTime},
    telemetry::{label, metric},
};

/// For how long after their lifetime keys serve while the issuer is down.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// How often at most keys are fetched on account of an unknown key id.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(60);

/// The longest wait after failed fetches.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

type Flight = Shared<BoxFuture<'static, Result<Arc<KeySet>, Error>>>;

/// One issuer's keys.
#[derive(Clone)]
pub(super) enum Keys {
    /// As the operator has written them down: there are no others to ask for.
    Fixed(Arc<KeySet>),
    /// As the issuer publishes them.
    Fetched(Arc<Held>),
}

impl Keys {
    /// The keys that serve at this moment without any fetch.
    pub(super) fn at_hand(&self) -> Option<Arc<KeySet>> {
        match self {
            Self::Fixed(keys) => Some(Arc::clone(keys)),
            Self::Fetched(held) => held.at_hand(),
        }
    }

    /// The keys by the rules above.
    pub(super) async fn current(&self) -> Result<Found, Error> {
        match self {
            Self::Fixed(keys) => Ok(Found { keys: Arc::clone(keys), just_fetched: true }),
            Self::Fetched(held) => held.current().await,
        }
    }

    /// The keys, fetched anew because a token names one that is not among them; `Err(Spent)` inside
    /// if that was done within the minute.
    pub(super) async fn for_unknown_key(&self) -> Result<Result<Found, Spent>, Error> {
        match self {
            Self::Fixed(keys) => Ok(Ok(Found { keys: Arc::clone(keys), just_fetched: true })),
            Self::Fetched(held) => held.for_unknown_key().await,
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
pub(super) struct Source {
    pub(super) remote: Remote,
    pub(super) clock: Arc<dyn Clock>,
    /// How long discovery and keys may take together.
    pub(super) fetch_timeout: Duration,
    /// Bounds the fetches for strangers' issuers; known ones never wait for another's.
    pub(super) places: Option<Arc<Semaphore>>,
}

/// The keys of one issuer, as far as they are held.
pub(super) struct Held {
    source: Source,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Option<Kept>,
    /// Failed fetches since the last good one.
    failures: u32,
    /// After a failed fetch: before this moment no regular fetch is made, for this reason.
    barred: Option<(UnixTime, Fault)>,
    /// When keys were last fetched on account of an unknown key id.
    unknown_key_at: Option<UnixTime>,
    flight: Option<Flight>,
}

struct Kept {
    keys: Arc<KeySet>,
    /// When the fetch began, so a key withdrawn while it ran is not trusted for longer.
    at: UnixTime,
    lifetime: Duration,
}

/// Keys, and whether the asking call itself had them fetched: then they are as new as can be.
pub(super) struct Found {
    pub(super) keys: Arc<KeySet>,
    pub(super) just_fetched: bool,
}

/// What the state says about the keys held.
enum Standing {
    /// They serve.
    Serve(Arc<KeySet>),
    /// They serve, and it is time to fetch them anew.
    Renew(Arc<KeySet>),
    /// Their lifetime is over; they serve if a fetch fails.
    Overdue(Arc<KeySet>),
    /// There are none, and a fetch may be made.
    Absent,
    /// There are none, and for that long none are fetched.
    Barred(Fault, Duration),
}

impl Held {
    pub(super) fn new(source: Source) -> Self {
        Self { source, state: Mutex::default() }
    }

    /// Which issuer the document at this one's address is of.
    pub(super) async fn named(&self) -> Option<String> {
        self.source.remote.named(self.source.fetch_timeout).await
    }

    fn at_hand(&self) -> Option<Arc<KeySet>> {
        match self.state().standing(self.source.clock.now()) {
            Standing::Serve(keys) | Standing::Renew(keys) => Some(keys),
            Standing::Overdue(_) | Standing::Absent | Standing::Barred(..) => None,
        }
    }

    async fn current(self: &Arc<Self>) -> Result<Found, Error> {
        let (flight, started, fallback) = {
            let mut state = self.state();
            match state.standing(self.source.clock.now()) {
                Standing::Serve(keys) => return Ok(Found { keys, just_fetched: false }),
                Standing::Renew(keys) => {
                    let _in_background = self.join(&mut state);
                    return Ok(Found { keys, just_fetched: false });
                }
                Standing::Barred(cause, retry_after) => return Err(Error::Unavailable { cause, retry_after }),
                Standing::Overdue(keys) => {
                    let (flight, started) = self.join(&mut state);
                    (flight, started, Some(keys))
                }
                Standing::Absent => {
                    let (flight, started) = self.join(&mut state);
                    (flight, started, None)
                }
            }
        };
        match (flight.await, fallback) {
            (Ok(keys), _) => Ok(Found { keys, just_fetched: started }),
            (Err(_), Some(keys)) => Ok(Found { keys, just_fetched: false }),
            (Err(error), None) => Err(error),
        }
    }

    async fn for_unknown_key(self: &Arc<Self>) -> Result<Result<Found, Spent>, Error> {
        let (flight, started) = {
            let mut state = self.state();
            let now = self.source.clock.now();
            match state.unknown_key_at.map(|at| UNKNOWN_KEY_INTERVAL.saturating_sub(now.since(at))) {
                // One that is under way will do, whatever it was begun for.
                _ if state.flying() => {}
                Some(wait) if !wait.is_zero() => return Ok(Err(Spent { wait })),
                _ => state.unknown_key_at = Some(now),
            }
            self.join(&mut state)
        };
        flight.await.map(|keys| Ok(Found { keys, just_fetched: started }))
    }

    /// The fetch that is under way, or a new one, and whether it is new.
    fn join(self: &Arc<Self>, state: &mut State) -> (Flight, bool) {
        if let Some(flight) = state.flight.as_ref().filter(|_| state.flying()) {
            return (flight.clone(), false);
        }
        let task = tokio::spawn(Arc::clone(self).fetch());
        let interrupted =
            |_| Err(Error::Unavailable { cause: Fault::Interrupted, retry_after: Duration::from_secs(1) });
        let flight = task.map(move |outcome| outcome.unwrap_or_else(interrupted)).boxed().shared();
        state.flight = Some(flight.clone());
        (flight, true)
    }

    async fn fetch(self: Arc<Self>) -> Result<Arc<KeySet>, Error> {
        let Source { remote, clock, fetch_timeout, places } = &self.source;
        let at = clock.now();
        let fetch = async {
            let _place = match places {
                Some(places) => Some(places.acquire().await),
                None => None,
            };
            remote.fetch(*fetch_timeout).await
        };
        let outcome = tokio::time::timeout(*fetch_timeout, fetch).await.unwrap_or(Err(Fault::TooSlow));
        let ended = if outcome.is_ok() { "done" } else { "failed" };
        metrics::counter!(metric::ISSUER_FETCHES, label::OUTCOME => ended).increment(1);
        let mut state = self.state();
        state.flight = None;
        match outcome {
            Ok(published) => {
                let keys = Arc::new(published.keys);
                state.kept = Some(Kept { keys: Arc::clone(&keys), at, lifetime: published.lifetime });
                state.failures = 0;
                state.barred = None;
                Ok(keys)
            }
            Err(cause) => {
                let wait = Duration::from_secs(1 << state.failures.min(5)).min(LONGEST_BACKOFF);
                state.failures = state.failures.saturating_add(1);
                state.barred = Some((clock.now().plus(wait), cause));
                tracing::warn!(issuer.url = %remote.issuer, error = %cause, failures = state.failures, "an issuer's keys cannot be fetched");
                Err(Error::Unavailable { cause, retry_after: wait })
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fetch on account of an unknown key id was made; the next may be made after `wait`.
pub(super) struct Spent {
    pub(super) wait: Duration,
}

impl State {
    fn standing(&mut self, now: UnixTime) -> Standing {
        let barred = self.barred.filter(|(until, _)| *until > now);
        let age = |kept: &Kept| now.since(kept.at);
        self.kept = self.kept.take().filter(|kept| age(kept) < kept.lifetime + GRACE);
        match (&self.kept, barred) {
            (None, Some((until, cause))) => Standing::Barred(cause, until.since(now)),
            (None, None) => Standing::Absent,
            (Some(kept), Some(_)) => Standing::Serve(Arc::clone(&kept.keys)),
            (Some(kept), None) if age(kept) >= kept.lifetime => Standing::Overdue(Arc::clone(&kept.keys)),
            (Some(kept), None) if age(kept) >= kept.lifetime * 3 / 4 => Standing::Renew(Arc::clone(&kept.keys)),
            (Some(kept), None) => Standing::Serve(Arc::clone(&kept.keys)),
        }
    }

    /// Whether a fetch is under way. One that ended by a panic has not taken itself away.
    fn flying(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.peek().is_none())
    }
}
