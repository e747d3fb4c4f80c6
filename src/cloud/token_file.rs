//! A token in a file, as Kubernetes projects it: read anew each time, because it rotates.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{Error, IdentityToken, secret_text};

/// No token is larger.
const MAX_BYTES: u64 = 64 << 10;

/// The file of a token that may be shown to others.
#[derive(Debug, Clone)]
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// Refuses the token by which the pod calls its own API server: anyone who receives it can act
    /// there as the pod, and it has the cluster's audience, not ours.
    ///
    /// # Errors
    /// It is that token.
    pub fn new(path: PathBuf) -> Result<Self, Error> {
        let is_api_token = is_of_api_server(&path)
            || path.canonicalize().is_ok_and(|path| is_of_api_server(&path));
        if is_api_token {
            return Err(Error::Configuration(format!(
                "{} is the pod's token for its own API server, which must not be shown to anyone else",
                path.display()
            )));
        }
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The token that is there now.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold an identity token.
    pub fn read(&self) -> Result<IdentityToken, Error> {
        IdentityToken::parse(&self.text()?)
            .map_err(|error| Error::configuration(format!("{} holds {error}", self.0.display())))
    }

    /// The credential that is there now, whatever its form: for a metadata server on this machine
    /// alone.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold one word.
    pub fn read_credential(&self) -> Result<SecretString, Error> {
        secret_text(&self.text()?).ok_or_else(|| {
            Error::configuration(format!("{} holds no credential", self.0.display()))
        })
    }

    /// What is in the file now.
    pub(super) fn text(&self) -> Result<Zeroizing<String>, Error> {
        let path = self.0.display();
        let unreadable =
            |error: std::io::Error| Error::configuration(format!("{path}: {}", error.kind()));
        if !self.0.metadata().map_err(unreadable)?.is_file() {
            return Err(Error::configuration(format!("{path} is not a file")));
        }
        let mut text = Zeroizing::new(String::new());
        let file = File::open(&self.0).map_err(unreadable)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::configuration(format!(
                "{path} holds more than 64 KiB; expected a token"
            )));
        }
        Ok(text)
    }
}

/// Whether a line of a file in which the firmware describes the machine begins so.
pub fn firmware_says(folder: &Path, file: &str, wanted: &str) -> bool {
    std::fs::read_to_string(folder.join(file))
        .is_ok_and(|text| text.trim_start().starts_with(wanted))
}

fn is_of_api_server(path: &Path) -> bool {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str()).collect();
    parts.windows(2).any(
        |pair| matches!(pair, [one, two] if *one == "kubernetes.io" && *two == "serviceaccount"),
    )
}
