//! A repository: branches, commits and files with git's own blob ids, issues and check runs.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::Bytes;

use crate::clock::UnixTime;

/// What stands at a path.
#[derive(Debug, Clone)]
pub enum Placed {
    /// A file with this content.
    File(Bytes),
    /// A file of this many bytes, all zero: for the size limits, without holding the bytes.
    Zeros(u64),
    /// A symbolic link to this path, relative to the link.
    Symlink(String),
    /// Another repository, by its git URL.
    Submodule(String),
}

/// The files of one commit by path. Directories exist by what is in them.
pub(super) type Tree = BTreeMap<String, Placed>;

/// A repository.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    pub(super) id: u64,
    pub(super) owner: u64,
    pub(super) name: String,
    pub(super) private: bool,
    pub(super) default_branch: String,
    pub(super) issues: Vec<Issue>,
    pub(super) check_runs: Vec<CheckRun>,
    pub(super) created_at: UnixTime,
    pub(super) pushed_at: UnixTime,
    pub(super) pulls: Vec<Pull>,
    /// Branch name to commit id.
    branches: BTreeMap<String, String>,
    commits: BTreeMap<String, Arc<Tree>>,
    /// Each commit's parent.
    parents: BTreeMap<String, String>,
    /// The commit that reads without a `ref` see, while GitHub lags behind.
    shown: Option<String>,
}

/// A pull request. Its head is a branch of a repository, this one or a fork.
#[derive(Debug, Clone)]
pub(super) struct Pull {
    pub(super) head: (u64, String),
    pub(super) base: String,
    pub(super) draft: bool,
    pub(super) created_at: UnixTime,
}

/// An issue.
#[derive(Debug, Clone)]
pub(super) struct Issue {
    pub(super) title: String,
    pub(super) body: Option<String>,
    pub(super) by_app: u64,
    pub(super) created_at: UnixTime,
}

/// A check run.
#[derive(Debug, Clone)]
pub(super) struct CheckRun {
    pub(super) by_app: u64,
    pub(super) head_sha: String,
    pub(super) name: String,
    pub(super) external_id: String,
    pub(super) status: String,
    pub(super) conclusion: Option<String>,
    pub(super) title: Option<String>,
    pub(super) summary: Option<String>,
    pub(super) annotations: Vec<serde_json::Value>,
    pub(super) started_at: UnixTime,
    pub(super) completed_at: Option<UnixTime>,
}

impl Repository {
    /// A private repository without a commit.
    pub(super) fn new(id: u64, owner: u64, name: &str, now: UnixTime) -> Self {
        Self {
            id,
            owner,
            name: name.into(),
            private: true,
            default_branch: "main".into(),
            issues: Vec::new(),
            check_runs: Vec::new(),
            created_at: now,
            pushed_at: now,
            pulls: Vec::new(),
            branches: BTreeMap::new(),
            commits: BTreeMap::new(),
            parents: BTreeMap::new(),
            shown: None,
        }
    }

    /// Commits one change to a branch, made from the default branch if it is new; the commit's id.
    pub(super) fn commit(
        &mut self,
        branch: &str,
        path: &str,
        placed: Option<Placed>,
        now: UnixTime,
    ) -> String {
        let parent =
            self.branches.get(branch).or_else(|| self.branches.get(&self.default_branch)).cloned();
        self.commit_on(branch, parent, vec![(path.into(), placed)], now)
    }

    /// Moves a branch to a new commit: these changes to its parent, or to nothing.
    pub(super) fn commit_on(
        &mut self,
        branch: &str,
        parent: Option<String>,
        changes: Vec<(String, Option<Placed>)>,
        now: UnixTime,
    ) -> String {
        let tree = parent.as_ref().and_then(|commit| self.commits.get(commit));
        let mut files = tree.map(|tree| Tree::clone(tree)).unwrap_or_default();
        for (path, placed) in changes {
            match placed {
                Some(placed) => drop(files.insert(path, placed)),
                None => drop(files.remove(&path)),
            }
        }
        let text = format!(
            "{}/{}/{branch}/{}",
            self.id,
            parent.as_deref().unwrap_or_default(),
            self.commits.len()
        );
        let id = git_id("commit", text.as_bytes());
        self.commits.insert(id.clone(), Arc::new(files));
        self.parents.extend(parent.map(|parent| (id.clone(), parent)));
        self.branches.insert(branch.into(), id.clone());
        self.pushed_at = now;
        id
    }

    /// Knows the commits of a fork, as every repository of a network does.
    pub(super) fn adopt(&mut self, fork: &Self) {
        self.commits.extend(fork.commits.clone());
        self.parents.extend(fork.parents.clone());
    }

    /// A commit and its ancestors, nearest first.
    pub(super) fn ancestry<'a>(&'a self, commit: &'a str) -> impl Iterator<Item = &'a str> {
        std::iter::successors(Some(commit), |commit| self.parents.get(*commit).map(String::as_str))
    }

    /// Every tree there is.
    pub(super) fn trees(&self) -> impl Iterator<Item = &Arc<Tree>> {
        self.commits.values()
    }

    /// Reads without a `ref` go on to see this commit, until `None`.
    pub(super) fn show(&mut self, commit: Option<String>) {
        self.shown = commit;
    }

    /// What reads without a `ref` see.
    pub(super) fn default_reference(&self) -> &str {
        self.shown.as_ref().unwrap_or(&self.default_branch)
    }

    /// Whether the repository has no commit yet.
    pub(super) fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    /// The commit that a `ref` names: a branch, short or in full, or a commit id.
    pub(super) fn resolve(&self, reference: &str) -> Option<(&str, &Arc<Tree>)> {
        let branch = reference.strip_prefix("refs/").unwrap_or(reference);
        let branch = branch.strip_prefix("heads/").unwrap_or(branch);
        let commit = self.branches.get(branch).map_or(reference, String::as_str);
        self.commits.get_key_value(commit).map(|(id, tree)| (id.as_str(), tree))
    }

    /// All branches with the ids of their commits.
    pub(super) fn branches(&self) -> &BTreeMap<String, String> {
        &self.branches
    }

    /// Moves a branch to a commit with these files, or removes it.
    pub(super) fn set_branch(&mut self, branch: &str, head: Option<(String, Tree)>, now: UnixTime) {
        match head {
            Some((commit, tree)) => {
                self.commits.insert(commit.clone(), Arc::new(tree));
                self.branches.insert(branch.into(), commit);
            }
            None => drop(self.branches.remove(branch)),
        }
        self.pushed_at = now;
    }

    /// The files at the head of a branch.
    pub(super) fn head(&self, branch: &str) -> Option<&Arc<Tree>> {
        self.commits.get(self.branches.get(branch)?)
    }
}

impl Placed {
    /// The blob's (or submodule commit's) id.
    pub(super) fn sha(&self) -> String {
        match self {
            Self::File(content) => git_id("blob", content),
            // Not git's id of that many zeros, which nobody asks for: they would have to be hashed.
            Self::Zeros(size) => git_id("blob", format!("{size} zeros").as_bytes()),
            Self::Symlink(target) => git_id("blob", target.as_bytes()),
            Self::Submodule(url) => git_id("commit", url.as_bytes()),
        }
    }

    /// Size in bytes, as the contents API gives it.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::File(content) => content.len() as u64,
            Self::Zeros(size) => *size,
            Self::Symlink(target) => target.len() as u64,
            Self::Submodule(_) => 0,
        }
    }
}

/// A git object's id: the SHA-1 of its kind, length and content.
pub(super) fn git_id(kind: &str, content: &[u8]) -> String {
    let mut object = format!("{kind} {}\0", content.len()).into_bytes();
    object.extend_from_slice(content);
    hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_ids_are_gits() {
        // `git hash-object` of an empty file and of "hello\n".
        assert_eq!(Placed::File(Bytes::new()).sha(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(
            Placed::File("hello\n".into()).sha(),
            "ce013625030ba8dba906f756967f9e9ca394464a"
        );
    }

    #[test]
    fn refs_name_branches_and_commits() {
        let now = UnixTime::from_secs(0);
        let mut repository = Repository::new(1, 1, "r", now);
        assert!(repository.is_empty());
        let first = repository.commit("main", "a", Some(Placed::File("1".into())), now);
        let second = repository.commit("dev", "b", Some(Placed::File("2".into())), now);
        for (reference, commit) in [
            ("main", &first),
            ("refs/heads/main", &first),
            ("heads/dev", &second),
            (&*first, &first),
        ] {
            assert_eq!(repository.resolve(reference).unwrap().0, commit);
        }
        assert_eq!(
            repository.head("dev").unwrap().len(),
            2,
            "a new branch starts from the default one"
        );
        assert!(repository.resolve("nope").is_none());
    }
}
