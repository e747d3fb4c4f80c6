//! What GitHub says is left of its hourly quotas.
//!
//! The last fifth of each quota is kept for callers that were granted a token within the last day.
//! GitHub may send no quota for calls with the App's credential; then nothing is kept back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;

use super::{Inner, client::ApiReply, failure::Failure, installation::Known, limits::LimitKey};
use crate::{
    clock::UnixTime,
    name::{InstallationId, Owner},
};

/// One part in so many of a quota is kept.
const KEPT: u64 = 5;
/// No window of GitHub's is longer.
const WINDOW: Duration = Duration::from_secs(60 * 60);

/// A quota that is nearly used up, and how long until GitHub renews it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scarce {
    /// That of calls with the App's credential: the same for every owner.
    App(Duration),
    /// That of the owner's installation.
    Installation(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Pool {
    App,
    Installation(InstallationId),
}

impl Pool {
    fn of(key: LimitKey) -> Option<Self> {
        match key {
            LimitKey::App => Some(Self::App),
            LimitKey::Read(installation) => Some(Self::Installation(installation)),
            LimitKey::Mint(_) | LimitKey::Revoke(_) => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Quota {
    limit: u64,
    remaining: u64,
    reset: UnixTime,
}

/// The quotas of the current windows.
#[derive(Debug, Default)]
pub(super) struct Quotas(Mutex<HashMap<Pool, Quota>>);

impl Quotas {
    /// Notes the quota that an answer reports.
    pub(super) fn note(&self, key: LimitKey, outcome: &Result<ApiReply, Failure>, now: UnixTime) {
        let numbers = match outcome {
            Ok(reply) => {
                let number = |name: &str| number(&reply.headers, name);
                (
                    number("x-ratelimit-limit"),
                    number("x-ratelimit-remaining"),
                    number("x-ratelimit-reset"),
                )
            }
            Err(Failure::Answered(answer)) => (None, answer.remaining, answer.reset),
            Err(
                Failure::NotSent(_)
                | Failure::NoAnswer(_)
                | Failure::TimedOut
                | Failure::Unexpected(_),
            ) => return,
        };
        self.note_numbers(key, numbers, now);
    }

    fn note_numbers(
        &self,
        key: LimitKey,
        (limit, remaining, reset): (Option<u64>, Option<u64>, Option<u64>),
        now: UnixTime,
    ) {
        let (Some(pool), Some(remaining), Some(reset)) = (Pool::of(key), remaining, reset) else {
            return;
        };
        let reset = UnixTime::from_secs(i64::try_from(reset).unwrap_or(i64::MAX));
        let mut quotas = self.map();
        let before = quotas.get(&pool).map(|quota| quota.limit);
        if before.is_none() {
            quotas.retain(|_, quota| quota.reset > now);
        }
        let limit = limit.or(before).unwrap_or(remaining).max(remaining);
        quotas.insert(pool, Quota { limit, remaining, reset });
    }

    fn scarce(&self, pool: Pool, now: UnixTime) -> Option<Duration> {
        let quota = *self.map().get(&pool)?;
        let left = quota.reset.since(now);
        // If nothing is left, there is nothing to keep, and the limit that GitHub announced counts.
        let is_low = quota.remaining > 0 && quota.remaining.saturating_mul(KEPT) <= quota.limit;
        (is_low && !left.is_zero() && left <= WINDOW).then_some(left)
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Pool, Quota>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// Whether lookups for the owner would use the part of a quota that is kept.
pub(super) fn scarce(
    inner: &Arc<Inner>,
    owner: &Owner,
    is_installation_cached: bool,
) -> Option<Scarce> {
    let (quotas, now) = (&inner.gate.quotas, inner.gate.clock.now());
    let of_app = || quotas.scarce(Pool::App, now).map(Scarce::App);
    let of_installation = || match inner.installations.get(owner)?.value {
        Known::Installed(found) => {
            quotas.scarce(Pool::Installation(found.id()), now).map(Scarce::Installation)
        }
        Known::Suspended(_) | Known::Absent | Known::Moved(_) => None,
    };
    if is_installation_cached { of_installation() } else { of_app().or_else(of_installation) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
    const LANE: LimitKey = LimitKey::Read(InstallationId(1));
    const POOL: Pool = Pool::Installation(InstallationId(1));

    #[test]
    fn the_last_fifth_of_a_quota_is_kept_until_it_is_renewed() {
        let reset = Some(1_700_000_600);
        for (limit, remaining, kept) in [
            (Some(5_000), Some(5_000), false),
            (Some(5_000), Some(1_001), false),
            (Some(5_000), Some(1_000), true),
            (Some(5_000), Some(1), true),
            (Some(5_000), Some(0), false),
            (Some(15_000), Some(3_001), false),
            (Some(15_000), Some(3_000), true),
            (None, Some(10), false),
            (Some(5_000), None, false),
        ] {
            let quotas = Quotas::default();
            quotas.note_numbers(LANE, (limit, remaining, reset), NOW);
            let wait = kept.then_some(Duration::from_secs(600));
            assert_eq!(quotas.scarce(POOL, NOW), wait, "{limit:?} {remaining:?}");
            assert_eq!(quotas.scarce(POOL, NOW.plus(Duration::from_secs(600))), None);
            assert_eq!(quotas.scarce(Pool::App, NOW), None, "each quota by itself");
        }
    }

    #[test]
    fn an_error_reports_what_is_left_and_the_limit_is_known_from_before() {
        let quotas = Quotas::default();
        quotas.note_numbers(LANE, (Some(5_000), Some(1_001), Some(1_700_000_600)), NOW);
        quotas.note_numbers(LANE, (None, Some(1_000), Some(1_700_000_600)), NOW);
        assert!(quotas.scarce(POOL, NOW).is_some());
    }

    #[test]
    fn quotas_of_past_windows_take_no_room() {
        let quotas = Quotas::default();
        for n in 0..100 {
            let now = NOW.plus(Duration::from_secs(3600 * n));
            let reset = u64::try_from(now.as_secs()).unwrap() + 60;
            quotas.note_numbers(
                LimitKey::Read(InstallationId(n)),
                (Some(5_000), Some(1), Some(reset)),
                now,
            );
        }
        assert_eq!(quotas.map().len(), 1);
    }
}
