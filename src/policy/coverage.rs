//! Which repositories a policy covers: `repositories`, and what its absence means.

use std::collections::BTreeSet;

use super::{Home, PolicyKind, Repositories, Rules};
use crate::{
    cache::{ALLOCATION_OVERHEAD, heap_bytes},
    name::{NameError, Owner, RepoName, Scope},
    yaml::{At, Errors, Invalid},
};

/// GitHub accepts no more names for one token.
const MAX_REPOSITORIES: usize = 500;

/// What a policy says about repositories.
#[derive(Debug)]
pub(super) enum Coverage {
    /// Nothing: the repository of the scope, or all that the installation sees.
    Unlisted,
    /// `[]`: all that the installation sees, for either scope.
    All,
    /// These, at least one.
    Listed {
        names: Vec<RepoName>,
        /// The owner that names were written with. The policy is for this owner only.
        owner: Option<Owner>,
    },
}

impl Coverage {
    /// Reads the list.
    pub(super) fn read(
        list: Option<At<Vec<At<String>>>>,
        home: &Home<'_>,
        rules: &Rules,
        errors: &mut Errors,
    ) -> Self {
        const REQUIRED: &str = "`repositories` is required and not empty: the operator of this server set `STS_REQUIRE_REPOSITORIES`";
        let is_required = home.kind == PolicyKind::Organization && rules.require_repositories;
        match list {
            None if is_required => errors.push(Invalid::file(REQUIRED)),
            None => {}
            Some(list) if home.kind == PolicyKind::Repository => errors.push(list.refuse(
                "`repositories` is for organization policies; \
                 a repository policy covers the repository that holds it",
            )),
            Some(list) if list.value.len() > MAX_REPOSITORIES => {
                errors.push(list.refuse("there are more than 500 repositories"));
            }
            Some(list) if list.value.is_empty() && is_required => {
                errors.push(list.refuse(REQUIRED))
            }
            Some(list) if list.value.is_empty() => return Self::All,
            Some(list) => return Self::listed(list.value, home.owner, errors),
        }
        Self::Unlisted
    }

    fn listed(entries: Vec<At<String>>, home: Option<&Owner>, errors: &mut Errors) -> Self {
        let mut owner = home.cloned();
        let mut is_qualified = false;
        let mut names: Vec<RepoName> = Vec::with_capacity(entries.len());
        let mut seen = BTreeSet::new();
        for entry in entries {
            if errors.leave_out_rest() {
                break;
            }
            let (qualifier, name) = match entry.value.split_once('/') {
                None => (None, entry.value.as_str()),
                Some((qualifier, name)) => (Some(qualifier), name),
            };
            if let Some(qualifier) = qualifier {
                is_qualified = true;
                let Some(written) = parse::<Owner>(&entry, qualifier, errors) else { continue };
                if *owner.get_or_insert_with(|| written.clone()) != written {
                    errors.push(entry.refuse(
                        "the repository is of another owner; a policy covers repositories of its own owner only",
                    ));
                    continue;
                }
            }
            let name = parse::<RepoName>(&entry, name, errors);
            if let Some(name) = name
                && seen.insert(name.key().to_owned())
            {
                names.push(name);
            }
        }
        names.shrink_to_fit();
        Self::Listed { names, owner: owner.filter(|_| is_qualified) }
    }

    /// The memory behind this value, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Unlisted | Self::All => 0,
            Self::Listed { names, owner } => {
                let texts: usize = names.iter().map(|name| 2 * heap_bytes(name.as_str())).sum();
                let owner = owner.as_ref().map_or(0, |owner| 2 * heap_bytes(owner.as_str()));
                texts + owner + 2 * names.len() * size_of::<RepoName>() + ALLOCATION_OVERHEAD
            }
        }
    }

    /// What a token for a scope reaches, or `None` if the policy is for another owner.
    pub(super) fn of(&self, scope: &Scope) -> Option<Repositories> {
        match (self, scope.repo()) {
            (Self::Listed { owner: Some(owner), .. }, _) if owner != scope.owner() => None,
            (Self::Listed { names, .. }, _) => Some(Repositories::These(names.clone())),
            (Self::All, _) | (Self::Unlisted, None) => Some(Repositories::All),
            (Self::Unlisted, Some(repo)) => Some(Repositories::These(vec![repo.clone()])),
        }
    }
}

fn parse<T: std::str::FromStr<Err = NameError>>(
    entry: &At<String>,
    text: &str,
    errors: &mut Errors,
) -> Option<T> {
    errors.note(text.parse().map_err(|error: NameError| entry.refuse(error.to_string())))
}
