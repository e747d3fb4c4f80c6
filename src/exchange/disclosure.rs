//! What a reply says of a failure, by who the caller is.
//!
//! There are three kinds of callers. Those whose token is not verified get one answer, whatever
//! exists. Outsiders are verified, but could be anyone with an account somewhere: they learn what
//! their own token said, not what a private policy asks for. Insiders could read the policy anyway.

use std::{borrow::Cow, fmt, time::Duration};

use crate::{
    admission::Empty,
    audit::record::cut,
    cpu_limiter::CpuError,
    deny_file::DeniedByOperator,
    github,
    name::{Owner, PolicyName, Scope},
    oidc::{self, IssuerKind, VerifiedToken},
    policy::{Denied, NotCovered},
    reason::{Condition, Reason, Refusal, Workload},
    replay::NotClaimed,
    store::{self, Found},
};

/// How much a verified caller may learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// A workflow of the scope's owner, or a workload of an issuer that the policy names exactly
    /// and whose subjects are all the operator's own.
    Insider,
    /// Anyone else.
    Outsider,
}

impl Audience {
    pub(super) fn of(token: &VerifiedToken, scope: &Scope, found: &Found) -> Self {
        let owns = token.issuer_kind() == IssuerKind::Actions
            && token
                .claims()
                .get("repository_owner")
                .and_then(serde_json::Value::as_str)
                .is_some_and(|owner| owner.eq_ignore_ascii_case(scope.owner().as_str()));
        let named = token.is_single_tenant()
            && matches!(found, Found::Present(file) if file.policy.exact_issuer() == Some(token.issuer().as_str()));
        if owns || named { Self::Insider } else { Self::Outsider }
    }
}

/// The one answer for callers whose token is not verified; `cause` is for operators.
pub(super) fn not_trusted(cause: impl fmt::Display) -> Refusal {
    Refusal::new(
        Reason::IssuerNotTrusted,
        "issuer not trusted: check scope, identity, that the App is installed, and that the policy names this issuer",
    )
    .because(cause)
}

/// The policy or the list is expensive to evaluate, and was not.
pub(super) fn cpu(error: CpuError) -> Refusal {
    match error {
        CpuError::Overloaded => {
            Refusal::new(Reason::RateLimited, "too much expensive evaluation for this owner")
                .because(error)
                .retry_after(Duration::from_secs(1))
        }
        CpuError::Panicked => Refusal::new(Reason::Internal, "internal error").because(error),
    }
}

/// The operator did not list the owner in `STS_OWNERS`.
pub(super) fn not_served(owner: &Owner) -> Refusal {
    github(&github::Error::NoApp, owner).because("the owner is not listed in STS_OWNERS")
}

/// The operator denies it. What the deny file says is for the operator alone.
pub(super) fn denied_by_operator(denied: DeniedByOperator) -> Refusal {
    Refusal::new(Reason::DeniedByOperator, "denied by the operator of this server").because(denied)
}

/// The token's use cannot be claimed.
pub(super) fn not_claimed(why: NotClaimed) -> Refusal {
    match why {
        NotClaimed::Replayed => Refusal::new(Reason::TokenReplayed, why.to_string()),
        NotClaimed::Full => {
            too_many(Empty(Duration::from_secs(60))).because("replay protection has no more memory")
        }
    }
}

/// The request asks for more than the policy allows. Its token satisfies the policy, so it could
/// find out by asking GitHub what its own token may do.
pub(super) fn not_covered(exceeds: NotCovered) -> Refusal {
    Refusal::new(exceeds.reason(), exceeds.to_string())
}

/// A bucket is empty. The answer is the same for every owner.
pub(super) fn too_many(Empty(wait): Empty) -> Refusal {
    Refusal::new(Reason::RateLimited, "too many requests").retry_after(wait)
}

/// The App has minted as often as the operator allows.
pub(super) fn too_many_mints(Empty(wait): Empty) -> Refusal {
    Refusal::new(Reason::RateLimited, "the App mints no more tokens for now").retry_after(wait)
}

/// What is left of a quota is kept for callers that were granted a token within the last day.
pub(super) fn scarce(wait: Duration) -> Refusal {
    too_many(Empty(wait)).because("what is left of GitHub's quota is kept for proven callers")
}

/// The App's credential cannot be had. Unverified callers learn only that the signer is down.
pub(super) fn signer(error: github::Error, owner: &Owner) -> Refusal {
    if error.reason() == Reason::SignerUnavailable {
        github(&error, owner)
    } else {
        not_trusted(error)
    }
}

/// The token of an unknown issuer was not verified. What depends on the issuer's keys has the one
/// answer too.
pub(super) fn unverified(error: oidc::Error) -> Refusal {
    if matches!(error, oidc::Error::Signature(_) | oidc::Error::Unavailable { .. }) {
        not_trusted(error)
    } else {
        oidc(&error)
    }
}

/// Why the policy is not there, for operators.
pub(super) fn not_present(found: &Found) -> Cow<'static, str> {
    match found {
        Found::Present(_) => "the policy is there".into(),
        Found::Absent => "no such policy".into(),
        Found::Invalid(invalid) => format!("the policy is invalid: {invalid}").into(),
        Found::Inaccessible(cause) => cause.clone(),
        Found::Forbidden(cause) => {
            format!("the App may not read the repository's contents: {cause}").into()
        }
    }
}

/// The policy is not there, or is none.
pub(super) fn policy(found: &Found, audience: Audience, identity: &PolicyName) -> Refusal {
    let not_found = || {
        Refusal::new(
            Reason::PolicyNotFound,
            format!("unable to find trust policy for \"{identity}\""),
        )
    };
    let refusal = match (found, audience) {
        (Found::Forbidden(_), Audience::Insider) => {
            Refusal::new(Reason::PolicyForbidden, "the App may not read the repository's contents")
        }
        (Found::Inaccessible(_), Audience::Insider) => Refusal::new(
            Reason::RepositoryNotAccessible,
            "the App's installation does not see the repository",
        ),
        (Found::Invalid(invalid), Audience::Insider) => Refusal::new(
            Reason::PolicyInvalid,
            format!("trust policy \"{identity}\" is invalid: {invalid}"),
        ),
        _ => not_found(),
    };
    refusal.because(not_present(found))
}

/// The token does not satisfy the policy.
pub(super) fn mismatch(denied: &Denied, audience: Audience, workload: Option<Workload>) -> Refusal {
    // On gRPC the message is a header, and clients bound those; the details have the conditions.
    let failed = cut(&denied.failed().collect::<Vec<_>>().join(", "));
    let message = format!("token does not satisfy the trust policy: {failed}");
    let mut refusal = Refusal::new(Reason::PolicyMismatch, message);
    refusal.conditions = shown(denied.conditions(), audience);
    refusal.workload = workload.map(Box::new);
    refusal
}

/// The conditions, as this caller may be shown them.
pub(super) fn shown(conditions: &[Condition], audience: Audience) -> Vec<Condition> {
    let show = |condition: &Condition| match audience {
        Audience::Insider => condition.clone(),
        Audience::Outsider => Condition { wanted: None, hint: None, ..condition.clone() },
    };
    conditions.iter().map(show).collect()
}

/// GitHub's failure: fixed text for the caller, the rest for operators. What a policy requested in
/// vain is named: only a caller whose token satisfies the policy gets that far.
pub(crate) fn github(error: &github::Error, owner: &Owner) -> Refusal {
    let text: Cow<'static, str> = match error {
        github::Error::NoApp => format!("no GitHub App configured for org {owner:?}").into(),
        github::Error::NotInstalled | github::Error::AccountMoved(_) => format!("no installation found for {owner:?}").into(),
        github::Error::Suspended(_) => "the App's installation is suspended".into(),
        github::Error::RepositoryNotAccessible | github::Error::Moved(_) => {
            "the App's installation does not see the repository".into()
        }
        github::Error::PermissionRefused { lacking: Some(lacking), .. } => {
            format!("GitHub refuses the policy's permissions for this installation, which lacks {lacking}").into()
        }
        github::Error::PermissionRefused { lacking: None, .. } => {
            "GitHub refuses the policy's permissions for this installation".into()
        }
        github::Error::RepositoryRefused { missing: Some(missing), .. } => {
            format!("GitHub refuses the policy's repositories for this installation, which does not see {missing}")
                .into()
        }
        github::Error::RepositoryRefused { missing: None, .. } => {
            "GitHub refuses the policy's repositories for this installation".into()
        }
        github::Error::Forbidden(_) => "GitHub forbids reading the policy".into(),
        github::Error::Refused(_) => "GitHub refuses the App's access".into(),
        github::Error::Pin => "the App that the policy pins cannot be used".into(),
        github::Error::RateLimited { .. } => "GitHub's rate limit is reached".into(),
        github::Error::Stale(_) | github::Error::TokenRefused | github::Error::Unavailable { .. } | github::Error::Unexpected(_) => {
            "GitHub is unavailable".into()
        }
        github::Error::Signer(_) => "the App's signer is unavailable".into(),
        github::Error::Misconfigured(_) | github::Error::Unauthorized(_) | github::Error::Wider(_) => "internal error".into(),
    };
    Refusal::new(error.reason(), text).because(error).retry_after(error.retry_after())
}

/// A file's failure.
pub(super) fn store(error: &store::Error, owner: &Owner) -> Refusal {
    let message = match error {
        store::Error::GitHub(error) => return github(error, owner),
        store::Error::Superseded => "the policy or the trusted-issuer list has just changed",
        store::Error::ListUnavailable(_) => "organization trusted-issuer lookup unavailable",
        store::Error::ListRateLimited(_) => "organization trusted-issuer lookup rate limited",
        store::Error::ListInvalid(_) => "organization trusted-issuer configuration is invalid",
    };
    Refusal::new(error.reason(), message).because(error).retry_after(error.retry_after())
}

/// A token that was not verified, or could not be.
pub(super) fn oidc(error: &oidc::Error) -> Refusal {
    if error.reason() == Reason::IssuerNotTrusted {
        return not_trusted(error);
    }
    Refusal::new(error.reason(), error.to_string()).because(error).retry_after(error.retry_after())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::{Cause, Error, SignerError};

    #[test]
    fn callers_read_nothing_of_a_cause_and_operators_all_of_it() {
        let owner: Owner = "octo-org".parse().unwrap();
        let said = || Cause::from("GITHUB-SAID");
        for (error, reason) in [
            (Error::PermissionRefused { cause: said(), lacking: None }, Reason::PermissionRefused),
            (Error::RepositoryRefused { cause: said(), missing: None }, Reason::RepositoryRefused),
            (Error::Forbidden(said()), Reason::PolicyForbidden),
            (Error::Refused(said()), Reason::PolicyForbidden),
            (Error::Suspended(said()), Reason::InstallationSuspended),
            (Error::Moved(said()), Reason::RepositoryNotAccessible),
            (Error::AccountMoved(said()), Reason::NotInstalled),
            (Error::Stale(said()), Reason::GithubUnavailable),
            (Error::unavailable(said()), Reason::GithubUnavailable),
            (Error::Unexpected(said()), Reason::GithubUnavailable),
            (Error::Signer(SignerError::unavailable("GITHUB-SAID")), Reason::SignerUnavailable),
            (Error::Misconfigured(said()), Reason::Internal),
            (Error::Unauthorized(said()), Reason::Internal),
            (Error::Wider(said()), Reason::Internal),
        ] {
            let refusal = github(&error, &owner);
            assert_eq!(refusal.reason, reason);
            assert!(!refusal.message.contains("GITHUB-SAID"), "{error}");
            assert!(refusal.cause.unwrap().contains("GITHUB-SAID"), "{error}");
        }
    }

    #[test]
    fn the_go_services_words_for_a_missing_app_and_installation() {
        let owner: Owner = "octo-org".parse().unwrap();
        assert_eq!(
            github(&Error::NoApp, &owner).message,
            r#"no GitHub App configured for org "octo-org""#
        );
        assert_eq!(
            github(&Error::NotInstalled, &owner).message,
            r#"no installation found for "octo-org""#
        );
    }

    #[test]
    fn a_wait_is_handed_on() {
        let limited = Error::RateLimited { retry_after: Duration::from_secs(9) };
        assert_eq!(
            github(&limited, &"o".parse().unwrap()).retry_after,
            Some(Duration::from_secs(9))
        );
        assert!(limited.is_outage());
        assert!(!Error::NotInstalled.is_outage() && !Error::Misconfigured("".into()).is_outage());
    }
}
