//! What can go wrong with GitHub, as the rest of the crate sees it.
//!
//! Two layers. [`Failure`] is one call that did not succeed: an [`Answer`] that GitHub gave, or
//! none. Each endpoint reads it and makes an [`Error`] of it, since one status means different
//! things in different places: a 404 is a missing file here and a vanished installation there.
//! octocrab's errors end in this file. They are never shown with `Debug`, which resolves a
//! backtrace for a tenth of a second and more.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, StatusCode, header};

use crate::{
    clock::UnixTime,
    name::Owner,
    reason::{Reason, Refusal},
};

/// What operators are told. It may quote GitHub, so callers never see it.
pub type Cause = Cow<'static, str>;

/// Why GitHub gave us nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No App is configured.
    #[error("no GitHub App is configured")]
    NoApp,
    /// The App is not installed on the owner's account, or there is no such owner.
    #[error("the App is not installed for the owner")]
    NotInstalled,
    /// The owner, or GitHub, suspended the installation.
    #[error("the installation is suspended")]
    Suspended,
    /// A token for one repository was asked for, and GitHub answered that the installation does
    /// not see it. Nothing else is reported as this: a trusted-issuer list counts as absent by it.
    #[error("the installation does not see the repository")]
    RepositoryNotAccessible,
    /// GitHub redirects from the repository's name: it was renamed or transferred.
    #[error("the repository was moved")]
    Moved,
    /// GitHub refuses the permissions of a grant.
    #[error("GitHub refuses the permissions: {0}")]
    PermissionRefused(Cause),
    /// GitHub refuses the repositories of a grant.
    #[error("GitHub refuses the repositories: {0}")]
    RepositoryRefused(Cause),
    /// GitHub forbids the read, and it is not for a limit.
    #[error("GitHub forbids the read: {0}")]
    Forbidden(Cause),
    /// GitHub no longer knows the installation. Forget it, look it up and try once more.
    #[error("GitHub does not know the installation any more")]
    Stale,
    /// The read token does not work any more. Drop it and ask for another.
    #[error("GitHub does not take the read token any more")]
    TokenRefused,
    /// The policy pins another App.
    #[error("the policy pins another App")]
    Pin,
    /// GitHub announced a limit, now or earlier.
    #[error("GitHub's rate limit holds for {} s", retry_after.as_secs())]
    RateLimited {
        /// What is left of the wait.
        retry_after: Duration,
    },
    /// GitHub did not answer, or not with what it should.
    #[error("GitHub is unavailable: {cause}")]
    Unavailable {
        /// What happened.
        cause: Cause,
        /// How long GitHub asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// The App key could not sign.
    #[error("the signer is unavailable: {0}")]
    Signer(Cause),
    /// GitHub does not take the App's signature, id or clock: a mistake of the operator.
    #[error("GitHub does not accept the App: {0}")]
    Misconfigured(Cause),
    /// GitHub's reply is wider than what was asked for. Its token was revoked.
    #[error("the reply is wider than the request: {0}")]
    Wider(Cause),
}

impl Error {
    /// GitHub is unavailable for `cause`, and said nothing of a wait.
    pub(crate) fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable { cause: cause.into(), retry_after: None }
    }

    /// The word of the contract.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoApp => Reason::NoApp,
            Self::NotInstalled => Reason::NotInstalled,
            Self::Suspended => Reason::InstallationSuspended,
            Self::RepositoryNotAccessible | Self::Moved => Reason::RepositoryNotAccessible,
            Self::PermissionRefused(_) => Reason::PermissionRefused,
            Self::RepositoryRefused(_) => Reason::RepositoryRefused,
            Self::Forbidden(_) => Reason::PolicyForbidden,
            Self::Pin => Reason::AppPinUnsatisfied,
            Self::RateLimited { .. } => Reason::GithubRateLimited,
            Self::Stale | Self::TokenRefused | Self::Unavailable { .. } => Reason::GithubUnavailable,
            Self::Signer(_) => Reason::SignerUnavailable,
            Self::Misconfigured(_) | Self::Wider(_) => Reason::Internal,
        }
    }

    /// How long to wait before a retry can help, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::Unavailable { retry_after, .. } => *retry_after,
            Self::NoApp
            | Self::NotInstalled
            | Self::Suspended
            | Self::RepositoryNotAccessible
            | Self::Moved
            | Self::PermissionRefused(_)
            | Self::RepositoryRefused(_)
            | Self::Forbidden(_)
            | Self::Stale
            | Self::TokenRefused
            | Self::Pin
            | Self::Signer(_)
            | Self::Misconfigured(_)
            | Self::Wider(_) => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self.reason(), Reason::GithubRateLimited | Reason::GithubUnavailable | Reason::SignerUnavailable)
    }

    /// The refusal of an exchange that ended with this error: fixed text for the caller, the rest
    /// for operators.
    pub fn refusal(&self, owner: &Owner) -> Refusal {
        let text: Cow<'static, str> = match self {
            Self::NoApp => format!("no GitHub App configured for org {owner:?}").into(),
            Self::NotInstalled => format!("no installation found for {owner:?}").into(),
            Self::Suspended => "the App's installation is suspended".into(),
            Self::RepositoryNotAccessible | Self::Moved => "the App's installation does not see the repository".into(),
            Self::PermissionRefused(_) => "GitHub refuses the policy's permissions for this installation".into(),
            Self::RepositoryRefused(_) => "GitHub refuses the policy's repositories for this installation".into(),
            Self::Forbidden(_) => "GitHub forbids reading the policy".into(),
            Self::Pin => "the App that the policy pins cannot be used".into(),
            Self::RateLimited { .. } => "GitHub's rate limit is reached".into(),
            Self::Stale | Self::TokenRefused | Self::Unavailable { .. } => "GitHub is unavailable".into(),
            Self::Signer(_) => "the App's signer is unavailable".into(),
            Self::Misconfigured(_) | Self::Wider(_) => "internal error".into(),
        };
        Refusal::new(self.reason(), text).because(self).retry_after(self.retry_after())
    }
}

/// The longest wait that an answer can impose: the window of GitHub's primary limit.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// A call that did not end with a success.
#[derive(Debug)]
pub(super) enum Failure {
    /// GitHub answered with a status that is no success.
    Answered(Box<Answer>),
    /// GitHub announced a limit, with this call or before it.
    Limited(Duration),
    /// No usable answer came.
    Unanswered {
        /// What happened instead.
        cause: Cause,
        /// Whether another try can do better.
        again: bool,
    },
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// GitHub's words, on one line, cut at 256 bytes.
    pub(super) message: String,
    /// Whether GitHub says that the blob is too large for the endpoint.
    pub(super) too_large: bool,
    /// `Retry-After`, in seconds.
    pub(super) retry_after: Option<u64>,
    /// `x-ratelimit-remaining`.
    pub(super) remaining: Option<u64>,
    /// `x-ratelimit-reset`, in seconds since the epoch.
    pub(super) reset: Option<u64>,
    /// `Date`: what time GitHub has.
    pub(super) date: Option<UnixTime>,
}

impl Failure {
    /// A reply that is not what GitHub documents.
    pub(super) fn odd(cause: impl Into<Cause>) -> Self {
        Self::Unanswered { cause: cause.into(), again: false }
    }

    /// The status of the answer, if there is one.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Answered(answer) => Some(answer.status),
            Self::Limited(_) | Self::Unanswered { .. } => None,
        }
    }
}

impl Answer {
    /// Whether GitHub's words hold `phrase`, in any letter case.
    pub(super) fn says(&self, phrase: &str) -> bool {
        self.message.to_ascii_lowercase().contains(&phrase.to_ascii_lowercase())
    }

    /// Whether the App's own credential was refused: its key, its id or its clock.
    pub(super) fn refuses_app(&self) -> bool {
        let words = ["JSON web token", "Integration not found", "claim ('exp')", "claim ('iat')", "claim ('iss')"];
        matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND)
            && words.iter().any(|word| self.says(word))
    }

    /// Whether GitHub points to another address. A 304 does not.
    pub(super) fn moved(&self) -> bool {
        self.status.is_redirection() && self.status != StatusCode::NOT_MODIFIED
    }

    /// What operators are told of it.
    pub(super) fn cause(&self) -> Cause {
        format!("{}: {}", self.status.as_u16(), self.message).into()
    }
}

/// What is left when an endpoint has named all the statuses that mean something there.
impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Limited(retry_after) => Self::RateLimited { retry_after },
            Failure::Unanswered { cause, .. } => Self::unavailable(cause),
            Failure::Answered(answer) if answer.says("installation has been suspended") => Self::Suspended,
            Failure::Answered(answer) => {
                let retry_after = answer.retry_after.map(|secs| Duration::from_secs(secs).min(LONGEST));
                Self::Unavailable { cause: answer.cause(), retry_after }
            }
        }
    }
}

impl From<octocrab::Error> for Failure {
    #[expect(clippy::wildcard_enum_match_arm, reason = "octocrab's enum is non-exhaustive")]
    fn from(error: octocrab::Error) -> Self {
        match error {
            octocrab::Error::GitHub { source, .. } => Self::Answered(Box::new(Answer::from(*source))),
            octocrab::Error::Service { source, .. } if source.is::<tower::timeout::error::Elapsed>() => {
                Self::Unanswered { cause: "no answer in time".into(), again: true }
            }
            octocrab::Error::Service { source, .. } if source.is::<http_body_util::LengthLimitError>() => {
                Self::odd("the answer is too large")
            }
            octocrab::Error::Service { source, .. } => {
                Self::Unanswered { cause: chain(source.as_ref()).into(), again: true }
            }
            _ => Self::odd("the call could not be made"),
        }
    }
}

impl From<octocrab::GitHubError> for Answer {
    fn from(error: octocrab::GitHubError) -> Self {
        let headers = error.headers.unwrap_or_default();
        let too_large = error.errors.iter().flatten().any(|e| e.get("code").is_some_and(|code| code == "too_large"));
        Self {
            status: error.status_code,
            message: one_line(&error.message),
            too_large,
            retry_after: number(&headers, header::RETRY_AFTER.as_str()),
            remaining: number(&headers, "x-ratelimit-remaining"),
            reset: number(&headers, "x-ratelimit-reset"),
            date: date(&headers),
        }
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// The time that GitHub put on a reply.
pub(super) fn date(headers: &HeaderMap) -> Option<UnixTime> {
    UnixTime::parse_http_date(headers.get(header::DATE)?.to_str().ok()?)
}

/// An error and what it came from, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    one_line(&text)
}

/// The text without control characters, cut at 256 bytes.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(256));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_read_nothing_of_a_cause_and_operators_all_of_it() {
        let owner: Owner = "octo-org".parse().unwrap();
        let told = || Cause::from("GITHUB-SAID");
        for (error, reason) in [
            (Error::PermissionRefused(told()), Reason::PermissionRefused),
            (Error::RepositoryRefused(told()), Reason::RepositoryRefused),
            (Error::Forbidden(told()), Reason::PolicyForbidden),
            (Error::unavailable(told()), Reason::GithubUnavailable),
            (Error::Signer(told()), Reason::SignerUnavailable),
            (Error::Misconfigured(told()), Reason::Internal),
            (Error::Wider(told()), Reason::Internal),
        ] {
            let refusal = error.refusal(&owner);
            assert_eq!(refusal.reason, reason);
            assert!(!refusal.message.contains("GITHUB-SAID"), "{error}");
            assert!(refusal.cause.unwrap().contains("GITHUB-SAID"), "{error}");
        }
    }

    #[test]
    fn the_go_services_words_for_a_missing_app_and_installation() {
        let owner: Owner = "octo-org".parse().unwrap();
        assert_eq!(Error::NoApp.refusal(&owner).message, r#"no GitHub App configured for org "octo-org""#);
        assert_eq!(Error::NotInstalled.refusal(&owner).message, r#"no installation found for "octo-org""#);
    }

    #[test]
    fn a_wait_is_handed_on() {
        let limited = Error::RateLimited { retry_after: Duration::from_secs(9) };
        assert_eq!(limited.refusal(&"o".parse().unwrap()).retry_after, Some(Duration::from_secs(9)));
        assert!(limited.is_transient());
        assert!(!Error::NotInstalled.is_transient() && !Error::Misconfigured("".into()).is_transient());
    }
}
