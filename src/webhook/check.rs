//! A check of one commit: which policies changed, what is to be said of them, and the check run.
//!
//! Changed policies are found by comparing the folder at the commit with the one at the merge base,
//! not from the delivery and not from a list of a pull request's files, which GitHub cuts.

use std::{sync::Arc, time::Duration};

use super::{
    payload::{Against, Subject},
    report,
    verdict::{Changed, Content, PolicyChange, Repository, Verdict, difference, partner},
};
use crate::{
    audit::record::CheckRecord,
    clock::Clock,
    github::{self, CheckToken, File, Folder, GitHub},
    name::RepoName,
    policy::Rules,
};

/// Files of one check that are read. Beyond that, it fails: nobody can review them.
const MAX_FILES: usize = 500;
/// How long a check waits for quota at most.
const MAX_PAUSE: Duration = Duration::from_secs(2 * 60 * 60);
/// How often a paused check looks whether it may go on.
const PAUSE_STEP: Duration = Duration::from_secs(60);

/// The names by which policies mean this server.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// `STS_DOMAIN`, if exchanges are served here.
    pub domain: Option<String>,
    /// The host of the configured GitHub.
    pub github_host: String,
}

/// Files that differ, and unchanged ones that belong to them.
struct Difference {
    changed: Vec<Changed>,
    related: Vec<(String, Content)>,
}

/// What checks need.
#[derive(Clone)]
pub(super) struct Checker {
    pub(super) github: GitHub,
    pub(super) policy_repo: RepoName,
    pub(super) names: Names,
    pub(super) rules: Arc<Rules>,
    pub(super) clock: Arc<dyn Clock>,
}

/// What a check came to.
#[derive(Debug)]
pub(super) struct Checked {
    /// For the record.
    pub(super) run: CheckRecord,
    /// The paths that changed.
    pub(super) paths: Vec<String>,
    /// The policies and lists among them.
    pub(super) policies: Vec<PolicyChange>,
}

impl Checker {
    /// Checks a commit and writes its check run. `None`: the pull request has another head by now,
    /// which has a delivery of its own.
    pub(super) async fn check(&self, subject: &Subject) -> Result<Option<Checked>, github::Error> {
        let mut token = self.github.check_token(&subject.owner, &subject.repo).await?;
        let paused = self.pause(&token, &subject.commit).await?;
        if paused.is_some() {
            // A token lives for an hour.
            token = self.github.check_token(&subject.owner, &subject.repo).await?;
        }
        let Some(base) = self.base(&token, subject).await? else { return Ok(None) };
        let (run, paths, policies) = match self.changed(&token, base.as_deref(), subject).await {
            Ok(files) => {
                let paths = files.changed.iter().map(|file| file.path.clone()).collect();
                let verdict = self.verdict(files, subject).await?;
                (report::completed(&subject.commit, &verdict), paths, verdict.checked)
            }
            // GitHub answered, and the answer will not get better.
            Err(error @ github::Error::Unexpected(_)) => {
                (report::failed(&subject.commit, &error.to_string()), Vec::new(), Vec::new())
            }
            Err(error) => return Err(error),
        };
        let id = self.github.write_check_run(&token, paused, &run).await?;
        let conclusion = run.conclusion.unwrap_or_default();
        let run = CheckRecord { id, commit: subject.commit.clone(), conclusion };
        Ok(Some(Checked { run, paths, policies }))
    }

    /// Waits while the quota is low, with a check run that says so: its id.
    async fn pause(&self, token: &CheckToken, commit: &str) -> Result<Option<u64>, github::Error> {
        let mut run = None;
        let begun = self.clock.monotonic();
        while let Some(wait) = self.github.check_pause(token) {
            if self.clock.monotonic().since(begun) > MAX_PAUSE {
                break;
            }
            if run.is_none() {
                let queued = report::queued(commit);
                run = Some(self.github.write_check_run(token, None, &queued).await?);
            }
            self.clock.sleep(wait.min(PAUSE_STEP)).await;
        }
        Ok(run)
    }

    /// The commit to compare with; `Some(None)` if everything is new, `None` if there is nothing to
    /// check.
    async fn base(
        &self,
        token: &CheckToken,
        subject: &Subject,
    ) -> Result<Option<Option<String>>, github::Error> {
        let base = match &subject.against {
            Against::PullRequest(number) => {
                let pull = self.github.pull_request(token, *number).await?;
                if pull.head != subject.commit {
                    return Ok(None);
                }
                pull.base
            }
            Against::Commit(commit) => commit.clone(),
            Against::DefaultBranch => self.github.default_branch(token).await?,
        };
        self.github.merge_base(token, &base, &subject.commit).await.map(Some)
    }

    async fn changed(
        &self,
        token: &CheckToken,
        base: Option<&str>,
        subject: &Subject,
    ) -> Result<Difference, github::Error> {
        let after = self.github.policy_folder(token, &subject.commit).await?;
        let before = match base {
            // The same commit: a branch without a commit of its own.
            Some(base) if base != subject.commit => self.github.policy_folder(token, base).await?,
            Some(_) => after.clone(),
            None => Folder::default(),
        };
        if before.id == after.id {
            return Ok(Difference { changed: Vec::new(), related: Vec::new() });
        }
        let paths = difference(&before.files, &after.files);
        if paths.len() > MAX_FILES {
            let text = format!(
                "{} files changed below .github/chainguard, which are too many to check",
                paths.len()
            );
            return Err(github::Error::Unexpected(text.into()));
        }
        let mut changed = Vec::with_capacity(paths.len());
        for (path, was, is) in paths {
            let base = base.filter(|_| was);
            let before = self.content(token, &path, base).await?;
            let head = Some(subject.commit.as_str()).filter(|_| is);
            let after = self.content(token, &path, head).await?;
            changed.push(Changed { path, before, after });
        }
        let is_new = |path: &String| !changed.iter().any(|file| file.path == *path);
        let partners = changed.iter().filter_map(|file| partner(&file.path));
        let partners = partners.filter(|path| after.files.contains_key(path) && is_new(path));
        let mut related = Vec::new();
        for path in partners.collect::<Vec<_>>() {
            let content = self.content(token, &path, Some(&subject.commit)).await?;
            related.push((path, content));
        }
        Ok(Difference { changed, related })
    }

    async fn content(
        &self,
        token: &CheckToken,
        path: &str,
        commit: Option<&str>,
    ) -> Result<Content, github::Error> {
        let Some(commit) = commit else { return Ok(Content::Absent) };
        Ok(match self.github.file(token.reader(), path, Some(commit), None).await? {
            File::Present { bytes, .. } => Content::File(bytes),
            File::NotAFile | File::Unchanged => Content::NotAFile,
            // The tree has it. A policy that was not read must not pass.
            File::Absent => {
                return Err(github::Error::unavailable(format!("{path} is listed and not found")));
            }
        })
    }

    async fn verdict(
        &self,
        Difference { changed, related }: Difference,
        subject: &Subject,
    ) -> Result<Verdict, github::Error> {
        if changed.is_empty() {
            return Ok(Verdict::default());
        }
        let repository = Repository {
            domain: self.names.domain.clone(),
            github_host: self.names.github_host.clone(),
            owner: subject.owner.clone(),
            repo: subject.repo.clone(),
            policy_repo: self.policy_repo.clone(),
            granted: self.github.granted(&subject.owner).await,
            rules: Arc::clone(&self.rules),
        };
        let verdict =
            tokio::task::spawn_blocking(move || Verdict::of(&changed, &related, &repository));
        verdict.await.map_err(|_| github::Error::Unexpected("the policies were not checked".into()))
    }
}
