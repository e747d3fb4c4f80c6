//! What GitHub's installation permissions are called, and which of them reach past repositories.
//!
//! GitHub adds names every quarter, so a name that is missing here is no error: GitHub's own
//! answer decides. What must be known is which names govern an organization, because a policy in
//! one repository is written by whoever can write to that repository.

use std::collections::BTreeMap;

/// Access level of a permission. A higher one includes the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
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

/// The data of a permission, or `None` for a name that GitHub did not document when this was written.
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

/// Whether a text is a permission's name: `[a-z][a-z0-9_]*`.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

const READ_WRITE: &[Level] = &[Level::Read, Level::Write];
const ALL: &[Level] = &[Level::Read, Level::Write, Level::Admin];

macro_rules! known {
    ($($area:ident $levels:expr => $($name:literal)*;)*) => {
        &[$($(Known { name: $name, area: Area::$area, levels: $levels },)*)*]
    };
}

/// The `app-permissions` schema of GitHub's OpenAPI description, Enterprise names included.
pub const KNOWN: &[Known] = known! {
    Repository READ_WRITE =>
        "actions" "administration" "artifact_metadata" "attestations" "checks" "code_quality" "codespaces" "contents"
        "dependabot_secrets" "deployments" "discussions" "environments" "issues" "merge_queues" "metadata" "packages"
        "pages" "pull_requests" "repository_custom_properties" "repository_hooks" "secret_scanning_alerts" "secrets"
        "security_events" "single_file" "statuses" "vulnerability_alerts";
    Repository ALL => "repository_projects";
    Repository &[Level::Write] => "workflows";
    Organization READ_WRITE =>
        "custom_properties_for_organizations" "members" "organization_administration" "organization_custom_roles"
        "organization_custom_org_roles" "organization_copilot_seat_management" "organization_copilot_agent_settings"
        "organization_announcement_banners" "organization_hooks" "organization_personal_access_tokens"
        "organization_personal_access_token_requests" "organization_packages" "organization_secrets"
        "organization_self_hosted_runners" "organization_user_blocking" "enterprise_administration"
        "enterprise_organization_installations" "enterprise_organization_installation_repositories";
    Organization ALL =>
        "organization_custom_properties" "organization_projects" "enterprise_custom_properties"
        "enterprise_custom_properties_for_organizations";
    Organization &[Level::Read] => "organization_events" "organization_plan";
    Account READ_WRITE => "email_addresses" "followers" "git_ssh_keys" "gpg_keys" "interaction_limits" "starring";
    Account &[Level::Write] => "profile";
};

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

    #[test]
    fn organization_wide_names_count_by_data_and_by_family() {
        for wide in [
            "members",
            "organization_secrets",
            "custom_properties_for_organizations",
            "organization_new_thing",
            "enterprise_x",
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
