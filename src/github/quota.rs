//! What GitHub says is left of its hourly quotas.
//!
//! Each App has a quota for its own credential, and each installation has one. The last fifth of
//! each is kept for callers that were granted a token within the last day; routing between Apps
//! follows what is left of the installations' quotas. GitHub may send no quota for calls with the
//! App's credential; then nothing is kept back.
//!
//! The quotas of installations are also published, under the names by which the Go service
//! publishes them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, StatusCode};

use super::{
    Inner,
    client::ApiReply,
    failure::Failure,
    installation::{self, Installation},
    limits::LimitKey,
};
use crate::{
    clock::{Moment, UnixTime},
    name::{AppId, InstallationId, Owner},
    telemetry::{label, metric},
};

/// One part in so many of a quota is kept.
const KEPT: u64 = 5;
/// No window of GitHub's is longer.
const WINDOW: Duration = Duration::from_secs(60 * 60);
/// Installations whose quotas are published at most. Each has its own time series.
const MAX_PUBLISHED: usize = 500;

/// A quota that is nearly used up, and how long until GitHub renews it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scarce {
    /// Those of calls with the Apps' credentials: the same for every owner of the pool.
    App(Duration),
    /// Those of the owner's installations.
    Installation(Duration),
}

/// Whose quota it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    App(AppId),
    Installation(InstallationId),
}

impl Holder {
    fn of(key: LimitKey) -> Option<Self> {
        match key {
            LimitKey::App(app) => Some(Self::App(app)),
            LimitKey::Read(installation) | LimitKey::Check(installation) => {
                Some(Self::Installation(installation))
            }
            LimitKey::Mint(_) | LimitKey::Revoke(_) => None,
        }
    }
}

/// How an answer announced a limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announced {
    status: StatusCode,
    remaining: Option<u64>,
    has_wait: bool,
}

impl Announced {
    pub(super) fn of(failure: &Failure) -> Option<Self> {
        let status = failure.status()?;
        let has_wait = failure.server_wait().is_some();
        let remaining = match failure {
            Failure::Answered(answer) => answer.remaining,
            Failure::NotSent(_)
            | Failure::NoAnswer(_)
            | Failure::TimedOut
            | Failure::Unexpected(_) => None,
        };
        Some(Self { status, remaining, has_wait })
    }
}

#[derive(Debug, Clone, Copy)]
struct Quota {
    limit: u64,
    remaining: u64,
    reset: UnixTime,
    noted_at: Moment,
}

/// The quotas of the current windows.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    quotas: Mutex<HashMap<Holder, Quota>>,
    /// Whose installations they are, for the published metrics.
    installations: Mutex<HashMap<InstallationId, [(&'static str, String); 3]>>,
}

impl Quotas {
    /// Notes the quota that an answer reports.
    pub(super) fn note(
        &self,
        key: LimitKey,
        outcome: &Result<ApiReply, Failure>,
        now: (UnixTime, Moment),
    ) {
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
        (now, noted_at): (UnixTime, Moment),
    ) {
        let (Some(holder), Some(remaining), Some(reset)) = (Holder::of(key), remaining, reset)
        else {
            return;
        };
        let reset = UnixTime::from_secs(i64::try_from(reset).unwrap_or(i64::MAX));
        let mut quotas = self.map();
        let before = quotas.get(&holder).map(|quota| quota.limit);
        if before.is_none() {
            quotas.retain(|_, quota| quota.reset > now);
        }
        let limit = limit.or(before).unwrap_or(remaining).max(remaining);
        let quota = Quota { limit, remaining, reset, noted_at };
        quotas.insert(holder, quota);
        drop(quotas);
        if let Holder::Installation(installation) = holder {
            self.publish(installation, quota, now);
        }
    }

    /// Notes whose installation it is.
    pub(super) fn note_installation(&self, id: InstallationId, app: AppId, owner: &Owner) {
        let mut installations = self.installations();
        if installations.len() < MAX_PUBLISHED || installations.contains_key(&id) {
            let labels = [
                (label::ORGANIZATION, owner.key().to_owned()),
                (label::APP_ID, app.to_string()),
                (label::INSTALLATION_ID, id.to_string()),
            ];
            installations.insert(id, labels);
        }
    }

    fn publish(&self, installation: InstallationId, quota: Quota, now: UnixTime) {
        let Some(labels) = self.installations().get(&installation).cloned() else { return };
        let [organization, app, installation] = labels;
        metrics::gauge!(metric::QUOTA_REPORTED, &[organization.clone(), app.clone()])
            .set(now.as_secs_f64());
        let labels = [(label::RESOURCE, "core".to_owned()), organization, app, installation];
        let Quota { limit, remaining, reset, .. } = quota;
        let gauge = |name: &'static str, value: f64| metrics::gauge!(name, &labels).set(value);
        gauge(metric::GITHUB_LIMIT, number_of(limit));
        gauge(metric::GITHUB_LIMIT_REMAINING, number_of(remaining));
        gauge(metric::GITHUB_LIMIT_RESET, number_of(reset.as_secs().unsigned_abs()));
        if limit > 0 {
            let used = limit.saturating_sub(remaining);
            gauge(metric::GITHUB_LIMIT_USED, number_of(used) / number_of(limit));
        }
        gauge(metric::GITHUB_LIMIT_TIME_TO_RESET, reset.since(now).as_secs_f64() / 60.0);
    }

    /// Counts an answer that announced a limit.
    pub(super) fn count_limited(
        &self,
        key: LimitKey,
        announced: Option<Announced>,
        wait: Duration,
    ) {
        let installation = match key {
            LimitKey::App(_) => None,
            LimitKey::Mint(id)
            | LimitKey::Read(id)
            | LimitKey::Check(id)
            | LimitKey::Revoke(id) => Some(id),
        };
        let known = installation.and_then(|id| self.installations().get(&id).cloned());
        let app = if let LimitKey::App(id) = key { id.to_string() } else { String::new() };
        let unknown = [
            (label::ORGANIZATION, String::new()),
            (label::APP_ID, app),
            (label::INSTALLATION_ID, String::new()),
        ];
        let [organization, app, installation] = known.unwrap_or(unknown);
        let kind = match announced {
            Some(Announced { remaining: Some(0), .. }) => "primary",
            Some(Announced { remaining: Some(_), .. } | Announced { has_wait: true, .. }) => {
                "secondary"
            }
            Some(_) | None => "unknown",
        };
        let code = announced.map(|announced| announced.status.as_str().to_owned());
        let kind = (label::RATE_LIMIT_TYPE, kind.to_owned());
        let labels = [organization, app, installation, kind];
        metrics::gauge!(metric::GITHUB_RETRY_AFTER, &labels).set(wait.as_secs_f64());
        let [organization, app, installation, kind] = labels;
        let code = (label::CODE, code.unwrap_or_default());
        let labels = [organization, app, installation, kind, code];
        metrics::counter!(metric::GITHUB_LIMIT_ERRORS, &labels).increment(1);
    }

    /// How long until GitHub renews an installation's quota, if less than `floor` is left of it. Of
    /// a small quota, half counts as the floor.
    pub(super) fn below(
        &self,
        installation: InstallationId,
        floor: u64,
        now: UnixTime,
    ) -> Option<Duration> {
        let quota = *self.map().get(&Holder::Installation(installation))?;
        let is_low = quota.remaining < floor.min(quota.limit / 2) && quota.reset > now;
        is_low.then(|| quota.reset.since(now).min(WINDOW))
    }

    /// What is left of an installation's quota, if GitHub reported it within `stale`.
    pub(super) fn remaining(
        &self,
        installation: InstallationId,
        stale: Duration,
        (now, moment): (UnixTime, Moment),
    ) -> Option<u64> {
        let quota = *self.map().get(&Holder::Installation(installation))?;
        let is_current = moment.since(quota.noted_at) < stale;
        // At its reset, GitHub begins a new hour.
        is_current.then_some(if quota.reset > now { quota.remaining } else { quota.limit })
    }

    fn scarce(&self, holder: Holder, now: UnixTime) -> Option<Duration> {
        let quota = *self.map().get(&holder)?;
        let left = quota.reset.since(now);
        // If nothing is left, there is nothing to keep, and the limit that GitHub announced counts.
        let is_low = quota.remaining > 0 && quota.remaining.saturating_mul(KEPT) <= quota.limit;
        (is_low && !left.is_zero() && left <= WINDOW).then_some(left)
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Holder, Quota>> {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn installations(
        &self,
    ) -> MutexGuard<'_, HashMap<InstallationId, [(&'static str, String); 3]>> {
        self.installations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// GitHub's numbers are far below 2^53, up to which this is exact.
fn number_of(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// Whether lookups for the owner would use the part of a quota that is kept. An App whose quota is
/// not scarce, or not known, can serve the lookup.
pub(super) fn scarce(
    inner: &Arc<Inner>,
    owner: &Owner,
    is_installation_cached: bool,
) -> Option<Scarce> {
    let quotas = &inner.gate.quotas;
    let now = inner.gate.clock.now();
    let pool = inner.pool(owner).ok()?;
    let of_apps = || {
        let waits = pool.apps.iter().map(|app| quotas.scarce(Holder::App(app.id()), now));
        shortest_if_all(waits).map(Scarce::App)
    };
    let of_installations = || {
        let installed = pool.apps.iter().filter_map(|app| installation::cached(inner, app, owner));
        let wait = |found: Installation| quotas.scarce(Holder::Installation(found.id()), now);
        shortest_if_all(installed.map(wait)).map(Scarce::Installation)
    };
    if is_installation_cached { of_installations() } else { of_apps().or_else(of_installations) }
}

/// The shortest wait, if there is something to wait for everywhere.
fn shortest_if_all(waits: impl Iterator<Item = Option<Duration>>) -> Option<Duration> {
    let waits: Option<Vec<Duration>> = waits.collect();
    waits?.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
    const KEY: LimitKey = LimitKey::Read(InstallationId(1));
    const HOLDER: Holder = Holder::Installation(InstallationId(1));

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
            quotas.note_numbers(KEY, (limit, remaining, reset), (NOW, Moment::default()));
            let wait = kept.then_some(Duration::from_secs(600));
            assert_eq!(quotas.scarce(HOLDER, NOW), wait, "{limit:?} {remaining:?}");
            assert_eq!(quotas.scarce(HOLDER, NOW.plus(Duration::from_secs(600))), None);
            assert_eq!(quotas.scarce(Holder::App(AppId(1)), NOW), None, "each quota by itself");
        }
    }

    #[test]
    fn an_error_reports_what_is_left_and_the_limit_is_known_from_before() {
        let quotas = Quotas::default();
        quotas.note_numbers(
            KEY,
            (Some(5_000), Some(1_001), Some(1_700_000_600)),
            (NOW, Moment::default()),
        );
        quotas.note_numbers(
            KEY,
            (None, Some(1_000), Some(1_700_000_600)),
            (NOW, Moment::default()),
        );
        assert!(quotas.scarce(HOLDER, NOW).is_some());
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
                (now, Moment::default()),
            );
        }
        assert_eq!(quotas.map().len(), 1);
    }
}
