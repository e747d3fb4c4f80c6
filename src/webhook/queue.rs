//! Work after the reply: a bounded queue for each owner, worked off one after the other.
//!
//! Each owner with work has its own task, so an owner whose calls are slow delays only itself.
//! Tasks mostly wait for GitHub; what costs CPU is limited where it is done.

use std::{
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::name::Owner;

/// Work that may wait for one owner.
const MAX_WAITING: usize = 256;

/// One piece of work.
pub(super) type Work = BoxFuture<'static, ()>;

/// The queues of all owners.
#[derive(Clone)]
pub(super) struct Queue {
    waiting: Arc<Mutex<HashMap<Owner, VecDeque<Work>>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { waiting: Arc::default(), tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// Queues work for an owner; false if too much is waiting already.
    pub(super) fn push(&self, owner: &Owner, work: Work) -> bool {
        let mut waiting = self.waiting();
        match waiting.get_mut(owner) {
            Some(queue) if queue.len() >= MAX_WAITING => return false,
            Some(queue) => queue.push_back(work),
            None => {
                waiting.insert(owner.clone(), VecDeque::from([work]));
                self.tasks.spawn(self.clone().run(owner.clone()));
            }
        }
        true
    }

    /// Finishes what is queued within a time, and ends the rest then: false if there was any.
    pub(super) async fn close(&self, within: Duration) -> bool {
        self.tasks.close();
        let is_finished = tokio::time::timeout(within, self.tasks.wait()).await.is_ok();
        self.stop.cancel();
        self.tasks.wait().await;
        is_finished
    }

    async fn run(self, owner: Owner) {
        while let Some(work) = self.next(&owner) {
            // A piece that panics must not keep the next ones from running.
            let work = AssertUnwindSafe(work).catch_unwind();
            if let Some(Err(_)) = self.stop.run_until_cancelled(work).await {
                tracing::error!(%owner, "the work on a delivery panicked");
            }
        }
    }

    /// The next piece of work. Without any, the owner's queue is gone, and the next push starts
    /// another task.
    fn next(&self, owner: &Owner) -> Option<Work> {
        let mut waiting = self.waiting();
        let next = waiting.get_mut(owner).and_then(VecDeque::pop_front);
        if next.is_none() {
            waiting.remove(owner);
        }
        next
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Owner, VecDeque<Work>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn an_owner_whose_work_hangs_delays_only_itself_and_is_bounded() {
        let queue = Queue::new();
        let (slow, quick): (Owner, Owner) = ("slow".parse().unwrap(), "quick".parse().unwrap());
        let (release, released) = oneshot::channel::<()>();
        let (started, begun) = oneshot::channel();
        let hangs = async move {
            started.send(()).ok();
            released.await.ok();
        };
        assert!(queue.push(&slow, Box::pin(hangs)));
        begun.await.unwrap();
        for _ in 0..MAX_WAITING {
            assert!(queue.push(&slow, Box::pin(async {})));
        }
        assert!(!queue.push(&slow, Box::pin(async {})));
        let (done, ended) = oneshot::channel();
        assert!(queue.push(&quick, Box::pin(async move { done.send(()).unwrap() })));
        ended.await.unwrap();
        release.send(()).unwrap();
        assert!(queue.close(Duration::from_secs(10)).await);
        assert!(queue.waiting().is_empty());
    }

    #[tokio::test]
    async fn work_that_panics_does_not_keep_the_next_from_running_nor_work_that_hangs_the_end() {
        let queue = Queue::new();
        let owner: Owner = "o".parse().unwrap();
        assert!(queue.push(&owner, Box::pin(async { panic!("on purpose") })));
        let (done, ended) = oneshot::channel();
        assert!(queue.push(&owner, Box::pin(async move { done.send(()).unwrap() })));
        ended.await.unwrap();
        assert!(queue.push(&owner, Box::pin(std::future::pending())));
        assert!(!queue.close(Duration::from_millis(10)).await);
    }
}
