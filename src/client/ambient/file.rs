//! A token in a file, as Kubernetes projects it: read anew each time, because it rotates.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{Error, IdentityToken, NoIdentity};
use crate::client::token;

/// No token is larger.
const MAX_BYTES: u64 = 64 << 10;

/// The file of a token that may be shown to others.
#[derive(Debug, Clone)]
pub(super) struct TokenFile(PathBuf);

impl TokenFile {
    /// Refuses the token by which the pod speaks to its own API server: whoever is shown it can act
    /// there as the pod, and it has the cluster's audience, not ours.
    pub(super) fn new(path: PathBuf) -> Result<Self, NoIdentity> {
        let is_api_token = is_of_api_server(&path)
            || path.canonicalize().is_ok_and(|path| is_of_api_server(&path));
        if is_api_token {
            return Err(NoIdentity(format!(
                "{} is the pod's token for its own API server, which must not be shown to anyone else. {PROJECT}",
                path.display()
            )));
        }
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The token that is there now.
    pub(super) fn read(&self) -> Result<IdentityToken, Error> {
        IdentityToken::parse(&self.text()?)
            .map_err(|error| Error::usage(format!("{} holds {error}", self.0.display())))
    }

    /// The credential that is there now, whatever its form: for a metadata server on this machine
    /// alone.
    pub(super) fn read_credential(&self) -> Result<SecretString, Error> {
        token(&self.text()?)
            .ok_or_else(|| Error::usage(format!("{} holds no credential", self.0.display())))
    }

    fn text(&self) -> Result<Zeroizing<String>, Error> {
        let path = self.0.display();
        let unreadable = |error: std::io::Error| Error::usage(format!("{path}: {}", error.kind()));
        if !self.0.metadata().map_err(unreadable)?.is_file() {
            return Err(Error::usage(format!("{path} is not a file")));
        }
        let mut text = Zeroizing::new(String::new());
        let file = File::open(&self.0).map_err(unreadable)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::usage(format!("{path} holds more than 64 KiB; expected a token")));
        }
        Ok(text)
    }
}

/// How to have a token of its own, for people.
pub(super) const PROJECT: &str = "Project a token of its own into the pod: a volume \
    `projected: {sources: [{serviceAccountToken: {path: token, audience: HOST_OF_THE_SERVER, expirationSeconds: 3600}}]}`, \
    mounted at /var/run/secrets/octo-sts";

fn is_of_api_server(path: &Path) -> bool {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str()).collect();
    parts.windows(2).any(
        |pair| matches!(pair, [one, two] if *one == "kubernetes.io" && *two == "serviceaccount"),
    )
}
