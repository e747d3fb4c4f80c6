//! `dev.octo-sts.policy`: a policy on a default branch changed.

use serde::Serialize;

use super::Event;

/// What a push did to one policy, in the members of the Go service.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyEvent {
    /// The repository's owner.
    pub org: String,
    /// The repository.
    pub repo: String,
    /// The default branch, in full.
    pub r#ref: String,
    /// The commit after the push.
    pub commit: String,
    /// The commit before it.
    pub before: String,
    /// The installation of the App that was told.
    pub installation_id: u64,
    /// Whose push it was.
    pub actor: String,
    /// The account's id.
    pub actor_id: u64,
    /// The name that git gave.
    pub pusher: String,
    /// Whether history was rewritten.
    pub forced: bool,
    /// What changed.
    pub change: Change,
    /// How it was found: `snapshot`, by comparing the folder before and after.
    pub detection: &'static str,
    /// The place of this change among those of the push, from 0.
    pub change_index: usize,
    /// How many there are.
    pub change_count: usize,
    /// Whether the policy is valid now; null if it is gone.
    pub valid: Option<bool>,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// RFC 3339.
    pub time: String,
}

/// One change.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// The file.
    pub path: String,
    /// Its name without folder and ending; `.trusted-token-issuers` for the list.
    pub policy: String,
    /// What happened to it.
    pub action: ChangeAction,
}

/// What happened to a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeAction {
    /// It is new.
    Created,
    /// It says something else.
    Updated,
    /// It is gone.
    Deleted,
}

impl Change {
    /// A change of the file at a path.
    pub fn new(path: &str, action: ChangeAction) -> Self {
        let name = path.rsplit_once(".github/chainguard/").map_or(path, |(_, name)| name);
        let policy = match name.strip_suffix(".sts.yaml") {
            Some(name) => name.to_owned(),
            None => ".trusted-token-issuers".to_owned(),
        };
        Self { path: path.to_owned(), policy, action }
    }
}

impl PolicyEvent {
    /// The event, of a repository on a host.
    pub fn into_event(self, github_host: &str) -> Event {
        let repository = format!("{}/{}", self.org, self.repo);
        Event {
            kind: "dev.octo-sts.policy",
            source: format!("https://{github_host}/{repository}"),
            subject: format!("{repository}/{}", self.change.policy),
            extensions: vec![
                ("githubinstallationid", self.installation_id.to_string()),
                ("githubcommit", self.commit.clone()),
            ],
            data: serde_json::to_string(&self).unwrap_or_default(),
        }
    }
}
