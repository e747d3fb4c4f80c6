//! Reads one file of one repository, and knows the difference between absent and not visible yet.
//!
//! The tokens that read are `contents: read` on one repository. Each is kept while its repository's
//! files are, since GitHub's ETags belong to the token that asked, and revoked when it goes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    cache::{Bounds, Cache, Stamped, Standing, heap_bytes},
    clock::Clock,
    github::{Error, File, GitHub, ReadToken},
    name::{Owner, RepoName},
};

/// A token is replaced this long before GitHub ends it.
const MARGIN: Duration = Duration::from_secs(120);
/// Memory of the cached read tokens: about 9,000 repositories that are served, and 380 others.
const TOKENS: Bounds = Bounds { verified: 24 << 20, unverified: 1 << 20 };
/// Memory of one read token beside its names: the token itself twice, of which GitHub makes it at most
/// 520 characters long.
const TOKEN_BYTES: usize = 1536;
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
    tokens: Cache<(Owner, RepoName), Arc<ReadToken>, Error>,
    clock: Arc<dyn Clock>,
}

impl Reader {
    pub(super) fn new(github: GitHub, clock: Arc<dyn Clock>) -> Self {
        let tokens = Cache::new(Arc::clone(&clock), TOKENS, weigh);
        Self { github, tokens, clock }
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
            self.tokens.invalidate(&(owner.clone(), repo.clone()));
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
        self.tokens.invalidate(&(owner.clone(), repo.clone()));
    }

    /// Gives up every token.
    pub(super) fn close(&self) {
        self.tokens.clear();
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
        let (github, key) = (self.github.clone(), (owner.clone(), repo.clone()));
        let load = move |_| async move {
            let (owner, repo) = key;
            let installation = github.installation(&owner, standing).await?;
            github.read_token(&installation, &repo).await.map(Arc::new)
        };
        let now = self.clock.now();
        let fresh = |held: &Stamped<Arc<ReadToken>>| now.plus(MARGIN) < held.value.expires_at();
        let held = self.tokens.get_or_load((owner.clone(), repo.clone()), standing, fresh, load).await?;
        Ok(held.value)
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

fn weigh((owner, repo): &(Owner, RepoName), _: &Arc<ReadToken>) -> usize {
    // Each name twice in each of its two spellings: in the key and in the token.
    let names = 4 * (heap_bytes(owner.as_str()) + heap_bytes(repo.as_str()));
    names + TOKEN_BYTES + size_of::<ReadToken>()
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
