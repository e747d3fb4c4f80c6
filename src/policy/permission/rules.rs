//! Which permissions a policy may grant: names, levels, and what a single repository may not grant.

use std::borrow::Cow;

use super::{Area, Known, Level, is_name, is_organization_wide, known, nearest};
use crate::{
    policy::{PolicyKind, Rules},
    yaml::{At, Errors},
};

/// The variable by which an operator lets repository policies grant more.
const VARIABLE: &str = "STS_REPOSITORY_POLICY_ORG_PERMISSIONS";

/// Permissions of workflows (`permissions:` in a workflow file) that Apps do not have.
const WORKFLOW_ONLY: [&str; 2] = ["id_token", "models"];

/// The level that an entry of `permissions` grants, if it obeys the rules.
pub(in crate::policy) fn entry(
    name: &At<String>,
    level: &At<String>,
    (kind, rules): (PolicyKind, &Rules),
    errors: &mut Errors,
) -> Option<Level> {
    let access = Level::parse(&level.value);
    if access.is_none() {
        errors.push(level.refuse(not_a_level(&level.value)));
    }
    let text = name.value.as_str();
    if let Some(rule) = workflow_only(text).or_else(|| not_a_name(text)) {
        errors.push(name.refuse(rule));
        return None;
    }
    let access = access?;
    let is_listed = rules.organization_permissions.contains(text);
    if kind == PolicyKind::Organization || access == Level::Read || is_listed {
        return Some(access);
    }
    match known(text) {
        Some(Known { name, area: Area::Organization, .. }) => {
            errors.push(level.refuse(organization_wide(&format!("`{name}`"))));
            None
        }
        Some(_) => Some(access),
        None if is_organization_wide(text) => {
            errors.push(level.refuse(organization_wide("this permission")));
            None
        }
        None => {
            errors.push(name.refuse(format!(
                "{}; a repository policy may grant a name that is not in the table of permissions at `read` only, \
                 unless the operator lists it in `{VARIABLE}`",
                unknown(text)
            )));
            None
        }
    }
}

/// What is questionable about a permission that is accepted.
pub(in crate::policy) fn warning(name: &str, access: Level) -> Option<String> {
    match known(name) {
        None => {
            Some(format!("{}; GitHub's answer decides when a token is requested", unknown(name)))
        }
        Some(known) if !known.levels.contains(&access) => {
            let levels: Vec<_> =
                known.levels.iter().map(|level| format!("`{}`", level.as_str())).collect();
            Some(format!(
                "GitHub has `{}` at {} only, and refuses other levels",
                known.name,
                levels.join(" and ")
            ))
        }
        Some(_) => None,
    }
}

fn workflow_only(name: &str) -> Option<String> {
    let folded = name.to_ascii_lowercase().replace('-', "_");
    let found = WORKFLOW_ONLY.into_iter().find(|only| *only == folded)?;
    let dashed = found.replace('_', "-");
    Some(format!(
        "`{dashed}` is a permission of workflows, and GitHub Apps do not have it; \
         remove it here and keep it under `permissions` in the workflow file"
    ))
}

fn not_a_name(name: &str) -> Option<String> {
    if is_name(name) {
        return None;
    }
    Some(match nearest(name) {
        Some(near) => format!("GitHub's API spells this permission `{near}`"),
        None if name.contains('-') => {
            "the words of a permission's name are joined by `_`, not `-`".to_owned()
        }
        None => "expected the name of a permission of GitHub Apps: [a-z][a-z0-9_]*".to_owned(),
    })
}

fn unknown(name: &str) -> String {
    match nearest(name) {
        Some(near) => {
            format!("GitHub documents no permission of this name; did you mean `{near}`?")
        }
        None => "GitHub documents no permission of this name".to_owned(),
    }
}

fn not_a_level(level: &str) -> Cow<'static, str> {
    let near =
        |known: &Level| strsim::osa_distance(known.as_str(), &level.to_ascii_lowercase()) <= 2;
    let near = [Level::Read, Level::Write, Level::Admin].into_iter().find(near);
    match near.filter(|_| level.len() <= 8) {
        Some(near) => {
            format!("a level is `read`, `write` or `admin`; did you mean `{}`?", near.as_str())
                .into()
        }
        None => "a level is `read`, `write` or `admin`".into(),
    }
}

fn organization_wide(what: &str) -> String {
    format!(
        "{what} governs the whole organization, and a repository policy may grant it at `read` only; \
         move the policy to the organization's policy repository, or have the operator list the permission in \
         `{VARIABLE}`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Mark;

    /// The level granted, or the rule that the name (column 1) or the level (column 2) breaks.
    fn check(
        name: &str,
        access: &str,
        kind: PolicyKind,
        listed: &[&str],
    ) -> Result<Level, (u32, String)> {
        let at = |text: &str, column| At { mark: Mark { line: 1, column }, value: text.to_owned() };
        let organization_permissions = listed.iter().map(|name| (*name).to_owned()).collect();
        let rules = Rules { organization_permissions, ..Rules::default() };
        let mut errors = Errors::default();
        let granted = entry(&at(name, 1), &at(access, 2), (kind, &rules), &mut errors);
        match errors.iter().next() {
            None => Ok(granted.unwrap()),
            Some(error) => {
                assert_eq!(granted, None);
                Err((error.column().unwrap(), error.rule().to_owned()))
            }
        }
    }

    fn name_error(name: &str, access: &str) -> String {
        match check(name, access, PolicyKind::Repository, &[]) {
            Err((1, text)) => text,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn level_error(name: &str, access: &str) -> String {
        match check(name, access, PolicyKind::Repository, &[]) {
            Err((2, text)) => text,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn permissions_of_workflows_are_named_as_such() {
        for name in ["id-token", "id_token", "ID-TOKEN", "models"] {
            assert!(name_error(name, "write").contains("permission of workflows"), "{name}");
        }
    }

    #[test]
    fn a_workflows_spelling_leads_to_the_apis() {
        for (name, api) in [
            ("pull-requests", "`pull_requests`"),
            ("security-events", "`security_events`"),
            ("artifact-metadata", "`artifact_metadata`"),
            ("repository-projects", "`repository_projects`"),
            ("Contents", "`contents`"),
        ] {
            assert!(name_error(name, "read").contains(api), "{name}");
        }
        assert!(name_error("some-thing-else", "read").contains("joined by `_`"));
        assert!(name_error("1x", "read").contains("[a-z]"));
    }

    #[test]
    fn a_repository_grants_unknown_names_at_read_only() {
        for (name, near) in [
            ("pull_request", Some("`pull_requests`")),
            ("workflow", Some("`workflows`")),
            ("repo", None),
        ] {
            let error = name_error(name, "write");
            assert!(
                error.contains("no permission of this name") && error.contains(VARIABLE),
                "{error}"
            );
            assert_eq!(error.contains("did you mean"), near.is_some(), "{error}");
            assert!(near.is_none_or(|near| error.contains(near)), "{error}");
            assert_eq!(check(name, "read", PolicyKind::Repository, &[]), Ok(Level::Read));
            assert_eq!(check(name, "write", PolicyKind::Repository, &[name]), Ok(Level::Write));
            assert_eq!(check(name, "admin", PolicyKind::Organization, &[]), Ok(Level::Admin));
            assert!(warning(name, Level::Read).is_some());
        }
    }

    #[test]
    fn an_organizations_permission_in_a_repository_names_both_ways_out() {
        for name in ["members", "organization_secrets", "enterprise_new_thing", "team_discussions"]
        {
            for access in ["write", "admin"] {
                let error = level_error(name, access);
                assert!(error.contains("policy repository") && error.contains(VARIABLE), "{error}");
            }
            assert_eq!(check(name, "read", PolicyKind::Repository, &[]), Ok(Level::Read));
            assert_eq!(check(name, "write", PolicyKind::Repository, &[name]), Ok(Level::Write));
            assert_eq!(check(name, "write", PolicyKind::Organization, &[]), Ok(Level::Write));
        }
    }

    #[test]
    fn levels_are_words_and_github_has_not_all_for_each() {
        for (level, near) in
            [("writ", "`write`?"), ("Read", "`read`?"), ("WRITE", "`write`?"), ("admn", "`admin`?")]
        {
            let error = level_error("contents", level);
            assert!(error.ends_with(&format!("did you mean {near}")), "{error}");
        }
        let error = level_error("contents", "everything");
        assert!(!error.contains("did you mean"), "{error}");
        assert!(warning("contents", Level::Admin).unwrap().contains("`read` and `write` only"));
        assert!(warning("workflows", Level::Read).unwrap().contains("`write` only"));
        assert_eq!(warning("contents", Level::Write), None);
    }
}
