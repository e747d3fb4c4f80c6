//! Reads one file of one repository, and distinguishes absent from not visible yet.
//!
//! The tokens that read have `contents: read` on one repository. Each is cached as long as the
//! repository's files are, since GitHub's ETags belong to the token of the request, and revoked when it
//! is evicted. What one App of the owner's pool cannot read is read with the next.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    cache::{Bounds, Cache, CallerTrust, Stamped, heap_bytes},
    clock::Clock,
    github::{Error, File, GitHub, Installation, ReadToken},
    name::{AccountId, InstallationId, Owner, RepoName},
};

/// A token is replaced this long before GitHub ends it.
const MARGIN: Duration = Duration::from_secs(120);
/// Memory of the cached read tokens: about 9,000 repositories that are served, and 380 others.
const TOKENS: Bounds = Bounds { verified: 24 << 20, unverified: 1 << 20 };
/// Memory of one read token beside its names: the token itself twice, of which GitHub makes it at
/// most 520 characters long.
const TOKEN_BYTES: usize = 1536;
/// Waits between looks at a private repository that a fresh token does not see yet.
const REPLICATION: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];
/// A read that GitHub limits is repeated with at most so many other Apps.
const MAX_OTHER_APPS: usize = 3;
/// After this long a token has been replicated.
const SETTLED: Duration = Duration::from_secs(10);

/// What is at a path.
#[derive(Debug)]
pub(super) enum Read {
    /// A regular file that differs from the one whose ETag was given.
    Present { bytes: Bytes, sha: String, version: Option<Version> },
    /// The file whose ETag was given.
    Unchanged,
    /// Something else: a directory, a symbolic link, a submodule.
    NotAFile,
    /// Nothing, and that is proven.
    Absent,
    /// The App's installation does not see the repository.
    Inaccessible,
}

/// A version of a file: its ETag, and for whose tokens it is valid.
#[derive(Debug, Clone)]
pub(super) struct Version {
    etag: String,
    installation: InstallationId,
}

impl Version {
    /// The memory behind it.
    pub(super) fn heap_bytes(&self) -> usize {
        heap_bytes(&self.etag)
    }
}

/// What is read, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) owner: &'a Owner,
    pub(super) repo: &'a RepoName,
    pub(super) path: &'a str,
    /// The version that is cached.
    pub(super) known: Option<&'a Version>,
    pub(super) trust: CallerTrust,
    /// The commit to read from; the default branch otherwise.
    pub(super) commit: Option<&'a str>,
}

/// Reads files with the installations of the owner's Apps.
#[derive(Clone)]
pub(super) struct Reader {
    github: GitHub,
    tokens: Cache<(InstallationId, RepoName), Arc<ReadToken>, Error>,
    clock: Arc<dyn Clock>,
}

impl Reader {
    pub(super) fn new(github: GitHub, clock: Arc<dyn Clock>) -> Self {
        let tokens = Cache::new(Arc::clone(&clock), TOKENS, weigh);
        Self { github, tokens, clock }
    }

    /// The account that has the owner's name.
    pub(super) async fn account(
        &self,
        owner: &Owner,
        trust: CallerTrust,
    ) -> Result<AccountId, Error> {
        self.github.account(owner, trust).await
    }

    /// Reads the file on the default branch, with one App after the other until one can. That the
    /// repository is not accessible is the answer only if no App sees it.
    pub(super) async fn read(&self, request: Request<'_>) -> Result<Read, Error> {
        let Request { owner, trust, .. } = request;
        let preferred = request.known.map(|version| version.installation);
        let mut passed_over = Vec::new();
        let mut limited = 0;
        let mut outcome: Option<Result<Read, Error>> = None;
        while limited <= MAX_OTHER_APPS {
            let reader = self.github.reader(owner, trust, preferred, &passed_over).await;
            let installation = match (reader, &outcome) {
                (Ok(installation), _) => installation,
                // Without this App's answer, nothing is known of the repository.
                (Err(error), Some(Ok(_))) if !error.is_not_installed() => return Err(error),
                (Err(error), _) => return outcome.unwrap_or(Err(error)),
            };
            let read = self.read_as(&installation, request).await;
            let is_final = match &read {
                Ok(read) => !matches!(read, Read::Inaccessible),
                Err(error) => !error.is_of_one_app(),
            };
            if is_final {
                return read;
            }
            limited += usize::from(matches!(read, Err(Error::RateLimited { .. })));
            passed_over.push(installation.app_id());
            outcome = match outcome {
                Some(Err(error)) => Some(Err(error)),
                Some(Ok(_)) | None => Some(read),
            };
        }
        outcome.unwrap_or(Err(Error::NotInstalled))
    }

    /// Reads with one App. A token or an installation that GitHub no longer accepts is replaced,
    /// once each.
    async fn read_as(
        &self,
        installation: &Installation,
        request: Request<'_>,
    ) -> Result<Read, Error> {
        let Request { owner, repo, trust, .. } = request;
        let mut outcome = self.read_once(installation, request).await;
        // A repository that moved away is read again with a new token, which GitHub mints only for
        // what the installation sees under this name.
        if let Err(Error::TokenRefused | Error::Moved(_)) = outcome {
            self.tokens.invalidate(&(installation.id(), repo.clone()));
            outcome = self.read_once(installation, request).await;
        }
        let Err(error) = &outcome else { return outcome };
        // A token of an installation that is gone is refused first; then the mint of another says
        // so.
        if !error.doubts_installation() {
            return outcome;
        }
        self.tokens.invalidate(&(installation.id(), repo.clone()));
        self.github.forget_installation(installation, owner);
        let again = self.github.installation_again(installation, owner, trust).await?;
        if matches!(error, Error::Wider(_)) && again.id() == installation.id() {
            return outcome;
        }
        self.read_once(&again, request).await
    }

    /// Has the owner's installations looked up anew.
    pub(super) fn forget_installations(&self, owner: &Owner) {
        self.github.forget_installations(owner);
    }

    /// The account that has the name, as far as that is cached.
    pub(super) fn cached_account(&self, owner: &Owner) -> Option<AccountId> {
        self.github.cached_account(owner)
    }

    /// Gives up an owner's installations, and the tokens of one repository or of all.
    pub(super) fn forget(&self, owner: &Owner, repo: Option<&RepoName>) {
        let installations = self.github.cached_installations(owner);
        drop(self.tokens.invalidate_if(|(installation, at)| {
            installations.contains(installation) && repo.is_none_or(|repo| repo == at)
        }));
        self.github.forget_installations(owner);
    }

    /// Gives up every token.
    pub(super) fn close(&self) {
        self.tokens.clear();
    }

    async fn read_once(
        &self,
        installation: &Installation,
        Request { repo, path, known, trust, commit, .. }: Request<'_>,
    ) -> Result<Read, Error> {
        let token = match self.token(installation, repo, trust).await {
            Ok(token) => token,
            Err(Error::RepositoryNotAccessible) => return Ok(Read::Inaccessible),
            Err(error) => return Err(error),
        };
        let etag = known.filter(|version| version.installation == installation.id());
        let etag = etag.map(|version| version.etag.as_str());
        match self.github.file(&token, path, commit, etag).await {
            // What a commit lacks, it lacks forever; a commit that is not there yet is no answer.
            Ok(File::Absent) if commit.is_some() => Ok(Read::Absent),
            Ok(File::Absent) => self.prove_absent((installation.id(), &token), path).await,
            outcome => outcome.map(|file| Read::new(file, installation.id())),
        }
    }

    /// A token that reads the repository. If GitHub takes long to mint it, the call goes on, and
    /// those who come later get its token or wait for it too: it is not repeated.
    async fn token(
        &self,
        installation: &Installation,
        repo: &RepoName,
        trust: CallerTrust,
    ) -> Result<Arc<ReadToken>, Error> {
        let (github, key) = (self.github.clone(), (installation.id(), repo.clone()));
        let (installation, repo) = (installation.clone(), repo.clone());
        let load =
            move |_| async move { github.read_token(&installation, &repo).await.map(Arc::new) };
        let now = self.clock.now();
        let fresh = |held: &Stamped<Arc<ReadToken>>| now.plus(MARGIN) < held.value.expires_at();
        let minted = self.tokens.get_or_load(key, trust, fresh, load);
        match tokio::time::timeout(self.github.lookup_timeout(), minted).await {
            Ok(held) => Ok(held?.value),
            Err(_) => Err(Error::unavailable("no token to read with in time")),
        }
    }

    /// A 404 in a private repository may only mean that GitHub has not replicated the token yet. It
    /// is believed where the same token sees the repository and then, again, no file.
    async fn prove_absent(
        &self,
        (installation, token): (InstallationId, &ReadToken),
        path: &str,
    ) -> Result<Read, Error> {
        if !token.private() {
            return Ok(Read::Absent);
        }
        let is_settled = || self.clock.now().since(token.issued_at()) >= SETTLED;
        for wait in REPLICATION {
            tokio::time::sleep(wait).await;
            match self.github.repository_visible(token).await {
                Ok(true) => {
                    let file = self.github.file(token, path, None, None).await?;
                    return Ok(Read::new(file, installation));
                }
                // The repository has left the installation since: the mint of another token says
                // so.
                Ok(false) if is_settled() => return Err(Error::TokenRefused),
                Ok(false) => {}
                // Either the file or the repository is gone. Which one does not matter to a copy.
                Err(error) if error.is_outage() && is_settled() => {
                    return Err(Error::Unexpected(
                        format!("404 for the file; for the repository: {error}").into(),
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unexpected(
            "a repository of the installation is not visible to its token".into(),
        ))
    }
}

fn weigh((_, repo): &(InstallationId, RepoName), token: &Arc<ReadToken>) -> usize {
    // Each name in two spellings, and the repository's in the key and in the token.
    let names = 2 * heap_bytes(token.owner().as_str()) + 4 * heap_bytes(repo.as_str());
    names + TOKEN_BYTES + size_of::<ReadToken>()
}

impl Read {
    fn new(file: File, installation: InstallationId) -> Self {
        match file {
            File::Present { bytes, sha, etag } => {
                let version = etag.map(|etag| Version { etag, installation });
                Self::Present { bytes, sha, version }
            }
            File::Unchanged => Self::Unchanged,
            File::NotAFile => Self::NotAFile,
            File::Absent => Self::Absent,
        }
    }
}
