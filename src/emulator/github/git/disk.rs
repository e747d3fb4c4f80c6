//! Bare repositories on disk that follow the state, and the state that follows them after a push.
//!
//! A branch that the API changed becomes one more commit with all of the branch's files. Its id is
//! git's own and differs from the one that the API tells; after a push both are the pushed one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tokio::process::Command;

use super::super::files::{Placed, Repository, Tree};

/// Branches and the commits that they name.
type Branches = BTreeMap<String, String>;

/// The copies in a folder.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    /// By repository: the commits of the state that its branches were copied from.
    copied: BTreeMap<u64, Branches>,
}

/// A branch that a push changed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) branch: String,
    /// Commit and files; `None` if the branch is gone.
    pub(super) head: Option<(String, Tree)>,
}

impl Disk {
    /// Nothing is made before it is used.
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder, copied: BTreeMap::new() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A git command that no configuration of this machine's user reaches.
    pub(super) fn git(&self, arguments: &[&str]) -> Command {
        let mut git = Command::new("git");
        git.args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", self.folder.join("none"));
        git.current_dir(&self.folder).kill_on_drop(true);
        git
    }

    /// Its output, with `input` to read.
    pub(super) async fn run(&mut self, mut git: Command, input: &[u8]) -> io::Result<Vec<u8>> {
        let path = self.folder.join("input");
        File::create(&path)?.write_all(input)?;
        let output = git.stdin(File::open(&path)?).output().await?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    async fn on(&mut self, id: u64, arguments: &[&str], input: &[u8]) -> io::Result<Vec<u8>> {
        let folder = format!("{id}.git");
        let git = self.git(&[&["--git-dir", &folder], arguments].concat());
        self.run(git, input).await
    }

    /// Brings the copy up to what the repository holds. Returns its branches.
    pub(super) async fn copy_in(&mut self, repository: &Repository) -> io::Result<Branches> {
        let id = repository.id;
        if !self.copied.contains_key(&id) {
            fs::create_dir_all(&self.folder)?;
            self.on(id, &["init", "--quiet", "--bare"], b"").await?;
            self.copied.insert(id, Branches::new());
        }
        let head = format!("refs/heads/{}", repository.default_branch);
        self.on(id, &["symbolic-ref", "HEAD", &head], b"").await?;
        let copied = self.copied.entry(id).or_default();
        let stream = stream(repository, copied);
        *copied = repository.branches().clone();
        if !stream.is_empty() {
            self.on(id, &["fast-import", "--quiet", "--force"], &stream).await?;
        }
        self.branches(id).await
    }

    /// What has changed since the branches were `before`.
    pub(super) async fn copy_out(&mut self, id: u64, before: &Branches) -> io::Result<Vec<Change>> {
        let after = self.branches(id).await?;
        let mut changes = Vec::new();
        for branch in before.keys().filter(|branch| !after.contains_key(*branch)) {
            changes.push(Change { branch: branch.clone(), head: None });
        }
        for (branch, commit) in
            after.iter().filter(|(branch, commit)| before.get(*branch) != Some(commit))
        {
            let tree = self.tree(id, commit).await?;
            changes.push(Change { branch: branch.clone(), head: Some((commit.clone(), tree)) });
        }
        let copied = self.copied.entry(id).or_default();
        for change in &changes {
            match &change.head {
                Some((commit, _)) => drop(copied.insert(change.branch.clone(), commit.clone())),
                None => drop(copied.remove(&change.branch)),
            }
        }
        Ok(changes)
    }

    async fn branches(&mut self, id: u64) -> io::Result<Branches> {
        let format = "--format=%(objectname) %(refname:lstrip=2)";
        let listed = self.on(id, &["for-each-ref", format, "refs/heads"], b"").await?;
        let lines = String::from_utf8_lossy(&listed).into_owned();
        let pairs = lines.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs.map(|(commit, branch)| (branch.to_owned(), commit.to_owned())).collect())
    }

    /// The files of a commit.
    async fn tree(&mut self, id: u64, commit: &str) -> io::Result<Tree> {
        let listed = self.on(id, &["ls-tree", "-r", "-z", "--full-tree", commit], b"").await?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let mut tree = Tree::new();
        for entry in listed.split_terminator('\0') {
            let Some((about, path)) = entry.split_once('\t') else { continue };
            let (mode, object) =
                (about.get(..6).unwrap_or_default(), about.rsplit(' ').next().unwrap_or_default());
            let placed = match mode {
                "160000" => Placed::Submodule(object.to_owned()),
                mode => {
                    let content = self.on(id, &["cat-file", "blob", object], b"").await?;
                    match mode {
                        "120000" => Placed::Symlink(String::from_utf8_lossy(&content).into_owned()),
                        _ => Placed::File(Bytes::from(content)),
                    }
                }
            };
            tree.insert(path.to_owned(), placed);
        }
        Ok(tree)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.copied.is_empty() {
            // Left over at worst, in a folder for temporary things.
            fs::remove_dir_all(&self.folder).ok();
        }
    }
}

/// Branches that are not as they were copied, as git-fast-import(1) reads them, the default one
/// first.
fn stream(repository: &Repository, copied: &Branches) -> Vec<u8> {
    let mut out = Vec::new();
    for gone in copied.keys().filter(|branch| !repository.branches().contains_key(*branch)) {
        push(&mut out, &format!("reset refs/heads/{gone}\nfrom {}\n\n", "0".repeat(40)), b"");
    }
    let default = repository.default_branch.as_str();
    let mut changed: Vec<_> = repository.branches().iter().collect();
    changed.retain(|(branch, commit)| copied.get(*branch) != Some(commit));
    changed.sort_by_key(|(branch, _)| branch.as_str() != default);
    for (branch, _) in changed {
        let Some(tree) = repository.head(branch) else { continue };
        let when = repository.pushed_at.as_secs();
        let head = format!(
            "commit refs/heads/{branch}\ncommitter GitHub <noreply@github.com> {when} +0000\n"
        );
        push(&mut out, &format!("{head}data 6\nChange\n"), b"");
        if copied.contains_key(branch) {
            push(&mut out, &format!("from refs/heads/{branch}^0\n"), b"");
        } else if branch != default && repository.branches().contains_key(default) {
            push(&mut out, &format!("from refs/heads/{default}\n"), b"");
        }
        out.extend_from_slice(b"deleteall\n");
        for (path, placed) in tree.iter() {
            file(&mut out, path, placed);
        }
        out.push(b'\n');
    }
    out
}

fn file(out: &mut Vec<u8>, path: &str, placed: &Placed) {
    let path = path.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let mut inline = |mode: &str, content: &[u8]| {
        push(out, &format!("M {mode} inline \"{path}\"\ndata {}\n", content.len()), content);
        out.push(b'\n');
    };
    match placed {
        Placed::File(content) => inline("100644", content),
        Placed::Zeros(size) => {
            inline("100644", &vec![0; usize::try_from(*size).unwrap_or_default()])
        }
        Placed::Symlink(target) => inline("120000", target.as_bytes()),
        Placed::Submodule(_) => push(out, &format!("M 160000 {} \"{path}\"\n", placed.sha()), b""),
    }
}

fn push(out: &mut Vec<u8>, text: &str, content: &[u8]) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(content);
}
