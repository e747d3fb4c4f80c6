//! What GitHub announced as changed lately, and what follows from it for copies of files.
//!
//! A webhook delivery says that files, a repository or an owner changed. Three things follow. The
//! copies are gone. A decision that was made by an earlier copy is void ([`Changes::is_current`]).
//! And since GitHub may show the old state for some seconds, what is read within [`WINDOW`] of the
//! announcement is read again by each attempt, and a file of which GitHub still shows the version
//! from before the push is not used ([`Changes::is_superseded`]).

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    clock::{Clock, Moment},
    name::{Owner, RepoName},
};

/// How long after an announcement GitHub may still show the old state.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// A push is announced within seconds. After this long, GitHub shows its files everywhere.
const LATE: Duration = Duration::from_secs(30);
/// Repositories of one owner that are distinguished. Beyond that, the owner as a whole has changed.
const MAX_REPOSITORIES: usize = 64;
/// Owners that are distinguished. Beyond that, everything has changed.
const MAX_OWNERS: usize = 4096;

/// What has changed on GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Files on the default branch.
    Files(Push),
    /// The repository's name, owner, visibility or default branch; or it is gone.
    Repository(Owner, RepoName),
    /// The owner's name, or an installation.
    Owner(Owner),
}

/// A push to the default branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The repository's owner.
    pub owner: Owner,
    /// The repository.
    pub repo: RepoName,
    /// The files that changed.
    pub files: Files,
    /// How long ago GitHub received it.
    pub age: Duration,
    /// When GitHub received it, in its seconds: orders the pushes of a repository.
    pub pushed_at: i64,
    /// The commit before it.
    pub before: String,
    /// The commit after it.
    pub after: String,
}

/// Which files a push changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// These paths.
    Paths(Vec<String>),
    /// Possibly any.
    Any,
}

impl Files {
    fn contains(&self, path: &str) -> bool {
        match self {
            Self::Paths(paths) => paths.iter().any(|changed| changed == path),
            Self::Any => true,
        }
    }
}

impl Change {
    /// Whose it is.
    pub fn owner(&self) -> &Owner {
        match self {
            Self::Files(push) => &push.owner,
            Self::Repository(owner, _) | Self::Owner(owner) => owner,
        }
    }

    /// Which repository it concerns; `None` is all of the owner's.
    pub fn repo(&self) -> Option<&RepoName> {
        match self {
            Self::Files(push) => Some(&push.repo),
            Self::Repository(_, repo) => Some(repo),
            Self::Owner(_) => None,
        }
    }
}

/// A point in the order of announcements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AsOf(u64);

/// A version of a file: its path and the id of its blob.
pub(super) type Blob = (String, String);

#[derive(Debug, Clone, Copy)]
struct Stamp {
    number: u64,
    at: Moment,
}

#[derive(Debug)]
struct Recent {
    /// `None`: all repositories of the owner.
    repo: Option<RepoName>,
    stamp: Stamp,
    /// The latest push, in GitHub's seconds.
    pushed_at: i64,
    superseded: Vec<Blob>,
    confirmed: Vec<Blob>,
}

#[derive(Debug, Default)]
struct State {
    owners: HashMap<Owner, Vec<Recent>>,
    everything: Option<Stamp>,
}

/// The announcements of the last minutes.
pub(super) struct Changes {
    state: RwLock<State>,
    /// How many there have been.
    count: AtomicU64,
    /// How long one matters: as long as a copy from its window may be used.
    retention: Duration,
    clock: Arc<dyn Clock>,
}

impl Changes {
    /// `longest` is how long any copy is used.
    pub(super) fn new(longest: Duration, clock: Arc<dyn Clock>) -> Self {
        let retention = WINDOW.saturating_add(longest);
        Self { state: RwLock::default(), count: AtomicU64::new(0), retention, clock }
    }

    /// This moment, for [`Changes::is_current`].
    pub(super) fn as_of(&self) -> AsOf {
        AsOf(self.count.load(Ordering::SeqCst))
    }

    /// Notes a change, after the copies are gone. `old` are the versions of which there were copies.
    pub(super) fn record(&self, change: &Change, old: Vec<Blob>) {
        let now = self.clock.monotonic();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        self.prune(&mut state, now);
        let stamp = Stamp { number: self.count.load(Ordering::SeqCst), at: now };
        state.record(change, stamp, old);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn prune(&self, state: &mut State, now: Moment) {
        let is_recent = |stamp: &Stamp| now.since(stamp.at) < self.retention;
        for changes in state.owners.values_mut() {
            changes.retain(|recent| is_recent(&recent.stamp));
        }
        state.owners.retain(|_, changes| !changes.is_empty());
        state.everything = state.everything.filter(is_recent);
    }

    /// Whether nothing was announced since `as_of` that concerns the repositories.
    pub(super) fn is_current(&self, owner: &Owner, repos: [&RepoName; 2], as_of: AsOf) -> bool {
        let is_earlier = |stamp: Stamp| stamp.number < as_of.0;
        self.read(|state| {
            state.everything.is_none_or(is_earlier)
                && repos.iter().all(|repo| state.stamps(owner, repo).all(is_earlier))
        })
        .unwrap_or(true)
    }

    /// When the window of the latest change to the repository ends: what was read before that does
    /// not count as fresh.
    pub(super) fn settles(&self, owner: &Owner, repo: &RepoName) -> Option<Moment> {
        let latest = self.read(|state| {
            state.stamps(owner, repo).chain(state.everything).map(|stamp| stamp.at).max()
        });
        latest.flatten().map(|at| at.plus(WINDOW))
    }

    /// Whether this version of a file is the one from before a push, within the push's window.
    pub(super) fn is_superseded(
        &self,
        owner: &Owner,
        repo: &RepoName,
        path: &str,
        blob: &str,
    ) -> bool {
        let now = self.clock.monotonic();
        let is_in = |blobs: &[Blob]| blobs.iter().any(|(at, sha)| at == path && sha == blob);
        self.read(|state| {
            state.of(owner, repo).any(|recent| {
                now.since(recent.stamp.at) < WINDOW
                    && is_in(&recent.superseded)
                    && !is_in(&recent.confirmed)
            })
        })
        .unwrap_or(false)
    }

    /// The files of which a version is superseded.
    pub(super) fn superseded_paths(&self, owner: &Owner, repo: &RepoName) -> Vec<String> {
        let paths = self.read(|state| {
            let blobs = state.of(owner, repo).flat_map(|recent| &recent.superseded);
            blobs.map(|(path, _)| path.clone()).collect::<Vec<_>>()
        });
        let mut paths = paths.unwrap_or_default();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Notes what a push that is still the latest left at a path, and what was there before.
    pub(super) fn confirm(
        &self,
        push: &Push,
        path: &str,
        before: Option<String>,
        after: Option<String>,
    ) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(changes) = state.owners.get_mut(&push.owner) else { return };
        for recent in changes {
            if recent.repo.as_ref() == Some(&push.repo) && recent.pushed_at <= push.pushed_at {
                let blob = |sha| (path.to_owned(), sha);
                recent.superseded.extend(before.clone().map(blob));
                recent.confirmed.extend(after.clone().map(blob));
            }
        }
    }

    /// `None` while there has been no change at all, which costs no lock.
    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Option<T> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        Some(read(&self.state.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl State {
    fn of<'a>(&'a self, owner: &Owner, repo: &'a RepoName) -> impl Iterator<Item = &'a Recent> {
        let changes = self.owners.get(owner).map(Vec::as_slice).unwrap_or_default();
        changes.iter().filter(move |recent| recent.repo.as_ref().is_none_or(|own| own == repo))
    }

    fn stamps<'a>(&'a self, owner: &Owner, repo: &'a RepoName) -> impl Iterator<Item = Stamp> {
        self.of(owner, repo).map(|recent| recent.stamp)
    }

    fn record(&mut self, change: &Change, stamp: Stamp, old: Vec<Blob>) {
        if self.owners.len() >= MAX_OWNERS && !self.owners.contains_key(change.owner()) {
            self.owners.clear();
            self.everything = Some(stamp);
            return;
        }
        let changes = self.owners.entry(change.owner().clone()).or_default();
        let mut repo = change.repo();
        if !changes.iter().any(|recent| recent.repo.as_ref() == repo) {
            if changes.len() >= MAX_REPOSITORIES {
                changes.clear();
                repo = None;
            }
            changes.push(Recent::new(repo.cloned(), stamp));
        }
        if let Some(recent) = changes.iter_mut().find(|recent| recent.repo.as_ref() == repo) {
            recent.again(change, stamp, old);
        }
    }
}

impl Recent {
    fn new(repo: Option<RepoName>, stamp: Stamp) -> Self {
        let (superseded, confirmed) = Default::default();
        Self { repo, stamp, pushed_at: i64::MIN, superseded, confirmed }
    }

    fn again(&mut self, change: &Change, stamp: Stamp, old: Vec<Blob>) {
        if stamp.at.since(self.stamp.at) >= WINDOW {
            self.superseded.clear();
        }
        self.stamp = stamp;
        let Change::Files(push) = change else { return };
        // A delivery that arrives out of order says nothing of what is there now.
        if push.pushed_at < self.pushed_at || push.age > LATE {
            return;
        }
        self.pushed_at = push.pushed_at;
        self.confirmed.clear();
        self.superseded.extend(old.into_iter().filter(|(path, _)| push.files.contains(path)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixTime};

    fn changes() -> (Changes, ManualClock) {
        let clock = ManualClock::at(UnixTime::from_secs(0));
        (Changes::new(Duration::from_secs(60), Arc::new(clock.clone())), clock)
    }

    fn name<T: std::str::FromStr>(text: &str) -> T {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    fn repository(owner: &str, repo: &str) -> Change {
        Change::Repository(name(owner), name(repo))
    }

    fn is_current(changes: &Changes, owner: &str, repo: &str, as_of: AsOf) -> bool {
        changes.is_current(&name(owner), [&name(repo), &name(".github")], as_of)
    }

    #[test]
    fn a_change_voids_earlier_decisions_on_its_repository_and_no_others() {
        let (changes, clock) = changes();
        let before = changes.as_of();
        changes.record(&repository("o", "r"), Vec::new());
        assert!(!is_current(&changes, "O", "R", before));
        assert!(is_current(&changes, "o", "other", before));
        assert!(is_current(&changes, "other", "r", before));
        assert!(is_current(&changes, "o", "r", changes.as_of()));
        // The policy repository holds the list, and an owner has both.
        changes.record(&repository("o", ".github"), Vec::new());
        assert!(!is_current(&changes, "o", "other", before));
        changes.record(&Change::Owner(name("p")), Vec::new());
        assert!(!is_current(&changes, "p", "any", before));
        // What matters for longer than any copy is used is forgotten.
        clock.advance(Duration::from_secs(71));
        changes.record(&repository("x", "y"), Vec::new());
        assert!(is_current(&changes, "o", "r", before));
    }

    #[test]
    fn beyond_the_bounds_more_counts_as_changed_and_never_less() {
        let (changes, _) = changes();
        let before = changes.as_of();
        for n in 0..=MAX_REPOSITORIES {
            changes.record(&repository("o", &format!("r{n}")), Vec::new());
        }
        for repo in ["r0", "r63", "untouched"] {
            assert!(!is_current(&changes, "o", repo, before), "{repo}");
        }
        assert!(is_current(&changes, "p", "r0", before));
        for n in 0..MAX_OWNERS {
            changes.record(&repository(&format!("o{n}"), "r"), Vec::new());
        }
        for owner in ["o", "o0", "untouched"] {
            assert!(!is_current(&changes, owner, "r", before), "{owner}");
        }
    }

    #[test]
    fn a_version_is_superseded_within_the_window_unless_the_latest_push_left_it() {
        let (changes, clock) = changes();
        let (owner, repo): (Owner, RepoName) = (name("o"), name("r"));
        let push = |pushed_at: i64, files| Push {
            owner: name("o"),
            repo: name("r"),
            files,
            age: Duration::from_secs(1),
            pushed_at,
            before: "b".into(),
            after: "a".into(),
        };
        let old = || vec![("p".to_owned(), "1".to_owned()), ("q".to_owned(), "1".to_owned())];
        let superseded = |path: &str, blob: &str| changes.is_superseded(&owner, &repo, path, blob);
        let first = push(5, Files::Paths(vec!["p".into()]));
        changes.record(&Change::Files(first.clone()), old());
        assert!(superseded("p", "1") && !superseded("q", "1") && !superseded("p", "2"));
        // An older push says nothing of what is there now.
        changes.record(&Change::Files(push(4, Files::Any)), vec![("p".into(), "2".into())]);
        assert!(!superseded("p", "2"));
        changes.confirm(&first, "p", Some("0".into()), Some("1".into()));
        assert!(!superseded("p", "1"), "the same again");
        assert!(superseded("p", "0"));
        clock.advance(WINDOW);
        assert!(!superseded("p", "0"));
    }
}
