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

use http::StatusCode;

use super::{
    client::{Call, Client, Reply},
    error::{Answer, Failure, LONGEST},
};
use crate::{
    clock::{Clock, UnixTime},
    name::InstallationId,
};

/// What GitHub counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// Look-ups with the App's own credential.
    App,
    /// Tokens minted for an installation.
    Mint(InstallationId),
    /// Reads with an installation's token.
    Read(InstallationId),
    /// Revocations of an installation's tokens.
    Revoke(InstallationId),
}

/// GitHub's advice where it announces a limit without its end.
const UNTOLD: Duration = Duration::from_secs(60);
/// The shortest wait, so that a caller does not come back at once.
const SHORTEST: Duration = Duration::from_secs(1);

/// Until when each lane is closed.
#[derive(Debug, Default)]
struct Limits(Mutex<HashMap<Lane, UnixTime>>);

impl Limits {
    /// What is left of the wait, if `lane` is closed.
    fn wait(&self, lane: Lane, now: UnixTime) -> Option<Duration> {
        let left = self.map().get(&lane)?.since(now);
        // A clock that was set back must not keep a lane closed for longer than any limit lasts.
        (left > Duration::ZERO && left <= LONGEST).then_some(left.max(SHORTEST))
    }

    /// Closes `lane` if the answer announces a limit; says for how long.
    fn note(&self, lane: Lane, answer: &Answer, now: UnixTime) -> Option<Duration> {
        let wait = announced(answer, now)?;
        let mut map = self.map();
        map.retain(|_, until| *until > now);
        let until = map.entry(lane).or_insert(now);
        *until = now.plus(wait).max(*until);
        Some(wait)
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Lane, UnixTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way out for all calls. A closed lane lets nothing through, and an answer that announces a
/// limit closes it.
pub(super) struct Gate {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    limits: Limits,
}

impl Gate {
    pub(super) fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self { client, clock, limits: Limits::default() }
    }

    /// Makes the call if its lane is open.
    pub(super) async fn call(&self, lane: Lane, call: &Call) -> Result<Reply, Failure> {
        if let Some(left) = self.limits.wait(lane, self.clock.now()) {
            return Err(Failure::Limited(left));
        }
        self.client.call(call).await.map_err(|failure| match failure {
            Failure::Answered(answer) => match self.limits.note(lane, &answer, self.clock.now()) {
                Some(wait) => Failure::Limited(wait),
                None => Failure::Answered(answer),
            },
            Failure::Limited(_) | Failure::Unanswered { .. } => failure,
        })
    }
}

/// How long the answer tells us to wait, if it announces a limit: a 429, or a 403 or 422 with the
/// headers of one, or a 403 in the words of one. A bare 403 is a refusal and no limit.
fn announced(answer: &Answer, now: UnixTime) -> Option<Duration> {
    let headers = answer.retry_after.is_some() || answer.remaining == Some(0);
    let words = || {
        [
            "secondary rate limit",
            "API rate limit exceeded",
            "abuse detection",
            "temporarily blocked from content creation",
        ]
        .iter()
        .any(|words| answer.says(words))
    };
    let limited = match answer.status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => headers || words(),
        StatusCode::UNPROCESSABLE_ENTITY => headers,
        _ => false,
    };
    let primary = || {
        let reset = i64::try_from(answer.reset.filter(|_| answer.remaining == Some(0))?).ok()?;
        Some(UnixTime::from_secs(reset).since(now)).filter(|left| !left.is_zero())
    };
    let wait = || answer.retry_after.map(Duration::from_secs).or_else(primary).unwrap_or(UNTOLD);
    limited.then(|| wait().clamp(SHORTEST, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
    const LANE: Lane = Lane::Mint(InstallationId(1));

    fn answer(status: u16, message: &str, headers: [Option<u64>; 3]) -> Answer {
        let [retry_after, remaining, reset] = headers;
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, message: message.into(), too_large: false, retry_after, remaining, reset, date: None }
    }

    #[test]
    fn what_announces_a_limit_and_for_how_long() {
        let reset = Some(1_700_000_100);
        for (status, message, headers, wait) in [
            (429, "", [None, None, None], Some(60)),
            (429, "", [Some(5), None, None], Some(5)),
            (429, "", [Some(0), None, None], Some(1)),
            (429, "", [Some(u64::MAX), None, None], Some(3600)),
            (403, "", [None, Some(0), reset], Some(100)),
            (403, "", [Some(9), Some(0), reset], Some(9)),
            (403, "", [None, Some(0), None], Some(60)),
            (403, "", [None, Some(0), Some(1_600_000_000)], Some(60)),
            (403, "", [None, Some(0), Some(u64::MAX)], Some(60)),
            (429, "", [None, Some(10), reset], Some(60)),
            (403, "You have exceeded a secondary rate limit. Please wait a few minutes.", [None; 3], Some(60)),
            (403, "You have triggered an abuse detection mechanism.", [None; 3], Some(60)),
            (403, "API rate limit exceeded for installation ID 1.", [None; 3], Some(60)),
            (403, "Resource not accessible by integration", [None, Some(4000), reset], None),
            (403, "This installation has been suspended", [None; 3], None),
            (422, "at least one repository", [Some(3), None, None], Some(3)),
            (422, "at least one repository", [None, Some(4000), reset], None),
            (404, "Not Found", [None, Some(0), reset], None),
            (503, "", [Some(3), None, None], None),
        ] {
            let noted = Limits::default().note(LANE, &answer(status, message, headers), NOW);
            assert_eq!(noted, wait.map(Duration::from_secs), "{status} {message} {headers:?}");
        }
    }

    #[test]
    fn a_lane_is_closed_alone_and_until_the_last_limit_is_over() {
        let limits = Limits::default();
        limits.note(LANE, &answer(429, "", [Some(30), None, None]), NOW);
        limits.note(LANE, &answer(429, "", [Some(10), None, None]), NOW);
        assert_eq!(limits.wait(LANE, NOW), Some(Duration::from_secs(30)));
        assert_eq!(limits.wait(Lane::Mint(InstallationId(2)), NOW), None);
        assert_eq!(limits.wait(Lane::Read(InstallationId(1)), NOW), None);
        assert_eq!(limits.wait(Lane::App, NOW), None);
        assert_eq!(limits.wait(LANE, NOW.plus(Duration::from_millis(29_900))), Some(SHORTEST));
        assert_eq!(limits.wait(LANE, NOW.plus(Duration::from_secs(30))), None);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_closed() {
        let limits = Limits::default();
        limits.note(LANE, &answer(429, "", [None; 3]), NOW);
        assert_eq!(limits.wait(LANE, NOW.minus(Duration::from_secs(86_400))), None);
    }

    #[test]
    fn limits_that_are_over_take_no_room() {
        let limits = Limits::default();
        for installation in 0..100 {
            let now = NOW.plus(Duration::from_secs(60 * installation));
            limits.note(Lane::Mint(InstallationId(installation)), &answer(429, "", [None; 3]), now);
        }
        assert_eq!(limits.map().len(), 1);
    }
}
