//! Asking for less: what a policy allows × what was asked for → a [`Grant`], or [`NotCovered`].
//!
//! Only [`Allowed::narrow`] makes a [`Grant`], so nothing can be minted past what was asked for.
//! Asking for more than the policy allows is refused, never trimmed: a caller that gets less than
//! it asked for would fail later, and elsewhere.

use std::{collections::HashSet, fmt};

use super::{AppPin, Level, Permissions, Repositories, permission};
use crate::{
    name::{Owner, RepoName},
    reason::{Condition, Reason},
};

/// The most repositories that a request may name: as many as a policy may list.
const MAX_REPOSITORIES: usize = 500;
/// The longest name of a permission in a request, in bytes.
const MAX_NAME: usize = 64;
/// The most permissions that a request may name.
const MAX_PERMISSIONS: usize = 100;

/// What a request asks for where that is less than everything. By default it is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrowing {
    permissions: Permissions,
    repositories: Vec<RepoName>,
}

/// Why a request to narrow is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NarrowingError {
    /// Not `NAME:LEVEL`.
    #[error("expected NAME:LEVEL with a permission's name, and read, write or admin as the level")]
    Permission,
    /// One permission at two levels.
    #[error("expected each permission once")]
    Levels,
    /// Too many.
    #[error("expected at most {MAX_PERMISSIONS} permissions and {MAX_REPOSITORIES} repositories")]
    TooMany,
}

impl Narrowing {
    /// Narrows to these permissions, each `NAME:LEVEL`. An empty list narrows nothing; what is
    /// named twice counts once.
    ///
    /// # Errors
    /// The first mistake.
    pub fn with_permissions<'a>(
        self,
        entries: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, NarrowingError> {
        let mut permissions = Permissions::new();
        for entry in entries {
            let (name, level) = entry.split_once(':').ok_or(NarrowingError::Permission)?;
            let level = Level::parse(level).ok_or(NarrowingError::Permission)?;
            if name.len() > MAX_NAME || !permission::is_name(name) {
                return Err(NarrowingError::Permission);
            }
            let before = permissions.insert(name.to_owned(), level);
            if before.is_some_and(|before| before != level) {
                return Err(NarrowingError::Levels);
            }
        }
        if permissions.len() > MAX_PERMISSIONS {
            return Err(NarrowingError::TooMany);
        }
        Ok(Self { permissions, ..self })
    }

    /// Narrows to these repositories of the scope's owner. An empty list narrows nothing; what is
    /// named twice counts once.
    ///
    /// # Errors
    /// There are too many.
    pub fn with_repositories(
        self,
        mut repositories: Vec<RepoName>,
    ) -> Result<Self, NarrowingError> {
        let mut named = HashSet::new();
        repositories.retain(|repository| named.insert(repository.clone()));
        if repositories.len() > MAX_REPOSITORIES {
            return Err(NarrowingError::TooMany);
        }
        Ok(Self { repositories, ..self })
    }

    /// The permissions asked for, as `NAME:LEVEL`; none for all.
    pub fn permissions(&self) -> impl Iterator<Item = String> {
        self.permissions.iter().map(|(name, level)| format!("{name}:{}", level.as_str()))
    }

    /// The repositories asked for; empty for all.
    pub fn repositories(&self) -> &[RepoName] {
        &self.repositories
    }
}

/// What a token may have at most, by a policy that it satisfied. Only evaluation makes one.
#[derive(Debug, Clone)]
pub struct Allowed {
    pub(super) owner: Owner,
    pub(super) repositories: Repositories,
    pub(super) permissions: Permissions,
    pub(super) pin: Option<AppPin>,
    pub(super) conditions: Vec<Condition>,
}

impl Allowed {
    /// The conditions, all satisfied, in the order of [`Denied::conditions`](super::Denied).
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// What the policy allows.
    #[cfg(test)]
    pub(super) fn whole(self) -> Grant {
        self.narrow(&Narrowing::default()).unwrap()
    }

    /// Grants what was asked for.
    ///
    /// # Errors
    /// [`NotCovered`] if the policy does not allow all of it.
    pub fn narrow(self, asked: &Narrowing) -> Result<Grant, NotCovered> {
        let permissions = self.permissions(&asked.permissions)?;
        let repositories = self.repositories(&asked.repositories)?;
        let Self { owner, pin, conditions, .. } = self;
        Ok(Grant { owner, repositories, permissions, pin, conditions })
    }

    fn permissions(&self, asked: &Permissions) -> Result<Permissions, NotCovered> {
        if asked.is_empty() {
            return Ok(self.permissions.clone());
        }
        let exceeds = |(name, level): &(&String, &Level)| {
            self.permissions.get(*name).is_none_or(|allowed| *level > allowed)
        };
        match asked.iter().find(exceeds) {
            None => Ok(asked.clone()),
            Some((name, level)) => Err(NotCovered::Permission {
                name: name.clone(),
                asked: *level,
                allowed: self.permissions.get(name).copied(),
            }),
        }
    }

    fn repositories(&self, asked: &[RepoName]) -> Result<Repositories, NotCovered> {
        if asked.is_empty() {
            return Ok(self.repositories.clone());
        }
        if let Repositories::These(allowed) = &self.repositories {
            let allowed: HashSet<&RepoName> = allowed.iter().collect();
            if let Some(missing) = asked.iter().find(|name| !allowed.contains(name)) {
                return Err(NotCovered::Repository {
                    owner: self.owner.clone(),
                    name: missing.clone(),
                });
            }
        }
        Ok(Repositories::These(asked.to_vec()))
    }
}

/// A request asks for more than the policy allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCovered {
    /// A permission that the policy lacks, or has at a lower level.
    Permission {
        /// Its name.
        name: String,
        /// What was asked for.
        asked: Level,
        /// What the policy has.
        allowed: Option<Level>,
    },
    /// A repository that the policy does not list.
    Repository {
        /// Whose it is.
        owner: Owner,
        /// Its name.
        name: RepoName,
    },
}

impl NotCovered {
    /// The word on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Permission { .. } => Reason::PermissionRefused,
            Self::Repository { .. } => Reason::RepositoryRefused,
        }
    }
}

impl fmt::Display for NotCovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission { name, asked, allowed: None } => {
                write!(f, "the policy does not grant {name}: {}", asked.as_str())
            }
            Self::Permission { name, asked, allowed: Some(allowed) } => {
                let (asked, allowed) = (asked.as_str(), allowed.as_str());
                write!(f, "the policy grants {name}: {allowed}, not {name}: {asked}")
            }
            Self::Repository { owner, name } => {
                write!(f, "the policy does not cover {owner}/{name}")
            }
        }
    }
}

impl std::error::Error for NotCovered {}

/// What a token is minted with: what was asked for, and what a policy that it satisfied allows.
#[derive(Debug, Clone)]
pub struct Grant {
    owner: Owner,
    repositories: Repositories,
    permissions: Permissions,
    pin: Option<AppPin>,
    conditions: Vec<Condition>,
}

impl Grant {
    /// Whose installation mints.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What the token reaches.
    pub fn repositories(&self) -> &Repositories {
        &self.repositories
    }

    /// What the token may do there; never empty.
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// Which App must mint.
    pub fn pin(&self) -> Option<&AppPin> {
        self.pin.as_ref()
    }

    /// The conditions, all satisfied, in the order of [`Denied::conditions`](super::Denied).
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// A grant as if evaluated, for unit tests of what comes after.
    #[cfg(test)]
    pub(crate) fn for_test(
        owner: &str,
        repositories: Repositories,
        permissions: Permissions,
    ) -> Self {
        Self {
            owner: owner.parse().unwrap(),
            repositories,
            permissions,
            pin: None,
            conditions: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowed(repositories: &[&str], permissions: &[(&str, Level)]) -> Allowed {
        Allowed {
            owner: "octo-org".parse().unwrap(),
            repositories: match repositories {
                [] => Repositories::All,
                names => {
                    Repositories::These(names.iter().map(|name| name.parse().unwrap()).collect())
                }
            },
            permissions: permissions.iter().map(|(n, level)| ((*n).to_owned(), *level)).collect(),
            pin: None,
            conditions: Vec::new(),
        }
    }

    fn asked(permissions: &[&str], repositories: &[&str]) -> Narrowing {
        let repositories = repositories.iter().map(|name| name.parse().unwrap()).collect();
        let all = Narrowing::default().with_permissions(permissions.iter().copied());
        all.and_then(|narrowing| narrowing.with_repositories(repositories)).unwrap()
    }

    /// Permissions and repositories of a grant as texts, or why there is none.
    fn narrowed(allowed: Allowed, narrowing: &Narrowing) -> Result<(String, String), String> {
        let grant = allowed.narrow(narrowing).map_err(|error| error.to_string())?;
        let permissions =
            grant.permissions().iter().map(|(name, level)| format!("{name}:{}", level.as_str()));
        let repositories = match grant.repositories() {
            Repositories::All => "all".to_owned(),
            Repositories::These(names) => {
                names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            }
        };
        Ok((permissions.collect::<Vec<_>>().join(" "), repositories))
    }

    #[test]
    fn what_is_asked_for_is_granted_or_refused_and_never_trimmed() {
        use Level::{Admin, Read, Write};
        let permissions = &[("contents", Write), ("issues", Read), ("members", Admin)][..];
        let whole = "contents:write issues:read members:admin";
        type Names = &'static [&'static str];
        type Expected = Result<(&'static str, &'static str), &'static str>;
        let cases: [(Names, Names, Names, Expected); 13] = [
            (&[], &[], &[], Ok((whole, "all"))),
            (&["a", "b"], &[], &[], Ok((whole, "a b"))),
            (&[], &["contents:read"], &[], Ok(("contents:read", "all"))),
            (&[], &["contents:write"], &[], Ok(("contents:write", "all"))),
            (
                &[],
                &["issues:read", "contents:read", "issues:read"],
                &[],
                Ok(("contents:read issues:read", "all")),
            ),
            (&[], &["members:write"], &[], Ok(("members:write", "all"))),
            (
                &[],
                &["contents:admin"],
                &[],
                Err("the policy grants contents: write, not contents: admin"),
            ),
            (
                &[],
                &["contents:read", "issues:write"],
                &[],
                Err("the policy grants issues: read, not issues: write"),
            ),
            (&[], &["packages:read"], &[], Err("the policy does not grant packages: read")),
            (&[], &[], &["x", "y", "X"], Ok((whole, "x y"))),
            (&["a", "b"], &["issues:read"], &["B"], Ok(("issues:read", "B"))),
            (&["a", "b"], &[], &["b", "c"], Err("the policy does not cover octo-org/c")),
            (&["a"], &["contents:write"], &["a"], Ok(("contents:write", "a"))),
        ];
        for (repositories, cap, names, expected) in cases {
            let outcome = narrowed(allowed(repositories, permissions), &asked(cap, names));
            let expected =
                expected.map(|(p, r)| (p.to_owned(), r.to_owned())).map_err(ToOwned::to_owned);
            assert_eq!(outcome, expected, "{repositories:?} {cap:?} {names:?}");
        }
    }

    #[test]
    fn what_is_no_permission_with_a_level_is_refused() {
        use NarrowingError::{Levels, Permission, TooMany};
        let permissions = |entries: &[&str]| {
            Narrowing::default().with_permissions(entries.iter().copied()).map(drop)
        };
        for (entries, expected) in [
            (&["contents"][..], Permission),
            (&["contents:"], Permission),
            (&[":read"], Permission),
            (&["contents:READ"], Permission),
            (&["contents: read"], Permission),
            (&["Contents:read"], Permission),
            (&["contents:read:write"], Permission),
            (&["contents:none"], Permission),
            (&["pull-requests:read"], Permission),
            (&["contents:read", "contents:write"], Levels),
        ] {
            assert_eq!(permissions(entries), Err(expected), "{entries:?}");
        }
        let long = format!("{}:read", "a".repeat(65));
        assert_eq!(permissions(&[&long]), Err(Permission));
        let many: Vec<_> = (0..101).map(|n| format!("p{n}:read")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(permissions(&many), Err(TooMany));
        assert_eq!(permissions(&many[1..]), Ok(()));
        let repositories = |n| {
            let names = (0..n).map(|n| format!("r{n}").parse().unwrap()).collect();
            Narrowing::default().with_repositories(names).map(drop)
        };
        assert_eq!(repositories(501), Err(TooMany));
        assert_eq!(repositories(500), Ok(()));
    }

    proptest! {
        #[test]
        fn a_grant_is_never_wider_than_the_policy_nor_than_what_was_asked_for(
            has in proptest::collection::btree_map(0u8..4, 0usize..3, 1..4),
            wants in proptest::collection::btree_map(0u8..4, 0usize..3, 0..4),
            covers in proptest::collection::btree_set(0u8..4, 0..4),
            names in proptest::collection::btree_set(0u8..4, 0..4),
        ) {
            let levels = [Level::Read, Level::Write, Level::Admin];
            let to = |map: &std::collections::BTreeMap<u8, usize>| -> Permissions {
                map.iter().map(|(n, level)| (format!("p{n}"), levels[*level])).collect()
            };
            let repos = |set: &std::collections::BTreeSet<u8>| -> Vec<RepoName> {
                set.iter().map(|n| format!("r{n}").parse().unwrap()).collect()
            };
            let allowed = Allowed {
                owner: "o".parse().unwrap(),
                repositories: if covers.is_empty() {
                    Repositories::All
                } else {
                    Repositories::These(repos(&covers))
                },
                permissions: to(&has),
                pin: None,
                conditions: Vec::new(),
            };
            let asked = Narrowing { permissions: to(&wants), repositories: repos(&names) };
            let within = |one: &Permissions, other: &Permissions| {
                one.iter().all(|(n, level)| other.get(n).is_some_and(|most| level <= most))
            };
            let is_covered = (wants.is_empty() || within(&to(&wants), &to(&has)))
                && (covers.is_empty() || names.is_subset(&covers));
            match allowed.narrow(&asked) {
                Err(_) => prop_assert!(!is_covered),
                Ok(grant) => {
                    prop_assert!(is_covered);
                    prop_assert!(within(grant.permissions(), &to(&has)));
                    prop_assert!(!grant.permissions().is_empty());
                    if !wants.is_empty() {
                        prop_assert_eq!(grant.permissions(), &to(&wants));
                    }
                    match (grant.repositories(), names.is_empty()) {
                        (Repositories::All, true) => prop_assert!(covers.is_empty()),
                        (Repositories::These(own), true) => prop_assert_eq!(own, &repos(&covers)),
                        (Repositories::These(own), false) => prop_assert_eq!(own, &repos(&names)),
                        (Repositories::All, false) => prop_assert!(false, "not narrowed"),
                    }
                }
            }
        }
    }
}
