//! GitHub's limits, by App and installation.
//!
//! GitHub may ban an integration that goes on calling while it is limited. So once GitHub announces
//! a limit, no further call of that kind is made for that App or installation until the limit ends,
//! and callers get what is left of the wait.

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
    quota::{Announced, Quotas},
};
use crate::{
    clock::{Clock, Moment, UnixTime},
    name::{AppId, InstallationId},
};

/// What GitHub counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LimitKey {
    /// Lookups with an App's own credential.
    App(AppId),
    /// Tokens minted for an installation.
    Mint(InstallationId),
    /// Reads with an installation's token.
    Read(InstallationId),
    /// Checks of an installation's repositories. They must not keep policies from being read.
    Check(InstallationId),
    /// Revocations of an installation's tokens.
    Revoke(InstallationId),
}

/// Until when each key is limited.
#[derive(Debug, Default)]
struct Limits(Mutex<HashMap<LimitKey, Moment>>);

impl Limits {
    /// What is left of the wait, if `key` is limited.
    fn wait(&self, key: LimitKey, now: Moment) -> Option<Duration> {
        let left = self.map().get(&key)?.since(now);
        (left > Duration::ZERO).then_some(left.max(MIN_WAIT))
    }

    /// Notes the limit that GitHub announced for `key`.
    fn note(&self, key: LimitKey, wait: Duration, now: Moment) {
        let mut map = self.map();
        map.retain(|_, until| *until > now);
        let until = map.entry(key).or_insert(now);
        *until = now.plus(wait).max(*until);
    }

    fn map(&self) -> MutexGuard<'_, HashMap<LimitKey, Moment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All calls are made through the gate. It holds back what is limited, notes the limits and quotas
/// that answers announce, and gives every failure its meaning.
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

    /// Whether a limit that GitHub announced keeps calls from being made now.
    pub(super) fn is_limited(&self, key: LimitKey) -> bool {
        self.limits.wait(key, self.clock.monotonic()).is_some()
    }

    /// Makes the call unless a limit is in force.
    pub(super) async fn call(&self, key: LimitKey, call: &Call) -> Result<ApiReply, Meaning> {
        if let Some(left) = self.limits.wait(key, self.clock.monotonic()) {
            return Err(Meaning::Limited(left));
        }
        let sent = self.clock.now();
        let outcome = self.client.call(call).await;
        if let Some(date) = date_of(&outcome) {
            self.drift.note(date, (sent, self.clock.now()), self.clock.monotonic());
        }
        self.quotas.note(key, &outcome, (self.clock.now(), self.clock.monotonic()));
        let failure = match outcome {
            Ok(reply) => return Ok(reply),
            Err(failure) => failure,
        };
        let announced = Announced::of(&failure);
        let meaning = Meaning::of(failure, self.clock.now());
        if let Meaning::Limited(wait) = meaning {
            self.limits.note(key, wait, self.clock.monotonic());
            self.quotas.count_limited(key, announced, wait);
        }
        Err(meaning)
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

    const KEY: LimitKey = LimitKey::Mint(InstallationId(1));
    const SECOND: Duration = Duration::from_secs(1);

    fn at(secs: u32) -> Moment {
        Moment::default().plus(SECOND * secs)
    }

    #[test]
    fn a_lane_is_closed_alone_and_until_the_last_limit_is_over() {
        let limits = Limits::default();
        limits.note(KEY, 30 * SECOND, at(0));
        limits.note(KEY, 10 * SECOND, at(0));
        assert_eq!(limits.wait(KEY, at(0)), Some(30 * SECOND));
        assert_eq!(limits.wait(LimitKey::Mint(InstallationId(2)), at(0)), None);
        assert_eq!(limits.wait(LimitKey::Read(InstallationId(1)), at(0)), None);
        assert_eq!(limits.wait(LimitKey::App(AppId(1)), at(0)), None);
        assert_eq!(limits.wait(KEY, at(0).plus(Duration::from_millis(29_900))), Some(MIN_WAIT));
        assert_eq!(limits.wait(KEY, at(30)), None);
    }

    #[test]
    fn limits_that_ended_take_no_memory() {
        let limits = Limits::default();
        for installation in 0..100 {
            limits.note(
                LimitKey::Mint(InstallationId(installation.into())),
                60 * SECOND,
                at(60 * installation),
            );
        }
        assert_eq!(limits.map().len(), 1);
    }
}
