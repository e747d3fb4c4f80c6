//! When a refusal is sent whose content says nothing of what exists, but whose time could.
//!
//! Until a token of an unknown issuer is verified, its caller gets one answer. How long the answer
//! takes depends on the lookups that lead to it, so it is sent at the next whole step (a second)
//! after the request arrived. The number of delayed refusals is bounded, and a server that shuts
//! down delays nothing.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::disclosure;
use crate::{
    admission::Empty,
    clock::{Clock, Moment},
    reason::Refusal,
};

/// Refusals that are delayed at a time.
const MAX_DELAYED: usize = 1_024;

/// Delays refusals.
pub(super) struct RefusalSteps {
    step: Duration,
    slots: Semaphore,
    shutdown: CancellationToken,
    clock: Arc<dyn Clock>,
}

impl RefusalSteps {
    /// Steps of this length; zero delays nothing.
    pub(super) fn new(step: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { step, slots: Semaphore::new(MAX_DELAYED), shutdown: CancellationToken::new(), clock }
    }

    /// Sends what is delayed, and delays nothing more.
    pub(super) fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// The refusal, at the next whole step after `arrived`; another one immediately if too many are
    /// delayed already.
    pub(super) async fn delay(&self, refusal: Refusal, arrived: Moment) -> Refusal {
        let Some(wait) = self.time_to_step(arrived).filter(|_| !self.shutdown.is_cancelled())
        else {
            return refusal;
        };
        let Ok(_slot) = self.slots.try_acquire() else {
            return disclosure::too_many(Empty(Duration::from_secs(1)))
                .because("too many refusals are delayed");
        };
        tokio::select! {
            () = self.clock.sleep(wait) => {}
            () = self.shutdown.cancelled() => {}
        }
        refusal
    }

    /// How long until the next whole step; `None` if there are no steps.
    fn time_to_step(&self, arrived: Moment) -> Option<Duration> {
        let elapsed = self.clock.monotonic().since(arrived);
        let into_step = elapsed.as_nanos().checked_rem(self.step.as_nanos())?;
        let into_step = Duration::from_nanos(u64::try_from(into_step).unwrap_or(u64::MAX));
        Some(self.step.saturating_sub(into_step))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::clock::{ManualClock, UnixTime};

    const STEP: Duration = Duration::from_secs(1);

    fn steps(step: Duration) -> (RefusalSteps, ManualClock) {
        let clock = ManualClock::at(UnixTime::from_secs(1_000_000));
        (RefusalSteps::new(step, Arc::new(clock.clone())), clock)
    }

    fn refusal() -> Refusal {
        disclosure::not_trusted("no such policy")
    }

    #[tokio::test]
    async fn a_refusal_leaves_at_the_next_whole_step_after_its_request() {
        for (elapsed, leaves) in
            [(0, 1_000), (1, 1_000), (999, 1_000), (1_000, 2_000), (1_500, 2_000), (2_999, 3_000)]
        {
            let (steps, clock) = steps(STEP);
            let arrived = clock.monotonic();
            clock.advance(Duration::from_millis(elapsed));
            let mut delayed = Box::pin(steps.delay(refusal(), arrived));
            assert!((&mut delayed).now_or_never().is_none());
            clock.advance(Duration::from_millis(leaves - elapsed - 1));
            assert!((&mut delayed).now_or_never().is_none(), "{elapsed} ms");
            clock.advance(Duration::from_millis(1));
            assert!((&mut delayed).now_or_never().is_some(), "{elapsed} ms");
        }
    }

    #[tokio::test]
    async fn no_more_than_1024_are_delayed_and_the_next_is_limited() {
        let (steps, clock) = steps(STEP);
        let arrived = clock.monotonic();
        let mut delayed: Vec<_> =
            (0..MAX_DELAYED).map(|_| Box::pin(steps.delay(refusal(), arrived))).collect();
        assert!(delayed.iter_mut().all(|delayed| delayed.now_or_never().is_none()));
        assert_eq!(
            steps.delay(refusal(), arrived).await.reason,
            crate::reason::Reason::RateLimited
        );
        delayed.pop();
        assert!(steps.delay(refusal(), arrived).now_or_never().is_none(), "a slot is free again");
    }

    #[tokio::test]
    async fn nothing_is_delayed_during_shutdown_or_without_steps() {
        let (steps, clock) = steps(STEP);
        let mut delayed = Box::pin(steps.delay(refusal(), clock.monotonic()));
        assert!((&mut delayed).now_or_never().is_none());
        steps.shut_down();
        assert!(delayed.now_or_never().is_some());
        assert!(steps.delay(refusal(), clock.monotonic()).now_or_never().is_some());
        let (none, clock) = self::steps(Duration::ZERO);
        assert!(none.delay(refusal(), clock.monotonic()).now_or_never().is_some());
    }
}
