//! What of an event's JSON is read, and what it says has changed.
//!
//! A delivery is believed in one thing only: that something changed, which is answered by reading
//! GitHub again. What there is now, its files, pull requests and commits, is read from GitHub.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::Value;

use super::signature::{NotADelivery, Signed};
use crate::{
    clock::UnixTime,
    name::{Owner, RepoName},
    store::{Change, Files, Push},
};

/// Where policies and the trusted-issuer list are.
pub(super) const FOLDER: &str = ".github/chainguard/";
/// A push with this many commits may have more of them: some servers send the first ones only.
const COMMITS_SHOWN: usize = 20;
/// Repositories that one delivery names before the owner as a whole counts as changed.
const MAX_REPOSITORIES: usize = 32;

#[derive(Debug, Deserialize)]
struct Account {
    login: String,
}

#[derive(Debug, Deserialize)]
struct Repository {
    name: String,
    owner: Account,
    default_branch: Option<String>,
    pushed_at: Option<Time>,
}

/// GitHub sends seconds in some events and text in others.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Time {
    Seconds(i64),
    Text(String),
}

impl Time {
    fn seconds(&self) -> Option<i64> {
        match self {
            Self::Seconds(seconds) => Some(*seconds),
            Self::Text(text) => UnixTime::parse_rfc3339(text).map(UnixTime::as_secs),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Installation {
    id: u64,
    account: Option<Account>,
}

#[derive(Debug, Deserialize)]
struct NamedRepository {
    name: String,
}

/// The files below [`FOLDER`] that a commit changed. A push may name a hundred thousand others.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Commit {
    #[serde(deserialize_with = "policy_paths")]
    added: Vec<String>,
    #[serde(deserialize_with = "policy_paths")]
    modified: Vec<String>,
    #[serde(deserialize_with = "policy_paths")]
    removed: Vec<String>,
}

fn policy_paths<'de, D: Deserializer<'de>>(paths: D) -> Result<Vec<String>, D::Error> {
    struct PolicyPaths;

    impl<'de> Visitor<'de> for PolicyPaths {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of paths")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut paths: A) -> Result<Vec<String>, A::Error> {
            let mut kept = Vec::new();
            while let Some(path) = paths.next_element::<String>()? {
                if path.starts_with(FOLDER) {
                    kept.push(path);
                }
            }
            Ok(kept)
        }
    }
    paths.deserialize_seq(PolicyPaths)
}

#[derive(Debug, Deserialize)]
struct PullRequest {
    number: u64,
    head: Commitish,
}

#[derive(Debug, Deserialize)]
struct Commitish {
    sha: String,
}

#[derive(Debug, Deserialize)]
struct Check {
    head_sha: String,
    #[serde(default)]
    pull_requests: Vec<PullRequest>,
    check_suite: Option<Suite>,
}

#[derive(Debug, Deserialize)]
struct Suite {
    #[serde(default)]
    pull_requests: Vec<PullRequest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Payload {
    action: Option<String>,
    repository: Option<Repository>,
    organization: Option<Account>,
    /// For people only, so whatever it is.
    sender: Value,
    pusher: Value,
    account: Option<Account>,
    installation: Option<Installation>,
    changes: Changes,
    repositories_added: Vec<NamedRepository>,
    repositories_removed: Vec<NamedRepository>,
    r#ref: String,
    before: String,
    after: String,
    created: bool,
    deleted: bool,
    forced: bool,
    commits: Vec<Commit>,
    pull_request: Option<PullRequest>,
    check_run: Option<Check>,
    check_suite: Option<Check>,
    merge_group: Option<Check>,
}

/// `changes`: what was there before, in the shapes of several events.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Changes {
    login: Option<From>,
    repository: Option<RepositoryChange>,
    owner: Option<OwnerChange>,
    default_branch: Option<serde::de::IgnoredAny>,
    base: Option<serde::de::IgnoredAny>,
    #[serde(flatten)]
    _others: BTreeMap<String, serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct From {
    from: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RepositoryChange {
    name: Option<From>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OwnerChange {
    from: Previous,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Previous {
    user: Option<Account>,
    organization: Option<Account>,
}

/// A commit that gets a check run, and what asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// The repository's owner.
    pub owner: Owner,
    /// The repository.
    pub repo: RepoName,
    /// The installation of the App that was told.
    pub installation: u64,
    /// The commit.
    pub commit: String,
    /// With which state it is compared.
    pub against: Against,
    /// Whether it is made although it was made before.
    pub again: bool,
}

/// With which state of the policies a commit is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Against {
    /// Where the pull request of this number left its base.
    PullRequest(u64),
    /// This commit, the one before a push.
    Commit(String),
    /// The default branch: the commit is one of a merge queue, or of no pull request that is known.
    DefaultBranch,
}

/// Who pushed, for people. Nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Author {
    /// The account's name.
    pub actor: String,
    /// The account's id.
    pub actor_id: u64,
    /// The name that git gave.
    pub pusher: String,
    /// The branch, in full.
    pub branch: String,
    /// Whether history was rewritten.
    pub forced: bool,
}

/// What a delivery comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// What happened, as in `created`.
    pub action: Option<String>,
    /// Whose it is.
    pub owner: Option<Owner>,
    /// The repository.
    pub repo: Option<RepoName>,
    /// The installation of the App that was told.
    pub installation: Option<u64>,
    /// What has changed.
    pub changes: Vec<Change>,
    /// The push to the default branch, whether or not it names policies.
    pub push: Option<Push>,
    /// Who made it.
    pub author: Author,
    /// The commits that get a check run.
    pub checks: Vec<Subject>,
}

/// Reads a signed body.
///
/// # Errors
/// It is not JSON, or what it names cannot be on GitHub.
pub(super) fn read(signed: &Signed, now: UnixTime) -> Result<Event, NotADelivery> {
    parse(&signed.head.event, &signed.json, now)
}

pub(super) fn parse(
    name_of_event: &str,
    json: &[u8],
    now: UnixTime,
) -> Result<Event, NotADelivery> {
    let payload: Payload = serde_json::from_slice(json).map_err(|_| NotADelivery::Payload)?;
    let name = |text: &str| text.parse::<Owner>().ok();
    let owner = match (&payload.repository, &payload.installation) {
        (Some(repository), _) => name(&repository.owner.login),
        (None, Some(Installation { account: Some(account), .. })) => name(&account.login),
        (None, _) => payload
            .organization
            .as_ref()
            .or(payload.account.as_ref())
            .and_then(|it| name(&it.login)),
    };
    let repo = payload.repository.as_ref().and_then(|repository| repository.name.parse().ok());
    let mut event = Event {
        action: payload.action.clone(),
        owner,
        repo,
        installation: payload.installation.as_ref().map(|installation| installation.id),
        changes: Vec::new(),
        push: None,
        author: Author::of(&payload),
        checks: Vec::new(),
    };
    let is = |actions: &[&str]| payload.action.as_deref().is_some_and(|own| actions.contains(&own));
    match name_of_event {
        "push" => event.pushed(&payload, now),
        "public" => event.repository_changed(&payload),
        "repository" if !is(&["edited"]) || payload.changes.default_branch.is_some() => {
            event.repository_changed(&payload);
        }
        "installation" => event.owner_changed(&payload),
        "installation_repositories" => event.repositories_selected(&payload),
        "installation_target" if is(&["renamed"]) => event.owner_changed(&payload),
        "organization" if is(&["renamed", "deleted"]) => event.owner_changed(&payload),
        "pull_request" => {
            let is_moved = is(&["edited"]) && payload.changes.base.is_some();
            if is(&["opened", "synchronize", "reopened"]) || is_moved {
                event.check_pull_request(payload.pull_request.as_ref(), is_moved);
            }
        }
        "check_suite" if is(&["rerequested"]) => event.check_again(payload.check_suite.as_ref()),
        "check_run" if is(&["rerequested"]) => event.check_again(payload.check_run.as_ref()),
        "merge_group" if is(&["checks_requested"]) => {
            event.check_again(payload.merge_group.as_ref());
        }
        _ => {}
    }
    Ok(event)
}

impl Author {
    fn of(payload: &Payload) -> Self {
        let text = |of: &Value, name: &str| {
            of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        Self {
            actor: text(&payload.sender, "login"),
            actor_id: payload.sender.get("id").and_then(Value::as_u64).unwrap_or_default(),
            pusher: text(&payload.pusher, "name"),
            branch: payload.r#ref.clone(),
            forced: payload.forced,
        }
    }
}

impl Event {
    fn pushed(&mut self, payload: &Payload, now: UnixTime) {
        let Payload { before, after, commits, .. } = payload;
        let (Some(owner), Some(repo)) = (&self.owner, &self.repo) else { return };
        let Some(repository) = &payload.repository else { return };
        let branch = payload.r#ref.strip_prefix("refs/heads/");
        if branch.is_none() || branch != repository.default_branch.as_deref() {
            return;
        }
        if payload.deleted {
            self.changes.push(Change::Repository(owner.clone(), repo.clone()));
            return;
        }
        if !is_commit(after) || !is_commit(before) {
            return;
        }
        let shows_all =
            !payload.forced && !payload.created && (1..COMMITS_SHOWN).contains(&commits.len());
        let paths = commits
            .iter()
            .flat_map(|commit| commit.added.iter().chain(&commit.modified).chain(&commit.removed));
        let files = match shows_all {
            true => Files::Paths(paths.cloned().collect()),
            false => Files::Any,
        };
        let pushed_at = repository.pushed_at.as_ref().and_then(Time::seconds);
        let pushed_at = pushed_at.unwrap_or_else(|| now.as_secs());
        let age = now.since(UnixTime::from_secs(pushed_at));
        let (before, after) = (before.clone(), after.clone());
        let (owner, repo) = (owner.clone(), repo.clone());
        if let Some(installation) = self.installation {
            let (owner, repo) = (owner.clone(), repo.clone());
            let against = match is_zero(&before) {
                true => Against::DefaultBranch,
                false => Against::Commit(before.clone()),
            };
            let commit = after.clone();
            let again = false;
            self.checks.push(Subject { owner, repo, installation, commit, against, again });
        }
        let push = Push { owner, repo, files, age, pushed_at, before, after };
        if push.files != Files::Paths(Vec::new()) {
            self.changes.push(Change::Files(push.clone()));
        }
        self.push = Some(push);
    }

    fn repository_changed(&mut self, payload: &Payload) {
        let (Some(owner), Some(repo)) = (&self.owner, &self.repo) else { return };
        let mut changes = vec![Change::Repository(owner.clone(), repo.clone())];
        let Changes { repository, owner: moved, .. } = &payload.changes;
        let old_name = repository.as_ref().and_then(|change| change.name.as_ref());
        if let Some(old) = old_name.and_then(|old| old.from.parse().ok()) {
            changes.push(Change::Repository(owner.clone(), old));
        }
        let previous = moved.as_ref().map(|moved| &moved.from);
        let old_owner = previous.and_then(|from| from.user.as_ref().or(from.organization.as_ref()));
        if let Some(old) = old_owner.and_then(|old| old.login.parse().ok()) {
            changes.push(Change::Repository(old, repo.clone()));
        }
        self.changes = changes;
    }

    fn owner_changed(&mut self, payload: &Payload) {
        let old = payload.changes.login.as_ref().and_then(|old| old.from.parse().ok());
        self.changes = self.owner.iter().cloned().chain(old).map(Change::Owner).collect();
    }

    fn repositories_selected(&mut self, payload: &Payload) {
        let Some(owner) = &self.owner else { return };
        let named = payload.repositories_added.iter().chain(&payload.repositories_removed);
        let names: Option<Vec<RepoName>> = named.map(|repo| repo.name.parse().ok()).collect();
        self.changes = match names {
            Some(names) if (1..=MAX_REPOSITORIES).contains(&names.len()) => {
                names.into_iter().map(|repo| Change::Repository(owner.clone(), repo)).collect()
            }
            _ => vec![Change::Owner(owner.clone())],
        };
    }

    fn check_pull_request(&mut self, pull_request: Option<&PullRequest>, again: bool) {
        let Some(PullRequest { number, head }) = pull_request else { return };
        self.check(&head.sha, Against::PullRequest(*number), again);
    }

    fn check_again(&mut self, check: Option<&Check>) {
        let Some(check) = check else { return };
        let suite = check.check_suite.iter().flat_map(|suite| &suite.pull_requests);
        let pull_request = check.pull_requests.iter().chain(suite).next();
        let against =
            pull_request.map_or(Against::DefaultBranch, |it| Against::PullRequest(it.number));
        self.check(&check.head_sha, against, true);
    }

    fn check(&mut self, commit: &str, against: Against, again: bool) {
        let (Some(owner), Some(repo), Some(installation)) =
            (self.owner.clone(), self.repo.clone(), self.installation)
        else {
            return;
        };
        if is_commit(commit) && !is_zero(commit) {
            let commit = commit.to_owned();
            self.checks.push(Subject { owner, repo, installation, commit, against, again });
        }
    }
}

/// 40 hexadecimal digits, or 64 in a repository with SHA-256.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_zero(commit: &str) -> bool {
    commit.bytes().all(|byte| byte == b'0')
}
