//! The operator's deny file: who gets no token from now on, whatever policies say.
//!
//! ```yaml
//! deny:
//!   - issuer: https://gitlab.example.com
//!     reason: its signing key leaked
//!   - owner: octo-org
//!     subject_pattern: repo:octo-org/hello:.*
//!     reason: a runner was taken over
//!     until: "2026-12-01T00:00:00Z"
//! ```
//!
//! An entry denies what all of its keys describe. The file is read whole, twice a second; after an
//! error the entries stay as they were, so that a file that is missing or half written lifts no
//! denial.

mod document;

use std::{
    fs::File,
    io::Read,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use self::document::Document;
use crate::{
    clock::{Clock, UnixTime},
    name::{Issuer, Owner, PolicyName, RepoName, Subject},
    oidc::Unverified,
    pattern::Pattern,
    policy::Repositories,
    telemetry::metric,
    yaml::{self, Invalid},
};

/// How often the file is read: a change must be in force within a second.
const INTERVAL: Duration = Duration::from_millis(500);

/// Where the deny file is.
#[derive(Debug, Clone)]
pub struct DenyFile {
    /// The file.
    pub path: PathBuf,
}

impl DenyFile {
    /// Reads the file. Blocks.
    ///
    /// # Errors
    /// The first error, by line and column; never the file's content.
    pub fn load(&self) -> Result<DenyList, Invalid> {
        DenyList::read(&self.text()?)
    }

    fn text(&self) -> Result<Vec<u8>, Invalid> {
        let mut text = Vec::new();
        let read = File::open(&self.path)
            .and_then(|file| file.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut text));
        match read {
            Ok(_) => Ok(text),
            Err(error) => Err(Invalid::file(format!("the file cannot be read: {error}"))),
        }
    }
}

/// What a deny file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DenyList {
    entries: Vec<Entry>,
}

/// One entry. All keys that it has must match.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    line: u32,
    issuer: Option<Issuer>,
    subject: Option<Subject>,
    subject_pattern: Option<Pattern>,
    key_id: Option<String>,
    owner: Option<Owner>,
    repository: Option<(Owner, RepoName)>,
    policy: Option<(Owner, RepoName, PolicyName)>,
    reason: String,
    until: Option<UnixTime>,
}

/// What is known of an attempt. What is not known yet matches no entry that names it.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// `iss`
    pub issuer: &'a Issuer,
    /// The id of the key: the one that the token names, and once verified the one that signed.
    pub key_id: Option<&'a str>,
    /// `sub`, once verified.
    pub subject: Option<&'a Subject>,
    /// The policy, where it may be looked at.
    pub policy: Option<PolicyAt<'a>>,
    /// What the token would reach, once granted.
    pub repositories: Option<&'a Repositories>,
}

impl<'a> Facts<'a> {
    /// What a token says before it is verified.
    pub fn of(token: &'a Unverified) -> Self {
        let (issuer, key_id) = (token.issuer(), token.key_id());
        Self { issuer, key_id, subject: None, policy: None, repositories: None }
    }
}

/// A policy by its place.
#[derive(Debug, Clone, Copy)]
pub struct PolicyAt<'a> {
    /// Whose it is.
    pub owner: &'a Owner,
    /// The repository that holds it; for an organization's policy its policy repository.
    pub repo: &'a RepoName,
    /// Its name.
    pub name: &'a PolicyName,
}

/// An entry denies the attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("denied by the entry at line {line} of the deny file: {reason}")]
pub struct DeniedByOperator {
    line: u32,
    reason: String,
}

impl DenyList {
    /// Reads a deny file's text.
    ///
    /// # Errors
    /// As [`DenyFile::load`].
    pub fn read(text: &[u8]) -> Result<Self, Invalid> {
        yaml::load::<Document>(text)?.entries().map(|entries| Self { entries })
    }

    /// How many entries there are, expired ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Checks an attempt, as far as it is known.
    ///
    /// # Errors
    /// The first entry in force that denies it.
    pub fn check(&self, facts: &Facts<'_>, now: UnixTime) -> Result<(), DeniedByOperator> {
        let in_force = self.entries.iter().filter(|entry| entry.until.is_none_or(|end| now < end));
        match in_force.into_iter().find(|entry| entry.covers(facts)) {
            None => Ok(()),
            Some(Entry { line, reason, .. }) => {
                Err(DeniedByOperator { line: *line, reason: reason.clone() })
            }
        }
    }
}

impl Entry {
    fn covers(&self, facts: &Facts<'_>) -> bool {
        let Facts { issuer, key_id, subject, policy, repositories } = facts;
        let is = |denied: &Option<String>, known: Option<&str>| {
            denied.as_deref().is_none_or(|denied| known == Some(denied))
        };
        self.issuer.as_ref().is_none_or(|denied| is_same_issuer(denied, issuer))
            && is(&self.key_id, *key_id)
            && self.subject.as_ref().is_none_or(|denied| *subject == Some(denied))
            && self.subject_pattern.as_ref().is_none_or(|pattern| {
                subject.is_some_and(|subject| pattern.is_match(subject.as_str()))
            })
            && self.owner.as_ref().is_none_or(|denied| policy.is_some_and(|at| at.owner == denied))
            && self.repository.as_ref().is_none_or(|(owner, repo)| {
                policy.is_some_and(|at| {
                    at.owner == owner && (at.repo == repo || reaches(*repositories, repo))
                })
            })
            && self.policy.as_ref().is_none_or(|(owner, repo, name)| {
                policy.is_some_and(|at| at.owner == owner && at.repo == repo && at.name == name)
            })
    }
}

/// Whether one slash at the end is all that differs.
fn is_same_issuer(one: &Issuer, other: &Issuer) -> bool {
    fn bare(issuer: &Issuer) -> &str {
        issuer.as_str().strip_suffix('/').unwrap_or(issuer.as_str())
    }
    bare(one) == bare(other)
}

fn reaches(repositories: Option<&Repositories>, repo: &RepoName) -> bool {
    match repositories {
        None => false,
        Some(Repositories::All) => true,
        Some(Repositories::These(names)) => names.contains(repo),
    }
}

/// The deny list in force. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Denials {
    file: Option<DenyFile>,
    list: Arc<RwLock<Arc<DenyList>>>,
}

impl Denials {
    /// A list, and the file that it is from.
    pub fn new(file: DenyFile, list: DenyList) -> Self {
        Self { file: Some(file), list: Arc::new(RwLock::new(Arc::new(list))) }
    }

    /// Where the list is from; `None` if nothing can be denied.
    pub fn file(&self) -> Option<&DenyFile> {
        self.file.as_ref()
    }

    /// The list in force now.
    pub fn current(&self) -> Arc<DenyList> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this list is still in force.
    pub fn is_current(&self, list: &Arc<DenyList>) -> bool {
        Arc::ptr_eq(list, &self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts the changed file in force, for as long as it runs. Ends at once if there is no file.
    pub async fn reload(self, clock: Arc<dyn Clock>) {
        let Some(file) = self.file.clone() else { return };
        // The text that was read last, in force or not, and what was wrong with it.
        let (mut text, mut error) = (None, None);
        self.show(true);
        loop {
            clock.sleep(INTERVAL).await;
            let reading = file.clone();
            match tokio::task::spawn_blocking(move || reading.text()).await {
                Ok(now) if text.as_ref() == Some(&now) => {}
                Ok(now) => {
                    let list = now.as_deref().map_err(Invalid::clone).and_then(DenyList::read);
                    self.compare(&file, &mut error, list);
                    text = Some(now);
                }
                Err(error) => tracing::error!(%error, "the deny file was not read"),
            }
        }
    }

    fn compare(
        &self,
        file: &DenyFile,
        logged: &mut Option<Invalid>,
        list: Result<DenyList, Invalid>,
    ) {
        let path = file.path.display();
        match list {
            Ok(list) => {
                if list != *self.current() {
                    let entries = list.len();
                    *self.list.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
                    tracing::warn!(file = %path, entries, "the changed deny file is in force");
                } else if logged.is_some() {
                    tracing::info!(file = %path, "the deny file is again as it was before the error");
                }
                *logged = None;
            }
            Err(error) if logged.as_ref() != Some(&error) => {
                tracing::error!(file = %path, %error, "the deny file cannot be used; the entries stay in force as they were");
                *logged = Some(error);
            }
            Err(_) => {}
        }
        self.show(logged.is_none());
    }

    fn show(&self, is_ok: bool) {
        metrics::gauge!(metric::DENY_FILE_OK).set(if is_ok { 1.0 } else { 0.0 });
        #[expect(clippy::cast_precision_loss, reason = "there are far fewer entries")]
        metrics::gauge!(metric::DENY_ENTRIES).set(self.current().len() as f64);
    }
}

#[cfg(test)]
mod tests;
