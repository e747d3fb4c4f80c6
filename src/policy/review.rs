//! What a reviewer of a change should know about a valid policy, beyond what its file says by
//! itself: whether it can change itself, what it reaches, and whether the App can give it at all.

use super::{
    Access, Home, Level, Permissions, Policy, PolicyKind, Reach, Rules,
    document::Document,
    lint::{Warning, lint},
    permission,
};
use crate::{
    name::RepoName,
    yaml::{self, At, Errors},
};

/// Permissions that let a token change the policies of a repository that it reaches.
const CHANGES_POLICIES: [&str; 3] = ["administration", "contents", "workflows"];

/// Where a policy is, and what the App has there.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Whose policy it is.
    pub home: Home<'a>,
    /// The repository that holds it.
    pub repo: &'a RepoName,
    /// What the installation has, if that is known.
    pub granted: Option<&'a Permissions>,
}

/// Reads a policy's file, and everything that a reviewer should look at.
///
/// # Errors
/// Every rule that the file breaks.
pub fn review(
    bytes: &[u8],
    surroundings: Surroundings<'_>,
    rules: &Rules,
) -> Result<(Policy, Vec<Warning>), Errors> {
    let (policy, mut warnings) = lint(bytes, surroundings.home, rules)?;
    let (root, mut errors) = yaml::tree(bytes)?;
    let document = Document::read(&root, &mut errors);
    let access = policy.access();
    for (name, level) in document.permissions.iter().flatten() {
        let Some(level_given) = access.permissions.get(&name.value).copied() else { continue };
        let about = |text: String| Warning { mark: Some(level.mark), text };
        if is_self_escalation(&name.value, level_given, &access, surroundings) {
            warnings.push(about(format!(
                "`{}: {}` reaches the repository that holds this policy: its tokens can change the policy itself",
                name.value,
                level_given.as_str()
            )));
        }
        if permission::is_organization_wide(&name.value) {
            warnings.push(about(format!("`{}` governs the whole organization", name.value)));
        }
        warnings.extend(lacking(name, level_given, surroundings.granted).map(about));
    }
    if access.reach == Reach::All && surroundings.home.kind == PolicyKind::Organization {
        let mark = document.repositories.as_ref().map(|list| list.mark);
        let text = "tokens reach every repository that the installation sees".to_owned();
        // Without the key, the same was said already.
        warnings.extend(mark.map(|mark| Warning { mark: Some(mark), text }));
    }
    warnings.sort_by_key(|warning| (warning.mark.is_none(), warning.mark.map(|mark| mark.line)));
    Ok((policy, warnings))
}

fn is_self_escalation(
    name: &str,
    level: Level,
    access: &Access,
    Surroundings { repo, .. }: Surroundings<'_>,
) -> bool {
    let reaches_home = match &access.reach {
        Reach::Own | Reach::All => true,
        Reach::These(names) => names.iter().any(|name| name.eq_ignore_ascii_case(repo.as_str())),
    };
    reaches_home && level >= Level::Write && CHANGES_POLICIES.contains(&name)
}

fn lacking(name: &At<String>, level: Level, granted: Option<&Permissions>) -> Option<String> {
    let held = granted?.get(&name.value).copied();
    if held.is_some_and(|held| held >= level) {
        return None;
    }
    let has =
        held.map_or("does not have it".to_owned(), |held| format!("has only `{}`", held.as_str()));
    Some(format!(
        "`{}: {}` is more than the App's installation has: it {has}. Tokens cannot be issued by this policy until the App has it",
        name.value,
        level.as_str()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "issuer: https://token.actions.githubusercontent.com\n\
        subject: repo:o/r:ref:refs/heads/main\n";

    fn said(rest: &str, kind: PolicyKind, granted: &[(&str, Level)]) -> Vec<(Option<u32>, String)> {
        let granted: Permissions =
            granted.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect();
        let repo = ".github".parse().unwrap();
        let surroundings = Surroundings { home: kind.into(), repo: &repo, granted: Some(&granted) };
        let text = format!("{HEAD}{rest}");
        let (_, warnings) = review(text.as_bytes(), surroundings, &Rules::default()).unwrap();
        warnings.into_iter().map(|it| (it.mark.map(|mark| mark.line), it.text)).collect()
    }

    #[test]
    fn a_policy_that_can_change_itself_is_pointed_out_on_its_line() {
        use Level::{Read, Write};
        let all = [("contents", Write), ("workflows", Write), ("issues", Write), ("members", Read)];
        for (rest, kind, lines) in [
            ("permissions:\n  issues: write\n  contents: write\n", PolicyKind::Repository, vec![5]),
            ("permissions:\n  contents: read\n  issues: write\n", PolicyKind::Repository, vec![]),
            (
                "permissions:\n  contents: write\nrepositories: [a]\n",
                PolicyKind::Organization,
                vec![],
            ),
            (
                "permissions:\n  contents: write\nrepositories: [a, .GitHub]\n",
                PolicyKind::Organization,
                vec![4],
            ),
            (
                "permissions:\n  contents: write\nrepositories: []\n",
                PolicyKind::Organization,
                vec![4, 5],
            ),
            (
                "permissions:\n  members: read\nrepositories: [a]\n",
                PolicyKind::Organization,
                vec![4],
            ),
        ] {
            let said = said(rest, kind, &all);
            let found: Vec<u32> = said.iter().filter_map(|(line, _)| *line).collect();
            assert_eq!(found, lines, "{rest}: {said:?}");
        }
    }

    #[test]
    fn what_the_installation_lacks_is_pointed_out() {
        let rest = "permissions:\n  issues: write\n  pull_requests: read\n  actions: read\n";
        let granted = [("issues", Level::Read), ("actions", Level::Read)];
        let said = said(rest, PolicyKind::Repository, &granted);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].1.contains("it has only `read`"), "{said:?}");
        assert!(said[1].1.contains("it does not have it"), "{said:?}");
    }
}
