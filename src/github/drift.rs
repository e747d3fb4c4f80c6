//! How far the wall clock of this machine is from GitHub's.
//!
//! Tokens are judged by the wall clock, and GitHub refuses an App JWT whose times are too far from
//! its own. Every reply has a `Date`, so drift is noticed long before anything fails.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    clock::{Moment, UnixTime},
    telemetry::metric,
};

/// From here on operators are warned.
pub const WORTH_A_WARNING: Duration = Duration::from_secs(30);
/// At most one warning in this time.
const WARN_EVERY: Duration = Duration::from_secs(600);

/// The drift by the latest reply.
#[derive(Debug, Default)]
pub(super) struct Drift(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seconds: Option<i64>,
    warned_at: Option<Moment>,
}

impl Drift {
    /// Seconds by which this machine is ahead of GitHub; negative if it is behind.
    pub(super) fn seconds(&self) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).seconds
    }

    /// Notes the `Date` of a reply to a call that was made between these two readings of the wall
    /// clock.
    pub(super) fn note(&self, date: UnixTime, (sent, received): (UnixTime, UnixTime), now: Moment) {
        let seconds = drift(date, (sent, received));
        #[expect(clippy::cast_precision_loss, reason = "a drift of 2^52 seconds may be inexact")]
        metrics::gauge!(metric::CLOCK_DRIFT).set(seconds as f64);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.seconds = Some(seconds);
        let is_due = state.warned_at.is_none_or(|at| now.since(at) >= WARN_EVERY);
        if seconds.unsigned_abs() >= WORTH_A_WARNING.as_secs() && is_due {
            state.warned_at = Some(now);
            tracing::warn!(seconds, "this machine's clock differs from GitHub's: set it by NTP");
        }
    }
}

/// The drift that the reply proves: none while its `Date` lies within the call.
fn drift(date: UnixTime, (sent, received): (UnixTime, UnixTime)) -> i64 {
    let (ahead, behind) = (sent.since(date).as_secs(), date.since(received).as_secs());
    let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    if ahead > 0 { signed(ahead) } else { -signed(behind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_not_drift() {
        let at = UnixTime::from_secs;
        for (date, sent, received, seconds) in [
            (100, 100, 100, 0),
            (100, 95, 110, 0),
            (100, 130, 131, 30),
            (100, 60, 69, -31),
            (100, 100_000, 100_001, 99_900),
        ] {
            assert_eq!(
                drift(at(date), (at(sent), at(received))),
                seconds,
                "{date} {sent} {received}"
            );
        }
    }
}
