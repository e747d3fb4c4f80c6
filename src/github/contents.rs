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
    client::{Call, Kind, Reply},
    error::{Error, Failure},
    installation::Installation,
    jwt::bearer,
    lag,
    limits::Lane,
    mint::{Asked, Minted, mint_checked},
    revoke::Held,
};
use crate::{
    clock::UnixTime,
    name::{InstallationId, Owner, RepoName},
    policy::{Level, Permissions},
};

/// What stands for itself in a path: RFC 3986's unreserved characters, and the slash.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A token that may read the contents of one repository. It is revoked when it is dropped.
pub struct ReadToken {
    _held: Held,
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
    let asked = Asked {
        kind: Kind::ReadMint,
        repositories: Some(vec![repo.clone()]),
        permissions: Permissions::from([("contents".to_owned(), Level::Read)]),
    };
    let Minted { token, expires_at, repositories, .. } = mint_checked(inner, installation, asked).await?;
    let authorization = bearer(token.expose()).ok_or_else(|| Error::unavailable("the token is no header value"))?;
    // That each of them is the one asked for has been checked; none at all is no proof of anything.
    let seen = repositories.unwrap_or_default().into_iter().next();
    let seen = seen.ok_or_else(|| Error::unavailable("the reply names no repository"))?;
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

/// As [`super::GitHub::file`].
pub(super) async fn file(inner: &Inner, token: &ReadToken, path: &str, etag: Option<&str>) -> Result<File, Error> {
    let escaped = utf8_percent_encode(path, PATH);
    let address = format!("/repos/{}/{}/contents/{escaped}", token.owner, token.repo);
    let etag = etag.and_then(|etag| HeaderValue::from_str(etag).ok());
    let call = Call { etag, ..Call::get(Kind::Contents, address, token.authorization.clone()) };
    match lag::call(&inner.gate, Lane::Read(token.installation), &call, token.issued_at).await {
        Ok(reply) if reply.status == StatusCode::NOT_MODIFIED => Ok(File::Unchanged),
        Ok(reply) => Ok(parse(&reply, path)?),
        Err(Failure::Answered(answer)) if answer.status == StatusCode::NOT_FOUND => Ok(File::Absent),
        Err(Failure::Answered(answer)) if answer.status == StatusCode::FORBIDDEN && answer.too_large => {
            Ok(File::NotAFile)
        }
        Err(failure) => Err(refused(failure)),
    }
}

/// As [`super::GitHub::repository_visible`].
pub(super) async fn repository_visible(inner: &Inner, token: &ReadToken) -> Result<bool, Error> {
    let address = format!("/repos/{}/{}", token.owner, token.repo);
    let call = Call::get(Kind::Repository, address, token.authorization.clone());
    match lag::call(&inner.gate, Lane::Read(token.installation), &call, token.issued_at).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => Ok(false),
        Err(failure) => Err(refused(failure)),
    }
}

fn refused(failure: Failure) -> Error {
    let Failure::Answered(answer) = failure else { return failure.into() };
    match answer.status {
        _ if answer.moved() => Error::Moved,
        StatusCode::UNAUTHORIZED => Error::TokenRefused,
        StatusCode::FORBIDDEN if !answer.says("suspended") => Error::Forbidden(answer.cause()),
        _ => Failure::Answered(answer).into(),
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

pub(super) fn parse(reply: &Reply, path: &str) -> Result<File, Failure> {
    let entry = match reply.json()? {
        Contents::Directory(_) => return Ok(File::NotAFile),
        Contents::Entry(entry) if entry.r#type != "file" || entry.path != path => return Ok(File::NotAFile),
        Contents::Entry(entry) => entry,
    };
    let content = match (entry.encoding.as_deref(), entry.content) {
        (Some("base64"), Some(content)) => content,
        // What is over a megabyte comes without content.
        (Some("none"), _) => return Ok(File::NotAFile),
        _ => return Err(Failure::odd("the file has no content in base64")),
    };
    let packed: Vec<u8> = content.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(packed).map_err(|_| Failure::odd("the file's content is not base64"))?;
    if entry.size.is_some_and(|size| size != bytes.len()) {
        return Err(Failure::odd("the file's content is not complete"));
    }
    let etag = reply.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
    Ok(File::Present { bytes: bytes.into(), sha: entry.sha, etag })
}
