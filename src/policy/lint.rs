//! Checking a policy's file by itself: its errors, and warnings about conditions that are valid and
//! yet cannot match, or match something else than their author meant.
//!
//! Warnings need no token. They may repeat the file's text: they are for those who have the file.

use super::{
    Home, Level, Policy, PolicyKind, Rules,
    document::{Choice, Document},
    permission, slip,
};
use crate::{
    name::Issuer,
    yaml::{self, At, Errors, Mark},
};

/// What is questionable about a valid policy, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The place, if it is not about the whole file.
    pub mark: Option<Mark>,
    /// What is questionable, and what to write instead.
    pub text: String,
}

/// Reads a policy's file and looks for what its author may not have meant.
///
/// # Errors
/// Every rule that the file breaks, as [`Policy::parse`] has them.
pub fn lint<'a>(
    bytes: &[u8],
    home: impl Into<Home<'a>>,
    rules: &Rules,
) -> Result<(Policy, Vec<Warning>), Errors> {
    let home = home.into();
    let policy = Policy::parse(bytes, home, rules)?;
    let (root, mut errors) = yaml::tree(bytes)?;
    let document = Document::read(&root, &mut errors);
    let mut lint = Lint { is_actions: is_actions(&document.issuer), warnings: Vec::new() };
    lint.issuer(&document.issuer);
    lint.choice("issuer", &document.issuer);
    lint.choice("subject", &document.subject);
    lint.subject(&document.subject);
    lint.choice("audience", &document.audience);
    document.claim_pattern.iter().for_each(|(name, pattern)| lint.claim(name, pattern));
    document.permissions.iter().flatten().for_each(|(name, level)| lint.permission(name, level));
    if home.kind == PolicyKind::Organization && document.repositories.is_none() {
        lint.warnings.push(Warning {
            mark: None,
            text: "no `repositories`: for the organization's scope, tokens reach every repository that the \
                   installation sees; if that is meant, write `repositories: []`"
                .to_owned(),
        });
    }
    lint.warnings.sort_by_key(|warning| {
        (warning.mark.is_none(), warning.mark.map(|mark| (mark.line, mark.column)))
    });
    Ok((policy, lint.warnings))
}

const ACTIONS: &str = "https://token.actions.githubusercontent.com";

/// Built-in issuers, none of which has a slash at its end.
const WITHOUT_SLASH: [&str; 6] = [
    ACTIONS,
    "https://accounts.google.com",
    "https://gitlab.com",
    "https://agent.buildkite.com",
    "https://app.terraform.io",
    "https://issuer.enforce.dev",
];

/// Ends of hosts whose issuers do have a slash at the end.
const WITH_SLASH: [&str; 3] = [".auth0.com", ".azure.com", "sts.windows.net"];

fn is_actions(issuer: &Choice) -> bool {
    issuer.exact.as_ref().is_some_and(|issuer| issuer.value.trim_end_matches('/') == ACTIONS)
}

/// Whether issuers of this kind end with a slash.
fn has_slash(issuer: &str) -> bool {
    let host = issuer.split('/').nth(2).unwrap_or_default();
    WITH_SLASH.iter().any(|end| host.ends_with(end))
}

struct Lint {
    is_actions: bool,
    warnings: Vec<Warning>,
}

impl Lint {
    fn warn(&mut self, at: &At<String>, text: impl Into<String>) {
        self.warnings.push(Warning { mark: Some(at.mark), text: text.into() });
    }

    fn issuer(&mut self, issuer: &Choice) {
        let Some(exact) = &issuer.exact else { return };
        if let Err(error) = exact.value.parse::<Issuer>() {
            return self.warn(exact, format!("`issuer`: no token has this issuer: {error}"));
        }
        match exact.value.strip_suffix('/') {
            Some(built_in) if WITHOUT_SLASH.contains(&built_in) => {
                self.warn(exact, format!("`issuer`: the issuer is `{built_in}`, without the slash at the end"));
            }
            Some(rest) if !has_slash(rest) => self.warn(
                exact,
                "`issuer`: issuers are compared literally; check that the token's `iss` ends with a slash too",
            ),
            Some(_) | None => {}
        }
    }

    fn choice(&mut self, key: &str, choice: &Choice) {
        if let Some(exact) = &choice.exact {
            if slip::is_template(&exact.value) {
                self.warn(
                    exact,
                    format!("`{key}`: this looks like a template with a placeholder that was not filled in"),
                );
            } else if slip::is_pattern(&exact.value) {
                let repaired =
                    slip::without_globs(&exact.value).unwrap_or_else(|| exact.value.clone());
                self.warn(
                    exact,
                    format!("`{key}` is compared literally; for a pattern, write `{key}_pattern: {repaired}`"),
                );
            } else if exact.value.trim() != exact.value {
                self.warn(exact, format!("`{key}`: the value starts or ends with white space"));
            }
        }
        if let Some(pattern) = &choice.pattern {
            self.pattern(&format!("{key}_pattern"), pattern);
        }
    }

    fn pattern(&mut self, what: &str, pattern: &At<String>) {
        if slip::is_template(&pattern.value) {
            self.warn(
                pattern,
                format!(
                    "`{what}`: this looks like a template with a placeholder that was not filled in; \
                     braces here match themselves"
                ),
            );
        } else if let Some(repaired) = slip::without_globs(&pattern.value) {
            self.warn(
                pattern,
                format!(
                    "`{what}`: this reads like a glob; in a pattern, `*` repeats the character before it, \
                     and `.*` is any text; write `{repaired}`"
                ),
            );
        }
    }

    /// Subjects of GitHub Actions whose ref is not written out.
    fn subject(&mut self, subject: &Choice) {
        let Some(exact) = subject.exact.as_ref().filter(|_| self.is_actions) else { return };
        let reference = exact
            .value
            .strip_prefix("repo:")
            .and_then(|rest| rest.split_once(":ref:"))
            .map(|(_, name)| name);
        if reference.is_some_and(|reference| !reference.starts_with("refs/")) {
            self.warn(
                exact,
                "`subject`: a ref is written out, `:ref:refs/heads/BRANCH` or `:ref:refs/tags/TAG`",
            );
        }
    }

    fn claim(&mut self, name: &At<String>, pattern: &At<String>) {
        let what = format!("claim_pattern.{}", name.value);
        self.pattern(&what, pattern);
        if slip::has_ref_suffix(&name.value) && slip::lacks_ref(&pattern.value) {
            self.warn(
                pattern,
                format!(
                    "`{what}`: the value ends with `@` and a ref; add `@refs/heads/main` or `@.*`"
                ),
            );
        }
        let is_bare = !pattern.value.contains("refs/") && !pattern.value.contains(slip::SPECIAL);
        if name.value == "ref" && self.is_actions && is_bare {
            self.warn(
                pattern,
                format!("`{what}`: a ref is written out, `refs/heads/BRANCH` or `refs/tags/TAG`"),
            );
        }
        if let Some(rest) = name
            .value
            .strip_prefix("https://sts.amazonaws.com/")
            .filter(|rest| !rest.starts_with('/'))
        {
            self.warn(
                name,
                format!(
                    "`{what}`: this claim is `https://sts.amazonaws.com//{rest}`, with two slashes"
                ),
            );
        }
        if let Some(rest) = name.value.strip_prefix("kubernetes.io.") {
            let path = rest.replace('.', "/");
            self.warn(
                name,
                format!("`{what}`: the path of this claim is written `kubernetes.io/{path}`"),
            );
        }
    }

    fn permission(&mut self, name: &At<String>, level: &At<String>) {
        if let Some(text) = Level::parse(&level.value)
            .and_then(|level| permission::rules::warning(&name.value, level))
        {
            self.warn(name, format!("`permissions.{}`: {text}", name.value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each warning, with its place before it.
    fn warnings(kind: PolicyKind, text: &str) -> Vec<String> {
        let (_, warnings) = lint(text.as_bytes(), kind, &Rules::default())
            .unwrap_or_else(|errors| panic!("{errors}"));
        let place = |warning: &Warning| {
            warning.mark.map_or(String::new(), |m| format!("{}:{} ", m.line, m.column))
        };
        warnings.iter().map(|warning| format!("{}{}", place(warning), warning.text)).collect()
    }

    fn one(conditions: &str) -> String {
        let text = format!("issuer: {ACTIONS}\n{conditions}\npermissions: {{contents: read}}\n");
        match warnings(PolicyKind::Repository, &text).as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            several => panic!("{several:?}"),
        }
    }

    #[test]
    fn an_exact_value_that_is_a_pattern() {
        for (value, written) in [
            ("repo:o/*:ref:refs/heads/main", "subject_pattern: repo:o/.*:ref"),
            ("repo:o/r:ref:refs/heads/.*", "subject_pattern: repo:o/r"),
            ("^repo:o/r:ref:refs/heads/main$", "subject_pattern"),
            ("repo:o/r:ref:refs/heads/(main|dev)", "subject_pattern"),
            ("repo:o/r:*", "subject_pattern: repo:o/r:.*"),
        ] {
            assert!(
                one(&format!("subject: '{value}'")).contains(written),
                "{value}: {}",
                one(&format!("subject: '{value}'"))
            );
        }
        for value in [
            "repo:o/r:ref:refs/heads/main",
            "repo:o/r:environment:my env (x)",
            "repo:o/r:actor:x[bot]",
        ] {
            assert_eq!(one(&format!("subject: '{value}'")), "", "{value}");
        }
        assert!(one("subject: s\naudience: https://*.example.com").contains("audience_pattern"));
    }

    #[test]
    fn globs_and_missing_refs_in_patterns() {
        assert!(
            one("subject_pattern: repo:acme/*:ref:refs/tags/.*")
                .starts_with("2:18 `subject_pattern`: this reads like a glob")
        );
        assert!(
            one("subject: s\nclaim_pattern: {ref: refs/heads/*}").contains("write `refs/heads/.*`")
        );
        assert!(
            one("subject: s\nclaim_pattern: {job_workflow_ref: o/r/x.yaml}")
                .contains("add `@refs/heads/main`")
        );
        assert!(one("subject: s\nclaim_pattern: {ref: main}").contains("written out"));
        assert!(one("subject: repo:o/r:ref:main").contains("written out"));
        assert_eq!(
            one(
                "subject_pattern: repo:acme/[^/]+:ref:refs/tags/v.*\nclaim_pattern: {ref: '(refs/heads/main)'}"
            ),
            ""
        );
    }

    #[test]
    fn issuers_that_no_token_has() {
        for (issuer, says) in [
            ("https://token.actions.githubusercontent.com/", "without the slash"),
            ("https://accounts.google.com/", "without the slash"),
            ("https://tenant.example.com/", "ends with a slash too"),
            ("accounts.google.com", "no token has this issuer"),
            ("https://A.example", "no token has this issuer"),
        ] {
            let found = warnings(
                PolicyKind::Repository,
                &format!("issuer: {issuer}\nsubject: s\npermissions: {{contents: read}}\n"),
            );
            assert!(
                found.len() == 1 && found[0].starts_with("1:9 ") && found[0].contains(says),
                "{issuer}: {found:?}"
            );
        }
    }

    #[test]
    fn claims_by_a_path_that_leads_nowhere() {
        assert!(
            one("subject: s\nclaim_pattern: {'https://sts.amazonaws.com/aws_account': '1'}")
                .contains("sts.amazonaws.com//aws_account")
        );
        assert!(
            one("subject: s\nclaim_pattern: {kubernetes.io.pod.name: x}")
                .contains("`kubernetes.io/pod/name`")
        );
    }

    #[test]
    fn issuers_that_end_with_a_slash_by_themselves_are_not_warned_about() {
        for issuer in [
            "https://tenant.eu.auth0.com/",
            "https://oidc.azure.com/T/",
            "https://sts.windows.net/T/",
        ] {
            let text = format!("issuer: {issuer}\nsubject: s\npermissions: {{contents: read}}\n");
            assert_eq!(warnings(PolicyKind::Repository, &text), [""; 0], "{issuer}");
        }
    }

    #[test]
    fn templates_and_permissions() {
        assert!(one("subject: 'repo:${REPO}:ref:refs/heads/main'").contains("placeholder"));
        let text = "issuer: https://a.example\nsubject: s\nrepositories: []\npermissions: {content: write, contents: admin}\n";
        let found = warnings(PolicyKind::Organization, text);
        assert!(
            found.len() == 2
                && found[0].contains("`contents`?")
                && found[1].contains("`read` and `write`"),
            "{found:?}"
        );
        let found = warnings(
            PolicyKind::Organization,
            "issuer: https://a.example\nsubject: s\npermissions: {contents: read}\n",
        );
        assert!(found.len() == 1 && found[0].contains("repositories: []"), "{found:?}");
    }
}
