//! The language as its corpus has it, and what only unit tests can see: the gate, the trusted
//! issuers, the operator's rules.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::*;
use crate::yaml::Errors;
use crate::{
    name::{Issuer, RepoName, Scope},
    oidc::{IssuerKind, VerifiedToken},
};

const ACTIONS: &str = "https://token.actions.githubusercontent.com";
const CLUSTER: &str = "https://k8s.example:6443";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    policy: String,
    scope: String,
    #[serde(default)]
    claims: Map<String, Value>,
    expect: String,
    #[serde(default)]
    failed: Vec<String>,
    #[serde(default)]
    permissions: std::collections::BTreeMap<String, String>,
    repositories: Option<Value>,
    at: Option<(u32, u32)>,
    #[serde(default)]
    says: Vec<String>,
}

fn corpus() -> Vec<Case> {
    let text = include_str!("../../tests/corpus/policies.yaml");
    let options = serde_yaml::options! { budget: None };
    serde_yaml::from_str_with_options(&filled(text), options).unwrap()
}

/// Puts values for the stand-ins.
fn filled(text: &str) -> String {
    text.replace("${ACTIONS}", ACTIONS)
        .replace("${CLUSTER}", CLUSTER)
        .replace("${GITHUB_HOST}", "github.com")
        .replace("${X4096}", &"x".repeat(4096))
}

fn token(claims: &Map<String, Value>) -> VerifiedToken {
    let mut all: Map<String, Value> =
        serde_json::from_str(&filled(include_str!("../../tests/corpus/base-claims.json"))).unwrap();
    all.extend(claims.clone());
    let kind = if all["iss"] == ACTIONS { IssuerKind::Actions } else { IssuerKind::Configured };
    VerifiedToken::for_test(kind, Value::Object(all))
}

fn evaluate(policy: &Policy, token: &VerifiedToken, scope: &str) -> Result<Grant, Denied> {
    let (scope, policy_repo): (Scope, RepoName) =
        (scope.parse().unwrap(), ".github".parse().unwrap());
    policy
        .evaluate(
            token,
            &Context {
                scope: &scope,
                domain: "sts.example.com",
                github_host: "github.com",
                policy_repo: &policy_repo,
            },
        )
        .map(Allowed::whole)
}

fn kind(scope: &str) -> PolicyKind {
    PolicyKind::of(&scope.parse().unwrap(), &".github".parse().unwrap())
}

fn parse(text: &str) -> Result<Policy, Errors> {
    Policy::parse(text.as_bytes(), PolicyKind::Repository, &Rules::default())
}

fn policy(conditions: &str) -> Policy {
    parse(&format!("{conditions}permissions: {{contents: read}}\n")).unwrap()
}

/// What became of a case, in the corpus's words.
fn outcome(case: &Case) -> Value {
    let scope: Scope = case.scope.parse().unwrap();
    let home = Home { kind: kind(&case.scope), owner: Some(scope.owner()) };
    let policy = match Policy::parse(case.policy.as_bytes(), home, &Rules::default()) {
        Ok(policy) => policy,
        Err(invalid) => {
            return json!({"expect": "POLICY_INVALID", "at": place(&invalid), "says": invalid.to_string()});
        }
    };
    match evaluate(&policy, &token(&case.claims), &case.scope) {
        Ok(grant) => {
            assert!(
                grant
                    .conditions()
                    .iter()
                    .all(|condition| condition.satisfied && condition.hint.is_none())
            );
            assert_eq!(grant.owner().as_str(), case.scope.split('/').next().unwrap());
            let repositories = match grant.repositories() {
                Repositories::All => json!("all"),
                Repositories::These(names) => names.iter().map(RepoName::as_str).collect(),
            };
            json!({"expect": "granted", "permissions": grant.permissions(), "repositories": repositories})
        }
        Err(denied) => {
            json!({"expect": denied.reason().as_str(), "failed": denied.failed().collect::<Vec<_>>()})
        }
    }
}

/// Line and column of the first error.
fn place(errors: &Errors) -> Value {
    let first = errors.iter().next().unwrap();
    json!([first.line(), first.column()])
}

fn expected(case: &Case, outcome: &Value) -> Value {
    match case.expect.as_str() {
        "granted" => {
            json!({"expect": "granted", "permissions": case.permissions, "repositories": case.repositories})
        }
        "POLICY_INVALID" => {
            let at = case
                .at
                .map_or_else(|| outcome["at"].clone(), |(line, column)| json!([line, column]));
            let says = outcome["says"].as_str().unwrap_or_default();
            let missing: Vec<_> = case.says.iter().filter(|text| !says.contains(*text)).collect();
            let says = if missing.is_empty() { json!(says) } else { json!({"missing": missing}) };
            json!({"expect": "POLICY_INVALID", "at": at, "says": says})
        }
        reason => json!({"expect": reason, "failed": case.failed}),
    }
}

#[test]
fn the_corpus_is_as_expected() {
    let cases = corpus();
    assert!(cases.len() > 250);
    let wrong: Vec<_> = cases
        .iter()
        .map(|case| (case, outcome(case)))
        .filter(|(case, outcome)| expected(case, outcome) != *outcome)
        .map(|(case, outcome)| format!("{}: {outcome}", case.name))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn corpus_cases_have_names_of_their_own() {
    let mut names: Vec<_> = corpus().into_iter().map(|case| case.name).collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_published_policies_are_taken_as_they_are() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/seed-policies");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let policy = Policy::parse(&bytes, PolicyKind::Repository, &Rules::default());
        assert!(policy.is_ok_and(|policy| policy.exact_issuer().is_some()), "{}", path.display());
        count += 1;
    }
    assert_eq!(count, 10);
}

#[test]
fn operators_may_list_organization_permissions_for_repositories() {
    let text =
        "issuer: https://a\nsubject: s\npermissions: {members: write, organization_hooks: admin}\n";
    let parse = |listed: &[&str]| {
        let organization_permissions = listed.iter().map(|name| (*name).to_owned()).collect();
        Policy::parse(
            text.as_bytes(),
            PolicyKind::Repository,
            &Rules { organization_permissions, ..Rules::default() },
        )
    };
    assert!(parse(&["members", "organization_hooks"]).is_ok());
    assert!(parse(&["members"]).is_err() && parse(&[]).is_err() && parse(&["contents"]).is_err());
}

#[test]
fn a_dash_in_a_permission_gets_a_hint() {
    let invalid = parse("issuer: a\nsubject: s\npermissions:\n  pull-requests: write\n")
        .unwrap_err()
        .to_string();
    assert!(
        invalid.starts_with("line 4, column 3: ") && invalid.contains("`pull_requests`"),
        "{invalid}"
    );
}

#[test]
fn refusals_never_hold_the_files_text() {
    let base = "issuer: https://a\nsubject: s\n";
    for text in [
        "permissions: {s3cr3t-x: read}",
        "permissions: {contents: s3cr3t}",
        "s3cr3t: x",
        "subject_pattern: '(s3cr3t'",
        "claim_pattern: {a: 's3cr3t('}",
        "app: a\napp_pattern: s3cr3t",
        "permissions: s3cr3t",
        "claim_pattern: s3cr3t",
        "audience: a\naudience_pattern: s3cr3t",
        "repositories: [s3cr3t]",
        "permissions: {contents: read}\nclaim_pattern: {s3cr3t: ''}",
        "claim_pattern: {a: '\\p{s3cr3t}'}",
        "claim_pattern: {a: '(?P<s3cr3t!>a)'}",
    ] {
        let invalid = parse(&format!("{base}{text}\n")).unwrap_err();
        assert!(!format!("{invalid} {invalid:?}").contains("s3cr3t"), "{invalid}");
    }
}

#[test]
fn pins_are_part_of_the_grant() {
    let base = "issuer: https://token.actions.githubusercontent.com\nsubject_pattern: '.*'\npermissions: {contents: read}\n";
    let pin = |line: &str| {
        let policy = parse(&format!("{base}{line}\n")).unwrap();
        evaluate(&policy, &token(&Map::new()), "octo-org/hello").unwrap().pin().cloned()
    };
    assert!(pin("").is_none());
    assert!(matches!(pin("app: 12345"), Some(AppPin::Exact(app)) if app == "12345"));
    assert!(matches!(pin("app: octo-sts"), Some(AppPin::Exact(app)) if app == "octo-sts"));
    let Some(AppPin::Pattern(pattern)) = pin("app_pattern: octo|sts-[0-9]") else {
        panic!("a pattern")
    };
    assert!(pattern.is_match("octo") && pattern.is_match("sts-1"));
    assert!(!pattern.is_match("octo-evil") && !pattern.is_match("x-sts-1"));
}

#[test]
fn memory_covers_strings_and_patterns() {
    let small = policy("issuer: a\nsubject: s\n").heap_bytes();
    let large = policy("issuer: a\nsubject_pattern: '\\pL{10}'\n").heap_bytes();
    let aliased =
        policy(&format!("issuer: &a '{}'\nsubject: *a\naudience: *a\n", "x".repeat(60 << 10)))
            .heap_bytes();
    assert!(small < 4 << 10 && large > 64 << 10, "{small} {large}");
    assert!(aliased > 180 << 10, "what an alias repeats counts each time: {aliased}");
}

mod cost;
mod gate_and_list;
