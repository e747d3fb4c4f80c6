//! The trust policies of the tour: samples, or those of a folder, checked before anything starts.
//!
//! `DIR/NAME.sts.yaml` is a policy of `octo-org/hello`, `DIR/org/NAME.sts.yaml` one of the
//! organization, and `DIR/org/trusted-token-issuers.yaml` its list of trusted issuers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{DevError, sample};
use crate::{
    claim,
    emulator::claims,
    name::PolicyName,
    policy::{Kind, Policy, Rules, TrustedIssuers},
    yaml::{self, Invalid},
};

/// The organization.
pub(super) const ORG: &str = "octo-org";
/// The audience that tokens have by default.
pub(super) const DOMAIN: &str = "octo-sts.localhost";
/// Who issues the tokens of GitHub's own workflows.
pub(super) const ACTIONS: &str = "https://token.actions.githubusercontent.com";
/// Where an organization's list of trusted issuers is, in its policies' folder.
const LIST: &str = "trusted-token-issuers.yaml";
const SUFFIX: &str = ".sts.yaml";

const SAMPLES: [(Kind, &str, &str); 2] = [
    (Kind::Repository, "ci.sts.yaml", include_str!("../../../examples/tour/ci.sts.yaml")),
    (Kind::Organization, "deploy.sts.yaml", include_str!("../../../examples/tour/org/deploy.sts.yaml")),
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
    pub(super) kind: Kind,
    pub(super) name: PolicyName,
    pub(super) text: String,
    pub(super) written: Written,
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
            policies.files.push(file.map_err(|wrong| DevError::Internal(format!("{name}: {wrong}")))?);
        }
        Ok(policies)
    }

    /// Those of a folder; every mistake in it is told at once.
    pub(super) fn read(folder: &Path) -> Result<Self, DevError> {
        let mut policies = Self { files: Vec::new(), list: None, ignored: Vec::new() };
        let mut wrong = Vec::new();
        policies.add(Kind::Repository, folder, &mut wrong);
        let org = folder.join("org");
        if org.is_dir() {
            policies.add(Kind::Organization, &org, &mut wrong);
        }
        if wrong.is_empty() && policies.files.is_empty() {
            wrong.push(format!("{} holds no policy: no file NAME{SUFFIX}, nor org/NAME{SUFFIX}", folder.display()));
        }
        if wrong.is_empty() { Ok(policies) } else { Err(DevError::Usage(wrong.join("\n"))) }
    }

    fn add(&mut self, kind: Kind, folder: &Path, wrong: &mut Vec<String>) {
        let paths = match fs::read_dir(folder) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<BTreeSet<_>>(),
            Err(error) => return wrong.push(format!("{}: {error}", folder.display())),
        };
        for path in paths {
            if let Err(mistake) = self.add_file(kind, &path) {
                wrong.push(format!("{}: {mistake}", path.display()));
            }
        }
    }

    fn add_file(&mut self, kind: Kind, path: &Path) -> Result<(), String> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_list = kind == Kind::Organization && name == LIST;
        if !is_list && !name.ends_with(SUFFIX) {
            let is_yaml = name.ends_with(".yaml") || name.ends_with(".yml");
            self.ignored.extend(is_yaml.then(|| path.to_owned()));
            return Ok(());
        }
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        if is_list {
            TrustedIssuers::parse(text.as_bytes()).map_err(|invalid| invalid.to_string())?;
            self.list = Some(text);
        } else {
            self.files.push(PolicyFile::read(kind, name, text)?);
        }
        Ok(())
    }

    /// Every issuer that a policy names exactly.
    pub(super) fn issuers(&self) -> BTreeSet<String> {
        self.files.iter().filter_map(|file| file.written.issuer.clone()).filter(|issuer| !issuer.is_empty()).collect()
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

    /// The App's permissions that cover all policies: of each name the widest level.
    pub(super) fn permissions(&self) -> BTreeMap<&str, &str> {
        let mut all = BTreeMap::from([("contents", "read"), ("issues", "read")]);
        for (name, level) in self.files.iter().flat_map(|file| &file.written.permissions) {
            let width = |level: &str| ["read", "write", "admin"].iter().position(|known| *known == level);
            let held = all.entry(name).or_insert(level);
            if width(held) < width(level) {
                *held = level;
            }
        }
        all
    }
}

impl PolicyFile {
    fn read(kind: Kind, file: &str, text: String) -> Result<Self, String> {
        let invalid = |invalid: Invalid| invalid.to_string();
        let name =
            file.strip_suffix(SUFFIX).unwrap_or(file).parse::<PolicyName>().map_err(|error| error.to_string())?;
        Policy::parse(text.as_bytes(), kind, &Rules::default()).map_err(invalid)?;
        let written = yaml::load(text.as_bytes()).unwrap_or_default();
        Ok(Self { kind, name, text, written })
    }

    /// What a workload asks for to use this policy.
    pub(super) fn scope(&self) -> String {
        format!("{ORG}{}", if self.kind == Kind::Repository { "/hello" } else { "" })
    }

    /// The repository that holds this policy.
    pub(super) fn repository(&self) -> &'static str {
        if self.kind == Kind::Repository { "hello" } else { ".github" }
    }

    /// Claims that satisfy this policy, `iss` and the times left out.
    pub(super) fn claims(&self) -> Result<Value, &'static str> {
        let written = &self.written;
        if written.issuer.as_ref().is_none_or(String::is_empty) {
            return Err("no token can be made up for it: an issuer on loopback does not match its issuer_pattern");
        }
        let unclear = "no token can be made up for it: its patterns are too intricate";
        let subject = either(&written.subject, &written.subject_pattern).ok_or(unclear)?;
        let subject = subject.ok_or("no token can be made up for it: it names no subject")?;
        let audience = either(&written.audience, &written.audience_pattern).ok_or(unclear)?;
        let mut claims = usual_claims(&subject);
        for (name, pattern) in &written.claim_pattern {
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
        ["repo", repository, "ref", reference] => match repository.split_once('/') {
            Some((owner, repo)) => claims::github_actions(owner, repo, reference),
            None => json!({}),
        },
        ["system", "serviceaccount", namespace, account] => claims::kubernetes(namespace, account),
        _ => json!({}),
    }
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
        PolicyFile::read(Kind::Repository, "p.sts.yaml", text.to_owned()).unwrap()
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
        assert_eq!(file.claims().unwrap(), json!({"sub": "0", "aud": "me", "email": "a@chainguard.dev"}));
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
    fn an_issuer_pattern_is_beyond_loopback() {
        let file = file("issuer_pattern: https://a\\.example\nsubject: s\npermissions:\n  contents: read\n");
        assert!(file.claims().unwrap_err().contains("issuer_pattern"));
    }

    #[test]
    fn a_played_issuer_stands_wherever_it_was_named() {
        let mut policies = Policies::samples().unwrap();
        policies.list = Some(format!("issuers: [{ACTIONS}]"));
        policies.play(ACTIONS, "http://127.0.0.1:1");
        assert_eq!(policies.list.as_deref(), Some("issuers: [http://127.0.0.1:1]"));
        assert!(policies.files[0].text.contains("issuer: http://127.0.0.1:1\n"));
        assert!(policies.files[1].text.contains("issuer: https://kubernetes.default.svc.cluster.local\n"));
    }
}
