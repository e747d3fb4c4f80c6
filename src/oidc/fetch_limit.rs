//! How often one issuer's keys are fetched because tokens name keys that are not cached.
//!
//! There are three credits. A fetch uses one, and each minute without a fetch returns one. After a
//! fetch that leaves two credits the next one may follow in three seconds, after one that leaves a
//! single credit in six, and after the last in a minute. So a key that is published a few seconds
//! after the first token with it is found within ten seconds, and a flood of unknown key ids causes
//! three fetches in ten seconds and then one a minute. Whether a fetch succeeds does not matter.

use std::time::Duration;

use crate::clock::Moment;

const MINUTE: Duration = Duration::from_secs(60);

const MAX_CREDITS: u32 = 3;

/// The limit's state for one issuer.
#[derive(Debug, Default)]
pub(super) struct FetchLimit {
    last: Option<Fetch>,
}

#[derive(Debug, Clone, Copy)]
struct Fetch {
    at: Moment,
    /// What it left.
    credits: u32,
}

impl Fetch {
    /// How long after it the next fetch may be made.
    fn spacing(self) -> Duration {
        match self.credits {
            0 => MINUTE,
            1 => Duration::from_secs(6),
            _ => Duration::from_secs(3),
        }
    }
}

impl FetchLimit {
    /// Uses a credit, if a fetch may be made now.
    pub(super) fn try_acquire(&mut self, now: Moment) -> bool {
        if !self.wait(now).is_zero() {
            return false;
        }
        let credits = self.last.map_or(MAX_CREDITS, |last| {
            let minutes = now.since(last.at).as_secs() / MINUTE.as_secs();
            MAX_CREDITS
                .min(last.credits.saturating_add(u32::try_from(minutes).unwrap_or(MAX_CREDITS)))
        });
        self.last = Some(Fetch { at: now, credits: credits.saturating_sub(1) });
        true
    }

    /// How long until a fetch may be made; zero if one may be made now.
    pub(super) fn wait(&self, now: Moment) -> Duration {
        self.last.map_or(Duration::ZERO, |last| last.spacing().saturating_sub(now.since(last.at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which a fetch was allowed, of those at which one was requested.
    fn allowed(limit: &mut FetchLimit, seconds: impl Iterator<Item = u64>) -> Vec<u64> {
        seconds
            .filter(|at| limit.try_acquire(Moment::default().plus(Duration::from_secs(*at))))
            .collect()
    }

    #[test]
    fn a_flood_gets_three_fetches_in_ten_seconds_and_then_one_a_minute() {
        assert_eq!(allowed(&mut FetchLimit::default(), 0..300), [0, 3, 9, 69, 129, 189, 249]);
    }

    #[test]
    fn each_quiet_minute_returns_one_fetch() {
        let mut limit = FetchLimit::default();
        allowed(&mut limit, 0..10);
        assert_eq!(allowed(&mut limit, 9 + 120..9 + 200), [129, 135, 195]);
        let mut limit = FetchLimit::default();
        allowed(&mut limit, 0..10);
        assert_eq!(allowed(&mut limit, 9 + 180..9 + 260), [189, 192, 198, 258]);
        // A caller with an unknown key id every two minutes does not use up what a new key needs.
        let mut limit = FetchLimit::default();
        assert_eq!(allowed(&mut limit, (0..1200).step_by(120)).len(), 10);
        assert_eq!(allowed(&mut limit, 1200..1211), [1200, 1203, 1209]);
    }

    #[test]
    fn the_wait_ends_when_a_fetch_is_allowed() {
        let mut limit = FetchLimit::default();
        let mut now = Moment::default();
        for expected in [3, 6, 60, 60] {
            assert!(limit.try_acquire(now) && !limit.try_acquire(now));
            assert_eq!(limit.wait(now), Duration::from_secs(expected));
            now = now.plus(limit.wait(now));
        }
    }
}
