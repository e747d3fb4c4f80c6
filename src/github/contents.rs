//! Reading a policy: a token for one repository, and a file in it.
//!
//! Files are read as JSON and not raw, since only the JSON form tells a file from a symbolic link:
//! GitHub answers a link to a file with the file it points to, under that file's path.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    Inner,
    client::{ApiReply, Call, Endpoint},
    error::Error,
    installation::Installation,
    jwt::bearer,
    limits::LimitKey,
    meaning::Meaning,
    mint::{MintRefused, mint_checked},
    mint_calls::MintCalls,
    mint_reply::{Minted, Requested},
    replication,
    revoke::RevokeOnDrop,
};
use crate::{
    clock::UnixTime,
    name::{InstallationId, Owner, RepoName},
    policy::{Level, Permissions},
};

/// What stands for itself in a path: RFC 3986's unreserved characters, and the slash.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A token that may read the contents of one repository. It is revoked when it is dropped.
pub struct ReadToken {
    _held: RevokeOnDrop,
    authorization: HeaderValue,
    installation: InstallationId,
    owner: Owner,
    repo: RepoName,
    private: bool,
    issued_at: UnixTime,
    expires_at: UnixTime,
}

impl ReadToken {
    /// The repository's owner, as GitHub spells it.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The repository, as GitHub spells it.
    pub fn repo(&self) -> &RepoName {
        &self.repo
    }

    /// Whose it is.
    pub(super) fn installation(&self) -> InstallationId {
        self.installation
    }

    /// The header that carries it.
    pub(super) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// Whether the repository is private. GitHub then says 404 to a token that it has not spread.
    pub fn private(&self) -> bool {
        self.private
    }

    /// When it was minted, by our clock.
    pub fn issued_at(&self) -> UnixTime {
        self.issued_at
    }

    /// When it ends, as GitHub says.
    pub fn expires_at(&self) -> UnixTime {
        self.expires_at
    }
}

impl fmt::Debug for ReadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadToken")
            .field("owner", &self.owner)
            .field("repo", &self.repo)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// The same as at the time of the entity tag.
    Unchanged,
    /// A file.
    Present {
        /// Its bytes.
        bytes: Bytes,
        /// The id of its blob.
        sha: String,
        /// The entity tag: good for the token that read it.
        etag: Option<String>,
    },
    /// Something that is no file of its own: a directory, a symbolic link, a submodule, or more
    /// than the megabyte that GitHub sends.
    NotAFile,
    /// Nothing that the token sees.
    Absent,
}

/// As [`super::GitHub::read_token`].
pub(super) async fn read_token(
    inner: &Arc<Inner>,
    installation: &Installation,
    repo: &RepoName,
) -> Result<ReadToken, Error> {
    let permissions = Permissions::from([("contents".to_owned(), Level::Read)]);
    repository_token(inner, installation, repo, permissions).await
}

/// A token of our own for one repository.
pub(super) async fn repository_token(
    inner: &Arc<Inner>,
    installation: &Installation,
    repo: &RepoName,
    permissions: Permissions,
) -> Result<ReadToken, Error> {
    let repositories = Some(vec![repo.clone()]);
    let requested = Requested { endpoint: Endpoint::ReadMint, repositories, permissions };
    let minted = mint_checked(inner, installation, requested, &MintCalls::default()).await;
    let Minted { token, expires_at, repositories, .. } = minted.map_err(refused_mint)?;
    let authorization = bearer(token.expose())
        .ok_or_else(|| Error::Unexpected("the token is not a header value".into()))?;
    // That each of them is the requested one has been checked; none at all proves nothing.
    let seen = repositories.unwrap_or_default().into_iter().next();
    let seen = seen.ok_or_else(|| Error::Unexpected("the reply names no repository".into()))?;
    Ok(ReadToken {
        authorization,
        installation: installation.id(),
        owner: installation.owner().clone(),
        repo: seen.name.parse().unwrap_or_else(|_| repo.clone()),
        private: seen.private.unwrap_or(true),
        issued_at: token.issued_at(),
        expires_at,
        _held: token,
    })
}

/// What it means that GitHub does not mint a token to read with.
fn refused_mint(refused: MintRefused) -> Error {
    match refused {
        MintRefused::Error(error) => error,
        MintRefused::Answer(Meaning::NotFound(cause)) => Error::Stale(cause),
        MintRefused::Answer(Meaning::RepositoryNotAccessible(_)) => Error::RepositoryNotAccessible,
        MintRefused::Answer(Meaning::PermissionsNotGranted(cause)) => Error::Forbidden(cause),
        MintRefused::Answer(meaning) => meaning.into(),
    }
}

/// As [`super::GitHub::file`].
pub(super) async fn file(
    inner: &Inner,
    token: &ReadToken,
    path: &str,
    commit: Option<&str>,
    etag: Option<&str>,
) -> Result<File, Error> {
    let escaped = utf8_percent_encode(path, PATH);
    let mut address = format!("/repos/{}/{}/contents/{escaped}", token.owner, token.repo);
    if let Some(commit) = commit {
        address.push_str(&format!("?ref={}", utf8_percent_encode(commit, NON_ALPHANUMERIC)));
    }
    let etag = etag.and_then(|etag| HeaderValue::from_str(etag).ok());
    let call = Call { etag, ..Call::get(Endpoint::Contents, address, token.authorization.clone()) };
    match replication::call(&inner.gate, LimitKey::Read(token.installation), &call, token.issued_at)
        .await
    {
        Ok(reply) if reply.status == StatusCode::NOT_MODIFIED => Ok(File::Unchanged),
        Ok(reply) => parse(&reply, path),
        Err(Meaning::NotFound(_)) => Ok(File::Absent),
        Err(Meaning::TooLarge(_)) => Ok(File::NotAFile),
        Err(meaning) => Err(refused_read(meaning)),
    }
}

/// As [`super::GitHub::repository_visible`].
pub(super) async fn repository_visible(inner: &Inner, token: &ReadToken) -> Result<bool, Error> {
    let address = format!("/repos/{}/{}", token.owner, token.repo);
    let call = Call::get(Endpoint::Repository, address, token.authorization.clone());
    match replication::call(&inner.gate, LimitKey::Read(token.installation), &call, token.issued_at)
        .await
    {
        Ok(_) => Ok(true),
        Err(Meaning::NotFound(_)) => Ok(false),
        Err(meaning) => Err(refused_read(meaning)),
    }
}

/// What it means that GitHub does not let the token read.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what has no special consequence here is decided in one place"
)]
fn refused_read(meaning: Meaning) -> Error {
    match meaning {
        Meaning::Unauthorized(_) | Meaning::AppRefused(..) => Error::TokenRefused,
        meaning => meaning.into(),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Contents {
    Entry(Entry),
    Directory(#[expect(dead_code, reason = "only the shape matters")] Vec<IgnoredAny>),
}

#[derive(Deserialize)]
struct Entry {
    r#type: String,
    path: String,
    sha: String,
    size: Option<usize>,
    encoding: Option<String>,
    content: Option<String>,
}

pub(super) fn parse(reply: &ApiReply, path: &str) -> Result<File, Error> {
    let entry = match reply.json()? {
        Contents::Directory(_) => return Ok(File::NotAFile),
        Contents::Entry(entry) if entry.r#type != "file" || entry.path != path => {
            return Ok(File::NotAFile);
        }
        Contents::Entry(entry) => entry,
    };
    let content = match (entry.encoding.as_deref(), entry.content) {
        (Some("base64"), Some(content)) => content,
        // What is over a megabyte comes without content.
        (Some("none"), _) => return Ok(File::NotAFile),
        _ => return Err(Error::Unexpected("the file has no content in base64".into())),
    };
    let packed: Vec<u8> = content.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = STANDARD
        .decode(packed)
        .map_err(|_| Error::Unexpected("the file's content is not base64".into()))?;
    if entry.size.is_some_and(|size| size != bytes.len()) {
        return Err(Error::Unexpected("the file's content is not complete".into()));
    }
    let etag =
        reply.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
    Ok(File::Present { bytes: bytes.into(), sha: entry.sha, etag })
}
