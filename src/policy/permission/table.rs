//! The permissions that GitHub documents: the `app-permissions` schema of its OpenAPI description,
//! Enterprise names included, and the names that GitHub's Go library (go-github v85) has besides.

use super::{Area, Known, Level};

const READ: &[Level] = &[Level::Read];
const WRITE: &[Level] = &[Level::Write];
const READ_WRITE: &[Level] = &[Level::Read, Level::Write];
const ALL: &[Level] = &[Level::Read, Level::Write, Level::Admin];

macro_rules! known {
    ($($area:ident $levels:expr => $($name:literal)*;)*) => {
        &[$($(Known { name: $name, area: Area::$area, levels: $levels },)*)*]
    };
}

/// Every permission of the table, each name once.
pub const KNOWN: &[Known] = known! {
    Repository READ_WRITE =>
        "actions" "actions_variables" "administration" "artifact_metadata" "attestations" "checks" "code_quality"
        "codespaces" "codespaces_lifecycle_admin" "codespaces_secrets" "content_references" "contents"
        "dependabot_secrets" "deployments" "discussions" "environments" "issues" "merge_queues" "metadata" "packages"
        "pages" "pull_requests" "repository_advisories" "repository_custom_properties" "repository_hooks"
        "repository_pre_receive_hooks" "secret_scanning_alerts" "secrets" "security_events" "single_file" "statuses"
        "vulnerability_alerts";
    Repository ALL => "repository_projects";
    Repository READ => "codespaces_metadata";
    Repository WRITE => "workflows";
    Organization READ_WRITE =>
        "custom_properties_for_organizations" "members" "organization_actions_variables" "organization_administration"
        "organization_announcement_banners" "organization_codespaces" "organization_codespaces_secrets"
        "organization_codespaces_settings" "organization_copilot_agent_settings"
        "organization_copilot_seat_management" "organization_custom_org_roles" "organization_custom_roles"
        "organization_dependabot_secrets" "organization_hooks" "organization_knowledge_bases" "organization_packages"
        "organization_personal_access_token_requests" "organization_personal_access_tokens"
        "organization_pre_receive_hooks" "organization_secrets" "organization_self_hosted_runners"
        "organization_user_blocking" "team_discussions" "enterprise_administration"
        "enterprise_organization_installations" "enterprise_organization_installation_repositories";
    Organization ALL =>
        "organization_custom_properties" "organization_projects" "enterprise_custom_properties"
        "enterprise_custom_properties_for_organizations";
    Organization READ =>
        "organization_api_insights" "organization_copilot_metrics" "organization_events" "organization_plan";
    Account READ_WRITE =>
        "blocking" "codespaces_user_secrets" "email_addresses" "emails" "followers" "gists"
        "git_signing_ssh_public_keys" "git_ssh_keys" "gpg_keys" "interaction_limits" "keys" "starring" "watching";
    Account READ => "copilot_messages" "plan" "user_events";
    Account WRITE => "profile";
};
