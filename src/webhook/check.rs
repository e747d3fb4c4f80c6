//! A check of one commit: which policies changed, what is to be said of them, and the check run.
//!
//! Changed policies are found by comparing the folder at the commit with the one at the merge base,
//! not from the delivery and not from a list of a pull request's files, which GitHub cuts.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    payload::{Against, Subject},
    report,
    verdict::{Changed, Content, EXAMPLES, PolicyChange, Repository, Verdict, difference, partner},
};
use crate::{
    audit::record::CheckRecord,
    clock::{Clock, Moment},
    cpu_limiter::{self, CpuError, CpuLimiter},
    github::{self, CheckToken, File, Folder, GitHub},
    name::{Owner, RepoName},
    policy::Rules,
};

/// Files of one check that are read. Beyond that, it fails: nobody can review them.
const MAX_FILES: usize = 500;
/// Within this time, the same commit is not checked again for another App's delivery.
const SAME_EVENT: Duration = Duration::from_secs(60);
/// Files that are compiled concurrently, one of each owner. A hostile one takes a second.
const COMPILING: cpu_limiter::Limits =
    cpu_limiter::Limits { concurrent: 1, per_owner: 4, total: 4096 };
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

/// What checks need.
#[derive(Clone)]
pub(super) struct Checker {
    pub(super) github: GitHub,
    pub(super) policy_repo: RepoName,
    pub(super) names: Names,
    pub(super) rules: Arc<Rules>,
    pub(super) compiler: Arc<CpuLimiter>,
    pub(super) recent: Recent,
    pub(super) clock: Arc<dyn Clock>,
}

/// The limiter of [`Checker::compiler`].
pub(super) fn compiler() -> Arc<CpuLimiter> {
    Arc::new(CpuLimiter::new(COMPILING))
}

/// Checks of the last minute. GitHub delivers an event to each App of a pool, and one check is
/// enough.
#[derive(Clone, Default)]
pub(super) struct Recent(Arc<Mutex<HashMap<Made, Moment>>>);

/// What was checked: owner, repository, commit, and with what it was compared.
type Made = (Owner, RepoName, String, Against);

impl Recent {
    fn is_made(&self, subject: &Subject, now: Moment) -> bool {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|_, at| now.since(*at) < SAME_EVENT);
        !subject.again && made.contains_key(&Self::key(subject))
    }

    fn note(&self, subject: &Subject, now: Moment) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(Self::key(subject), now);
    }

    fn key(Subject { owner, repo, commit, against, .. }: &Subject) -> Made {
        (owner.clone(), repo.clone(), commit.clone(), against.clone())
    }
}

/// One check under way.
struct Check<'a> {
    checker: &'a Checker,
    token: CheckToken,
    subject: &'a Subject,
}

/// With what a commit is compared.
enum Base {
    /// The files at this commit.
    Commit(String),
    /// Nothing: every file counts as new.
    Nothing,
    /// The commit is not the head of its pull request any more. The present one has a delivery of
    /// its own.
    Outdated,
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
    /// Checks a commit and writes its check run. `None`: there is no need any more. `may_wait`: it
    /// waits while the quota is low.
    pub(super) async fn check(
        &self,
        subject: &Subject,
        may_wait: bool,
    ) -> Result<Option<Checked>, github::Error> {
        if self.recent.is_made(subject, self.clock.monotonic()) {
            return Ok(None);
        }
        let token = self.github.check_token(&subject.owner, &subject.repo).await?;
        let mut check = Check { checker: self, token, subject };
        let paused = if may_wait { check.pause().await? } else { None };
        if paused.is_some() {
            // A token lives for an hour.
            check.token = self.github.check_token(&subject.owner, &subject.repo).await?;
        }
        let (run, paths, policies) = match check.judge().await {
            Ok(Some((paths, verdict))) => {
                (report::completed(&subject.commit, &verdict), paths, verdict.checked)
            }
            Ok(None) if paused.is_none() => return Ok(None),
            Ok(None) => (report::outdated(&subject.commit), Vec::new(), Vec::new()),
            // GitHub answered, and the answer will not get better.
            Err(error @ github::Error::Unexpected(_)) => {
                (report::failed(&subject.commit, &error.to_string()), Vec::new(), Vec::new())
            }
            Err(error) => return Err(error),
        };
        let id = self.github.write_check_run(&check.token, paused, &run).await?;
        self.recent.note(subject, self.clock.monotonic());
        let conclusion = run.conclusion.unwrap_or_default();
        let run = CheckRecord { id, commit: subject.commit.clone(), conclusion };
        Ok(Some(Checked { run, paths, policies }))
    }
}

impl Check<'_> {
    /// Waits while the quota is low, with a check run that says so: its id.
    async fn pause(&self) -> Result<Option<u64>, github::Error> {
        let Checker { github, clock, .. } = self.checker;
        let mut run = None;
        let begun = clock.monotonic();
        while let Some(wait) = github.check_pause(&self.token) {
            if clock.monotonic().since(begun) > MAX_PAUSE {
                break;
            }
            if run.is_none() {
                let queued = report::queued(&self.subject.commit);
                run = Some(github.write_check_run(&self.token, None, &queued).await?);
            }
            clock.sleep(wait.min(PAUSE_STEP)).await;
        }
        Ok(run)
    }

    /// The paths that changed, and what is to be said of them.
    async fn judge(&self) -> Result<Option<(Vec<String>, Verdict)>, github::Error> {
        let github = &self.checker.github;
        let after = github.policy_folder(&self.token, &self.subject.commit).await?;
        let (base, before) = match self.base().await? {
            Base::Outdated => return Ok(None),
            Base::Nothing => (None, Folder::default()),
            Base::Commit(base) => {
                let before = github.policy_folder(&self.token, &base).await?;
                (Some(base), before)
            }
        };
        if before.id == after.id {
            return Ok(Some((Vec::new(), Verdict::default())));
        }
        let paths = difference(&before.files, &after.files);
        if paths.len() > MAX_FILES {
            let text = format!(
                "{} files changed below .github/chainguard, which are too many to check",
                paths.len()
            );
            return Err(github::Error::Unexpected(text.into()));
        }
        let verdict = self.verdict(base.as_deref(), &paths, &after).await?;
        Ok(Some((paths.into_iter().map(|(path, ..)| path).collect(), verdict)))
    }

    async fn base(&self) -> Result<Base, github::Error> {
        let (github, commit) = (&self.checker.github, &self.subject.commit);
        let base = match &self.subject.against {
            Against::PullRequest(number) => {
                let pull = github.pull_request(&self.token, *number).await?;
                if pull.head != *commit {
                    return Ok(Base::Outdated);
                }
                pull.base
            }
            Against::Commit(commit) => commit.clone(),
            Against::DefaultBranch => github.default_branch(&self.token).await?,
        };
        Ok(match github.merge_base(&self.token, &base, commit).await? {
            // A commit of the default branch, compared with itself, would always be valid.
            Some(base) if base == *commit && self.subject.against == Against::DefaultBranch => {
                Base::Nothing
            }
            Some(base) => Base::Commit(base),
            None => Base::Nothing,
        })
    }

    /// Reads and judges one file after the other, so that few are in memory.
    async fn verdict(
        &self,
        base: Option<&str>,
        paths: &[(String, bool, bool)],
        after: &Folder,
    ) -> Result<Verdict, github::Error> {
        let repository = Arc::new(self.repository().await);
        let mut verdict = Verdict::default();
        let mut examples = BTreeSet::new();
        for (path, was, is) in paths {
            let head = Some(self.subject.commit.as_str());
            let before = self.content(path, base.filter(|_| *was)).await?;
            let now = self.content(path, head.filter(|_| *is)).await?;
            let changed = Changed { path: path.clone(), before, after: now };
            let repository = Arc::clone(&repository);
            verdict = self
                .compile(move || {
                    verdict.add(&changed, &repository);
                    verdict
                })
                .await?;
            let path = if path.ends_with(EXAMPLES) { Some(path.clone()) } else { partner(path) };
            examples.extend(path.filter(|path| after.files.contains_key(path)));
        }
        for path in examples {
            let file = self.content(&path, Some(&self.subject.commit)).await?;
            let policy = partner(&path).filter(|path| after.files.contains_key(path));
            let policy = match policy {
                Some(policy) => self.content(&policy, Some(&self.subject.commit)).await?,
                None => Content::Absent,
            };
            let repository = Arc::clone(&repository);
            verdict = self
                .compile(move || {
                    verdict.examples(&path, &file, &policy, &repository);
                    verdict
                })
                .await?;
        }
        Ok(verdict)
    }

    async fn compile<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, github::Error> {
        let done = self.checker.compiler.run(&self.subject.owner, work).await;
        done.map_err(|error| match error {
            CpuError::Overloaded => github::Error::unavailable(error.to_string()),
            CpuError::Panicked => github::Error::Unexpected(error.to_string().into()),
        })
    }

    async fn repository(&self) -> Repository {
        let Checker { github, policy_repo, names, rules, .. } = self.checker;
        Repository {
            domain: names.domain.clone(),
            github_host: names.github_host.clone(),
            owner: self.subject.owner.clone(),
            repo: self.subject.repo.clone(),
            policy_repo: policy_repo.clone(),
            granted: github.granted(&self.subject.owner).await,
            rules: Arc::clone(rules),
        }
    }

    async fn content(&self, path: &str, commit: Option<&str>) -> Result<Content, github::Error> {
        let Some(commit) = commit else { return Ok(Content::Absent) };
        let reader = self.token.reader();
        Ok(match self.checker.github.file(reader, path, Some(commit), None).await? {
            File::Present { bytes, .. } => Content::File(bytes),
            File::NotAFile | File::Unchanged => Content::NotAFile,
            // The tree has it. A policy that was not read must not pass.
            File::Absent => {
                return Err(github::Error::unavailable(format!("{path} is listed and not found")));
            }
        })
    }
}
