//! What can go wrong with GitHub, as the rest of the crate sees it.
//!
//! Three layers. [`Failure`](super::failure::Failure) is how one call ended without success: an
//! answer that GitHub gave, or none. [`Meaning`](super::meaning::Meaning) is what that means,
//! decided in one place for every call. Each endpoint makes an [`Error`] of it, since one meaning
//! has different consequences in different places: a 404 is a missing file here and a vanished
//! installation there. This file has the last of the three.

use std::{borrow::Cow, time::Duration};

use super::signer::SignerError;
use crate::reason::Reason;

/// What operators see in the audit record. It may quote GitHub, so callers never see it.
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
    /// GitHub redirects from the account's name: it was renamed, and the App is not installed for
    /// anyone who has the name now.
    #[error("the owner's account was renamed: {0}")]
    AccountMoved(Cause),
    /// The owner, or GitHub, suspended the installation or the account.
    #[error("suspended: {0}")]
    Suspended(Cause),
    /// A token for one repository was requested, and GitHub answered that the installation does
    /// not see it. Nothing else is reported as this: a trusted-issuer list counts as absent by it.
    #[error("the installation does not see the repository")]
    RepositoryNotAccessible,
    /// GitHub redirects from the repository's name: it was renamed or transferred.
    #[error("the repository was renamed or transferred: {0}")]
    Moved(Cause),
    /// GitHub refuses the permissions of a grant.
    #[error("GitHub refuses the permissions: {cause}")]
    PermissionRefused {
        /// GitHub's words.
        cause: Cause,
        /// The permissions of the policy that the installation lacks, if that could be found out.
        lacking: Option<String>,
    },
    /// GitHub refuses the repositories of a grant.
    #[error("GitHub refuses the repositories: {cause}")]
    RepositoryRefused {
        /// GitHub's words.
        cause: Cause,
        /// The repositories that the installation does not see, if that could be found out.
        missing: Option<String>,
    },
    /// GitHub forbids the read, and it is not for a limit.
    #[error("GitHub forbids the read: {0}")]
    Forbidden(Cause),
    /// GitHub refuses the App's access: by an IP allow list or SAML, because the account or
    /// repository is blocked, or by any other answer that has no meaning of its own. It is final.
    #[error("GitHub refuses access: {0}")]
    Refused(Cause),
    /// GitHub no longer knows the installation. Evict it, look it up and try once more.
    #[error("GitHub does not know the installation any more: {0}")]
    Stale(Cause),
    /// GitHub does not accept a call with the App's credential. As [`Error::Stale`], but if another
    /// installation does not help, it is the credential.
    #[error("GitHub does not accept the App's credential: {0}")]
    Unauthorized(Cause),
    /// The read token does not work any more. Drop it and request another.
    #[error("GitHub does not accept the read token any more")]
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
    /// GitHub could not be reached: no connection, no answer in time, or an answer of 500 to 504.
    #[error("GitHub is unavailable: {cause}")]
    Unavailable {
        /// What happened.
        cause: Cause,
        /// How long GitHub asked to wait.
        retry_after: Option<Duration>,
    },
    /// GitHub answered, and the answer is not what it documents.
    #[error("GitHub's answer cannot be used: {0}")]
    Unexpected(Cause),
    /// The App key could not sign.
    #[error("the signer is unavailable: {0}")]
    Signer(SignerError),
    /// GitHub does not accept the App's signature, id or clock: the operator's configuration is
    /// wrong.
    #[error("GitHub does not accept the App: {0}")]
    Misconfigured(Cause),
    /// GitHub's reply is wider than the request, or is for another account. Its token was revoked.
    #[error("the reply is wider than the request: {0}")]
    Wider(Cause),
}

impl Error {
    /// GitHub could not be reached for `cause`, and said nothing of a wait.
    pub(crate) fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable { cause: cause.into(), retry_after: None }
    }

    /// The word of the contract.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoApp => Reason::NoApp,
            Self::NotInstalled | Self::AccountMoved(_) => Reason::NotInstalled,
            Self::Suspended(_) => Reason::InstallationSuspended,
            Self::RepositoryNotAccessible | Self::Moved(_) => Reason::RepositoryNotAccessible,
            Self::PermissionRefused { .. } => Reason::PermissionRefused,
            Self::RepositoryRefused { .. } => Reason::RepositoryRefused,
            Self::Forbidden(_) | Self::Refused(_) => Reason::PolicyForbidden,
            Self::Pin => Reason::AppPinUnsatisfied,
            Self::RateLimited { .. } => Reason::GithubRateLimited,
            Self::Stale(_)
            | Self::TokenRefused
            | Self::Unavailable { .. }
            | Self::Unexpected(_) => Reason::GithubUnavailable,
            Self::Signer(_) => Reason::SignerUnavailable,
            Self::Misconfigured(_) | Self::Unauthorized(_) | Self::Wider(_) => Reason::Internal,
        }
    }

    /// How long to wait before a retry can help, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::Unavailable { retry_after, .. } => *retry_after,
            Self::NoApp
            | Self::NotInstalled
            | Self::AccountMoved(_)
            | Self::Suspended(_)
            | Self::RepositoryNotAccessible
            | Self::Moved(_)
            | Self::PermissionRefused { .. }
            | Self::RepositoryRefused { .. }
            | Self::Forbidden(_)
            | Self::Refused(_)
            | Self::Stale(_)
            | Self::Unauthorized(_)
            | Self::TokenRefused
            | Self::Pin
            | Self::Unexpected(_)
            | Self::Signer(_)
            | Self::Misconfigured(_)
            | Self::Wider(_) => None,
        }
    }

    /// Whether GitHub could not be reached: only then may a cached copy stand in for its answer.
    /// Every other error is an answer, and ends the copy.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::RateLimited { .. } | Self::Signer(_))
    }

    /// Whether the App is not installed for the owner, or cannot act there.
    pub fn is_not_installed(&self) -> bool {
        matches!(self, Self::NotInstalled | Self::AccountMoved(_) | Self::Suspended(_))
    }

    /// Whether another App of the same pool may succeed where this one failed.
    pub fn is_of_one_app(&self) -> bool {
        matches!(
            self,
            Self::NotInstalled
                | Self::Suspended(_)
                | Self::RateLimited { .. }
                | Self::Signer(_)
                | Self::Stale(_)
                | Self::Unauthorized(_)
                | Self::Misconfigured(_)
                | Self::Forbidden(_)
                | Self::RepositoryNotAccessible
                | Self::PermissionRefused { .. }
                | Self::RepositoryRefused { .. }
        )
    }

    /// Whether the cached installation is to be evicted and looked up once more.
    pub fn doubts_installation(&self) -> bool {
        matches!(self, Self::Stale(_) | Self::Unauthorized(_) | Self::Wider(_))
    }
}
