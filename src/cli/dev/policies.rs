//! The trust policies of the tour: samples, or those of a folder, checked before anything starts.
//! A repository's policies become those of `octo-org/hello`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{super::policy_folder, DevError, sample};
use crate::{
    claim,
    emulator::claims,
    name::PolicyName,
    policy::{Policy, PolicyKind, Rules},
    yaml,
};

/// The organization.
pub(super) const ORG: &str = "octo-org";
/// The audience that tokens have by default.
pub(super) const DOMAIN: &str = "octo-sts.localhost";
/// Who issues the tokens of GitHub's own workflows.
pub(super) const ACTIONS: &str = "https://token.actions.githubusercontent.com";
const SAMPLES: [(PolicyKind, &str, &str); 2] = [
    (PolicyKind::Repository, "ci", include_str!("../../../examples/tour/ci.sts.yaml")),
    (
        PolicyKind::Organization,
        "deploy",
        include_str!("../../../examples/tour/org/deploy.sts.yaml"),
    ),
];

/// All that is put into the organization.
#[derive(Debug)]
pub(super) struct Policies {
    pub(super) files: Vec<PolicyFile>,
    /// The list of trusted issuers.
    pub(super) list: Option<String>,
    /// Files that look like policies and are none by their name.
    pub(super) ignored: Vec<PathBuf>,
}

/// A policy that obeys the language.
#[derive(Debug)]
pub(super) struct PolicyFile {
    pub(super) kind: PolicyKind,
    pub(super) name: PolicyName,
    pub(super) text: String,
    pub(super) written: Written,
    /// What its author may not have meant.
    pub(super) warnings: Vec<String>,
}

/// What a token must know of a policy to satisfy it. That it is valid has been checked before.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Written {
    pub(super) issuer: Option<String>,
    subject: Option<String>,
    subject_pattern: Option<String>,
    audience: Option<String>,
    audience_pattern: Option<String>,
    #[serde(default)]
    claim_pattern: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) permissions: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) repositories: Vec<String>,
}

impl Policies {
    /// The samples.
    pub(super) fn samples() -> Result<Self, DevError> {
        let mut policies = Self { files: Vec::new(), list: None, ignored: Vec::new() };
        for (kind, name, text) in SAMPLES {
            let file = PolicyFile::read(kind, name, text.to_owned());
            policies
                .files
                .push(file.map_err(|wrong| DevError::Internal(format!("{name}: {wrong}")))?);
        }
        Ok(policies)
    }

    /// Those of a folder; every error in it is reported.
    pub(super) fn read(folder: &Path) -> Result<Self, DevError> {
        let folder = policy_folder::PolicyFolder::read(folder, PolicyKind::Repository);
        if !folder.errors.is_empty() {
            return Err(DevError::Usage(format!(
                "the policies have errors\n{}",
                folder.errors.join("\n")
            )));
        }
        let files = folder.policies.into_iter().map(|file| PolicyFile {
            written: Written::of(&file.text),
            kind: file.kind,
            name: file.name,
            text: file.text,
            warnings: file.warnings,
        });
        Ok(Self { files: files.collect(), list: folder.list, ignored: folder.ignored })
    }

    /// Every issuer that a policy names exactly.
    pub(super) fn issuers(&self) -> BTreeSet<String> {
        self.files
            .iter()
            .filter_map(|file| file.written.issuer.clone())
            .filter(|issuer| !issuer.is_empty())
            .collect()
    }

    /// Puts another issuer wherever `written` stands.
    pub(super) fn play(&mut self, written: &str, played: &str) {
        for file in &mut self.files {
            if file.written.issuer.as_deref() == Some(written) {
                file.text = file.text.replace(written, played);
            }
        }
        self.list = self.list.take().map(|list| list.replace(written, played));
    }

    /// Makes repositories that are written with their owner those of the emulated organization.
    pub(super) fn play_owner(&mut self) {
        for file in &mut self.files {
            for name in file.written.repositories.iter().filter(|name| name.contains('/')) {
                // Where it stands as an entry of a list: not in a subject.
                for before in [" ", "[", ",", "'", "\""] {
                    let played = format!("{before}{ORG}/{}", bare(name));
                    file.text = file.text.replace(&format!("{before}{name}"), &played);
                }
            }
        }
    }

    /// The App's permissions that cover all policies: of each name the widest level.
    pub(super) fn permissions(&self) -> BTreeMap<&str, &str> {
        let mut all = BTreeMap::from([("contents", "read"), ("issues", "read")]);
        for (name, level) in self.files.iter().flat_map(|file| &file.written.permissions) {
            let width =
                |level: &str| ["read", "write", "admin"].iter().position(|known| *known == level);
            let held = all.entry(name).or_insert(level);
            if width(held) < width(level) {
                *held = level;
            }
        }
        all
    }
}

/// A repository's name without its owner.
fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

impl Written {
    fn of(text: &str) -> Self {
        yaml::load(text.as_bytes()).unwrap_or_default()
    }

    /// The listed repositories, without their owner.
    pub(super) fn repository_names(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.repositories.iter().map(|name| bare(name)).collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

impl PolicyFile {
    fn read(kind: PolicyKind, name: &str, text: String) -> Result<Self, String> {
        let name = name.parse::<PolicyName>().map_err(|error| error.to_string())?;
        Policy::parse(text.as_bytes(), kind, &Rules::default())
            .map_err(|errors| errors.to_string())?;
        Ok(Self { kind, name, written: Written::of(&text), text, warnings: Vec::new() })
    }

    /// The request by which a workload uses this policy.
    pub(super) fn scope(&self) -> String {
        format!("{ORG}{}", if self.kind == PolicyKind::Repository { "/hello" } else { "" })
    }

    /// The repository that holds this policy.
    pub(super) fn repository(&self) -> &'static str {
        if self.kind == PolicyKind::Repository { "hello" } else { ".github" }
    }

    /// Claims that satisfy this policy, `iss` and the times left out.
    pub(super) fn claims(&self) -> Result<Value, &'static str> {
        let written = &self.written;
        if written.issuer.as_ref().is_none_or(String::is_empty) {
            return Err(
                "no token can be made up for it: an issuer on loopback does not match its issuer_pattern",
            );
        }
        let unclear = "no token can be made up for it: its patterns are too intricate";
        let subject = either(&written.subject, &written.subject_pattern).ok_or(unclear)?;
        let subject = subject.ok_or("no token can be made up for it: it names no subject")?;
        let audience = either(&written.audience, &written.audience_pattern).ok_or(unclear)?;
        let mut claims = usual_claims(&subject);
        for (name, pattern) in &written.claim_pattern {
            if is_fixed(&subject, name) {
                continue;
            }
            let wanted = json!(sample::matching(pattern).ok_or(unclear)?);
            let found = claims.as_object().and_then(|claims| claim::lookup(claims, name));
            if found != Some(&wanted) {
                set(&mut claims, name, wanted);
            }
        }
        set(&mut claims, "sub", json!(subject));
        set(&mut claims, "aud", json!(audience.unwrap_or_else(|| DOMAIN.to_owned())));
        Ok(claims)
    }
}

/// The exact text, or one that the pattern matches; `Some(None)` if neither is there.
fn either(exact: &Option<String>, pattern: &Option<String>) -> Option<Option<String>> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    match (given(exact), given(pattern)) {
        (Some(exact), _) => Some(Some(exact)),
        (None, Some(pattern)) => sample::matching(&pattern).map(Some),
        (None, None) => Some(None),
    }
}

/// What a token with that subject holds besides.
fn usual_claims(subject: &str) -> Value {
    let parts: Vec<&str> = subject.splitn(4, ':').collect();
    match parts.as_slice() {
        ["repo", repository, context @ ..] => actions_claims(repository, context),
        ["system", "serviceaccount", namespace, account] => claims::kubernetes(namespace, account),
        _ => json!({}),
    }
}

/// Claims of a workflow in `OWNER/REPO`, or in `OWNER@ID/REPO@ID` with immutable subjects.
fn actions_claims(repository: &str, context: &[&str]) -> Value {
    let Some((owner, repo)) = repository.split_once('/') else { return json!({}) };
    let parts = |name: &str| match name.split_once('@') {
        Some((name, id)) => (name.to_owned(), Some(id.to_owned())),
        None => (name.to_owned(), None),
    };
    let ((owner, owner_id), (repo, repo_id)) = (parts(owner), parts(repo));
    let mut claims = match context {
        ["ref", reference] => claims::github_actions(&owner, &repo, reference),
        ["pull_request"] => claims::github_actions_pull_request(&owner, &repo, 1),
        ["environment", environment] => {
            claims::github_actions_environment(&owner, &repo, environment)
        }
        _ => return json!({}),
    };
    for (name, id) in [("repository_owner_id", owner_id), ("repository_id", repo_id)] {
        if let Some(id) = id {
            set(&mut claims, name, json!(id));
        }
    }
    claims
}

/// Whether a workflow's subject decides what a claim is: a real token cannot have another value.
fn is_fixed(subject: &str, claim: &str) -> bool {
    let Some((_, context)) = subject.strip_prefix("repo:").and_then(|rest| rest.split_once(':'))
    else {
        return false;
    };
    let fixed: &[&str] = match context.split(':').next() {
        Some("ref") => &["ref", "ref_type", "repository", "repository_owner"],
        Some("pull_request") => {
            &["ref", "ref_type", "event_name", "repository", "repository_owner", "environment"]
        }
        Some("environment") => &["environment", "repository", "repository_owner"],
        _ => &[],
    };
    fixed.contains(&claim)
}

/// Sets a claim.
pub(super) fn set(claims: &mut Value, name: &str, value: Value) {
    if let Value::Object(claims) = claims {
        claims.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> PolicyFile {
        PolicyFile::read(PolicyKind::Repository, "p", text.to_owned()).unwrap()
    }

    #[test]
    fn the_samples_are_valid_and_tokens_can_be_made_for_them() {
        let samples = Policies::samples().unwrap();
        for file in &samples.files {
            let claims = file.claims().unwrap();
            assert_eq!(claims["aud"], DOMAIN, "{}", file.name);
        }
        assert_eq!(samples.permissions()["issues"], "write");
        assert_eq!(samples.issuers().len(), 2);
    }

    #[test]
    fn claims_are_those_that_the_policy_asks_for() {
        let file = file(
            "issuer: https://accounts.google.com\nsubject_pattern: '[0-9]+'\naudience: me\n\
             claim_pattern:\n  email: '.*@chainguard\\.dev'\npermissions:\n  contents: read\n",
        );
        assert_eq!(
            file.claims().unwrap(),
            json!({"sub": "0", "aud": "me", "email": "a@chainguard.dev"})
        );
    }

    #[test]
    fn a_claim_that_is_there_as_a_path_is_not_given_again() {
        let file = file(
            "issuer: https://k8s.example.com\nsubject: system:serviceaccount:production:app\n\
             claim_pattern:\n  kubernetes.io/namespace: production\npermissions:\n  contents: read\n",
        );
        let claims = file.claims().unwrap();
        assert_eq!(claims["kubernetes.io"]["namespace"], "production");
        assert_eq!(claims.get("kubernetes.io/namespace"), None);
    }

    #[test]
    fn claims_of_workflows_are_those_of_a_real_token() {
        let claims = |subject: &str, pattern: &str| {
            let issuer = format!("issuer: {ACTIONS}\nsubject: {subject}\n");
            file(&format!("{issuer}claim_pattern: {pattern}\npermissions:\n  contents: read\n"))
                .claims()
                .unwrap()
        };
        let pull = claims("repo:o/r:pull_request", "{ref: refs/heads/main, workflow: ci}");
        assert_eq!(
            (&pull["sub"], &pull["ref"]),
            (&json!("repo:o/r:pull_request"), &json!("refs/pull/1/merge"))
        );
        assert_eq!(
            (&pull["event_name"], &pull["workflow"]),
            (&json!("pull_request"), &json!("ci"))
        );
        let deploy =
            claims("repo:o/r:environment:prod", "{environment: staging, ref: refs/heads/x}");
        assert_eq!(
            (&deploy["environment"], &deploy["ref"]),
            (&json!("prod"), &json!("refs/heads/x"))
        );
        assert_eq!(deploy["sub"], "repo:o/r:environment:prod");
        let immutable = claims("repo:o@1/r@22:ref:refs/tags/v1", "{repository: o/r}");
        assert_eq!(
            (&immutable["repository_owner_id"], &immutable["repository_id"]),
            (&json!("1"), &json!("22"))
        );
        assert_eq!(
            (&immutable["repository"], &immutable["ref_type"]),
            (&json!("o/r"), &json!("tag"))
        );
    }

    #[test]
    fn repositories_with_their_owner_are_played_by_the_emulated_organization() {
        let text = "issuer: https://a.example\nsubject: repo:acme/os:x\nrepositories: [acme/os, 'acme/os2']\npermissions: {contents: read}\n";
        let file = PolicyFile::read(PolicyKind::Organization, "p", text.to_owned()).unwrap();
        let mut policies = Policies { files: vec![file], list: None, ignored: Vec::new() };
        policies.play_owner();
        assert_eq!(policies.files[0].written.repository_names(), ["os", "os2"]);
        assert!(
            policies.files[0].text.contains("repositories: [octo-org/os, 'octo-org/os2']"),
            "{}",
            policies.files[0].text
        );
        assert!(policies.files[0].text.contains("subject: repo:acme/os:x"));
    }

    #[test]
    fn an_issuer_pattern_is_beyond_loopback() {
        let file = file(
            "issuer_pattern: https://a\\.example\nsubject: s\npermissions:\n  contents: read\n",
        );
        assert!(file.claims().unwrap_err().contains("issuer_pattern"));
    }

    #[test]
    fn a_played_issuer_stands_wherever_it_was_named() {
        let mut policies = Policies::samples().unwrap();
        policies.list = Some(format!("issuers: [{ACTIONS}]"));
        policies.play(ACTIONS, "http://127.0.0.1:1");
        assert_eq!(policies.list.as_deref(), Some("issuers: [http://127.0.0.1:1]"));
        assert!(policies.files[0].text.contains("issuer: http://127.0.0.1:1\n"));
        assert!(
            policies.files[1]
                .text
                .contains("issuer: https://kubernetes.default.svc.cluster.local\n")
        );
    }
}
