//! What an answer of GitHub's means: one decision for every call.
//!
//! The table is [`Meaning::of`]. It depends on the answer alone, never on the call that got it, so
//! that one cause has one reason wherever it is hit. What follows from a meaning is the endpoint's
//! business, and [`Error::from`] says it for all that has no special consequence there.

use std::time::Duration;

use http::StatusCode;

use super::{
    error::{Cause, Error},
    failure::{Answer, Failure, MAX_LIMIT},
};
use crate::clock::UnixTime;

/// What it means that a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// GitHub could not be reached: no connection, no answer in time, or 500 to 504.
    Outage { cause: Cause, retry_after: Option<Duration> },
    /// GitHub announced a limit, with this answer or an earlier one.
    Limited(Duration),
    /// The answer is not what GitHub documents.
    Unexpected(Cause),
    /// GitHub does not accept the App's own credential, and says what is wrong with it.
    AppRefused(AppFault, Cause),
    /// GitHub does not accept the credential.
    Unauthorized(Cause),
    /// The installation or the account is suspended.
    Suspended(Cause),
    /// GitHub points to another address.
    Moved(Cause),
    /// The App lacks a permission for this call.
    PermissionMissing(Cause),
    /// GitHub forbids it and gives no reason that is known here.
    Forbidden(Cause),
    /// There is nothing at the address.
    NotFound(Cause),
    /// The blob is too large for the endpoint.
    TooLarge(Cause),
    /// A repository of the request does not exist, or the installation does not see it.
    RepositoryNotAccessible(Cause),
    /// The request names more repositories than GitHub takes.
    TooManyRepositories(Cause),
    /// The installation does not have the permissions of the request.
    PermissionsNotGranted(Cause),
    /// GitHub understood the request and cannot carry it out.
    Unprocessable(Cause),
    /// Any other answer, and a 403 by an IP allow list, by SAML, or because access is blocked.
    Refused(Cause),
}

/// What GitHub does not accept about the App's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppFault {
    /// The signature.
    Key,
    /// The App's id.
    Id,
    /// The times in it.
    Clock,
}

/// GitHub's advice if it announces a limit without its end.
const DEFAULT_WAIT: Duration = Duration::from_secs(60);
/// The shortest wait, so that a caller does not come back immediately.
pub(super) const MIN_WAIT: Duration = Duration::from_secs(1);

impl Meaning {
    /// Reads how a call ended. `now` is for limits that end at a time of day.
    pub(super) fn of(failure: Failure, now: UnixTime) -> Self {
        match failure {
            Failure::NotSent(cause) | Failure::NoAnswer(cause) => {
                Self::Outage { cause, retry_after: None }
            }
            Failure::TimedOut => {
                Self::Outage { cause: "no answer in time".into(), retry_after: None }
            }
            Failure::Unexpected(cause) => Self::Unexpected(cause),
            Failure::Answered(answer) => Self::of_answer(&answer, now),
        }
    }

    fn of_answer(answer: &Answer, now: UnixTime) -> Self {
        if let Some(wait) = announced_limit(answer, now) {
            return Self::Limited(wait);
        }
        let cause = answer.cause();
        match answer.status.as_u16() {
            500..=504 => {
                let retry_after =
                    answer.retry_after.map(|secs| Duration::from_secs(secs).min(MAX_LIMIT));
                Self::Outage { cause, retry_after }
            }
            300..=399 if answer.status != StatusCode::NOT_MODIFIED => Self::Moved(cause),
            400..=499 if answer.says("suspended") => Self::Suspended(cause),
            401 => app_fault(answer).map_or_else(
                || Self::Unauthorized(answer.cause()),
                |fault| Self::AppRefused(fault, answer.cause()),
            ),
            404 if answer.says(UNKNOWN_APP) => Self::AppRefused(AppFault::Id, cause),
            404 => Self::NotFound(cause),
            403 if answer.too_large => Self::TooLarge(cause),
            403 if answer.says(MISSING_PERMISSION) => Self::PermissionMissing(cause),
            403 if ACCESS_REFUSED.iter().any(|words| answer.says(words)) => Self::Refused(cause),
            403 => Self::Forbidden(cause),
            // Of the sentence only what it means: servers that speak GitHub's API word it in other
            // ways.
            422 if answer.says("not accessible") => Self::RepositoryNotAccessible(cause),
            422 if answer.says("permissions requested") => Self::PermissionsNotGranted(cause),
            422 if answer.says("too many repositories") => Self::TooManyRepositories(cause),
            422 => Self::Unprocessable(cause),
            400..=499 => Self::Refused(cause),
            _ => Self::Unexpected(cause),
        }
    }

    /// Whether GitHub may not know a fresh token everywhere yet, or not its permissions.
    pub(super) fn may_be_replication(&self) -> bool {
        matches!(self, Self::Unauthorized(_) | Self::PermissionMissing(_))
    }

    /// Whether the App's own credential was refused, if the call was made with it.
    pub(super) fn refuses_app(&self) -> bool {
        matches!(self, Self::AppRefused(..) | Self::Unauthorized(_))
    }
}

const UNKNOWN_APP: &str = "Integration not found";
const MISSING_PERMISSION: &str = "Resource not accessible";
/// An IP allow list, SAML enforcement, and a block by GitHub.
const ACCESS_REFUSED: [&str; 3] = ["IP allow list", "SAML", "access blocked"];

fn app_fault(answer: &Answer) -> Option<AppFault> {
    let words = [
        ("claim ('exp')", AppFault::Clock),
        ("claim ('iat')", AppFault::Clock),
        ("claim ('iss')", AppFault::Id),
        (UNKNOWN_APP, AppFault::Id),
        ("JSON web token", AppFault::Key),
    ];
    words.into_iter().find_map(|(words, fault)| answer.says(words).then_some(fault))
}

/// How long the answer tells us to wait, if it announces a limit: a 429, or a 403 or 422 with the
/// headers of one, or a 403 in the words of one. A bare 403 is a refusal and not a limit. Neither
/// is a 403 that says what else is wrong: an exhausted quota in its headers is then only a
/// coincidence.
fn announced_limit(answer: &Answer, now: UnixTime) -> Option<Duration> {
    let is_exhausted = answer.remaining == Some(0);
    let is_limited = match answer.status.as_u16() {
        429 => true,
        403 => {
            answer.retry_after.is_some()
                || says_limit(answer)
                || (is_exhausted && !says_refusal(answer))
        }
        422 => answer.retry_after.is_some() || is_exhausted,
        _ => false,
    };
    let primary = || {
        let reset = i64::try_from(answer.reset.filter(|_| is_exhausted)?).ok()?;
        Some(UnixTime::from_secs(reset).since(now)).filter(|left| !left.is_zero())
    };
    let wait =
        || answer.retry_after.map(Duration::from_secs).or_else(primary).unwrap_or(DEFAULT_WAIT);
    is_limited.then(|| wait().clamp(MIN_WAIT, MAX_LIMIT))
}

fn says_limit(answer: &Answer) -> bool {
    let words = [
        "secondary rate limit",
        "API rate limit exceeded",
        "abuse detection",
        "temporarily blocked from content creation",
    ];
    words.iter().any(|words| answer.says(words))
}

fn says_refusal(answer: &Answer) -> bool {
    let others = ["suspended", MISSING_PERMISSION];
    answer.too_large || ACCESS_REFUSED.iter().chain(&others).any(|words| answer.says(words))
}

/// What follows if the endpoint has no special consequence for it.
impl From<Meaning> for Error {
    fn from(meaning: Meaning) -> Self {
        match meaning {
            Meaning::Outage { cause, retry_after } => Self::Unavailable { cause, retry_after },
            Meaning::Limited(retry_after) => Self::RateLimited { retry_after },
            Meaning::Unexpected(cause) => Self::Unexpected(cause),
            Meaning::AppRefused(_, cause) => Self::Misconfigured(cause),
            Meaning::Unauthorized(cause) => Self::Unauthorized(cause),
            Meaning::Suspended(cause) => Self::Suspended(cause),
            Meaning::Moved(cause) => Self::Moved(cause),
            Meaning::PermissionMissing(cause) | Meaning::Forbidden(cause) => Self::Forbidden(cause),
            Meaning::NotFound(cause)
            | Meaning::TooLarge(cause)
            | Meaning::RepositoryNotAccessible(cause)
            | Meaning::TooManyRepositories(cause)
            | Meaning::PermissionsNotGranted(cause)
            | Meaning::Unprocessable(cause)
            | Meaning::Refused(cause) => Self::Refused(cause),
        }
    }
}
