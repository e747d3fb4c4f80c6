//! A bounded cache with single flight, for lookups anywhere in the crate.
//!
//! The cache bounds its memory and coalesces lookups. It never decides whether a value is fresh:
//! each value carries the moment at which it was stored, by our clock, and the caller decides. A
//! value that is no longer fresh stays until it is replaced, as the stale copy for callers that may
//! use one.
//!
//! Entries that unverified callers cause are stored in a separate, small part, so that names which
//! such callers invent never evict entries that verified callers use. Each lookup runs in its own
//! task: a caller that disconnects does not fail the others that wait for it.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::{BoxFuture, FutureExt, Shared};

use crate::clock::{Clock, Moment};

/// What one allocation takes beyond its own bytes, at most: its header, rounding, and the counts of
/// a shared one.
pub const ALLOCATION_OVERHEAD: usize = 40;
/// What the map itself takes for one entry, at most.
const ENTRY_OVERHEAD: usize = 640;

/// The memory behind an owned string, at most. It may have grown to twice its length.
pub fn heap_bytes(text: &str) -> usize {
    2 * text.len() + ALLOCATION_OVERHEAD
}

/// On whose behalf a lookup is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerTrust {
    /// The caller's token is verified.
    Verified,
    /// The caller could be anyone.
    Unverified,
}

/// A value and the moment at which it was stored.
#[derive(Debug, Clone)]
pub struct Stamped<V> {
    /// The value.
    pub value: V,
    /// When it was stored, by the monotonic clock.
    pub at: Moment,
}

/// How much memory the entries of a cache may take, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For what verified callers look up.
    pub verified: u64,
    /// For what unverified callers look up.
    pub unverified: u64,
}

/// A lookup in flight; all callers that wait for it share its outcome.
type Lookup<V, E> = Shared<BoxFuture<'static, Result<Stamped<V>, E>>>;
/// The lookups under way, each with its number.
type InFlight<K, V, E> = HashMap<K, (u64, Lookup<V, E>)>;

/// A bounded map from `K` to `V`; a failed lookup ends as an `E` that all waiters share.
pub struct Cache<K, V, E> {
    inner: Arc<Inner<K, V, E>>,
}

/// Where a stored value lives. It is emptied when the entry goes: the map below frees its value
/// only when no thread looks at it any more, and a token must be revoked before that.
type Slot<V> = Arc<Mutex<Option<Stamped<V>>>>;

fn look<V: Clone>(slot: &Slot<V>) -> Option<Stamped<V>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

struct Inner<K, V, E> {
    verified: moka::sync::Cache<K, Slot<V>>,
    unverified: moka::sync::Cache<K, Slot<V>>,
    in_flight: Mutex<InFlight<K, V, E>>,
    next_number: std::sync::atomic::AtomicU64,
    clock: Arc<dyn Clock>,
}

impl<K, V, E> Clone for Cache<K, V, E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K, V, E> std::fmt::Debug for Cache<K, V, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl<K, V, E> Cache<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// An empty cache. `weigh` returns an upper bound of the memory behind a key and its value, in
    /// bytes; that of the entry itself is added here.
    pub fn new(clock: Arc<dyn Clock>, bounds: Bounds, weigh: fn(&K, &V) -> usize) -> Self {
        let weigh_entry = move |key: &K, slot: &Slot<V>| {
            let behind = look(slot).map_or(0, |stamped| weigh(key, &stamped.value));
            u32::try_from(behind + size_of::<K>() + size_of::<Stamped<V>>() + ENTRY_OVERHEAD)
                .unwrap_or(u32::MAX)
        };
        let part = |bound| {
            moka::sync::Cache::builder()
                .max_capacity(bound)
                .weigher(weigh_entry)
                .eviction_listener(|_, slot: Slot<V>, _| {
                    let gone = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                    drop(gone);
                })
                .build()
        };
        let inner = Inner {
            verified: part(bounds.verified),
            unverified: part(bounds.unverified),
            in_flight: Mutex::default(),
            next_number: 0.into(),
            clock,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The entry for `key`, regardless of its age.
    pub fn get(&self, key: &K) -> Option<Stamped<V>> {
        let entry =
            |part: &moka::sync::Cache<K, Slot<V>>| part.get(key).and_then(|slot| look(&slot));
        entry(&self.inner.verified).or_else(|| entry(&self.inner.unverified))
    }

    /// The value for `key`: the entry if `fresh` accepts it, else what `load` finds. Concurrent
    /// lookups of one key become one. `load` gets the entry that is no longer fresh.
    ///
    /// # Errors
    /// What `load` failed with; a failure is not stored, and the stale copy stays.
    pub async fn get_or_load<F>(
        &self,
        key: K,
        trust: CallerTrust,
        fresh: impl Fn(&Stamped<V>) -> bool,
        load: impl FnOnce(Option<Stamped<V>>) -> F,
    ) -> Result<Stamped<V>, E>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let held = self.get(&key);
        let found = match held {
            Some(held) if fresh(&held) => held,
            held => self.join(&key, trust, || load(held)).await?,
        };
        if trust == CallerTrust::Verified {
            self.promote(&key);
        }
        Ok(found)
    }

    /// Stores `value` for `key` as of now.
    pub fn insert(&self, key: &K, value: V, trust: CallerTrust) {
        let at = self.inner.clock.monotonic();
        let _in_flight = self.in_flight();
        self.keep(key, Stamped { value, at }, trust);
    }

    /// Removes `key`, and keeps a lookup in flight from storing what it finds.
    pub fn invalidate(&self, key: &K) {
        let mut in_flight = self.in_flight();
        in_flight.remove(key);
        self.inner.verified.invalidate(key);
        self.inner.unverified.invalidate(key);
        self.inner.verified.run_pending_tasks();
        self.inner.unverified.run_pending_tasks();
    }

    /// Removes every entry whose key is `affected`, as [`Cache::invalidate`] does, and returns what
    /// was removed.
    pub fn invalidate_if(&self, affected: impl Fn(&K) -> bool) -> Vec<(K, Stamped<V>)> {
        let mut in_flight = self.in_flight();
        in_flight.retain(|key, _| !affected(key));
        let mut removed = Vec::new();
        for part in [&self.inner.verified, &self.inner.unverified] {
            let keys = part.iter().map(|(key, _)| key).filter(|key| affected(key));
            for key in keys.collect::<Vec<_>>() {
                let held = part.get(key.as_ref()).and_then(|slot| look(&slot));
                removed.extend(held.map(|held| (K::clone(&key), held)));
                part.invalidate(key.as_ref());
            }
            part.run_pending_tasks();
        }
        removed
    }

    /// Removes everything, as [`Cache::invalidate`] does.
    pub fn clear(&self) {
        let mut in_flight = self.in_flight();
        in_flight.clear();
        for part in [&self.inner.verified, &self.inner.unverified] {
            part.invalidate_all();
            part.run_pending_tasks();
        }
    }

    /// Moves an entry that was created for an unverified caller to the verified part, where no
    /// unverified lookup evicts it.
    pub fn promote(&self, key: &K) {
        if self.inner.verified.contains_key(key) {
            return;
        }
        let _in_flight = self.in_flight();
        if let Some(held) = self.inner.unverified.get(key).and_then(|slot| look(&slot)) {
            self.keep(key, held, CallerTrust::Verified);
        }
    }

    /// Stores. Call it while the lock on the lookups in flight is held; otherwise an entry that is
    /// invalidated meanwhile comes back.
    fn keep(&self, key: &K, value: Stamped<V>, trust: CallerTrust) {
        let slot = Arc::new(Mutex::new(Some(value)));
        match trust {
            CallerTrust::Verified => {
                self.inner.verified.insert(key.clone(), slot);
                self.inner.unverified.invalidate(key);
            }
            // A key that verified callers already use is refreshed in place.
            CallerTrust::Unverified if self.inner.verified.contains_key(key) => {
                self.inner.verified.insert(key.clone(), slot)
            }
            CallerTrust::Unverified => self.inner.unverified.insert(key.clone(), slot),
        }
        // The map evicts lazily. Until then, large values would exceed the bound.
        self.inner.verified.run_pending_tasks();
        self.inner.unverified.run_pending_tasks();
    }

    fn in_flight(&self) -> MutexGuard<'_, InFlight<K, V, E>> {
        self.inner.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the lookup of `key` that is in flight, or starts one.
    fn join<F>(&self, key: &K, trust: CallerTrust, load: impl FnOnce() -> F) -> Lookup<V, E>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let mut in_flight = self.in_flight();
        if let Some((_, lookup)) = in_flight.get(key) {
            return lookup.clone();
        }
        let number = self.inner.next_number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let task = tokio::spawn(self.clone().run(key.clone(), trust, number, load()));
        let lookup = async move {
            match task.await {
                Ok(outcome) => outcome,
                // The lookup panicked, or the runtime is shutting down together with its callers.
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => std::future::pending().await,
                },
            }
        }
        .boxed()
        .shared();
        in_flight.insert(key.clone(), (number, lookup.clone()));
        lookup
    }

    async fn run<F>(self, key: K, trust: CallerTrust, number: u64, load: F) -> Result<Stamped<V>, E>
    where
        F: Future<Output = Result<V, E>>,
    {
        let _entry = RemoveOnDrop { cache: &self, key: &key, number };
        let value = load.await?;
        let found = Stamped { value, at: self.inner.clock.monotonic() };
        // An invalidation removes the lookup from the list. The lock is kept until the value is
        // stored, so that none can come between.
        let in_flight = self.in_flight();
        if in_flight.get(&key).is_some_and(|(current, _)| *current == number) {
            self.keep(&key, found.clone(), trust);
        }
        drop(in_flight);
        Ok(found)
    }
}

/// Removes a lookup from the list of those in flight when it ends, also by a panic.
struct RemoveOnDrop<
    'a,
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
> {
    cache: &'a Cache<K, V, E>,
    key: &'a K,
    number: u64,
}

impl<K, V, E> Drop for RemoveOnDrop<'_, K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        let mut in_flight = self.cache.in_flight();
        if in_flight.get(self.key).is_some_and(|(number, _)| *number == self.number) {
            in_flight.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::clock::{ManualClock, UnixTime};

    type Numbers = Cache<&'static str, usize, &'static str>;

    fn cache(bounds: Bounds) -> (Numbers, ManualClock) {
        let clock = ManualClock::at(UnixTime::from_secs(0));
        (Cache::new(Arc::new(clock.clone()), bounds, |_, _| 0), clock)
    }

    const ROOMY: Bounds = Bounds { verified: 1 << 20, unverified: 1 << 20 };

    #[tokio::test]
    async fn concurrent_lookups_become_one_and_share_a_failure() {
        let (cache, _) = cache(ROOMY);
        let loads = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let (cache, loads) = (cache.clone(), loads.clone());
            tokio::spawn(async move {
                let load = |_| async move {
                    loads.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Err("down")
                };
                cache.get_or_load("k", CallerTrust::Verified, |_| true, load).await
            })
        };
        let callers: Vec<_> = (0..20).map(|_| ask()).collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap().unwrap_err(), "down");
        }
        assert_eq!(loads.load(Ordering::SeqCst), 1);
        assert!(cache.get(&"k").is_none());
    }

    #[tokio::test]
    async fn a_caller_that_disconnects_does_not_end_the_lookup() {
        let (cache, _) = cache(ROOMY);
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let first = cache.get_or_load(
            "k",
            CallerTrust::Verified,
            |_| true,
            |_| async move {
                released.await.ok();
                Ok(7)
            },
        );
        assert!(first.now_or_never().is_none());
        let second = cache.get_or_load(
            "k",
            CallerTrust::Verified,
            |_| true,
            |_| async { Err("second lookup") },
        );
        release.send(()).unwrap();
        assert_eq!(second.await.unwrap().value, 7);
    }

    #[tokio::test]
    async fn a_value_that_is_invalidated_during_its_lookup_is_not_stored() {
        let (cache, _) = cache(ROOMY);
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let lookup = cache.get_or_load(
            "k",
            CallerTrust::Verified,
            |_| true,
            |_| async move {
                released.await.ok();
                Ok(7)
            },
        );
        let mut lookup = Box::pin(lookup);
        assert!((&mut lookup).now_or_never().is_none());
        cache.invalidate(&"k");
        release.send(()).unwrap();
        assert_eq!(lookup.await.unwrap().value, 7);
        assert!(cache.get(&"k").is_none());
    }

    #[tokio::test]
    async fn the_caller_decides_what_is_fresh_and_gets_the_stale_copy() {
        let (cache, clock) = cache(ROOMY);
        cache.insert(&"k", 1, CallerTrust::Verified);
        clock.advance(Duration::from_secs(61));
        let fresh =
            |held: &Stamped<usize>| clock.monotonic().since(held.at) < Duration::from_secs(60);
        let found = cache.get_or_load("k", CallerTrust::Verified, fresh, |stale| async move {
            Ok(stale.unwrap().value + 1)
        });
        assert_eq!(found.await.unwrap().value, 2);
    }

    #[tokio::test]
    async fn unverified_callers_evict_only_their_own_entries() {
        let (cache, _) = cache(Bounds { verified: 2_000, unverified: 2_000 });
        cache.insert(&"real", 1, CallerTrust::Verified);
        for name in ["a", "b", "c", "d", "e", "f"] {
            cache.insert(&name, 0, CallerTrust::Unverified);
        }
        assert_eq!(cache.get(&"real").unwrap().value, 1);
        assert!(cache.inner.unverified.entry_count() <= 2);
    }

    #[tokio::test]
    async fn a_verified_caller_promotes_what_an_unverified_one_looked_up() {
        let (cache, _) = cache(ROOMY);
        cache.insert(&"k", 1, CallerTrust::Unverified);
        let load = |_| async { Err("looked up again") };
        assert_eq!(
            cache.get_or_load("k", CallerTrust::Verified, |_| true, load).await.unwrap().value,
            1
        );
        assert!(cache.inner.verified.contains_key(&"k"));
    }

    #[tokio::test]
    async fn what_was_invalidated_is_not_promoted() {
        let (cache, _) = cache(ROOMY);
        cache.insert(&"k", 1, CallerTrust::Unverified);
        let invalidating = cache.clone();
        let fresh = move |_: &Stamped<usize>| {
            invalidating.invalidate(&"k");
            true
        };
        let load = |_| async { Err("not asked for") };
        assert_eq!(
            cache.get_or_load("k", CallerTrust::Verified, fresh, load).await.unwrap().value,
            1
        );
        assert!(cache.get(&"k").is_none());
    }

    #[tokio::test]
    async fn what_does_not_fit_is_evicted_when_it_is_stored() {
        let clock = Arc::new(ManualClock::at(UnixTime::from_secs(0)));
        let bounds = Bounds { verified: 100_000, unverified: 100_000 };
        let cache: Cache<usize, Arc<Vec<u8>>, ()> =
            Cache::new(clock, bounds, |_, bytes| bytes.capacity());
        let values: Vec<_> = (0..50)
            .map(|n| Arc::new(vec![0; if n % 10 == 9 { 200_000 } else { 10_000 }]))
            .collect();
        for (n, value) in values.iter().enumerate() {
            for trust in [CallerTrust::Verified, CallerTrust::Unverified] {
                cache.insert(
                    &(n * 2 + usize::from(trust == CallerTrust::Verified)),
                    Arc::clone(value),
                    trust,
                );
                let kept =
                    values.iter().map(|value| (Arc::strong_count(value) - 1) * value.capacity());
                assert!(kept.sum::<usize>() <= 200_000);
            }
        }
        let kept = values.iter().filter(|value| Arc::strong_count(value) > 1).count();
        assert!(kept >= 9, "{kept}");
    }

    /// A key that holds up whoever compares it, inside the map, until the other side lets it go on.
    #[derive(Clone)]
    struct Key(u32, Option<Arc<[std::sync::Barrier; 2]>>);

    impl Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            for barrier in
                [&self.1, &other.1].into_iter().flatten().flat_map(|barriers| barriers.iter())
            {
                barrier.wait();
            }
            self.0 == other.0
        }
    }

    impl Eq for Key {}

    #[test]
    fn an_evicted_value_is_dropped_immediately_though_a_reader_is_in_the_map() {
        let clock = Arc::new(ManualClock::at(UnixTime::from_secs(0)));
        let cache: Cache<Key, Arc<u32>, ()> = Cache::new(clock, ROOMY, |_, _| 0);
        let values: Vec<_> = (0..1_000).map(Arc::new).collect();
        values.iter().for_each(|value| {
            cache.insert(&Key(**value, None), Arc::clone(value), CallerTrust::Verified)
        });
        let barriers = Arc::new([2, 2].map(std::sync::Barrier::new));
        let (reader, theirs) = (cache.inner.verified.clone(), Arc::clone(&barriers));
        let reading = std::thread::spawn(move || reader.contains_key(&Key(7, Some(theirs))));
        barriers[0].wait();
        cache.clear();
        let left = values.iter().filter(|value| Arc::strong_count(value) != 1).count();
        barriers[1].wait();
        reading.join().unwrap();
        assert_eq!(left, 0);
    }
}
