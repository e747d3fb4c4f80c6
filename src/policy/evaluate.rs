//! Token × policy → grant or denial. Every condition is evaluated, so that a denial can say all
//! that is wrong in one reply. A [`Grant`] is made here and nowhere else.

use serde_json::{Map, Value};

use super::{Policy, PolicyKind, compile::Matcher, hint, narrow::Allowed};
use crate::{
    claim,
    name::{Audience, Issuer, RepoName, Scope, Subject},
    oidc::{IssuerKind, VerifiedToken},
    pattern::Pattern,
    reason::{Condition, Reason},
};

/// The longest value that a condition carries, in bytes.
const MAX_SHOWN: usize = 256;

/// Audiences of a token that are compared for a hint.
const MAX_HINTED: usize = 4;
/// Claims that get a hint.
const MAX_CLAIM_HINTS: usize = 8;

/// Which repositories a grant covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repositories {
    /// All that the installation sees.
    All,
    /// These, at least one.
    These(Vec<RepoName>),
}

/// A token does not satisfy a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token does not satisfy the trust policy")]
pub struct Denied {
    conditions: Vec<Condition>,
}

impl Denied {
    /// The word on the wire.
    pub fn reason(&self) -> Reason {
        Reason::PolicyMismatch
    }

    /// Every condition, in stable order: issuer, subject, audience, claim patterns by name. What
    /// was wanted is filled in; who may be shown it is decided elsewhere.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Every condition, to keep.
    pub fn into_conditions(self) -> Vec<Condition> {
        self.conditions
    }

    /// The fields of the conditions that failed, at least one, in the same order.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        self.conditions
            .iter()
            .filter(|condition| !condition.satisfied)
            .map(|condition| condition.field.as_str())
    }
}

/// What a token says, as far as conditions compare it. Evaluating it makes no [`Grant`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Presented<'a> {
    pub(super) issuer: &'a Issuer,
    pub(super) issuer_kind: IssuerKind,
    pub(super) subject: &'a Subject,
    pub(super) audiences: &'a [Audience],
    pub(super) claims: &'a Map<String, Value>,
    /// Whether it speaks for a workload of a Kubernetes cluster.
    pub(super) is_workload: bool,
}

impl<'a> Presented<'a> {
    fn of(token: &'a VerifiedToken) -> Self {
        Self {
            issuer: token.issuer(),
            issuer_kind: token.issuer_kind(),
            subject: token.subject(),
            audiences: token.audiences(),
            claims: token.claims(),
            is_workload: token.workload().is_some(),
        }
    }
}

/// What a policy is evaluated for, and the names of this server.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The scope of the request.
    pub scope: &'a Scope,
    /// `STS_DOMAIN`: the default audience.
    pub domain: &'a str,
    /// The host of the configured GitHub, as in `https://HOST/OWNER/REPO`.
    pub github_host: &'a str,
    /// The name of the repository that holds organization policies.
    pub policy_repo: &'a RepoName,
}

impl Policy {
    /// Evaluates every condition of this policy against a token.
    ///
    /// # Errors
    /// [`Denied`] if any condition fails. So does a scope that this policy is not for, which
    /// callers that choose the policy by [`PolicyKind::of`] never see.
    pub fn evaluate(&self, token: &VerifiedToken, asked: &Context<'_>) -> Result<Allowed, Denied> {
        let mut conditions = self.conditions(&Presented::of(token), asked);
        let Some(repositories) = self.coverage(asked) else {
            conditions.push(unfit_scope());
            return Err(Denied { conditions });
        };
        if conditions.iter().any(|condition| !condition.satisfied) {
            return Err(Denied { conditions });
        }
        Ok(Allowed {
            owner: asked.scope.owner().clone(),
            repositories,
            permissions: self.permissions.clone(),
            pin: self.pin.clone(),
            conditions,
        })
    }

    /// Every condition, in the order of [`Denied::conditions`].
    pub(super) fn conditions(&self, token: &Presented<'_>, asked: &Context<'_>) -> Vec<Condition> {
        let mut conditions = Vec::with_capacity(3 + self.claims.len());
        conditions.push(simple("issuer", &self.issuer, token.issuer.as_str()));
        conditions.push(self.subject_condition(token));
        conditions.push(match &self.audience {
            Some(wanted) => given_audience(wanted, token),
            None => default_audience(token, asked),
        });
        let mut hints = MAX_CLAIM_HINTS;
        for (name, pattern) in &self.claims {
            let mut condition = claim_condition(name, pattern, token);
            if !condition.satisfied && hints > 0 {
                hints -= 1;
                condition.hint = claim_hint(name, pattern, token);
            }
            conditions.push(condition);
        }
        conditions
    }

    fn subject_condition(&self, token: &Presented<'_>) -> Condition {
        let subject = token.subject.as_str();
        let mut condition = simple("subject", &self.subject, subject);
        if !condition.satisfied {
            condition.hint = hint::subject(&self.subject, subject)
                .or(condition.hint)
                .or_else(|| hint::service_account(&self.subject, subject));
        }
        condition
    }

    /// Which repositories the policy covers for a scope, or `None` if it is not for that scope.
    pub(super) fn coverage(&self, asked: &Context<'_>) -> Option<Repositories> {
        if self.kind != PolicyKind::of(asked.scope, asked.policy_repo) {
            return None;
        }
        self.coverage.of(asked.scope)
    }
}

fn claim_condition(name: &str, pattern: &Pattern, token: &Presented<'_>) -> Condition {
    let value = claim::lookup(token.claims, name);
    let satisfied = value.is_some_and(|value| claim::matches(value, |text| pattern.is_match(text)));
    Condition {
        field: format!("claim_pattern.{name}"),
        satisfied,
        got: value.map(shown_value),
        wanted: Some(pattern.as_str().to_owned()),
        hint: None,
    }
}

fn claim_hint(name: &str, pattern: &Pattern, token: &Presented<'_>) -> Option<String> {
    match claim::lookup(token.claims, name) {
        Some(value) => hint::value(name, pattern, value),
        None => hint::claim(token.claims, name),
    }
}

fn simple(field: &str, wanted: &Matcher, got: &str) -> Condition {
    let satisfied = wanted.is_match(got);
    Condition {
        field: field.to_owned(),
        satisfied,
        got: Some(cut(got.to_owned())),
        wanted: Some(wanted.as_str().to_owned()),
        hint: if satisfied { None } else { hint::mismatch(field, wanted, got) },
    }
}

/// `audience` or `audience_pattern`: any of the token's audiences.
fn given_audience(wanted: &Matcher, token: &Presented<'_>) -> Condition {
    let satisfied = token.audiences.iter().any(|audience| wanted.is_match(audience.as_str()));
    // A token may have thousands; each costs a look.
    let first = token.audiences.iter().take(MAX_HINTED);
    let hint =
        || first.into_iter().find_map(|got| hint::mismatch("audience", wanted, got.as_str()));
    Condition {
        field: "audience".to_owned(),
        satisfied,
        got: audiences(token),
        wanted: Some(wanted.as_str().to_owned()),
        hint: if satisfied { None } else { hint() },
    }
}

/// Neither is given: this server's domain, exactly. Kubernetes guides ask for tokens with the
/// repository's URL, so for one repository that is accepted as well, but not from built-in
/// issuers: a token of a shared issuer with that audience may be meant for another service.
fn default_audience(token: &Presented<'_>, asked: &Context<'_>) -> Condition {
    let has_domain = token.audiences.iter().any(|audience| audience.as_str() == asked.domain);
    let repository = repository_url(token, asked);
    let has_repository = repository.as_ref().is_some_and(|url| url.is_audience_of(token));
    let satisfied = has_domain || has_repository;
    let hint = || match &repository {
        _ if token.issuer_kind == IssuerKind::Actions => {
            Some(format!("ask for the token with the audience `{}`", asked.domain))
        }
        Some(url) if token.is_workload => Some(format!(
            "project the token with the audience `{}{}`, or name another in the policy",
            url.host, url.path
        )),
        _ if token.is_workload => Some(format!(
            "project the token with the audience `{}`, or name another in the policy",
            asked.domain
        )),
        _ => None,
    };
    Condition {
        field: "audience".to_owned(),
        satisfied,
        got: audiences(token),
        wanted: Some(match &repository {
            Some(url) => format!("{} or {}{}", asked.domain, url.host, url.path),
            None => asked.domain.to_owned(),
        }),
        hint: if satisfied { None } else { hint() },
    }
}

/// `https://HOST/` as it stands, then `OWNER/REPO` without ASCII case.
struct RepositoryUrl {
    host: String,
    path: String,
}

impl RepositoryUrl {
    fn is_audience_of(&self, token: &Presented<'_>) -> bool {
        let is_path = |rest: &str| rest.eq_ignore_ascii_case(&self.path);
        token
            .audiences
            .iter()
            .any(|audience| audience.as_str().strip_prefix(&self.host).is_some_and(is_path))
    }
}

/// The repository's URL, where it is an audience at all.
fn repository_url(token: &Presented<'_>, asked: &Context<'_>) -> Option<RepositoryUrl> {
    let is_one_repository =
        PolicyKind::of(asked.scope, asked.policy_repo) == PolicyKind::Repository;
    (is_one_repository && !token.issuer_kind.is_built_in()).then(|| RepositoryUrl {
        host: format!("https://{}/", asked.github_host),
        path: asked.scope.to_string(),
    })
}

fn audiences(token: &Presented<'_>) -> Option<String> {
    let texts: Vec<_> = token.audiences.iter().map(|audience| audience.as_str()).collect();
    (!texts.is_empty()).then(|| cut(texts.join(", ")))
}

/// The policy does not speak about this scope at all.
fn unfit_scope() -> Condition {
    Condition { field: "scope".to_owned(), satisfied: false, got: None, wanted: None, hint: None }
}

/// A claim's value as its owner would recognize it.
fn shown_value(value: &Value) -> String {
    cut(match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    })
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_SHOWN));
    text
}

#[cfg(test)]
mod tests;
