//! Token buckets from which a charge can be returned.
//!
//! A bucket refills with time on the monotonic clock. A charge takes one token from each of several
//! buckets, or from none of them. Until it is returned or spent, it is *outstanding*. If a bucket
//! is empty only because of outstanding charges, the next one waits in a queue, first come first
//! served: the charges before it may be returned. (The rate limiter crates know neither of these
//! two things.)
//!
//! All buckets are in one map of bounded size. A bucket that is full again takes no room.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash, RandomState},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::clock::Clock;

/// Buckets that are not full, at most. The rates bound their number far below.
const MAX_BUCKETS: usize = 1 << 16;
/// Full buckets are not looked for while there are fewer.
const MIN_SWEEP: usize = 1 << 10;
/// How often a map at its bound is searched for full buckets.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Charges that wait for one bucket, at most.
const MAX_WAITING: usize = 1 << 10;
/// A charge that has waited for so long is refused: the rest of an exchange needs time, too.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// How often a waiting charge looks whether its bucket has refilled.
const REFILL_CHECK: Duration = Duration::from_millis(500);
/// The shortest wait that a caller is sent away with. It hides how full the bucket is.
const MIN_RETRY: Duration = Duration::from_secs(1);

/// How fast a bucket refills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens added per minute.
    pub per_minute: NonZeroU32,
    /// Tokens in a full bucket.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate; zero counts as one.
    pub const fn new(per_minute: u32, burst: u32) -> Self {
        const fn at_least_one(n: u32) -> NonZeroU32 {
            match NonZeroU32::new(n) {
                Some(n) => n,
                None => NonZeroU32::MIN,
            }
        }
        Self { per_minute: at_least_one(per_minute), burst: at_least_one(burst) }
    }

    /// The same bucket, so many times as large and as fast.
    pub(super) const fn times(self, n: u32) -> Self {
        Self::new(self.per_minute.get().saturating_mul(n), self.burst.get().saturating_mul(n))
    }

    /// The part of this bucket that one source may use.
    pub(super) const fn divided_by(self, n: NonZeroU32) -> Self {
        Self::new(self.per_minute.get() / n.get(), self.burst.get() / n.get())
    }
}

/// A bucket is empty; a retry can help after this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty(pub Duration);

/// Why a charge could not be made without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNow {
    /// A bucket is empty.
    Empty(Empty),
    /// A bucket is empty as long as no outstanding charge is returned.
    Busy,
}

/// What a bucket holds.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// How long one token takes to refill.
    interval: Duration,
    /// How long an empty bucket takes to be full.
    depth: Duration,
}

impl Limit {
    fn of(period: Duration, tokens: NonZeroU32, burst: NonZeroU32) -> Self {
        let interval = period / tokens.get();
        Self { interval, depth: interval.saturating_mul(burst.get()) }
    }
}

/// One bucket of a charge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// The bucket, by a hash with a random key: nobody can choose two keys that share a bucket.
    bucket: u64,
    limit: Limit,
}

/// A bucket. One that is not in the map is full.
#[derive(Debug, Default)]
struct Bucket {
    /// When the bucket is full if nothing more is taken from it, since the clock's start.
    full_at: Duration,
    outstanding: u32,
    queue: VecDeque<oneshot::Sender<()>>,
}

impl Bucket {
    /// How long until the bucket holds so many tokens; zero if it does.
    fn time_until(&self, limit: Limit, tokens: usize, now: Duration) -> Duration {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let debt =
            self.full_at.saturating_sub(now).saturating_add(limit.interval.saturating_mul(tokens));
        debt.saturating_sub(limit.depth)
    }

    /// Whether it would hold a token if all outstanding charges were returned.
    fn may_have_room(&self, limit: Limit, now: Duration) -> bool {
        let without = self.full_at.saturating_sub(limit.interval.saturating_mul(self.outstanding));
        without.saturating_sub(now).saturating_add(limit.interval) <= limit.depth
    }

    /// Tells those who wait what has changed: the first of them that there is a token, or all of
    /// them that there will be none.
    fn notify(&mut self, limit: Limit, now: Duration) {
        if !self.may_have_room(limit, now) {
            self.queue.drain(..).for_each(|waiting| waiting.send(()).unwrap_or(()));
        } else if self.time_until(limit, 1, now).is_zero() {
            // One that no longer waits is passed over.
            while self.queue.pop_front().is_some_and(|waiting| waiting.send(()).is_err()) {}
        }
    }

    fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now && self.outstanding == 0 && self.queue.is_empty()
    }
}

#[derive(Debug)]
struct Table {
    buckets: HashMap<u64, Bucket>,
    /// With how many buckets full ones are looked for.
    sweep_at: usize,
    /// Not before this moment: a map that stays at its bound is not searched for every charge.
    next_sweep: Duration,
}

impl Table {
    /// Makes room for so many more buckets, if there is any.
    fn reserve(&mut self, more: usize, now: Duration) -> bool {
        if self.buckets.len() + more > self.sweep_at
            && (self.sweep_at < MAX_BUCKETS || now >= self.next_sweep)
        {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            self.buckets.shrink_to(MIN_SWEEP);
            self.sweep_at = (self.buckets.len() * 2).clamp(MIN_SWEEP, MAX_BUCKETS);
            self.next_sweep = now.saturating_add(SWEEP_INTERVAL);
        }
        self.buckets.len() + more <= MAX_BUCKETS
    }
}

/// The place of a charge among those that wait.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Not in a queue yet.
    New,
    /// It was the first in the queue of this bucket.
    FirstFor(u64),
}

enum Outcome {
    Taken(Charge),
    Empty(Empty),
    /// To be tried again when the receiver is notified by this bucket.
    Queued(Line, oneshot::Receiver<()>),
    /// It would have to wait.
    Busy,
}

/// All buckets.
pub(super) struct Buckets {
    table: Mutex<Table>,
    hasher: RandomState,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").finish_non_exhaustive()
    }
}

impl Buckets {
    /// Full buckets.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let table = Mutex::new(Table {
            buckets: HashMap::new(),
            sweep_at: MIN_SWEEP,
            next_sweep: Duration::ZERO,
        });
        Arc::new(Self { table, hasher: RandomState::new(), clock })
    }

    /// A hash that nobody outside can predict.
    pub(super) fn hash(&self, key: impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The bucket of `key` with this rate.
    pub(super) fn line(&self, key: impl Hash, rate: Rate) -> Line {
        let limit = Limit::of(Duration::from_secs(60), rate.per_minute, rate.burst);
        Line { bucket: self.hash(key), limit }
    }

    /// The bucket of `key` that refills within an hour.
    pub(super) fn hourly(&self, key: impl Hash, tokens: NonZeroU32) -> Line {
        let limit = Limit::of(Duration::from_secs(60 * 60), tokens, tokens);
        Line { bucket: self.hash(key), limit }
    }

    /// Takes a token from each bucket, now or never.
    pub(super) fn try_charge(self: &Arc<Self>, lines: &[Line]) -> Result<Charge, NotNow> {
        match self.attempt(lines, Place::New, false) {
            Outcome::Taken(charge) => Ok(charge),
            Outcome::Empty(empty) => Err(NotNow::Empty(empty)),
            Outcome::Busy | Outcome::Queued(..) => Err(NotNow::Busy),
        }
    }

    /// Takes a token from each bucket. Waits while one lacks a token only because of outstanding
    /// charges.
    ///
    /// # Errors
    /// A bucket is empty.
    pub(super) async fn charge(self: &Arc<Self>, lines: &[Line]) -> Result<Charge, Empty> {
        let mut place = Place::New;
        let mut timeout = self.clock.sleep(MAX_WAIT);
        loop {
            let (line, mut notified) = match self.attempt(lines, place, true) {
                Outcome::Taken(charge) => return Ok(charge),
                Outcome::Empty(empty) => return Err(empty),
                Outcome::Busy => return Err(Empty(MIN_RETRY)),
                Outcome::Queued(line, notified) => (line, notified),
            };
            loop {
                tokio::select! {
                    _ = &mut notified => break,
                    () = self.clock.sleep(REFILL_CHECK) => self.notify(line),
                    () = &mut timeout => return Err(Empty(MIN_RETRY)),
                }
            }
            place = Place::FirstFor(line.bucket);
        }
    }

    fn attempt(self: &Arc<Self>, lines: &[Line], place: Place, may_wait: bool) -> Outcome {
        let now = self.now();
        let mut table = self.table();
        let mut blocked = None;
        let mut empty = None;
        for line in lines {
            let Some(bucket) = table.buckets.get(&line.bucket) else { continue };
            let is_first = matches!(place, Place::FirstFor(queue) if queue == line.bucket);
            let ahead = if is_first { 0 } else { bucket.queue.len() };
            let wait = bucket.time_until(line.limit, ahead + 1, now);
            if wait.is_zero() {
                continue;
            }
            if bucket.may_have_room(line.limit, now) {
                blocked.get_or_insert((*line, is_first));
            } else {
                empty = empty.max(Some(wait.max(MIN_RETRY)));
            }
        }
        match (empty, blocked) {
            (Some(wait), _) => Outcome::Empty(Empty(wait)),
            (None, Some(_)) if !may_wait => Outcome::Busy,
            (None, Some((line, is_first))) => enqueue(&mut table, line, is_first),
            (None, None) if !table.reserve(lines.len(), now) => Outcome::Empty(Empty(MIN_RETRY)),
            (None, None) => {
                for line in lines {
                    let bucket = table.buckets.entry(line.bucket).or_default();
                    bucket.full_at = bucket.full_at.max(now).saturating_add(line.limit.interval);
                    bucket.outstanding = bucket.outstanding.saturating_add(1);
                    bucket.notify(line.limit, now);
                }
                Outcome::Taken(Charge { buckets: Arc::clone(self), lines: lines.to_vec() })
            }
        }
    }

    fn notify(&self, line: Line) {
        let now = self.now();
        if let Some(bucket) = self.table().buckets.get_mut(&line.bucket) {
            bucket.notify(line.limit, now);
        }
    }

    fn settle(&self, lines: &[Line], is_returned: bool) {
        let now = self.now();
        let mut table = self.table();
        for line in lines {
            if let Some(bucket) = table.buckets.get_mut(&line.bucket) {
                bucket.outstanding = bucket.outstanding.saturating_sub(1);
                if is_returned {
                    bucket.full_at = bucket.full_at.saturating_sub(line.limit.interval);
                }
                bucket.notify(line.limit, now);
            }
        }
    }

    fn now(&self) -> Duration {
        self.clock.monotonic().since_start()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table().buckets.len()
    }
}

fn enqueue(table: &mut Table, line: Line, is_first: bool) -> Outcome {
    let bucket = table.buckets.entry(line.bucket).or_default();
    if bucket.queue.len() >= MAX_WAITING {
        bucket.queue.retain(|waiting| !waiting.is_closed());
    }
    if bucket.queue.len() >= MAX_WAITING {
        return Outcome::Empty(Empty(MIN_RETRY));
    }
    let (notify, notified) = oneshot::channel();
    if is_first {
        bucket.queue.push_front(notify);
    } else {
        bucket.queue.push_back(notify);
    }
    Outcome::Queued(line, notified)
}

/// Tokens taken from buckets. It is spent when dropped, unless it was returned.
#[derive(Debug)]
#[must_use]
pub(super) struct Charge {
    buckets: Arc<Buckets>,
    lines: Vec<Line>,
}

impl Charge {
    /// Puts the tokens back.
    pub(super) fn give_back(mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.buckets.settle(&lines, true);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.buckets.settle(&self.lines, false);
    }
}
