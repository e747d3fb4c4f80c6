//! Examples beside a policy, `NAME.sts.test.yaml`: claims, and whether they should get a token.
//!
//! An example is evaluated by the same conditions as a token. It says nothing that was verified, so
//! nothing can come of it but an answer.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Policy, evaluate::Context, evaluate::Presented};
use crate::{
    name::{Audience, Issuer, RepoName, Scope, Subject},
    oidc::{self, IssuerKind},
    yaml::{self, At, Invalid, Mark},
};

/// Examples of one file.
const MAX_EXAMPLES: usize = 100;
const ACTIONS: &str = "https://token.actions.githubusercontent.com";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tests: Vec<At<Case>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    scope: Option<String>,
    claims: Map<String, Value>,
    expect: Expect,
    #[serde(default)]
    failed: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Granted,
    Denied,
}

/// A file of examples.
#[derive(Debug)]
pub struct Examples(Vec<At<Case>>);

/// What examples are evaluated for.
#[derive(Debug, Clone, Copy)]
pub struct ExampleContext<'a> {
    /// The repository's own scope, for examples that name none.
    pub scope: &'a Scope,
    /// `STS_DOMAIN`. Without it, the default audience counts as satisfied.
    pub domain: Option<&'a str>,
    /// The host of the configured GitHub.
    pub github_host: &'a str,
    /// The name of the repository that holds organization policies.
    pub policy_repo: &'a RepoName,
}

/// An example that does not come out as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surprise {
    /// Where the example is.
    pub mark: Mark,
    /// What was expected, and what came.
    pub text: String,
}

impl Examples {
    /// Reads a file of examples.
    ///
    /// # Errors
    /// The first rule that the file breaks, and where.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let File { tests } = yaml::load(bytes)?;
        if tests.len() > MAX_EXAMPLES {
            return Err(Invalid::file("there are more than 100 tests"));
        }
        let mut names = std::collections::BTreeSet::new();
        for test in &tests {
            if !names.insert(&test.value.name) {
                return Err(test.refuse("the names of tests are unique; this one occurs twice"));
            }
            if test.value.expect == Expect::Granted && !test.value.failed.is_empty() {
                return Err(test.refuse("`failed` is for tests that expect `denied`"));
            }
        }
        Ok(Self(tests))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The examples that do not come out as expected.
    pub fn run(&self, policy: &Policy, context: ExampleContext<'_>) -> Vec<Surprise> {
        let surprise = |test: &At<Case>| {
            let text = test.value.surprise(policy, context)?;
            Some(Surprise { mark: test.mark, text: format!("test {:?}: {text}", test.value.name) })
        };
        self.0.iter().filter_map(surprise).collect()
    }
}

impl Case {
    fn surprise(&self, policy: &Policy, context: ExampleContext<'_>) -> Option<String> {
        let failed = match self.failed(policy, context) {
            Ok(failed) => failed,
            Err(why) => return Some(why),
        };
        match self.expect {
            Expect::Granted if failed.is_empty() => None,
            Expect::Granted => {
                Some(format!("expected granted, but it is denied by {}", failed.join(", ")))
            }
            Expect::Denied if failed.is_empty() => {
                Some("expected denied, but it is granted".to_owned())
            }
            Expect::Denied => {
                let holds: Vec<&String> =
                    self.failed.iter().filter(|field| !failed.contains(field)).collect();
                let names = holds.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
                (!holds.is_empty()).then(|| {
                    format!("expected {names} to fail, but it is denied by {}", failed.join(", "))
                })
            }
        }
    }

    /// The conditions that the claims do not satisfy.
    fn failed(&self, policy: &Policy, context: ExampleContext<'_>) -> Result<Vec<String>, String> {
        let text = |name: &str| self.claims.get(name).and_then(Value::as_str).unwrap_or_default();
        let issuer: Issuer = text("iss").parse().map_err(|error| format!("`iss`: {error}"))?;
        let subject: Subject = text("sub").parse().map_err(|error| format!("`sub`: {error}"))?;
        let scope = self.scope.as_deref().map(str::parse::<Scope>).transpose();
        let scope = scope.map_err(|error| format!("`scope`: {error}"))?;
        let audiences = audiences(self.claims.get("aud"));
        let presented = Presented {
            issuer: &issuer,
            issuer_kind: kind(issuer.as_str()),
            subject: &subject,
            audiences: &audiences,
            claims: &self.claims,
            is_workload: self.claims.contains_key("kubernetes.io"),
        };
        let asked = Context {
            scope: scope.as_ref().unwrap_or(context.scope),
            domain: context.domain.unwrap_or_default(),
            github_host: context.github_host,
            policy_repo: context.policy_repo,
        };
        let is_unknown = |field: &str| {
            field == "audience" && policy.audience.is_none() && context.domain.is_none()
        };
        let conditions = policy.conditions(&presented, &asked).into_iter();
        let mut failed: Vec<String> = conditions
            .filter(|condition| !condition.satisfied && !is_unknown(&condition.field))
            .map(|condition| condition.field)
            .collect();
        if policy.coverage(&asked).is_none() {
            failed.push("scope".to_owned());
        }
        Ok(failed)
    }
}

fn audiences(audience: Option<&Value>) -> Vec<Audience> {
    let well_formed = |audience: &Value| audience.as_str()?.parse().ok();
    match audience {
        Some(Value::Array(several)) => several.iter().filter_map(well_formed).collect(),
        one => one.and_then(well_formed).into_iter().collect(),
    }
}

fn kind(issuer: &str) -> IssuerKind {
    match issuer {
        ACTIONS => IssuerKind::Actions,
        _ if oidc::BUILT_IN.contains(&issuer) => IssuerKind::BuiltIn,
        _ => IssuerKind::Configured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyKind, Rules};

    const POLICY: &str = "issuer: https://token.actions.githubusercontent.com\n\
        subject: repo:o/r:ref:refs/heads/main\nclaim_pattern:\n  event_name: push\n\
        permissions:\n  contents: read\n";

    fn said(tests: &str, domain: Option<&str>) -> Vec<(u32, String)> {
        let policy = Policy::parse(POLICY.as_bytes(), PolicyKind::Repository, &Rules::default());
        let (scope, policy_repo) = ("o/r".parse().unwrap(), ".github".parse().unwrap());
        let context = ExampleContext {
            scope: &scope,
            domain,
            github_host: "github.com",
            policy_repo: &policy_repo,
        };
        let examples = Examples::parse(tests.as_bytes()).unwrap();
        let surprises = examples.run(&policy.unwrap(), context);
        surprises.into_iter().map(|it| (it.mark.line, it.text)).collect()
    }

    /// One test with these claims beside issuer and event.
    fn test(claims: &str, expect: &str) -> String {
        format!(
            "tests:\n  - name: it\n    claims: {{iss: https://token.actions.githubusercontent.com, event_name: push, {claims}}}\n    expect: {expect}\n"
        )
    }

    #[test]
    fn examples_come_out_as_a_token_with_these_claims_would() {
        let main = "sub: 'repo:o/r:ref:refs/heads/main'";
        for (claims, expect, domain, text) in [
            (format!("{main}, aud: sts.example.com"), "granted", Some("sts.example.com"), None),
            (
                format!("{main}, aud: [a, sts.example.com]"),
                "granted",
                Some("sts.example.com"),
                None,
            ),
            (
                format!("{main}, aud: other"),
                "granted",
                Some("sts.example.com"),
                Some("denied by audience"),
            ),
            (format!("{main}, aud: other"), "granted", None, None),
            (main.to_owned(), "denied", Some("sts.example.com"), None),
            (
                "sub: 'repo:o/r:ref:refs/heads/x', aud: sts.example.com".to_owned(),
                "granted",
                Some("sts.example.com"),
                Some("denied by subject"),
            ),
            (
                format!("{main}, aud: sts.example.com"),
                "denied",
                Some("sts.example.com"),
                Some("but it is granted"),
            ),
            ("sub: x".to_owned(), "denied\n    failed: [subject]", None, None),
            (
                "sub: x".to_owned(),
                "denied\n    failed: [subject, issuer]",
                None,
                Some("expected issuer to fail"),
            ),
            ("aud: x".to_owned(), "denied", None, Some("`sub`")),
        ] {
            let said = said(&test(&claims, expect), domain);
            match text {
                None => assert_eq!(said, [], "{claims} {expect}"),
                Some(text) => {
                    assert_eq!(said.len(), 1, "{claims} {expect}");
                    assert!(said[0].1.contains(text) && said[0].0 == 2, "{said:?}");
                }
            }
        }
        let other =
            test(&format!("{main}, aud: x"), "denied\n    scope: o/.github\n    failed: [scope]");
        assert_eq!(said(&other, Some("x")), []);
    }

    #[test]
    fn the_documented_examples_are_valid() {
        let page = include_str!("../../docs/webhook.md");
        let (_, rest) = page.split_once("```yaml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let policy = POLICY.replace("repo:o/r", "repo:your-org/your-repo");
        let policy = policy.replace("claim_pattern:\n  event_name: push\n", "");
        let policy =
            Policy::parse(policy.as_bytes(), PolicyKind::Repository, &Rules::default()).unwrap();
        let scope = "your-org/your-repo".parse().unwrap();
        let context = ExampleContext {
            scope: &scope,
            domain: Some("octo-sts.example.com"),
            github_host: "github.com",
            policy_repo: &".github".parse().unwrap(),
        };
        assert_eq!(Examples::parse(text.as_bytes()).unwrap().run(&policy, context), []);
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        for text in [
            "tests: []\nmore: 1\n",
            "tests:\n  - name: a\n",
            "tests:\n  - {name: a, claims: {}, expect: maybe}\n",
            "tests:\n  - {name: a, claims: {}, expect: granted, failed: [x]}\n",
            "tests:\n  - {name: a, claims: {}, expect: denied}\n  - {name: a, claims: {}, expect: denied}\n",
            "issuer: x\n",
        ] {
            assert!(Examples::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Examples::parse(b"tests: []\n").is_ok());
    }
}
