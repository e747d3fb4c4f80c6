//! Reads one file of one repository, and knows the difference between absent and not visible yet.
//!
//! The tokens that read are `contents: read` on one repository. Each is kept while its repository's
//! files are, since GitHub's ETags belong to the token that asked, and revoked when it goes.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    cache::{Bounds, Cache, Stamped, Standing},
    clock::{Clock, UnixTime},
    github::{Error, File, GitHub, ReadToken},
    name::{Owner, RepoName},
};

/// A token is replaced this long before GitHub ends it.
const MARGIN: Duration = Duration::from_secs(120);
/// Repositories whose read token is held.
const TOKENS: Bounds = Bounds { verified: 10_000, unverified: 500 };
/// Waits between looks at a private repository that a fresh token does not see yet.
const REPLICATION: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];
/// After this long a token has been replicated.
const SETTLED: Duration = Duration::from_secs(10);

/// What is at a path.
#[derive(Debug)]
pub(super) enum Read {
    /// A regular file that differs from the one whose ETag was given.
    Present { bytes: Bytes, sha: String, etag: Option<String> },
    /// The file whose ETag was given.
    Unchanged,
    /// Something else: a directory, a symbolic link, a submodule.
    NotAFile,
    /// Nothing, and that is proven.
    Absent,
    /// The App's installation does not see the repository.
    Inaccessible,
}

/// Reads files as the App's installation.
#[derive(Clone)]
pub(super) struct Reader {
    github: GitHub,
    tokens: Cache<(Owner, RepoName), Arc<Kept>, Error>,
    /// All that are kept, so that closing reaches them.
    kept: Arc<Mutex<Vec<Weak<Kept>>>>,
    clock: Arc<dyn Clock>,
}

/// A token that can be given up at once. What a cache forgets it drops some time later, which is
/// too late for a token that is revoked when it is dropped.
struct Kept {
    expires_at: UnixTime,
    token: Mutex<Option<Arc<ReadToken>>>,
}

impl Kept {
    fn new(token: ReadToken) -> Self {
        Self { expires_at: token.expires_at(), token: Mutex::new(Some(Arc::new(token))) }
    }

    fn token(&self) -> Option<Arc<ReadToken>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Revokes the token as soon as no read uses it.
    fn give_up(&self) {
        drop(self.token.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Reader {
    pub(super) fn new(github: GitHub, clock: Arc<dyn Clock>) -> Self {
        let tokens = Cache::new(Arc::clone(&clock), TOKENS, |_| 1);
        Self { github, tokens, kept: Arc::default(), clock }
    }

    /// Reads `path` on the default branch. A token or an installation that GitHub no longer takes
    /// is replaced, once each.
    pub(super) async fn read(
        &self,
        (owner, repo): (&Owner, &RepoName),
        path: &str,
        etag: Option<&str>,
        standing: Standing,
    ) -> Result<Read, Error> {
        let read = || self.read_once((owner, repo), path, etag, standing);
        let mut outcome = read().await;
        if let Err(Error::TokenRefused) = outcome {
            self.drop_token(owner, repo);
            outcome = read().await;
        }
        // A token of an installation that is gone is refused first; then the mint of another says so.
        if let Err(Error::Stale) = outcome {
            self.forget(owner, repo);
            outcome = read().await;
        }
        outcome
    }

    /// Forgets what is known of the way to a repository: the installation, and the token.
    pub(super) fn forget(&self, owner: &Owner, repo: &RepoName) {
        self.github.forget_installation(owner);
        self.drop_token(owner, repo);
    }

    fn drop_token(&self, owner: &Owner, repo: &RepoName) {
        let key = (owner.clone(), repo.clone());
        if let Some(kept) = self.tokens.get(&key) {
            kept.value.give_up();
        }
        self.tokens.invalidate(&key);
    }

    /// Gives up every token.
    pub(super) fn close(&self) {
        self.tokens.clear();
        for kept in self.kept().drain(..).filter_map(|kept| kept.upgrade()) {
            kept.give_up();
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, token: ReadToken) -> Arc<Kept> {
        let kept = Arc::new(Kept::new(token));
        let mut all = self.kept();
        // Now and then, so that the list grows no longer than twice what is kept.
        if all.len() == all.capacity() {
            all.retain(|kept| kept.strong_count() > 0);
        }
        all.push(Arc::downgrade(&kept));
        kept
    }

    async fn read_once(
        &self,
        (owner, repo): (&Owner, &RepoName),
        path: &str,
        etag: Option<&str>,
        standing: Standing,
    ) -> Result<Read, Error> {
        let token = match self.token(owner, repo, standing).await {
            Ok(token) => token,
            Err(Error::RepositoryNotAccessible) => return Ok(Read::Inaccessible),
            Err(error) => return Err(error),
        };
        match self.github.file(&token, path, etag).await {
            Ok(File::Absent) => self.prove_absent(&token, path).await,
            outcome => outcome.map(Read::from),
        }
    }

    async fn token(&self, owner: &Owner, repo: &RepoName, standing: Standing) -> Result<Arc<ReadToken>, Error> {
        let (reader, key) = (self.clone(), (owner.clone(), repo.clone()));
        let load = move |_| async move {
            let (owner, repo) = key;
            let installation = reader.github.installation(&owner, standing).await?;
            let token = reader.github.read_token(&installation, &repo).await?;
            Ok(reader.keep(token))
        };
        let now = self.clock.now();
        let fresh =
            |held: &Stamped<Arc<Kept>>| now.plus(MARGIN) < held.value.expires_at && held.value.token().is_some();
        let held = self.tokens.get_or_load((owner.clone(), repo.clone()), standing, fresh, load).await?;
        // Given up by another read in this very moment: as if GitHub had said so.
        held.value.token().ok_or(Error::TokenRefused)
    }

    /// A 404 in a private repository may only mean that GitHub has not replicated the token yet. It
    /// is believed where the same token sees the repository and then, again, no file.
    async fn prove_absent(&self, token: &ReadToken, path: &str) -> Result<Read, Error> {
        if !token.private() {
            return Ok(Read::Absent);
        }
        for wait in REPLICATION {
            tokio::time::sleep(wait).await;
            if self.github.repository_visible(token).await? {
                return self.github.file(token, path, None).await.map(Read::from);
            }
            // The repository has left the installation since: the mint of another token says so.
            if self.clock.now().since(token.issued_at()) >= SETTLED {
                return Err(Error::TokenRefused);
            }
        }
        Err(Error::unavailable("a repository of the installation is not visible to its token"))
    }
}

impl From<File> for Read {
    fn from(file: File) -> Self {
        match file {
            File::Present { bytes, sha, etag } => Self::Present { bytes, sha, etag },
            File::Unchanged => Self::Unchanged,
            File::NotAFile => Self::NotAFile,
            File::Absent => Self::Absent,
        }
    }
}
