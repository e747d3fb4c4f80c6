//! Evaluation, where the corpus cannot look: conditions, hints, kinds of issuer and scope.

use serde_json::json;

use super::*;
use crate::policy::Rules;

const ACTIONS: &str = "https://token.actions.githubusercontent.com";

fn policy(kind: PolicyKind, conditions: &str) -> Policy {
    let text = format!("issuer: {ACTIONS}\n{conditions}\npermissions: {{contents: read}}\n");
    Policy::parse(text.as_bytes(), kind, &Rules::default()).unwrap()
}

fn token(kind: IssuerKind, subject: &str, audience: Value) -> VerifiedToken {
    VerifiedToken::for_test(
        kind,
        json!({"iss": ACTIONS, "sub": subject, "aud": audience, "long": "é".repeat(300), "list": ["a", 1]}),
    )
}

fn evaluate(policy: &Policy, token: &VerifiedToken, scope: &str) -> Result<Allowed, Denied> {
    let (scope, policy_repo): (Scope, RepoName) =
        (scope.parse().unwrap(), ".github".parse().unwrap());
    policy.evaluate(
        token,
        &Context {
            scope: &scope,
            domain: "sts",
            github_host: "github.com",
            policy_repo: &policy_repo,
        },
    )
}

fn condition(denied: &Denied, field: &str) -> Condition {
    denied.conditions().iter().find(|condition| condition.field == field).unwrap().clone()
}

#[test]
fn conditions_say_what_was_wanted_and_what_came() {
    let policy = policy(
        PolicyKind::Repository,
        "subject: s\nclaim_pattern: {long: x, list: '[xy]', none: z, sub: t}",
    );
    let denied =
        evaluate(&policy, &token(IssuerKind::Actions, "t", json!(["a", "b"])), "o/r").unwrap_err();
    let fields: Vec<_> =
        denied.conditions().iter().map(|condition| condition.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "issuer",
            "subject",
            "audience",
            "claim_pattern.list",
            "claim_pattern.long",
            "claim_pattern.none",
            "claim_pattern.sub"
        ]
    );
    let failed: Vec<_> = denied.failed().collect();
    assert_eq!(
        failed,
        ["subject", "audience", "claim_pattern.list", "claim_pattern.long", "claim_pattern.none"]
    );
    let seen = |field: &str| {
        let condition = condition(&denied, field);
        (condition.got, condition.wanted.unwrap())
    };
    assert_eq!(seen("issuer"), (Some(ACTIONS.into()), ACTIONS.into()));
    assert_eq!(seen("subject"), (Some("t".into()), "s".into()));
    assert_eq!(seen("audience"), (Some("a, b".into()), "sts".into()));
    assert_eq!(seen("claim_pattern.list"), (Some("[\"a\",1]".into()), "[xy]".into()));
    assert_eq!(seen("claim_pattern.none"), (None, "z".into()));
    assert_eq!(seen("claim_pattern.long").0, Some("é".repeat(128)));
}

#[test]
fn the_default_audience_depends_on_the_issuers_kind_and_the_scope() {
    let evaluate = |kind: IssuerKind, policies: PolicyKind, scope: &str, audience: &str| {
        evaluate(&policy(policies, "subject: s"), &token(kind, "s", json!(audience)), scope).is_ok()
    };
    for kind in
        [IssuerKind::Actions, IssuerKind::BuiltIn, IssuerKind::Configured, IssuerKind::Admitted]
    {
        let is_built_in = matches!(kind, IssuerKind::Actions | IssuerKind::BuiltIn);
        assert!(evaluate(kind, PolicyKind::Repository, "o/r", "sts"));
        assert_eq!(
            evaluate(kind, PolicyKind::Repository, "o/r", "https://github.com/O/R"),
            !is_built_in,
            "{kind:?}"
        );
        assert!(!evaluate(kind, PolicyKind::Repository, "o/r", "https://GitHub.com/o/r"));
        assert!(!evaluate(kind, PolicyKind::Repository, "o/r", "https://github.com/o"));
        for (scope, audience) in [
            ("o", "https://github.com/o"),
            ("o/.github", "https://github.com/o/.github"),
            ("o/.GITHUB", "https://github.com/o/.github"),
        ] {
            assert!(!evaluate(kind, PolicyKind::Organization, scope, audience), "{kind:?} {scope}");
            assert!(evaluate(kind, PolicyKind::Organization, scope, "sts"));
        }
    }
}

#[test]
fn the_wanted_audience_is_told_as_it_is() {
    let policy = policy(PolicyKind::Repository, "subject: s");
    let audience = |kind: IssuerKind| {
        condition(&evaluate(&policy, &token(kind, "s", json!("x")), "o/r").unwrap_err(), "audience")
    };
    let (actions, cluster) = (audience(IssuerKind::Actions), audience(IssuerKind::Admitted));
    assert_eq!((actions.wanted.as_deref(), actions.hint.is_some()), (Some("sts"), true));
    assert_eq!(
        (cluster.wanted.as_deref(), cluster.hint.is_some()),
        (Some("sts or https://github.com/o/r"), false)
    );
}

#[test]
fn a_policy_grants_nothing_for_a_scope_that_it_is_not_for() {
    let token = token(IssuerKind::Actions, "s", json!("sts"));
    for (kind, scope) in [
        (PolicyKind::Repository, "o"),
        (PolicyKind::Repository, "o/.github"),
        (PolicyKind::Organization, "o/r"),
    ] {
        let denied = evaluate(&policy(kind, "subject: s"), &token, scope).unwrap_err();
        assert_eq!(denied.failed().collect::<Vec<_>>(), ["scope"], "{kind:?} {scope}");
    }
}

#[test]
fn hints_come_with_the_failed_condition() {
    let hint = |conditions: &str, subject: &str| {
        let denied = evaluate(
            &policy(PolicyKind::Repository, conditions),
            &token(IssuerKind::Actions, subject, json!("sts")),
            "o/r",
        )
        .unwrap_err();
        condition(&denied, "subject").hint.unwrap_or_default()
    };
    assert!(hint("subject: 'repo:o/r:.*'", "repo:o/r:ref").contains("subject_pattern"));
    assert!(hint("subject: 'repo:o/*'", "repo:o/r:ref").contains("subject_pattern"));
    assert!(hint("subject_pattern: 'repo:o/*'", "repo:o/r:ref").contains("glob"));
    assert!(hint("subject: 'repo:o/r:ref'", "repo:o@1/r@2:ref").contains("immutable"));
    assert_eq!(hint("subject: 'repo:o/r:ref'", "repo:o/x:ref"), "");
}

#[test]
fn a_hint_looks_at_a_few_audiences_only() {
    let policy = policy(PolicyKind::Repository, "subject: s\naudience: 'x+'");
    let hint = |others: usize| {
        let audiences: Vec<_> =
            (0..others).map(|n| n.to_string()).chain(["xx".to_owned()]).collect();
        let denied = evaluate(&policy, &token(IssuerKind::Actions, "s", json!(audiences)), "o/r")
            .unwrap_err();
        condition(&denied, "audience").hint
    };
    assert!(hint(3).is_some());
    assert_eq!(hint(4), None);
}
