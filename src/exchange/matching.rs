//! Where patterns are held against a token: here, or off the threads that serve requests.
//!
//! The engine's time grows with the pattern and the text alone, never worse, but a policy may be
//! large: at its bounds, with a token at its own, one evaluation takes seconds. Whoever writes such a
//! policy must not hold up everybody else.

use std::sync::Arc;

use tokio::{sync::Semaphore, task};

use crate::reason::{Reason, Refusal};

/// The product of a policy's weight and a text's bytes up to which matching takes a few
/// milliseconds at worst. Policies as people write them stay far below.
const LIGHT: u64 = 128 << 20;
/// Heavy ones at once: they take their turns, whatever else is asked.
const HEAVY_AT_ONCE: usize = 2;

/// Runs matches.
#[derive(Debug)]
pub(super) struct Matching {
    places: Arc<Semaphore>,
}

impl Matching {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(HEAVY_AT_ONCE)) }
    }

    /// Runs `work`, whose time grows with `weight` times `bytes`.
    ///
    /// # Errors
    /// The work panicked.
    pub(super) async fn run<T>(
        &self,
        weight: u32,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal>
    where
        T: Send + 'static,
    {
        if u64::from(weight).saturating_mul(bytes as u64) <= LIGHT {
            return Ok(work());
        }
        let place = Arc::clone(&self.places).acquire_owned().await;
        // The place is held until the work is done, though its caller may be gone before.
        let done = task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        // What it panicked with may be anything.
        done.await.map_err(|_| Refusal::new(Reason::Internal, "internal error").because("the evaluation ended early"))
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

    use super::*;

    #[tokio::test]
    async fn heavy_work_leaves_the_thread_free() {
        let (let_go, held) = mpsc::channel();
        let work = move || held.recv_timeout(Duration::from_secs(10)).is_ok();
        let matching = Matching::new();
        let (done, ()) = tokio::join!(matching.run(8 << 20, 24 << 10, work), async { let_go.send(()).unwrap_or(()) });
        assert!(done.unwrap());
    }

    #[tokio::test]
    async fn a_usual_policy_is_evaluated_in_place() {
        let here = std::thread::current().id();
        let matching = Matching::new();
        assert_eq!(matching.run(64 << 10, 2 << 10, || std::thread::current().id()).await.unwrap(), here);
        assert_ne!(matching.run(u32::MAX, 2 << 10, || std::thread::current().id()).await.unwrap(), here);
    }

    #[tokio::test]
    async fn heavy_work_takes_turns_and_a_panic_is_told_without_its_payload() {
        let matching = Matching::new();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            matching.run(u32::MAX, usize::MAX, move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                now.fetch_sub(1, Ordering::SeqCst);
            })
        };
        futures_util::future::join_all((0..10).map(|_| work())).await;
        assert_eq!(most.load(Ordering::SeqCst), HEAVY_AT_ONCE);
        let refusal = matching.run(u32::MAX, 1 << 20, || panic!("a secret")).await.map(|()| 0).unwrap_err();
        assert_eq!((refusal.reason, refusal.cause.as_deref()), (Reason::Internal, Some("the evaluation ended early")));
    }
}
