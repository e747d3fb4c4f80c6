//! Names and levels of GitHub's installation permissions, and which of them govern an organization.
//!
//! GitHub adds names every quarter. A name that the `table` lacks is therefore accepted where it
//! cannot do harm, and GitHub's own answer decides; `rules` has the limits.

pub(super) mod rules;
mod table;

use std::collections::BTreeMap;

pub use table::KNOWN;

/// Access level of a permission. A higher one includes the lower.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// May read.
    Read,
    /// May read and change.
    Write,
    /// May administer.
    Admin,
}

impl Level {
    /// As GitHub writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// The level of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Admin].into_iter().find(|level| level.as_str() == name)
    }
}

/// Permission name → level.
pub type Permissions = BTreeMap<String, Level>;

/// What a permission governs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// The repositories of a token.
    Repository,
    /// The organization or the enterprise.
    Organization,
    /// A user's own account.
    Account,
}

/// A permission that GitHub documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// As the API spells it.
    pub name: &'static str,
    /// What it governs.
    pub area: Area,
    /// The levels that it has.
    pub levels: &'static [Level],
}

/// The data of a permission, or `None` for a name that the table lacks.
pub fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// Whether a permission governs an organization or an enterprise. New names of these families
/// count before they are listed here.
pub fn is_organization_wide(name: &str) -> bool {
    known(name).map_or_else(
        || name.starts_with("organization_") || name.starts_with("enterprise_"),
        |known| known.area == Area::Organization,
    )
}

/// The known name that a misspelt one most resembles, if it resembles one.
pub fn nearest(name: &str) -> Option<&'static str> {
    /// Longer names are not compared: the time grows with the length.
    const MAX_BYTES: usize = 64;
    if name.len() > MAX_BYTES {
        return None;
    }
    let folded = name.to_ascii_lowercase().replace('-', "_");
    let max_edits = (folded.len() / 4).clamp(1, 3);
    let edits = |known: &Known| strsim::osa_distance(known.name, &folded);
    let near = KNOWN
        .iter()
        .map(|known| (edits(known), known.name))
        .filter(|(edits, _)| *edits <= max_edits);
    near.min().map(|(_, name)| name)
}

/// Whether a text is a permission's name: `[a-z][a-z0-9_]*`.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_names_each_permission_once_and_by_the_rule() {
        let mut names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
        assert!(names.iter().all(|name| is_name(name)));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(KNOWN.iter().all(|known| !known.levels.is_empty()));
    }

    /// The field names of `InstallationPermissions` in go-github v85.0.0, by their JSON names.
    const GO_GITHUB: &str = include_str!("../../tests/corpus/go-github-v85-permissions.txt");

    #[test]
    fn the_table_has_every_name_of_the_go_library() {
        let names: Vec<&str> = GO_GITHUB.lines().collect();
        assert_eq!(names.len(), 75);
        let missing: Vec<&&str> = names.iter().filter(|name| known(name).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_misspelt_name_leads_to_the_nearest() {
        for (misspelt, name) in [
            ("pull_request", "pull_requests"),
            ("pull-requests", "pull_requests"),
            ("workflow", "workflows"),
            ("content", "contents"),
            ("Issues", "issues"),
            ("security-event", "security_events"),
            ("organisation_secrets", "organization_secrets"),
            ("depoylments", "deployments"),
        ] {
            assert_eq!(nearest(misspelt), Some(name), "{misspelt}");
        }
        for other in ["repo", "id-token", "models", "x", "", "everything", &"contents".repeat(20)] {
            assert_eq!(nearest(other), None, "{other}");
        }
    }

    #[test]
    fn organization_wide_names_count_by_data_and_by_family() {
        for wide in [
            "members",
            "organization_secrets",
            "custom_properties_for_organizations",
            "organization_new_thing",
            "enterprise_x",
            "team_discussions",
            "organization_api_insights",
        ] {
            assert!(is_organization_wide(wide), "{wide}");
        }
        for narrow in ["contents", "members_area", "new_thing", "repository_projects", "profile"] {
            assert!(!is_organization_wide(narrow), "{narrow}");
        }
    }

    #[test]
    fn names_and_levels_are_lowercase_words() {
        for bad in ["", "pull-requests", "Contents", "1x", "_x", "a b", "é"] {
            assert!(!is_name(bad), "{bad}");
        }
        for bad in ["", "Read", "writ", "none", "WRITE", " read"] {
            assert_eq!(Level::parse(bad), None, "{bad}");
        }
        assert_eq!(Level::parse("admin"), Some(Level::Admin));
        assert!(Level::Read < Level::Write && Level::Write < Level::Admin);
    }
}
