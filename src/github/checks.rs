//! What a check of a commit's policies needs: folders at commits, pull requests, and check runs.
//!
//! All of it is done with one token, of one repository, by an App that is the same for every check
//! of the repository: only the App that created a check run can update it.

use std::{collections::BTreeMap, time::Duration};

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::{
    GitHub,
    client::{ApiReply, Call, Endpoint},
    contents::{self, ReadToken},
    error::Error,
    installation,
    limits::LimitKey,
    meaning::Meaning,
    replication, select,
};
use crate::{
    cache::CallerTrust,
    name::{Owner, RepoName, Scope},
    policy::{Level, Permissions},
};

/// Annotations of one request.
const MAX_ANNOTATIONS: usize = 50;
/// Bytes of a check run's summary. GitHub counts characters.
pub const MAX_SUMMARY: usize = 65_535;

/// The folder of policies, and the one above it.
const FOLDER: &str = ".github/chainguard";
const PARENT: &str = ".github";

/// What it means that something is not there although a delivery is about it: GitHub may not show
/// it to a fresh token yet.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what has no special consequence here is decided in one place"
)]
fn not_shown(meaning: Meaning) -> Error {
    match meaning {
        Meaning::NotFound(cause) => Error::unavailable(format!("not shown (yet): {cause}")),
        meaning => meaning.into(),
    }
}

/// A token that reads one repository and writes its check runs. It is revoked when it is dropped.
#[derive(Debug)]
pub struct CheckToken(ReadToken);

/// The files below a folder: the id of the whole, and each file's path and id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Folder {
    /// Changes with anything below. `None`: there is no such folder.
    pub id: Option<String>,
    /// Path in the repository → blob id. Symbolic links and submodules are among them.
    pub files: BTreeMap<String, String>,
}

/// What a pull request is about now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// The commit at its head.
    pub head: String,
    /// The commit at the head of its base branch.
    pub base: String,
}

/// A check run as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct CheckRun {
    /// Its name, by which branch protections refer to it.
    pub name: &'static str,
    /// The commit.
    pub head_sha: String,
    /// The same, as the Go service sets it.
    pub external_id: String,
    /// `queued` or `completed`.
    pub status: &'static str,
    /// `success` or `failure`, once completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conclusion: Option<&'static str>,
    /// Title, summary and annotations.
    pub output: Output,
}

/// What a check run shows.
#[derive(Debug, Clone, Serialize)]
pub struct Output {
    /// One line.
    pub title: &'static str,
    /// Markdown.
    pub summary: String,
    /// On lines of files.
    pub annotations: Vec<Annotation>,
}

/// A note on a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Annotation {
    /// The file.
    pub path: String,
    /// From 1.
    pub start_line: u32,
    /// The same, for a note on one line.
    pub end_line: u32,
    /// `notice`, `warning` or `failure`.
    pub annotation_level: &'static str,
    /// What there is to say.
    pub message: String,
}

#[derive(Deserialize)]
struct Id {
    id: u64,
}

#[derive(Deserialize)]
struct Entry {
    r#type: String,
    path: String,
    sha: String,
}

#[derive(Deserialize)]
struct Tree {
    tree: Vec<Entry>,
    #[serde(default)]
    truncated: bool,
}

#[derive(Deserialize)]
struct Side {
    sha: String,
}

#[derive(Deserialize)]
struct PullReply {
    head: Side,
    base: Side,
}

#[derive(Deserialize)]
struct Comparison {
    merge_base_commit: Side,
}

impl CheckToken {
    /// The token as one that reads.
    pub fn reader(&self) -> &ReadToken {
        &self.0
    }
}

impl GitHub {
    /// A token for checks of one repository.
    ///
    /// # Errors
    /// As [`GitHub::read_token`]; [`Error::Forbidden`] if the installation lacks `checks: write`,
    /// `contents: read` or `pull_requests: read`.
    pub async fn check_token(&self, owner: &Owner, repo: &RepoName) -> Result<CheckToken, Error> {
        let scope: Scope = format!("{owner}/{repo}").parse().map_err(|_| Error::NotInstalled)?;
        let installation = select::checker(&self.inner, &scope).await?;
        let permissions = Permissions::from([
            ("contents".to_owned(), Level::Read),
            ("checks".to_owned(), Level::Write),
            ("pull_requests".to_owned(), Level::Read),
        ]);
        let token = contents::repository_token(&self.inner, &installation, repo, permissions);
        token.await.map(CheckToken)
    }

    /// What the owner's installations have, all of them together; `None` if GitHub does not say.
    pub async fn granted(&self, owner: &Owner) -> Option<Permissions> {
        let mut granted = Permissions::new();
        for app in &self.inner.pool(owner).ok()?.apps {
            let found = installation::find(&self.inner, app, owner, CallerTrust::Verified).await;
            let Ok(found) = found else { continue };
            for (name, level) in self.about_installation(&found).await.ok()?.permissions {
                let held = granted.entry(name).or_insert(level);
                *held = level.max(*held);
            }
        }
        Some(granted)
    }

    /// How long checks should wait, so that exchanges have the rest of the installation's quota.
    pub fn check_pause(&self, token: &CheckToken) -> Option<Duration> {
        let gate = &self.inner.gate;
        let floor = self.inner.routing.soft_floor;
        gate.quotas.below(token.0.installation(), floor, gate.clock.now())
    }

    /// The files below `.github/chainguard` at a commit. GitHub answers 404 for a folder that is not
    /// there, and also while it does not show the commit or the repository to a fresh token yet. So
    /// the folder counts as missing only if GitHub shows the commit and then, again, no folder.
    ///
    /// # Errors
    /// GitHub cannot be reached, does not show the commit, or does not list all files.
    pub async fn policy_folder(&self, token: &CheckToken, commit: &str) -> Result<Folder, Error> {
        let mut folder = self.folder_id(token, commit).await?;
        if folder.is_none() {
            let escaped = utf8_percent_encode(commit, NON_ALPHANUMERIC);
            let path = format!("git/trees/{escaped}");
            self.check_call(token, Method::GET, &path, None).await.map_err(not_shown)?;
            folder = self.folder_id(token, commit).await?;
        }
        let Some(id) = folder else { return Ok(Folder::default()) };
        let path = format!("git/trees/{id}?recursive=1");
        let reply = self.check_call(token, Method::GET, &path, None).await.map_err(not_shown)?;
        let tree: Tree = reply.json()?;
        if tree.truncated {
            return Err(Error::Unexpected(
                "the folder of policies has more files than GitHub lists".into(),
            ));
        }
        let files = tree.tree.into_iter().filter(|entry| entry.r#type != "tree");
        let files = files.map(|entry| (format!("{FOLDER}/{}", entry.path), entry.sha)).collect();
        Ok(Folder { id: Some(id), files })
    }

    /// The id of the folder's tree, if GitHub shows one.
    async fn folder_id(&self, token: &CheckToken, commit: &str) -> Result<Option<String>, Error> {
        let commit = utf8_percent_encode(commit, NON_ALPHANUMERIC);
        let path = format!("contents/{PARENT}?ref={commit}");
        let entries: Vec<Entry> = match self.check_call(token, Method::GET, &path, None).await {
            // A file of that name, or a link, is no folder.
            Ok(reply) => reply.json().unwrap_or_default(),
            Err(Meaning::NotFound(_)) => return Ok(None),
            Err(meaning) => return Err(meaning.into()),
        };
        let is_folder = |entry: &Entry| entry.path == FOLDER && entry.r#type == "dir";
        Ok(entries.into_iter().find(is_folder).map(|entry| entry.sha))
    }

    /// A pull request.
    ///
    /// # Errors
    /// GitHub cannot be reached, or there is none of that number.
    pub async fn pull_request(
        &self,
        token: &CheckToken,
        number: u64,
    ) -> Result<PullRequest, Error> {
        let path = format!("pulls/{number}");
        let reply = self.check_call(token, Method::GET, &path, None).await.map_err(not_shown)?;
        let PullReply { head, base } = reply.json()?;
        Ok(PullRequest { head: head.sha, base: base.sha })
    }

    /// The last commit that both have; `None` if they have none.
    ///
    /// # Errors
    /// GitHub cannot be reached.
    pub async fn merge_base(
        &self,
        token: &CheckToken,
        base: &str,
        head: &str,
    ) -> Result<Option<String>, Error> {
        let escaped = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let path = format!("compare/{}...{}?per_page=1", escaped(base), escaped(head));
        match self.check_call(token, Method::GET, &path, None).await {
            Ok(reply) => Ok(Some(reply.json::<Comparison>()?.merge_base_commit.sha)),
            Err(Meaning::NotFound(_)) => Ok(None),
            Err(meaning) => Err(meaning.into()),
        }
    }

    /// The name of the default branch.
    ///
    /// # Errors
    /// GitHub cannot be reached.
    pub async fn default_branch(&self, token: &CheckToken) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Reply {
            default_branch: String,
        }
        let reply = self.check_call(token, Method::GET, "", None).await.map_err(not_shown)?;
        Ok(reply.json::<Reply>()?.default_branch)
    }

    /// Creates a check run, or changes the one with this id: the id. Annotations beyond those of
    /// one request follow in further ones.
    ///
    /// # Errors
    /// GitHub cannot be reached, or does not know the commit.
    pub async fn write_check_run(
        &self,
        token: &CheckToken,
        id: Option<u64>,
        run: &CheckRun,
    ) -> Result<u64, Error> {
        let mut parts = run.output.annotations.chunks(MAX_ANNOTATIONS);
        let mut id = id;
        loop {
            let annotations = parts.next().unwrap_or_default().to_vec();
            let output = Output { annotations, ..run.output.clone() };
            let part = CheckRun { output, ..run.clone() };
            let body = serde_json::to_string(&part).unwrap_or_default();
            let (method, path) = match id {
                None => (Method::POST, "check-runs".to_owned()),
                Some(id) => (Method::PATCH, format!("check-runs/{id}")),
            };
            let reply = self.check_call(token, method, &path, Some(body)).await?;
            let written = reply.json::<Id>()?.id;
            id = Some(written);
            if parts.len() == 0 {
                return Ok(written);
            }
        }
    }

    /// A call on the token's repository.
    async fn check_call(
        &self,
        CheckToken(token): &CheckToken,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<ApiReply, Meaning> {
        let separator = if path.is_empty() { "" } else { "/" };
        let address = format!("/repos/{}/{}{separator}{path}", token.owner(), token.repo());
        let call = Call::get(Endpoint::Check, address, token.authorization());
        let call = Call { method, body, ..call };
        let key = LimitKey::Check(token.installation());
        replication::call(&self.inner.gate, key, &call, token.issued_at()).await
    }
}
