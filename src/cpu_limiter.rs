//! Limits CPU work that other people's files make expensive: compiling a pattern, matching it.
//!
//! Such work is bounded, but at its bounds one evaluation takes seconds. It runs off the threads
//! that serve requests, a few pieces at a time, and one at a time for each owner: the author of a
//! hostile policy waits for their own work and leaves a slot to other owners. Work of an owner
//! beyond a short queue is refused immediately.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::Semaphore, task};

use crate::name::Owner;

/// Matching up to this cost, in bytes of compiled patterns times bytes of text, takes a few
/// milliseconds at worst and runs on the calling thread. Policies as people write them stay below.
pub const MAX_INLINE_COST: u64 = 32 << 20;

/// How much expensive work there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Pieces that run concurrently.
    pub concurrent: usize,
    /// Pieces of one owner, of which one runs and the others wait.
    pub per_owner: usize,
    /// Pieces of all owners, running and waiting.
    pub total: usize,
}

/// Why work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// The owner, or all owners together, have too much of it.
    #[error("too much expensive work is waiting")]
    Overloaded,
    /// The work panicked. With what is not reported: it may be the file's content.
    #[error("the work ended early")]
    Panicked,
}

/// Runs work within its limits.
#[derive(Debug)]
pub struct CpuLimiter {
    limits: Limits,
    slots: Arc<Semaphore>,
    queues: Arc<Mutex<Queues>>,
}

/// The work that runs or waits.
#[derive(Debug, Default)]
struct Queues {
    total: usize,
    owners: HashMap<Owner, Queue>,
}

#[derive(Debug)]
struct Queue {
    length: usize,
    turn: Arc<Semaphore>,
}

/// A piece of work's entry in its owner's queue. It leaves when it is dropped.
struct Entry {
    queues: Arc<Mutex<Queues>>,
    owner: Owner,
}

impl CpuLimiter {
    /// A limiter without work.
    pub fn new(limits: Limits) -> Self {
        Self { limits, slots: Arc::new(Semaphore::new(limits.concurrent)), queues: Arc::default() }
    }

    /// Runs `work`: here if it is cheap, else as [`CpuLimiter::run`] does.
    ///
    /// # Errors
    /// As [`CpuLimiter::run`].
    pub async fn run_by_cost<T: Send + 'static>(
        &self,
        owner: &Owner,
        cost: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CpuError> {
        if cost <= MAX_INLINE_COST { Ok(work()) } else { self.run(owner, work).await }
    }

    /// Runs `work` off the async threads, when it is its turn among its owner's and there is a
    /// slot.
    ///
    /// # Errors
    /// The queue is full, or the work panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        owner: &Owner,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CpuError> {
        let (entry, turn) = self.enter(owner)?;
        let turn = turn.acquire_owned().await;
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        // All three are kept until the work is done, though its caller may be gone before.
        let done = task::spawn_blocking(move || {
            let _kept = (slot, turn, entry);
            work()
        });
        done.await.map_err(|_| CpuError::Panicked)
    }

    fn enter(&self, owner: &Owner) -> Result<(Entry, Arc<Semaphore>), CpuError> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let length = queues.owners.get(owner).map_or(0, |queue| queue.length);
        if queues.total >= self.limits.total || length >= self.limits.per_owner {
            return Err(CpuError::Overloaded);
        }
        queues.total += 1;
        let new = || Queue { length: 0, turn: Arc::new(Semaphore::new(1)) };
        let queue = queues.owners.entry(owner.clone()).or_insert_with(new);
        queue.length += 1;
        let turn = Arc::clone(&queue.turn);
        Ok((Entry { queues: Arc::clone(&self.queues), owner: owner.clone() }, turn))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.total -= 1;
        if let Some(queue) = queues.owners.get_mut(&self.owner) {
            queue.length -= 1;
            if queue.length == 0 {
                queues.owners.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use futures_util::{FutureExt, future::join_all};

    use super::*;

    const LIMITS: Limits = Limits { concurrent: 2, per_owner: 3, total: 6 };

    fn owner(name: &str) -> Owner {
        name.parse().unwrap()
    }

    /// Work that runs until the sender lets it go, and says that it has begun.
    fn blocked() -> (mpsc::Sender<()>, mpsc::Receiver<()>, impl FnOnce() -> bool + Send + 'static) {
        let (release, released) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        let work = move || {
            begin.send(()).unwrap_or(());
            released.recv_timeout(Duration::from_secs(10)).is_ok()
        };
        (release, begun, work)
    }

    #[tokio::test]
    async fn cheap_work_runs_on_the_calling_thread_and_expensive_work_elsewhere() {
        let here = std::thread::current().id();
        let limiter = CpuLimiter::new(LIMITS);
        let thread = || std::thread::current().id();
        assert_eq!(limiter.run_by_cost(&owner("o"), MAX_INLINE_COST, thread).await.unwrap(), here);
        assert_ne!(
            limiter.run_by_cost(&owner("o"), MAX_INLINE_COST + 1, thread).await.unwrap(),
            here
        );
    }

    #[tokio::test]
    async fn one_owners_work_leaves_a_slot_to_the_others() {
        let limiter = CpuLimiter::new(LIMITS);
        let (release, begun, work) = blocked();
        let hostile = owner("hostile");
        let mut first = Box::pin(limiter.run(&hostile, work));
        assert!((&mut first).now_or_never().is_none());
        let waiting: Vec<_> = (0..2).map(|_| Box::pin(limiter.run(&hostile, || ()))).collect();
        let waiting = join_all(waiting);
        let mut waiting = Box::pin(waiting);
        assert!((&mut waiting).now_or_never().is_none());
        // What is more than its queue holds is refused; letter case makes no other owner.
        assert_eq!(limiter.run(&hostile, || ()).await, Err(CpuError::Overloaded));
        assert_eq!(limiter.run(&owner("HOSTILE"), || ()).await, Err(CpuError::Overloaded));
        for _ in 0..20 {
            assert_eq!(limiter.run(&owner("honest"), || 7).await, Ok(7));
        }
        begun.recv().unwrap();
        release.send(()).unwrap();
        assert_eq!(first.await, Ok(true));
        assert!(waiting.await.iter().all(Result::is_ok));
        assert_eq!(limiter.run(&hostile, || 7).await, Ok(7));
        assert!(limiter.queues.lock().unwrap().owners.is_empty());
    }

    #[tokio::test]
    async fn a_caller_that_hangs_up_frees_its_entry_and_running_work_keeps_its_slot() {
        let limiter = CpuLimiter::new(Limits { concurrent: 1, per_owner: 2, total: 2 });
        let (release, begun, work) = blocked();
        let [a, b, c] = ["a", "b", "c"].map(owner);
        let mut running = Box::pin(limiter.run(&a, work));
        assert!((&mut running).now_or_never().is_none());
        begun.recv().unwrap();
        drop(running);
        let mut waiting = Box::pin(limiter.run(&b, || ()));
        assert!((&mut waiting).now_or_never().is_none(), "the work goes on without its caller");
        assert_eq!(
            limiter.run(&c, || ()).await,
            Err(CpuError::Overloaded),
            "both entries are in use"
        );
        drop(waiting);
        let waiting = limiter.run(&c, || 7);
        release.send(()).unwrap();
        assert_eq!(waiting.await, Ok(7));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_runs_than_there_are_slots_and_a_panic_frees_its_own() {
        let limiter = CpuLimiter::new(Limits { concurrent: 2, per_owner: 10, total: 100 });
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let run = |n: usize| {
            let (limiter, now, most) = (&limiter, Arc::clone(&now), Arc::clone(&most));
            async move {
                let work = move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    assert!(!n.is_multiple_of(3), "a secret");
                };
                limiter.run(&owner(&format!("o{}", n % 7)), work).await
            }
        };
        let outcomes = join_all((0..60).map(run)).await;
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(
            outcomes.iter().filter(|outcome| **outcome == Err(CpuError::Panicked)).count(),
            20
        );
        assert!(limiter.queues.lock().unwrap().owners.is_empty());
    }
}
