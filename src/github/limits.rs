//! GitHub's limits, remembered.
//!
//! An integration that goes on calling while it is limited may be banned. So once GitHub announces
//! a limit, no further call of that kind goes out for that installation until it is over, and
//! callers are told what is left of the wait.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    client::{ApiReply, Call, Client},
    drift::Drift,
    failure::{Failure, date},
    meaning::{MIN_WAIT, Meaning},
    quota::Quotas,
};
use crate::{
    clock::{Clock, Moment, UnixTime},
    name::InstallationId,
};

/// What GitHub counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LimitKey {
    /// Look-ups with the App's own credential.
    App,
    /// Tokens minted for an installation.
    Mint(InstallationId),
    /// Reads with an installation's token.
    Read(InstallationId),
    /// Revocations of an installation's tokens.
    Revoke(InstallationId),
}

/// Until when each key is closed.
#[derive(Debug, Default)]
struct Limits(Mutex<HashMap<LimitKey, Moment>>);

impl Limits {
    /// What is left of the wait, if `key` is closed.
    fn wait(&self, key: LimitKey, now: Moment) -> Option<Duration> {
        let left = self.map().get(&key)?.since(now);
        (left > Duration::ZERO).then_some(left.max(MIN_WAIT))
    }

    /// Closes `key` for as long as GitHub announced.
    fn close(&self, key: LimitKey, wait: Duration, now: Moment) {
        let mut map = self.map();
        map.retain(|_, until| *until > now);
        let until = map.entry(key).or_insert(now);
        *until = now.plus(wait).max(*until);
    }

    fn map(&self) -> MutexGuard<'_, HashMap<LimitKey, Moment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way out for all calls. A closed key lets nothing through, and an answer that announces a
/// limit closes it. Here every failure gets its meaning.
pub(super) struct Gate {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) drift: Drift,
    pub(super) quotas: Quotas,
    limits: Limits,
}

impl Gate {
    pub(super) fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self {
            client,
            clock,
            drift: Drift::default(),
            quotas: Quotas::default(),
            limits: Limits::default(),
        }
    }

    /// Makes the call if its key is open.
    pub(super) async fn call(&self, key: LimitKey, call: &Call) -> Result<ApiReply, Meaning> {
        if let Some(left) = self.limits.wait(key, self.clock.monotonic()) {
            return Err(Meaning::Limited(left));
        }
        let sent = self.clock.now();
        let outcome = self.client.call(call).await;
        if let Some(date) = date_of(&outcome) {
            self.drift.note(date, (sent, self.clock.now()), self.clock.monotonic());
        }
        self.quotas.note(key, &outcome, self.clock.now());
        outcome.map_err(|failure| {
            let meaning = Meaning::of(failure, self.clock.now());
            if let Meaning::Limited(wait) = meaning {
                self.limits.close(key, wait, self.clock.monotonic());
            }
            meaning
        })
    }
}

/// GitHub's time, if it answered.
fn date_of(outcome: &Result<ApiReply, Failure>) -> Option<UnixTime> {
    match outcome {
        Ok(reply) => date(&reply.headers),
        Err(Failure::Answered(answer)) => answer.date,
        Err(
            Failure::NotSent(_) | Failure::NoAnswer(_) | Failure::TimedOut | Failure::Unexpected(_),
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LimitKey = LimitKey::Mint(InstallationId(1));
    const SECOND: Duration = Duration::from_secs(1);

    fn at(secs: u32) -> Moment {
        Moment::default().plus(SECOND * secs)
    }

    #[test]
    fn a_lane_is_closed_alone_and_until_the_last_limit_is_over() {
        let limits = Limits::default();
        limits.close(LANE, 30 * SECOND, at(0));
        limits.close(LANE, 10 * SECOND, at(0));
        assert_eq!(limits.wait(LANE, at(0)), Some(30 * SECOND));
        assert_eq!(limits.wait(LimitKey::Mint(InstallationId(2)), at(0)), None);
        assert_eq!(limits.wait(LimitKey::Read(InstallationId(1)), at(0)), None);
        assert_eq!(limits.wait(LimitKey::App, at(0)), None);
        assert_eq!(limits.wait(LANE, at(0).plus(Duration::from_millis(29_900))), Some(MIN_WAIT));
        assert_eq!(limits.wait(LANE, at(30)), None);
    }

    #[test]
    fn limits_that_are_over_take_no_room() {
        let limits = Limits::default();
        for installation in 0..100 {
            limits.close(
                LimitKey::Mint(InstallationId(installation.into())),
                60 * SECOND,
                at(60 * installation),
            );
        }
        assert_eq!(limits.map().len(), 1);
    }
}
