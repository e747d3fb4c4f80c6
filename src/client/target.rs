//! What a workload asks a server for.

use crate::{
    name::{NameError, PolicyName, RepoName, Scope},
    policy::{Narrowing, NarrowingError},
};

/// A scope, a policy, and how much of what the policy grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    scope: Scope,
    identity: PolicyName,
    narrowing: Narrowing,
}

/// Why a target cannot be narrowed in this way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// A permission, or too many of anything.
    #[error(transparent)]
    Narrowing(#[from] NarrowingError),
    /// No repository's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The scope is one repository.
    #[error("repositories narrow an organization's policy: expected OWNER as the scope")]
    Repository,
    /// A repository of another owner.
    #[error("expected repositories of the scope's owner")]
    Owner,
}

impl Target {
    /// Everything that the policy grants.
    pub fn new(scope: Scope, identity: PolicyName) -> Self {
        Self { scope, identity, narrowing: Narrowing::default() }
    }

    /// The same for these repositories only, each `REPO` or `OWNER/REPO`. An empty list narrows
    /// nothing.
    ///
    /// # Errors
    /// The first mistake.
    pub fn with_repositories<'a>(
        self,
        repositories: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, TargetError> {
        let own = |text: &str| -> Result<RepoName, TargetError> {
            let (owner, name) = text.split_once('/').unzip();
            if self.scope.repo().is_some() {
                return Err(TargetError::Repository);
            }
            match owner {
                Some(owner) if owner.parse().as_ref() != Ok(self.scope.owner()) => {
                    Err(TargetError::Owner)
                }
                Some(_) | None => Ok(name.unwrap_or(text).parse()?),
            }
        };
        let repositories: Vec<_> = repositories.into_iter().map(own).collect::<Result<_, _>>()?;
        let narrowing = self.narrowing.clone().with_repositories(repositories)?;
        Ok(Self { narrowing, ..self })
    }

    /// The same for these permissions only, each `NAME:LEVEL`. An empty list narrows nothing.
    ///
    /// # Errors
    /// The first mistake.
    pub fn with_permissions<'a>(
        self,
        permissions: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, TargetError> {
        Ok(Self { narrowing: self.narrowing.with_permissions(permissions)?, ..self })
    }

    /// What the token is for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The policy by which it is granted.
    pub fn identity(&self) -> &PolicyName {
        &self.identity
    }

    /// As the query of a request. A server that does not narrow (the Go service) refuses several
    /// scopes, and ignores `cap`.
    pub(super) fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("scope", &self.scope.to_string());
        query.append_pair("identity", self.identity.as_str());
        for name in self.narrowing.repositories() {
            query.append_pair("scopes", &format!("{}/{name}", self.scope.owner()));
        }
        query.extend_pairs(self.narrowing.permissions().map(|entry| ("cap", entry)));
        query.finish()
    }

    /// What tells this target from all others, in one spelling.
    pub fn key(&self) -> String {
        let names = self.narrowing.repositories().iter().map(|name| name.as_str());
        let mut names: Vec<_> = names.map(str::to_ascii_lowercase).collect();
        names.sort_unstable();
        let permissions: Vec<_> = self.narrowing.permissions().collect();
        let scope = self.scope.to_string().to_ascii_lowercase();
        format!("{scope} {} {} {}", self.identity.as_str(), names.join(","), permissions.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(scope: &str) -> Target {
        Target::new(scope.parse().unwrap(), "ci".parse().unwrap())
    }

    fn narrowed<'a>(
        scope: &str,
        permissions: impl IntoIterator<Item = &'a str>,
        repositories: impl IntoIterator<Item = &'a str>,
    ) -> Result<Target, TargetError> {
        target(scope).with_repositories(repositories)?.with_permissions(permissions)
    }

    #[test]
    fn a_query_says_what_is_asked_for() {
        assert_eq!(target("o/r").query(), "scope=o%2Fr&identity=ci");
        let narrowed = narrowed("o", ["contents:read", "issues:write"], ["a", "O/b", "A"]);
        assert_eq!(
            narrowed.unwrap().query(),
            "scope=o&identity=ci&scopes=o%2Fa&scopes=o%2Fb&cap=contents%3Aread&cap=issues%3Awrite"
        );
    }

    #[test]
    fn only_an_owners_scope_is_narrowed_to_its_own_repositories() {
        let narrowed =
            |scope: &str, repository: &str| target(scope).with_repositories([repository]).map(drop);
        assert_eq!(narrowed("o", "a"), Ok(()));
        assert_eq!(narrowed("o/r", "r"), Err(TargetError::Repository));
        assert_eq!(narrowed("o", "p/a"), Err(TargetError::Owner));
        assert!(matches!(narrowed("o", "o/a/b"), Err(TargetError::Name(_))));
        assert!(matches!(narrowed("o", ""), Err(TargetError::Name(_))));
        assert!(matches!(
            target("o/r").with_permissions(["contents"]),
            Err(TargetError::Narrowing(NarrowingError::Permission))
        ));
    }

    #[test]
    fn targets_have_one_key_only_if_they_ask_for_the_same() {
        let key = |permissions: &[&'static str], repositories: &[&'static str]| {
            let (permissions, repositories) =
                (permissions.iter().copied(), repositories.iter().copied());
            narrowed("o", permissions, repositories).unwrap().key()
        };
        assert_eq!(
            key(&["a:read", "b:read"], &["x", "Y"]),
            key(&["b:read", "a:read"], &["y", "X"])
        );
        let different =
            [key(&[], &[]), key(&["a:read"], &[]), key(&["a:write"], &[]), key(&[], &["a"])];
        for (n, one) in different.iter().enumerate() {
            assert!(!different[n + 1..].contains(one), "{one}");
        }
    }
}
