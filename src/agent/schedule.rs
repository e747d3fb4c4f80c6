//! When the agent acts: arithmetic alone, no clock and no randomness of its own.
//!
//! `chance` is a number in `0..=1` that the caller draws. It only ever makes a renewal earlier and
//! a pause shorter than their plain values, so what is promised of those holds for any draw. A wait
//! that the server requires is the exception: chance lengthens it.

use std::time::Duration;

use crate::clock::UnixTime;

/// No token of GitHub's lives longer, whatever the difference between two machines' clocks
/// suggests.
pub(super) const LONGEST_LIFE: Duration = Duration::from_secs(3600);

/// The shortest and the longest pause after a failure that may pass by itself.
const UNAVAILABLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The same after a refusal: a policy must be corrected first.
const REFUSED: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));

/// The longest wait that a server may ask for; its limits end within the hour.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How much earlier than its token ends a file goes, at most.
const GOES_EARLIER: Duration = Duration::from_secs(10);

/// A token's time, by our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    issued_at: UnixTime,
    ends_at: UnixTime,
}

impl Life {
    /// Of a token that was requested at `issued_at` and is said to end at `expires_at`. `None` if
    /// it has ended already: then our clock or the server's is wrong.
    pub(super) fn new(issued_at: UnixTime, expires_at: UnixTime) -> Option<Self> {
        let ends_at = expires_at.min(issued_at.plus(LONGEST_LIFE));
        (ends_at > issued_at).then_some(Self { issued_at, ends_at })
    }

    /// Of a token of unknown age that ends at `ends_at`.
    pub(super) fn found(ends_at: UnixTime) -> Self {
        Self { issued_at: ends_at.minus(LONGEST_LIFE), ends_at }
    }

    /// When it ends.
    pub(super) fn ends_at(self) -> UnixTime {
        self.ends_at
    }

    /// When the next one is requested: at two thirds of the life, or up to a fifteenth of it
    /// earlier, so that agents that were started together do not stay together.
    pub(super) fn renewal(self, chance: f64) -> UnixTime {
        let life = self.length();
        self.issued_at.plus(life * 2 / 3).minus((life / 15).mul_f64(chance.clamp(0.0, 1.0)))
    }

    /// When its file must be gone: a little earlier than it ends, so that no process reads a token
    /// that is dead before it is used.
    pub(super) fn file_ends_at(self) -> UnixTime {
        self.ends_at.minus(GOES_EARLIER.min(self.length() / 20))
    }

    fn length(self) -> Duration {
        self.ends_at.since(self.issued_at)
    }
}

/// What kind of failure it was, as far as waiting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Temporary: no answer, a rate limit, a full disk.
    Unavailable,
    /// It ends when something is corrected: the policy, the request, a clock.
    Refused,
}

/// How long to wait after the `count`th failure in a row: 1, 2, 4 … 60 s, or 15, 30 … 300 s after a
/// refusal, each up to a half shorter; and never shorter than the server's `retry_after`.
pub(super) fn pause(
    count: u32,
    failure: Failure,
    asked: Option<Duration>,
    chance: f64,
) -> Duration {
    let (least, most) = match failure {
        Failure::Unavailable => UNAVAILABLE,
        Failure::Refused => REFUSED,
    };
    let chance = chance.clamp(0.0, 1.0);
    let plain = least.saturating_mul(1_u32 << count.saturating_sub(1).min(16)).min(most);
    let own = plain.mul_f64(1.0 - chance / 2.0);
    // A crowd that was sent away for as long must not come back at the same moment.
    let asked = asked.map(|wait| wait.min(LONGEST_WAIT).mul_f64(1.0 + chance / 10.0));
    asked.map_or(own, |asked| asked.max(own))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn at(secs: i64) -> UnixTime {
        UnixTime::from_secs(secs)
    }

    #[test]
    fn a_token_of_an_hour_is_renewed_between_36_and_40_minutes() {
        let life = Life::new(at(0), at(3600)).unwrap();
        assert_eq!((life.renewal(0.0), life.renewal(1.0)), (at(2400), at(2160)));
        assert_eq!((life.file_ends_at(), life.ends_at()), (at(3590), at(3600)));
    }

    #[test]
    fn the_slower_clock_does_not_make_a_token_live_longer() {
        let life = Life::new(at(0), at(9000)).unwrap();
        assert_eq!((life.ends_at(), life.renewal(0.0)), (at(3600), at(2400)));
    }

    #[test]
    fn a_token_that_came_dead_has_no_life() {
        assert_eq!(Life::new(at(10), at(10)), None);
        assert_eq!(Life::new(at(10), at(-5)), None);
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let plain: Vec<_> =
            (1..=8).map(|count| pause(count, Failure::Unavailable, None, 0.0).as_secs()).collect();
        assert_eq!(plain, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(3, Failure::Unavailable, None, 1.0), secs(2));
        assert_eq!(pause(u32::MAX, Failure::Unavailable, None, 0.0), secs(60));
    }

    #[test]
    fn a_refusal_is_asked_about_more_slowly() {
        let plain: Vec<_> =
            (1..=6).map(|count| pause(count, Failure::Refused, None, 0.0).as_secs()).collect();
        assert_eq!(plain, [15, 30, 60, 120, 240, 300]);
    }

    #[test]
    fn what_the_server_asks_for_is_obeyed_within_reason() {
        assert_eq!(pause(1, Failure::Unavailable, Some(secs(100)), 0.0), secs(100));
        assert_eq!(pause(1, Failure::Unavailable, Some(secs(100)), 1.0), secs(110));
        assert_eq!(pause(7, Failure::Unavailable, Some(secs(5)), 0.0), secs(60));
        assert_eq!(pause(1, Failure::Refused, Some(Duration::MAX), 0.0), secs(3600));
    }

    proptest! {
        #[test]
        fn a_renewal_is_well_within_the_life(life in 1_u32..100_000, chance in -1.0..2.0) {
            let life = Life::new(at(0), at(life.into())).unwrap();
            let renewal = life.renewal(chance);
            prop_assert!(renewal.plus(life.length() / 4) < life.file_ends_at());
            prop_assert!(renewal.minus(life.length() / 2) > at(0));
            prop_assert!(life.file_ends_at() < life.ends_at());
        }

        #[test]
        fn a_pause_is_within_its_bounds(count: u32, asked in proptest::option::of(0_u64..u64::MAX), chance in -1.0..2.0) {
            for failure in [Failure::Unavailable, Failure::Refused] {
                let pause = pause(count, failure, asked.map(Duration::from_secs), chance);
                prop_assert!(pause >= secs(1) / 2 && pause <= secs(3600).mul_f64(1.1));
                prop_assert!(asked.is_none_or(|asked| pause >= Duration::from_secs(asked.min(3600))));
            }
        }
    }
}
