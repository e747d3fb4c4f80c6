//! Work after the reply: a bounded queue for each owner, worked off one after the other.
//!
//! Each owner with work has its own task, so an owner whose calls are slow delays only itself.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::name::Owner;

/// Work that may wait for one owner.
const MAX_WAITING: usize = 256;
/// Owners whose work runs concurrently.
const CONCURRENT: usize = 32;

/// One piece of work.
pub(super) type Work = BoxFuture<'static, ()>;

/// The queues of all owners.
#[derive(Clone)]
pub(super) struct Queue {
    waiting: Arc<Mutex<HashMap<Owner, VecDeque<Work>>>>,
    running: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            waiting: Arc::default(),
            running: Arc::new(Semaphore::new(CONCURRENT)),
            tasks: TaskTracker::new(),
        }
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

    /// Waits until nothing is queued or under way.
    pub(super) async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn run(self, owner: Owner) {
        while let Some(work) = self.next(&owner) {
            let _permit = self.running.acquire().await;
            work.await;
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
        queue.close().await;
        assert!(queue.waiting().is_empty());
    }
}
